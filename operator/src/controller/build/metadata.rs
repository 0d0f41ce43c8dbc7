//! Names, labels and owners: what every object carries.

use kube::Resource;
use luminate_crds::luminate::{Backend, Luminate};
use serde_json::{Value, json};

use crate::controller::validate::Validated;
use crate::object::{Kind, Object};

/// The field manager of everything that the operator applies, and the value of [`MANAGED_BY`].
pub const MANAGER: &str = "luminate-operator";
/// The label that names the manager; the operator watches objects that have it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that names the resource.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

/// Metadata of an object of this name: labels, and the resource as its owner, so that it goes with it.
pub(super) fn metadata(validated: &Validated, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": validated.namespace,
        "labels": labels(validated),
        "annotations": {},
        "ownerReferences": [owner(&validated.name, &validated.uid)],
    })
}

/// The resource as an owner. Without `blockOwnerDeletion`, which would need a right on finalizers.
#[must_use]
pub fn owner(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": Luminate::api_version(&()),
        "kind": Luminate::kind(&()),
        "name": name,
        "uid": uid,
        "controller": true,
    })
}

pub(super) fn labels(validated: &Validated) -> Value {
    json!({
        "app.kubernetes.io/name": "luminate",
        INSTANCE: validated.name,
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/part-of": "luminate",
        MANAGED_BY: MANAGER,
    })
}

/// Selects every worker of the resource, of either backend.
pub(super) fn instance_selector(validated: &Validated) -> Value {
    json!({ "app.kubernetes.io/name": "luminate", INSTANCE: validated.name })
}

/// Selects the workers of one backend: while the backend is being switched there are two kinds of them.
#[must_use]
pub fn pod_selector(name: &str, backend: Backend) -> Value {
    json!({
        "app.kubernetes.io/name": "luminate",
        INSTANCE: name,
        "luminate.dev/backend": backend.lower(),
    })
}

/// The same as text, for the scale subresource.
#[must_use]
pub fn selector_text(name: &str, backend: Backend) -> String {
    let backend = backend.lower();
    format!("app.kubernetes.io/name=luminate,{INSTANCE}={name},luminate.dev/backend={backend}")
}

/// The pods' identity: it has no rights and no token.
pub(super) fn service_account(validated: &Validated) -> Object {
    let rest = json!({ "automountServiceAccountToken": false });
    Object::new(Kind::ServiceAccount, metadata(validated, &validated.name), rest)
}
