//! Step 5: what the resource's status says. Everything but the write itself is pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use luminate_crds::condition::{ConditionType, Reason};
use luminate_crds::luminate::{Backend, Luminate, LuminateStatus};

use super::build::{INSTANCE, endpoint, selector_text};
use super::probes::Reach;
use super::switching::Switch;
use super::validate::{Refused, Validated};
use super::workload::Workload;

/// Something that is wrong and will stay so until somebody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The reason, from the closed list.
    pub reason: Reason,
    /// What is wrong, in a sentence.
    pub message: String,
    /// Whether an object could not be brought to what this generation wants.
    pub blocks: bool,
}

/// What was seen and done in a reconcile.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The workload of the resource's backend.
    pub workload: Option<Workload>,
    /// The workload that serves, where another does.
    pub serving: Option<Workload>,
    /// Whether the workload is what this generation wants.
    pub current: bool,
    /// Whether an object has to go before it can be made anew.
    pub waiting: bool,
    /// Whether the volume's driver is at work.
    pub growing: bool,
}

/// A condition before it is compared with the one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    kind: ConditionType,
    status: &'static str,
    reason: Reason,
    message: String,
}

impl Verdict {
    fn new(kind: ConditionType, status: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        // The API server refuses longer ones.
        let message: String = message.into().chars().take(4_096).collect();
        Self { kind, status, reason, message }
    }
}

/// The status of a resource that can be served.
#[must_use]
pub fn of_valid(
    resource: &Luminate,
    validated: &Validated,
    switch: Switch,
    seen: &Seen,
    reach: &Reach,
    now: Timestamp,
) -> LuminateStatus {
    let verdicts = [
        ready(validated, switch, seen),
        progressing(validated, switch, seen),
        degraded(resource, validated, switch, seen, now),
        Verdict::new(ConditionType::SpecValid, "True", Reason::Valid, "the resource can be served"),
        reachable(resource, validated, reach),
    ];
    let backend = validated.backend();
    let traffic = switch.traffic(backend);
    let counted = if traffic == backend { seen.workload } else { seen.serving };
    LuminateStatus {
        observed_generation: resource.metadata.generation,
        conditions: conditions(resource, verdicts, now),
        replicas: Some(counted.map_or(0, |workload| workload.replicas)),
        ready_replicas: Some(counted.map_or(0, |workload| workload.ready)),
        selector: Some(selector_text(&validated.name, traffic)),
        endpoint: Some(endpoint(validated)),
        backend: Some(traffic.name().to_owned()),
        plan: plan(resource, validated, switch, seen),
    }
}

/// The status of a resource that can't be served. What runs goes on running as it is.
#[must_use]
pub fn of_refused(
    resource: &Luminate,
    refused: &Refused,
    serving: Option<(Backend, Workload)>,
    now: Timestamp,
) -> LuminateStatus {
    let said = |kind, status| Verdict::new(kind, status, refused.reason, refused.message.as_str());
    let verdicts = [
        said(ConditionType::Ready, "False"),
        said(ConditionType::Progressing, "False"),
        said(ConditionType::Degraded, "True"),
        said(ConditionType::SpecValid, "False"),
        Verdict::new(ConditionType::BackendReachable, "Unknown", Reason::NotProbed, "nothing was asked"),
    ];
    let before = resource.status.clone().unwrap_or_default();
    LuminateStatus {
        observed_generation: resource.metadata.generation,
        conditions: conditions(resource, verdicts, now),
        replicas: Some(serving.map_or(0, |(_, workload)| workload.replicas)),
        ready_replicas: Some(serving.map_or(0, |(_, workload)| workload.ready)),
        selector: serving.map(|(backend, _)| selector_text(&resource.name_any(), backend)),
        endpoint: before.endpoint,
        backend: serving.map(|(backend, _)| backend.name().to_owned()),
        plan: None,
    }
}

