//! What a plan says of a query that is the same on every backend: what is made of its samples, and which rows are kept.

use crate::model::{AggregateQuery, DimensionKey, Having, Query, RateQuery};

/// The steps that follow reading the samples, in words.
#[must_use]
pub fn made(query: &Query) -> Vec<String> {
    let (made, order, limit) = match query {
        Query::Range(query) => (None, "time, then series", query.limit),
        Query::Aggregate(query) => (Some(aggregated(query)), "group, then time", query.limit),
        Query::Rate(query) => (Some(rated(query)), "group, then time", query.limit),
    };
    let kept = format!("order by {order}; keep the first {limit} rows{}", whose(query.having()));
    made.into_iter().chain([kept]).collect()
}

fn aggregated(query: &AggregateQuery) -> String {
    let name = query.aggregation.name();
    let exactly = if query.aggregation.quantile().is_some() { " of all values, exactly," } else { "" };
    let gap = query.max_gap.map_or(String::new(), |gap| format!(" without segments over {gap} ms"));
    let windows = query.interval.map_or("the whole range".to_owned(), |width| format!("{width} ms bucket"));
    format!("{name}{exactly}{gap} per {} and {windows}", groups(&query.group_by))
}

fn rated(query: &RateQuery) -> String {
    let (by, width) = (groups(&query.group_by), query.interval);
    format!("add the steps of each series per {by} and {width} ms bucket, by the bucket's seconds")
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

fn whose(having: Having) -> String {
    if having.is_any() { String::new() } else { format!(" whose number is {having}") }
}
