//! Through the whole router: what is stored, and in which form each refusal comes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use prost::Message;
use serde_json::{Value, json};

use super::super::testing::{App, Fails, NOW};
use super::*;
use crate::ingest::otlp::testing::{self, gauge, number, request};

const PROTOBUF: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

/// A message with a good point, and one that is refused.
fn mixed() -> Vec<u8> {
    let bad = number(&[("__x", "1")], NOW, 1.0);
    request(&[("service.name", "a")], vec![gauge("g", vec![number(&[], NOW, 1.5), bad])]).encode_to_vec()
}

fn stored() -> Value {
    json!([{"timestamp": NOW, "value": 1.5, "dimensions": {"service_name": "a"}}])
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

struct Call {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl Call {
    /// `grpc-status`, wherever it is.
    fn grpc(&self) -> &str {
        let value = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        value.unwrap().to_str().unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(app: &App, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Call {
    let request = headers.iter().fold(Request::post(path).header("host", "a"), |request, (name, value)| {
        request.header(*name, *value)
    });
    let (parts, body) = app.raw(request.body(Body::from(body)).unwrap()).await.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Call { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes(), trailers }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
}

async fn call(app: &App, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Call {
    send(app, path, &[&[("content-type", "application/grpc"), ("te", "trailers")], headers].concat(), body)
        .await
}

#[tokio::test]
async fn protobuf_is_stored_and_what_was_refused_is_told() {
    let app = App::new();
    let answer = send(&app, PATH, &PROTOBUF, mixed()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-protobuf"));
    let partial = Export::decode(answer.body).unwrap().partial.unwrap();
    assert_eq!(partial.rejected, 1);
    assert!(partial.message.contains("the first, of \"g\": INVALID_DIMENSION_KEY"), "{}", partial.message);
    assert_eq!(app.samples("g").await, stored());
    let good = request(&[], vec![gauge("h", vec![number(&[], NOW, 1.0)])]).encode_to_vec();
    assert_eq!(send(&app, PATH, &PROTOBUF, good).await.body, "");
}

#[tokio::test]
async fn json_is_stored_and_answered_as_json() {
    let app = App::new();
    let point = |attributes: Value| json!({"timeUnixNano": testing::nanos(NOW).to_string(), "asDouble": 1.5, "attributes": attributes});
    let bad = point(json!([{"key": "__x", "value": {"intValue": "1"}}]));
    let metrics = json!([{"name": "g", "gauge": {"dataPoints": [point(json!([])), bad]}}]);
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "a"}}]});
    let body = json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]});
    let answer = app.post(PATH, &body).await;
    assert_eq!((answer.status, &answer.json["partialSuccess"]["rejectedDataPoints"]), (200, &json!("1")));
    assert_eq!(app.samples("g").await, stored());
    assert_eq!(app.post(PATH, &json!({})).await.text(), "200 {}");
}

#[tokio::test]
async fn bodies_may_be_compressed() {
    let app = App::new();
    let headers = [PROTOBUF[0], ("content-encoding", "zstd")];
    let body = zstd::stream::encode_all(mixed().as_slice(), 3).unwrap();
    assert_eq!(send(&app, PATH, &headers, body).await.status, 200);
    assert_eq!(app.samples("g").await, stored());
}

#[tokio::test]
async fn refusals_are_statuses_in_the_form_of_the_request() {
    let app = App::new();
    let answer = send(&app, PATH, &PROTOBUF, b"\x0A\x05".to_vec()).await;
    assert_eq!((answer.status, answer.header("content-type")), (400, "application/x-protobuf"));
    let status = Status::decode(answer.body).unwrap();
    assert_eq!((status.code, status.details.len()), (3, 0));
    assert!(status.message.starts_with("INVALID_BODY: the body is not an Export"), "{}", status.message);
    let answer = app.send("POST", PATH, &[], "{\"resourceMetrics\": 7}").await;
    let expected = r#"400 {"code":3,"message":"INVALID_BODY: the field resourceMetrics must be a list"}"#;
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("content-length"), Some("77"), "it is that of the status");
    let other = app.send("POST", PATH, &[("content-type", "text/plain")], "x").await;
    assert!(other.error().starts_with("415 UNSUPPORTED_MEDIA_TYPE"), "{}", other.error());
    let wrong = send(&app, PATH, &[PROTOBUF[0], ("content-encoding", "br")], Vec::new()).await;
    assert_eq!((wrong.status, Status::decode(wrong.body).unwrap().code), (415, 12));
}

