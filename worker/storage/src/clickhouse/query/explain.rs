//! What a query would do, in words.

use super::{Reader, day_of};
use crate::model::{AggregateQuery, DimensionKey, Query};
use crate::store::{Plan, Result};

/// The plan of a query: series by the table of series, samples by the primary key; none is read.
///
/// # Errors
/// `Unavailable`, `Internal`.
pub async fn explain(reader: &Reader<'_>, query: &Query) -> Result<Plan> {
    let carried = match query {
        Query::Rate(query) => query.interval,
        _ => 0,
    };
    let selected = reader.selected(query.selector(), &query.range(), carried);
    let text = reader.text(&selected);
    let ask = |file: &str| reader.statement(text.fill(file), &selected);
    let series: u64 = ask(include_str!("../sql/explain_series.sql")).row().await?;
    let samples: u64 = match series {
        0 => 0,
        _ => ask(include_str!("../sql/explain_samples.sql")).row().await?,
    };
    let bytes: f64 = reader.database.statement(include_str!("../sql/bytes_per_sample.sql")).row().await?;
    let days = i64::from(day_of(selected.end - 1)) - i64::from(day_of(selected.from)) + 1;
    let mut steps = vec![
        format!(
            "look up {} in the table of series, of {}: {series} series",
            query.selector(),
            plural(days, "UTC day")
        ),
        format!(
            "read their samples from {} to {} (Unix ms), each as it was last written",
            selected.from, selected.end
        ),
    ];
    steps.extend(made(query));
    Ok(Plan { steps, series, samples, bytes: estimate(samples, bytes) })
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, and neither is negative"
)]
/// Bytes of so many samples, at so many each.
pub fn estimate(samples: u64, bytes: f64) -> u64 {
    (samples as f64 * bytes) as u64
}

fn plural(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn made(query: &Query) -> Vec<String> {
    match query {
        Query::Range(query) => {
            vec![format!("order by time, then series; keep the first {} rows", query.limit)]
        }
        Query::Aggregate(query) => vec![aggregated(query), kept(query.limit)],
        Query::Rate(query) => {
            let (by, width) = (groups(&query.group_by), query.interval);
            vec![
                format!(
                    "add the steps of each series per {by} and {width} ms bucket, by the bucket's seconds"
                ),
                kept(query.limit),
            ]
        }
    }
}

fn aggregated(query: &AggregateQuery) -> String {
    let name = query.aggregation.name();
    let exactly = if query.aggregation.quantile().is_some() { " of all values, exactly," } else { "" };
    let gap = query.max_gap.map_or(String::new(), |gap| format!(" without segments over {gap} ms"));
    let windows = query.interval.map_or("the whole range".to_owned(), |width| format!("{width} ms bucket"));
    format!("{name}{exactly}{gap} per {} and {windows}", groups(&query.group_by))
}

fn groups(keys: &[DimensionKey]) -> String {
    match keys {
        [] => "one group".to_owned(),
        keys => {
            let names: Vec<&str> = keys.iter().map(DimensionKey::as_str).collect();
            format!("group by {}", names.join(", "))
        }
    }
}

fn kept(limit: usize) -> String {
    format!("order by group, then time; keep the first {limit} rows")
}
