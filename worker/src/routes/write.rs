//! `POST /api/v1/write`: samples as JSON.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use utoipa::ToSchema;

use super::input::{self, Time};
use super::openapi::BodyErrors;
use super::submit::{Submitted, WriteAnswer, encoded, submit};
use crate::app::AppState;
use crate::body::Received;
use crate::error::Error;
use crate::ingest::body::Encoding;
use crate::ingest::json;
use crate::tenant::CanWrite;

/// Samples to store. The decoder reads them without building this: it documents what is read.
#[derive(Debug, ToSchema)]
pub struct WriteBody {
    /// At most `ingest.max_batch` of them (10,000).
    pub metrics: Vec<Sample>,
}

/// One sample.
#[derive(Debug, ToSchema)]
pub struct Sample {
    /// The metric.
    #[schema(
        pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$",
        min_length = 1,
        max_length = 256,
        example = "api_latency"
    )]
    pub name: String,
    /// When; absent = time of receipt.
    pub timestamp: Option<Time>,
    /// A finite number.
    #[schema(example = 145.5)]
    pub value: f64,
    /// Keys are 1–128 characters of `^[a-zA-Z_][a-zA-Z0-9_]*$`, values 1–256 characters; at most 20.
    #[schema(example = json!({"customer_id": "acme", "endpoint": "/users"}))]
    pub dimensions: Option<BTreeMap<String, String>>,
}

/// Stores samples. A 2xx means that every accepted one is on stable storage (unless `durable` is
/// `false`) and visible to the next query. A bad sample is listed and doesn't hold up the good ones.
#[utoipa::path(
    post,
    path = "/api/v1/write",
    tag = "write",
    request_body(content = WriteBody, description = "May be compressed: `Content-Encoding` gzip, zstd or snappy"),
    responses(
        (status = 200, description = "All accepted", body = WriteAnswer),
        (status = 207, description = "Some rejected", body = WriteAnswer),
        (status = 400, description = "All rejected, or the body can't be read (then only `error`)", body = WriteAnswer),
        BodyErrors,
    ),
    security(("token" = ["write"])),
)]
pub async fn write(
    State(state): State<AppState>,
    caller: CanWrite,
    headers: HeaderMap,
    body: Received,
) -> Result<(StatusCode, Json<WriteAnswer>), Error> {
    input::expect_media(&headers, "application/json", true)?;
    let encoding = Encoding::of(&headers)?;
    let format = encoded(encoding, |body, rules, lookup| Ok(json::decode(body, rules, lookup)?));
    let submitted = submit(&state, &caller.caller, body.bytes.clone(), format).await?;
    Ok(answer(submitted))
}

