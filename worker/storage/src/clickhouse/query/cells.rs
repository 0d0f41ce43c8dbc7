//! One number per group and bucket: aggregates and rates.

use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::text::{NO_BUCKET, key_parameter};
use super::{Reader, Selected, Text, bounded, one_more};
use crate::model::{
    AggregateQuery, AggregateRow, Aggregation, Answer, DimensionKey, GroupKey, QueryStats, RateQuery, RateRow,
};
use crate::store::{QueryContext, Result};

/// A cell, with what it or another row tells of all samples: series with one in range, samples read, and how
/// often parts of the table overlap so that a sample may have been read twice.
#[derive(Debug, Row, Deserialize)]
struct CellRow {
    names: Vec<String>,
    bucket: i64,
    value: f64,
    samples: u64,
    series: u64,
    scanned: u64,
    overlaps: u64,
}

impl CellRow {
    /// The group's key: a name is never empty, so an empty one is absent.
    fn group(&self) -> GroupKey {
        self.names.iter().map(|name| (!name.is_empty()).then(|| Arc::from(name.as_str()))).collect()
    }
}

/// What cells are asked for, apart from what they are made of.
struct Cells<'a> {
    text: Text,
    file: &'static str,
    selected: Selected<'a>,
    keys: &'a [DimensionKey],
    interval: Option<i64>,
    max_gap: Option<i64>,
    limit: usize,
}

/// One value per group and bucket, ordered by group, then time.
///
/// # Errors
/// `Timeout`, `Cancelled`, `QueryTooLarge`, `Corrupt`, `Unavailable`, `Internal`.
pub async fn aggregate(
    reader: &Reader<'_>,
    query: &AggregateQuery,
    context: &QueryContext,
) -> Result<Answer<AggregateRow>> {
    let text = Text {
        having: query.having,
        keys: query.group_by.len(),
        bucketed: query.interval.is_some(),
        aggregation: Some(query.aggregation),
        ..Text::default()
    };
    let file = match query.aggregation {
        Aggregation::Integral => include_str!("../sql/integral.sql"),
        _ => include_str!("../sql/aggregate.sql"),
    };
    let cells = Cells {
        text,
        file,
        selected: reader.selected(&query.selector, &query.range, 0),
        keys: &query.group_by,
        interval: query.interval,
        max_gap: query.max_gap,
        limit: query.limit,
    };
    let row = |cell: CellRow| AggregateRow {
        group: cell.group(),
        timestamp: query.interval.map(|_| cell.bucket),
        value: cell.value,
        count: cell.samples,
    };
    cells.ask(reader, context, row).await
}

/// Increase per second per group and bucket, ordered by group, then time.
///
/// # Errors
/// As [`aggregate`].
pub async fn rate(reader: &Reader<'_>, query: &RateQuery, context: &QueryContext) -> Result<Answer<RateRow>> {
    let text = Text { having: query.having, keys: query.group_by.len(), bucketed: true, ..Text::default() };
    let cells = Cells {
        text,
        file: include_str!("../sql/rate.sql"),
        selected: reader.selected(&query.selector, &query.range, query.interval),
        keys: &query.group_by,
        interval: Some(query.interval),
        max_gap: None,
        limit: query.limit,
    };
    let row = |cell: CellRow| RateRow { group: cell.group(), timestamp: cell.bucket, rate: cell.value };
    cells.ask(reader, context, row).await
}

impl Cells<'_> {
    async fn ask<R>(
        self,
        reader: &Reader<'_>,
        context: &QueryContext,
        row: impl Fn(CellRow) -> R,
    ) -> Result<Answer<R>> {
        let Some(selected) = reader.looked_up(self.selected.clone(), context).await? else {
            return Ok(Answer { rows: Vec::new(), stats: QueryStats::default() });
        };
        let Text { having, keys, bucketed, aggregation, .. } = self.text;
        let span = selected.end.saturating_sub(self.origin(&selected)).max(self.width());
        let short = u32::try_from(span).is_ok();
        let text = Text { having, keys, bucketed, short, aggregation, ..reader.text(&selected) };
        let mut cells = self.rows(reader, &selected, text, context).await?;
        let most = |of: fn(&CellRow) -> u64| cells.iter().map(of).max().unwrap_or(0);
        let (series_matched, points_scanned) = (most(|row| row.series), most(|row| row.scanned));
        context.check(points_scanned)?;
        cells.retain(|cell| cell.bucket != NO_BUCKET);
        let truncated = cells.len() > self.limit;
        cells.truncate(self.limit);
        let stats = QueryStats { points_scanned, series_matched, truncated };
        Ok(Answer { rows: cells.into_iter().map(row).collect(), stats })
    }

    /// Milliseconds of a bucket, where there are any.
    fn width(&self) -> i64 {
        self.interval.unwrap_or(1)
    }

    /// Where the bucket begins in which reading does.
    fn origin(&self, selected: &Selected<'_>) -> i64 {
        selected.from - selected.from.rem_euclid(self.width())
    }

    /// The rows of the answer: in one pass, unless that read a sample twice.
    async fn rows(
        &self,
        reader: &Reader<'_>,
        selected: &Selected<'_>,
        mut text: Text,
        context: &QueryContext,
    ) -> Result<Vec<CellRow>> {
        if let Some(file) = text.one_pass() {
            let rows = self.put(reader, selected, text.fill(file), context).await?;
            if rows.iter().all(|row| row.overlaps == 0) {
                return Ok(rows);
            }
            text.always_final = true;
        }
        self.put(reader, selected, text.fill(self.file), context).await
    }

    async fn put(
        &self,
        reader: &Reader<'_>,
        selected: &Selected<'_>,
        text: String,
        context: &QueryContext,
    ) -> Result<Vec<CellRow>> {
        let mut statement = reader.statement(text, selected);
        for (at, key) in self.keys.iter().enumerate() {
            statement = statement.param(key_parameter(at), key.as_str().to_owned());
        }
        let statement = statement
            .param("interval", self.width())
            .param("origin", self.origin(selected))
            .param("max_gap", self.max_gap.unwrap_or(i64::MAX))
            .param("rows", one_more(self.limit));
        reader.ask(bounded(statement, &self.text.having), context).await
    }
}
