//! The index: which series there are, by tenant, and which were present on which day; in memory.
//!
//! # A series
//! [`TenantIndex::resolve`] hashes tenant, metric and dimensions into an identity, finds the series or
//! gives it the next number, and writes its definition for the log. From then on it is known to writes
//! and counts towards the limits; queries and listings see it once [`TenantIndex::mark`] has put it on a
//! day, which the commit of its first sample does. When its last day is deleted or expires it is gone,
//! and its number is never given again.
//!
//! # What it takes
//! Values are numbers of a dictionary, series are rows of varints, postings are as small as they can be
//! (`posting`), identities and spellings are compact tables of hashes (`table`): about 150 bytes for
//! a series of ten dimensions. Everything on disk is a blob of definitions (`definitions`) or a bitmap
//! of the series present on a day.
//!
//! # Locks
//! Each tenant has one lock (`core`), which writers hold for some hundred series at a time, and a
//! cache of spellings with locks of its own, which is all that a write of known series touches.

mod catalog;
mod column;
mod core;
mod definitions;
mod described;
mod guesses;
mod identity;
mod listing;
mod order;
mod posting;
mod presence;
mod rows;
mod spellings;
mod table;
mod tenant;
mod texts;
mod varint;

#[cfg(test)]
mod model_test;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;

use crate::model::{MetricName, Tenant};
use crate::store::Result;

use guesses::Guesses;
use spellings::Allowance;

pub use catalog::RoughSeries;
pub use definitions::Definitions;
pub use tenant::TenantIndex;

/// One series in so many spellings may have its mark for guesses: a series is spelled in a few ways.
const GUESSES_SHARE: usize = 4;

/// How an index is made.
#[derive(Clone)]
pub struct IndexOptions {
    /// What identities and spellings are hashed with: the same for all the life of a store.
    pub secret: [u8; 192],
    /// Most spellings remembered, of all tenants together.
    pub max_spellings: usize,
    /// Bytes from which on no series is created.
    pub memory_budget: u64,
}

impl fmt::Debug for IndexOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("IndexOptions");
        fields.field("max_spellings", &self.max_spellings).field("memory_budget", &self.memory_budget);
        fields.finish_non_exhaustive()
    }
}

/// The series of all tenants.
#[derive(Debug)]
pub struct Index {
    tenants: RwLock<HashMap<Tenant, Arc<TenantIndex>>>,
    shared: Arc<Shared>,
}

