//! From series to rows per group and window.

use std::ops::Range;

use parking_lot::Mutex;

use crate::model::{Answer, DimensionKey, GroupKey, Having, QueryStats, Selector, TimeRange};
use crate::rocksdb::scan::{Detail, Indifference, Piece, ScanSpec, SeriesScan};
use crate::store::{QueryContext, Result, StoreError};

use super::catalog::{Catalog, Grouping, Selected};
use super::cells::{BlockKey, Cell, Cells, width};
use super::measure::{Measure, Sample, Series};
use super::memory::{Held, Memory};
use super::nothing;
use super::parallel::{Threads, fold};
use super::windows::{Windows, days_of};

/// About what a row holds besides its group's strings, which the catalogue shares.
const ROW_BYTES: usize = 128;

/// Where a query's series, samples and threads come from.
pub struct Source<'a, S> {
    /// Series.
    pub catalog: &'a dyn Catalog,
    /// Samples.
    pub scan: &'a S,
    /// Limits.
    pub context: &'a QueryContext,
    /// Threads.
    pub threads: Threads<'a>,
}

/// What is asked, but for how cells are filled.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Which series.
    pub selector: &'a Selector,
    /// What names a group.
    pub group_by: &'a [DimensionKey],
    /// When.
    pub range: TimeRange,
    /// What is scanned: the range, and for a rate what is carried in.
    pub scanned: TimeRange,
    /// What is scanned before that, for each series' last sample alone.
    pub carried: Option<TimeRange>,
    /// The windows of the range.
    pub windows: Windows,
    /// How much of each sample is needed.
    pub detail: Detail,
    /// Which values make no difference to the rows.
    pub indifferent: Indifference,
    /// What a row's number must be.
    pub having: Having,
    /// Most rows.
    pub limit: usize,
}

/// A row, before it gets the shape of its query.
#[derive(Debug)]
pub struct Found {
    /// Whose.
    pub group: GroupKey,
    /// The window's number.
    pub window: u64,
    /// The number.
    pub value: f64,
    /// Samples in it.
    pub count: u64,
}

impl<S: SeriesScan> Source<'_, S> {
    /// Answers `question` by what `measure` makes of the samples.
    pub fn ask<M: Measure>(&self, question: &Question<'_>, measure: &M) -> Result<Answer<Found>> {
        // 1. The index: which series, in which groups.
        let first = question.carried.unwrap_or(question.scanned).start();
        let days = TimeRange::new(first, question.range.end()).unwrap_or(question.range);
        let Some(selected) = self.catalog.select(question.selector, days_of(days)) else {
            return Ok(nothing());
        };
        let memory = Memory::new(self.context);
        let working = memory.hold_working(selected.ids.len())?;
        let grouping = self.catalog.group(&selected.ids, question.group_by);
        drop(working);
        let _series = memory.hold(4 * (selected.ids.len() + grouping.of.len() + grouping.values.len()))?;
        let job = Job {
            source: self,
            question,
            measure,
            selected: &selected,
            grouping: &grouping,
            memory: &memory,
            last: Mutex::new(None),
            indifferent: Mutex::new(question.indifferent),
        };
        // 2. Samples into cells, and cells into rows, on the pool.
        self.threads.run(|| job.run())
    }
}

/// A question on its way through the chunks.
struct Job<'a, S, M> {
    source: &'a Source<'a, S>,
    question: &'a Question<'a>,
    measure: &'a M,
    selected: &'a Selected,
    grouping: &'a Grouping,
    memory: &'a Memory<'a>,
    /// No wanted row lies behind this block; chunks that begin later look less closely.
    last: Mutex<Option<BlockKey>>,
    /// Values that make no difference to the rows, beside what is known of them: chunks that begin later needn't decode those.
    indifferent: Mutex<Indifference>,
}

/// Windows of which it is looked at after each chunk what would change them.
const FEW_WINDOWS: u64 = 1_024;

/// What some chunks came to.
struct Part<'a, C> {
    cells: Cells<C>,
    matched: u64,
    points: u64,
    held: Held<'a>,
}

impl<C: Cell> Part<'_, C> {
    fn settle(&mut self) -> Result<()> {
        self.held.resize(self.cells.bytes())
    }
}

/// Series of a chunk that are looked at in the same way: where they are in the chunk's answer.
#[derive(Default)]
struct Lane {
    ids: Vec<u32>,
    groups: Vec<u32>,
}

