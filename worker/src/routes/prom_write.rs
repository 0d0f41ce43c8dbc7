//! `POST /api/v1/prom/write`: Prometheus remote write, 1.0 and 2.0.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Map;

use super::input;
use super::openapi::BodyErrors;
use super::submit::{Format, Submitted, WriteAnswer, submit};
use crate::app::AppState;
use crate::body::Received;
use crate::error::{Code, Error, ErrorObject};
use crate::ingest::body::{self, Encoding};
use crate::ingest::remote_write::{self, Version};
use crate::tenant::CanWrite;

/// What was written of a request, as 2.0 wants it in every answer.
const SAMPLES_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// Stores what a Prometheus sends, in either version of the protocol: `Content-Type` says which, and 1.0 is meant where
/// it names no message. Labels become dimensions, `__name__` the metric (`:` becomes `_`); NaN, stale markers and
/// infinities are dropped; metadata, exemplars and start times are passed over. Native histograms are refused in 2.0
/// and passed over in 1.0. A 400 is sent after the good samples are stored, so nothing is lost by not trying again.
#[utoipa::path(
    post,
    path = "/api/v1/prom/write",
    tag = "write",
    request_body(
        content = Vec<u8>,
        content_type = "application/x-protobuf",
        description = "`prometheus.WriteRequest`, or `io.prometheus.write.v2.Request` where the media type's parameter \
            `proto` says so; as one block of snappy",
    ),
    responses(
        (
            status = 204,
            description = "All accepted or dropped",
            headers(
                ("X-Prometheus-Remote-Write-Samples-Written" = u64, description = "Samples accepted or dropped"),
                ("X-Prometheus-Remote-Write-Histograms-Written" = u64, description = "Always 0"),
                ("X-Prometheus-Remote-Write-Exemplars-Written" = u64, description = "Always 0"),
            ),
        ),
        (
            status = 400,
            description = "Some rejected, the others stored (the headers say how many); or the body can't be read \
                (then only `error`)",
            body = WriteAnswer,
        ),
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
    let version = version(&headers)?;
    let format = Format::compressed(
        |wire, limit| Ok(body::decode_snappy_block(&wire, limit)?),
        move |body, rules, lookup| Ok(remote_write::decode(body, version, rules, lookup)?),
    );
    let submitted = submit(&state, &caller.caller, body.bytes.clone(), format).await;
    Ok(counted(submitted))
}

/// The version that the headers name.
fn version(headers: &HeaderMap) -> Result<Version, Error> {
    let allowed = "application/x-protobuf, with proto=io.prometheus.write.v2.Request (remote write 2.0), or with \
                   proto=prometheus.WriteRequest or none (1.0)";
    let refused = Error::UnsupportedMediaType { allowed };
    input::expect_media(headers, "application/x-protobuf", false).map_err(|_| refused.clone())?;
    let version = match input::media_parameter(headers, "proto") {
        None => Version::V1,
        Some(message) => [Version::V1, Version::V2]
            .into_iter()
            .find(|version| version.message().eq_ignore_ascii_case(&message))
            .ok_or(refused)?,
    };
    match Encoding::of(headers) {
        Ok(Encoding::Snappy) => Ok(version),
        _ => Err(Error::UnsupportedEncoding { allowed: "snappy" }),
    }
}

