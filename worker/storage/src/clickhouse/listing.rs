//! What there is: names, how many series things have, and what a tenant holds. Read from the table of
//! series, never from samples.

use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::accepted::Accepted;
use super::client::Statement;
use super::query::{Reader, day_of, estimate, one_more};
use crate::model::{DimensionKey, MetricName};
use crate::store::{CardinalityPage, CardinalityQuery, CardinalityRow, ListPage, ListQuery, Result, Usage};

#[derive(Debug, Row, Deserialize)]
struct PageRow {
    names: Vec<String>,
    total: u64,
}

#[derive(Debug, Row, Deserialize)]
struct CountRow {
    name: String,
    value: String,
    series: u64,
}

#[derive(Debug, Row, Deserialize)]
struct Held {
    metrics: u64,
    series: u64,
}

/// Metrics with a series present.
///
/// # Errors
/// `Unavailable`, `Internal`; so for all listings.
pub async fn list_metrics(reader: &Reader<'_>, list: &ListQuery) -> Result<ListPage> {
    reader.page(include_str!("sql/metrics.sql"), list, |statement| statement).await
}

/// Dimension keys of a metric's present series.
///
/// # Errors
/// As [`list_metrics`].
pub async fn list_dimension_keys(
    reader: &Reader<'_>,
    metric: &MetricName,
    list: &ListQuery,
) -> Result<ListPage> {
    let metric = metric.as_str().to_owned();
    reader.page(include_str!("sql/keys.sql"), list, |statement| statement.param("metric", metric)).await
}

/// Values of one key over a metric's present series.
///
/// # Errors
/// As [`list_metrics`].
pub async fn list_dimension_values(
    reader: &Reader<'_>,
    metric: &MetricName,
    key: &DimensionKey,
    list: &ListQuery,
) -> Result<ListPage> {
    let (metric, key) = (metric.as_str().to_owned(), key.as_str().to_owned());
    let bind = |statement: Statement| statement.param("metric", metric).param("key", key);
    reader.page(include_str!("sql/values.sql"), list, bind).await
}

/// Present series per metric, or per key and value of one metric, largest first.
///
/// # Errors
/// As [`list_metrics`].
pub async fn cardinality(reader: &Reader<'_>, query: &CardinalityQuery) -> Result<CardinalityPage> {
    let counts = match query.metric {
        None => include_str!("sql/cardinality_metrics.sql"),
        Some(_) => include_str!("sql/cardinality_values.sql"),
    };
    let mut statement = reader.living(&include_str!("sql/cardinality.sql").replace("@COUNTS@", counts));
    if let Some(metric) = &query.metric {
        statement = statement.param("metric", metric.as_str().to_owned());
    }
    // No row has as many series as this: without a cursor every row follows.
    let after = query.after.clone();
    let (series, name, value) = after
        .map_or_else(|| (u64::MAX, String::new(), None), |after| (after.series, after.name, after.value));
    let rows: Vec<CountRow> = statement
        .param("prefix", query.prefix.clone())
        .param("after_series", series)
        .param("after_name", name)
        .param("after_value", value.unwrap_or_default())
        .param("rows", one_more(query.limit))
        .rows()
        .await?;
    let more = rows.len() > query.limit;
    let row = |row: CountRow| CardinalityRow {
        series: row.series,
        name: Arc::from(row.name),
        value: (!row.value.is_empty()).then(|| Arc::from(row.value)),
    };
    Ok(CardinalityPage { rows: rows.into_iter().take(query.limit).map(row).collect(), more })
}

/// What the tenant holds; `accepted` knows what this worker has accepted.
///
/// # Errors
/// As [`list_metrics`].
pub async fn usage(reader: &Reader<'_>, accepted: &Accepted) -> Result<Usage> {
    let tenant = reader.tenant.as_str().to_owned();
    let today = day_of(reader.visible.now);
    let held: Held = reader.living(include_str!("sql/usage_series.sql")).row().await?;
    let samples: u64 = reader
        .database
        .statement(include_str!("sql/usage_samples.sql"))
        .param("tenant", tenant.clone())
        .row()
        .await?;
    let bytes: f64 = reader.database.statement(include_str!("sql/bytes_per_sample.sql")).row().await?;
    let others: u64 = reader
        .database
        .statement(include_str!("sql/accepted.sql"))
        .param("tenant", tenant)
        .param("day", today)
        .param("worker", accepted.worker().to_owned())
        .row()
        .await?;
    Ok(Usage {
        metrics: held.metrics,
        series: held.series,
        samples,
        bytes: estimate(samples, bytes),
        samples_today: others.saturating_add(accepted.of(reader.tenant, i64::from(today))),
    })
}

impl Reader<'_> {
    /// A statement about the series that are present, with their metrics' retention bound.
    fn living(&self, text: &str) -> Statement {
        let retention = &self.visible.retention;
        let oldest = |millis: i64| day_of(self.visible.now.saturating_sub(millis));
        let default = oldest(retention.default);
        let own: Vec<String> = retention.metrics.keys().map(|metric| metric.as_str().to_owned()).collect();
        let own_days: Vec<i32> = retention.metrics.values().map(|millis| oldest(*millis)).collect();
        let oldest_day = own_days.iter().copied().chain([default]).min().unwrap_or(default);
        self.database
            .statement(text.replace("@LIVING@", include_str!("sql/living.sql")))
            .param("tenant", self.tenant.as_str().to_owned())
            .param("oldest_day", oldest_day)
            .param("default_day", default)
            .param("own", own)
            .param("own_days", own_days)
    }

    /// The page of a listing that `list` asks for, of the names that `names` selects.
    async fn page(
        &self,
        names: &str,
        list: &ListQuery,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<ListPage> {
        let statement = self.living(&include_str!("sql/page.sql").replace("@NAMES@", names));
        let row: PageRow = bind(statement)
            .param("prefix", list.prefix.clone())
            // No name is empty, so each follows the empty one.
            .param("after", list.after.clone().unwrap_or_default())
            .param("rows", one_more(list.limit))
            .row()
            .await?;
        let more = row.names.len() > list.limit;
        let names = row.names.into_iter().take(list.limit).map(Arc::from).collect();
        Ok(ListPage { names, more, total: row.total })
    }
}
