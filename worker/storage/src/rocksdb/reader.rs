//! Scans one view of the store: layers, frozen heads and the active head become one series again.
//!
//! The view is a snapshot of what there is, not of what is in it: the active head goes on taking
//! commits and deletes while it is read, each of its series consistently under a lock. Layers and
//! frozen heads don't change, and stay until the last view that names them is dropped.

mod series;
mod source;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::model::TimeRange;
use crate::store::{QueryContext, Result};

use super::head::Head;
use super::layer::{Layer, View, day_of};
use super::merge::merge_samples;
use super::page::KeptScratch;
use super::scan::{Detail, Piece, ScanEstimate, ScanSpec, SeriesScan, Visitor};
use super::tables::{Tables, Tier};

use series::Assembler;
use source::Source;

/// Series whose summaries are held at once.
const SERIES_AT_ONCE: usize = 1_024;
/// The context is looked at after this many samples or series: well under a millisecond.
const CHECK_SAMPLES: u64 = 32_768;
const CHECK_SERIES: u32 = 128;
/// An estimate counts the head's samples of at most this many series.
const ESTIMATE_SERIES: usize = 2_048;

/// A view with the means to read it; nothing older than `floor` is shown.
#[derive(Debug)]
pub struct Reader<'a> {
    tables: &'a Tables,
    tier: Tier<'a>,
    view: Arc<View>,
    floor: i64,
}

impl<'a> Reader<'a> {
    /// Reads `view` from `floor` (Unix milliseconds) on: now − retention.
    #[must_use]
    pub fn new(tables: &'a Tables, view: Arc<View>, floor: i64) -> Self {
        Self { tables, tier: Tier::All, view, floor }
    }

    /// The same, but from memory alone: where that isn't enough, `missed` is set and a scan fails.
    #[must_use]
    pub fn in_memory(self, missed: &'a AtomicBool) -> Self {
        Self { tier: Tier::Memory(missed), ..self }
    }

    /// The part of a range that may be shown.
    fn shown(&self, range: TimeRange) -> Option<TimeRange> {
        TimeRange::new(range.start().max(self.floor), range.end())
    }

    /// The layers that may hold a sample of `metric` in `shown`, each with its first visible time.
    fn layers(&self, metric: u32, shown: TimeRange) -> impl Iterator<Item = (&Layer, i64)> {
        let layers = self.view.layers_of(day_of(shown.start()), day_of(shown.end() - 1));
        layers.iter().filter_map(move |layer| {
            let from = self.visible_from(metric, layer.record.last_commit, shown);
            layer.record.overlaps(metric, from, shown.end()).then_some((&**layer, from))
        })
    }

    /// The heads likewise, oldest first.
    fn heads(&self, metric: u32, shown: TimeRange) -> impl Iterator<Item = (&Head, i64)> {
        let frozen = self
            .view
            .frozen
            .iter()
            .map(move |frozen| (&*frozen.head, self.visible_from(metric, frozen.last_commit, shown)));
        // Deletes were applied to the active head itself.
        let heads = frozen.chain([(&*self.view.active, shown.start())]);
        heads.filter(move |(head, from)| head.overlaps(*from, shown.end()))
    }

    fn visible_from(&self, metric: u32, last_commit: u64, shown: TimeRange) -> i64 {
        self.view.cut_offs.visible_from(metric, last_commit).max(shown.start())
    }

    fn open(
        &self,
        spec: &ScanSpec,
        shown: TimeRange,
        ids: &[u32],
        meter: &mut Meter<'_>,
    ) -> Result<Vec<Source<'_>>> {
        let mut sources = Vec::new();
        for (layer, from) in self.layers(spec.metric, shown) {
            let source = Source::open((self.tables, self.tier), &layer.record, from, spec, ids)?;
            meter.count(0)?;
            if !source.is_empty() {
                sources.push(source);
            }
        }
        Ok(sources)
    }
}

impl SeriesScan for Reader<'_> {
    fn scan(
        &self,
        spec: &ScanSpec,
        ids: &[u32],
        context: &QueryContext,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        let Some(shown) = self.shown(spec.range) else { return Ok(()) };
        let heads: Vec<(&Head, i64)> = self.heads(spec.metric, shown).collect();
        let mut meter = Meter { context, samples: 0, series: 0 };
        let mut assembler = Assembler::new(spec.range, shown);
        let mut first = 0;
        for ids in ids.chunks(SERIES_AT_ONCE) {
            let mut sources = self.open(spec, shown, ids, &mut meter)?;
            for (position, id) in (first..).zip(ids) {
                meter.count_series()?;
                let emit = &mut |piece: Piece<'_>| {
                    meter.count(match piece {
                        Piece::Hour(_) => 1,
                        Piece::Samples { times, .. } => times.len() as u64,
                    })?;
                    visit(position, piece)
                };
                match spec.detail {
                    Detail::Existence => assembler.existence(*id, &mut sources, &heads, emit)?,
                    Detail::Hours(_) => assembler.hours(*id, &mut sources, &heads, emit)?,
                    Detail::Samples => assembler.samples(*id, &mut sources, &heads, emit)?,
                }
            }
            first += ids.len();
        }
        meter.flush()
    }

    fn estimate(&self, spec: &ScanSpec, ids: &[u32]) -> ScanEstimate {
        let Some(shown) = self.shown(spec.range) else { return ScanEstimate::default() };
        let (mut samples, mut bytes) = (0.0, 0.0);
        for (layer, from) in self.layers(spec.metric, shown) {
            let record = &layer.record;
            let Some(totals) = record.metrics.get(&spec.metric) else { continue };
            // As if every series had as many, spread evenly.
            let span = (record.max_time - record.min_time + 1) as f64;
            let part = (record.max_time.min(shown.end() - 1) - record.min_time.max(from) + 1) as f64 / span;
            let share = part * (ids.len() as f64 / totals.series.max(1) as f64).min(1.0);
            samples += totals.samples as f64 * share;
            bytes += totals.bytes as f64 * share;
        }
        for (head, _) in self.heads(spec.metric, shown) {
            let every = ids.len().div_ceil(ESTIMATE_SERIES).max(1);
            let counted: usize = ids.iter().step_by(every).map(|id| head.count(*id)).sum();
            let held = (counted * every) as f64;
            samples += held;
            bytes += held * head.bytes() as f64 / head.samples().max(1) as f64;
        }
        ScanEstimate { samples: samples.ceil() as u64, bytes: bytes.ceil() as u64 }
    }
}

/// Looks at the context now and then.
struct Meter<'a> {
    context: &'a QueryContext,
    samples: u64,
    series: u32,
}

impl Meter<'_> {
    fn count(&mut self, samples: u64) -> Result<()> {
        self.samples += samples;
        if self.samples >= CHECK_SAMPLES { self.flush() } else { Ok(()) }
    }

    fn count_series(&mut self) -> Result<()> {
        self.series += 1;
        if self.series >= CHECK_SERIES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.series = 0;
        self.context.check(std::mem::take(&mut self.samples))
    }
}

#[cfg(test)]
mod tests;
