//! The steps of a run.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::clock::{Clock, ManualClock};
use crate::contract::trial::{DAY, HOUR, SECOND, T0};
use crate::contract::{Backend, Subject};
use crate::memory::MemoryStore;
use crate::model::{
    AggregateQuery, AggregateRow, Answer, Batch, MetricName, NewSeries, Query, RowSeries, SeriesLimits,
    Tenant, TimeRange,
};
use crate::store::{
    CardinalityCursor, ErrorKind, ListPage, MetricsStore, QueryContext, Result as Stored, Retention,
    StoreError, WriteOutcome,
};

use super::compare::{self, Mismatch};
use super::questions::{self, Listing};
use super::world::{Row, World, limits};
use super::{Difference, Report};

/// The retention of tenants who set none.
const RETENTION: i64 = 30 * DAY;
/// With so many writes a run begins.
const FIRST_WRITES: u64 = 60;
/// A time to answer in that no question needs.
const LONG: Duration = Duration::from_secs(120);
/// How often an overloaded store is given time to catch up.
const PATIENCE: usize = 20;

/// What a step found wrong: what was done, and the two answers.
type Wrong = (String, Mismatch);

/// A run under way.
pub struct Run {
    seed: u64,
    random: Rng,
    clock: Arc<ManualClock>,
    subject: Box<dyn Subject>,
    model: MemoryStore,
    world: World,
    report: Report,
    /// Values that listings had, for cursors.
    names: Vec<String>,
    cursor: Option<CardinalityCursor>,
}

/// The answer, or what the store said instead of one.
fn answered<T>(what: &str, answer: Stored<T>) -> Result<T, Wrong> {
    answer.map_err(|error| (what.to_owned(), (format!("{error:?}"), "an answer".to_owned())))
}

fn context() -> QueryContext {
    QueryContext::with_timeout(LONG)
}

impl Run {
    /// A fresh store and a fresh model, whose clock stands shortly before a midnight.
    pub async fn open(seed: u64, backend: &dyn Backend) -> Result<Self, Difference> {
        let mut random = Rng::with_seed(seed);
        let clock = Arc::new(ManualClock::new(T0 - random.i64(0..3 * HOUR)));
        let world = World::new(&mut random);
        let model = MemoryStore::new(clock.clone(), RETENTION);
        let subject = backend.open(clock.clone(), RETENTION).await.map_err(|error| Difference {
            seed,
            step: 0,
            question: "open".to_owned(),
            subject: format!("{error:?}"),
            model: "an open store".to_owned(),
        })?;
        let (report, names) = (Report::default(), vec!["h2".to_owned()]);
        Ok(Self { seed, random, clock, subject, model, world, report, names, cursor: None })
    }

    /// Takes `steps` steps.
    pub async fn go(mut self, steps: u64) -> Result<Report, Difference> {
        for step in 0..steps {
            let (kind, result) = self.step(step).await;
            *self.report.steps.entry(kind).or_default() += 1;
            result.map_err(|(question, (subject, model))| Difference {
                seed: self.seed,
                step,
                question: format!("at {}: {question}", self.clock.now()),
                subject,
                model,
            })?;
        }
        Ok(self.report)
    }

    async fn step(&mut self, step: u64) -> (&'static str, Result<(), Wrong>) {
        // There is little to ask about an empty store.
        let most = if step < FIRST_WRITES { 33 } else { 100 };
        match self.random.u8(..most) {
            0..30 => ("write", self.write().await),
            30..33 => ("twins", self.write_to_twins().await),
            33..75 => self.ask().await,
            75..78 => ("split", self.split().await),
            78..83 => ("listing", self.list().await),
            83..86 => ("cardinality", self.cardinality().await),
            86..88 => ("delete", self.delete().await),
            88..89 => ("retention", self.retention().await),
            89..90 => ("usage", self.usage().await),
            90..96 => ("wait", self.wait()),
            96..99 => ("settle", answered("settle", self.subject.settle().await)),
            _ => ("restart", answered("restart", self.subject.restart().await)),
        }
    }

    /// Time passes: mostly minutes, seldom hours.
    fn wait(&mut self) -> Result<(), Wrong> {
        let longest = if self.random.u8(..12) == 0 { 20 * HOUR } else { 20 * 60 * SECOND };
        self.clock.set(self.clock.now() + self.random.i64(1..longest));
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.somebody(&mut self.random);
        let rows = self.world.rows(&mut self.random, &tenant, self.clock.now());
        let limits = limits(&mut self.random);
        self.store(&tenant, &rows, limits).await
    }

