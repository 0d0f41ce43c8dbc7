//! Seals: a frozen head becomes layers, one for each UTC day that it touches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use crate::store::Result;

use super::codec::Effort;
use super::commit::{DirtyDays, Work};
use super::engine::Inner;
use super::head::Head;
use super::layer::{DAY, Frozen, Layer, LayerBuilder, LayerRecord, day_of, day_start};
use super::tables::{MetaBatch, Prefix, day_bytes};

/// A failed seal is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
/// Series in one definitions blob: a few megabytes.
const DEFINITIONS_OF_A_BLOB: usize = 50_000;
/// Definitions of series that are gone are not worth a rewrite while they are this few.
const DEFINITIONS_KEPT: u64 = 100_000;

/// The sealer's thread: seals what is frozen until the store stops.
pub fn run(inner: &Arc<Inner>) {
    while !inner.is_stopping() {
        let frozen = inner.view.load().frozen.first().cloned();
        let Some(frozen) = frozen else {
            inner.sealer.wait(IDLE);
            continue;
        };
        match seal(inner, &frozen) {
            Ok(()) => {
                *inner.seal_failure.lock() = None;
                inner.wake_merger();
            }
            Err(error) => {
                tracing::error!(error = %error, "a seal failed; its samples stay in memory and in the log");
                *inner.seal_failure.lock() = Some(error.message);
                inner.sealer.wait(RETRY);
            }
        }
    }
}

/// Writes a frozen head's layers, names them in `meta`, and lets queries and the log change over.
fn seal(inner: &Arc<Inner>, frozen: &Frozen) -> Result<()> {
    let started = Instant::now();
    // 1. Tables of samples, by day. IO.
    let records = write_layers(inner, frozen)?;
    // 2. Tables of definitions. IO. Those of a seal that fails later are harmless: the same again.
    let series: Vec<u32> = inner.unsealed_series.lock().clone();
    let blobs = series.chunks(DEFINITIONS_OF_A_BLOB).flat_map(|ids| inner.index.definitions_of(ids));
    inner.tables.add_definitions(inner.new_layer_id(), blobs)?;
    // 3. One synced change of `meta` makes them what the store consists of. IO.
    inner.write_with_presence(series.len(), |batch| {
        records.iter().try_for_each(|record| put_layer(batch, record))?;
        inner.put_state(batch, frozen)
    })?;
    // 4. Queries change over in one step; then the log may forget. Can't fail.
    let samples: u64 = records.iter().map(LayerRecord::samples).sum();
    let bytes: u64 = records.iter().map(LayerRecord::bytes).sum();
    let layers = records.into_iter().map(|record| Layer::new(record, inner.merger.clone())).collect();
    inner.change_view(|view| {
        view.frozen.retain(|other| other.last_commit != frozen.last_commit);
        view.exchange(&[], layers);
    });
    inner.stored_definitions.fetch_add(series.len() as u64, Ordering::Relaxed);
    inner.sealed_through.store(frozen.last_commit, Ordering::Relaxed);
    // A closing queue takes it no more, and the next start releases it.
    let _closing = inner.queue.push_work(Work::Sealed { through: frozen.last_commit });
    tracing::info!(samples, bytes, millis = started.elapsed().as_millis(), "sealed the head");
    Ok(())
}

fn write_layers(inner: &Arc<Inner>, frozen: &Frozen) -> Result<Vec<LayerRecord>> {
    let (ids, days) = plan(inner, &frozen.head);
    let commits = (frozen.first_commit, frozen.last_commit);
    let mut records = Vec::with_capacity(days.len());
    for day in days {
        let record = LayerRecord::empty(inner.new_layer_id(), day, commits);
        let files = inner.tables.begin_layer(day, record.id);
        let mut builder = LayerBuilder::new(&files, record, Effort::Seal)?;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for (metric, id, (first_day, last_day)) in &ids {
            if day < *first_day || *last_day < day {
                continue;
            }
            times.clear();
            values.clear();
            frozen.head.read(*id, &mut times, &mut values);
            let from = times.partition_point(|time| *time < day_start(day));
            let to = times.partition_point(|time| *time < day_start(day) + DAY);
            builder.add(*metric, *id, &times[from..to], &values[from..to])?;
        }
        if let Some(record) = builder.finish()? {
            inner.tables.ingest_layer(files)?;
            records.push(record);
        }
    }
    Ok(records)
}

/// Rewrites the definitions in tables when most of them are of series that are gone.
///
/// # Errors
/// `Unavailable` when the disk is full, `Corrupt`, `Internal`; the old ones stay then.
pub fn rewrite_definitions(inner: &Arc<Inner>) -> Result<()> {
    let stored = inner.stored_definitions.load(Ordering::Relaxed);
    if stored < 2 * inner.index.series() + DEFINITIONS_KEPT {
        return Ok(());
    }
    // A seal with a lower number has listed its series already, and all of them are known below.
    let number = inner.new_layer_id();
    let (next, _) = inner.index.next_numbers();
    let ids: Vec<u32> = (0..next).collect();
    let parts = ids.chunks(DEFINITIONS_OF_A_BLOB);
    inner.tables.add_definitions(number, parts.flat_map(|ids| inner.index.definitions_of(ids)))?;
    // `meta` must not name a series as present whose definition goes now.
    inner.write_with_presence(0, |_batch| Ok(()))?;
    inner.tables.drop_definitions_before(number)?;
    inner.stored_definitions.store(inner.index.series(), Ordering::Relaxed);
    tracing::info!(stored, kept = inner.index.series(), "rewrote the definitions of series");
    Ok(())
}

type Planned = (u32, u32, (i32, i32));

