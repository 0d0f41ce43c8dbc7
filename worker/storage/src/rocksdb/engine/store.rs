//! The trait over the engine: each call as the few steps it takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::export::Copied;
use crate::model::{
    AggregateQuery, AggregateRow, Answer, Batch, DimensionKey, ExportQuery, MetricName, Query, RangeQuery,
    RangeRow, RateQuery, RateRow, RowSeries, Selector, SeriesLimits, Tenant, TimeRange,
};
use crate::rocksdb::commit::{self, Committer, Done, Work};
use crate::rocksdb::index::{Definitions, RoughSeries, TenantIndex};
use crate::rocksdb::query::{self, Catalog, Threads};
use crate::rocksdb::reader::Reader;
use crate::rocksdb::record::Rows;
use crate::rocksdb::scan::{Detail, Piece, ScanSpec, SeriesScan};
use crate::rocksdb::summary::Wanted;
use crate::rocksdb::{backup, merge, seal};
use crate::store::{
    Backup, CardinalityPage, CardinalityQuery, Deleted, ErrorKind, Export, Gauge, Health, ListPage,
    ListQuery, MetricsStore, Plan, QueryContext, Refusal, Result, Retention, RunningQuery, SeriesLookup,
    StoreError, Usage, WriteOutcome,
};

use super::export::Exporting;
use super::lanes::{LITTLE_SAMPLES, Lane, Rough};
use super::open::{Opened, open};
use super::{Ack, Inner, Options, unavailable};

/// How long a count before a delete may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(300);

