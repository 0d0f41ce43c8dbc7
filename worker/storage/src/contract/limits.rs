//! How many metrics and series a write may create.

use crate::model::SeriesLimits;
use crate::store::Refusal::{MetricLimit, SeriesLimit};

use super::trial::Trial;

fn limits(max_metrics: u64, max_series_per_metric: u64) -> SeriesLimits {
    SeriesLimits { max_metrics, max_series_per_metric }
}

pub async fn series_over_the_limit_are_refused_row_by_row(t: &mut Trial) {
    let rows = [
        ("m{h=a}", 1_000, 1.0),
        ("m{h=b}", 1_000, 2.0),
        ("m{h=c}", 1_000, 3.0),
        ("m{h=a}", 2_000, 4.0),
        ("m{h=c}", 2_000, 5.0),
        ("m{h=b}", 2_000, 6.0),
    ];
    let refused = t.write_within(limits(9, 2), &rows).await;
    assert_eq!(refused, [(2, SeriesLimit { limit: 2 }), (4, SeriesLimit { limit: 2 })]);
    assert_eq!(t.ask("m").rows().await, ["1000 1 h=a", "1000 2 h=b", "2000 4 h=a", "2000 6 h=b"]);
}

pub async fn metrics_over_the_limit_are_refused_row_by_row(t: &mut Trial) {
    let rows = [("a", 1_000, 1.0), ("b", 1_000, 2.0), ("c", 1_000, 3.0), ("b{h=x}", 1_000, 4.0)];
    assert_eq!(t.write_within(limits(2, 9), &rows).await, [(2, MetricLimit { limit: 2 })]);
    assert_eq!(t.write_within(limits(2, 9), &[("d", 1_000, 1.0)]).await, [(0, MetricLimit { limit: 2 })]);
    assert_eq!(t.metrics().await, "a b of 2");
    assert_eq!(t.write_within(limits(3, 9), &[("d", 1_000, 1.0)]).await, []);
}

pub async fn known_series_go_on_at_the_limit(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=b}", 1_000, 2.0), ("n", 1_000, 3.0)]).await;
    let rows = [("m{h=a}", 2_000, 1.0), ("m{h=c}", 2_000, 2.0), ("m{h=b}", 2_000, 3.0), ("n", 2_000, 3.0)];
    assert_eq!(t.write_within(limits(1, 1), &rows).await, [(1, SeriesLimit { limit: 1 })]);
    assert_eq!(t.write_within(limits(0, 0), &[("m{h=a}", 3_000, 5.0)]).await, []);
    assert_eq!(t.ask("m{h=a}").rows().await, ["1000 1 h=a", "2000 1 h=a", "3000 5 h=a"]);
}

pub async fn a_refused_row_leaves_nothing(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0)]).await;
    let rows = [("m{x=new}", 1_000, 1.0), ("n{y=new}", 1_000, 2.0), ("m{h=a}", 2_000, 3.0)];
    let refused = t.write_within(limits(1, 1), &rows).await;
    assert_eq!(refused, [(0, SeriesLimit { limit: 1 }), (1, MetricLimit { limit: 1 })]);
    assert_eq!(t.metrics().await, "m of 1");
    assert_eq!(t.keys("m").await, "h of 1");
    assert_eq!(t.cardinality(None).await, ["1 m"]);
    assert_eq!(t.store().lookup(&t.tenant).find(t.spelling("m{x=new}")), None);
    assert_eq!(t.all("m").await, ["1000 1 h=a", "2000 3 h=a"]);
    assert_eq!(t.all("n").await, [""; 0]);
    // A new metric that may have no series isn't created either.
    assert_eq!(t.write_within(limits(9, 0), &[("o", 1_000, 1.0)]).await, [(0, SeriesLimit { limit: 0 })]);
    assert_eq!(t.metrics().await, "m of 1");
}

pub async fn series_are_counted_per_metric(t: &mut Trial) {
    let rows =
        [("m{h=a}", 1_000, 1.0), ("n{h=a}", 1_000, 2.0), ("m{h=b}", 1_000, 3.0), ("n{h=b}", 1_000, 4.0)];
    let refused = t.write_within(limits(9, 1), &rows).await;
    assert_eq!(refused, [(2, SeriesLimit { limit: 1 }), (3, SeriesLimit { limit: 1 })]);
}

pub async fn deleted_series_make_room(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("n", 1_000, 1.0)]).await;
    t.delete("m", Some(2_000)).await;
    let still = t.write_within(limits(2, 1), &[("m{h=b}", 3_000, 1.0)]).await;
    assert_eq!(still, [(0, SeriesLimit { limit: 1 })], "the day is not over");
    t.delete("m", None).await;
    assert_eq!(t.write_within(limits(2, 1), &[("m{h=b}", 3_000, 1.0)]).await, []);
    let refused = t.write_within(limits(2, 1), &[("m{h=a}", 3_000, 1.0)]).await;
    assert_eq!(refused, [(0, SeriesLimit { limit: 1 })]);
    t.delete("n", None).await;
    assert_eq!(t.write_within(limits(2, 1), &[("o", 3_000, 1.0)]).await, []);
    assert_eq!(t.metrics().await, "m o of 2");
}

pub async fn a_described_series_may_be_known(t: &mut Trial) {
    t.write(&[("m{h=a,r=x}", 1_000, 1.0)]).await;
    // Spelled otherwise, in one batch twice: the same series.
    let rows = [("m{r=x,h=a}", 2_000, 2.0), ("m{h=a,r=x}", 3_000, 3.0)];
    assert_eq!(t.write_within(limits(1, 1), &rows).await, []);
    assert_eq!(t.cardinality(None).await, ["1 m"]);
    assert_eq!(t.all("m").await, ["1000 1 h=a,r=x", "2000 2 h=a,r=x", "3000 3 h=a,r=x"]);
}
