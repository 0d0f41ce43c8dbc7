//! ClickHouse: workers without state of their own over tables that they share.
//!
//! # A batch
//! [`series`] says which of its rows' series are known and lets through what the limits allow; [`writer`]
//! sorts the rows of all that waits into one block, inserts its new series and then its samples, each
//! with a token by which a retry changes nothing, and wakes the callers once the server has them.
//!
//! # A question
//! [`query`] and [`listing`] bind its values to the parameters of a statement in `sql/`, and turn rows of
//! the server into the model's.
//!
//! # What workers share
//! [`schema`] makes the tables. [`changes`] says how a delete or a retention of one worker becomes known to
//! the others, and why no acknowledged sample loses its series over it. `deletes` removes rows.

pub mod accepted;
pub mod block;
pub mod changes;
pub mod client;
mod deletes;
pub mod failure;
pub mod fingerprint;
pub mod listing;
mod open;
pub mod options;
pub mod query;
pub mod running;
pub mod schema;
pub mod series;
pub mod writer;

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{
    AggregateQuery, AggregateRow, Answer, Batch, DimensionKey, ExportQuery, MetricName, Query, RangeQuery,
    RangeRow, RateQuery, RateRow, Tenant,
};
use crate::store::{
    CardinalityPage, CardinalityQuery, Deleted, ErrorKind, Export, Gauge, Health, ListPage, ListQuery,
    MetricsStore, Plan, QueryContext, Result, Retention, RunningQuery, SeriesLookup, StoreError, Usage,
    WriteOutcome,
};

use open::{Opening, Parts};
pub use options::Options;

/// A store whose samples lie in ClickHouse.
///
/// It opens in the background: until the server answers and its tables are there, calls fail with
/// `Unavailable`, and [`MetricsStore::health`] says why.
#[derive(Debug)]
pub struct ClickHouse {
    opening: Arc<Opening>,
}

impl ClickHouse {
    /// Begins to open the store; it goes on by itself for as long as the server is away.
    ///
    /// # Errors
    /// `Internal` when certificates can't be read or there is no tokio runtime.
    pub fn open(options: Options) -> Result<Self> {
        Ok(Self { opening: Opening::begin(options)? })
    }

    /// Waits until it is open.
    ///
    /// # Errors
    /// Why it isn't open yet after `patience`.
    pub async fn opened(&self, patience: std::time::Duration) -> Result<()> {
        self.opening.opened(patience).await
    }

    /// Looks at once what other workers have changed, which else happens each second.
    ///
    /// # Errors
    /// What the server says.
    pub async fn refresh(&self) -> Result<()> {
        Ok(self.parts()?.changes.refresh().await?)
    }

    fn parts(&self) -> Result<Arc<Parts>> {
        self.opening.parts()
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        self.opening.stop();
    }
}

#[async_trait]
impl MetricsStore for ClickHouse {
    fn backend(&self) -> &'static str {
        "clickhouse"
    }

    fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup> {
        match self.parts() {
            Ok(parts) => parts.writer.lookup(tenant),
            Err(_) => self.opening.nothing_known(),
        }
    }

    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        self.parts()?.writer.write(tenant, batch).await
    }

    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>> {
        let parts = self.parts()?;
        query::range(&parts.reader(tenant), query, context).await
    }

    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>> {
        let parts = self.parts()?;
        query::aggregate(&parts.reader(tenant), query, context).await
    }

    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        let parts = self.parts()?;
        query::rate(&parts.reader(tenant), query, context).await
    }

    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Box<dyn Export>> {
        Ok(Box::new(query::Exporting::begin(self.parts()?, tenant, query, context).await?))
    }

    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan> {
        query::explain(&self.parts()?.reader(tenant), query).await
    }

    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage> {
        listing::list_metrics(&self.parts()?.reader(tenant), list).await
    }

    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage> {
        listing::list_dimension_keys(&self.parts()?.reader(tenant), metric, list).await
    }

    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage> {
        listing::list_dimension_values(&self.parts()?.reader(tenant), metric, key, list).await
    }

    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage> {
        listing::cardinality(&self.parts()?.reader(tenant), query).await
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted> {
        let parts = self.parts()?;
        let deleted = query::count_before(&parts.reader(tenant), metric, before).await?;
        if !dry_run {
            parts.deletes.before(&parts.changes, tenant, metric, before).await?;
        }
        Ok(deleted)
    }

    async fn retention(&self, tenant: &Tenant) -> Result<Retention> {
        let parts = self.parts()?;
        // Another worker may have set it a moment ago.
        parts.changes.refresh().await?;
        Ok(parts.changes.retention(tenant).as_ref().clone())
    }

    async fn set_retention(&self, tenant: &Tenant, retention: Retention) -> Result<()> {
        let parts = self.parts()?;
        Ok(parts.changes.set_retention(tenant, &retention, parts.now()).await?)
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        let parts = self.parts()?;
        listing::usage(&parts.reader(tenant), &parts.accepted).await
    }

    async fn running_queries(&self, tenant: &Tenant) -> Result<Vec<RunningQuery>> {
        let parts = self.parts()?;
        running::running_queries(&parts.database, &parts.dialect, tenant).await
    }

    async fn cancel_query(&self, tenant: &Tenant, id: &str) -> Result<bool> {
        let parts = self.parts()?;
        running::cancel(&parts.database, &parts.dialect, tenant, id).await
    }

    /// ClickHouse has a statement for it, which knows of its tables what a worker doesn't.
    fn no_backups(&self) -> StoreError {
        let why = "workers over ClickHouse hold nothing to back up; ClickHouse's own statement BACKUP DATABASE does it";
        StoreError::new(ErrorKind::Refused, why)
    }

    async fn health(&self) -> Health {
        self.opening.health()
    }

    fn pressure(&self) -> f64 {
        self.parts().map_or(0.0, |parts| parts.writer.pressure())
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.parts().map(|parts| parts.writer.gauges()).unwrap_or_default()
    }

    async fn close(&self) -> Result<()> {
        self.opening.close().await.map_err(StoreError::from)
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
