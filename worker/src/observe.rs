//! What every request passes: its id, its log line, its figures, and the net below a panic.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use tracing::Level;

use crate::app::AppState;
use crate::error::{Error, Fault, Reported};
use crate::lifecycle::Stage;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a client.
const MAX_ID: usize = 64;
/// The route of a path that no route has.
const UNMATCHED: &str = "unmatched";

/// The id of a request: in its answer's `x-request-id`, its log line and the details of a 5xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(|| Self(Arc::from("unknown"))))
    }
}

/// Makes ids: a random start for this process, then counting.
#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        // Without randomness the ids are still distinct within this process.
        Self { process: getrandom::u64().unwrap_or(0), next: AtomicU64::new(1) }
    }
}

impl RequestIds {
    /// The client's own id where it is fit for logs, or a new one.
    fn id_of(&self, headers: &HeaderMap) -> RequestId {
        let own = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_sane(id));
        RequestId(own.map_or_else(|| self.next(), Arc::from))
    }

    /// An id that no other request has, nor another query.
    pub fn next(&self) -> Arc<str> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:012x}-{number:x}", self.process & 0xffff_ffff_ffff).into()
    }
}

fn is_sane(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(allowed)
}

/// Recovery: names the request and turns a panic below into a 500.
pub async fn recover(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = state.request_ids.id_of(request.headers());
    let http1 = request.version() <= Version::HTTP_11;
    request.extensions_mut().insert(id.clone());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|panic| {
        let error = Error::Internal(format!("panicked: {}", message_of(panic.as_ref())));
        tracing::error!(request_id = &*id.0, error = %error, "a handler panicked");
        error.response(Some(&id.0))
    });
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    // Clients that keep a connection open move on before it is closed under them.
    if http1 && state.lifecycle.stage() == Stage::Draining {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Logging: one line a request, and the answer of an error with the request's id.
pub async fn log(id: RequestId, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, route) = (request.method().clone(), route_of(&request));
    let mut response = framed(next.run(request).await);
    let status = response.status().as_u16();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let request_id = &*id.0;
    let Some(Reported(error)) = response.extensions().get::<Reported>().cloned() else {
        tracing::debug!(request_id, %method, route = &*route, status, micros, "answered");
        return response;
    };
    let (code, error_text) = (error.code().name(), error.to_string());
    match error.level() {
        Level::ERROR => {
            tracing::error!(request_id, %method, route = &*route, status, micros, code, error = error_text, "failed");
        }
        Level::WARN => {
            tracing::warn!(request_id, %method, route = &*route, status, micros, code, error = error_text, "refused");
        }
        _ => {
            tracing::debug!(request_id, %method, route = &*route, status, micros, code, error = error_text, "refused")
        }
    }
    if error.status().is_server_error() {
        // Its headers stay, those too that a route has added.
        *response.body_mut() = error.response(Some(request_id)).into_body();
    }
    response
}

/// Logging of a part of a request that failed by itself: the rest was answered.
pub fn log_part(id: &RequestId, part: usize, error: &Error) {
    let request_id = &*id.0;
    let (status, code, error_text) = (error.status().as_u16(), error.code().name(), error.to_string());
    match error.level() {
        Level::ERROR => tracing::error!(request_id, part, status, code, error = error_text, "failed"),
        Level::WARN => tracing::warn!(request_id, part, status, code, error = error_text, "refused"),
        _ => tracing::debug!(request_id, part, status, code, error = error_text, "refused"),
    }
}

/// Refusals that the framework makes itself, in the form of all others.
fn framed(response: Response) -> Response {
    let status = response.status();
    let own = response.extensions().get::<Reported>().is_some();
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if own || json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    match status {
        StatusCode::METHOD_NOT_ALLOWED => Error::MethodNotAllowed.response(None),
        StatusCode::NOT_FOUND => Error::NotFound.response(None),
        _ if status.is_client_error() => {
            Error::InvalidParameter(Fault::whole("the request's path or query can't be read")).response(None)
        }
        _ => Error::Internal(format!("a handler answered {status} without an error")).response(None),
    }
}

/// Figures: requests by route and status, their time, how many are running.
pub async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut counted = state.metrics.request_begins(route_of(&request), request.method());
    let response = next.run(request).await;
    counted.answered(response.status());
    response
}

/// The route's template: a raw path could name a tenant's metric.
fn route_of(request: &Request) -> Arc<str> {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or_else(|| Arc::from(UNMATCHED), |path| Arc::from(path.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(own: &str) -> String {
        let ids = RequestIds { process: 1, next: AtomicU64::new(1) };
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(own).unwrap())]);
        ids.id_of(&headers).0.to_string()
    }

    #[test]
    fn a_sane_id_is_taken_over_and_another_is_not() {
        assert_eq!(id_for("a-B_9.z"), "a-B_9.z");
        for odd in ["", "a b", "a\"b", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(id_for(odd), "000000000001-1", "{odd}");
        }
    }

    #[test]
    fn ids_differ() {
        let ids = RequestIds::default();
        assert_ne!(ids.next(), ids.next());
    }
}
