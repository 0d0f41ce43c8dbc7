//! The HorizontalPodAutoscaler: how many stateless workers there are, by CPU and memory.

use serde_json::{Value, json};

use super::metadata::metadata;
use crate::controller::validate::{BackendSettings, Validated};
use crate::object::{Kind, Object};

pub(super) fn autoscaler(validated: &Validated) -> Option<Object> {
    let BackendSettings::ClickHouse(section) = &validated.settings else { return None };
    let scaling = &section.autoscaling;
    if !scaling.enabled {
        return None;
    }
    let rest = json!({ "spec": {
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": validated.name },
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [utilization("cpu", scaling.target_cpu), utilization("memory", scaling.target_memory)],
        "behavior": behavior(),
    } });
    Some(Object::new(Kind::HorizontalPodAutoscaler, metadata(validated, &validated.name), rest))
}

fn utilization(resource: &str, percent: i32) -> Value {
    json!({ "type": "Resource", "resource": {
        "name": resource,
        "target": { "type": "Utilization", "averageUtilization": percent },
    } })
}

/// Up fast, the larger of doubling and two pods each 15 s; down slowly, the smaller of half and one pod
/// each minute, after five minutes of less load.
fn behavior() -> Value {
    let policy = |kind, value, seconds| json!({ "type": kind, "value": value, "periodSeconds": seconds });
    json!({
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [policy("Percent", 100, 15), policy("Pods", 2, 15)],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "selectPolicy": "Min",
            "policies": [policy("Percent", 50, 60), policy("Pods", 1, 60)],
        },
    })
}
