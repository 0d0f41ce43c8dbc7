//! What a tenant may do at once and per second; applied only when auth is enabled.

mod address;
mod bucket;
mod transfers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use luminate_crds::worker_config::{TierLimits, WorkerConfig};
use luminate_storage::model::{SeriesLimits, Tenant};
use parking_lot::Mutex;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::tenant::Caller;

use bucket::TokenBucket;
use transfers::Transfers;

pub use address::{AddressLimits, limit as limit_addresses};
pub use transfers::{Transfer, TransferPermit};

/// Tenants are spread over this many maps, so that their requests don't wait for each other.
const SHARDS: usize = 16;
/// A map is swept of idle tenants when it holds this many, or twice what the last sweep left.
const SWEEP_AT: usize = 1024;

/// A tenant's budget of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// `write_rps`.
    Write,
    /// `query_rps`.
    Query,
}

/// What applies to a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Write requests per second.
    pub write_rps: u32,
    /// Queries and listings per second.
    pub query_rps: u32,
    /// Samples per second.
    pub metrics_per_second: u64,
    /// Queries at once.
    pub concurrent_queries: u32,
    /// Series and metrics.
    pub series: SeriesLimits,
}

/// The budgets of all tenants.
#[derive(Debug)]
pub struct Limits {
    /// Whether rates are limited at all: when auth is enabled.
    enforced: bool,
    base: Quota,
    tiers: HashMap<String, Quota>,
    shards: Vec<Mutex<Shard>>,
    transfers: Transfers,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Shard {
    tenants: HashMap<Tenant, Budget>,
    sweep_at: usize,
}

/// A tenant's budgets. One that is idle equals a new one, so it may be forgotten.
#[derive(Debug, Default)]
struct Budget {
    write: TokenBucket,
    query: TokenBucket,
    samples: TokenBucket,
    imported: TokenBucket,
    running: Arc<AtomicU32>,
}

impl Budget {
    fn is_idle(&self, now: Instant) -> bool {
        let full = [&self.write, &self.query, &self.samples, &self.imported]
            .iter()
            .all(|bucket| bucket.is_full(now));
        full && Arc::strong_count(&self.running) == 1
    }
}

/// The right to run one query; given back when it is dropped.
#[derive(Debug)]
pub struct QueryPermit(Option<Arc<AtomicU32>>);

impl Drop for QueryPermit {
    fn drop(&mut self) {
        if let Some(running) = &self.0 {
            running.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Limits {
    /// The limits of `config`.
    #[must_use]
    pub fn new(config: &WorkerConfig, metrics: Arc<Metrics>) -> Self {
        let rates = &config.rate_limits;
        let base = Quota {
            write_rps: rates.write_rps,
            query_rps: rates.query_rps,
            metrics_per_second: rates.metrics_per_second,
            concurrent_queries: rates.concurrent_queries,
            series: SeriesLimits {
                max_metrics: config.cardinality_limits.max_metrics_per_tenant,
                max_series_per_metric: config.cardinality_limits.max_series_per_metric,
            },
        };
        let tiers = rates.tiers.iter().map(|(name, tier)| (name.clone(), overridden(base, tier))).collect();
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { enforced: config.auth.enabled, base, tiers, shards, transfers: Transfers::default(), metrics }
    }

    /// What applies to `caller`; an unknown tier is as none.
    #[must_use]
    pub fn quota(&self, caller: &Caller) -> Quota {
        let tier = caller.tier.as_deref().and_then(|tier| self.tiers.get(tier));
        tier.copied().unwrap_or(self.base)
    }

    /// What a write of `caller` may create; holds with and without auth.
    #[must_use]
    pub fn series(&self, caller: &Caller) -> SeriesLimits {
        self.quota(caller).series
    }

    /// Charges one request.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn request(&self, caller: &Caller, bucket: Bucket) -> Result<(), Error> {
        let quota = self.quota(caller);
        let (limit, rate) = match bucket {
            Bucket::Write => ("write_rps", quota.write_rps),
            Bucket::Query => ("query_rps", quota.query_rps),
        };
        self.charge(caller, limit, |budget, now| match bucket {
            Bucket::Write => budget.write.take(1, u64::from(rate), now),
            Bucket::Query => budget.query.take(1, u64::from(rate), now),
        })
    }

    /// Charges the queries of a batch that has `queries` of them and has been charged as one request.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn queries(&self, caller: &Caller, queries: usize) -> Result<(), Error> {
        let (rate, more) = (u64::from(self.quota(caller).query_rps), queries.saturating_sub(1) as u64);
        self.charge(caller, "query_rps", |budget, now| budget.query.take_more(1, more, rate, now))
    }

    /// Charges `samples` that a write brings, before they are stored.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn samples(&self, caller: &Caller, samples: u64) -> Result<(), Error> {
        let rate = self.quota(caller).metrics_per_second;
        self.charge(caller, "metrics_per_second", |budget, now| budget.samples.take(samples, rate, now))
    }

