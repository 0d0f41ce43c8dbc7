//! Which values are allowed: the one place that says so.

use std::fmt::Display;
use std::net::IpAddr;

use luminate_crds::worker_config::{
    Auth, Backend, ByteSize, ClickHouse, RateLimits, Server, Span, TierLimits, WorkerConfig,
};

/// The shortest secret of an HMAC key: as long as its shortest digest (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// A rule that a value breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The key.
    pub key: &'static str,
    /// Its value, masked where it is secret.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

type Checked = Result<(), Broken>;

/// Checks every rule.
///
/// # Errors
/// The first that is broken.
pub fn check(config: &WorkerConfig) -> Checked {
    server(&config.server)?;
    auth(&config.auth)?;
    storage(config)?;
    rates(&config.rate_limits)?;
    limits(config)?;
    retention(config)?;
    let clash = config.server.port != 0 && config.metrics.port == Some(config.server.port);
    rule(!clash, "metrics.port", config.server.port, "another port than server.port, or left open")
}

fn server(server: &Server) -> Checked {
    let body = server.max_body_bytes;
    within("server.max_body_bytes", body, ByteSize(1_000), ByteSize(1_000_000_000))?;
    within("server.max_header_bytes", server.max_header_bytes, ByteSize(8 << 10), ByteSize(1 << 20))?;
    within("server.header_timeout", server.header_timeout, Span::from_millis(100), Span::from_secs(10))?;
    within("server.body_timeout", server.body_timeout, Span::from_millis(100), Span::from_secs(600))?;
    within("server.idle_timeout", server.idle_timeout, Span::from_secs(1), Span::from_secs(3_600))?;
    within("server.max_connections", server.max_connections, 1, 1_000_000)?;
    within("server.max_concurrent_streams", server.max_concurrent_streams, 1, 10_000)?;
    within("server.drain_delay", server.drain_delay, Span::from_secs(0), Span::from_secs(600))?;
    within("server.shutdown_grace", server.shutdown_grace, Span::from_secs(0), Span::from_secs(3_600))?;
    let both = server.tls.cert_file.is_some() == server.tls.key_file.is_some();
    rule(both, "server.tls", "one of cert_file and key_file", "both or none of them")
}

fn auth(auth: &Auth) -> Checked {
    within("auth.leeway", auth.leeway, Span::from_secs(0), Span::from_secs(600))?;
    if let Some(secret) = &auth.jwt_secret {
        let long = secret.expose().len() >= MIN_SECRET_BYTES;
        rule(long, "auth.jwt_secret", "***", format!("a secret of at least {MIN_SECRET_BYTES} bytes"))?;
    }
    let twice = auth.jwt_secret.is_some() && auth.jwt_secret_file.is_some();
    rule(!twice, "auth.jwt_secret_file", "together with auth.jwt_secret this", "one of them")?;
    if let Some(url) = &auth.jwks_url {
        let allowed = "an https address (http only for this machine itself)";
        rule(is_safe_url(url), "auth.jwks_url", format!("{url:?}"), allowed)?;
    }
    if !auth.enabled {
        return Ok(());
    }
    let secret = auth.jwt_secret.is_some() || auth.jwt_secret_file.is_some();
    let public = auth.public_key_file.is_some() || auth.jwks_file.is_some() || auth.jwks_url.is_some();
    let keys = "used with at least one of jwt_secret, jwt_secret_file, public_key_file, jwks_file, jwks_url";
    rule(secret || public, "auth.enabled", "true without any key", keys)?;
    for algorithm in &auth.algorithms {
        let (has_key, needs) =
            if algorithm.is_symmetric() { (secret, "jwt_secret") } else { (public, "a public key") };
        rule(has_key, "auth.algorithms", format!("{algorithm:?}"), format!("used with {needs}"))?;
    }
    Ok(())
}

/// Keys fetched over plain http could be anybody's.
fn is_safe_url(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let own = |host: &str| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    url.scheme() == "https" || (url.scheme() == "http" && url.host_str().is_some_and(own))
}

fn storage(config: &WorkerConfig) -> Checked {
    let engine = &config.storage.rocksdb;
    rule(!engine.path.as_os_str().is_empty(), "storage.rocksdb.path", "\"\"", "a directory")?;
    if let Some(memory) = engine.memory {
        within("storage.rocksdb.memory", memory, ByteSize(64 << 20), ByteSize(1 << 44))?;
    }
    if let Some(threads) = engine.threads {
        within("storage.rocksdb.threads", threads, 1, 1_024)?;
    }
    within("storage.rocksdb.seal_window", engine.seal_window, Span::from_secs(1), Span::from_days(1))?;
    within("storage.rocksdb.log_cap", engine.log_cap, ByteSize(1 << 20), ByteSize(1 << 36))?;
    if let Some(backups) = &engine.backup_path {
        let own = [engine.path.clone(), engine.path.join("log"), engine.path.join("tables")];
        let apart = !backups.as_os_str().is_empty()
            && backups != &own[0]
            && !own[1..].iter().any(|part| backups.starts_with(part));
        let allowed = "a directory that is neither storage.rocksdb.path nor in its log or tables";
        rule(apart, "storage.rocksdb.backup_path", backups.display(), allowed)?;
    }
    match config.storage.backend {
        Backend::RocksDb => Ok(()),
        Backend::ClickHouse => clickhouse(&config.storage.clickhouse),
    }
}

