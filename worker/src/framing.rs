//! Requests that two parties on the way could understand in two ways.

use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{Error, Fault};

/// The layer: refuses a request with two hosts (RFC 9112, section 3.2), with two lengths (section 6.3), or with a
/// transfer coding that isn't just `chunked` (section 6.1). Where it ends is then anybody's guess, so the connection ends.
pub async fn refuse_ambiguous(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.get_all(HOST).iter().nth(1).is_some() {
        return refused("Host", "a request names one host");
    }
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return refused("Content-Length", "a request with Transfer-Encoding has no Content-Length");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return refused("Transfer-Encoding", "Transfer-Encoding must be chunked, once");
    }
    next.run(request).await
}

fn refused(header: &str, reason: &str) -> Response {
    let mut response = Error::InvalidParameter(Fault::of(header, reason)).into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
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

    #[tokio::test]
    async fn a_transfer_coding_is_chunked_and_nothing_else() {
        let coded = async |codings: &[&str]| {
            let headers: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            status(&headers).await
        };
        assert_eq!((coded(&["chunked"]).await, coded(&["Chunked"]).await), (200, 200));
        for codings in [&["identity, chunked"][..], &["chunked", "chunked"], &["gzip"], &[""]] {
            assert_eq!(coded(codings).await, 400, "{codings:?}");
        }
    }
}
