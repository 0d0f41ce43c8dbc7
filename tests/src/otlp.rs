//! OTLP's metrics as their own schemas say, encoded by prost, as far as the benchmark needs them: gauges of numbers.

use prost::Message;

use crate::remote_write::{Label, TimeSeries};

/// `ExportMetricsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What each source says.
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

/// `ResourceMetrics`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceMetrics {
    /// What each of its libraries says.
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

/// `ScopeMetrics`.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeMetrics {
    /// The metrics.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// `Metric`.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its points.
    #[prost(message, optional, tag = "5")]
    pub gauge: Option<Gauge>,
}

/// `Gauge`.
#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    /// The points.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberDataPoint>,
}

/// `NumberDataPoint`.
#[derive(Clone, PartialEq, Message)]
pub struct NumberDataPoint {
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// The value.
    #[prost(double, optional, tag = "4")]
    pub as_double: Option<f64>,
    /// What it is of.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// `AnyValue`, if it is a text.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// The text.
    #[prost(string, optional, tag = "1")]
    pub string_value: Option<String>,
}

/// The headers that the protocol asks for.
pub const HEADERS: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

/// A request that says the same as these series of remote write: those of one name are points of one gauge, and labels
/// are their attributes.
///
/// # Panics
/// A series lacks a name, or has a time before 1970.
#[must_use]
pub fn request(timeseries: &[TimeSeries]) -> Request {
    let mut series: Vec<&TimeSeries> = timeseries.iter().collect();
    series.sort_by_key(|series| name(series));
    let metrics = series.chunk_by(|a, b| name(a) == name(b)).map(|series| Metric {
        name: name(series[0]).to_owned(),
        gauge: Some(Gauge { data_points: series.iter().copied().flat_map(points).collect() }),
    });
    let scope = ScopeMetrics { metrics: metrics.collect() };
    Request { resource_metrics: vec![ResourceMetrics { scope_metrics: vec![scope] }] }
}

fn name(series: &TimeSeries) -> &str {
    let label = series.labels.iter().find(|label| label.name == "__name__");
    &label.expect("a name").value
}

fn points(series: &TimeSeries) -> impl Iterator<Item = NumberDataPoint> {
    let labels = series.labels.iter().filter(|label| label.name != "__name__");
    let attribute = |label: &Label| KeyValue {
        key: label.name.clone(),
        value: Some(AnyValue { string_value: Some(label.value.clone()) }),
    };
    let attributes: Vec<KeyValue> = labels.map(attribute).collect();
    series.samples.iter().map(move |sample| NumberDataPoint {
        time_unix_nano: u64::try_from(sample.timestamp).expect("a time since 1970") * 1_000_000,
        as_double: Some(sample.value),
        attributes: attributes.clone(),
    })
}
