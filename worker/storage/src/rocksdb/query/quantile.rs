//! Exact percentiles: every value is gathered, and the two around the rank are selected.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::rocksdb::summary::HourSummary;
use crate::store::{QueryContext, Result, StoreError};

use super::cells::Cell;
use super::measure::{Measure, Series};

/// Values side by side: what a cell gathers is never moved again once it fills a run.
const RUN: usize = 16_384;
/// From so many values on all threads select together.
const MANY: usize = 131_072;
/// Values of a sample that says about where a rank lies.
const SAMPLED: usize = 16_384;
/// Values counted at a time, small enough for the first-level cache.
const BLOCK: usize = 1_024;

/// The quantile in 0–1, linear between closest ranks: rank r = p·(n−1).
#[derive(Debug, Clone, Copy)]
pub struct Quantile(pub f64);

/// Every value of a group in one window, in no order.
#[derive(Debug, Default)]
pub struct Values {
    runs: Vec<Vec<f64>>,
    count: usize,
}

impl Values {
    /// Adds values; returns by how many bytes it grew.
    fn extend(&mut self, mut values: &[f64]) -> usize {
        let mut grown = 0;
        self.count += values.len();
        while !values.is_empty() {
            if self.runs.last().is_none_or(|run| run.len() >= RUN) {
                self.runs.push(Vec::new());
                grown += size_of::<Vec<f64>>();
            }
            let Some(run) = self.runs.last_mut() else { break };
            let (now, later) = values.split_at(values.len().min(RUN - run.len()));
            let before = run.capacity();
            run.extend_from_slice(now);
            grown += (run.capacity() - before) * size_of::<f64>();
            values = later;
        }
        grown
    }

    /// The value at `rank` in ascending order and the next one; the last one has none but itself.
    fn around(self, rank: usize, context: &QueryContext) -> Result<(f64, f64)> {
        context.check(0)?;
        if self.count >= MANY
            && let Some(found) = bracketed(&self, rank, context)?
        {
            return Ok(found);
        }
        Ok(selected(&mut self.runs.concat(), rank))
    }
}

impl Cell for Values {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn count(&self) -> u64 {
        self.count as u64
    }

    /// Takes long runs as they are and copies short ones: each value is copied at most log(chunks) times.
    fn merge(&mut self, other: Self) {
        let (long, short): (Vec<_>, Vec<_>) = other.runs.into_iter().partition(|run| run.len() >= RUN / 4);
        self.count += long.iter().map(Vec::len).sum::<usize>();
        let open = self.runs.pop();
        self.runs.extend(long);
        self.runs.extend(open);
        for run in short {
            self.extend(&run);
        }
    }

    fn heap_bytes(&self) -> usize {
        let values: usize = self.runs.iter().map(Vec::capacity).sum();
        values * size_of::<f64>() + self.runs.capacity() * size_of::<Vec<f64>>()
    }
}

impl Measure for Quantile {
    type Cell = Values;

    fn samples(&self, series: &mut Series<'_, Values>, times: &[i64], values: &[f64]) {
        for (window, run) in series.windows.runs(times) {
            let Some(cell) = series.cell(window) else { return };
            let grown = cell.extend(&values[run]);
            series.cells.grow_heap(grown);
        }
    }

    fn hour(&self, _series: &mut Series<'_, Values>, _hour: &HourSummary) {
        debug_assert!(false, "a percentile never asks for summaries");
    }

    #[allow(clippy::cast_precision_loss, reason = "a count of samples is far below 2^53")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
    fn value(&self, cell: Values, context: &QueryContext) -> Result<f64> {
        let rank = self.0 * cell.count.saturating_sub(1) as f64;
        let (low, high) = cell.around(rank as usize, context)?;
        let share = rank.fract();
        Ok(if share == 0.0 { low } else { low * (1.0 - share) + high * share })
    }
}

/// [`Values::around`] by one thread, over values in one piece.
fn selected(values: &mut [f64], rank: usize) -> (f64, f64) {
    if values.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let (_, low, above) = values.select_nth_unstable_by(rank, f64::total_cmp);
    let low = *low;
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    (low, high)
}

