//! Raw samples.

use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::{Reader, one_more};
use crate::model::{Answer, DimensionKey, Dimensions, QueryStats, RangeQuery, RangeRow};
use crate::store::{QueryContext, Result, StoreError};

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
    let selected = reader.selected(&query.selector, &query.range, 0);
    let Some(selected) = reader.looked_up(selected, context).await? else {
        return Ok(Answer { rows: Vec::new(), stats: QueryStats::default() });
    };
    let text = reader.text(&selected).fill(include_str!("../sql/range.sql"));
    let statement = reader.statement(text, &selected).param("rows", one_more(query.limit));
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
    stats.truncated = samples.len() > query.limit;
    samples.truncate(query.limit);
    Ok(Answer { rows: samples, stats })
}

impl SampleRow {
    fn sample(self) -> Result<RangeRow> {
        let mut pairs = Vec::with_capacity(self.pairs.len());
        for (key, value) in self.pairs {
            let key = DimensionKey::new(&key).map_err(|error| {
                StoreError::corrupt(format!("a dimension key of the table series: {error}"))
            })?;
            pairs.push((key, Arc::from(value)));
        }
        pairs.sort_unstable();
        let dimensions = Dimensions::from_stored(pairs);
        Ok(RangeRow { timestamp: self.time, value: self.value, dimensions })
    }
}
