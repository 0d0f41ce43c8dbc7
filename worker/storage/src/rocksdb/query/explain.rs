//! What a query would do, in words.

use crate::model::{AggregateQuery, DimensionKey, Query, RangeQuery, RateQuery};
use crate::rocksdb::scan::{Detail, ScanSpec, SeriesScan};
use crate::store::{Plan, Result};

use super::catalog::Catalog;
use super::windows::days_of;
use super::{detail_of_aggregate, hours_if_whole, reach_of_rate};

/// The plan of a query; reads the index and what is known of pages, no sample.
///
/// # Errors
/// None today; a plan may come to need IO.
pub fn explain(catalog: &dyn Catalog, scan: &impl SeriesScan, query: &Query) -> Result<Plan> {
    let (range, detail) = match query {
        Query::Range(query) => (query.range, Detail::Samples),
        Query::Aggregate(query) => (query.range, detail_of_aggregate(query)),
        Query::Rate(query) => {
            let (scanned, carried) = reach_of_rate(query);
            let begin = carried.map_or(scanned.start(), |carried| carried.start());
            (
                crate::model::TimeRange::new(begin, scanned.end()).unwrap_or(scanned),
                hours_if_whole(Some(query.interval)),
            )
        }
    };
    let days = days_of(range);
    let count = i64::from(*days.end()) - i64::from(*days.start()) + 1;
    let mut plan = Plan { steps: Vec::new(), series: 0, samples: 0, bytes: 0 };
    let looked_up = format!(
        "look up {} in the index of {count} UTC day{}",
        query.selector(),
        if count == 1 { "" } else { "s" }
    );
    let Some(selected) = catalog.select(query.selector(), days) else {
        plan.steps.push(format!("{looked_up}: the metric is unknown, nothing to read"));
        return Ok(plan);
    };
    let spec = ScanSpec { metric: selected.metric, range, detail };
    let estimate = scan.estimate(&spec, &selected.ids);
    (plan.series, plan.samples, plan.bytes) = (selected.ids.len() as u64, estimate.samples, estimate.bytes);
    plan.steps.push(format!("{looked_up}: {} series", plan.series));
    plan.steps.push(format!("{} from {} to {} (Unix ms)", how(detail), range.start(), range.end()));
    match query {
        Query::Range(query) => plan.steps.extend(steps_of_range(query)),
        Query::Aggregate(query) => plan.steps.extend(steps_of_aggregate(query)),
        Query::Rate(query) => plan.steps.extend(steps_of_rate(query)),
    }
    Ok(plan)
}

fn how(detail: Detail) -> &'static str {
    match detail {
        Detail::Existence => "look for a sample of each series",
        Detail::Hours => "read hour summaries where they may answer, decode samples elsewhere",
        Detail::Samples => "decode every sample",
    }
}

fn steps_of_range(query: &RangeQuery) -> [String; 1] {
    [format!("order by time, then series; keep the first {} rows", query.limit)]
}

fn steps_of_aggregate(query: &AggregateQuery) -> [String; 2] {
    let name = query.aggregation.name();
    let exactly = if query.aggregation.quantile().is_some() { " of all values, exactly," } else { "" };
    let gap = query.max_gap.map_or(String::new(), |gap| format!(" without segments over {gap} ms"));
    let windows = query.interval.map_or("the whole range".to_owned(), |width| format!("{width} ms bucket"));
    [format!("{name}{exactly}{gap} per {} and {windows}", groups(&query.group_by)), kept(query.limit)]
}

fn steps_of_rate(query: &RateQuery) -> [String; 2] {
    let (by, width) = (groups(&query.group_by), query.interval);
    [
        format!("add the steps of each series per {by} and {width} ms bucket, by the bucket's seconds"),
        kept(query.limit),
    ]
}

fn groups(keys: &[DimensionKey]) -> String {
    match keys {
        [] => "one group".to_owned(),
        keys => {
            let keys: Vec<&str> = keys.iter().map(DimensionKey::as_str).collect();
            format!("group by {}", keys.join(", "))
        }
    }
}

fn kept(limit: usize) -> String {
    format!("order by group, then time; keep the first {limit} rows")
}
