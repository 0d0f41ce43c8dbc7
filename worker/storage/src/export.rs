//! How an export goes through a metric: which series it reads next, and of which times, so that no step
//! holds much more than a piece, however many series there are and however long each is.
//!
//! Nobody knows how many samples a series has before they are read. So a step takes as many series as the last ones
//! suggest; one that turns out to be too much is read again with fewer series. A single series that is too much for
//! one step is read in slices of time.

use std::ops::Range;

use async_trait::async_trait;

use crate::model::{SeriesSamples, TimeRange};
use crate::store::{Export, Result};

/// Series of the first step.
const FIRST_SERIES: usize = 64;
/// How much more or less a step takes than the one before.
const FACTOR: usize = 4;

/// An export of what is in memory already, stretch by stretch.
#[derive(Debug, Default)]
pub struct Copied(pub std::vec::IntoIter<SeriesSamples>);

#[async_trait]
impl Export for Copied {
    async fn next(&mut self) -> Result<Vec<SeriesSamples>> {
        Ok(self.0.next().into_iter().collect())
    }
}

/// Where an export stands.
#[derive(Debug)]
pub struct Walk {
    /// How many series there are, in the order in which they are read.
    count: usize,
    whole: TimeRange,
    /// About how many samples a step should bring.
    piece: usize,
    /// Most series of a step.
    most_series: usize,
    /// The next series.
    at: usize,
    /// How many are read at once.
    group: usize,
    /// The first time of the next series that hasn't been read.
    from: i64,
    /// How much time is read of a series that is too long for one step.
    width: i64,
}

/// What is read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The series, by their places in the order.
    pub series: Range<usize>,
    /// When.
    pub range: TimeRange,
    /// Reading may stop at so many samples, and then has met the first of them.
    pub most: usize,
}

/// What a step brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brought {
    /// Samples.
    pub samples: usize,
    /// Whether reading stopped, although there were more.
    pub stopped: bool,
    /// The time of the last sample.
    pub last: Option<i64>,
}

impl Walk {
    /// The way through `count` series, about `piece` samples and at most `most_series` series at a time.
    #[must_use]
    pub fn new(count: usize, whole: TimeRange, piece: usize, most_series: usize) -> Self {
        let (piece, most_series) = (piece.max(1), most_series.max(1));
        let group = FIRST_SERIES.min(most_series);
        Self { count, whole, piece, most_series, at: 0, group, from: whole.start(), width: i64::MAX }
    }

    /// What is read next; nothing at the end.
    #[must_use]
    pub fn next(&self) -> Option<Step> {
        if self.at >= self.count {
            return None;
        }
        if self.group == 1 {
            let until = self.from.saturating_add(self.width).min(self.whole.end());
            let range = TimeRange::new(self.from, until).unwrap_or(self.whole);
            return Some(Step { series: self.at..self.at + 1, range, most: self.piece });
        }
        let series = self.at..self.count.min(self.at + self.group);
        Some(Step { series, range: self.whole, most: 2 * self.piece })
    }

    /// Goes on behind `step`; whether what it brought counts. Else it was too much, and less is read next.
    pub fn done(&mut self, step: &Step, brought: Brought) -> bool {
        let single = step.series.len() == 1;
        if brought.stopped && !single {
            self.group = (step.series.len() / FACTOR).max(1);
            return false;
        }
        match brought.last.filter(|_| brought.stopped) {
            // So long took a piece; twice that may hold two, of which the first is taken.
            Some(last) => {
                self.width = last.saturating_sub(step.range.start()).saturating_add(1).saturating_mul(2);
                self.go_on(last.saturating_add(1));
            }
            None if single && step.range.end() < self.whole.end() => {
                if brought.samples * FACTOR < self.piece {
                    self.width = self.width.saturating_mul(4);
                }
                self.go_on(step.range.end());
            }
            None => self.next_series(step, brought.samples),
        }
        true
    }

    /// Reads the same series from `time` on.
    fn go_on(&mut self, time: i64) {
        self.group = 1;
        if time < self.whole.end() { self.from = time } else { self.leave(self.at + 1) }
    }

