//! Kills a store under eight writers, or cuts its power, again and again, and compares what is left
//! with the ledger of what was acknowledged.
//!
//! A cycle: a child opens the store, which the crash before has left as it is, and writes; at a random
//! moment, mostly amid writes and sometimes amid its recovery, it ends. Then this process opens the store
//! and reads everything. Now and then it doesn't, so that one crash follows another. Every so often a
//! new store begins, since reading all of an old one takes longer and longer.

pub mod child;
pub mod power;

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use luminate_storage::model::{
    AggregateQuery, Aggregation, DimensionKey, Having, RangeQuery, Selector, TimeRange,
};
use luminate_storage::rocksdb::engine::{Ack, RocksDb};
use luminate_storage::store::{MetricsStore, QueryContext};
use tempfile::TempDir;

use crate::ledger::{Ledger, UnderWay};
use child::{Orders, Said};
use power::Volume;

/// Writers at once.
pub const WRITERS: u32 = 8;
/// How long a child may take until its first acknowledgement.
const START: Duration = Duration::from_secs(60);
const PROGRESS: Duration = Duration::from_secs(10);

/// How a child ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// SIGKILL.
    Kill,
    /// Its file system stops, and all that was not synced is gone.
    PowerCut,
}

/// A fault put in on purpose, which the harness must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// The child acknowledges before it writes.
    AckEarly,
    /// The store acknowledges before it syncs.
    NoSync,
}

/// A run of the harness.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everything random but the scheduler's choices follows from.
    pub seed: u64,
    /// Crashes.
    pub cycles: u32,
    /// Their kind.
    pub crash: Crash,
    /// What is wrong on purpose.
    pub fault: Fault,
    /// The program that runs [`child::run`] when its arguments are `write` and the orders.
    pub program: PathBuf,
}

/// What a run has seen, in one line.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Crashes.
    pub cycles: u32,
    /// Crashes before the first acknowledgement: while the store was opening.
    pub while_opening: u32,
    /// Times that everything was read back.
    pub checked: u32,
    /// Stores.
    pub stores: u32,
    /// Batches and deletes acknowledged.
    pub steps: u64,
    /// Samples acknowledged.
    pub samples: u64,
    /// Samples read back.
    pub read: u64,
    /// Seals and merges done.
    pub reorganised: u64,
    /// Steps under way that were done all the same.
    pub done: u64,
    /// Steps under way that were not.
    pub absent: u64,
    /// The longest opening after a crash.
    pub slowest_open: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} crashes ({} while opening), {} stores, {} checks: {} steps with {} samples acked, none lost, none \
             doubled; {} samples read; {} seals and merges; under way: {} done, {} not; slowest open {} ms; seed {}",
            self.cycles,
            self.while_opening,
            self.stores,
            self.checked,
            self.steps,
            self.samples,
            self.read,
            self.reorganised,
            self.done,
            self.absent,
            self.slowest_open.as_millis(),
            self.seed
        )
    }
}

/// Why a run has failed.
#[derive(Debug)]
pub struct Failure {
    /// The crash after which it was seen.
    pub cycle: u32,
    /// What was seen.
    pub what: String,
    /// The run's seed.
    pub seed: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "after crash {}: {}; seed {}", self.cycle, self.what, self.seed)
    }
}

impl std::error::Error for Failure {}

type Result<T> = std::result::Result<T, String>;

/// Carries out a plan, telling `progress` a line every few seconds.
///
/// # Errors
/// The first thing that must not be; the store is kept where the text says.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> std::result::Result<Summary, Failure> {
    let mut summary = Summary { seed: plan.seed, ..Summary::default() };
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut round: Option<Round> = None;
    let mut shown = Instant::now();
    while summary.cycles < plan.cycles {
        let failed = |cycle, what| Failure { cycle, what, seed: plan.seed };
        let mut own = match round.take() {
            Some(round) => round,
            None => {
                summary.stores += 1;
                Round::new(plan, &mut random).map_err(|what| failed(summary.cycles, what))?
            }
        };
        let last = summary.cycles + 1 == plan.cycles;
        summary.cycles += 1;
        if let Err(mut what) = own.cycle(plan, &mut random, last, &mut summary) {
            // One that a fault was put into is of no use.
            if plan.fault == Fault::None {
                what += &own.keep();
            }
            return Err(failed(summary.cycles, what));
        }
        round = (own.left > 0).then_some(own);
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            progress(&format!("{} of {} crashes: {summary}", summary.cycles, plan.cycles));
        }
    }
    Ok(summary)
}