fn ready(validated: &Validated, switch: Switch, seen: &Seen) -> Verdict {
    let not = |reason, message: String| Verdict::new(ConditionType::Ready, "False", reason, message);
    if let Switch::Refused { .. } = switch {
        return not(Reason::BackendSwitchRefused, refused_switch(validated));
    }
    if let Some(problem) = seen.problems.iter().find(|problem| problem.blocks) {
        return not(problem.reason, problem.message.clone());
    }
    if switch != Switch::None {
        return not(
            Reason::SwitchingBackend,
            "the backend is being switched; status.plan says the next step".into(),
        );
    }
    if validated.spec.replicas == 0 && !validated.autoscaled() {
        return not(Reason::ScaledToZero, "replicas is 0".into());
    }
    let Some(workload) = seen.workload else {
        return not(Reason::WaitingForReplicas, "there are no workers yet".into());
    };
    let least = validated.least_replicas();
    if !seen.current && validated.spec.paused {
        return not(Reason::Paused, "changes wait, because paused is true".into());
    }
    if seen.current && workload.is_complete(least) {
        let message = format!("{} of {} workers are ready", workload.ready, workload.wanted.max(least));
        return Verdict::new(ConditionType::Ready, "True", Reason::Available, message);
    }
    let rolling = !workload.observed || workload.updated < workload.replicas;
    let count = format!("{} of {} workers are ready", workload.ready, workload.wanted.max(least));
    if rolling {
        return not(Reason::RollingOut, count);
    }
    // An image, a volume or a password: only the pods know, and reading them is no right of the operator.
    let pods = format!("-n {} -l {INSTANCE}={}", validated.namespace, validated.name);
    let advice = format!("why is said by kubectl describe pod {pods}, or by kubectl logs {pods}");
    not(Reason::WaitingForReplicas, format!("{count}; {advice}"))
}

fn progressing(validated: &Validated, switch: Switch, seen: &Seen) -> Verdict {
    let said =
        |status, reason, message: String| Verdict::new(ConditionType::Progressing, status, reason, message);
    if validated.spec.paused {
        return said("False", Reason::Paused, "nothing but the status is written".into());
    }
    match switch {
        Switch::None => {}
        Switch::Refused { .. } => {
            return said("False", Reason::BackendSwitchRefused, refused_switch(validated));
        }
        _ => return said("True", Reason::SwitchingBackend, "status.plan says the next step".into()),
    }
    if seen.growing {
        return said("True", Reason::GrowingVolume, "the volume is being made larger".into());
    }
    let settled = seen.workload.is_some_and(|workload| workload.is_settled());
    if let Some(problem) = seen.problems.iter().find(|problem| problem.blocks)
        && (settled || seen.workload.is_none())
    {
        return said("False", problem.reason, problem.message.clone());
    }
    if seen.waiting || !settled {
        let workload = seen.workload.unwrap_or_default();
        let message = format!(
            "{} of {} workers are of the newest template, {} are ready",
            workload.updated, workload.wanted, workload.ready
        );
        return said("True", Reason::RollingOut, message);
    }
    said("False", Reason::Settled, "every object is as it should be".into())
}

fn degraded(
    resource: &Luminate,
    validated: &Validated,
    switch: Switch,
    seen: &Seen,
    now: Timestamp,
) -> Verdict {
    let wrong = |reason, message: String| Verdict::new(ConditionType::Degraded, "True", reason, message);
    if let Switch::Refused { .. } = switch {
        return wrong(Reason::BackendSwitchRefused, refused_switch(validated));
    }
    if let Some(problem) = seen.problems.first() {
        return wrong(problem.reason, problem.message.clone());
    }
    let Some(workload) = seen.workload else { return as_expected() };
    if workload.stuck || (!workload.is_settled() && progresses_since(resource, now) > STUCK_AFTER_SECONDS) {
        return wrong(Reason::RolloutStuck, "the newest pods don't get ready; look at their events".into());
    }
    as_expected()
}

fn as_expected() -> Verdict {
    Verdict::new(ConditionType::Degraded, "False", Reason::AsExpected, "nothing is wrong")
}

/// A StatefulSet's controller never gives up on a rollout; so it is judged by its time.
const STUCK_AFTER_SECONDS: i64 = 600;

/// For how many seconds the status has been saying that pods are being replaced or added.
fn progresses_since(resource: &Luminate, now: Timestamp) -> i64 {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let rolling = |condition: &&Condition| {
        condition.type_ == ConditionType::Progressing.name()
            && condition.status == "True"
            && condition.reason == Reason::RollingOut.name()
    };
    let since = conditions.into_iter().find(rolling).map(|condition| condition.last_transition_time.0);
    since.map_or(0, |since| now.as_second() - since.as_second())
}

fn refused_switch(validated: &Validated) -> String {
    let from = validated.backend().other().name();
    format!("the installation runs on {from}; a switch of the backend needs leave, as status.plan says")
}

