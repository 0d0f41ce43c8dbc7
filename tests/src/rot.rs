//! Flips bytes of a store that lies on a disk, again and again, and compares what it says afterwards with
//! what it said before.
//!
//! A cycle: a copy of a store of known content, in which a byte, or some, of one file is changed. The copy
//! is checked as `luminate-worker check` does, and then opened and asked everything. It may refuse to open;
//! a question may fail; but no answer may differ. And where it refuses, or a question fails, the check must
//! have said so: what it calls sound is sound.
//!
//! The last commits of every store repeat the one before. A store that was killed can't tell damage to its
//! last records from writes that were never finished, and may leave them out; here that changes no answer.

mod flip;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use luminate_storage::rocksdb::check::check;

use flip::{Flip, Kind};
use store::{Asked, Original};

/// Flips of one store, before another is made.
const FLIPS_OF_A_STORE: u32 = 250;
const PROGRESS: Duration = Duration::from_secs(10);
/// A flip after which nothing ends within this hangs for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// A fault put in on purpose, which the harness must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// Flips lie in records of the log, whose checksum is made to fit: as if the store verified none.
    FittingChecksums,
    /// The check finds nothing, whatever there is.
    BlindCheck,
}

/// A run of the harness.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everything random follows from.
    pub seed: u64,
    /// Flips.
    pub flips: u32,
    /// What is wrong on purpose.
    pub fault: Fault,
}

/// What became of the flips in one kind of file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Flips.
    pub flips: u32,
    /// Of them: the check found damage.
    pub found: u32,
    /// The store refused to open.
    pub refused: u32,
    /// It opened, and a question failed.
    pub failed: u32,
    /// The check found damage, and no question met it.
    pub unmet: u32,
}

/// What a run has seen.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Stores.
    pub stores: u32,
    /// Questions asked.
    pub questions: u64,
    /// By kind of file.
    pub files: BTreeMap<Kind, Tally>,
}

impl Summary {
    /// All flips.
    #[must_use]
    pub fn flips(&self) -> u32 {
        self.files.values().map(|tally| tally.flips).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flips, stores, questions) = (self.flips(), self.stores, self.questions);
        write!(
            formatter,
            "{flips} flips in {stores} stores, {questions} questions, no wrong answer, none unseen by check;"
        )?;
        for (kind, tally) in &self.files {
            let Tally { flips, found, refused, failed, unmet } = tally;
            write!(
                formatter,
                " {kind}: {flips} flips, {found} found ({refused} refused, {failed} reported, {unmet} not met);"
            )?;
        }
        write!(formatter, " seed {}", self.seed)
    }
}

/// Why a run has failed.
#[derive(Debug)]
pub struct Failure {
    /// The flip after which it was seen.
    pub flip: u32,
    /// What was seen.
    pub what: String,
    /// The run's seed.
    pub seed: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "after flip {}: {}; seed {}", self.flip, self.what, self.seed)
    }
}

impl std::error::Error for Failure {}

type Result<T> = std::result::Result<T, String>;

/// Carries out a plan, telling `progress` a line every few seconds.
///
/// # Errors
/// The first thing that must not be.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> std::result::Result<Summary, Failure> {
    let mut summary = Summary { seed: plan.seed, ..Summary::default() };
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let (started, mut shown) = (Instant::now(), Instant::now());
    let mut original: Option<Original> = None;
    for number in 0..plan.flips {
        let failed = |what| Failure { flip: number + 1, what, seed: plan.seed };
        if number % FLIPS_OF_A_STORE == 0 || original.is_none() {
            summary.stores += 1;
            original = Some(Original::make(random.u64(..), summary.stores).map_err(failed)?);
        }
        let Some(own) = &original else { continue };
        cycle(own, plan.fault, &mut random, &mut summary).map_err(failed)?;
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            let rate = f64::from(number + 1) / started.elapsed().as_secs_f64();
            let left = f64::from(plan.flips - number - 1) / rate;
            progress(&format!("{} of {} flips, {rate:.1}/s, {left:.0} s left", number + 1, plan.flips));
        }
    }
    Ok(summary)
}

/// One flip in a copy of `original`.
fn cycle(original: &Original, fault: Fault, random: &mut fastrand::Rng, summary: &mut Summary) -> Result<()> {
    let copy = original.copy()?;
    let flip = match fault {
        Fault::FittingChecksums => Flip::in_a_record(copy.path(), random)?,
        _ => Flip::anywhere(copy.path(), random)?,
    };
    flip.apply()?;
    let _watched = Watch::begin(format!("{flip}; seed {}", summary.seed));
    let damaged = fault != Fault::BlindCheck && is_damaged(copy.path());
    let asked = original.ask(copy.path());
    let tally = summary.files.entry(flip.kind).or_default();
    tally.flips += 1;
    tally.found += u32::from(damaged);
    match asked {
        Asked::Refused(_) => tally.refused += 1,
        Asked::Failed { questions, .. } => {
            tally.failed += 1;
            summary.questions += questions;
        }
        Asked::Right { questions } => {
            tally.unmet += u32::from(damaged);
            summary.questions += questions;
        }
        Asked::Wrong(why) => return Err(format!("a wrong answer after {flip}: {why}")),
    }
    match asked {
        Asked::Refused(why) | Asked::Failed { why, .. } if !damaged => {
            Err(format!("the check called it sound after {flip}, but: {why}"))
        }
        _ => Ok(()),
    }
}

/// Ends the process when it lives too long: a thread that hangs can't be ended otherwise.
struct Watch(#[allow(dead_code, reason = "dropping it says that the cycle has ended")] Sender<()>);

impl Watch {
    fn begin(what: String) -> Self {
        let (sender, ended) = channel();
        thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                println!("failed: nothing ends after {what}");
                std::process::exit(1);
            }
        });
        Self(sender)
    }
}

/// Whether the check finds damage, or a folder that it can't read.
fn is_damaged(folder: &Path) -> bool {
    check(folder, &mut |_, _| {}).map_or(true, |report| !report.is_sound())
}