impl<S: SeriesScan, M: Measure> Job<'_, S, M> {
    fn run(&self) -> Result<Answer<Found>> {
        let chunks = self.source.threads.chunks(self.selected.ids.len());
        let part = fold(&chunks, &|chunk| self.chunk(chunk), &|left, right| self.merge(left, right))?;
        let Some(part) = part else { return Ok(nothing()) };
        self.answer(part)
    }

    fn chunk(&self, chunk: Range<usize>) -> Result<Part<'_, M::Cell>> {
        let last = *self.last.lock();
        let width = width(self.wanted(), self.grouping.groups, self.question.windows.count());
        let cells = Cells::new(self.wanted(), width, last);
        let mut part = Part { cells, matched: 0, points: 0, held: self.memory.hold(0)? };
        let (mut near, mut far) = (Lane::default(), Lane::default());
        for position in chunk {
            let group = self.grouping.of[position];
            let lane = if last.is_none_or(|last| group <= last.group) { &mut near } else { &mut far };
            lane.ids.push(self.selected.ids[position]);
            lane.groups.push(group);
        }
        self.fill(&mut part, &near)?;
        self.count(&mut part, &far.ids)?;
        self.publish(&part);
        Ok(part)
    }

    /// Scans series whose groups may have a wanted row.
    fn fill(&self, part: &mut Part<'_, M::Cell>, lane: &Lane) -> Result<()> {
        let carried = self.carried(part, &lane.ids)?;
        let question = self.question;
        let mut before = None;
        let (mut current, mut seen) = (usize::MAX, false);
        let spec = self.spec(question.scanned, question.detail);
        self.scan(&spec, &lane.ids, &mut |position, piece| {
            if position != current {
                (current, seen) = (position, false);
                before = carried.get(position).copied().flatten();
            }
            let (last, points) = end_of(&piece)?;
            part.points += points;
            if !seen && last.time >= question.range.start() {
                seen = true;
                part.matched += 1;
            }
            let (cells, group) = (&mut part.cells, lane.groups[position]);
            let mut series = Series { cells, windows: &question.windows, group, before };
            match piece {
                Piece::Samples { times, values } => self.measure.samples(&mut series, times, values),
                Piece::Hour(hour) if question.detail != Detail::Samples => {
                    self.measure.hour(&mut series, hour)
                }
                Piece::Hour(_) => return Err(StoreError::internal("a summary where samples were asked for")),
            }
            before = Some(last);
            part.settle()
        })
    }

    /// The last sample before the scanned range of each series, where the question needs it.
    fn carried(&self, part: &mut Part<'_, M::Cell>, ids: &[u32]) -> Result<Vec<Option<Sample>>> {
        let Some(range) = self.question.carried else { return Ok(Vec::new()) };
        let mut carried = vec![None; ids.len()];
        self.scan(&self.spec(range, self.question.detail), ids, &mut |position, piece| {
            let (last, points) = end_of(&piece)?;
            part.points += points;
            carried[position] = Some(last);
            Ok(())
        })?;
        Ok(carried)
    }

    /// Counts series whose groups come after every wanted row.
    fn count(&self, part: &mut Part<'_, M::Cell>, ids: &[u32]) -> Result<()> {
        let mut current = usize::MAX;
        self.scan(&self.spec(self.question.range, Detail::Existence), ids, &mut |position, piece| {
            part.points += end_of(&piece)?.1;
            part.matched += u64::from(position != current);
            current = position;
            Ok(())
        })
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
        ScanSpec { metric: self.selected.metric, range, detail, indifferent: *self.indifferent.lock() }
    }

    fn merge<'m>(
        &'m self,
        mut left: Part<'m, M::Cell>,
        right: Part<'m, M::Cell>,
    ) -> Result<Part<'m, M::Cell>> {
        self.source.context.check(0)?;
        left.matched += right.matched;
        left.points += right.points;
        left.cells.merge(right.cells);
        drop(right.held);
        left.settle()?;
        self.publish(&left);
        Ok(left)
    }

    /// Lets chunks that begin later know which rows nobody wants, and which values change none.
    fn publish(&self, part: &Part<'_, M::Cell>) {
        if let Some(last) = part.cells.last() {
            let mut known = self.last.lock();
            *known = Some(known.map_or(last, |known| known.min(last)));
        }
        let windows = self.question.windows.count();
        if self.grouping.groups == 1
            && windows <= FEW_WINDOWS
            && let Some(cells) = part.cells.if_exactly(windows)
        {
            let mut known = self.indifferent.lock();
            *known = known.or(self.measure.indifferent(cells));
        }
    }

    /// One more row than the limit, to know whether there is one; all where numbers are bounded, which are known last.
    fn wanted(&self) -> usize {
        if self.question.having.is_any() { self.question.limit.saturating_add(1) } else { usize::MAX }
    }

    fn answer(&self, part: Part<'_, M::Cell>) -> Result<Answer<Found>> {
        let Part { cells, matched, points, held } = part;
        let cells = cells.into_rows();
        let _rows = self.memory.hold(cells.len() * ROW_BYTES)?;
        let value = |(group, window, cell): (u32, u64, M::Cell)| {
            let count = cell.count();
            Ok((group, window, self.measure.value(cell, self.source.context)?, count))
        };
        let values = self.source.threads.map(cells, value);
        drop(held);
        let mut values = values?;
        values.retain(|(_, _, value, _)| self.question.having.admits(*value));
        let truncated = values.len() > self.question.limit;
        values.truncate(self.question.limit);
        let stats = QueryStats { points_scanned: points, series_matched: matched, truncated };
        Ok(Answer { rows: self.named(&values), stats })
    }

    /// Rows with the names of their groups, each looked up once.
    fn named(&self, values: &[(u32, u64, f64, u64)]) -> Vec<Found> {
        let mut rows = Vec::with_capacity(values.len());
        for of_group in values.chunk_by(|one, other| one.0 == other.0) {
            let group = self.source.catalog.group_key(self.grouping, of_group[0].0);
            let row = |(_, window, value, count): &(u32, u64, f64, u64)| Found {
                group: group.clone(),
                window: *window,
                value: *value,
                count: *count,
            };
            rows.extend(of_group.iter().map(row));
        }
        rows
    }
}

/// The last sample of a piece, and how many it has.
pub fn end_of(piece: &Piece<'_>) -> Result<(Sample, u64)> {
    match piece {
        Piece::Hour(hour) => Ok((Sample { time: hour.last_time, value: hour.last }, u64::from(hour.count))),
        Piece::Samples { times, values } => match (times.last(), values.last()) {
            (Some(time), Some(value)) => Ok((Sample { time: *time, value: *value }, times.len() as u64)),
            _ => Err(StoreError::internal("a piece of a series without a sample")),
        },
    }
}
