//! The engine: its parts, how they are opened, and what is shared between its threads.

mod arrival;
mod export;
mod lanes;
pub(super) mod open;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust_test;
mod turns;
mod urgency;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::clock::Clock;
use crate::memory_pool::MemoryPool;
use crate::model::{MetricName, Tenant};
use crate::resident::Resident;
use crate::store::{ErrorKind, Result, Retention, StoreError};

use super::commit::{Accepted, DirtyDays, Living, Queue};
use super::index::Index;
use super::layer::{Errand, View};
use super::paged::Paged;
use super::tables::Tables;

use lanes::Lanes;

pub use store::RocksDb;

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Once it is on stable storage.
    Durable,
    /// Once the operating system has it; synced each second.
    Buffered,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory, created if it is missing.
    pub path: PathBuf,
    /// When a write is answered.
    pub ack: Ack,
    /// Bytes that the engine may use for series, head and caches together.
    pub memory: u64,
    /// Threads of a query, ≥ 1.
    pub threads: usize,
    /// A query that would look at more samples than this runs in the lane of heavy ones.
    pub heavy_samples: u64,
    /// Retention of tenants that set none, in milliseconds.
    pub default_retention: i64,
    /// How often expired days are removed.
    pub retention_check: Duration,
    /// The head is sealed at least this often.
    pub seal_window: Duration,
    /// The head is sealed when the log behind it passes this many bytes.
    pub log_cap: u64,
    /// Where backups are made; absent where none may be.
    pub backups: Option<PathBuf>,
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
    /// What tells what the process has; absent where only what is counted counts.
    pub resident: Option<Arc<dyn Resident>>,
}

/// What the parts take at most adds up to the memory; the process may have a quarter more, for the program, its threads and
/// what the allocator can't give back.
impl Options {
    /// The head is sealed when it passes this: an eighth of the memory, and another while it is sealed.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        (self.memory / 8).max(16 << 20)
    }

    /// Memory of all series: two fifths.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        (self.memory / 5 * 2).max(32 << 20)
    }

    /// Cache for blocks of tables: a tenth.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        usize::try_from(self.memory / 10).unwrap_or(usize::MAX).max(8 << 20)
    }

    /// Batches that wait for the log: a twentieth, and no more than the log takes in a second.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        (self.memory / 20).min(64 << 20)
    }

    /// What all queries may hold while series and head take so much: what is left of nine tenths, since bodies have one, and
    /// always a tenth.
    #[must_use]
    pub fn query_bytes(&self, index: u64, heads: u64) -> u64 {
        let taken = index + heads + self.cache_bytes() as u64;
        (self.memory / 10 * 9).saturating_sub(taken).max(self.memory / 10)
    }
}

/// Which metric a series has: by number, for scans that meet series without their tenant.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The metric's number plus one; 0 where a series was never defined.
    metric_of: Paged<u32>,
}

impl Numbers {
    /// Notes that series `id` belongs to `metric`.
    pub fn set(&mut self, id: u32, metric: u32) {
        *self.metric_of.entry(id as usize) = metric.saturating_add(1);
    }

    /// The metric of series `id`.
    #[must_use]
    pub fn metric_of(&self, id: u32) -> Option<u32> {
        self.metric_of.get(id as usize)?.checked_sub(1)
    }
}

/// A condition that a background thread waits for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Wakes whoever waits, now or next.
    pub(super) fn raise(&self) {
        *self.raised.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until it is raised or `timeout` has passed, and lowers it.
    pub(super) fn wait(&self, timeout: Duration) {
        let mut raised = self.raised.lock();
        if !*raised {
            self.changed.wait_for(&mut raised, timeout);
        }
        *raised = false;
    }
}

