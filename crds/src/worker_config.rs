//! The worker's configuration file: a struct a section, every default on its field.
//!
//! Only shapes and defaults are here. What values are allowed is checked in one place, by the worker's
//! `config.rs`, which also reads the environment.

mod keys;
mod units;
mod variables;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use keys::{ENV_PREFIX, Key, Kind, keys};
pub use units::{ByteSize, InvalidUnit, Secret, Span};
pub use variables::{InvalidVariable, escape, substitute};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// A worker's whole configuration.
    WorkerConfig {
        /// How it listens.
        server: Server = Server::default(),
        /// Who may use it.
        auth: Auth = Auth::default(),
        /// Where samples are kept.
        storage: Storage = Storage::default(),
        /// How fast a tenant may ask; applied only when auth is enabled.
        rate_limits: RateLimits = RateLimits::default(),
        /// How much a tenant may create.
        cardinality_limits: CardinalityLimits = CardinalityLimits::default(),
        /// What one query may cost.
        query_limits: QueryLimits = QueryLimits::default(),
        /// What a write may contain.
        ingest: Ingest = Ingest::default(),
        /// How long samples are kept.
        retention: RetentionDefaults = RetentionDefaults::default(),
        /// What is logged.
        logging: Logging = Logging::default(),
        /// The worker's own figures.
        metrics: MetricsPage = MetricsPage::default(),
    }
}

section! {
    /// How the worker listens and how it stops.
    Server {
        /// Address to listen on (default 0.0.0.0).
        host: IpAddr = IpAddr::from([0, 0, 0, 0]),
        /// Port to listen on; 0 takes any free one (default 8080).
        port: u16 = 8080,
        /// Largest request body, after decoding (default 10 MB).
        max_body_bytes: ByteSize = ByteSize(10_000_000),
        /// Most bytes of a request's headers (default 64 KiB).
        max_header_bytes: ByteSize = ByteSize(64 << 10),
        /// Time in which a request's headers must arrive, and a TLS handshake end (default 10s).
        header_timeout: Span = Span::from_secs(10),
        /// Time in which a request's body must arrive (default 30s).
        body_timeout: Span = Span::from_secs(30),
        /// A connection without a request for this long is closed (default 60s).
        idle_timeout: Span = Span::from_secs(60),
        /// Most connections at once; more are answered 503 and closed (default 10000).
        max_connections: u32 = 10_000,
        /// Most requests at once on one HTTP/2 connection (default 128).
        max_concurrent_streams: u32 = 128,
        /// After a signal to stop: how long it goes on taking requests while not ready (default 5s).
        drain_delay: Span = Span::from_secs(5),
        /// After `drain_delay`: how long requests in flight may take (default 35s).
        shutdown_grace: Span = Span::from_secs(35),
        /// Certificate and key for TLS (default off).
        tls: Tls = Tls::default(),
    }
}

section! {
    /// Certificate and key for TLS, both or none; replaced files are taken up without a restart.
    Tls {
        /// Certificate chain, PEM (default off).
        cert_file: Option<PathBuf> = None,
        /// Private key, PEM (default off).
        key_file: Option<PathBuf> = None,
    }
}

/// A signature algorithm of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Self; 6] = [Self::HS256, Self::HS384, Self::HS512, Self::RS256, Self::ES256, Self::EdDSA];

    /// Whether it needs a shared secret rather than a public key.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

section! {
    /// How bearer tokens are checked. Disabled, everybody is tenant `default` with every scope.
    Auth {
        /// Whether requests need a token (default false).
        enabled: bool = false,
        /// Secret of HS256, HS384 and HS512, at least 32 bytes (default none).
        jwt_secret: Option<Secret> = None,
        /// The same in a file; reloaded when it changes (default none).
        jwt_secret_file: Option<PathBuf> = None,
        /// Public key of RS256, ES256 or EdDSA, PEM; reloaded when it changes (default none).
        public_key_file: Option<PathBuf> = None,
        /// Public keys as a JSON Web Key Set; reloaded when it changes (default none).
        jwks_file: Option<PathBuf> = None,
        /// Where a JSON Web Key Set is fetched, https (default none).
        jwks_url: Option<String> = None,
        /// Algorithms allowed (default: all that fit the keys given).
        algorithms: Vec<Algorithm> = Vec::new(),
        /// Issuers allowed, one or a list; a token must name one of them (default: not checked).
        #[serde(deserialize_with = "one_or_many")]
        issuer: Vec<String> = Vec::new(),
        /// Audiences, one or a list; a token must name one of them (default: not checked).
        #[serde(deserialize_with = "one_or_many")]
        audience: Vec<String> = Vec::new(),
        /// How far clocks may differ (default 60s).
        leeway: Span = Span::from_secs(60),
    }
}

