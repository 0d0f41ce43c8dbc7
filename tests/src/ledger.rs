//! What a crash may take and what it may not: every step that was acknowledged must stay done, and nothing
//! else may be but the one step of each writer that was under way.
//!
//! A step, a batch or a delete, follows from (seed, writer, number) alone, so that only numbers pass
//! between the program that writes and the one that checks. Each writer has series of its own and does
//! one step after the other; what a store must hold of it is known exactly, up to the step under way: all
//! or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// 2026-03-01 00:00 UTC less half a minute: a store that lives for a while sees midnight.
pub const BEGIN: i64 = 1_772_323_200_000 - 30_000;
const STEP: i64 = 40;
const DAY: i64 = 86_400_000;

/// A sample of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Which of the writer's series.
    pub series: u32,
    /// Unix milliseconds.
    pub time: i64,
    /// The value.
    pub value: f64,
}

/// What a writer does at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Writes a batch.
    Write(Vec<Row>),
    /// Deletes its metric's samples before this time, or all.
    Delete(Option<i64>),
}

/// Whether `writer` deletes now and then: it has its metric for itself.
#[must_use]
pub fn deletes(writer: u32) -> bool {
    writer % 2 == 1
}

/// What `writer` does as step `number`.
///
/// Mostly a batch of a few dozen rows, now and then of thousands; over ever more series; a little
/// disordered, so that batches overwrite each other and themselves, and sometimes a day late.
#[must_use]
pub fn step(seed: u64, writer: u32, number: u64) -> Step {
    // Hashed, since neighbouring seeds of this generator begin with much the same numbers.
    let place = [u64::from(writer).to_le_bytes(), number.to_le_bytes()].concat();
    let mut random = fastrand::Rng::with_seed(xxh3_64_with_seed(&place, seed));
    let now = BEGIN + STEP * i64::try_from(number).unwrap_or(0);
    if deletes(writer) && random.u8(..48) == 0 {
        let some = random.u8(..8) > 0;
        return Step::Delete(some.then(|| now - random.i64(1_000..30_000)));
    }
    let rows = if random.u8(..32) == 0 { random.u32(500..3_000) } else { random.u32(1..60) };
    let late = if random.u8(..32) == 0 { DAY } else { 0 };
    let known = 4 + u32::try_from(number / 8).unwrap_or(u32::MAX).min(400);
    let row = |_| Row {
        series: random.u32(..known),
        time: (now - late - random.i64(0..2_000)) / 10 * 10,
        value: f64::from(random.u32(..1_000_000)) / 100.0,
    };
    Step::Write((0..rows).map(row).collect())
}

/// Samples by series and time.
pub type Samples = BTreeMap<(u32, i64), f64>;

fn apply(samples: &mut Samples, step: &Step) {
    match step {
        Step::Write(rows) => samples.extend(rows.iter().map(|row| ((row.series, row.time), row.value))),
        Step::Delete(Some(before)) => samples.retain(|(_, time), _| time >= before),
        Step::Delete(None) => samples.clear(),
    }
}

/// What is known of one writer's samples.
#[derive(Debug, Default)]
struct Writer {
    /// What must be there.
    certain: Samples,
    /// The first step that is neither in `certain` nor left out; only this one may be under way.
    next: u64,
    /// Whether the one before was left out.
    skipped: bool,
}

/// The expectation of all writers.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    writers: Vec<Writer>,
}

/// What became of the step that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// It is done, wholly.
    Done,
    /// Nothing of it is to be seen.
    Absent,
}

/// How a store differs from what it must hold of one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The writer.
    pub writer: u32,
    /// Samples that must be there and aren't.
    pub lost: usize,
    /// Samples with a wrong value.
    pub wrong: usize,
    /// Samples that no step has written, or one has deleted.
    pub unexpected: usize,
    /// Samples answered more than once.
    pub doubled: usize,
    /// How many of the changes of the step under way are there, out of how many, when it isn't all or none.
    pub torn: Option<(usize, usize)>,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writer, lost, wrong, unexpected, doubled, torn } = self;
        write!(
            formatter,
            "writer {writer}: {lost} acked samples lost, {wrong} wrong, {unexpected} unexpected, {doubled} doubled"
        )?;
        match torn {
            Some((there, all)) => write!(formatter, "; {there} of {all} changes of the step under way"),
            None => Ok(()),
        }
    }
}