    /// Writes rows to both stores.
    async fn store(&mut self, tenant: &Tenant, rows: &[Row], limits: SeriesLimits) -> Result<(), Wrong> {
        let what =
            format!("write {} rows of {tenant:?} under {limits:?}, the first {:?}", rows.len(), rows.first());
        let by_handle = self.random.u8(..3) > 0;
        let subject = answered(&what, self.write_subject(tenant, rows, limits, by_handle).await)?;
        let described = batch(&self.model, tenant, rows, limits, false);
        let model = answered(&what, self.model.write(tenant, described).await)?;
        self.report.samples += rows.len() as u64;
        self.report.refused += model.refused.len() as u64;
        compare::equal(&subject.refused, &model.refused).map_err(|mismatch| (what, mismatch))
    }

    /// Writes as a client's request would: stale handles are described, an overloaded store is waited for.
    async fn write_subject(
        &mut self,
        tenant: &Tenant,
        rows: &[Row],
        limits: SeriesLimits,
        mut by_handle: bool,
    ) -> Stored<WriteOutcome> {
        let mut last = StoreError::internal("never tried");
        for _ in 0..PATIENCE {
            let store = self.subject.store();
            match store.write(tenant, batch(store, tenant, rows, limits, by_handle)).await {
                Err(error) if error.kind == ErrorKind::StaleSeries => (by_handle, last) = (false, error),
                Err(error) if matches!(error.kind, ErrorKind::Overloaded { .. }) => {
                    self.subject.settle().await?;
                    last = error;
                }
                answer => return answer,
            }
        }
        Err(last)
    }

    /// Gives the same rows to two tenants, to the second in another order and other batches; their
    /// (series, time) are distinct, so that neither matters.
    async fn write_to_twins(&mut self) -> Result<(), Wrong> {
        let [first, second] = self.world.twins.clone();
        let mut rows = self.world.rows(&mut self.random, &first, self.clock.now());
        let mut seen = std::collections::HashSet::new();
        rows.retain(|row| seen.insert((row.metric.clone(), row.dimensions.clone(), row.time)));
        self.store(&first, &rows, SeriesLimits::NONE).await?;
        self.random.shuffle(&mut rows);
        let size = self.random.usize(1 + rows.len() / 5..=1 + rows.len());
        for part in rows.chunks(size) {
            self.store(&second, part, SeriesLimits::NONE).await?;
        }
        let query = questions::additive(&mut self.random, &self.world, &first, self.clock.now());
        let what = format!("twins: {query:?}");
        let mut totals = Vec::new();
        for twin in [&first, &second] {
            let answer = answered(&what, self.subject.store().aggregate(twin, &query, &context()).await)?;
            totals.push(total(&answer, |row| row.value));
            totals.push(total(&answer, |row| real(row.count)));
        }
        let scale = self.scale(&first, &query).map_err(|error| (what.clone(), error))?;
        let agree = compare::close(totals[0], totals[2], scale) && totals[1] == totals[3];
        relation(agree, what, &totals[..2], &totals[2..])
    }

    async fn ask(&mut self) -> (&'static str, Result<(), Wrong>) {
        let tenant = self.world.anybody(&mut self.random);
        let query = questions::query(&mut self.random, &self.world, &tenant, self.clock.now());
        let what = format!("{tenant:?} asks {query:?}");
        let (kind, rows) = match &query {
            Query::Range(query) => ("range", self.range(&tenant, query).await),
            Query::Aggregate(query) => ("aggregate", self.aggregate(&tenant, query).await),
            Query::Rate(query) => ("rate", self.rate(&tenant, query).await),
        };
        let rows = rows.map_err(|mismatch| (what, mismatch));
        (kind, rows.map(|rows| self.count_rows(rows)))
    }

    fn count_rows(&mut self, rows: usize) {
        self.report.rows += rows as u64;
        self.report.empty += u64::from(rows == 0);
    }

    async fn range(&self, tenant: &Tenant, query: &crate::model::RangeQuery) -> Result<usize, Mismatch> {
        let subject = given(self.subject.store().query_range(tenant, query, &context()).await)?;
        let model = given(self.model.query_range(tenant, query, &context()).await)?;
        compare::range(&subject, &model).map(|()| model.rows.len())
    }

