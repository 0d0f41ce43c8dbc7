//! Increase per second.

use super::trial::{HOUR, SECOND, Trial};
use crate::model::Having;

pub async fn a_rate_is_the_increase_per_second(t: &mut Trial) {
    t.write(&[("m", 0, 10.0), ("m", 4_000, 15.0), ("m", 8_000, 35.0)]).await;
    assert_eq!(t.ask("m").every(10_000).rate().await, ["@0 2.5"]);
}

pub async fn a_reset_counts_the_new_value(t: &mut Trial) {
    t.write(&[("m", 0, 10.0), ("m", 1_000, 16.0), ("m", 2_000, 4.0), ("m", 3_000, 5.0)]).await;
    assert_eq!(t.ask("m").every(10_000).rate().await, ["@0 1.1"]);
    assert_eq!(t.ask("m").every(1_000).rate().await, ["@1000 6", "@2000 4", "@3000 1"]);
}

pub async fn the_carry_in_begins_the_first_step(t: &mut Trial) {
    t.write(&[("m", 9_000, 1.0), ("m", 11_000, 6.0), ("m", 19_000, 7.0)]).await;
    assert_eq!(t.ask("m").over(10_000..20_000).every(10_000).rate().await, ["@10000 0.6"]);
    assert_eq!(t.ask("m").over(11_000..20_000).every(10_000).rate().await, ["@10000 0.6"]);
    assert_eq!(t.ask("m").over(9_000..20_000).every(10_000).rate().await, ["@10000 0.6"]);
}

pub async fn a_carry_in_is_at_most_one_interval_old(t: &mut Trial) {
    t.write(&[("m", 5_000, 1.0), ("m", 21_000, 6.0), ("m", 22_000, 8.0)]).await;
    let from = async |start, every| t.ask("m").over(start..30_000).every(every).rate().await;
    assert_eq!(from(15_000, 10_000).await, ["@20000 0.7"]);
    assert_eq!(from(15_001, 10_000).await, ["@20000 0.2"]);
    assert_eq!(from(15_001, 5_000).await, ["@20000 0.4"]);
    assert_eq!(from(21_000, 16_000).await, ["@16000 0.4375"]);
}

pub async fn the_last_of_several_carry_ins_counts(t: &mut Trial) {
    t.write(&[("m", 7_000, 1.0), ("m", 9_999, 3.0), ("m", 10_000, 4.0)]).await;
    assert_eq!(t.ask("m").over(10_000..20_000).every(10_000).rate().await, ["@10000 0.1"]);
}

pub async fn a_step_belongs_to_the_bucket_of_its_later_sample(t: &mut Trial) {
    t.write(&[("m", 9_999, 0.0), ("m", 10_000, 10.0), ("m", 35_000, 30.0)]).await;
    assert_eq!(t.ask("m").every(10_000).rate().await, ["@10000 1", "@30000 2"]);
}

pub async fn a_bucket_without_a_step_has_no_row(t: &mut Trial) {
    t.write(&[("m", 500, 7.0)]).await;
    assert_eq!(t.ask("m").every(1_000).rate().await, [""; 0]);
    let answer = t.ask("m").every(1_000).rate_answer().await.unwrap();
    assert_eq!((answer.stats.series_matched, answer.stats.truncated), (1, false));
}

pub async fn a_cut_bucket_is_divided_by_the_whole_interval(t: &mut Trial) {
    t.write(&[
        ("m", 5_000, 0.0),
        ("m", 6_000, 5.0),
        ("m", 9_000, 10.0),
        ("m", 12_000, 20.0),
        ("m", 18_000, 50.0),
    ])
    .await;
    assert_eq!(t.ask("m").over(5_500..13_000).every(10_000).rate().await, ["@0 1", "@10000 1"]);
}

pub async fn rates_add_up_over_the_series_of_a_group(t: &mut Trial) {
    t.write(&[("m{g=x,h=1}", 0, 0.0), ("m{g=x,h=2}", 0, 100.0), ("m{g=y}", 0, 5.0), ("m", 0, 1.0)]).await;
    t.write(&[("m{g=x,h=1}", 1_000, 2.0), ("m{g=x,h=2}", 1_000, 103.0), ("m{g=y}", 1_500, 6.0)]).await;
    t.write(&[("m", 2_000, 9.0)]).await;
    let rows = ["- @2000 8", "x @1000 5", "y @1000 1", "…"];
    assert_eq!(t.ask("m").by("g").every(1_000).rate().await, rows[..3]);
    assert_eq!(t.ask("m").every(1_000).rate().await, ["@1000 6", "@2000 8"]);
    assert_eq!(t.ask("m").by("g").every(1_000).limit(2).rate().await, ["- @2000 8", "x @1000 5", "…"]);
    assert_eq!(t.ask("m{g=x}").every(1_000).rate().await, ["@1000 5"]);
}

pub async fn a_constant_counter_has_rate_0(t: &mut Trial) {
    t.write(&[("m", 0, 5.0), ("m", 1_000, 5.0)]).await;
    assert_eq!(t.ask("m").every(1_000).rate().await, ["@1000 0"]);
}

pub async fn a_carry_in_alone_matches_no_series(t: &mut Trial) {
    t.write(&[("m", 500, 5.0)]).await;
    let answer = t.ask("m").over(1_000..9_000).every(1_000).rate_answer().await.unwrap();
    assert_eq!((answer.rows.len(), answer.stats.series_matched), (0, 0));
}

pub async fn rates_over_whole_hours(t: &mut Trial) {
    // 10 more each 100 s, with a reset to 0 at 2:00.
    let value = |at: i32| 10.0 * f64::from(if at < 72 { at } else { at - 72 });
    let rows: Vec<_> = (0..144).map(|at: i32| ("m", i64::from(at) * 100 * SECOND, value(at))).collect();
    t.write(&rows).await;
    // The first hour lacks the step to its first sample; the reset's step counts its new value, 0.
    let hourly = ["@0 0.09722222222", "@3600000 0.1", "@7200000 0.09722222222", "@10800000 0.1"];
    assert_eq!(t.ask("m").every(HOUR).rate().await, hourly);
    assert_eq!(t.ask("m").over(HOUR..4 * HOUR).every(HOUR).rate().await, hourly[1..]);
    assert_eq!(t.ask("m").over(HOUR + 1..2 * HOUR).every(HOUR).rate().await, ["@3600000 0.09722222222"]);
}

pub async fn bounds_are_of_the_rate(t: &mut Trial) {
    t.write(&[("m{h=a}", 0, 0.0), ("m{h=a}", 30_000, 60.0), ("m{h=a}", 90_000, 240.0), ("m{h=b}", 0, 0.0)])
        .await;
    t.write(&[("m{h=b}", 30_000, 6.0)]).await;
    let ask = |having| t.ask("m").by("h").every(60_000).having(having);
    assert_eq!(ask(Having::ANY).rate().await, ["a @0 1", "a @60000 3", "b @0 0.1"]);
    assert_eq!(ask(Having { gte: Some(1.0), ..Having::ANY }).rate().await, ["a @0 1", "a @60000 3"]);
    assert_eq!(ask(Having { lt: Some(3.0), ..Having::ANY }).limit(1).rate().await, ["a @0 1", "…"]);
}
