//! A day in the life, shortened: writes and queries at half of what the worker can do, restarts, and at the end a
//! comparison of what it holds with what it has acknowledged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, now};
use crate::worker::{Setup, Worker};

/// Who writes, each a metric of its own.
const WRITERS: u32 = 4;
/// Series of each, and samples of a batch.
const SERIES: u32 = 500;
/// Who asks.
const READERS: u32 = 2;
/// How long the worker's capacity is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// From when on the memory must be flat: shorter runs don't show.
const LONG: Duration = Duration::from_secs(120);
/// How much more the last third may have resident than the one before.
const GROWTH: f64 = 1.1;
/// The worker's `storage.rocksdb.memory`: so little that its caches are full long before the last third.
const MEMORY: u64 = 256 << 20;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How long.
    pub time: Duration,
    /// Time between restarts, of which there are some in the first third and one before the comparison: what leaks
    /// needs time to show.
    pub restart_every: Duration,
    /// The control: an acknowledged batch that was never sent is put into the ledger.
    pub forgetful: bool,
}

/// What it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// How long.
    pub seconds: u64,
    /// Samples acknowledged.
    pub samples: u64,
    /// Queries answered.
    pub queries: u64,
    /// Restarts.
    pub restarts: u64,
    /// Resident bytes in the middle third and in the last, the median of each.
    pub resident: [u64; 2],
    /// Most resident bytes.
    pub most: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, samples, queries, restarts, resident: [before, after], most } = self;
        write!(
            formatter,
            "{seconds} s, {samples} samples written and found, {queries} queries, {restarts} restarts, no error; {} MiB \
             resident, then {} MiB, {} MiB at most",
            before >> 20,
            after >> 20,
            most >> 20
        )
    }
}

/// A run under way.
struct Soak {
    worker: RwLock<Worker>,
    over: AtomicBool,
    samples: AtomicU64,
    queries: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Soak {
    /// The worker, which isn't restarted as long as somebody has it.
    fn worker(&self) -> RwLockReadGuard<'_, Worker> {
        self.worker.read().expect("nobody panics with the worker")
    }

    fn restart(&self) {
        self.worker.write().expect("nobody panics with the worker").restart();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn fail(&self, why: String) {
        self.failure.lock().expect("nobody panics with it").get_or_insert(why);
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Batch `number` of `writer`: one sample of each of its series at `time`.
fn batch(writer: u32, number: u64, time: i64) -> Value {
    let samples = (0..SERIES).map(|series| {
        json!({"name": metric(writer), "timestamp": time, "value": value(number, series),
            "dimensions": {"id": series.to_string(), "region": (series % 7).to_string()}})
    });
    json!({"metrics": samples.collect::<Vec<_>>()})
}

fn metric(writer: u32) -> String {
    format!("soak_{writer}")
}

/// Small whole numbers, whose sums are exact.
fn value(number: u64, series: u32) -> u64 {
    (number * 31 + u64::from(series)) % 1_000
}

/// Writes, asks and restarts for a while, then compares.
///
/// # Errors
/// A request that wasn't answered as it should, memory that grew or is more than it may be, or samples that aren't there.
pub fn run(run: &Run, tell: &mut dyn FnMut(String)) -> Result<Summary, String> {
    let worker = Setup::rocksdb()
        .with("storage.rocksdb.memory", format!("{} MiB", MEMORY >> 20))
        .with("storage.rocksdb.log_cap", "64 MiB")
        .with("storage.rocksdb.seal_window", "30s")
        .start();
    let pause = 2 * capacity(&worker, MEASURED.min(run.time / 2));
    let rate = f64::from(WRITERS * SERIES) / pause.as_secs_f64();
    tell(format!("writing {rate:.0} samples a second, half of what it takes"));
    let soak = Soak {
        worker: RwLock::new(worker),
        over: AtomicBool::new(false),
        samples: AtomicU64::new(0),
        queries: AtomicU64::new(0),
        failure: Mutex::new(None),
    };
    let (mut summary, written) = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let soak = &soak;
                    move || write(soak, writer, pause)
                })
            })
            .collect();
        for reader in 0..READERS {
            scope.spawn({
                let soak = &soak;
                move || read(soak, reader)
            });
        }
        let summary = watch(&soak, run, tell);
        soak.over.store(true, Ordering::Relaxed);
        (summary, writers.into_iter().map(|writer| writer.join().expect("a writer")).collect::<Vec<u64>>())
    });
    if let Some(why) = soak.failure.lock().expect("nobody panics with it").take() {
        return Err(why);
    }
    summary.samples = soak.samples.load(Ordering::Relaxed);
    summary.queries = soak.queries.load(Ordering::Relaxed);
    soak.restart();
    summary.restarts += 1;
    let forgotten = u64::from(run.forgetful);
    for (writer, batches) in (0..).zip(written) {
        compare(&soak.worker().client(), writer, batches + forgotten)?;
    }
    let [before, after] = summary.resident;
    if run.time >= LONG && after as f64 > before as f64 * GROWTH {
        return Err(format!("memory grew from {} to {} MiB", before >> 20, after >> 20));
    }
    if summary.most > MEMORY / 4 * 5 {
        return Err(format!("{} MiB were resident, of {} MiB", summary.most >> 20, MEMORY >> 20));
    }
    Ok(summary)
}

