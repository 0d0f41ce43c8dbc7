//! Layers: what one seal or merge wrote for one UTC day; and the view of the store that queries take.

mod builder;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use serde::{Deserialize, Serialize};

use crate::model::TimeRange;

use super::commit::Accepted;
use super::head::Head;

pub use builder::LayerBuilder;

/// Milliseconds of a day: pages are bucketed by UTC day.
pub const DAY: i64 = 86_400_000;

/// The UTC day of a time in Unix milliseconds, in days since the epoch.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "times are bounded by the write window, ±2^53")]
pub fn day_of(time: i64) -> i32 {
    time.div_euclid(DAY).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// The first millisecond of a UTC day.
#[must_use]
pub fn day_start(day: i32) -> i64 {
    i64::from(day) * DAY
}

/// What a layer holds of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetricTotals {
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes of pages and summaries.
    pub bytes: u64,
}

/// A layer as `meta` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its number, never reused.
    pub id: u64,
    /// Its UTC day.
    pub day: i32,
    /// The first commit that it may hold samples of.
    pub first_commit: u64,
    /// The last one; a layer with later commits wins over one with earlier.
    pub last_commit: u64,
    /// Time of its first sample.
    pub min_time: i64,
    /// Time of its last sample.
    pub max_time: i64,
    /// Whether it is the whole day, merged with the greater effort.
    pub complete: bool,
    /// What it holds, by metric number.
    pub metrics: BTreeMap<u32, MetricTotals>,
}

impl LayerRecord {
    /// Samples of all metrics.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.metrics.values().map(|totals| totals.samples).sum()
    }

    /// Bytes of all metrics.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.metrics.values().map(|totals| totals.bytes).sum()
    }

    /// Whether it holds a sample of `metric` that may lie in `[start, end)`.
    #[must_use]
    pub fn overlaps(&self, metric: u32, start: i64, end: i64) -> bool {
        self.min_time < end && start <= self.max_time && self.metrics.contains_key(&metric)
    }

    /// About how many samples of `metric` it holds in `range`, were they spread evenly over its time.
    #[must_use]
    pub fn samples_within(&self, metric: u32, range: TimeRange) -> u64 {
        let Some(totals) = self.metrics.get(&metric) else { return 0 };
        let (first, last) = (self.min_time.max(range.start()), self.max_time.min(range.end() - 1));
        let (shared, all) = (
            i128::from(last) - i128::from(first) + 1,
            i128::from(self.max_time) - i128::from(self.min_time) + 1,
        );
        let within = i128::from(totals.samples) * shared.max(0) / all.max(1);
        u64::try_from(within).unwrap_or(totals.samples)
    }
}

impl LayerRecord {
    /// An empty layer.
    #[must_use]
    pub fn empty(id: u64, day: i32, (first_commit, last_commit): (u64, u64)) -> Self {
        Self {
            id,
            day,
            first_commit,
            last_commit,
            min_time: i64::MAX,
            max_time: i64::MIN,
            complete: false,
            metrics: BTreeMap::new(),
        }
    }
}

/// What wakes the merger's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// The tables of this layer (day, number) can go.
    Remove((i32, u64)),
    /// Something has changed: layers, a delete, or the store is closing.
    Look,
}

/// A layer in use; once retired, its tables go when the last query has let go of it.
#[derive(Debug)]
pub struct Layer {
    /// What it is.
    pub record: LayerRecord,
    retired: AtomicBool,
    merger: Sender<Errand>,
}

impl Layer {
    /// A live layer, which tells `merger` its (day, number) when it may be removed.
    #[must_use]
    pub fn new(record: LayerRecord, merger: Sender<Errand>) -> Arc<Self> {
        Arc::new(Self { record, retired: AtomicBool::new(false), merger })
    }

    /// Marks it as no longer named by `meta`.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            // Without a receiver the store is closing; the next start removes what is left.
            let _closing = self.merger.send(Errand::Remove((self.record.day, self.record.id)));
        }
    }
}

/// Deletes that layers still have to honour.
#[derive(Debug, Clone, Default)]
pub struct CutOffs(BTreeMap<u32, Vec<(u64, i64)>>);

