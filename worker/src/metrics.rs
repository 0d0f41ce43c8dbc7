//! The worker's own figures: every name of the metrics page is in this file (the store's own begin with
//! `luminate_store_` and are named where they are measured).
//!
//! No label names a tenant, a metric or a raw path: routes are templates, reasons are codes.

mod classes;
pub mod process;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::http::{Method, StatusCode};
use luminate_storage::observed::Recorder;
use luminate_storage::store::MetricsStore;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::admission::{Class, Pressure};
use crate::error::Code;
use crate::lifecycle::Lifecycle;
use crate::tenant::Caller;

use classes::Classes;

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
    admitted: Family<AdmissionLabels, Counter>,
    shed: Family<AdmissionLabels, Counter>,
    pressure: Family<PressureLabels, Gauge<f64, AtomicU64>>,
    active_series: Family<ClassLabels, Gauge>,
    classes: Classes,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionLabels {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PressureLabels {
    of: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    tenant_class: Arc<str>,
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

/// 0.5 ms to 33 s: a durable write takes about a millisecond, a query at most 30 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

impl Metrics {
    /// All figures at zero; the store's own are read from `lifecycle`'s store once it is open.
    #[must_use]
    pub fn new(lifecycle: Arc<Lifecycle>) -> Self {
        let constructor: fn() -> Histogram = seconds;
        let mut metrics = Self {
            registry: Registry::with_prefix("luminate"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(constructor),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            accepted: Counter::default(),
            rejected: Family::default(),
            operation_seconds: Family::new_with_constructor(constructor),
            limit_hits: Family::default(),
            admitted: Family::default(),
            shed: Family::default(),
            pressure: Family::default(),
            active_series: Family::default(),
            classes: Classes::default(),
        };
        metrics.register(lifecycle);
        metrics
    }

    fn register(&mut self, lifecycle: Arc<Lifecycle>) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests by route, method and status", self.requests.clone());
        let help = "Time from a request's headers to its answer's";
        registry.register("http_request_seconds", help, self.request_seconds.clone());
        registry.register("http_requests_in_flight", "Requests being answered", self.in_flight.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        let help = "Connections closed at once: all slots were taken";
        registry.register("connections_refused", help, self.connections_refused.clone());
        registry.register("samples_accepted", "Samples stored", self.accepted.clone());
        registry.register("samples_rejected", "Samples refused, by reason", self.rejected.clone());
        let help = "Time of the store's operations, by outcome";
        registry.register("storage_operation_seconds", help, self.operation_seconds.clone());
        registry.register("limit_hits", "Requests refused by a limit", self.limit_hits.clone());
        registry.register("admitted", "Requests let in, by class", self.admitted.clone());
        let help = "Requests answered 503 since others come first, by class";
        registry.register("shed", help, self.shed.clone());
        let help = "How full the worker is, from 0 to 1: bodies, queries, store";
        registry.register("pressure", help, self.pressure.clone());
        for class in Class::ORDER {
            // From the start on, so that a rate is seen from the first one shed.
            drop(self.shed.get_or_create(&AdmissionLabels { class: class.name() }));
        }
        let help = "Series of tenants that wrote since the start, by their tier";
        registry.register("active_series", help, self.active_series.clone());
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What is running", Info::new(version));
        registry.register_collector(Box::new(ProcessFigures));
        registry.sub_registry_with_prefix("store").register_collector(Box::new(StoreFigures(lifecycle)));
    }

    /// A request is being answered, until the result is dropped.
    #[must_use]
    pub fn request_begins(self: &Arc<Self>, route: Arc<str>, method: &Method) -> CountedRequest {
        self.in_flight.inc();
        let method = known(method);
        CountedRequest { metrics: Arc::clone(self), route, method, started: Instant::now(), status: None }
    }

    /// A connection is open, until the result is dropped.
    #[must_use]
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// A connection was closed at once.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// What became of samples that were written: so many stored, so many refused for each reason, so many left out.
    pub fn written(&self, accepted: u64, rejected: &[(Code, u64)], dropped: u64) {
        self.accepted.inc_by(accepted);
        let dropped = (dropped > 0).then_some((Code::InvalidValue, dropped));
        for (reason, count) in rejected.iter().copied().chain(dropped) {
            self.rejected.get_or_create(&RejectedLabels { reason }).inc_by(count);
        }
    }

    /// A request was refused by the limit of this name.
    pub fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// A request of `class` was let in.
    pub fn admitted(&self, class: Class) {
        self.admitted.get_or_create(&AdmissionLabels { class: class.name() }).inc();
    }

    /// A request of `class` wasn't, since others come first.
    pub fn shed(&self, class: Class) {
        self.shed.get_or_create(&AdmissionLabels { class: class.name() }).inc();
    }

    /// The worker is so full now.
    pub fn set_pressure(&self, now: Pressure) {
        for (of, value) in [("bodies", now.bodies), ("queries", now.queries), ("store", now.store)] {
            self.pressure.get_or_create(&PressureLabels { of }).set(value);
        }
    }

    /// `caller` writes: its series count as active.
    pub fn writes(&self, caller: &Caller) {
        self.classes.note(caller);
    }

    /// Asks `store` how many series the writing tenants have, unless that was asked a moment ago.
    pub async fn refresh_active_series(&self, store: &dyn MetricsStore) {
        let Some(tenants) = self.classes.due(Instant::now()) else { return };
        for (tenant_class, series) in classes::series(tenants, store).await {
            let series = i64::try_from(series).unwrap_or(i64::MAX);
            self.active_series.get_or_create(&ClassLabels { tenant_class }).set(series);
        }
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

impl Recorder for Metrics {
    fn operation(&self, name: &'static str, seconds: f64, outcome: &'static str) {
        let labels = OperationLabels { operation: name, outcome };
        self.operation_seconds.get_or_create(&labels).observe(seconds);
    }
}

/// Methods that HTTP defines; a client may make up others, but no label.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

/// A request that is counted when it is dropped.
#[derive(Debug)]
pub struct CountedRequest {
    metrics: Arc<Metrics>,
    route: Arc<str>,
    method: &'static str,
    started: Instant,
    status: Option<StatusCode>,
}

impl CountedRequest {
    /// It was answered.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        // Without an answer the handler panicked, or the client went away (nginx's 499).
        let unanswered = if std::thread::panicking() { 500 } else { 499 };
        let status = self.status.map_or(unanswered, |status| status.as_u16());
        let metrics = &self.metrics;
        metrics.in_flight.dec();
        let labels = RequestLabels { route: Arc::clone(&self.route), method: self.method, status };
        metrics.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: Arc::clone(&self.route) };
        metrics.request_seconds.get_or_create(&labels).observe(self.started.elapsed().as_secs_f64());
    }
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Figures of the process, read when the page is.
#[derive(Debug)]
struct ProcessFigures;

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(usage) = process::usage() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used",
            None,
            ConstCounter::<f64>::TYPE,
        )?)?;
        gauge(&mut encoder, "process_resident_memory_bytes", "Memory in use", usage.resident_bytes)?;
        gauge(&mut encoder, "process_open_files", "Descriptors in use", usage.open_files)
    }
}

