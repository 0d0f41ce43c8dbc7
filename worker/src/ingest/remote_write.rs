//! Prometheus remote write, 1.0 and 2.0: protobuf messages, decoded from their bytes.
//!
//! `v1` and `v2` know how a message spells its series; what becomes of a series is here, for both. `__name__`
//! becomes the metric (`:` becomes `_`), the other labels become dimensions. NaN and infinite samples are dropped and
//! counted: Prometheus sends NaN for empty summaries and as the marker of a stale series.

use std::borrow::Cow;
use std::sync::Arc;

use luminate_storage::model::{Dimensions, MetricName, RowSeries, Spelling};
use luminate_storage::store::SeriesLookup;

use self::wire::{Field, Fields, MalformedMessage};
use super::{Decoded, Problem, Resolver, Rules, shortened};
use crate::error::Code;

#[cfg(test)]
pub(crate) mod testing;
mod v1;
mod v2;
pub(crate) mod wire;

/// `Sample.value`, `.timestamp`, the same in both versions. A sample's start, which 2.0 has besides, is passed over.
const SAMPLE_VALUE: u32 = 1;
const SAMPLE_TIMESTAMP: u32 = 2;
/// Most labels of a series; the configuration allows fewer dimensions. A label takes two bytes of a body, and up to a
/// hundred here.
const MAX_LABELS: usize = 1_024;
/// The label that holds the metric's name.
const NAME_LABEL: &str = "__name__";

/// A version of the protocol, which is to say: which message a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.0: labels are spelled out with every series.
    V1,
    /// 2.0: labels refer to a table of the request.
    V2,
}

impl Version {
    /// The message's full name.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }
}

/// Why a whole message is refused; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteWriteError {
    /// Not a protobuf message, one with fields of other types, or one that contradicts itself.
    #[error("the body is not a {message}: {reason}")]
    Malformed {
        /// The message that it should be.
        message: &'static str,
        /// The part that is wrong, where it can be named.
        field: Option<String>,
        /// What is wrong.
        reason: String,
    },
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
/// Metadata, exemplars, start times and unknown fields are passed over, native histograms only in 1.0.
pub fn decode(
    body: &[u8],
    version: Version,
    rules: &Rules,
    lookup: &dyn SeriesLookup,
) -> Result<Decoded, RemoteWriteError> {
    let writer = Writer {
        rules,
        resolver: Resolver::new(lookup),
        decoded: Decoded::new(rules.series),
        samples: Vec::new(),
        histograms: 0,
    };
    let read = match version {
        Version::V1 => v1::read(body, writer),
        Version::V2 => v2::read(body, writer),
    };
    read.map_err(|defect| match defect {
        Defect::TooMany { max } => RemoteWriteError::TooMany { max },
        Defect::Malformed { field, reason } => {
            RemoteWriteError::Malformed { message: version.message(), field, reason }
        }
    })
}

/// What is wrong with a message, said by those who don't see all of it.
#[derive(Debug)]
enum Defect {
    Malformed { field: Option<String>, reason: String },
    TooMany { max: usize },
}

impl Defect {
    fn of(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { field: Some(field.into()), reason: reason.into() }
    }

    /// The same, seen from the message of which it is the `at`-th series.
    fn in_series(self, at: usize) -> Self {
        let Self::Malformed { field, reason } = self else { return self };
        let inner = field.map_or_else(String::new, |field| format!(".{field}"));
        Self::of(format!("timeseries[{at}]{inner}"), reason)
    }
}

impl From<MalformedMessage> for Defect {
    fn from(MalformedMessage(reason): MalformedMessage) -> Self {
        Self::Malformed { field: None, reason: reason.into() }
    }
}

/// A series' labels, as a version spells them.
trait Labels {
    /// Bytes that only this series has; those of two versions differ.
    fn spelled(&self) -> &[u8];

    /// The labels themselves, which costs more.
    fn read(&self) -> Result<Vec<Label<'_>>, MalformedMessage>;
}

/// A label as its bytes; absent fields are empty, as proto3 says.
#[derive(Default)]
struct Label<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// Makes rows of series, one series at a time: its samples first, then its labels.
struct Writer<'a> {
    rules: &'a Rules,
    resolver: Resolver<'a>,
    decoded: Decoded,
    /// The samples of the series at hand.
    samples: Vec<(i64, f64)>,
    /// How many native histograms it has.
    histograms: usize,
}

