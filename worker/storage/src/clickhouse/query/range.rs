//! Raw samples.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::{Chosen, FEW, Reader, Selected, Text, bounded, one_more};
use crate::model::{Answer, DimensionKey, Dimensions, QueryStats, RangeQuery, RangeRow};
use crate::store::{QueryContext, Result, StoreError};

#[derive(Debug, Row, Deserialize)]
pub(super) struct DescribedRow {
    pub(super) fp: u64,
    pub(super) pairs: Vec<(String, String)>,
}

#[derive(Debug, Row, Deserialize)]
pub(super) struct FirstRow {
    pub(super) fp: u64,
    pub(super) time: i64,
    pub(super) value: f64,
}

#[derive(Debug, Row, Deserialize)]
struct SampleRow {
    of_all: bool,
    time: i64,
    value: f64,
    pairs: Vec<(String, String)>,
    series: u64,
    scanned: u64,
}

/// Raw samples: time ascending, then series in the order of [`Dimensions`].
///
/// # Errors
/// `Timeout`, `Cancelled`, `QueryTooLarge`, `Corrupt`, `Unavailable`, `Internal`.
pub async fn range(
    reader: &Reader<'_>,
    query: &RangeQuery,
    context: &QueryContext,
) -> Result<Answer<RangeRow>> {
    // 1. Which series, with what describes them. IO.
    let mut selected = reader.selected(&query.selector, &query.range, 0);
    let text = reader.text(&selected).fill(include_str!("../sql/described_series.sql"));
    let statement = reader.statement(text, &selected).param("fews", FEW + 1);
    let described: Vec<DescribedRow> = reader.ask(statement, context).await?;
    if described.is_empty() {
        return Ok(Answer { rows: Vec::new(), stats: QueryStats::default() });
    }
    if described.len() as u64 > FEW {
        return read_in_order(reader, &selected, query, context).await;
    }
    // 2. The first samples of few, as they are. IO.
    selected.chosen = Chosen::Few;
    selected.fps = described.iter().map(|series| series.fp).collect();
    if !query.having.is_any() {
        // Of a sample that was written twice, the bounds may leave only what was written first.
        return read_in_order(reader, &selected, query, context).await;
    }
    let series: HashMap<u64, Dimensions> = described
        .into_iter()
        .map(|series| Ok((series.fp, dimensions(series.pairs)?)))
        .collect::<Result<_>>()?;
    let text = reader.text(&selected).fill(include_str!("../sql/range_few.sql"));
    let statement = reader.statement(text, &selected).param("rows", one_more(query.limit));
    let first: Vec<FirstRow> = reader.ask(statement, context).await?;
    // 3. In order, unless one was written twice.
    let Some(rows) = in_order(&first, &series)? else {
        return read_in_order(reader, &selected, query, context).await;
    };
    cut(reader, &selected, rows, query.limit, context).await
}

/// Samples by time, then series; none where two are of the same series and time.
fn in_order<'a>(
    first: &'a [FirstRow],
    series: &'a HashMap<u64, Dimensions>,
) -> Result<Option<Vec<(&'a FirstRow, &'a Dimensions)>>> {
    let unknown = || StoreError::internal("the server answered with a series that wasn't asked for");
    let named = first.iter().map(|row| Ok((row, series.get(&row.fp).ok_or_else(unknown)?)));
    let mut rows = named.collect::<Result<Vec<_>>>()?;
    rows.sort_by(|(left, of_left), (right, of_right)| (left.time, of_left).cmp(&(right.time, of_right)));
    let twice = rows.array_windows().any(|[(one, _), (next, _)]| (one.fp, one.time) == (next.fp, next.time));
    Ok((!twice).then_some(rows))
}

/// The answer of so many rows; what it cost is what was read, or, where it was cut, what a survey says.
async fn cut(
    reader: &Reader<'_>,
    selected: &Selected<'_>,
    rows: Vec<(&FirstRow, &Dimensions)>,
    limit: usize,
    context: &QueryContext,
) -> Result<Answer<RangeRow>> {
    let truncated = rows.len() > limit;
    let (series, scanned) = if truncated {
        let text = reader.text(selected).fill(include_str!("../sql/surveyed.sql"));
        reader.ask(reader.statement(text, selected), context).await?.into_iter().next().unwrap_or_default()
    } else {
        let series: HashSet<u64> = rows.iter().map(|(row, _)| row.fp).collect();
        (series.len() as u64, rows.len() as u64)
    };
    context.check(scanned)?;
    let row = |(row, dimensions): (&FirstRow, &Dimensions)| RangeRow {
        timestamp: row.time,
        value: row.value,
        dimensions: dimensions.clone(),
    };
    let stats = QueryStats { points_scanned: scanned, series_matched: series, truncated };
    Ok(Answer { rows: rows.into_iter().take(limit).map(row).collect(), stats })
}

/// Samples of many series, of few whose samples were written twice, or within bounds: surveyed and put in order by the
/// server.
async fn read_in_order(
    reader: &Reader<'_>,
    selected: &Selected<'_>,
    query: &RangeQuery,
    context: &QueryContext,
) -> Result<Answer<RangeRow>> {
    let (limit, having) = (query.limit, query.having);
    let text = Text { having, ..reader.text(selected) }.fill(include_str!("../sql/range.sql"));
    let statement = bounded(reader.statement(text, selected), &having).param("rows", one_more(limit));
    let rows: Vec<SampleRow> = reader.ask(statement, context).await?;
    let mut stats = QueryStats::default();
    let mut samples = Vec::with_capacity(rows.len());
    for row in rows {
        if row.of_all {
            stats = QueryStats { points_scanned: row.scanned, series_matched: row.series, truncated: false };
        } else {
            samples.push(row.sample()?);
        }
    }
    context.check(stats.points_scanned)?;
    // The survey's row may come in anywhere; the others come in order.
    stats.truncated = samples.len() > limit;
    samples.truncate(limit);
    Ok(Answer { rows: samples, stats })
}

impl SampleRow {
    fn sample(self) -> Result<RangeRow> {
        Ok(RangeRow { timestamp: self.time, value: self.value, dimensions: dimensions(self.pairs)? })
    }
}

/// Dimensions as they were stored.
pub(super) fn dimensions(stored: Vec<(String, String)>) -> Result<Dimensions> {
    let mut pairs = Vec::with_capacity(stored.len());
    for (key, value) in stored {
        let key = DimensionKey::new(&key)
            .map_err(|error| StoreError::corrupt(format!("a dimension key of the table series: {error}")))?;
        pairs.push((key, Arc::from(value)));
    }
    pairs.sort_unstable();
    let (keys, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    Ok(Dimensions::from_stored(keys.into(), values))
}
