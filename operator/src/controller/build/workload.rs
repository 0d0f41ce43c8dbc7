//! The workload: a Deployment of stateless workers, or a StatefulSet of one with a volume.

use luminate_crds::luminate::Backend;
use serde_json::{Value, json};

use super::metadata::{labels, metadata, pod_selector};
use super::pod::template;
use super::service::headless_name;
use crate::controller::validate::Validated;
use crate::object::{Kind, Object};

/// The claim template's name; also that of the volume in the pod.
pub const CLAIM_TEMPLATE: &str = "data";

/// The claim of the only pod.
#[must_use]
pub fn claim_name(name: &str) -> String {
    format!("{CLAIM_TEMPLATE}-{name}-0")
}

/// Stateless workers. While they are autoscaled their number isn't said here: it is the autoscaler's.
pub(super) fn deployment(validated: &Validated) -> Object {
    let mut spec = json!({
        "selector": { "matchLabels": pod_selector(&validated.name, Backend::ClickHouse) },
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 },
        },
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 3,
        "template": template(validated),
    });
    if !validated.autoscaled() {
        spec["replicas"] = validated.spec.replicas.into();
    }
    Object::new(Kind::Deployment, metadata(validated, &validated.name), json!({ "spec": spec }))
}

/// One worker and its volume. `storage`: the size in the claim template, where it must not be the resource's.
///
/// Whatever becomes of the StatefulSet, the claim stays; where it shall go with the resource, the resource
/// owns it. `Parallel`, because the ordered policy never replaces a pod that doesn't get ready.
pub(super) fn stateful_set(validated: &Validated, storage: Option<&str>) -> Object {
    let spec = json!({
        "replicas": validated.spec.replicas,
        "serviceName": headless_name(&validated.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "RollingUpdate" },
        "revisionHistoryLimit": 3,
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" },
        "selector": { "matchLabels": pod_selector(&validated.name, Backend::RocksDB) },
        "template": template(validated),
        "volumeClaimTemplates": [claim(validated, storage)],
    });
    Object::new(Kind::StatefulSet, metadata(validated, &validated.name), json!({ "spec": spec }))
}

fn claim(validated: &Validated, storage: Option<&str>) -> Value {
    let section = validated.spec.rocksdb_or_default();
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": { "requests": { "storage": storage.unwrap_or(&section.storage) } },
    });
    if let Some(class) = &section.storage_class_name {
        spec["storageClassName"] = class.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": CLAIM_TEMPLATE, "labels": labels(validated) },
        "spec": spec,
    })
}
