//! What stands above a sample: resource, scope, metric and data point, with the name and dimensions that they give.
//!
//! All are made only once a series is new, and then once for everything below.

use std::cell::OnceCell;
use std::sync::Arc;

use luminate_crds::worker_config::Otlp;
use luminate_storage::model::{InvalidDimensions, MetricName, Spelling};

use super::attributes::{Attribute, Pair, named};
use super::naming::{self, Meaning};
use super::points::Kind;
use crate::error::Code;
use crate::ingest::remote_write::wire::{Field, Fields};
use crate::ingest::{Problem, shortened, utf8};

/// `Resource.attributes`.
const RESOURCE_ATTRIBUTES: u32 = 1;
/// `InstrumentationScope.name`, `.version`, `.attributes`.
const SCOPE_NAME: u32 = 1;
const SCOPE_VERSION: u32 = 2;
const SCOPE_ATTRIBUTES: u32 = 3;
/// What stands before the attributes of a scope, as in OpenTelemetry's rules for Prometheus.
const SCOPE_PREFIX: &str = "otel_scope_";
/// The most that `cardinality_limits.max_dimensions` may be.
const MOST_DIMENSIONS: usize = 256;
/// `AggregationTemporality`.
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// What metrics come from: a resource, and a scope if scopes matter.
pub struct Source<'b> {
    /// The message `Resource`.
    pub resource: &'b [u8],
    /// The message `InstrumentationScope`, or nothing.
    pub scope: &'b [u8],
    /// The hash of both.
    pub hash: Spelling,
    /// Their dimensions, once they were needed.
    pub pairs: OnceCell<Result<Vec<(String, String)>, Problem>>,
}

impl Source<'_> {
    /// Their dimensions.
    pub fn pairs(&self, mapping: &Otlp) -> Result<&[(String, String)], Problem> {
        let pairs = self.pairs.get_or_init(|| source_pairs(self.resource, self.scope, mapping));
        pairs.as_deref().map_err(Clone::clone)
    }
}

/// The dimensions that scope and resource give, the scope's first.
fn source_pairs(resource: &[u8], scope: &[u8], mapping: &Otlp) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = scope_pairs(scope, mapping)?;
    let mut fields = Fields::new(resource);
    while let Some((number, field)) = fields.next()? {
        let (RESOURCE_ATTRIBUTES, Field::Bytes(message)) = (number, field) else { continue };
        let attribute = Attribute::read(message)?;
        if named(&mapping.resource_attributes, attribute.key) {
            pairs.extend(attribute.pair()?.map(|(key, value)| (key.into_owned(), value.into_owned())));
        }
    }
    bounded(pairs)
}

fn scope_pairs(scope: &[u8], mapping: &Otlp) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = Vec::new();
    let mut fields = Fields::new(scope);
    while let Some((number, field)) = fields.next()? {
        let Field::Bytes(bytes) = field else { continue };
        let (key, pair) = match number {
            SCOPE_NAME => ("name", Some(("name".into(), utf8(bytes, "the scope's name")?.into()))),
            SCOPE_VERSION => {
                ("version", Some(("version".into(), utf8(bytes, "the scope's version")?.into())))
            }
            SCOPE_ATTRIBUTES => {
                let attribute = Attribute::read(bytes)?;
                (attribute.key, attribute.pair()?)
            }
            _ => continue,
        };
        let chosen = named(&mapping.scope_attributes, key);
        let pair = pair.filter(|(_, value): &Pair<'_>| chosen && !value.is_empty());
        pairs.extend(pair.map(|(key, value)| (format!("{SCOPE_PREFIX}{key}"), value.into_owned())));
    }
    Ok(pairs)
}

/// A metric without its points.
pub struct Metric<'b> {
    /// What it comes from.
    pub source: &'b Source<'b>,
    /// Its name, as text if it is UTF-8.
    pub name: &'b [u8],
    /// Its unit, likewise.
    pub unit: &'b [u8],
    /// What its points are.
    pub kind: Kind,
    /// `AggregationTemporality`; 0 where its kind has none.
    pub temporality: u64,
    /// Whether its sum only grows.
    pub monotonic: bool,
    /// The hash of all of these.
    pub hash: Spelling,
    /// The name of its samples, before what their parts add to it, once it was needed.
    pub base: OnceCell<Result<String, Problem>>,
}

impl Metric<'_> {
    /// The name of its samples, before what their parts add to it.
    pub fn base(&self, mapping: &Otlp) -> Result<&str, Problem> {
        self.base.get_or_init(|| self.make_base(mapping)).as_deref().map_err(Clone::clone)
    }

    fn make_base(&self, mapping: &Otlp) -> Result<String, Problem> {
        let meaning = self.meaning()?;
        let (name, unit) = (utf8(self.name, "the metric's name")?, utf8(self.unit, "the metric's unit")?);
        let base = naming::name(name, unit, meaning, mapping.metric_suffixes);
        // What is valid with the longest suffix is so with any; what is empty isn't valid with one, either.
        MetricName::new(&base)?;
        MetricName::new(&format!("{base}{}", self.kind.longest_suffix()))?;
        Ok(base)
    }

    fn meaning(&self) -> Result<Meaning, Problem> {
        Ok(match (self.kind, self.temporality) {
            (Kind::Gauge, _) => Meaning::Gauge,
            (Kind::Summary, _) => Meaning::Other,
            (_, DELTA) => Meaning::Delta,
            (Kind::Sum, CUMULATIVE) if self.monotonic => Meaning::Counter,
            (_, CUMULATIVE) => Meaning::Other,
            _ => {
                let error = "aggregation_temporality is neither delta nor cumulative";
                return Err(Problem::new(Code::InvalidSample, error));
            }
        })
    }

    /// Its name for the answer.
    pub fn as_sent(&self) -> Option<Arc<str>> {
        Some(Arc::from(shortened(&String::from_utf8_lossy(self.name))))
    }
}

/// A data point whose series are looked for.
pub struct Looked<'b> {
    /// Whose it is.
    pub metric: &'b Metric<'b>,
    /// Its fields `attributes`.
    pub attributes: &'b [u8],
    /// The hash of both.
    pub hash: Spelling,
    /// The dimensions of its attributes, once they were needed.
    pub pairs: OnceCell<Result<Vec<Pair<'b>>, Problem>>,
}

impl<'b> Looked<'b> {
    /// The dimensions of its attributes.
    pub fn pairs(&self) -> Result<&[Pair<'b>], Problem> {
        self.pairs.get_or_init(|| point_pairs(self.attributes)).as_deref().map_err(Clone::clone)
    }
}

fn point_pairs(attributes: &[u8]) -> Result<Vec<Pair<'_>>, Problem> {
    let mut pairs = Vec::new();
    let mut fields = Fields::new(attributes);
    while let Some((_, field)) = fields.next()? {
        if let Field::Bytes(message) = field {
            pairs.extend(Attribute::read(message)?.pair()?);
        }
    }
    bounded(pairs)
}

/// Refuses more pairs than any sample may have: those of a source and of a point are compared with each other.
fn bounded<T>(pairs: Vec<T>) -> Result<Vec<T>, Problem> {
    match pairs.len() {
        count if count > MOST_DIMENSIONS => {
            Err(InvalidDimensions::TooMany { count, max: MOST_DIMENSIONS }.into())
        }
        _ => Ok(pairs),
    }
}