fn reachable(resource: &Luminate, validated: &Validated, reach: &Reach) -> Verdict {
    let said = |status, reason, message: String| {
        Verdict::new(ConditionType::BackendReachable, status, reason, message)
    };
    if validated.backend() == Backend::RocksDB {
        return said("True", Reason::Embedded, "the store is part of the worker".into());
    }
    match reach {
        Reach::NotProbed => before(resource)
            .unwrap_or_else(|| said("Unknown", Reason::NotProbed, "no server has been asked yet".into())),
        Reach::Reachable => said("True", Reason::Reachable, "every server answers".into()),
        Reach::Unreachable(servers) => {
            said("False", Reason::Unreachable, format!("no answer from {}", servers.join(", ")))
        }
        Reach::Unresolved(servers) => {
            said("Unknown", Reason::NameNotResolved, format!("can't resolve {}", servers.join(", ")))
        }
    }
}

/// What was said before this process began to ask: a restart of the operator is no news.
fn before(resource: &Luminate) -> Option<Verdict> {
    let conditions = &resource.status.as_ref()?.conditions;
    let known = conditions.iter().find(|known| known.type_ == ConditionType::BackendReachable.name())?;
    let said =
        [("True", Reason::Reachable), ("False", Reason::Unreachable), ("Unknown", Reason::NameNotResolved)];
    let (status, reason) =
        said.into_iter().find(|(status, reason)| *status == known.status && reason.name() == known.reason)?;
    Some(Verdict::new(ConditionType::BackendReachable, status, reason, known.message.as_str()))
}

fn plan(resource: &Luminate, validated: &Validated, switch: Switch, seen: &Seen) -> Option<String> {
    let generation = resource.metadata.generation.unwrap_or_default();
    switch.plan(validated.backend(), generation).or_else(|| {
        let size = validated.spec.rocksdb_or_default().storage;
        seen.growing.then(|| format!("The volume grows to {size}; the worker goes on serving."))
    })
}

/// Conditions with their times: a time changes only with the status of its condition.
fn conditions(resource: &Luminate, verdicts: [Verdict; 5], now: Timestamp) -> Vec<Condition> {
    let before = resource.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |verdict: Verdict| {
        let same =
            before.iter().find(|known| known.type_ == verdict.kind.name() && known.status == verdict.status);
        Condition {
            type_: verdict.kind.name().to_owned(),
            status: verdict.status.to_owned(),
            reason: verdict.reason.name().to_owned(),
            message: verdict.message,
            observed_generation: resource.metadata.generation,
            last_transition_time: same.map_or(Time(now), |known| known.last_transition_time.clone()),
        }
    };
    verdicts.into_iter().map(condition).collect()
}

/// A transition that a person would want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Whether it is a warning.
    pub warning: bool,
    /// The condition's reason.
    pub reason: String,
    /// The condition's type.
    pub condition: String,
    /// What is said.
    pub note: String,
}

/// What changed between two statuses that is worth an event.
#[must_use]
pub fn transitions(before: Option<&LuminateStatus>, after: &LuminateStatus) -> Vec<Transition> {
    let known = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let changed = after.conditions.iter().filter(|condition| {
        let same = |other: &&Condition| {
            other.type_ == condition.type_
                && other.status == condition.status
                && other.reason == condition.reason
        };
        known.iter().find(same).is_none()
    });
    changed.filter_map(transition).collect()
}

fn transition(condition: &Condition) -> Option<Transition> {
    let reason = Reason::ALL.iter().find(|reason| reason.name() == condition.reason)?;
    let warning = match (condition.type_.as_str(), condition.status.as_str()) {
        ("Degraded", "True") | ("BackendReachable", "False") => true,
        ("Ready" | "Degraded" | "BackendReachable", _) if worth_telling(condition) => false,
        ("Progressing", "True") if *reason != Reason::RollingOut => false,
        _ => return None,
    };
    let note = match warning {
        true => format!("{} {}", sentence(&condition.message), reason.advice()),
        false => sentence(&condition.message),
    };
    Some(Transition { warning, reason: condition.reason.clone(), condition: condition.type_.clone(), note })
}

