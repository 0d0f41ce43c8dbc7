//! What gRPC puts around one message and its answer (grpc.io, "gRPC over HTTP2").

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http_body_util::{BodyExt, Full};

use super::status::RpcStatus;
use crate::error::{Error, Fault};
use crate::ingest::body::Encoding;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// The encodings that are read.
const ENCODINGS: &str = "identity,gzip,zstd,snappy";
/// A message's prefix: whether it is compressed, and its length in four bytes, the highest first.
const PREFIX: usize = 5;
/// Most digits of a timeout.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// Whether a request is gRPC's; its form for browsers, `application/grpc-web`, is another.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let rest = kind.trim().strip_prefix("application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The one message of a call, and how it is compressed.
///
/// # Errors
/// Not gRPC, not one message, or an encoding that isn't read.
pub fn message(headers: &HeaderMap, body: &Bytes) -> Result<(Encoding, Bytes), Error> {
    if !is_grpc(headers) {
        return Err(Error::UnsupportedMediaType { allowed: "application/grpc" });
    }
    let malformed = |reason: &str| Error::InvalidBody(Fault::whole(reason));
    let Some(([compressed, length @ ..], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(malformed("the call has no message"));
    };
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(malformed("the call must have one message, which is as long as it says"));
    }
    let encoding = match compressed {
        0 => Encoding::Identity,
        1 => named_encoding(headers)?,
        _ => return Err(malformed("a message is compressed or it isn't: its first byte must be 0 or 1")),
    };
    Ok((encoding, body.slice(PREFIX..)))
}

fn named_encoding(headers: &HeaderMap) -> Result<Encoding, Error> {
    let name = headers.get(ENCODING).map(|name| String::from_utf8_lossy(name.as_bytes()));
    match Encoding::named(&name.unwrap_or_default()) {
        Ok(Encoding::Identity) => {
            Err(Error::InvalidBody(Fault::of("grpc-encoding", "a compressed message needs a grpc-encoding")))
        }
        Ok(encoding) => Ok(encoding),
        Err(_) => Err(Error::UnsupportedEncoding { allowed: ENCODINGS }),
    }
}

/// How long the caller waits, if it says so.
///
/// # Errors
/// It says so in another form than up to eight digits and a unit.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let allowed = "it is up to eight digits and one of H, M, S, m, u and n";
    let refused = || Error::InvalidParameter(Fault::of("grpc-timeout", allowed));
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(refused)?;
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number || digits.len() > MAX_TIMEOUT_DIGITS {
        return Err(refused());
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Ok(Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return Err(refused()),
    }))
}

/// The answer of a call that went well: one message, and the status behind it.
pub fn success(message: &[u8]) -> Response {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let framed = Bytes::from([&[0], length.as_slice(), message].concat());
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(framed).with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS)),
    ];
    (headers, Body::new(body)).into_response()
}

/// Adds a status to the headers of an answer that has no message.
pub fn add_status(headers: &mut HeaderMap, status: &RpcStatus) {
    headers.insert(STATUS, HeaderValue::from(status.code));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
    headers.extend(HeaderValue::try_from(percent_encoded(&status.message)).map(|value| (MESSAGE, value)));
    if status.retry_after.is_some() {
        let details = STANDARD_NO_PAD.encode(status.to_protobuf());
        headers.extend(HeaderValue::try_from(details).map(|value| (DETAILS, value)));
    }
}

/// A message as gRPC has it in a header: what isn't printable ASCII, and `%`, as `%` and two digits.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_grpc_itself_is_grpc() {
        let is = |kind: &str| is_grpc(&headers(&[(CONTENT_TYPE, kind)]));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/x-protobuf") && !is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_call_has_one_message() {
        let read = |body: &[u8], encoding: &str| {
            let kind = (CONTENT_TYPE, "application/grpc");
            let headers = headers(&[kind, (ENCODING, encoding)]);
            message(&headers, &Bytes::copy_from_slice(body))
        };
        let expected = (Encoding::Identity, Bytes::from_static(b"hi"));
        assert_eq!(read(b"\0\0\0\0\x02hi", "gzip"), Ok(expected));
        assert_eq!(read(b"\x01\0\0\0\x02hi", "gzip").unwrap().0, Encoding::Gzip);
        assert_eq!(read(b"\0\0\0\0\0", "identity").unwrap().1, Bytes::new());
        assert_eq!(read(b"\x01\0\0\0\x02hi", "deflate").unwrap_err().status(), 415);
        let broken: [&[u8]; 5] =
            [b"", b"\0\0\0\0", b"\0\0\0\0\x03hi", b"\0\0\0\0\x01hi", b"\x02\0\0\0\x02hi"];
        for body in broken {
            assert_eq!(read(body, "gzip").unwrap_err().status(), 400, "{body:?}");
        }
        assert_eq!(read(b"\x01\0\0\0\x02hi", "identity").unwrap_err().status(), 400);
    }

    #[test]
    fn timeouts_have_a_unit() {
        let read = |value: &str| timeout(&headers(&[(TIMEOUT, value)]));
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
        assert_eq!(read("10S"), Ok(Some(Duration::from_secs(10))));
        assert_eq!(read("5000m"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(read("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
        for bad in ["", "S", "10", "10s", "-1S", "123456789S", "1.5S"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_are_fit_for_headers() {
        assert_eq!(percent_encoded("100 % größer\n"), "100 %25 gr%C3%B6%C3%9Fer%0A");
    }
}
