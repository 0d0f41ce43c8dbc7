//! Messages as Prometheus encodes them.

use prost::Message;

use super::{Version, wire};

/// A series: its labels and its samples.
pub type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

/// A message of `version` with these series.
pub fn message(version: Version, series: &[Series<'_>]) -> Vec<u8> {
    match version {
        Version::V1 => write_request(series),
        Version::V2 => request(series).encode_to_vec(),
    }
}

fn write_request(series: &[Series<'_>]) -> Vec<u8> {
    let mut message = Vec::new();
    for (labels, samples) in series {
        let mut encoded = Vec::new();
        for (name, value) in *labels {
            let mut label = Vec::new();
            wire::append(&mut label, 0x0A, name.as_bytes());
            wire::append(&mut label, 0x12, value.as_bytes());
            wire::append(&mut encoded, 0x0A, &label);
        }
        for (timestamp, value) in *samples {
            let sample = Sample { value: *value, timestamp: *timestamp, start: 0 };
            wire::append(&mut encoded, 0x12, &sample.encode_to_vec());
        }
        wire::append(&mut message, 0x0A, &encoded);
    }
    message
}

/// `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries>,
}

/// `io.prometheus.write.v2.TimeSeries`. What is passed over has the shape of metadata here.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Metadata>,
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Metadata>,
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
    #[prost(int64, tag = "6")]
    pub created: i64,
}

/// A sample of either version; 1.0 has no start.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    #[prost(int64, tag = "3")]
    pub start: i64,
}

/// `io.prometheus.write.v2.Metadata`.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint32, tag = "3")]
    pub help: u32,
    #[prost(uint32, tag = "4")]
    pub unit: u32,
}

/// A message of 2.0, each string once in its table.
pub fn request(series: &[Series<'_>]) -> Request {
    let mut symbols = vec![String::new()];
    let mut timeseries = Vec::new();
    for (labels, samples) in series {
        let mut labels_refs = Vec::new();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let known = symbols.iter().position(|symbol| symbol == text);
            labels_refs.push(known.unwrap_or(symbols.len()) as u32);
            if known.is_none() {
                symbols.push((*text).to_owned());
            }
        }
        let sample =
            |(timestamp, value): &(i64, f64)| Sample { value: *value, timestamp: *timestamp, start: 0 };
        let samples = samples.iter().map(sample).collect();
        timeseries.push(TimeSeries { labels_refs, samples, ..TimeSeries::default() });
    }
    Request { symbols, timeseries }
}
