//! Leadership: one process writes, by a Lease, and it stops itself before another may begin.
//!
//! The holder renews the Lease every few seconds. Whether it still may write is asked of the monotonic
//! clock before each write (the [`Fence`]): the deadline counts from before the last renewal was sent, and
//! ends so much earlier than the Lease that a write that has just passed is over when another takes it.
//! A waiting process trusts no other clock: it counts from when it saw the Lease change last.
//!
//! An own implementation, because the crates for it either don't fit kube 5 or hide the moment of the last
//! renewal, and wait for the Lease to run out even where its holder has given it back.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::REQUEST_TIMEOUT;
use crate::cluster::said;

/// Durations of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease is valid after its last renewal.
    pub lease: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// How often a waiting process looks, and how soon a failed renewal is repeated.
    pub retry: Duration,
}

impl Timing {
    /// 15 s, renewed every 5 s, looked at twice a second: so a Lease that was given back is taken within one.
    pub const USUAL: Self = Self {
        lease: Duration::from_secs(15),
        renew: Duration::from_secs(5),
        retry: Duration::from_millis(500),
    };

    /// How long after a renewal was sent the holder may still begin a write: what is left of the Lease
    /// covers a request's whole time and a second of difference between clocks.
    fn may_write(self) -> Duration {
        self.lease.saturating_sub(REQUEST_TIMEOUT + Duration::from_secs(1))
    }
}

/// Whether this process may write: until a deadline on the monotonic clock.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<Mutex<Until>>);

#[derive(Debug, Clone, Copy, Default)]
enum Until {
    /// Never.
    #[default]
    Down,
    /// A deadline.
    Deadline(Instant),
    /// Always: there is no election.
    Forever,
}

impl Fence {
    /// One that always stands: for a process that is alone.
    #[must_use]
    pub fn forever() -> Self {
        Self(Arc::new(Mutex::new(Until::Forever)))
    }

    /// Whether a write may begin now.
    #[must_use]
    pub fn stands(&self) -> bool {
        match *self.0.lock() {
            Until::Down => false,
            Until::Deadline(deadline) => Instant::now() < deadline,
            Until::Forever => true,
        }
    }

    fn until(&self, deadline: Instant) {
        *self.0.lock() = Until::Deadline(deadline);
    }

    fn fall(&self) {
        *self.0.lock() = Until::Down;
    }

    fn deadline(&self) -> Option<Instant> {
        match *self.0.lock() {
            Until::Deadline(deadline) => Some(deadline),
            _ => None,
        }
    }
}

/// A candidate for the Lease.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    fence: Fence,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Election")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish()
    }
}

/// What a waiting process saw last.
struct Seen {
    version: String,
    at: Instant,
}

