//! OpenTelemetry's metrics: the protobuf message `ExportMetricsServiceRequest`, decoded from its bytes, or its JSON.
//!
//! A number is a sample. A histogram or summary is several: a series for each bucket or quantile, one for the sum, the
//! count, and the smallest and largest value where they are given. Attributes of the data point are dimensions, and so
//! are those of the resource and the scope that the configuration names; of two with one name that nearer to the point
//! counts. Points of histograms and summaries are taken or refused as a whole, and have one place in the request.
//!
//! A point's spelling is the hash of what it stands below (resource, scope, metric, each hashed once) with the bytes of
//! its attributes behind it; that of a part, the hash of the point's spelling and the part. JSON is first written
//! anew as protobuf, so that a series has the same spelling in both.
//!
//! Messages: opentelemetry-proto 1.x, `metrics.proto`, `common.proto`, `resource.proto`.

mod attributes;
mod exponential;
pub mod json;
mod naming;
mod points;
mod source;
#[cfg(test)]
pub(crate) mod testing;

use std::cell::OnceCell;

use luminate_crds::worker_config::Otlp;
use luminate_storage::model::{MetricName, RowSeries, Spelling};
use luminate_storage::store::SeriesLookup;

use self::points::{Kind, Part, Point, Reader};
use self::source::{Looked, Metric, Source};
use super::remote_write::wire::{Field, Fields, MalformedMessage};
use super::{Decoded, Problem, Resolver, Rules};
use crate::error::Code;

/// What a spelling of a point, and of a part of one, begins with: no other format's begins so.
const POINT_TAG: u8 = 0x10;
const PART_TAG: u8 = 0x11;
/// `ExportMetricsServiceRequest.resource_metrics`.
const RESOURCE_METRICS: u32 = 1;
/// `ResourceMetrics.resource`, `.scope_metrics`.
const RESOURCE: u32 = 1;
const SCOPE_METRICS: u32 = 2;
/// `ScopeMetrics.scope`, `.metrics`.
const SCOPE: u32 = 1;
const METRICS: u32 = 2;
/// `Metric.name`, `.unit`; the numbers of its kinds are [`Kind`]'s.
const NAME: u32 = 1;
const UNIT: u32 = 3;
/// `data_points`, `aggregation_temporality` and `is_monotonic` of every kind that has them.
const DATA_POINTS: u32 = 1;
const TEMPORALITY: u32 = 2;
const MONOTONIC: u32 = 3;
/// `DataPointFlags.NO_RECORDED_VALUE_MASK`: the series has ended, or its source couldn't be read.
const NO_RECORDED_VALUE: u64 = 1;
/// A request's data points may become so many samples each, on average.
const SAMPLES_PER_POINT: usize = 32;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Why a whole request is refused; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// Not a protobuf message, or one with fields of other types.
    #[error("the body is not an ExportMetricsServiceRequest: {0}")]
    Malformed(#[from] MalformedMessage),
    /// Not JSON.
    #[error("the body is not valid JSON: {0}")]
    Syntax(#[from] super::json::scan::SyntaxError),
    /// JSON, but with a field of another type.
    #[error("the field {field} must be {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// More data points, or samples, than a request may carry.
    #[error("more than {max} data points in one request")]
    TooMany {
        /// How many are allowed.
        max: usize,
    },
}

impl From<MalformedMessage> for Problem {
    fn from(MalformedMessage(what): MalformedMessage) -> Self {
        Self::new(Code::InvalidSample, what)
    }
}

/// Decodes a message, already uncompressed.
///
/// # Errors
/// The message is malformed or has too many data points. Refused points are no error: they are counted. Exemplars,
/// metadata, schema URLs and unknown fields are passed over.
pub fn decode(
    body: &[u8],
    mapping: &Otlp,
    rules: &Rules,
    lookup: &dyn SeriesLookup,
) -> Result<Decoded, OtlpError> {
    let mut decoder = Decoder {
        mapping,
        rules,
        resolver: Resolver::new(lookup),
        decoded: Decoded::new(rules.series),
        reader: Reader::default(),
        spelled: Vec::new(),
        rows: Vec::new(),
    };
    each_message(body, RESOURCE_METRICS, |message| decoder.resource_metrics(message))?;
    Ok(decoder.decoded)
}

/// Gives each message of a repeated field to `take`.
fn each_message<'b>(
    message: &'b [u8],
    wanted: u32,
    mut take: impl FnMut(&'b [u8]) -> Result<(), OtlpError>,
) -> Result<(), OtlpError> {
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match field {
            Field::Bytes(message) if number == wanted => take(message)?,
            _ if number == wanted => return Err(MalformedMessage("a message is something else").into()),
            _ => {}
        }
    }
    Ok(())
}

