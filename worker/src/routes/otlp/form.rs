//! The form in which a client of OpenTelemetry is answered, whichever layer refuses its request.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::status::{RpcCode, RpcStatus};
use super::{PATH, grpc};
use crate::error::Reported;
use crate::observe::RequestId;
use crate::routes::input::is_media;

/// How a client writes its messages, and reads the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Protobuf over HTTP.
    Protobuf,
    /// JSON over HTTP.
    Json,
    /// Protobuf over gRPC.
    Grpc,
}

impl Form {
    /// What the body of a request over HTTP is, if it is one of ours.
    pub fn of_http(headers: &HeaderMap) -> Option<Self> {
        let forms = [Self::Protobuf, Self::Json];
        forms.into_iter().find(|form| is_media(headers, form.media_type()))
    }

    /// The form of any request that is OpenTelemetry's: by its path, or gRPC, which nothing else here speaks.
    fn of(request: &Request) -> Option<Self> {
        if grpc::is_grpc(request.headers()) {
            return Some(Self::Grpc);
        }
        if request.uri().path() == PATH { Self::of_http(request.headers()) } else { None }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
            Self::Grpc => "application/grpc",
        }
    }

    /// A refusal; `headers` are those of the answer that it takes the place of.
    fn refusal(self, code: StatusCode, mut headers: HeaderMap, status: &RpcStatus) -> Response {
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type()));
        let body = match self {
            Self::Protobuf => Body::from(status.to_protobuf()),
            Self::Json => Body::from(serde_json::to_vec(status).unwrap_or_default()),
            Self::Grpc => {
                grpc::add_status(&mut headers, status);
                return (StatusCode::OK, headers, Body::empty()).into_response();
            }
        };
        // After a 408 OpenTelemetry's clients give up what they had to send; after a 503 they try again.
        let code = if code == StatusCode::REQUEST_TIMEOUT { StatusCode::SERVICE_UNAVAILABLE } else { code };
        (code, headers, body).into_response()
    }
}

/// The layer: refusals of OpenTelemetry's requests become what its clients read, and a deadline that gRPC names is kept.
pub async fn in_its_form(request: Request, next: Next) -> Response {
    let Some(form) = Form::of(&request) else { return next.run(request).await };
    let id = request.extensions().get::<RequestId>().cloned();
    let answer = match form {
        Form::Grpc => match grpc::timeout(request.headers()) {
            Ok(timeout) => within(timeout, request, next).await,
            Err(error) => error.into_response(),
        },
        Form::Protobuf | Form::Json => next.run(request).await,
    };
    let Some(Reported(error)) = answer.extensions().get::<Reported>().cloned() else { return answer };
    let (parts, _) = answer.into_parts();
    let status = RpcStatus::of(&error, id.as_ref().map(|id| &*id.0));
    form.refusal(parts.status, parts.headers, &status)
}

/// The answer, if it comes in time. What was being stored then may be stored or not; sent again, it is stored once.
async fn within(timeout: Option<Duration>, request: Request, next: Next) -> Response {
    let Some(timeout) = timeout else { return next.run(request).await };
    tokio::time::timeout(timeout, next.run(request)).await.unwrap_or_else(|_| {
        let status = RpcStatus::new(RpcCode::DeadlineExceeded, "the deadline of the call is over");
        Form::Grpc.refusal(StatusCode::OK, HeaderMap::new(), &status)
    })
}
