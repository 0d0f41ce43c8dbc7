//! The custom resource `Luminate`: what a person writes, and what the operator answers in its status.
//!
//! Every default stands on its field and so in the schema: the API server stores it with the resource,
//! and a later version of the operator changes nothing of what exists. Rules that one field alone can't
//! express are in [`definition`], in the API server's expression language.

mod backend;
mod definition;
mod serving;
mod status;
mod values;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use backend::{
    AckMode, Autoscaling, ClickHouseSection, ClickHouseTls, KeyReference, NameReference, ReclaimPolicy,
    RocksDbSection,
};
pub use definition::{DEFAULT_STORAGE, definition, definition_yaml};
pub use serving::{
    AuthSection, IngestLimits, IngressSection, Limits, Logging, Monitoring, NetworkPolicySection, PathKind,
    Peer, QueryLimits, Retention, ServiceSection, ServiceType, Tier, TlsSection,
};
pub use status::LuminateStatus;
pub use values::{AMOUNT_PATTERN, Amount, thousandths};

pub use crate::worker_config::{Algorithm, LogLevel};

/// A struct of the resource: every field with its default, camelCase in the schema.
macro_rules! part {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident : $type:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}
pub(crate) use part;

/// The annotation that allows a switch of the backend; its value is the generation that asks for it.
pub const ALLOW_SWITCH: &str = "luminate.dev/allow-backend-switch";

/// Which store keeps the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Backend {
    /// Stateless workers in front of a ClickHouse server or cluster.
    ClickHouse,
    /// One worker with an embedded engine and a volume.
    RocksDB,
}

impl Backend {
    /// As the resource spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClickHouse => "ClickHouse",
            Self::RocksDB => "RocksDB",
        }
    }

    /// In names and labels.
    #[must_use]
    pub fn lower(self) -> &'static str {
        match self {
            Self::ClickHouse => "clickhouse",
            Self::RocksDB => "rocksdb",
        }
    }

    /// The one that it isn't.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::ClickHouse => Self::RocksDB,
            Self::RocksDB => Self::ClickHouse,
        }
    }
}

/// What an installation should be.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "luminate.dev",
    version = "v1alpha1",
    kind = "Luminate",
    namespaced,
    shortname = "lum",
    category = "luminate",
    doc = "An installation of Luminate: a metrics store of workers over ClickHouse or an embedded engine.",
    status = "LuminateStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct LuminateSpec {
    /// ClickHouse or RocksDB. Exactly the section of that name may be set.
    pub backend: Backend,
    /// Workers while autoscaling is off. For RocksDB 1, or 0 for maintenance.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// ClickHouse: where it is, and how many workers stand in front of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clickhouse: Option<ClickHouseSection>,
    /// The embedded engine: its volume. May be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rocksdb: Option<RocksDbSection>,
    /// The worker's image.
    #[serde(default)]
    pub image: Image,
    /// Who may use the API.
    #[serde(default)]
    pub auth: AuthSection,
    /// TLS of the API.
    #[serde(default)]
    pub tls: TlsSection,
    /// How long samples are kept.
    #[serde(default)]
    pub retention: Retention,
    /// How much a tenant may create and ask.
    #[serde(default)]
    pub limits: Limits,
    /// What is logged.
    #[serde(default)]
    pub logging: Logging,
    /// The Service in front of the workers.
    #[serde(default)]
    pub service: ServiceSection,
    /// An Ingress in front of the Service.
    #[serde(default)]
    pub ingress: IngressSection,
    /// How Prometheus finds the workers' own figures.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Who may reach the workers, and whom they may reach.
    #[serde(default)]
    pub network_policy: NetworkPolicySection,
    /// CPU and memory of a worker.
    #[serde(default)]
    pub resources: Resources,
    /// Where workers run.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Laid over the pod template by strategic merge: for what has no field here. What would weaken the
    /// pod's security or break the operator's own fields is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "values::anything")]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
    /// While true, the operator writes nothing but the status.
    #[serde(default)]
    pub paused: bool,
}

