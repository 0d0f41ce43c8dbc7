//! Everything that can go wrong with a request, and the one place that says how it is answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use luminate_storage::store::{ErrorKind, StoreError};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::Level;
use utoipa::ToSchema;

use crate::admission::{Class, RETRY_AFTER as RETRY_AFTER_SHED};
use crate::tenant::Scope;

/// Every code that an error or a rejected sample can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The body can't be parsed.
    InvalidBody,
    /// No sample of the request was accepted.
    AllRejected,
    /// A sample with a field that is missing, unknown or of the wrong type.
    InvalidSample,
    /// A malformed metric name.
    InvalidMetricName,
    /// A malformed, reserved or repeated dimension key.
    InvalidDimensionKey,
    /// An empty or overlong dimension value.
    InvalidDimensionValue,
    /// More dimensions than a sample may carry.
    TooManyDimensions,
    /// A value that isn't a finite number.
    InvalidValue,
    /// A timestamp that can't be read.
    InvalidTimestamp,
    /// A timestamp outside of the window in which samples are accepted.
    TimestampOutOfRange,
    /// A sample whose series or metric would be one more than allowed.
    CardinalityLimit,
    /// A query that is malformed or outside of its limits.
    InvalidQuery,
    /// A part of the path or of the query string that is malformed.
    InvalidParameter,
    /// No token, or one that isn't valid.
    Unauthenticated,
    /// The token lacks a scope.
    Forbidden,
    /// There is nothing under this path.
    NotFound,
    /// The path doesn't take this method.
    MethodNotAllowed,
    /// The request didn't arrive in time.
    RequestTimeout,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The request has more samples than allowed.
    BatchTooLarge,
    /// The headers are larger than allowed.
    HeadersTooLarge,
    /// A `Content-Encoding` that the worker doesn't read.
    UnsupportedEncoding,
    /// A `Content-Type` that the route doesn't take.
    UnsupportedMediaType,
    /// A rate limit is used up.
    RateLimited,
    /// As many queries run already as may run at once.
    TooManyQueries,
    /// The query would scan or hold more than its limits.
    QueryTooLarge,
    /// The query's time is over.
    QueryTimeout,
    /// The query was cancelled.
    QueryCancelled,
    /// The store as it is set up doesn't do this, or not now.
    Refused,
    /// Too much is waiting already.
    Overloaded,
    /// The worker can't serve now.
    Unavailable,
    /// A defect or a failure inside.
    Internal,
}

