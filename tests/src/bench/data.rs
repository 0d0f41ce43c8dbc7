//! Made-up fleets and what their machines say: series with ten dimensions, and values of five kinds.

use std::fmt::Write;

use crate::remote_write::Label;
use fastrand::Rng;
use prost::Message;

/// The metrics of a machine.
pub const METRICS: [&str; 10] = [
    "cpu_usage_user",
    "cpu_usage_system",
    "cpu_usage_idle",
    "cpu_usage_nice",
    "cpu_usage_iowait",
    "cpu_usage_irq",
    "cpu_usage_softirq",
    "cpu_usage_steal",
    "cpu_usage_guest",
    "cpu_usage_guest_nice",
];
const REGIONS: [&str; 8] = [
    "us-east-1",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "ap-southeast-1",
    "ap-northeast-1",
    "sa-east-1",
];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "test"];

/// The ten dimensions of machine number `host`.
pub fn dimensions(host: usize) -> Vec<(&'static str, String)> {
    let region = REGIONS[host % REGIONS.len()];
    vec![
        ("arch", ["x64", "arm64"][host % 2].to_owned()),
        ("datacenter", format!("{region}{}", ["a", "b", "c"][host / 8 % 3])),
        ("hostname", format!("host_{host}")),
        ("os", ["Debian12", "Ubuntu24.04", "Alpine3.20"][host / 2 % 3].to_owned()),
        ("rack", (host / 3 % 100).to_string()),
        ("region", region.to_owned()),
        ("service", (host / 5 % 20).to_string()),
        ("service_environment", ENVIRONMENTS[host / 7 % 3].to_owned()),
        ("service_version", (host / 11 % 2).to_string()),
        ("team", ["SF", "NYC", "LON", "CHI"][host / 13 % 4].to_owned()),
    ]
}

/// Places in a JSON body that change from request to request: a time of 13 digits, a value of 6.
#[derive(Debug, Clone)]
pub struct JsonBody {
    /// The body.
    pub bytes: Vec<u8>,
    times: Vec<usize>,
    values: Vec<usize>,
}

impl JsonBody {
    /// A body with one sample of each `(metric, host)`.
    pub fn new(series: impl Iterator<Item = (&'static str, usize)>) -> Self {
        let mut text = String::from("{\"metrics\":[");
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for (metric, host) in series {
            if !times.is_empty() {
                text.push(',');
            }
            let _ = write!(text, "{{\"name\":\"{metric}\",\"timestamp\":");
            times.push(text.len());
            text.push_str("0000000000000,\"value\":");
            values.push(text.len());
            text.push_str("000.00,\"dimensions\":{");
            let pairs = dimensions(host).into_iter().map(|(key, value)| format!("\"{key}\":\"{value}\""));
            text.push_str(&pairs.collect::<Vec<_>>().join(","));
            text.push_str("}}");
        }
        text.push_str("]}");
        Self { bytes: text.into_bytes(), times, values }
    }

    /// How many samples it has.
    pub fn samples(&self) -> usize {
        self.times.len()
    }

    /// Gives all samples another time and new values of two decimals.
    pub fn renew(&mut self, time: i64, rng: &mut Rng) {
        let time = time.to_string();
        for (time_at, value_at) in self.times.iter().zip(&self.values) {
            self.bytes[*time_at..time_at + 13].copy_from_slice(time.as_bytes());
            let mut hundredths = rng.u32(10_000..100_000);
            for digit in [5, 4, 2, 1, 0] {
                self.bytes[value_at + digit] = b'0' + (hundredths % 10) as u8;
                hundredths /= 10;
            }
        }
    }
}

/// A series' labels as they stand in a remote write request.
pub fn label_block(metric: &str, host: usize) -> Vec<u8> {
    let pairs = std::iter::once(("__name__", metric.to_owned())).chain(dimensions(host));
    pairs.flat_map(|(name, value)| label(name, &value)).collect()
}

/// A label as it stands in a series of a remote write request.
pub fn label(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x0a];
    let label = Label { name: name.to_owned(), value: value.to_owned() };
    label.encode_length_delimited(&mut field).expect("a vector grows");
    field
}

/// A remote write request, before compression, of label blocks and their samples.
pub fn remote_write_body<'a>(series: impl Iterator<Item = (&'a [u8], &'a [(i64, f64)])>) -> Vec<u8> {
    let (mut body, mut message) = (Vec::new(), Vec::new());
    for (labels, samples) in series {
        message.clear();
        message.extend_from_slice(labels);
        samples.iter().for_each(|(time, value)| timestamp_and_value(*time, *value, &mut message));
        remote_write_series(&message, &mut body);
    }
    body
}

/// A series, labels and samples, as it stands in a remote write request.
pub fn remote_write_series(series: &[u8], body: &mut Vec<u8>) {
    body.push(0x0a);
    varint(series.len() as u64, body);
    body.extend_from_slice(series);
}

/// A sample as it stands in a series of a remote write request.
pub fn timestamp_and_value(time: i64, value: f64, series: &mut Vec<u8>) {
    let mut sample = vec![0x09];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(0x10);
    varint(time.unsigned_abs(), &mut sample);
    series.push(0x12);
    varint(sample.len() as u64, series);
    series.extend_from_slice(&sample);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How a series' values go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A whole percentage that wanders, as TSBS makes them.
    Percent,
    /// A wandering number of two decimals.
    Decimals,
    /// A counter of events.
    Counter,
    /// Independent times of three decimals, log-normal.
    Latency,
    /// Independent shares of one, every bit of whose fractions is random.
    Entropy,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Percent, Self::Decimals, Self::Counter, Self::Latency, Self::Entropy];

    /// What the tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Percent => "whole percentages, as TSBS makes them",
            Self::Decimals => "walks of two decimals",
            Self::Counter => "counters",
            Self::Latency => "random latencies of three decimals",
            Self::Entropy => "full entropy",
        }
    }
}

/// One series' values.
#[derive(Debug, Clone)]
pub struct Values {
    shape: Shape,
    last: f64,
}

impl Values {
    /// A series of that shape, beginning anywhere.
    pub fn new(shape: Shape, rng: &mut Rng) -> Self {
        let last = match shape {
            Shape::Percent => rng.f64() * 100.0,
            Shape::Decimals => 1_000.0 * rng.f64(),
            Shape::Counter => (rng.f64() * 1e9).floor(),
            Shape::Latency | Shape::Entropy => 0.0,
        };
        Self { shape, last }
    }

    /// The next value.
    pub fn next(&mut self, rng: &mut Rng) -> f64 {
        match self.shape {
            Shape::Percent => {
                self.last = (self.last + normal(rng)).clamp(0.0, 100.0);
                self.last.floor()
            }
            Shape::Decimals => {
                self.last += normal(rng);
                (self.last * 100.0).round() / 100.0
            }
            Shape::Counter => {
                self.last += f64::from(rng.u32(0..500));
                self.last
            }
            Shape::Latency => ((3.0 + 0.8 * normal(rng)).exp() * 1_000.0).round() / 1_000.0,
            Shape::Entropy => rng.f64(),
        }
    }
}

/// A number of the standard normal distribution (Box and Muller).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}
