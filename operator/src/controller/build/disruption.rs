//! The PodDisruptionBudget: one worker at a time may be taken away on purpose.
//!
//! Only stateless workers have one. With one pod it could only forbid, and a node could never be drained.

use luminate_crds::luminate::Backend;
use serde_json::json;

use super::metadata::{metadata, pod_selector};
use crate::controller::validate::Validated;
use crate::object::{Kind, Object};

pub(super) fn budget(validated: &Validated) -> Object {
    let rest = json!({ "spec": {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": { "matchLabels": pod_selector(&validated.name, Backend::ClickHouse) },
    } });
    Object::new(Kind::PodDisruptionBudget, metadata(validated, &validated.name), rest)
}
