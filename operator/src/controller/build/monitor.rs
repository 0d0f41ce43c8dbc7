//! The ServiceMonitor: how Prometheus's operator finds the workers.

use serde_json::{Value, json};

use super::metadata::{instance_selector, metadata};
use super::pod::merge;
use super::service::SCHEME_PORT;
use crate::controller::validate::Validated;
use crate::object::{Kind, Object};

pub(super) fn service_monitor(validated: &Validated) -> Object {
    let monitoring = &validated.spec.monitoring;
    let mut metadata = metadata(validated, &validated.name);
    // The resource's labels first: those by which the operator knows its objects hold in any case.
    let own = metadata["labels"].clone();
    let mut labels = json!(monitoring.labels);
    merge(&mut labels, &own);
    metadata["labels"] = labels;
    let rest = json!({ "spec": {
        "selector": { "matchLabels": instance_selector(validated) },
        "namespaceSelector": { "matchNames": [validated.namespace] },
        "endpoints": [endpoint(validated)],
    } });
    Object::new(Kind::ServiceMonitor, metadata, rest)
}

/// The headless Service has the same port: only one of the two may be read, or every figure counts twice.
fn endpoint(validated: &Validated) -> Value {
    let mut endpoint = json!({
        "port": SCHEME_PORT,
        "path": "/metrics",
        "interval": validated.spec.monitoring.interval,
        "relabelings": [{
            "action": "keep",
            "sourceLabels": ["__meta_kubernetes_service_name"],
            "regex": validated.name,
        }],
    });
    if validated.spec.tls.secret_ref.is_some() {
        endpoint["scheme"] = "https".into();
        // Pods are asked by their address, which no certificate names.
        endpoint["tlsConfig"] = json!({ "insecureSkipVerify": true });
    }
    endpoint
}
