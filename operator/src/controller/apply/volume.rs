//! The volume: the claim first, then the StatefulSet around its pod. IO.

use kube::api::PropagationPolicy;
use luminate_crds::condition::Reason;
use serde_json::Value;

use super::{ApplyError, Run, is_owned};
use crate::cluster::{Failure, failure};
use crate::controller::build::{INSTANCE, MANAGED_BY, MANAGER};
use crate::controller::status::Problem;
use crate::controller::volume::{Claim, Volume, claim_body, is_going};
use crate::object::Kind;

impl Run<'_> {
    /// The claim, if it was made of this resource's template.
    pub(super) fn claim(&self) -> Option<&Value> {
        let claim = self.fetched.claim.as_ref()?;
        let labels = &claim["metadata"]["labels"];
        let ours = labels[INSTANCE] == self.validated.name && labels[MANAGED_BY] == MANAGER;
        ours.then_some(claim)
    }

    /// Grows the claim if it must, and lets the StatefulSet go whose template it has outgrown. Answers the
    /// size that the template must have instead of the resource's.
    pub(super) async fn volume(&mut self, volume: &Volume) -> Result<Option<String>, ApplyError> {
        self.applied.growing = volume.growing;
        if let Some(size) = &volume.larger {
            let message = format!(
                "the volume has {size}, more than spec.rocksdb.storage says; volumes don't shrink, so it stays"
            );
            self.told(Reason::VolumeLarger, message);
        }
        if let Some(claim) = &volume.claim
            && !self.grow(claim).await?
        {
            self.applied.growing = false;
            return Ok(volume.template_storage());
        }
        if volume.recreate {
            self.let_go().await?;
        }
        Ok(volume.larger.clone())
    }

    /// Whether the claim is now as it should be.
    async fn grow(&mut self, claim: &Claim) -> Result<bool, ApplyError> {
        let Some(live) = self.claim() else { return Ok(true) };
        let body = claim_body(self.validated, claim, live);
        self.confirm().await?;
        match self.context.cluster.apply(Kind::PersistentVolumeClaim, MANAGER, &body, true).await {
            Ok(_) => {
                tracing::info!(resource = %self.user, storage = claim.storage, "the claim was applied");
                self.applied.growing = claim.grows || self.applied.growing;
                Ok(true)
            }
            Err(error) => match failure(&error) {
                Failure::Passing => Err(error.into()),
                Failure::Lasting(reason, message) => {
                    let reason =
                        if reason == Reason::ApplyRefused { Reason::VolumeCannotGrow } else { reason };
                    self.told(reason, format!("the volume can't become {}: {message}", claim.storage));
                    Ok(false)
                }
            },
        }
    }

    /// Deletes the StatefulSet and leaves its pod running: the next one takes it up.
    async fn let_go(&mut self) -> Result<(), ApplyError> {
        let live = self.fetched.stateful_set.as_ref().filter(|live| is_owned(live, &self.validated.uid));
        let Some(live) = live.filter(|live| !is_going(live)) else { return Ok(()) };
        self.confirm().await?;
        self.context.cluster.delete(Kind::StatefulSet, live, PropagationPolicy::Orphan).await?;
        self.let_go = true;
        tracing::info!(resource = %self.user, "the StatefulSet is made anew, for a larger claim template");
        Ok(())
    }

    /// A problem beside which everything else is applied.
    fn told(&mut self, reason: Reason, message: String) {
        tracing::debug!(resource = %self.user, reason = reason.name(), message, "the volume isn't as it should be");
        self.applied.problems.push(Problem { reason, message, blocks: false });
    }
}
