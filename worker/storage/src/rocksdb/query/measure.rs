//! How samples and hour summaries become cells: counts, sums, means and extremes.

use crate::rocksdb::scan::Indifference;
use crate::rocksdb::summary::HourSummary;
use crate::store::{QueryContext, Result};

use super::cells::{Cell, Cells};
use super::sum::Sum;
use super::windows::Windows;

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Unix milliseconds.
    pub time: i64,
    /// The value.
    pub value: f64,
}

/// One series on its way into the cells of its group.
#[derive(Debug)]
pub struct Series<'a, C> {
    /// Where it goes.
    pub cells: &'a mut Cells<C>,
    /// The query's windows.
    pub windows: &'a Windows,
    /// The series' group.
    pub group: u32,
    /// The series' last sample before what comes next.
    pub before: Option<Sample>,
}

impl<C: Cell> Series<'_, C> {
    /// The cell of a window of its group, unless no row needs it or a later one.
    pub fn cell(&mut self, window: u64) -> Option<&mut C> {
        self.cells.at(self.group, window)
    }
}

/// One kind of aggregate.
pub trait Measure: Sync {
    /// What it keeps of a window.
    type Cell: Cell;

    /// Takes samples: equally long, ascending in time, later than all before.
    fn samples(&self, series: &mut Series<'_, Self::Cell>, times: &[i64], values: &[f64]);

    /// Takes an hour that lies in one window; asked only where the query allows summaries.
    fn hour(&self, series: &mut Series<'_, Self::Cell>, hour: &HourSummary);

    /// Which values change none of `cells`.
    fn indifferent<'c>(&self, _cells: impl Iterator<Item = &'c Self::Cell>) -> Indifference
    where
        Self::Cell: 'c,
    {
        Indifference::NONE
    }

    /// The number that a cell comes to.
    ///
    /// # Errors
    /// `Cancelled`, `Timeout` by `context`, where it takes long.
    fn value(&self, cell: Self::Cell, context: &QueryContext) -> Result<f64>;
}

/// Count, sum and mean.
#[derive(Debug, Clone, Copy)]
pub enum Totals {
    /// Samples.
    Count,
    /// Their sum.
    Sum,
    /// Their sum by their count: overflows where the sum does.
    Mean,
}

/// How many samples, and their sum.
#[derive(Debug, Default)]
pub struct Total {
    count: u64,
    sum: Sum,
}

impl Cell for Total {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum.merge(other.sum);
    }
}

impl Measure for Totals {
    type Cell = Total;

    fn samples(&self, series: &mut Series<'_, Total>, times: &[i64], values: &[f64]) {
        for (window, run) in series.windows.runs(times) {
            let Some(cell) = series.cell(window) else { return };
            cell.count += run.len() as u64;
            if !matches!(self, Self::Count) {
                cell.sum.add_all(&values[run]);
            }
        }
    }

    fn hour(&self, series: &mut Series<'_, Total>, hour: &HourSummary) {
        let Some(cell) = series.cell(series.windows.of(hour.hour)) else { return };
        cell.count += u64::from(hour.count);
        cell.sum.add(hour.sum);
    }

    #[allow(clippy::cast_precision_loss, reason = "a count of samples is far below 2^53")]
    fn value(&self, cell: Total, _context: &QueryContext) -> Result<f64> {
        Ok(match self {
            Self::Count => cell.count as f64,
            Self::Sum => cell.sum.total(),
            Self::Mean => cell.sum.total() / cell.count as f64,
        })
    }
}

/// The largest value, or the smallest.
#[derive(Debug, Clone, Copy)]
pub struct Extreme<const LARGEST: bool>;

/// How many samples, and the extreme of them.
#[derive(Debug, Default)]
pub struct Most<const LARGEST: bool> {
    count: u64,
    value: f64,
}

impl<const LARGEST: bool> Most<LARGEST> {
    fn take(&mut self, count: u64, value: f64) {
        self.value = if self.count == 0 { value } else { further::<LARGEST>(self.value, value) };
        self.count += count;
    }
}

impl<const LARGEST: bool> Cell for Most<LARGEST> {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn merge(&mut self, other: Self) {
        if other.count > 0 {
            self.take(other.count, other.value);
        }
    }
}

impl<const LARGEST: bool> Measure for Extreme<LARGEST> {
    type Cell = Most<LARGEST>;

    fn samples(&self, series: &mut Series<'_, Self::Cell>, times: &[i64], values: &[f64]) {
        for (window, run) in series.windows.runs(times) {
            let Some(cell) = series.cell(window) else { return };
            let count = run.len() as u64;
            cell.take(count, furthest::<LARGEST>(&values[run]));
        }
    }

    fn hour(&self, series: &mut Series<'_, Self::Cell>, hour: &HourSummary) {
        let Some(cell) = series.cell(series.windows.of(hour.hour)) else { return };
        cell.take(u64::from(hour.count), if LARGEST { hour.max } else { hour.min });
    }

    fn indifferent<'c>(&self, cells: impl Iterator<Item = &'c Self::Cell>) -> Indifference {
        let values = cells.map(|cell| cell.value);
        match LARGEST {
            true => Indifference { at_most: values.fold(f64::INFINITY, f64::min), ..Indifference::NONE },
            false => {
                Indifference { at_least: values.fold(f64::NEG_INFINITY, f64::max), ..Indifference::NONE }
            }
        }
    }

    fn value(&self, cell: Self::Cell, _context: &QueryContext) -> Result<f64> {
        Ok(cell.value)
    }
}

/// The extreme of two finite values; a comparison that compiles to one instruction.
fn further<const LARGEST: bool>(one: f64, other: f64) -> f64 {
    let keep = if LARGEST { one > other } else { one < other };
    if keep { one } else { other }
}

/// The extreme of at least one value, in lanes that a compiler turns into vector instructions.
fn furthest<const LARGEST: bool>(values: &[f64]) -> f64 {
    let worst = if LARGEST { f64::NEG_INFINITY } else { f64::INFINITY };
    let (eights, rest) = values.as_chunks::<8>();
    let mut lanes = [worst; 8];
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane = further::<LARGEST>(*lane, *value);
        }
    }
    lanes.iter().chain(rest).fold(worst, |most, value| further::<LARGEST>(most, *value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_of_any_number_of_values() {
        let mut random = fastrand::Rng::with_seed(3);
        for count in 1..70 {
            let values: Vec<f64> = (0..count).map(|_| random.f64() - 0.5).collect();
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
            assert_eq!(furthest::<true>(&values), largest);
            assert_eq!(furthest::<false>(&values), smallest);
        }
    }
}
