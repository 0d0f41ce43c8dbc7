//! What `podTemplate` may change. Whoever may write a resource must not get, through the operator, a pod
//! that they could not make themselves; and what the operator relies on must stay.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use luminate_crds::condition::Reason;
use serde_json::{Map, Value};

use super::{Checked, Refused};
use crate::controller::build::pod::{CONTAINER, OWN_VOLUMES};

/// Fields of the pod's spec that are the operator's own, or would weaken the pod.
const POD: [&str; 14] = [
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostUsers",
    "nodeName",
    "restartPolicy",
    "shareProcessNamespace",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "ephemeralContainers",
    "enableServiceLinks",
];
/// Fields of the worker's container that are the operator's own.
const WORKER: [&str; 9] = [
    "image",
    "command",
    "args",
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
];
/// Values of a container's security context that are allowed.
const CONTAINER_SECURITY: [(&str, Value); 4] = [
    ("privileged", Value::Bool(false)),
    ("allowPrivilegeEscalation", Value::Bool(false)),
    ("runAsNonRoot", Value::Bool(true)),
    ("readOnlyRootFilesystem", Value::Bool(true)),
];
/// Sources of a volume that a pod under the restricted standard may have.
const VOLUMES: [&str; 7] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "secret"];

pub(super) fn check(overrides: &Map<String, Value>) -> Checked {
    let whole = Value::Object(overrides.clone());
    known_fields(&whole)?;
    if let Some(name) = overrides.keys().find(|name| !matches!(name.as_str(), "metadata" | "spec")) {
        return Err(forbidden(name, "only metadata and spec can be set"));
    }
    metadata(&whole["metadata"])?;
    pod(&whole["spec"])?;
    for list in ["containers", "initContainers"] {
        for container in items(&whole["spec"][list]) {
            self::container(list, container)?;
        }
    }
    items(&whole["spec"]["volumes"]).try_for_each(volume)
}

/// Types must fit and every field must exist: what the API server would drop silently is refused.
fn known_fields(whole: &Value) -> Checked {
    let typed: PodTemplateSpec = serde_json::from_value(without_nulls(whole))
        .map_err(|error| forbidden("", format!("it isn't a pod template: {error}")))?;
    let known = serde_json::to_value(typed).unwrap_or_default();
    match lost(whole, &known, "") {
        None => Ok(()),
        Some(path) => Err(forbidden(&path, "there is no such field in a pod template")),
    }
}

/// A `null` takes a field out; for its type it isn't there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// The first field that didn't survive becoming a type.
fn lost(written: &Value, known: &Value, path: &str) -> Option<String> {
    match (written, known) {
        (Value::Object(fields), Value::Object(known)) => fields.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match known.get(name) {
                // Directives of the merge, not fields.
                _ if value.is_null() || is_empty(value) || name == "$patch" => None,
                None => Some(path),
                Some(known) => lost(value, known, &path),
            }
        }),
        (Value::Array(items), Value::Array(known)) => items
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(at, (item, known))| lost(item, known, &format!("{path}[{at}]"))),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn metadata(metadata: &Value) -> Checked {
    for (name, _) in fields(metadata) {
        if !matches!(name.as_str(), "labels" | "annotations") {
            return Err(forbidden(&format!("metadata.{name}"), "only labels and annotations can be set"));
        }
    }
    for part in ["labels", "annotations"] {
        for (key, _) in fields(&metadata[part]) {
            let own = key.starts_with("luminate.dev/")
                || (part == "labels" && key.starts_with("app.kubernetes.io/"));
            if own {
                return Err(forbidden(&format!("metadata.{part}.{key}"), "the operator selects pods by it"));
            }
        }
    }
    Ok(())
}

fn pod(spec: &Value) -> Checked {
    if let Some((name, _)) = fields(spec).find(|(name, _)| POD.contains(&name.as_str())) {
        return Err(forbidden(&format!("spec.{name}"), "it is the operator's, or would weaken the pod"));
    }
    let security = &spec["securityContext"];
    if security.get("runAsNonRoot").is_some_and(|value| *value != true) {
        return Err(forbidden("spec.securityContext.runAsNonRoot", "pods don't run as root"));
    }
    for name in ["sysctls", "windowsOptions", "seccompProfile", "appArmorProfile", "seLinuxOptions"] {
        if security.get(name).is_some() {
            return Err(forbidden(&format!("spec.securityContext.{name}"), "it would weaken the pod"));
        }
    }
    not_root("spec.securityContext", security)
}

