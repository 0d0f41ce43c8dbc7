//! The Ingress: the API's address outside of the cluster.

use serde_json::json;

use super::metadata::metadata;
use super::service::SCHEME_PORT;
use crate::controller::validate::Validated;
use crate::object::{Kind, Object};

pub(super) fn ingress(validated: &Validated) -> Object {
    let ingress = &validated.spec.ingress;
    let mut metadata = metadata(validated, &validated.name);
    metadata["annotations"] = json!(ingress.annotations);
    let backend = json!({ "service": { "name": validated.name, "port": { "name": SCHEME_PORT } } });
    let mut spec = json!({ "rules": [{
        "host": ingress.host,
        "http": { "paths": [{ "path": ingress.path, "pathType": ingress.path_type, "backend": backend }] },
    }] });
    if let Some(class) = &ingress.class_name {
        spec["ingressClassName"] = class.as_str().into();
    }
    if let Some(secret) = &ingress.tls_secret_ref {
        spec["tls"] = json!([{ "hosts": [ingress.host], "secretName": secret.name }]);
    }
    Object::new(Kind::Ingress, metadata, json!({ "spec": spec }))
}
