//! Remote write 1.0 and 2.0, against prost and the rules read off its messages one by one.

use luminate_worker::ingest::remote_write::{Version, decode};
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
    /// Native histograms, undecoded.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub histograms: Vec<Vec<u8>>,
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

/// `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What labels refer to; the first is empty.
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    /// Its series.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<Referring>,
}

/// A series whose labels refer to symbols.
#[derive(Clone, PartialEq, Message)]
pub struct Referring {
    /// Keys and values in turn.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Native histograms, undecoded.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub histograms: Vec<Vec<u8>>,
}

const LETTERS: [char; 8] = ['a', 'b', 'Z', '0', '_', ':', 'ü', '-'];

/// The first byte says which version, and whether the rest is a message or what one is made of.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let version = if kind & 2 == 0 { Version::V1 } else { Version::V2 };
    if kind & 1 == 0 {
        return raw(rest, version);
    }
    let message = drawn(Draw(rest));
    for (version, body) in
        [(Version::V1, message.encode_to_vec()), (Version::V2, second(&message).encode_to_vec())]
    {
        let read = read(&body, version).expect("a message that was encoded");
        assert_eq!(read, expected(&message), "{version:?}");
    }
}

fn read(body: &[u8], version: Version) -> Option<Read> {
    twice(body.len(), |lookup| decode(body, version, &rules(), lookup)).ok()
}

/// What either refuses as a whole the other may read: groups, and text that isn't UTF-8.
fn raw(body: &[u8], version: Version) {
    let read = read(body, version);
    let message = match version {
        Version::V1 => WriteRequest::decode(body).ok(),
        Version::V2 => Request::decode(body).ok().as_ref().and_then(first),
    };
    if let (Some(read), Some(message)) = (read, message)
        && message.timeseries.iter().all(|series| series.histograms.is_empty())
    {
        assert_eq!(read, expected(&message));
    }
}

/// The same in version 2.0.
fn second(message: &WriteRequest) -> Request {
    let mut request = Request { symbols: vec![String::new()], timeseries: Vec::new() };
    for series in &message.timeseries {
        let mut referring = Referring { samples: series.samples.clone(), ..Referring::default() };
        for text in series.labels.iter().flat_map(|label| [&label.name, &label.value]) {
            let known = request.symbols.iter().position(|symbol| symbol == text);
            let place = known.unwrap_or_else(|| {
                request.symbols.push(text.clone());
                request.symbols.len() - 1
            });
            referring.labels_refs.push(place as u32);
        }
        request.timeseries.push(referring);
    }
    request
}

/// The same in version 1.0; nothing where a reference has no symbol.
fn first(request: &Request) -> Option<WriteRequest> {
    let mut message = WriteRequest::default();
    let symbol = |at: u32| request.symbols.get(at as usize).cloned();
    for series in &request.timeseries {
        let (pairs, []) = series.labels_refs.as_chunks::<2>() else { return None };
        let label = |[name, value]: &[u32; 2]| Some(Label { name: symbol(*name)?, value: symbol(*value)? });
        let labels = pairs.iter().map(label).collect::<Option<_>>()?;
        let (samples, histograms) = (series.samples.clone(), series.histograms.clone());
        message.timeseries.push(TimeSeries { labels, samples, histograms });
    }
    Some(message)
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
            // A negative zero is left out by encoders, as if it were zero.
            let value = if draw.below(8) == 0 { f64::NAN } else { draw.value() + 0.0 };
            let timestamp = if draw.below(8) == 0 { draw.long().cast_signed() } else { NOW };
            Sample { value, timestamp }
        });
        timeseries.push(TimeSeries { samples: samples.collect(), labels, histograms: Vec::new() });
    }
    WriteRequest { timeseries }
}

/// Messages, and what some are made of.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let labels = vec![label("__name__", "up"), label("host", "a"), label("instance", "localhost:9100")];
    let samples = vec![Sample { value: 1.0, timestamp: NOW }, Sample { value: f64::NAN, timestamp: NOW + 1 }];
    let series = TimeSeries { labels, samples, histograms: Vec::new() };
    let message = WriteRequest { timeseries: vec![series.clone(), series] };
    let drawn = b"\x01\x03abc\x02\x01kk\x01vv\x01\x02\x05z\x09\x32\x07\x05abcdef\x01\x03gh".to_vec();
    vec![
        [vec![0], message.encode_to_vec()].concat(),
        [vec![2], second(&message).encode_to_vec()].concat(),
        drawn,
    ]
}
