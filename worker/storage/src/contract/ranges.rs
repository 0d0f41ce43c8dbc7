//! Raw samples.

use crate::model::{Aggregation, Having};

use super::trial::{DAY, HOUR, Trial};

pub async fn rows_come_by_time_then_series(t: &mut Trial) {
    t.write(&[("m{host=b}", 2_000, 1.0), ("m{host=a}", 2_000, 2.0), ("m{host=b}", 1_000, 3.0)]).await;
    t.write(&[("m{host=a}", 3_000, 4.0), ("m", 2_000, 5.0), ("other", 2_000, 6.0)]).await;
    let rows = ["1000 3 host=b", "2000 5", "2000 2 host=a", "2000 1 host=b", "3000 4 host=a"];
    assert_eq!(t.ask("m").rows().await, rows);
}

pub async fn series_compare_pair_by_pair(t: &mut Trial) {
    let names = ["m{b=1}", "m{a=2}", "m{a=1,c=1}", "m{a=1}", "m{a=1,b=é}", "m{a=1,b=z}", "m{a=10}", "m{B=9}"];
    let rows: Vec<_> = names.iter().map(|name| (*name, 0, 1.0)).collect();
    t.write(&rows).await;
    let rows =
        ["0 1 B=9", "0 1 a=1", "0 1 a=1,b=z", "0 1 a=1,b=é", "0 1 a=1,c=1", "0 1 a=10", "0 1 a=2", "0 1 b=1"];
    assert_eq!(t.ask("m").rows().await, rows);
}

pub async fn a_range_is_half_open(t: &mut Trial) {
    t.write(&[("m", 999, 1.0), ("m", 1_000, 2.0), ("m", 1_999, 3.0), ("m", 2_000, 4.0)]).await;
    assert_eq!(t.ask("m").over(1_000..2_000).rows().await, ["1000 2", "1999 3"]);
    assert_eq!(t.ask("m").over(1_000..1_001).rows().await, ["1000 2"]);
    assert_eq!(t.ask("m").over(1_001..1_999).rows().await, [""; 0]);
}

pub async fn a_limit_keeps_the_first_rows(t: &mut Trial) {
    t.write(&[("m{host=a}", 3_000, 1.0), ("m{host=b}", 1_000, 2.0), ("m{host=a}", 1_000, 3.0)]).await;
    assert_eq!(t.ask("m").limit(1).rows().await, ["1000 3 host=a", "…"]);
    assert_eq!(t.ask("m").limit(2).rows().await, ["1000 3 host=a", "1000 2 host=b", "…"]);
}

pub async fn a_limit_that_cuts_nothing_is_not_truncation(t: &mut Trial) {
    t.write(&[("m", 1_000, 1.0), ("m", 2_000, 2.0)]).await;
    assert_eq!(t.ask("m").limit(2).rows().await, ["1000 1", "2000 2"]);
    assert_eq!(t.ask("m").over(0..2_000).limit(1).rows().await, ["1000 1"]);
}

pub async fn all_filters_must_hold(t: &mut Trial) {
    t.write(&[("m{a=1,b=1}", 0, 1.0), ("m{a=1,b=2}", 0, 2.0), ("m{a=2,b=1}", 0, 3.0), ("m{a=1}", 0, 4.0)])
        .await;
    assert_eq!(t.ask("m{a=1}").rows().await, ["0 4 a=1", "0 1 a=1,b=1", "0 2 a=1,b=2"]);
    assert_eq!(t.ask("m{b=1,a=1}").rows().await, ["0 1 a=1,b=1"]);
    assert_eq!(t.ask("m{a=2,b=2}").rows().await, [""; 0]);
}

pub async fn one_of_a_list_must_hold(t: &mut Trial) {
    t.write(&[
        ("m{a=1,b=1}", 0, 1.0),
        ("m{a=1,b=2}", 0, 2.0),
        ("m{a=2,b=1}", 0, 3.0),
        ("m{a=3}", 0, 4.0),
        ("m{b=1}", 0, 5.0),
        ("m", 0, 6.0),
    ])
    .await;
    assert_eq!(t.ask("m{a=1|3}").rows().await, ["0 1 a=1,b=1", "0 2 a=1,b=2", "0 4 a=3"]);
    assert_eq!(t.ask("m{a=3|2,b=1}").rows().await, ["0 3 a=2,b=1"]);
    assert_eq!(t.ask("m{a=1|2,b=2|3}").rows().await, ["0 2 a=1,b=2"]);
    // What doesn't exist adds nothing, not even the series that lack the key.
    assert_eq!(t.ask("m{a=2|9||2x}").rows().await, ["0 3 a=2,b=1"]);
    assert_eq!(t.ask("m{a=7|8|9|x||}").rows().await, [""; 0]);
    assert_eq!(t.ask("m{nothing=1|2,a=1}").rows().await, [""; 0]);
}

