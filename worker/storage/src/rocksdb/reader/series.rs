//! One series out of all places that hold some of it: pieces in the order of time, duplicates merged.
//!
//! Layers of a day stand in the order of their commits, then frozen heads, then the active one: of two
//! samples with one time the later place wins. Days don't share samples, so each is put together alone.

use crate::model::TimeRange;
use crate::rocksdb::layer::{DAY, day_start};
use crate::rocksdb::summary::{HOUR, HourSummary, step, trapezoid};
use crate::store::Result;

use super::source::Source;
use super::{Head, KeptScratch, Piece, merge_samples};

/// What takes the pieces of a series.
type Emit<'a> = dyn FnMut(Piece<'_>) -> Result<()> + 'a;

/// Gives what a day's layers and the heads hold of a series from one time until another.
type OfDay = fn(&mut Assembler, &mut [Source<'_>], &Samples, (i64, i64), &mut Emit<'_>) -> Result<()>;

/// Samples of one series.
#[derive(Debug, Default)]
pub(super) struct Samples {
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Samples {
    fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    fn slice(&self) -> Slice<'_> {
        Slice { times: &self.times, values: &self.values }
    }

    /// Adds newer samples, which win.
    fn merge(&mut self, newer: Slice<'_>) {
        merge_samples(&mut self.times, &mut self.values, newer.times, newer.values);
    }
}

#[derive(Debug, Clone, Copy)]
struct Slice<'a> {
    times: &'a [i64],
    values: &'a [f64],
}

impl Slice<'_> {
    /// Those in `[start, end)`.
    fn within(&self, start: i64, end: i64) -> Self {
        let from = self.times.partition_point(|time| *time < start);
        let to = from + self.times[from..].partition_point(|time| *time < end);
        Self { times: &self.times[from..to], values: &self.values[from..to] }
    }

    fn emit(&self, emit: &mut Emit<'_>) -> Result<()> {
        match self.times.is_empty() {
            true => Ok(()),
            false => emit(Piece::Samples { times: self.times, values: self.values }),
        }
    }
}

/// Where a part of a series lies: a layer by its place among those of the day, or the heads, which
/// come after all of them.
const HEADS: usize = usize::MAX;

/// A stretch of a series in one place.
#[derive(Debug, Clone, Copy)]
struct Part {
    place: usize,
    first: i64,
    last: i64,
    /// Its hour, and which of its place's summaries it is; [`LOOSE`] when it has to be read.
    hour: i64,
    nth: usize,
}

const LOOSE: usize = usize::MAX;

/// Puts series together; its buffers are kept from one to the next.
pub(super) struct Assembler {
    /// The range as asked: an hour that it cuts is not given as a whole.
    range: TimeRange,
    /// What of it may be shown.
    shown: TimeRange,
    scratch: KeptScratch,
    heads: Samples,
    newer: Samples,
    merged: Samples,
    parts: Vec<Part>,
}

impl Assembler {
    pub(super) fn new(range: TimeRange, shown: TimeRange) -> Self {
        Self {
            range,
            shown,
            scratch: KeptScratch::default(),
            heads: Samples::default(),
            newer: Samples::default(),
            merged: Samples::default(),
            parts: Vec::new(),
        }
    }

