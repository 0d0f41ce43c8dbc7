//! What a delete takes, and what it leaves.

use crate::model::Aggregation::{Count, Sum};
use crate::store::Deleted;

use super::trial::{DAY, HOUR, SECOND, Trial};

fn taken(series: u64, samples: u64) -> Deleted {
    Deleted { series, samples }
}

pub async fn a_delete_takes_everything_before(t: &mut Trial) {
    t.write(&[
        ("m{h=a}", 1_000, 1.0),
        ("m{h=a}", 2_000, 2.0),
        ("m{h=b}", 1_999, 3.0),
        ("m{h=c}", 2_000, 4.0),
    ])
    .await;
    assert_eq!(t.delete("m", Some(2_000)).await, taken(2, 2));
    assert_eq!(t.ask("m").rows().await, ["2000 2 h=a", "2000 4 h=c"]);
    assert_eq!(t.delete("m", Some(2_000)).await, taken(0, 0));
}

pub async fn a_delete_without_a_time_takes_all(t: &mut Trial) {
    t.write(&[
        ("m{h=a}", 1_000, 1.0),
        ("m{h=b}", 11 * HOUR, 2.0),
        ("m{h=b}", -4 * DAY, 2.0),
        ("m", 12 * HOUR, 3.0),
    ])
    .await;
    assert_eq!(t.delete("m", None).await, taken(3, 4));
    assert_eq!(t.all("m").await, [""; 0]);
    assert_eq!(t.metrics().await, "of 0");
    assert_eq!(t.keys("m").await, "of 0");
    assert_eq!(t.cardinality(None).await, [""; 0]);
}

pub async fn a_dry_run_only_counts(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=b}", 2_000, 2.0), ("m{h=b}", -2 * DAY, 2.0)]).await;
    assert_eq!(t.count_before("m", Some(2_000)).await, taken(2, 2));
    assert_eq!(t.count_before("m", None).await, taken(2, 3));
    assert_eq!(t.all("m").await, ["-172800000 2 h=b", "1000 1 h=a", "2000 2 h=b"]);
    assert_eq!(t.cardinality(None).await, ["2 m"]);
}

pub async fn a_delete_touches_one_metric(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("mm{h=a}", 1_000, 2.0), ("m_{h=a}", 1_000, 3.0)]).await;
    assert_eq!(t.delete("m", None).await, taken(1, 1));
    assert_eq!(t.ask("mm").rows().await, ["1000 2 h=a"]);
    assert_eq!(t.ask("m_").rows().await, ["1000 3 h=a"]);
    assert_eq!(t.metrics().await, "m_ mm of 2");
}

pub async fn a_delete_of_the_unknown_counts_nothing(t: &mut Trial) {
    assert_eq!(t.delete("m", None).await, taken(0, 0));
    t.write(&[("m", 1_000, 1.0)]).await;
    assert_eq!(t.delete("unknown", Some(5_000)).await, taken(0, 0));
    assert_eq!(t.count_before("unknown", None).await, taken(0, 0));
    assert_eq!(t.ask("m").rows().await, ["1000 1"]);
}

pub async fn samples_written_after_a_delete_stay(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=a}", 2_000, 2.0)]).await;
    t.delete("m", Some(5_000)).await;
    t.write(&[("m{h=a}", 1_000, 10.0), ("m{h=a}", 1_500, 15.0)]).await;
    assert_eq!(t.ask("m").rows().await, ["1000 10 h=a", "1500 15 h=a"]);
    t.settle().await;
    assert_eq!(t.ask("m").aggregate(Sum).await, ["25 n=2"]);
    t.delete("m", None).await;
    t.write(&[("m{h=a}", 2_000, 20.0)]).await;
    t.settle().await;
    assert_eq!(t.ask("m").rows().await, ["2000 20 h=a"]);
    assert_eq!(t.values("m", "h").await, "a of 1");
}

pub async fn a_delete_inside_a_day_keeps_presence(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0)]).await;
    assert_eq!(t.delete("m", Some(2_000)).await, taken(1, 1));
    assert_eq!(t.ask("m").rows().await, [""; 0]);
    assert_eq!(t.metrics().await, "m of 1");
    assert_eq!(t.values("m", "h").await, "a of 1");
    t.delete("m", Some(DAY - 1)).await;
    assert_eq!(t.cardinality(Some("m")).await, ["1 h", "1 h=a"]);
}

pub async fn a_delete_of_a_whole_day_ends_presence(t: &mut Trial) {
    t.write(&[("m{h=a}", -DAY, 1.0), ("m{h=b}", -DAY, 1.0), ("m{h=b}", 0, 1.0), ("n{h=a}", -DAY, 1.0)]).await;
    assert_eq!(t.delete("m", Some(-1)).await, taken(2, 2));
    assert_eq!(t.values("m", "h").await, "a b of 2");
    assert_eq!(t.delete("m", Some(0)).await, taken(0, 0));
    assert_eq!(t.values("m", "h").await, "b of 1");
    assert_eq!(t.cardinality(None).await, ["1 m", "1 n"]);
    t.write(&[("m{h=a}", -DAY, 2.0)]).await;
    assert_eq!(t.values("m", "h").await, "a b of 2");
    assert_eq!(t.all("m").await, ["-86400000 2 h=a", "0 1 h=b"]);
}

pub async fn a_deleted_carry_in_begins_no_step(t: &mut Trial) {
    t.write(&[("m", 9_000, 1.0), ("m", 11_000, 6.0), ("m", 12_000, 7.0)]).await;
    t.delete("m", Some(10_000)).await;
    assert_eq!(t.ask("m").over(10_000..20_000).every(10_000).rate().await, ["@10000 0.1"]);
}

pub async fn a_delete_inside_an_hour_is_exact(t: &mut Trial) {
    let rows: Vec<_> = (0..180).map(|at: i32| ("m", i64::from(at) * 60 * SECOND, f64::from(at))).collect();
    t.write(&rows).await;
    t.settle().await;
    // Minutes 0 to 89 go.
    assert_eq!(t.delete("m", Some(89 * 60 * SECOND + 1)).await, taken(1, 90));
    assert_eq!(t.ask("m").every(HOUR).aggregate(Sum).await, ["@3600000 3135 n=30", "@7200000 8970 n=60"]);
    assert_eq!(t.ask("m").aggregate(Count).await, ["90 n=90"]);
}

pub async fn a_delete_counts_a_duplicate_once(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0), ("m", 2_000, 1.0), ("m", 1_000, 2.0)]).await;
    t.settle().await;
    t.write(&[("m", 2_000, 3.0)]).await;
    assert_eq!(t.count_before("m", None).await, taken(1, 2));
    assert_eq!(t.delete("m", Some(1_500)).await, taken(1, 1));
}

pub async fn a_second_delete_does_not_undo_the_first(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0), ("m", 5_000, 5.0), ("m", 9_000, 9.0)]).await;
    assert_eq!(t.delete("m", Some(6_000)).await, taken(1, 2));
    t.write(&[("m", 3_000, 3.0)]).await;
    assert_eq!(t.delete("m", Some(2_000)).await, taken(0, 0));
    assert_eq!(t.ask("m").rows().await, ["3000 3", "9000 9"]);
    t.settle().await;
    assert_eq!(t.ask("m").rows().await, ["3000 3", "9000 9"]);
}
