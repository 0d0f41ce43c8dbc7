//! Requests that two parties on the way could understand in two ways.

use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{Error, Fault};

/// The layer: refuses a request with two hosts (RFC 9112, section 3.2), or with two lengths (section 6.3).
pub async fn refuse_ambiguous(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.get_all(HOST).iter().nth(1).is_some() {
        return refused("Host", "a request names one host");
    }
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return refused("Content-Length", "a request with Transfer-Encoding has no Content-Length");
    }
    next.run(request).await
}

fn refused(header: &str, reason: &str) -> Response {
    Error::InvalidParameter(Fault::of(header, reason)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use tower::ServiceExt;

    use super::*;

    async fn status(headers: &[(&str, &str)]) -> u16 {
        let app = Router::new().fallback(|| async { "ok" }).layer(from_fn(refuse_ambiguous));
        let request =
            headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn two_hosts_or_two_lengths_are_refused() {
        assert_eq!(status(&[("host", "a")]).await, 200);
        assert_eq!(status(&[("host", "a"), ("host", "a")]).await, 400);
        assert_eq!(status(&[("content-length", "4"), ("transfer-encoding", "chunked")]).await, 400);
    }
}
