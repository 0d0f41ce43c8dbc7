//! Everything that both backends share: who may ask, how much, and how they get there.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::pairs;
use super::{Algorithm, KeyReference, NameReference, part};
use crate::worker_config::{ByteSize, LogLevel, Span};

part! {
    /// Who may use the API: bearer tokens, checked with a shared secret or with public keys. Without any
    /// source of keys the operator makes a Secret of its own, NAME-jwt, once.
    AuthSection {
        /// Off, everybody is tenant `default` with every right.
        enabled: bool = true,
        /// A secret of at least 32 bytes; usual key jwt-secret.
        #[serde(skip_serializing_if = "Option::is_none")]
        jwt_secret_ref: Option<KeyReference> = None,
        /// Public keys as a JSON Web Key Set in a Secret; usual key jwks.json.
        #[serde(skip_serializing_if = "Option::is_none")]
        jwks_secret_ref: Option<KeyReference> = None,
        /// Where a JSON Web Key Set is fetched.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 512), regex(pattern = r"^https://[^/?#@\s]+(/[^#\s]*)?$"))]
        jwks_url: Option<String> = None,
        /// Algorithms allowed; empty, all that fit the keys.
        #[schemars(length(max = 6))]
        algorithms: Vec<Algorithm> = Vec::new(),
        /// Issuers allowed; empty, not checked.
        #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
        issuer: Vec<String> = Vec::new(),
        /// Audiences, one of which a token must name; empty, not checked.
        #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
        audience: Vec<String> = Vec::new(),
        /// How far clocks may differ.
        #[schemars(length(max = 12))]
        leeway: Span = Span::from_secs(60),
    }
}

part! {
    /// TLS of the API.
    TlsSection {
        /// A Secret of type kubernetes.io/tls; unset, the API speaks plain HTTP. Replaced certificates are
        /// taken up without a restart.
        #[serde(skip_serializing_if = "Option::is_none")]
        secret_ref: Option<NameReference> = None,
    }
}

part! {
    /// How long samples are kept.
    Retention {
        /// For tenants that set none of their own.
        #[schemars(length(max = 12))]
        default: Span = Span::from_days(30),
    }
}

part! {
    /// How much a tenant may create and ask.
    Limits {
        /// Write requests per second.
        #[schemars(range(min = 1, max = 1_000_000))]
        write_rps: u32 = 100,
        /// Queries and listings per second.
        #[schemars(range(min = 1, max = 1_000_000))]
        query_rps: u32 = 50,
        /// Samples per second.
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        metrics_per_second: u64 = 10_000,
        /// Queries at once.
        #[schemars(range(min = 1, max = 1_000_000))]
        concurrent_queries: u32 = 10,
        /// Requests per second of one client address; unset, not limited.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000))]
        address_rps: Option<u32> = None,
        /// Series of one metric.
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        max_series_per_metric: u64 = 1_000_000,
        /// Metrics of a tenant.
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        max_metrics_per_tenant: u64 = 1_000,
        /// Dimensions of a sample.
        #[schemars(range(min = 1, max = 256))]
        max_dimensions: u32 = 20,
        /// Characters of a dimension's value.
        #[schemars(range(min = 1, max = 65_536))]
        max_dimension_value: u32 = 256,
        /// What one query may cost.
        query: QueryLimits = QueryLimits::default(),
        /// What one write may contain.
        ingest: IngestLimits = IngestLimits::default(),
        /// Other limits for tokens with a tier, by its name.
        #[schemars(extend("maxProperties" = 16))]
        tiers: BTreeMap<String, Tier> = BTreeMap::new(),
    }
}

part! {
    /// What a tier changes; what it doesn't name stays as it is for everybody.
    Tier {
        /// Write requests per second.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000))]
        write_rps: Option<u32> = None,
        /// Queries and listings per second.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000))]
        query_rps: Option<u32> = None,
        /// Samples per second.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        metrics_per_second: Option<u64> = None,
        /// Queries at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000))]
        concurrent_queries: Option<u32> = None,
        /// Series of one metric.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        max_series_per_metric: Option<u64> = None,
        /// Metrics of a tenant.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        max_metrics_per_tenant: Option<u64> = None,
    }
}

