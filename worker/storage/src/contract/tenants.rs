//! No call sees anything of another tenant.

use crate::model::Aggregation::Sum;
use crate::model::SeriesLimits;
use crate::store::{Deleted, Usage};

use super::trial::{DAY, RETENTION, Trial};

/// Names that a careless key layout would mix.
const NAMES: [&str; 6] = ["a", "a-", "aa", "A", "a_", "-"];

pub async fn equal_names_of_two_tenants_are_apart(t: &mut Trial) {
    for (name, value) in [("a", 1.0), ("b", 2.0)] {
        t.become_tenant(name);
        t.write(&[("m{host=x}", 1_000, value), ("m{host=x}", 2_000, value)]).await;
    }
    for (name, row) in [("a", "2 n=2"), ("b", "4 n=2")] {
        t.become_tenant(name);
        assert_eq!(t.ask("m").aggregate(Sum).await, [row]);
        assert_eq!(t.cardinality(None).await, ["1 m"]);
    }
}

pub async fn names_that_begin_alike_are_apart(t: &mut Trial) {
    for (at, name) in (0..).zip(NAMES) {
        t.become_tenant(name);
        t.write(&[("m{k=v}", 1_000, f64::from(at)), (&format!("m{{k=v,only=v{at}}}"), 1_000, 1.0)]).await;
        t.write(&[(&format!("only_{at}"), 1_000, 1.0)]).await;
    }
    for (at, name) in (0..).zip(NAMES) {
        t.become_tenant(name);
        assert_eq!(t.ask("m").rows().await, [format!("1000 {at} k=v"), format!("1000 1 k=v,only=v{at}")]);
        assert_eq!(t.metrics().await, format!("m only_{at} of 2"));
        assert_eq!(t.values("m", "only").await, format!("v{at} of 1"));
        assert_eq!(
            t.cardinality(Some("m")).await,
            ["2 k".to_owned(), "2 k=v".to_owned(), "1 only".to_owned(), format!("1 only=v{at}")]
        );
    }
}

pub async fn a_delete_touches_one_tenant(t: &mut Trial) {
    for name in NAMES {
        t.become_tenant(name);
        t.write(&[("m{k=v}", 1_000, 1.0)]).await;
    }
    t.become_tenant("a");
    assert_eq!(t.delete("m", None).await, Deleted { series: 1, samples: 1 });
    assert_eq!(t.metrics().await, "of 0");
    for name in &NAMES[1..] {
        t.become_tenant(name);
        assert_eq!(t.ask("m").rows().await, ["1000 1 k=v"], "{name}");
    }
}

pub async fn retention_belongs_to_one_tenant(t: &mut Trial) {
    for name in ["a", "a-"] {
        t.become_tenant(name);
        t.write(&[("m", -3 * DAY, 1.0)]).await;
    }
    t.set_retention(DAY, &[]).await;
    assert_eq!(t.all("m").await, [""; 0]);
    t.become_tenant("a");
    assert_eq!(t.all("m").await, ["-259200000 1"]);
    assert_eq!(t.store().retention(&t.tenant).await.unwrap().default, RETENTION);
}

pub async fn limits_count_one_tenant(t: &mut Trial) {
    let one = SeriesLimits { max_metrics: 1, max_series_per_metric: 1 };
    for name in ["a", "a-", "aa"] {
        t.become_tenant(name);
        assert_eq!(t.write_within(one, &[("m{k=v}", 1_000, 1.0)]).await, [], "{name}");
        assert_eq!(t.write_within(one, &[("m{k=w}", 1_000, 1.0)]).await.len(), 1, "{name}");
    }
}

pub async fn an_unknown_tenant_has_nothing(t: &mut Trial) {
    t.write(&[("m{k=v}", 1_000, 1.0)]).await;
    t.become_tenant("nobody");
    assert_eq!(t.ask("m").rows().await, [""; 0]);
    assert_eq!(t.ask("m").by("k").every(1_000).aggregate(Sum).await, [""; 0]);
    assert_eq!(t.ask("m").every(1_000).rate().await, [""; 0]);
    assert_eq!(t.metrics().await, "of 0");
    assert_eq!(t.keys("m").await, "of 0");
    assert_eq!(t.values("m", "k").await, "of 0");
    assert_eq!(t.cardinality(None).await, [""; 0]);
    assert_eq!(t.delete("m", None).await, Deleted { series: 0, samples: 0 });
    assert_eq!(t.store().retention(&t.tenant).await.unwrap().default, RETENTION);
    assert_eq!(t.store().usage(&t.tenant).await.unwrap(), Usage::default());
}
