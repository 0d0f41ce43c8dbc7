//! What samples cost the workers as these become more over one engine, and the most that one takes.
//!
//! Each worker gets the same samples a second however many there are, so that each insert has as many rows;
//! what is measured is the processor time of the workers' processes alone.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hdrhistogram::Histogram;
use luminate_tests::bench::data::{JsonBody, METRICS};
use luminate_tests::bench::load;
use luminate_tests::bench::median;
use luminate_tests::bench::report::{Better, Figure, Report, short};
use luminate_tests::clickhouse::ClickHouse;
use luminate_tests::client::now;
use luminate_tests::http::{Connection, request};
use luminate_tests::process;
use luminate_tests::worker::{Setup, Worker};

const WORKERS: [usize; 5] = [1, 2, 4, 8, 10];
/// Samples a second for each worker.
const RATE: usize = 20_000;
const BATCH: usize = 2_000;
/// Machines of a worker; each has ten metrics.
const HOSTS: usize = 1_000;
const CONNECTIONS: usize = 8;
const RUN: Duration = Duration::from_secs(8);
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// Of the load that one worker gets as fast as it takes it.
const MOST_SAMPLES: usize = 4_000_000;

/// What a run with some workers showed.
#[derive(Debug)]
struct Shown {
    /// Seconds of the workers' processor time per million samples.
    cost: f64,
    /// Seconds of the engine's per million samples.
    engine: f64,
    /// Samples acknowledged a second.
    rate: f64,
    /// Milliseconds until 99 of 100 batches were.
    ack: f64,
}

/// Measures both.
pub fn measure(report: &mut Report, runs: usize) {
    let server = ClickHouse::start();
    println!("workers: {RATE} samples/s each, batches of {BATCH}, {HOSTS} machines × ten metrics each");
    println!(
        "  {:>7} {:>14} {:>18} {:>18} {:>12}",
        "workers", "samples/s", "workers' s/M", "engine's s/M", "ack p99 ms"
    );
    let costs: Vec<f64> = WORKERS.iter().map(|workers| with(&server, *workers, runs)).collect();
    let apart = costs.iter().map(|cost| (cost / costs[0] - 1.0).abs() * 100.0).fold(0.0, f64::max);
    report.add(Figure {
        name: "workers: cost of a sample, 1 to 10 workers, largest change",
        unit: "%",
        runs: vec![apart],
        better: Better::Less,
        now: Some(15.0),
        aim: Some(5.0),
    });
    report.note("workers: processor time per million samples, with 10", "s", vec![costs[WORKERS.len() - 1]]);
    most(report, &server);
}

fn setup(server: &ClickHouse, database: &str) -> Setup {
    Setup::clickhouse(&server.url(), database).with("storage.clickhouse.linger", "500ms")
}

