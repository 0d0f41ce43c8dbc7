//! Windows of time: buckets aligned to the epoch, or the whole range as one.

use std::ops::{Range, RangeInclusive};

use crate::model::TimeRange;

const DAY: i64 = 86_400_000;

/// The windows that a range falls into, numbered from 0 in time order.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Milliseconds of a bucket; absent when the whole range is one window.
    width: Option<i64>,
    /// The first bucket's number since the epoch.
    first: i64,
    count: u64,
}

impl Windows {
    /// Buckets of `width` milliseconds (> 0) over `range`.
    #[must_use]
    pub fn new(range: TimeRange, width: Option<i64>) -> Self {
        let Some(width) = width.map(|width| width.max(1)) else {
            return Self { width: None, first: 0, count: 1 };
        };
        let first = range.start().div_euclid(width);
        let last = (range.end() - 1).div_euclid(width);
        Self { width: Some(width), first, count: last.abs_diff(first).saturating_add(1) }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The window of a time in the range.
    #[must_use]
    pub fn of(&self, time: i64) -> u64 {
        self.width.map_or(0, |width| time.div_euclid(width).wrapping_sub(self.first).cast_unsigned())
    }

    /// A bucket's first millisecond, if these are buckets.
    #[must_use]
    pub fn start(&self, window: u64) -> Option<i64> {
        self.width.map(|width| self.first.wrapping_add(window.cast_signed()).saturating_mul(width))
    }

    /// The first millisecond after a window.
    #[must_use]
    pub fn end(&self, window: u64) -> i64 {
        let bucket = self.start(window).zip(self.width);
        bucket.map_or(i64::MAX, |(start, width)| start.saturating_add(width))
    }

    /// Cuts ascending times of the range where windows change: each window with its positions.
    #[must_use]
    pub fn runs<'t>(&self, times: &'t [i64]) -> Runs<'t> {
        Runs { windows: *self, times, at: 0, next: 0, end: i64::MIN }
    }
}

/// Runs of times in the same window; see [`Windows::runs`].
#[derive(Debug)]
pub struct Runs<'t> {
    windows: Windows,
    times: &'t [i64],
    at: usize,
    /// The window after the last run's, and that run's end.
    next: u64,
    end: i64,
}

impl Iterator for Runs<'_> {
    type Item = (u64, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.times[self.at..];
        let (first, last) = (*rest.first()?, *rest.last()?);
        // Most often the next window follows: that saves a division.
        let width = self.windows.width.unwrap_or(0);
        let follows = first < self.end.saturating_add(width);
        let window = if follows { self.next } else { self.windows.of(first) };
        let end = if follows { self.end.saturating_add(width) } else { self.windows.end(window) };
        let length = match last < end {
            true => rest.len(),
            false => rest.iter().take_while(|time| **time < end).count().max(1),
        };
        let run = self.at..self.at + length;
        (self.at, self.next, self.end) = (run.end, window.wrapping_add(1), end);
        Some((window, run))
    }
}

/// The UTC days, since the epoch, that a range touches.
#[must_use]
pub fn days_of(range: TimeRange) -> RangeInclusive<i32> {
    let day = |time: i64| {
        let day = time.div_euclid(DAY);
        i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX })
    };
    day(range.start())..=day(range.end() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(start, end).unwrap()
    }

    #[test]
    fn buckets_are_aligned_to_the_epoch_on_both_sides_of_it() {
        let windows = Windows::new(range(-15, 21), Some(10));
        assert_eq!(windows.count(), 5);
        assert_eq!([-15, -10, -1, 0, 20].map(|time| windows.of(time)), [0, 1, 1, 2, 4]);
        assert_eq!((windows.start(0), windows.end(0), windows.start(4)), (Some(-20), -10, Some(20)));
        assert_eq!(Windows::new(range(-15, 20), Some(10)).count(), 4);
    }

    #[test]
    fn runs_change_where_windows_do_also_after_a_gap() {
        let windows = Windows::new(range(5, 95), Some(10));
        let runs: Vec<_> = windows.runs(&[5, 9, 10, 19, 20, 47, 49, 50]).collect();
        assert_eq!(runs, [(0, 0..2), (1, 2..4), (2, 4..5), (4, 5..7), (5, 7..8)]);
        assert_eq!(Windows::new(range(5, 95), None).runs(&[5, 50]).collect::<Vec<_>>(), [(0, 0..2)]);
        assert_eq!(windows.runs(&[]).count(), 0);
    }

    #[test]
    fn the_widest_range_has_no_overflow() {
        let windows = Windows::new(range(i64::MIN, i64::MAX), Some(1));
        assert_eq!(windows.of(i64::MAX - 1), u64::MAX - 1);
        assert_eq!(windows.start(u64::MAX - 1), Some(i64::MAX - 1));
        assert_eq!(windows.runs(&[i64::MIN, i64::MAX - 1]).count(), 2);
    }

    #[test]
    fn days_touched_are_those_of_the_first_and_last_millisecond() {
        assert_eq!(days_of(range(0, DAY)), 0..=0);
        assert_eq!(days_of(range(-1, DAY + 1)), -1..=1);
    }
}
