//! Bytes per sample on disk for each shape of values, index included, after all has settled; processor time of a sample
//! with everything that happens in the background; and whether samples come back bit by bit.

use std::time::{Duration, Instant};

use luminate_tests::bench::compare::{Comparison, Row};
use luminate_tests::bench::data::{METRICS, Shape, dimensions};
use luminate_tests::bench::encode::{Body, Encoder, Protocol};
use luminate_tests::bench::engine::{Engine, Kind};
use luminate_tests::bench::fleet::{Fleet, Round, STEP};
use luminate_tests::bench::load::{self, Server};
use luminate_tests::bench::report::Better;
use luminate_tests::client::now;
use luminate_tests::http::{Response, percent};
use luminate_tests::process;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::Plan;

const SERIES: usize = 500;
const DAY: i64 = 86_400_000;
/// Rounds of a request: ten minutes, as an agent sends that was cut off.
const ROUNDS: usize = 60;
const SAMPLES_OF_A_REQUEST: usize = 10_000;
const CONNECTIONS: usize = 2;

/// Measures every shape on every engine.
pub fn measure(comparison: &mut Comparison, plan: &Plan) {
    // A whole UTC day that is over.
    let start = now() / DAY * DAY - DAY;
    let rounds = plan.size.of((DAY / STEP) as usize);
    println!("disk: {SERIES} series × {rounds} samples at 10 s, ten dimensions, by remote write");
    for shape in Shape::ALL {
        let rounds = Fleet::new(SERIES, shape, start, 4).rounds(rounds);
        let mut encoder = Encoder::with_batch(Protocol::RemoteWrite, SAMPLES_OF_A_REQUEST);
        let bodies: Vec<Vec<Body>> = rounds.chunks(ROUNDS).map(|rounds| encoder.encode(rounds)).collect();
        let mut rows = Rows::new(shape);
        for run in 1..=plan.runs {
            for kind in &plan.engines {
                rows.run(*kind, &rounds, &bodies, run);
            }
        }
        rows.bytes.remark = match rows.inexact.is_empty() {
            true => "all bit-exact".to_owned(),
            false => rows.inexact.join(", "),
        };
        comparison.add(rows.bytes);
        comparison.add(rows.cost);
    }
}

struct Rows {
    bytes: Row,
    cost: Row,
    /// Whose samples come back otherwise.
    inexact: Vec<String>,
}

impl Rows {
    fn new(shape: Shape) -> Self {
        let name = shape.name();
        Self {
            bytes: Row::new("disk", format!("on disk: {name}"), "B/sample", Better::Less),
            cost: Row::new(
                "a whole day",
                format!("a day's samples, settled: {name}"),
                "/cpu-s",
                Better::More,
            ),
            inexact: Vec::new(),
        }
    }

    fn run(&mut self, kind: Kind, rounds: &[Round], bodies: &[Vec<Body>], run: usize) {
        let started = Instant::now();
        let mut engine = Engine::start(kind);
        let endpoint = kind.endpoint(Protocol::RemoteWrite).expect("all take it");
        let before = process::cpu(engine.pid());
        let sent = load::send_rounds(&engine, CONNECTIONS, endpoint, bodies, Duration::MAX).samples;
        engine.rest();
        let cpu = process::cpu(engine.pid()) - before;
        let settled = engine.settle_on_disk();
        let bytes_per_sample = settled.bytes as f64 / sent as f64;
        self.bytes.push(kind, bytes_per_sample);
        self.cost.push(kind, sent as f64 / (cpu + settled.cpu).as_secs_f64());
        if run == 1 {
            let wrong = wrong(&engine, rounds);
            if wrong > 0.0 {
                self.inexact
                    .push(format!("{}: {wrong:.1} % of the samples come back otherwise", kind.name()));
            }
        }
        println!(
            "    run {run}, {}: {bytes_per_sample:.3} B/sample, {:.0} s",
            kind.name(),
            started.elapsed().as_secs_f64()
        );
    }
}

/// The share of samples, in percent, that don't come back as they were sent: of one metric of each machine.
fn wrong(engine: &Engine, rounds: &[Round]) -> f64 {
    let (mut asked, mut wrong) = (0, 0);
    for place in 0..SERIES / METRICS.len() {
        let metric = place % METRICS.len();
        let value = |round: &Round| round.values[place * METRICS.len() + metric].to_bits();
        let expected: Vec<(i64, u64)> = rounds.iter().map(|round| (round.time, value(round))).collect();
        let read = read_back(engine, METRICS[metric], place, rounds);
        asked += expected.len();
        // Both ascend by time, so what is left out shows as a difference, too.
        wrong += match read.len() == expected.len() {
            true => read.iter().zip(&expected).filter(|(read, expected)| read != expected).count(),
            false => expected.len(),
        };
    }
    100.0 * wrong as f64 / asked as f64
}

/// Times and bits of one series' samples.
fn read_back(engine: &Engine, metric: &str, host: usize, rounds: &[Round]) -> Vec<(i64, u64)> {
    let host =
        dimensions(host).into_iter().find(|(key, _)| *key == "hostname").expect("every machine has a name").1;
    let (first, last) = (rounds[0].time, rounds[rounds.len() - 1].time);
    let selector = format!("{metric}{{hostname=\"{host}\"}}");
    match engine.kind() {
        Kind::Luminate => luminate_rows(&engine.client().query(&json!({
            "queryType": "range", "metricName": metric, "filters": {"hostname": host}, "limit": 100_000,
            "timeRange": {"start": first, "end": last + 1}}))),
        Kind::VictoriaMetrics => {
            exported(&engine.get(&format!("/api/v1/export?match[]={}", percent(&selector))))
        }
        Kind::Prometheus => {
            let seconds = (last - first) / 1_000 + 10;
            let time = last as f64 / 1_000.0;
            let query = percent(&format!("{selector}[{seconds}s]"));
            prometheus_values(&engine.get(&format!("/api/v1/query?query={query}&time={time}")))
        }
    }
}

/// The number as it stands in the answer, so that no reader's rounding is charged to the engine.
fn bits(raw: &str) -> u64 {
    raw.trim_matches('"').parse::<f64>().unwrap_or(f64::NAN).to_bits()
}

fn luminate_rows(answer: &Response) -> Vec<(i64, u64)> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        results: Vec<Sample<'a>>,
    }
    #[derive(Deserialize)]
    struct Sample<'a> {
        timestamp: i64,
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let text = answer.text();
    let answer: Answer<'_> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:.300}"));
    answer.results.iter().map(|sample| (sample.timestamp, bits(sample.value.get()))).collect()
}

fn exported(answer: &Response) -> Vec<(i64, u64)> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        values: Vec<&'a RawValue>,
        timestamps: Vec<i64>,
    }
    let text = answer.text();
    let mut samples = Vec::new();
    for line in text.lines() {
        let line: Line<'_> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:.300}"));
        samples.extend(line.timestamps.into_iter().zip(line.values.iter().map(|value| bits(value.get()))));
    }
    samples.sort_unstable();
    samples
}

fn prometheus_values(answer: &Response) -> Vec<(i64, u64)> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        result: Vec<Series<'a>>,
    }
    #[derive(Deserialize)]
    struct Series<'a> {
        #[serde(borrow)]
        values: Vec<(f64, &'a RawValue)>,
    }
    let text = answer.text();
    let answer: Answer<'_> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:.300}"));
    let values = answer.data.result.iter().flat_map(|series| &series.values);
    values.map(|(seconds, value)| ((seconds * 1e3).round() as i64, bits(value.get()))).collect()
}
