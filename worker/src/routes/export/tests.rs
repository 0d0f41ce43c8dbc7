use std::sync::Arc;

use luminate_storage::store::ErrorKind;
use serde_json::json;

use super::super::testing::{App, Fails, NOW};

const EXPORT: &str = "/api/v1/admin/export";

async fn fleet() -> App {
    let app = App::new();
    let sample = |name: &str, at: i64, host: &str| json!({"name": name, "timestamp": NOW + at, "value": at, "dimensions": {"host": host}});
    let samples = [
        sample("b", 0, "x"),
        sample("a", 2, "y"),
        sample("a", 1, "y"),
        sample("a", 1, "x"),
        json!({"name": "c", "timestamp": NOW, "value": 0.5}),
    ];
    assert_eq!(app.post("/api/v1/write", &json!({"metrics": samples})).await.status, 200);
    app
}

#[tokio::test]
async fn everything_is_exported_in_order_and_summed_up() {
    let app = fleet().await;
    let series = |metric: &str, values: &str, times: &[i64]| {
        let times: Vec<i64> = times.iter().map(|at| NOW + at).collect();
        format!("{{\"metric\":{metric},\"values\":{values},\"timestamps\":{times:?}}}\n").replace(", ", ",")
    };
    let ax = series(r#"{"__name__":"a","host":"x"}"#, "[1]", &[1]);
    let ay = series(r#"{"__name__":"a","host":"y"}"#, "[1,2]", &[1, 2]);
    let bx = series(r#"{"__name__":"b","host":"x"}"#, "[0]", &[0]);
    let c = series(r#"{"__name__":"c"}"#, "[0.5]", &[0]);
    let late = series(r#"{"__name__":"a","host":"y"}"#, "[2]", &[2]);
    let summary = |metrics: u64, series: u64, samples: u64| {
        format!("{{\"summary\":{{\"metrics\":{metrics},\"series\":{series},\"samples\":{samples}}}}}\n")
    };
    for (query, expected) in [
        (String::new(), [&ax, &ay, &bx, &c, &summary(3, 4, 5)].map(String::as_str).concat()),
        ("?metric=a&format=jsonl".into(), [&ax, &ay, &summary(1, 2, 3)].map(String::as_str).concat()),
        (format!("?start={}", NOW + 2), [&late, &summary(1, 1, 1)].map(String::as_str).concat()),
        (format!("?end={}", NOW + 1), [&bx, &c, &summary(2, 2, 2)].map(String::as_str).concat()),
        (
            "?filters=%7B%22host%22:%22x%22%7D".into(),
            [&ax, &bx, &summary(2, 2, 2)].map(String::as_str).concat(),
        ),
        ("?metric=unknown".into(), summary(0, 0, 0)),
    ] {
        let answer = app.get(&format!("{EXPORT}{query}")).await;
        assert_eq!(answer.text(), format!("200 {expected}"), "{query}");
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    }
    let csv = app.get(&format!("{EXPORT}?format=csv")).await;
    let (first, second) = (NOW + 1, NOW + 2);
    let expected = format!(
        "200 __name__,__timestamp__,__value__,host\na,{first},1,x\na,{first},1,y\na,{second},2,y\nb,{NOW},0,x\nc,{NOW},0.5,\n"
    );
    assert_eq!(csv.text(), expected);
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let app = App::new();
    for (query, expected) in [
        ("metric=a%20b", "400 INVALID_METRIC_NAME"),
        ("start=soon", "400 INVALID_PARAMETER a time must be"),
        ("start=5&end=5", "400 INVALID_PARAMETER start must lie before end"),
        ("format=xml", "400 INVALID_PARAMETER format must be jsonl or csv"),
        ("filters=host", "400 INVALID_PARAMETER filters must be a JSON object"),
        ("filters=%7B%22__x%22:%22y%22%7D", "400 INVALID_DIMENSION_KEY"),
        ("limit=5", "400 INVALID_PARAMETER"),
    ] {
        let answer = app.get(&format!("{EXPORT}?{query}")).await;
        assert!(answer.error().starts_with(expected), "{query}: {}, not {expected}", answer.error());
    }
}

#[tokio::test]
async fn what_fails_before_anything_is_written_has_its_status() {
    for (kind, expected) in [
        (ErrorKind::Cancelled, "409 QUERY_CANCELLED"),
        (ErrorKind::QueryTooLarge, "422 QUERY_TOO_LARGE"),
        (ErrorKind::Internal, "500 INTERNAL"),
    ] {
        let app = App::over(Arc::new(Fails::at_queries(kind)));
        let answer = app.get(&format!("{EXPORT}?metric=m")).await;
        assert!(answer.error().starts_with(expected), "{}, not {expected}", answer.error());
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_export() {
    let store = Arc::new(Fails::never_answering());
    let app = App::over(store.clone());
    let path = format!("{EXPORT}?metric=m");
    let asked = tokio::time::timeout(std::time::Duration::from_millis(20), app.get(&path));
    assert!(asked.await.is_err());
    assert!(store.last_query().cancel.is_cancelled());
}
