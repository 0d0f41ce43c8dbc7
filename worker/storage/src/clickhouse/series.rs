//! Which series this worker knows to be in ClickHouse: what it remembers, and how a batch's rows get theirs.
//!
//! # From a row to a series
//! [`cache`] holds, per tenant, the way from a client's spelling to a handle and from a handle to the series'
//! fingerprint, metric, and the days whose `series` row is known to be in ClickHouse. It holds no dimensions: a
//! row that comes by a handle is stored only if the day's `series` row is there already. Else the batch
//! is stale, the caller describes its series and comes again, and the description becomes the day's row.
//! [`resolve`] does this for a batch, [`census`] counts what a tenant has where the batch may create
//! only so many.
//!
//! # Memory
//! All tenants together remember so many entries ([`BUDGET`]); past that, a sweep drops what nobody has
//! used since the one before. Whatever is forgotten costs one description.

pub mod cache;
pub mod census;
pub mod days;
pub mod resolve;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::model::{SpellingHasher, Tenant};

use cache::TenantSeries;

/// Entries (series, and spellings of them) that a worker remembers: about 350 MB when one tenant has them all.
pub const BUDGET: usize = 7_200_000;

/// Every tenant's known series.
#[derive(Debug)]
pub struct Registry {
    tenants: RwLock<HashMap<Tenant, Arc<TenantSeries>>>,
    hasher: SpellingHasher,
    used: Arc<AtomicUsize>,
    budget: usize,
    sweeping: Mutex<()>,
}

impl Registry {
    /// Nothing is known; at most about `budget` entries ever are.
    #[must_use]
    pub fn new(hasher: SpellingHasher, budget: usize) -> Self {
        Self { tenants: RwLock::default(), hasher, used: Arc::default(), budget, sweeping: Mutex::default() }
    }

    /// What is known of `tenant`'s series under `generation`.
    #[must_use]
    pub fn tenant(&self, tenant: &Tenant, generation: u64) -> Arc<TenantSeries> {
        let known = self.tenants.read().get(tenant).cloned();
        let series = known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write();
            let new =
                || Arc::new(TenantSeries::new(tenant.clone(), self.hasher.clone(), Arc::clone(&self.used)));
            Arc::clone(tenants.entry(tenant.clone()).or_insert_with(new))
        });
        series.begin(generation);
        series
    }

    /// Entries in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Forgets what hasn't been used since the last time, where there is too much; if that isn't a
    /// quarter, then of the rest whatever falls to chance.
    pub fn sweep(&self) {
        if self.used() < self.budget {
            return;
        }
        let Some(_alone) = self.sweeping.try_lock() else { return };
        let tenants: Vec<_> = self.tenants.read().values().cloned().collect();
        for series in &tenants {
            series.sweep(false);
        }
        if self.used() > self.budget / 4 * 3 {
            for series in &tenants {
                series.sweep(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cache::Remembered;
    use super::days::Days;
    use super::*;
    use crate::model::{MetricName, Spelling};
    use crate::store::SeriesLookup;

    fn registry(budget: usize) -> Registry {
        Registry::new(SpellingHasher::new([7; 192]), budget)
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn remember(series: &TenantSeries, fp: u64) {
        let metric = MetricName::new("m").unwrap();
        let metrics = series.metrics();
        let metric = metrics.number(&metric);
        let spelling = Some(Spelling(u128::from(fp) << 64));
        series.remember(&metrics, &[Remembered { fp, metric, days: Days::from_mask(3, 1), spelling }]);
    }

    #[test]
    fn a_full_registry_forgets_what_nobody_uses() {
        let registry = registry(2_000);
        let (busy, idle) = (registry.tenant(&tenant("busy"), 0), registry.tenant(&tenant("idle"), 0));
        for fp in 0..500 {
            remember(&busy, fp);
            remember(&idle, fp);
        }
        registry.sweep();
        let find = |series: &TenantSeries, fp: u64| series.find(Spelling(u128::from(fp) << 64));
        // All were new since the last sweep; so chance has taken half of them.
        assert!((800..1_200).contains(&registry.used()), "{}", registry.used());
        let alive: Vec<_> = (0..500).filter_map(|fp| find(&busy, fp)).collect();
        for handle in &alive {
            busy.known().get(*handle).unwrap().touch();
        }
        for fp in 500.. {
            if registry.used() >= 2_000 {
                break;
            }
            remember(&busy, fp);
        }
        registry.sweep();
        assert_eq!((0..500).filter(|fp| find(&idle, *fp).is_some()).count(), 0);
        assert!(registry.used() <= 1_500, "{}", registry.used());
        assert!((0..500).any(|fp| find(&busy, fp).is_some()));
    }

    #[test]
    fn tenants_know_nothing_of_each_other() {
        let registry = registry(BUDGET);
        remember(&registry.tenant(&tenant("a"), 0), 1);
        assert!(registry.tenant(&tenant("a"), 0).find(Spelling(1 << 64)).is_some());
        assert!(registry.tenant(&tenant("b"), 0).find(Spelling(1 << 64)).is_none());
    }

    #[test]
    fn another_generation_begins_with_nothing_and_new_handles() {
        let registry = registry(BUDGET);
        let series = registry.tenant(&tenant("a"), 0);
        remember(&series, 1);
        let first = series.find(Spelling(1 << 64)).unwrap();
        let before = series.metrics();
        let series = registry.tenant(&tenant("a"), 1);
        assert_eq!((series.find(Spelling(1 << 64)), registry.used()), (None, 0));
        // What was resolved under the old one isn't remembered under the new one.
        let late =
            Remembered { fp: 1, metric: 0, days: Days::from_mask(3, 1), spelling: Some(Spelling(1 << 64)) };
        series.remember(&before, &[late]);
        assert_eq!(series.find(Spelling(1 << 64)), None);
        remember(&series, 1);
        assert_ne!(series.find(Spelling(1 << 64)).unwrap(), first);
    }
}
