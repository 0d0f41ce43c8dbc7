//! What handlers read from a request beside its tenant: media types, JSON bodies, parameters, times.

use std::fmt;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use luminate_storage::model::{DimensionKey, MetricName};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::app::AppState;
use crate::body::Received;
use crate::error::{Error, Fault};
use crate::ingest::body::{self, BodyError, Encoding};
use crate::ingest::timestamp::parse_rfc3339;

/// Rows of newline-delimited JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// Times that a client may name: years 0 to 9999, in Unix milliseconds.
const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The media type of a header without its parameters, in lower case; empty when it is absent.
fn media_type(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The value of a parameter of the body's media type, in lower case.
pub fn media_parameter(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let mut parameters = value.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"').to_ascii_lowercase())
}

/// Whether the body's media type is `expected`.
pub fn is_media(headers: &HeaderMap, expected: &str) -> bool {
    media_type(headers, &CONTENT_TYPE) == expected
}

/// Checks that the body's media type is `expected`, or, where `optional`, that none is named.
///
/// # Errors
/// `UnsupportedMediaType`.
pub fn expect_media(headers: &HeaderMap, expected: &'static str, optional: bool) -> Result<(), Error> {
    if is_media(headers, expected) || (optional && !headers.contains_key(CONTENT_TYPE)) {
        return Ok(());
    }
    Err(Error::UnsupportedMediaType { allowed: expected })
}

/// Whether the client asks for newline-delimited JSON.
pub fn wants_ndjson(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(NDJSON))
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::UnknownEncoding(_) => {
                Self::UnsupportedEncoding { allowed: "gzip, zstd, snappy or identity" }
            }
            BodyError::TooLarge { limit } => Self::BodyTooLarge { limit: limit as u64 },
            malformed @ BodyError::Malformed { .. } => Self::InvalidBody(Fault::whole(malformed)),
        }
    }
}

/// Reads a JSON body of a few fields; `refuse` says which error a field that doesn't fit is.
///
/// # Errors
/// `UnsupportedMediaType`, `UnsupportedEncoding`, `BodyTooLarge`, `InvalidBody` when it isn't JSON, and `refuse`.
pub fn json<T: DeserializeOwned>(
    state: &AppState,
    headers: &HeaderMap,
    body: &Received,
    refuse: fn(Fault) -> Error,
) -> Result<T, Error> {
    expect_media(headers, "application/json", true)?;
    let limit = state.config.server.max_body_bytes.len();
    let text = body::decode(body.bytes.clone(), Encoding::of(headers)?, limit)?;
    // To keep the way to each field costs as much as to read it, so that is only done for what is refused.
    serde_json::from_slice(&text).or_else(|_| json_with_paths(&text, refuse))
}

/// The same value; an error says which field it is about.
fn json_with_paths<T: DeserializeOwned>(text: &[u8], refuse: fn(Fault) -> Error) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        match reason.classify() {
            serde_json::error::Category::Data if path == "." => refuse(Fault::whole(reason)),
            serde_json::error::Category::Data => refuse(Fault::of(path, reason)),
            _ => Error::InvalidBody(Fault::whole(format_args!("the body is not valid JSON: {reason}"))),
        }
    })?;
    let end = deserializer.end();
    end.map_err(|error| {
        Error::InvalidBody(Fault::whole(format_args!("the body is not valid JSON: {error}")))
    })?;
    Ok(value)
}

/// The parameters of the query string; unknown ones are refused.
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Parameters<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        let Query(parameters) =
            read.map_err(|refused| Error::InvalidParameter(Fault::whole(refused.body_text())))?;
        Ok(Self(parameters))
    }
}

/// The parts of the path between slashes that the route leaves open.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let read: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(segments) =
            read.map_err(|refused| Error::InvalidParameter(Fault::whole(refused.body_text())))?;
        Ok(Self(segments))
    }
}

/// The metric's name in `field`.
///
/// # Errors
/// `InvalidMetricName`.
pub fn metric(field: &str, text: &str) -> Result<MetricName, Error> {
    MetricName::new(text).map_err(|reason| Error::InvalidMetricName(Fault::of(field, reason)))
}

