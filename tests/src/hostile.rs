//! Clients that want a worker's memory: whether all of it stays within what the worker was told it may use.
//!
//! A worker with little memory is attacked in one way after the other, and what it holds, keeps. The kernel says how
//! much it ever had. The control tells the worker of much more memory than it is then judged by: it must be caught.

mod attacks;

use std::fmt;
use std::time::{Duration, Instant};

use crate::process;
use crate::worker::{Setup, Worker};

use attacks::ATTACKS;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// `storage.rocksdb.memory`, in bytes.
    pub memory: u64,
    /// How long each attack lasts at most.
    pub each: Duration,
    /// The control: the worker is told of eight times as much.
    pub unbounded: bool,
}

/// What all attacks came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Attacks.
    pub attacks: usize,
    /// Requests that were answered.
    pub answered: u64,
    /// Of these, refused: 4xx and 5xx.
    pub refused: u64,
    /// The most resident memory, in bytes.
    pub peak: u64,
    /// Bytes that the worker was told of.
    pub memory: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attacks, answered, refused, peak, memory } = self;
        write!(
            formatter,
            "{attacks} attacks, {answered} requests answered, {refused} of them refused; at most {} MiB resident, {:.2} \
             times the {} MiB allowed",
            peak >> 20,
            *peak as f64 / *memory as f64,
            memory >> 20,
        )
    }
}

/// The bound: a quarter more than the setting.
fn most(memory: u64) -> u64 {
    memory + memory / 4
}

/// A worker to attack: no limit of rates or cardinality protects it.
fn victim(run: &Run) -> Worker {
    let told = if run.unbounded { 8 * run.memory } else { run.memory };
    Setup::rocksdb()
        .with("storage.rocksdb.memory", told)
        .with("cardinality_limits.max_series_per_metric", u32::MAX)
        .with("cardinality_limits.max_metrics_per_tenant", u32::MAX)
        .with("server.body_timeout", "10s")
        .with("server.idle_timeout", "5s")
        .start()
}

/// Attacks a worker in every way; `tell` gets a line for each.
///
/// # Errors
/// It had more memory than it may, or didn't serve any more.
pub fn run(run: &Run, tell: &mut dyn FnMut(String)) -> Result<Summary, String> {
    let worker = victim(run);
    let mut summary = Summary { memory: run.memory, ..Summary::default() };
    tell(format!("at rest: {} MiB", worker.rss() >> 20));
    for (name, attack) in ATTACKS {
        let started = Instant::now();
        let (answered, refused) = attack(&worker, started + run.each).total();
        let peak = process::peak_rss(worker.pid());
        tell(format!(
            "{name}: {answered} answered, {refused} refused, {} MiB at most so far, {:.1} s",
            peak >> 20,
            started.elapsed().as_secs_f64()
        ));
        summary.attacks += 1;
        summary.answered += answered;
        summary.refused += refused;
        summary.peak = peak;
        if peak > most(run.memory) {
            let (peak, most) = (peak >> 20, most(run.memory) >> 20);
            return Err(format!("{name}: {peak} MiB were resident; {most} MiB are allowed"));
        }
        if worker.client().get("/api/v1/health/live").status != 200 || worker.log().contains("panicked") {
            return Err(format!("{name}: the worker doesn't live any more"));
        }
    }
    Ok(summary)
}
