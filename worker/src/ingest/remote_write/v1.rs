//! Remote write 1.0, `prometheus.WriteRequest`: a series' labels follow each other in the message, and the bytes of
//! that block are its spelling; only an unknown one is taken apart.

use super::wire::{self, Field, Fields, MalformedMessage};
use super::{Decoded, Defect, Label, Labels, MAX_LABELS, Writer, too_many_labels};

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
/// What 2.0 has at the top, and 1.0 never had.
const SYMBOLS_OF_V2: u32 = 4;
const TIMESERIES_OF_V2: u32 = 5;

/// Reads a message into `writer`.
pub(super) fn read(body: &[u8], mut writer: Writer<'_>) -> Result<Decoded, Defect> {
    let (mut fields, mut at) = (Fields::new(body), 0);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (TIMESERIES, Field::Bytes(message)) => {
                series(message, &mut writer).map_err(|defect| defect.in_series(at))?;
                at += 1;
            }
            (TIMESERIES, _) => return Err(MalformedMessage("timeseries is no message").into()),
            (SYMBOLS_OF_V2 | TIMESERIES_OF_V2, Field::Bytes(_)) => {
                let reason = "it has fields of io.prometheus.write.v2.Request; Content-Type says which it is";
                return Err(MalformedMessage(reason).into());
            }
            _ => {}
        }
    }
    Ok(writer.decoded)
}

fn series(message: &[u8], writer: &mut Writer<'_>) -> Result<(), Defect> {
    let labels_end = leading_labels(message)?;
    let (labels, rest) = message.split_at(labels_end);
    // The labels of a series whose labels don't stand in one block.
    let mut scattered = Vec::new();
    let mut fields = Fields::new(rest);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (SAMPLES, Field::Bytes(sample)) => writer.sample(sample)?,
            (LABELS, Field::Bytes(label)) => wire::append(&mut scattered, LABEL_TAG, label),
            (LABELS | SAMPLES, _) => {
                return Err(MalformedMessage("a label or sample is no message").into());
            }
            _ => {}
        }
    }
    if scattered.is_empty() {
        return Ok(writer.series(&Block(labels))?);
    }
    let block = [labels, &scattered].concat();
    Ok(writer.series(&Block(&block))?)
}

/// Labels, each behind its tag and length.
struct Block<'a>(&'a [u8]);

impl Labels for Block<'_> {
    fn spelled(&self) -> &[u8] {
        self.0
    }

    fn read(&self) -> Result<Vec<Label<'_>>, MalformedMessage> {
        let mut labels = Vec::new();
        let mut fields = Fields::new(self.0);
        while let Some((_, field)) = fields.next()? {
            if labels.len() == MAX_LABELS {
                return Err(too_many_labels());
            }
            if let Field::Bytes(message) = field {
                labels.push(read_label(message)?);
            }
        }
        Ok(labels)
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::super::testing::{KnownSeries, NOW, rules};
    use super::super::{RemoteWriteError, Version, decode};
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

    fn decoded(body: &[u8]) -> Result<Decoded, RemoteWriteError> {
        decode(body, Version::V1, &rules(), &KnownSeries::none())
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
    fn a_defect_is_said_with_its_place() {
        let mut body = Vec::new();
        wire::append(&mut body, 0x0A, &series(&[("__name__", "up")], &[(NOW, 1.0)]).encode_to_vec());
        wire::append(&mut body, 0x0A, &[0x12, 5]);
        let expected = RemoteWriteError::Malformed {
            message: "prometheus.WriteRequest",
            field: Some("timeseries[1]".into()),
            reason: "a field is longer than its message".into(),
        };
        assert_eq!(decoded(&body).unwrap_err(), expected);
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
        let timeseries =
            vec![series(&labels, &[(NOW, 1.0), (NOW + 1, 2.0)]), series(&labels[..2], &[(NOW, 3.0)])];
        let body = WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec();
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
            let ours = decode(&body, Version::V1, &rules(), &known);
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
