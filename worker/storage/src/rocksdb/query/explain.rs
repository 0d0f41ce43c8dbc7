//! What a query would do, in words.

use crate::model::Query;
use crate::plan::made;
use crate::rocksdb::scan::{Detail, ScanSpec, SeriesScan};
use crate::store::{Plan, Result};

use super::catalog::Catalog;
use super::windows::days_of;
use super::{detail_of_aggregate, detail_of_rate, reach_of_rate};

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
            (crate::model::TimeRange::new(begin, scanned.end()).unwrap_or(scanned), detail_of_rate(query))
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
    let spec = ScanSpec::exact(selected.metric, range, detail);
    let estimate = scan.estimate(&spec, &selected.ids);
    (plan.series, plan.samples, plan.bytes) = (selected.ids.len() as u64, estimate.samples, estimate.bytes);
    plan.steps.push(format!("{looked_up}: {} series", plan.series));
    plan.steps.push(format!("{} from {} to {} (Unix ms)", how(detail), range.start(), range.end()));
    plan.steps.extend(made(query));
    Ok(plan)
}

fn how(detail: Detail) -> &'static str {
    match detail {
        Detail::Existence => "look for a sample of each series",
        Detail::Hours(_) => "read hour summaries where they may answer, decode samples elsewhere",
        Detail::Samples => "decode every sample",
    }
}