    fn next_series(&mut self, step: &Step, samples: usize) {
        let read = step.series.len();
        // A series that was read in slices says nothing of the others: with those that follow it grows again.
        let wanted = match samples {
            0 => read * FACTOR,
            _ if step.range != self.whole => FACTOR,
            samples => read.saturating_mul(self.piece) / samples,
        };
        self.group = wanted.clamp(read.div_ceil(FACTOR), read * FACTOR).clamp(1, self.most_series);
        self.leave(step.series.end);
    }

    fn leave(&mut self, next: usize) {
        (self.at, self.from, self.width) = (next, self.whole.start(), i64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over series with samples at these times, as a store does; what came of each, and the largest step.
    fn walked(series: &[Vec<i64>], whole: (i64, i64), piece: usize) -> (Vec<Vec<i64>>, usize, usize) {
        let mut walk = Walk::new(series.len(), TimeRange::new(whole.0, whole.1).unwrap(), piece, 100);
        let (mut found, mut largest, mut steps) = (vec![Vec::new(); series.len()], 0, 0);
        while let Some(step) = walk.next() {
            steps += 1;
            let of_step = |at: usize| series[at].iter().filter(|time| step.range.contains(**time));
            let all: Vec<(usize, i64)> =
                step.series.clone().flat_map(|at| of_step(at).map(move |time| (at, *time))).collect();
            let read = &all[..all.len().min(step.most)];
            let last = read.last().map(|(_, time)| *time);
            largest = largest.max(read.len());
            let brought = Brought { samples: read.len(), stopped: read.len() < all.len(), last };
            if walk.done(&step, brought) {
                read.iter().for_each(|(at, time)| found[*at].push(*time));
            }
        }
        (found, largest, steps)
    }

    #[test]
    fn every_sample_comes_once_and_in_order_whatever_the_shape() {
        let mut random = fastrand::Rng::with_seed(3);
        for case in 0..300 {
            let lengths = [0, 1, 3, 20, 500];
            let series: Vec<Vec<i64>> = (0..random.usize(..300))
                .map(|_| {
                    let most = lengths[random.usize(..lengths.len())];
                    let mut times: Vec<i64> = (0..most).map(|_| random.i64(-50..2_000)).collect();
                    times.sort_unstable();
                    times.dedup();
                    times
                })
                .collect();
            let piece = [1, 7, 100, 10_000][random.usize(..4)];
            let (found, largest, _) = walked(&series, (0, 1_500), piece);
            let expected: Vec<Vec<i64>> = series
                .iter()
                .map(|times| times.iter().copied().filter(|t| (0..1_500).contains(t)).collect())
                .collect();
            assert!(found == expected, "case {case}");
            assert!(largest <= 2 * piece);
        }
    }

    #[test]
    fn many_short_series_and_one_long_one_take_few_steps() {
        let short = vec![vec![5]; 100_000];
        let (_, _, steps) = walked(&short, (0, 10), 1_000);
        assert!(steps < 1_100, "{steps}");
        let long = vec![(0..200_000).collect::<Vec<i64>>()];
        let (_, _, steps) = walked(&long, (0, 1 << 40), 1_000);
        assert!(steps < 450, "{steps}");
    }

    #[test]
    fn silence_between_bursts_is_passed_quickly() {
        let bursts = (0..20).flat_map(|burst: i64| (0..3_000).map(move |at| burst * 1_000_000_000 + at));
        let series = vec![bursts.collect::<Vec<i64>>()];
        let (found, _, steps) = walked(&series, (0, 1 << 40), 1_000);
        assert_eq!(found, series);
        assert!(steps < 500, "{steps}");
    }

    #[test]
    fn the_last_millisecond_is_no_reason_to_walk_for_ever() {
        let (found, ..) = walked(&[vec![8, 9], vec![9]], (0, 10), 1);
        assert_eq!(found, [vec![8, 9], vec![9]]);
    }
}
