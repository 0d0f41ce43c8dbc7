//! Opening a store: what tables and log say, put together again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use crate::memory_pool::MemoryPool;
use crate::model::Tenant;
use crate::rocksdb::backup;
use crate::rocksdb::commit::{Marks, Queue};
use crate::rocksdb::head::Head;
use crate::rocksdb::index::{Index, IndexOptions};
use crate::rocksdb::layer::{CutOffs, Errand, Layer, LayerRecord, View};
use crate::rocksdb::log::{Log, LogOptions};
use crate::rocksdb::record::{self, Operation};
use crate::rocksdb::seal::Sealed;
use crate::rocksdb::tables::{MetaBatch, Prefix, Tables, day_from};
use crate::store::{ErrorKind, Result, StoreError};

use super::lanes::Lanes;
use super::{Inner, Numbers, Options, Signal};

/// The version of everything on disk that this code writes and reads.
pub(in crate::rocksdb) const FORMAT: u32 = 1;
/// Entries of the cache from spellings to series, by share of memory: 24 bytes each.
const SPELLING_SHARE: u64 = 8;

/// An engine's shared parts, its log behind the last commit, and what its merger listens to.
pub(super) struct Opened {
    pub(super) inner: Arc<Inner>,
    pub(super) log: Log,
    /// The first commit of the active head.
    pub(super) head_commit: u64,
    pub(super) errands: Receiver<Errand>,
}

/// Opens the store in `options.path` and replays its log.
///
/// # Errors
/// `Unavailable` when it is open elsewhere; `Corrupt`; `Internal`, also for an unknown format.
pub(super) fn open(options: Options) -> Result<Opened> {
    let started = Instant::now();
    std::fs::create_dir_all(&options.path)
        .map_err(|error| StoreError::internal(format!("{}: {error}", options.path.display())))?;
    // 1. Tables and what `meta` says of them. IO.
    check_whole(&options.path)?;
    if let Some(backups) = &options.backups {
        backup::remove_unfinished(backups)?;
    }
    let tables = Tables::open(&options.path.join("tables"), options.cache_bytes());
    let tables = tables.map_err(|error| in_use(&options.path, error))?;
    check_format(&tables)?;
    let index = Index::new(IndexOptions {
        secret: secret(&tables)?,
        max_spellings: usize::try_from(options.memory / SPELLING_SHARE / 24).unwrap_or(usize::MAX),
        memory_budget: options.index_bytes(),
    });
    let sealed = sealed(&tables)?;
    let (merger, errands) = channel();
    let records = live_layers(&tables)?;
    let next_layer = records.iter().map(|record| record.id + 1).max().unwrap_or(1).max(sealed.next_layer);
    let layers = records.into_iter().map(|record| Layer::new(record, merger.clone())).collect();
    let mut view = View {
        active: Arc::new(Head::default()),
        frozen: Vec::new(),
        layers: Vec::new(),
        cut_offs: Arc::new(cut_offs(&tables)?),
    };
    view.exchange(&[], layers);
    let inner = Arc::new(Inner {
        lanes: Lanes::new(options.threads, options.heavy_samples)?,
        query_memory: Arc::new(query_memory(&options)),
        tables,
        index,
        numbers: RwLock::new(Numbers::default()),
        view: ArcSwap::from_pointee(view),
        view_change: Mutex::default(),
        queue: Queue::new(options.queue_bytes()),
        creation: Mutex::default(),
        retention: RwLock::new(HashMap::new()),
        dirty_days: Mutex::default(),
        presence_writing: Mutex::default(),
        accepted: Mutex::new(accepted(&sealed)),
        expired: Mutex::default(),
        unsealed_series: Mutex::default(),
        stored_definitions: AtomicU64::new(0),
        next_layer: AtomicU64::new(next_layer),
        sealed_through: AtomicU64::new(sealed.through),
        merger,
        sealer: Signal::default(),
        merging: Mutex::default(),
        log_bytes: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
        failure: Mutex::default(),
        backing_up: Mutex::default(),
        seal_failure: Mutex::default(),
        options,
    });
    inner.index.raise_numbers(sealed.next_series, sealed.next_metric);
    // 2. Series, and the days on which they are present. IO.
    inner.load_retention()?;
    let present = inner.load_series()?;
    // 3. The log behind the last seal. IO.
    let (log, last_commit) = inner.replay(sealed.through)?;
    inner.check_defined(&present)?;
    for tenant in inner.index.tenants() {
        inner.apply_expiry(&tenant);
    }
    tracing::info!(
        series = inner.index.series(),
        layers = inner.view.load().layers.len(),
        last_commit,
        millis = started.elapsed().as_millis(),
        "opened the store"
    );
    Ok(Opened { inner, log, head_commit: sealed.through + 1, errands })
}