impl Ledger {
    /// An empty store's ledger.
    #[must_use]
    pub fn new(seed: u64, writers: u32) -> Self {
        Self { seed, writers: (0..writers).map(|_| Writer::default()).collect() }
    }

    /// The step of `writer` that comes next.
    #[must_use]
    pub fn next(&self, writer: u32) -> u64 {
        self.writers[writer as usize].next
    }

    /// The last step of `writer` that is done, if it may be done again without a change; otherwise the next
    /// one. Only for after a check: where the next one may be done as well, it is that one.
    #[must_use]
    pub fn again(&self, writer: u32) -> u64 {
        let own = &self.writers[writer as usize];
        if own.skipped { own.next } else { own.next.saturating_sub(1) }
    }

    /// Samples that must be there.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.writers.iter().map(|writer| writer.certain.len()).sum()
    }

    /// Notes that a step was acknowledged; one before the next was done again. Returns its samples.
    ///
    /// # Panics
    /// When a writer has left out a step: the program that writes is broken.
    pub fn acked(&mut self, writer: u32, number: u64) -> usize {
        let step = step(self.seed, writer, number);
        let own = &mut self.writers[writer as usize];
        assert!(number <= own.next, "writer {writer} acked step {number}, but never {}", own.next);
        if number == own.next {
            apply(&mut own.certain, &step);
            own.next += 1;
            own.skipped = false;
        }
        match step {
            Step::Write(rows) => rows.len(),
            Step::Delete(_) => 0,
        }
    }

    /// Compares what a store holds of `writer`, and learns from it what became of the step under way:
    /// what was there once must stay.
    ///
    /// # Errors
    /// The difference.
    pub fn check(&mut self, writer: u32, found: &[(u32, i64, f64)]) -> Result<UnderWay, Violation> {
        let own = &mut self.writers[writer as usize];
        let held: Samples = found.iter().map(|(series, time, value)| ((*series, *time), *value)).collect();
        let doubled = found.len() - held.len();
        if doubled == 0 && held == own.certain {
            return Ok(UnderWay::Absent);
        }
        let mut with = own.certain.clone();
        apply(&mut with, &step(self.seed, writer, own.next));
        if doubled == 0 && held == with {
            own.certain = with;
            own.next += 1;
            own.skipped = false;
            return Ok(UnderWay::Done);
        }
        Err(difference(writer, &own.certain, &with, &held, doubled))
    }

    /// Leaves out the step that was under way and is absent: it must stay so.
    pub fn skip(&mut self, writer: u32) {
        let own = &mut self.writers[writer as usize];
        own.next += 1;
        own.skipped = true;
    }
}

