//! `POST /v1/metrics`, and the same as gRPC: OpenTelemetry's metrics.

mod form;
mod grpc;
mod status;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::submit::{Submitted, encoded, submit};
use crate::app::AppState;
use crate::body::Received;
use crate::error::{Error, Fault};
use crate::ingest::body::Encoding;
use crate::ingest::otlp::{self, OtlpError};
use crate::ingest::remote_write::wire;
use crate::tenant::{Caller, CanWrite};

pub use form::in_its_form;
pub use status::RpcStatus;

use form::Form;

/// Where OTLP/HTTP has its metrics.
const PATH: &str = "/v1/metrics";
/// Where gRPC has them.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// The answer: `ExportMetricsServiceResponse`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportAnswer {
    /// Present when data points were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_success: Option<PartialSuccess>,
}

/// What was refused; the rest is stored, and nothing is to be sent again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartialSuccess {
    /// How many data points, as a text.
    #[schema(example = "3")]
    pub rejected_data_points: String,
    /// Why the first was.
    pub error_message: String,
}

impl ExportAnswer {
    fn of(submitted: &Submitted) -> Self {
        let Some(first) = submitted.rejections.listed().first() else { return Self::default() };
        let rejected = submitted.rejections.total();
        let metric = first.metric.as_deref().unwrap_or_default();
        let why = format!("{}: {}", first.code.name(), first.error);
        let error_message =
            format!("{rejected} data points are refused, the others stored; the first, of {metric:?}: {why}");
        Self {
            partial_success: Some(PartialSuccess {
                rejected_data_points: rejected.to_string(),
                error_message,
            }),
        }
    }

    fn to_protobuf(&self) -> Vec<u8> {
        let mut message = Vec::new();
        if let Some(partial) = &self.partial_success {
            let mut field = Vec::new();
            wire::append_integer(&mut field, 0x08, partial.rejected_data_points.parse().unwrap_or(u64::MAX));
            wire::append(&mut field, 0x12, partial.error_message.as_bytes());
            wire::append(&mut message, 0x0A, &field);
        }
        message
    }
}

impl From<OtlpError> for Error {
    fn from(error: OtlpError) -> Self {
        match error {
            OtlpError::TooMany { max } => Self::BatchTooLarge { limit: max as u64 },
            OtlpError::Field { field, expected } => {
                Self::InvalidBody(Fault::of(field, format_args!("the field {field} must be {expected}")))
            }
            OtlpError::Malformed(_) | OtlpError::Syntax(_) => Self::InvalidBody(Fault::whole(error)),
        }
    }
}

/// Stores what OpenTelemetry's SDKs and Collector send over HTTP, as protobuf or JSON. Attributes become dimensions,
/// `.` and whatever else names don't hold becomes `_`; a histogram becomes its buckets, sum and count. A 200 with
/// `partialSuccess` says that some data points were refused; the others are stored. Refusals of the whole are
/// `google.rpc.Status`, in the request's own form. The same is served as gRPC.
#[utoipa::path(
    post,
    path = PATH,
    tag = "write",
    request_body(
        content((Object = "application/json"), (Vec<u8> = "application/x-protobuf")),
        description = "`ExportMetricsServiceRequest`; may be compressed: `Content-Encoding` gzip, zstd or snappy",
    ),
    responses(
        (
            status = 200,
            description = "Stored, but for what `partialSuccess` counts",
            content((ExportAnswer = "application/json"), (Vec<u8> = "application/x-protobuf")),
        ),
        (
            status = "4XX",
            description = "Nothing is stored; only after a 429 it may be sent again",
            content((RpcStatus = "application/json"), (Vec<u8> = "application/x-protobuf")),
        ),
        (
            status = "5XX",
            description = "Nothing is stored; after a 503 it may be sent again",
            content((RpcStatus = "application/json"), (Vec<u8> = "application/x-protobuf")),
        ),
    ),
    security(("token" = ["write"])),
)]
pub async fn export(
    State(state): State<AppState>,
    caller: CanWrite,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    let allowed = "application/x-protobuf or application/json";
    let form = Form::of_http(&headers).ok_or(Error::UnsupportedMediaType { allowed })?;
    let encoding = Encoding::of(&headers)?;
    let answer = store(&state, &caller.caller, body.bytes.clone(), encoding, form).await?;
    Ok(match form {
        Form::Json => Json(answer).into_response(),
        Form::Protobuf | Form::Grpc => {
            ([(CONTENT_TYPE, Form::Protobuf.media_type())], answer.to_protobuf()).into_response()
        }
    })
}

/// The same as gRPC has it: `MetricsService/Export`.
///
/// # Errors
/// As [`export`]; the layer [`in_its_form`] makes gRPC's statuses of them.
pub async fn export_grpc(
    State(state): State<AppState>,
    caller: CanWrite,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    let (encoding, message) = grpc::message(&headers, &body.bytes)?;
    let answer = store(&state, &caller.caller, message, encoding, Form::Grpc).await?;
    Ok(grpc::success(&answer.to_protobuf()))
}

async fn store(
    state: &AppState,
    caller: &Caller,
    wire: Bytes,
    encoding: Encoding,
    form: Form,
) -> Result<ExportAnswer, Error> {
    let config = Arc::clone(&state.config);
    let format = encoded(encoding, move |body, rules, lookup| {
        let mapping = &config.ingest.otlp;
        Ok(match form {
            Form::Json => otlp::decode(&otlp::json::to_protobuf(body)?, mapping, rules, lookup)?,
            Form::Protobuf | Form::Grpc => otlp::decode(body, mapping, rules, lookup)?,
        })
    });
    Ok(ExportAnswer::of(&submit(state, caller, wire, format).await?))
}

#[cfg(test)]
mod tests;