fn clickhouse(settings: &ClickHouse) -> Checked {
    let endpoints = &settings.endpoints;
    let http = |endpoint: &String| {
        reqwest::Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    };
    let valid = !endpoints.is_empty() && endpoints.iter().all(http);
    let allowed = "a list of http or https addresses, at least one";
    rule(valid, "storage.clickhouse.endpoints", format!("{endpoints:?}"), allowed)?;
    within("storage.clickhouse.linger", settings.linger, Span::from_millis(10), Span::from_secs(10))?;
    within("storage.clickhouse.refresh", settings.refresh, Span::from_millis(10), Span::from_secs(60))?;
    within("storage.clickhouse.max_batch_rows", settings.max_batch_rows, 1_000, 10_000_000)?;
    let queue = settings.max_queue_bytes;
    within("storage.clickhouse.max_queue_bytes", queue, ByteSize(1_000_000), ByteSize(1 << 36))?;
    within("storage.clickhouse.pool_size", settings.pool_size, 1, 1_000)?;
    if let Some(threads) = settings.query_threads {
        within("storage.clickhouse.query_threads", threads, 1, 1_024)?;
    }
    let (least, most) = (Span::from_millis(10), Span::from_secs(600));
    within("storage.clickhouse.connect_timeout", settings.connect_timeout, least, most)?;
    within("storage.clickhouse.insert_timeout", settings.insert_timeout, least, most)
}

fn rates(rates: &RateLimits) -> Checked {
    const MOST: u32 = 1_000_000;
    within("rate_limits.write_rps", rates.write_rps, 1, MOST)?;
    within("rate_limits.query_rps", rates.query_rps, 1, MOST)?;
    within("rate_limits.metrics_per_second", rates.metrics_per_second, 1, u64::MAX)?;
    within("rate_limits.concurrent_queries", rates.concurrent_queries, 1, MOST)?;
    within("rate_limits.address_rps", rates.address_rps.unwrap_or(1), 1, MOST)?;
    rates.tiers.iter().try_for_each(|(name, limits)| tier(name, limits))
}

fn tier(name: &str, limits: &TierLimits) -> Checked {
    let TierLimits {
        write_rps,
        query_rps,
        metrics_per_second,
        concurrent_queries,
        max_series_per_metric,
        max_metrics_per_tenant,
    } = limits;
    let zero = [
        ("write_rps", write_rps.map(u64::from)),
        ("query_rps", query_rps.map(u64::from)),
        ("metrics_per_second", *metrics_per_second),
        ("concurrent_queries", concurrent_queries.map(u64::from)),
        ("max_series_per_metric", *max_series_per_metric),
        ("max_metrics_per_tenant", *max_metrics_per_tenant),
    ];
    match zero.into_iter().find(|(_, limit)| *limit == Some(0)) {
        None => Ok(()),
        Some((key, _)) => {
            rule(false, "rate_limits.tiers", format!("{name}.{key}: 0"), "1 or more for every limit")
        }
    }
}

fn limits(config: &WorkerConfig) -> Checked {
    let cardinality = &config.cardinality_limits;
    within("cardinality_limits.max_series_per_metric", cardinality.max_series_per_metric, 1, u64::MAX)?;
    within("cardinality_limits.max_metrics_per_tenant", cardinality.max_metrics_per_tenant, 1, u64::MAX)?;
    within("cardinality_limits.max_dimensions", cardinality.max_dimensions, 1, 256)?;
    within("cardinality_limits.max_dimension_value", cardinality.max_dimension_value, 1, 65_536)?;
    let query = &config.query_limits;
    within("query_limits.max_timeout", query.max_timeout, Span::from_millis(100), Span::from_secs(3_600))?;
    within("query_limits.default_timeout", query.default_timeout, Span::from_millis(1), query.max_timeout)?;
    within("query_limits.max_range", query.max_range, Span::from_secs(60), Span::from_days(36_500))?;
    within("query_limits.max_result_points", query.max_result_points, 1, 10_000_000)?;
    within("query_limits.max_group_by", query.max_group_by, 1, 256)?;
    within("query_limits.max_scanned_samples", query.max_scanned_samples, 1, u64::MAX)?;
    within("query_limits.max_memory", query.max_memory, ByteSize(1 << 20), ByteSize(1 << 44))?;
    within("query_limits.max_concurrent", query.max_concurrent, 4, 256)?;
    within("query_limits.heavy_samples", query.heavy_samples, 1, u64::MAX)?;
    let ingest = &config.ingest;
    within("ingest.max_batch", ingest.max_batch, 1, 10_000_000)?;
    within("ingest.max_age", ingest.max_age, Span::from_secs(1), Span::from_days(36_500))?;
    within("ingest.max_future", ingest.max_future, Span::from_secs(0), Span::from_days(36_500))?;
    patterns("ingest.otlp.resource_attributes", &ingest.otlp.resource_attributes)?;
    patterns("ingest.otlp.scope_attributes", &ingest.otlp.scope_attributes)
}