fn answer(submitted: Submitted) -> (StatusCode, Json<WriteAnswer>) {
    let (status, error) = match (submitted.rejections.total(), submitted.accepted) {
        (0, _) => (StatusCode::OK, None),
        (_, 0) => (StatusCode::BAD_REQUEST, Some(Error::AllRejected.body(None).error)),
        _ => (StatusCode::MULTI_STATUS, None),
    };
    (status, Json(submitted.answer(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::testing::{App, Fails, NOW};
    use crate::admission::Class;

    #[tokio::test]
    async fn accepted_samples_are_in_the_next_answer() {
        let app = App::new();
        let body =
            json!({"metrics": [{"name": "m", "timestamp": NOW, "value": 1.5, "dimensions": {"k": "v"}}]});
        let answer = app.post("/api/v1/write", &body).await;
        assert_eq!(answer.text(), r#"200 {"accepted":1,"rejected":0,"errors":[],"durable":false}"#);
        assert_eq!(
            app.samples("m").await,
            json!([{"timestamp": NOW, "value": 1.5, "dimensions": {"k": "v"}}])
        );
    }

    #[tokio::test]
    async fn some_rejected_is_207_and_all_rejected_is_400_with_an_error_too() {
        let app = App::new();
        let bad = json!({"name": "bad-name", "value": 1});
        let mixed = app.post("/api/v1/write", &json!({"metrics": [{"name": "m", "value": 1}, bad]})).await;
        assert_eq!(
            mixed.text(),
            r#"207 {"accepted":1,"rejected":1,"errors":[{"index":1,"metric":"bad-name","code":"INVALID_METRIC_NAME","error":"a metric name is 1 to 256 characters and matches ^[a-zA-Z_][a-zA-Z0-9_]*$"}],"durable":false}"#
        );
        let all = app.post("/api/v1/write", &json!({"metrics": vec![bad; 150]})).await;
        assert_eq!(all.status, 400);
        assert_eq!((&all.json["accepted"], &all.json["rejected"]), (&json!(0), &json!(150)));
        assert_eq!(all.json["errors"].as_array().unwrap().len(), 100);
        assert_eq!(
            all.json["error"],
            json!({"code": "ALL_REJECTED", "message": "no sample was accepted", "details": {}})
        );
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_as_a_whole() {
        let app = App::new();
        for (headers, body, expected) in [
            (vec![], "{", "400 INVALID_BODY the body is not valid JSON: the text ends too early at byte 1"),
            (
                vec![("content-type", "text/csv")],
                "{}",
                "415 UNSUPPORTED_MEDIA_TYPE Content-Type must be application/json",
            ),
            (
                vec![("content-encoding", "br")],
                "{}",
                "415 UNSUPPORTED_ENCODING Content-Encoding must be gzip, zstd, snappy or identity",
            ),
            (
                vec![("content-encoding", "gzip")],
                "{}",
                "400 INVALID_BODY the body is not valid gzip: unexpected end of file",
            ),
        ] {
            let answer = app.send("POST", "/api/v1/write", &headers, body).await;
            assert_eq!(answer.error(), expected);
        }
    }

    #[tokio::test]
    async fn too_many_samples_and_too_large_bodies_are_413() {
        let app = App::with(|config| {
            config.ingest.max_batch = 2;
            config.server.max_body_bytes = "1 KB".parse().unwrap();
        });
        let sample = json!({"name": "m", "value": 1});
        let answer = app.post("/api/v1/write", &json!({"metrics": vec![sample; 3]})).await;
        assert_eq!(answer.error(), "413 BATCH_TOO_LARGE the request has more than 2 samples");
        let padded = format!("{{\"metrics\":[]{}}}", " ".repeat(1_000));
        let expected = "413 BODY_TOO_LARGE the body is larger than 1000 bytes, as sent or decoded";
        assert_eq!(app.send("POST", "/api/v1/write", &[], padded.clone()).await.error(), expected);
        let bomb = zstd::stream::encode_all(padded.as_bytes(), 1).unwrap();
        assert_eq!(
            app.send("POST", "/api/v1/write", &[("content-encoding", "zstd")], bomb).await.error(),
            expected
        );
    }

    #[tokio::test]
    async fn few_bytes_that_become_many_are_taken_up_to_the_limit() {
        let app = App::with(|config| config.server.max_body_bytes = "3 MB".parse().unwrap());
        for (size, status) in [(100, 200), (2_900_000, 200), (3_000_100, 413)] {
            let padded = format!("{{\"metrics\":[{{\"name\":\"m\",\"value\":1}}]{}}}", " ".repeat(size));
            let small = zstd::stream::encode_all(padded.as_bytes(), 1).unwrap();
            assert!(small.len() < 10_000);
            let answer = app.send("POST", "/api/v1/write", &[("content-encoding", "zstd")], small).await;
            assert_eq!(answer.status, status, "{size}");
        }
    }

    #[tokio::test]
    async fn the_series_over_the_limit_is_refused_by_its_place_in_the_request() {
        let app = App::with(|config| config.cardinality_limits.max_series_per_metric = 1);
        let sample = |host: &str| json!({"name": "m", "value": 1, "dimensions": {"host": host}});
        let body = json!({"metrics": [5, sample("a"), sample("b"), sample("a")]});
        let answer = app.post("/api/v1/write", &body).await;
        assert_eq!((answer.status, &answer.json["accepted"]), (207, &json!(2)));
        let codes: Vec<_> = answer.json["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| (&error["index"], &error["code"]))
            .collect();
        assert_eq!(codes, [(&json!(0), &json!("INVALID_SAMPLE")), (&json!(2), &json!("CARDINALITY_LIMIT"))]);
    }

    #[tokio::test]
    async fn while_it_is_busy_known_series_are_stored_and_new_ones_come_again() {
        let app = App::with(|config| config.query_limits.max_concurrent = 4);
        let sample = |host: &str, timestamp: i64| json!({"name": "m", "timestamp": timestamp, "value": 1, "dimensions": {"host": host}});
        let write = async |samples: Vec<Value>| app.post("/api/v1/write", &json!({"metrics": samples})).await;
        assert_eq!(write(vec![sample("a", NOW)]).await.status, 200);
        let heavy = [app.gate.enter(Class::HeavyQuery).await, app.gate.enter(Class::HeavyQuery).await];
        let mixed = vec![sample("a", NOW + 1), sample("b", NOW + 1)];
        let answer = write(mixed.clone()).await;
        assert_eq!(
            answer.error(),
            "503 OVERLOADED the worker is busy and creates no series now; samples of known series are stored; try again"
        );
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert_eq!(app.samples("m").await.as_array().unwrap().len(), 2);
        assert_eq!(write(vec![sample("a", NOW + 2)]).await.status, 200);
        drop(heavy);
        assert_eq!(write(mixed).await.status, 200);
        assert_eq!(app.samples("m").await.as_array().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_store_that_forgot_a_series_gets_all_of_them_described() {
        let fails = Arc::new(Fails::stale_once());
        let app = App::over(fails.clone());
        let body = json!({"metrics": [{"name": "m", "timestamp": NOW, "value": 1}]});
        assert_eq!(app.post("/api/v1/write", &body).await.status, 200);
        assert_eq!(fails.described(), [1, 1]);
    }

    #[tokio::test]
    async fn a_store_that_cannot_take_more_says_when_to_try_again() {
        let app = App::over(Arc::new(Fails::overloaded()));
        let answer = app.post("/api/v1/write", &json!({"metrics": [{"name": "m", "value": 1}]})).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    }

    #[tokio::test]
    async fn what_is_durable_needs_no_word() {
        let app = App::over(Arc::new(Fails::at_nothing()));
        let answer = app.post("/api/v1/write", &json!({"metrics": [{"name": "m", "value": 1}]})).await;
        assert_eq!(answer.text(), r#"200 {"accepted":1,"rejected":0,"errors":[]}"#);
    }
}
