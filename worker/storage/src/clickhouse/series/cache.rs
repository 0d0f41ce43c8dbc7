//! One tenant's known series.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

use crate::model::{MetricName, SeriesHandle, Spelling, SpellingHasher, Tenant};
use crate::store::SeriesLookup;

use super::census::Census;
use super::days::Days;

/// Locks over a tenant's spellings.
const SHARDS: usize = 16;
/// Metrics without a known series that a sweep leaves a tenant.
const IDLE_METRICS: usize = 1_000;

/// A tenant's metrics by number: grows only, and is replaced with the generation.
#[derive(Debug, Default)]
pub struct Metrics(RwLock<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    names: Vec<MetricName>,
    numbers: HashMap<MetricName, u32>,
}

impl Metrics {
    /// The metric's number, new where it has none.
    pub fn number(&self, metric: &MetricName) -> u32 {
        if let Some(number) = self.0.read().numbers.get(metric) {
            return *number;
        }
        let Numbered { names, numbers } = &mut *self.0.write();
        *numbers.entry(metric.clone()).or_insert_with(|| {
            names.push(metric.clone());
            // There are never as many metrics.
            u32::try_from(names.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Calls `body` with the names by number.
    pub fn names<T>(&self, body: impl FnOnce(&[MetricName]) -> T) -> T {
        body(&self.0.read().names)
    }
}

/// A series that has a handle.
#[derive(Debug)]
pub struct Series {
    /// Its fingerprint.
    pub fp: u64,
    /// Days whose `series` row is in ClickHouse.
    pub days: Days,
    /// Its metric's number.
    pub metric: u32,
    /// Whether it was used since the last sweep.
    used: AtomicBool,
}

impl Series {
    /// Notes that it is used.
    pub fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// What is known under one generation.
#[derive(Debug)]
pub struct Known {
    /// The generation.
    pub generation: u64,
    /// The tenant's metrics.
    pub metrics: Arc<Metrics>,
    /// The next handle: it goes on over generations, so that none means two series.
    next: Option<u32>,
    handles: HashMap<u32, Series>,
    prints: HashMap<u64, u32>,
}

impl Known {
    /// The series with this handle.
    #[must_use]
    pub fn get(&self, handle: SeriesHandle) -> Option<&Series> {
        self.handles.get(&handle.0)
    }

    /// The series with this fingerprint.
    #[must_use]
    pub fn by_print(&self, fp: u64) -> Option<&Series> {
        self.handles.get(self.prints.get(&fp)?)
    }

    /// Notes that the days' rows are in ClickHouse; returns the handle, unless there are none left.
    fn learn(&mut self, new: &Remembered) -> Option<u32> {
        if let Some(handle) = self.prints.get(&new.fp) {
            if let Some(series) = self.handles.get_mut(handle) {
                series.days.extend(new.days);
                series.touch();
            }
            return Some(*handle);
        }
        let handle = self.next?;
        self.next = handle.checked_add(1);
        let used = AtomicBool::new(true);
        self.handles.insert(handle, Series { fp: new.fp, days: new.days, metric: new.metric, used });
        self.prints.insert(new.fp, handle);
        Some(handle)
    }
}

/// A series whose rows for `days` are in ClickHouse.
#[derive(Debug, Clone, Copy)]
pub struct Remembered {
    /// Its fingerprint.
    pub fp: u64,
    /// Its metric's number.
    pub metric: u32,
    /// The days.
    pub days: Days,
    /// How a client spelled it.
    pub spelling: Option<Spelling>,
}

/// One tenant's known series, and what is needed to create others within limits.
#[derive(Debug)]
pub struct TenantSeries {
    /// Whose.
    pub tenant: Tenant,
    /// What the tenant has as a whole; held while a batch's new series are weighed, so that two batches
    /// never create the same last one.
    pub creation: tokio::sync::Mutex<Census>,
    /// Series that were created here and aren't known to be in ClickHouse yet.
    pub pending: Pending,
    hasher: SpellingHasher,
    known: RwLock<Known>,
    spellings: [RwLock<HashMap<[u64; 2], u32>>; SHARDS],
    used: Arc<AtomicUsize>,
}

impl TenantSeries {
    /// Nothing is known; what is will be counted in `used`.
    #[must_use]
    pub fn new(tenant: Tenant, hasher: SpellingHasher, used: Arc<AtomicUsize>) -> Self {
        let known = Known {
            generation: 0,
            metrics: Arc::default(),
            next: Some(0),
            handles: HashMap::new(),
            prints: HashMap::new(),
        };
        Self {
            tenant,
            creation: tokio::sync::Mutex::default(),
            pending: Pending::default(),
            hasher,
            known: RwLock::new(known),
            spellings: Default::default(),
            used,
        }
    }

    /// What is known now.
    pub fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read()
    }

    /// The tenant's metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.known.read().metrics)
    }

    /// Forgets everything unless it is of this generation.
    pub fn begin(&self, generation: u64) {
        if self.known.read().generation == generation {
            return;
        }
        let mut known = self.known.write();
        if known.generation != generation {
            self.forget(&mut known, generation);
        }
    }

    /// Forgets everything, and goes on under `generation`.
    fn forget(&self, known: &mut Known, generation: u64) {
        let mut forgotten = known.handles.len();
        *known = Known {
            generation,
            metrics: Arc::default(),
            next: known.next,
            handles: HashMap::new(),
            prints: HashMap::new(),
        };
        for shard in &self.spellings {
            forgotten += std::mem::take(&mut *shard.write()).len();
        }
        self.used.fetch_sub(forgotten, Ordering::Relaxed);
    }

    /// Remembers series whose rows are in ClickHouse, unless what was known when they were resolved has been
    /// forgotten since: `metrics` is that time's.
    pub fn remember(&self, metrics: &Arc<Metrics>, series: &[Remembered]) {
        let mut known = self.known.write();
        if !Arc::ptr_eq(&known.metrics, metrics) {
            return;
        }
        let before = known.handles.len();
        let mut added = 0;
        for one in series {
            let Some(handle) = known.learn(one) else { continue };
            if let Some(spelling) = one.spelling {
                let (key, shard) = self.shard(spelling);
                added += usize::from(shard.write().insert(key, handle).is_none());
            }
        }
        added += known.handles.len() - before;
        self.used.fetch_add(added, Ordering::Relaxed);
    }

    /// Forgets the series that weren't used since the last sweep; or, `by_chance`, half of all.
    pub fn sweep(&self, by_chance: bool) {
        let mut known = self.known.write();
        let Known { generation, metrics, handles, prints, .. } = &mut *known;
        let before = handles.len();
        handles.retain(
            |_, series| if by_chance { fastrand::bool() } else { std::mem::take(series.used.get_mut()) },
        );
        prints.retain(|_, handle| handles.contains_key(handle));
        let mut forgotten = before - handles.len();
        handles.shrink_to_fit();
        prints.shrink_to_fit();
        for shard in &self.spellings {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|_, handle| handles.contains_key(handle));
            forgotten += before - shard.len();
            shard.shrink_to_fit();
        }
        self.used.fetch_sub(forgotten, Ordering::Relaxed);
        // Names of metrics leave only all together.
        if metrics.names(<[MetricName]>::len) > IDLE_METRICS + handles.len() * 2 {
            let generation = *generation;
            self.forget(&mut known, generation);
        }
    }

    fn shard(&self, spelling: Spelling) -> ([u64; 2], &RwLock<HashMap<[u64; 2], u32>>) {
        let key = [(spelling.0 >> 64) as u64, spelling.0 as u64];
        (key, &self.spellings[(key[0] >> 60) as usize % SHARDS])
    }
}

impl SeriesLookup for TenantSeries {
    fn hasher(&self) -> &SpellingHasher {
        &self.hasher
    }

    fn find(&self, spelling: Spelling) -> Option<SeriesHandle> {
        let (key, shard) = self.shard(spelling);
        shard.read().get(&key).copied().map(SeriesHandle)
    }
}

/// Series created here of which it isn't known yet whether their rows are in ClickHouse.
#[derive(Debug, Default)]
pub struct Pending {
    series: Mutex<HashMap<u64, MetricName>>,
    /// Told when series leave.
    left: Notify,
    /// Whether one left without being known to be there: then nobody knows what the tenant has.
    doubtful: AtomicBool,
}

impl Pending {
    /// Whether the series is here.
    #[must_use]
    pub fn contains(&self, fp: u64) -> bool {
        self.series.lock().contains_key(&fp)
    }

    /// Adds a series that was created.
    pub fn insert(&self, fp: u64, metric: MetricName) {
        self.series.lock().insert(fp, metric);
    }

    /// All of them, once there are at most `most`.
    pub async fn at_most(&self, most: usize) -> Vec<(u64, MetricName)> {
        loop {
            let left = self.left.notified();
            {
                let series = self.series.lock();
                if series.len() <= most {
                    return series.iter().map(|(fp, metric)| (*fp, metric.clone())).collect();
                }
            }
            left.await;
        }
    }

    /// Whether a series has left in doubt since the last call.
    pub fn take_doubt(&self) -> bool {
        self.doubtful.swap(false, Ordering::AcqRel)
    }

    fn remove(&self, prints: &[u64], stored: bool) {
        if prints.is_empty() {
            return;
        }
        // The doubt first: whoever finds a series gone must see it.
        if !stored {
            self.doubtful.store(true, Ordering::Release);
        }
        let mut series = self.series.lock();
        for fp in prints {
            series.remove(fp);
        }
        drop(series);
        self.left.notify_waiters();
    }
}

/// The series that one batch creates: pending until it is stored or given up.
#[derive(Debug)]
pub struct Created {
    series: Arc<TenantSeries>,
    prints: Vec<u64>,
    /// Whether there may be others, which were created without being counted.
    uncounted: bool,
}

impl Created {
    /// None yet.
    #[must_use]
    pub fn new(series: Arc<TenantSeries>) -> Self {
        Self { series, prints: Vec::new(), uncounted: false }
    }

    /// Adds one.
    pub fn add(&mut self, fp: u64, metric: MetricName) {
        self.series.pending.insert(fp, metric);
        self.prints.push(fp);
    }

    /// Series may be created that nobody counts, for lack of a limit: what was counted holds no longer.
    pub fn add_uncounted(&mut self) {
        self.uncounted = true;
    }

    fn doubt(&self) {
        if self.uncounted {
            self.series.pending.doubtful.store(true, Ordering::Release);
        }
    }

    /// All are in ClickHouse.
    pub fn stored(&mut self) {
        self.doubt();
        self.series.pending.remove(&std::mem::take(&mut self.prints), true);
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        self.doubt();
        self.series.pending.remove(&self.prints, false);
    }
}