fn patterns(key: &'static str, patterns: &[String]) -> Checked {
    let broken = patterns.iter().find(|pattern| pattern.is_empty() || pattern.matches('*').count() > 1);
    let allowed = "a list of attributes' names, with at most one * each";
    broken.map_or(Ok(()), |pattern| rule(false, key, format!("{pattern:?}"), allowed))
}

fn retention(config: &WorkerConfig) -> Checked {
    let retention = &config.retention;
    within("retention.default", retention.default, Span::from_secs(60), Span::from_days(36_500))?;
    within("retention.check_interval", retention.check_interval, Span::from_secs(1), Span::from_days(1))
}

fn within<T: PartialOrd + Display>(key: &'static str, value: T, least: T, most: T) -> Checked {
    let fits = least <= value && value <= most;
    let allowed = format!("from {least} to {most}");
    rule(fits, key, value, allowed)
}

fn rule(holds: bool, key: &'static str, value: impl Display, allowed: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(Broken { key, value: value.to_string(), allowed: allowed.into() }) }
}

#[cfg(test)]
mod tests {
    use luminate_crds::worker_config::{Algorithm, Secret, keys};

    use super::*;

    fn broken(change: impl FnOnce(&mut WorkerConfig)) -> &'static str {
        let mut config = WorkerConfig::default();
        change(&mut config);
        check(&config).map_or_else(|broken| broken.key, |()| "")
    }

    #[test]
    fn the_defaults_break_no_rule() {
        assert_eq!(broken(|_| ()), "");
    }

    #[test]
    fn each_end_of_a_range_is_allowed_and_no_more() {
        let timeout = |seconds| broken(|config| config.server.header_timeout = Span::from_secs(seconds));
        assert_eq!(
            (timeout(10), timeout(11), timeout(0)),
            ("", "server.header_timeout", "server.header_timeout")
        );
        assert_eq!(broken(|config| config.ingest.max_batch = 0), "ingest.max_batch");
        let longer = |config: &mut WorkerConfig| config.query_limits.default_timeout = Span::from_secs(31);
        assert_eq!(broken(longer), "query_limits.default_timeout");
        assert_eq!(broken(|config| config.metrics.port = Some(8080)), "metrics.port");
        let scope =
            |pattern: &str| broken(|config| config.ingest.otlp.scope_attributes = vec![pattern.into()]);
        assert_eq!((scope("*"), scope("a.*.b"), scope("version")), ("", "", ""));
        let key = "ingest.otlp.scope_attributes";
        assert_eq!((scope("*.*"), scope("")), (key, key));
    }

    #[test]
    fn auth_needs_keys_that_fit_and_are_long_enough() {
        let with = |secret: Option<&str>, algorithms: &[Algorithm]| {
            broken(|config| {
                config.auth.enabled = true;
                config.auth.jwt_secret = secret.map(Secret::new);
                config.auth.algorithms = algorithms.to_vec();
            })
        };
        let long = "0123456789abcdef0123456789abcdef";
        assert_eq!(with(None, &[]), "auth.enabled");
        assert_eq!(with(Some(""), &[]), "auth.jwt_secret");
        assert_eq!(with(Some(&long[1..]), &[]), "auth.jwt_secret");
        assert_eq!(with(Some(long), &[Algorithm::HS256]), "");
        assert_eq!(with(Some(long), &[Algorithm::RS256]), "auth.algorithms");
    }

    #[test]
    fn keys_are_fetched_only_over_a_safe_way() {
        for url in
            ["https://id.example/jwks", "http://localhost:8080/jwks", "http://127.0.0.1/j", "http://[::1]/j"]
        {
            assert!(is_safe_url(url), "{url}");
        }
        for url in
            ["http://id.example/jwks", "file:///etc/passwd", "ftp://x/", "", "jwks", "http://localhost.evil/"]
        {
            assert!(!is_safe_url(url), "{url}");
        }
    }

    #[test]
    fn clickhouse_needs_an_address_only_when_it_is_used() {
        let clickhouse = |config: &mut WorkerConfig| config.storage.backend = Backend::ClickHouse;
        assert_eq!(broken(clickhouse), "storage.clickhouse.endpoints");
    }

    #[test]
    fn a_tier_without_room_is_refused() {
        let none = TierLimits { query_rps: Some(0), ..TierLimits::default() };
        let tiers = std::collections::BTreeMap::from([("gold".to_owned(), none)]);
        assert_eq!(broken(|config| config.rate_limits.tiers = tiers), "rate_limits.tiers");
    }

    #[test]
    fn every_rule_names_a_key_that_exists() {
        let source = include_str!("rules.rs");
        let paths: Vec<String> = keys().into_iter().map(|key| key.path).collect();
        let named = source.split("within(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for key in named.filter(|key| key.contains('.')) {
            assert!(paths.iter().any(|path| path == key), "{key}");
        }
    }
}
