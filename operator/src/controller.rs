//! From a resource to a running installation: one reconcile in five steps, and what calls it.

pub mod apply;
pub mod build;
pub mod children;
pub mod events;
mod fetch;
pub mod probes;
mod queue;
pub mod references;
pub mod status;
pub mod switching;
pub mod validate;
pub mod volume;
mod watches;
pub mod workload;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use luminate_crds::condition::Reason;
use luminate_crds::luminate::{Backend, Luminate, LuminateStatus};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{Cluster, said};
use crate::progress::Progress;
use crate::telemetry::Metrics;
use apply::{Applied, ApplyError, Notes, wanted_digest};
use build::MANAGER;
use children::Children;
use events::Events;
use fetch::Fetched;
use probes::Probes;
use queue::Queue;
use references::{Key, References};
use status::{Problem, Seen};
use switching::Switch;
use validate::{Refused, Validated, validate};
use workload::Workload;

pub use watches::{ClientHandle, Settings, run};

/// A resource, or what is left of one that can't be read: it must not keep the others from being served.
pub type Guarded = DeserializeGuard<Luminate>;

/// How soon something is looked at again that no watch tells of: a foreign object that is in the way, a
/// volume that can't grow.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How soon a rollout is looked at again: it may have become one without end.
const STILL_ROLLING: Duration = Duration::from_secs(60);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures in a row until the status tells of them.
const TELL_AFTER: u32 = 5;

/// What every reconcile of one watched scope shares.
#[derive(Debug)]
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// The resources, as their watch saw them.
    resources: Store<Guarded>,
    /// What the watches saw of objects.
    pub children: Children,
    /// What resources refer to.
    pub references: References,
    /// What was applied last.
    pub notes: Notes,
    /// Whether ClickHouse's servers answer.
    pub probes: Arc<Probes>,
    /// Where transitions are told.
    pub events: Events,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// What waits and runs.
    pub progress: Arc<Progress>,
    /// How long a settled resource is left alone; then everything of it is read again.
    resync: Duration,
    queue: Queue,
    monitors: AtomicBool,
    memory: Mutex<HashMap<Key, Memory>>,
}

/// What is remembered of a resource between reconciles.
#[derive(Debug, Clone, Default)]
struct Memory {
    failures: u32,
    read_all: Option<Instant>,
    /// The status written last, and the version that it led to.
    status: Option<(LuminateStatus, u64)>,
}

/// Why a reconcile ended early. It is tried again after a pause.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The API server didn't do what was asked.
    #[error("{}", said(.0))]
    Api(#[from] kube::Error),
    /// An object couldn't be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// It took too long.
    #[error("a reconcile took longer than {} s", LONGEST.as_secs())]
    TooLong,
    /// A bug: the log says where.
    #[error("a reconcile panicked")]
    Panicked,
}

const LONGEST: Duration = Duration::from_secs(60);

impl Context {
    /// Whether the cluster knows ServiceMonitors.
    #[must_use]
    pub fn service_monitors(&self) -> bool {
        self.monitors.load(Ordering::Relaxed)
    }

    /// A resource is gone: nothing of it is remembered.
    fn forget(&self, key: &Key) {
        self.memory.lock().remove(key);
        self.notes.forget(key);
        self.probes.forget(key);
        self.progress.forget(key);
        self.references.note(key, []);
    }

    /// It may have gone while it was being worked on.
    fn forget_if_gone(&self, key: &Key) {
        if self.resources.get(&ObjectRef::new(&key.name).within(&key.namespace)).is_none() {
            self.forget(key);
        }
    }

    fn remember<T>(&self, key: &Key, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(self.memory.lock().entry(key.clone()).or_default())
    }

    /// The API server answers again: what failed meanwhile need not wait for the end of its pause.
    fn retry_failed(&self) {
        let memory = self.memory.lock();
        let failed = memory.iter().filter(|(_, memory)| memory.failures > 0);
        failed.for_each(|(key, _)| self.queue.push(key.clone()));
    }

    /// Now and then everything is read again, whatever the watches say.
    fn read_all_if_due(&self, key: &Key) {
        let due = self.remember(key, |memory| {
            let due = memory.read_all.is_none_or(|last| last.elapsed() >= self.resync / 2);
            if due {
                memory.read_all = Some(Instant::now());
            }
            due
        });
        if due {
            self.notes.refresh(key);
            self.references.refresh(key);
        }
    }
}

/// A reconcile, with its time limit and its trace.
async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    let key = Key::new(guarded.namespace().unwrap_or_default(), guarded.name_any());
    let _running = context.progress.begins(&key);
    let began = Instant::now();
    let outcome = match &guarded.0 {
        Ok(resource) => tokio::time::timeout(LONGEST, serve(&context, &key, resource)).await,
        Err(invalid) => Ok(unreadable(&context, &guarded, &invalid.error).await),
    };
    let outcome = outcome.unwrap_or(Err(Failed::TooLong));
    let name = if outcome.is_ok() { "done" } else { "failed" };
    context.metrics.reconciled(name, began.elapsed());
    if outcome.is_ok() {
        context.remember(&key, |memory| memory.failures = 0);
    }
    context.forget_if_gone(&key);
    outcome
}

