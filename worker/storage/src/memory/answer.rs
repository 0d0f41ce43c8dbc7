//! The formulas of every answer.

use std::collections::BTreeMap;

use crate::model::{
    AggregateQuery, AggregateRow, Aggregation, Answer, DimensionKey, Dimensions, ExportQuery, GroupKey,
    Having, Query, QueryStats, RangeQuery, RangeRow, RateQuery, RateRow, SeriesSamples,
};
use crate::store::{Plan, QueryContext, Result};

use super::tenant::{Series, TenantState, count};

/// What a sample takes while a query holds it.
const SAMPLE_BYTES: u64 = 16;

/// A row, and what its tolerance is relative to: two backends agree when they differ by no more than
/// 1e-9 × max(1, scale).
///
/// The scale of a sum is Σ|terms|: of values for `sum` and `avg` (there divided by their number),
/// of trapezoids for `integral`, of steps (divided by the interval) for `rate`. That of a percentile
/// is the larger of |v_lo| and |v_hi|; that of `count`, `min` and `max` is 0, for they are exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighed<Row> {
    /// The row.
    pub row: Row,
    /// What its tolerance is relative to.
    pub scale: f64,
}

type Sample = (i64, f64);

/// Reads samples within a query's bounds.
struct Scan<'a> {
    context: &'a QueryContext,
    held: u64,
    stats: QueryStats,
}

impl<'a> Scan<'a> {
    fn new(context: &'a QueryContext) -> Self {
        Self { context, held: 0, stats: QueryStats::default() }
    }

    /// The samples of `series` with `start ≤ t < end`.
    fn samples(&mut self, series: &Series, start: i64, end: i64) -> Result<Vec<Sample>> {
        let samples: Vec<Sample> =
            series.samples.range(start..end).map(|(time, value)| (*time, *value)).collect();
        self.context.check(count(samples.len()))?;
        self.stats.points_scanned += count(samples.len());
        self.held += count(samples.len()) * SAMPLE_BYTES;
        if self.held > self.context.max_memory {
            return Err(self.context.memory_exceeded());
        }
        Ok(samples)
    }

    /// The first `limit` of those `rows` whose number, as `number` tells it, is within bounds.
    fn answer<Row>(
        mut self,
        mut rows: Vec<Row>,
        number: impl Fn(&Row) -> f64,
        (having, limit): (Having, usize),
    ) -> Answer<Row> {
        rows.retain(|row| having.admits(number(row)));
        self.stats.truncated = rows.len() > limit;
        rows.truncate(limit);
        Answer { rows, stats: self.stats }
    }
}

/// Samples by time, then series.
pub fn range(state: &TenantState, query: &RangeQuery, context: &QueryContext) -> Result<Answer<RangeRow>> {
    let mut scan = Scan::new(context);
    let mut rows = Vec::new();
    for (dimensions, series) in state.select(&query.selector) {
        let samples = scan.samples(series, query.range.start(), query.range.end())?;
        scan.stats.series_matched += u64::from(!samples.is_empty());
        let row = |(timestamp, value)| RangeRow { timestamp, value, dimensions: dimensions.clone() };
        rows.extend(samples.into_iter().map(row));
    }
    // The sort is stable, and the rows came by series.
    rows.sort_by_key(|row| row.timestamp);
    Ok(scan.answer(rows, |row| row.value, (query.having, query.limit)))
}

/// Samples by series, then time, a piece a stretch.
pub fn export(
    state: &TenantState,
    query: &ExportQuery,
    context: &QueryContext,
) -> Result<Vec<SeriesSamples>> {
    let mut scan = Scan::new(context);
    let mut stretches = Vec::new();
    for (dimensions, series) in state.select(&query.selector) {
        let samples = scan.samples(series, query.range.start(), query.range.end())?;
        let stretch = |samples: &[Sample]| {
            let (timestamps, values) = samples.iter().copied().unzip();
            SeriesSamples { dimensions: dimensions.clone(), timestamps, values }
        };
        stretches.extend(samples.chunks(query.piece).map(stretch));
    }
    Ok(stretches)
}

/// What one row of an aggregate is made of.
#[derive(Debug, Default)]
struct Cell {
    /// The samples of the group and bucket, by series, then time.
    values: Vec<f64>,
    /// Σ areas of the segments' parts in the bucket.
    area: f64,
    /// Σ |areas|.
    area_scale: f64,
}