/// Where a store lies.
#[derive(Debug)]
enum Disk {
    Folder(TempDir),
    Volume(Volume),
}

impl Disk {
    fn store(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.path().join("store"),
            Self::Volume(volume) => volume.path().join("store"),
        }
    }
}

/// The life of one store.
#[derive(Debug)]
struct Round {
    disk: Disk,
    ledger: Ledger,
    seed: u64,
    /// Crashes until it ends.
    left: u32,
    /// Whether the ledger knows what became of the steps under way at the last crash.
    certain: bool,
}

impl Round {
    fn new(plan: &Plan, random: &mut fastrand::Rng) -> Result<Self> {
        let disk = match plan.crash {
            Crash::Kill => Disk::Folder(tempfile::tempdir().map_err(text)?),
            Crash::PowerCut => Disk::Volume(Volume::new().map_err(text)?),
        };
        let seed = random.u64(..);
        Ok(Self { disk, ledger: Ledger::new(seed, WRITERS), seed, left: random.u32(1..25), certain: true })
    }

    fn cycle(
        &mut self,
        plan: &Plan,
        random: &mut fastrand::Rng,
        last: bool,
        summary: &mut Summary,
    ) -> Result<()> {
        self.left -= 1;
        // 1. A child writes until it ends at a random moment.
        let mut writing = Writing::start(plan, &self.orders(plan, random))?;
        let until = random.u8(..5) > 0;
        let early =
            writing.wait(until, Duration::from_micros(random.u64(..if until { 300_000 } else { 80_000 })))?;
        summary.while_opening += u32::from(early);
        if let Disk::Volume(volume) = &mut self.disk {
            volume.cut().map_err(text)?;
        }
        // 2. What it has acknowledged counts.
        for said in writing.end()? {
            let Said::Acked(writer, number) = said else {
                summary.reorganised += 1;
                continue;
            };
            summary.steps += 1;
            summary.samples += self.ledger.acked(writer, number) as u64;
        }
        if let Disk::Volume(volume) = &mut self.disk {
            volume.restore().map_err(text)?;
        }
        // 3. What is left is compared with it.
        self.certain = last || self.left == 0 || random.u8(..4) > 0;
        if self.certain {
            self.check(random, summary)?;
        }
        Ok(())
    }

    fn orders(&self, plan: &Plan, random: &mut fastrand::Rng) -> Orders {
        let start = |writer| {
            let again = self.certain && random.bool();
            if again { self.ledger.again(writer) } else { self.ledger.next(writer) }
        };
        Orders {
            path: self.disk.store(),
            seed: self.seed,
            starts: (0..WRITERS).map(start).collect(),
            noise: self.seed ^ u64::from(self.left),
            ack_early: plan.fault == Fault::AckEarly,
            no_sync: plan.fault == Fault::NoSync,
        }
    }

