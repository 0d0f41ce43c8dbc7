//! One layer as a scan reads it: forward, page by page, no page twice.

use ::rocksdb::DBPinnableSlice;

use crate::rocksdb::layer::LayerRecord;
use crate::rocksdb::page::{PageIndex, PageSummary, Scratch, Span, in_page};
use crate::rocksdb::scan::{Detail, Indifference, ScanSpec};
use crate::rocksdb::summary::{HourSummary, Wanted};
use crate::rocksdb::tables::{PageKey, Tables, Tier};
use crate::store::{Result, StoreError};

/// The pages of a layer that hold a wanted series, and which of them is being read.
pub(super) struct Source<'a> {
    tables: &'a Tables,
    tier: Tier<'a>,
    /// The layer's UTC day.
    pub(super) day: i32,
    /// The first time of it that is visible.
    pub(super) from: i64,
    pages: Vec<Listed>,
    page: usize,
    /// Where the last series was found.
    position: usize,
    /// Data of the page that is being read, once it was needed.
    data: Option<DBPinnableSlice<'a>>,
    index: PageIndex,
    indifferent: Indifference,
    wanted: Wanted,
}

/// Series of which each is remembered by itself where it lies; of more, their pages are looked for in one go.
const FEW: usize = 16;
/// In a range no longer than this (ms) most series have a single sample.
const MOMENT: i64 = 60_000;

/// Takes samples: equally long slices, in the order of time.
type VisitSamples<'a> = dyn FnMut(&[i64], &[f64]) -> Result<()> + 'a;

struct Listed {
    key: PageKey,
    /// Absent when a scan wants samples that it can't tell.
    summary: Option<PageSummary>,
}

impl<'a> Source<'a> {
    /// Finds the pages of `layer` that may hold one of `ids`; samples before `from` are not shown.
    pub(super) fn open(
        (tables, tier): (&'a Tables, Tier<'a>),
        layer: &LayerRecord,
        from: i64,
        spec: &ScanSpec,
        ids: &[u32],
    ) -> Result<Self> {
        let mut pages: Vec<Listed> = Vec::new();
        let summaries_may_do = spec.indifferent.is_any() || spec.range.millis() <= MOMENT;
        let summarised = spec.detail != Detail::Samples || summaries_may_do;
        let read =
            |key: &PageKey, bytes: &[u8]| PageSummary::read(bytes).map_err(|error| in_page(key, error));
        let place = (layer.day, layer.id, spec.metric);
        if ids.len() > FEW {
            tables.summaries(place, ids, tier, &mut |key, bytes| {
                let summary = if summarised { Some(read(&key, bytes)?) } else { None };
                pages.push(Listed { key, summary });
                Ok(())
            })?;
        } else {
            for id in ids {
                if pages.last().is_some_and(|page| *id <= page.key.last_series) {
                    continue;
                }
                let Some(key) = tables.page_of(place, *id, tier)? else { continue };
                let summary = if summarised { Some(read(&key, &tables.summary(&key, tier)?)?) } else { None };
                pages.push(Listed { key, summary });
            }
        }
        let index = PageIndex::default();
        let (day, indifferent) = (layer.day, spec.indifferent);
        let wanted = match spec.detail {
            Detail::Hours(wanted) => wanted,
            Detail::Existence | Detail::Samples => Wanted::Count,
        };
        Ok(Self {
            tables,
            tier,
            day,
            from,
            pages,
            page: 0,
            position: 0,
            data: None,
            index,
            indifferent,
            wanted,
        })
    }

    /// Whether it has none of the wanted series.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Goes on to series `id`, greater than those before; whether it is there.
    pub(super) fn seek(&mut self, id: u32, scratch: &mut Scratch) -> Result<bool> {
        while self.pages.get(self.page).is_some_and(|page| page.key.last_series < id) {
            self.page += 1;
            self.position = 0;
            self.data = None;
        }
        let Some(page) = self.pages.get(self.page).filter(|page| page.key.first_series <= id) else {
            return Ok(false);
        };
        if page.summary.is_none() {
            self.load(scratch)?;
        }
        let summary = self.pages[self.page].summary.as_ref();
        let series = summary.map_or(self.index.series(), PageSummary::series);
        self.position += series[self.position..].partition_point(|series| *series < id);
        Ok(series.get(self.position) == Some(&id))
    }