impl Code {
    /// Its name in answers and figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidBody => "INVALID_BODY",
            Self::AllRejected => "ALL_REJECTED",
            Self::InvalidSample => "INVALID_SAMPLE",
            Self::InvalidMetricName => "INVALID_METRIC_NAME",
            Self::InvalidDimensionKey => "INVALID_DIMENSION_KEY",
            Self::InvalidDimensionValue => "INVALID_DIMENSION_VALUE",
            Self::TooManyDimensions => "TOO_MANY_DIMENSIONS",
            Self::InvalidValue => "INVALID_VALUE",
            Self::InvalidTimestamp => "INVALID_TIMESTAMP",
            Self::TimestampOutOfRange => "TIMESTAMP_OUT_OF_RANGE",
            Self::CardinalityLimit => "CARDINALITY_LIMIT",
            Self::InvalidQuery => "INVALID_QUERY",
            Self::InvalidParameter => "INVALID_PARAMETER",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::HeadersTooLarge => "HEADERS_TOO_LARGE",
            Self::UnsupportedEncoding => "UNSUPPORTED_ENCODING",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::RateLimited => "RATE_LIMITED",
            Self::TooManyQueries => "TOO_MANY_QUERIES",
            Self::QueryTooLarge => "QUERY_TOO_LARGE",
            Self::QueryTimeout => "QUERY_TIMEOUT",
            Self::QueryCancelled => "QUERY_CANCELLED",
            Self::Refused => "REFUSED",
            Self::Overloaded => "OVERLOADED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Why a request can't be answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The body can't be parsed; the text says where and why.
    InvalidBody(Fault),
    /// No sample was accepted; the answer lists why.
    AllRejected,
    /// A query that is malformed or outside of its limits.
    InvalidQuery(Fault),
    /// A part of the path or of the query string that is malformed.
    InvalidParameter(Fault),
    /// A metric's name in a query, path or setting that is malformed.
    InvalidMetricName(Fault),
    /// A dimension's key in a query or path that is malformed.
    InvalidDimensionKey(Fault),
    /// No bearer token.
    NoToken,
    /// A token that isn't valid; the text says why without showing any of it.
    InvalidToken(&'static str),
    /// The token lacks this scope.
    MissingScope(Scope),
    /// There is nothing under this path.
    NotFound,
    /// Something named in the path isn't there.
    NoSuch(&'static str),
    /// The path doesn't take the method; the router adds `Allow` to the answer.
    MethodNotAllowed,
    /// The body didn't arrive in time.
    RequestTimeout,
    /// The body is larger than this many bytes, before or after decoding.
    BodyTooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// The request has more samples than this.
    BatchTooLarge {
        /// Most samples.
        limit: u64,
    },
    /// A `Content-Encoding` that the worker doesn't read.
    UnsupportedEncoding {
        /// What is read.
        allowed: &'static str,
    },
    /// A `Content-Type` that the route doesn't take.
    UnsupportedMediaType {
        /// What is taken.
        allowed: &'static str,
    },
    /// A rate limit is used up.
    RateLimited {
        /// Which.
        limit: &'static str,
        /// When there is room again.
        retry_after: Duration,
    },
    /// As many queries of the tenant run already as may run at once.
    TooManyQueries {
        /// How many may.
        limit: u32,
    },
    /// The worker is starting or stopping.
    NotServing,
    /// No key to check tokens with has been fetched yet.
    NoKeys,
    /// The worker holds as many requests as it may.
    Overloaded,
    /// The worker is busy, and others come before requests of this class.
    Shed(Class),
    /// The store failed.
    Store(StoreError),
    /// A defect; the text is for the log.
    Internal(String),
}

/// What is wrong with a part of a request: which part, and why, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The part, such as `timeRange.start`.
    pub field: Option<String>,
    /// Why it is refused.
    pub reason: String,
}

impl Fault {
    /// A fault of one field.
    pub fn of(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { field: Some(field.into()), reason: reason.to_string() }
    }

    /// A fault of the whole.
    pub fn whole(reason: impl fmt::Display) -> Self {
        Self { field: None, reason: reason.to_string() }
    }
}

/// How an error is answered and logged.
#[derive(Debug)]
struct Verdict<'a> {
    status: StatusCode,
    code: Code,
    message: String,
    level: Level,
    field: Option<&'a str>,
    limit: Option<u64>,
    retry_after: Option<Duration>,
}

impl<'a> Verdict<'a> {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        let level = if status.is_server_error() { Level::ERROR } else { Level::DEBUG };
        let message = message.into();
        Self { status, code, message, level, field: None, limit: None, retry_after: None }
    }

    fn fault(code: Code, fault: &'a Fault) -> Self {
        let field = fault.field.as_deref();
        Self { field, ..Self::new(StatusCode::BAD_REQUEST, code, &fault.reason) }
    }

    fn field(self, field: &'a str) -> Self {
        Self { field: Some(field), ..self }
    }

    fn limit(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }
}