pub async fn lists_hold_for_every_kind_of_question(t: &mut Trial) {
    let series: Vec<String> = (0..40).map(|host| format!("m{{host=h{host},zone=z{}}}", host % 2)).collect();
    let rows = |time, value: fn(f64) -> f64| {
        (0_u32..).zip(&series).map(move |(host, name)| (name.as_str(), time, value(f64::from(host))))
    };
    t.write(&rows(1_000, |_| 1.0).chain(rows(2_000, |host| host)).collect::<Vec<_>>()).await;
    let all: Vec<String> = (0..40).map(|host| format!("h{host}")).collect();
    for (selector, series, sum) in [
        ("m{host=h3|h4}".to_owned(), 2, 2.0 + 7.0),
        ("m{host=h3|h4|h5|h6|h7,zone=z0}".to_owned(), 2, 2.0 + 10.0),
        (format!("m{{host={}}}", all.join("|")), 40, 40.0 + 780.0),
    ] {
        let aggregate = t.ask(&selector).aggregate_answer(Aggregation::Sum).await.unwrap();
        assert_eq!((aggregate.rows[0].value, aggregate.stats.series_matched), (sum, series), "{selector}");
        let groups =
            t.ask(&selector).by("host").every(1_000).aggregate_answer(Aggregation::Max).await.unwrap();
        assert_eq!(groups.rows.len() as u64, 2 * series, "{selector}");
        let rate = t.ask(&selector).by("host").every(10_000).rate_answer().await.unwrap();
        assert_eq!(rate.stats.series_matched, series, "{selector}");
        let raw = t.ask(&selector).range_answer().await.unwrap();
        assert_eq!(raw.rows.len() as u64, 2 * series, "{selector}");
    }
}

pub async fn what_does_not_exist_is_empty(t: &mut Trial) {
    t.write(&[("m{host=a}", 0, 1.0), ("n{zone=z}", 0, 1.0)]).await;
    for selector in ["unknown", "m{host=b}", "m{zone=z}", "m{host=a,zone=z}", "M", "m{HOST=a}", "m{host=A}"] {
        assert_eq!(t.ask(selector).rows().await, [""; 0], "{selector}");
    }
    assert_eq!(t.ask("m").over(HOUR..DAY).rows().await, [""; 0]);
}

pub async fn series_matched_have_a_sample_in_range(t: &mut Trial) {
    t.write(&[("m{host=a}", 1_000, 1.0), ("m{host=b}", 5_000, 1.0), ("m{host=c}", 1_500, 1.0)]).await;
    let matched =
        async |over| t.ask("m").over(over).limit(1).range_answer().await.unwrap().stats.series_matched;
    assert_eq!(matched(0..2_000).await, 2);
    assert_eq!(matched(0..10_000).await, 3);
    assert_eq!(matched(6_000..10_000).await, 0);
}

pub async fn samples_out_of_bounds_are_no_rows(t: &mut Trial) {
    t.write(&[
        ("m{h=a}", 1_000, 1.0),
        ("m{h=a}", 2_000, 5.0),
        ("m{h=a}", 3_000, 9.0),
        ("m{h=b}", 2_000, 7.0),
    ])
    .await;
    let above = |bound| Having { gt: Some(bound), ..Having::ANY };
    assert_eq!(t.ask("m").having(above(1.0)).rows().await, ["2000 5 h=a", "2000 7 h=b", "3000 9 h=a"]);
    assert_eq!(t.ask("m").having(above(1.0)).limit(2).rows().await, ["2000 5 h=a", "2000 7 h=b", "…"]);
    assert_eq!(t.ask("m").having(above(5.0)).limit(2).rows().await, ["2000 7 h=b", "3000 9 h=a"]);
    let between = Having { gte: Some(5.0), lt: Some(7.0), ..Having::ANY };
    assert_eq!(t.ask("m").having(between).rows().await, ["2000 5 h=a"]);
    let none = t.ask("m").having(above(9.0)).range_answer().await.unwrap();
    assert_eq!((none.rows.len(), none.stats.series_matched, none.stats.truncated), (0, 2, false));
}

pub async fn what_was_written_over_is_out_of_bounds_too(t: &mut Trial) {
    t.write(&[("m{h=a}", 1_000, 9.0), ("m{h=a}", 2_000, 9.0), ("m{h=b}", 1_000, 1.0)]).await;
    t.write(&[("m{h=a}", 1_000, 1.0), ("m{h=b}", 1_000, 9.0)]).await;
    let above = Having { gt: Some(5.0), ..Having::ANY };
    assert_eq!(t.ask("m").having(above).rows().await, ["1000 9 h=b", "2000 9 h=a"]);
    assert_eq!(t.ask("m").having(above).limit(1).rows().await, ["1000 9 h=b", "…"]);
    assert_eq!(t.ask("m{h=a}").having(above).limit(1).rows().await, ["2000 9 h=a"]);
}