/// Figures of the store's inside, read when the page is.
#[derive(Debug)]
struct StoreFigures(Arc<Lifecycle>);

impl Collector for StoreFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = self.0.store().map(|store| store.gauges()).unwrap_or_default();
        gauges.iter().try_for_each(|figure| gauge(&mut encoder, figure.name, figure.help, figure.value))
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_with_its_answer() {
        let metrics = Arc::new(Metrics::new(Arc::default()));
        let mut request = metrics.request_begins("/x/{name}".into(), &Method::GET);
        assert!(metrics.page().unwrap().contains("luminate_http_requests_in_flight 1"));
        request.answered(StatusCode::OK);
        drop(request);
        drop(metrics.request_begins("/x/{name}".into(), &Method::from_bytes(b"ODD").unwrap()));
        let page = metrics.page().unwrap();
        for line in [
            "luminate_http_requests_in_flight 0",
            r#"luminate_http_requests_total{route="/x/{name}",method="GET",status="200"} 1"#,
            r#"luminate_http_requests_total{route="/x/{name}",method="other",status="499"} 1"#,
            r#"luminate_http_request_seconds_count{route="/x/{name}"} 2"#,
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }

    #[test]
    fn samples_operations_and_limits_are_on_the_page() {
        let metrics = Metrics::new(Arc::default());
        metrics.written(3, &[(Code::InvalidMetricName, 2)], 0);
        metrics.operation("write", 0.25, "ok");
        metrics.limit_hit("write_rps");
        let page = metrics.page().unwrap();
        for line in [
            "luminate_samples_accepted_total 3",
            r#"luminate_samples_rejected_total{reason="INVALID_METRIC_NAME"} 2"#,
            r#"luminate_storage_operation_seconds_sum{operation="write",outcome="ok"} 0.25"#,
            r#"luminate_limit_hits_total{limit="write_rps"} 1"#,
            "luminate_process_resident_memory_bytes ",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
