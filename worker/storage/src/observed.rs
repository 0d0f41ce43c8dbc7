//! A wrapper with the same trait around any store: what is the same for every backend.
//!
//! - **Queries** are listed while they run and can be cancelled. They end at their deadline even when
//!   the backend is slow to notice; then, and when the caller drops the future (a client hung up),
//!   the backend's own cancel token is cancelled, so that the work stops too.
//! - **Reads** are tried again, at most [`ATTEMPTS`] times and only when the store asks for no longer
//!   wait than [`LONGEST_WAIT`]. Writes never are: their callers hold the batch and know better.
//! - Each operation is measured by a [`Recorder`] and runs in a tracing span; errors are logged by
//!   who handles them, not here.

mod running;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument, Span, debug_span};

use crate::model::{
    AggregateQuery, AggregateRow, Answer, Batch, DimensionKey, ExportQuery, MetricName, Query, RangeQuery,
    RangeRow, RateQuery, RateRow, SeriesSamples, Tenant,
};
use crate::store::{
    Backup, CardinalityPage, CardinalityQuery, Deleted, ErrorKind, Export, Gauge, Health, ListPage,
    ListQuery, MetricsStore, Plan, QueryContext, Result, Retention, RunningQuery, SeriesLookup, StoreError,
    Usage, WriteOutcome,
};

use running::{Registered, Running};

/// How often a read is tried.
pub const ATTEMPTS: u32 = 3;
/// A read isn't tried again when the store wants a longer pause than this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The pause before a second attempt; it doubles before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Takes what operations cost and how they ended.
pub trait Recorder: Send + Sync {
    /// An operation of the trait (its method's name) ended after `seconds`.
    ///
    /// `outcome` is one of `ok timeout cancelled too_large overloaded unavailable stale_series corrupt
    /// internal`; a caller who hung up counts as `cancelled`.
    fn operation(&self, name: &'static str, seconds: f64, outcome: &'static str);
}

/// A store, observed and bounded.
pub struct Observed {
    inner: Arc<dyn MetricsStore>,
    recorder: Arc<dyn Recorder>,
    running: Arc<Running>,
}

impl Observed {
    /// Wraps `inner`; `recorder` hears of every operation.
    #[must_use]
    pub fn new(inner: Arc<dyn MetricsStore>, recorder: Arc<dyn Recorder>) -> Self {
        Self { inner, recorder, running: Arc::default() }
    }

    /// Measures one call, in its span.
    async fn once<T>(
        &self,
        name: &'static str,
        span: Span,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        observed(&*self.recorder, name, span, call).await
    }

    /// A read without a deadline of its own.
    async fn read<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        name: &'static str,
        tenant: &Tenant,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T> {
        self.once(name, debug_span!("storage", operation = name, %tenant), retried(call)).await
    }

    /// A query: ends when it is cancelled or its time is over.
    async fn query<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        name: &'static str,
        query: &Registered,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T> {
        let context = query.context();
        let attempt = || {
            context.scanned.store(0, Ordering::Relaxed);
            call()
        };
        self.once(name, span_of(name, query), bounded(context, retried(attempt))).await
    }
}

/// Measures one call, in its span.
async fn observed<T>(
    recorder: &dyn Recorder,
    name: &'static str,
    span: Span,
    call: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let mut observation = Observation::begin(recorder, name);
    let result = call.instrument(span).await;
    observation.outcome = outcome(&result);
    result
}

fn span_of(name: &'static str, query: &Registered) -> Span {
    debug_span!("storage", operation = name, tenant = %query.tenant(), query = %query.context().id)
}

/// What `call` returns, unless it is cancelled or its time is over first.
async fn bounded<T>(context: &QueryContext, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => {
            Err(StoreError::new(ErrorKind::Cancelled, "the query was cancelled"))
        }
        in_time = timeout_at(context.deadline, call) => in_time.unwrap_or_else(|_| {
            Err(StoreError::new(ErrorKind::Timeout, "the query's time is over"))
        }),
    }
}

/// An export, each step of it observed and bounded; listed until it is dropped.
struct ObservedExport {
    inner: Box<dyn Export>,
    recorder: Arc<dyn Recorder>,
    query: Registered,
}

impl ObservedExport {
    /// The next step, tried again as other reads are.
    async fn step(inner: &mut dyn Export) -> Result<Vec<SeriesSamples>> {
        let mut attempts = Attempts::default();
        loop {
            let result = inner.next().await;
            let Some(wait) = attempts.wait_after(&result) else { return result };
            sleep(wait).await;
        }
    }
}

