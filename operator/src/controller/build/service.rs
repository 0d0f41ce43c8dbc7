//! Services: the API's address, and the names of a StatefulSet's pods.

use luminate_crds::luminate::Backend;
use serde_json::{Value, json};

use super::metadata::{metadata, pod_selector};
use crate::controller::validate::Validated;
use crate::object::{Kind, Object};

/// The name of the API's port.
pub const SCHEME_PORT: &str = "http";

/// The API's address. Its selector names the backend whose pods get the traffic.
pub(super) fn service(validated: &Validated, traffic: Backend) -> Object {
    let service = &validated.spec.service;
    let mut metadata = metadata(validated, &validated.name);
    metadata["annotations"] = json!(service.annotations);
    let rest = json!({ "spec": {
        "type": service.kind,
        "selector": pod_selector(&validated.name, traffic),
        "ports": [port(service.port)],
    } });
    Object::new(Kind::Service, metadata, rest)
}

/// Names of the pods themselves, ready or not.
pub(super) fn headless(validated: &Validated) -> Object {
    let rest = json!({ "spec": {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": pod_selector(&validated.name, Backend::RocksDB),
        "ports": [port(super::pod::PORT)],
    } });
    Object::new(Kind::Service, metadata(validated, &headless_name(&validated.name)), rest)
}

pub(super) fn headless_name(name: &str) -> String {
    format!("{name}-headless")
}

fn port(port: u16) -> Value {
    json!({ "name": SCHEME_PORT, "port": port, "targetPort": SCHEME_PORT, "protocol": "TCP" })
}

/// Where the API is: the Ingress's address if there is one, else the Service's.
#[must_use]
pub fn endpoint(validated: &Validated) -> String {
    let ingress = &validated.spec.ingress;
    if ingress.enabled {
        let scheme = if ingress.tls_secret_ref.is_some() { "https" } else { "http" };
        return format!("{scheme}://{}{}", ingress.host, ingress.path.trim_end_matches('/'));
    }
    let scheme = if validated.spec.tls.secret_ref.is_some() { "https" } else { "http" };
    format!("{scheme}://{}.{}.svc:{}", validated.name, validated.namespace, validated.spec.service.port)
}