    fn check(&mut self, random: &mut fastrand::Rng, summary: &mut Summary) -> Result<()> {
        let started = Instant::now();
        let store = RocksDb::open(child::options(&self.disk.store(), Ack::Durable))
            .map_err(|error| format!("the store can't be opened: {error}"))?;
        summary.slowest_open = summary.slowest_open.max(started.elapsed());
        summary.checked += 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        for writer in 0..WRITERS {
            let found = runtime.block_on(read(&store, writer))?;
            summary.read += found.len() as u64;
            match self.ledger.check(writer, &found).map_err(text)? {
                UnderWay::Done => summary.done += 1,
                UnderWay::Absent => {
                    summary.absent += 1;
                    if random.u8(..8) == 0 {
                        self.ledger.skip(writer);
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps the store's files, and says where.
    fn keep(&self) -> String {
        let kept = tempfile::tempdir().map(TempDir::keep).and_then(|folder| {
            let copied = Command::new("cp").arg("-a").arg(self.disk.store()).arg(&folder).status();
            copied.map(|_status| folder)
        });
        match kept {
            Ok(folder) => format!("; the store is kept in {}", folder.display()),
            Err(error) => format!("; the store can't be kept: {error}"),
        }
    }
}

/// Every sample of a writer, by two kinds of query.
///
/// # Errors
/// The store's; or the two differ.
pub async fn read(store: &RocksDb, writer: u32) -> Result<Vec<(u32, i64, f64)>> {
    let (tenant, metric) = child::place(writer);
    let key = DimensionKey::new("writer").map_err(text)?;
    let selector = Selector::new(metric, vec![(key, writer.to_string())]);
    let range = TimeRange::new(0, i64::MAX / 2).ok_or("a range")?;
    let context = QueryContext::with_timeout(Duration::from_secs(120));
    let query = RangeQuery { selector: selector.clone(), range, having: Having::ANY, limit: usize::MAX };
    let answer = store.query_range(&tenant, &query, &context).await.map_err(text)?;
    let sample = |row: &luminate_storage::model::RangeRow| {
        let series = row.dimensions.get("series").and_then(|series| series.parse().ok());
        Some((series?, row.timestamp, row.value))
    };
    let found: Option<Vec<_>> = answer.rows.iter().map(sample).collect();
    let found = found.ok_or("a row without its series")?;
    let count = AggregateQuery {
        selector,
        range,
        aggregation: Aggregation::Count,
        max_gap: None,
        group_by: Vec::new(),
        interval: None,
        having: Having::ANY,
        limit: 1,
    };
    let counted = store.aggregate(&tenant, &count, &context).await.map_err(text)?;
    let counted: u64 = counted.rows.iter().map(|row| row.count).sum();
    match counted == found.len() as u64 {
        true => Ok(found),
        false => Err(format!("writer {writer}: {} samples read, but {counted} counted", found.len())),
    }
}

/// A child that writes.
struct Writing {
    child: Child,
    said: Receiver<Said>,
    reader: Option<JoinHandle<()>>,
    first: Option<Said>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Mostly dead already.
        let _dead = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Writing {
    fn start(plan: &Plan, orders: &Orders) -> Result<Self> {
        let orders = serde_json::to_string(orders).map_err(text)?;
        let mut child = Command::new(&plan.program)
            .args(["write", &orders])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", plan.program.display()))?;
        let out = child.stdout.take().ok_or("a pipe")?;
        let (sender, said) = channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(io::Result::ok) {
                // Nobody listens any more after a failure.
                let _gone = Said::parse(&line).map(|said| sender.send(said));
            }
        });
        Ok(Self { child, said, reader: Some(reader), first: None })
    }

    /// Waits for `delay`, after the first acknowledgement if `until_first`; whether none had come.
    fn wait(&mut self, until_first: bool, delay: Duration) -> Result<bool> {
        if until_first {
            match self.said.recv_timeout(START) {
                Ok(first) => self.first = Some(first),
                Err(RecvTimeoutError::Timeout) => return Err("the child acknowledges nothing".to_owned()),
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        thread::sleep(delay);
        match self.child.try_wait().map_err(text)? {
            Some(_) => Err(format!("the child ended by itself: {}", self.complaint())),
            None => {
                self.first = self.first.take().or_else(|| self.said.try_recv().ok());
                Ok(self.first.is_none())
            }
        }
    }

    /// Kills the child; all that it has said.
    fn end(mut self) -> Result<Vec<Said>> {
        self.child.kill().map_err(text)?;
        self.child.wait().map_err(text)?;
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            return Err("the reader of acknowledgements panicked".to_owned());
        }
        Ok(self.first.take().into_iter().chain(self.said.try_iter()).collect())
    }

    fn complaint(&mut self) -> String {
        let error = self.child.stderr.take();
        error.and_then(|error| io::read_to_string(error).ok()).unwrap_or_default().trim().to_owned()
    }
}

pub(crate) fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
