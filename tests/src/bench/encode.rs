//! A fleet's rounds as the bodies of requests, in every protocol that the engines have; made before anything is
//! measured, and the same for each engine.

use std::io::Write;

use clap::ValueEnum;
use prost::Message;

use super::data::{METRICS, dimensions, label, remote_write_series, timestamp_and_value};
use super::fleet::{Fleet, Round};
use crate::otlp;
use crate::remote_write::{TimeSeries, WriteRequest, compressed, v2};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// InfluxDB's line protocol, ten fields a line.
    LineWide,
    /// InfluxDB's line protocol, one field a line.
    LineNarrow,
    /// Prometheus remote write 1.0.
    RemoteWrite,
    /// Prometheus remote write 2.0.
    RemoteWrite2,
    /// OpenTelemetry's protobuf over HTTP, attributes on each point.
    Otlp,
    /// Prometheus' text format.
    Text,
    /// Luminate's JSON.
    Json,
    /// VictoriaMetrics' JSON lines.
    JsonLines,
    /// OpenTSDB's JSON, which is VictoriaMetrics' nearest to Luminate's.
    #[value(name = "opentsdb")]
    OpenTsdb,
}

impl Protocol {
    /// What the tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LineWide => "line protocol, ten fields",
            Self::LineNarrow => "line protocol, one field",
            Self::RemoteWrite => "remote write",
            Self::RemoteWrite2 => "remote write 2.0",
            Self::Otlp => "OTLP",
            Self::Text => "Prometheus' text",
            Self::Json => "JSON",
            Self::JsonLines => "JSON lines",
            Self::OpenTsdb => "OpenTSDB's JSON",
        }
    }

    /// Samples of a request, as agents send them.
    #[must_use]
    pub fn batch(self) -> usize {
        if matches!(self, Self::RemoteWrite | Self::RemoteWrite2) { 2_000 } else { 10_000 }
    }

    /// Whether a body is made of remote write's series, whatever becomes of them at last.
    fn is_made_of_series(self) -> bool {
        matches!(self, Self::RemoteWrite | Self::RemoteWrite2 | Self::Otlp)
    }

    fn begin(self) -> &'static [u8] {
        match self {
            Self::Json => b"{\"metrics\":[",
            Self::OpenTsdb => b"[",
            _ => b"",
        }
    }

    /// Closes a body; where samples are separated by commas the last one goes.
    fn finish(self, mut body: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Json | Self::OpenTsdb => {
                body.pop();
                body.extend_from_slice(if self == Self::Json { b"]}" } else { b"]" });
                body
            }
            Self::RemoteWrite => compressed(&body),
            Self::RemoteWrite2 => v2::body(&v2::request(&series_of(&body))),
            Self::Otlp => otlp::request(&series_of(&body)).encode_to_vec(),
            _ => body,
        }
    }

    /// What never changes of a machine, as it stands in each of its samples.
    fn spell(self, host: usize) -> Vec<u8> {
        let join = |begin: &str, between: &str, end: &str, pair: fn(&str, &str) -> String| {
            let pairs: Vec<String> = dimensions(host).iter().map(|(key, value)| pair(key, value)).collect();
            format!("{begin}{}{end}", pairs.join(between)).into_bytes()
        };
        let json = |key: &str, value: &str| format!("\"{key}\":\"{value}\"");
        match self {
            Self::LineWide | Self::LineNarrow => {
                join("cpu,", ",", " ", |key, value| format!("{key}={value}"))
            }
            Self::Text => join("{", ",", "} ", |key, value| format!("{key}=\"{value}\"")),
            Self::Json => join(",\"dimensions\":{", ",", "}},", json),
            Self::JsonLines => join(",", ",", "},\"values\":[", json),
            Self::OpenTsdb => join(",\"tags\":{", ",", "}},", json),
            Self::RemoteWrite | Self::RemoteWrite2 | Self::Otlp => {
                dimensions(host).iter().flat_map(|(key, value)| label(key, value)).collect()
            }
        }
    }
}

/// The series of a request of remote write before it is compressed.
fn series_of(body: &[u8]) -> Vec<TimeSeries> {
    WriteRequest::decode(body).expect("a request").timeseries
}

