//! Prometheus remote write 1.0: the protobuf message `prometheus.WriteRequest`, decoded from its bytes.
//!
//! A series' labels follow each other in the message; the bytes of that block are its spelling, and
//! only an unknown one is taken apart. `__name__` becomes the metric (`:` becomes `_`), the other
//! labels become dimensions. NaN and infinite samples are dropped and counted: Prometheus sends NaN
//! for empty summaries and as the marker of a stale series.

use std::borrow::Cow;
use std::sync::Arc;

use luminate_storage::model::{Dimensions, MAX_METRIC_CHARS, MetricName, RowSeries, Spelling};
use luminate_storage::store::SeriesLookup;

use self::wire::{Field, Fields, MalformedMessage};
use super::{Decoded, Problem, Resolver, Rules};
use crate::error::Code;

mod wire;

/// `WriteRequest.timeseries`.
const TIMESERIES: u32 = 1;
/// `TimeSeries.labels`, `.samples`.
const LABELS: u32 = 1;
const SAMPLES: u32 = 2;
/// The first byte of a label in its series: field 1, length-delimited. It is also what keeps
/// spellings of this format apart from those of others.
const LABEL_TAG: u8 = 0x0A;
/// `Label.name`, `.value`.
const LABEL_NAME: u32 = 1;
const LABEL_VALUE: u32 = 2;
/// `Sample.value`, `.timestamp`.
const SAMPLE_VALUE: u32 = 1;
const SAMPLE_TIMESTAMP: u32 = 2;
/// The label that holds the metric's name.
const NAME_LABEL: &str = "__name__";

/// Why a whole message is refused; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteWriteError {
    /// Not a protobuf message, or one with fields of other types.
    #[error("the body is not a prometheus.WriteRequest: {0}")]
    Malformed(#[from] MalformedMessage),
    /// More samples than a request may carry.
    #[error("more than {max} samples in one request; lower max_samples_per_send")]
    TooMany {
        /// How many are allowed.
        max: usize,
    },
}

/// Decodes a message, already uncompressed.
///
/// # Errors
/// The message is malformed or has too many samples. Refused samples are no error: they are counted.
/// Metadata, exemplars, histograms and unknown fields are passed over.
pub fn decode(body: &[u8], rules: &Rules, lookup: &dyn SeriesLookup) -> Result<Decoded, RemoteWriteError> {
    let mut decoder = Decoder {
        rules,
        resolver: Resolver::new(lookup),
        decoded: Decoded::new(rules.series),
        scattered: Vec::new(),
        samples: Vec::new(),
    };
    let mut fields = Fields::new(body);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (TIMESERIES, Field::Bytes(series)) => decoder.series(series)?,
            (TIMESERIES, _) => return Err(MalformedMessage("timeseries is no message").into()),
            _ => {}
        }
    }
    Ok(decoder.decoded)
}

struct Decoder<'a> {
    rules: &'a Rules,
    resolver: Resolver<'a>,
    decoded: Decoded,
    /// The labels of a series whose labels don't stand in one block.
    scattered: Vec<u8>,
    /// The samples of the series at hand.
    samples: Vec<(i64, f64)>,
}

