//! OpenTelemetry's metrics: a message reads the same whether its series are known, and JSON becomes a message.

use luminate_crds::worker_config::Otlp;
use luminate_worker::ingest::otlp::{decode, json};
use prost::Message;

use crate::memory;
use crate::rows::{NOW, Read, row, rules, twice_within};

/// Words of JSON requests.
pub const WORDS: &[&str] = &[
    "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[",
    "\"gauge\":{\"dataPoints\":[",
    "\"sum\":{",
    "\"histogram\":{",
    "\"exponentialHistogram\":{",
    "\"summary\":{",
    "\"timeUnixNano\":\"1767225600000000000\"",
    "\"asDouble\":",
    "\"asInt\":\"1\"",
    "\"bucketCounts\":[",
    "\"explicitBounds\":[",
    "\"attributes\":[{\"key\":",
    "\"stringValue\":",
    "\"aggregationTemporality\":2",
    "\"isMonotonic\":true",
    "\"scale\":",
    "\"offset\":",
    "\"quantileValues\":[",
];

/// A point of a histogram becomes many samples: most bytes for a byte.
const RATIO: usize = 2_048;

/// The first byte says whether the rest is a message, JSON, or the name and numbers of a gauge.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 3 {
        0 => drop(read(rest)),
        1 => {
            let message = memory::within((1 << 20) + 64 * rest.len(), || json::to_protobuf(rest));
            if let Ok(message) = message {
                assert!(
                    read(&message).is_some() || rest.len() > 100,
                    "a short request is refused as a message"
                );
            }
        }
        _ => gauge(rest),
    }
}

fn read(body: &[u8]) -> Option<Read> {
    let most = (4 << 20) + RATIO * body.len();
    twice_within(most, |lookup| decode(body, &Otlp::default(), &rules(), lookup)).ok()
}

/// A message with one gauge, without a resource or scope.
#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Gauge>,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Point>,
}

#[derive(Clone, PartialEq, Message)]
struct Point {
    #[prost(fixed64, tag = "3")]
    nanos: u64,
    #[prost(double, optional, tag = "4")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

fn message(metric: &Metric) -> Vec<u8> {
    let scope = Scope { metrics: vec![metric.clone()] };
    Request { resources: vec![Resource { scopes: vec![scope] }] }.encode_to_vec()
}

fn metric(name: &str, values: &[f64]) -> Metric {
    let nanos = NOW.cast_unsigned() * 1_000_000;
    let points = values.iter().map(|value| Point { nanos, value: Some(*value) }).collect();
    Metric { name: name.to_owned(), gauge: Some(Gauge { points }) }
}

fn gauge(rest: &[u8]) {
    let values: Vec<f64> = rest.as_chunks::<8>().0.iter().map(|bits| f64::from_le_bytes(*bits)).collect();
    let finite = values.iter().filter(|value| value.is_finite());
    let expected = Read {
        rows: finite.map(|value| row("level", &[], NOW, *value).expect("a valid name")).collect(),
        refused: 0,
        dropped: values.iter().filter(|value| !value.is_finite()).count() as u64,
    };
    assert_eq!(read(&message(&metric("level", &values))), Some(expected));
}

/// A message, JSON of each kind of point, and values.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let point =
        r#""timeUnixNano":"1767225600000000000","attributes":[{"key":"host","value":{"stringValue":"a"}}]"#;
    let data = [
        format!(r#""gauge":{{"dataPoints":[{{{point},"asDouble":1.5}},{{{point},"asInt":"7"}}]}}"#),
        format!(
            r#""sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{{{point},"asInt":"7"}}]}}"#
        ),
        format!(
            r#""histogram":{{"aggregationTemporality":2,"dataPoints":[{{{point},"count":"3","sum":4.5,"bucketCounts":["1","2","0"],"explicitBounds":[0.5,1]}}]}}"#
        ),
        format!(
            r#""exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{{{point},"count":"3","sum":4.5,"scale":3,"zeroCount":"1","positive":{{"offset":-2,"bucketCounts":["1","1"]}}}}]}}"#
        ),
        format!(
            r#""summary":{{"dataPoints":[{{{point},"count":"3","sum":4.5,"quantileValues":[{{"quantile":0.5,"value":1}}]}}]}}"#
        ),
    ];
    let mut seeds = vec![
        [vec![0], message(&metric("level", &[1.0, f64::NAN]))].concat(),
        [[2; 1].to_vec(), vec![1; 24]].concat(),
    ];
    for data in data {
        let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}"#;
        let metric = format!(r#"{{"name":"http.server.duration","unit":"ms",{data}}}"#);
        let text = format!(
            r#"{{"resourceMetrics":[{{{resource},"scopeMetrics":[{{"scope":{{"name":"lib"}},"metrics":[{metric}]}}]}}]}}"#
        );
        seeds.push([vec![1], text.clone().into_bytes()].concat());
        if let Ok(message) = json::to_protobuf(text.as_bytes()) {
            seeds.push([vec![0], message].concat());
        }
    }
    seeds
}
