//! The worker's file: the worker's own types, so that both sides can't disagree.

use std::path::PathBuf;

use luminate_crds::luminate::{AckMode, Backend, LuminateSpec, Tier};
use luminate_crds::worker_config::{
    Ack, Auth, Backend as Store, CardinalityLimits, ClickHouse, Ingest, LogFormat, Logging, MetricsPage,
    QueryLimits, RateLimits, RetentionDefaults, RocksDb, Server, Span, Storage, TierLimits, Tls,
    WorkerConfig, escape,
};
use serde_json::{Map, Value, json};

use super::metadata::metadata;
use super::pod::{DATA_DIR, KEYS_DIR, PORT, TLS_DIR, TRUST_DIR};
use crate::controller::validate::{BackendSettings, CA_KEY, JWKS_KEY, JWT_KEY, Keys, Validated};
use crate::object::{Kind, Object};

/// After a pod is told to stop: how long requests in flight may take.
pub const SHUTDOWN_GRACE: Span = Span::from_secs(35);
/// The file's name in the ConfigMap.
pub const FILE: &str = "config.yaml";

/// Keys that are always written. Any other is written only where it isn't the default, so that a key that
/// a later version learns rolls no pod, and no older worker meets a key that it doesn't know.
const ALWAYS: [&str; 33] = [
    "server.max_body_bytes",
    "server.drain_delay",
    "server.shutdown_grace",
    "auth.enabled",
    "auth.leeway",
    "storage.backend",
    "storage.rocksdb.path",
    "storage.rocksdb.ack",
    "storage.clickhouse.endpoints",
    "storage.clickhouse.database",
    "storage.clickhouse.ack",
    "storage.clickhouse.linger",
    // The same on all workers, those of the version before included.
    "storage.clickhouse.refresh",
    "storage.clickhouse.max_batch_rows",
    "storage.clickhouse.max_queue_bytes",
    "storage.clickhouse.pool_size",
    "rate_limits.write_rps",
    "rate_limits.query_rps",
    "rate_limits.metrics_per_second",
    "rate_limits.concurrent_queries",
    "cardinality_limits.max_series_per_metric",
    "cardinality_limits.max_metrics_per_tenant",
    "cardinality_limits.max_dimensions",
    "cardinality_limits.max_dimension_value",
    "query_limits.default_timeout",
    "query_limits.max_timeout",
    "query_limits.max_range",
    "query_limits.max_result_points",
    "query_limits.max_group_by",
    "query_limits.max_scanned_samples",
    "query_limits.max_memory",
    "retention.default",
    "logging.level",
];

/// The worker's configuration. Secrets aren't in it: they come by variable or by file.
#[must_use]
pub fn worker_config(spec: &LuminateSpec, settings: &BackendSettings, keys: &Keys) -> WorkerConfig {
    WorkerConfig {
        server: server(spec),
        auth: auth(spec, keys),
        storage: storage(settings),
        rate_limits: rate_limits(spec),
        cardinality_limits: CardinalityLimits {
            max_series_per_metric: spec.limits.max_series_per_metric,
            max_metrics_per_tenant: spec.limits.max_metrics_per_tenant,
            max_dimensions: spec.limits.max_dimensions,
            max_dimension_value: spec.limits.max_dimension_value,
        },
        query_limits: query_limits(spec),
        ingest: Ingest {
            max_batch: spec.limits.ingest.max_batch,
            max_age: spec.limits.ingest.max_age,
            max_future: spec.limits.ingest.max_future,
            ..Ingest::default()
        },
        retention: RetentionDefaults { default: spec.retention.default, ..RetentionDefaults::default() },
        logging: Logging { level: spec.logging.level, format: Some(LogFormat::Json) },
        metrics: MetricsPage { enabled: spec.monitoring.enabled, ..MetricsPage::default() },
    }
}

/// The pod's `preStop` waits until no new request comes; so the worker itself need not.
fn server(spec: &LuminateSpec) -> Server {
    let tls = match spec.tls.secret_ref {
        None => Tls::default(),
        Some(_) => Tls { cert_file: Some(at(TLS_DIR, "tls.crt")), key_file: Some(at(TLS_DIR, "tls.key")) },
    };
    Server {
        port: PORT,
        max_body_bytes: spec.limits.ingest.max_body_bytes,
        drain_delay: Span::from_secs(0),
        shutdown_grace: SHUTDOWN_GRACE,
        tls,
        ..Server::default()
    }
}

fn at(directory: &str, file: &str) -> PathBuf {
    PathBuf::from(directory).join(file)
}

