//! Logs and the operator's own figures.
//!
//! Every name of the metrics page is in this file. Labels are reasons, kinds and verbs, never names of
//! resources: their number would grow with the users'.

use std::io::IsTerminal;

use clap::ValueEnum;
use luminate_crds::condition::Reason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry as Subscriber, fmt};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    resource: String,
    verb: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScopeLabels {
    scope: String,
}

/// The operator's own figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<OutcomeLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    seconds: Histogram,
    writes: Family<WriteLabels, Counter>,
    leader: Gauge,
    resources: Family<ScopeLabels, Gauge>,
    oldest_work: Gauge<f64, AtomicU64>,
    oldest_wait: Gauge<f64, AtomicU64>,
    oldest_watch: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("luminate_operator"),
            reconciles: Family::default(),
            refusals: Family::default(),
            // 1 ms to 33 s.
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            writes: Family::default(),
            leader: Gauge::default(),
            resources: Family::default(),
            oldest_work: Gauge::default(),
            oldest_wait: Gauge::default(),
            oldest_watch: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("reconciles", "Reconciles by their outcome", self.reconciles.clone());
        registry.register("problems", "Problems met, by their reason", self.refusals.clone());
        registry.register("reconcile_seconds", "How long reconciles take", self.seconds.clone());
        registry.register("writes", "Writes by resource, verb and the answer's code", self.writes.clone());
        registry.register("leader", "Whether this process leads", self.leader.clone());
        registry.register("resources", "Luminates known, by the scope watched", self.resources.clone());
        let help = "Age of the reconcile that runs longest";
        registry.register("oldest_reconcile_seconds", help, self.oldest_work.clone());
        let help = "Age of the longest waiting item of the queue";
        registry.register("queue_age_seconds", help, self.oldest_wait.clone());
        let help = "Age of the watch that started longest ago";
        registry.register("oldest_watch_seconds", help, self.oldest_watch.clone());
    }

    /// A reconcile ended.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&OutcomeLabels { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// A problem that the status tells of.
    pub fn problem(&self, reason: Reason) {
        self.refusals.get_or_create(&ReasonLabels { reason: reason.name() }).inc();
    }

    /// A write was answered with `code`.
    pub fn wrote(&self, resource: &str, verb: &'static str, code: u16) {
        let labels = WriteLabels { resource: resource.to_owned(), verb, code };
        self.writes.get_or_create(&labels).inc();
    }

    /// Whether this process leads.
    pub fn lead(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// How many resources there are in a scope: a namespace, or `all`.
    pub fn count(&self, scope: &str, resources: usize) {
        let labels = ScopeLabels { scope: scope.to_owned() };
        self.resources.get_or_create(&labels).set(i64::try_from(resources).unwrap_or(i64::MAX));
    }

    /// Ages of what makes or lacks progress.
    pub fn ages(&self, work: Duration, wait: Duration, watch: Duration) {
        self.oldest_work.set(work.as_secs_f64());
        self.oldest_wait.set(wait.as_secs_f64());
        self.oldest_watch.set(watch.as_secs_f64());
    }

    /// The page for Prometheus.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a text can't fail.
        let _ = encode(&mut page, &self.registry);
        page
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line
    Json,
    /// Text for people
    Text,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed
    Error,
    /// And what may need a look
    Warn,
    /// And what the operator does
    Info,
    /// And each step
    Debug,
}

/// Writes logs from now on, on standard error; panics are logged too.
///
/// # Errors
/// Logs are written already.
pub fn start_logs(level: LogLevel, format: Option<LogFormat>) -> Result<(), TryInitError> {
    let terminal = std::io::stderr().is_terminal();
    let usual = if terminal { LogFormat::Text } else { LogFormat::Json };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let lines: Box<dyn Layer<Subscriber> + Send + Sync> = match format.unwrap_or(usual) {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter(level))).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a thread panicked");
    }));
    Ok(())
}

/// Our own lines at the level asked for. The client's are left out: it logs answers that are handled here.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("kube_client", LevelFilter::OFF)
        .with_target("luminate_operator", level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_happened() {
        let metrics = Metrics::default();
        metrics.wrote("services", "patch", 200);
        metrics.problem(Reason::ForeignObject);
        metrics.lead(true);
        metrics.reconciled("settled", Duration::from_millis(3));
        let page = metrics.page();
        for line in [
            "luminate_operator_writes_total{resource=\"services\",verb=\"patch\",code=\"200\"} 1",
            "luminate_operator_problems_total{reason=\"ForeignObject\"} 1",
            "luminate_operator_leader 1",
            "luminate_operator_reconciles_total{outcome=\"settled\"} 1",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
