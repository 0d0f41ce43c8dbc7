//! Tests of what a query must not do: go on when it may not, hold or read more than it needs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::model::{AggregateQuery, Aggregation, Having, MetricName, Query, RangeQuery, RateQuery};
use crate::rocksdb::summary::HOUR;
use crate::store::{ErrorKind, QueryContext, Result};

use super::Threads;
use super::fixture::{Plain, between, context, keys, pool, selector};

/// `series` series, each of its own `host`, with a sample a minute for an hour.
fn hosts(series: u32) -> Plain {
    let mut store = Plain::default();
    for number in 0..series {
        // Numbers of series are in no relation to the order of groups.
        let host = format!("{:06}", u64::from(number) * 7_919 % u64::from(series));
        store.add(&[("host", &host)], (0..60).map(|minute| (minute * 60_000, f64::from(number))));
    }
    store
}

fn by_host(aggregation: Aggregation, interval: Option<i64>, limit: usize) -> AggregateQuery {
    AggregateQuery {
        selector: selector(&[]),
        range: between(0, HOUR),
        aggregation,
        max_gap: None,
        group_by: keys(&["host"]),
        interval,
        having: Having::ANY,
        limit,
    }
}

/// Asks every kind of question.
fn every_question(store: &Plain, context: &QueryContext) -> [Result<usize>; 4] {
    let pool = pool();
    let ranged =
        RangeQuery { selector: selector(&[]), range: between(0, HOUR), having: Having::ANY, limit: 100 };
    let rated = RateQuery {
        selector: selector(&[]),
        range: between(60_000, HOUR),
        group_by: Vec::new(),
        interval: 60_000,
        having: Having::ANY,
        limit: 100,
    };
    let average = by_host(Aggregation::Avg, None, 100);
    let median = by_host(Aggregation::P50, Some(60_000), 100);
    [
        super::range(store, store, &ranged, context, Threads::Pool(&pool)).map(|answer| answer.rows.len()),
        super::rate(store, store, &rated, context, Threads::Pool(&pool)).map(|answer| answer.rows.len()),
        super::aggregate(store, store, &average, context, Threads::Pool(&pool))
            .map(|answer| answer.rows.len()),
        super::aggregate(store, store, &median, context, Threads::Pool(&pool))
            .map(|answer| answer.rows.len()),
    ]
}

#[test]
fn a_cancelled_or_late_query_ends_and_so_does_one_that_scans_too_much() {
    let store = hosts(200);
    let cancelled = context();
    cancelled.cancel.cancel();
    let late = QueryContext::with_timeout(Duration::ZERO);
    let mut short = context();
    short.max_scanned_samples = 50;
    let expected = [ErrorKind::Cancelled, ErrorKind::Timeout, ErrorKind::QueryTooLarge];
    for (context, kind) in [cancelled, late, short].iter().zip(expected) {
        for answer in every_question(&store, context) {
            assert_eq!(answer.unwrap_err().kind, kind);
        }
    }
    assert!(every_question(&store, &context()).iter().all(Result::is_ok));
}

#[test]
fn a_query_that_would_hold_too_much_ends() {
    let store = hosts(200);
    let mut small = context();
    small.max_memory = 3_000;
    for answer in every_question(&store, &small) {
        let error = answer.unwrap_err();
        assert_eq!(error.kind, ErrorKind::QueryTooLarge);
        assert!(error.message.contains("3000 bytes of memory"), "{error}");
    }
    // 12,000 values and what surrounds them.
    let median = AggregateQuery { group_by: Vec::new(), ..by_host(Aggregation::P50, None, 10) };
    let mut enough = context();
    enough.max_memory = 12_000 * 8 * 3;
    assert!(super::aggregate(&store, &store, &median, &enough, Threads::Pool(&pool())).is_ok());
    enough.max_memory = 12_000 * 8;
    assert!(super::aggregate(&store, &store, &median, &enough, Threads::Pool(&pool())).is_err());
}

#[test]
fn groups_past_the_limit_are_counted_but_neither_read_nor_held() {
    let store = hosts(20_000);
    for query in [by_host(Aggregation::Max, None, 10), by_host(Aggregation::P99, Some(60_000), 10)] {
        store.brought.store(0, Ordering::Relaxed);
        let mut bounded = context();
        // What grouping the series takes for a moment; all groups' values would take ten megabytes.
        bounded.max_memory = 1_400_000;
        let answer = super::aggregate(&store, &store, &query, &bounded, Threads::Pool(&pool())).unwrap();
        assert_eq!((answer.rows.len(), answer.stats.truncated), (10, true));
        assert_eq!(answer.stats.series_matched, 20_000);
        assert_eq!(answer.rows[0].group[0].as_deref(), Some("000000"));
        let brought = store.brought.load(Ordering::Relaxed) / 60;
        assert!(brought < 4_000, "{brought} of 20000 series were read");
    }
}