/// All samples in range by group and bucket, each cell made one number.
pub fn aggregate(
    state: &TenantState,
    query: &AggregateQuery,
    context: &QueryContext,
) -> Result<Answer<Weighed<AggregateRow>>> {
    let mut scan = Scan::new(context);
    let mut cells: BTreeMap<(GroupKey, Option<i64>), Cell> = BTreeMap::new();
    for (dimensions, series) in state.select(&query.selector) {
        let group = group_key(dimensions, &query.group_by);
        let samples = scan.samples(series, query.range.start(), query.range.end())?;
        scan.stats.series_matched += u64::from(!samples.is_empty());
        for (time, value) in &samples {
            let bucket = query.interval.map(|interval| bucket_of(*time, interval));
            cells.entry((group.clone(), bucket)).or_default().values.push(*value);
        }
        if query.aggregation != Aggregation::Integral {
            continue;
        }
        for segment in samples.windows(2) {
            if query.max_gap.is_some_and(|gap| segment[1].0.saturating_sub(segment[0].0) > gap) {
                continue;
            }
            split(segment[0], segment[1], query.interval, |bucket, area, scale| {
                let cell = cells.entry((group.clone(), bucket)).or_default();
                cell.area += area;
                cell.area_scale += scale;
                context.check(0)
            })?;
        }
    }
    let row = |((group, timestamp), cell): ((GroupKey, Option<i64>), Cell)| {
        let count = count(cell.values.len());
        let (value, scale) = number(query.aggregation, cell);
        Weighed { row: AggregateRow { group, timestamp, value, count }, scale }
    };
    let rows = cells.into_iter().map(row).collect();
    Ok(scan.answer(rows, |row: &Weighed<AggregateRow>| row.row.value, (query.having, query.limit)))
}

/// The number that `aggregation` makes of a cell, and its scale.
fn number(aggregation: Aggregation, cell: Cell) -> (f64, f64) {
    let values = &cell.values;
    let sum = || values.iter().sum::<f64>();
    let scale = || values.iter().map(|value| value.abs()).sum::<f64>();
    match aggregation {
        Aggregation::Avg => (sum() / real(values.len()), scale() / real(values.len())),
        Aggregation::Sum => (sum(), scale()),
        Aggregation::Count => (real(values.len()), 0.0),
        Aggregation::Min => (values.iter().copied().fold(f64::INFINITY, f64::min), 0.0),
        Aggregation::Max => (values.iter().copied().fold(f64::NEG_INFINITY, f64::max), 0.0),
        Aggregation::P50 => percentile(0.5, cell.values),
        Aggregation::P95 => percentile(0.95, cell.values),
        Aggregation::P99 => percentile(0.99, cell.values),
        Aggregation::Integral => (cell.area, cell.area_scale),
    }
}