fn auth(spec: &LuminateSpec, keys: &Keys) -> Auth {
    let mut auth = Auth {
        enabled: spec.auth.enabled,
        algorithms: spec.auth.algorithms.clone(),
        issuer: spec.auth.issuer.clone(),
        audience: spec.auth.audience.clone(),
        leeway: spec.auth.leeway,
        ..Auth::default()
    };
    match keys {
        Keys::Disabled => {}
        Keys::Secret { .. } => auth.jwt_secret_file = Some(at(KEYS_DIR, JWT_KEY)),
        Keys::Jwks { .. } => auth.jwks_file = Some(at(KEYS_DIR, JWKS_KEY)),
        Keys::Url(url) => auth.jwks_url = Some(url.clone()),
    }
    auth
}

fn storage(settings: &BackendSettings) -> Storage {
    match settings {
        BackendSettings::RocksDb(section) => Storage {
            backend: Store::RocksDb,
            rocksdb: RocksDb { path: PathBuf::from(DATA_DIR), ack: ack(section.ack), ..RocksDb::default() },
            ..Storage::default()
        },
        BackendSettings::ClickHouse(section) => Storage {
            backend: Store::ClickHouse,
            clickhouse: ClickHouse {
                endpoints: section.endpoints.clone(),
                database: section.database.clone(),
                cluster: (!section.cluster.is_empty()).then(|| section.cluster.clone()),
                ca_file: trusts(section).then(|| at(TRUST_DIR, CA_KEY)),
                ack: ack(section.ack),
                linger: section.linger,
                max_batch_rows: section.max_batch_rows.into(),
                max_queue_bytes: section.max_queue_bytes,
                pool_size: section.pool_size,
                query_threads: section.query_threads,
                ..ClickHouse::default()
            },
            ..Storage::default()
        },
    }
}

fn ack(mode: AckMode) -> Ack {
    match mode {
        AckMode::Durable => Ack::Durable,
        AckMode::Buffered => Ack::Buffered,
    }
}

fn trusts(section: &luminate_crds::luminate::ClickHouseSection) -> bool {
    section.tls.ca_secret_ref.is_some() || section.tls.ca_config_map_ref.is_some()
}

fn rate_limits(spec: &LuminateSpec) -> RateLimits {
    let tier = |tier: &Tier| TierLimits {
        write_rps: tier.write_rps,
        query_rps: tier.query_rps,
        metrics_per_second: tier.metrics_per_second,
        concurrent_queries: tier.concurrent_queries,
        max_series_per_metric: tier.max_series_per_metric,
        max_metrics_per_tenant: tier.max_metrics_per_tenant,
    };
    let limits = &spec.limits;
    RateLimits {
        write_rps: limits.write_rps,
        query_rps: limits.query_rps,
        metrics_per_second: limits.metrics_per_second,
        concurrent_queries: limits.concurrent_queries,
        address_rps: limits.address_rps,
        tiers: limits.tiers.iter().map(|(name, limits)| (name.clone(), tier(limits))).collect(),
    }
}

fn query_limits(spec: &LuminateSpec) -> QueryLimits {
    let query = &spec.limits.query;
    QueryLimits {
        default_timeout: query.default_timeout,
        max_timeout: query.max_timeout,
        max_range: query.max_range,
        max_result_points: query.max_result_points,
        max_group_by: query.max_group_by,
        max_scanned_samples: query.max_scanned_samples,
        max_memory: query.max_memory,
        ..QueryLimits::default()
    }
}

/// The file's text. `${` is escaped: what a resource says must not read the pod's variables.
#[must_use]
pub fn file(config: &WorkerConfig) -> String {
    let values = rendered(config);
    escape(&serde_saphyr::to_string(&values).unwrap_or_default())
}

/// What of the configuration is written.
fn rendered(config: &WorkerConfig) -> Value {
    let values = |config: &WorkerConfig| serde_json::to_value(config).unwrap_or_default();
    let kept = prune(&values(config), &values(&WorkerConfig::default()), "", config.storage.backend);
    kept.unwrap_or_else(|| json!({}))
}

fn prune(value: &Value, default: &Value, path: &str, store: Store) -> Option<Value> {
    let other = match store {
        Store::RocksDb => "storage.clickhouse",
        Store::ClickHouse => "storage.rocksdb",
    };
    let differs = value != default;
    match value {
        _ if path == other => None,
        Value::Object(fields) if path != "rate_limits.tiers" && !path.starts_with("rate_limits.tiers.") => {
            let kept: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, value)| {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    prune(value, &default[name], &path, store).map(|value| (name.clone(), value))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Null => None,
        _ if differs || ALWAYS.contains(&path) => Some(without_nulls(value)),
        _ => None,
    }
}

/// Tiers name only what they change.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.iter().filter(|(_, value)| !value.is_null());
            set.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        other => other.clone(),
    }
}

