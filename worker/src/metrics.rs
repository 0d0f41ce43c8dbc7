//! The worker's own figures: every name of the metrics page is in this file.
//!
//! No label names a tenant, a metric or a raw path: routes are templates, reasons are codes.

use std::fmt;
use std::sync::Arc;

use luminate_crds::worker_config::WorkerConfig;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::error::Code;

/// The figures that the worker counts itself.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    connections_refused: Counter,
    accepted: Counter,
    rejected: Family<RejectedLabels, Counter>,
    operation_seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
    limit_hits: Family<LimitLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    reason: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        self.name().encode(encoder)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

impl Metrics {
    /// All figures at zero.
    #[must_use]
    pub fn new(_config: &WorkerConfig) -> Self {
        let mut registry = Registry::with_prefix("luminate");
        let requests = Family::default();
        registry.register("http_requests", "Requests by route, method and status", requests.clone());
        let request_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register("http_request_seconds", "Time from head to answer", request_seconds.clone());
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "Requests being answered", in_flight.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let connections_refused = Counter::default();
        registry.register("connections_refused", "Connections over the limit", connections_refused.clone());
        let accepted = Counter::default();
        registry.register("samples_accepted", "Samples stored", accepted.clone());
        let rejected = Family::default();
        registry.register("samples_rejected", "Samples refused, by reason", rejected.clone());
        let operation_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register(
            "storage_operation_seconds",
            "Time of the store's operations by outcome",
            operation_seconds.clone(),
        );
        let limit_hits = Family::default();
        registry.register("limit_hits", "Requests refused by a limit", limit_hits.clone());
        Self {
            registry,
            requests,
            request_seconds,
            in_flight,
            connections,
            connections_refused,
            accepted,
            rejected,
            operation_seconds,
            limit_hits,
        }
    }

    /// Samples were stored.
    pub fn samples_accepted(&self, count: u64) {
        self.accepted.inc_by(count);
    }

    /// Samples were refused for `reason`.
    pub fn samples_rejected(&self, reason: Code, count: u64) {
        self.rejected.get_or_create(&RejectedLabels { reason }).inc_by(count);
    }

    /// A request was refused by the limit of this name.
    pub fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// The page.
    ///
    /// # Errors
    /// None in practice: writing to a `String` doesn't fail.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}