    /// Charges `samples` that an import brings: to a budget as large as that of writes, but of its own, so that an import
    /// takes nothing from what the tenant writes meanwhile.
    ///
    /// # Errors
    /// How long the import has to wait.
    pub fn imported(&self, caller: &Caller, samples: u64) -> Result<(), Duration> {
        if !self.enforced {
            return Ok(());
        }
        let (rate, now) = (self.quota(caller).metrics_per_second, Instant::now());
        self.with_budget(&caller.tenant, now, |budget| budget.imported.take(samples, rate, now))
    }

    /// The right to one more import or export now; holds with and without auth.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn transfer(&self, caller: &Caller, transfer: Transfer) -> Result<TransferPermit, Error> {
        let permit = self.transfers.begin(&caller.tenant, transfer);
        permit.inspect_err(|error| {
            if let Error::RateLimited { limit, .. } = error {
                self.metrics.limit_hit(limit);
            }
        })
    }

    /// How many queries of `caller` may be at work at once.
    #[must_use]
    pub fn queries_at_once(&self, caller: &Caller) -> usize {
        if self.enforced { self.quota(caller).concurrent_queries as usize } else { usize::MAX }
    }

    /// The right to run one more query now.
    ///
    /// # Errors
    /// `TooManyQueries`.
    pub fn query(&self, caller: &Caller) -> Result<QueryPermit, Error> {
        if !self.enforced {
            return Ok(QueryPermit(None));
        }
        let limit = self.quota(caller).concurrent_queries;
        let running = self.with_budget(&caller.tenant, Instant::now(), |budget| Arc::clone(&budget.running));
        let more = |count: u32| (count < limit).then_some(count + 1);
        match running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(QueryPermit(Some(running))),
            Err(_) => {
                self.metrics.limit_hit("concurrent_queries");
                Err(Error::TooManyQueries { limit })
            }
        }
    }

    fn charge(
        &self,
        caller: &Caller,
        limit: &'static str,
        take: impl FnOnce(&mut Budget, Instant) -> Result<(), Duration>,
    ) -> Result<(), Error> {
        if !self.enforced {
            return Ok(());
        }
        let now = Instant::now();
        self.with_budget(&caller.tenant, now, |budget| take(budget, now)).map_err(|retry_after| {
            self.metrics.limit_hit(limit);
            Error::RateLimited { limit, retry_after }
        })
    }

    fn with_budget<T>(&self, tenant: &Tenant, now: Instant, run: impl FnOnce(&mut Budget) -> T) -> T {
        let hash = xxhash_rust::xxh3::xxh3_64(tenant.as_str().as_bytes());
        let mut shard = self.shards[(hash % SHARDS as u64) as usize].lock();
        if !shard.tenants.contains_key(tenant) && shard.tenants.len() >= shard.sweep_at.max(SWEEP_AT) {
            shard.tenants.retain(|_, budget| !budget.is_idle(now));
            shard.sweep_at = shard.tenants.len() * 2;
        }
        run(shard.tenants.entry(tenant.clone()).or_default())
    }
}

