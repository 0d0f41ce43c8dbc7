//! Samples made one number per group and bucket; percentiles too.

use super::trial::{DAY, HOUR, SECOND, Trial};
use crate::model::Aggregation::{self, Avg, Count, Integral, Max, Min, P50, P95, P99, Sum};
use crate::model::Having;

pub async fn each_aggregation_over_all_samples(t: &mut Trial) {
    t.write(&[("m{host=a}", 0, 1.0), ("m{host=a}", 2_000, 4.0), ("m{host=b}", 1_000, 2.0)]).await;
    t.write(&[("m{host=b}", 3_000, -3.5)]).await;
    let expected = [
        (Avg, "0.875 n=4"),
        (Sum, "3.5 n=4"),
        (Count, "4 n=4"),
        (Min, "-3.5 n=4"),
        (Max, "4 n=4"),
        (P50, "1.5 n=4"),
        (P95, "3.7 n=4"),
        (P99, "3.94 n=4"),
        (Integral, "3.5 n=4"),
    ];
    for (aggregation, line) in expected {
        assert_eq!(t.ask("m").aggregate(aggregation).await, [line], "{aggregation:?}");
    }
}

pub async fn buckets_are_aligned_to_the_epoch(t: &mut Trial) {
    t.write(&[("m", 6_999, 1.0), ("m", 7_000, 2.0), ("m", 13_999, 4.0), ("m", 14_000, 8.0)]).await;
    // T0 is a multiple of 7 s, and 8 s past one of 11 s.
    let seven = t.ask("m").every(7 * SECOND).over(3_000..20_000).aggregate(Sum).await;
    assert_eq!(seven, ["@0 1 n=1", "@7000 6 n=2", "@14000 8 n=1"]);
    let eleven = t.ask("m").every(11 * SECOND).over(3_000..20_000).aggregate(Count).await;
    assert_eq!(eleven, ["@3000 3 n=3", "@14000 1 n=1"]);
}

pub async fn an_empty_bucket_has_no_row(t: &mut Trial) {
    t.write(&[("m", 0, 1.0), ("m", 30_000, 2.0)]).await;
    assert_eq!(t.ask("m").every(10_000).aggregate(Count).await, ["@0 1 n=1", "@30000 1 n=1"]);
}

pub async fn groups_come_in_byte_order_absent_first(t: &mut Trial) {
    t.write(&[("m{g=é}", 0, 1.0), ("m{g=a}", 0, 2.0), ("m{g=B}", 0, 3.0), ("m{x=1}", 0, 4.0)]).await;
    t.write(&[("m{g=aa}", 0, 5.0), ("m{g=a,x=1}", 0, 6.0)]).await;
    let rows = ["- 4 n=1", "B 3 n=1", "a 8 n=2", "aa 5 n=1", "é 1 n=1"];
    assert_eq!(t.ask("m").by("g").aggregate(Sum).await, rows);
}

pub async fn groups_follow_the_order_of_the_keys(t: &mut Trial) {
    t.write(&[("m{a=1,b=2}", 0, 1.0), ("m{a=2,b=1}", 0, 2.0), ("m{a=1}", 0, 3.0), ("m{b=1}", 0, 4.0)]).await;
    let by = async |keys| t.ask("m").by(keys).aggregate(Sum).await;
    assert_eq!(by("a,b").await, ["-|1 4 n=1", "1|- 3 n=1", "1|2 1 n=1", "2|1 2 n=1"]);
    assert_eq!(by("b,a").await, ["-|1 3 n=1", "1|- 4 n=1", "1|2 2 n=1", "2|1 1 n=1"]);
}

pub async fn grouping_by_an_unknown_key_is_one_group(t: &mut Trial) {
    t.write(&[("m{a=1}", 0, 1.0), ("m{a=2}", 0, 2.0)]).await;
    assert_eq!(t.ask("m").by("nobody").aggregate(Sum).await, ["- 3 n=2"]);
    assert_eq!(t.ask("m").by("nobody,a").aggregate(Sum).await, ["-|1 1 n=1", "-|2 2 n=1"]);
}

pub async fn no_sample_no_row(t: &mut Trial) {
    t.write(&[("m{a=1}", 0, 1.0), ("m{a=2}", 5_000, 1.0)]).await;
    for aggregation in Aggregation::ALL {
        assert_eq!(t.ask("m").over(1_000..4_000).aggregate(aggregation).await, [""; 0]);
        assert_eq!(t.ask("unknown").by("a").every(1_000).aggregate(aggregation).await, [""; 0]);
    }
    assert_eq!(t.ask("m").over(0..4_000).by("a").aggregate(Count).await, ["1 1 n=1"]);
    let answer = t.ask("m").over(0..4_000).aggregate_answer(Count).await.unwrap();
    assert_eq!(answer.stats.series_matched, 1);
}

