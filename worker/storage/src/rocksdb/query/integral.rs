//! Integrals: trapezoids between neighbouring samples of a series, cut where windows change.

use crate::rocksdb::summary::{HourSummary, trapezoid};
use crate::store::{QueryContext, Result};

use super::cells::Cell;
use super::measure::{Measure, Sample, Series};
use super::sum::Sum;

/// Value × seconds.
#[derive(Debug, Clone, Copy)]
pub struct Integral {
    /// The longest segment that counts, in milliseconds.
    max_gap: u64,
}

impl Integral {
    /// A segment longer than `max_gap` milliseconds counts nothing.
    #[must_use]
    pub fn new(max_gap: Option<i64>) -> Self {
        Self { max_gap: max_gap.map_or(u64::MAX, |gap| u64::try_from(gap).unwrap_or(0)) }
    }

    fn counts(&self, from: i64, to: i64) -> bool {
        to.abs_diff(from) <= self.max_gap
    }

    /// Adds the segment between two samples to every window that it touches.
    fn segment(&self, series: &mut Series<'_, Area>, from: Sample, to: Sample) {
        if !self.counts(from.time, to.time) {
            return;
        }
        let windows = series.windows;
        for window in windows.of(from.time)..=windows.of(to.time) {
            let left = windows.start(window).map_or(from.time, |start| start.max(from.time));
            let right = windows.end(window).min(to.time);
            let Some(cell) = series.cell(window) else { return };
            cell.crossed = true;
            cell.area.add(trapezoid(left, between(from, to, left), right, between(from, to, right)));
        }
    }

    /// Adds the segments between samples of one window.
    fn inside(&self, cell: &mut Area, times: &[i64], values: &[f64]) {
        const BLOCK: usize = 256;
        let mut from = 0;
        while from + 1 < times.len() {
            let to = (from + BLOCK).min(times.len() - 1);
            let segment = |at: usize| {
                let counts = self.counts(times[at - 1], times[at]);
                if counts { trapezoid(times[at - 1], values[at - 1], times[at], values[at]) } else { 0.0 }
            };
            let area: f64 = (from + 1..=to).map(segment).sum();
            if area.is_finite() {
                cell.area.add(area);
            } else {
                (from + 1..=to).for_each(|at| cell.area.add(segment(at)));
            }
            from = to;
        }
    }
}

/// The area under a group's series in one window.
#[derive(Debug, Default)]
pub struct Area {
    count: u64,
    area: Sum,
    /// Whether a segment touches it: then it makes a row also without a sample.
    crossed: bool,
}

impl Cell for Area {
    fn is_empty(&self) -> bool {
        self.count == 0 && !self.crossed
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.area.merge(other.area);
        self.crossed |= other.crossed;
    }
}

impl Measure for Integral {
    type Cell = Area;

    fn samples(&self, series: &mut Series<'_, Area>, times: &[i64], values: &[f64]) {
        for (window, run) in series.windows.runs(times) {
            let sample = |at: usize| Sample { time: times[at], value: values[at] };
            if let Some(before) = series.before {
                self.segment(series, before, sample(run.start));
            }
            let Some(cell) = series.cell(window) else { return };
            cell.count += run.len() as u64;
            series.before = Some(sample(run.end - 1));
            let Some(cell) = series.cell(window) else { return };
            self.inside(cell, &times[run.clone()], &values[run]);
        }
    }

    fn hour(&self, series: &mut Series<'_, Area>, hour: &HourSummary) {
        if let Some(before) = series.before {
            self.segment(series, before, Sample { time: hour.first_time, value: hour.first });
        }
        let Some(cell) = series.cell(series.windows.of(hour.hour)) else { return };
        cell.count += u64::from(hour.count);
        cell.area.add(hour.integral);
    }

    fn value(&self, cell: Area, _context: &QueryContext) -> Result<f64> {
        Ok(cell.area.total())
    }
}

/// The value at `time` on the straight line from one sample to another.
#[allow(clippy::cast_precision_loss, reason = "a span of milliseconds is far below 2^53")]
fn between(from: Sample, to: Sample, time: i64) -> f64 {
    let share = time.abs_diff(from.time) as f64 / to.time.abs_diff(from.time).max(1) as f64;
    from.value * (1.0 - share) + to.value * share
}