/// What the tenants of an index share.
struct Shared {
    secret: Arc<[u8; 192]>,
    memory_budget: u64,
    allowance: Allowance,
    guesses: Guesses,
    next_series: AtomicU32,
    next_metric: AtomicU32,
    /// Names of metrics by number. One stays when the metric's last series is gone: the log and pages
    /// may name it still.
    names: RwLock<HashMap<u32, (Tenant, MetricName)>>,
    bytes: AtomicU64,
    /// Series present on any day.
    present: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("Shared");
        fields.field("next_series", &self.next_series).field("next_metric", &self.next_metric);
        fields.field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Shared {
    /// The next `count` series numbers; `None` when there are not so many left.
    fn reserve_series(&self, count: u32) -> Option<Range<u32>> {
        let within = |next: u32| next.checked_add(count).filter(|end| *end < u32::MAX);
        let start = self.next_series.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(start..start + count)
    }

    /// The number of a new metric.
    fn add_metric(&self, tenant: &Tenant, name: &MetricName) -> u32 {
        let number = self.next_metric.fetch_add(1, Ordering::Relaxed);
        self.names.write().insert(number, (tenant.clone(), name.clone()));
        number
    }

    /// Changes the account of memory.
    fn account(&self, before: usize, after: usize) {
        // Wraps where it shrinks; the sum is right again modulo 2^64.
        self.bytes.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    /// Changes the count of series likewise.
    fn count(&self, before: u64, after: u64) {
        self.present.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Index {
    /// An index without series.
    #[must_use]
    pub fn new(options: IndexOptions) -> Self {
        let shared = Shared {
            secret: Arc::new(options.secret),
            memory_budget: options.memory_budget,
            allowance: Allowance::new(options.max_spellings),
            guesses: Guesses::new(options.max_spellings / GUESSES_SHARE),
            next_series: AtomicU32::new(0),
            next_metric: AtomicU32::new(0),
            names: RwLock::default(),
            bytes: AtomicU64::new(0),
            present: AtomicU64::new(0),
        };
        Self { tenants: RwLock::default(), shared: Arc::new(shared) }
    }

    /// The index of `tenant`, made if there is none.
    #[must_use]
    pub fn tenant(&self, tenant: &Tenant) -> Arc<TenantIndex> {
        if let Some(found) = self.find_tenant(tenant) {
            return found;
        }
        let mut tenants = self.tenants.write();
        let new = || Arc::new(TenantIndex::new(tenant.clone(), self.shared.clone()));
        tenants.entry(tenant.clone()).or_insert_with(new).clone()
    }

    /// The index of `tenant`, if it has ever been asked for with [`Index::tenant`].
    #[must_use]
    pub fn find_tenant(&self, tenant: &Tenant) -> Option<Arc<TenantIndex>> {
        self.tenants.read().get(tenant).cloned()
    }

    /// All tenants, sorted.
    #[must_use]
    pub fn tenants(&self) -> Vec<Tenant> {
        let mut tenants: Vec<Tenant> = self.tenants.read().keys().cloned().collect();
        tenants.sort_unstable();
        tenants
    }

    /// The number of a metric, also when its last series is gone.
    #[must_use]
    pub fn metric(&self, tenant: &Tenant, metric: &MetricName) -> Option<u32> {
        self.find_tenant(tenant)?.metric_number(metric)
    }

    /// Tenant and name of the metric with this number, also when its last series is gone.
    #[must_use]
    pub fn metric_name(&self, metric: u32) -> Option<(Tenant, MetricName)> {
        self.shared.names.read().get(&metric).cloned()
    }

    /// The tenant of the metric with this number, also when its last series is gone.
    #[must_use]
    pub fn tenant_of(&self, metric: u32) -> Option<Tenant> {
        self.shared.names.read().get(&metric).map(|(tenant, _)| tenant.clone())
    }

    /// Whether series `series` of `metric` is known.
    #[must_use]
    pub fn is_alive(&self, metric: u32, series: u32) -> bool {
        let tenant = self.shared.names.read().get(&metric).and_then(|(tenant, _)| self.find_tenant(tenant));
        tenant.is_some_and(|tenant| tenant.alive(series))
    }

    /// Series present on any day, of all tenants: known without a look at each, as every query asks.
    #[must_use]
    pub fn series(&self) -> u64 {
        self.shared.present.load(Ordering::Relaxed)
    }

    /// Bytes of all that it holds, about.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let orders: usize = self.all().iter().map(|tenant| tenant.order_bytes()).sum();
        self.series_memory() + orders as u64
    }

    /// Bytes of its series, about: known without a look at each tenant.
    #[must_use]
    pub fn series_memory(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// The first numbers that no series and no metric has had.
    #[must_use]
    pub fn next_numbers(&self) -> (u32, u32) {
        let next = |number: &AtomicU32| number.load(Ordering::Relaxed);
        (next(&self.shared.next_series), next(&self.shared.next_metric))
    }

    /// Gives no series and no metric a number below these.
    pub fn raise_numbers(&self, series: u32, metric: u32) {
        self.shared.next_series.fetch_max(series, Ordering::Relaxed);
        self.shared.next_metric.fetch_max(metric, Ordering::Relaxed);
    }

    /// Loads the series of a definitions blob that `keep` accepts and that aren't there yet; calls
    /// `each` with every accepted one and its metric's number. Numbers in the blob are not given again,
    /// and its metrics have names from now on, kept or not.
    ///
    /// Of two series with one identity the one with the greater number stays: the other must have been
    /// removed before that was created. Returns how many series the blob has.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn load(
        &self,
        blob: &[u8],
        keep: &dyn Fn(u32) -> bool,
        each: &mut dyn FnMut(u32, u32),
    ) -> Result<u64> {
        let mut count = 0;
        for section in definitions::decode(blob)? {
            count += section.series.len() as u64;
            let series = section.series.iter().map(|series| series.id + 1).max();
            let metric = section.shapes.iter().map(|shape| shape.metric + 1).max();
            self.raise_numbers(series.unwrap_or(0), metric.unwrap_or(0));
            let mut names = self.shared.names.write();
            for shape in &section.shapes {
                names.entry(shape.metric).or_insert_with(|| (section.tenant.clone(), shape.name.clone()));
            }
            drop(names);
            if section.series.iter().any(|series| keep(series.id)) {
                self.tenant(&section.tenant).load(&section, keep, each)?;
            }
        }
        Ok(count)
    }

    /// Appends the numbers of a blob's series to `ids`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn ids_of(&self, blob: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        for section in definitions::decode(blob)? {
            ids.extend(section.series.iter().map(|series| series.id));
        }
        Ok(())
    }

    /// Definitions of those of `ids` that are known: a blob for each of their tenants.
    #[must_use]
    pub fn definitions_of(&self, ids: &[u32]) -> Vec<Vec<u8>> {
        let wanted: RoaringBitmap = ids.iter().copied().collect();
        let blobs = self.all().into_iter().map(|tenant| tenant.definitions(&wanted).encode());
        blobs.filter(|blob| !blob.is_empty()).collect()
    }

    fn all(&self) -> Vec<Arc<TenantIndex>> {
        self.tenants.read().values().cloned().collect()
    }
}
