//! The pod template: the same for both backends but for the volume.
//!
//! A change of anything here rolls every pod of every installation when the operator is upgraded; a test
//! holds a digest of many templates against that.

use luminate_crds::luminate::{Backend, Toleration};
use serde_json::{Map, Value, json};

use super::config::{FILE, SHUTDOWN_GRACE, config_map_name, file};
use super::metadata::{labels, pod_selector};
use crate::controller::validate::{BackendSettings, CA_KEY, JWKS_KEY, JWT_KEY, Keys, Validated};
use crate::object::digest;

/// The worker's container.
pub const CONTAINER: &str = "worker";
/// The worker's port in the pod.
pub const PORT: u16 = 8080;
/// Names of the volumes that the operator makes.
pub const OWN_VOLUMES: [&str; 5] = ["config", "keys", "trust", "tls", "data"];
/// Where the engine's files are.
pub const DATA_DIR: &str = "/var/lib/luminate";
/// Where the keys of tokens are.
pub const KEYS_DIR: &str = "/etc/luminate-keys";
/// Where the certificates to trust are.
pub const TRUST_DIR: &str = "/etc/luminate-trust";
/// Where the API's certificate is.
pub const TLS_DIR: &str = "/etc/luminate-tls";
const CONFIG_DIR: &str = "/etc/luminate";
/// The worker's user and group.
const USER: i64 = 1000;
/// Seconds between a pod's leaving the Service and its being told to stop: until every proxy knows.
const PRE_STOP_SECONDS: i64 = 15;
/// Seconds for the last commit, after preStop and drain.
const LAST_COMMIT_SECONDS: i64 = 5;

/// The pod template, with the resource's own laid over it.
pub(super) fn template(validated: &Validated) -> Value {
    let mut template = json!({
        "metadata": { "labels": template_labels(validated), "annotations": annotations(validated) },
        "spec": spec(validated),
    });
    merge(&mut template, &Value::Object(validated.overrides.clone()));
    template
}

fn template_labels(validated: &Validated) -> Value {
    let mut all = labels(validated);
    merge(&mut all, &pod_selector(&validated.name, validated.backend()));
    all
}

/// Digests of the file and of Secrets: where they change, pods must start anew.
fn annotations(validated: &Validated) -> Value {
    let mut annotations = Map::new();
    let config = digest(&Value::from(file(&validated.config)));
    annotations.insert("luminate.dev/config".into(), config.into());
    if !validated.rolling_digest.is_empty() {
        annotations.insert("luminate.dev/secrets".into(), validated.rolling_digest.as_str().into());
    }
    Value::Object(annotations)
}

fn spec(validated: &Validated) -> Value {
    let mut spec = json!({
        "serviceAccountName": validated.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace_seconds(),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "affinity": anti_affinity(validated),
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": pod_selector(&validated.name, validated.backend()) },
        }],
        "containers": [container(validated)],
        "volumes": volumes(validated),
    });
    placement(validated, &mut spec);
    spec
}

/// preStop, drain and the last commit, one after the other. The worker's own drain delay is 0.
fn grace_seconds() -> i64 {
    PRE_STOP_SECONDS + SHUTDOWN_GRACE.millis() / 1_000 + LAST_COMMIT_SECONDS
}

fn anti_affinity(validated: &Validated) -> Value {
    let selector = pod_selector(&validated.name, validated.backend());
    json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": selector },
        },
    }] } })
}

fn placement(validated: &Validated, spec: &mut Value) {
    let scheduling = &validated.spec.scheduling;
    if !scheduling.node_selector.is_empty() {
        spec["nodeSelector"] = json!(scheduling.node_selector);
    }
    if !scheduling.tolerations.is_empty() {
        spec["tolerations"] = scheduling.tolerations.iter().map(toleration).collect();
    }
    if let Some(class) = &scheduling.priority_class_name {
        spec["priorityClassName"] = class.as_str().into();
    }
    let secrets = &validated.spec.image.pull_secrets;
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = json!(secrets);
    }
}