/// A request's body.
#[derive(Debug, Clone)]
pub struct Body {
    /// As it goes over the wire.
    pub bytes: Vec<u8>,
    /// How many samples it has.
    pub samples: usize,
}

/// Encodes rounds of one fleet.
#[derive(Debug)]
pub struct Encoder {
    protocol: Protocol,
    batch: usize,
    names: Vec<Vec<u8>>,
    /// The machine in each place, and how it is spelled.
    spelled: Vec<(usize, Vec<u8>)>,
}

impl Encoder {
    /// With requests of the protocol's usual size.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self::with_batch(protocol, protocol.batch())
    }

    /// With so many samples a request, or a few less.
    #[must_use]
    pub fn with_batch(protocol: Protocol, batch: usize) -> Self {
        let names = METRICS.iter().map(|metric| match protocol {
            protocol if protocol.is_made_of_series() => label("__name__", metric),
            Protocol::LineWide | Protocol::LineNarrow => metric.trim_start_matches("cpu_").into(),
            _ => (*metric).into(),
        });
        Self { protocol, batch, names: names.collect(), spelled: Vec::new() }
    }

    /// The bodies of the fleet's next rounds, `together` of them at a time, so many times.
    pub fn next(&mut self, fleet: &mut Fleet, together: usize, times: usize) -> Vec<Vec<Body>> {
        (0..times).map(|_| self.encode(&fleet.rounds(together))).collect()
    }

    /// The rounds' bodies; each has some machines' samples of all the rounds, series by series.
    pub fn encode(&mut self, rounds: &[Round]) -> Vec<Body> {
        self.spelled.resize_with(rounds[0].machines.len(), || (usize::MAX, Vec::new()));
        let places: Vec<usize> = (0..rounds[0].machines.len()).collect();
        let places_of_a_body = (self.batch / METRICS.len() / rounds.len()).max(1);
        places.chunks(places_of_a_body).map(|places| self.body(rounds, places)).collect()
    }

    fn body(&mut self, rounds: &[Round], places: &[usize]) -> Body {
        let mut bytes = self.protocol.begin().to_vec();
        for place in places {
            let same_machine = |a: &Round, b: &Round| a.machines[*place] == b.machines[*place];
            for rounds in rounds.chunk_by(same_machine) {
                self.machine(rounds, *place, &mut bytes);
            }
        }
        let samples = places.len() * METRICS.len() * rounds.len();
        Body { bytes: self.protocol.finish(bytes), samples }
    }

    /// All samples of a machine.
    fn machine(&mut self, rounds: &[Round], place: usize, out: &mut Vec<u8>) {
        let host = rounds[0].machines[place];
        if self.spelled[place].0 != host {
            self.spelled[place] = (host, self.protocol.spell(host));
        }
        let spelled = &self.spelled[place].1;
        let first = place * METRICS.len();
        if self.protocol == Protocol::LineWide {
            for round in rounds {
                self.line(spelled, round.time, &round.values[first..first + METRICS.len()], out);
            }
            return;
        }
        for (metric, name) in self.names.iter().enumerate() {
            let samples = rounds.iter().map(|round| (round.time, round.values[first + metric]));
            if self.protocol.is_made_of_series() {
                let mut series = [name.as_slice(), spelled].concat();
                samples.for_each(|(time, value)| timestamp_and_value(time, value, &mut series));
                remote_write_series(&series, out);
            } else {
                samples.for_each(|(time, value)| self.sample(name, spelled, time, value, out));
            }
        }
    }

    fn line(&self, spelled: &[u8], time: i64, values: &[f64], out: &mut Vec<u8>) {
        out.extend_from_slice(spelled);
        for (name, value) in self.names.iter().zip(values) {
            out.extend_from_slice(name);
            write(out, format_args!("={value},"));
        }
        out.pop();
        write(out, format_args!(" {time}000000\n"));
    }

    fn sample(&self, name: &[u8], spelled: &[u8], time: i64, value: f64, out: &mut Vec<u8>) {
        let name = std::str::from_utf8(name).expect("names are ASCII");
        match self.protocol {
            Protocol::LineNarrow => {
                out.extend_from_slice(spelled);
                write(out, format_args!("{name}={value} {time}000000\n"));
            }
            Protocol::Text => {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(spelled);
                write(out, format_args!("{value} {time}\n"));
            }
            Protocol::Json => {
                write(out, format_args!("{{\"name\":\"{name}\",\"timestamp\":{time},\"value\":{value}"));
                out.extend_from_slice(spelled);
            }
            Protocol::OpenTsdb => {
                write(out, format_args!("{{\"metric\":\"{name}\",\"timestamp\":{time},\"value\":{value}"));
                out.extend_from_slice(spelled);
            }
            Protocol::JsonLines => {
                write(out, format_args!("{{\"metric\":{{\"__name__\":\"{name}\""));
                out.extend_from_slice(spelled);
                write(out, format_args!("{value}],\"timestamps\":[{time}]}}\n"));
            }
            Protocol::LineWide | Protocol::RemoteWrite | Protocol::RemoteWrite2 | Protocol::Otlp => {
                unreachable!("these write a machine or a series at once")
            }
        }
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector grows");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::super::data::Shape;
    use super::super::fleet::Fleet;
    use super::*;
    use crate::remote_write::Label;

    /// (metric, dimensions, time) → value.
    type Samples = BTreeMap<(String, BTreeMap<String, String>, i64), f64>;

    fn rounds() -> Vec<Round> {
        // Enough machines and time that some are replaced.
        Fleet::new(300, Shape::Entropy, 1_700_000_000_000, 5).churning(0.5).rounds(12)
    }

    fn expected() -> Samples {
        let mut samples = Samples::new();
        for round in rounds() {
            for (place, host) in round.machines.iter().enumerate() {
                let pairs: BTreeMap<_, _> =
                    dimensions(*host).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                for (metric, name) in METRICS.iter().enumerate() {
                    let value = round.values[place * METRICS.len() + metric];
                    samples.insert(((*name).to_owned(), pairs.clone(), round.time), value);
                }
            }
        }
        samples
    }

    fn pairs(text: &str, separator: char) -> BTreeMap<String, String> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').expect("key=value");
            (key.to_owned(), value.trim_matches('"').to_owned())
        };
        text.split(separator).map(pair).collect()
    }

    fn object(value: &Value) -> BTreeMap<String, String> {
        serde_json::from_value(value.clone()).expect("an object of strings")
    }

    fn read_series(protocol: Protocol, body: &[u8]) -> Samples {
        let plain = || snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
        let one = |mut labels: BTreeMap<String, String>, time: i64, value: f64| {
            let name = labels.remove("__name__").expect("a name");
            ((name, labels, time), value)
        };
        match protocol {
            Protocol::RemoteWrite => series_of(&plain())
                .into_iter()
                .flat_map(|TimeSeries { labels, samples }| {
                    assert!(labels.is_sorted_by(|a, b| a.name < b.name), "labels come sorted");
                    let pair = |Label { name, value }| (name, value);
                    let labels: BTreeMap<_, _> = labels.into_iter().map(pair).collect();
                    samples.into_iter().map(move |sample| one(labels.clone(), sample.timestamp, sample.value))
                })
                .collect(),
            Protocol::RemoteWrite2 => {
                let v2::Request { symbols, timeseries } =
                    v2::Request::decode(plain().as_slice()).expect("a request");
                let symbol = |place: u32| symbols[place as usize].clone();
                let series = timeseries.into_iter().flat_map(|series| {
                    let pairs = series.labels_refs.chunks(2).map(|pair| (symbol(pair[0]), symbol(pair[1])));
                    let labels: BTreeMap<_, _> = pairs.collect();
                    let samples = series.samples.into_iter();
                    samples.map(move |sample| one(labels.clone(), sample.timestamp, sample.value))
                });
                series.collect()
            }
            _ => {
                let request = otlp::Request::decode(body).expect("a request");
                let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
                let metrics = scopes.flat_map(|scope| scope.metrics);
                let points = metrics.flat_map(|metric| {
                    let points = metric.gauge.expect("a gauge").data_points.into_iter();
                    points.map(move |point| {
                        let text = |pair: otlp::KeyValue| {
                            (pair.key, pair.value.and_then(|value| value.string_value).expect("a text"))
                        };
                        let mut labels: BTreeMap<_, _> = point.attributes.into_iter().map(text).collect();
                        labels.insert("__name__".to_owned(), metric.name.clone());
                        let time = i64::try_from(point.time_unix_nano / 1_000_000).expect("a time");
                        one(labels, time, point.as_double.expect("a number"))
                    })
                });
                points.collect()
            }
        }
    }

    /// What a body of that protocol means, read by the plainest means.
    fn decode(protocol: Protocol, body: &[u8]) -> Samples {
        let number = |text: &str| text.parse::<f64>().expect("a number");
        let time = |text: &str| text.parse::<i64>().expect("a time");
        // Not by `Value`, whose numbers may be a bit off.
        let json_value = |text: &str, key: &str| {
            let rest = &text[text.find(key).expect("the key") + key.len()..];
            number(&rest[..rest.find([',', ']', '}']).expect("an end")])
        };
        if protocol.is_made_of_series() {
            return read_series(protocol, body);
        }
        let text = std::str::from_utf8(body).expect("text");
        match protocol {
            Protocol::LineWide | Protocol::LineNarrow => text
                .lines()
                .flat_map(|line| {
                    let [series, fields, at] = line.split(' ').collect::<Vec<_>>().try_into().expect("three");
                    let tags = pairs(series.strip_prefix("cpu,").expect("the measurement"), ',');
                    let at = time(at) / 1_000_000;
                    pairs(fields, ',')
                        .into_iter()
                        .map(move |(name, value)| ((format!("cpu_{name}"), tags.clone(), at), number(&value)))
                        .collect::<Vec<_>>()
                })
                .collect(),
            Protocol::Text => text
                .lines()
                .map(|line| {
                    let (name, rest) = line.split_once('{').expect("labels");
                    let (labels, rest) = rest.split_once("} ").expect("a value");
                    let (value, at) = rest.split_once(' ').expect("a time");
                    ((name.to_owned(), pairs(labels, ','), time(at)), number(value))
                })
                .collect(),
            Protocol::JsonLines => text
                .lines()
                .map(|line| {
                    let read: Value = serde_json::from_str(line).expect("JSON");
                    let mut labels = object(&read["metric"]);
                    let name = labels.remove("__name__").expect("a name");
                    let at = read["timestamps"][0].as_i64().expect("a time");
                    ((name, labels, at), json_value(line, "\"values\":["))
                })
                .collect(),
            Protocol::Json | Protocol::OpenTsdb => {
                let (list, name, labels) = match protocol {
                    Protocol::Json => ("metrics", "name", "dimensions"),
                    _ => ("", "metric", "tags"),
                };
                let whole: Value = serde_json::from_str(text).expect("JSON");
                let list = if list.is_empty() { &whole } else { &whole[list] };
                let values = text
                    .split("\"value\":")
                    .skip(1)
                    .map(|rest| number(&rest[..rest.find(',').expect("an end")]));
                list.as_array()
                    .expect("a list")
                    .iter()
                    .zip(values)
                    .map(|(read, value)| {
                        let name = read[name].as_str().expect("a name").to_owned();
                        ((name, object(&read[labels]), read["timestamp"].as_i64().expect("a time")), value)
                    })
                    .collect()
            }
            Protocol::RemoteWrite | Protocol::RemoteWrite2 | Protocol::Otlp => unreachable!("read above"),
        }
    }

    #[test]
    fn every_protocol_says_the_same_samples() {
        let expected = expected();
        for &protocol in Protocol::value_variants() {
            for rounds_of_a_body in [1, 5, 12] {
                let mut encoder = Encoder::with_batch(protocol, 400);
                let bodies: Vec<Body> =
                    rounds().chunks(rounds_of_a_body).flat_map(|rounds| encoder.encode(rounds)).collect();
                assert!(bodies.len() > 2 && bodies.iter().all(|body| body.samples <= 400), "{protocol:?}");
                assert_eq!(bodies.iter().map(|body| body.samples).sum::<usize>(), expected.len());
                let read: Samples = bodies.iter().flat_map(|body| decode(protocol, &body.bytes)).collect();
                assert!(read == expected, "{protocol:?}, {rounds_of_a_body} rounds a body");
            }
        }
    }
}
