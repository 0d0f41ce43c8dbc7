//! A live Deployment or StatefulSet: how far it is. Pure.

use serde_json::Value;

/// How far a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Workload {
    /// Pods wanted.
    pub wanted: i32,
    /// Pods that there are.
    pub replicas: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Whether its controller has seen its newest generation.
    pub observed: bool,
    /// Whether its controller has given up on a rollout.
    pub stuck: bool,
}

impl Workload {
    /// What a live object says.
    #[must_use]
    pub fn of(live: &Value) -> Self {
        let status = &live["status"];
        let count = |value: &Value| i32::try_from(value.as_i64().unwrap_or(0)).unwrap_or(i32::MAX);
        let generation = live["metadata"]["generation"].as_i64();
        let updated =
            if live["kind"] == "StatefulSet" { stateful_updated(status) } else { &status["updatedReplicas"] };
        Self {
            wanted: live["spec"]["replicas"].as_i64().map_or(1, |_| count(&live["spec"]["replicas"])),
            replicas: count(&status["replicas"]),
            updated: count(updated),
            ready: count(&status["readyReplicas"]),
            observed: generation.is_some() && status["observedGeneration"].as_i64() >= generation,
            stuck: is_stuck(status),
        }
    }

    /// Whether `least` pods of the newest template serve and no other pods are left.
    #[must_use]
    pub fn is_complete(&self, least: i32) -> bool {
        self.observed && self.updated >= self.replicas && self.ready >= least && self.replicas >= least
    }

    /// Whether everything that is wanted is there and serves.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_complete(self.wanted) && self.replicas == self.wanted
    }
}

/// After a rollout a StatefulSet's controller counts the pods of the newest template as current, and may
/// leave the other count out.
fn stateful_updated(status: &Value) -> &Value {
    let same = status["currentRevision"] == status["updateRevision"];
    if same { &status["replicas"] } else { &status["updatedReplicas"] }
}

fn is_stuck(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| {
        condition["type"] == "Progressing"
            && condition["status"] == "False"
            && condition["reason"] == "ProgressDeadlineExceeded"
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(status: Value) -> Value {
        json!({ "kind": "Deployment", "metadata": { "generation": 4 }, "spec": { "replicas": 3 }, "status": status })
    }

    #[test]
    fn a_status_of_an_older_generation_says_nothing() {
        let old = json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3 });
        assert!(!Workload::of(&live(old)).is_complete(3));
        let new = json!({ "observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3 });
        assert!(Workload::of(&live(new)).is_settled());
    }

    #[test]
    fn old_pods_must_be_gone() {
        let status =
            json!({ "observedGeneration": 4, "replicas": 4, "updatedReplicas": 3, "readyReplicas": 4 });
        assert!(!Workload::of(&live(status)).is_complete(3));
    }

    #[test]
    fn scaling_out_doesnt_make_it_incomplete() {
        let status =
            json!({ "observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 2 });
        let workload = Workload::of(&live(status));
        assert!(workload.is_complete(2) && !workload.is_settled());
    }

    #[test]
    fn a_rollout_that_was_given_up_is_stuck() {
        let condition =
            json!({ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" });
        assert!(Workload::of(&live(json!({ "conditions": [condition] }))).stuck);
        assert!(!Workload::of(&live(json!({}))).stuck);
    }

    #[test]
    fn a_settled_stateful_set_is_complete() {
        let mut live = live(json!({
            "observedGeneration": 4, "replicas": 1, "readyReplicas": 1,
            "currentRevision": "a", "updateRevision": "a",
        }));
        live["kind"] = "StatefulSet".into();
        live["spec"]["replicas"] = 1.into();
        assert!(Workload::of(&live).is_settled());
        live["status"]["updateRevision"] = "b".into();
        assert!(!Workload::of(&live).is_settled());
    }
}
