//! `POST /api/v2/write`, `POST /write`: InfluxDB's line protocol, as its versions 2 and 1 take it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input::Parameters;
use super::openapi::BodyErrors;
use super::submit::{Submitted, encoded, submit};
use crate::app::AppState;
use crate::body::Received;
use crate::error::{Error, Fault};
use crate::ingest::SampleError;
use crate::ingest::body::Encoding;
use crate::ingest::line::{self, Precision};
use crate::tenant::CanWrite;

/// What clients of InfluxDB say beside their points. Where they write to is theirs to say there; here it is the
/// token's tenant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LineParameters {
    /// What times count: `ns` (if absent), `us`, `ms` or `s`; for version 1 also `n`, `u`, `m` (minutes) and `h`.
    #[serde(default)]
    #[param(pattern = "^(n|ns|u|us|µ|µs|ms|s|m|h)?$")]
    precision: String,
}

/// The answer where not all fields were stored, readable by clients of both versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineAnswer {
    /// Always `invalid`.
    #[schema(example = "invalid")]
    pub code: &'static str,
    /// What happened, for people.
    pub message: String,
    /// The same, where version 1 has it.
    pub error: String,
    /// Fields stored.
    pub accepted: u64,
    /// Fields refused.
    pub rejected: u64,
    /// The first 100 refused fields.
    pub errors: Vec<SampleError>,
}

/// Stores points as Telegraf's `influxdb_v2` and InfluxDB's libraries write them. Each field with a number is a sample
/// of the metric `measurement_field`, tags are its dimensions, and characters that names don't hold become `_`.
/// Strings are passed over. `bucket` and `org` are ignored: the token says whose samples they are. A 400 is sent after
/// the good fields are stored, so nothing is lost by not trying again.
#[utoipa::path(
    post,
    path = "/api/v2/write",
    tag = "write",
    params(LineParameters),
    request_body(
        content = String,
        content_type = "text/plain",
        description = "Points, one a line; may be compressed: `Content-Encoding` gzip, zstd or snappy",
    ),
    responses(
        (status = 204, description = "All stored, or strings"),
        (status = 400, description = "Some refused, the others stored", body = LineAnswer),
        BodyErrors,
    ),
    security(("token" = ["write"])),
)]
pub async fn line_write(
    State(state): State<AppState>,
    caller: CanWrite,
    Parameters(parameters): Parameters<LineParameters>,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    let precision = precision(&parameters.precision)?;
    let encoding = Encoding::of(&headers)?;
    let format =
        encoded(encoding, move |body, rules, lookup| Ok(line::decode(body, precision, rules, lookup)?));
    Ok(answer(submit(&state, &caller.caller, body.bytes.clone(), format).await?))
}

/// The same as InfluxDB's version 1 has it; `db` and `rp` are ignored.
#[utoipa::path(
    post,
    path = "/write",
    tag = "write",
    params(LineParameters),
    request_body(content = String, content_type = "text/plain", description = "As `/api/v2/write`"),
    responses(
        (status = 204, description = "All stored, or strings"),
        (status = 400, description = "Some refused, the others stored", body = LineAnswer),
        BodyErrors,
    ),
    security(("token" = ["write"])),
)]
pub async fn line_write_v1(
    state: State<AppState>,
    caller: CanWrite,
    parameters: Parameters<LineParameters>,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    line_write(state, caller, parameters, headers, body).await
}

/// By which InfluxDB's clients see whether a server is there.
#[utoipa::path(get, path = "/ping", tag = "write", responses((status = 204, description = "It is")))]
pub async fn ping() -> StatusCode {
    StatusCode::NO_CONTENT
}

fn precision(name: &str) -> Result<Precision, Error> {
    let unknown = || Error::InvalidParameter(Fault::of("precision", "it is one of ns, us, ms, s, m and h"));
    Precision::of(name).ok_or_else(unknown)
}

fn answer(submitted: Submitted) -> Response {
    let Some(first) = submitted.rejections.listed().first() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let (accepted, rejected) = (submitted.accepted, submitted.rejections.total());
    let message = format!(
        "partial write: {accepted} fields are stored, don't send them again; {rejected} are refused, the first: {}",
        first.error
    );
    let answer = LineAnswer {
        code: "invalid",
        error: message.clone(),
        message,
        accepted,
        rejected,
        errors: submitted.rejections.listed().to_vec(),
    };
    (StatusCode::BAD_REQUEST, Json(answer)).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{App, NOW};

    #[tokio::test]
    async fn points_are_stored_in_either_version() {
        let app = App::new();
        let of = |host: &str, unit: &str| format!("cpu,host={host} usage=1.5,note=\"x\" {NOW}{unit}\n");
        for (path, body) in
            [("/api/v2/write?org=o&bucket=b", of("a", "000000")), ("/write?db=d&precision=ms", of("b", ""))]
        {
            let answer = app.send("POST", path, &[("content-type", "text/plain; charset=utf-8")], body).await;
            assert_eq!(answer.text(), "204 ", "{path}");
        }
        let stored = |host: &str| json!({"timestamp": NOW, "value": 1.5, "dimensions": {"host": host}});
        assert_eq!(app.samples("cpu_usage").await, json!([stored("a"), stored("b")]));
    }

    #[tokio::test]
    async fn refused_fields_answer_400_after_the_good_ones_are_stored() {
        let app = App::new();
        let body = format!("m f=1,g=x {NOW}\nm\n");
        let answer = app.send("POST", "/api/v2/write?precision=ms", &[], body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(
            (&answer.json["code"], &answer.json["accepted"], &answer.json["rejected"]),
            (&json!("invalid"), &json!(1), &json!(2))
        );
        let message = answer.json["message"].as_str().unwrap();
        assert!(message.starts_with("partial write: 1 fields are stored"), "{message}");
        assert!(message.contains("line 1: \"x\" is no number"), "{message}");
        assert_eq!(answer.json["error"], answer.json["message"]);
        assert_eq!(app.samples("m_f").await.as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_times_count_is_named_or_refused() {
        let app = App::new();
        let answer = app.send("POST", "/write?precision=days", &[], "m f=1").await;
        assert!(answer.error().starts_with("400 INVALID_PARAMETER"), "{}", answer.error());
    }

    #[tokio::test]
    async fn a_request_with_too_many_fields_is_413() {
        let app = App::new();
        let body: String = (0..10_001).map(|at| format!("m f{at}=1\n")).collect();
        let answer = app.send("POST", "/api/v2/write", &[], body).await;
        assert!(answer.error().starts_with("413 BATCH_TOO_LARGE"), "{}", answer.error());
    }
}