#[async_trait]
impl Export for ObservedExport {
    async fn next(&mut self) -> Result<Vec<SeriesSamples>> {
        let span = span_of("export", &self.query);
        let step = bounded(self.query.context(), Self::step(self.inner.as_mut()));
        observed(&*self.recorder, "export", span, step).await
    }
}

/// Calls until there is an answer, an error that lasts, or no attempt left.
async fn retried<T: Send, F: Future<Output = Result<T>> + Send>(
    call: impl Fn() -> F + Send + Sync,
) -> Result<T> {
    let mut attempts = Attempts::default();
    loop {
        let result = call().await;
        let Some(wait) = attempts.wait_after(&result) else { return result };
        sleep(wait).await;
    }
}

/// The attempts at a read.
struct Attempts {
    left: u32,
    pause: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { left: ATTEMPTS, pause: FIRST_WAIT }
    }
}

impl Attempts {
    /// How long to wait before the next attempt; `None` where `result` stands.
    fn wait_after<T>(&mut self, result: &Result<T>) -> Option<Duration> {
        self.left -= 1;
        let error = result.as_ref().err().filter(|_| self.left > 0)?;
        let wait = wait_before_retry(error, self.pause)?;
        self.pause *= 2;
        Some(wait)
    }
}

/// How long to wait until the call may succeed: what the store asks for, at least `pause` and up to
/// half more, so that many callers don't come back at once. `None` when it isn't worth it.
fn wait_before_retry(error: &StoreError, pause: Duration) -> Option<Duration> {
    match error.kind {
        ErrorKind::Overloaded { retry_after } | ErrorKind::Unavailable { retry_after }
            if retry_after <= LONGEST_WAIT =>
        {
            Some(retry_after.max(pause).mul_f64(1.0 + fastrand::f64() / 2.0))
        }
        _ => None,
    }
}

/// How an operation ended, in one word.
fn outcome<T>(result: &Result<T>) -> &'static str {
    let Err(error) = result else { return "ok" };
    match error.kind {
        ErrorKind::Timeout => "timeout",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::QueryTooLarge => "too_large",
        ErrorKind::Overloaded { .. } => "overloaded",
        ErrorKind::Unavailable { .. } => "unavailable",
        ErrorKind::Refused => "refused",
        ErrorKind::StaleSeries => "stale_series",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Internal => "internal",
    }
}

/// An operation under way; records itself when it ends, also by being dropped.
struct Observation<'a> {
    recorder: &'a dyn Recorder,
    name: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl<'a> Observation<'a> {
    fn begin(recorder: &'a dyn Recorder, name: &'static str) -> Self {
        Self { recorder, name, began: Instant::now(), outcome: "cancelled" }
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        self.recorder.operation(self.name, self.began.elapsed().as_secs_f64(), self.outcome);
    }
}

