//! One workload over a disk that fails at each of its calls, in every way, once or from there on.
//!
//! A life: a store is opened, written to, sealed, merged, asked, closed, and opened once more, until the fault and behind
//! it. Whatever it refuses must be an error; whatever it acknowledged must be there; what it answers must be right
//! while the disk fails. A full disk that has room again takes writes and seals without a restart. Then the disk is well
//! again, and the store must open, hold what the ledger says, pass its check, and take another write.

pub mod disk;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use luminate_storage::rocksdb::check::check;
use luminate_storage::rocksdb::engine::{Ack, RocksDb};
use luminate_storage::store::{MetricsStore, StoreError};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::crash::{child, read, text};
use crate::ledger::{self, Ledger};
use disk::{Call, Disk, Fault, Kind};

const WRITERS: u32 = 4;
/// Steps of each writer in one session.
const STEPS: u32 = 10;
const SESSIONS: u32 = 2;
/// Lives at once: mostly they wait for a store that looks at its disk again.
const AT_ONCE: usize = 8;
/// A life takes a quarter of a second.
const LIFE: Duration = Duration::from_secs(60);
/// A store that was out of room looks again after seconds.
const RECOVERY: Duration = Duration::from_secs(12);
const PROGRESS: Duration = Duration::from_secs(10);

/// How a disk fails, and whether it goes on: once, or both once and from there on.
pub const CASES: [(Kind, &[bool]); 4] = [
    (Kind::Broken, &[false, true]),
    (Kind::Full, &[false, true]),
    (Kind::Short, &[false, true]),
    (Kind::Unreadable, &[false]),
];

/// A run of the harness.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What the workload and the choice of points follow from.
    pub seed: u64,
    /// So many points by chance; every one if absent.
    pub points: Option<u32>,
    /// The point to begin with, from 0 on: that of a failure, to see it again.
    pub from: usize,
    /// Writes are lost without a word: the run must fail.
    pub control: bool,
}

/// What a run has seen, in one line.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Lives.
    pub lives: u32,
    /// Lives whose fault struck, by what it struck first.
    pub struck: BTreeMap<(Kind, Call), u32>,
    /// Steps acknowledged.
    pub acked: u64,
    /// Steps, seals, merges, openings and closings refused.
    pub refused: u64,
    /// Samples read back.
    pub read: u64,
    /// Lives whose seals waited for a restart though there was room again: RocksDB itself takes nothing more.
    pub given_up: u32,
}

impl Summary {
    fn add(&mut self, other: Self) {
        let Self { seed: _, lives, struck, acked, refused, read, given_up } = other;
        self.lives += lives;
        self.acked += acked;
        self.refused += refused;
        self.read += read;
        self.given_up += given_up;
        for (of, lives) in struck {
            *self.struck.entry(of).or_default() += lives;
        }
    }

    /// Lives whose fault struck.
    #[must_use]
    pub fn hits(&self) -> u32 {
        self.struck.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, lives, acked, refused, read, given_up, .. } = self;
        write!(
            formatter,
            "{lives} lives, {} faults: {acked} steps acked, none lost, none doubled; {refused} calls refused; \
             {read} samples read; {given_up} sealed after a restart only; seed {seed};",
            self.hits()
        )?;
        let mut of_kind: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
        for ((kind, call), lives) in &self.struck {
            of_kind.entry(*kind).or_default().push(format!("{call:?} {lives}"));
        }
        for (kind, calls) in of_kind {
            write!(formatter, " {kind:?}: {}", calls.join(", "))?;
        }
        Ok(())
    }
}

type Result<T> = std::result::Result<T, String>;

/// Carries out a plan, telling `progress` a line every few seconds.
///
/// # Errors
/// The first thing that must not be, with the seed and the fault.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Summary> {
    let mut summary = Summary { seed: plan.seed, ..Summary::default() };
    let faults = faults(plan, &Bench::new()?)?;
    let (next, begun, mut shown) = (AtomicUsize::new(plan.from), Instant::now(), Instant::now());
    let (sender, lived) = channel();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (sender, faults, next) = (sender.clone(), &faults, &next);
            scope.spawn(move || {
                let bench = Bench::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(fault) = faults.get(at) else { break };
                    let life = bench.as_ref().map_err(Clone::clone).and_then(|bench| {
                        let life = bench.live(plan.seed, *fault, at)?;
                        Ok(life.summary)
                    });
                    let life =
                        life.map_err(|what| format!("point {at}, {fault}: {what}; seed {}", plan.seed));
                    let failed = life.is_err();
                    if sender.send(life).is_err() || failed {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for life in lived {
            summary.add(life.inspect_err(|_| next.store(faults.len(), Ordering::Relaxed))?);
            if shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                let (done, all) = (u64::from(summary.lives), faults.len() - plan.from);
                let left = begun.elapsed().as_secs() * (all as u64 - done) / done.max(1);
                progress(&format!("{done} of {all} points, {left} s left: {summary}"));
            }
        }
        Ok(summary)
    })
}

