//! Queries over a catalogue of series and a scan of their samples; names neither RocksDB nor the index.
//!
//! # A query
//! The catalogue finds the series and their groups; chunks of series are scanned on all threads of the
//! pool; each chunk fills cells by (group, window) or keeps its earliest rows; chunks are merged
//! pairwise; cells become rows. What `limit` leaves out is never held: as soon as a chunk has seen
//! enough rows, everything behind the last of them is only looked at for whether it exists.

mod catalog;
mod cells;
mod explain;
mod grouped;
mod integral;
mod measure;
mod memory;
mod parallel;
mod quantile;
mod range;
mod rate;
mod sum;
mod windows;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod reference;

use crate::model::{
    AggregateQuery, AggregateRow, Aggregation, Answer, QueryStats, RateQuery, RateRow, TimeRange,
};
use crate::store::{QueryContext, Result};

use super::scan::{Detail, Indifference, SeriesScan};
use super::summary::{HOUR, Wanted};

pub use catalog::{Catalog, Grouping, Selected};
pub use explain::explain;
pub use parallel::Threads;
pub use range::range;

use grouped::{Question, Source};
use integral::Integral;
use measure::{Extreme, Measure, Totals};
use quantile::Quantile;
use rate::Increase;
use windows::Windows;
pub use windows::days_of;

/// One value per group and window, ordered by group, then time.
///
/// # Errors
/// `Timeout`, `Cancelled`, `QueryTooLarge` by `context`; `Corrupt`.
pub fn aggregate(
    catalog: &dyn Catalog,
    scan: &impl SeriesScan,
    query: &AggregateQuery,
    context: &QueryContext,
    threads: Threads<'_>,
) -> Result<Answer<AggregateRow>> {
    let source = Source { catalog, scan, context, threads };
    let question = Question {
        selector: &query.selector,
        group_by: &query.group_by,
        range: query.range,
        scanned: query.range,
        carried: None,
        windows: Windows::new(query.range, query.interval),
        detail: detail_of_aggregate(query),
        indifferent: indifference_of_aggregate(query),
        having: query.having,
        limit: query.limit,
    };
    match query.aggregation {
        Aggregation::Avg => aggregated(&source, &question, &Totals::Mean),
        Aggregation::Sum => aggregated(&source, &question, &Totals::Sum),
        Aggregation::Count => aggregated(&source, &question, &Totals::Count),
        Aggregation::Min => aggregated(&source, &question, &Extreme::<false>),
        Aggregation::Max => aggregated(&source, &question, &Extreme::<true>),
        Aggregation::P50 => aggregated(&source, &question, &Quantile(0.5)),
        Aggregation::P95 => aggregated(&source, &question, &Quantile(0.95)),
        Aggregation::P99 => aggregated(&source, &question, &Quantile(0.99)),
        Aggregation::Integral => aggregated(&source, &question, &Integral::new(query.max_gap)),
    }
}

fn aggregated<S: SeriesScan, M: Measure>(
    source: &Source<'_, S>,
    question: &Question<'_>,
    measure: &M,
) -> Result<Answer<AggregateRow>> {
    let answer = source.ask(question, measure)?;
    let row = |found: grouped::Found| AggregateRow {
        group: found.group,
        timestamp: question.windows.start(found.window),
        value: found.value,
        count: found.count,
    };
    Ok(Answer { rows: answer.rows.into_iter().map(row).collect(), stats: answer.stats })
}

/// Increase per second per group and bucket, ordered by group, then time.
///
/// # Errors
/// `Timeout`, `Cancelled`, `QueryTooLarge` by `context`; `Corrupt`.
pub fn rate(
    catalog: &dyn Catalog,
    scan: &impl SeriesScan,
    query: &RateQuery,
    context: &QueryContext,
    threads: Threads<'_>,
) -> Result<Answer<RateRow>> {
    let source = Source { catalog, scan, context, threads };
    let windows = Windows::new(query.range, Some(query.interval));
    let (scanned, carried) = reach_of_rate(query);
    let question = Question {
        selector: &query.selector,
        group_by: &query.group_by,
        range: query.range,
        scanned,
        carried,
        windows,
        detail: detail_of_rate(query),
        indifferent: Indifference::NONE,
        having: query.having,
        limit: query.limit,
    };
    let answer = source.ask(&question, &Increase::new(query))?;
    let row = |found: grouped::Found| RateRow {
        group: found.group,
        timestamp: windows.start(found.window).unwrap_or(query.range.start()),
        rate: found.value,
    };
    Ok(Answer { rows: answer.rows.into_iter().map(row).collect(), stats: answer.stats })
}

/// What a rate scans, and what it scans before that for the carry-in alone.
///
/// One scan reaches back over the carry-in, unless an hour's summary could hold both of it and of
/// the range: then the two are apart.
fn reach_of_rate(query: &RateQuery) -> (TimeRange, Option<TimeRange>) {
    let (range, begin) = (query.range, query.range.start().saturating_sub(query.interval));
    let before = TimeRange::new(begin, range.start());
    if detail_of_rate(query) != Detail::Samples && range.start().rem_euclid(HOUR) != 0 {
        return (range, before);
    }
    (TimeRange::new(begin, range.end()).unwrap_or(range), None)
}

/// How much of each sample a rate needs.
fn detail_of_rate(query: &RateQuery) -> Detail {
    hours_if_whole(Some(query.interval), Wanted::Increase)
}

/// How much of each sample an aggregate needs.
fn detail_of_aggregate(query: &AggregateQuery) -> Detail {
    let wanted = match query.aggregation {
        Aggregation::P50 | Aggregation::P95 | Aggregation::P99 => return Detail::Samples,
        // A segment inside an hour's summary is shorter than an hour, but nobody knows how much.
        Aggregation::Integral if query.max_gap.is_some_and(|gap| gap < HOUR) => return Detail::Samples,
        Aggregation::Integral => Wanted::Integral,
        Aggregation::Avg | Aggregation::Sum => Wanted::Sum,
        Aggregation::Count => Wanted::Count,
        Aggregation::Min => Wanted::Min,
        Aggregation::Max => Wanted::Max,
    };
    hours_if_whole(query.interval, wanted)
}

/// Which values an aggregate needn't know: of a maximum that must be above a bound those below it, of a minimum those above,
/// since neither a row that is admitted nor one that isn't changes with them.
fn indifference_of_aggregate(query: &AggregateQuery) -> Indifference {
    let outside = Indifference::outside(&query.having);
    match query.aggregation {
        Aggregation::Max => Indifference { at_least: f64::INFINITY, ..outside },
        Aggregation::Min => Indifference { at_most: f64::NEG_INFINITY, ..outside },
        _ => Indifference::NONE,
    }
}

/// Hour summaries may answer where every UTC hour lies in one window.
fn hours_if_whole(interval: Option<i64>, wanted: Wanted) -> Detail {
    let whole = interval.is_none_or(|interval| interval % HOUR == 0);
    if whole { Detail::Hours(wanted) } else { Detail::Samples }
}

/// The answer when there is no series.
fn nothing<Row>() -> Answer<Row> {
    Answer { rows: Vec::new(), stats: QueryStats::default() }
}
