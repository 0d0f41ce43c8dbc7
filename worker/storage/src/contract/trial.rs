//! What a case does to a store, and how answers are written down.
//!
//! Series are written `metric{key=value,key=value}` (or `metric`), times are milliseconds from
//! [`T0`], and answers become one line a row, so that a case shows what it expects at a glance:
//!
//! | answer | a line |
//! |---|---|
//! | range | `1000 2.5 host=a,region=eu`: time, value, dimensions |
//! | aggregate | `a\|- @1000 2.5 n=3`: group (`-` where a key is absent), bucket, value, samples |
//! | rate | `a\|- @1000 2.5` |
//! | cardinality | `3 host` or `2 host=a`: series, name, value |
//!
//! A last line `…` says that the answer was cut. A number that isn't finite is `null`.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::model::{
    AggregateQuery, AggregateRow, Aggregation, Answer, Batch, DimensionKey, DimensionLimits, Dimensions,
    ExportQuery, GroupKey, Having, MetricName, NewSeries, RangeQuery, RangeRow, RateQuery, RateRow, Selector,
    SeriesLimits, Spelling, Tenant, TimeRange,
};
use crate::store::{
    CardinalityPage, CardinalityQuery, Deleted, ListPage, ListQuery, MetricsStore, QueryContext, Refusal,
    Result, Retention,
};

use super::{Backend, Mode, Subject};

/// Midnight before every trial: 2026-01-01T00:00:00Z.
pub const T0: i64 = 1_767_225_600_000;
/// A second.
pub const SECOND: i64 = 1_000;
/// An hour.
pub const HOUR: i64 = 3_600_000;
/// A day.
pub const DAY: i64 = 86_400_000;
/// The default retention of every trial.
pub const RETENTION: i64 = 30 * DAY;
/// A time to answer in that no case needs.
const LONG: Duration = Duration::from_secs(60);

/// A fresh store with a clock that stands at noon, [`T0`] + 12 h, and the tenant who uses it.
pub struct Trial {
    /// The store.
    pub subject: Box<dyn Subject>,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Who writes and asks.
    pub tenant: Tenant,
    /// What the times of rows and ranges count from.
    pub base: i64,
    mode: Mode,
}

/// A metric's name.
#[must_use]
pub fn metric(name: &str) -> MetricName {
    MetricName::new(name).expect("a valid metric")
}

/// A dimension's key.
#[must_use]
pub fn key(name: &str) -> DimensionKey {
    DimensionKey::new(name).expect("a valid key")
}

/// A series written as `metric{key=value,…}`.
#[must_use]
pub fn series(text: &str) -> (MetricName, Dimensions) {
    let (name, pairs) = parts(text);
    let dimensions = Dimensions::new(pairs, &DimensionLimits::default()).expect("valid dimensions");
    (metric(name), dimensions)
}

fn parts(text: &str) -> (&str, Vec<(&str, &str)>) {
    let Some((name, rest)) = text.split_once('{') else { return (text, Vec::new()) };
    let pairs = rest.strip_suffix('}').expect("a closing brace").split(',').filter(|pair| !pair.is_empty());
    (name, pairs.map(|pair| pair.split_once('=').expect("key=value")).collect())
}

