//! Raw samples in the order of time, then series, of which only the first are held.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use hashbrown::HashMap;

use crate::model::{Answer, QueryStats, RangeQuery, RangeRow, TimeRange};
use crate::rocksdb::scan::{Detail, Indifference, Piece, ScanSpec, SeriesScan};
use crate::store::{QueryContext, Result, StoreError};

use super::catalog::{Catalog, Selected};
use super::grouped::{Source, end_of};
use super::memory::{Held, Memory};
use super::nothing;
use super::parallel::{Threads, fold};
use super::windows::days_of;

/// A first slice of time is as long as probably holds this many times the rows wanted.
const PLENTY: u64 = 4;
/// How much longer each further slice is.
const GROWTH: i64 = 4;
/// Series from whose estimate that of all is drawn.
const ESTIMATED: usize = 256;
/// About what a row holds, its place among the series included, besides the texts of its dimensions.
const ROW_BYTES: usize = 96;

/// Raw samples: time ascending, then series in the contract's order.
///
/// # Errors
/// `Timeout`, `Cancelled`, `QueryTooLarge` by `context`; `Corrupt`.
pub fn range(
    catalog: &dyn Catalog,
    scan: &impl SeriesScan,
    query: &RangeQuery,
    context: &QueryContext,
    threads: Threads<'_>,
) -> Result<Answer<RangeRow>> {
    let source = Source { catalog, scan, context, threads };
    let Some(selected) = catalog.select(&query.selector, days_of(query.range)) else { return Ok(nothing()) };
    let memory = Memory::new(context);
    // Ids, ranks, and a flag for each series that has been seen.
    let _series = memory.hold(9 * selected.ids.len())?;
    let working = memory.hold_working(selected.ids.len())?;
    let ranks = catalog.ranks(&selected.ids);
    drop(working);
    let seen = selected.ids.iter().map(|_| AtomicBool::new(false)).collect();
    let job = Job {
        source: &source,
        query,
        selected: &selected,
        ranks: &ranks,
        memory: &memory,
        seen,
        points: AtomicU64::new(0),
        latest: AtomicI64::new(i64::MAX),
    };
    threads.run(|| job.run())
}

struct Job<'a, S> {
    source: &'a Source<'a, S>,
    query: &'a RangeQuery,
    selected: &'a Selected,
    ranks: &'a [u32],
    memory: &'a Memory<'a>,
    /// Series that have a sample, by position.
    seen: Vec<AtomicBool>,
    points: AtomicU64,
    /// No wanted row is later.
    latest: AtomicI64,
}