pub async fn groups_then_times_up_to_the_limit(t: &mut Trial) {
    t.write(&[("m{g=b}", 0, 1.0), ("m{g=b}", 1_000, 2.0), ("m{g=a}", 1_000, 3.0), ("m{g=a}", 0, 4.0)]).await;
    let rows = ["a @0 4 n=1", "a @1000 3 n=1", "b @0 1 n=1", "b @1000 2 n=1", "…"];
    assert_eq!(t.ask("m").by("g").every(1_000).limit(4).aggregate(Max).await, rows[..4]);
    let three = t.ask("m").by("g").every(1_000).limit(3).aggregate(Max).await;
    assert_eq!(three, [&rows[..3], &rows[4..]].concat());
}

pub async fn an_overflow_is_not_finite(t: &mut Trial) {
    t.write(&[("m", 0, f64::MAX), ("m", 1_000, f64::MAX), ("n", 0, f64::MAX)]).await;
    assert_eq!(t.ask("m").aggregate(Sum).await, ["null n=2"]);
    assert!(t.ask("n").aggregate(Sum).await[0] != "null n=1");
    let answer = t.ask("m").aggregate_answer(Max).await.unwrap();
    assert_eq!(answer.rows[0].value, f64::MAX);
}

pub async fn a_duplicate_counts_once(t: &mut Trial) {
    t.write(&[("m", 0, 1.0), ("m", 1_000, 5.0), ("m", 0, 3.0)]).await;
    t.settle().await;
    t.write(&[("m", 1_000, 7.0)]).await;
    assert_eq!(t.ask("m").aggregate(Count).await, ["2 n=2"]);
    assert_eq!(t.ask("m").aggregate(Sum).await, ["10 n=2"]);
    assert_eq!(t.ask("m").aggregate(Max).await, ["7 n=2"]);
    assert_eq!(t.ask("m").aggregate(P50).await, ["5 n=2"]);
}

/// A sample each minute of four hours, value = minute.
async fn four_hours(t: &mut Trial) {
    let rows: Vec<_> = (0..240).map(|at: i32| ("m", i64::from(at) * 60 * SECOND, f64::from(at))).collect();
    t.write(&rows).await;
}

pub async fn whole_hours_and_parts_of_hours(t: &mut Trial) {
    four_hours(t).await;
    let hourly = ["@0 1770 n=60", "@3600000 5370 n=60", "@7200000 8970 n=60", "@10800000 12570 n=60"];
    assert_eq!(t.ask("m").every(HOUR).aggregate(Sum).await, hourly);
    // From 0:30 to 3:30, two whole hours between two halves.
    let ask = || t.ask("m").over(HOUR / 2..HOUR * 7 / 2);
    assert_eq!(ask().aggregate(Sum).await, ["21510 n=180"]);
    assert_eq!(ask().aggregate(Avg).await, ["119.5 n=180"]);
    assert_eq!(ask().aggregate(Min).await, ["30 n=180"]);
    assert_eq!(ask().every(2 * HOUR).aggregate(Max).await, ["@0 119 n=90", "@7200000 209 n=90"]);
    assert_eq!(ask().every(DAY).aggregate(Count).await, ["@0 180 n=180"]);
    assert_eq!(t.ask("m").every(HOUR / 2).limit(1).aggregate(Sum).await, ["@0 435 n=30", "…"]);
}

pub async fn hours_with_late_samples_and_rewrites(t: &mut Trial) {
    four_hours(t).await;
    t.settle().await;
    t.write(&[("m", HOUR, 1_000.0), ("m", HOUR + 1, 1.0)]).await;
    let hourly = ["@0 1770 n=60", "@3600000 6311 n=61", "@7200000 8970 n=60", "@10800000 12570 n=60"];
    assert_eq!(t.ask("m").every(HOUR).aggregate(Sum).await, hourly);
    t.settle().await;
    assert_eq!(t.ask("m").every(HOUR).aggregate(Sum).await, hourly);
    assert_eq!(t.ask("m").over(HOUR..2 * HOUR).aggregate(Min).await, ["1 n=61"]);
}

pub async fn extremes_keep_their_signs(t: &mut Trial) {
    t.write(&[("m", 0, -2.0), ("m", 1_000, -7.25), ("m", HOUR, -1e300), ("m", 2 * HOUR, -1e-300)]).await;
    assert_eq!(t.ask("m").over(0..HOUR).aggregate(Max).await, ["-2 n=2"]);
    assert_eq!(t.ask("m").over(0..HOUR).aggregate(Min).await, ["-7.25 n=2"]);
    let extreme = async |of| t.ask("m").aggregate_answer(of).await.unwrap().rows[0].value;
    assert_eq!((extreme(Min).await, extreme(Max).await), (-1e300, -1e-300));
}

pub async fn a_percentile_of_one_sample_is_that_sample(t: &mut Trial) {
    t.write(&[("m", 0, 7.25)]).await;
    for percentile in [P50, P95, P99] {
        assert_eq!(t.ask("m").aggregate(percentile).await, ["7.25 n=1"]);
    }
}