impl Trial {
    /// A fresh store of `backend`.
    pub async fn open(backend: &dyn Backend, mode: Mode) -> Self {
        let clock = Arc::new(ManualClock::new(T0 + 12 * HOUR));
        let subject = backend.open(clock.clone(), RETENTION).await.expect("an open store");
        Self { subject, clock, tenant: Tenant::new("acme").expect("a valid tenant"), base: T0, mode }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn MetricsStore {
        self.subject.store()
    }

    /// Writes and asks as another tenant from now on.
    pub fn become_tenant(&mut self, name: &str) {
        self.tenant = Tenant::new(name).expect("a valid tenant");
    }

    /// Lets time pass.
    pub fn wait(&self, millis: i64) {
        self.clock.set(self.clock.now() + millis);
    }

    /// Does what the mode wants done after a change.
    async fn changed(&mut self) {
        match self.mode {
            Mode::Plain => {}
            Mode::Settled => self.settle().await,
            Mode::Restarted => self.restart().await,
        }
    }

    /// Settles the store.
    pub async fn settle(&mut self) {
        self.subject.settle().await.expect("a settled store");
    }

    /// Restarts the store.
    pub async fn restart(&mut self) {
        self.subject.restart().await.expect("a restarted store");
    }

    /// Writes rows of (series, time, value), described in full, all of which must be accepted.
    pub async fn write(&mut self, rows: &[(&str, i64, f64)]) {
        let refused = self.write_within(SeriesLimits::NONE, rows).await;
        assert_eq!(refused, [], "no row is refused");
    }

    /// Writes rows under `limits`; the refused ones.
    pub async fn write_within(
        &mut self,
        limits: SeriesLimits,
        rows: &[(&str, i64, f64)],
    ) -> Vec<(u32, Refusal)> {
        let batch = self.batch(limits, rows);
        let outcome = self.store().write(&self.tenant, batch).await.expect("a stored batch");
        self.changed().await;
        outcome.refused
    }

    /// A batch that describes each series at its first row, spelled as it is written here.
    #[must_use]
    pub fn batch(&self, limits: SeriesLimits, rows: &[(&str, i64, f64)]) -> Batch {
        let mut batch = Batch::new(limits);
        let mut described = std::collections::HashMap::new();
        for (text, time, value) in rows {
            let own = *described.entry(*text).or_insert_with(|| {
                let (metric, dimensions) = series(text);
                batch.describe(NewSeries { metric, dimensions, spelling: Some(self.spelling(text)) })
            });
            batch.push(own, self.base + time, *value);
        }
        batch
    }

    /// How the store hashes a spelling.
    #[must_use]
    pub fn spelling(&self, text: &str) -> Spelling {
        self.store().lookup(&self.tenant).hasher().hash(text.as_bytes())
    }

    /// A question about `selector`, over the whole day unless it says otherwise; `m{a=1|2}` asks for one of two values.
    #[must_use]
    pub fn ask(&self, selector: &str) -> Ask<'_> {
        let (name, pairs) = parts(selector);
        let (listed, equal): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(_, value)| value.contains('|'));
        let filters = equal.into_iter().map(|(name, value)| (key(name), value.to_owned())).collect();
        let values = |listed: &str| listed.split('|').map(str::to_owned).collect();
        let filters_in = listed.into_iter().map(|(name, listed)| (key(name), values(listed))).collect();
        Ask {
            trial: self,
            selector: Selector { metric: metric(name), filters, filters_in },
            range: 0..DAY,
            group_by: Vec::new(),
            interval: None,
            max_gap: None,
            having: Having::ANY,
            limit: 10_000,
            context: QueryContext::with_timeout(LONG),
        }
    }

    /// Every sample of a metric in the 200 days around [`T0`].
    pub async fn all(&self, selector: &str) -> Vec<String> {
        self.ask(selector).over(-100 * DAY..100 * DAY).rows().await
    }

    /// Deletes samples of a metric before a time, or all.
    pub async fn delete(&mut self, name: &str, before: Option<i64>) -> Deleted {
        let before = before.map(|before| self.base + before);
        let deleted = self.store().delete_before(&self.tenant, &metric(name), before, false).await;
        self.changed().await;
        deleted.expect("a done delete")
    }

    /// Counts what a delete would take.
    pub async fn count_before(&self, name: &str, before: Option<i64>) -> Deleted {
        let before = before.map(|before| self.base + before);
        self.store().delete_before(&self.tenant, &metric(name), before, true).await.expect("a count")
    }

    /// Sets the tenant's retention, in milliseconds.
    pub async fn set_retention(&mut self, default: i64, metrics: &[(&str, i64)]) {
        let metrics = metrics.iter().map(|(name, millis)| (metric(name), *millis)).collect();
        let retention = Retention { default, metrics };
        self.store().set_retention(&self.tenant, retention).await.expect("a set retention");
        self.changed().await;
    }

    /// All metrics, as `page` writes them.
    pub async fn metrics(&self) -> String {
        self.metrics_page("", None, 1_000).await
    }

    /// A page of metrics.
    pub async fn metrics_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> String {
        page(&self.store().list_metrics(&self.tenant, &list(prefix, after, limit)).await.expect("a page"))
    }

    /// All keys of a metric.
    pub async fn keys(&self, name: &str) -> String {
        let list = list("", None, 1_000);
        page(&self.store().list_dimension_keys(&self.tenant, &metric(name), &list).await.expect("a page"))
    }

    /// All values of a key of a metric.
    pub async fn values(&self, name: &str, of: &str) -> String {
        self.values_page(name, of, &list("", None, 1_000)).await
    }

    /// A page of the values of a key of a metric.
    pub async fn values_page(&self, name: &str, of: &str, list: &ListQuery) -> String {
        let page_of = self.store().list_dimension_values(&self.tenant, &metric(name), &key(of), list).await;
        page(&page_of.expect("a page"))
    }

    /// All rows of the cardinality table.
    pub async fn cardinality(&self, of: Option<&str>) -> Vec<String> {
        let query =
            CardinalityQuery { metric: of.map(metric), prefix: String::new(), after: None, limit: 1_000 };
        table(&self.cardinality_page(&query).await)
    }

    /// A page of the cardinality table.
    pub async fn cardinality_page(&self, query: &CardinalityQuery) -> CardinalityPage {
        self.store().cardinality(&self.tenant, query).await.expect("a page")
    }
}