/// What the threads of an engine share.
#[derive(Debug)]
pub struct Inner {
    pub(super) options: Options,
    pub(super) tables: Tables,
    pub(super) index: Index,
    pub(super) numbers: RwLock<Numbers>,
    pub(super) view: ArcSwap<View>,
    view_change: Mutex<()>,
    pub(super) queue: Queue,
    /// Held from the creation of series until their definitions are queued for the log, so that no
    /// other batch with these series can be logged before them.
    pub(super) creation: Mutex<()>,
    pub(super) retention: RwLock<HashMap<Tenant, Retention>>,
    pub(super) dirty_days: Mutex<DirtyDays>,
    /// Held by whoever writes presence to `meta`.
    pub(super) presence_writing: Mutex<()>,
    pub(super) accepted: Mutex<Accepted>,
    /// What lived when days were last looked at for expiry.
    pub(super) expired: Mutex<HashMap<Tenant, Living>>,
    /// Series created since the last seal, whose definitions no table holds yet.
    pub(super) unsealed_series: Mutex<Vec<u32>>,
    /// Definitions in tables, those of series that are gone included.
    pub(super) stored_definitions: AtomicU64,
    pub(super) next_layer: AtomicU64,
    pub(super) sealed_through: AtomicU64,
    pub(super) merger: Sender<Errand>,
    pub(super) sealer: Signal,
    /// Held by whoever merges: the background thread, or a caller who asked.
    pub(super) merging: Mutex<()>,
    log_bytes: AtomicU64,
    pub(super) stopping: AtomicBool,
    failure: Mutex<Option<String>>,
    /// Held by whoever makes a backup.
    pub(super) backing_up: Mutex<()>,
    pub(super) seal_failure: Mutex<Option<String>>,
    /// Where queries work.
    lanes: Lanes,
    /// What all queries hold.
    query_memory: Arc<MemoryPool>,
}

impl Inner {
    /// Replaces the view by a changed copy.
    pub(super) fn change_view(&self, change: impl FnOnce(&mut View)) {
        let _one_at_a_time = self.view_change.lock();
        let mut view = View::clone(&self.view.load());
        change(&mut view);
        self.view.store(Arc::new(view));
    }

    /// Stops all writes for good: something acked later could be lost.
    pub(super) fn fail(&self, why: &str) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(reason = why, "the store takes no more writes until it is started again");
            *failure = Some(why.to_owned());
        }
    }

    /// Whether writes are possible.
    ///
    /// # Errors
    /// `Unavailable` after a failure of the log.
    pub(super) fn check_working(&self) -> Result<()> {
        match &*self.failure.lock() {
            Some(why) => Err(unavailable(format!("the log has failed: {why}"))),
            None => Ok(()),
        }
    }

    /// Samples that are in memory and in the log only: the active head's and those that are being sealed.
    pub(super) fn heads_bytes(&self) -> u64 {
        let view = self.view.load();
        let frozen: u64 = view.frozen.iter().map(|frozen| frozen.head.bytes()).sum();
        view.active.bytes() + frozen
    }

    /// The pool that queries hold memory of, as large as series and head leave it now.
    pub(super) fn query_memory(&self) -> Arc<MemoryPool> {
        let most = self.options.query_bytes(self.index.series_memory(), self.heads_bytes());
        self.query_memory.set_most(most);
        self.query_memory.clone()
    }

    /// Whether the head has room, or the sealer must catch up first.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(super) fn check_head_room(&self) -> Result<()> {
        if self.heads_bytes() > 2 * self.options.head_bytes() {
            let retry_after = Duration::from_secs(2);
            return Err(StoreError::new(
                ErrorKind::Overloaded { retry_after },
                "the head is full until a seal is done",
            ));
        }
        Ok(())
    }

    /// The retention of `tenant`.
    pub(super) fn retention_of(&self, tenant: &Tenant) -> Retention {
        let none = || Retention {
            default: self.options.default_retention,
            metrics: std::collections::BTreeMap::new(),
        };
        self.retention.read().get(tenant).cloned().unwrap_or_else(none)
    }

    /// The first time of `metric` that is kept: of what is older nobody will ever see anything.
    pub(super) fn kept_since(&self, tenant: &Tenant, metric: &MetricName) -> i64 {
        self.options.clock.trusted().saturating_sub(self.retention_of(tenant).of(metric))
    }

    /// The first time of `metric` that a query may see now.
    pub(super) fn visible_since(&self, tenant: &Tenant, metric: &MetricName) -> i64 {
        self.options.clock.now().saturating_sub(self.retention_of(tenant).of(metric))
    }

    pub(super) fn wake_sealer(&self) {
        self.sealer.raise();
    }

    pub(super) fn wake_merger(&self) {
        // Without a receiver the store is closing already.
        let _closing = self.merger.send(Errand::Look);
    }

    pub(super) fn set_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) fn new_layer_id(&self) -> u64 {
        self.next_layer.fetch_add(1, Ordering::Relaxed)
    }
}

/// An error that may go away.
pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Unavailable { retry_after: Duration::from_secs(5) }, why)
}