fn one() -> i32 {
    1
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start of a pod.
    Always,
    /// When the node hasn't got it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

part! {
    /// The worker's image.
    Image {
        /// Its name, with a registry if it isn't the node's usual one.
        #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9]([a-z0-9._/:-]*[a-z0-9])?$"))]
        repository: String = "luminate-worker".to_owned(),
        /// Its tag. The default is the version that was current when the resource was made.
        #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))]
        tag: String = env!("CARGO_PKG_VERSION").to_owned(),
        /// Its digest; if set, it holds and the tag is for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 71), regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
        digest: Option<String> = None,
        /// When it is fetched.
        pull_policy: PullPolicy = PullPolicy::IfNotPresent,
        /// Secrets with the registry's credentials.
        #[schemars(length(max = 8))]
        pull_secrets: Vec<NameReference> = Vec::new(),
    }
}

impl Image {
    /// The whole reference: by digest if there is one.
    #[must_use]
    pub fn reference(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.repository),
            None => format!("{}:{}", self.repository, self.tag),
        }
    }
}

part! {
    /// CPU and memory of a worker.
    Resources {
        /// What is set aside for it; autoscaling counts in percent of it.
        requests: Requests = Requests::default(),
        /// What it may use at most.
        limits: ResourceLimits = ResourceLimits::default(),
    }
}

part! {
    /// What is set aside for a worker.
    Requests {
        /// Cores.
        cpu: Amount = Amount::new("500m"),
        /// Memory.
        memory: Amount = Amount::new("1Gi"),
    }
}

part! {
    /// What a worker may use at most.
    ResourceLimits {
        /// Cores; unset, as many as the node can spare.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu: Option<Amount> = None,
        /// Memory. The engine and queries take theirs from it.
        memory: Amount = Amount::new("1Gi"),
    }
}

part! {
    /// Where workers run.
    Scheduling {
        /// Labels that a node must have.
        #[schemars(schema_with = "values::pairs")]
        node_selector: BTreeMap<String, String> = BTreeMap::new(),
        /// Taints that are accepted.
        #[schemars(length(max = 16))]
        tolerations: Vec<Toleration> = Vec::new(),
        /// The pods' priority class.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 253))]
        priority_class_name: Option<String> = None,
    }
}

/// How a toleration compares a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value.
    Equal,
    /// The key alone.
    Exists,
}

/// What a taint does to a pod that doesn't tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// It isn't placed there.
    NoSchedule,
    /// It is placed there only if it must.
    PreferNoSchedule,
    /// It is driven out.
    NoExecute,
}

part! {
    /// A taint that is accepted.
    Toleration {
        /// The taint's key; unset with Exists, every taint.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 253))]
        key: Option<String> = None,
        /// How it is compared.
        operator: TolerationOperator = TolerationOperator::Equal,
        /// The taint's value.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 63))]
        value: Option<String> = None,
        /// The taint's effect; unset, every effect.
        #[serde(skip_serializing_if = "Option::is_none")]
        effect: Option<TaintEffect> = None,
        /// For NoExecute: how long the pod may stay.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0))]
        toleration_seconds: Option<i64> = None,
    }
}

impl LuminateSpec {
    /// A resource of this backend with every default, as the API server would store it.
    #[must_use]
    pub fn of(backend: Backend) -> Self {
        Self {
            backend,
            replicas: 1,
            clickhouse: None,
            rocksdb: None,
            image: Image::default(),
            auth: AuthSection::default(),
            tls: TlsSection::default(),
            retention: Retention::default(),
            limits: Limits::default(),
            logging: Logging::default(),
            service: ServiceSection::default(),
            ingress: IngressSection::default(),
            monitoring: Monitoring::default(),
            network_policy: NetworkPolicySection::default(),
            resources: Resources::default(),
            scheduling: Scheduling::default(),
            pod_template: None,
            paused: false,
        }
    }

    /// The embedded engine's section, with defaults where it was left out.
    #[must_use]
    pub fn rocksdb_or_default(&self) -> RocksDbSection {
        self.rocksdb.clone().unwrap_or_default()
    }
}
