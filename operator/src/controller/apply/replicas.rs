//! Who says how many stateless workers there are.
//!
//! While they are autoscaled it is the autoscaler, so the number isn't in what the operator applies. But a
//! field that an applier gives up, and nobody else has, falls back to its default, and that is one worker.
//! So the number changes hands: a second manager takes it as it is, then the first gives it up; and the
//! second gives it up once the autoscaler has written it.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::controller::build::MANAGER;
use crate::controller::validate::{BackendSettings, Validated};
use crate::object::Kind;

/// The manager that keeps the number until the autoscaler has it.
const KEEPER: &str = "luminate-operator-replicas";

/// A Deployment's body as it is created: with as many workers as there should be at least.
pub(super) fn at_first(validated: &Validated, body: &Value) -> Value {
    let mut body = body.clone();
    if validated.autoscaled() {
        body["spec"]["replicas"] = validated.least_replicas().into();
    }
    body
}

/// Does what the number needs next.
pub(super) async fn hand_over(
    cluster: &Cluster,
    step: Step,
    body: &Value,
    live: Value,
) -> kube::Result<Value> {
    match step {
        Step::None => Ok(live),
        Step::Keep(replicas) => {
            let spec = json!({ "replicas": replicas });
            cluster.apply(Kind::Deployment, KEEPER, &kept(body, &live, Some(spec)), true).await?;
            let mut body = body.clone();
            body["metadata"]["uid"] = live["metadata"]["uid"].clone();
            cluster.apply(Kind::Deployment, MANAGER, &body, true).await
        }
        Step::GiveUp => cluster.apply(Kind::Deployment, KEEPER, &kept(body, &live, None), true).await,
    }
}

/// What the number of workers needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in the right hands.
    None,
    /// It is in the operator's own hand: the keeper takes it.
    Keep(i64),
    /// The keeper and the autoscaler have it: the keeper gives it up.
    GiveUp,
}

/// What the number needs next, as a live Deployment has it.
pub(super) fn next(validated: &Validated, live: &Value) -> Step {
    let BackendSettings::ClickHouse(section) = &validated.settings else { return Step::None };
    if !validated.autoscaled() {
        return Step::None;
    }
    let (least, most) = (section.autoscaling.min_replicas.into(), section.autoscaling.max_replicas.into());
    if has(live, |entry| entry["manager"] == MANAGER && entry["operation"] == "Apply") {
        let replicas = live["spec"]["replicas"].as_i64().unwrap_or(1);
        // A bound that is below the other was refused long before.
        return Step::Keep(replicas.max(least).min(most));
    }
    let keeper = has(live, |entry| entry["manager"] == KEEPER);
    let autoscaler = has(live, |entry| entry["subresource"] == "scale");
    if keeper && autoscaler { Step::GiveUp } else { Step::None }
}

/// Whether a manager like this has the number of workers.
fn has(live: &Value, like: impl Fn(&Value) -> bool) -> bool {
    let entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.into_iter().any(|entry| like(entry) && entry["fieldsV1"]["f:spec"].get("f:replicas").is_some())
}

fn kept(body: &Value, live: &Value, spec: Option<Value>) -> Value {
    let mut kept = json!({
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {
            "name": body["metadata"]["name"],
            "namespace": body["metadata"]["namespace"],
            "uid": live["metadata"]["uid"],
        },
    });
    if let Some(spec) = spec {
        kept["spec"] = spec;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{clickhouse, validated};

    fn live(replicas: i64, managers: &[Value]) -> Value {
        let entries: Vec<Value> = managers
            .iter()
            .map(|manager| {
                let mut entry = manager.clone();
                entry["fieldsV1"] = json!({ "f:spec": { "f:replicas": {} } });
                entry
            })
            .collect();
        json!({ "spec": { "replicas": replicas }, "metadata": { "managedFields": entries } })
    }

    fn operator() -> Value {
        json!({ "manager": MANAGER, "operation": "Apply" })
    }

    fn keeper() -> Value {
        json!({ "manager": KEEPER, "operation": "Apply" })
    }

    fn autoscaler() -> Value {
        json!({ "manager": "kube-controller-manager", "operation": "Update", "subresource": "scale" })
    }

    #[test]
    fn it_is_created_with_as_many_as_there_should_be_at_least() {
        let validated = validated(clickhouse());
        assert_eq!(at_first(&validated, &json!({ "spec": {} }))["spec"]["replicas"], 3);
    }

    #[test]
    fn the_number_changes_hands_without_leaving_its_bounds() {
        let validated = validated(clickhouse());
        assert_eq!(next(&validated, &live(1, &[operator()])), Step::Keep(3));
        assert_eq!(next(&validated, &live(5, &[operator()])), Step::Keep(5));
        assert_eq!(next(&validated, &live(50, &[operator(), autoscaler()])), Step::Keep(10));
        assert_eq!(next(&validated, &live(3, &[keeper()])), Step::None);
        assert_eq!(next(&validated, &live(3, &[keeper(), autoscaler()])), Step::GiveUp);
        assert_eq!(next(&validated, &live(3, &[autoscaler()])), Step::None);
    }

    #[test]
    fn without_an_autoscaler_the_number_stays_the_operators() {
        let mut spec = clickhouse();
        spec.clickhouse.as_mut().unwrap().autoscaling.enabled = false;
        let validated = validated(spec);
        assert_eq!(next(&validated, &live(1, &[operator()])), Step::None);
        assert_eq!(next(&validated, &live(1, &[keeper(), autoscaler()])), Step::None);
    }
}