    async fn aggregate(&self, tenant: &Tenant, query: &AggregateQuery) -> Result<usize, Mismatch> {
        let subject = given(self.subject.store().aggregate(tenant, query, &context()).await)?;
        let model = given(self.model.weigh_aggregate(tenant, query, &context()))?;
        compare::aggregate(&subject, &model, query.aggregation).map(|()| model.rows.len())
    }

    async fn rate(&self, tenant: &Tenant, query: &crate::model::RateQuery) -> Result<usize, Mismatch> {
        let subject = given(self.subject.store().rate(tenant, query, &context()).await)?;
        let model = given(self.model.weigh_rate(tenant, query, &context()))?;
        compare::rate(&subject, &model).map(|()| model.rows.len())
    }

    /// The sums of a range's two parts are the sum of the whole.
    async fn split(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.anybody(&mut self.random);
        let whole = questions::additive(&mut self.random, &self.world, &tenant, self.clock.now());
        let (start, end) = (whole.range.start(), whole.range.end());
        let middle = self.random.i64(start..end);
        let what = format!("split at {middle}: {tenant:?} asks {whole:?}");
        let mut sums = Vec::new();
        for (from, to) in [(start, end), (start, middle), (middle, end)] {
            let Some(range) = TimeRange::new(from, to) else {
                sums.push(0.0);
                continue;
            };
            let part = AggregateQuery { range, ..whole.clone() };
            let answer = answered(&what, self.subject.store().aggregate(&tenant, &part, &context()).await)?;
            sums.push(total(&answer, |row| row.value));
        }
        let scale = self.scale(&tenant, &whole).map_err(|error| (what.clone(), error))?;
        relation(compare::close(sums[0], sums[1] + sums[2], scale), what, &sums[..1], &sums[1..])
    }

    /// What the tolerance of the sum of all rows is relative to.
    fn scale(&self, tenant: &Tenant, query: &AggregateQuery) -> Result<f64, Mismatch> {
        let answer = given(self.model.weigh_aggregate(tenant, query, &context()))?;
        Ok(answer.rows.iter().map(|row| row.scale).sum())
    }

    async fn list(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.anybody(&mut self.random);
        let listing = questions::listing(&mut self.random, &self.world, &self.names);
        let what = format!("{tenant:?} lists {listing:?}");
        let subject = answered(&what, page(self.subject.store(), &tenant, &listing).await)?;
        let model = answered(&what, page(&self.model, &tenant, &listing).await)?;
        self.count_rows(model.names.len());
        if matches!(listing, Listing::Values(..)) {
            self.names.extend(model.names.last().map(ToString::to_string));
        }
        let excess = self.names.len().saturating_sub(50);
        self.names.drain(..excess);
        compare::equal(&subject, &model).map_err(|mismatch| (what, mismatch))
    }

    async fn cardinality(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.anybody(&mut self.random);
        let query = questions::cardinality(&mut self.random, &self.world, self.cursor.as_ref());
        let what = format!("{tenant:?} asks {query:?}");
        let subject = answered(&what, self.subject.store().cardinality(&tenant, &query).await)?;
        let model = answered(&what, self.model.cardinality(&tenant, &query).await)?;
        self.count_rows(model.rows.len());
        if let Some(row) = model.rows.last() {
            let value = row.value.as_ref().map(ToString::to_string);
            self.cursor = Some(CardinalityCursor { series: row.series, name: row.name.to_string(), value });
        }
        compare::equal(&subject, &model).map_err(|mismatch| (what, mismatch))
    }

    async fn delete(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.somebody(&mut self.random);
        let metric = self.world.metric(&mut self.random).name.clone();
        let time = self.clock.now() - self.random.i64(0..6 * DAY);
        let before = match self.random.u8(..12) {
            0 => None,
            1..3 => Some(time.div_euclid(DAY) * DAY),
            3..5 => Some(time.div_euclid(HOUR) * HOUR),
            _ => Some(time),
        };
        self.delete_before(&tenant, &metric, before, true).await?;
        self.delete_before(&tenant, &metric, before, false).await
    }

    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<(), Wrong> {
        let what = format!("{tenant:?} deletes {metric:?} before {before:?}, dry run {dry_run}");
        let subject = self.subject.store().delete_before(tenant, metric, before, dry_run).await;
        let model = self.model.delete_before(tenant, metric, before, dry_run).await;
        let (subject, model) = (answered(&what, subject)?, answered(&what, model)?);
        compare::equal(&subject, &model).map_err(|mismatch| (what, mismatch))
    }

