//! The storage trait, spoken over HTTP.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use luminate_crds::worker_config::Span;
use luminate_storage::clock::{Clock, ManualClock};
use luminate_storage::model::{
    AggregateQuery, AggregateRow, Answer, Batch, DimensionKey, ExportQuery, MetricName, Query, RangeQuery,
    RangeRow, RateQuery, RateRow, RowSeries, SeriesLimits, SeriesSamples, SpellingHasher, Tenant,
};
use luminate_storage::store::{
    CardinalityCursor, CardinalityPage, CardinalityQuery, CardinalityRow, Deleted, ErrorKind, Export, Gauge,
    Health, ListPage, ListQuery, MetricsStore, NoSeries, Plan, QueryContext, Result, Retention, RunningQuery,
    SeriesLookup, StoreError, Usage, WriteOutcome,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{self, Fields, NDJSON};
use super::spelling::{self, RemoteWrite, Row, Speller};
use super::{Serving, Tamper};
use crate::http::{Connection, Response, percent};
use crate::{http, token};

/// How many samples of a remote write were written.
const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";
/// So many refused samples are listed in an answer.
const LISTED: usize = 100;
/// Most names of a page.
const PAGE: usize = 1_000;
/// When tokens expire: in the year 2100.
const EXPIRY: i64 = 4_102_444_800;
/// When a worker that is away is worth another try.
const SOON: Duration = Duration::from_secs(1);

/// A worker's API as a store.
#[derive(Debug)]
pub struct HttpStore {
    backend: &'static str,
    worker: Serving,
    clock: Arc<ManualClock>,
    line: Mutex<Line>,
    tamper: Option<Tamper>,
}

/// The one connection to the worker, and what is drawn for what is said on it.
#[derive(Debug)]
struct Line {
    random: Rng,
    connection: Option<Connection>,
}

/// What is asked of the worker.
#[derive(Debug, Default)]
struct Ask<'a> {
    method: &'static str,
    /// With its parameters.
    path: String,
    tier: Option<String>,
    headers: Vec<(&'a str, &'a str)>,
    body: Vec<u8>,
}

impl<'a> Ask<'a> {
    fn get(path: String) -> Self {
        Self { method: "GET", path, ..Self::default() }
    }

    fn json(method: &'static str, path: &str, body: String) -> Self {
        let headers = vec![("content-type", "application/json")];
        Self { method, path: path.to_owned(), headers, body: body.into_bytes(), tier: None }
    }
}