fn toleration(toleration: &Toleration) -> Value {
    serde_json::to_value(toleration).unwrap_or_default()
}

fn container(validated: &Validated) -> Value {
    let image = &validated.spec.image;
    let mut container = json!({
        "name": CONTAINER,
        "image": image.reference(),
        "imagePullPolicy": image.pull_policy,
        "args": ["--config", format!("{CONFIG_DIR}/{FILE}")],
        "ports": [{ "name": "http", "containerPort": PORT, "protocol": "TCP" }],
        "startupProbe": probe(validated, "startup", 2, 900),
        "livenessProbe": probe(validated, "live", 10, 3),
        "readinessProbe": probe(validated, "ready", 5, 2),
        "lifecycle": { "preStop": { "sleep": { "seconds": PRE_STOP_SECONDS } } },
        "resources": resources(validated),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": mounts(validated),
    });
    let env = env(validated);
    if !env.is_empty() {
        container["env"] = Value::Array(env);
    }
    container
}

/// A probe of the API's own paths. At start the log may be long: it has half an hour.
fn probe(validated: &Validated, path: &str, every_seconds: i64, failures: i64) -> Value {
    let scheme = if validated.spec.tls.secret_ref.is_some() { "HTTPS" } else { "HTTP" };
    json!({
        "httpGet": { "path": format!("/api/v1/health/{path}"), "port": "http", "scheme": scheme },
        "periodSeconds": every_seconds,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    })
}

fn resources(validated: &Validated) -> Value {
    serde_json::to_value(texts(&serde_json::to_value(&validated.spec.resources).unwrap_or_default()))
        .unwrap_or_default()
}

/// Amounts as texts: a number and its text are the same amount.
fn texts(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), texts(value))).collect(),
        Value::Number(number) => number.to_string().into(),
        other => other.clone(),
    }
}

/// ClickHouse's user and password: the kubelet reads them, not the operator.
fn env(validated: &Validated) -> Vec<Value> {
    let BackendSettings::ClickHouse(section) = &validated.settings else { return Vec::new() };
    let Some(secret) = &section.credentials_secret_ref else { return Vec::new() };
    let variable = |name: &str, key: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret.name, "key": key } } });
    vec![
        variable("LUMINATE_STORAGE_CLICKHOUSE_USERNAME", "username"),
        variable("LUMINATE_STORAGE_CLICKHOUSE_PASSWORD", "password"),
    ]
}

/// A volume, and where it is mounted.
struct Mounted {
    name: &'static str,
    at: &'static str,
    writable: bool,
    /// `None`: it comes from the StatefulSet's claim.
    source: Option<Value>,
}

fn mounted(validated: &Validated) -> Vec<Mounted> {
    let read = |name, at, source| Mounted { name, at, writable: false, source: Some(source) };
    let config = config_map_name(&validated.name, validated.backend());
    let mut all = vec![read("config", CONFIG_DIR, config_map(&config, FILE, FILE))];
    match &validated.keys {
        Keys::Disabled | Keys::Url(_) => {}
        Keys::Secret { name, key, .. } => all.push(read("keys", KEYS_DIR, secret(name, &[(key, JWT_KEY)]))),
        Keys::Jwks { name, key } => all.push(read("keys", KEYS_DIR, secret(name, &[(key, JWKS_KEY)]))),
    }
    if let BackendSettings::ClickHouse(section) = &validated.settings {
        if let Some(from) = &section.tls.ca_secret_ref {
            all.push(read("trust", TRUST_DIR, secret(&from.name, &[(from.key_or(CA_KEY), CA_KEY)])));
        }
        if let Some(from) = &section.tls.ca_config_map_ref {
            all.push(read("trust", TRUST_DIR, config_map(&from.name, from.key_or(CA_KEY), CA_KEY)));
        }
    }
    if let Some(from) = &validated.spec.tls.secret_ref {
        let keys = [("tls.crt", "tls.crt"), ("tls.key", "tls.key")];
        all.push(read("tls", TLS_DIR, secret(&from.name, &keys)));
    }
    if validated.backend() == Backend::RocksDB {
        all.push(Mounted { name: "data", at: DATA_DIR, writable: true, source: None });
    }
    all
}