/// Time of a batch of each writer while all of them send as fast as they can.
fn capacity(worker: &Worker, time: Duration) -> Duration {
    let sent = AtomicU64::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (client, sent) = (worker.client(), &sent);
            scope.spawn(move || {
                while started.elapsed() < time {
                    let answer = client.post("/api/v1/write", &batch(writer + WRITERS, 0, now()));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let rounds = sent.into_inner() as f64 / f64::from(WRITERS);
    started.elapsed().div_f64(rounds.max(1.0))
}

/// Writes batch after batch at a steady pace; how many were acknowledged.
fn write(soak: &Soak, writer: u32, pause: Duration) -> u64 {
    let (started, mut number, mut last) = (Instant::now(), 0, 0);
    while !soak.is_over() {
        // Each batch has a millisecond of its own.
        let time = now().max(last + 1);
        let answer = soak.worker().client().post("/api/v1/write", &batch(writer, number, time));
        if answer.status != 200 {
            soak.fail(format!("a write was answered {}: {}", answer.status, answer.text()));
            break;
        }
        (number, last) = (number + 1, time);
        soak.samples.fetch_add(u64::from(SERIES), Ordering::Relaxed);
        let due = pause.mul_f64(number as f64);
        thread::sleep(due.saturating_sub(started.elapsed()).min(Duration::from_secs(1)));
    }
    number
}

/// Asks for what lies a while back, in several ways.
fn read(soak: &Soak, reader: u32) {
    for at in reader.. {
        if soak.is_over() {
            return;
        }
        let (end, metric) = (now() - 1_000, metric(at % WRITERS));
        let range = json!({"start": end - 60_000, "end": end});
        let question = match at % 3 {
            0 => {
                json!({"queryType": "aggregate", "metricName": metric, "aggregation": "p99", "groupBy": ["region"],
                "interval": "10s", "timeRange": range})
            }
            1 => {
                json!({"queryType": "range", "metricName": metric, "filters": {"id": "3"}, "timeRange": range})
            }
            _ => {
                json!({"queryType": "aggregate", "metricName": metric, "aggregation": "avg", "groupBy": ["id"],
                "timeRange": {"relative": "5m"}})
            }
        };
        let answer = soak.worker().client().query(&question);
        if answer.status != 200 {
            soak.fail(format!("a query was answered {}: {}", answer.status, answer.text()));
        }
        soak.queries.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Restarts the worker now and then in the first third, and looks at its memory each second.
fn watch(soak: &Soak, run: &Run, tell: &mut dyn FnMut(String)) -> Summary {
    let (started, mut restarted, mut told) = (Instant::now(), Instant::now(), Instant::now());
    let mut summary = Summary::default();
    let mut resident: Vec<u64> = Vec::new();
    while started.elapsed() < run.time && !soak.is_over() {
        thread::sleep(Duration::from_secs(1));
        resident.push(soak.worker().rss());
        if restarted.elapsed() >= run.restart_every && started.elapsed() <= run.time / 3 {
            soak.restart();
            restarted = Instant::now();
            summary.restarts += 1;
        }
        if told.elapsed() >= Duration::from_secs(30) {
            told = Instant::now();
            let (samples, queries) =
                (soak.samples.load(Ordering::Relaxed), soak.queries.load(Ordering::Relaxed));
            let left = run.time.saturating_sub(started.elapsed()).as_secs();
            let mib = resident.last().copied().unwrap_or(0) >> 20;
            tell(format!("{samples} samples, {queries} queries, {mib} MiB resident, {left} s left"));
        }
    }
    let third = (resident.len() / 3).max(1);
    let last = resident.len().saturating_sub(third);
    summary.most = resident.iter().copied().max().unwrap_or(0);
    summary.resident = [median(&resident[last.saturating_sub(third)..last]), median(&resident[last..])];
    summary.seconds = started.elapsed().as_secs();
    summary
}

fn median(part: &[u64]) -> u64 {
    let mut sorted = part.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// Whether the worker holds what `writer` has had acknowledged: of each series how many samples, and their sum.
fn compare(client: &Client, writer: u32, batches: u64) -> Result<(), String> {
    let ask = |aggregation: &str| -> BTreeMap<String, u64> {
        let question = json!({"queryType": "aggregate", "metricName": metric(writer), "aggregation": aggregation,
            "groupBy": ["id"], "timeRange": {"relative": "24h"}, "timeout": "30s", "limit": 10_000});
        let rows = client.rows(&question).into_iter();
        rows.map(|row| {
            let id = row["groupKey"]["id"].as_str().unwrap_or_default().to_owned();
            (id, row["value"].as_f64().map_or(u64::MAX, |value| value as u64))
        })
        .collect()
    };
    let (counts, sums) = (ask("count"), ask("sum"));
    for series in 0..SERIES {
        let id = series.to_string();
        let sum: u64 = (0..batches).map(|number| value(number, series)).sum();
        let found = (counts.get(&id).copied().unwrap_or(0), sums.get(&id).copied().unwrap_or(0));
        if found != (batches, sum) {
            return Err(format!(
                "series {series} of writer {writer} holds {} samples with the sum {}, not {batches} with {sum}",
                found.0, found.1
            ));
        }
    }
    Ok(())
}