part! {
    /// What one query may cost.
    QueryLimits {
        /// How long a query may work that doesn't say.
        #[schemars(length(max = 12))]
        default_timeout: Span = Span::from_secs(10),
        /// How long any query may work.
        #[schemars(length(max = 12))]
        max_timeout: Span = Span::from_secs(30),
        /// Longest time range.
        #[schemars(length(max = 12))]
        max_range: Span = Span::from_days(90),
        /// Most rows of an answer.
        #[schemars(range(min = 1, max = 10_000_000))]
        max_result_points: u32 = 10_000,
        /// Most keys to group by.
        #[schemars(range(min = 1, max = 256))]
        max_group_by: u32 = 10,
        /// Most samples that a query may look at.
        #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
        max_scanned_samples: u64 = 1_000_000_000,
        /// Most memory that a query may hold.
        #[schemars(length(max = 16))]
        max_memory: ByteSize = ByteSize(512 << 20),
    }
}

part! {
    /// What one write may contain.
    IngestLimits {
        /// Most samples of a request.
        #[schemars(range(min = 1, max = 10_000_000))]
        max_batch: u32 = 10_000,
        /// Largest body, after decoding.
        #[schemars(length(max = 16))]
        max_body_bytes: ByteSize = ByteSize(10_000_000),
        /// How old a sample may be.
        #[schemars(length(max = 12))]
        max_age: Span = Span::from_days(7),
        /// How far in the future a sample may lie.
        #[schemars(length(max = 12))]
        max_future: Span = Span::from_secs(3_600),
    }
}

part! {
    /// What is logged.
    Logging {
        /// How much.
        level: LogLevel = LogLevel::Info,
    }
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// From inside the cluster.
    ClusterIP,
    /// And on a port of every node.
    NodePort,
    /// And through a load balancer.
    LoadBalancer,
}

part! {
    /// The Service in front of the workers.
    ServiceSection {
        /// How it is reached.
        #[serde(rename = "type")]
        kind: ServiceType = ServiceType::ClusterIP,
        /// Its port.
        #[schemars(range(min = 1, max = 65_535))]
        port: u16 = 8080,
        /// Its annotations, such as a load balancer's settings.
        #[schemars(schema_with = "pairs")]
        annotations: BTreeMap<String, String> = BTreeMap::new(),
    }
}

/// How an Ingress compares a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathKind {
    /// By its segments.
    Prefix,
    /// As a whole.
    Exact,
    /// As the controller likes.
    ImplementationSpecific,
}

part! {
    /// An Ingress in front of the Service.
    IngressSection {
        /// Whether there is one.
        enabled: bool = false,
        /// Its class; unset, the cluster's default.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 253))]
        class_name: Option<String> = None,
        /// The host name; needed when it is enabled.
        #[schemars(length(max = 253), regex(pattern = r"^(\*\.)?([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$"))]
        host: String = String::new(),
        /// The path.
        #[schemars(length(min = 1, max = 512), regex(pattern = r"^/"))]
        path: String = "/".to_owned(),
        /// How the path is compared.
        path_type: PathKind = PathKind::Prefix,
        /// A Secret of type kubernetes.io/tls for the host; unset, no TLS.
        #[serde(skip_serializing_if = "Option::is_none")]
        tls_secret_ref: Option<NameReference> = None,
        /// Its annotations, such as the controller's settings.
        #[schemars(schema_with = "pairs")]
        annotations: BTreeMap<String, String> = BTreeMap::new(),
    }
}

part! {
    /// How Prometheus finds the workers' own figures. The ServiceMonitor is made only where its kind is known.
    Monitoring {
        /// Whether workers serve /metrics, and a ServiceMonitor is made.
        enabled: bool = true,
        /// How often they are read.
        #[schemars(length(min = 2, max = 8), regex(pattern = r"^[0-9]+(s|m)$"))]
        interval: String = "30s".to_owned(),
        /// Labels of the ServiceMonitor, by which a Prometheus selects it.
        #[schemars(schema_with = "pairs")]
        labels: BTreeMap<String, String> = BTreeMap::new(),
    }
}

part! {
    /// Who may reach the workers, and whom they may reach.
    NetworkPolicySection {
        /// Whether there is a NetworkPolicy. Workers may then reach DNS, ClickHouse's ports and the port of
        /// jwksUrl, and nothing else.
        enabled: bool = true,
        /// Who may reach the API; empty, everybody.
        #[schemars(length(max = 16))]
        from: Vec<Peer> = Vec::new(),
    }
}

part! {
    /// Pods that may reach the API: both selectors must match, an empty one matches all.
    Peer {
        /// Labels of their namespace.
        #[schemars(schema_with = "pairs")]
        namespace_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Their own labels.
        #[schemars(schema_with = "pairs")]
        pod_labels: BTreeMap<String, String> = BTreeMap::new(),
    }
}