impl Error {
    /// From error to answer: the only place that decides.
    fn verdict(&self) -> Verdict<'_> {
        use StatusCode as S;
        match self {
            Self::InvalidBody(fault) => Verdict::fault(Code::InvalidBody, fault),
            Self::AllRejected => Verdict::new(S::BAD_REQUEST, Code::AllRejected, "no sample was accepted"),
            Self::InvalidQuery(fault) => Verdict::fault(Code::InvalidQuery, fault),
            Self::InvalidParameter(fault) => Verdict::fault(Code::InvalidParameter, fault),
            Self::InvalidMetricName(fault) => Verdict::fault(Code::InvalidMetricName, fault),
            Self::InvalidDimensionKey(fault) => Verdict::fault(Code::InvalidDimensionKey, fault),
            Self::NoToken => {
                let message = "a bearer token is needed: Authorization: Bearer <token>";
                Verdict::new(S::UNAUTHORIZED, Code::Unauthenticated, message)
            }
            Self::InvalidToken(why) => Verdict::new(S::UNAUTHORIZED, Code::Unauthenticated, *why),
            Self::MissingScope(scope) => {
                let message = format!("the token lacks the scope {scope}");
                Verdict::new(S::FORBIDDEN, Code::Forbidden, message)
            }
            Self::NotFound => Verdict::new(S::NOT_FOUND, Code::NotFound, "there is nothing under this path"),
            Self::NoSuch(what) => {
                Verdict::new(S::NOT_FOUND, Code::NotFound, format!("there is no such {what}"))
            }
            Self::MethodNotAllowed => {
                let message = "this path doesn't take the method; Allow names those that it takes";
                Verdict::new(S::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
            }
            Self::RequestTimeout => {
                let message = "the body did not arrive in time";
                Verdict::new(S::REQUEST_TIMEOUT, Code::RequestTimeout, message)
            }
            Self::BodyTooLarge { limit } => {
                let message = format!("the body is larger than {limit} bytes, as sent or decoded");
                Verdict::new(S::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, message).limit(*limit)
            }
            Self::BatchTooLarge { limit } => {
                let message = format!("the request has more than {limit} samples");
                Verdict::new(S::PAYLOAD_TOO_LARGE, Code::BatchTooLarge, message).limit(*limit)
            }
            Self::UnsupportedEncoding { allowed } => {
                let message = format!("Content-Encoding must be {allowed}");
                Verdict::new(S::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedEncoding, message)
                    .field("Content-Encoding")
            }
            Self::UnsupportedMediaType { allowed } => {
                let message = format!("Content-Type must be {allowed}");
                Verdict::new(S::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, message)
                    .field("Content-Type")
            }
            Self::RateLimited { limit, retry_after } => {
                let message = format!("the limit {limit} is used up");
                Verdict::new(S::TOO_MANY_REQUESTS, Code::RateLimited, message)
                    .field(limit)
                    .retry_after(*retry_after)
            }
            Self::TooManyQueries { limit } => {
                let message = format!("{limit} queries of this tenant are running; no more may at once");
                Verdict::new(S::TOO_MANY_REQUESTS, Code::TooManyQueries, message)
                    .field("concurrent_queries")
                    .limit(u64::from(*limit))
                    .retry_after(Duration::from_secs(1))
            }
            Self::NoKeys => {
                let message = "the keys that tokens are checked with have not been fetched yet";
                Verdict::new(S::SERVICE_UNAVAILABLE, Code::Unavailable, message)
                    .retry_after(Duration::from_secs(5))
            }
            Self::NotServing => {
                let message = "the worker is starting or stopping";
                Verdict::new(S::SERVICE_UNAVAILABLE, Code::Unavailable, message)
                    .retry_after(Duration::from_secs(2))
                    .level(Level::DEBUG)
            }
            Self::Overloaded => overloaded(Duration::from_secs(1)),
            Self::Shed(class) => {
                let message = format!("the worker is busy and {}; try again", shed(*class));
                Verdict::new(S::SERVICE_UNAVAILABLE, Code::Overloaded, message)
                    .retry_after(RETRY_AFTER_SHED)
                    .level(Level::DEBUG)
            }
            Self::Store(error) => store_verdict(error),
            Self::Internal(_) => internal(),
        }
    }