/// [`Values::around`] by all threads, in one pass: a sorted sample brackets the rank, and only the
/// values strictly inside the bracket are copied out; `None` when the sample was misleading.
fn bracketed(values: &Values, rank: usize, context: &QueryContext) -> Result<Option<(f64, f64)>> {
    let Values { runs, count } = values;
    let (low, high) = bracket(&sample(runs, *count), rank, *count);
    let tally = runs.par_iter().try_fold(Tally::default, |mut tally, run| {
        context.check(0)?;
        tally.count(run, low, high);
        Ok::<_, StoreError>(tally)
    });
    let tally = tally.try_reduce(Tally::default, |left, right| Ok(left.merge(right)))?;
    let Tally { below, at_low, mut between, at_high } = tally;
    let at_low = below + at_low;
    let inside = at_low + between.len();
    let place = |rank: usize| match rank {
        rank if rank < below || rank >= inside + at_high => Place::Outside,
        rank if rank < at_low => Place::Bound(low),
        rank if rank < inside => Place::Between(rank - at_low),
        _ => Place::Bound(high),
    };
    Ok(match (place(rank), place((rank + 1).min(count - 1))) {
        (Place::Bound(one), Place::Bound(other)) => Some((one, other)),
        (Place::Between(at), Place::Between(_)) => Some(selected(&mut between, at)),
        (Place::Between(at), Place::Bound(other)) => Some((selected(&mut between, at).0, other)),
        (Place::Bound(one), Place::Between(at)) => Some((one, selected(&mut between, at).0)),
        (Place::Outside, _) | (_, Place::Outside) => None,
    })
}

enum Place {
    Outside,
    /// Equal to a bound of the bracket.
    Bound(f64),
    /// So many of the values between the bounds are less.
    Between(usize),
}

/// Every so-manieth value, sorted.
fn sample(runs: &[Vec<f64>], count: usize) -> Vec<f64> {
    // Odd, so that it doesn't fall in step with what repeats by the hour or by page.
    let stride = (count / SAMPLED) | 1;
    let mut sample = Vec::with_capacity(count / stride + runs.len());
    let mut skip = 0;
    for run in runs {
        sample.extend(run.iter().skip(skip).step_by(stride));
        let reached = skip + run.len().saturating_sub(skip).div_ceil(stride) * stride;
        skip = reached - run.len();
    }
    sample.sort_unstable_by(f64::total_cmp);
    sample
}

/// Values of the sample between which the one at `rank` lies, but for one query in a million.
#[allow(clippy::cast_precision_loss, reason = "a count of samples is far below 2^53")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the sample's length"
)]
fn bracket(sample: &[f64], rank: usize, count: usize) -> (f64, f64) {
    const DEVIATIONS: f64 = 5.0;
    let (length, share) = (sample.len() as f64, rank as f64 / count as f64);
    let deviation = (length * share * (1.0 - share)).sqrt();
    let (middle, spread) = (length * share, DEVIATIONS * deviation + 2.0);
    let low = if middle < spread { f64::NEG_INFINITY } else { sample[(middle - spread) as usize] };
    let high = sample.get((middle + spread) as usize).copied().unwrap_or(f64::INFINITY);
    (low, high)
}

/// How values lie to a bracket, and those strictly inside.
#[derive(Debug, Default)]
struct Tally {
    below: usize,
    at_low: usize,
    between: Vec<f64>,
    at_high: usize,
}

impl Tally {
    /// Counts values; no branch depends on one, as none could be predicted.
    fn count(&mut self, values: &[f64], low: f64, high: f64) {
        let distinct = low < high;
        for block in values.chunks(BLOCK) {
            let (mut below, mut at_low, mut at_high) = (0_u64, 0_u64, 0_u64);
            for value in block {
                below += u64::from(*value < low);
                at_low += u64::from(*value == low);
                at_high += u64::from(*value == high);
            }
            self.below += below as usize;
            self.at_low += at_low as usize;
            self.at_high += if distinct { at_high as usize } else { 0 };
            let (mut inside, mut count) = ([0.0; BLOCK], 0);
            for value in block {
                inside[count % BLOCK] = *value;
                count += usize::from(*value > low && *value < high);
            }
            self.between.extend_from_slice(&inside[..count]);
        }
    }