#[tokio::test]
async fn what_may_be_sent_again_says_when() {
    let app = App::over(Arc::new(Fails::overloaded()));
    let body = || request(&[], vec![gauge("g", vec![number(&[], NOW, 1.0)])]).encode_to_vec();
    let answer = send(&app, PATH, &PROTOBUF, body()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "7"));
    let status = Status::decode(answer.body).unwrap();
    assert_eq!(
        (status.code, status.details[0].kind.as_str()),
        (14, "type.googleapis.com/google.rpc.RetryInfo")
    );
    let app = App::over(Arc::new(Fails::overloaded()));
    let answer = call(&app, GRPC_PATH, &[], framed(&body())).await;
    assert_eq!((answer.status, answer.grpc()), (200, "14"));
    let details = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD_NO_PAD,
        answer.header("grpc-status-details-bin"),
    );
    let status = Status::decode(details.unwrap().as_slice()).unwrap();
    // RetryInfo { retry_delay: Duration { seconds: 7 } }
    assert_eq!((status.code, status.details[0].value.as_slice()), (14, [0x0A, 2, 8, 7].as_slice()));
}

#[tokio::test]
async fn a_call_is_stored_and_answered_with_its_status_behind() {
    let app = App::new();
    let answer = call(&app, GRPC_PATH, &[("grpc-timeout", "10S")], framed(&mixed())).await;
    assert_eq!((answer.status, answer.grpc(), answer.header("content-type")), (200, "0", "application/grpc"));
    assert!(answer.headers.get("grpc-status").is_none(), "the status stands behind the message");
    let partial = Export::decode(&answer.body[5..]).unwrap().partial.unwrap();
    assert_eq!((partial.rejected, answer.body[..5].to_vec()), (1, framed(&answer.body[5..])[..5].to_vec()));
    assert_eq!(app.samples("g").await, stored());
}

#[tokio::test]
async fn a_calls_message_may_be_compressed() {
    let app = App::new();
    let mut body = framed(&zstd::stream::encode_all(mixed().as_slice(), 3).unwrap());
    body[0] = 1;
    let answer = call(&app, GRPC_PATH, &[("grpc-encoding", "deflate")], body.clone()).await;
    assert_eq!((answer.grpc(), answer.header("grpc-accept-encoding")), ("12", "identity,gzip,zstd,snappy"));
    assert_eq!(call(&app, GRPC_PATH, &[("grpc-encoding", "zstd")], body).await.grpc(), "0");
    assert_eq!(app.samples("g").await, stored());
}

#[tokio::test]
async fn calls_that_can_not_be_answered_have_a_status_and_nothing_else() {
    let app = App::new();
    for (path, headers, body, status) in [
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", &[][..], framed(b""), "12"),
        ("/api/v1/health", &[], framed(b""), "12"),
        (GRPC_PATH, &[], Vec::new(), "3"),
        (GRPC_PATH, &[], framed(b"\x0A\x05"), "3"),
        (GRPC_PATH, &[("grpc-timeout", "soon")], framed(b""), "3"),
    ] {
        let answer = call(&app, path, headers, body).await;
        assert_eq!((answer.status, answer.grpc(), answer.body.len()), (200, status, 0), "{path} {headers:?}");
        assert!(!answer.header("grpc-message").is_empty());
    }
    let plain = app.send("POST", GRPC_PATH, &[], "{}").await;
    assert!(plain.error().starts_with("415 UNSUPPORTED_MEDIA_TYPE"), "{}", plain.error());
}

#[tokio::test]
async fn a_call_is_over_when_its_deadline_is() {
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let request = Request::post(GRPC_PATH)
        .header("host", "a")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "5m");
    let answer = App::new().raw(request.body(endless).unwrap()).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"4".parse().unwrap()));
}

#[tokio::test]
async fn a_request_with_too_many_points_is_refused_whole() {
    let app = App::with(|config| config.ingest.max_batch = 1);
    let points = vec![number(&[], NOW, 1.0), number(&[], NOW + 1, 1.0)];
    let body = request(&[], vec![gauge("g", points)]).encode_to_vec();
    let answer = send(&app, PATH, &PROTOBUF, body.clone()).await;
    assert_eq!((answer.status, Status::decode(answer.body).unwrap().code), (413, 8));
    // Without a time to try again: it won't be taken then, either.
    let answer = call(&app, GRPC_PATH, &[], framed(&body)).await;
    assert_eq!((answer.grpc(), answer.header("grpc-status-details-bin")), ("8", ""));
    assert_eq!(app.samples("g").await, json!([]));
}

#[tokio::test]
async fn points_whose_series_are_refused_are_counted_once_each() {
    let app = App::with(|config| config.cardinality_limits.max_metrics_per_tenant = 1);
    let point = testing::HistogramPoint {
        time_unix_nano: testing::nanos(NOW),
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![1.0],
        count: 3,
        sum: Some(2.0),
        ..testing::HistogramPoint::default()
    };
    let data = testing::Histogram { data_points: vec![point], temporality: testing::CUMULATIVE };
    let histogram = testing::metric("h", "", testing::Data::Histogram(data));
    let metrics = vec![gauge("g", vec![number(&[], NOW, 1.5)]), histogram];
    let answer = send(&app, PATH, &PROTOBUF, request(&[], metrics).encode_to_vec()).await;
    let partial = Export::decode(answer.body).unwrap().partial.unwrap();
    assert_eq!(partial.rejected, 1, "{}", partial.message);
    assert!(partial.message.contains("CARDINALITY_LIMIT"), "{}", partial.message);
}