impl Writer<'_> {
    /// Takes a sample of the series at hand.
    fn sample(&mut self, message: &[u8]) -> Result<(), Defect> {
        self.check_room()?;
        self.samples.push(read_sample(message)?);
        Ok(())
    }

    /// Counts a native histogram of the series at hand.
    fn histogram(&mut self) -> Result<(), Defect> {
        self.check_room()?;
        self.histograms += 1;
        Ok(())
    }

    fn check_room(&self) -> Result<(), Defect> {
        let max = self.rules.max_batch;
        let taken = self.decoded.next_index() as usize + self.samples.len() + self.histograms;
        if taken < max { Ok(()) } else { Err(Defect::TooMany { max }) }
    }

    /// Makes rows of what was taken: it belongs to the series with these labels.
    fn series(&mut self, labels: &impl Labels) -> Result<(), MalformedMessage> {
        let mut samples = std::mem::take(&mut self.samples);
        // Each is looked for once a series, however many samples ask for it.
        let (mut series, mut metric) = (None, None);
        let mut named = || metric.get_or_insert_with(|| metric_as_sent(labels)).clone();
        for (time, value) in samples.drain(..) {
            if !value.is_finite() {
                self.decoded.drop_sample();
            } else if !self.rules.accepts(time) {
                self.decoded.reject(named(), &self.rules.outside(time));
            } else {
                // Only a series with a sample to store is looked for: others must not be described.
                let known = match &series {
                    Some(known) => known,
                    None => series.insert(self.resolve(labels)?),
                };
                match known {
                    Ok(series) => self.decoded.batch.push(*series, time, value),
                    Err(problem) => self.decoded.reject(named(), problem),
                }
            }
        }
        self.samples = samples;
        if self.histograms > 0 {
            self.refuse_histograms(named());
        }
        Ok(())
    }

    fn refuse_histograms(&mut self, metric: Option<Arc<str>>) {
        let problem = Problem::new(
            Code::InvalidSample,
            "native histograms are not stored; send classic ones, with send_native_histograms: false",
        );
        for _ in 0..std::mem::take(&mut self.histograms) {
            self.decoded.reject(metric.clone(), &problem);
        }
    }

    /// The series that `labels` spell, or why it is refused.
    fn resolve(&mut self, labels: &impl Labels) -> Result<Result<RowSeries, Problem>, MalformedMessage> {
        let spelling = self.resolver.hash(labels.spelled());
        if let Some(series) = self.resolver.find(spelling) {
            return Ok(Ok(series));
        }
        let labels = labels.read()?;
        Ok(self.describe(&labels, spelling))
    }

    fn describe(&mut self, labels: &[Label<'_>], spelling: Spelling) -> Result<RowSeries, Problem> {
        // A machine's metrics follow one another and differ in their names alone.
        let (metric, dimensions) = match name_beside(labels, &self.resolver.dimensions) {
            Some(metric) => (metric, self.resolver.dimensions.clone()),
            None => {
                let (metric, pairs) = texts(labels)?;
                (metric, self.resolver.dimensions(pairs, &self.rules.dimensions)?)
            }
        };
        let metric = metric_name(metric)?;
        Ok(self.resolver.describe(&mut self.decoded.batch, metric, dimensions, spelling))
    }
}

/// Time and value of a sample.
#[inline]
fn read_sample(message: &[u8]) -> Result<(i64, f64), MalformedMessage> {
    // As every encoder writes it, read in a third of the time: the value, then the time, and nothing else.
    if let Some(([0x09, value @ .., 0x10], _)) = message.split_first_chunk::<10>()
        && let (millis, end) = wire::varint(message, 10)?
        && end == message.len()
    {
        return Ok((millis.cast_signed(), f64::from_le_bytes(*value)));
    }
    read_any_sample(message)
}

fn read_any_sample(message: &[u8]) -> Result<(i64, f64), MalformedMessage> {
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
fn texts<'a>(labels: &[Label<'a>]) -> Result<(&'a str, Pairs<'a>), Problem> {
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
    Ok((metric, pairs))
}

/// The metric, where all other labels are these dimensions in their order: they are text, so what is the same bytes is too.
fn name_beside<'a>(labels: &[Label<'a>], dimensions: &Dimensions) -> Option<&'a str> {
    let (mut metric, mut known) = (None, dimensions.iter());
    for label in labels.iter().filter(|label| !label.value.is_empty()) {
        if label.name == NAME_LABEL.as_bytes() {
            if metric.replace(label.value).is_some() {
                return None;
            }
        } else {
            let (key, value) = known.next()?;
            if label.name != key.as_str().as_bytes() || label.value != value.as_bytes() {
                return None;
            }
        }
    }
    if known.next().is_some() { None } else { std::str::from_utf8(metric?).ok() }
}