/// Which store keeps the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The embedded engine.
    RocksDb,
    /// A ClickHouse server or cluster.
    ClickHouse,
}

section! {
    /// Where samples are kept.
    Storage {
        /// `rocksdb` (default) or `clickhouse`.
        backend: Backend = Backend::RocksDb,
        /// The embedded engine's settings.
        rocksdb: RocksDb = RocksDb::default(),
        /// ClickHouse's settings.
        clickhouse: ClickHouse = ClickHouse::default(),
    }
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// Once it is on stable storage.
    Durable,
    /// Once the operating system has it; answers then say `"durable": false`.
    Buffered,
}

section! {
    /// The embedded engine.
    RocksDb {
        /// Directory of its files, created if it is missing (default ./data).
        path: PathBuf = PathBuf::from("./data"),
        /// `durable` (default) or `buffered`.
        ack: Ack = Ack::Durable,
        /// Memory for series, head and caches together (default: half of what the machine or its cgroup has).
        memory: Option<ByteSize> = None,
        /// Threads of a query (default: the cores of the machine or its cgroup).
        threads: Option<u32> = None,
        /// Samples in memory are written to pages at least this often (default 2h).
        seal_window: Span = Span::from_secs(7_200),
        /// They are written to pages when the log behind them passes this size (default 256 MiB).
        log_cap: ByteSize = ByteSize(256 << 20),
        /// Directory of backups that `POST /api/v1/admin/backup` makes, created if it is missing; on the file system
        /// of `path` they share its bytes (default none: no backups).
        backup_path: Option<PathBuf> = None,
    }
}

section! {
    /// ClickHouse.
    ClickHouse {
        /// Addresses of its HTTP interface, such as `https://clickhouse:8443`.
        endpoints: Vec<String> = Vec::new(),
        /// Database (default luminate).
        database: String = "luminate".to_owned(),
        /// User (default none).
        username: Option<String> = None,
        /// The user's password (default none).
        password: Option<Secret> = None,
        /// Cluster name of replicated tables (default none: one server).
        cluster: Option<String> = None,
        /// Certificates to trust, PEM (default: the system's).
        ca_file: Option<PathBuf> = None,
        /// `durable` (default): an insert is answered once ClickHouse has synced it to its disk; `buffered`: once
        /// ClickHouse has it, which in a cluster leaves it to the replicas. Holds for tables made from now on.
        ack: Ack = Ack::Durable,
        /// Shortest time between the starts of two inserts (default 500ms).
        linger: Span = Span::from_millis(500),
        /// How often a worker looks for what others have deleted or keep shorter; the same on all of them, since a
        /// delete takes two and a half times as long (default 1s).
        refresh: Span = Span::from_secs(1),
        /// Most rows of an insert (default 1000000).
        max_batch_rows: u64 = 1_000_000,
        /// Most bytes that wait to be inserted (default 64 MB).
        max_queue_bytes: ByteSize = ByteSize(64_000_000),
        /// Most queries at once; more wait (default 16).
        pool_size: u32 = 16,
        /// Threads of a query on the server (default: what ClickHouse gives its user).
        query_threads: Option<u32> = None,
        /// Time to connect (default 2s).
        connect_timeout: Span = Span::from_secs(2),
        /// Time of an insert (default 30s).
        insert_timeout: Span = Span::from_secs(30),
    }
}

section! {
    /// How fast a tenant may ask; applied only when auth is enabled.
    RateLimits {
        /// Write requests per second of a tenant (default 100).
        write_rps: u32 = 100,
        /// Queries and listings per second of a tenant (default 50).
        query_rps: u32 = 50,
        /// Samples per second of a tenant (default 10000).
        metrics_per_second: u64 = 10_000,
        /// Queries at once of a tenant (default 10).
        concurrent_queries: u32 = 10,
        /// Requests per second of one client address, with or without auth (default: not limited).
        address_rps: Option<u32> = None,
        /// Other limits for tokens with a `tier`, by its name.
        tiers: BTreeMap<String, TierLimits> = BTreeMap::new(),
    }
}

section! {
    /// What a tier changes; what it doesn't name stays as it is for everybody.
    TierLimits {
        /// Write requests per second.
        write_rps: Option<u32> = None,
        /// Queries and listings per second.
        query_rps: Option<u32> = None,
        /// Samples per second.
        metrics_per_second: Option<u64> = None,
        /// Queries at once.
        concurrent_queries: Option<u32> = None,
        /// Series of one metric.
        max_series_per_metric: Option<u64> = None,
        /// Metrics.
        max_metrics_per_tenant: Option<u64> = None,
    }
}