/// Where lives are lived one after the other.
struct Bench {
    disk: Disk,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Result<Self> {
        let disk = Disk::new().map_err(|error| format!("no disk that fails: {error}"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Ok(Self { disk, runtime: runtime.map_err(text)? })
    }

    fn live(&self, seed: u64, fault: Fault, number: usize) -> Result<Life<'_>> {
        let mut life = Life::new(seed, &self.disk, fault, number);
        self.runtime.block_on(life.live())?;
        Ok(life)
    }
}

/// The faults of a plan: how many calls there are is seen in lives without one.
fn faults(plan: &Plan, bench: &Bench) -> Result<Vec<Fault>> {
    let mut all = Vec::new();
    let cases = if plan.control { &[(Kind::Lost, &[false][..])][..] } else { &CASES };
    for (kind, goes_on) in cases {
        let none = Fault { kind: *kind, at: u64::MAX, lasting: false };
        let life = bench.live(plan.seed, none, usize::MAX);
        let life = life.map_err(|what| format!("undisturbed: {what}; seed {}", plan.seed))?;
        for lasting in *goes_on {
            all.extend((1..=life.calls).map(|at| Fault { kind: *kind, at, lasting: *lasting }));
        }
    }
    if let Some(points) = plan.points {
        fastrand::Rng::with_seed(plan.seed).shuffle(&mut all);
        all.truncate(points as usize);
    }
    Ok(all)
}

/// One store over a disk that fails once.
struct Life<'a> {
    seed: u64,
    disk: &'a Disk,
    fault: Fault,
    path: PathBuf,
    ledger: Ledger,
    /// Writers whose step was refused twice.
    stopped: [bool; WRITERS as usize],
    /// What the fault struck first, where it is over before the life is.
    struck: Option<Call>,
    /// What it has seen.
    summary: Summary,
    /// Calls that the fault concerned.
    calls: u64,
}

impl<'a> Life<'a> {
    fn new(seed: u64, disk: &'a Disk, fault: Fault, number: usize) -> Self {
        Self {
            seed,
            disk,
            fault,
            path: disk.path().join(format!("store-{number}")),
            ledger: Ledger::new(seed, WRITERS),
            stopped: [false; WRITERS as usize],
            struck: None,
            summary: Summary::default(),
            calls: 0,
        }
    }

    async fn live(&mut self) -> Result<()> {
        let lived = timeout(LIFE, self.all()).await;
        self.disk.set(None);
        lived.map_err(|_| format!("it hangs for {} s", LIFE.as_secs()))??;
        std::fs::remove_dir_all(&self.path).map_err(text)
    }

    async fn all(&mut self) -> Result<()> {
        // 1. What fails, and behind it.
        self.disk.set(Some(self.fault));
        for session in 0..SESSIONS {
            if let Some(store) =
                self.allow("open", RocksDb::open(child::options(&self.path, Ack::Durable)))?
            {
                let worked = self.work(&store, session).await;
                let closed = store.close().await;
                worked?;
                self.allow("close", closed)?;
            }
        }
        let (calls, struck) = self.disk.seen();
        self.calls = calls;
        self.disk.set(None);
        // 2. The disk is well again.
        self.recovered().await?;
        let report = check(&self.path, &mut |_, _| {}).map_err(|error| format!("the check: {error}"))?;
        if !report.is_sound() {
            return Err(format!("the check finds damage: {:?}", report.damage));
        }
        self.summary.lives = 1;
        if let Some(call) = self.struck.or(struck) {
            *self.summary.struck.entry((self.fault.kind, call)).or_default() += 1;
        }
        Ok(())
    }