    fn merge(mut self, mut other: Self) -> Self {
        if other.between.len() > self.between.len() {
            std::mem::swap(&mut self.between, &mut other.between);
        }
        self.between.extend_from_slice(&other.between);
        self.below += other.below;
        self.at_low += other.at_low;
        self.at_high += other.at_high;
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::rocksdb::query::fixture::context;

    use super::*;

    fn gathered(values: &[f64]) -> Values {
        let mut gathered = Values::default();
        for part in values.chunks(777) {
            gathered.extend(part);
        }
        gathered
    }

    fn percentile(values: &[f64], p: f64) -> f64 {
        Quantile(p).value(gathered(values), &context()).unwrap()
    }

    /// The plain way: sort, and look.
    fn sorted(values: &[f64], p: f64) -> f64 {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let rank = p * (values.len() - 1) as f64;
        let (low, high) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
        low * (1.0 - rank.fract()) + high * rank.fract()
    }

    #[test]
    fn percentiles_of_few_values_are_those_of_a_sorted_list() {
        let mut random = fastrand::Rng::with_seed(1);
        for count in 1..300 {
            let values: Vec<f64> = (0..count).map(|_| f64::from(random.i32(-20..20)) / 4.0).collect();
            for p in [0.0, 0.5, 0.95, 0.99, 1.0] {
                assert_eq!(percentile(&values, p), sorted(&values, p));
            }
        }
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
    }

    #[test]
    fn threads_together_find_what_one_finds() {
        let mut random = fastrand::Rng::with_seed(2);
        type Shape = fn(usize, &mut fastrand::Rng) -> f64;
        let shapes: [Shape; 7] = [
            |_, random| random.f64() * 1e3,
            |_, random| 1.0 / (random.f64() + 1e-9),
            |_, random| f64::from(random.i32(0..3)),
            |_, _| 7.0,
            |at, _| at as f64,
            |at, random| if at % 100 == 0 { random.f64() } else { 0.0 },
            |at, _| [-0.0, 0.0, 1e308, -1e308][at % 4],
        ];
        for (number, shape) in shapes.into_iter().enumerate() {
            let values: Vec<f64> = (0..MANY + 4_321).map(|at| shape(at, &mut random)).collect();
            for p in [0.0, 0.5, 0.95, 0.99, 0.999_999, 1.0] {
                assert_eq!(percentile(&values, p), sorted(&values, p), "shape {number}, {p}");
            }
        }
    }

    #[test]
    fn a_misleading_sample_is_noticed() {
        let values: Vec<f64> = (0..1_000).map(f64::from).collect();
        let mut tally = Tally::default();
        tally.count(&values, 10.0, 20.0);
        assert_eq!((tally.below, tally.at_low, tally.between.len(), tally.at_high), (10, 1, 9, 1));
        // Every value that the stride meets is 0, all others are 1.
        let stride = (2 * MANY / SAMPLED) | 1;
        let values: Vec<f64> = (0..2 * MANY).map(|at| f64::from(u8::from(at % stride != 0))).collect();
        assert_eq!(bracketed(&gathered(&values), MANY, &context()).unwrap(), None);
        assert_eq!(percentile(&values, 0.5), 1.0);
    }

    #[test]
    fn merged_values_are_all_there_and_their_bytes_are_known() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut all, mut merged) = (Vec::new(), Values::default());
        for _ in 0..50 {
            let values: Vec<f64> = (0..random.usize(0..40_000)).map(|_| random.f64()).collect();
            merged.merge(gathered(&values));
            all.extend(values);
        }
        assert_eq!(merged.count, all.len());
        assert!(merged.heap_bytes() >= all.len() * 8 && merged.heap_bytes() < all.len() * 17);
        let mut found = merged.runs.concat();
        found.sort_by(f64::total_cmp);
        all.sort_by(f64::total_cmp);
        assert_eq!(found, all);
    }
}
