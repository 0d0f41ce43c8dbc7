//! What a query would do, in words.

use super::{Reader, day_of};
use crate::model::Query;
use crate::plan::made;
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
