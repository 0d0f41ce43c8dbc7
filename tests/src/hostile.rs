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

/// What an attack came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Requests that were answered.
    pub answered: u64,
    /// Of these, refused: 4xx and 5xx.
    pub refused: u64,
    /// The most resident memory so far, in bytes.
    pub peak: u64,
    /// How long it took.
    pub took: Duration,
}

/// What all of them came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// One by one.
    pub outcomes: Vec<Outcome>,
    /// Bytes that the worker was told of.
    pub memory: u64,
}

/// Why a run failed.
#[derive(Debug, Clone)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peak = self.outcomes.last().map_or(0, |outcome| outcome.peak);
        let answered: u64 = self.outcomes.iter().map(|outcome| outcome.answered).sum();
        let refused: u64 = self.outcomes.iter().map(|outcome| outcome.refused).sum();
        write!(
            formatter,
            "{} attacks, {answered} requests answered, {refused} of them refused; at most {} MiB resident, {:.2} times \
             the {} MiB allowed",
            self.outcomes.len(),
            peak >> 20,
            peak as f64 / self.memory as f64,
            self.memory >> 20,
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
pub fn run(run: &Run, tell: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let worker = victim(run);
    let mut outcomes = Vec::new();
    tell(format!("at rest: {} MiB", worker.rss() >> 20));
    for (name, attack) in ATTACKS {
        let started = Instant::now();
        let counts = attack(&worker, started + run.each);
        let peak = process::peak_rss(worker.pid());
        let (answered, refused) = counts.total();
        let outcome = Outcome { name, answered, refused, peak, took: started.elapsed() };
        tell(format!(
            "{name}: {answered} answered, {refused} refused, {} MiB at most so far, {:.1} s",
            peak >> 20,
            outcome.took.as_secs_f64()
        ));
        outcomes.push(outcome);
        if peak > most(run.memory) {
            let (peak, most) = (peak >> 20, most(run.memory) >> 20);
            return Err(Failure(format!("{name}: {peak} MiB were resident; {most} MiB are allowed")));
        }
        if worker.client().get("/api/v1/health/live").status != 200 || worker.log().contains("panicked") {
            return Err(Failure(format!("{name}: the worker doesn't live any more")));
        }
    }
    Ok(Summary { outcomes, memory: run.memory })
}
