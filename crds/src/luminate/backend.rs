//! The two backends' sections.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::part;
use super::values::AMOUNT_PATTERN;
use crate::worker_config::{ByteSize, Span};

/// An object of the same namespace. No reference of this resource leaves its namespace: whoever may write
/// a resource here could otherwise read what belongs to others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct NameReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of a Secret or ConfigMap of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct KeyReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key; unset, the usual one of its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
}

impl KeyReference {
    /// The key that holds, where `usual` is the one of this place.
    #[must_use]
    pub fn key_or<'a>(&'a self, usual: &'a str) -> &'a str {
        self.key.as_deref().unwrap_or(usual)
    }
}

/// ClickHouse: where it is, and how many workers stand in front of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClickHouseSection {
    /// Addresses of its HTTP interface, such as https://clickhouse:8443; tried in turn.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 8, max = 512), regex(pattern = r"^https?://[^/?#@\s]+/?$"))
    )]
    pub endpoints: Vec<String>,
    /// Database; created if it is missing.
    #[serde(default = "database")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub database: String,
    /// Cluster of replicated tables; empty for one server.
    #[serde(default)]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9_.{}-]*$"))]
    pub cluster: String,
    /// A Secret with the keys username and password; unset, ClickHouse's default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameReference>,
    /// Certificates to trust; unset, the system's.
    #[serde(default)]
    pub tls: ClickHouseTls,
    /// How many workers.
    #[serde(default)]
    pub autoscaling: Autoscaling,
    /// When a write is answered. Holds for tables made from now on.
    #[serde(default = "ack")]
    pub ack: AckMode,
    /// Shortest time between the starts of two inserts of a worker.
    #[serde(default = "linger")]
    #[schemars(length(max = 12))]
    pub linger: Span,
    /// Most rows of an insert.
    #[serde(default = "max_batch_rows")]
    #[schemars(range(min = 1_000, max = 10_000_000))]
    pub max_batch_rows: u32,
    /// Most bytes that wait in a worker to be inserted.
    #[serde(default = "max_queue_bytes")]
    #[schemars(length(max = 16))]
    pub max_queue_bytes: ByteSize,
    /// Most queries of a worker at once; more wait.
    #[serde(default = "pool_size")]
    #[schemars(range(min = 1, max = 1_000))]
    pub pool_size: u32,
    /// Threads of a query on the server; unset, what ClickHouse gives its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_024))]
    pub query_threads: Option<u32>,
}

fn database() -> String {
    "luminate".to_owned()
}

fn ack() -> AckMode {
    AckMode::Durable
}

fn linger() -> Span {
    Span::from_millis(500)
}

fn max_batch_rows() -> u32 {
    1_000_000
}

fn max_queue_bytes() -> ByteSize {
    ByteSize(64_000_000)
}

fn pool_size() -> u32 {
    16
}

impl ClickHouseSection {
    /// Every default, with these endpoints.
    #[must_use]
    pub fn at(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            database: database(),
            cluster: String::new(),
            credentials_secret_ref: None,
            tls: ClickHouseTls::default(),
            autoscaling: Autoscaling::default(),
            ack: ack(),
            linger: linger(),
            max_batch_rows: max_batch_rows(),
            max_queue_bytes: max_queue_bytes(),
            pool_size: pool_size(),
            query_threads: None,
        }
    }
}

part! {
    /// Certificates that ClickHouse's must be signed by; at most one of both.
    ClickHouseTls {
        /// In a Secret, usual key ca.crt.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_secret_ref: Option<KeyReference> = None,
        /// In a ConfigMap, usual key ca.crt.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_config_map_ref: Option<KeyReference> = None,
    }
}

part! {
    /// How many workers there are, by their load.
    Autoscaling {
        /// Off, there are spec.replicas.
        enabled: bool = true,
        /// Never fewer than these.
        #[schemars(range(min = 1, max = 1_000))]
        min_replicas: i32 = 3,
        /// Never more than these.
        #[schemars(range(min = 1, max = 1_000))]
        max_replicas: i32 = 10,
        /// Wanted CPU in percent of what is requested.
        #[serde(rename = "targetCPUUtilizationPercentage")]
        #[schemars(range(min = 1, max = 1_000))]
        target_cpu: i32 = 70,
        /// Wanted memory in percent of what is requested.
        #[serde(rename = "targetMemoryUtilizationPercentage")]
        #[schemars(range(min = 1, max = 1_000))]
        target_memory: i32 = 80,
    }
}

/// What becomes of the volume when the resource is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// It stays, and a resource of the same name takes it up again.
    Retain,
    /// It goes too.
    Delete,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AckMode {
    /// Once it is on stable storage.
    Durable,
    /// Once the store has it in memory: the operating system, or ClickHouse.
    Buffered,
}

part! {
    /// The embedded engine and its volume.
    RocksDbSection {
        /// Size of the volume. It may grow, if its class allows it, but never shrink.
        #[schemars(length(max = 20), regex(pattern = AMOUNT_PATTERN))]
        storage: String = super::DEFAULT_STORAGE.to_owned(),
        /// The volume's class; unset, the cluster's default. It can't be changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 253))]
        storage_class_name: Option<String> = None,
        /// What becomes of the volume when the resource is deleted.
        reclaim_policy: ReclaimPolicy = ReclaimPolicy::Retain,
        /// When a write is answered.
        ack: AckMode = AckMode::Durable,
    }
}
