//! Remote write 2.0, made of the same series as 1.0.

use std::collections::HashMap;

use prost::Message;

/// `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// The strings that all else refers to; the first is empty.
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    /// The series.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries>,
}

/// `io.prometheus.write.v2.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Names and values of labels, in turn.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Ascending by time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Ascending by time; not beside samples.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    /// Examples of what was observed.
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
    /// What the metric is.
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
}

/// `io.prometheus.write.v2.Sample`.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// When the counter began, in Unix milliseconds; 0 where nobody knows.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// `io.prometheus.write.v2.Histogram`, as far as a test needs it.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Observations.
    #[prost(uint64, tag = "1")]
    pub count_int: u64,
    /// What they add up to.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
}

/// `io.prometheus.write.v2.Exemplar`.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// Names and values of labels, in turn.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// What was observed.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `io.prometheus.write.v2.Metadata`.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// Counter, gauge, …
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// What it measures.
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    /// In what.
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

/// The headers that the protocol asks for.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

/// A request that says the same as these series of 1.0.
#[must_use]
pub fn request(timeseries: &[super::TimeSeries]) -> Request {
    let mut table = Table { symbols: vec![String::new()], places: HashMap::from([(String::new(), 0)]) };
    let timeseries = timeseries
        .iter()
        .map(|series| TimeSeries {
            labels_refs: series
                .labels
                .iter()
                .flat_map(|label| [table.place(&label.name), table.place(&label.value)])
                .collect(),
            samples: series
                .samples
                .iter()
                .map(|sample| Sample { value: sample.value, timestamp: sample.timestamp, start_timestamp: 0 })
                .collect(),
            ..TimeSeries::default()
        })
        .collect();
    Request { symbols: table.symbols, timeseries }
}

/// Strings, each once.
struct Table {
    symbols: Vec<String>,
    places: HashMap<String, u32>,
}

impl Table {
    fn place(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = u32::try_from(self.symbols.len()).expect("fewer symbols than 2^32");
        self.symbols.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

/// A request as it goes over the wire.
#[must_use]
pub fn body(request: &Request) -> Vec<u8> {
    super::compressed(&request.encode_to_vec())
}