/// The pool of a store's queries, which take no more once the process has its memory: the quarter above is for whoever takes
/// meanwhile without asking, such as bodies.
fn query_memory(options: &Options) -> MemoryPool {
    match &options.resident {
        Some(resident) => MemoryPool::within(resident.clone(), options.memory),
        None => MemoryPool::default(),
    }
}

/// What a replay carries from one operation to the next.
#[derive(Default)]
struct Replay {
    marks: Marks,
    /// Samples of series that are gone.
    unknown: u64,
    /// When the commit was accepted that is being replayed.
    accepted_at: i64,
}

/// Says in the store's words what RocksDB says of its lock.
fn in_use(path: &Path, error: StoreError) -> StoreError {
    if !error.message.contains("LOCK") {
        return error;
    }
    StoreError::new(error.kind, format!("{} is in use by another process", path.display()))
}

/// Refuses a folder of which a part is missing: RocksDB would begin a new database in its place.
fn check_whole(path: &Path) -> Result<()> {
    if path.join(backup::RESTORING).exists() {
        return Err(StoreError::corrupt(format!(
            "{}: a restore into this folder was not finished; empty it and restore again",
            path.display()
        )));
    }
    let current = path.join("tables").join("CURRENT");
    let holds = |folder: &str, suffix: &str| {
        let entries = std::fs::read_dir(path.join(folder)).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().extension().is_some_and(|found| found == suffix))
    };
    if !current.exists() && (holds("tables", "sst") || holds("log", "log")) {
        let current = current.display();
        return Err(StoreError::corrupt(format!("{current} is missing, though the folder holds samples")));
    }
    Ok(())
}

fn check_format(tables: &Tables) -> Result<()> {
    let Some(found) = tables.meta(Prefix::Format, &[])? else {
        let mut batch = MetaBatch::default();
        batch.put(Prefix::Format, &[], &FORMAT.to_be_bytes());
        return tables.write_meta(batch);
    };
    if found == FORMAT.to_be_bytes() {
        return Ok(());
    }
    Err(unknown_format(&found))
}

/// The error of a folder whose `meta` names this format.
pub(in crate::rocksdb) fn unknown_format(found: &[u8]) -> StoreError {
    let version = found.iter().fold(0_u64, |version, byte| version << 8 | u64::from(*byte));
    StoreError::internal(format!(
        "the data directory has format {version}; this version of Luminate reads and writes format {FORMAT}"
    ))
}

fn secret(tables: &Tables) -> Result<[u8; 192]> {
    if let Some(found) = tables.meta(Prefix::Secret, &[])? {
        return found.try_into().map_err(|_| StoreError::corrupt("the identity secret has a wrong length"));
    }
    let mut secret = [0; 192];
    getrandom::fill(&mut secret).map_err(StoreError::internal)?;
    let mut batch = MetaBatch::default();
    batch.put(Prefix::Secret, &[], &secret);
    tables.write_meta(batch)?;
    Ok(secret)
}

