//! `POST /api/v1/import/prometheus`: what targets show, pushed.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::input;
use super::openapi::BodyErrors;
use super::prom_write::answer;
use super::submit::{WriteAnswer, encoded, submit};
use crate::app::AppState;
use crate::body::Received;
use crate::error::Error;
use crate::ingest::body::Encoding;
use crate::ingest::exposition::{self, Dialect};
use crate::tenant::CanWrite;

/// Stores samples in Prometheus' text format, or in OpenMetrics where `Content-Type` says
/// `application/openmetrics-text`. A line without a timestamp is of the time of receipt. Labels become dimensions, `:` in
/// a name becomes `_`; NaN and infinities are dropped; comments, metadata and exemplars are passed over. A 400 is
/// sent after the good samples are stored, so nothing is lost by not trying again.
#[utoipa::path(
    post,
    path = "/api/v1/import/prometheus",
    tag = "write",
    request_body(
        content = String,
        content_type = "text/plain",
        description = "Samples, one a line; may be compressed: `Content-Encoding` gzip, zstd or snappy",
    ),
    responses(
        (status = 204, description = "All accepted or dropped"),
        (status = 400, description = "Some rejected, the others stored; or the body can't be read (then only `error`)", body = WriteAnswer),
        BodyErrors,
    ),
    security(("token" = ["write"])),
)]
pub async fn text_write(
    State(state): State<AppState>,
    caller: CanWrite,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    let encoding = Encoding::of(&headers)?;
    let dialect = match input::is_media(&headers, "application/openmetrics-text") {
        true => Dialect::OpenMetrics,
        false => Dialect::Prometheus,
    };
    let format =
        encoded(encoding, move |body, rules, lookup| Ok(exposition::decode(body, dialect, rules, lookup)?));
    Ok(answer(submit(&state, &caller.caller, body.bytes.clone(), format).await?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{App, NOW};

    #[tokio::test]
    async fn what_targets_show_is_stored_in_either_dialect() {
        let app = App::new();
        let seconds = NOW / 1_000;
        for (kind, body) in [
            ("text/plain; version=0.0.4", format!("# TYPE up gauge\nup{{job=\"a\"}} 1 {NOW}\n")),
            (
                "application/openmetrics-text; version=1.0.0",
                format!("up{{job=\"b\"}} 2 {seconds}.001\n# EOF\n"),
            ),
        ] {
            let headers = [("content-type", kind)];
            let answer = app.send("POST", "/api/v1/import/prometheus", &headers, body).await;
            assert_eq!(answer.text(), "204 ", "{kind}");
        }
        assert_eq!(
            app.samples("up").await,
            json!([
                {"timestamp": NOW, "value": 1.0, "dimensions": {"job": "a"}},
                {"timestamp": NOW + 1, "value": 2.0, "dimensions": {"job": "b"}},
            ])
        );
    }

    #[tokio::test]
    async fn refused_samples_answer_400_after_the_good_ones_are_stored() {
        let app = App::new();
        let answer = app.send("POST", "/api/v1/import/prometheus", &[], "up 1\nup{a} 2\n").await;
        let expected =
            "400 INVALID_SAMPLE some samples were refused, the others are stored; don't send them again";
        assert_eq!(answer.error(), expected);
        assert_eq!((&answer.json["accepted"], &answer.json["rejected"]), (&json!(1), &json!(1)));
        assert_eq!(app.samples("up").await.as_array().unwrap().len(), 1);
    }
}