/// The ConfigMap's name. Each backend has one of its own: while one is replaced by the other, pods of both
/// may start.
#[must_use]
pub fn config_map_name(name: &str, backend: Backend) -> String {
    format!("{name}-{}", backend.lower())
}

/// The ConfigMap with the worker's file.
pub(super) fn config_map(validated: &Validated) -> Object {
    let name = config_map_name(&validated.name, validated.backend());
    let rest = json!({ "data": { FILE: file(&validated.config) } });
    Object::new(Kind::ConfigMap, metadata(validated, &name), rest)
}

#[cfg(test)]
mod tests {
    use luminate_crds::worker_config::{keys, substitute};

    use super::*;
    use crate::testing::{clickhouse, rocksdb, validated};

    /// As a worker reads it, to which no variable is known.
    fn read_back(text: &str) -> WorkerConfig {
        serde_saphyr::from_str(&substitute(text, |_| None).unwrap()).unwrap()
    }

    #[test]
    fn a_worker_reads_what_was_meant() {
        for spec in [clickhouse(), rocksdb()] {
            let config = validated(spec).config;
            let mut meant = config.clone();
            // What the other backend's section says is never read.
            match meant.storage.backend {
                Store::RocksDb => meant.storage.clickhouse = ClickHouse::default(),
                Store::ClickHouse => meant.storage.rocksdb = RocksDb::default(),
            }
            assert_eq!(read_back(&file(&config)), meant);
        }
    }

    #[test]
    fn texts_that_look_like_variables_or_comments_are_read_as_they_are() {
        for text in ["${HOME}", "$${HOME}", "a\n# ${HOME}\n${HOME", "# ${HOME}", "a\n\n  # $${HOME}\n"] {
            let mut config = validated(clickhouse()).config;
            config.storage.clickhouse.endpoints = vec![text.to_owned()];
            assert_eq!(read_back(&file(&config)).storage, config.storage, "{text:?}");
        }
    }

    #[test]
    fn the_file_of_the_smallest_resource() {
        let text = file(&validated(rocksdb()).config);
        let values: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            values["storage"],
            json!({ "backend": "rocksdb", "rocksdb": { "path": "/var/lib/luminate", "ack": "durable" } })
        );
        assert_eq!(values["server"]["drain_delay"], "0s");
        assert_eq!(values["server"]["shutdown_grace"], "35s");
        assert_eq!(values["auth"]["jwt_secret_file"], "/etc/luminate-keys/jwt-secret");
        assert_eq!(values["server"].get("max_connections"), None);
    }

    #[test]
    fn every_key_that_is_always_written_exists() {
        let paths: Vec<String> = keys().into_iter().map(|key| key.path).collect();
        for path in ALWAYS {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
    }

    #[test]
    fn a_resource_cannot_read_the_pods_variables() {
        let mut spec = rocksdb();
        spec.auth.issuer = vec!["${LUMINATE_STORAGE_CLICKHOUSE_PASSWORD}".into(), "$${X}".into()];
        let config = validated(spec).config;
        let text = file(&config);
        assert!(text.contains("$${LUMINATE_STORAGE_CLICKHOUSE_PASSWORD}"), "{text}");
        assert_eq!(text.matches("${").count(), text.matches("$${").count());
    }

    #[test]
    fn hostile_texts_stay_texts() {
        let mut spec = rocksdb();
        spec.auth.issuer =
            ["a: b", "- x", "#no", "yes", "\"", "'", "a\nb", "1e3", "~", "é\u{2028}", "%y", "!!int 5"]
                .map(Into::into)
                .to_vec();
        let config = validated(spec).config;
        assert_eq!(read_back(&file(&config)).auth.issuer, config.auth.issuer);
    }

    #[test]
    fn tiers_name_only_what_they_change() {
        let mut spec = rocksdb();
        spec.limits.tiers.insert("gold".into(), Tier { query_rps: Some(500), ..Tier::default() });
        let values: Value = serde_saphyr::from_str(&file(&validated(spec).config)).unwrap();
        assert_eq!(values["rate_limits"]["tiers"], json!({ "gold": { "query_rps": 500 } }));
    }
}