#[async_trait]
impl MetricsStore for Observed {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup> {
        self.inner.lookup(tenant)
    }

    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        let span = debug_span!("storage", operation = "write", %tenant, rows = batch.len());
        self.once("write", span, self.inner.write(tenant, batch)).await
    }

    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>> {
        let own = self.running.enter(tenant, context);
        self.query("query_range", &own, || self.inner.query_range(tenant, query, own.context())).await
    }

    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>> {
        let own = self.running.enter(tenant, context);
        self.query("aggregate", &own, || self.inner.aggregate(tenant, query, own.context())).await
    }

    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        let own = self.running.enter(tenant, context);
        self.query("rate", &own, || self.inner.rate(tenant, query, own.context())).await
    }

    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Box<dyn Export>> {
        let own = self.running.enter(tenant, context);
        let begun = self.query("export", &own, || self.inner.export(tenant, query, own.context())).await?;
        Ok(Box::new(ObservedExport { inner: begun, recorder: self.recorder.clone(), query: own }))
    }

    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan> {
        self.read("explain", tenant, || self.inner.explain(tenant, query)).await
    }

    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage> {
        self.read("list_metrics", tenant, || self.inner.list_metrics(tenant, list)).await
    }

    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage> {
        let call = || self.inner.list_dimension_keys(tenant, metric, list);
        self.read("list_dimension_keys", tenant, call).await
    }

    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage> {
        let call = || self.inner.list_dimension_values(tenant, metric, key, list);
        self.read("list_dimension_values", tenant, call).await
    }

    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage> {
        self.read("cardinality", tenant, || self.inner.cardinality(tenant, query)).await
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted> {
        let span = debug_span!("storage", operation = "delete_before", %tenant, %metric, before, dry_run);
        self.once("delete_before", span, self.inner.delete_before(tenant, metric, before, dry_run)).await
    }

    async fn retention(&self, tenant: &Tenant) -> Result<Retention> {
        self.read("retention", tenant, || self.inner.retention(tenant)).await
    }

    async fn set_retention(&self, tenant: &Tenant, retention: Retention) -> Result<()> {
        let span = debug_span!("storage", operation = "set_retention", %tenant);
        self.once("set_retention", span, self.inner.set_retention(tenant, retention)).await
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        self.read("usage", tenant, || self.inner.usage(tenant)).await
    }

    async fn running_queries(&self, tenant: &Tenant) -> Result<Vec<RunningQuery>> {
        // A backend that several workers share knows of the others' queries.
        let mut queries = self.inner.running_queries(tenant).await?;
        let own = self.running.of(tenant);
        queries.retain(|query| own.iter().all(|mine| mine.id != query.id));
        queries.extend(own);
        queries.sort_by_key(|query| std::cmp::Reverse(query.age));
        Ok(queries)
    }

    async fn cancel_query(&self, tenant: &Tenant, id: &str) -> Result<bool> {
        Ok(self.running.cancel(tenant, id) || self.inner.cancel_query(tenant, id).await?)
    }

    async fn backup(&self) -> Result<Backup> {
        self.once("backup", debug_span!("storage", operation = "backup"), self.inner.backup()).await
    }

    async fn backups(&self) -> Result<Vec<Backup>> {
        let span = debug_span!("storage", operation = "backups");
        self.once("backups", span, self.inner.backups()).await
    }

    async fn delete_backup(&self, name: &str) -> Result<bool> {
        let span = debug_span!("storage", operation = "delete_backup", name);
        self.once("delete_backup", span, self.inner.delete_backup(name)).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn pressure(&self) -> f64 {
        self.inner.pressure()
    }

    fn weight(&self, tenant: &Tenant, query: &Query) -> Option<u64> {
        self.inner.weight(tenant, query)
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.inner.gauges()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::clock::ManualClock;
    use crate::contract::trial::{DAY, T0};
    use crate::contract::{Backend, Mode, Subject};
    use crate::faulty::{Fault, Faulty};
    use crate::memory::MemoryStore;
    use crate::memory::tests::Plain;
    use crate::model::{Having, Selector, TimeRange};

    #[derive(Default)]
    struct Heard(Mutex<Vec<(&'static str, &'static str)>>);

    impl Recorder for Heard {
        fn operation(&self, name: &'static str, seconds: f64, outcome: &'static str) {
            assert!(seconds >= 0.0);
            self.0.lock().push((name, outcome));
        }
    }

    struct ObservedMemory;

    #[async_trait]
    impl Backend for ObservedMemory {
        async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
            let memory = Arc::new(MemoryStore::new(clock, default_retention));
            Ok(Box::new(Plain(Arc::new(Observed::new(memory, Arc::<Heard>::default())))))
        }
    }

    crate::contract_tests!(plain: Mode::Plain, ObservedMemory);

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn question() -> RangeQuery {
        let selector = Selector::new(MetricName::new("m").unwrap(), Vec::new());
        RangeQuery { selector, range: TimeRange::new(0, T0).unwrap(), having: Having::ANY, limit: 10 }
    }

    fn over(fault: Fault) -> (Arc<Observed>, Arc<Faulty>, Arc<Heard>) {
        let memory = MemoryStore::new(Arc::new(ManualClock::new(T0)), DAY);
        let faulty = Arc::new(Faulty::new(Arc::new(memory), fault));
        let heard = Arc::<Heard>::default();
        (Arc::new(Observed::new(faulty.clone(), heard.clone())), faulty, heard)
    }

    fn within(timeout: Duration, id: &str) -> QueryContext {
        QueryContext { id: id.to_owned(), ..QueryContext::with_timeout(timeout) }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_query_ends_at_its_deadline_though_the_backend_hangs() {
        let (observed, faulty, heard) = over(Fault::Hangs);
        let context = within(Duration::from_millis(5), "q");
        let error = observed.query_range(&tenant("a"), &question(), &context).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert!(faulty.seen_context().unwrap().cancel.is_cancelled(), "the work is told to stop");
        assert!(!context.cancel.is_cancelled(), "the caller's own token isn't touched");
        assert_eq!(observed.running_queries(&tenant("a")).await.unwrap(), []);
        assert_eq!(*heard.0.lock(), [("query_range", "timeout")]);
    }

    #[tokio::test]
    async fn a_running_query_is_listed_and_cancelled_by_its_tenant_only() {
        let (observed, faulty, heard) = over(Fault::Hangs);
        let asking = tokio::spawn({
            let observed = observed.clone();
            async move { observed.query_range(&tenant("a"), &question(), &within(HOUR, "q-1")).await }
        });
        while faulty.seen_context().is_none() {
            tokio::task::yield_now().await;
        }
        faulty.seen_context().unwrap().scanned.store(42, Ordering::Relaxed);
        let listed = observed.running_queries(&tenant("a")).await.unwrap();
        assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].scanned), (1, "q-1", 42));
        assert_eq!(observed.running_queries(&tenant("a-")).await.unwrap(), []);
        assert!(!observed.cancel_query(&tenant("a-"), "q-1").await.unwrap());
        assert!(!observed.cancel_query(&tenant("a"), "q-2").await.unwrap());
        assert!(observed.cancel_query(&tenant("a"), "q-1").await.unwrap());
        assert_eq!(asking.await.unwrap().unwrap_err().kind, ErrorKind::Cancelled);
        assert!(faulty.seen_context().unwrap().cancel.is_cancelled());
        assert!(!observed.cancel_query(&tenant("a"), "q-1").await.unwrap(), "it has ended");
        assert_eq!(*heard.0.lock(), [("query_range", "cancelled")]);
    }

    #[tokio::test]
    async fn a_dropped_query_is_cancelled_and_forgotten() {
        let (observed, faulty, heard) = over(Fault::Hangs);
        let (asker, context, query) = (tenant("a"), within(HOUR, "q"), question());
        let asking = observed.query_range(&asker, &query, &context);
        assert!(tokio::time::timeout(Duration::from_millis(1), asking).await.is_err());
        assert!(faulty.seen_context().unwrap().cancel.is_cancelled());
        assert_eq!(observed.running_queries(&asker).await.unwrap(), []);
        assert_eq!(*heard.0.lock(), [("query_range", "cancelled")]);
    }

    #[tokio::test]
    async fn a_query_whose_client_hung_up_before_ends_as_cancelled() {
        let (observed, _, _) = over(Fault::Hangs);
        let context = within(HOUR, "q");
        context.cancel.cancel();
        let error = observed.query_range(&tenant("a"), &question(), &context).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn an_export_is_listed_until_it_is_dropped_and_can_be_cancelled() {
        let (observed, faulty, heard) = over(Fault::None);
        let query = ExportQuery { selector: question().selector, range: question().range, piece: 10 };
        let mut export = observed.export(&tenant("a"), &query, &within(HOUR, "e")).await.unwrap();
        assert_eq!(observed.running_queries(&tenant("a")).await.unwrap()[0].id, "e");
        assert_eq!(export.next().await.unwrap(), []);
        assert!(observed.cancel_query(&tenant("a"), "e").await.unwrap());
        assert_eq!(export.next().await.unwrap_err().kind, ErrorKind::Cancelled);
        assert!(faulty.seen_context().unwrap().cancel.is_cancelled());
        drop(export);
        assert_eq!(observed.running_queries(&tenant("a")).await.unwrap(), []);
        assert_eq!(*heard.0.lock(), [("export", "ok"), ("export", "ok"), ("export", "cancelled")]);
    }

    #[tokio::test]
    async fn reads_are_tried_again_and_writes_are_not() {
        let soon = || Fault::unavailable(2, Duration::from_millis(1));
        let (observed, faulty, heard) = over(soon());
        let context = within(HOUR, "q");
        assert!(observed.query_range(&tenant("a"), &question(), &context).await.is_ok());
        assert_eq!((faulty.calls(), heard.0.lock().len()), (3, 1));

        let (observed, faulty, heard) = over(soon());
        let batch = Batch::new(crate::model::SeriesLimits::NONE);
        assert!(observed.write(&tenant("a"), batch).await.is_err());
        assert_eq!((faulty.calls(), heard.0.lock()[0]), (1, ("write", "unavailable")));
    }

    #[tokio::test]
    async fn a_read_is_not_tried_for_ever_nor_after_a_long_wait() {
        let (observed, faulty, _) = over(Fault::unavailable(9, Duration::from_millis(1)));
        assert!(observed.usage(&tenant("a")).await.is_err());
        assert_eq!(faulty.calls(), ATTEMPTS);
        let (observed, faulty, _) = over(Fault::unavailable(1, Duration::from_secs(5)));
        assert!(observed.usage(&tenant("a")).await.is_err());
        assert_eq!(faulty.calls(), 1);
    }
}
