//! How many metrics and series a tenant has, where a write may create only so many.
//!
//! With one worker the count is exact: what ClickHouse has, and what this worker has created since. Series
//! of other workers are seen when it is read again, every ten seconds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;
use tokio::time::Instant;

use crate::clickhouse::client::{Answered, Database, Statement};
use crate::model::{MetricName, SeriesLimits};
use crate::store::{Refusal, Retention};

use super::cache::TenantSeries;
use super::days::{Days, day_of};

/// How old a count may be.
const REFRESH: Duration = Duration::from_secs(10);
/// A count of very many series is read again only after this many times what reading it took.
const PATIENCE: u32 = 20;
/// Most bytes of one parameter: the server takes 128 KiB of a form's field by default.
const FIELD: usize = 100_000;
/// Most bytes of a fingerprint in a parameter, with its comma.
const PRINT: usize = 21;

/// From which day on a tenant's samples are kept.
#[derive(Debug, Clone)]
pub struct Floors {
    now: i64,
    retention: Arc<Retention>,
}

impl Floors {
    /// What `retention` keeps at `now`.
    #[must_use]
    pub fn new(now: i64, retention: Arc<Retention>) -> Self {
        Self { now, retention }
    }

    /// The first day of `metric` that isn't over.
    #[must_use]
    pub fn of(&self, metric: &MetricName) -> i32 {
        day_of(self.now.saturating_sub(self.retention.of(metric)))
    }

    /// That of all metrics, where they don't differ.
    #[must_use]
    pub fn of_all(&self) -> Option<i32> {
        self.retention.metrics.is_empty().then(|| day_of(self.now.saturating_sub(self.retention.default)))
    }

    /// The first of them all.
    #[must_use]
    pub fn lowest(&self) -> i32 {
        self.each().into_iter().min().unwrap_or(i32::MIN)
    }

    /// The default's and the metrics' own, in their order.
    fn each(&self) -> Vec<i32> {
        let own = self.retention.metrics.values().copied();
        let all = std::iter::once(self.retention.default).chain(own);
        all.map(|millis| day_of(self.now.saturating_sub(millis))).collect()
    }
}

/// Asks ClickHouse about a tenant's series.
#[derive(Debug)]
pub struct Questions<'a> {
    /// Where.
    pub database: &'a Database,
    /// Of whom.
    pub tenant: &'a TenantSeries,
    /// Under which generation.
    pub generation: u64,
    /// What is kept.
    pub floors: &'a Floors,
}

#[derive(Debug, Row, Deserialize)]
struct KnownRow {
    fp: u64,
    last: i32,
    days: u64,
}

#[derive(Debug, Row, Deserialize)]
struct MetricRow {
    name: String,
    last: i32,
}

#[derive(Debug, Row, Deserialize)]
struct CountRow {
    name: String,
    series: u64,
}

impl Questions<'_> {
    fn ask(&self, sql: &str) -> Statement {
        let tenant = self.tenant.tenant.as_str().to_owned();
        self.database.statement(sql).param("tenant", tenant)
    }

    /// Of these series those that are present, with the days up to `newest` that need no row.
    ///
    /// # Errors
    /// What the server says.
    pub async fn known(&self, series: &[(u64, &MetricName)], newest: i32) -> Answered<HashMap<u64, Days>> {
        let mut known = HashMap::new();
        for part in fields(series, |(_, metric)| metric.as_str().len() + PRINT) {
            let metrics: BTreeSet<&MetricName> = part.iter().map(|(_, metric)| *metric).collect();
            let floors: HashMap<u64, i32> =
                part.iter().map(|(fp, metric)| (*fp, self.floors.of(metric))).collect();
            let rows: Vec<KnownRow> = self
                .ask(include_str!("../sql/known_series.sql"))
                .param("metrics", names(metrics.iter().copied()))
                .param("prints", part.iter().map(|(fp, _)| *fp).collect::<Vec<_>>())
                .param("newest", newest)
                .param("generation", self.generation)
                .param("floor", floors.values().min().copied().unwrap_or(i32::MIN))
                .rows()
                .await?;
            let present =
                rows.into_iter().filter(|row| floors.get(&row.fp).is_some_and(|floor| row.last >= *floor));
            known.extend(present.map(|row| (row.fp, Days::from_mask(newest, row.days))));
        }
        Ok(known)
    }

    async fn metrics(&self) -> Answered<Vec<MetricName>> {
        let ask = self.ask(include_str!("../sql/present_metrics.sql")).param("floor", self.floors.lowest());
        let rows: Vec<MetricRow> = ask.rows().await?;
        let present = rows.into_iter().filter_map(|row| {
            let metric = MetricName::new(&row.name).ok()?;
            (row.last >= self.floors.of(&metric)).then_some(metric)
        });
        Ok(present.collect())
    }

    async fn counts(&self, metrics: &[MetricName], pending: Vec<u64>) -> Answered<Vec<(MetricName, u64)>> {
        let mut by_floor: BTreeMap<i32, Vec<&MetricName>> = BTreeMap::new();
        metrics.iter().for_each(|metric| by_floor.entry(self.floors.of(metric)).or_default().push(metric));
        let mut counts = Vec::new();
        for (floor, metrics) in by_floor {
            for part in fields(&metrics, |metric| metric.as_str().len()) {
                let rows: Vec<CountRow> = self
                    .ask(include_str!("../sql/count_series.sql"))
                    .param("metrics", names(part.iter().copied()))
                    .param("pending", pending.clone())
                    .param("floor", floor)
                    .rows()
                    .await?;
                let count = |row: CountRow| Some((MetricName::new(&row.name).ok()?, row.series));
                counts.extend(rows.into_iter().filter_map(count));
            }
        }
        Ok(counts)
    }
}