#[test]
fn rows_past_the_limit_are_neither_read_nor_held() {
    let store = hosts(5_000);
    let query =
        RangeQuery { selector: selector(&[]), range: between(0, HOUR), having: Having::ANY, limit: 10 };
    let mut bounded = context();
    // 45,000 for the series themselves, 320,000 while they are ranked; each task's few rows; all 300,000 rows would
    // take megabytes.
    bounded.max_memory = 420_000;
    let answer = super::range(&store, &store, &query, &bounded, Threads::Pool(&pool())).unwrap();
    assert_eq!((answer.rows.len(), answer.stats.truncated), (10, true));
    assert_eq!(answer.stats.series_matched, 5_000);
    for (at, row) in answer.rows.iter().enumerate() {
        let host = row.dimensions.get("host").map(AsRef::as_ref);
        assert_eq!((row.timestamp, host), (0, Some(format!("{at:06}").as_str())));
    }
    let brought = store.brought.load(Ordering::Relaxed);
    assert!(brought < 20_000, "{brought} of 300000 samples were read");
}

#[test]
fn a_segment_over_a_billion_buckets_makes_as_many_rows_as_are_wanted() {
    let mut store = Plain::default();
    store.add(&[], [(0, 1.0), (89 * 24 * HOUR, 1.0)]);
    let query = AggregateQuery {
        range: between(0, 90 * 24 * HOUR),
        group_by: Vec::new(),
        ..by_host(Aggregation::Integral, Some(1), 1_000)
    };
    let answer = super::aggregate(&store, &store, &query, &context(), Threads::Pool(&pool())).unwrap();
    assert_eq!((answer.rows.len(), answer.stats.truncated), (1_000, true));
    assert_eq!((answer.rows[999].timestamp, answer.rows[999].count), (Some(999), 0));
    assert!((answer.rows[999].value - 0.001).abs() < 1e-12);
}

#[test]
fn the_limit_itself_is_no_cut() {
    let store = hosts(50);
    let ask = |limit| {
        let query = by_host(Aggregation::Count, None, limit);
        let answer = super::aggregate(&store, &store, &query, &context(), Threads::Pool(&pool())).unwrap();
        (answer.rows.len(), answer.stats.truncated)
    };
    assert_eq!((ask(49), ask(50), ask(51)), ((49, true), (50, false), (50, false)));
}

#[test]
fn sums_survive_an_overflow_in_between_and_show_one_at_the_end() {
    let mut store = Plain::default();
    store.add(&[("host", "a")], [(1, 1e308), (2, 1e308), (3, -1e308), (4, -5e307)]);
    store.add(&[("host", "b")], [(1, 1.5e308), (2, 1.5e308)]);
    let ask = |aggregation| {
        let query = by_host(aggregation, None, 10);
        let answer = super::aggregate(&store, &store, &query, &context(), Threads::Pool(&pool())).unwrap();
        (answer.rows[0].value, answer.rows[1].value)
    };
    let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 1e-9;
    let (sum, overflown) = ask(Aggregation::Sum);
    assert!(near(sum, 5e307) && overflown == f64::INFINITY, "{sum}, {overflown}");
    let (mean, overflown) = ask(Aggregation::Avg);
    assert!(near(mean, 1.25e307) && overflown == f64::INFINITY, "{mean}, {overflown}");
    let (median, finite) = ask(Aggregation::P50);
    assert!(near(median, 2.5e307) && near(finite, 1.5e308), "{median}, {finite}");
}

#[test]
fn an_unknown_metric_or_dimension_is_an_empty_answer() {
    let store = hosts(3);
    let mut query = by_host(Aggregation::Sum, None, 10);
    query.selector = selector(&[("host", "nowhere")]);
    let answer = super::aggregate(&store, &store, &query, &context(), Threads::Pool(&pool())).unwrap();
    assert_eq!(answer, super::nothing());
    query.selector.metric = MetricName::new("unknown").unwrap();
    let answer = super::aggregate(&store, &store, &query, &context(), Threads::Pool(&pool())).unwrap();
    assert_eq!(answer, super::nothing());
    let plan = super::explain(&store, &store, &Query::Aggregate(query)).unwrap();
    assert_eq!(
        plan.steps,
        ["look up unknown where host = \"nowhere\" in the index of 1 UTC day: \
                             the metric is unknown, nothing to read"]
    );
}

#[test]
fn a_plan_names_every_step_and_what_it_would_read() {
    let store = hosts(4);
    let mut query = by_host(Aggregation::P95, Some(60_000), 7);
    query.selector = selector(&[("host", "000001")]);
    let plan = super::explain(&store, &store, &Query::Aggregate(query)).unwrap();
    let expected = [
        "look up m where host = \"000001\" in the index of 1 UTC day: 1 series",
        "decode every sample from 0 to 3600000 (Unix ms)",
        "p95 of all values, exactly, per group by host and 60000 ms bucket",
        "order by group, then time; keep the first 7 rows",
    ];
    assert_eq!(plan.steps, expected);
    assert_eq!((plan.series, plan.samples, plan.bytes), (1, 60, 120));
    let rated = RateQuery {
        selector: selector(&[]),
        range: between(HOUR / 2, HOUR),
        group_by: Vec::new(),
        interval: HOUR,
        having: Having::ANY,
        limit: 5,
    };
    let plan = super::explain(&store, &store, &Query::Rate(rated)).unwrap();
    assert!(plan.steps[1].starts_with("read hour summaries where they may answer"), "{:?}", plan.steps);
    assert!(plan.steps[1].ends_with("from -1800000 to 3600000 (Unix ms)"), "{:?}", plan.steps);
}