/// Of what is well, only that it serves (again).
fn worth_telling(condition: &Condition) -> bool {
    condition.type_ == "Ready" && condition.status == "True"
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{clickhouse, resource, rocksdb, validated};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn complete(replicas: i32) -> Workload {
        Workload {
            wanted: replicas,
            replicas,
            updated: replicas,
            ready: replicas,
            observed: true,
            stuck: false,
        }
    }

    fn seen(workload: Workload) -> Seen {
        Seen { workload: Some(workload), current: true, ..Seen::default() }
    }

    fn status(seen: &Seen, switch: Switch) -> LuminateStatus {
        let spec = clickhouse();
        of_valid(&resource("prod", spec.clone()), &validated(spec), switch, seen, &Reach::Reachable, NOW)
    }

    fn said(status: &LuminateStatus, kind: &str) -> (String, String) {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn pair(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn where_something_is_in_the_way_nothing_progresses_and_nothing_is_said_to_be_well() {
        let problem = Problem { reason: Reason::ForeignObject, message: "taken".into(), blocks: true };
        let mut seen = Seen { problems: vec![problem], ..Seen::default() };
        assert_eq!(said(&status(&seen, Switch::None), "Progressing"), pair("False", "ForeignObject"));
        seen.workload = Some(Workload { ready: 1, ..complete(3) });
        assert_eq!(said(&status(&seen, Switch::None), "Progressing"), pair("True", "RollingOut"));
    }

    #[test]
    fn a_complete_installation_is_ready_and_settled() {
        let status = status(&seen(complete(3)), Switch::None);
        assert_eq!(said(&status, "Ready"), pair("True", "Available"));
        assert_eq!(said(&status, "Progressing"), pair("False", "Settled"));
        assert_eq!(said(&status, "Degraded"), pair("False", "AsExpected"));
        assert_eq!(said(&status, "SpecValid"), pair("True", "Valid"));
        assert_eq!(said(&status, "BackendReachable"), pair("True", "Reachable"));
        assert_eq!((status.replicas, status.ready_replicas), (Some(3), Some(3)));
        assert_eq!(status.endpoint.as_deref(), Some("http://prod.default.svc:8080"));
        assert_eq!(status.backend.as_deref(), Some("ClickHouse"));
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(1)));
    }

    #[test]
    fn it_is_not_ready_while_an_older_generation_serves() {
        let old = Seen { current: false, ..seen(complete(3)) };
        assert_eq!(said(&status(&old, Switch::None), "Ready").0, "False");
        let rolling = seen(Workload { updated: 1, ..complete(3) });
        assert_eq!(said(&status(&rolling, Switch::None), "Ready"), pair("False", "RollingOut"));
        let none = Seen::default();
        assert_eq!(said(&status(&none, Switch::None), "Ready"), pair("False", "WaitingForReplicas"));
    }

    #[test]
    fn who_waits_for_pods_is_told_where_to_look() {
        let waiting = status(&seen(Workload { ready: 1, ..complete(3) }), Switch::None);
        assert_eq!(said(&waiting, "Ready"), pair("False", "WaitingForReplicas"));
        let message = waiting
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .map(|it| it.message.as_str());
        let pods = "-n default -l app.kubernetes.io/instance=prod";
        let expected = format!(
            "1 of 3 workers are ready; why is said by kubectl describe pod {pods}, or by kubectl logs {pods}"
        );
        assert_eq!(message, Some(expected.as_str()));
    }

    #[test]
    fn scaling_out_progresses_but_stays_ready() {
        let status =
            status(&seen(Workload { wanted: 5, replicas: 5, updated: 5, ..complete(3) }), Switch::None);
        assert_eq!(said(&status, "Ready").0, "True");
        assert_eq!(said(&status, "Progressing").0, "True");
    }

    #[test]
    fn what_blocks_an_object_makes_it_not_ready() {
        let problem =
            |blocks| Problem { reason: Reason::ForeignObject, message: "Service prod".into(), blocks };
        let blocked = status(&Seen { problems: vec![problem(true)], ..seen(complete(3)) }, Switch::None);
        assert_eq!(said(&blocked, "Ready"), pair("False", "ForeignObject"));
        assert_eq!(said(&blocked, "Degraded"), pair("True", "ForeignObject"));
        let told = status(&Seen { problems: vec![problem(false)], ..seen(complete(3)) }, Switch::None);
        assert_eq!(said(&told, "Ready").0, "True");
        assert_eq!(said(&told, "Degraded").0, "True");
    }

    #[test]
    fn a_switch_is_explained() {
        let refused = status(&seen(complete(3)), Switch::Refused { from: Backend::RocksDB });
        assert_eq!(said(&refused, "Ready"), pair("False", "BackendSwitchRefused"));
        assert!(refused.plan.unwrap().contains("luminate.dev/allow-backend-switch: \"1\""));
        assert_eq!(refused.backend.as_deref(), Some("RocksDB"));
        let under_way = status(&seen(complete(3)), Switch::BringUp { from: Backend::RocksDB });
        assert_eq!(said(&under_way, "Progressing"), pair("True", "SwitchingBackend"));
        assert!(under_way.plan.unwrap().starts_with("1/3"));
    }

    #[test]
    fn maintenance_and_pause_say_so() {
        let mut spec = rocksdb();
        spec.replicas = 0;
        spec.paused = true;
        let resource = resource("prod", spec.clone());
        let status =
            of_valid(&resource, &validated(spec), Switch::None, &seen(complete(0)), &Reach::NotProbed, NOW);
        assert_eq!(said(&status, "Ready"), pair("False", "ScaledToZero"));
        assert_eq!(said(&status, "Progressing"), pair("False", "Paused"));
        assert_eq!(said(&status, "BackendReachable"), pair("True", "Embedded"));
    }

    #[test]
    fn a_refused_resource_says_what_to_do() {
        let refused =
            Refused { reason: Reason::ReferenceMissing, message: "Secret login doesn't exist".into() };
        let resource = resource("prod", clickhouse());
        let status = of_refused(&resource, &refused, Some((Backend::ClickHouse, complete(2))), NOW);
        for kind in ["Ready", "SpecValid"] {
            assert_eq!(said(&status, kind), pair("False", "ReferenceMissing"));
        }
        assert_eq!(said(&status, "Degraded").0, "True");
        assert_eq!(status.ready_replicas, Some(2));
    }

    #[test]
    fn a_time_changes_only_with_its_status() {
        let mut resource = resource("prod", clickhouse());
        let validated = validated(clickhouse());
        let later = Timestamp::from_second(1_000).unwrap();
        let at = |resource: &Luminate, seen: &Seen, now| {
            of_valid(resource, &validated, Switch::None, seen, &Reach::Reachable, now)
        };
        resource.status = Some(at(&resource, &seen(complete(3)), NOW));
        assert_eq!(Some(at(&resource, &seen(complete(3)), later)), resource.status);
        let after = at(&resource, &seen(Workload { ready: 1, ..complete(3) }), later);
        let time = |kind: &str| {
            let condition = after.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
            condition.last_transition_time.0
        };
        assert_eq!((time("Ready"), time("Degraded")), (later, NOW));
    }

    #[test]
    fn a_rollout_without_end_is_stuck() {
        let mut resource = resource("prod", rocksdb());
        let validated = validated(rocksdb());
        let rolling = seen(Workload { updated: 0, ready: 0, ..complete(1) });
        let at = |resource: &Luminate, second| {
            let now = Timestamp::from_second(second).unwrap();
            of_valid(resource, &validated, Switch::None, &rolling, &Reach::NotProbed, now)
        };
        resource.status = Some(at(&resource, 0));
        assert_eq!(said(&at(&resource, 600), "Degraded"), pair("False", "AsExpected"));
        assert_eq!(said(&at(&resource, 601), "Degraded"), pair("True", "RolloutStuck"));
    }

    #[test]
    fn events_tell_of_changes_only() {
        let good = status(&seen(complete(3)), Switch::None);
        let first = transitions(None, &good);
        assert_eq!(first.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), ["Available"]);
        assert_eq!(transitions(Some(&good), &good), []);
        let problem = Problem {
            reason: Reason::ForeignObject,
            message: "Service prod is somebody else's".into(),
            blocks: true,
        };
        let bad = status(&Seen { problems: vec![problem], ..seen(complete(3)) }, Switch::None);
        let events = transitions(Some(&good), &bad);
        assert_eq!(events.len(), 1);
        assert!(events[0].warning && events[0].note.starts_with("Service prod is somebody else's. Rename"));
    }

    #[test]
    fn a_restart_of_the_operator_is_no_news() {
        let mut resource = resource("prod", clickhouse());
        let validated = validated(clickhouse());
        let with = |resource: &Luminate, reach: &Reach| {
            let status = of_valid(resource, &validated, Switch::None, &seen(complete(3)), reach, NOW);
            said(&status, "BackendReachable")
        };
        assert_eq!(with(&resource, &Reach::NotProbed), pair("Unknown", "NotProbed"));
        resource.status = Some(status(&seen(complete(3)), Switch::None));
        assert_eq!(with(&resource, &Reach::NotProbed), pair("True", "Reachable"));
    }

    #[test]
    fn every_status_passes_the_schema() {
        let status = status(&seen(complete(3)), Switch::None);
        let values = serde_json::to_value(&status).unwrap();
        assert_eq!(serde_json::from_value::<LuminateStatus>(values).unwrap(), status);
    }
}
