//! What there is to ask.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::contract::trial::{DAY, HOUR, SECOND};
use crate::model::{
    AggregateQuery, Aggregation, DimensionKey, Dimensions, Having, MetricName, Query, RangeQuery, RateQuery,
    Selector, Tenant, TimeRange,
};
use crate::store::{CardinalityCursor, CardinalityQuery, ListQuery};

use super::world::{Row, World};

const INTERVALS: [i64; 10] =
    [SECOND, 1_777, 7 * SECOND, 10 * SECOND, 60 * SECOND, 300 * SECOND, HOUR, 3 * HOUR, DAY, 7 * DAY];
/// Most buckets of a question: a long segment is split at the edges of each.
const MOST_BUCKETS: i64 = 4_000;

/// A listing.
#[derive(Debug, Clone)]
pub enum Listing {
    Metrics(ListQuery),
    Keys(MetricName, ListQuery),
    Values(MetricName, DimensionKey, ListQuery),
}

/// A question about samples.
pub fn query(random: &mut Rng, world: &World, tenant: &Tenant, now: i64) -> Query {
    let (selector, range, value) = about(random, world, tenant, now);
    let limit = if random.u8(..6) == 0 { random.usize(1..30) } else { 10_000 };
    let having = having(random, value);
    match random.u8(..10) {
        0..2 => Query::Range(RangeQuery { selector, range, having, limit }),
        2..8 => Query::Aggregate(AggregateQuery {
            selector,
            range,
            aggregation: *random.choice(&Aggregation::ALL).expect("nine"),
            max_gap: (random.u8(..3) == 0).then(|| *random.choice(&INTERVALS[..7]).expect("some")),
            group_by: keys(random),
            interval: random.bool().then(|| interval(random, &range)),
            having,
            limit,
        }),
        _ => Query::Rate(RateQuery {
            selector,
            range,
            group_by: keys(random),
            interval: interval(random, &range),
            having,
            limit,
        }),
    }
}

/// An aggregate whose two parts add up.
pub fn additive(random: &mut Rng, world: &World, tenant: &Tenant, now: i64) -> AggregateQuery {
    let (selector, range, _) = about(random, world, tenant, now);
    AggregateQuery {
        selector,
        range,
        aggregation: *random.choice(&[Aggregation::Sum, Aggregation::Count]).expect("two"),
        max_gap: None,
        group_by: keys(random),
        interval: None,
        having: Having::ANY,
        limit: usize::MAX,
    }
}

/// Which series, and when: mostly around something that the tenant got lately, whose value comes with it.
fn about(random: &mut Rng, world: &World, tenant: &Tenant, now: i64) -> (Selector, TimeRange, f64) {
    let recent = world.recent_of(tenant);
    match random.choice(&recent) {
        Some(row) if random.u8(..6) > 0 => {
            let filters = filters(random, &row.dimensions);
            let selector = listed(random, &recent, Selector::new(row.metric.clone(), filters));
            (selector, range(random, row.time), row.value)
        }
        _ => (Selector::new(name(random, world), Vec::new()), range(random, now), 0.0),
    }
}

/// Mostly no bounds, else one or two around a value that somebody wrote. They have so many digits that no sum hits one, where
/// the last digits of two backends may differ.
fn having(random: &mut Rng, value: f64) -> Having {
    let bound = |random: &mut Rng| (value * (0.5 + random.f64()) + random.f64()).clamp(-1e300, 1e300);
    match random.u8(..30) {
        0 => Having { gt: Some(bound(random)), ..Having::ANY },
        1 => Having { lt: Some(bound(random)), ..Having::ANY },
        2 => Having { gte: Some(bound(random)), lte: Some(2.0 * bound(random).abs()), ..Having::ANY },
        _ => Having::ANY,
    }
}

/// Mostly none, else some that hold for a series with `dimensions`, and seldom one that never holds.
fn filters(random: &mut Rng, dimensions: &Dimensions) -> Vec<(DimensionKey, String)> {
    if random.u8(..4) > 0 {
        return Vec::new();
    }
    let pairs = dimensions.iter().map(|(key, value)| (key.clone(), value.to_string()));
    let mut filters: Vec<_> = pairs.filter(|_| random.bool()).collect();
    if random.u8(..10) == 0 {
        filters.retain(|(key, _)| key.as_str() != "region");
        filters.push((key("region"), "nowhere".to_owned()));
    }
    filters
}