/// The message, string or bytes of a field; empty if it is absent, and the last if it is there more than once.
fn bytes_of(message: &[u8], wanted: u32) -> Result<&[u8], MalformedMessage> {
    let mut found: &[u8] = &[];
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match field {
            Field::Bytes(bytes) if number == wanted => found = bytes,
            _ if number == wanted => return Err(MalformedMessage("a message or string is something else")),
            _ => {}
        }
    }
    Ok(found)
}

struct Decoder<'a> {
    mapping: &'a Otlp,
    rules: &'a Rules,
    resolver: Resolver<'a>,
    decoded: Decoded,
    reader: Reader,
    /// The bytes that are hashed next.
    spelled: Vec<u8>,
    /// The series and values of the point at hand.
    rows: Vec<(RowSeries, f64)>,
}

impl Decoder<'_> {
    fn resource_metrics(&mut self, message: &[u8]) -> Result<(), OtlpError> {
        let resource = bytes_of(message, RESOURCE)?;
        let hash = self.resolver.hash(resource);
        each_message(message, SCOPE_METRICS, |message| self.scope_metrics(resource, hash, message))
    }

    fn scope_metrics(&mut self, resource: &[u8], hash: Spelling, message: &[u8]) -> Result<(), OtlpError> {
        let matters = !self.mapping.scope_attributes.is_empty();
        let scope = if matters { bytes_of(message, SCOPE)? } else { &[] };
        let hash = self.hash(&[&hash.0.to_le_bytes(), scope]);
        let source = Source { resource, scope, hash, pairs: OnceCell::new() };
        each_message(message, METRICS, |message| self.metric(&source, message))
    }

    fn metric(&mut self, source: &Source<'_>, message: &[u8]) -> Result<(), OtlpError> {
        let (mut name, mut unit, mut data): (&[u8], &[u8], _) = (&[], &[], None);
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match (number, Kind::of(number), field) {
                (NAME, _, Field::Bytes(bytes)) => name = bytes,
                (UNIT, _, Field::Bytes(bytes)) => unit = bytes,
                (_, Some(kind), Field::Bytes(bytes)) => data = Some((kind, bytes)),
                (NAME | UNIT, ..) | (_, Some(_), _) => {
                    return Err(MalformedMessage("a metric has fields of other types").into());
                }
                _ => {}
            }
        }
        let Some((kind, data)) = data else { return Ok(()) };
        let (temporality, monotonic) = if kind.has_temporality() { settings(data)? } else { (0, false) };
        let about = [kind as u8, temporality as u8, u8::from(monotonic)];
        let hash = self.hash(&[
            &source.hash.0.to_le_bytes(),
            &about,
            &(name.len() as u64).to_le_bytes(),
            name,
            unit,
        ]);
        let base = OnceCell::new();
        let metric = Metric { source, name, unit, kind, temporality, monotonic, hash, base };
        each_message(data, DATA_POINTS, |point| self.point(&metric, point))
    }

    fn point(&mut self, metric: &Metric<'_>, message: &[u8]) -> Result<(), OtlpError> {
        let mut point = self.reader.read(metric.kind, message)?;
        let samples = self.decoded.batch.len() + self.reader.parts.len();
        let max = self.rules.max_batch;
        if self.decoded.next_index() as usize >= max || samples > max.saturating_mul(SAMPLES_PER_POINT) {
            return Err(OtlpError::TooMany { max });
        }
        if point.flags & NO_RECORDED_VALUE != 0 {
            self.decoded.drop_sample();
            return Ok(());
        }
        let time = i64::try_from(point.time / NANOS_PER_MILLI).unwrap_or(i64::MAX);
        let taken = match point.fault.take() {
            Some(fault) => Err(Problem::new(Code::InvalidSample, fault)),
            None if !self.rules.accepts(time) => Err(self.rules.outside(time)),
            None => self.look_for(metric, &point),
        };
        match taken {
            Ok(()) => self.take_rows(time),
            Err(problem) => self.decoded.reject(metric.as_sent(), &problem),
        }
        Ok(())
    }

    /// Finds or describes the series of each part of the point whose value is a number.
    fn look_for(&mut self, metric: &Metric<'_>, point: &Point<'_>) -> Result<(), Problem> {
        self.rows.clear();
        let attributes = point.attributes.bytes();
        let hash = self.hash(&[&[POINT_TAG], &metric.hash.0.to_le_bytes(), &attributes]);
        let point = Looked { metric, attributes: &attributes, hash, pairs: OnceCell::new() };
        for at in 0..self.reader.parts.len() {
            let (part, value) = self.reader.parts[at];
            if value.is_finite() {
                let series = self.series(&point, part)?;
                self.rows.push((series, value));
            }
        }
        Ok(())
    }

    /// Takes the parts at hand as rows of one place.
    fn take_rows(&mut self, time: i64) {
        let Some((first, others)) = self.rows.split_first() else { return self.decoded.drop_sample() };
        self.decoded.dropped += (self.reader.parts.len() - self.rows.len()) as u64;
        self.decoded.batch.push(first.0, time, first.1);
        for (series, value) in others {
            self.decoded.join_next_row();
            self.decoded.batch.push(*series, time, *value);
        }
    }

    fn series(&mut self, point: &Looked<'_>, part: Part) -> Result<RowSeries, Problem> {
        let spelling = match part {
            Part::Value => point.hash,
            part => self.hash(&[&[PART_TAG], &point.hash.0.to_le_bytes(), &part.spelled()]),
        };
        match self.resolver.find(spelling) {
            Some(series) => Ok(series),
            None => self.describe(point, part, spelling),
        }
    }

    fn describe(&mut self, point: &Looked<'_>, part: Part, spelling: Spelling) -> Result<RowSeries, Problem> {
        let metric = MetricName::new(&format!("{}{}", point.metric.base(self.mapping)?, part.suffix()))?;
        let own = point.pairs()?;
        let others = point.metric.source.pairs(self.mapping)?;
        let others = others.iter().filter(|(key, _)| !own.iter().any(|(nearer, _)| nearer == key));
        let others = others.map(|(key, value)| (key.as_str(), value.as_str()));
        let added = part.dimension().map(|(key, number)| (key, part_text(number)));
        let pairs = own.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).chain(others);
        let pairs = pairs.chain(added.iter().map(|(key, value)| (*key, value.as_str())));
        let dimensions = self.resolver.dimensions(pairs, &self.rules.dimensions)?;
        Ok(self.resolver.describe(&mut self.decoded.batch, metric, dimensions, spelling))
    }

    fn hash(&mut self, parts: &[&[u8]]) -> Spelling {
        self.spelled.clear();
        for part in parts {
            self.spelled.extend_from_slice(part);
        }
        self.resolver.hash(&self.spelled)
    }
}

/// A bucket's bound or a quantile, as Prometheus writes it.
fn part_text(number: f64) -> String {
    if number == f64::INFINITY { "+Inf".to_owned() } else { attributes::number(number) }
}

/// Temporality and monotonicity of a sum or histogram.
fn settings(data: &[u8]) -> Result<(u64, bool), MalformedMessage> {
    let (mut temporality, mut monotonic) = (0, false);
    let mut fields = Fields::new(data);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (TEMPORALITY, Field::Varint(value)) => temporality = value,
            (MONOTONIC, Field::Varint(value)) => monotonic = value != 0,
            (TEMPORALITY | MONOTONIC, _) => {
                return Err(MalformedMessage("a metric has fields of other types"));
            }
            _ => {}
        }
    }
    Ok((temporality, monotonic))
}

#[cfg(test)]
mod tests;