fn difference(writer: u32, before: &Samples, after: &Samples, held: &Samples, doubled: usize) -> Violation {
    let either = |key: &(u32, i64)| [before.get(key).copied(), after.get(key).copied()];
    let must_be = |key: &&(u32, i64)| either(key).iter().all(Option::is_some);
    let may_be = |key: &(u32, i64)| either(key).iter().any(Option::is_some);
    let lost = before.keys().filter(must_be).filter(|key| !held.contains_key(key)).count();
    let wrong =
        held.iter().filter(|(key, value)| may_be(key) && !either(key).contains(&Some(**value))).count();
    let unexpected = held.keys().filter(|key| !may_be(key)).count();
    let changed = |key: &&(u32, i64)| before.get(key) != after.get(key);
    let changed: BTreeSet<_> = before.keys().chain(after.keys()).filter(changed).collect();
    let there = changed.iter().filter(|key| held.get(key) == after.get(key)).count();
    let torn = (there > 0 && there < changed.len()).then_some((there, changed.len()));
    Violation { writer, lost, wrong, unexpected, doubled, torn }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(samples: &Samples) -> Vec<(u32, i64, f64)> {
        samples.iter().map(|((series, time), value)| (*series, *time, *value)).collect()
    }

    fn ledger_of(steps: u64) -> (Ledger, Samples) {
        let mut ledger = Ledger::new(9, 2);
        let mut samples = Samples::new();
        for number in 0..steps {
            apply(&mut samples, &step(9, 0, number));
            ledger.acked(0, number);
        }
        (ledger, samples)
    }

    #[test]
    fn a_step_is_always_the_same_and_batches_overwrite_each_other() {
        assert_eq!(step(1, 2, 3), step(1, 2, 3));
        assert_ne!(step(1, 2, 3), step(1, 4, 3));
        let (mut ledger, samples) = ledger_of(100);
        let rows: usize = (0..100).map(|number| ledger.acked(0, number)).sum();
        assert_eq!(ledger.samples(), samples.len());
        assert!(samples.len() < rows, "some rows overwrite others");
        let is_delete = |number: &u64| matches!(step(9, 1, *number), Step::Delete(_));
        assert!((0..1_000).filter(is_delete).count() > 5);
    }

    #[test]
    fn what_was_acked_is_expected_and_what_was_under_way_is_all_or_nothing() {
        let (mut ledger, mut samples) = ledger_of(50);
        assert_eq!(ledger.check(0, &held(&samples)), Ok(UnderWay::Absent));
        let Step::Write(under_way) = step(9, 0, 50) else { panic!("the first writer only writes") };
        let mut torn = samples.clone();
        apply(&mut torn, &Step::Write(under_way[..1].to_vec()));
        let violation = ledger.check(0, &held(&torn)).unwrap_err();
        assert!(violation.torn.is_some() && violation.lost == 0, "{violation}");
        apply(&mut samples, &Step::Write(under_way));
        assert_eq!(ledger.check(0, &held(&samples)), Ok(UnderWay::Done));
        assert_eq!(ledger.next(0), 51);
        // Once seen, it may not go again.
        let (_, before) = ledger_of(50);
        assert!(ledger.check(0, &held(&before)).is_err());
    }

    #[test]
    fn a_delete_under_way_is_all_or_nothing_too() {
        let number = (50..).find(|number| matches!(step(9, 1, *number), Step::Delete(Some(_)))).unwrap();
        let of_all = |steps| {
            let mut ledger = Ledger::new(9, 2);
            let mut samples = Samples::new();
            for number in 0..steps {
                apply(&mut samples, &step(9, 1, number));
                ledger.acked(1, number);
            }
            (ledger, samples)
        };
        let (mut ledger, before) = of_all(number);
        let (_, after) = of_all(number + 1);
        assert!(after.len() + 1 < before.len());
        let mut partly = after.clone();
        partly.extend(before.iter().find(|(key, _)| !after.contains_key(key)));
        let violation = ledger.check(1, &held(&partly)).unwrap_err();
        assert!(violation.torn.is_some() && violation.lost == 0, "{violation}");
        assert_eq!(ledger.check(1, &held(&before)), Ok(UnderWay::Absent));
        assert_eq!(ledger.check(1, &held(&after)), Ok(UnderWay::Done));
        // What is deleted may not come back.
        assert!(ledger.check(1, &held(&partly)).unwrap_err().unexpected == 1);
    }

    #[test]
    fn each_kind_of_difference_is_counted() {
        let (mut ledger, samples) = ledger_of(50);
        let whole = held(&samples);
        assert_eq!(ledger.check(0, &whole[1..]).unwrap_err().lost, 1);
        let doubled = [&whole[..], &whole[..2]].concat();
        assert_eq!(ledger.check(0, &doubled).unwrap_err().doubled, 2);
        let mut wrong = whole.clone();
        wrong[7].2 = -1.0;
        assert_eq!(ledger.check(0, &wrong).unwrap_err().wrong, 1);
        let mut unexpected = whole.clone();
        unexpected.push((0, 5, 1.0));
        assert_eq!(ledger.check(0, &unexpected).unwrap_err().unexpected, 1);
        assert_eq!(ledger.check(1, &[]), Ok(UnderWay::Absent));
    }

    #[test]
    fn a_batch_that_was_skipped_must_stay_away() {
        let (mut ledger, mut samples) = ledger_of(20);
        assert_eq!(ledger.again(0), 19);
        ledger.skip(0);
        assert_eq!((ledger.next(0), ledger.again(0)), (21, 21));
        apply(&mut samples, &step(9, 0, 20));
        assert!(ledger.check(0, &held(&samples)).is_err());
    }
}