    /// The same, of something that stands at `place` in a body: its field is named from there.
    #[must_use]
    pub fn within(mut self, place: fmt::Arguments<'_>) -> Self {
        if let Self::InvalidQuery(fault) | Self::InvalidMetricName(fault) | Self::InvalidDimensionKey(fault) =
            &mut self
        {
            let field = fault.field.as_ref().map(|field| format!("{place}.{field}"));
            fault.field = Some(field.unwrap_or_else(|| place.to_string()));
        }
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.verdict().code
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.verdict().status
    }

    /// How loudly it is logged.
    #[must_use]
    pub fn level(&self) -> Level {
        self.verdict().level
    }

    /// What it says to the client; with the request's id when it is the worker's fault.
    #[must_use]
    pub fn body(&self, request_id: Option<&str>) -> ErrorBody {
        let verdict = self.verdict();
        let mut details = Map::new();
        if let Some(field) = verdict.field {
            details.insert("field".into(), Value::from(field));
        }
        if let Some(limit) = verdict.limit {
            details.insert("limit".into(), Value::from(limit));
        }
        if let Some(after) = verdict.retry_after {
            details.insert("retryAfterSeconds".into(), Value::from(whole_seconds(after)));
        }
        if let Some(id) = request_id.filter(|_| verdict.status.is_server_error()) {
            details.insert("requestId".into(), Value::from(id));
        }
        ErrorBody { error: ErrorObject { code: verdict.code, message: verdict.message, details } }
    }

    /// In how many seconds it is worth another try, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        self.verdict().retry_after.map(whole_seconds)
    }

    /// The whole answer; layers that know the request's id call this again with it.
    #[must_use]
    pub fn response(&self, request_id: Option<&str>) -> Response {
        let verdict = self.verdict();
        let mut headers = HeaderMap::new();
        if let Some(after) = verdict.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        match self {
            Self::NoToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"luminate\""));
            }
            Self::InvalidToken(_) => {
                let challenge = "Bearer realm=\"luminate\", error=\"invalid_token\"";
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Self::MissingScope(scope) => {
                let challenge =
                    format!("Bearer realm=\"luminate\", error=\"insufficient_scope\", scope=\"{scope}\"");
                headers.extend(HeaderValue::try_from(challenge).map(|value| (WWW_AUTHENTICATE, value)));
            }
            _ => {}
        }
        let mut response = (verdict.status, headers, Json(self.body(request_id))).into_response();
        response.extensions_mut().insert(Reported(Arc::new(self.clone())));
        response
    }
}

fn store_verdict(error: &StoreError) -> Verdict<'_> {
    use StatusCode as S;
    match error.kind {
        ErrorKind::Timeout => {
            Verdict::new(S::GATEWAY_TIMEOUT, Code::QueryTimeout, "the query's time is over")
                .level(Level::DEBUG)
        }
        ErrorKind::Cancelled => Verdict::new(S::CONFLICT, Code::QueryCancelled, "the query was cancelled"),
        ErrorKind::QueryTooLarge => {
            Verdict::new(S::UNPROCESSABLE_ENTITY, Code::QueryTooLarge, &error.message)
        }
        ErrorKind::Refused => Verdict::new(S::CONFLICT, Code::Refused, &error.message),
        ErrorKind::Overloaded { retry_after } => overloaded(retry_after),
        ErrorKind::Unavailable { retry_after } => {
            let message = "the store can't serve now; try again";
            Verdict::new(S::SERVICE_UNAVAILABLE, Code::Unavailable, message)
                .retry_after(retry_after)
                .level(Level::WARN)
        }
        ErrorKind::StaleSeries | ErrorKind::Corrupt | ErrorKind::Internal => internal(),
    }
}

fn overloaded(retry_after: Duration) -> Verdict<'static> {
    let message = "too much is waiting to be stored or answered; try again";
    Verdict::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, message)
        .retry_after(retry_after)
        .level(Level::WARN)
}

/// What happens to requests of a class that are shed, in words for the client.
fn shed(class: Class) -> &'static str {
    match class {
        Class::KnownSeries => "takes no writes now",
        Class::LightQuery => "answers no queries now",
        Class::HeavyQuery => "answers no query over so many samples now",
        Class::NewSeries => "creates no series now; samples of known series are stored",
        Class::Import => "takes no imports now",
    }
}

