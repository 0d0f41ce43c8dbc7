//! What an operator asks.

use crate::model::{AggregateQuery, Aggregation, Having, Query, Selector, TimeRange};
use crate::store::Usage;

use super::trial::{DAY, HOUR, T0, Trial, key, metric};

async fn usage(t: &Trial) -> Usage {
    t.store().usage(&t.tenant).await.unwrap()
}

pub async fn usage_counts_what_is_held(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=b}", 1_000, 2.0), ("n{h=a}", 1_000, 3.0), ("m{h=a}", -DAY, 4.0)])
        .await;
    let held = usage(t).await;
    assert_eq!((held.metrics, held.series, held.samples), (2, 3, 4));
    assert!(held.bytes > 0);
    t.settle().await;
    let held = usage(t).await;
    assert_eq!((held.metrics, held.series, held.samples), (2, 3, 4));
    t.delete("n", None).await;
    let held = usage(t).await;
    assert_eq!((held.metrics, held.series), (1, 2));
    assert!((3..=4).contains(&held.samples), "an upper bound");
}

pub async fn usage_counts_what_was_accepted_today(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=a}", -3 * DAY, 1.0), ("m{h=b}", 2_000, 1.0)]).await;
    assert_eq!(usage(t).await.samples_today, 3);
    t.write(&[("m{h=b}", 3_000, 1.0)]).await;
    assert_eq!(usage(t).await.samples_today, 4);
    t.wait(12 * HOUR - 1);
    assert_eq!(usage(t).await.samples_today, 4);
    t.wait(1);
    assert_eq!(usage(t).await.samples_today, 0);
    t.write(&[("m{h=b}", 4_000, 1.0)]).await;
    assert_eq!(usage(t).await.samples_today, 1);
}

pub async fn usage_of_a_tenant_without_samples_is_zero(t: &mut Trial) {
    assert_eq!(usage(t).await, Usage::default());
}

pub async fn a_plan_names_the_series_that_match(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=b}", 1_000, 2.0), ("m{h=b,r=x}", 1_000, 3.0), ("n", 1_000, 3.0)])
        .await;
    let plan = async |filters: &[(&str, &str)]| {
        let filters = filters.iter().map(|(name, value)| (key(name), (*value).to_owned())).collect();
        let query = AggregateQuery {
            selector: Selector::new(metric("m"), filters),
            range: TimeRange::new(T0, T0 + DAY).unwrap(),
            aggregation: Aggregation::Avg,
            max_gap: None,
            group_by: vec![key("h")],
            interval: None,
            having: Having::ANY,
            limit: 10,
        };
        t.store().explain(&t.tenant, &Query::Aggregate(query)).await.unwrap()
    };
    assert_eq!(plan(&[]).await.series, 3);
    assert_eq!(plan(&[("h", "b")]).await.series, 2);
    assert_eq!(plan(&[("h", "nobody")]).await.series, 0);
    assert!(!plan(&[]).await.steps.is_empty());
    let mut query = t.ask("m{h=a|b|nobody}").every(1_000).rate_query();
    assert_eq!(t.store().explain(&t.tenant, &Query::Rate(query.clone())).await.unwrap().series, 3);
    query.selector.filters_in[0].1.truncate(1);
    assert_eq!(t.store().explain(&t.tenant, &Query::Rate(query)).await.unwrap().series, 1);
}

pub async fn a_working_store_is_healthy(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0)]).await;
    let health = t.store().health().await;
    assert!(health.healthy() && !health.checks.is_empty(), "{health:?}");
    assert!(!t.store().backend().is_empty());
    assert!(t.store().gauges().iter().all(|gauge| gauge.value.is_finite() && !gauge.help.is_empty()));
}
