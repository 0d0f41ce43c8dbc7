//! The pages of one layer: each read twice, from its samples and from its summary, which must agree.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{MetricName, Tenant};
use crate::rocksdb::index::Index;
use crate::rocksdb::layer::{LayerRecord, MetricTotals, day_of};
use crate::rocksdb::page::{PageIndex, PageSummary, Scratch};
use crate::rocksdb::summary::Wanted;
use crate::rocksdb::tables::{Half, PageKey, Tables, Tier};
use crate::store::{Result, StoreError};

use super::report::{Damage, Report};

type Times = (i64, i64);

/// What one half of a page says of its series.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    series: Vec<u32>,
    /// Samples of each.
    samples: Vec<u64>,
    times: Times,
}

/// Why a half can't be read, and when its samples were as far as that is known.
struct Broken {
    error: StoreError,
    times: Option<Times>,
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self { error, times: None }
    }
}

type Halves = BTreeMap<PageKey, std::result::Result<Facts, Broken>>;

/// Checks a layer metric by metric.
pub(super) struct LayerCheck<'a> {
    tables: &'a Tables,
    record: &'a LayerRecord,
    names: &'a Index,
    directory: PageIndex,
    scratch: Scratch,
}

impl<'a> LayerCheck<'a> {
    pub(super) fn new(tables: &'a Tables, record: &'a LayerRecord, names: &'a Index) -> Self {
        let (directory, scratch) = (PageIndex::default(), Scratch::default());
        Self { tables, record, names, directory, scratch }
    }

    /// Checks everything of one metric, which must come to `totals`.
    pub(super) fn metric(&mut self, metric: u32, totals: &MetricTotals, report: &mut Report) {
        let owner = self.names.metric_name(metric);
        // 1. Both halves, in the order of keys; an error ends an iteration, not the check.
        let mut summaries = Halves::new();
        let mut pages = Halves::new();
        let summaries_end = self.read_half(Half::Summaries, metric, &mut summaries);
        let pages_end = self.read_half(Half::Pages, metric, &mut pages);
        // 2. What one of them knows is looked for in the other, key by key.
        self.look_up(Half::Pages, &summaries, &mut pages);
        self.look_up(Half::Summaries, &pages, &mut summaries);
        // 3. They are compared.
        let (mut found, mut damaged) = (MetricTotals::default(), false);
        let keys: BTreeSet<PageKey> = summaries.keys().chain(pages.keys()).copied().collect();
        report.counts.pages += keys.len() as u64;
        for key in &keys {
            let facts = pages.get(key).and_then(|half| half.as_ref().ok());
            let facts = facts.or_else(|| summaries.get(key).and_then(|half| half.as_ref().ok()));
            if let Some(facts) = facts {
                found.series += facts.series.len() as u64;
                found.samples += facts.samples.iter().sum::<u64>();
            }
            if let Some(broken) = self.disagreement(key, pages.get(key), summaries.get(key)) {
                damaged = true;
                let times = broken.times.or(facts.map(|facts| facts.times));
                report.damage(self.damage(Some(key), owner.as_ref(), &broken.error, times));
            }
        }
        report.counts.samples += found.samples;
        report.counts.bytes += totals.bytes;
        // 4. Nothing is missing.
        let missing = (found.series, found.samples) != (totals.series, totals.samples);
        let cut = summaries_end.err().or(pages_end.err());
        let cut = cut.or_else(|| missing.then(|| self.miscounted(&found, totals)));
        if let (false, Some(error)) = (damaged, cut) {
            report.damage(self.damage(None, owner.as_ref(), &error, None));
        }
    }

    fn miscounted(&self, found: &MetricTotals, totals: &MetricTotals) -> StoreError {
        StoreError::corrupt(format!(
            "{} samples of {} series are there, and should be {} of {}",
            found.samples, found.series, totals.samples, totals.series
        ))
    }

    fn read_half(&mut self, half: Half, metric: u32, into: &mut Halves) -> Result<()> {
        let (tables, place) = (self.tables, (self.record.day, self.record.id, metric));
        tables.visit_half(half, place, &mut |key, bytes| {
            into.insert(key, self.facts(half, &key, bytes));
        })
    }