fn overridden(base: Quota, tier: &TierLimits) -> Quota {
    Quota {
        write_rps: tier.write_rps.unwrap_or(base.write_rps),
        query_rps: tier.query_rps.unwrap_or(base.query_rps),
        metrics_per_second: tier.metrics_per_second.unwrap_or(base.metrics_per_second),
        concurrent_queries: tier.concurrent_queries.unwrap_or(base.concurrent_queries),
        series: SeriesLimits {
            max_metrics: tier.max_metrics_per_tenant.unwrap_or(base.series.max_metrics),
            max_series_per_metric: tier.max_series_per_metric.unwrap_or(base.series.max_series_per_metric),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(tenant: &str, tier: Option<&str>) -> Caller {
        Caller { tenant: Tenant::new(tenant).unwrap(), tier: tier.map(Arc::from), scopes: Vec::new() }
    }

    fn limits(change: impl FnOnce(&mut WorkerConfig)) -> Limits {
        let mut config = WorkerConfig::default();
        config.auth.enabled = true;
        change(&mut config);
        Limits::new(&config, Arc::new(Metrics::new(Arc::default())))
    }

    #[test]
    fn each_tenant_has_its_own_budget() {
        let limits = limits(|config| config.rate_limits.write_rps = 2);
        let (one, two) = (caller("one", None), caller("two", None));
        let write = |caller: &Caller| limits.request(caller, Bucket::Write);
        assert_eq!((write(&one), write(&one)), (Ok(()), Ok(())));
        assert!(matches!(write(&one), Err(Error::RateLimited { limit: "write_rps", .. })));
        assert_eq!(write(&two), Ok(()));
        assert_eq!(limits.request(&one, Bucket::Query), Ok(()));
    }

    #[test]
    fn a_batch_is_charged_for_each_of_its_queries() {
        let limits = limits(|config| config.rate_limits.query_rps = 10);
        let (one, two) = (caller("one", None), caller("two", None));
        let batch = |caller: &Caller, queries: usize| {
            limits.request(caller, Bucket::Query).and_then(|()| limits.queries(caller, queries))
        };
        assert_eq!((batch(&one, 7), batch(&two, 100)), (Ok(()), Ok(())));
        assert!(matches!(batch(&one, 4), Err(Error::RateLimited { limit: "query_rps", .. })));
        assert!(batch(&two, 1).is_err(), "a hundred take ten seconds to pay off");
    }

    #[test]
    fn a_tier_overrides_what_it_names() {
        let limits = limits(|config| {
            let gold = TierLimits { max_series_per_metric: Some(7), ..TierLimits::default() };
            config.rate_limits.tiers.insert("gold".into(), gold);
        });
        let gold = limits.quota(&caller("a", Some("gold")));
        assert_eq!((gold.series.max_series_per_metric, gold.write_rps), (7, 100));
        assert_eq!(limits.quota(&caller("a", Some("unknown"))), limits.quota(&caller("a", None)));
    }

    #[test]
    fn queries_at_once_are_counted_until_their_permit_is_dropped() {
        let limits = limits(|config| config.rate_limits.concurrent_queries = 1);
        let one = caller("one", None);
        let permit = limits.query(&one).unwrap();
        assert_eq!(limits.query(&one).unwrap_err(), Error::TooManyQueries { limit: 1 });
        assert!(limits.query(&caller("two", None)).is_ok());
        drop(permit);
        assert!(limits.query(&one).is_ok());
    }

    #[test]
    fn without_auth_nothing_is_limited() {
        let limits = limits(|config| {
            config.auth.enabled = false;
            config.rate_limits.concurrent_queries = 0;
            config.rate_limits.write_rps = 1;
        });
        let default = caller("default", None);
        let _permit = limits.query(&default).unwrap();
        assert!((0..10).all(|_| limits.request(&default, Bucket::Write).is_ok()));
        assert!(limits.samples(&default, u64::MAX).is_ok());
    }

    #[test]
    fn idle_tenants_are_forgotten() {
        let limits = limits(|_| {});
        let start = Instant::now();
        let late = start + Duration::from_secs(60);
        for tenant in 0..SHARDS * SWEEP_AT * 4 {
            let now = if tenant % 2 == 0 { start } else { late };
            let tenant = Tenant::new(&format!("t{tenant}")).unwrap();
            limits.with_budget(&tenant, now, |budget| budget.write.take(1, 100, start)).unwrap();
        }
        let held: usize = limits.shards.iter().map(|shard| shard.lock().tenants.len()).sum();
        assert!(held <= SHARDS * SWEEP_AT * 2, "{held}");
    }
}
