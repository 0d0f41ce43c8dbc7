//! What expires, and when. The clock of a trial stands at noon.

use crate::model::Aggregation::{Count, Sum};
use crate::model::SeriesLimits;
use crate::store::{Deleted, Refusal};

use super::trial::{DAY, HOUR, RETENTION, Trial, metric};

pub async fn the_default_is_reported_until_it_is_set(t: &mut Trial) {
    let retention = t.store().retention(&t.tenant).await.unwrap();
    assert_eq!((retention.default, retention.metrics.len()), (RETENTION, 0));
    t.set_retention(DAY, &[("m", HOUR)]).await;
    let retention = t.store().retention(&t.tenant).await.unwrap();
    assert_eq!((retention.default, retention.of(&metric("m"))), (DAY, HOUR));
    assert_eq!(retention.metrics.len(), 1);
}

pub async fn a_sample_expires_to_the_millisecond(t: &mut Trial) {
    t.set_retention(HOUR, &[]).await;
    let edge = 11 * HOUR;
    t.write(&[("m", edge - 1, 1.0), ("m", edge, 2.0), ("m", edge + 1, 4.0), ("m", edge + 5, 8.0)]).await;
    assert_eq!(t.ask("m").aggregate(Sum).await, ["14 n=3"]);
    assert_eq!(t.ask("m").every(HOUR).aggregate(Sum).await, ["@39600000 14 n=3"]);
    t.wait(1);
    assert_eq!(t.ask("m").rows().await, ["39600001 4", "39600005 8"]);
    t.settle().await;
    t.wait(1);
    assert_eq!(t.ask("m").every(HOUR).aggregate(Count).await, ["@39600000 1 n=1"]);
    t.wait(HOUR);
    assert_eq!(t.ask("m").rows().await, [""; 0]);
}

pub async fn a_metric_may_have_its_own(t: &mut Trial) {
    t.write(&[("m", -3 * DAY, 1.0), ("mm", -3 * DAY, 2.0), ("n", -3 * DAY, 3.0), ("m", 0, 4.0)]).await;
    t.set_retention(20 * DAY, &[("m", 2 * DAY), ("unknown", DAY)]).await;
    assert_eq!(t.all("m").await, ["0 4"]);
    assert_eq!(t.all("mm").await, ["-259200000 2"]);
    t.set_retention(2 * DAY, &[("n", 4 * DAY)]).await;
    assert_eq!(t.all("mm").await, [""; 0]);
    assert_eq!(t.all("n").await, ["-259200000 3"]);
}

pub async fn setting_replaces_all(t: &mut Trial) {
    t.set_retention(DAY, &[("m", HOUR), ("n", HOUR)]).await;
    t.set_retention(2 * DAY, &[("n", 3 * HOUR)]).await;
    let retention = t.store().retention(&t.tenant).await.unwrap();
    assert_eq!(retention.default, 2 * DAY);
    assert_eq!(retention.metrics.into_iter().collect::<Vec<_>>(), [(metric("n"), 3 * HOUR)]);
}

pub async fn presence_expires_with_the_whole_day(t: &mut Trial) {
    t.set_retention(2 * DAY, &[]).await;
    t.write(&[("m{h=a}", -DAY + 1_000, 1.0), ("m{h=b}", HOUR, 1.0)]).await;
    // At noon two days on, the sample of yesterday morning is gone, its day is not over.
    t.wait(DAY);
    assert_eq!(t.values("m", "h").await, "a b of 2");
    assert_eq!(t.all("m").await, ["3600000 1 h=b"]);
    t.wait(12 * HOUR - 1);
    assert_eq!(t.values("m", "h").await, "a b of 2");
    t.wait(1);
    assert_eq!(t.values("m", "h").await, "b of 1");
    assert_eq!(t.cardinality(None).await, ["1 m"]);
    t.wait(DAY);
    assert_eq!(t.metrics().await, "of 0");
}

pub async fn an_expired_series_counts_as_new(t: &mut Trial) {
    let one = SeriesLimits { max_metrics: 1, max_series_per_metric: 1 };
    t.set_retention(DAY, &[]).await;
    t.write(&[("m{h=a}", 0, 1.0)]).await;
    let refused = [(0, Refusal::SeriesLimit { limit: 1 })];
    assert_eq!(t.write_within(one, &[("m{h=b}", 12 * HOUR, 1.0)]).await, refused);
    t.wait(2 * DAY);
    assert_eq!(t.write_within(one, &[("m{h=b}", 2 * DAY, 1.0)]).await, []);
    assert_eq!(t.write_within(one, &[("m{h=a}", 2 * DAY, 1.0)]).await, refused);
    t.wait(2 * DAY);
    assert_eq!(t.write_within(one, &[("n", 4 * DAY, 1.0)]).await, []);
    assert_eq!(t.metrics().await, "n of 1");
}

pub async fn a_sample_that_has_expired_leaves_nothing(t: &mut Trial) {
    t.set_retention(DAY, &[]).await;
    t.write(&[("m{h=a}", -3 * DAY, 1.0), ("m{h=b}", 0, 2.0), ("n", -2 * DAY, 3.0)]).await;
    assert_eq!(t.all("m").await, ["0 2 h=b"]);
    assert_eq!(t.metrics().await, "m of 1");
    assert_eq!(t.values("m", "h").await, "b of 1");
}

pub async fn an_expired_carry_in_begins_no_step(t: &mut Trial) {
    t.write(&[("m", 11 * HOUR - 1, 1.0), ("m", 11 * HOUR + 1_000, 5.0), ("m", 11 * HOUR + 2_000, 6.0)]).await;
    let ask = async |t: &Trial| t.ask("m").over(11 * HOUR..12 * HOUR).every(HOUR).rate().await;
    assert_eq!(ask(t).await, ["@39600000 0.001388888889"]);
    t.set_retention(HOUR, &[]).await;
    assert_eq!(ask(t).await, ["@39600000 0.0002777777778"]);
}

pub async fn a_delete_counts_only_what_has_not_expired(t: &mut Trial) {
    t.write(&[("m{h=a}", 10 * HOUR, 1.0), ("m{h=b}", 11 * HOUR, 2.0), ("m{h=b}", 12 * HOUR, 3.0)]).await;
    t.set_retention(HOUR, &[]).await;
    assert_eq!(t.count_before("m", None).await, Deleted { series: 1, samples: 2 });
    assert_eq!(t.delete("m", Some(12 * HOUR)).await, Deleted { series: 1, samples: 1 });
}

/// A longer retention may show again what has expired, but not what was deleted since.
pub async fn a_delete_takes_what_has_expired(t: &mut Trial) {
    t.write(&[("m{h=a}", 0, 1.0)]).await;
    t.set_retention(HOUR, &[]).await;
    t.wait(2 * DAY);
    assert_eq!(t.metrics().await, "of 0");
    assert_eq!(t.delete("m", None).await, Deleted { series: 0, samples: 0 });
    t.set_retention(20 * DAY, &[]).await;
    t.restart().await;
    assert_eq!(t.metrics().await, "of 0");
    t.write(&[("m{h=a}", DAY, 2.0)]).await;
    assert_eq!(t.all("m").await, ["86400000 2 h=a"]);
}
