//! Value × seconds.

use super::trial::{HOUR, SECOND, Trial};
use crate::model::Aggregation::Integral;

pub async fn an_integral_is_value_times_seconds(t: &mut Trial) {
    t.write(&[("m", 0, 1.0), ("m", 2_000, 3.0), ("m", 5_000, 3.0)]).await;
    assert_eq!(t.ask("m").aggregate(Integral).await, ["13 n=3"]);
}

pub async fn an_integral_of_one_sample_is_zero(t: &mut Trial) {
    t.write(&[("m", 1_500, 7.0)]).await;
    assert_eq!(t.ask("m").aggregate(Integral).await, ["0 n=1"]);
    assert_eq!(t.ask("m").every(1_000).aggregate(Integral).await, ["@1000 0 n=1"]);
}

pub async fn a_segment_is_split_at_the_edges_of_buckets(t: &mut Trial) {
    t.write(&[("m", 500, 1.0), ("m", 1_500, 2.0)]).await;
    // At 1.0 s the line is at 1.5: 0.5 × 1.25 and 0.5 × 1.75.
    assert_eq!(t.ask("m").every(1_000).aggregate(Integral).await, ["@0 0.625 n=1", "@1000 0.875 n=1"]);
}

pub async fn a_bucket_that_is_crossed_has_a_row_with_count_0(t: &mut Trial) {
    t.write(&[("m", 500, 1.0), ("m", 3_500, 4.0)]).await;
    let rows = ["@0 0.625 n=1", "@1000 2 n=0", "@2000 3 n=0", "@3000 1.875 n=1"];
    assert_eq!(t.ask("m").every(1_000).aggregate(Integral).await, rows);
}

pub async fn a_segment_that_ends_on_an_edge_leaves_nothing_behind_it(t: &mut Trial) {
    t.write(&[("m", 0, 2.0), ("m", 1_000, 4.0)]).await;
    assert_eq!(t.ask("m").every(1_000).aggregate(Integral).await, ["@0 3 n=1", "@1000 0 n=1"]);
}

pub async fn a_segment_over_max_gap_counts_nothing(t: &mut Trial) {
    t.write(&[("m", 0, 1.0), ("m", 1_000, 1.0), ("m", 3_001, 1.0), ("m", 5_001, 1.0)]).await;
    assert_eq!(t.ask("m").max_gap(2_000).aggregate(Integral).await, ["3 n=4"]);
    assert_eq!(t.ask("m").max_gap(2_001).aggregate(Integral).await, ["5.001 n=4"]);
    assert_eq!(t.ask("m").max_gap(999).aggregate(Integral).await, ["0 n=4"]);
}

pub async fn a_segment_over_max_gap_makes_no_row(t: &mut Trial) {
    t.write(&[("m", 500, 1.0), ("m", 3_500, 4.0)]).await;
    let rows = ["@0 0 n=1", "@3000 0 n=1"];
    assert_eq!(t.ask("m").every(1_000).max_gap(2_999).aggregate(Integral).await, rows);
}

pub async fn a_segment_needs_both_samples_in_range(t: &mut Trial) {
    t.write(&[("m", 0, 1.0), ("m", 1_000, 1.0), ("m", 2_000, 1.0), ("m", 3_000, 1.0)]).await;
    assert_eq!(t.ask("m").over(500..3_000).aggregate(Integral).await, ["1 n=2"]);
    let rows = ["@1000 1 n=1", "@2000 0 n=1"];
    assert_eq!(t.ask("m").over(500..3_000).every(1_000).aggregate(Integral).await, rows);
}

pub async fn integrals_add_up_over_series_and_buckets(t: &mut Trial) {
    t.write(&[("m{h=a}", 0, 1.0), ("m{h=b}", 250, -2.0), ("m{h=a}", 2_500, 6.0), ("m{h=b}", 1_750, 8.0)])
        .await;
    assert_eq!(t.ask("m").by("h").aggregate(Integral).await, ["a 8.75 n=2", "b 4.5 n=2"]);
    assert_eq!(t.ask("m").aggregate(Integral).await, ["13.25 n=4"]);
    // a: 2, 4, 2.75; b: 0.75 × (−2 + 3) / 2 and 0.75 × (3 + 8) / 2.
    assert_eq!(
        t.ask("m").every(1_000).aggregate(Integral).await,
        ["@0 2.375 n=2", "@1000 8.125 n=1", "@2000 2.75 n=1"]
    );
}

pub async fn integrals_over_whole_hours(t: &mut Trial) {
    let rows: Vec<_> = (0..20).map(|at: i32| ("m", i64::from(at) * 700 * SECOND, f64::from(at))).collect();
    t.write(&rows).await;
    assert_eq!(t.ask("m").aggregate(Integral).await, ["126350 n=20"]);
    assert_eq!(t.ask("m").over(0..2 * HOUR).aggregate(Integral).await, ["35000 n=11"]);
    // The line is t / 700 s: the area from t0 to t1 is (t1² − t0²) / 1400.
    let hourly = [
        "@0 9257.142857 n=6",
        "@3600000 27771.42857 n=5",
        "@7200000 46285.71429 n=5",
        "@10800000 43035.71429 n=4",
    ];
    assert_eq!(t.ask("m").every(HOUR).aggregate(Integral).await, hourly);
    assert_eq!(t.ask("m").every(HOUR).max_gap(699 * SECOND).aggregate(Integral).await[0], "@0 0 n=6");
}
