//! Times of queries over HTTP: 4,000 series for a day at ten seconds, 34 M samples.

use std::time::Instant;

use fastrand::Rng;
use luminate_tests::bench::data::{Shape, Values, label_block, remote_write_body};
use luminate_tests::bench::fleet::STEP;
use luminate_tests::bench::report::{Better, Figure, Report};
use luminate_tests::bench::{load, median, p95};
use luminate_tests::client::now;
use luminate_tests::http::{Connection, request};
use luminate_tests::remote_write::{HEADERS, compressed};
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

const HOSTS: usize = 4_000;
const METRIC: &str = "cpu_usage_user";
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Samples of a series in one request.
const STEPS: i64 = 60;
const SERIES_OF_A_REQUEST: usize = 500;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Measures one worker with a day of samples.
pub fn measure(report: &mut Report) {
    println!("query: {HOSTS} series × 24 h at 10 s = {} samples", HOSTS as i64 * DAY / STEP);
    let worker = Setup::new()
        .with("ingest.max_batch", 100_000)
        .with("query_limits.max_result_points", 200_000)
        .with("storage.rocksdb.log_cap", "64 MiB")
        .start();
    // The day ends at the last full hour, so that questions meet whole buckets.
    let end = now() / HOUR * HOUR;
    fill(&worker, end - DAY);
    load::settle(&worker);
    ask(report, &worker, end);
}

fn fill(worker: &Worker, start: i64) {
    let mut rng = Rng::with_seed(7);
    let labels: Vec<Vec<u8>> = (0..HOSTS).map(|host| label_block(METRIC, host)).collect();
    let mut values: Vec<Values> = (0..HOSTS).map(|_| Values::new(Shape::Decimals, &mut rng)).collect();
    let rounds = DAY / STEP / STEPS;
    for round in 0..rounds {
        let mut bodies = Vec::new();
        for (labels, values) in labels.chunks(SERIES_OF_A_REQUEST).zip(values.chunks_mut(SERIES_OF_A_REQUEST))
        {
            let samples: Vec<Vec<(i64, f64)>> = values
                .iter_mut()
                .map(|values| {
                    let time = |step: i64| start + (round * STEPS + step) * STEP;
                    (0..STEPS).map(|step| (time(step), values.next(&mut rng))).collect()
                })
                .collect();
            let series =
                labels.iter().zip(&samples).map(|(labels, samples)| (labels.as_slice(), samples.as_slice()));
            bodies.push(compressed(&remote_write_body(series)));
        }
        let samples = SERIES_OF_A_REQUEST * STEPS as usize;
        load::send_all(worker, 2, "/api/v1/prom/write", &HEADERS, &bodies, samples);
        if (round + 1) % (rounds / 8) == 0 {
            println!("    {:.0} % written", (round + 1) as f64 / rounds as f64 * 100.0);
        }
    }
}

fn ask(report: &mut Report, worker: &Worker, end: i64) {
    let aggregate = |aggregation: &str, start: i64, end: i64, more: Value| {
        let mut query = json!({"queryType": "aggregate", "metricName": METRIC, "aggregation": aggregation,
                               "timeRange": {"start": start, "end": end}, "limit": 200_000, "timeout": "30s"});
        query.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        query
    };
    let mut connection = Connection::open(worker.address()).expect("the worker listens");
    let mut rng = Rng::with_seed(8);
    let mut timed = |count: usize, rows: usize, query: &mut dyn FnMut(&mut Rng) -> Value| {
        let mut times = Vec::new();
        for run in 0..count + 2 {
            let body = query(&mut rng).to_string();
            let bytes = request("POST", "/api/v1/query", &JSON, body.as_bytes());
            let started = Instant::now();
            let answer = connection.exchange(&bytes).expect("an answer");
            let taken = started.elapsed().as_secs_f64() * 1e3;
            if run < 2 {
                let found = answer.expect(200)["results"].as_array().map_or(0, Vec::len);
                assert_eq!(found, rows, "rows of {body}");
            } else {
                times.push(taken);
            }
        }
        times
    };
    let mut one_hour = |rng: &mut Rng| {
        let start = end - HOUR * rng.i64(1..=24);
        let host = format!("host_{}", rng.usize(0..HOSTS));
        aggregate("max", start, start + HOUR, json!({"filters": {"hostname": host}, "interval": "1m"}))
    };
    let times = timed(300, 60, &mut one_hour);
    add(report, "one series, one hour by minute", "the same: p95", &times, Some(0.5));
    let mut raw_hour = |rng: &mut Rng| {
        let start = end - HOUR * rng.i64(1..=24);
        let host = format!("host_{}", rng.usize(0..HOSTS));
        json!({"queryType": "range", "metricName": METRIC, "filters": {"hostname": host},
               "timeRange": {"start": start, "end": start + HOUR}})
    };
    let times = timed(300, 360, &mut raw_hour);
    add(report, "one series, one hour of raw samples", "the same, raw: p95", &times, None);
    let mut by_host =
        |_: &mut Rng| aggregate("avg", end - DAY, end, json!({"groupBy": ["hostname"], "interval": "1h"}));
    let times = timed(15, 96_000, &mut by_host);
    add(
        report,
        "4,000 series × 24 h, avg by host and hour (96,000 rows)",
        "the same, by host: p95",
        &times,
        None,
    );
    let mut by_region =
        |_: &mut Rng| aggregate("avg", end - DAY, end, json!({"groupBy": ["region"], "interval": "1h"}));
    let times = timed(30, 192, &mut by_region);
    add(
        report,
        "4,000 series × 24 h, avg by region and hour",
        "the same, by region: p95",
        &times,
        Some(10.0),
    );
    let mut p99 = |_: &mut Rng| aggregate("p99", end - 7 * HOUR, end, json!({}));
    let times = timed(15, 1, &mut p99);
    add(report, "exact p99 over 10 M samples", "the same, p99: p95", &times, Some(45.0));
    let mut rate = |_: &mut Rng| {
        json!({"queryType": "rate", "metricName": METRIC, "interval": "5m", "groupBy": ["region"], "timeout": "30s",
               "timeRange": {"start": end - HOUR, "end": end}})
    };
    let times = timed(30, 96, &mut rate);
    add(report, "rate of 4,000 series × 1 h by region and 5 min", "the same, rate: p95", &times, None);
}

/// Median and p95; every query's p95 stays below half a second.
fn add(report: &mut Report, name: &'static str, tail: &'static str, times: &[f64], aim: Option<f64>) {
    let figure = |name, value, now, aim| Figure {
        name,
        unit: "ms",
        runs: vec![value],
        better: Better::Less,
        now,
        aim,
    };
    report.add(figure(name, median(times), None, aim));
    report.add(figure(tail, p95(times), Some(500.0), None));
}
