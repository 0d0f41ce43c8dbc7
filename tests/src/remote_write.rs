//! Prometheus remote write as its own schemas say, encoded by prost: independent of the worker's hand-written decoder.
//! 1.0 is here, 2.0 in [`v2`].

pub mod v2;

use prost::Message;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// What the series are; the worker passes over it.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// `prometheus.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Ascending by time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `prometheus.Sample`.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// `prometheus.MetricMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct MetricMetadata {
    /// Counter, gauge, …
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The metric's name.
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    /// What it measures.
    #[prost(string, tag = "4")]
    pub help: String,
}

/// The bits of the NaN that marks a series as gone.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The headers that the protocol asks for.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// A series of `metric` with labels and samples of (time, value).
#[must_use]
pub fn series(metric: &str, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
    let label = |(name, value): &(&str, &str)| Label { name: (*name).to_owned(), value: (*value).to_owned() };
    let mut labels: Vec<Label> = labels.iter().chain(&[("__name__", metric)]).map(label).collect();
    labels.sort_by(|left, right| left.name.cmp(&right.name));
    let samples =
        samples.iter().map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp }).collect();
    TimeSeries { labels, samples }
}

/// A request as it goes over the wire.
#[must_use]
pub fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    compressed(&WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec())
}

/// Bytes in snappy's block format.
#[must_use]
pub fn compressed(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("the body is shorter than 4 GiB")
}