/// The answer with what was written. Senders of 1.0 read that too where they know of it, and others pass over it.
fn counted(submitted: Result<Submitted, Error>) -> Response {
    // A sample that is left out on purpose was taken all the same: its sender must not call it lost.
    let samples = submitted.as_ref().map_or(0, |submitted| submitted.accepted + submitted.dropped);
    let mut response = submitted.map_or_else(Error::into_response, answer);
    for (name, count) in [(SAMPLES_WRITTEN, samples), (HISTOGRAMS_WRITTEN, 0), (EXEMPLARS_WRITTEN, 0)] {
        response.headers_mut().insert(name, HeaderValue::from(count));
    }
    response
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
    use std::sync::Arc;

    use serde_json::json;

    use super::super::testing::{Answer, App, Fails, NOW};
    use crate::ingest::remote_write::Version;
    use crate::ingest::remote_write::testing::{Metadata, Series, message, request};

    const PATH: &str = "/api/v1/prom/write";
    const V1: [(&str, &str); 3] = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    const V2: [(&str, &str); 3] = [
        ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "2.0.0"),
    ];
    const BOTH: [(Version, [(&str, &str); 3]); 2] = [(Version::V1, V1), (Version::V2, V2)];

    fn compressed(message: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(message).unwrap()
    }

    /// Samples, histograms and exemplars that an answer says were written.
    fn written(answer: &Answer) -> [&str; 3] {
        ["samples", "histograms", "exemplars"].map(|what| {
            answer.header(&format!("x-prometheus-remote-write-{what}-written")).unwrap_or("nothing said")
        })
    }

    #[tokio::test]
    async fn what_prometheus_sends_is_stored() {
        let sent: [Series<'_>; 1] =
            [(&[("__name__", "job:up"), ("job", "node")], &[(NOW, 1.0), (NOW + 1, f64::NAN)])];
        for (version, headers) in BOTH {
            let app = App::new();
            let answer = app.send("POST", PATH, &headers, compressed(&message(version, &sent))).await;
            assert_eq!(answer.text(), "204 ");
            assert_eq!(written(&answer), ["2", "0", "0"], "what is dropped isn't lost");
            assert_eq!(
                app.samples("job_up").await,
                json!([{"timestamp": NOW, "value": 1.0, "dimensions": {"job": "node"}}])
            );
        }
    }

    #[tokio::test]
    async fn refused_samples_answer_400_after_the_good_ones_are_stored() {
        let sent: [Series<'_>; 2] = [
            (&[("__name__", "up")], &[(NOW, 1.0)]),
            (&[("__name__", "up"), ("a.b", "c")], &[(NOW, 1.0), (NOW + 1, 1.0)]),
        ];
        for (version, headers) in BOTH {
            let app = App::new();
            let answer = app.send("POST", PATH, &headers, compressed(&message(version, &sent))).await;
            let expected = "400 INVALID_DIMENSION_KEY some samples were refused, the others are stored; don't send them again";
            assert_eq!(answer.error(), expected);
            assert_eq!((&answer.json["accepted"], &answer.json["rejected"]), (&json!(1), &json!(2)));
            assert_eq!(written(&answer), ["1", "0", "0"]);
            assert_eq!(app.samples("up").await.as_array().unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn native_histograms_are_refused_and_counted() {
        let app = App::new();
        let mut sent = request(&[(&[("__name__", "up")], &[(NOW, 1.0)]), (&[("__name__", "h")], &[])]);
        sent.timeseries[1].histograms = vec![Metadata::default()];
        let send = async |body: &[u8]| app.send("POST", PATH, &V2, compressed(body)).await;
        let answer = send(&prost::Message::encode_to_vec(&sent)).await;
        assert!(answer.error().starts_with("400 INVALID_SAMPLE some samples"), "{}", answer.error());
        assert_eq!((&answer.json["accepted"], &answer.json["rejected"]), (&json!(1), &json!(1)));
        let error = &answer.json["errors"][0];
        assert_eq!((&error["index"], &error["metric"]), (&json!(1), &json!("h")));
        assert_eq!(written(&answer), ["1", "0", "0"]);
        sent.timeseries.remove(0);
        let answer = send(&prost::Message::encode_to_vec(&sent)).await;
        assert!(answer.error().starts_with("400 ALL_REJECTED"), "{}", answer.error());
        assert_eq!(written(&answer), ["0", "0", "0"]);
    }

    #[tokio::test]
    async fn other_types_versions_and_encodings_are_415() {
        let app = App::new();
        let series: [Series<'_>; 1] = [(&[("__name__", "up")], &[(NOW, 1.0)])];
        let first = compressed(&message(Version::V1, &series));
        let second = compressed(&message(Version::V2, &series));
        for (kind, encoding, body, status) in [
            ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy", &first, 204),
            ("application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"", "snappy", &second, 204),
            ("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", &second, 415),
            ("application/x-protobuf;proto=", "snappy", &first, 415),
            ("application/json", "snappy", &first, 415),
            ("application/x-protobuf", "gzip", &first, 415),
            ("application/x-protobuf", "identity", &first, 415),
            ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "zstd", &second, 415),
        ] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            let answer = app.send("POST", PATH, &headers, body.clone()).await;
            assert_eq!(answer.status, status, "{kind} {encoding}");
        }
    }

    #[tokio::test]
    async fn broken_bodies_are_400() {
        let app = App::new();
        let series: [Series<'_>; 1] = [(&[("__name__", "up")], &[(NOW, 1.0)])];
        for (version, headers) in BOTH {
            let sent = message(version, &series);
            for body in [sent.clone(), compressed(&sent[..sent.len() - 1]), Vec::new()] {
                let answer = app.send("POST", PATH, &headers, body).await;
                assert!(answer.error().starts_with("400 INVALID_BODY"), "{}", answer.error());
                assert_eq!(written(&answer), ["0", "0", "0"]);
            }
        }
        let mut sent = request(&series);
        sent.timeseries[0].labels_refs[1] = 9;
        let sent = prost::Message::encode_to_vec(&sent);
        let answer = app.send("POST", PATH, &V2, compressed(&sent)).await;
        assert_eq!(answer.json["error"]["details"]["field"], "timeseries[0].labels_refs");
        assert!(answer.error().contains("it refers to symbols[9], and there are 3"), "{}", answer.error());
    }

    #[tokio::test]
    async fn a_worker_that_is_full_says_when_to_try_again() {
        let series: [Series<'_>; 1] = [(&[("__name__", "up")], &[(NOW, 1.0)])];
        for (version, headers) in BOTH {
            let app = App::over(Arc::new(Fails::overloaded()));
            let answer = app.send("POST", PATH, &headers, compressed(&message(version, &series))).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
            assert_eq!(written(&answer), ["0", "0", "0"]);
        }
    }
}
