//! What a crash may take and what it may not: every batch that was acknowledged, and nothing else but
//! the one batch of each writer that was under way.
//!
//! A batch follows from (seed, writer, number) alone, so that only numbers pass between the program
//! that writes and the one that checks. Each writer has series of its own and writes one batch after
//! the other; what a store must hold of it is known exactly, up to the batch under way: all or nothing.

use std::collections::BTreeMap;
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

/// What `writer` writes as batch `number`, in order.
///
/// Mostly a few dozen rows, now and then thousands; over ever more series; a little disordered, so that
/// batches overwrite each other and themselves, and sometimes a day late.
#[must_use]
pub fn batch(seed: u64, writer: u32, number: u64) -> Vec<Row> {
    // Hashed, since neighbouring seeds of this generator begin with much the same numbers.
    let place = [u64::from(writer).to_le_bytes(), number.to_le_bytes()].concat();
    let mut random = fastrand::Rng::with_seed(xxh3_64_with_seed(&place, seed));
    let rows = if random.u8(..32) == 0 { random.u32(500..3_000) } else { random.u32(1..60) };
    let late = if random.u8(..32) == 0 { DAY } else { 0 };
    let known = 4 + u32::try_from(number / 8).unwrap_or(u32::MAX).min(400);
    let now = BEGIN + STEP * i64::try_from(number).unwrap_or(0) - late;
    let row = |_| Row {
        series: random.u32(..known),
        time: (now - random.i64(0..2_000)) / 10 * 10,
        value: f64::from(random.u32(..1_000_000)) / 100.0,
    };
    (0..rows).map(row).collect()
}

/// Samples by series and time.
pub type Samples = BTreeMap<(u32, i64), f64>;

fn apply(samples: &mut Samples, rows: &[Row]) {
    samples.extend(rows.iter().map(|row| ((row.series, row.time), row.value)));
}

/// What is known of one writer's samples.
#[derive(Debug, Default)]
struct Writer {
    /// What must be there.
    certain: Samples,
    /// The first batch that is neither in `certain` nor left out; only this one may be under way.
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

/// What became of the batch that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// It is there, whole.
    Stored,
    /// Nothing of it is there.
    Absent,
}

/// How a store differs from what it must hold of one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The writer.
    pub writer: u32,
    /// Samples that were acknowledged and aren't there.
    pub lost: usize,
    /// Samples with a wrong value.
    pub wrong: usize,
    /// Samples that no acknowledged batch has written.
    pub unexpected: usize,
    /// Samples answered more than once.
    pub doubled: usize,
    /// Rows of the batch under way that are there, out of how many, when it isn't all or none.
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
            Some((there, all)) => write!(formatter, "; {there} of {all} rows of the batch under way"),
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

    /// The batch of `writer` that comes next.
    #[must_use]
    pub fn next(&self, writer: u32) -> u64 {
        self.writers[writer as usize].next
    }

    /// The last batch of `writer` that is stored, if it may be written again without a change; otherwise
    /// the next one. Only for after a check: where the next one may be stored as well, it is that one.
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

    /// Notes that a batch was acknowledged; a batch before the next one was written again. Returns its rows.
    ///
    /// # Panics
    /// When a writer has left out a batch: the program that writes is broken.
    pub fn acked(&mut self, writer: u32, number: u64) -> usize {
        let rows = batch(self.seed, writer, number);
        let own = &mut self.writers[writer as usize];
        assert!(number <= own.next, "writer {writer} acked batch {number}, but never {}", own.next);
        if number == own.next {
            apply(&mut own.certain, &rows);
            own.next += 1;
            own.skipped = false;
        }
        rows.len()
    }

    /// Compares what a store holds of `writer`, and learns from it what became of the batch under way:
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
        let under_way = batch(self.seed, writer, own.next);
        let mut with = own.certain.clone();
        apply(&mut with, &under_way);
        if doubled == 0 && held == with {
            own.certain = with;
            own.next += 1;
            own.skipped = false;
            return Ok(UnderWay::Stored);
        }
        Err(difference(writer, &own.certain, &with, &held, doubled))
    }

    /// Leaves out the batch that was under way and is absent: it must stay so.
    pub fn skip(&mut self, writer: u32) {
        let own = &mut self.writers[writer as usize];
        own.next += 1;
        own.skipped = true;
    }
}

