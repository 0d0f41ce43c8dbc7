//! Step 3: a [`Validated`] becomes the objects that should be. Pure, and nothing can fail: one file a kind.

mod autoscaler;
pub mod config;
mod disruption;
mod ingress;
mod metadata;
mod monitor;
mod network;
pub mod pod;
mod secret;
mod service;
mod workload;

use luminate_crds::luminate::Backend;

pub use metadata::{INSTANCE, MANAGED_BY, MANAGER, pod_selector, selector_text};
pub use pod::merge;
pub use service::{SCHEME_PORT, endpoint};
pub use workload::{CLAIM_TEMPLATE, claim_name};

use super::validate::{Keys, Validated};
use crate::object::{Kind, Object};

/// What the desired objects depend on beside the resource: where an installation stands in a change that
/// takes several steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The backend whose pods get the traffic.
    pub traffic: Backend,
    /// The size in the StatefulSet's claim template, where it must stay what it is.
    pub template_storage: Option<String>,
}

impl Position {
    /// Nothing is under way.
    #[must_use]
    pub fn settled(validated: &Validated) -> Self {
        Self { traffic: validated.backend(), template_storage: None }
    }
}

/// The objects that should be, in the order in which they are applied.
#[must_use]
pub fn build(validated: &Validated, position: &Position) -> Vec<Object> {
    let mut objects = vec![
        metadata::service_account(validated),
        config::config_map(validated),
        service::service(validated, position.traffic),
    ];
    if matches!(validated.keys, Keys::Secret { own: true, .. }) {
        objects.push(secret::own_keys(validated));
    }
    if validated.spec.network_policy.enabled {
        objects.push(network::policy(validated));
    }
    match validated.backend() {
        Backend::ClickHouse => {
            objects.push(workload::deployment(validated));
            objects.push(disruption::budget(validated));
            objects.extend(autoscaler::autoscaler(validated));
        }
        Backend::RocksDB => {
            objects.push(service::headless(validated));
            objects.push(workload::stateful_set(validated, position.template_storage.as_deref()));
        }
    }
    if validated.spec.ingress.enabled {
        objects.push(ingress::ingress(validated));
    }
    if validated.spec.monitoring.enabled && validated.service_monitors {
        objects.push(monitor::service_monitor(validated));
    }
    objects.sort_by_key(|object| Kind::ALL.iter().position(|kind| *kind == object.kind));
    objects
}

#[cfg(test)]
mod tests;