impl Decoder<'_> {
    fn series(&mut self, message: &[u8]) -> Result<(), RemoteWriteError> {
        let labels_end = leading_labels(message)?;
        let (labels, rest) = message.split_at(labels_end);
        self.samples.clear();
        self.scattered.clear();
        let mut fields = Fields::new(rest);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (SAMPLES, Field::Bytes(sample)) => self.samples.push(read_sample(sample)?),
                (LABELS, Field::Bytes(label)) => wire::append(&mut self.scattered, LABEL_TAG, label),
                (LABELS | SAMPLES, _) => {
                    return Err(MalformedMessage("a label or sample is no message").into());
                }
                _ => {}
            }
        }
        if self.decoded.next_index() as usize + self.samples.len() > self.rules.max_batch {
            return Err(RemoteWriteError::TooMany { max: self.rules.max_batch });
        }
        if self.scattered.is_empty() {
            return self.rows(labels);
        }
        let block = [labels, &self.scattered].concat();
        self.rows(&block)
    }

    /// Takes the samples at hand as rows of the series that `labels` spell.
    fn rows(&mut self, labels: &[u8]) -> Result<(), RemoteWriteError> {
        let samples = std::mem::take(&mut self.samples);
        let mut series = None;
        for (time, value) in &samples {
            if !value.is_finite() {
                self.decoded.drop_sample();
            } else if !self.rules.accepts(*time) {
                self.decoded.reject(metric_as_sent(labels), &self.rules.outside(*time));
            } else {
                // Only a series with a sample to store is looked for: others must not be described.
                let known = match &series {
                    Some(known) => known,
                    None => series.insert(self.resolve(labels)?),
                };
                match known {
                    Ok(series) => self.decoded.batch.push(*series, *time, *value),
                    Err(problem) => self.decoded.reject(metric_as_sent(labels), problem),
                }
            }
        }
        self.samples = samples;
        Ok(())
    }

    /// The series that `labels` spell, or why it is refused.
    fn resolve(&mut self, labels: &[u8]) -> Result<Result<RowSeries, Problem>, MalformedMessage> {
        let spelling = self.resolver.hash(labels);
        if let Some(series) = self.resolver.find(spelling) {
            return Ok(Ok(series));
        }
        let labels = read_labels(labels)?;
        Ok(self.describe(&labels, spelling))
    }

    fn describe(&mut self, labels: &[Label<'_>], spelling: Spelling) -> Result<RowSeries, Problem> {
        let (metric, pairs) = texts(labels)?;
        let pairs = pairs.iter().copied();
        let dimensions = Dimensions::new(pairs, &self.rules.dimensions)?;
        Ok(self.resolver.describe(&mut self.decoded.batch, metric, dimensions, spelling))
    }
}

/// Where the labels that a series begins with end.
fn leading_labels(message: &[u8]) -> Result<usize, MalformedMessage> {
    let mut at = 0;
    while message.get(at) == Some(&LABEL_TAG) {
        let (length, start) = wire::length(message, at + 1)?;
        at = start + length;
    }
    Ok(at)
}

/// A label as its bytes; absent fields are empty, as proto3 says.
#[derive(Default)]
struct Label<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

fn read_labels(block: &[u8]) -> Result<Vec<Label<'_>>, MalformedMessage> {
    let mut labels = Vec::new();
    let mut fields = Fields::new(block);
    while let Some((_, field)) = fields.next()? {
        if let Field::Bytes(message) = field {
            labels.push(read_label(message)?);
        }
    }
    Ok(labels)
}

fn read_label(message: &[u8]) -> Result<Label<'_>, MalformedMessage> {
    let mut label = Label::default();
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (LABEL_NAME, Field::Bytes(name)) => label.name = name,
            (LABEL_VALUE, Field::Bytes(value)) => label.value = value,
            (LABEL_NAME | LABEL_VALUE, _) => {
                return Err(MalformedMessage("a label's name or value is no string"));
            }
            _ => {}
        }
    }
    Ok(label)
}

fn read_sample(message: &[u8]) -> Result<(i64, f64), MalformedMessage> {
    let (mut time, mut value) = (0, 0.0);
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (SAMPLE_VALUE, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (SAMPLE_TIMESTAMP, Field::Varint(millis)) => time = millis.cast_signed(),
            (SAMPLE_VALUE | SAMPLE_TIMESTAMP, _) => {
                return Err(MalformedMessage("a sample has fields of other types"));
            }
            _ => {}
        }
    }
    Ok((time, value))
}

