//! A noisy neighbour: how much longer a tenant waits while another floods the same worker.
//!
//! The worker runs on one core, all clients on the other. The flood is the same in both measurements, request for request and
//! at the same rate; in the first it goes to a sink that answers everything at once. So what differs is what the worker
//! does with it. They take turns of two seconds, so that a machine that is now faster, now slower is so for both, and between
//! turns the worker has answered all of the flood. The control lifts the tenants' limits and turns around what the engine tells
//! the kernel, that threads of large questions give way to all others: the quiet one must then wait longer. Without limits
//! alone it needn't.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::client::{Client, now, sample};
use crate::http::Connection;
use crate::token::{self, claims, signed};
use crate::worker::{Setup, Worker};

/// Requests per second of the flood: ten times what a tenant may write and twenty times what it may ask, or so.
const FLOOD: u32 = 2_000;
/// Connections that the flood comes over.
const CONNECTIONS: u32 = 16;
/// Requests per second of the quiet tenant, half of them writes.
const QUIET: u32 = 50;
/// How much longer it may wait, 95 times of 100.
pub const MOST: f64 = 1.5;
/// How long one measures before it is the other's turn.
const TURN: Duration = Duration::from_secs(2);
/// Waits below this are noise of the machine's own.
const NOISE: Duration = Duration::from_micros(500);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How long each of the two measurements lasts, at least.
    pub each: Duration,
    /// The control: no limit holds, and large questions come before all else.
    pub control: bool,
}

/// What one measurement came to: how long the quiet tenant waited, in microseconds, and how the flood fared.
#[derive(Debug, Clone)]
pub struct Measured {
    queries: Histogram<u64>,
    writes: Histogram<u64>,
    /// The quiet tenant's requests that were refused.
    refused: u64,
    /// Requests of the flood that were answered.
    flood: u64,
    /// Of these, refused.
    flood_refused: u64,
}

impl Measured {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, 100_000_000, 3).expect("fixed bounds");
        Self { queries: histogram(), writes: histogram(), refused: 0, flood: 0, flood_refused: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.queries.add(&other.queries).expect("the same bounds");
        self.writes.add(&other.writes).expect("the same bounds");
        self.refused += other.refused;
        self.flood += other.flood;
        self.flood_refused += other.flood_refused;
    }

    /// Of 100 queries, and of 100 writes, 95 waited no longer.
    fn p95(&self) -> [u64; 2] {
        [&self.queries, &self.writes].map(|waits| waits.value_at_quantile(0.95))
    }
}

/// Both measurements.
#[derive(Debug, Clone)]
pub struct Summary {
    /// While the flood goes elsewhere.
    pub alone: Measured,
    /// While it comes here.
    pub beside: Measured,
}

impl Summary {
    /// How much longer queries and writes take.
    #[must_use]
    pub fn ratios(&self) -> [f64; 2] {
        let noise = u64::try_from(NOISE.as_micros()).unwrap_or(0);
        let (alone, beside) = (self.alone.p95(), self.beside.p95());
        [0, 1].map(|at| beside[at] as f64 / alone[at].max(noise) as f64)
    }

    /// Whether the quiet tenant wasn't bothered.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        self.ratios().iter().all(|ratio| *ratio <= MOST) && self.beside.refused == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let ([queries, writes], Self { alone, beside }) = (self.ratios(), self);
        write!(
            formatter,
            "p95 of queries {:.2} → {:.2} ms ({queries:.2}×), of writes {:.2} → {:.2} ms ({writes:.2}×); {} requests of the \
             flood, {} refused; {} of the quiet tenant refused",
            ms(alone.p95()[0]),
            ms(beside.p95()[0]),
            ms(alone.p95()[1]),
            ms(beside.p95()[1]),
            beside.flood,
            beside.flood_refused,
            beside.refused,
        )
    }
}