/// The five steps.
async fn serve(context: &Context, key: &Key, resource: &Luminate) -> Result<Action, Failed> {
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    context.read_all_if_due(key);
    // 1. What the resource refers to and what there is of it. IO, may fail.
    let fetched = fetch::fetch(context, resource).await?;
    // 2. Can it be served? Pure, may refuse.
    let validated = match validate(resource, &fetched.around) {
        Ok(validated) => validated,
        Err(refused) => return refuse(context, key, resource, &fetched, refused).await,
    };
    let switch = Switch::of(resource, &fetched.sight(), validated.least_replicas().max(1));
    let held = validated.spec.paused || matches!(switch, Switch::Refused { .. });
    // 3 and 4. What should be (pure, can't fail), and making it so. IO, may fail.
    let applied = match held {
        true => None,
        false => Some(apply::apply(context, resource, &validated, &fetched, switch).await?),
    };
    // 5. What came of it. IO, may fail.
    let seen = seen(&validated, &fetched, switch, applied);
    let reach = context.probes.follow(key, resource);
    let status = status::of_valid(resource, &validated, switch, &seen, &reach, Timestamp::now());
    write_status(context, key, resource, status, !validated.spec.paused).await?;
    for problem in &seen.problems {
        context.metrics.problem(problem.reason);
    }
    Ok(next_look(&seen, context.resync))
}

/// When to look again, if no watch says so earlier.
fn next_look(seen: &Seen, resync: Duration) -> Action {
    let settled = seen.workload.is_some_and(|workload| workload.is_settled());
    Action::requeue(jittered(match seen {
        Seen { waiting: true, .. } => LOOK_AGAIN,
        Seen { problems, .. } if !problems.is_empty() => LOOK_AGAIN,
        _ if !settled => STILL_ROLLING,
        _ => resync,
    }))
}

/// What the status needs to know of a reconcile.
fn seen(validated: &Validated, fetched: &Fetched, switch: Switch, applied: Option<Applied>) -> Seen {
    let backend = validated.backend();
    let sight = fetched.sight();
    let serving = sight.workload(backend.other()).map(Workload::of);
    let kind = match backend {
        Backend::ClickHouse => crate::object::Kind::Deployment,
        Backend::RocksDB => crate::object::Kind::StatefulSet,
    };
    let (live, digest, applied) = match applied {
        None => {
            (sight.workload(backend).cloned(), wanted_digest(validated, fetched, switch), Applied::default())
        }
        Some(mut applied) => {
            let digest = std::mem::take(&mut applied.workload_digest);
            (applied.workloads.remove(&kind), digest, applied)
        }
    };
    let noted =
        live.as_ref().and_then(|live| live["metadata"]["annotations"][crate::object::APPLIED].as_str());
    Seen {
        current: noted.is_some_and(|noted| noted == digest),
        workload: live.as_ref().map(Workload::of),
        serving,
        waiting: applied.waiting,
        growing: applied.growing,
        problems: applied.problems,
    }
}

/// Says why a resource can't be served. What runs is left as it is, until the resource or what it refers to
/// changes.
async fn refuse(
    context: &Context,
    key: &Key,
    resource: &Luminate,
    fetched: &Fetched,
    refused: Refused,
) -> Result<Action, Failed> {
    context.metrics.problem(refused.reason);
    let sight = fetched.sight();
    let serving = [Backend::ClickHouse, Backend::RocksDB]
        .into_iter()
        .find_map(|backend| Some((backend, Workload::of(sight.workload(backend)?))));
    let status = status::of_refused(resource, &refused, serving, Timestamp::now());
    write_status(context, key, resource, status, !resource.spec.paused).await?;
    Ok(Action::requeue(jittered(context.resync)))
}

/// Writes the status if it differs from the one that is there, and tells of what changed.
async fn write_status(
    context: &Context,
    key: &Key,
    resource: &Luminate,
    status: LuminateStatus,
    tell: bool,
) -> Result<(), Failed> {
    let version = number(resource.resource_version());
    // The cache may still show what was there before this process wrote last.
    let newer = context.remember(key, |memory| {
        memory.status.as_ref().filter(|(_, written)| *written > version).map(|(status, _)| status.clone())
    });
    let before = newer.as_ref().or(resource.status.as_ref());
    if before.is_some_and(|before| same(before, &status)) {
        return Ok(());
    }
    let values = serde_json::to_value(&status).map_err(kube::Error::SerdeError)?;
    let written = context.cluster.write_status(MANAGER, resource, &values).await?;
    let transitions = status::transitions(before, &status);
    transitions.iter().for_each(|transition| log(key, transition));
    context.remember(key, |memory| memory.status = Some((status, number(written))));
    if tell {
        context.events.tell(resource, &transitions);
    }
    Ok(())
}