impl<S: SeriesScan> Job<'_, S> {
    fn run(&self) -> Result<Answer<RangeRow>> {
        let (rows, looked_until) = self.first_rows()?;
        self.find_others(looked_until)?;
        let truncated = rows.len() > self.query.limit;
        let rows = self.described(&rows[..rows.len().min(self.query.limit)])?;
        let matched = self.seen.iter().filter(|seen| seen.load(Ordering::Relaxed)).count();
        let stats = QueryStats {
            points_scanned: self.points.load(Ordering::Relaxed),
            series_matched: matched as u64,
            truncated,
        };
        Ok(Answer { rows, stats })
    }

    /// The wanted rows in order, and until when samples have been looked at.
    ///
    /// Time is cut into slices that grow: most often the first has enough rows, and a long range
    /// costs no more than a short one.
    fn first_rows(&self) -> Result<(Vec<Row>, i64)> {
        let range = self.query.range;
        let (mut rows, mut from, mut width) = (Vec::new(), range.start(), self.first_slice());
        while from < range.end() && rows.len() < self.wanted() {
            let until = from.saturating_add(width).min(range.end());
            let slice = TimeRange::new(from, until).unwrap_or(range);
            self.latest.store(i64::MAX, Ordering::Relaxed);
            rows.extend(self.slice(slice, self.wanted() - rows.len())?);
            (from, width) = (until, width.saturating_mul(GROWTH));
        }
        Ok((rows, from))
    }

    /// Milliseconds of the first slice.
    fn first_slice(&self) -> i64 {
        let (range, ids) = (self.query.range, &self.selected.ids);
        let some = &ids[..ids.len().min(ESTIMATED)];
        let spec = self.spec(range, Detail::Samples);
        let samples = self.source.scan.estimate(&spec, some).samples;
        let samples = samples.saturating_mul(ids.len() as u64) / some.len().max(1) as u64;
        let plenty = PLENTY.saturating_mul(self.wanted() as u64);
        if samples <= plenty.saturating_mul(2) {
            return i64::MAX;
        }
        let millis = i128::from(range.millis()) * i128::from(plenty) / i128::from(samples);
        i64::try_from(millis).unwrap_or(i64::MAX).max(1)
    }

    /// The first rows of a slice of time, in order.
    fn slice(&self, range: TimeRange, wanted: usize) -> Result<Vec<Row>> {
        let chunks = self.source.threads.chunks(self.selected.ids.len());
        let task = |chunk: Range<usize>| self.chunk(chunk, range, wanted);
        let earliest = fold(&chunks, &task, &|left, right| self.merge(left, right))?;
        Ok(earliest.map_or_else(Vec::new, Earliest::into_sorted))
    }

    fn merge<'m>(&'m self, mut left: Earliest<'m>, right: Earliest<'m>) -> Result<Earliest<'m>> {
        self.source.context.check(0)?;
        right.rows.iter().try_for_each(|row| left.push(*row))?;
        drop(right);
        self.latest.fetch_min(left.latest, Ordering::Relaxed);
        left.settle()?;
        Ok(left)
    }

    fn chunk(&self, chunk: Range<usize>, range: TimeRange, wanted: usize) -> Result<Earliest<'_>> {
        let latest = self.latest.load(Ordering::Relaxed);
        let mut earliest = Earliest { wanted, latest, rows: Vec::new(), held: self.memory.hold(0)? };
        // What is later than the wanted rows need not be decoded; `find_others` looks there.
        let until = range.end().min(latest.saturating_add(1));
        let Some(range) = TimeRange::new(range.start(), until) else { return Ok(earliest) };
        let spec = self.spec(range, Detail::Samples);
        let first = chunk.start;
        self.scan(&spec, &self.selected.ids[chunk], &mut |position, piece| {
            let position = first + position;
            self.mark(position, &piece)?;
            let Piece::Samples { times, values } = piece else {
                return Err(StoreError::internal("a summary where samples were asked for"));
            };
            let (series, rank) = (self.selected.ids[position], self.ranks[position]);
            for (time, value) in times.iter().zip(values) {
                if *time > earliest.latest {
                    break;
                }
                if !self.query.having.admits(*value) {
                    continue;
                }
                earliest.push(Row { time: *time, rank, series, value: *value })?;
            }
            earliest.settle()
        })?;
        self.latest.fetch_min(earliest.latest, Ordering::Relaxed);
        Ok(earliest)
    }

    /// Looks whether series that have not been seen have a sample at all.
    fn find_others(&self, looked_until: i64) -> Result<()> {
        let latest = self.latest.load(Ordering::Relaxed);
        let from = looked_until.min(latest.saturating_add(1));
        let Some(range) = TimeRange::new(from, self.query.range.end()) else { return Ok(()) };
        let chunks = self.source.threads.chunks(self.selected.ids.len());
        let task = |chunk: Range<usize>| {
            let unseen = chunk.filter(|position| !self.seen[*position].load(Ordering::Relaxed));
            let positions: Vec<usize> = unseen.collect();
            let ids: Vec<u32> = positions.iter().map(|position| self.selected.ids[*position]).collect();
            let spec = self.spec(range, Detail::Existence);
            self.scan(&spec, &ids, &mut |position, piece| self.mark(positions[position], &piece))
        };
        fold(&chunks, &task, &|(), ()| Ok(())).map(|_done| ())
    }

    fn mark(&self, position: usize, piece: &Piece<'_>) -> Result<()> {
        self.points.fetch_add(end_of(piece)?.1, Ordering::Relaxed);
        self.seen[position].store(true, Ordering::Relaxed);
        Ok(())
    }

    fn scan(
        &self,
        spec: &ScanSpec,
        ids: &[u32],
        visit: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.source.scan.scan(spec, ids, self.source.context, visit)
    }

    fn spec(&self, range: TimeRange, detail: Detail) -> ScanSpec {
        let indifferent = Indifference::outside(&self.query.having);
        ScanSpec { metric: self.selected.metric, range, detail, indifferent }
    }

    /// One more row than the limit, to know whether there is one.
    fn wanted(&self) -> usize {
        self.query.limit.saturating_add(1)
    }

    fn described(&self, rows: &[Row]) -> Result<Vec<RangeRow>> {
        let _rows = self.memory.hold(rows.len() * ROW_BYTES)?;
        let most = rows.len().min(self.selected.ids.len());
        let (mut places, mut series) = (HashMap::with_capacity(most), Vec::with_capacity(most));
        for row in rows {
            places.entry(row.series).or_insert_with(|| {
                series.push(row.series);
                series.len() - 1
            });
        }
        let known = self.source.catalog.dimensions(&series);
        let row = |row: &Row| {
            let dimensions = known[places[&row.series]].clone();
            RangeRow { timestamp: row.time, value: row.value, dimensions }
        };
        Ok(rows.iter().map(row).collect())
    }
}

#[derive(Debug, Clone, Copy)]
struct Row {
    time: i64,
    rank: u32,
    series: u32,
    value: f64,
}

impl Row {
    fn order(&self) -> (i64, u32) {
        (self.time, self.rank)
    }
}

/// The first `wanted` rows of those pushed, and at most as many more.
#[derive(Debug)]
struct Earliest<'a> {
    wanted: usize,
    /// Later rows are not wanted.
    latest: i64,
    rows: Vec<Row>,
    held: Held<'a>,
}

impl Earliest<'_> {
    fn push(&mut self, row: Row) -> Result<()> {
        if row.time > self.latest {
            return Ok(());
        }
        if self.rows.len() >= self.wanted.saturating_mul(2) {
            self.settle()?;
            self.prune();
        }
        self.rows.push(row);
        Ok(())
    }

    fn prune(&mut self) {
        let (_, last, _) = self.rows.select_nth_unstable_by_key(self.wanted - 1, Row::order);
        self.latest = self.latest.min(last.time);
        self.rows.truncate(self.wanted);
    }

    fn settle(&mut self) -> Result<()> {
        self.held.resize(self.rows.capacity() * size_of::<Row>())
    }

    fn into_sorted(mut self) -> Vec<Row> {
        self.rows.sort_unstable_by_key(Row::order);
        self.rows.truncate(self.wanted);
        self.rows
    }
}