/// Binds a process, with all its threads, to one core.
fn bind(pid: u32, core: usize) {
    must("taskset", &["-acp", &core.to_string(), &pid.to_string()]);
}

/// Runs a program that must succeed.
fn must(program: &str, arguments: &[&str]) {
    let said = Command::new(program).args(arguments).output();
    assert!(said.is_ok_and(|said| said.status.success()), "{program} fails, told {arguments:?}");
}

/// Makes the threads of large questions more urgent than all others of a process; as root.
fn turn_around(pid: u32) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the worker runs");
    let large = threads.flatten().filter(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        name.starts_with("light-query") || name.starts_with("heavy-query")
    });
    let mut turned = 0;
    for thread in large.map(|thread| thread.file_name()) {
        let thread = thread.to_str().expect("a number");
        // This also gives back turns of the usual length.
        must("chrt", &["--other", "--pid", "0", thread]);
        must("renice", &["-n", "-10", "-p", thread]);
        turned += 1;
    }
    assert!(turned > 0, "the engine has threads for large questions");
}

/// Measures the quiet tenant alone and beside the noisy one.
///
/// # Panics
/// When the worker can't be had, or the machine has no second core.
#[must_use]
pub fn run(run: &Run) -> Summary {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("worker.yaml");
    let free =
        "{write_rps: 1000000, query_rps: 1000000, metrics_per_second: 1000000000, concurrent_queries: 1000}";
    std::fs::write(&file, format!("rate_limits: {{tiers: {{free: {free}}}}}\n")).expect("a file");
    let worker = Setup::rocksdb()
        .with("auth.enabled", true)
        .with("auth.jwt_secret", token::SECRET)
        .with("storage.rocksdb.threads", 1)
        .with("config", file.display())
        .start();
    inhabit(&worker);
    bind(worker.pid(), 0);
    bind(std::process::id(), 1);
    if run.control {
        turn_around(worker.pid());
    }
    let sink = sink();
    let (mut alone, mut beside) = (Measured::new(), Measured::new());
    let started = Instant::now();
    while started.elapsed() < 2 * run.each {
        alone.add(&measure(&worker, sink, run));
        beside.add(&measure(&worker, worker.address(), run));
    }
    Summary { alone, beside }
}

fn of_tier(worker: &Worker, tenant: &str) -> Client {
    let mut claims = claims(tenant, &["read", "write"]);
    claims["tier"] = json!("free");
    worker.client().with_token(signed(&claims))
}

/// Gives both something to ask for: the noisy one half a million samples of five thousand series.
fn inhabit(worker: &Worker) {
    let (quiet, noisy) = (of_tier(worker, "quiet"), of_tier(worker, "noisy"));
    let t = now() - 200_000;
    let samples = |from: i64, series: i64| -> Vec<Value> {
        (0..10_000)
            .map(|n| {
                sample("m", t + (from + n / series) * 1_000, n as f64, &[("id", &(n % series).to_string())])
            })
            .collect()
    };
    quiet.store(&samples(0, 100));
    for part in 0..50 {
        noisy.store(&samples(part * 2, 5_000));
    }
}

/// A server that answers everything 429, as little work as there can be.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || swallow(stream));
        }
    });
    address
}