/// The median cost of a million samples.
fn with(server: &ClickHouse, count: usize, runs: usize) -> f64 {
    let database = format!("scale_{count}");
    let workers: Vec<Worker> = (0..count).map(|_| setup(server, &database).start()).collect();
    let bodies: Vec<Vec<JsonBody>> = (0..count).map(bodies).collect();
    // So that every series is known.
    for (worker, bodies) in workers.iter().zip(&bodies) {
        let mut rng = Rng::new();
        for mut body in bodies.iter().cloned() {
            body.renew(now() - 60_000, &mut rng);
            let answer = worker.client().send("POST", "/api/v1/write", &JSON, &body.bytes);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let shown: Vec<Shown> = (0..runs).map(|_| run(server, &workers, &bodies)).collect();
    let middle = |of: fn(&Shown) -> f64| median(&shown.iter().map(of).collect::<Vec<f64>>());
    println!(
        "  {count:>7} {:>14} {:>18.3} {:>18.3} {:>12.0}",
        short(middle(|shown| shown.rate)),
        middle(|shown| shown.cost),
        middle(|shown| shown.engine),
        middle(|shown| shown.ack)
    );
    drop(workers);
    server.execute(&format!("DROP DATABASE {database}"));
    middle(|shown| shown.cost)
}

/// What a worker's clients send: each series once.
fn bodies(worker: usize) -> Vec<JsonBody> {
    let hosts = worker * HOSTS..(worker + 1) * HOSTS;
    let series: Vec<_> = hosts.flat_map(|host| METRICS.iter().map(move |metric| (*metric, host))).collect();
    series.chunks(BATCH).map(|chunk| JsonBody::new(chunk.iter().copied())).collect()
}

fn run(server: &ClickHouse, workers: &[Worker], bodies: &[Vec<JsonBody>]) -> Shown {
    let cpu = || workers.iter().map(|worker| process::cpu(worker.pid())).sum::<Duration>();
    let (before, engine, started) = (cpu(), process::cpu(server.pid()), Instant::now());
    let acks: Vec<Histogram<u64>> = thread::scope(|scope| {
        let clients: Vec<_> = workers
            .iter()
            .zip(bodies)
            .flat_map(|(worker, bodies)| (0..CONNECTIONS).map(move |client| (worker, bodies, client)))
            .map(|(worker, bodies, client)| scope.spawn(move || keep_pace(worker, bodies, client)))
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client panicked")).collect()
    });
    let samples = acks.iter().map(Histogram::len).sum::<u64>() as f64 * BATCH as f64;
    let mut all = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("sound bounds");
    acks.iter().for_each(|own| all.add(own).expect("the same bounds"));
    Shown {
        cost: (cpu() - before).as_secs_f64() / samples * 1e6,
        engine: (process::cpu(server.pid()) - engine).as_secs_f64() / samples * 1e6,
        rate: samples / started.elapsed().as_secs_f64(),
        ack: all.value_at_quantile(0.99) as f64 / 1e3,
    }
}

/// Sends every so-manieth batch of a worker at its time; microseconds from then to the ack.
fn keep_pace(worker: &Worker, bodies: &[JsonBody], client: usize) -> Histogram<u64> {
    let mut acks = Histogram::new_with_bounds(1, 600_000_000, 3).expect("sound bounds");
    let mut connection = Connection::open(worker.address()).expect("the worker listens");
    let mut rng = Rng::with_seed(client as u64);
    let every = Duration::from_secs_f64(BATCH as f64 / RATE as f64);
    let started = Instant::now();
    for number in (client..).step_by(CONNECTIONS) {
        let due = every * u32::try_from(number).expect("a short run");
        if due >= RUN {
            break;
        }
        thread::sleep(due.saturating_sub(started.elapsed()));
        let mut body = bodies[number % bodies.len()].clone();
        body.renew(now(), &mut rng);
        let answer = connection.exchange(&request("POST", "/api/v1/write", &JSON, &body.bytes));
        let answer = answer.expect("the worker answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let micros = u64::try_from((started.elapsed() - due).as_micros()).unwrap_or(u64::MAX);
        acks.saturating_record(micros);
    }
    acks
}

/// As fast as one worker takes it.
fn most(report: &mut Report, server: &ClickHouse) {
    let worker = setup(server, "most").start();
    let all: Vec<_> =
        (0..4 * HOSTS).flat_map(|host| METRICS.iter().map(move |metric| (*metric, host))).collect();
    let bodies: Vec<JsonBody> =
        all.chunks(10_000).map(|chunk| JsonBody::new(chunk.iter().copied())).collect();
    let clients = 2 * CONNECTIONS;
    let engine = process::cpu(server.pid());
    let cost = load::run(&worker, clients, |client, sender| {
        let mut rng = Rng::with_seed(client as u64);
        let mut sent = 0;
        for number in (client..MOST_SAMPLES / 10_000).step_by(clients) {
            let mut body = bodies[number % bodies.len()].clone();
            body.renew(now(), &mut rng);
            sender.send(&request("POST", "/api/v1/write", &JSON, &body.bytes));
            sent += body.samples();
        }
        sent
    });
    let engine = (process::cpu(server.pid()) - engine).as_secs_f64();
    println!(
        "  one worker as fast as it takes: {:.1} s of its processor time, {engine:.1} s of the engine's, {:.1} s on \
         the wall; ack p99 {:.0} ms",
        cost.cpu.as_secs_f64(),
        cost.wall.as_secs_f64(),
        cost.ack_p99_ms()
    );
    let runs = vec![cost.per_second()];
    let name = "workers: samples a second through one";
    report.add(Figure { name, unit: "/s", runs, better: Better::More, now: Some(100e3), aim: None });
}
