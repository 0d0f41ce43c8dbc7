//! Remote write 1.0, against prost and the rules read off its messages one by one.

use luminate_worker::ingest::remote_write::decode;
use prost::Message;

use crate::draw::Draw;
use crate::rows::{NOW, Read, row, rules, twice};

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// Its series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// A series with samples.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Name and labels.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Its key.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// Its value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

const LETTERS: [char; 8] = ['a', 'b', 'Z', '0', '_', ':', 'ü', '-'];

/// The first byte says whether the rest is a message or what one is made of.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((kind, rest)) if kind % 2 == 1 => {
            let message = drawn(Draw(rest));
            let body = message.encode_to_vec();
            let read = twice(body.len(), |lookup| decode(&body, &rules(), lookup));
            assert_eq!(read.expect("a message that was encoded"), expected(&message));
        }
        Some((_, body)) => {
            let read = twice(body.len(), |lookup| decode(body, &rules(), lookup));
            // What either refuses as a whole the other may read: groups, and text that isn't UTF-8.
            if let (Ok(read), Ok(message)) = (read, WriteRequest::decode(body)) {
                assert_eq!(read, expected(&message));
            }
        }
        None => {}
    }
}

fn expected(message: &WriteRequest) -> Read {
    let mut read = Read::default();
    for series in &message.timeseries {
        let labels = series.labels.iter().filter(|label| !label.value.is_empty());
        let (names, rest): (Vec<&Label>, Vec<&Label>) = labels.partition(|label| label.name == "__name__");
        let pairs: Vec<(String, String)> =
            rest.into_iter().map(|label| (label.name.clone(), label.value.clone())).collect();
        for sample in &series.samples {
            let row = match names.as_slice() {
                [name] => row(&name.value.replace(':', "_"), &pairs, sample.timestamp, sample.value),
                _ => None,
            };
            match row {
                _ if !sample.value.is_finite() => read.dropped += 1,
                Some(row) if rules().accepts(sample.timestamp) => read.rows.push(row),
                _ => read.refused += 1,
            }
        }
    }
    read
}

fn drawn(mut draw: Draw<'_>) -> WriteRequest {
    let mut timeseries = Vec::new();
    while !draw.is_empty() {
        let mut labels = vec![Label { name: "__name__".into(), value: draw.text(&LETTERS, 6) }];
        for _ in 0..draw.below(4) {
            let value = if draw.below(4) == 0 { String::new() } else { draw.text(&LETTERS, 6) };
            labels.push(Label { name: draw.text(&LETTERS, 4), value });
        }
        let samples = (0..draw.below(4)).map(|_| {
            let value = if draw.below(8) == 0 { f64::NAN } else { draw.value() };
            let timestamp = if draw.below(8) == 0 { draw.long().cast_signed() } else { NOW };
            Sample { value, timestamp }
        });
        timeseries.push(TimeSeries { samples: samples.collect(), labels });
    }
    WriteRequest { timeseries }
}

/// Messages, and what some are made of.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let labels = vec![label("__name__", "up"), label("host", "a"), label("instance", "localhost:9100")];
    let samples = vec![Sample { value: 1.0, timestamp: NOW }, Sample { value: f64::NAN, timestamp: NOW + 1 }];
    let series = TimeSeries { labels, samples };
    let message = WriteRequest { timeseries: vec![series.clone(), series] };
    let drawn = b"\x01\x03abc\x02\x01kk\x01vv\x01\x02\x05z\x09\x32\x07\x05abcdef\x01\x03gh".to_vec();
    vec![[vec![0], message.encode_to_vec()].concat(), drawn]
}