/// What the status tells is logged when it changes, not as often as it is looked at.
fn log(key: &Key, transition: &status::Transition) {
    let status::Transition { condition, reason, note, .. } = transition;
    if transition.warning {
        tracing::warn!(resource = %key, condition, reason, note);
    } else {
        tracing::info!(resource = %key, condition, reason, note);
    }
}

/// A version as a number; the API server counts them up.
fn number(version: Option<String>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Whether two statuses say the same. When a condition took its status is compared through the status.
fn same(before: &LuminateStatus, after: &LuminateStatus) -> bool {
    let without_times = |status: &LuminateStatus| {
        let mut status = status.clone();
        for condition in &mut status.conditions {
            condition.last_transition_time =
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
        }
        status
    };
    without_times(before) == without_times(after)
}

/// Says that a resource can't be read. Others are served meanwhile.
async fn unreadable(context: &Context, guarded: &Guarded, error: &str) -> Result<Action, Failed> {
    context.metrics.problem(Reason::Unreadable);
    let refused = Refused {
        reason: Reason::Unreadable,
        message: format!("the resource can't be read as a Luminate: {error}"),
    };
    // A resource of which nothing but the metadata is known; the message says the same as long as it is.
    let mut stand_in =
        Luminate::new(&guarded.name_any(), luminate_crds::luminate::LuminateSpec::of(Backend::RocksDB));
    stand_in.metadata = guarded.meta().clone();
    let key = Key::new(guarded.namespace().unwrap_or_default(), guarded.name_any());
    let written = context.remember(&key, |memory| memory.status.as_ref().map(|(status, _)| status.clone()));
    stand_in.status = match written {
        Some(status) => Some(status),
        None => context.cluster.status_of(&key.namespace, &key.name).await?,
    };
    let status = status::of_refused(&stand_in, &refused, None, Timestamp::now());
    match write_status(context, &key, &stand_in, status, true).await {
        // The status' schema may be what it can't be read by: then only the log tells of it.
        Err(Failed::Api(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
            tracing::warn!(resource = %key, error, "the resource can't be read");
        }
        Err(other) => return Err(other),
        Ok(()) => {}
    }
    Ok(Action::await_change())
}

/// After a failure: again after a pause that doubles, for each resource on its own.
fn pause(guarded: Arc<Guarded>, failed: &Failed, context: Arc<Context>) -> Action {
    let key = Key::new(guarded.namespace().unwrap_or_default(), guarded.name_any());
    let failures = context.remember(&key, |memory| {
        memory.failures += 1;
        memory.failures
    });
    context.forget_if_gone(&key);
    if matches!(failed, Failed::Apply(ApplyError::Stale)) {
        tracing::debug!(resource = %key, "{failed}");
    } else {
        tracing::warn!(resource = %key, failures, error = %failed, "a reconcile failed; it is tried again");
    }
    if failures == TELL_AFTER {
        context.metrics.problem(Reason::ApiUnavailable);
        let problem = Problem { reason: Reason::ApiUnavailable, message: failed.to_string(), blocks: false };
        tell_failure(&guarded, &problem, &context);
    }
    Action::requeue(jittered(backoff(failures)))
}

/// An event, not a status: the next reconcile that succeeds says how it is.
fn tell_failure(guarded: &Guarded, problem: &Problem, context: &Context) {
    let transition = status::Transition {
        warning: true,
        reason: problem.reason.name().to_owned(),
        condition: "Reconcile".to_owned(),
        note: format!("Reconciling fails again and again: {}", problem.message),
    };
    context.events.tell(guarded, &[transition]);
}

/// 0.25 s, doubled with each failure, up to a minute.
fn backoff(failures: u32) -> Duration {
    let doubled = Duration::from_millis(250).saturating_mul(1 << failures.saturating_sub(1).min(12));
    doubled.min(LONGEST_PAUSE)
}

/// Up to a fifth longer, so that many resources don't come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the pause is what it is.
    let _ = getrandom::fill(&mut byte);
    pause + pause.mul_f64(f64::from(byte[0]) / 255.0 / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let millis = |failures| backoff(failures).as_millis();
        assert_eq!([millis(1), millis(2), millis(5)], [250, 500, 4_000]);
        assert_eq!(backoff(100), LONGEST_PAUSE);
        let jittered = jittered(LONGEST_PAUSE);
        assert!(jittered >= LONGEST_PAUSE && jittered <= LONGEST_PAUSE + LONGEST_PAUSE / 5);
    }

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let status = LuminateStatus { replicas: Some(1), ..LuminateStatus::default() };
        assert!(same(&status, &status.clone()));
        assert!(!same(&status, &LuminateStatus { replicas: Some(2), ..LuminateStatus::default() }));
    }
}
