//! Rates: steps of counters, each in the window of its later sample.

use crate::model::RateQuery;
use crate::rocksdb::summary::{HOUR, HourSummary, step};
use crate::store::{QueryContext, Result};

use super::cells::Cell;
use super::measure::{Measure, Sample, Series};
use super::sum::Sum;

/// Per-second increase.
#[derive(Debug, Clone, Copy)]
pub struct Increase {
    /// Samples before this only carry in.
    start: i64,
    /// Seconds of a window.
    seconds: f64,
}

impl Increase {
    /// The increase that `query` asks for.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "an interval is far below 2^53 milliseconds")]
    pub fn new(query: &RateQuery) -> Self {
        Self { start: query.range.start(), seconds: query.interval as f64 / 1_000.0 }
    }
}

/// Steps that end in one window.
#[derive(Debug, Default)]
pub struct Steps {
    count: u64,
    increase: Sum,
}

impl Cell for Steps {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.increase.merge(other.increase);
    }
}

impl Measure for Increase {
    type Cell = Steps;

    fn samples(&self, series: &mut Series<'_, Steps>, times: &[i64], values: &[f64]) {
        let carried = times.partition_point(|time| *time < self.start);
        let sample = |at: usize| Sample { time: times[at], value: values[at] };
        series.before = carried.checked_sub(1).map(sample).or(series.before);
        let (times, values) = (&times[carried..], &values[carried..]);
        for (window, run) in series.windows.runs(times) {
            let before = series.before.map(|before| before.value);
            series.before = Some(Sample { time: times[run.end - 1], value: values[run.end - 1] });
            let steps = run.len() - usize::from(before.is_none());
            if steps == 0 {
                continue;
            }
            let Some(cell) = series.cell(window) else { return };
            cell.count += steps as u64;
            add_steps(&mut cell.increase, before, &values[run]);
        }
    }

    fn hour(&self, series: &mut Series<'_, Steps>, hour: &HourSummary) {
        let steps = hour.count - u32::from(series.before.is_none());
        if hour.hour.saturating_add(HOUR) <= self.start || steps == 0 {
            return;
        }
        let before = series.before;
        let Some(cell) = series.cell(series.windows.of(hour.hour)) else { return };
        cell.count += u64::from(steps);
        cell.increase.add(hour.increase);
        if let Some(before) = before {
            cell.increase.add(step(before.value, hour.first));
        }
    }

    fn value(&self, cell: Steps, _context: &QueryContext) -> Result<f64> {
        Ok(cell.increase.total() / self.seconds)
    }
}

/// Adds the steps between values, and the one from `before` to the first.
fn add_steps(increase: &mut Sum, before: Option<f64>, values: &[f64]) {
    const BLOCK: usize = 256;
    if let (Some(before), Some(first)) = (before, values.first()) {
        increase.add(step(before, *first));
    }
    let mut from = 0;
    while from + 1 < values.len() {
        let to = (from + BLOCK).min(values.len() - 1);
        let steps = || values[from..=to].windows(2).map(|pair| step(pair[0], pair[1]));
        let sum: f64 = steps().sum();
        if sum.is_finite() {
            increase.add(sum);
        } else {
            steps().for_each(|step| increase.add(step));
        }
        from = to;
    }
}