/// Keys and values, as text.
type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The metric and the dimensions that labels stand for; labels without a value don't exist.
fn texts<'a>(labels: &[Label<'a>]) -> Result<(MetricName, Pairs<'a>), Problem> {
    let mut metric = None;
    let mut pairs = Vec::with_capacity(labels.len());
    for label in labels.iter().filter(|label| !label.value.is_empty()) {
        let name = std::str::from_utf8(label.name)
            .map_err(|_| Problem::new(Code::InvalidDimensionKey, "a label's name is not UTF-8"))?;
        let value = std::str::from_utf8(label.value).map_err(|_| {
            Problem::new(Code::InvalidDimensionValue, format!("the value of label {name:?} is not UTF-8"))
        })?;
        if name != NAME_LABEL {
            pairs.push((name, value));
        } else if metric.replace(value).is_some() {
            return Err(Problem::new(Code::InvalidDimensionKey, "label __name__ appears twice"));
        }
    }
    let metric = metric.ok_or_else(|| Problem::new(Code::InvalidSample, "label __name__ is missing"))?;
    let metric =
        if metric.contains(':') { Cow::Owned(metric.replace(':', "_")) } else { Cow::Borrowed(metric) };
    Ok((MetricName::new(&metric)?, pairs))
}

/// The metric of a refused sample, for the answer.
fn metric_as_sent(labels: &[u8]) -> Option<Arc<str>> {
    let labels = read_labels(labels).ok()?;
    let label = labels.iter().find(|label| label.name == NAME_LABEL.as_bytes())?;
    let name = String::from_utf8_lossy(label.value);
    Some(name.chars().take(MAX_METRIC_CHARS).collect::<String>().into())
}

#[cfg(test)]
pub(crate) mod testing {
    //! Messages as Prometheus encodes them.

    use super::{LABEL_TAG, wire};

    /// A series: its labels and its samples.
    pub type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