/// Readable by the pod's group and nobody else.
const MODE: i64 = 0o440;

fn secret(name: &str, keys: &[(&str, &str)]) -> Value {
    let items: Vec<Value> = keys.iter().map(|(key, path)| json!({ "key": key, "path": path })).collect();
    json!({ "secret": { "secretName": name, "defaultMode": MODE, "items": items } })
}

fn config_map(name: &str, key: &str, path: &str) -> Value {
    json!({ "configMap": { "name": name, "defaultMode": MODE, "items": [{ "key": key, "path": path }] } })
}

fn volumes(validated: &Validated) -> Value {
    let volume = |mounted: Mounted| {
        let mut volume = mounted.source?;
        volume["name"] = mounted.name.into();
        Some(volume)
    };
    mounted(validated).into_iter().filter_map(volume).collect()
}

fn mounts(validated: &Validated) -> Value {
    let mount = |mounted: Mounted| {
        let mut mount = json!({ "name": mounted.name, "mountPath": mounted.at });
        if !mounted.writable {
            mount["readOnly"] = true.into();
        }
        mount
    };
    mounted(validated).into_iter().map(mount).collect()
}

/// Lists of a pod that are merged item by item, and the field that names an item.
const MERGE_KEYS: [(&str, &str); 9] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
    ("topologySpreadConstraints", "topologyKey"),
    ("hostAliases", "ip"),
];

/// Lays `over` over `base` as a strategic merge: objects field by field, named items item by item, any other
/// list as a whole; `null` takes a field out, and `$patch: delete` an item.
pub fn merge(base: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(over)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (name, value) in over {
        let key = MERGE_KEYS.iter().find(|(list, _)| list == name).map(|(_, key)| *key);
        match (base.get_mut(name), value, key) {
            (_, Value::Null, _) => {
                base.remove(name);
            }
            (Some(Value::Array(items)), Value::Array(over), Some(key)) => merge_items(items, over, key),
            (Some(field @ Value::Object(_)), Value::Object(_), _) => merge(field, value),
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge_items(items: &mut Vec<Value>, over: &[Value], key: &str) {
    for item in over {
        let place = items.iter().position(|known| known[key] == item[key]);
        match place {
            Some(place) if item["$patch"] == "delete" => {
                items.remove(place);
            }
            Some(place) => merge(&mut items[place], item),
            None if item["$patch"] == "delete" => {}
            None => items.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(mut base: Value, over: &Value) -> Value {
        merge(&mut base, over);
        base
    }

    #[test]
    fn objects_are_merged_and_null_takes_out() {
        let base = json!({ "a": { "b": 1, "c": 2 }, "d": 3 });
        assert_eq!(merged(base, &json!({ "a": { "b": 5, "c": null } })), json!({ "a": { "b": 5 }, "d": 3 }));
    }

    #[test]
    fn named_items_are_merged_and_other_lists_replaced() {
        let base = json!({ "containers": [{ "name": "worker", "args": ["a"] }], "list": [1, 2] });
        let over = json!({
            "containers": [{ "name": "worker", "tty": true }, { "name": "agent" }],
            "list": [3],
        });
        let expected = json!({
            "containers": [{ "name": "worker", "args": ["a"], "tty": true }, { "name": "agent" }],
            "list": [3],
        });
        assert_eq!(merged(base, &over), expected);
    }

    #[test]
    fn an_item_can_be_taken_out() {
        let base = json!({ "env": [{ "name": "A" }, { "name": "B" }] });
        let over =
            json!({ "env": [{ "name": "A", "$patch": "delete" }, { "name": "C", "$patch": "delete" }] });
        assert_eq!(merged(base, &over), json!({ "env": [{ "name": "B" }] }));
    }

    #[test]
    fn the_grace_period_covers_every_step() {
        assert_eq!(grace_seconds(), 15 + 35 + 5);
    }
}