/// What part of a listing is wanted.
#[must_use]
pub fn list(prefix: &str, after: Option<&str>, limit: usize) -> ListQuery {
    ListQuery { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit }
}

/// A page as `a b … of 5`.
fn page(page: &ListPage) -> String {
    let mut words: Vec<String> = page.names.iter().map(ToString::to_string).collect();
    words.extend(page.more.then(|| "…".to_owned()));
    words.push(format!("of {}", page.total));
    words.join(" ")
}

/// A page of the cardinality table as lines.
#[must_use]
pub fn table(page: &CardinalityPage) -> Vec<String> {
    let mut lines = Vec::new();
    for row in &page.rows {
        let value = row.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
        lines.push(format!("{} {}{value}", row.series, row.name));
    }
    lines.extend(page.more.then(|| "…".to_owned()));
    lines
}

/// A question, built step by step.
pub struct Ask<'a> {
    trial: &'a Trial,
    selector: Selector,
    range: Range<i64>,
    group_by: Vec<DimensionKey>,
    interval: Option<i64>,
    max_gap: Option<i64>,
    having: Having,
    limit: usize,
    context: QueryContext,
}

impl Ask<'_> {
    /// Over these times.
    #[must_use]
    pub fn over(mut self, range: Range<i64>) -> Self {
        self.range = range;
        self
    }

    /// Grouped by these keys, separated by commas.
    #[must_use]
    pub fn by(mut self, keys: &str) -> Self {
        self.group_by = keys.split(',').map(key).collect();
        self
    }

    /// In buckets this wide.
    #[must_use]
    pub fn every(mut self, millis: i64) -> Self {
        self.interval = Some(millis);
        self
    }

    /// Ignoring longer segments.
    #[must_use]
    pub fn max_gap(mut self, millis: i64) -> Self {
        self.max_gap = Some(millis);
        self
    }

    /// Only rows whose number is within bounds.
    #[must_use]
    pub fn having(mut self, having: Having) -> Self {
        self.having = having;
        self
    }

    /// Up to this many rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// Within these bounds.
    #[must_use]
    pub fn within(mut self, context: QueryContext) -> Self {
        self.context = context;
        self
    }

    fn time_range(&self) -> TimeRange {
        let base = self.trial.base;
        TimeRange::new(base + self.range.start, base + self.range.end).expect("a range")
    }

    /// The answer of a range query.
    ///
    /// # Errors
    /// What the store says.
    pub async fn range_answer(&self) -> Result<Answer<RangeRow>> {
        let query = RangeQuery {
            selector: self.selector.clone(),
            range: self.time_range(),
            having: self.having,
            limit: self.limit,
        };
        self.trial.store().query_range(&self.trial.tenant, &query, &self.context).await
    }

    /// The answer of an aggregate.
    ///
    /// # Errors
    /// What the store says.
    pub async fn aggregate_answer(&self, aggregation: Aggregation) -> Result<Answer<AggregateRow>> {
        let query = AggregateQuery {
            selector: self.selector.clone(),
            range: self.time_range(),
            aggregation,
            max_gap: self.max_gap,
            group_by: self.group_by.clone(),
            interval: self.interval,
            having: self.having,
            limit: self.limit,
        };
        self.trial.store().aggregate(&self.trial.tenant, &query, &self.context).await
    }

    /// The answer of a rate.
    ///
    /// # Errors
    /// What the store says.
    pub async fn rate_answer(&self) -> Result<Answer<RateRow>> {
        self.trial.store().rate(&self.trial.tenant, &self.rate_query(), &self.context).await
    }

    /// What a rate is asked.
    #[must_use]
    pub fn rate_query(&self) -> RateQuery {
        RateQuery {
            selector: self.selector.clone(),
            range: self.time_range(),
            group_by: self.group_by.clone(),
            interval: self.interval.expect("an interval"),
            having: self.having,
            limit: self.limit,
        }
    }

    /// Raw samples as lines.
    pub async fn rows(&self) -> Vec<String> {
        let line = |row: &RangeRow| self.sample(row.timestamp, row.value, &row.dimensions);
        lines(&self.range_answer().await.expect("an answer"), line)
    }

    fn sample(&self, time: i64, value: f64, dimensions: &Dimensions) -> String {
        let pairs: Vec<String> = dimensions.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let words = [(time - self.trial.base).to_string(), number(value), pairs.join(",")];
        words.join(" ").trim_end().to_owned()
    }

    /// What an export in such pieces is asked.
    #[must_use]
    pub fn export_query(&self, piece: usize) -> ExportQuery {
        ExportQuery { selector: self.selector.clone(), range: self.time_range(), piece }
    }

    /// An export as lines, a sample each.
    pub async fn export(&self, piece: usize) -> Vec<String> {
        let (store, query) = (self.trial.store(), self.export_query(piece));
        let mut export = store.export(&self.trial.tenant, &query, &self.context).await.expect("an export");
        let mut lines = Vec::new();
        loop {
            let stretches = export.next().await.expect("a piece");
            if stretches.is_empty() {
                return lines;
            }
            for stretch in stretches {
                let samples = stretch.timestamps.iter().zip(&stretch.values);
                lines.extend(samples.map(|(time, value)| self.sample(*time, *value, &stretch.dimensions)));
            }
        }
    }

    /// An aggregate as lines.
    pub async fn aggregate(&self, aggregation: Aggregation) -> Vec<String> {
        let line = |row: &AggregateRow| {
            let place = self.place(&row.group, row.timestamp);
            format!("{place}{} n={}", number(row.value), row.count)
        };
        lines(&self.aggregate_answer(aggregation).await.expect("an answer"), line)
    }

    /// A rate as lines.
    pub async fn rate(&self) -> Vec<String> {
        let line =
            |row: &RateRow| format!("{}{}", self.place(&row.group, Some(row.timestamp)), number(row.rate));
        lines(&self.rate_answer().await.expect("an answer"), line)
    }

    fn place(&self, group: &GroupKey, timestamp: Option<i64>) -> String {
        let names: Vec<&str> = group.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
        let group = if names.is_empty() { String::new() } else { names.join("|") + " " };
        let time = timestamp.map(|time| format!("@{} ", time - self.trial.base)).unwrap_or_default();
        group + &time
    }
}

fn lines<Row>(answer: &Answer<Row>, line: impl Fn(&Row) -> String) -> Vec<String> {
    let mut lines: Vec<String> = answer.rows.iter().map(line).collect();
    lines.extend(answer.stats.truncated.then(|| "…".to_owned()));
    lines
}

/// A number to nine digits after its first, within every tolerance.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "null".to_owned();
    }
    let rounded: f64 = format!("{value:.9e}").parse().expect("a number");
    // Nobody tells 0 from −0 here.
    (rounded + 0.0).to_string()
}