fn sealed(tables: &Tables) -> Result<Sealed> {
    match tables.meta(Prefix::Sealed, &[])? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(StoreError::corrupt),
        None => Ok(Sealed { next_layer: 1, ..Sealed::default() }),
    }
}

fn accepted(sealed: &Sealed) -> HashMap<Tenant, (i32, u64)> {
    let named = sealed.accepted.iter();
    named.filter_map(|(tenant, counts)| Some((Tenant::new(tenant).ok()?, *counts))).collect()
}

/// The layers that `meta` names; tables of others (a seal or merge that was cut off) are removed.
fn live_layers(tables: &Tables) -> Result<Vec<LayerRecord>> {
    let mut records = Vec::new();
    for (_, value) in tables.meta_entries(Prefix::Layer)? {
        let record: LayerRecord = serde_json::from_slice(&value).map_err(StoreError::corrupt)?;
        records.push(record);
    }
    for LayerRecord { id, day, .. } in &records {
        if !tables.has_layer((*day, *id))? {
            return Err(StoreError::corrupt(format!("the tables of layer {id} of day {day} are missing")));
        }
    }
    let stored = match tables.stored_layers() {
        Err(error) if error.kind == ErrorKind::Corrupt => {
            tracing::error!(%error, "a table is damaged: questions that need it will fail");
            Vec::new()
        }
        stored => stored?,
    };
    for (day, layer) in stored {
        if !records.iter().any(|record| (record.day, record.id) == (day, layer)) {
            tracing::info!(day, layer, "removing tables that no seal or merge finished");
            tables.drop_layer((day, layer))?;
        }
    }
    Ok(records)
}

fn cut_offs(tables: &Tables) -> Result<CutOffs> {
    let mut cut_offs = CutOffs::default();
    for (key, value) in tables.meta_entries(Prefix::CutOff)? {
        let wrong = || StoreError::corrupt("a stored cut-off has a wrong length");
        let (commit, metric) = key.split_at_checked(8).ok_or_else(wrong)?;
        let commit = u64::from_be_bytes(commit.try_into().map_err(|_| wrong())?);
        let metric = u32::from_be_bytes(metric.try_into().map_err(|_| wrong())?);
        let before = i64::from_be_bytes(value.try_into().map_err(|_| wrong())?);
        cut_offs.insert(metric, commit, before);
    }
    Ok(cut_offs)
}

impl Inner {
    fn load_retention(&self) -> Result<()> {
        let mut all = self.retention.write();
        for (key, value) in self.tables.meta_entries(Prefix::Retention)? {
            all.insert(tenant_of(&key)?, record::decode_retention(&value)?);
        }
        Ok(())
    }

    /// Loads the definitions of all series that are present on some day, and the days; returns those series.
    fn load_series(&self) -> Result<RoaringBitmap> {
        let mut presence = Vec::new();
        let mut present = RoaringBitmap::new();
        for (key, value) in self.tables.meta_entries(Prefix::Presence)? {
            let (tenant, day, ids) = presence_of(&key, &value)?;
            present |= &ids;
            presence.push((tenant, day, ids));
        }
        let mut stored = 0;
        self.tables.definitions(&mut |blob| {
            stored += self.load_definitions(blob, &|id| present.contains(id))?;
            Ok(())
        })?;
        self.stored_definitions.store(stored, Ordering::Relaxed);
        for (tenant, day, ids) in presence {
            let ids: Vec<u32> = ids.iter().collect();
            self.index.tenant(&tenant).mark(day, &ids);
        }
        Ok(present)
    }

    /// Refuses a store in which a series is present that nobody has defined: its samples would be left out
    /// of every answer without a word.
    fn check_defined(&self, present: &RoaringBitmap) -> Result<()> {
        let numbers = self.numbers.read();
        let undefined = present.iter().filter(|id| numbers.metric_of(*id).is_none()).count();
        match undefined {
            0 => Ok(()),
            _ => Err(StoreError::corrupt(format!("the definitions of {undefined} series are missing"))),
        }
    }

