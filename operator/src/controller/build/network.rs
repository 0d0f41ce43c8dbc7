//! The NetworkPolicy: who may reach the workers, and whom they may reach.

use std::collections::BTreeSet;

use luminate_crds::luminate::Peer;
use serde_json::{Value, json};

use super::metadata::{instance_selector, metadata};
use super::pod::PORT;
use crate::controller::validate::{BackendSettings, Keys, Validated};
use crate::object::{Kind, Object};

pub(super) fn policy(validated: &Validated) -> Object {
    let from: Vec<Value> = validated.spec.network_policy.from.iter().map(peer).collect();
    let mut ingress = json!({ "ports": [{ "protocol": "TCP", "port": PORT }] });
    if !from.is_empty() {
        ingress["from"] = from.into();
    }
    let mut egress = vec![json!({ "ports": [
        { "protocol": "UDP", "port": 53 },
        { "protocol": "TCP", "port": 53 },
    ] })];
    let servers: Vec<Value> =
        servers(validated).into_iter().map(|port| json!({ "protocol": "TCP", "port": port })).collect();
    if !servers.is_empty() {
        egress.push(json!({ "ports": servers }));
    }
    let rest = json!({ "spec": {
        "podSelector": { "matchLabels": instance_selector(validated) },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [ingress],
        "egress": egress,
    } });
    Object::new(Kind::NetworkPolicy, metadata(validated, &validated.name), rest)
}

fn peer(peer: &Peer) -> Value {
    let selector = |labels| json!({ "matchLabels": labels });
    json!({
        "namespaceSelector": selector(&peer.namespace_labels),
        "podSelector": selector(&peer.pod_labels),
    })
}

/// Ports of the servers that workers ask: ClickHouse's, and that of the keys.
fn servers(validated: &Validated) -> BTreeSet<u16> {
    let mut addresses: Vec<&str> = Vec::new();
    if let BackendSettings::ClickHouse(section) = &validated.settings {
        addresses.extend(section.endpoints.iter().map(String::as_str));
    }
    if let Keys::Url(url) = &validated.keys {
        addresses.push(url);
    }
    addresses
        .iter()
        .filter_map(|address| reqwest::Url::parse(address).ok()?.port_or_known_default())
        .collect()
}