fn difference(writer: u32, certain: &Samples, with: &Samples, held: &Samples, doubled: usize) -> Violation {
    let lost = certain.keys().filter(|key| !held.contains_key(key)).count();
    let either = |key, value| certain.get(key) == Some(value) || with.get(key) == Some(value);
    let wrong = held.iter().filter(|(key, value)| with.contains_key(key) && !either(key, value)).count();
    let unexpected = held.keys().filter(|key| !with.contains_key(key)).count();
    let fresh: Vec<_> = with.iter().filter(|(key, value)| certain.get(key) != Some(value)).collect();
    let there = fresh.iter().filter(|(key, value)| held.get(key) == Some(value)).count();
    let torn = (there > 0 && there < fresh.len()).then_some((there, fresh.len()));
    Violation { writer, lost, wrong, unexpected, doubled, torn }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(samples: &Samples) -> Vec<(u32, i64, f64)> {
        samples.iter().map(|((series, time), value)| (*series, *time, *value)).collect()
    }

    fn ledger_of(batches: u64) -> (Ledger, Samples) {
        let mut ledger = Ledger::new(9, 2);
        let mut samples = Samples::new();
        for number in 0..batches {
            apply(&mut samples, &batch(9, 1, number));
            ledger.acked(1, number);
        }
        (ledger, samples)
    }

    #[test]
    fn a_batch_is_always_the_same_and_overwrites_others() {
        assert_eq!(batch(1, 2, 3), batch(1, 2, 3));
        assert_ne!(batch(1, 2, 3), batch(1, 3, 3));
        let (ledger, samples) = ledger_of(100);
        let rows: usize = (0..100).map(|number| batch(9, 1, number).len()).sum();
        assert_eq!(ledger.samples(), samples.len());
        assert!(samples.len() < rows, "some rows overwrite others");
    }

    #[test]
    fn what_was_acked_is_expected_and_what_was_under_way_is_all_or_nothing() {
        let (mut ledger, mut samples) = ledger_of(50);
        assert_eq!(ledger.check(1, &held(&samples)), Ok(UnderWay::Absent));
        let under_way = batch(9, 1, 50);
        let mut torn = samples.clone();
        apply(&mut torn, &under_way[..1]);
        let violation = ledger.check(1, &held(&torn)).unwrap_err();
        assert!(violation.torn.is_some() && violation.lost == 0, "{violation}");
        apply(&mut samples, &under_way);
        assert_eq!(ledger.check(1, &held(&samples)), Ok(UnderWay::Stored));
        assert_eq!(ledger.next(1), 51);
        // Once seen, it may not go again.
        let (_, before) = ledger_of(50);
        assert!(ledger.check(1, &held(&before)).is_err());
    }

    #[test]
    fn each_kind_of_difference_is_counted() {
        let (mut ledger, samples) = ledger_of(50);
        let whole = held(&samples);
        assert_eq!(ledger.check(1, &whole[1..]).unwrap_err().lost, 1);
        let doubled = [&whole[..], &whole[..2]].concat();
        assert_eq!(ledger.check(1, &doubled).unwrap_err().doubled, 2);
        let mut wrong = whole.clone();
        wrong[7].2 = -1.0;
        assert_eq!(ledger.check(1, &wrong).unwrap_err().wrong, 1);
        let mut unexpected = whole.clone();
        unexpected.push((0, 5, 1.0));
        assert_eq!(ledger.check(1, &unexpected).unwrap_err().unexpected, 1);
        assert_eq!(ledger.check(0, &[]), Ok(UnderWay::Absent));
    }

    #[test]
    fn a_batch_that_was_skipped_must_stay_away() {
        let (mut ledger, mut samples) = ledger_of(20);
        assert_eq!(ledger.again(1), 19);
        ledger.skip(1);
        assert_eq!((ledger.next(1), ledger.again(1)), (21, 21));
        apply(&mut samples, &batch(9, 1, 20));
        assert!(ledger.check(1, &held(&samples)).is_err());
    }
}