impl HttpStore {
    /// A client of `worker`.
    #[must_use]
    pub fn new(
        backend: &'static str,
        worker: Serving,
        clock: Arc<ManualClock>,
        random: Rng,
        tamper: Option<Tamper>,
    ) -> Self {
        let line = Mutex::new(Line { random, connection: None });
        Self { backend, worker, clock, line, tamper }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws something for a request.
    fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.line().random)
    }

    /// Spells a body of JSON.
    fn spell(&self, spell: impl FnOnce(&mut Speller<'_>) -> String) -> String {
        let now = self.clock.now();
        self.draw(|random| spell(&mut Speller::new(random, now)))
    }

    /// Sends a request of `tenant` and reads its answer.
    fn send(&self, tenant: &Tenant, mut ask: Ask<'_>) -> Result<Response> {
        let path = ask.path.split('?').next().unwrap_or_default().to_owned();
        if let Some(Tamper::Request(change)) = self.tamper {
            change(&path, &mut ask.body);
        }
        if ask.headers.contains(&("content-type", "application/json")) {
            let (encoding, body) =
                self.draw(|random| spelling::encoded(random, std::mem::take(&mut ask.body)));
            ask.body = body;
            ask.headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
        }
        let bearer = format!("Bearer {}", self.token(tenant, ask.tier.as_deref()));
        let headers = [ask.headers.as_slice(), &[("authorization", &bearer)]].concat();
        let request = http::request(ask.method, &ask.path, &headers, &ask.body);
        let mut response = self.exchange(&request).map_err(|error| {
            let kind = ErrorKind::Unavailable { retry_after: SOON };
            StoreError::new(kind, format!("{} {}: {error}", ask.method, ask.path))
        })?;
        if let Some(Tamper::Answer(change)) = self.tamper {
            change(&path, &mut response.body);
        }
        Ok(response)
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Response> {
        let mut line = self.line();
        let mut connection = match line.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => Connection::open(self.worker.address())?,
        };
        let response = connection.exchange(request)?;
        line.connection = Some(connection);
        Ok(response)
    }

    fn token(&self, tenant: &Tenant, tier: Option<&str>) -> String {
        let scopes = ["read", "write", "admin"];
        let mut claims = json!({"tenant_id": tenant.as_str(), "scopes": scopes, "exp": EXPIRY});
        if let Some(tier) = tier {
            claims["tier"] = json!(tier);
        }
        token::signed(&claims)
    }

    /// Writes rows in one request, in one of the three formats; those that were refused.
    fn write_part(&self, tenant: &Tenant, limits: SeriesLimits, rows: &[Row<'_>]) -> Result<WriteOutcome> {
        let tier = super::tier(limits);
        // An empty remote write is no message.
        let (ask, places) = if !rows.is_empty() && self.draw(|random| random.u8(..4)) == 0 {
            let RemoteWrite { headers, body, places } =
                self.draw(|random| spelling::remote_write(random, rows));
            let (path, headers) = ("/api/v1/prom/write".to_owned(), headers.to_vec());
            (Ask { method: "POST", path, tier, headers, body }, places)
        } else {
            let body = self.spell(|speller| speller.samples(rows));
            let ask = Ask { tier, ..Ask::json("POST", "/api/v1/write", body) };
            (ask, (0..rows.len()).map(Some).collect())
        };
        let counted = ask.path.ends_with("/prom/write");
        let response = self.send(tenant, ask)?;
        let written = answers::written(&response)?;
        let wrong = |what: &str| StoreError::internal(format!("{what}: {}", response.text()));
        let count = response.header(SAMPLES_WRITTEN).and_then(|count| count.parse().ok());
        if counted && count != places.len().checked_sub(written.refused.len()) {
            return Err(wrong("another count of written samples than sent and not refused"));
        }
        if response.status != 204 && written.accepted as usize + written.refused.len() != rows.len() {
            return Err(wrong("samples are missing"));
        }
        let expected = match (written.refused.len(), written.accepted) {
            _ if response.status == 204 => 204,
            (0, _) => 200,
            // Remote write knows no other refusal.
            (_, 0) => 400,
            _ if places.len() != rows.len() || response.status == 400 => 400,
            _ => 207,
        };
        if response.status != expected {
            return Err(wrong("a status that doesn't fit"));
        }
        let row = |place: usize| places.get(place).copied().flatten().and_then(|row| u32::try_from(row).ok());
        let refused = written.refused.into_iter().map(|(place, refusal)| Some((row(place)?, refusal)));
        let refused: Option<Vec<_>> = refused.collect();
        let refused = refused.ok_or_else(|| wrong("a refused sample that wasn't sent"))?;
        Ok(WriteOutcome { refused, durable: written.durable })
    }

    /// Asks a question; its rows, or series of them, as lines or in one object. `row` and `series` read one;
    /// the answer is whether they came as series.
    fn ask<Row>(
        &self,
        tenant: &Tenant,
        query: &Query,
        context: &QueryContext,
        row: impl Fn(&str) -> serde_json::Result<Row>,
        series: impl Fn(&str) -> serde_json::Result<Vec<Row>>,
    ) -> Result<(Answer<Row>, bool)> {
        let in_series = self.draw(Rng::bool);
        let left = context.deadline.saturating_duration_since(tokio::time::Instant::now()).as_millis();
        let timeout = u64::try_from(left).unwrap_or(u64::MAX).max(1);
        let response = match self.draw(|random| random.usize(..8)) {
            0 => self.asked_in_a_batch(tenant, query, timeout, in_series)?,
            way => {
                let body = self.spell(|speller| speller.query(query, timeout, in_series));
                let mut ask = Ask::json("POST", "/api/v1/query", body);
                if way % 2 == 0 {
                    ask.headers.push(("accept", NDJSON));
                }
                self.send(tenant, ask)?
            }
        };
        let kind = match query {
            Query::Range(_) => "range",
            Query::Aggregate(_) => "aggregate",
            Query::Rate(_) => "rate",
        };
        let answer = match in_series {
            true => answers::answer(&response, kind, series)?,
            false => answers::answer(&response, kind, |text| Ok(vec![row(text)?]))?,
        };
        context.scanned.fetch_add(answer.stats.points_scanned, Ordering::Relaxed);
        Ok((answer, in_series))
    }

    /// The same question a few times in one batch, and one of the answers.
    fn asked_in_a_batch(
        &self,
        tenant: &Tenant,
        query: &Query,
        timeout: u64,
        in_series: bool,
    ) -> Result<Response> {
        let times = self.draw(|random| random.usize(1..=3));
        let queries: Vec<String> =
            (0..times).map(|_| self.spell(|speller| speller.query(query, timeout, in_series))).collect();
        let body = format!("{{\"queries\":[{}]}}", queries.join(","));
        let mut parts = answers::parts(&self.send(tenant, Ask::json("POST", "/api/v1/query/batch", body))?)?;
        if parts.len() != times {
            return Err(StoreError::internal(format!("{} answers to {times} questions", parts.len())));
        }
        Ok(parts.swap_remove(self.draw(|random| random.usize(..times))))
    }

    fn get(&self, tenant: &Tenant, path: String) -> Result<Response> {
        self.send(tenant, Ask::get(path))
    }

    /// A page of a listing that names its rows `field`, and how many names there are if it says so.
    fn page(&self, tenant: &Tenant, path: &str, field: &str, list: &ListQuery) -> Result<ListPage> {
        let mut path = format!("{path}?limit={}", list.limit);
        if !list.prefix.is_empty() {
            path.push_str(&format!("&prefix={}", percent(&list.prefix)));
        }
        // Every name comes after the empty one, which no page ends with.
        if let Some(after) = list.after.as_ref().filter(|after| !after.is_empty()) {
            path.push_str(&format!("&cursor={}", cursor(after)));
        }
        let response = self.get(tenant, path)?;
        let mut fields = Fields::of(&response)?;
        let names: Vec<Arc<str>> = fields.take(field)?;
        let total = if field == "values" { fields.take("total")? } else { 0 };
        let next: Option<String> = fields.optional("nextCursor")?;
        fields.end()?;
        let more = next.is_some();
        if more && next != names.last().map(|name| cursor(name)) {
            return Err(StoreError::internal(format!("the next page doesn't follow: {}", response.text())));
        }
        Ok(ListPage { names, more, total })
    }

    /// A page of a listing that doesn't say how many names there are: they are counted page by page.
    fn counted_page(&self, tenant: &Tenant, path: &str, field: &str, list: &ListQuery) -> Result<ListPage> {
        let mut page = self.page(tenant, path, field, list)?;
        let limit = self.draw(|random| *random.choice(&[2, 7, PAGE]).expect("three"));
        let mut walk = ListQuery { prefix: list.prefix.clone(), after: None, limit };
        loop {
            let next = self.page(tenant, path, field, &walk)?;
            page.total += next.names.len() as u64;
            if !next.more {
                return Ok(page);
            }
            walk.after = next.names.last().map(ToString::to_string);
        }
    }

    fn usage_of(&self, tenant: &Tenant) -> Result<Usage> {
        let response = self.get(tenant, "/api/v1/admin/usage".to_owned())?;
        let mut fields = Fields::of(&response)?;
        let usage = Usage {
            metrics: fields.take("metrics")?,
            series: fields.take("series")?,
            samples: fields.take("samples")?,
            bytes: fields.take("bytes")?,
            samples_today: fields.take("samplesToday")?,
        };
        fields.take::<Value>("limits")?;
        fields.end()?;
        Ok(usage)
    }
}

/// The cursor after a name: opaque to others, but here a page must begin after names that no page ended with.
fn cursor(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn cardinality_cursor(after: &CardinalityCursor) -> String {
    let CardinalityCursor { series, name, value } = after;
    cursor(&match value {
        Some(value) => format!("{series}\n{name}\n{value}"),
        None => format!("{series}\n{name}"),
    })
}

/// A row of the cardinality table, as the API writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    metric: Option<Arc<str>>,
    key: Option<Arc<str>>,
    value: Option<Arc<str>>,
    series: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Running {
    id: String,
    age_ms: u64,
    samples_scanned: u64,
}

fn span(text: &str) -> Result<i64> {
    text.parse().map(Span::millis).map_err(StoreError::internal)
}

fn duration(millis: i64) -> String {
    Span::from_millis(millis.unsigned_abs()).to_string()
}

fn retention(response: &Response) -> Result<Retention> {
    let mut fields = Fields::of(response)?;
    let (default, metrics): (String, std::collections::BTreeMap<String, String>) =
        (fields.take("default")?, fields.take("metrics")?);
    fields.end()?;
    let metrics = metrics
        .iter()
        .map(|(name, text)| Ok((MetricName::new(name).map_err(StoreError::internal)?, span(text)?)));
    Ok(Retention { default: span(&default)?, metrics: metrics.collect::<Result<_>>()? })
}

/// An export that came whole.
struct Exported(std::vec::IntoIter<SeriesSamples>);

#[async_trait]
impl Export for Exported {
    async fn next(&mut self) -> Result<Vec<SeriesSamples>> {
        Ok(self.0.next().into_iter().collect())
    }
}

#[async_trait]
impl MetricsStore for HttpStore {
    fn backend(&self) -> &'static str {
        self.backend
    }

    fn lookup(&self, _: &Tenant) -> Arc<dyn SeriesLookup> {
        // Nobody outside of the worker knows series by their numbers.
        Arc::new(NoSeries(SpellingHasher::new([0; 192])))
    }

    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        let rows = batch.series.iter().zip(&batch.timestamps).zip(&batch.values);
        let rows = rows.map(|((series, time), value)| match series {
            RowSeries::New(at) => {
                Ok(Row { series: &batch.new_series[*at as usize], time: *time, value: *value })
            }
            RowSeries::Known(_) => Err(StoreError::new(ErrorKind::StaleSeries, "no handle is known here")),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let most = if batch.limits == SeriesLimits::NONE { usize::MAX } else { LISTED };
        let mut whole = WriteOutcome { refused: Vec::new(), durable: true };
        let mut from = 0_usize;
        loop {
            let part = &rows[from..rows.len().min(from.saturating_add(most))];
            let written = self.write_part(tenant, batch.limits, part)?;
            whole.refused.extend(written.refused.iter().map(|(row, why)| (row + from as u32, *why)));
            whole.durable &= written.durable;
            from += part.len();
            if from == rows.len() {
                return Ok(whole);
            }
        }
    }

    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>> {
        let query = Query::Range(query.clone());
        let (mut answer, in_series) =
            self.ask(tenant, &query, context, answers::range_row, answers::range_series)?;
        if in_series {
            answers::by_time(&mut answer.rows)?;
        }
        Ok(answer)
    }

    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>> {
        let row = |text: &str| answers::aggregate_row(text, &query.group_by);
        let series = |text: &str| answers::aggregate_series(text, &query.group_by);
        Ok(self.ask(tenant, &Query::Aggregate(query.clone()), context, row, series)?.0)
    }

    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>> {
        let row = |text: &str| answers::rate_row(text, &query.group_by);
        let series = |text: &str| answers::rate_series(text, &query.group_by);
        Ok(self.ask(tenant, &Query::Rate(query.clone()), context, row, series)?.0)
    }

    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        _: &QueryContext,
    ) -> Result<Box<dyn Export>> {
        let filters: serde_json::Map<String, Value> =
            query.selector.filters.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        let path = format!(
            "/api/v1/admin/export?metric={}&start={}&end={}&filters={}",
            query.selector.metric,
            query.range.start(),
            query.range.end(),
            percent(&Value::Object(filters).to_string())
        );
        let response = self.send(tenant, Ask::get(path))?;
        if response.status != 200 {
            return Err(answers::failure(&response));
        }
        let stretches = answers::exported(&response, query.piece)?;
        Ok(Box::new(Exported(stretches.into_iter())))
    }

    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan> {
        let body = self.spell(|speller| speller.query(query, 10_000, false));
        let response = self.send(tenant, Ask::json("POST", "/api/v1/query/explain", body))?;
        let mut fields = Fields::of(&response)?;
        fields.take::<String>("queryType")?;
        let plan = Plan {
            steps: fields.take("steps")?,
            series: fields.take("series")?,
            samples: fields.take("samples")?,
            bytes: fields.take("bytes")?,
        };
        fields.end()?;
        Ok(plan)
    }

    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage> {
        self.counted_page(tenant, "/api/v1/metrics", "metrics", list)
    }

    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage> {
        self.counted_page(tenant, &format!("/api/v1/metrics/{metric}/dimensions"), "dimensions", list)
    }

    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage> {
        self.page(tenant, &format!("/api/v1/metrics/{metric}/dimensions/{key}/values"), "values", list)
    }

    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage> {
        let mut path = format!("/api/v1/cardinality?limit={}&prefix={}", query.limit, percent(&query.prefix));
        if let Some(metric) = &query.metric {
            path.push_str(&format!("&metric={metric}"));
        }
        if let Some(after) = &query.after {
            path.push_str(&format!("&cursor={}", cardinality_cursor(after)));
        }
        let response = self.get(tenant, path)?;
        let mut fields = Fields::of(&response)?;
        let counts: Vec<Count> = fields.take("cardinality")?;
        let more = fields.optional::<String>("nextCursor")?;
        fields.take::<Value>("limits")?;
        fields.end()?;
        let mut rows = Vec::new();
        for Count { metric, key, value, series } in counts {
            let name = if query.metric.is_some() { key.xor(metric) } else { metric.xor(key) };
            let name = name.ok_or_else(|| StoreError::internal(response.text()))?;
            rows.push(CardinalityRow { series, name, value });
        }
        Ok(CardinalityPage { rows, more: more.is_some() })
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted> {
        let mut path = format!("/api/v1/admin/metrics/{metric}?dryRun={dry_run}");
        if let Some(before) = before {
            let before = self.draw(|random| spelling::parameter_time(random, before));
            path.push_str(&format!("&before={}", percent(&before)));
        }
        let response = self.send(tenant, Ask { method: "DELETE", path, ..Ask::default() })?;
        let mut fields = Fields::of(&response)?;
        let deleted = Deleted { series: fields.take("series")?, samples: fields.take("samples")? };
        let named = (fields.take::<String>("metric")?, fields.take::<bool>("dryRun")?);
        fields.end()?;
        if named == (metric.to_string(), dry_run) {
            Ok(deleted)
        } else {
            Err(StoreError::internal(response.text()))
        }
    }

    async fn retention(&self, tenant: &Tenant) -> Result<Retention> {
        retention(&self.get(tenant, "/api/v1/admin/retention".to_owned())?)
    }

    async fn set_retention(&self, tenant: &Tenant, new: Retention) -> Result<()> {
        let metrics = new.metrics.iter().map(|(name, millis)| (name.to_string(), json!(duration(*millis))));
        let metrics: serde_json::Map<_, _> = metrics.collect();
        let body = json!({"default": duration(new.default), "metrics": metrics});
        let ask = Ask::json("PUT", "/api/v1/admin/retention", body.to_string());
        let response = self.send(tenant, ask)?;
        if retention(&response)? == new { Ok(()) } else { Err(StoreError::internal(response.text())) }
    }

    async fn usage(&self, tenant: &Tenant) -> Result<Usage> {
        self.usage_of(tenant)
    }

    async fn running_queries(&self, tenant: &Tenant) -> Result<Vec<RunningQuery>> {
        let response = self.get(tenant, "/api/v1/queries".to_owned())?;
        let mut fields = Fields::of(&response)?;
        let running: Vec<Running> = fields.take("queries")?;
        fields.end()?;
        let query = |Running { id, age_ms, samples_scanned }| RunningQuery {
            id,
            age: Duration::from_millis(age_ms),
            scanned: samples_scanned,
        };
        Ok(running.into_iter().map(query).collect())
    }

    async fn cancel_query(&self, tenant: &Tenant, id: &str) -> Result<bool> {
        let path = format!("/api/v1/queries/{}", percent(id));
        let response = self.send(tenant, Ask { method: "DELETE", path, ..Ask::default() })?;
        match response.status {
            204 => Ok(true),
            404 => Ok(false),
            _ => Err(answers::failure(&response)),
        }
    }

    async fn health(&self) -> Health {
        let health = http::request("GET", "/api/v1/health", &[], &[]);
        let check = match self.exchange(&health) {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error.to_string()),
        };
        Health::of(vec![("worker", check)])
    }

    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }

    /// Stops the worker.
    async fn close(&self) -> Result<()> {
        self.line().connection = None;
        self.worker.stop()
    }
}
