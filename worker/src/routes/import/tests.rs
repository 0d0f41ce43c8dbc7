use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use luminate_storage::store::{ErrorKind, StoreError};
use serde_json::{Value, json};

use super::super::testing::{App, Fails, NOW};

const IMPORT: &str = "/api/v1/admin/import";
const DAY: i64 = 86_400_000;

fn line(name: &str, values: &str, times: &[i64]) -> String {
    format!("{{\"metric\":{{\"__name__\":\"{name}\",\"host\":\"a\"}},\"values\":{values},\"timestamps\":{times:?}}}\n").replace(", ", ",")
}

async fn import(app: &App, query: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> (u16, Value) {
    let answer = app.send("POST", &format!("{IMPORT}{query}"), headers, body).await;
    (answer.status, answer.json)
}

/// Every line that an export has of its own metric, without the summary.
async fn exported(app: &App, metric: &str) -> String {
    let text = app.get(&format!("/api/v1/admin/export?metric={metric}")).await.text();
    let lines = text.strip_prefix("200 ").unwrap().lines();
    lines.filter(|line| !line.starts_with("{\"summary\"")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_any_age_that_retention_allows_are_stored() {
    let app = App::new();
    let old = line("m", "[1,-0,0.1]", &[NOW - 29 * DAY, NOW - 8 * DAY, NOW]);
    let body = format!("{old}{}", line("m", "[7,8]", &[NOW - 31 * DAY, NOW + DAY]));
    let (status, answer) = import(&app, "", &[], body).await;
    assert_eq!(status, 207, "{answer}");
    assert_eq!(
        (&answer["accepted"], &answer["rejected"], &answer["lines"]),
        (&json!(3), &json!(2), &json!(2))
    );
    let error = &answer["errors"][0];
    let expected = (&json!(2), &json!(2), &json!("m"), &json!("TIMESTAMP_OUT_OF_RANGE"));
    assert_eq!((&error["line"], &error["samples"], &error["metric"], &error["code"]), expected);
    assert_eq!(exported(&app, "m").await, old);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_imported_again_in_either_format_and_encoding() {
    let app = App::new();
    let text = [line("a", "[1,2]", &[NOW, NOW + 1]), line("b", "[3]", &[NOW])].concat();
    assert_eq!(import(&app, "", &[], text).await.0, 200);
    for format in ["jsonl", "csv"] {
        let export = format!("/api/v1/admin/export?format={format}");
        let whole = app.get(&export).await.text()[4..].to_owned();
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, whole.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = zstd::stream::encode_all(whole.as_bytes(), 1).unwrap();
        for (encoding, body) in [("identity", whole.clone().into_bytes()), ("gzip", gzip), ("zstd", zstd)] {
            let other = App::new();
            let query = format!("?format={format}");
            let (status, answer) = import(&other, &query, &[("content-encoding", encoding)], body).await;
            assert_eq!((status, &answer["accepted"]), (200, &json!(3)), "{format} {encoding}: {answer}");
            let complete = if format == "jsonl" { json!(true) } else { Value::Null };
            assert_eq!(answer["complete"], complete);
            assert_eq!(other.get(&export).await.text()[4..], whole, "{format} {encoding}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_has_a_header_or_is_told_its_columns() {
    let app = App::new();
    let with_header = format!("host,metric,timestamp,value\na,m,{NOW},1\n");
    for headers in [&[("content-type", "text/csv")][..], &[("content-type", "text/csv; charset=utf-8")]] {
        assert_eq!(import(&app, "", headers, with_header.clone()).await.0, 200);
    }
    let told = "?format=csv&columns=1:label:host,2:metric:m,3:time:unix_ms";
    assert_eq!(import(&app, told, &[], format!("b,2,{NOW}\n")).await.0, 200);
    assert_eq!(
        import(&app, &format!("{told}&header=true"), &[], format!("any,,header\nc,3,{NOW}")).await.0,
        200
    );
    let rows: Vec<Value> = app.samples("m").await.as_array().unwrap().clone();
    let seen: Vec<_> =
        rows.iter().map(|row| (row["dimensions"]["host"].clone(), row["value"].clone())).collect();
    assert_eq!(seen, [(json!("a"), json!(1.0)), (json!("b"), json!(2.0)), (json!("c"), json!(3.0))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let app = App::new();
    for (query, headers, body, expected) in [
        ("?format=xml", &[][..], "", "400 INVALID_PARAMETER format must be jsonl or csv"),
        ("?columns=1:value", &[], "", "400 INVALID_PARAMETER columns and header are for CSV"),
        ("?format=csv&columns=x", &[], "", "400 INVALID_PARAMETER \"x\": a column's number comes first"),
        ("?format=csv&header=x", &[], "", "400 INVALID_PARAMETER header must be"),
        ("?fromat=csv", &[], "", "400 INVALID_PARAMETER"),
        (
            "",
            &[("content-encoding", "br")],
            "",
            "415 UNSUPPORTED_ENCODING Content-Encoding must be gzip, zstd or",
        ),
        ("?format=csv", &[], "", "400 INVALID_BODY there is no header"),
        ("?format=csv", &[], "a,b\n1,2\n", "400 INVALID_BODY the header has neither __name__ nor metric"),
        ("", &[("content-encoding", "gzip")], "not gzip", "400 INVALID_BODY the body is not valid gzip"),
        ("", &[("content-encoding", "zstd")], "not zstd", "400 INVALID_BODY the body is not valid zstd"),
        ("", &[], "nonsense", "400 ALL_REJECTED no sample was accepted"),
        ("?format=csv", &[], "metric,timestamp,value\nm,x,1", "400 ALL_REJECTED"),
    ] {
        let answer = app.send("POST", &format!("{IMPORT}{query}"), headers, body).await;
        assert!(answer.error().starts_with(expected), "{query}: {}, not {expected}", answer.error());
    }
    let nothing = import(&app, "", &[], "").await;
    assert_eq!((nothing.0, &nothing.1["complete"]), (200, &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_ends_early_says_how_far_everything_is_stored() {
    let good = line("m", "[1]", &[NOW]);
    // 1. The body breaks off.
    let app = App::new();
    let frames = [Ok(Bytes::from(format!("{good}{good}{{\"metric"))), Err(std::io::Error::other("gone"))];
    let (status, answer) = import(&app, "", &[], Body::from_stream(futures_util::stream::iter(frames))).await;
    assert_eq!((status, &answer["lines"], &answer["accepted"]), (400, &json!(2), &json!(2)), "{answer}");
    assert_eq!(answer["error"]["code"], "INVALID_BODY");
    // 2. The export that it comes from had failed.
    let body = format!(
        "{good}{{\"error\":{{\"code\":\"UNAVAILABLE\",\"message\":\"away\",\"details\":{{}}}}}}\n{good}"
    );
    let (status, answer) = import(&app, "", &[], body).await;
    assert_eq!((status, &answer["lines"], &answer["accepted"]), (400, &json!(2), &json!(1)), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("ended early: away"));
    assert_eq!(answer["complete"], false);
    // 3. The store fails.
    let store = Fails::at_writes(StoreError::new(ErrorKind::Internal, "secret"));
    let app = App::over(Arc::new(store));
    let (status, answer) = import(&app, "", &[], good.clone()).await;
    assert_eq!((status, &answer["lines"], &answer["accepted"]), (500, &json!(0), &json!(0)), "{answer}");
    assert!(answer["error"]["details"]["requestId"].is_string() && !answer.to_string().contains("secret"));
    // 4. A line has no end.
    let app = App::with(|config| config.server.max_body_bytes = "1KB".parse().unwrap());
    let (status, answer) = import(&app, "", &[], format!("{good}{}", "[".repeat(5 << 20))).await;
    assert_eq!((status, &answer["lines"]), (400, &json!(1)), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("line 2 is longer than"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_for_a_while_or_forgets_a_series_is_waited_for() {
    let kind = ErrorKind::Overloaded { retry_after: Duration::ZERO };
    let app = App::over(Arc::new(Fails::at_writes(StoreError::new(kind, "full"))));
    assert_eq!(import(&app, "", &[], line("m", "[1]", &[NOW])).await.0, 200);
    let store = Arc::new(Fails::stale_once());
    let app = App::over(store.clone());
    assert_eq!(import(&app, "", &[], line("m", "[1]", &[NOW])).await.0, 200);
    assert_eq!(store.described(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_costs_a_piece_at_a_time() {
    let app = App::new();
    let bomb = zstd::stream::encode_all(std::io::Read::take(std::io::repeat(b'\n'), 16 << 20), 1).unwrap();
    let (status, answer) = import(&app, "", &[("content-encoding", "zstd")], bomb).await;
    assert_eq!((status, &answer["lines"]), (200, &json!(16 << 20)));
    let bomb = zstd::stream::encode_all(std::io::Read::take(std::io::repeat(b'x'), 16 << 20), 1).unwrap();
    let (status, answer) = import(&app, "", &[("content-encoding", "zstd")], bomb).await;
    assert_eq!((status, &answer["lines"]), (400, &json!(0)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_two_at_once_are_told_to_wait() {
    let app = App::new();
    let endless = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let mut running = [0; 2].map(|_| Box::pin(app.send("POST", IMPORT, &[], endless())));
    for import in &mut running {
        assert!(tokio::time::timeout(Duration::from_millis(5), import).await.is_err());
    }
    let answer = app.send("POST", IMPORT, &[], "").await;
    assert_eq!(answer.error(), "429 RATE_LIMITED the limit concurrent_imports is used up");
    assert!(answer.header("retry-after").is_some());
    drop(running);
    assert_eq!(app.send("POST", IMPORT, &[], "").await.status, 200);
}