    /// A message with these series.
    pub fn message(series: &[Series<'_>]) -> Vec<u8> {
        let mut message = Vec::new();
        for (labels, samples) in series {
            let mut encoded = Vec::new();
            for (name, value) in *labels {
                let mut label = Vec::new();
                wire::append(&mut label, 0x0A, name.as_bytes());
                wire::append(&mut label, 0x12, value.as_bytes());
                wire::append(&mut encoded, LABEL_TAG, &label);
            }
            for (time, value) in *samples {
                let mut sample = vec![0x09];
                sample.extend_from_slice(&value.to_le_bytes());
                sample.push(0x10);
                let mut time = time.cast_unsigned();
                while time >= 0x80 {
                    sample.push((time & 0x7F) as u8 | 0x80);
                    time >>= 7;
                }
                sample.push(time as u8);
                wire::append(&mut encoded, 0x12, &sample);
            }
            wire::append(&mut message, 0x0A, &encoded);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::testing::{KnownSeries, NOW, rules};
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<LabelMessage>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        exemplars: Vec<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct LabelMessage {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Sample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Metadata {
        #[prost(string, tag = "2")]
        family: String,
    }

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
        let label =
            |(name, value): &(&str, &str)| LabelMessage { name: (*name).into(), value: (*value).into() };
        TimeSeries {
            labels: labels.iter().map(label).collect(),
            samples: samples
                .iter()
                .map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp })
                .collect(),
            exemplars: Vec::new(),
        }
    }

    fn request(timeseries: Vec<TimeSeries>) -> Vec<u8> {
        WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec()
    }

    fn decoded(body: &[u8]) -> Result<Decoded, RemoteWriteError> {
        decode(body, &rules(), &KnownSeries::none())
    }

    #[test]
    fn labels_become_a_metric_and_dimensions() {
        let labels = [("__name__", "job:up:sum"), ("instance", "a:9090"), ("empty", ""), ("job", "node")];
        let decoded = decoded(&request(vec![series(&labels, &[(NOW, 1.5), (NOW + 1, -2.0)])])).unwrap();
        assert_eq!(decoded.batch.timestamps, [NOW, NOW + 1]);
        assert_eq!(
            decoded.batch.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
            [1.5f64.to_bits(), (-2f64).to_bits()]
        );
        let [described] = decoded.batch.new_series.as_slice() else { panic!("one series") };
        let pairs: Vec<_> =
            described.dimensions.iter().map(|(key, value)| (key.as_str(), value.as_ref())).collect();
        assert_eq!(
            (described.metric.as_str(), pairs),
            ("job_up_sum", vec![("instance", "a:9090"), ("job", "node")])
        );
    }

    #[test]
    fn samples_that_are_no_numbers_are_dropped_without_an_error() {
        let stale = f64::from_bits(0x7FF0_0000_0000_0002);
        let gone = series(&[("__name__", "gone")], &[(NOW, stale)]);
        let up = series(&[("__name__", "up")], &[(NOW, f64::NAN), (NOW + 1, 1.0), (NOW + 2, f64::INFINITY)]);
        let decoded = decoded(&request(vec![gone, up])).unwrap();
        assert_eq!((decoded.batch.len(), decoded.dropped, decoded.rejections.total()), (1, 3, 0));
        assert_eq!(decoded.batch.new_series.len(), 1, "a series without a sample is not described");
    }

    #[test]
    fn bad_series_and_samples_are_refused_and_the_others_kept() {
        let many: Vec<(String, String)> = (0..21).map(|n| (format!("k{n}"), "v".into())).collect();
        let mut many: Vec<(&str, &str)> =
            many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        many.push(("__name__", "up"));
        for (bad, code) in [
            (series(&[("job", "a")], &[(NOW, 1.0)]), Code::InvalidSample),
            (series(&[("__name__", "a.b")], &[(NOW, 1.0)]), Code::InvalidMetricName),
            (series(&[("__name__", "up"), ("a.b", "x")], &[(NOW, 1.0)]), Code::InvalidDimensionKey),
            (series(&[("__name__", "up"), ("__x", "x")], &[(NOW, 1.0)]), Code::InvalidDimensionKey),
            (series(&[("__name__", "up"), ("_tenant_id", "x")], &[(NOW, 1.0)]), Code::InvalidDimensionKey),
            (
                series(&[("__name__", "up"), ("a", &"x".repeat(257))], &[(NOW, 1.0)]),
                Code::InvalidDimensionValue,
            ),
            (series(&[("b", "1"), ("__name__", "up"), ("b", "1")], &[(NOW, 1.0)]), Code::InvalidDimensionKey),
            (series(&[("__name__", "up"), ("__name__", "up")], &[(NOW, 1.0)]), Code::InvalidDimensionKey),
            (series(&many, &[(NOW, 1.0)]), Code::TooManyDimensions),
            (series(&[("__name__", "up")], &[(0, 1.0)]), Code::TimestampOutOfRange),
        ] {
            let good = series(&[("__name__", "good")], &[(NOW, 1.0)]);
            let decoded = decoded(&request(vec![good.clone(), bad, good])).unwrap();
            assert_eq!((decoded.batch.len(), decoded.batch.new_series.len()), (2, 1), "{code:?}");
            let [error] = decoded.rejections.listed() else { panic!("one error: {code:?}") };
            assert_eq!((error.index, error.code), (1, code));
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_series() {
        let mut body = request(vec![series(&[("__name__", "up"), ("a", "xyz")], &[(NOW, 1.0)])]);
        let at = body.windows(3).position(|bytes| bytes == b"xyz").unwrap();
        body[at] = 0xFF;
        assert_eq!(decoded(&body).unwrap().rejections.listed()[0].code, Code::InvalidDimensionValue);
    }

    #[test]
    fn known_series_are_found_and_each_new_one_is_described_once() {
        let one = series(&[("__name__", "up"), ("job", "a")], &[(NOW, 1.0)]);
        let body = request(vec![one.clone(), one]);
        let mut known = KnownSeries::none();
        let first = decode(&body, &rules(), &known).unwrap();
        assert_eq!((first.batch.len(), first.batch.new_series.len()), (2, 1));
        known.learn(&first);
        let second = decode(&body, &rules(), &known).unwrap();
        assert_eq!((second.batch.len(), second.batch.new_series.len()), (2, 0));
    }

    #[test]
    fn labels_may_follow_the_samples() {
        let labels = series(&[("__name__", "up"), ("job", "a")], &[]).encode_to_vec();
        let samples = series(&[], &[(NOW, 1.0)]).encode_to_vec();
        let message = [samples, labels].concat();
        let mut body = Vec::new();
        wire::append(&mut body, 0x0A, &message);
        let decoded = decoded(&body).unwrap();
        assert_eq!((decoded.batch.len(), decoded.batch.new_series[0].metric.as_str()), (1, "up"));
    }

    #[test]
    fn other_fields_are_passed_over() {
        let mut up = series(&[("__name__", "up")], &[(NOW, 1.0)]);
        up.exemplars.push(Metadata { family: "x".into() });
        let metadata = vec![Metadata { family: "up".into() }];
        let body = WriteRequest { timeseries: vec![up], metadata }.encode_to_vec();
        assert_eq!(decoded(&body).unwrap().batch.len(), 1);
    }

    #[test]
    fn one_sample_too_many_refuses_the_message() {
        let rules = Rules { max_batch: 2, ..rules() };
        let body = |count: i64| {
            request((0..count).map(|n| series(&[("__name__", "up")], &[(NOW + n, 1.0)])).collect())
        };
        assert_eq!(decode(&body(2), &rules, &KnownSeries::none()).unwrap().batch.len(), 2);
        let refused = decode(&body(3), &rules, &KnownSeries::none());
        assert_eq!(refused.unwrap_err(), RemoteWriteError::TooMany { max: 2 });
    }

    /// What prost reads of the finite samples in the window.
    fn oracle(body: &[u8]) -> Option<Vec<(i64, u64)>> {
        let request = WriteRequest::decode(body).ok()?;
        let samples = request.timeseries.iter().flat_map(|series| &series.samples);
        let kept = samples.filter(|sample| sample.value.is_finite() && rules().accepts(sample.timestamp));
        Some(kept.map(|sample| (sample.timestamp, sample.value.to_bits())).collect())
    }

    #[test]
    fn truncated_or_mutated_it_agrees_with_prost() {
        let labels = [("__name__", "up"), ("job", "node"), ("instance", "localhost:9100")];
        let body = request(vec![
            series(&labels, &[(NOW, 1.0), (NOW + 1, 2.0)]),
            series(&labels[..2], &[(NOW, 3.0)]),
        ]);
        for cut in 0..body.len() {
            assert_eq!(decoded(&body[..cut]).is_ok(), oracle(&body[..cut]).is_some(), "cut at {cut}");
        }
        let mut random = fastrand::Rng::with_seed(4);
        let mut known = KnownSeries::none();
        known.learn(&decoded(&body).unwrap());
        for _ in 0..50_000 {
            let mut body = body.clone();
            for _ in 0..random.usize(1..3) {
                let at = random.usize(..body.len());
                body[at] = random.u8(..);
            }
            let ours = decode(&body, &rules(), &known);
            // Groups, which proto3 has no more, and text that isn't UTF-8 are judged otherwise.
            let Some(theirs) = oracle(&body) else { continue };
            let Ok(ours) = ours else { continue };
            if ours.rejections.total() == 0 {
                let batch = &ours.batch;
                let samples: Vec<(i64, u64)> = batch
                    .timestamps
                    .iter()
                    .zip(&batch.values)
                    .map(|(time, value)| (*time, value.to_bits()))
                    .collect();
                assert_eq!(samples, theirs);
            }
        }
    }
}