/// `selector` with some of its filters widened to lists, and seldom with a list more: of values that other series have, that
/// none has, and of none at all.
fn listed(random: &mut Rng, recent: &[&Row], mut selector: Selector) -> Selector {
    let more = key(random.choice(&["host", "region", "_z", "unknown"]).expect("four"));
    let is_new = selector.filters.iter().all(|(key, _)| *key != more);
    let (widened, equal): (Vec<_>, Vec<_>) = selector.filters.into_iter().partition(|_| random.bool());
    selector.filters = equal;
    selector.filters_in = widened.into_iter().map(|(key, value)| (key, vec![value])).collect();
    if is_new && random.u8(..8) == 0 {
        selector.filters_in.push((more, Vec::new()));
    }
    for (key, values) in &mut selector.filters_in {
        let most = *random.choice(&[1, 3, 40]).expect("three");
        let others = recent.iter().filter_map(|row| row.dimensions.get(key.as_str())).take(most);
        values.extend(others.map(|value| value.to_string()));
        if values.is_empty() || random.u8(..5) == 0 {
            values.push(random.choice(&["nowhere", ""]).expect("two").to_string());
        }
        random.shuffle(values);
        let mut seen = BTreeSet::new();
        values.retain(|value| seen.insert(value.clone()));
    }
    selector
}

/// A metric that may not exist.
fn name(random: &mut Rng, world: &World) -> MetricName {
    match random.u8(..6) {
        0 => MetricName::new("unknown").expect("a valid metric"),
        _ => world.metric(random).name.clone(),
    }
}

fn key(name: &str) -> DimensionKey {
    DimensionKey::new(name).expect("a valid key")
}

fn keys(random: &mut Rng) -> Vec<DimensionKey> {
    let mut keys = vec![key("host"), key("region"), key("_z"), key("unknown")];
    random.shuffle(&mut keys);
    keys.truncate(match random.u8(..10) {
        0..4 => 0,
        4..8 => 1,
        8 => 2,
        _ => 4,
    });
    keys
}

/// Minutes to days around `time`, or up to it, with edges often on whole hours.
fn range(random: &mut Rng, time: i64) -> TimeRange {
    let length = *random.choice(&[HOUR / 4, HOUR, 3 * HOUR, 6 * HOUR, DAY, 2 * DAY, 9 * DAY]).expect("some");
    let end = time + 1 + if random.bool() { random.i64(0..length) } else { 0 };
    let start = end - random.i64(1..=length);
    let grain = |random: &mut Rng| *random.choice(&[1, 1, 10 * SECOND, HOUR]).expect("four");
    let (first, last) = (grain(random), grain(random));
    // Outward, so that what the range is about stays in it.
    let (start, end) = (start.div_euclid(first) * first, -(-end).div_euclid(last) * last);
    TimeRange::new(start, end.max(start + 1)).expect("start before end")
}

fn interval(random: &mut Rng, range: &TimeRange) -> i64 {
    let fine = INTERVALS.iter().position(|interval| range.millis() / interval <= MOST_BUCKETS).unwrap_or(0);
    *random.choice(&INTERVALS[fine..]).expect("a week at least")
}

/// A listing; `known` are values that some listing had.
pub fn listing(random: &mut Rng, world: &World, known: &[String]) -> Listing {
    let list = ListQuery {
        prefix: random.choice(&["", "", "", "h", "h1", "m", "x"]).expect("some").to_string(),
        after: random.bool().then(|| random.choice(known).cloned()).flatten(),
        limit: *random.choice(&[1, 3, 10, 1_000]).expect("some"),
    };
    match random.u8(..8) {
        0 => Listing::Metrics(list),
        1 => Listing::Keys(name(random, world), list),
        2..5 => Listing::Values(name(random, world), keys(random).pop().unwrap_or(key("host")), list),
        _ => Listing::Values(name(random, world), key("host"), list),
    }
}

/// A page of the cardinality table; `known` is a row that some page ended with.
pub fn cardinality(random: &mut Rng, world: &World, known: Option<&CardinalityCursor>) -> CardinalityQuery {
    CardinalityQuery {
        metric: random.bool().then(|| name(random, world)),
        prefix: random.choice(&["", "", "m", "h", "_"]).expect("some").to_string(),
        after: random.bool().then(|| known.cloned()).flatten(),
        limit: *random.choice(&[1, 3, 10, 1_000]).expect("some"),
    }
}