impl CutOffs {
    /// Remembers that commit `commit` deleted the samples of `metric` with `time < before`.
    pub fn insert(&mut self, metric: u32, commit: u64, before: i64) {
        let of_metric = self.0.entry(metric).or_default();
        if !of_metric.contains(&(commit, before)) {
            of_metric.push((commit, before));
        }
    }

    /// The first visible time of `metric` in data whose last commit is `last_commit`.
    #[must_use]
    pub fn visible_from(&self, metric: u32, last_commit: u64) -> i64 {
        let of_metric = self.0.get(&metric).map_or(&[][..], Vec::as_slice);
        let applying = of_metric.iter().filter(|(commit, _)| *commit > last_commit);
        applying.map(|(_, before)| *before).max().unwrap_or(i64::MIN)
    }

    /// Forgets those that no data with a last commit ≥ `oldest` is subject to; returns them.
    pub fn forget_before(&mut self, oldest: u64) -> Vec<(u32, u64)> {
        let mut gone = Vec::new();
        for (metric, of_metric) in &mut self.0 {
            of_metric.retain(|(commit, _)| {
                let needed = *commit > oldest;
                if !needed {
                    gone.push((*metric, *commit));
                }
                needed
            });
        }
        self.0.retain(|_, of_metric| !of_metric.is_empty());
        gone
    }

    /// Every one: metric, commit, before.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64, i64)> {
        self.0.iter().flat_map(|(metric, all)| all.iter().map(|(commit, before)| (*metric, *commit, *before)))
    }
}

/// A head that is being sealed.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// Its samples; nothing is added any more.
    pub head: Arc<Head>,
    /// The first commit in it.
    pub first_commit: u64,
    /// The last commit in it.
    pub last_commit: u64,
    /// Samples accepted until then.
    pub accepted: Arc<Accepted>,
}

/// Everything that a query reads, replaced as a whole: a sample is in exactly one place of it.
#[derive(Debug, Clone)]
pub struct View {
    /// Where commits go.
    pub active: Arc<Head>,
    /// Heads that are being sealed, oldest first.
    pub frozen: Vec<Frozen>,
    /// Live layers by day, then by commit.
    pub layers: Vec<Arc<Layer>>,
    /// Deletes to honour.
    pub cut_offs: Arc<CutOffs>,
}

impl View {
    /// Layers of the days `first..=last`.
    #[must_use]
    pub fn layers_of(&self, first: i32, last: i32) -> &[Arc<Layer>] {
        let from = self.layers.partition_point(|layer| layer.record.day < first);
        let to = self.layers.partition_point(|layer| layer.record.day <= last);
        &self.layers[from..to.max(from)]
    }

    /// Puts `added` in and takes `removed` (numbers) out, keeping the order.
    pub fn exchange(&mut self, removed: &[u64], added: Vec<Arc<Layer>>) {
        self.layers.retain(|layer| !removed.contains(&layer.record.id));
        self.layers.extend(added);
        self.layers.sort_by_key(|layer| (layer.record.day, layer.record.first_commit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_hides_what_was_committed_before_it_and_nothing_later() {
        let mut cut_offs = CutOffs::default();
        cut_offs.insert(3, 10, 1_000);
        cut_offs.insert(3, 20, 500);
        assert_eq!(cut_offs.visible_from(3, 9), 1_000);
        assert_eq!(cut_offs.visible_from(3, 10), 500);
        assert_eq!(cut_offs.visible_from(3, 20), i64::MIN);
        assert_eq!(cut_offs.visible_from(4, 0), i64::MIN);
        assert_eq!(cut_offs.forget_before(10), [(3, 10)]);
        assert_eq!(cut_offs.visible_from(3, 9), 500);
    }

    #[test]
    fn days_begin_at_midnight_on_both_sides_of_the_epoch() {
        assert_eq!((day_of(0), day_of(DAY - 1), day_of(DAY), day_of(-1)), (0, 0, 1, -1));
        assert_eq!(day_start(-1), -DAY);
    }
}
