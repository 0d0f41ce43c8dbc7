//! The model: the plainest correct implementation of the trait, which defines every answer.
//!
//! Everything is a sorted map behind one lock, and every question walks all of it; nothing here is
//! fast, and nothing needs to be. Where two backends disagree, this one says what is right, so its
//! formulas stand in `memory/answer.rs` with their sources and its rules about which series exist in
//! `memory/tenant.rs`.
//!
//! # What expires is gone
//! Each call first drops what is older than now − retention, so expiry is final here. A backend that
//! only hides expired samples may show them again once retention is lengthened; the contract leaves
//! that open, and the differential test never lengthens retention over what has expired.

mod answer;
mod tenant;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::export::Copied;
use crate::model::{
    AggregateQuery, AggregateRow, Answer, Batch, DimensionKey, ExportQuery, MetricName, Query, RangeQuery,
    RangeRow, RateQuery, RateRow, SeriesHandle, Spelling, SpellingHasher, Tenant,
};
use crate::store::{
    CardinalityPage, CardinalityQuery, Deleted, ErrorKind, Export, Gauge, Health, ListPage, ListQuery,
    MetricsStore, Plan, QueryContext, Result, Retention, RunningQuery, SeriesLookup, StoreError, Usage,
    WriteOutcome,
};

pub use answer::Weighed;
use tenant::TenantState;

/// A store that lives in memory and defines every answer; it survives nothing.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    default_retention: i64,
    hasher: SpellingHasher,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: BTreeMap<Tenant, TenantState>,
    /// The next series' handle: never used twice, also not by two tenants.
    next_handle: u32,
    closed: bool,
}

/// The spellings that a tenant's series had when they were asked for.
#[derive(Debug)]
struct Spellings {
    hasher: SpellingHasher,
    known: HashMap<Spelling, SeriesHandle>,
}

impl SeriesLookup for Spellings {
    fn hasher(&self) -> &SpellingHasher {
        &self.hasher
    }

    fn find(&self, spelling: Spelling) -> Option<SeriesHandle> {
        self.known.get(&spelling).copied()
    }
}

impl MemoryStore {
    /// An empty store whose tenants keep samples for `default_retention_ms` unless they say otherwise.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, default_retention_ms: i64) -> Self {
        let mut secret = [0; 192];
        fastrand::fill(&mut secret);
        Self {
            clock,
            default_retention: default_retention_ms,
            hasher: SpellingHasher::new(secret),
            state: Mutex::default(),
        }
    }

    /// [`MetricsStore::aggregate`], each row with the scale that its tolerance is relative to.
    ///
    /// # Errors
    /// As [`MetricsStore::aggregate`].
    pub fn weigh_aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<Weighed<AggregateRow>>> {
        self.with(tenant, |state| answer::aggregate(state, query, context))?
    }

    /// [`MetricsStore::rate`], each row with the scale that its tolerance is relative to.
    ///
    /// # Errors
    /// As [`MetricsStore::rate`].
    pub fn weigh_rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<Weighed<RateRow>>> {
        self.with(tenant, |state| answer::rate(state, query, context))?
    }

    /// Runs `body` on what `tenant` has at this moment, expired samples and series removed.
    fn with<T>(&self, tenant: &Tenant, body: impl FnOnce(&mut TenantState) -> T) -> Result<T> {
        self.with_handles(tenant, |state, _, _| body(state))
    }

    /// As [`MemoryStore::with`], also given the time and the next free handle.
    fn with_handles<T>(
        &self,
        tenant: &Tenant,
        body: impl FnOnce(&mut TenantState, i64, &mut u32) -> T,
    ) -> Result<T> {
        let now = self.clock.now();
        let State { tenants, next_handle, closed } = &mut *self.state.lock();
        if *closed {
            let retry_after = std::time::Duration::from_secs(5);
            return Err(StoreError::new(ErrorKind::Unavailable { retry_after }, "the store is closed"));
        }
        let state = tenants.entry(tenant.clone()).or_insert_with(|| TenantState::new(self.default_retention));
        state.expire(now);
        Ok(body(state, now, next_handle))
    }
}

/// The rows without their scales.
fn plain<Row>(answer: Answer<Weighed<Row>>) -> Answer<Row> {
    Answer { rows: answer.rows.into_iter().map(|weighed| weighed.row).collect(), stats: answer.stats }
}

#[async_trait]
impl MetricsStore for MemoryStore {
    fn backend(&self) -> &'static str {
        "memory"
    }

    fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup> {
        let known = self.with(tenant, |state| state.spellings()).unwrap_or_default();
        Arc::new(Spellings { hasher: self.hasher.clone(), known })
    }

    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        let refused =
            self.with_handles(tenant, |state, now, next_handle| state.write(&batch, now, next_handle))??;
        Ok(WriteOutcome { refused, durable: false })
    }

    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>> {
        self.with(tenant, |state| answer::range(state, query, context))?
    }

    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>> {
        self.weigh_aggregate(tenant, query, context).map(plain)
    }

    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        self.weigh_rate(tenant, query, context).map(plain)
    }

    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Box<dyn Export>> {
        let stretches = self.with(tenant, |state| answer::export(state, query, context))??;
        Ok(Box::new(Copied(stretches.into_iter())))
    }

    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan> {
        self.with(tenant, |state| answer::explain(state, query))
    }

    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage> {
        self.with(tenant, |state| state.list_metrics(list))
    }

    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage> {
        self.with(tenant, |state| state.list_keys(metric, list))
    }

    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage> {
        self.with(tenant, |state| state.list_values(metric, key, list))
    }

    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage> {
        self.with(tenant, |state| state.cardinality(query))
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted> {
        self.with(tenant, |state| {
            let deleted = state.count_before(metric, before);
            if !dry_run {
                state.delete_before(metric, before);
            }
            deleted
        })
    }

    async fn retention(&self, tenant: &Tenant) -> Result<Retention> {
        self.with(tenant, |state| state.retention.clone())
    }

    async fn set_retention(&self, tenant: &Tenant, retention: Retention) -> Result<()> {
        self.with(tenant, |state| state.retention = retention)
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        self.with_handles(tenant, |state, now, _| state.usage(now))
    }

    async fn running_queries(&self, _tenant: &Tenant) -> Result<Vec<RunningQuery>> {
        Ok(Vec::new())
    }

    async fn cancel_query(&self, _tenant: &Tenant, _id: &str) -> Result<bool> {
        Ok(false)
    }

    async fn health(&self) -> Health {
        let open = if self.state.lock().closed { Err("the store is closed".to_owned()) } else { Ok(()) };
        Health::of(vec![("storage", open)])
    }

    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }

    async fn close(&self) -> Result<()> {
        self.state.lock().closed = true;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::contract::{Backend, Subject};

    /// A store that has nothing to settle, and that only an operating system could restart.
    pub(crate) struct Plain(pub(crate) Arc<dyn MetricsStore>);

    #[async_trait]
    impl Subject for Plain {
        fn store(&self) -> &dyn MetricsStore {
            self.0.as_ref()
        }

        async fn settle(&mut self) -> Result<()> {
            Ok(())
        }

        async fn restart(&mut self) -> Result<()> {
            Ok(())
        }
    }

    struct Memory;

    #[async_trait]
    impl Backend for Memory {
        async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
            Ok(Box::new(Plain(Arc::new(MemoryStore::new(clock, default_retention)))))
        }
    }

    crate::contract_tests!(plain: crate::contract::Mode::Plain, Memory);
}
