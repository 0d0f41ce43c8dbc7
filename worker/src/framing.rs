//! Requests that two parties on the way could understand in two ways.

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{Error, Fault};

/// The layer: refuses a request of HTTP/1.1 without a host or any with two (RFC 9112, section 3.2), with two lengths (section 6.3), or with a
/// transfer coding that isn't just `chunked` (section 6.1). Where it ends is then anybody's guess, so the connection ends.
pub async fn refuse_ambiguous(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().take(2).count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11 && request.uri().host().is_none()) {
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

    async fn answered(request: axum::http::request::Builder) -> u16 {
        let app = Router::new().fallback(|| async { "ok" }).layer(from_fn(refuse_ambiguous));
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    async fn status(headers: &[(&str, &str)]) -> u16 {
        let request = Request::builder().header("host", "a");
        answered(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    #[tokio::test]
    async fn who_speaks_http_1_1_names_a_host() {
        let version = |version| Request::builder().version(version);
        assert_eq!(answered(version(Version::HTTP_11)).await, 400);
        assert_eq!(answered(version(Version::HTTP_10)).await, 200);
        assert_eq!(answered(version(Version::HTTP_2)).await, 200, "`:authority` is its own affair");
        assert_eq!(answered(version(Version::HTTP_11).uri("http://a/x")).await, 200);
    }

    #[tokio::test]
    async fn two_hosts_or_two_lengths_are_refused() {
        assert_eq!(status(&[]).await, 200);
        assert_eq!(status(&[("host", "a")]).await, 400);
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