/// Parts of `items` that each fit into one parameter.
fn fields<T>(mut items: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !items.is_empty() {
        // Each with two quotes and a comma.
        let sizes = items.iter().scan(0, |sum, item| {
            *sum += size(item) + 3;
            Some(*sum)
        });
        let fit = sizes.take_while(|sum| *sum <= FIELD).count().max(1);
        let (part, rest) = items.split_at(fit);
        parts.push(part);
        items = rest;
    }
    parts
}

fn names<'a>(metrics: impl Iterator<Item = &'a MetricName>) -> Vec<String> {
    metrics.map(|metric| metric.as_str().to_owned()).collect()
}

/// What a tenant has, as far as it was asked for.
#[derive(Debug, Default)]
pub struct Census {
    /// The generation and the floors under which it was counted.
    under: Option<(u64, Vec<i32>)>,
    metrics: Option<Counted<HashSet<MetricName>>>,
    series: HashMap<MetricName, Counted<u64>>,
}

#[derive(Debug)]
struct Counted<T> {
    value: T,
    until: Instant,
}

impl<T> Counted<T> {
    fn new(value: T, asked: Instant) -> Self {
        let until = Instant::now() + REFRESH.max(asked.elapsed() * PATIENCE);
        Self { value, until }
    }

    fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Census {
    /// Counts what is needed to weigh new series of `metrics`, and isn't known.
    ///
    /// # Errors
    /// What the server says.
    pub async fn prepare(
        &mut self,
        questions: &Questions<'_>,
        limits: &SeriesLimits,
        metrics: &[MetricName],
    ) -> Answered<()> {
        let under = Some((questions.generation, questions.floors.each()));
        if self.under != under || questions.tenant.pending.take_doubt() {
            *self = Self { under, ..Self::default() };
        }
        if limits.max_metrics < u64::MAX && !self.metrics.as_ref().is_some_and(Counted::holds) {
            self.count_metrics(questions).await?;
        }
        if limits.max_series_per_metric < u64::MAX {
            let unknown = |metric: &&MetricName| !self.series.get(metric).is_some_and(Counted::holds);
            let unknown: Vec<MetricName> = metrics.iter().filter(unknown).cloned().collect();
            if !unknown.is_empty() {
                self.count_series(questions, &unknown).await?;
            }
        }
        Ok(())
    }

    async fn count_metrics(&mut self, questions: &Questions<'_>) -> Answered<()> {
        let asked = Instant::now();
        // Before the question: what is stored meanwhile is then in one of both.
        let pending = questions.tenant.pending.at_most(usize::MAX).await;
        let mut metrics: HashSet<MetricName> = questions.metrics().await?.into_iter().collect();
        metrics.extend(pending.into_iter().map(|(_, metric)| metric));
        self.metrics = Some(Counted::new(metrics, asked));
        Ok(())
    }

    async fn count_series(&mut self, questions: &Questions<'_>, metrics: &[MetricName]) -> Answered<()> {
        let asked = Instant::now();
        // The ones under way are left out of the question and added here, so that each counts once,
        // whether it lands before the server answers or after.
        let pending = questions.tenant.pending.at_most(FIELD / PRINT).await;
        let prints = pending.iter().map(|(fp, _)| *fp).collect();
        let mut counts: HashMap<MetricName, u64> = metrics.iter().map(|metric| (metric.clone(), 0)).collect();
        for (metric, series) in questions.counts(metrics, prints).await? {
            counts.entry(metric).and_modify(|count| *count += series);
        }
        for (_, metric) in pending {
            counts.entry(metric).and_modify(|count| *count += 1);
        }
        self.series.extend(counts.into_iter().map(|(metric, count)| (metric, Counted::new(count, asked))));
        Ok(())
    }

    /// Creates a series of `metric`, if the limits allow.
    ///
    /// # Errors
    /// Which limit doesn't.
    pub fn create(&mut self, metric: &MetricName, limits: &SeriesLimits) -> Result<(), Refusal> {
        let limit = limits.max_metrics;
        let metrics = self.metrics.as_ref().map(|metrics| &metrics.value);
        let another =
            |metrics: &HashSet<MetricName>| !metrics.contains(metric) && metrics.len() as u64 >= limit;
        if metrics.is_some_and(another) {
            return Err(Refusal::MetricLimit { limit });
        }
        let limit = limits.max_series_per_metric;
        if let Some(Counted { value: series, .. }) = self.series.get_mut(metric) {
            if *series >= limit {
                return Err(Refusal::SeriesLimit { limit });
            }
            *series += 1;
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.value.insert(metric.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> MetricName {
        MetricName::new(name).unwrap()
    }

    fn census(metrics: &[&str], series: &[(&str, u64)]) -> Census {
        let asked = Instant::now();
        Census {
            under: None,
            metrics: Some(Counted::new(metrics.iter().map(|name| metric(name)).collect(), asked)),
            series: series.iter().map(|(name, count)| (metric(name), Counted::new(*count, asked))).collect(),
        }
    }

    #[test]
    fn what_is_created_counts_at_once() {
        let mut census = census(&["m"], &[("m", 1), ("n", 0), ("o", 0)]);
        let limits = SeriesLimits { max_metrics: 2, max_series_per_metric: 2 };
        assert_eq!(census.create(&metric("m"), &limits), Ok(()));
        assert_eq!(census.create(&metric("m"), &limits), Err(Refusal::SeriesLimit { limit: 2 }));
        assert_eq!(census.create(&metric("n"), &limits), Ok(()));
        assert_eq!(census.create(&metric("o"), &limits), Err(Refusal::MetricLimit { limit: 2 }));
        assert_eq!(census.create(&metric("n"), &limits), Ok(()));
    }

    #[test]
    fn a_metric_that_may_have_no_series_is_not_created() {
        let mut census = census(&[], &[("m", 0), ("n", 0)]);
        let none = SeriesLimits { max_metrics: 1, max_series_per_metric: 0 };
        assert_eq!(census.create(&metric("m"), &none), Err(Refusal::SeriesLimit { limit: 0 }));
        let one = SeriesLimits { max_metrics: 1, max_series_per_metric: 1 };
        assert_eq!(census.create(&metric("n"), &one), Ok(()));
    }

    #[test]
    fn a_question_is_split_where_a_parameter_would_be_too_long() {
        let sizes = [60_000, 39_994, 1, 200_000, 5];
        let parts: Vec<_> = fields(&sizes, |size| *size).into_iter().map(<[usize]>::len).collect();
        assert_eq!(parts, [2, 1, 1, 1]);
        assert!(fields(&[], |size: &usize| *size).is_empty());
    }

    #[test]
    fn a_metric_may_be_kept_longer_than_others() {
        let retention = Retention { default: 86_400_000, metrics: [(metric("m"), 864_000_000)].into() };
        let floors = Floors::new(86_400_000 * 100 + 5, Arc::new(retention));
        assert_eq!((floors.of(&metric("n")), floors.of(&metric("m"))), (99, 90));
        assert_eq!((floors.lowest(), floors.of_all()), (90, None));
    }
}
