//! `google.rpc.Status`: how OpenTelemetry's clients are told what went wrong, over HTTP and gRPC.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Code, Error};
use crate::ingest::remote_write::wire;

/// The name under which a status carries [`retry_info`].
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The codes of gRPC that are used here (grpc.io, "Status codes and their use in gRPC").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcCode {
    /// The request is wrong and stays so.
    InvalidArgument = 3,
    /// The time for it is over.
    DeadlineExceeded = 4,
    /// The token lacks a scope.
    PermissionDenied = 7,
    /// A limit is used up, or the request is larger than allowed.
    ResourceExhausted = 8,
    /// There is no such service, method or encoding.
    Unimplemented = 12,
    /// A defect or a failure inside.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// No token, or one that isn't valid.
    Unauthenticated = 16,
}

impl RpcCode {
    /// The code that goes with an error.
    fn of(error: &Error) -> Self {
        use StatusCode as S;
        match (error.code(), error.status()) {
            (Code::UnsupportedEncoding, _) | (_, S::NOT_FOUND | S::METHOD_NOT_ALLOWED) => Self::Unimplemented,
            (_, S::UNAUTHORIZED) => Self::Unauthenticated,
            (_, S::FORBIDDEN) => Self::PermissionDenied,
            (_, S::PAYLOAD_TOO_LARGE | S::TOO_MANY_REQUESTS) => Self::ResourceExhausted,
            (_, S::REQUEST_TIMEOUT | S::GATEWAY_TIMEOUT) => Self::DeadlineExceeded,
            (_, S::SERVICE_UNAVAILABLE) => Self::Unavailable,
            (_, status) if status.is_client_error() => Self::InvalidArgument,
            _ => Self::Internal,
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RpcStatus {
    /// The code of gRPC.
    #[schema(example = 3)]
    pub code: u32,
    /// The code of this API and what happened, for people.
    #[schema(example = "INVALID_BODY: the body is not an ExportMetricsServiceRequest")]
    pub message: String,
    /// In so many seconds it may be sent again; over HTTP the header `Retry-After` says it.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl RpcStatus {
    /// The status of an error, with the request's id where that is of use.
    pub fn of(error: &Error, request_id: Option<&str>) -> Self {
        let body = error.body(None).error;
        let mut message = format!("{}: {}", body.code.name(), body.message);
        if let Some(id) = request_id.filter(|_| error.status().is_server_error()) {
            message.push_str(&format!(" (requestId {id})"));
        }
        Self { code: RpcCode::of(error) as u32, message, retry_after: error.retry_after() }
    }

    /// A status of its own.
    pub fn new(code: RpcCode, message: impl Into<String>) -> Self {
        Self { code: code as u32, message: message.into(), retry_after: None }
    }

    /// The message `google.rpc.Status`.
    pub fn to_protobuf(&self) -> Vec<u8> {
        let mut message = Vec::new();
        wire::append_integer(&mut message, 0x08, u64::from(self.code));
        wire::append(&mut message, 0x12, self.message.as_bytes());
        if let Some(seconds) = self.retry_after {
            let mut any = Vec::new();
            wire::append(&mut any, 0x0A, RETRY_INFO.as_bytes());
            wire::append(&mut any, 0x12, &retry_info(seconds));
            wire::append(&mut message, 0x1A, &any);
        }
        message
    }
}

/// The message `google.rpc.RetryInfo`: a duration in its first field, whose first field is the seconds.
fn retry_info(seconds: u64) -> Vec<u8> {
    let (mut duration, mut info) = (Vec::new(), Vec::new());
    wire::append_integer(&mut duration, 0x08, seconds);
    wire::append(&mut info, 0x0A, &duration);
    info
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use luminate_storage::store::StoreError;

    use super::*;
    use crate::error::Fault;
    use crate::tenant::Scope;

    #[test]
    fn each_error_has_a_code_of_grpc() {
        let limited = Error::RateLimited { limit: "write_rps", retry_after: Duration::from_secs(1) };
        for (error, code) in [
            (Error::InvalidBody(Fault::whole("x")), RpcCode::InvalidArgument),
            (Error::UnsupportedMediaType { allowed: "x" }, RpcCode::InvalidArgument),
            (Error::UnsupportedEncoding { allowed: "x" }, RpcCode::Unimplemented),
            (Error::NotFound, RpcCode::Unimplemented),
            (Error::MethodNotAllowed, RpcCode::Unimplemented),
            (Error::NoToken, RpcCode::Unauthenticated),
            (Error::InvalidToken("x"), RpcCode::Unauthenticated),
            (Error::MissingScope(Scope::Write), RpcCode::PermissionDenied),
            (limited, RpcCode::ResourceExhausted),
            (Error::BodyTooLarge { limit: 1 }, RpcCode::ResourceExhausted),
            (Error::BatchTooLarge { limit: 1 }, RpcCode::ResourceExhausted),
            (Error::RequestTimeout, RpcCode::DeadlineExceeded),
            (Error::NotServing, RpcCode::Unavailable),
            (Error::Overloaded, RpcCode::Unavailable),
            (StoreError::internal("x").into(), RpcCode::Internal),
        ] {
            assert_eq!(RpcCode::of(&error), code, "{error:?}");
        }
    }

    #[test]
    fn a_failure_inside_names_the_request_and_nothing_else() {
        let status = RpcStatus::of(&StoreError::internal("secret").into(), Some("r1"));
        assert!(status.message.ends_with("(requestId r1)") && !status.message.contains("secret"));
        assert!(!RpcStatus::of(&Error::NoToken, Some("r1")).message.contains("r1"));
    }
}