    /// Looks for the keys of `known` in the other half where the iteration didn't reach them.
    fn look_up(&mut self, half: Half, known: &Halves, into: &mut Halves) {
        for key in known.keys() {
            if into.contains_key(key) {
                continue;
            }
            let tables = self.tables;
            let read = match tables.half(half, key, Tier::All) {
                Ok(Some(bytes)) => self.facts(half, key, &bytes),
                Ok(None) => continue,
                Err(error) => Err(error.into()),
            };
            into.insert(*key, read);
        }
    }

    fn facts(&mut self, half: Half, key: &PageKey, bytes: &[u8]) -> std::result::Result<Facts, Broken> {
        let facts = match half {
            Half::Pages => self.page(bytes)?,
            Half::Summaries => summary(bytes)?,
        };
        let ends = (facts.series.first(), facts.series.last());
        let fits = ends == (Some(&key.first_series), Some(&key.last_series))
            && day_of(facts.times.0) == key.day
            && day_of(facts.times.1) == key.day;
        match fits {
            true => Ok(facts),
            false => Err(StoreError::corrupt("it isn't what its key says").into()),
        }
    }

    fn page(&mut self, bytes: &[u8]) -> std::result::Result<Facts, Broken> {
        self.directory.read(bytes, &mut self.scratch)?;
        let series = self.directory.series().to_vec();
        let mut samples = vec![0; series.len()];
        let mut times = (i64::MAX, i64::MIN);
        for (position, samples) in samples.iter_mut().enumerate() {
            for block in self.directory.blocks(position) {
                let span = self.directory.span(block);
                let decoded = self.directory.decode(bytes, block, &mut self.scratch);
                let (own, _) = decoded.map_err(|error| Broken { error, times: Some(span) })?;
                *samples += own.len() as u64;
                times = (times.0.min(span.0), times.1.max(span.1));
            }
        }
        Ok(Facts { series, samples, times })
    }

    fn disagreement(
        &self,
        key: &PageKey,
        page: Option<&std::result::Result<Facts, Broken>>,
        summary: Option<&std::result::Result<Facts, Broken>>,
    ) -> Option<Broken> {
        let again = |broken: &Broken, times| Broken { error: broken.error.clone(), times };
        let other = |half: &std::result::Result<Facts, Broken>| half.as_ref().ok().map(|facts| facts.times);
        match (page, summary) {
            (Some(Err(page)), summary) => Some(again(page, page.times.or(summary.and_then(other)))),
            (page, Some(Err(summary))) => Some(again(summary, page.and_then(other))),
            (Some(Ok(page)), Some(Ok(summary))) if page == summary => None,
            (Some(Ok(_)), Some(Ok(_))) => {
                Some(StoreError::corrupt("samples and summary are of different series or times").into())
            }
            (None, _) => Some(StoreError::corrupt(format!("{key:?} has a summary and no samples")).into()),
            (_, None) => Some(StoreError::corrupt(format!("{key:?} has samples and no summary")).into()),
        }
    }

    fn damage(
        &self,
        key: Option<&PageKey>,
        owner: Option<&(Tenant, MetricName)>,
        error: &StoreError,
        times: Option<Times>,
    ) -> Damage {
        let mut place = format!("tables, layer {}", self.record.id);
        if let Some(key) = key {
            place += &format!(", series {} to {}", key.first_series, key.last_series);
        }
        let (first, last) = times.unwrap_or((self.record.min_time, self.record.max_time));
        let damage = Damage::of(&place, error).of_metric(owner).between(first, last);
        Damage { layer: Some(self.record.id), ..damage }
    }
}

fn summary(bytes: &[u8]) -> std::result::Result<Facts, Broken> {
    let mut summary = PageSummary::read(bytes)?;
    let series = summary.series().to_vec();
    let mut samples = Vec::with_capacity(series.len());
    let mut times = (i64::MAX, i64::MIN);
    for position in 0..series.len() {
        let profile = summary.profile(position);
        samples.push(profile.samples);
        times = (times.0.min(profile.first_time), times.1.max(profile.last_time));
        for nth in 0..summary.spans(position).len() {
            summary.hour(position, nth, Wanted::All)?;
        }
    }
    Ok(Facts { series, samples, times })
}
