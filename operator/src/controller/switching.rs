//! A change of the backend of an installation that exists: refused without leave, and done in steps that
//! each leave something that serves. Pure.

use kube::ResourceExt;
use luminate_crds::luminate::{ALLOW_SWITCH, Backend, Luminate};
use serde_json::Value;

use super::workload::Workload;

/// Where a change of the backend stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// None is under way.
    None,
    /// It was asked for without leave: everything stays as it is.
    Refused {
        /// The backend that serves.
        from: Backend,
    },
    /// The new workload is coming up beside the old one, which has the traffic.
    BringUp {
        /// The backend that serves.
        from: Backend,
    },
    /// The new workload is ready, and the traffic moves to it.
    MoveTraffic {
        /// The backend that served.
        from: Backend,
    },
    /// The traffic has moved: the old workload goes.
    Retire {
        /// The backend that served.
        from: Backend,
    },
}

/// What is known of both workloads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sight<'a> {
    /// The Deployment, if the resource owns one.
    pub deployment: Option<&'a Value>,
    /// The StatefulSet, if the resource owns one.
    pub stateful_set: Option<&'a Value>,
    /// The Service, if the resource owns one.
    pub service: Option<&'a Value>,
}

impl<'a> Sight<'a> {
    /// The workload of a backend.
    #[must_use]
    pub fn workload(&self, backend: Backend) -> Option<&'a Value> {
        match backend {
            Backend::ClickHouse => self.deployment,
            Backend::RocksDB => self.stateful_set,
        }
    }
}

impl Switch {
    /// Where a change to the resource's backend stands. `least`: replicas that make the new one complete.
    #[must_use]
    pub fn of(resource: &Luminate, sight: &Sight<'_>, least: i32) -> Self {
        let to = resource.spec.backend;
        let from = to.other();
        if sight.workload(from).is_none() {
            return Self::None;
        }
        if !allowed(resource) {
            return Self::Refused { from };
        }
        let ready = sight.workload(to).is_some_and(|live| Workload::of(live).is_complete(least));
        let moved = sight.service.is_some_and(|service| traffic_of(service) == Some(to));
        match (moved, ready) {
            (true, true) => Self::Retire { from },
            // Whatever was written since is in the new store: traffic doesn't go back by itself.
            (true, false) | (false, true) => Self::MoveTraffic { from },
            (false, false) => Self::BringUp { from },
        }
    }

    /// The backend that has, or shall have, the traffic.
    #[must_use]
    pub fn traffic(self, to: Backend) -> Backend {
        match self {
            Self::Refused { from } | Self::BringUp { from } => from,
            Self::None | Self::MoveTraffic { .. } | Self::Retire { .. } => to,
        }
    }

    /// Whether the old workload must stay for now.
    #[must_use]
    pub fn keeps_old(self) -> bool {
        matches!(self, Self::Refused { .. } | Self::BringUp { .. } | Self::MoveTraffic { .. })
    }

    /// The next step, for the status.
    #[must_use]
    pub fn plan(self, to: Backend, generation: i64) -> Option<String> {
        let to = to.name();
        match self {
            Self::None => None,
            Self::Refused { from } => Some(format!(
                "To move from {from} to {to}, annotate with {ALLOW_SWITCH}: \"{generation}\". The data of \
                 {from} stays where it is and is not copied.",
                from = from.name()
            )),
            Self::BringUp { from } => Some(format!(
                "1/3: the {to} workers are coming up; {} serves until they are ready.",
                from.name()
            )),
            Self::MoveTraffic { from } => Some(format!(
                "2/3: traffic moves to the {to} workers; {} goes when they are ready.",
                from.name()
            )),
            Self::Retire { from } => {
                Some(format!("3/3: the {from} workers go; the data of {from} stays.", from = from.name()))
            }
        }
    }
}

/// Leave is for one generation: a resource that is copied or changed again needs it anew.
fn allowed(resource: &Luminate) -> bool {
    let generation = resource.metadata.generation.unwrap_or_default().to_string();
    resource.annotations().get(ALLOW_SWITCH).is_some_and(|allowed| *allowed == generation)
}

fn traffic_of(service: &Value) -> Option<Backend> {
    let label = service["spec"]["selector"]["luminate.dev/backend"].as_str()?;
    [Backend::ClickHouse, Backend::RocksDB].into_iter().find(|backend| backend.lower() == label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{clickhouse, resource};

    fn workload(ready: i32) -> Value {
        json!({
            "metadata": { "generation": 1 },
            "spec": { "replicas": 3 },
            "status": {
                "observedGeneration": 1, "replicas": 3, "updatedReplicas": 3,
                "readyReplicas": ready, "availableReplicas": ready,
            },
        })
    }

    fn service(backend: &str) -> Value {
        json!({ "spec": { "selector": { "luminate.dev/backend": backend } } })
    }

    fn switch(leave: Option<&str>, new: Option<&Value>, service: &Value) -> Switch {
        let mut resource = resource("prod", clickhouse());
        if let Some(leave) = leave {
            resource.annotations_mut().insert(ALLOW_SWITCH.into(), leave.into());
        }
        let old = workload(1);
        let sight = Sight { deployment: new, stateful_set: Some(&old), service: Some(service) };
        Switch::of(&resource, &sight, 3)
    }

    #[test]
    fn leave_is_needed_and_holds_for_one_generation() {
        let from = Backend::RocksDB;
        assert_eq!(switch(None, None, &service("rocksdb")), Switch::Refused { from });
        assert_eq!(switch(Some("2"), None, &service("rocksdb")), Switch::Refused { from });
        assert_eq!(switch(Some("1"), None, &service("rocksdb")), Switch::BringUp { from });
    }

    #[test]
    fn traffic_moves_when_the_new_workers_are_ready_and_never_back() {
        let from = Backend::RocksDB;
        let (half, whole) = (workload(2), workload(3));
        assert_eq!(switch(Some("1"), Some(&half), &service("rocksdb")), Switch::BringUp { from });
        assert_eq!(switch(Some("1"), Some(&whole), &service("rocksdb")), Switch::MoveTraffic { from });
        assert_eq!(switch(Some("1"), Some(&half), &service("clickhouse")), Switch::MoveTraffic { from });
        assert_eq!(switch(Some("1"), Some(&whole), &service("clickhouse")), Switch::Retire { from });
    }

    #[test]
    fn the_old_workers_stay_until_the_traffic_has_moved() {
        let from = Backend::RocksDB;
        let to = Backend::ClickHouse;
        assert!(Switch::BringUp { from }.keeps_old() && Switch::BringUp { from }.traffic(to) == from);
        assert!(Switch::MoveTraffic { from }.keeps_old() && Switch::MoveTraffic { from }.traffic(to) == to);
        assert!(!Switch::Retire { from }.keeps_old());
    }

    #[test]
    fn without_an_old_workload_there_is_nothing_to_switch() {
        assert_eq!(Switch::of(&resource("prod", clickhouse()), &Sight::default(), 3), Switch::None);
    }
}
