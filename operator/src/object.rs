//! The kinds of object that an installation owns, and an object as it should be.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A kind of object that the operator makes or watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The pods' identity.
    ServiceAccount,
    /// The worker's file.
    ConfigMap,
    /// The secret of tokens.
    Secret,
    /// The API's address, and a StatefulSet's names.
    Service,
    /// Who may reach whom.
    NetworkPolicy,
    /// How many pods may go at once.
    PodDisruptionBudget,
    /// Stateless workers.
    Deployment,
    /// The worker with a volume.
    StatefulSet,
    /// How many workers there are.
    HorizontalPodAutoscaler,
    /// The API's address outside of the cluster.
    Ingress,
    /// How Prometheus finds the workers.
    ServiceMonitor,
    /// The volume of a StatefulSet; made by its controller, grown by this one.
    PersistentVolumeClaim,
}

impl Kind {
    /// Every kind, in the order in which objects are applied: what pods need comes before the pods.
    pub const ALL: [Self; 12] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::Deployment,
        Self::StatefulSet,
        Self::HorizontalPodAutoscaler,
        Self::Ingress,
        Self::ServiceMonitor,
        Self::PersistentVolumeClaim,
    ];

    /// Its name, such as `ConfigMap`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::Ingress => "Ingress",
            Self::ServiceMonitor => "ServiceMonitor",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
        }
    }

    /// Where the API server has it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => known::<ServiceAccount>(),
            Self::ConfigMap => known::<ConfigMap>(),
            Self::Secret => known::<Secret>(),
            Self::Service => known::<Service>(),
            Self::NetworkPolicy => known::<NetworkPolicy>(),
            Self::PodDisruptionBudget => known::<PodDisruptionBudget>(),
            Self::Deployment => known::<Deployment>(),
            Self::StatefulSet => known::<StatefulSet>(),
            Self::HorizontalPodAutoscaler => known::<HorizontalPodAutoscaler>(),
            Self::Ingress => known::<Ingress>(),
            Self::PersistentVolumeClaim => known::<PersistentVolumeClaim>(),
            Self::ServiceMonitor => ApiResource {
                group: "monitoring.coreos.com".to_owned(),
                version: "v1".to_owned(),
                api_version: "monitoring.coreos.com/v1".to_owned(),
                kind: "ServiceMonitor".to_owned(),
                plural: "servicemonitors".to_owned(),
            },
        }
    }
}

fn known<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// How an object is brought into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// By server-side apply, whenever it differs.
    Apply,
    /// Once; what is there is never overwritten.
    CreateOnce,
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// How it is brought into being.
    pub policy: Policy,
    /// All of it: `apiVersion`, `kind`, `metadata` and the rest.
    pub body: Value,
}

/// The annotation that holds the digest of what was applied last: by it a field is noticed that is no
/// longer wanted, which a comparison with the live object alone can't show.
pub const APPLIED: &str = "luminate.dev/applied";

impl Object {
    /// An object with its digest noted; `rest` holds everything but `apiVersion`, `kind` and `metadata`.
    #[must_use]
    pub fn new(kind: Kind, metadata: Value, rest: Value) -> Self {
        let resource = kind.resource();
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": metadata,
        });
        if let (Value::Object(body), Value::Object(rest)) = (&mut body, rest) {
            body.extend(rest);
        }
        let digest = digest(&body);
        body["metadata"]["annotations"][APPLIED] = digest.into();
        Self { kind, name, policy: Policy::Apply, body }
    }

    /// The same, but made once and never overwritten.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.policy = Policy::CreateOnce;
        self
    }

    /// The digest of what is wanted.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.body["metadata"]["annotations"][APPLIED].as_str().unwrap_or_default()
    }
}

/// A short digest of a value. Keys are sorted, so that equal values have equal digests.
#[must_use]
pub fn digest(value: &Value) -> String {
    let mut hasher = Sha256::new();
    feed(value, &mut hasher);
    short(&hasher.finalize())
}

/// The first 16 hexadecimal digits of a digest.
#[must_use]
pub fn short(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            hasher.update(b"{");
            for name in names {
                feed(&Value::String(name.clone()), hasher);
                feed(&fields[name], hasher);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            items.iter().for_each(|item| feed(item, hasher));
            hasher.update(b"]");
        }
        Value::String(text) => {
            hasher.update(b"\"");
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        other => {
            hasher.update(other.to_string().as_bytes());
            hasher.update(b",");
        }
    }
}

/// A live object as values, `apiVersion` and `kind` included.
#[must_use]
pub fn values(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_digests_whatever_their_order() {
        assert_eq!(digest(&json!({ "a": 1, "b": [1, "x"] })), digest(&json!({ "b": [1, "x"], "a": 1 })));
    }

    #[test]
    fn what_differs_has_another_digest() {
        let values = [
            json!({}),
            json!([]),
            json!(""),
            json!({ "a": "" }),
            json!(["a", "b"]),
            json!(["ab"]),
            json!([1, 2]),
        ];
        let digests: std::collections::BTreeSet<String> = values.iter().map(digest).collect();
        assert_eq!(digests.len(), values.len());
    }

    #[test]
    fn every_kind_has_a_place_and_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.resource().kind, kind.name());
        }
    }
}