    /// Gives one piece if the series has a sample; that sample may be one that a later one replaced.
    pub(super) fn existence(
        &mut self,
        id: u32,
        sources: &mut [Source<'_>],
        heads: &[(&Head, i64)],
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        for source in sources.iter_mut() {
            if !source.seek(id, &mut self.scratch)? {
                continue;
            }
            let (from, end) = (source.from, self.shown.end());
            let begins = |first: i64| from <= first && first < end;
            if let Some(nth) = source.spans().iter().position(|span| begins(span.first_time)) {
                let (time, value) = (source.spans()[nth].first_time, source.first_value(nth)?);
                return emit(Piece::Samples { times: &[time], values: &[value] });
            }
            let (first, last) = source.interval();
            let mut found = None;
            if first < end && from <= last {
                source.read((from, end), &mut self.scratch, &mut |times, values| {
                    found = found.or(times.first().copied().zip(values.first().copied()));
                    Ok(())
                })?;
            }
            if let Some((time, value)) = found {
                return emit(Piece::Samples { times: &[time], values: &[value] });
            }
        }
        self.read_heads(id, heads);
        match (self.heads.times.first(), self.heads.values.first()) {
            (Some(time), Some(value)) => emit(Piece::Samples { times: &[*time], values: &[*value] }),
            _ => Ok(()),
        }
    }

    /// Gives all samples.
    pub(super) fn samples(
        &mut self,
        id: u32,
        sources: &mut [Source<'_>],
        heads: &[(&Head, i64)],
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        self.read_heads(id, heads);
        self.by_day(id, sources, emit, Self::samples_of_day)
    }

    /// Gives whole hours as summaries, samples elsewhere.
    pub(super) fn hours(
        &mut self,
        id: u32,
        sources: &mut [Source<'_>],
        heads: &[(&Head, i64)],
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        self.read_heads(id, heads);
        self.by_day(id, sources, emit, Self::hours_of_day)
    }

    /// Fills `heads` with what may be shown of the heads' samples.
    fn read_heads(&mut self, id: u32, heads: &[(&Head, i64)]) {
        self.heads.clear();
        for (head, from) in heads {
            let range = *from..=self.shown.end() - 1;
            if self.heads.times.is_empty() {
                head.read_within(id, &range, &mut self.heads.times, &mut self.heads.values);
                continue;
            }
            self.newer.clear();
            head.read_within(id, &range, &mut self.newer.times, &mut self.newer.values);
            self.heads.merge(self.newer.slice());
        }
    }

    /// Goes through the days; the heads' samples of days without a layer are given as they are.
    fn by_day(
        &mut self,
        id: u32,
        sources: &mut [Source<'_>],
        emit: &mut Emit<'_>,
        of_day: OfDay,
    ) -> Result<()> {
        let heads = std::mem::take(&mut self.heads);
        let mut next = self.shown.start();
        for sources in sources.chunk_by_mut(|one, other| one.day == other.day) {
            let day = day_start(sources[0].day);
            self.find_parts(id, sources)?;
            if self.parts.is_empty() {
                continue;
            }
            heads.slice().within(next, day).emit(emit)?;
            of_day(self, sources, &heads, (day.max(next), (day + DAY).min(self.shown.end())), emit)?;
            next = day + DAY;
        }
        heads.slice().within(next, self.shown.end()).emit(emit)?;
        self.heads = heads;
        Ok(())
    }

    /// Fills `parts` with the layers of a day that have samples of the series to show.
    fn find_parts(&mut self, id: u32, sources: &mut [Source<'_>]) -> Result<()> {
        self.parts.clear();
        for (place, source) in sources.iter_mut().enumerate() {
            if source.seek(id, &mut self.scratch)? {
                let (first, last) = source.interval();
                if first < self.shown.end() && source.from <= last {
                    self.parts.push(Part { place, first, last, hour: 0, nth: LOOSE });
                }
            }
        }
        Ok(())
    }

    fn samples_of_day(
        &mut self,
        sources: &mut [Source<'_>],
        heads: &Samples,
        (start, end): (i64, i64),
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let heads = heads.slice().within(start, end);
        self.push_heads(heads, 0);
        self.emit_samples(sources, heads, (start, end), 0..self.parts.len(), emit)
    }

    fn push_heads(&mut self, samples: Slice<'_>, hour: i64) {
        if let (Some(first), Some(last)) = (samples.times.first(), samples.times.last()) {
            self.parts.push(Part { place: HEADS, first: *first, last: *last, hour, nth: LOOSE });
        }
    }

    /// Gives the samples of `parts` (in the order of places) in `[start, end)`: one part after another
    /// where they don't overlap, else merged.
    fn emit_samples(
        &mut self,
        sources: &mut [Source<'_>],
        heads: Slice<'_>,
        (start, end): (i64, i64),
        parts: std::ops::Range<usize>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let parts = &mut self.parts[parts];
        if are_apart(parts) {
            for part in parts {
                match sources.get_mut(part.place) {
                    None => heads.within(start, end).emit(emit)?,
                    Some(source) => source.read((start, end), &mut self.scratch, &mut |times, values| {
                        emit(Piece::Samples { times, values })
                    })?,
                }
            }
            return Ok(());
        }
        parts.sort_unstable_by_key(|part| part.place);
        self.merged.clear();
        for part in parts {
            match sources.get_mut(part.place) {
                None => self.merged.merge(heads.within(start, end)),
                Some(source) => source.read((start, end), &mut self.scratch, &mut |times, values| {
                    self.merged.merge(Slice { times, values });
                    Ok(())
                })?,
            }
        }
        self.merged.slice().emit(emit)
    }

    fn hours_of_day(
        &mut self,
        sources: &mut [Source<'_>],
        heads: &Samples,
        (start, end): (i64, i64),
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let heads = heads.slice().within(start, end);
        self.split_by_hour(sources, (start, end))?;
        for hour in heads.times.chunk_by(|one, other| one.div_euclid(HOUR) == other.div_euclid(HOUR)) {
            let start = hour[0].div_euclid(HOUR) * HOUR;
            self.push_heads(heads.within(start, start + HOUR), start);
        }
        // One place's parts are in order already.
        if self.parts.windows(2).any(|pair| pair[0].place != pair[1].place) {
            self.parts.sort_unstable_by_key(|part| (part.hour, part.place));
        }
        let mut from = 0;
        while let Some(part) = self.parts.get(from) {
            let hour = part.hour;
            let to = from + self.parts[from..].iter().take_while(|part| part.hour == hour).count();
            self.hour(sources, heads, from..to, emit)?;
            from = to;
        }
        Ok(())
    }

    /// Replaces each layer's part by its hours.
    fn split_by_hour(&mut self, sources: &mut [Source<'_>], (start, end): (i64, i64)) -> Result<()> {
        let places = self.parts.len();
        for at in 0..places {
            let place = self.parts[at].place;
            let source = &mut sources[place];
            let from = start.max(source.from);
            for (nth, span) in source.spans().iter().enumerate() {
                if span.first_time < end && from <= span.last_time {
                    let (first, last, hour) = (span.first_time, span.last_time, span.hour);
                    self.parts.push(Part { place, first, last, hour, nth });
                }
            }
            if source.spans().is_empty() {
                // Few samples, or they would be summarised.
                source.read((start, end), &mut self.scratch, &mut |times, _| {
                    for hour in times.chunk_by(|one, other| one.div_euclid(HOUR) == other.div_euclid(HOUR)) {
                        let (first, last) = (hour[0], hour[hour.len() - 1]);
                        let hour = first.div_euclid(HOUR) * HOUR;
                        // Of two blocks that share an hour, the later continues the part.
                        match self.parts.last_mut() {
                            Some(part) if (part.place, part.hour, part.nth) == (place, hour, LOOSE) => {
                                part.last = last;
                            }
                            _ => self.parts.push(Part { place, first, last, hour, nth: LOOSE }),
                        }
                    }
                    Ok(())
                })?;
            }
        }
        self.parts.drain(..places);
        Ok(())
    }

    /// Gives one hour, of which `parts` (in the order of places) hold samples.
    fn hour(
        &mut self,
        sources: &mut [Source<'_>],
        heads: Slice<'_>,
        parts: std::ops::Range<usize>,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let own = &mut self.parts[parts.clone()];
        let hour = own[0].hour;
        let whole = self.range.start() <= hour && hour.saturating_add(HOUR) <= self.range.end();
        let summarised = own.iter().any(|part| part.nth != LOOSE);
        let visible = own.iter().all(|part| part.nth == LOOSE || sources[part.place].from <= part.first);
        if !(whole && summarised && visible && are_apart(own)) {
            let shown = (hour.max(self.shown.start()), (hour + HOUR).min(self.shown.end()));
            return self.emit_samples(sources, heads, shown, parts, emit);
        }
        let mut joined: Option<HourSummary> = None;
        for part in own {
            let summary = match part.nth {
                LOOSE => {
                    self.merged.clear();
                    match sources.get_mut(part.place) {
                        None => self.merged.merge(heads.within(hour, hour + HOUR)),
                        Some(source) => {
                            source.read((hour, hour + HOUR), &mut self.scratch, &mut |times, values| {
                                self.merged.merge(Slice { times, values });
                                Ok(())
                            })?
                        }
                    }
                    HourSummary::of(&self.merged.times, &self.merged.values)
                }
                nth => sources[part.place].hour(nth)?,
            };
            joined = Some(joined.map_or(summary, |before| join(&before, &summary)));
        }
        joined.map_or(Ok(()), |summary| emit(Piece::Hour(&summary)))
    }
}

/// Whether no two parts overlap; then they are in the order of time.
fn are_apart(parts: &mut [Part]) -> bool {
    parts.len() == 1 || {
        parts.sort_unstable_by_key(|part| part.first);
        parts.windows(2).all(|pair| pair[0].last < pair[1].first)
    }
}

/// An hour of which one place holds the first samples and another the rest.
fn join(before: &HourSummary, after: &HourSummary) -> HourSummary {
    HourSummary {
        hour: before.hour,
        count: before.count.saturating_add(after.count),
        sum: before.sum + after.sum,
        min: before.min.min(after.min),
        max: before.max.max(after.max),
        first: before.first,
        last: after.last,
        first_time: before.first_time,
        last_time: after.last_time,
        increase: before.increase + step(before.last, after.first) + after.increase,
        integral: before.integral
            + trapezoid(before.last_time, before.last, after.first_time, after.first)
            + after.integral,
    }
}