/// The quantile `p` by linear interpolation between closest ranks, inclusive: with r = p·(n − 1), lo = ⌊r⌋,
/// f = r − lo it is v_lo·(1 − f) + v_hi·f (Hyndman and Fan 1996, definition 7; NumPy's `linear`).
fn percentile(p: f64, mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let rank = p * real(values.len() - 1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank lies in 0..n")]
    let low = rank.floor() as usize;
    let fraction = rank - rank.floor();
    let (from, to) = (values[low], values[(low + 1).min(values.len() - 1)]);
    (from * (1.0 - fraction) + to * fraction, from.abs().max(to.abs()))
}

/// Cuts the straight line between two samples at the edges of buckets, and gives `part` each bucket
/// with the area (value × seconds) under the line in it, and the area under its absolute values.
///
/// The trapezoid rule: the area from t0 to t1 is (v0 + v1) / 2 × (t1 − t0).
fn split(
    from: Sample,
    to: Sample,
    interval: Option<i64>,
    mut part: impl FnMut(Option<i64>, f64, f64) -> Result<()>,
) -> Result<()> {
    let at = |time: i64| {
        let share = seconds(time - from.0) / seconds(to.0 - from.0);
        from.1 * (1.0 - share) + to.1 * share
    };
    let mut start = from;
    while start.0 < to.0 {
        let bucket = interval.map(|interval| bucket_of(start.0, interval));
        let edge =
            bucket.zip(interval).map_or(i64::MAX, |(bucket, interval)| bucket.saturating_add(interval));
        let end = if edge < to.0 { (edge, at(edge)) } else { to };
        let width = seconds(end.0 - start.0);
        let (area, scale) = (start.1 / 2.0 + end.1 / 2.0, start.1.abs() / 2.0 + end.1.abs() / 2.0);
        part(bucket, area * width, scale * width)?;
        start = end;
    }
    Ok(())
}

/// Σ of the steps that end in a bucket, over the seconds of the interval.
///
/// A step from v0 to v1 is v1 − v0, or v1 after a reset (v1 < v0). The last sample in
/// `[start − interval, start)` begins the first step. Nothing is extrapolated.
pub fn rate(
    state: &TenantState,
    query: &RateQuery,
    context: &QueryContext,
) -> Result<Answer<Weighed<RateRow>>> {
    let mut scan = Scan::new(context);
    let (start, end) = (query.range.start(), query.range.end());
    let mut cells: BTreeMap<(GroupKey, i64), (f64, f64)> = BTreeMap::new();
    for (dimensions, series) in state.select(&query.selector) {
        let group = group_key(dimensions, &query.group_by);
        let carry = scan.samples(series, start.saturating_sub(query.interval), start)?;
        let samples = scan.samples(series, start, end)?;
        scan.stats.series_matched += u64::from(!samples.is_empty());
        let chain: Vec<Sample> = carry.last().copied().into_iter().chain(samples).collect();
        for pair in chain.windows(2) {
            let ((_, before), (time, after)) = (pair[0], pair[1]);
            let step = if after < before { after } else { after - before };
            let cell = cells.entry((group.clone(), bucket_of(time, query.interval))).or_default();
            *cell = (cell.0 + step, cell.1 + step.abs());
        }
    }
    let width = seconds(query.interval);
    let row = |((group, timestamp), (steps, scale))| Weighed {
        row: RateRow { group, timestamp, rate: steps / width },
        scale: scale / width,
    };
    let rows = cells.into_iter().map(row).collect();
    Ok(scan.answer(rows, |row: &Weighed<RateRow>| row.row.rate, (query.having, query.limit)))
}

/// The plan: here always a walk over everything.
pub fn explain(state: &TenantState, query: &Query) -> Plan {
    let (start, end) = (query.range().start(), query.range().end());
    let samples = |series: &Series| count(series.samples.range(start..end).count());
    let matched: Vec<u64> = state.select(query.selector()).map(|(_, series)| samples(series)).collect();
    Plan {
        steps: vec![
            "walk over the metric's series and keep those that match".to_owned(),
            "walk over their samples in range".to_owned(),
        ],
        series: count(matched.len()),
        samples: matched.iter().sum(),
        bytes: matched.iter().sum::<u64>() * SAMPLE_BYTES,
    }
}

fn group_key(dimensions: &Dimensions, keys: &[DimensionKey]) -> GroupKey {
    keys.iter().map(|key| dimensions.get(key.as_str()).cloned()).collect()
}

/// The start of the bucket that holds `time`: a multiple of `interval`, also before the epoch.
fn bucket_of(time: i64, interval: i64) -> i64 {
    time.div_euclid(interval).saturating_mul(interval)
}

#[allow(clippy::cast_precision_loss, reason = "spans of milliseconds lie far below 2^53")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

#[allow(clippy::cast_precision_loss, reason = "numbers of samples lie far below 2^53")]
fn real(length: usize) -> f64 {
    length as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_closest_ranks() {
        let of = |p, values: &[f64]| percentile(p, values.to_vec()).0;
        assert_eq!(of(0.99, &[7.0]), 7.0);
        assert_eq!(of(0.5, &[2.0, 1.0]), 1.5);
        // numpy.percentile([1, 2, 3, 4, 10], [50, 95, 99])
        let five = [10.0, 4.0, 3.0, 2.0, 1.0];
        assert_eq!(of(0.5, &five), 3.0);
        assert!((of(0.95, &five) - 8.8).abs() < 1e-12);
        assert!((of(0.99, &five) - 9.76).abs() < 1e-12);
    }

    #[test]
    fn the_parts_of_a_segment_add_up_to_the_whole() {
        let mut parts = Vec::new();
        let keep = |bucket, area, _| {
            parts.push((bucket, area));
            Ok(())
        };
        split((-500, 1.0), (2_500, 4.0), Some(1_000), keep).unwrap();
        assert_eq!(parts, [(Some(-1_000), 0.625), (Some(0), 2.0), (Some(1_000), 3.0), (Some(2_000), 1.875)]);
        assert_eq!(parts.iter().map(|part| part.1).sum::<f64>(), 7.5);
    }
}