    /// The times of the series' first and last samples, visible or not.
    pub(super) fn interval(&self) -> (i64, i64) {
        if let Some(summary) = &self.pages[self.page].summary {
            let profile = summary.profile(self.position);
            return (profile.first_time, profile.last_time);
        }
        let blocks = self.index.blocks(self.position);
        match blocks.is_empty() {
            true => (i64::MAX, i64::MIN),
            false => (self.index.span(blocks.start).0, self.index.span(blocks.end - 1).1),
        }
    }

    /// The hours of the series that are summarised; all of its hours, or none.
    pub(super) fn spans(&self) -> &[Span] {
        self.pages[self.page].summary.as_ref().map_or(&[], |summary| summary.spans(self.position))
    }

    /// What the series did in the `nth` of those hours.
    pub(super) fn hour(&mut self, nth: usize) -> Result<HourSummary> {
        let (position, wanted, (key, summary)) = (self.position, self.wanted, self.summary()?);
        summary.hour(position, nth, wanted).map_err(|error| in_page(&key, error))
    }

    /// The value of the first sample in the `nth` of those hours.
    pub(super) fn first_value(&mut self, nth: usize) -> Result<f64> {
        let (position, (key, summary)) = (self.position, self.summary()?);
        summary.first_value(position, nth).map_err(|error| in_page(&key, error))
    }

    fn summary(&mut self) -> Result<(PageKey, &mut PageSummary)> {
        let page = &mut self.pages[self.page];
        match &mut page.summary {
            Some(summary) => Ok((page.key, summary)),
            None => Err(StoreError::internal("a summary was not read")),
        }
    }

    /// Visits the series' visible samples in `[start, end)`, block by block.
    pub(super) fn read(
        &mut self,
        (start, end): (i64, i64),
        scratch: &mut Scratch,
        visit: &mut VisitSamples<'_>,
    ) -> Result<()> {
        self.load(scratch)?;
        let start = start.max(self.from);
        let Listed { key, summary } = &mut self.pages[self.page];
        let failed = |error| in_page(key, error);
        let Some(data) = &self.data else { return Ok(()) };
        for block in self.index.blocks(self.position) {
            let (first, last) = self.index.span(block);
            if last < start || end <= first {
                continue;
            }
            let within = self.index.within(data, block, (start, end), scratch).map_err(failed)?;
            if within.is_empty() {
                continue;
            }
            let times = self.index.times();
            let told = match summary {
                Some(summary) => told(summary, self.position, times, self.indifferent),
                None => Ok(None),
            };
            if let Some(value) = told.map_err(failed)? {
                visit(times, scratch.repeated(value, times.len()))?;
                continue;
            }
            let values = self.index.values(data, block, within.end, scratch).map_err(failed)?;
            visit(times, &values[within])?;
        }
        Ok(())
    }

    /// Reads the current page's directory if that has not been done.
    fn load(&mut self, scratch: &mut Scratch) -> Result<()> {
        if self.data.is_some() {
            return Ok(());
        }
        let Listed { key, summary } = &self.pages[self.page];
        let data = self.tables.page(key, self.tier)?;
        let directory = self.tables.directory(key, &data, scratch)?;
        self.index.open(directory);
        if summary.as_ref().is_some_and(|summary| summary.series() != self.index.series()) {
            return Err(StoreError::corrupt(format!("{key:?}: data and summary are of different series")));
        }
        self.data = Some(data);
        Ok(())
    }
}

/// The value of each of these samples of a series, where its page's summary tells it: of one that is an hour's first or last,
/// or of some whose values make no difference.
fn told(
    summary: &mut PageSummary,
    position: usize,
    times: &[i64],
    indifferent: Indifference,
) -> Result<Option<f64>> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(None) };
    let spans = summary.spans(position);
    let nth = spans.partition_point(|span| span.last_time < *first);
    let hours = nth..nth + spans[nth..].partition_point(|span| span.first_time <= *last);
    if let (Some(span), [time]) = (spans.get(nth), times) {
        match (span.first_time == *time, span.last_time == *time) {
            (true, _) => return summary.first_value(position, nth).map(Some),
            (_, true) => return summary.last_value(position, nth).map(Some),
            _ => {}
        }
    }
    if !indifferent.is_any() || hours.is_empty() {
        return Ok(None);
    }
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for nth in hours {
        let of_hour = summary.extremes(position, nth)?;
        (min, max) = (min.min(of_hour.0), max.max(of_hour.1));
    }
    Ok(indifferent.one_for(min, max))
}
