//! A million series in one metric: what they weigh, how they are listed and grouped, and that there are no more.

use std::time::Instant;

use fastrand::Rng;
use luminate_tests::bench::data::JsonBody;
use luminate_tests::bench::report::{Better, Figure, Report};
use luminate_tests::bench::{load, median, p95};
use luminate_tests::client::{Client, now, sample};
use luminate_tests::http::{Connection, request};
use luminate_tests::process;
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

const SERIES: usize = 1_000_000;
const SAMPLES_OF_A_SERIES: i64 = 10;
const METRIC: &str = "requests";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Measures one worker with a million series.
pub fn measure(report: &mut Report) {
    println!("series: {SERIES} in one metric × ten dimensions × {SAMPLES_OF_A_SERIES} samples");
    let worker = Setup::new().start();
    worker.client().store(&[sample("warm", now(), 1.0, &[])]);
    load::settle(&worker);
    let empty = worker.rss();
    fill(&worker);
    load::settle(&worker);
    let per_series = worker.rss().saturating_sub(empty) as f64 / SERIES as f64;
    report.add(Figure {
        name: "memory of an active series",
        unit: "B",
        runs: vec![per_series],
        better: Better::Less,
        now: Some(400.0),
        aim: Some(250.0),
    });
    report.note(
        "memory at most while they were written",
        "MB",
        vec![megabytes(process::peak_rss(worker.pid()))],
    );
    listings(report, &worker);
    groups(report, &worker);
    limit(&worker.client());
    restart(report, worker);
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn fill(worker: &Worker) {
    let from = now() - 10_000 * SAMPLES_OF_A_SERIES;
    let mut rng = Rng::with_seed(5);
    for chunk in 0..SERIES / 10_000 {
        let mut body = JsonBody::new((0..10_000).map(|n| (METRIC, chunk * 10_000 + n)));
        let bodies = (0..SAMPLES_OF_A_SERIES).map(|step| {
            body.renew(from + 10_000 * step, &mut rng);
            body.bytes.clone()
        });
        load::send_all(worker, 1, "/api/v1/write", &JSON, &bodies.collect::<Vec<_>>(), 10_000);
        if chunk % 10 == 9 {
            println!("    {} of 100 %", chunk + 1);
        }
    }
}

fn listings(report: &mut Report, worker: &Worker) {
    let path = format!("/api/v1/metrics/{METRIC}/dimensions/hostname/values?limit=1000");
    let total = worker.client().get(&path).expect(200)["total"].clone();
    assert_eq!(total, SERIES, "values listed");
    let mut connection = Connection::open(worker.address()).expect("the worker listens");
    let mut timed = |path: &str| {
        let bytes = request("GET", path, &[], &[]);
        times(50, || assert_eq!(connection.exchange(&bytes).expect("an answer").status, 200))
    };
    let first = timed(&path);
    let middle = timed(&format!("{path}&prefix=host_5"));
    let cardinality = timed(&format!("/api/v1/cardinality?metric={METRIC}"));
    report.add(Figure {
        name: "values of a dimension with 1 M values, first 1,000",
        unit: "ms",
        runs: vec![median(&first)],
        better: Better::Less,
        now: None,
        aim: Some(5.0),
    });
    report.note("the same: p95", "ms", vec![p95(&first)]);
    report.note("values of it that begin with host_5", "ms", vec![median(&middle)]);
    report.note("cardinality of the metric", "ms", vec![median(&cardinality)]);
}

fn groups(report: &mut Report, worker: &Worker) {
    let client = worker.client();
    let question = |key: &str, aggregation: &str, limit: usize| {
        json!({"queryType": "aggregate", "metricName": METRIC, "aggregation": aggregation, "groupBy": [key],
               "timeRange": {"relative": "1h"}, "limit": limit, "timeout": "30s"})
    };
    let before = worker.rss();
    process::reset_peak(worker.pid());
    let mut taken = Vec::new();
    for aggregation in ["sum", "max", "p99"] {
        let started = Instant::now();
        let answer = client.query(&question("hostname", aggregation, 10_000)).expect(200);
        taken.push(started.elapsed().as_secs_f64() * 1e3);
        let rows = answer["results"].as_array().map_or(0, Vec::len);
        assert_eq!((rows, &answer["truncated"]), (10_000, &Value::Bool(true)), "a bounded answer");
    }
    report.note("grouped by a key with 1 M values, 10,000 groups answered", "ms", taken);
    let grown = process::peak_rss(worker.pid()).saturating_sub(before);
    report.note("memory that took, at most", "MB", vec![megabytes(grown)]);
    let few = times(10, || {
        let answer = client.query(&question("region", "avg", 1_000)).expect(200);
        assert_eq!(answer["results"].as_array().map_or(0, Vec::len), 8);
    });
    report.note("10 M samples of 1 M series by region", "ms", vec![median(&few)]);
}

fn limit(client: &Client) {
    let known = JsonBody::new((0..3).map(|host| (METRIC, host)));
    let one_more = JsonBody::new([(METRIC, 0), (METRIC, SERIES), (METRIC, 1)].into_iter());
    let write = |mut body: JsonBody| {
        body.renew(now(), &mut Rng::with_seed(6));
        client.send("POST", "/api/v1/write", &JSON, &body.bytes)
    };
    assert_eq!(write(known.clone()).expect(200)["accepted"], 3);
    let answer = write(one_more).expect(207);
    assert_eq!((&answer["accepted"], &answer["errors"][0]["index"]), (&json!(2), &json!(1)));
    assert_eq!(answer["errors"][0]["code"], "CARDINALITY_LIMIT");
    assert_eq!(write(known).expect(200)["accepted"], 3);
    println!("    series 1,000,001 was refused, known ones go on: {}", answer["errors"][0]["error"]);
}

fn restart(report: &mut Report, mut worker: Worker) {
    let started = Instant::now();
    worker.kill();
    worker.start_again();
    report.note(
        "start after a kill, 1 M series and 10 M samples",
        "s",
        vec![started.elapsed().as_secs_f64()],
    );
    let values = format!("/api/v1/metrics/{METRIC}/dimensions/hostname/values?limit=1");
    assert_eq!(worker.client().get(&values).expect(200)["total"], SERIES, "after the restart");
}

/// Milliseconds of each of `count` calls.
fn times(count: usize, mut call: impl FnMut()) -> Vec<f64> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        call();
        taken.push(started.elapsed().as_secs_f64() * 1e3);
    }
    taken
}