    /// Another retention; what has expired under the old one is deleted where the new one is longer.
    async fn retention(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.somebody(&mut self.random);
        let old = answered("retention", self.subject.store().retention(&tenant).await)?;
        let mut new = Retention { default: self.random.i64(2 * DAY..40 * DAY), metrics: Default::default() };
        for _ in 0..self.random.usize(..3) {
            let metric = self.world.metric(&mut self.random).name.clone();
            new.metrics.insert(metric, self.random.i64(6 * HOUR..5 * DAY));
        }
        let names: Vec<_> = self.world.metrics.iter().map(|metric| metric.name.clone()).collect();
        for metric in names.iter().filter(|metric| new.of(metric) > old.of(metric)) {
            let expired = self.clock.now() - old.of(metric);
            self.delete_before(&tenant, metric, Some(expired), false).await?;
        }
        let what = format!("{tenant:?} sets {new:?}");
        answered(&what, self.subject.store().set_retention(&tenant, new.clone()).await)?;
        answered(&what, self.model.set_retention(&tenant, new.clone()).await)?;
        let subject = answered(&what, self.subject.store().retention(&tenant).await)?;
        compare::equal(&subject, &new).map_err(|mismatch| (what, mismatch))
    }

    async fn usage(&mut self) -> Result<(), Wrong> {
        let tenant = self.world.anybody(&mut self.random);
        let what = format!("{tenant:?} asks for its usage");
        let subject = answered(&what, self.subject.store().usage(&tenant).await)?;
        let model = answered(&what, self.model.usage(&tenant).await)?;
        // A store may hold more than can be seen, and a restart may forget who wrote what today.
        let enough = subject.samples >= model.samples;
        compare::equal(&(subject.metrics, subject.series, enough), &(model.metrics, model.series, true))
            .map_err(|mismatch| (what, mismatch))
    }
}

/// An answer, or a mismatch that shows the error.
fn given<T>(answer: Stored<T>) -> Result<T, Mismatch> {
    answer.map_err(|error| (format!("{error:?}"), "an answer".to_owned()))
}

fn relation(holds: bool, what: String, left: &[f64], right: &[f64]) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err((what, (format!("{left:?}"), format!("its other side: {right:?}")))) }
}

fn total(answer: &Answer<AggregateRow>, of: impl Fn(&AggregateRow) -> f64) -> f64 {
    answer.rows.iter().map(of).sum()
}

#[allow(clippy::cast_precision_loss, reason = "numbers of samples lie far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

async fn page(store: &dyn MetricsStore, tenant: &Tenant, listing: &Listing) -> Stored<ListPage> {
    match listing {
        Listing::Metrics(list) => store.list_metrics(tenant, list).await,
        Listing::Keys(metric, list) => store.list_dimension_keys(tenant, metric, list).await,
        Listing::Values(metric, key, list) => store.list_dimension_values(tenant, metric, key, list).await,
    }
}

/// A batch as a request makes it: each series described at its first row, unless the store knows it.
fn batch(
    store: &dyn MetricsStore,
    tenant: &Tenant,
    rows: &[Row],
    limits: SeriesLimits,
    by_handle: bool,
) -> Batch {
    let lookup = store.lookup(tenant);
    let mut batch = Batch::new(limits);
    let mut named = std::collections::HashMap::new();
    for row in rows {
        let series = *named.entry((&row.metric, &row.dimensions)).or_insert_with(|| {
            let spelled = format!("{:?}{:?}", row.metric, row.dimensions);
            let spelling = lookup.hasher().hash(spelled.as_bytes());
            let known = if by_handle { lookup.find(spelling) } else { None };
            known.map(RowSeries::Known).unwrap_or_else(|| {
                let (metric, dimensions) = (row.metric.clone(), row.dimensions.clone());
                batch.describe(NewSeries { metric, dimensions, spelling: Some(spelling) })
            })
        });
        batch.push(series, row.time, row.value);
    }
    batch
}
