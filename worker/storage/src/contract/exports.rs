//! Exports: everything, series by series.

use std::time::Duration;

use crate::model::ExportQuery;
use crate::store::{Export, QueryContext};

use super::trial::{DAY, Trial};

pub async fn an_export_goes_series_by_series(t: &mut Trial) {
    t.write(&[("m{host=b}", 2_000, 1.0), ("m{host=a}", 2_000, 2.0), ("m{host=b}", 1_000, 3.0)]).await;
    t.write(&[("m{host=a}", 3_000, 4.0), ("m", 2_000, 5.0), ("other", 2_000, 6.0), ("m{B=9}", 0, 7.0)]).await;
    let rows = ["2000 5", "0 7 B=9", "2000 2 host=a", "3000 4 host=a", "1000 3 host=b", "2000 1 host=b"];
    for piece in [1, 2, 1_000] {
        assert_eq!(t.ask("m").export(piece).await, rows, "{piece}");
    }
    assert_eq!(t.ask("m").over(1_000..2_000).export(10).await, ["1000 3 host=b"]);
    assert_eq!(t.ask("m{host=a}").export(10).await, ["2000 2 host=a", "3000 4 host=a"]);
    assert_eq!(t.ask("unknown").export(10).await, [""; 0]);
    assert_eq!(t.ask("m{host=c}").export(10).await, [""; 0]);
}

pub async fn an_export_has_each_sample_once_in_its_last_version(t: &mut Trial) {
    for version in 1..=3 {
        let rows: Vec<_> = (0..40).map(|at| ("m{h=a}", at * 1_000, f64::from(version))).collect();
        t.write(&rows[..40 - version as usize]).await;
    }
    let mut expected: Vec<String> = (0..37).map(|at| format!("{} 3 h=a", at * 1_000)).collect();
    expected.extend(["37000 2 h=a".to_owned(), "38000 1 h=a".to_owned()]);
    for piece in [1, 4, 7, 1_000] {
        assert_eq!(t.ask("m").export(piece).await, expected, "{piece}");
    }
}

pub async fn an_export_reaches_over_days_and_many_series(t: &mut Trial) {
    let names: Vec<String> = (0..90).map(|series| format!("m{{s={series:02}}}")).collect();
    let mut rows = Vec::new();
    for (at, name) in (0_i64..).zip(&names) {
        // One series in ten is long; others have a sample on some days.
        let samples = if at % 10 == 3 { 60 } else { at % 3 };
        rows.extend((0..samples).map(|n| (name.as_str(), -20 * DAY + n * DAY / 3 + at, n as f64)));
    }
    t.write(&rows).await;
    let line =
        |(name, time, value): &(&str, i64, f64)| format!("{time} {value} {}", &name[2..name.len() - 1]);
    let expected: Vec<String> = rows.iter().map(line).collect();
    for piece in [1, 16, 1_000] {
        assert_eq!(t.ask("m").over(-100 * DAY..100 * DAY).export(piece).await, expected, "{piece}");
    }
}

pub async fn an_export_shows_nothing_deleted_or_expired_or_of_others(t: &mut Trial) {
    t.write(&[("m{h=a}", -DAY, 1.0), ("m{h=a}", 1_000, 2.0), ("m{h=b}", 500, 3.0), ("m{h=b}", 1_500, 4.0)])
        .await;
    t.delete("m", Some(0)).await;
    assert_eq!(t.ask("m").export(2).await, ["1000 2 h=a", "500 3 h=b", "1500 4 h=b"]);
    t.set_retention(DAY / 2, &[]).await;
    t.wait(1_000);
    assert_eq!(t.ask("m").over(-100 * DAY..100 * DAY).export(2).await, ["1000 2 h=a", "1500 4 h=b"]);
    t.become_tenant("acme-2");
    assert_eq!(t.ask("m").export(2).await, [""; 0]);
}

pub async fn an_export_brings_pieces_of_bounded_size(t: &mut Trial) {
    let rows: Vec<_> = (0..500).map(|at| (if at < 400 { "m{h=a}" } else { "m{h=b}" }, at, 1.0)).collect();
    t.write(&rows).await;
    let context = QueryContext::with_timeout(Duration::from_secs(60));
    let query: ExportQuery = t.ask("m").export_query(50);
    let mut export: Box<dyn Export> = t.store().export(&t.tenant, &query, &context).await.unwrap();
    let mut samples = 0;
    loop {
        let piece: usize = export.next().await.unwrap().iter().map(|series| series.timestamps.len()).sum();
        assert!(piece <= 100, "{piece}");
        samples += piece;
        if piece == 0 {
            break;
        }
    }
    assert_eq!(samples, 500);
    assert!(export.next().await.unwrap().is_empty());
}