/// The embedded store.
#[derive(Debug)]
pub struct RocksDb {
    pub(super) inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl RocksDb {
    /// Opens or creates a store; blocks until its log is replayed.
    ///
    /// # Errors
    /// `Unavailable` when it is open elsewhere; `Corrupt`; `Internal`, also for an unknown format.
    pub fn open(options: Options) -> Result<Self> {
        let Opened { inner, log, head_commit, errands } = open(options)?;
        let store = Self { inner: inner.clone(), threads: Mutex::default() };
        let committer = Committer::new(inner.clone(), log, head_commit);
        store.spawn("commit", move || committer.run())?;
        let sealer = inner.clone();
        store.spawn("seal", move || seal::run(&sealer))?;
        store.spawn("merge", move || merge::run(&inner, &errands))?;
        Ok(store)
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.lock().push(thread.map_err(StoreError::internal)?);
        Ok(())
    }

    /// Seals the head now and waits until its tables are in use.
    ///
    /// # Errors
    /// `Unavailable` when the store is closing or a seal fails.
    pub async fn seal(&self) -> Result<()> {
        self.wait_sealed().await?;
        self.commit(|done| Work::Freeze { done }).await?;
        self.wait_sealed().await
    }

    async fn wait_sealed(&self) -> Result<()> {
        while !self.inner.view.load().frozen.is_empty() {
            if let Some(why) = self.inner.seal_failure.lock().clone() {
                return Err(unavailable(why));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Merges the layers of every day into one, and waits for it.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`, `Internal`.
    pub async fn merge(&self) -> Result<()> {
        self.blocking(|inner| merge::merge_all(&inner)).await
    }

    /// Runs `body` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        body: impl FnOnce(Arc<Inner>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        if inner.is_stopping() {
            return Err(unavailable("the store is closing"));
        }
        tokio::task::spawn_blocking(move || body(inner)).await.map_err(StoreError::internal)?
    }

    /// Gives the committer work and waits for its answer.
    async fn commit(&self, work: impl FnOnce(Done) -> Work) -> Result<()> {
        let (done, answer) = Done::new();
        self.inner.queue.push_work(work(done))?;
        answered(answer).await
    }

    /// Removes what has expired, where a day has passed since the last look.
    async fn expire_if_due(&self, tenant: &Tenant) -> Result<()> {
        if self.inner.expiry_is_due(tenant) {
            self.commit(|done| Work::Expire { tenant: tenant.clone(), done }).await?;
        }
        Ok(())
    }

    /// Runs a query on its lane's threads, over one view of the store.
    async fn query<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        selector: &Selector,
        range: TimeRange,
        context: &QueryContext,
        body: impl Fn(&dyn Catalog, &Reader<'_>, &QueryContext, Threads<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(index) = self.inner.index.find_tenant(tenant) else { return Ok(None) };
        let floor = self.inner.visible_since(tenant, &selector.metric);
        let context = QueryContext { pool: Some(self.inner.query_memory()), ..context.clone() };
        let rough = self.inner.rough(&index, selector, range);
        if rough.is_little()
            && let Some(result) = self
                .at_once(floor, &context, |reader, context| body(&*index, reader, context, Threads::Caller))
        {
            return result.map(Some);
        }
        let lane = self.inner.lanes.of(rough.samples);
        let _turn = self.inner.lanes.enter(lane, tenant).await?;
        self.on_lane(lane, move |inner, pool| {
            let reader = Reader::new(&inner.tables, inner.view.load_full(), floor);
            body(&*index, &reader, &context, Threads::Pool(pool)).map(Some)
        })
        .await
    }

    /// Runs `body` on the caller's thread, which others share: over what is in memory, and as long as it is little. None where
    /// it turned out not to be.
    fn at_once<T>(
        &self,
        floor: i64,
        context: &QueryContext,
        body: impl FnOnce(&Reader<'_>, &QueryContext) -> Result<T>,
    ) -> Option<Result<T>> {
        if self.inner.is_stopping() {
            return Some(Err(unavailable("the store is closing")));
        }
        let missed = AtomicBool::new(false);
        let bounded = QueryContext {
            max_scanned_samples: context.max_scanned_samples.min(2 * LITTLE_SAMPLES),
            scanned: Arc::default(),
            ..context.clone()
        };
        let reader = Reader::new(&self.inner.tables, self.inner.view.load_full(), floor).in_memory(&missed);
        let panicked = |_| Err(StoreError::internal("a query panicked"));
        let result = catch_unwind(AssertUnwindSafe(|| body(&reader, &bounded))).unwrap_or_else(panicked);
        let too_large = matches!(&result, Err(error) if error.kind == ErrorKind::QueryTooLarge);
        if too_large || missed.load(Ordering::Relaxed) {
            return None;
        }
        context.scanned.fetch_add(bounded.scanned.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(result)
    }

    /// Runs `body` on a thread of a lane, from where it may spread over the others: a thread beside them would only wait,
    /// and waking it there and back is most of what a small query takes.
    async fn on_lane<T: Send + 'static>(
        &self,
        lane: Lane,
        body: impl FnOnce(&Inner, &rayon::ThreadPool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        if inner.is_stopping() {
            return Err(unavailable("the store is closing"));
        }
        let (done, answer) = oneshot::channel();
        self.inner.lanes.pool(lane).spawn(move || {
            // Past this thread's start a panic would end the process; so the question fails, and nothing else.
            let result = catch_unwind(AssertUnwindSafe(|| body(&inner, inner.lanes.pool(lane))));
            // Whoever has the answer may close the store.
            drop(inner);
            if let Ok(result) = result {
                // Nobody may wait any more.
                let _ = done.send(result);
            }
        });
        answer.await.map_err(|_| StoreError::internal("a query panicked"))?
    }

    async fn listing<T: Default + Send + 'static>(
        &self,
        tenant: &Tenant,
        body: impl FnOnce(&TenantIndex) -> T + Send + 'static,
    ) -> Result<T> {
        self.expire_if_due(tenant).await?;
        let Some(index) = self.inner.index.find_tenant(tenant) else { return Ok(T::default()) };
        self.blocking(move |_| Ok(body(&index))).await
    }

    /// Takes nothing more in and tells the threads to end; those that are left to wait for.
    fn end(&self) -> Vec<JoinHandle<()>> {
        self.inner.queue.close();
        self.inner.stopping.store(true, Ordering::Relaxed);
        self.inner.wake_sealer();
        self.inner.wake_merger();
        std::mem::take(&mut *self.threads.lock())
    }
}

/// Waits for threads that were told to end.
fn join(inner: &Inner, threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            inner.fail("a thread of the store panicked");
        }
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        join(&self.inner, self.end());
    }
}

async fn answered(answer: oneshot::Receiver<Result<()>>) -> Result<()> {
    answer.await.map_err(|_| unavailable("the store stopped before it answered"))?
}

impl Inner {
    /// Gives the rows of `batch` their series and hands them to the committer.
    fn enqueue(
        &self,
        tenant: &Tenant,
        batch: Batch,
    ) -> Result<(Option<oneshot::Receiver<Result<()>>>, Vec<(u32, Refusal)>)> {
        let index = self.index.tenant(tenant);
        let (done, answer) = Done::new();
        if batch.new_series.is_empty() {
            let ids = batch.series.iter().map(|series| match series {
                RowSeries::Known(handle) => handle.0,
                RowSeries::New(_) => u32::MAX,
            });
            let rows = Rows {
                tenant: tenant.clone(),
                ids: ids.collect(),
                times: batch.timestamps,
                values: batch.values,
            };
            self.queue.push_batch(commit::Batch { rows, definitions: Vec::new(), done })?;
            return Ok((Some(answer), Vec::new()));
        }
        let creating = self.creation.lock();
        let mut definitions = Definitions::default();
        let resolved = index.resolve(&batch.new_series, &batch.limits, &mut definitions)?;
        self.note_created(&definitions);
        let mut rows =
            Rows { tenant: tenant.clone(), ids: Vec::new(), times: Vec::new(), values: Vec::new() };
        let mut refused = Vec::new();
        for (row, series) in (0_u32..).zip(&batch.series) {
            let id = match series {
                RowSeries::Known(handle) => handle.0,
                RowSeries::New(at) => match resolved[*at as usize] {
                    Ok(id) => id,
                    Err(refusal) => {
                        refused.push((row, refusal));
                        continue;
                    }
                },
            };
            rows.ids.push(id);
            rows.times.push(batch.timestamps[row as usize]);
            rows.values.push(batch.values[row as usize]);
        }
        if rows.ids.is_empty() {
            return Ok((None, refused));
        }
        self.queue.push_batch(commit::Batch { rows, definitions: definitions.encode(), done })?;
        let spelled = batch.new_series.iter().zip(&resolved);
        let spelled = spelled.filter_map(|(series, id)| Some((series.spelling?, id.ok()?)));
        index.remember(&spelled.collect::<Vec<_>>());
        drop(creating);
        Ok((Some(answer), refused))
    }

    fn note_created(&self, definitions: &Definitions) {
        let mut numbers = self.numbers.write();
        let mut unsealed = self.unsealed_series.lock();
        for (id, metric) in definitions.created() {
            numbers.set(id, metric);
            unsealed.push(id);
        }
    }

    /// About how much a query would look at, were samples spread over series and time alike: from totals, no IO.
    fn rough(&self, index: &TenantIndex, selector: &Selector, range: TimeRange) -> Rough {
        let Some(RoughSeries { metric, wanted, all }) = index.rough_series(selector) else {
            return Rough { series: 0, samples: 0 };
        };
        let view = self.view.load();
        let of_layers: u64 = view.layers.iter().map(|layer| layer.record.samples_within(metric, range)).sum();
        let frozen: u64 = view.frozen.iter().map(|frozen| frozen.head.samples()).sum();
        let everyone = self.index.series().max(all);
        let samples = part(of_layers, wanted, all) + part(view.active.samples() + frozen, wanted, everyone);
        Rough { series: wanted, samples }
    }

    /// Counts what a delete would remove: series and samples with `t < before` that can be seen now.
    fn count_before(&self, tenant: &Tenant, name: &MetricName, before: i64) -> Result<Deleted> {
        let none = Deleted { series: 0, samples: 0 };
        let Some(index) = self.index.find_tenant(tenant) else { return Ok(none) };
        let selector = Selector::new(name.clone(), Vec::new());
        let Some(selected) = index.select(&selector, i32::MIN..=i32::MAX) else { return Ok(none) };
        let Some(range) = TimeRange::new(i64::MIN, before) else { return Ok(none) };
        let reader = Reader::new(&self.tables, self.view.load_full(), self.visible_since(tenant, name));
        let spec = ScanSpec::exact(selected.metric, range, Detail::Hours(Wanted::Count));
        let (mut deleted, mut last) = (none, None);
        let context = QueryContext::with_timeout(COUNT_TIMEOUT);
        for ids in selected.ids.chunks(512) {
            last = None;
            reader.scan(&spec, ids, &context, &mut |position, piece| {
                deleted.series += u64::from(last != Some(position));
                last = Some(position);
                deleted.samples += match piece {
                    Piece::Hour(summary) => u64::from(summary.count),
                    Piece::Samples { times, .. } => times.len() as u64,
                };
                Ok(())
            })?;
        }
        let _ = last;
        Ok(deleted)
    }

    fn usage(&self, tenant: &Tenant) -> Usage {
        let Some(index) = self.index.find_tenant(tenant) else { return Usage::default() };
        let (metrics, series) = index.usage();
        let numbers = self.numbers.read();
        let own: std::collections::BTreeSet<u32> = index.metric_numbers().into_iter().collect();
        let view = self.view.load();
        let (mut samples, mut bytes) = (0, 0);
        for layer in &view.layers {
            for (metric, totals) in &layer.record.metrics {
                if own.contains(metric) {
                    samples += totals.samples;
                    bytes += totals.bytes;
                }
            }
        }
        let frozen = view.frozen.iter().map(|frozen| &frozen.head);
        for head in frozen.chain([&view.active]) {
            let belongs = |id: &u32| numbers.metric_of(*id).is_some_and(|metric| own.contains(&metric));
            let held: u64 =
                head.series().iter().filter(|id| belongs(id)).map(|id| head.count(*id) as u64).sum();
            samples += held;
            bytes += held * head.bytes() / head.samples().max(1);
        }
        let today = crate::rocksdb::layer::day_of(self.options.clock.now());
        let accepted = self.accepted.lock().get(tenant).copied();
        let samples_today = accepted.filter(|(day, _)| *day == today).map_or(0, |(_, samples)| samples);
        Usage { metrics, series, samples, bytes, samples_today }
    }
}

#[async_trait]
impl MetricsStore for RocksDb {
    fn backend(&self) -> &'static str {
        "rocksdb"
    }

    fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup> {
        self.inner.index.tenant(tenant)
    }

    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        self.inner.check_working()?;
        self.inner.queue.admit()?;
        self.inner.check_head_room()?;
        let durable = self.inner.options.ack == Ack::Durable;
        let mut arrival = self.inner.arrival(tenant, batch);
        let batch = std::mem::replace(&mut arrival.batch, Batch::new(SeriesLimits::NONE));
        if batch.is_empty() {
            return Ok(WriteOutcome { refused: Vec::new(), durable });
        }
        if !batch.new_series.is_empty() {
            self.expire_if_due(tenant).await?;
        }
        let (answer, mut refused) = self.inner.enqueue(tenant, batch)?;
        for (row, _) in &mut refused {
            *row = arrival.place(*row);
        }
        if let Some(answer) = answer {
            answered(answer).await?;
        }
        Ok(WriteOutcome { refused, durable })
    }

    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>> {
        let own = query.clone();
        let body =
            move |catalog: &dyn Catalog,
                  reader: &Reader<'_>,
                  context: &QueryContext,
                  threads: Threads<'_>| { query::range(catalog, reader, &own, context, threads) };
        let answer = self.query(tenant, &query.selector, query.range, context, body);
        Ok(answer.await?.unwrap_or_else(nothing))
    }

    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>> {
        let own = query.clone();
        let body = move |catalog: &dyn Catalog,
                         reader: &Reader<'_>,
                         context: &QueryContext,
                         threads: Threads<'_>| {
            query::aggregate(catalog, reader, &own, context, threads)
        };
        let answer = self.query(tenant, &query.selector, query.range, context, body);
        Ok(answer.await?.unwrap_or_else(nothing))
    }

    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        let own = query.clone();
        let body =
            move |catalog: &dyn Catalog,
                  reader: &Reader<'_>,
                  context: &QueryContext,
                  threads: Threads<'_>| { query::rate(catalog, reader, &own, context, threads) };
        let answer = self.query(tenant, &query.selector, query.range, context, body);
        Ok(answer.await?.unwrap_or_else(nothing))
    }

    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Box<dyn Export>> {
        let Some(index) = self.inner.index.find_tenant(tenant) else {
            return Ok(Box::new(Copied::default()));
        };
        let (tenant, query, context) = (tenant.clone(), query.clone(), context.clone());
        let begun =
            self.blocking(move |inner| Exporting::begin(inner, index, tenant, query, context)).await?;
        Ok(match begun {
            Some(begun) => Box::new(begun),
            None => Box::new(Copied::default()),
        })
    }

    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan> {
        // Nothing is executed, so it takes no turn of those that are heavy.
        let plan = match self.inner.index.find_tenant(tenant) {
            Some(index) => {
                let floor = self.inner.visible_since(tenant, &query.selector().metric);
                let own = query.clone();
                let planned = self.blocking(move |inner| {
                    let reader = Reader::new(&inner.tables, inner.view.load_full(), floor);
                    query::explain(&*index, &reader, &own)
                });
                Some(planned.await?)
            }
            None => None,
        };
        let unknown = || Plan {
            steps: vec!["the metric is unknown: nothing to read".to_owned()],
            series: 0,
            samples: 0,
            bytes: 0,
        };
        Ok(plan.unwrap_or_else(unknown))
    }

    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage> {
        let list = list.clone();
        self.listing(tenant, move |index| index.list_metrics(&list)).await
    }

    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage> {
        let (metric, list) = (metric.clone(), list.clone());
        self.listing(tenant, move |index| index.list_keys(&metric, &list)).await
    }

    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage> {
        let (metric, key, list) = (metric.clone(), key.clone(), list.clone());
        self.listing(tenant, move |index| index.list_values(&metric, &key, &list)).await
    }

    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage> {
        let query = query.clone();
        self.listing(tenant, move |index| index.cardinality(&query)).await
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted> {
        let before = before.unwrap_or(i64::MAX);
        let (owner, name) = (tenant.clone(), metric.clone());
        let deleted = self.blocking(move |inner| inner.count_before(&owner, &name, before)).await?;
        let number = self.inner.index.metric(tenant, metric);
        if let (false, Some(metric)) = (dry_run, number) {
            let tenant = tenant.clone();
            self.commit(|done| Work::Delete { tenant, metric, before, done }).await?;
            self.inner.wake_merger();
        }
        Ok(deleted)
    }

    async fn retention(&self, tenant: &Tenant) -> Result<Retention> {
        Ok(self.inner.retention_of(tenant))
    }

    async fn set_retention(&self, tenant: &Tenant, retention: Retention) -> Result<()> {
        let tenant = tenant.clone();
        self.commit(|done| Work::Retention { tenant, retention, done }).await
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        self.expire_if_due(tenant).await?;
        let tenant = tenant.clone();
        self.blocking(move |inner| Ok(inner.usage(&tenant))).await
    }

    async fn running_queries(&self, _tenant: &Tenant) -> Result<Vec<RunningQuery>> {
        // Queries are registered by the `observed` wrapper, which sees them all.
        Ok(Vec::new())
    }

    async fn cancel_query(&self, _tenant: &Tenant, _id: &str) -> Result<bool> {
        Ok(false)
    }

    async fn backup(&self) -> Result<Backup> {
        self.blocking(|inner| backup::make(&inner)).await
    }

    async fn backups(&self) -> Result<Vec<Backup>> {
        self.blocking(|inner| backup::list(&inner)).await
    }

    async fn delete_backup(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.blocking(move |inner| backup::delete(&inner, &name)).await
    }

    async fn health(&self) -> Health {
        let inner = &self.inner;
        // Questions are answered on a disk that is full or can only be read.
        let log = inner.failure().map(|_| "the log has failed; writes are refused until a restart");
        let seal = inner.seal_failure.lock().as_ref().map(|_| "the last seal failed and is tried again; where the disk is well and it stays so, a restart helps");
        let degraded = [("log", log), ("seal", seal)].into_iter();
        let degraded = degraded.filter_map(|(name, why)| Some((name, why?.to_owned()))).collect();
        let open = match inner.is_stopping() {
            true => Err("the store is closing".to_owned()),
            false => Ok(()),
        };
        Health { checks: vec![("open", open)], degraded }
    }

    fn pressure(&self) -> f64 {
        let share = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
        let Inner { queue, options, .. } = &*self.inner;
        let heads = share(self.inner.heads_bytes(), 2 * options.head_bytes());
        share(queue.bytes(), options.queue_bytes()).max(heads)
    }

    fn weight(&self, tenant: &Tenant, query: &Query) -> Option<u64> {
        let index = self.inner.index.find_tenant(tenant);
        Some(index.map_or(0, |index| self.inner.rough(&index, query.selector(), query.range()).samples))
    }

    fn gauges(&self) -> Vec<Gauge> {
        let inner = &self.inner;
        let view = inner.view.load();
        let samples: u64 = view.layers.iter().map(|layer| layer.record.samples()).sum();
        let bytes: u64 = view.layers.iter().map(|layer| layer.record.bytes()).sum();
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        let gauge = |name, help, value: u64| Gauge { name, help, value: value as f64 };
        vec![
            gauge("series", "Series present on any day.", inner.index.series()),
            gauge("index_bytes", "Memory of the index of series.", inner.index.memory()),
            gauge("head_bytes", "Memory of samples not sealed yet.", inner.heads_bytes()),
            gauge("head_samples", "Samples in the active head.", view.active.samples()),
            gauge("log_bytes", "Log that a restart would replay.", inner.log_bytes()),
            gauge("queue_depth", "Batches that wait for the log.", inner.queue.depth() as u64),
            gauge("queue_bytes", "Bytes of batches that wait for the log.", inner.queue.bytes()),
            gauge("query_bytes", "Memory that queries hold.", inner.query_memory().held()),
            gauge("layers", "Layers of pages.", view.layers.len() as u64),
            gauge("page_samples", "Samples in pages, before duplicates are merged.", samples),
            gauge("page_bytes", "Bytes of pages and their summaries.", bytes),
        ]
    }

    async fn close(&self) -> Result<()> {
        let (threads, inner) = (self.end(), self.inner.clone());
        let joined = tokio::task::spawn_blocking(move || join(&inner, threads));
        joined.await.map_err(StoreError::internal)?;
        self.inner.check_working()
    }
}

/// The part of `samples` that `wanted` series of `all` have.
fn part(samples: u64, wanted: u64, all: u64) -> u64 {
    let part = u128::from(samples) * u128::from(wanted) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(samples)
}

/// The answer about a tenant without samples.
fn nothing<Row>() -> Answer<Row> {
    Answer { rows: Vec::new(), stats: crate::model::QueryStats::default() }
}