fn metric_name(metric: &str) -> Result<MetricName, Problem> {
    let metric =
        if metric.contains(':') { Cow::Owned(metric.replace(':', "_")) } else { Cow::Borrowed(metric) };
    Ok(MetricName::new(&metric)?)
}

/// The metric of a refused sample, for the answer.
fn metric_as_sent(labels: &impl Labels) -> Option<Arc<str>> {
    let labels = labels.read().ok()?;
    let label = labels.iter().find(|label| label.name == NAME_LABEL.as_bytes())?;
    Some(Arc::from(shortened(&String::from_utf8_lossy(label.value))))
}

#[cold]
fn too_many_labels() -> MalformedMessage {
    MalformedMessage("a series has more than 1024 labels")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KnownSeries, NOW, errors, rows, rules};
    use super::testing::{Series, message};
    use super::*;

    const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

    fn decoded(version: Version, series: &[Series<'_>]) -> Decoded {
        decode(&message(version, series), version, &rules(), &KnownSeries::none()).unwrap()
    }

    #[test]
    fn labels_become_a_metric_and_dimensions() {
        let labels = [("__name__", "job:up:sum"), ("instance", "a:9090"), ("empty", ""), ("job", "node")];
        for version in VERSIONS {
            let decoded = decoded(version, &[(&labels, &[(NOW, 1.5), (NOW + 1, -2.0)])]);
            let expected =
                ["job_up_sum{instance=a:9090,job=node} 0 1.5", "job_up_sum{instance=a:9090,job=node} 1 -2"];
            assert_eq!(rows(&decoded), expected, "{version:?}");
            assert_eq!(decoded.batch.new_series.len(), 1);
        }
    }

    #[test]
    fn what_stands_before_a_series_changes_nothing_of_it() {
        let now: &[(i64, f64)] = &[(NOW, 1.0)];
        let all: [&[(&str, &str)]; 11] = [
            &[("__name__", "up"), ("instance", "a"), ("job", "n")],
            &[("__name__", "down"), ("instance", "a"), ("job", "n")],
            &[("__name__", "a:b"), ("instance", "a"), ("job", "n"), ("none", "")],
            &[("instance", "a"), ("job", "n"), ("__name__", "last")],
            &[("__name__", "up"), ("job", "n"), ("instance", "a")],
            &[("__name__", "up"), ("instance", "a")],
            &[("__name__", "up"), ("instance", "a"), ("job", "n"), ("zone", "z")],
            &[("__name__", "up"), ("instance", "b"), ("job", "n")],
            &[("__name__", "up"), ("__name__", "up"), ("instance", "a"), ("job", "n")],
            &[("instance", "a"), ("job", "n")],
            &[("__name__", "up")],
        ];
        let answer = |decoded: &Decoded| (rows(decoded), decoded.rejections.listed().len());
        for version in VERSIONS {
            let alone = all.map(|labels| answer(&decoded(version, &[(labels, now)])));
            for (first, own) in all.iter().zip(&alone) {
                for (second, other) in all.iter().zip(&alone) {
                    let both = answer(&decoded(version, &[(first, now), (second, now)]));
                    assert_eq!(
                        both,
                        ([&own.0[..], &other.0].concat(), own.1 + other.1),
                        "{first:?} {second:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn samples_that_are_no_numbers_are_dropped_without_an_error() {
        let stale = f64::from_bits(0x7FF0_0000_0000_0002);
        let up = [(NOW, f64::NAN), (NOW + 1, 1.0), (NOW + 2, f64::INFINITY)];
        for version in VERSIONS {
            let series: [Series<'_>; 2] =
                [(&[("__name__", "gone")], &[(NOW, stale)]), (&[("__name__", "up")], &up)];
            let decoded = decoded(version, &series);
            assert_eq!((decoded.batch.len(), decoded.dropped, decoded.rejections.total()), (1, 3, 0));
            assert_eq!(decoded.batch.new_series.len(), 1, "a series without a sample is not described");
        }
    }

    #[test]
    fn bad_series_and_samples_are_refused_and_the_others_kept() {
        let many: Vec<(String, String)> = (0..21).map(|n| (format!("k{n}"), "v".into())).collect();
        let mut many: Vec<(&str, &str)> =
            many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        many.push(("__name__", "up"));
        let long = "x".repeat(257);
        let now: &[(i64, f64)] = &[(NOW, 1.0)];
        let bad: [(Series<'_>, Code); 10] = [
            ((&[("job", "a")], now), Code::InvalidSample),
            ((&[("__name__", "a.b")], now), Code::InvalidMetricName),
            ((&[("__name__", "up"), ("a.b", "x")], now), Code::InvalidDimensionKey),
            ((&[("__name__", "up"), ("__x", "x")], now), Code::InvalidDimensionKey),
            ((&[("__name__", "up"), ("_tenant_id", "x")], now), Code::InvalidDimensionKey),
            ((&[("__name__", "up"), ("a", &long)], now), Code::InvalidDimensionValue),
            ((&[("b", "1"), ("__name__", "up"), ("b", "1")], now), Code::InvalidDimensionKey),
            ((&[("__name__", "up"), ("__name__", "up")], now), Code::InvalidDimensionKey),
            ((&many, now), Code::TooManyDimensions),
            ((&[("__name__", "up")], &[(0, 1.0)]), Code::TimestampOutOfRange),
        ];
        for version in VERSIONS {
            for (bad, code) in bad {
                let good: Series<'_> = (&[("__name__", "good")], now);
                let decoded = decoded(version, &[good, bad, good]);
                assert_eq!((decoded.batch.len(), decoded.batch.new_series.len()), (2, 1), "{code:?}");
                let [error] = decoded.rejections.listed() else { panic!("one error: {code:?}") };
                assert_eq!((error.index, error.code), (1, code), "{version:?}");
            }
        }
    }

    #[test]
    fn a_series_of_very_many_labels_refuses_the_message() {
        let label = |n: usize| if n == 0 { ("__name__", "up") } else { ("k", "") };
        let labels: Vec<_> = (0..=MAX_LABELS).map(label).collect();
        for version in VERSIONS {
            assert_eq!(decoded(version, &[(&labels[..MAX_LABELS], &[(NOW, 1.0)])]).batch.len(), 1);
            let body = message(version, &[(&labels, &[(NOW, 1.0)])]);
            let refused = decode(&body, version, &rules(), &KnownSeries::none()).unwrap_err();
            let expected = RemoteWriteError::Malformed {
                message: version.message(),
                field: Some("timeseries[0]".into()),
                reason: "a series has more than 1024 labels".into(),
            };
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_series() {
        for version in VERSIONS {
            let mut body = message(version, &[(&[("__name__", "up"), ("a", "xyz")], &[(NOW, 1.0)])]);
            let at = body.windows(3).position(|bytes| bytes == b"xyz").unwrap();
            body[at] = 0xFF;
            let decoded = decode(&body, version, &rules(), &KnownSeries::none()).unwrap();
            assert_eq!(errors(&decoded), ["0 InvalidDimensionValue: the value of label \"a\" is not UTF-8"]);
            assert_eq!(decoded.rejections.listed()[0].metric.as_deref(), Some("up"));
        }
    }

    #[test]
    fn known_series_are_found_and_each_new_one_is_described_once() {
        let one: Series<'_> = (&[("__name__", "up"), ("job", "a")], &[(NOW, 1.0)]);
        for version in VERSIONS {
            let body = message(version, &[one, one]);
            let mut known = KnownSeries::none();
            let first = decode(&body, version, &rules(), &known).unwrap();
            assert_eq!((first.batch.len(), first.batch.new_series.len()), (2, 1));
            known.learn(&first);
            let second = decode(&body, version, &rules(), &known).unwrap();
            assert_eq!((second.batch.len(), second.batch.new_series.len()), (2, 0));
        }
    }

    #[test]
    fn one_sample_too_many_refuses_the_message() {
        let rules = Rules { max_batch: 2, ..rules() };
        let samples = [(NOW, 1.0), (NOW + 1, f64::NAN), (NOW + 2, 1.0)];
        let name: &[(&str, &str)] = &[("__name__", "up")];
        for version in VERSIONS {
            let decode = |series: &[Series<'_>]| {
                decode(&message(version, series), version, &rules, &KnownSeries::none())
            };
            assert_eq!(decode(&[(name, &samples[..2])]).unwrap().batch.len(), 1);
            let refused = RemoteWriteError::TooMany { max: 2 };
            assert_eq!(decode(&[(name, &samples)]).unwrap_err(), refused);
            assert_eq!(decode(&[(name, &samples[..2]), (name, &samples[2..])]).unwrap_err(), refused);
        }
    }

    #[test]
    fn a_message_of_the_other_version_is_refused() {
        let series: [Series<'_>; 1] = [(&[("__name__", "up")], &[(NOW, 1.0)])];
        for (is, taken_for) in [(Version::V1, Version::V2), (Version::V2, Version::V1)] {
            let refused = decode(&message(is, &series), taken_for, &rules(), &KnownSeries::none());
            let why = refused.unwrap_err().to_string();
            assert!(why.starts_with(&format!("the body is not a {}: ", taken_for.message())), "{why}");
            assert!(
                why.ends_with(&format!("fields of {}; Content-Type says which it is", is.message())),
                "{why}"
            );
        }
    }
}