section! {
    /// How much a tenant may create.
    CardinalityLimits {
        /// Series of one metric (default 1000000).
        max_series_per_metric: u64 = 1_000_000,
        /// Metrics of a tenant (default 1000).
        max_metrics_per_tenant: u64 = 1_000,
        /// Dimensions of a sample (default 20).
        max_dimensions: u32 = 20,
        /// Characters of a dimension's value (default 256).
        max_dimension_value: u32 = 256,
    }
}

section! {
    /// What one query may cost.
    QueryLimits {
        /// How long a query may work that doesn't say (default 10s).
        default_timeout: Span = Span::from_secs(10),
        /// How long any query may work (default 30s).
        max_timeout: Span = Span::from_secs(30),
        /// Longest time range (default 90d).
        max_range: Span = Span::from_days(90),
        /// Most rows of an answer (default 10000).
        max_result_points: u32 = 10_000,
        /// Most keys to group by (default 10).
        max_group_by: u32 = 10,
        /// Most samples that a query may look at (default 1000000000).
        max_scanned_samples: u64 = 1_000_000_000,
        /// Most memory that a query may hold (default 512 MiB).
        max_memory: ByteSize = ByteSize(512 << 20),
        /// Most queries and listings at work at once, of all tenants; under overload, heavy ones take no more than
        /// half of them (default 64).
        max_concurrent: u32 = 64,
        /// A query that would look at more samples than this is a heavy one (default 20000000).
        heavy_samples: u64 = 20_000_000,
    }
}

section! {
    /// What a write may contain.
    Ingest {
        /// Most samples of a request (default 10000).
        max_batch: u32 = 10_000,
        /// How old a sample may be (default 7d).
        max_age: Span = Span::from_days(7),
        /// How far in the future a sample may lie (default 1h).
        max_future: Span = Span::from_secs(3_600),
        /// How OpenTelemetry's metrics become ours.
        otlp: Otlp = Otlp::default(),
    }
}

/// What tells the common sources of metrics apart, and what their series are grouped by; not what merely describes
/// them, because a sample may have only so many dimensions.
const RESOURCE_ATTRIBUTES: [&str; 8] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "host.name",
    "container.name",
    "k8s.*.name",
];

section! {
    /// How OpenTelemetry's metrics become ours.
    Otlp {
        /// Attributes of a resource that become dimensions: their names, with at most one `*` each, which stands for
        /// anything (default: what tells services, hosts, containers and Kubernetes' objects apart).
        resource_attributes: Vec<String> = RESOURCE_ATTRIBUTES.map(str::to_owned).to_vec(),
        /// Attributes of an instrumentation scope, and its `name` and `version`, that become dimensions, in the same
        /// way (default none).
        scope_attributes: Vec<String> = Vec::new(),
        /// Whether names get Prometheus' suffixes: their unit, and `_total` for counters (default true).
        metric_suffixes: bool = true,
    }
}

section! {
    /// How long samples are kept.
    RetentionDefaults {
        /// Retention of tenants that set none (default 30d).
        default: Span = Span::from_days(30),
        /// How often expired days are removed (default 1h).
        check_interval: Span = Span::from_secs(3_600),
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that somebody must act on.
    Error,
    /// And what may need a look.
    Warn,
    /// And what the worker does.
    Info,
    /// And one line a request.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

section! {
    /// What is logged.
    Logging {
        /// `error`, `warn`, `info` (default), `debug` or `trace`.
        level: LogLevel = LogLevel::Info,
        /// `json` or `text` (default: text on a terminal, else json).
        format: Option<LogFormat> = None,
    }
}

section! {
    /// The worker's own figures, as a page for Prometheus.
    MetricsPage {
        /// Whether `/metrics` is served (default true).
        enabled: bool = true,
        /// A port of its own for it (default: the server's).
        port: Option<u16> = None,
    }
}

/// A list that may be written as its only element.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config: WorkerConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, WorkerConfig::default());
        assert_eq!(config.server.port, 8080);
        assert_eq!(config.retention.default.to_string(), "30d");
    }

    #[test]
    fn unknown_keys_are_refused_in_every_section() {
        for text in [r#"{"servr": {}}"#, r#"{"server": {"prt": 1}}"#, r#"{"server": {"tls": {"cert": ""}}}"#]
        {
            let error = serde_json::from_str::<WorkerConfig>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn an_audience_is_one_or_many() {
        let read = |text: &str| serde_json::from_str::<Auth>(text).unwrap().audience;
        assert_eq!(read(r#"{"audience": "a"}"#), ["a"]);
        assert_eq!(read(r#"{"audience": ["a", "b"]}"#), ["a", "b"]);
    }

    #[test]
    fn what_is_printed_reads_back() {
        let config = WorkerConfig::default();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<WorkerConfig>(&text).unwrap(), config);
    }
}
