//! Samples and new series per second of the worker's processor time, from the wire to a durable ack.

use fastrand::Rng;
use luminate_tests::bench::data::{JsonBody, METRICS, label_block, remote_write_body};
use luminate_tests::bench::load::{self, Cost};
use luminate_tests::bench::report::{Better, Figure, Report};
use luminate_tests::client::now;
use luminate_tests::http::request;
use luminate_tests::remote_write::{HEADERS, compressed};
use luminate_tests::worker::{Setup, Worker};

const HOSTS: usize = 4_000;
const KNOWN: usize = HOSTS * METRICS.len();
/// Samples of a run whose bodies are renewed as it goes.
const SAMPLES: usize = 12_000_000;
/// Samples of a run whose bodies are made and compressed before it.
const PREPARED: usize = 8_000_000;
const NEW_SERIES: usize = 300_000;
const CONNECTIONS: usize = 4;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Measures every way in, each on a fresh worker.
pub fn measure(report: &mut Report, runs: usize) {
    println!("ingest: {KNOWN} known series with ten dimensions, {CONNECTIONS} connections");
    for (batch, name, ack) in [
        (1_000, "JSON, batches of 1,000", "JSON, batches of 1,000: ack p99"),
        (10_000, "JSON, batches of 10,000", "JSON, batches of 10,000: ack p99"),
    ] {
        let costs: Vec<Cost> = (0..runs).map(|_| json(batch)).collect();
        add(report, name, ack, &costs, 0.8e6, 1.2e6);
    }
    let costs: Vec<Cost> = (0..runs).map(|_| remote_write(2_000)).collect();
    add(
        report,
        "remote write, requests of 2,000",
        "remote write, requests of 2,000: ack p99",
        &costs,
        1.0e6,
        1.9e6,
    );
    let costs: Vec<Cost> = (0..runs).map(|_| remote_write(500)).collect();
    add(
        report,
        "remote write, requests of 500",
        "remote write, requests of 500: ack p99",
        &costs,
        1.0e6,
        1.9e6,
    );
    let costs: Vec<Cost> = (0..runs).map(|_| new_series()).collect();
    add(report, "new series", "new series: ack p99", &costs, 100e3, 200e3);
}

fn add(report: &mut Report, name: &'static str, ack: &'static str, costs: &[Cost], now: f64, aim: f64) {
    let per_cpu = costs.iter().map(Cost::per_cpu_second).collect();
    report.add(Figure {
        name,
        unit: "/cpu-s",
        runs: per_cpu,
        better: Better::More,
        now: Some(now),
        aim: Some(aim),
    });
    for cost in costs {
        println!(
            "    {:.0} /s on the wall, {:.1} s of processor time",
            cost.per_second(),
            cost.cpu.as_secs_f64()
        );
    }
    report.note(ack, "ms", costs.iter().map(Cost::ack_p99_ms).collect());
}

/// Every known series, host by host: the order in which an agent sends them.
fn series() -> impl Iterator<Item = (&'static str, usize)> {
    (0..HOSTS).flat_map(|host| METRICS.iter().map(move |metric| (*metric, host)))
}

fn bodies(batch: usize) -> Vec<JsonBody> {
    let all: Vec<_> = series().collect();
    all.chunks(batch).map(|chunk| JsonBody::new(chunk.iter().copied())).collect()
}

/// A worker that knows the series, none of whose samples is younger than `from`.
fn informed(from: i64) -> Worker {
    let worker = Setup::new().start();
    let mut rng = Rng::with_seed(1);
    let mut bodies = bodies(10_000);
    bodies.iter_mut().for_each(|body| body.renew(from, &mut rng));
    let bodies: Vec<Vec<u8>> = bodies.into_iter().map(|body| body.bytes).collect();
    load::send_all(&worker, 1, "/api/v1/write", &JSON, &bodies, 10_000);
    worker
}

fn json(batch: usize) -> Cost {
    let rounds = SAMPLES / KNOWN;
    let from = now() - 10_000 * (rounds as i64 + 1);
    let worker = informed(from);
    let bodies = bodies(batch);
    load::run(&worker, CONNECTIONS, |client, sender| {
        let mut rng = Rng::with_seed(client as u64);
        let mut own: Vec<JsonBody> = bodies.iter().skip(client).step_by(CONNECTIONS).cloned().collect();
        let mut sent = 0;
        for round in 1..=rounds {
            for body in &mut own {
                body.renew(from + 10_000 * round as i64, &mut rng);
                sender.send(&request("POST", "/api/v1/write", &JSON, &body.bytes));
                sent += body.samples();
            }
        }
        sent
    })
}

fn remote_write(batch: usize) -> Cost {
    let rounds = PREPARED / KNOWN;
    let from = now() - 10_000 * (rounds as i64 + 1);
    let worker = informed(from);
    let labels: Vec<Vec<u8>> = series().map(|(metric, host)| label_block(metric, host)).collect();
    let mut rng = Rng::with_seed(2);
    let mut bodies = Vec::new();
    for round in 1..=rounds {
        let time = from + 10_000 * round as i64;
        for chunk in labels.chunks(batch) {
            let samples: Vec<[(i64, f64); 1]> =
                chunk.iter().map(|_| [(time, f64::from(rng.u32(0..100_000)) / 100.0)]).collect();
            let series =
                chunk.iter().zip(&samples).map(|(labels, samples)| (labels.as_slice(), samples.as_slice()));
            bodies.push(compressed(&remote_write_body(series)));
        }
    }
    load::send_all(&worker, CONNECTIONS, "/api/v1/prom/write", &HEADERS, &bodies, batch)
}

fn new_series() -> Cost {
    let worker = Setup::new().start();
    let mut rng = Rng::with_seed(3);
    let time = now();
    let all: Vec<_> = (0..NEW_SERIES / METRICS.len())
        .flat_map(|host| METRICS.iter().map(move |metric| (*metric, host)))
        .collect();
    let bodies = all.chunks(10_000).map(|chunk| {
        let mut body = JsonBody::new(chunk.iter().copied());
        body.renew(time, &mut rng);
        body.bytes
    });
    load::send_all(&worker, 2, "/api/v1/write", &JSON, &bodies.collect::<Vec<_>>(), 10_000)
}