pub async fn a_percentile_lies_between_closest_ranks(t: &mut Trial) {
    t.write(&[("two", 0, 3.0), ("two", 1_000, 1.0)]).await;
    let two = async |of| t.ask("two").aggregate(of).await;
    assert_eq!((two(P50).await, two(P95).await), (vec!["2 n=2".to_owned()], vec!["2.9 n=2".to_owned()]));
    t.write(&[("m", 0, 10.0), ("m", 1, 4.0), ("m", 2, 3.0), ("m", 3, 1.0), ("m", 4, 2.0)]).await;
    assert_eq!(t.ask("m").aggregate(P50).await, ["3 n=5"]);
    assert_eq!(t.ask("m").aggregate(P95).await, ["8.8 n=5"]);
    assert_eq!(t.ask("m").aggregate(P99).await, ["9.76 n=5"]);
}

pub async fn a_percentile_spans_the_series_of_a_group(t: &mut Trial) {
    t.write(&[("m{g=x,h=1}", 0, 1.0), ("m{g=x,h=2}", 0, 9.0), ("m{g=x,h=3}", 0, 2.0), ("m{g=y}", 0, 5.0)])
        .await;
    assert_eq!(t.ask("m").by("g").aggregate(P50).await, ["x 2 n=3", "y 5 n=1"]);
}

pub async fn percentiles_per_bucket(t: &mut Trial) {
    t.write(&[("m", 0, 1.0), ("m", 500, 2.0), ("m", 1_000, 30.0), ("m", 1_500, 10.0), ("m", 1_700, 20.0)])
        .await;
    assert_eq!(t.ask("m").every(1_000).aggregate(P50).await, ["@0 1.5 n=2", "@1000 20 n=3"]);
}

pub async fn percentiles_over_many_samples(t: &mut Trial) {
    // 0..=1000 in a scrambled order: 389 and 1001 have no common factor.
    let value = |at: i64| f64::from(i32::try_from(at * 389 % 1_001).unwrap_or(0));
    let rows: Vec<_> = (0..1_001).map(|at| ("m", at * 20 * SECOND, value(at))).collect();
    t.write(&rows).await;
    assert_eq!(t.ask("m").aggregate(P50).await, ["500 n=1001"]);
    assert_eq!(t.ask("m").aggregate(P95).await, ["950 n=1001"]);
    assert_eq!(t.ask("m").aggregate(P99).await, ["990 n=1001"]);
}

pub async fn rows_out_of_bounds_are_left_out_before_the_limit_counts(t: &mut Trial) {
    t.write(&[("m{h=a}", 0, 1.0), ("m{h=a}", 1_000, 3.0), ("m{h=b}", 0, 8.0), ("m{h=c}", 1_000, 4.0)]).await;
    let ask = |bound| t.ask("m").by("h").having(Having { gte: Some(bound), ..Having::ANY });
    assert_eq!(ask(4.0).aggregate(Aggregation::Sum).await, ["a 4 n=2", "b 8 n=1", "c 4 n=1"]);
    assert_eq!(ask(4.0).limit(2).aggregate(Aggregation::Sum).await, ["a 4 n=2", "b 8 n=1", "…"]);
    assert_eq!(ask(4.0).limit(2).aggregate(Aggregation::Avg).await, ["b 8 n=1", "c 4 n=1"]);
    assert_eq!(ask(2.0).aggregate(Aggregation::Count).await, ["a 2 n=2"]);
    assert_eq!(ask(4.5).aggregate(Aggregation::Max).await, ["b 8 n=1"]);
    assert_eq!(ask(3.5).aggregate(Aggregation::Min).await, ["b 8 n=1", "c 4 n=1"]);
    assert_eq!(ask(2.0).limit(1).aggregate(Aggregation::P50).await, ["a 2 n=2", "…"]);
    assert_eq!(ask(1.0).aggregate(Aggregation::Integral).await, ["a 2 n=2"]);
    let none = ask(9.0).aggregate_answer(Aggregation::Max).await.unwrap();
    assert_eq!((none.rows.len(), none.stats.series_matched, none.stats.truncated), (0, 3, false));
}

pub async fn bounds_are_of_each_bucket(t: &mut Trial) {
    t.write(&[
        ("m{h=a}", 0, 1.0),
        ("m{h=a}", 60_000, 3.0),
        ("m{h=b}", 61_000, 8.0),
        ("m{h=b}", 120_000, 2.0),
    ])
    .await;
    let below = Having { lt: Some(3.5), ..Having::ANY };
    let ask = || t.ask("m").every(60_000).having(below);
    assert_eq!(ask().aggregate(Aggregation::Max).await, ["@0 1 n=1", "@120000 2 n=1"]);
    assert_eq!(
        ask().by("h").limit(2).aggregate(Aggregation::P99).await,
        ["a @0 1 n=1", "a @60000 3 n=1", "…"]
    );
}

pub async fn what_overflowed_is_within_no_bound(t: &mut Trial) {
    t.write(&[("m{h=a}", 0, 1.7e308), ("m{h=a}", 1_000, 1.7e308), ("m{h=b}", 0, 1.0)]).await;
    let ask = |having| t.ask("m").by("h").having(having);
    let above = Having { gt: Some(0.0), ..Having::ANY };
    assert_eq!(ask(above).aggregate(Aggregation::Sum).await, ["b 1 n=1"]);
    assert_eq!(ask(Having::ANY).aggregate_answer(Aggregation::Sum).await.unwrap().rows.len(), 2);
}
