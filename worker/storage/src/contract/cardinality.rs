//! How many series things have.

use crate::store::{CardinalityCursor, CardinalityQuery};

use super::trial::{Trial, metric, table};

async fn three_metrics(t: &mut Trial) {
    t.write(&[("b{h=1}", 0, 1.0), ("b{h=2}", 0, 1.0), ("a{h=1}", 0, 1.0), ("a{h=2}", 0, 1.0)]).await;
    t.write(&[("c{h=1,r=x}", 0, 1.0), ("c{h=2,r=x}", 0, 1.0), ("c{h=2,r=y}", 0, 1.0), ("c", 0, 1.0)]).await;
    t.write(&[("c{h=1,r=x}", 1_000, 1.0)]).await;
}

pub async fn the_largest_metric_comes_first(t: &mut Trial) {
    three_metrics(t).await;
    assert_eq!(t.cardinality(None).await, ["4 c", "2 a", "2 b"]);
}

pub async fn keys_and_values_of_one_metric(t: &mut Trial) {
    three_metrics(t).await;
    let rows = ["3 h", "3 r", "2 h=2", "2 r=x", "1 h=1", "1 r=y"];
    assert_eq!(t.cardinality(Some("c")).await, rows);
    assert_eq!(t.cardinality(Some("a")).await, ["2 h", "1 h=1", "1 h=2"]);
}

pub async fn pages_go_through_rows_of_equal_count(t: &mut Trial) {
    three_metrics(t).await;
    for of in [None, Some("c"), Some("a")] {
        let whole = t.cardinality(of).await;
        let mut query =
            CardinalityQuery { metric: of.map(metric), prefix: String::new(), after: None, limit: 1 };
        let mut paged = Vec::new();
        loop {
            let page = t.cardinality_page(&query).await;
            assert_eq!(page.rows.len(), 1);
            paged.push(table(&page)[0].clone());
            if !page.more {
                break;
            }
            let row = &page.rows[0];
            let value = row.value.as_deref().map(str::to_owned);
            query.after = Some(CardinalityCursor { series: row.series, name: row.name.to_string(), value });
        }
        assert_eq!(paged, whole);
    }
}

pub async fn a_prefix_keeps_names(t: &mut Trial) {
    t.write(&[("aa{h=1}", 0, 1.0), ("ab{hh=2}", 0, 1.0), ("b{h=1}", 0, 1.0), ("ab{g=h}", 0, 1.0)]).await;
    let page = async |of: Option<&str>, prefix: &str| {
        let query =
            CardinalityQuery { metric: of.map(metric), prefix: prefix.to_owned(), after: None, limit: 9 };
        table(&t.cardinality_page(&query).await)
    };
    assert_eq!(page(None, "a").await, ["2 ab", "1 aa"]);
    assert_eq!(page(Some("ab"), "h").await, ["1 hh", "1 hh=2"]);
}

pub async fn an_unknown_metric_has_no_rows(t: &mut Trial) {
    t.write(&[("m{h=1}", 0, 1.0)]).await;
    assert_eq!(t.cardinality(Some("unknown")).await, [""; 0]);
}