/// The head's series in the order of pages, each with its first and last day; and all days.
fn plan(inner: &Inner, head: &Head) -> (Vec<Planned>, BTreeSet<i32>) {
    let numbers = inner.numbers.read();
    let mut days = BTreeSet::new();
    let mut planned = Vec::new();
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for id in head.series() {
        times.clear();
        values.clear();
        head.read(id, &mut times, &mut values);
        let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
        let (first, last) = (day_of(*first), day_of(*last));
        let mut at = 0;
        while at < times.len() {
            let day = day_of(times[at]);
            days.insert(day);
            at += times[at..].partition_point(|time| *time < day_start(day) + DAY);
        }
        if let Some(metric) = numbers.metric_of(id) {
            planned.push((metric, id, (first, last)));
        }
    }
    planned.sort_unstable();
    (planned, days)
}

/// Names a layer in `meta`.
///
/// # Errors
/// `Internal`.
pub fn put_layer(batch: &mut MetaBatch, record: &LayerRecord) -> Result<()> {
    let value = serde_json::to_vec(record).map_err(crate::store::StoreError::internal)?;
    batch.put(Prefix::Layer, &record.id.to_be_bytes(), &value);
    Ok(())
}

impl Inner {
    /// Writes to `meta` which series are present on the days that have changed, then what `put` adds, now that tables
    /// hold the definitions of the first `defined` of [`Inner::unsealed_series`]. Days are kept for the next time where
    /// any of it fails, and where series are left out.
    fn write_with_presence(
        &self,
        defined: usize,
        put: impl FnOnce(&mut MetaBatch) -> Result<()>,
    ) -> Result<()> {
        // The days that one thread has taken are in `meta` before another says that the log may go.
        let _writing = self.presence_writing.lock();
        let dirty = std::mem::take(&mut *self.dirty_days.lock());
        let mut batch = MetaBatch::default();
        let written = self.put_presence(&mut batch, &dirty, defined).and_then(|left_out| {
            put(&mut batch)?;
            self.tables.write_meta(batch)?;
            Ok(left_out)
        });
        match written {
            Ok(left_out) => {
                self.dirty_days.lock().extend(left_out);
                self.unsealed_series.lock().drain(..defined);
                Ok(())
            }
            Err(error) => {
                self.dirty_days.lock().extend(dirty);
                Err(error)
            }
        }
    }

    /// Adds to `batch` which series are present on each of `dirty`; the days of which it has left some out.
    ///
    /// A series that only the log defines is left out: the log says too on which days it is present, and a log that
    /// isn't synced may be lost, after which `meta` would name a series that nothing defines.
    fn put_presence(&self, batch: &mut MetaBatch, dirty: &DirtyDays, defined: usize) -> Result<DirtyDays> {
        let presence: Vec<_> =
            dirty.iter().map(|(tenant, day)| self.index.tenant(tenant).presence(*day)).collect();
        // After presence: a series is among these before it is present anywhere.
        let undefined: RoaringBitmap = self.unsealed_series.lock()[defined..].iter().copied().collect();
        let mut left_out = DirtyDays::default();
        for ((tenant, day), present) in dirty.iter().zip(presence) {
            let mut key = day_bytes(*day).to_vec();
            key.extend_from_slice(tenant.as_str().as_bytes());
            let mut present = present.unwrap_or_default();
            if !present.is_disjoint(&undefined) {
                present -= &undefined;
                left_out.insert((tenant.clone(), *day));
            }
            if present.is_empty() {
                batch.delete(Prefix::Presence, &key);
                continue;
            }
            let mut bytes = Vec::with_capacity(present.serialized_size());
            present.serialize_into(&mut bytes).map_err(crate::store::StoreError::internal)?;
            batch.put(Prefix::Presence, &key, &bytes);
        }
        Ok(left_out)
    }

    /// Adds to `batch` everything beside layers and presence that belongs to "sealed through the last commit of `frozen`".
    fn put_state(&self, batch: &mut MetaBatch, frozen: &Frozen) -> Result<()> {
        for (metric, commit, before) in self.view.load().cut_offs.iter() {
            batch.put(Prefix::CutOff, &cut_off_key(metric, commit), &before.to_be_bytes());
        }
        for (tenant, retention) in &*self.retention.read() {
            let mut bytes = Vec::new();
            super::record::encode_retention(&mut bytes, retention);
            batch.put(Prefix::Retention, tenant.as_str().as_bytes(), &bytes);
        }
        let (next_series, next_metric) = self.index.next_numbers();
        let accepted = frozen.accepted.iter();
        let sealed = Sealed {
            through: frozen.last_commit,
            next_series,
            next_metric,
            next_layer: self.next_layer.load(Ordering::Relaxed),
            accepted: accepted.map(|(tenant, counts)| (tenant.as_str().to_owned(), *counts)).collect(),
        };
        let value = serde_json::to_vec(&sealed).map_err(crate::store::StoreError::internal)?;
        batch.put(Prefix::Sealed, &[], &value);
        Ok(())
    }
}

/// The key of a cut-off in `meta`.
pub fn cut_off_key(metric: u32, commit: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&commit.to_be_bytes());
    key[8..].copy_from_slice(&metric.to_be_bytes());
    key
}

/// How far the log is in tables, and counters as of then.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Sealed {
    /// The last commit that tables hold.
    pub through: u64,
    /// No layer has this number or a greater one.
    pub next_layer: u64,
    /// No series has this number or a greater one.
    pub next_series: u32,
    /// No metric has this number or a greater one.
    pub next_metric: u32,
    /// Samples accepted per tenant on the day named.
    pub accepted: std::collections::BTreeMap<String, (i32, u64)>,
}
