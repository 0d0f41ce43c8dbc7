//! `POST /api/v1/prom/write`: Prometheus remote write 1.0.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Map;

use super::input;
use super::openapi::BodyErrors;
use super::submit::{Format, Submitted, WriteAnswer, submit};
use crate::app::AppState;
use crate::body::Received;
use crate::error::{Code, Error, ErrorObject};
use crate::ingest::body::{self, Encoding};
use crate::ingest::remote_write;
use crate::tenant::CanWrite;

/// The message of version 1, which is also what an absent `proto` means.
const MESSAGE: &str = "prometheus.writerequest";

/// Stores what a Prometheus sends. Labels become dimensions, `__name__` the metric (`:` becomes `_`);
/// NaN, stale markers and infinities are dropped; metadata, exemplars and native histograms are passed over.
/// A 400 is sent after the good samples are stored, so nothing is lost by not trying again.
#[utoipa::path(
    post,
    path = "/api/v1/prom/write",
    tag = "write",
    request_body(
        content = Vec<u8>,
        content_type = "application/x-protobuf",
        description = "`prometheus.WriteRequest`, as one block of snappy",
    ),
    responses(
        (status = 204, description = "All accepted or dropped"),
        (status = 400, description = "Some rejected, the others stored; or the body can't be read (then only `error`)", body = WriteAnswer),
        BodyErrors,
    ),
    security(("token" = ["write"])),
)]
pub async fn prom_write(
    State(state): State<AppState>,
    caller: CanWrite,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    check_headers(&headers)?;
    let format = Format::compressed(
        |wire, limit| Ok(body::decode_snappy_block(&wire, limit)?),
        |body, rules, lookup| Ok(remote_write::decode(body, rules, lookup)?),
    );
    let submitted = submit(&state, &caller.caller, body.bytes.clone(), format).await?;
    Ok(answer(submitted))
}

fn check_headers(headers: &HeaderMap) -> Result<(), Error> {
    let allowed = "application/x-protobuf with prometheus.WriteRequest (remote write 1.0)";
    let refused = Error::UnsupportedMediaType { allowed };
    input::expect_media(headers, "application/x-protobuf", false).map_err(|_| refused.clone())?;
    if input::media_parameter(headers, "proto").is_some_and(|message| message != MESSAGE) {
        return Err(refused);
    }
    match Encoding::of(headers) {
        Ok(Encoding::Snappy) => Ok(()),
        _ => Err(Error::UnsupportedEncoding { allowed: "snappy" }),
    }
}

/// 204, or 400 with what was refused.
pub(super) fn answer(submitted: Submitted) -> Response {
    let Some(first) = submitted.rejections.listed().first() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let error =
        if submitted.accepted == 0 { Error::AllRejected.body(None).error } else { partial(first.code) };
    (StatusCode::BAD_REQUEST, Json(submitted.answer(Some(error)))).into_response()
}

/// The error of a request of which some samples were stored: the first refusal's code.
fn partial(code: Code) -> ErrorObject {
    let message = "some samples were refused, the others are stored; don't send them again".into();
    ErrorObject { code, message, details: Map::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{App, NOW};
    use crate::ingest::remote_write::testing::message;

    const HEADERS: [(&str, &str); 3] = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];

    fn compressed(message: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(message).unwrap()
    }

    #[tokio::test]
    async fn what_prometheus_sends_is_stored() {
        let app = App::new();
        let sent =
            message(&[(&[("__name__", "job:up"), ("job", "node")], &[(NOW, 1.0), (NOW + 1, f64::NAN)])]);
        let answer = app.send("POST", "/api/v1/prom/write", &HEADERS, compressed(&sent)).await;
        assert_eq!(answer.text(), "204 ");
        assert_eq!(
            app.samples("job_up").await,
            json!([{"timestamp": NOW, "value": 1.0, "dimensions": {"job": "node"}}])
        );
    }

    #[tokio::test]
    async fn refused_samples_answer_400_after_the_good_ones_are_stored() {
        let app = App::new();
        let sent = message(&[
            (&[("__name__", "up")], &[(NOW, 1.0)]),
            (&[("__name__", "up"), ("a.b", "c")], &[(NOW, 1.0)]),
        ]);
        let answer = app.send("POST", "/api/v1/prom/write", &HEADERS, compressed(&sent)).await;
        let expected = "400 INVALID_DIMENSION_KEY some samples were refused, the others are stored; don't send them again";
        assert_eq!(answer.error(), expected);
        assert_eq!((&answer.json["accepted"], &answer.json["rejected"]), (&json!(1), &json!(1)));
        assert_eq!(app.samples("up").await.as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn other_types_versions_and_encodings_are_415() {
        let app = App::new();
        let sent = compressed(&message(&[(&[("__name__", "up")], &[(NOW, 1.0)])]));
        for (kind, encoding, status) in [
            ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy", 204),
            ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", 415),
            ("application/json", "snappy", 415),
            ("application/x-protobuf", "gzip", 415),
            ("application/x-protobuf", "identity", 415),
        ] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            assert_eq!(
                app.send("POST", "/api/v1/prom/write", &headers, sent.clone()).await.status,
                status,
                "{kind} {encoding}"
            );
        }
    }

    #[tokio::test]
    async fn broken_bodies_are_400() {
        let app = App::new();
        let sent = message(&[(&[("__name__", "up")], &[(NOW, 1.0)])]);
        for body in [sent.clone(), compressed(&sent[..sent.len() - 1]), Vec::new()] {
            let answer = app.send("POST", "/api/v1/prom/write", &HEADERS, body).await;
            assert!(answer.error().starts_with("400 INVALID_BODY"), "{}", answer.error());
        }
    }
}
