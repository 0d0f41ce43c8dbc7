//! Merges: neighbouring layers of a day become one, with longer blocks, without what is gone.
//!
//! Only neighbours in commit order are merged, so that the later write of two still wins. What a
//! delete, a retention or the removal of a series hides is left out for good.

mod cursor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::store::Result;

use super::codec::Effort;
use super::engine::Inner;
use super::layer::{DAY, Errand, Layer, LayerBuilder, LayerRecord, day_of, day_start};
use super::seal::{cut_off_key, put_layer, rewrite_definitions};
use super::tables::{MetaBatch, Prefix};

pub use cursor::{Cursor, merge_samples};

/// Neighbours of about this ratio of sizes are merged once there are [`TIER`] of them.
const RATIO: u64 = 4;
const TIER: usize = 4;
/// A day is merged as a whole this long after its end: late samples have mostly come by then.
const DAY_IS_OVER: i64 = 2 * 3_600_000;
/// The merger works at most this long without a rest of the same length, so that it takes half a core.
const STRETCH: Duration = Duration::from_millis(20);
const PROGRESS: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(500);

/// The merger's thread: removes retired tables, merges, and drops expired days.
pub fn run(inner: &Arc<Inner>, errands: &Receiver<Errand>) {
    let mut expired_at: Option<Instant> = None;
    let mut failed_at: Option<Instant> = None;
    while !inner.is_stopping() {
        match errands.recv_timeout(TICK) {
            Ok(Errand::Remove(layer)) => {
                if let Err(error) = inner.tables.drop_layer(layer) {
                    tracing::error!(%error, "a retired layer could not be removed; the next start does it");
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Errand::Look) | Err(RecvTimeoutError::Timeout) => {}
        }
        if failed_at.is_some_and(|failed| failed.elapsed() < Duration::from_secs(30)) {
            continue;
        }
        let due = expired_at.is_none_or(|at| at.elapsed() >= inner.options.retention_check);
        let result = if due {
            expired_at = Some(Instant::now());
            drop_expired(inner).and_then(|()| rewrite_definitions(inner))
        } else {
            merge_next(inner, true).map(|_merged| ())
        };
        failed_at = result.err().map(|error| {
            tracing::error!(%error, "a merge failed; its layers stay as they are");
            Instant::now()
        });
    }
}

/// Merges one set of layers that deserves it; whether there was one.
///
/// # Errors
/// `Corrupt`, `Unavailable`, `Internal`.
pub fn merge_next(inner: &Arc<Inner>, paced: bool) -> Result<bool> {
    let _one_at_a_time = inner.merging.lock();
    let view = inner.view.load_full();
    let Some((layers, whole_day)) = choose(inner, &view.layers) else { return Ok(false) };
    drop(view);
    merge(inner, &layers, whole_day, paced)?;
    Ok(true)
}

/// Merges all layers of every day into one, however few they are.
///
/// # Errors
/// `Corrupt`, `Unavailable`, `Internal`.
pub fn merge_all(inner: &Arc<Inner>) -> Result<()> {
    let _one_at_a_time = inner.merging.lock();
    for layers in by_day(&inner.view.load().layers) {
        merge(inner, &layers, true, false)?;
    }
    Ok(())
}

fn by_day(layers: &[Arc<Layer>]) -> Vec<Vec<Arc<Layer>>> {
    layers.chunk_by(|one, other| one.record.day == other.record.day).map(<[_]>::to_vec).collect()
}

/// The next layers to merge, and whether they are all of a day that is over.
fn choose(inner: &Inner, layers: &[Arc<Layer>]) -> Option<(Vec<Arc<Layer>>, bool)> {
    let now = inner.options.clock.now();
    let cut_offs = inner.view.load().cut_offs.clone();
    for of_day in by_day(layers) {
        let over = day_start(of_day[0].record.day) + DAY + DAY_IS_OVER <= now;
        let complete = of_day.len() == 1 && of_day[0].record.complete;
        let hides = |layer: &Arc<Layer>| {
            let record = &layer.record;
            let visible = |metric: &u32| cut_offs.visible_from(*metric, record.last_commit);
            record.metrics.keys().any(|metric| visible(metric) > record.min_time)
        };
        if over && (!complete || of_day.iter().any(hides)) {
            return Some((of_day, true));
        }
        for first in 0..of_day.len() {
            let run = similar_run(&of_day[first..]);
            if run >= TIER {
                return Some((of_day[first..first + run].to_vec(), false));
            }
        }
    }
    None
}

/// How many layers from the first on are of similar size.
fn similar_run(layers: &[Arc<Layer>]) -> usize {
    let (mut least, mut most) = (u64::MAX, 0);
    layers
        .iter()
        .take_while(|layer| {
            let bytes = layer.record.bytes().max(64 << 10);
            (least, most) = (least.min(bytes), most.max(bytes));
            most <= least.saturating_mul(RATIO)
        })
        .count()
}

fn merge(inner: &Arc<Inner>, layers: &[Arc<Layer>], whole_day: bool, paced: bool) -> Result<()> {
    let (Some(oldest), Some(newest)) = (layers.first(), layers.last()) else { return Ok(()) };
    let day = oldest.record.day;
    let commits = (oldest.record.first_commit, newest.record.last_commit);
    let mut record = LayerRecord::empty(inner.new_layer_id(), day, commits);
    record.complete = whole_day;
    let effort = if whole_day { Effort::Merge } else { Effort::Seal };
    let files = inner.tables.begin_layer(day, record.id);
    let builder = LayerBuilder::new(&files, record, effort)?;
    let merged = fill(inner, layers, builder, paced)?;
    if merged.is_some() {
        inner.tables.ingest_layer(files)?;
    }
    publish(inner, layers, merged)
}

/// Names the merged layer in place of its parts, for restarts and then for queries.
fn publish(inner: &Arc<Inner>, layers: &[Arc<Layer>], merged: Option<LayerRecord>) -> Result<()> {
    let mut batch = MetaBatch::default();
    for layer in layers {
        batch.delete(Prefix::Layer, &layer.record.id.to_be_bytes());
    }
    if let Some(record) = &merged {
        put_layer(&mut batch, record)?;
    }
    inner.tables.write_meta(batch)?;
    let numbers: Vec<u64> = layers.iter().map(|layer| layer.record.id).collect();
    let added = merged.map(|record| Layer::new(record, inner.merger.clone()));
    inner.change_view(|view| view.exchange(&numbers, added.into_iter().collect()));
    for layer in layers {
        layer.retire();
    }
    forget_cut_offs(inner)
}

/// Drops the cut-offs that nothing stored is subject to any more.
fn forget_cut_offs(inner: &Arc<Inner>) -> Result<()> {
    let view = inner.view.load();
    let frozen = view.frozen.iter().map(|frozen| frozen.last_commit);
    let oldest = view.layers.iter().map(|layer| layer.record.last_commit).chain(frozen).min();
    let Some(oldest) = oldest else { return Ok(()) };
    drop(view);
    let mut gone = Vec::new();
    inner.change_view(|view| gone = Arc::make_mut(&mut view.cut_offs).forget_before(oldest));
    if gone.is_empty() {
        return Ok(());
    }
    let mut batch = MetaBatch::default();
    for (metric, commit) in gone {
        batch.delete(Prefix::CutOff, &cut_off_key(metric, commit));
    }
    inner.tables.write_meta(batch)
}

fn fill(
    inner: &Arc<Inner>,
    layers: &[Arc<Layer>],
    mut builder: LayerBuilder<'_>,
    paced: bool,
) -> Result<Option<LayerRecord>> {
    let mut cursors = Vec::with_capacity(layers.len());
    for layer in layers {
        cursors.push(Cursor::open(&inner.tables, &layer.record)?);
    }
    let cut_offs = inner.view.load().cut_offs.clone();
    let total: u64 = layers.iter().map(|layer| layer.record.samples()).sum();
    let mut pace = Pace::new(total, paced);
    let mut floors = BTreeMap::new();
    while let Some((metric, series)) = cursors.iter().filter_map(Cursor::series).min() {
        let floor = *floors.entry(metric).or_insert_with(|| floor_of(inner, metric));
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for cursor in &mut cursors {
            if cursor.series() != Some((metric, series)) {
                continue;
            }
            let visible = cut_offs.visible_from(metric, cursor.last_commit()).max(floor);
            let (own_times, own_values) = cursor.samples();
            let from = own_times.partition_point(|time| *time < visible);
            merge_samples(&mut times, &mut values, &own_times[from..], &own_values[from..]);
            pace.done(own_times.len() as u64);
            cursor.advance()?;
        }
        if inner.index.is_alive(metric, series) {
            builder.add(metric, series, &times, &values)?;
        }
        if inner.is_stopping() {
            return Err(super::engine::unavailable("the store is closing"));
        }
    }
    builder.finish()
}

/// The first time of a metric that its retention keeps.
fn floor_of(inner: &Inner, metric: u32) -> i64 {
    match inner.index.metric_name(metric) {
        Some((tenant, name)) => inner.kept_since(&tenant, &name),
        None => i64::MIN,
    }
}

/// Removes the days that are past every retention.
fn drop_expired(inner: &Arc<Inner>) -> Result<()> {
    let _one_at_a_time = inner.merging.lock();
    let longest = |retention: &crate::store::Retention| {
        retention.metrics.values().copied().chain([retention.default]).max().unwrap_or(0)
    };
    let longest = inner.retention.read().values().map(longest).max().unwrap_or(0);
    let longest = longest.max(inner.options.default_retention);
    let first = day_of(inner.options.clock.trusted().saturating_sub(longest));
    let view = inner.view.load_full();
    for of_day in by_day(&view.layers) {
        let day = of_day[0].record.day;
        if day < first {
            tracing::info!(day, layers = of_day.len(), "removing a day that is past every retention");
            publish(inner, &of_day, None)?;
        }
    }
    Ok(())
}

/// Rests as long as it worked, and logs how far it is.
struct Pace {
    paced: bool,
    total: u64,
    done: u64,
    started: Instant,
    stretch: Instant,
    logged: Instant,
}

impl Pace {
    fn new(total: u64, paced: bool) -> Self {
        let now = Instant::now();
        Self { paced, total, done: 0, started: now, stretch: now, logged: now }
    }

    fn done(&mut self, samples: u64) {
        self.done += samples;
        let worked = self.stretch.elapsed();
        if self.paced && worked >= STRETCH {
            std::thread::sleep(worked);
            self.stretch = Instant::now();
        }
        if self.logged.elapsed() >= PROGRESS {
            self.logged = Instant::now();
            let percent = self.done * 100 / self.total.max(1);
            let rate = self.done / self.started.elapsed().as_secs().max(1);
            tracing::info!(percent, samples_per_second = rate, "merging layers");
        }
    }
}
