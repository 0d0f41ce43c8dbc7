//! The whole router over a store in memory, and a store that fails as a test wants.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use luminate_crds::worker_config::WorkerConfig;
use luminate_storage::clock::ManualClock;
use luminate_storage::memory::MemoryStore;
use luminate_storage::model::{
    AggregateQuery, AggregateRow, Answer as Found, Batch, DimensionKey, ExportQuery, MetricName, Query,
    RangeQuery, RangeRow, RateQuery, RateRow, SpellingHasher, Tenant,
};
use luminate_storage::store::{
    CardinalityPage, CardinalityQuery, Deleted, ErrorKind, Export, Gauge, Health, ListPage, ListQuery,
    MetricsStore, NoSeries, Plan, QueryContext, Result, Retention, RunningQuery, SeriesLookup, StoreError,
    Usage, WriteOutcome,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::admission::Gate;
use crate::app::{self, AppState};
use crate::auth::Auth;

/// The time at which every test happens: 2026-01-01T00:00:00Z.
pub const NOW: i64 = 1_767_225_600_000;

/// A worker without a socket.
pub struct App {
    router: Router,
    /// Who is let in: a test may take places away.
    pub gate: Arc<Gate>,
}

impl App {
    /// With the default configuration.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a configuration that `change` makes of the default one.
    pub fn with(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        Self::build(Arc::new(MemoryStore::new(clock, 30 * 86_400_000)), change)
    }

    /// With this store.
    pub fn over(store: Arc<dyn MetricsStore>) -> Self {
        Self::build(store, |_| {})
    }

    fn build(store: Arc<dyn MetricsStore>, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let mut config = WorkerConfig::default();
        change(&mut config);
        let auth = Auth::disabled(Tenant::new("default").unwrap());
        let state = AppState::new(config, auth, Arc::new(ManualClock::new(NOW)));
        state.lifecycle.opened(store);
        let gate = Arc::clone(&state.gate);
        Self { router: app::router(state), gate }
    }

    /// Sends a request; a JSON content type is assumed where none is given.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "a");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, body) = self.raw(request.body(body.into()).unwrap()).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            json: serde_json::from_slice(&body).unwrap_or_default(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Sends a request as it is.
    pub async fn raw(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], body.to_string()).await
    }

    /// Every sample of a metric around the time of the tests.
    pub async fn samples(&self, metric: &str) -> Value {
        let range = json!({"start": NOW - 86_400_000, "end": NOW + 86_400_000});
        let body = json!({"queryType": "range", "metricName": metric, "timeRange": range});
        self.post("/api/v1/query", &body).await.json["results"].clone()
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// Status and body.
    pub fn text(&self) -> String {
        format!("{} {}", self.status, self.body)
    }

    /// Status, code and message of an error.
    pub fn error(&self) -> String {
        let error = &self.json["error"];
        let part = |name: &str| error[name].as_str().unwrap_or("none").to_owned();
        format!("{} {} {}", self.status, part("code"), part("message"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A store that fails as it is told, and otherwise takes everything and knows nothing.
pub struct Fails {
    hasher: SpellingHasher,
    writes: Mutex<Vec<Result<()>>>,
    queries: Option<ErrorKind>,
    described: Mutex<Vec<usize>>,
    asked: Mutex<Vec<QueryContext>>,
}

impl Fails {
    fn new(writes: Vec<Result<()>>, queries: Option<ErrorKind>) -> Self {
        Self {
            hasher: SpellingHasher::new([1; 192]),
            writes: Mutex::new(writes),
            queries,
            described: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// Forgets a series between lookup and write, once.
    pub fn stale_once() -> Self {
        Self::new(vec![Ok(()), Err(StoreError::new(ErrorKind::StaleSeries, "forgotten"))], None)
    }

    /// Takes no write now.
    pub fn overloaded() -> Self {
        let kind = ErrorKind::Overloaded { retry_after: Duration::from_secs(7) };
        Self::new(vec![Err(StoreError::new(kind, "full"))], None)
    }

    /// Fails at one write.
    pub fn at_writes(error: StoreError) -> Self {
        Self::new(vec![Err(error)], None)
    }

    /// Takes writes durably.
    pub fn at_nothing() -> Self {
        Self::new(Vec::new(), None)
    }

    /// Fails at every query.
    pub fn at_queries(kind: ErrorKind) -> Self {
        Self::new(Vec::new(), Some(kind))
    }

    /// Never answers a query.
    pub fn never_answering() -> Self {
        Self::new(Vec::new(), None)
    }

    /// How many series each write described.
    pub fn described(&self) -> Vec<usize> {
        self.described.lock().clone()
    }

    /// The context of the query that came last.
    pub fn last_query(&self) -> QueryContext {
        self.asked().pop().unwrap()
    }

    /// The contexts of all queries.
    pub fn asked(&self) -> Vec<QueryContext> {
        self.asked.lock().clone()
    }

    async fn answer<Row>(&self, context: &QueryContext) -> Result<Found<Row>> {
        self.asked.lock().push(context.clone());
        match &self.queries {
            Some(kind) => Err(StoreError::new(kind.clone(), "as told")),
            None => std::future::pending().await,
        }
    }
}

fn untold<T>() -> Result<T> {
    Err(StoreError::internal("not told how to fail here"))
}

#[async_trait]
impl MetricsStore for Fails {
    fn backend(&self) -> &'static str {
        "fails"
    }
    fn lookup(&self, _: &Tenant) -> Arc<dyn SeriesLookup> {
        Arc::new(NoSeries(self.hasher.clone()))
    }
    async fn write(&self, _: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        self.described.lock().push(batch.new_series.len());
        self.writes.lock().pop().unwrap_or(Ok(()))?;
        Ok(WriteOutcome { refused: Vec::new(), durable: true })
    }
    async fn query_range(
        &self,
        _: &Tenant,
        _: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Found<RangeRow>> {
        self.answer(context).await
    }
    async fn aggregate(
        &self,
        _: &Tenant,
        _: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Found<AggregateRow>> {
        self.answer(context).await
    }
    async fn rate(&self, _: &Tenant, _: &RateQuery, context: &QueryContext) -> Result<Found<RateRow>> {
        self.answer(context).await
    }
    async fn export(&self, _: &Tenant, _: &ExportQuery, context: &QueryContext) -> Result<Box<dyn Export>> {
        self.answer::<()>(context).await.and_then(|_| untold())
    }
    async fn explain(&self, _: &Tenant, _: &Query) -> Result<Plan> {
        untold()
    }
    async fn list_metrics(&self, _: &Tenant, _: &ListQuery) -> Result<ListPage> {
        untold()
    }
    async fn list_dimension_keys(&self, _: &Tenant, _: &MetricName, _: &ListQuery) -> Result<ListPage> {
        untold()
    }
    async fn list_dimension_values(
        &self,
        _: &Tenant,
        _: &MetricName,
        _: &DimensionKey,
        _: &ListQuery,
    ) -> Result<ListPage> {
        untold()
    }
    async fn cardinality(&self, _: &Tenant, _: &CardinalityQuery) -> Result<CardinalityPage> {
        untold()
    }
    async fn delete_before(&self, _: &Tenant, _: &MetricName, _: Option<i64>, _: bool) -> Result<Deleted> {
        untold()
    }
    async fn retention(&self, _: &Tenant) -> Result<Retention> {
        Ok(Retention { default: 30 * 86_400_000, metrics: std::collections::BTreeMap::new() })
    }
    async fn set_retention(&self, _: &Tenant, _: Retention) -> Result<()> {
        untold()
    }
    async fn usage(&self, _: &Tenant) -> Result<Usage> {
        untold()
    }
    async fn running_queries(&self, _: &Tenant) -> Result<Vec<RunningQuery>> {
        Ok(vec![RunningQuery { id: "default-1".into(), age: Duration::from_millis(1_500), scanned: 9 }])
    }
    async fn cancel_query(&self, _: &Tenant, id: &str) -> Result<bool> {
        Ok(id == "default-1")
    }
    async fn health(&self) -> Health {
        Health::of(Vec::new())
    }
    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