impl Election {
    /// A candidate called `identity` for the Lease `name` in `namespace`; no two may have one identity.
    /// `client` must not pass the gate that `fence` closes.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, fence: Fence) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing: Timing::USUAL,
            fence,
        }
    }

    /// Waits until this process holds the Lease; the fence stands then. Failed requests are repeated.
    pub async fn acquire(&self) -> Lease {
        let mut seen: Option<Seen> = None;
        loop {
            let began = Instant::now();
            match timeout(REQUEST_TIMEOUT, self.attempt(&mut seen)).await {
                Ok(Ok(Some(lease))) => {
                    self.fence.until(began + self.timing.may_write());
                    tracing::info!(lease = self.name, identity = self.identity, "leading");
                    return lease;
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(error = said(&error), "the lease can't be read or taken"),
                Err(_) => tracing::warn!("the API server doesn't answer; waiting for the lease"),
            }
            sleep(self.timing.retry).await;
        }
    }

    /// One look at the Lease, and its taking if it is free.
    async fn attempt(&self, seen: &mut Option<Seen>) -> kube::Result<Option<Lease>> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            return taken(self.leases.create(&PostParams::default(), &self.claimed(None)).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.version != version) {
            *seen = Some(Seen { version, at: Instant::now() });
        }
        let unchanged = seen.as_ref().map_or(Duration::ZERO, |seen| seen.at.elapsed());
        if !is_free(&lease, unchanged, self.timing.lease) {
            return Ok(None);
        }
        taken(self.leases.replace(&self.name, &PostParams::default(), &self.claimed(Some(&lease))).await)
    }

    /// Renews the Lease until `stop`, and then gives it back.
    ///
    /// # Errors
    /// [`Lost`], when it could not be renewed in time or another took it: this process must end.
    pub async fn hold(&self, mut lease: Lease, stop: CancellationToken) -> Result<(), Lost> {
        let mut pause = self.timing.renew;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.give_back(&lease).await;
                    return Ok(());
                }
                () = sleep(pause) => {}
            }
            let began = Instant::now();
            pause = match timeout(REQUEST_TIMEOUT, self.renew(&lease)).await {
                Ok(Ok(renewed)) => {
                    lease = renewed;
                    self.fence.until(began + self.timing.may_write());
                    self.timing.renew
                }
                Ok(Err(Renewal::Taken(holder))) => {
                    self.fence.fall();
                    return Err(Lost::Taken(holder));
                }
                Ok(Err(Renewal::Failed(error))) => {
                    tracing::warn!(error = said(&error), "the lease couldn't be renewed");
                    self.timing.retry
                }
                Err(_) => self.timing.retry,
            };
            if self.fence.deadline().is_none_or(|deadline| Instant::now() >= deadline) {
                self.fence.fall();
                return Err(Lost::RanOut);
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease, Renewal> {
        let renewed = self.renewed(lease);
        match self.leases.replace(&self.name, &PostParams::default(), &renewed).await {
            Ok(lease) => Ok(lease),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                self.renew_changed().await
            }
            Err(error) => Err(Renewal::Failed(error)),
        }
    }

    /// Somebody wrote the Lease, or an answer was lost: if it is still ours, it is renewed as it is now.
    async fn renew_changed(&self) -> Result<Lease, Renewal> {
        let failed = Renewal::Failed;
        match self.leases.get_opt(&self.name).await.map_err(failed)? {
            None => self.leases.create(&PostParams::default(), &self.claimed(None)).await.map_err(failed),
            Some(lease) => match holder(&lease) {
                Some(holder) if holder == self.identity => {
                    let renewed = self.renewed(&lease);
                    self.leases.replace(&self.name, &PostParams::default(), &renewed).await.map_err(failed)
                }
                other => Err(Renewal::Taken(other.unwrap_or("nobody").to_owned())),
            },
        }
    }

    /// Lets the next take the Lease at once. Nothing is written any more from here on.
    async fn give_back(&self, lease: &Lease) {
        self.fence.fall();
        let mut free = lease.clone();
        let spec = free.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let params = PostParams::default();
        let written = self.leases.replace(&self.name, &params, &free);
        match timeout(REQUEST_TIMEOUT, written).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "gave the lease back"),
            Ok(Err(error)) => {
                tracing::warn!(error = said(&error), "the lease couldn't be given back; it runs out")
            }
            Err(_) => tracing::warn!("the lease couldn't be given back in time; it runs out"),
        }
    }

    fn claimed(&self, previous: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = previous.and_then(|lease| lease.spec.as_ref());
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        Lease {
            metadata: previous.map_or_else(
                || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions + i32::from(previous.is_some())),
                ..LeaseSpec::default()
            }),
        }
    }

    fn renewed(&self, lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        lease
    }
}

/// That somebody else was faster isn't a failure.
fn taken(outcome: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match outcome {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(error) => Err(error),
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// Whether nobody holds the Lease: it was given back, or it hasn't changed for as long as it is valid.
fn is_free(lease: &Lease, unchanged: Duration, usual: Duration) -> bool {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let valid = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(usual, Duration::from_secs);
    holder(lease).is_none() || unchanged >= valid
}

enum Renewal {
    Taken(String),
    Failed(kube::Error),
}

/// Why this process leads no more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Lost {
    /// Another took the Lease.
    #[error("the lease was taken by {0}")]
    Taken(String),
    /// It couldn't be renewed in time.
    #[error("the lease couldn't be renewed in time")]
    RanOut,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: i32) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_is_free_when_given_back_or_run_out() {
        let after = |seconds| Duration::from_secs(seconds);
        assert!(is_free(&lease("", 15), after(0), after(15)));
        assert!(!is_free(&lease("other", 15), after(14), after(15)));
        assert!(is_free(&lease("other", 15), after(15), after(15)));
        assert!(!is_free(&lease("other", 60), after(15), after(15)));
        assert!(is_free(&Lease::default(), after(0), after(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_fence_falls_by_itself() {
        let fence = Fence::default();
        assert!(!fence.stands());
        fence.until(Instant::now() + Timing::USUAL.may_write());
        assert!(fence.stands());
        tokio::time::advance(Timing::USUAL.may_write()).await;
        assert!(!fence.stands());
        assert!(Fence::forever().stands());
    }

    #[test]
    fn a_write_that_has_just_begun_is_over_before_the_lease() {
        let timing = Timing::USUAL;
        assert!(timing.may_write() + REQUEST_TIMEOUT < timing.lease);
        assert!(timing.renew + REQUEST_TIMEOUT < timing.may_write());
    }
}
