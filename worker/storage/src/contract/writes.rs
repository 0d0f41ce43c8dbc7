//! What a write leaves behind.

use crate::model::{Batch, RowSeries, SeriesLimits};
use crate::store::ErrorKind;

use super::trial::{DAY, HOUR, SECOND, T0, Trial};
use crate::model::Aggregation::{Count, Sum};

pub async fn a_written_sample_is_read_back(t: &mut Trial) {
    t.write(&[("m{host=a}", 1_000, 2.5)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 2.5 host=a"]);
}

pub async fn the_later_of_two_rows_in_a_batch_wins(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0), ("m", 2_000, 5.0), ("m", 1_000, 2.0)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 2", "2000 5"]);
}

pub async fn the_later_of_two_batches_wins(t: &mut Trial) {
    t.write(&[("m", 1_000, 9.0)]).await;
    t.write(&[("m", 1_000, 2.0)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 2"]);
    t.write(&[("m", 1_000, 4.0)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 4"]);
}

pub async fn a_rewrite_wins_over_settled_samples(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0), ("m", 2_000, 2.0), ("m", 3_000, 3.0)]).await;
    t.settle().await;
    t.write(&[("m", 2_000, 20.0)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 1", "2000 20", "3000 3"]);
    t.settle().await;
    t.write(&[("m", 2_000, 200.0)]).await;
    t.settle().await;
    assert_eq!(t.ask("m").rows().await, ["1000 1", "2000 200", "3000 3"]);
    assert_eq!(t.ask("m").aggregate(Sum).await, ["204 n=3"]);
}

pub async fn a_late_sample_takes_its_place(t: &mut Trial) {
    t.write(&[("m", 3_000, 3.0), ("m", 9_000, 9.0)]).await;
    t.settle().await;
    t.write(&[("m", 6_000, 6.0), ("m", 1_000, 1.0)]).await;
    t.write(&[("m", -5 * DAY, 0.5)]).await;
    assert_eq!(t.all("m").await, ["-432000000 0.5", "1000 1", "3000 3", "6000 6", "9000 9"]);
}

pub async fn writing_a_batch_again_changes_nothing(t: &mut Trial) {
    let rows = [("m{host=a}", 1_000, 1.0), ("m{host=b}", 1_000, 2.0), ("m{host=a}", 2_000, 3.0)];
    t.write(&rows).await;
    let before = t.ask("m").rows().await;
    t.write(&rows).await;
    t.settle().await;
    t.write(&rows).await;
    assert_eq!(t.ask("m").rows().await, before);
    assert_eq!(t.ask("m").by("host").aggregate(Sum).await, ["a 4 n=2", "b 2 n=1"]);
    assert_eq!(t.cardinality(None).await, ["2 m"]);
}

pub async fn a_series_may_have_no_dimensions(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0), ("m{host=a}", 1_000, 2.0)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 1", "1000 2 host=a"]);
    assert_eq!(t.ask("m").by("host").aggregate(Sum).await, ["- 1 n=1", "a 2 n=1"]);
}

pub async fn dimensions_name_a_series_in_any_order(t: &mut Trial) {
    t.write(&[("m{host=a,region=eu}", 1_000, 1.0), ("m{region=eu,host=a}", 1_000, 2.0)]).await;
    t.write(&[("m{host=a}", 1_000, 3.0), ("m{region=eu}", 1_000, 4.0), ("m{a=eu,host=region}", 1_000, 5.0)])
        .await;
    let rows = ["1000 5 a=eu,host=region", "1000 3 host=a", "1000 2 host=a,region=eu", "1000 4 region=eu"];
    assert_eq!(t.ask("m").rows().await, rows);
}

pub async fn a_known_series_is_written_by_its_handle(t: &mut Trial) {
    t.write(&[("m{host=a}", 1_000, 1.0)]).await;
    // A store may forget a spelling, over a restart at least; then it is described again.
    let lookup = t.store().lookup(&t.tenant);
    let Some(handle) = lookup.find(t.spelling("m{host=a}")) else { return };
    let mut batch = t.batch(SeriesLimits::NONE, &[("m{host=b}", 2_000, 7.0)]);
    batch.push(RowSeries::Known(handle), T0 + 2_000, 2.0);
    batch.push(RowSeries::Known(handle), T0 + 1_000, 3.0);
    t.store().write(&t.tenant, batch).await.unwrap();
    assert_eq!(t.ask("m").rows().await, ["1000 3 host=a", "2000 2 host=a", "2000 7 host=b"]);
}

pub async fn a_spelling_belongs_to_one_tenant(t: &mut Trial) {
    t.write(&[("m{host=a}", 1_000, 1.0)]).await;
    t.become_tenant("acme-");
    let spelling = t.spelling("m{host=a}");
    assert_eq!(t.store().lookup(&t.tenant).find(spelling), None);
}

pub async fn a_stale_handle_stores_nothing(t: &mut Trial) {
    t.write(&[("m{host=a}", 1_000, 1.0)]).await;
    let Some(handle) = t.store().lookup(&t.tenant).find(t.spelling("m{host=a}")) else { return };
    t.store().delete_before(&t.tenant, &super::trial::metric("m"), None, false).await.unwrap();
    assert_eq!(t.store().lookup(&t.tenant).find(t.spelling("m{host=a}")), None, "the spelling is forgotten");
    let mut batch = t.batch(SeriesLimits::NONE, &[("n{host=b}", 2_000, 7.0)]);
    batch.push(RowSeries::Known(handle), T0 + 2_000, 2.0);
    let error = t.store().write(&t.tenant, batch).await.unwrap_err();
    assert_eq!((&error.kind, error.retryable()), (&ErrorKind::StaleSeries, true));
    assert_eq!(t.all("m").await, [""; 0]);
    assert_eq!(t.all("n").await, [""; 0]);
    t.write(&[("m{host=a}", 3_000, 3.0)]).await;
    assert_eq!(t.all("m").await, ["3000 3 host=a"]);
}

pub async fn an_empty_batch_is_accepted(t: &mut Trial) {
    let outcome = t.store().write(&t.tenant, Batch::new(SeriesLimits::NONE)).await.unwrap();
    assert_eq!(outcome.refused, []);
    assert_eq!(t.metrics().await, "of 0");
}

pub async fn values_come_back_bit_by_bit(t: &mut Trial) {
    let values = [
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        5e-324,
        -1.1e-310,
        f64::MAX,
        f64::MIN,
        0.1,
        -0.3,
        1e15 + 0.5,
        9_007_199_254_740_993.0,
        1.0 / 3.0,
        123.45,
    ];
    let rows: Vec<_> = (0..).zip(values).map(|(at, value)| ("m", at * SECOND, value)).collect();
    t.write(&rows).await;
    let answer = t.ask("m").range_answer().await.unwrap();
    let bits: Vec<u64> = answer.rows.iter().map(|row| row.value.to_bits()).collect();
    assert_eq!(bits, values.map(f64::to_bits));
}

pub async fn times_before_the_epoch_are_times(t: &mut Trial) {
    t.set_retention(100 * 365 * DAY, &[]).await;
    t.base = 0;
    t.write(&[("m", -1_500, 1.0), ("m", -1, 2.0), ("m", 0, 4.0), ("m", -400 * DAY, 8.0)]).await;
    let ask = || t.ask("m").over(-2_000..1_000);
    assert_eq!(ask().rows().await, ["-1500 1", "-1 2", "0 4"]);
    assert_eq!(ask().every(1_000).aggregate(Sum).await, ["@-2000 1 n=1", "@-1000 2 n=1", "@0 4 n=1"]);
    assert_eq!(ask().over(-500 * DAY..-DAY).aggregate(Count).await, ["1 n=1"]);
}

pub async fn many_samples_of_one_series(t: &mut Trial) {
    let rows: Vec<_> =
        (0..5_000).map(|at: i32| ("m", i64::from(at) * 7 * SECOND, f64::from(at % 100))).collect();
    for part in rows.chunks(1_000) {
        t.write(part).await;
    }
    assert_eq!(t.ask("m").aggregate(Sum).await, ["247500 n=5000"]);
    let answer = t.ask("m").range_answer().await.unwrap();
    let read: Vec<_> = answer.rows.iter().map(|row| ("m", row.timestamp - T0, row.value)).collect();
    assert_eq!(read, rows);
}

pub async fn one_sample_of_many_series(t: &mut Trial) {
    let names: Vec<String> = (0..3_000).map(|at| format!("m{{host=h{at:04},rack=r{}}}", at % 7)).collect();
    let rows: Vec<_> = (0..).zip(&names).map(|(at, name)| (name.as_str(), 1_000, f64::from(at))).collect();
    t.write(&rows).await;
    assert_eq!(t.ask("m").aggregate(Sum).await, ["4498500 n=3000"]);
    assert_eq!(t.ask("m{rack=r3}").aggregate(Count).await, ["429 n=429"]);
    assert_eq!(t.ask("m{host=h2999}").rows().await, ["1000 2999 host=h2999,rack=r3"]);
    let answer = t.ask("m").range_answer().await.unwrap();
    assert!((0..).zip(&answer.rows).all(|(at, row)| row.value == f64::from(at)), "by host");
    assert_eq!(answer.stats.series_matched, 3_000);
}

pub async fn values_may_be_long_and_of_any_script(t: &mut Trial) {
    let long = "ü".repeat(256);
    let name = format!("m{{a={long},b=東京 {{}}\u{1F980},c= \"\u{1}\\ .}}");
    t.write(&[(&name, 1_000, 1.0)]).await;
    let rows = t.ask("m{b=東京 {}\u{1F980}}").rows().await;
    assert_eq!(rows, [format!("1000 1 a={long},b=東京 {{}}\u{1F980},c= \"\u{1}\\ .")]);
    assert_eq!(t.values("m", "a").await, format!("{long} of 1"));
}

pub async fn a_restart_keeps_everything(t: &mut Trial) {
    t.write(&[("m{host=a}", 1_000, 1.0), ("m{host=b}", HOUR, 2.0), ("n{host=a}", 1_000, 3.0)]).await;
    t.settle().await;
    t.write(&[("m{host=a}", 2_000, 4.0), ("old", -DAY, 1.0)]).await;
    t.delete("n", None).await;
    t.delete("m", Some(1_500)).await;
    t.set_retention(20 * DAY, &[("m", 10 * DAY)]).await;
    for _ in 0..2 {
        t.restart().await;
        assert_eq!(t.ask("m").rows().await, ["2000 4 host=a", "3600000 2 host=b"]);
        assert_eq!(t.metrics().await, "m old of 2");
        assert_eq!(t.cardinality(None).await, ["2 m", "1 old"]);
        let retention = t.store().retention(&t.tenant).await.unwrap();
        assert_eq!((retention.default, retention.metrics.len()), (20 * DAY, 1));
    }
    t.write(&[("m{host=a}", 1_000, 9.0)]).await;
    assert_eq!(t.ask("m{host=a}").rows().await, ["1000 9 host=a", "2000 4 host=a"]);
}