fn container(list: &str, container: &Value) -> Checked {
    let name = container["name"].as_str().unwrap_or_default();
    let at = format!("spec.{list}[{name}]");
    if name.is_empty() {
        return Err(forbidden(&at, "a container needs a name"));
    }
    let own = list == "containers" && name == CONTAINER;
    if let Some((field, _)) = fields(container).find(|(field, _)| own && WORKER.contains(&field.as_str())) {
        return Err(forbidden(&format!("{at}.{field}"), "it has a field of its own, or is the operator's"));
    }
    let security = &container["securityContext"];
    for (field, allowed) in &CONTAINER_SECURITY {
        if security.get(*field).is_some_and(|value| value != allowed) {
            return Err(forbidden(&format!("{at}.securityContext.{field}"), format!("it must be {allowed}")));
        }
    }
    for field in ["procMount", "windowsOptions", "seccompProfile", "appArmorProfile", "seLinuxOptions"] {
        if security.get(field).is_some() {
            return Err(forbidden(&format!("{at}.securityContext.{field}"), "it would weaken the pod"));
        }
    }
    if items(&security["capabilities"]["add"]).next().is_some() {
        return Err(forbidden(&format!("{at}.securityContext.capabilities.add"), "none may be added"));
    }
    if items(&container["ports"]).any(|port| port["hostPort"].as_i64().is_some_and(|port| port != 0)) {
        return Err(forbidden(&format!("{at}.ports"), "no hostPort may be used"));
    }
    not_root(&format!("{at}.securityContext"), security)
}

fn not_root(at: &str, security: &Value) -> Checked {
    match security["runAsUser"].as_i64() {
        Some(0) => Err(forbidden(&format!("{at}.runAsUser"), "pods don't run as root")),
        _ => Ok(()),
    }
}

fn volume(volume: &Value) -> Checked {
    let name = volume["name"].as_str().unwrap_or_default();
    let at = format!("spec.volumes[{name}]");
    if OWN_VOLUMES.contains(&name) {
        return Err(forbidden(&at, "the operator has a volume of that name"));
    }
    let sources = fields(volume).filter(|(field, _)| field.as_str() != "name");
    match sources.map(|(field, _)| field).find(|field| !VOLUMES.contains(&field.as_str())) {
        None => Ok(()),
        Some(source) => {
            Err(forbidden(&format!("{at}.{source}"), "only sources within the namespace are allowed"))
        }
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn forbidden(path: &str, problem: impl std::fmt::Display) -> Refused {
    let dot = if path.is_empty() { "" } else { "." };
    Refused { reason: Reason::OverrideForbidden, message: format!("spec.podTemplate{dot}{path}: {problem}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let overrides: Map<String, Value> = serde_saphyr::from_str(text).unwrap();
        check(&overrides).map_or_else(|refused| refused.message, |()| String::new())
    }

    #[test]
    fn what_has_no_field_of_its_own_can_be_set() {
        for allowed in [
            "{}",
            "metadata: {labels: {team: a}, annotations: {note: b}}",
            "spec: {dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.10]}}",
            "spec: {containers: [{name: worker, env: [{name: TZ, value: UTC}]}]}",
            "spec: {containers: [{name: agent, image: 'agent:1', resources: {limits: {memory: 1Gi}}}]}",
            "spec: {volumes: [{name: extra, configMap: {name: a}}]}",
            "spec: {affinity: {nodeAffinity: null}}",
            "spec: {containers: [{name: worker, env: [{name: TZ, $patch: delete}]}]}",
            "spec: {runtimeClassName: gvisor, topologySpreadConstraints: []}",
        ] {
            assert_eq!(refused(allowed), "", "{allowed}");
        }
    }

    #[test]
    fn what_weakens_the_pod_is_refused() {
        for (text, at) in [
            ("spec: {hostNetwork: true}", "spec.hostNetwork"),
            ("spec: {serviceAccountName: admin}", "spec.serviceAccountName"),
            ("spec: {automountServiceAccountToken: true}", "spec.automountServiceAccountToken"),
            ("spec: {securityContext: {runAsNonRoot: false}}", "runAsNonRoot"),
            ("spec: {securityContext: {runAsUser: 0}}", "runAsUser"),
            ("spec: {containers: [{name: x, securityContext: {privileged: true}}]}", "privileged"),
            ("spec: {initContainers: [{name: x, securityContext: {runAsUser: 0}}]}", "runAsUser"),
            (
                "spec: {containers: [{name: x, securityContext: {capabilities: {add: [SYS_ADMIN]}}}]}",
                "capabilities",
            ),
            ("spec: {containers: [{name: x, ports: [{containerPort: 1, hostPort: 1}]}]}", "hostPort"),
            ("spec: {volumes: [{name: x, hostPath: {path: /}}]}", "hostPath"),
        ] {
            assert!(refused(text).contains(at), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn what_is_the_operators_own_is_refused() {
        for (text, at) in [
            ("metadata: {labels: {luminate.dev/backend: x}}", "metadata.labels.luminate.dev/backend"),
            ("metadata: {name: x}", "metadata.name"),
            ("spec: {containers: [{name: worker, image: x}]}", "[worker].image"),
            ("spec: {volumes: [{name: config, emptyDir: {}}]}", "volumes[config]"),
            ("spec: {terminationGracePeriodSeconds: 1}", "terminationGracePeriodSeconds"),
            ("replicas: 3", "replicas"),
        ] {
            assert!(refused(text).contains(at), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn a_field_that_does_not_exist_is_named() {
        assert!(
            refused("spec: {nodeSelektor: {a: b}}").contains("spec.nodeSelektor: there is no such field")
        );
        assert!(refused("spec: {containers: [{name: worker, envv: [{name: a}]}]}").contains("envv"));
        assert!(refused("spec: {containers: 5}").contains("it isn't a pod template"));
    }
}
