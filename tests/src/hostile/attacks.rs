//! One way to take memory each.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::client::now;
use crate::http::{Connection, request};
use crate::remote_write;
use crate::worker::Worker;

/// Attacks by name, in the order in which they are made: what the first ones leave, the last ones find.
pub const ATTACKS: [(&str, Attack); 7] = [
    ("bombs", bombs),
    ("large bodies", large_bodies),
    ("bodies that stop", bodies_that_stop),
    ("new series", new_series),
    ("heavy queries", heavy_queries),
    ("answers that nobody takes", untaken_answers),
    ("all at once", all_at_once),
];

/// An attack on a worker that ends by a time.
pub type Attack = fn(&Worker, Instant) -> Counts;

const JSON: (&str, &str) = ("content-type", "application/json");
/// The worker's limit of a body.
const LARGEST: usize = 10_000_000;

/// How the requests of an attack were answered.
#[derive(Debug, Default)]
pub struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// Answered, and of these refused.
    pub fn total(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    fn count(&self, status: u16) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if status >= 400 {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs `client` on so many connections at once, over and over until the time is up.
fn at_once(
    worker: &Worker,
    clients: usize,
    until: Instant,
    client: impl Fn(usize, &Worker) -> Option<u16> + Sync,
) -> Counts {
    let counts = Counts::default();
    thread::scope(|scope| {
        for number in 0..clients {
            let (counts, client) = (&counts, &client);
            scope.spawn(move || {
                while Instant::now() < until {
                    match client(number, worker) {
                        Some(status) => counts.count(status),
                        None => thread::sleep(Duration::from_millis(5)),
                    }
                }
            });
        }
    });
    counts
}

/// Sends a request on a connection of its own; the status, if there was an answer.
fn ask(worker: &Worker, request: &[u8]) -> Option<u16> {
    let mut connection = Connection::open(worker.address()).ok()?;
    // A server may answer and hang up before it has read all.
    let _ = connection.send(request);
    connection.receive().ok().map(|answer| answer.status)
}

fn write(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut all = vec![JSON, ("connection", "close")];
    all.extend(headers);
    request("POST", "/api/v1/write", &all, body)
}

/// Ten thousand samples of one series each with twenty dimensions, near the limit of a body.
fn large_json(first: usize) -> String {
    let mut text = String::with_capacity(LARGEST);
    text.push_str("{\"metrics\":[");
    let time = now();
    for n in 0..10_000 {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"name\":\"m\",\"timestamp\":{time},\"value\":1,\"dimensions\":{{\"id\":\"{}\"",
            first + n
        );
        for key in 0..19 {
            let _ = write!(text, ",\"key_{key}\":\"value of the key {key} {:07}\"", (n * 7 + key) % 1_000);
        }
        text.push_str("}}");
    }
    text.push_str("]}");
    assert!(text.len() < LARGEST, "{} bytes", text.len());
    text
}

fn encoded(text: &[u8]) -> [(&'static str, Vec<u8>); 3] {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text).expect("memory");
    [
        ("gzip", gzip.finish().expect("memory")),
        ("zstd", zstd::encode_all(text, 3).expect("memory")),
        ("snappy", remote_write::compressed(text)),
    ]
}

/// Bodies that become as large as they may, and larger, in every encoding.
fn bombs(worker: &Worker, until: Instant) -> Counts {
    let mut requests = Vec::new();
    for (size, start) in [(LARGEST - 100, "{\"metrics\":[]"), (20 * LARGEST, "{\"metrics\":[]")] {
        let mut text = start.as_bytes().to_vec();
        text.resize(size, b' ');
        text.push(b'}');
        requests
            .extend(encoded(&text).map(|(encoding, body)| write(&[("content-encoding", encoding)], &body)));
    }
    let honest = encoded(large_json(0).as_bytes());
    requests.extend(honest.map(|(encoding, body)| write(&[("content-encoding", encoding)], &body)));
    at_once(worker, 48, until, |number, worker| {
        ask(worker, &requests[(number + fastrand::usize(..requests.len())) % requests.len()])
    })
}

/// Many bodies near the limit at once.
fn large_bodies(worker: &Worker, until: Instant) -> Counts {
    let request = write(&[], large_json(0).as_bytes());
    at_once(worker, 64, until, |_, worker| ask(worker, &request))
}

/// Bodies of which all but the end is sent: the worker holds them and waits.
fn bodies_that_stop(worker: &Worker, until: Instant) -> Counts {
    let request = write(&[], large_json(0).as_bytes());
    let counts = Counts::default();
    let mut open: Vec<Connection> = Vec::new();
    while Instant::now() < until && open.len() < 100 {
        let Ok(mut connection) = Connection::open(worker.address()) else { continue };
        let _ = connection.send(&request[..request.len() - 1]);
        open.push(connection);
    }
    for mut connection in open {
        let _ = connection.send(&request[request.len() - 1..]);
        if let Ok(answer) = connection.receive() {
            counts.count(answer.status);
        }
    }
    counts
}

/// As many series as the worker lets in, each with texts of its own.
fn new_series(worker: &Worker, until: Instant) -> Counts {
    let next = AtomicU64::new(0);
    at_once(worker, 8, until, |_, worker| {
        let first = next.fetch_add(5_000, Ordering::Relaxed);
        let mut text = String::from("{\"metrics\":[");
        for id in first..first + 5_000 {
            let comma = if id == first { "" } else { "," };
            let _ = write!(
                text,
                "{comma}{{\"name\":\"wide\",\"value\":{id},\"dimensions\":{{\"id\":\"series {id}\",\"group\":\"{}\",\"pod\":\"pod-{id:x}\"}}}}",
                id % 1_000
            );
        }
        text.push_str("]}");
        ask(worker, &write(&[], text.as_bytes()))
    })
}

/// Questions over all series, with a group or a row for each.
fn questions() -> Vec<Vec<u8>> {
    let range = json!({"relative": "1h"});
    let bodies = [
        json!({"queryType": "aggregate", "metricName": "wide", "aggregation": "p99", "groupBy": ["id"],
            "interval": "1s", "timeRange": range, "limit": 10_000}),
        json!({"queryType": "aggregate", "metricName": "wide", "aggregation": "p50", "groupBy": ["group", "pod"],
            "timeRange": range, "limit": 10_000}),
        json!({"queryType": "range", "metricName": "wide", "timeRange": range, "limit": 10_000}),
        json!({"queryType": "rate", "metricName": "wide", "groupBy": ["id"], "interval": "1s", "timeRange": range,
            "limit": 10_000}),
        json!({"queryType": "range", "metricName": "m", "timeRange": range, "limit": 10_000}),
    ];
    bodies.iter().map(|body| request("POST", "/api/v1/query", &[JSON], body.to_string().as_bytes())).collect()
}

fn heavy_queries(worker: &Worker, until: Instant) -> Counts {
    let questions = questions();
    at_once(worker, 96, until, |number, worker| {
        ask(worker, &questions[(number + fastrand::usize(..questions.len())) % questions.len()])
    })
}

/// Large answers of which not a byte is read.
fn untaken_answers(worker: &Worker, until: Instant) -> Counts {
    let questions = questions();
    let mut open = Vec::new();
    while Instant::now() < until && open.len() < 400 {
        let Ok(mut connection) = Connection::open(worker.address()) else { continue };
        let _ = connection.send(&questions[2 + open.len() % 3]);
        open.push(connection);
    }
    thread::sleep(Duration::from_secs(2).min(until.saturating_duration_since(Instant::now())));
    Counts::default()
}

/// Everything, at a time.
fn all_at_once(worker: &Worker, until: Instant) -> Counts {
    let kinds: [Attack; 5] = [bombs, large_bodies, new_series, heavy_queries, untaken_answers];
    let counts = Counts::default();
    thread::scope(|scope| {
        let spawned: Vec<_> = kinds.map(|attack| scope.spawn(move || attack(worker, until))).into();
        for thread in spawned {
            let (answered, refused) = thread.join().expect("an attacker").total();
            counts.answered.fetch_add(answered, Ordering::Relaxed);
            counts.refused.fetch_add(refused, Ordering::Relaxed);
        }
    });
    counts
}