/// Answers whatever ends a request's body: the flood's requests come one at a time.
fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let (mut head, mut left) = (Vec::new(), None::<usize>);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        match left {
            Some(more) => left = Some(more.saturating_sub(read)),
            None => {
                head.extend_from_slice(&buffer[..read]);
                let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
                let length =
                    text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                left = Some(length.unwrap_or(0_usize).saturating_sub(head.len() - end - 4));
            }
        }
        if left == Some(0) {
            (left, head) = (None, Vec::new());
            if stream.write_all(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

/// Sleeps until number `at` of a steady series of so many a second is due; late ones come at once.
fn pace(started: Instant, at: u32, per_second: f64) {
    let due = started + Duration::from_secs_f64(f64::from(at) / per_second);
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn measure(worker: &Worker, flooded: SocketAddr, run: &Run) -> Measured {
    let noisy = if run.control { of_tier(worker, "noisy") } else { worker.client_of("noisy") };
    let (over, answered, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let requests = flood(&noisy);
    let measured = thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (requests, over, answered, refused) = (&requests, &over, &answered, &refused);
            scope.spawn(move || {
                let started = Instant::now();
                let mut connection = Connection::open(flooded).expect("it listens");
                for at in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    pace(started, at, f64::from(FLOOD) / f64::from(CONNECTIONS));
                    let request = &requests[(at as usize + number as usize) % requests.len()];
                    let Ok(answer) = connection.exchange(request) else { return };
                    answered.fetch_add(1, Ordering::Relaxed);
                    refused.fetch_add(u64::from(answer.status >= 400), Ordering::Relaxed);
                }
            });
        }
        let measured = quiet(worker, TURN.min(run.each));
        over.store(true, Ordering::Relaxed);
        measured
    });
    let (flood, flood_refused) = (answered.into_inner(), refused.into_inner());
    Measured { flood, flood_refused, ..measured }
}

/// Writes of known series, expensive queries, and writes of new series, which a worker takes for what they are.
fn flood(noisy: &Client) -> Vec<Vec<u8>> {
    let json = [("content-type", "application/json")];
    let post = |path: &str, body: &Value| noisy.request("POST", path, &json, body.to_string().as_bytes());
    let mut requests = Vec::new();
    for round in 0..64 {
        let known: Vec<Value> =
            (0..100).map(|n| sample("m", now(), 1.0, &[("id", &n.to_string())])).collect();
        let new: Vec<Value> =
            (0..100).map(|n| sample("new", now(), 1.0, &[("id", &format!("{round}-{n}"))])).collect();
        requests.push(post("/api/v1/write", &json!({"metrics": known})));
        requests.push(post("/api/v1/write", &json!({"metrics": new})));
        requests.push(post(
            "/api/v1/query",
            &json!({"queryType": "aggregate", "metricName": "m", "aggregation": "p99", "groupBy": ["id"],
                "interval": "10s", "timeRange": {"relative": "1h"}, "limit": 10_000}),
        ));
    }
    requests
}

/// What the quiet tenant does and how long it waits.
fn quiet(worker: &Worker, time: Duration) -> Measured {
    let client = worker.client_of("quiet");
    let json = [("content-type", "application/json")];
    let question = json!({"queryType": "aggregate", "metricName": "m", "aggregation": "avg", "filters": {"id": "7"},
        "interval": "1m", "timeRange": {"relative": "1h"}});
    let question = client.request("POST", "/api/v1/query", &json, question.to_string().as_bytes());
    let mut connection = Connection::open(worker.address()).expect("the worker listens");
    let mut all = Measured::new();
    let started = Instant::now();
    for at in 0.. {
        pace(started, at, f64::from(QUIET));
        if started.elapsed() >= time {
            break;
        }
        let write = at % 2 == 1;
        let samples: Vec<Value> =
            (0..10).map(|n| sample("m", now(), 1.0, &[("id", &n.to_string())])).collect();
        let body = json!({"metrics": samples}).to_string();
        let sent = match write {
            true => client.request("POST", "/api/v1/write", &json, body.as_bytes()),
            false => question.clone(),
        };
        let asked = Instant::now();
        let answer = connection.exchange(&sent).expect("the worker answers");
        let waits = if write { &mut all.writes } else { &mut all.queries };
        waits.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        all.refused += u64::from(answer.status >= 400);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request;

    #[test]
    fn the_sink_answers_each_request_once() {
        let mut connection = Connection::open(sink()).unwrap();
        let large = "x".repeat(300_000);
        for body in ["", "x", &large, "y"] {
            let request = request("POST", "/", &[], body.as_bytes());
            assert_eq!(connection.exchange(&request).unwrap().status, 429);
        }
    }
}
