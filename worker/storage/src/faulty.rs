//! A store with one bug put in: what the suites must catch, and what the wrapper must bear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::clock::ManualClock;
use crate::memory::MemoryStore;
use crate::model::{
    AggregateQuery, AggregateRow, Aggregation, Answer, Batch, DimensionKey, ExportQuery, Having, MetricName,
    NewSeries, Query, RangeQuery, RangeRow, RateQuery, RateRow, RowSeries, SeriesLimits, Tenant, TimeRange,
};
use crate::store::{
    CardinalityPage, CardinalityQuery, Deleted, ErrorKind, Export, Gauge, Health, ListPage, ListQuery,
    MetricsStore, Plan, QueryContext, Result, Retention, RunningQuery, SeriesLookup, StoreError, Usage,
    WriteOutcome,
};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the control of the controls.
    None,
    /// Rates begin at the first sample in range.
    DropsCarryIn,
    /// Of two samples in one batch the earlier wins.
    FirstWriteWins,
    /// All tenants are one.
    MixesTenants,
    /// The end of a range belongs to it.
    EndsInclusively,
    /// A delete counts and takes nothing.
    KeepsDeleted,
    /// A median is off by half a rank.
    ShiftsMedian,
    /// A count forgets one sample of a thousand.
    LosesSamples,
    /// A listing shows names in the cursor's place twice.
    RepeatsCursor,
    /// Retention is taken and ignored.
    IgnoresRetention,
    /// Queries never end.
    Hangs,
    /// The first calls fail and ask for a pause.
    Unavailable { times: u32, retry_after: Duration },
}

impl Fault {
    pub fn unavailable(times: u32, retry_after: Duration) -> Self {
        Self::Unavailable { times, retry_after }
    }
}

/// A store with a [`Fault`].
pub struct Faulty {
    inner: Arc<dyn MetricsStore>,
    fault: Fault,
    calls: AtomicU32,
    seen: Mutex<Option<QueryContext>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn MetricsStore>, fault: Fault) -> Self {
        Self { inner, fault, calls: AtomicU32::new(0), seen: Mutex::default() }
    }

    /// How often a call that may fail was made.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The context of the last query.
    pub fn seen_context(&self) -> Option<QueryContext> {
        self.seen.lock().clone()
    }

    fn call(&self) -> Result<()> {
        let before = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Unavailable { times, retry_after } if before < times => {
                Err(StoreError::new(ErrorKind::Unavailable { retry_after }, "not now"))
            }
            _ => Ok(()),
        }
    }

    async fn query(&self, context: &QueryContext) -> Result<()> {
        *self.seen.lock() = Some(context.clone());
        if self.fault == Fault::Hangs {
            std::future::pending::<()>().await;
        }
        self.call()
    }

    fn tenant(&self, tenant: &Tenant) -> Tenant {
        match self.fault {
            Fault::MixesTenants => Tenant::new("everybody").unwrap(),
            _ => tenant.clone(),
        }
    }

    fn range(&self, range: TimeRange) -> TimeRange {
        match self.fault {
            Fault::EndsInclusively => TimeRange::new(range.start(), range.end() + 1).unwrap(),
            _ => range,
        }
    }

    /// The rate over a store that holds nothing but the samples in range.
    async fn rate_without_carry_in(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        let all = RangeQuery {
            selector: query.selector.clone(),
            range: query.range,
            having: Having::ANY,
            limit: usize::MAX,
        };
        let samples = self.inner.query_range(tenant, &all, context).await?;
        let mut batch = Batch::new(SeriesLimits::NONE);
        for row in samples.rows {
            let (metric, dimensions) = (query.selector.metric.clone(), row.dimensions);
            let series = batch.describe(NewSeries { metric, dimensions, spelling: None });
            batch.push(series, row.timestamp, row.value);
        }
        let other = MemoryStore::new(Arc::new(ManualClock::new(query.range.end())), i64::MAX);
        other.write(tenant, batch).await?;
        other.rate(tenant, query, context).await
    }
}

#[async_trait]
impl MetricsStore for Faulty {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup> {
        self.inner.lookup(&self.tenant(tenant))
    }

    async fn write(&self, tenant: &Tenant, mut batch: Batch) -> Result<WriteOutcome> {
        self.call()?;
        if self.fault == Fault::FirstWriteWins && batch.limits == SeriesLimits::NONE {
            batch.series.reverse();
            batch.timestamps.reverse();
            batch.values.reverse();
        }
        if self.fault == Fault::LosesSamples && batch.len() > 300 {
            let first: RowSeries = batch.series[0];
            batch.series[299] = first;
            batch.timestamps[299] = batch.timestamps[0];
            batch.values[299] = batch.values[0];
        }
        self.inner.write(&self.tenant(tenant), batch).await
    }

    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>> {
        self.query(context).await?;
        let query = RangeQuery { range: self.range(query.range), ..query.clone() };
        self.inner.query_range(&self.tenant(tenant), &query, context).await
    }

    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>> {
        self.query(context).await?;
        let mut query = AggregateQuery { range: self.range(query.range), ..query.clone() };
        if self.fault == Fault::ShiftsMedian && query.aggregation == Aggregation::P50 {
            query.aggregation = Aggregation::Avg;
        }
        self.inner.aggregate(&self.tenant(tenant), &query, context).await
    }

    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        self.query(context).await?;
        let tenant = self.tenant(tenant);
        if self.fault == Fault::DropsCarryIn {
            return self.rate_without_carry_in(&tenant, query, context).await;
        }
        let query = RateQuery { range: self.range(query.range), ..query.clone() };
        self.inner.rate(&tenant, &query, context).await
    }

    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Box<dyn Export>> {
        self.query(context).await?;
        let query = ExportQuery { range: self.range(query.range), ..query.clone() };
        self.inner.export(&self.tenant(tenant), &query, context).await
    }

    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan> {
        self.inner.explain(&self.tenant(tenant), query).await
    }

    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage> {
        self.inner.list_metrics(&self.tenant(tenant), list).await
    }

    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage> {
        self.inner.list_dimension_keys(&self.tenant(tenant), metric, list).await
    }

    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage> {
        let mut list = list.clone();
        if self.fault == Fault::RepeatsCursor {
            // The last character gone, the cursor comes before its own name.
            list.after.as_mut().map(String::pop);
        }
        self.inner.list_dimension_values(&self.tenant(tenant), metric, key, &list).await
    }

    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage> {
        self.inner.cardinality(&self.tenant(tenant), query).await
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted> {
        let dry_run = dry_run || self.fault == Fault::KeepsDeleted;
        self.inner.delete_before(&self.tenant(tenant), metric, before, dry_run).await
    }

    async fn retention(&self, tenant: &Tenant) -> Result<Retention> {
        self.inner.retention(&self.tenant(tenant)).await
    }

    async fn set_retention(&self, tenant: &Tenant, retention: Retention) -> Result<()> {
        if self.fault == Fault::IgnoresRetention {
            return Ok(());
        }
        self.inner.set_retention(&self.tenant(tenant), retention).await
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        self.call()?;
        self.inner.usage(&self.tenant(tenant)).await
    }

    async fn running_queries(&self, tenant: &Tenant) -> Result<Vec<RunningQuery>> {
        self.inner.running_queries(tenant).await
    }

    async fn cancel_query(&self, tenant: &Tenant, id: &str) -> Result<bool> {
        self.inner.cancel_query(tenant, id).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.inner.gauges()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