fn internal() -> Verdict<'static> {
    let message = "something failed inside the worker; its log has this requestId";
    Verdict::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, message)
}

/// Rounded up: a client that waits so long finds room.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl fmt::Display for Error {
    /// For the log: with what the client isn't told, and without what the client sent.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(formatter, "{error}"),
            Self::Internal(why) => formatter.write_str(why),
            Self::InvalidBody(fault)
            | Self::InvalidQuery(fault)
            | Self::InvalidParameter(fault)
            | Self::InvalidMetricName(fault)
            | Self::InvalidDimensionKey(fault) => {
                formatter.write_str(fault.field.as_deref().unwrap_or("malformed"))
            }
            _ => formatter.write_str(&self.verdict().message),
        }
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.response(None)
    }
}

/// The error behind an answer, for the layers that log it and that put it into another form.
#[derive(Debug, Clone)]
pub struct Reported(pub Arc<Error>);

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorObject {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// `field`, `limit`, `retryAfterSeconds`, `requestId`, where they apply.
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(error: &Error) -> String {
        format!("{} {}", error.status().as_u16(), serde_json::to_string(&error.body(Some("r1"))).unwrap())
    }

    #[test]
    fn a_fault_names_its_field() {
        let error = Error::InvalidQuery(Fault::of("timeRange", "start must lie before end"));
        assert_eq!(
            answer(&error),
            r#"400 {"error":{"code":"INVALID_QUERY","message":"start must lie before end","details":{"field":"timeRange"}}}"#
        );
    }

    #[test]
    fn a_fault_of_a_part_names_its_field_from_there() {
        let field =
            |error: Error| error.within(format_args!("queries[3]")).body(None).error.details["field"].clone();
        assert_eq!(field(Error::InvalidMetricName(Fault::of("metricName", "odd"))), "queries[3].metricName");
        assert_eq!(field(Error::InvalidQuery(Fault::whole("odd"))), "queries[3]");
        assert_eq!(Error::Overloaded.within(format_args!("queries[3]")), Error::Overloaded);
    }

    #[test]
    fn what_is_the_workers_fault_shows_only_the_requests_id() {
        for error in [Error::Internal("secret".into()), StoreError::corrupt("secret").into()] {
            let text = answer(&error);
            assert!(text.starts_with("500") && text.contains(r#""requestId":"r1""#), "{text}");
            assert!(!text.contains("secret"), "{text}");
            assert!(error.to_string().contains("secret"));
        }
    }

    #[test]
    fn a_code_has_one_name() {
        for code in [Code::InvalidMetricName, Code::CardinalityLimit, Code::QueryTimeout, Code::Internal] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }

    #[test]
    fn waiting_is_rounded_up_to_seconds() {
        let error = Error::RateLimited { limit: "write_rps", retry_after: Duration::from_millis(1_001) };
        let response = error.response(None);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn refusals_carry_the_headers_that_http_asks_for() {
        let unauthenticated = Error::NoToken.response(None);
        assert_eq!(unauthenticated.headers()[WWW_AUTHENTICATE], "Bearer realm=\"luminate\"");
    }

    #[test]
    fn each_kind_of_store_error_has_its_status() {
        let after = Duration::from_secs(3);
        for (kind, status) in [
            (ErrorKind::Timeout, 504),
            (ErrorKind::Cancelled, 409),
            (ErrorKind::QueryTooLarge, 422),
            (ErrorKind::Overloaded { retry_after: after }, 503),
            (ErrorKind::Unavailable { retry_after: after }, 503),
            (ErrorKind::Refused, 409),
            (ErrorKind::StaleSeries, 500),
            (ErrorKind::Corrupt, 500),
            (ErrorKind::Internal, 500),
        ] {
            assert_eq!(Error::from(StoreError::new(kind.clone(), "x")).status(), status, "{kind:?}");
        }
    }
}