/// The dimension's key in `field`.
///
/// # Errors
/// `InvalidDimensionKey`.
pub fn key(field: &str, text: &str) -> Result<DimensionKey, Error> {
    DimensionKey::new(text).map_err(|reason| Error::InvalidDimensionKey(Fault::of(field, reason)))
}

/// A point in time, as a client writes it: whole Unix milliseconds or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub i64);

impl Time {
    fn from_millis(millis: i64) -> Option<Self> {
        TIMES.contains(&millis).then_some(Self(millis))
    }

    /// The time of a parameter, where a number is text too.
    pub fn parse(text: &str) -> Option<Self> {
        let whole = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
        let millis = if whole { text.parse().ok() } else { parse_rfc3339(text) };
        millis.and_then(Self::from_millis)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("whole Unix milliseconds or an RFC 3339 time, in the years 0 to 9999")
    }

    fn visit_i64<E: serde::de::Error>(self, millis: i64) -> Result<Time, E> {
        Time::from_millis(millis)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Signed(millis), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, millis: u64) -> Result<Time, E> {
        let time = i64::try_from(millis).ok().and_then(Time::from_millis);
        time.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(millis), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
        let time = parse_rfc3339(text).and_then(Time::from_millis);
        time.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        let millis = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        OneOfBuilder::new()
            .item(millis)
            .item(text)
            .description(Some("Whole Unix milliseconds, or RFC 3339 (finer than a millisecond is cut off)"))
            .into()
    }
}

impl ToSchema for Time {}

/// A parameter that is `true` or `false`; absent, it is false.
///
/// # Errors
/// `InvalidParameter`.
pub fn flag(field: &str, text: Option<&str>) -> Result<bool, Error> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => {
            let reason = format_args!("{field} must be true or false");
            Err(Error::InvalidParameter(Fault::of(field, reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn media_types_are_compared_without_parameters() {
        let json =
            |value: &str| expect_media(&headers(CONTENT_TYPE, value), "application/json", true).is_ok();
        assert!(json("application/json") && json("Application/JSON; charset=utf-8"));
        assert!(!json("text/csv") && !json("application/jsonx") && !json(""));
        assert!(expect_media(&HeaderMap::new(), "application/json", true).is_ok());
        assert!(expect_media(&HeaderMap::new(), "application/x-protobuf", false).is_err());
        let proto = headers(CONTENT_TYPE, "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"");
        assert_eq!(media_parameter(&proto, "proto").as_deref(), Some("io.prometheus.write.v2.request"));
    }

    #[test]
    fn ndjson_is_found_among_the_accepted_types() {
        assert!(wants_ndjson(&headers(ACCEPT, "text/html, application/x-ndjson;q=0.9")));
        assert!(!wants_ndjson(&headers(ACCEPT, "application/json, */*")));
        assert!(!wants_ndjson(&HeaderMap::new()));
    }

    #[test]
    fn times_are_milliseconds_or_rfc_3339() {
        let read = |text: &str| {
            serde_json::from_str::<Time>(text).map(|time| time.0).map_err(|error| error.to_string())
        };
        assert_eq!(read("1767225600000"), Ok(1_767_225_600_000));
        assert_eq!(read("\"2026-01-01T00:00:00Z\""), Ok(1_767_225_600_000));
        for bad in ["1.5", "true", "null", "9999999999999999", "\"1767225600000\"", "\"now\"", "[]"] {
            assert!(read(bad).unwrap_err().contains("expected whole Unix milliseconds"), "{bad}");
        }
        assert_eq!(Time::parse("1767225600000"), Some(Time(1_767_225_600_000)));
        assert_eq!(Time::parse("2026-01-01T00:00:00Z"), Some(Time(1_767_225_600_000)));
        assert!(
            ["", "-", "1.5", "yesterday", "99999999999999999999"]
                .into_iter()
                .all(|text| Time::parse(text).is_none())
        );
    }
}