    /// What is done, if it is; an error is allowed once the disk has failed.
    fn allow<T>(&mut self, what: &str, result: std::result::Result<T, StoreError>) -> Result<Option<T>> {
        match (result, self.struck.or(self.disk.seen().1)) {
            (Ok(done), _) => Ok(Some(done)),
            (Err(_), Some(_)) => {
                self.summary.refused += 1;
                Ok(None)
            }
            (Err(error), None) => Err(format!("{what} fails while the disk doesn't: {error}")),
        }
    }

    async fn work(&mut self, store: &RocksDb, session: u32) -> Result<()> {
        for at in 0..STEPS {
            for writer in 0..WRITERS {
                // A second try: a fault that passes must not be the end.
                if !self.stopped[writer as usize] && !self.step(store, writer).await? {
                    self.stopped[writer as usize] = !self.step(store, writer).await?;
                }
            }
            match at {
                3 | 6 => drop(self.allow("a seal", store.seal().await)?),
                7 => drop(self.allow("a merge", store.merge().await)?),
                _ => {}
            }
            if at % 4 == 2 {
                self.compare(store).await?;
            }
        }
        if self.fault.kind == Kind::Full && session + 1 == SESSIONS {
            self.resumes(store).await?;
        }
        Ok(())
    }

    /// Does the next step of a writer; whether it was acknowledged.
    async fn step(&mut self, store: &RocksDb, writer: u32) -> Result<bool> {
        let number = self.ledger.next(writer);
        let step = ledger::step(self.seed, writer, number);
        let done = child::perform(store, writer, &step).await;
        let acked = self.allow("a step", done)?.is_some();
        if acked {
            self.ledger.acked(writer, number);
            self.summary.acked += 1;
        }
        Ok(acked)
    }

    /// What a store answers must be right; while its disk can't be read, it may answer nothing.
    async fn compare(&mut self, store: &RocksDb) -> Result<()> {
        for writer in 0..WRITERS {
            match read(store, writer).await {
                Ok(found) => {
                    self.summary.read += found.len() as u64;
                    self.ledger.check(writer, &found).map_err(text)?;
                }
                Err(_) if self.fault.kind == Kind::Unreadable && self.disk.seen().1.is_some() => {
                    self.summary.refused += 1;
                }
                Err(error) => return Err(format!("a question: {error}")),
            }
        }
        Ok(())
    }

    /// There is room again: writes go on without a restart, and seals too, unless RocksDB has given up; then health says so.
    async fn resumes(&mut self, store: &RocksDb) -> Result<()> {
        self.struck = self.disk.seen().1;
        if self.struck.is_none() {
            return Ok(());
        }
        self.disk.set(Some(Fault { at: u64::MAX, lasting: false, ..self.fault }));
        let until = Instant::now() + RECOVERY;
        let mut last = String::new();
        let mut writers: Vec<u32> = (0..WRITERS).collect();
        while Instant::now() < until {
            let mut left = Vec::new();
            for writer in writers {
                let step = ledger::step(self.seed, writer, self.ledger.next(writer));
                match child::perform(store, writer, &step).await {
                    Ok(()) => {
                        self.ledger.acked(writer, self.ledger.next(writer));
                        self.summary.acked += 1;
                    }
                    Err(error) => {
                        last = text(error);
                        left.push(writer);
                    }
                }
            }
            writers = left;
            match store.seal().await {
                Ok(()) if writers.is_empty() => return Ok(()),
                Ok(()) => {}
                Err(error) => last = text(error),
            }
            sleep(Duration::from_millis(50)).await;
        }
        if writers.is_empty() && store.health().await.degraded.iter().any(|(part, _)| *part == "seal") {
            self.summary.given_up += 1;
            return Ok(());
        }
        Err(format!("there is room again, but after {} s: {last}", RECOVERY.as_secs()))
    }

    async fn recovered(&mut self) -> Result<()> {
        let open = |path: &Path| RocksDb::open(child::options(path, Ack::Durable));
        let store = open(&self.path).map_err(|error| format!("the store can't be opened: {error}"))?;
        self.compare(&store).await?;
        for writer in 0..WRITERS {
            if !self.step(&store, writer).await? {
                return Err("a write is refused by a store that was opened again".to_owned());
            }
        }
        self.compare(&store).await?;
        store.close().await.map_err(|error| format!("it can't be closed: {error}"))
    }
}
