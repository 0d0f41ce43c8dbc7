//! Clients that send each batch until it is acknowledged.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, Response, request};
use crate::ledger::{Row, Step, step};

/// Where samples go.
pub const METRIC: &str = "faults";
/// How long after all is healed a batch may still be refused.
const PATIENCE: Duration = Duration::from_secs(60);
/// What no answer may show of the inside.
const INTERNALS: [&str; 5] = ["Code:", "Exception", "http://", "127.0.0.1", "storage.clickhouse"];

/// What the clients of a plan have in common.
#[derive(Debug)]
pub struct Scene {
    seed: u64,
    workers: Mutex<Vec<SocketAddr>>,
    healed: Mutex<Option<Instant>>,
    hang_ups: AtomicBool,
}

impl Scene {
    /// Clients of these workers, whose batches follow from `seed`.
    pub fn new(seed: u64, workers: Vec<SocketAddr>) -> Self {
        let (workers, healed) = (Mutex::new(workers), Mutex::new(None));
        Self { seed, workers, healed, hang_ups: AtomicBool::new(false) }
    }

    /// From now on all is well: batches under way must be acknowledged, and none begins.
    pub fn heal(&self) {
        *held(&self.healed) = Some(Instant::now());
    }

    /// A worker is going to be killed.
    pub fn expect_hang_ups(&self) {
        self.hang_ups.store(true, Ordering::Relaxed);
    }

    /// A worker has another address now.
    pub fn moved(&self, worker: usize, address: SocketAddr) {
        held(&self.workers)[worker] = address;
    }

    fn since_healing(&self) -> Option<Duration> {
        held(&self.healed).map(|healed| healed.elapsed())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client got acknowledged.
#[derive(Debug)]
pub struct Acked {
    /// Which.
    pub writer: u32,
    /// Batches in order, each with how often it was sent.
    pub batches: Vec<(u64, u32)>,
    /// Refusals.
    pub refused: u64,
    /// Connections that broke.
    pub unanswered: u64,
    /// From healing to the last acknowledgement.
    pub recovered: Duration,
}

/// A client.
#[derive(Debug)]
pub struct Client<'a> {
    scene: &'a Scene,
    random: fastrand::Rng,
    next: u64,
    acked: Acked,
}

impl<'a> Client<'a> {
    /// The client that goes on with batch `next` of `writer`.
    pub fn new(scene: &'a Scene, writer: u32, next: u64, noise: u64) -> Self {
        let recovered = Duration::ZERO;
        let acked = Acked { writer, batches: Vec::new(), refused: 0, unanswered: 0, recovered };
        Self { scene, random: fastrand::Rng::with_seed(noise), next, acked }
    }

    /// Writes batch after batch until all is healed.
    ///
    /// # Errors
    /// An answer that must not be.
    pub fn write(mut self) -> Result<Acked, String> {
        while self.scene.since_healing().is_none() {
            let Step::Write(rows) = step(self.scene.seed, self.acked.writer, self.next) else {
                return Err("a writer that deletes".into());
            };
            let attempts = self.deliver(&body(self.acked.writer, &rows), rows.len())?;
            self.acked.batches.push((self.next, attempts));
            self.next += 1;
        }
        self.acked.recovered = self.scene.since_healing().unwrap_or_default();
        Ok(self.acked)
    }

    /// Sends a batch until it is acknowledged; how often.
    fn deliver(&mut self, body: &str, samples: usize) -> Result<u32, String> {
        let bytes = request(
            "POST",
            "/api/v1/write",
            &[("content-type", "application/json"), ("connection", "close")],
            body.as_bytes(),
        );
        for attempt in 1.. {
            let worker = self.worker(attempt);
            let answer = Connection::open(worker).and_then(|mut worker| worker.exchange(&bytes));
            match answer {
                Ok(answer) if answer.status == 200 => {
                    let taken = answer.json()["accepted"] == samples;
                    return if taken { Ok(attempt) } else { Err(format!("acked {}", answer.text())) };
                }
                Ok(answer) => {
                    sound_refusal(&answer)?;
                    self.acked.refused += 1;
                }
                Err(_) if self.scene.hang_ups.load(Ordering::Relaxed) => self.acked.unanswered += 1,
                Err(error) => return Err(format!("a worker that lives gave no answer: {error}")),
            }
            if self.scene.since_healing().is_some_and(|since| since > PATIENCE) {
                return Err(format!(
                    "writer {} is still refused, {PATIENCE:?} after healing",
                    self.acked.writer
                ));
            }
            thread::sleep(Duration::from_millis(self.random.u64(2..30)));
        }
        unreachable!("attempts go on until one returns")
    }

    /// Its own worker; after a refusal now and then any.
    fn worker(&mut self, attempt: u32) -> SocketAddr {
        let workers = held(&self.scene.workers);
        let own = self.acked.writer as usize / 2 % workers.len();
        let stays = attempt == 1 || self.random.u8(..4) > 0;
        workers[if stays { own } else { self.random.usize(..workers.len()) }]
    }
}

/// Whether a refusal says what a client must know, and nothing more.
fn sound_refusal(answer: &Response) -> Result<(), String> {
    let text = answer.text();
    if answer.status != 503 && answer.status != 429 {
        return Err(format!("a write is answered with {}: {text}", answer.status));
    }
    let after = answer.header("retry-after").and_then(|after| after.parse::<u64>().ok());
    if after.is_none_or(|after| !(1..=60).contains(&after)) {
        return Err(format!("a refusal doesn't say when to come back: {:?}", answer.headers));
    }
    match INTERNALS.iter().find(|word| text.contains(*word)) {
        Some(word) => Err(format!("a refusal shows {word:?}: {text}")),
        None => Ok(()),
    }
}

fn body(writer: u32, rows: &[Row]) -> String {
    let mut text = String::from("{\"metrics\":[");
    for (at, Row { series, time, value }) in rows.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        // Writing to a string can't fail.
        let _ = write!(
            text,
            r#"{comma}{{"name":"{METRIC}","timestamp":{time},"value":{value},"dimensions":{{"writer":"{writer}","series":"{series}"}}}}"#
        );
    }
    text.push_str("]}");
    text
}
