//! Names of what is present.

use super::trial::{Trial, list};

pub async fn metrics_are_sorted_by_bytes(t: &mut Trial) {
    t.write(&[("b", 0, 1.0), ("a_", 0, 1.0), ("B", 0, 1.0), ("a", 0, 1.0), ("a1", 0, 1.0), ("_x", 0, 1.0)])
        .await;
    assert_eq!(t.metrics().await, "B _x a a1 a_ b of 6");
}

pub async fn a_listing_has_a_prefix_a_limit_and_a_cursor(t: &mut Trial) {
    t.write(&[("a", 0, 1.0), ("ab", 0, 1.0), ("abc", 0, 1.0), ("ad", 0, 1.0), ("b", 0, 1.0)]).await;
    assert_eq!(t.metrics_page("ab", None, 10).await, "ab abc of 2");
    assert_eq!(t.metrics_page("a", None, 2).await, "a ab … of 4");
    assert_eq!(t.metrics_page("a", Some("ab"), 2).await, "abc ad of 4");
    assert_eq!(t.metrics_page("a", Some("ad"), 2).await, "of 4");
    assert_eq!(t.metrics_page("", Some("ad"), 1).await, "b of 5");
    assert_eq!(t.metrics_page("x", None, 1).await, "of 0");
}

pub async fn a_cursor_need_not_be_a_name(t: &mut Trial) {
    t.write(&[("m{k=a}", 0, 1.0), ("m{k=c}", 0, 1.0), ("m{k=ca}", 0, 1.0)]).await;
    assert_eq!(t.values_page("m", "k", &list("", Some("b"), 1)).await, "c … of 3");
    assert_eq!(t.values_page("m", "k", &list("c", Some("b"), 5)).await, "c ca of 2");
    assert_eq!(t.values_page("m", "k", &list("c", Some("d"), 5)).await, "of 2");
    assert_eq!(t.values_page("m", "k", &list("", Some(""), 5)).await, "a c ca of 3");
}

pub async fn keys_and_values_of_a_metric(t: &mut Trial) {
    t.write(&[("m{host=b,Zone=é}", 0, 1.0), ("m{host=a}", 0, 1.0), ("m{host=b}", 0, 1.0), ("m", 0, 1.0)])
        .await;
    t.write(&[("n{other=x,host=n}", 0, 1.0), ("m{host=A/%2e}", 0, 1.0)]).await;
    assert_eq!(t.keys("m").await, "Zone host of 2");
    assert_eq!(t.values("m", "host").await, "A/%2e a b of 3");
    assert_eq!(t.values("m", "Zone").await, "é of 1");
    assert_eq!(t.values_page("m", "host", &list("a", None, 5)).await, "a of 1");
    assert_eq!(t.keys("n").await, "host other of 2");
}

pub async fn listings_of_what_does_not_exist_are_empty(t: &mut Trial) {
    t.write(&[("m{host=a}", 0, 1.0), ("n{zone=a}", 0, 1.0)]).await;
    assert_eq!(t.keys("unknown").await, "of 0");
    assert_eq!(t.values("unknown", "host").await, "of 0");
    assert_eq!(t.values("m", "zone").await, "of 0");
    assert_eq!(t.values("m", "nobody").await, "of 0");
}