    fn load_definitions(&self, blob: &[u8], keep: &dyn Fn(u32) -> bool) -> Result<u64> {
        let mut numbers = self.numbers.write();
        self.index.load(blob, keep, &mut |id, metric| numbers.set(id, metric))
    }

    /// Opens the log and applies what is behind `sealed` to the index and the active head.
    fn replay(&self, sealed: u64) -> Result<(Log, u64)> {
        let options = LogOptions::for_cap(self.options.log_cap);
        let mut replay = Replay::default();
        let mut apply = |commit: u64, body: &[u8]| {
            record::read(body, &mut |operation| self.apply(commit, operation, &mut replay))
        };
        let (log, recovery) = Log::open(&self.options.path.join("log"), options, sealed, &mut apply)?;
        if replay.unknown > 0 {
            tracing::info!(samples = replay.unknown, "left out samples of series that were deleted later");
        }
        if let Some(torn) = &recovery.torn_tail {
            tracing::warn!(?torn, "the log ended in an unfinished record, which was never acknowledged");
        }
        let last = log.last_commit();
        if last < sealed {
            return Err(StoreError::new(
                ErrorKind::Corrupt,
                format!("the log ends at commit {last}, but tables hold commits through {sealed}"),
            ));
        }
        Ok((log, last))
    }

    fn apply(&self, commit: u64, operation: Operation<'_>, replay: &mut Replay) -> Result<()> {
        match operation {
            Operation::Definitions(blob) => {
                let mut created = Vec::new();
                self.load_definitions(blob, &|_| true)?;
                self.index.ids_of(blob, &mut created)?;
                self.unsealed_series.lock().extend(created);
            }
            Operation::Rows(mut rows) => {
                self.count_accepted(&rows, replay.accepted_at);
                replay.unknown += self.keep_known(&mut rows);
                self.view.load().active.apply(&[&rows]);
                replay.marks.mark(self, &rows);
            }
            Operation::Delete { metric, before } => {
                // A metric without a name has no series left: its definitions were rewritten without it.
                if let Some(tenant) = self.index.tenant_of(metric) {
                    self.apply_delete(&tenant, metric, before, commit);
                    replay.marks = Marks::default();
                }
            }
            Operation::Retention(tenant, retention) => {
                self.retention.write().insert(tenant, retention);
            }
            Operation::Accepted(time) => replay.accepted_at = time,
        }
        Ok(())
    }

    /// Drops rows of series that the index doesn't know: all their days were deleted or expired
    /// later, and `meta` knows that already. Returns how many.
    fn keep_known(&self, rows: &mut record::Rows) -> u64 {
        let index = self.index.tenant(&rows.tenant);
        let known = index.alive_each(&rows.ids);
        let dropped = known.iter().filter(|known| !**known).count();
        if dropped > 0 {
            let mut at = 0..;
            rows.ids.retain(|_| at.next().is_some_and(|at| known[at]));
            let mut at = 0..;
            rows.times.retain(|_| at.next().is_some_and(|at| known[at]));
            let mut at = 0..;
            rows.values.retain(|_| at.next().is_some_and(|at| known[at]));
        }
        dropped as u64
    }
}

/// The series of a tenant that were present on a day, as `meta` holds them.
pub(in crate::rocksdb) fn presence_of(key: &[u8], value: &[u8]) -> Result<(Tenant, i32, RoaringBitmap)> {
    let wrong = || StoreError::corrupt("a stored presence can't be read");
    let (day, tenant) = key.split_first_chunk::<4>().ok_or_else(wrong)?;
    let ids = RoaringBitmap::deserialize_from(value).map_err(|_| wrong())?;
    Ok((tenant_of(tenant)?, day_from(*day), ids))
}

pub(in crate::rocksdb) fn tenant_of(key: &[u8]) -> Result<Tenant> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| Tenant::new(text).ok())
        .ok_or_else(|| StoreError::corrupt("a stored tenant id can't be read"))
}
