//! What a server's refusal means to the callers of the store.

use std::fmt;
use std::time::Duration;

use clickhouse::error::Error;

use crate::store::{ErrorKind, StoreError};

/// How a statement failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server answered with this exception, by ClickHouse's number.
    Exception(u32),
    /// No connection: nothing was sent.
    Unreachable,
    /// The connection broke after something was sent: it may have been done or not.
    Broken,
    /// No answer in time: it may have been done or not.
    TimedOut,
    /// Something between here and the server answered in its place, such as a load balancer with a page that
    /// says 502: it may have been done or not.
    Foreign,
    /// The answer isn't what was asked for.
    Malformed,
    /// The tables are of a version that this program doesn't know.
    NewerSchema,
}

/// A statement that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub cause: Cause,
    /// What the server or the connection says, for the log.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exceptions that mean something to us. Numbers: ClickHouse, src/Common/ErrorCodes.cpp.
pub mod code {
    /// TABLE_ALREADY_EXISTS.
    pub const TABLE_ALREADY_EXISTS: u32 = 57;
    /// UNKNOWN_TABLE.
    pub const UNKNOWN_TABLE: u32 = 60;
    /// SYNTAX_ERROR.
    pub const SYNTAX_ERROR: u32 = 62;
    /// UNKNOWN_DATABASE.
    pub const UNKNOWN_DATABASE: u32 = 81;
    /// TOO_MANY_ROWS.
    pub const TOO_MANY_ROWS: u32 = 158;
    /// TIMEOUT_EXCEEDED.
    pub const TIMEOUT_EXCEEDED: u32 = 159;
    /// TOO_SLOW.
    pub const TOO_SLOW: u32 = 160;
    /// READONLY.
    pub const READONLY: u32 = 164;
    /// UNKNOWN_USER.
    pub const UNKNOWN_USER: u32 = 192;
    /// WRONG_PASSWORD.
    pub const WRONG_PASSWORD: u32 = 193;
    /// REQUIRED_PASSWORD.
    pub const REQUIRED_PASSWORD: u32 = 194;
    /// TOO_MANY_SIMULTANEOUS_QUERIES.
    pub const TOO_MANY_QUERIES: u32 = 202;
    /// SOCKET_TIMEOUT.
    pub const SOCKET_TIMEOUT: u32 = 209;
    /// NETWORK_ERROR.
    pub const NETWORK_ERROR: u32 = 210;
    /// NO_ZOOKEEPER.
    pub const NO_KEEPER: u32 = 225;
    /// ABORTED.
    pub const ABORTED: u32 = 236;
    /// MEMORY_LIMIT_EXCEEDED.
    pub const MEMORY_LIMIT_EXCEEDED: u32 = 241;
    /// TABLE_IS_READ_ONLY.
    pub const TABLE_IS_READ_ONLY: u32 = 242;
    /// NOT_ENOUGH_SPACE.
    pub const NOT_ENOUGH_SPACE: u32 = 243;
    /// TOO_MANY_PARTS.
    pub const TOO_MANY_PARTS: u32 = 252;
    /// ALL_CONNECTION_TRIES_FAILED.
    pub const ALL_CONNECTION_TRIES_FAILED: u32 = 279;
    /// TOO_FEW_LIVE_REPLICAS.
    pub const TOO_FEW_LIVE_REPLICAS: u32 = 285;
    /// UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE.
    pub const UNSATISFIED_QUORUM: u32 = 286;
    /// TOO_MANY_BYTES.
    pub const TOO_MANY_BYTES: u32 = 307;
    /// UNKNOWN_STATUS_OF_INSERT.
    pub const UNKNOWN_STATUS_OF_INSERT: u32 = 319;
    /// QUERY_WAS_CANCELLED.
    pub const QUERY_WAS_CANCELLED: u32 = 394;
    /// TOO_MANY_ROWS_OR_BYTES.
    pub const TOO_MANY_ROWS_OR_BYTES: u32 = 396;
    /// UNKNOWN_CODEC.
    pub const UNKNOWN_CODEC: u32 = 432;
    /// ACCESS_DENIED.
    pub const ACCESS_DENIED: u32 = 497;
    /// AUTHENTICATION_FAILED.
    pub const AUTHENTICATION_FAILED: u32 = 516;
    /// SERVER_OVERLOADED.
    pub const SERVER_OVERLOADED: u32 = 745;
    /// KEEPER_EXCEPTION.
    pub const KEEPER_EXCEPTION: u32 = 999;
}

/// When a server that is away is worth another try.
const AWAY: Duration = Duration::from_secs(2);
/// When a person has had time to mend rights, a password or a disk.
const MENDED: Duration = Duration::from_secs(15);
/// When a busy server is worth another try.
const BUSY: Duration = Duration::from_secs(1);

impl Failure {
    /// A failure with its text.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    /// The server's exception, by number.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self.cause {
            Cause::Exception(code) => Some(code),
            _ => None,
        }
    }

    /// Whether another endpoint may do what this one couldn't.
    #[must_use]
    pub fn elsewhere(&self) -> bool {
        match self.cause {
            Cause::Unreachable | Cause::Broken | Cause::Foreign => true,
            Cause::Exception(code) => matches!(
                code,
                code::TABLE_IS_READ_ONLY
                    | code::NO_KEEPER
                    | code::KEEPER_EXCEPTION
                    | code::SERVER_OVERLOADED
                    | code::ABORTED
                    | code::ALL_CONNECTION_TRIES_FAILED
                    | code::NETWORK_ERROR
                    | code::SOCKET_TIMEOUT
            ),
            Cause::TimedOut | Cause::Malformed | Cause::NewerSchema => false,
        }
    }

    /// What the failure is to a caller of the store.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        let Cause::Exception(code) = self.cause else {
            return match self.cause {
                Cause::Malformed => ErrorKind::Internal,
                Cause::NewerSchema => ErrorKind::Unavailable { retry_after: MENDED },
                _ => ErrorKind::Unavailable { retry_after: AWAY },
            };
        };
        match code {
            code::TIMEOUT_EXCEEDED | code::TOO_SLOW => ErrorKind::Timeout,
            code::QUERY_WAS_CANCELLED => ErrorKind::Cancelled,
            code::TOO_MANY_ROWS | code::TOO_MANY_BYTES | code::TOO_MANY_ROWS_OR_BYTES => {
                ErrorKind::QueryTooLarge
            }
            // The server as a whole has no memory left, or this one query has used its own.
            code::MEMORY_LIMIT_EXCEEDED if self.message.contains("total") => {
                ErrorKind::Overloaded { retry_after: BUSY }
            }
            code::MEMORY_LIMIT_EXCEEDED => ErrorKind::QueryTooLarge,
            code::TOO_MANY_QUERIES | code::TOO_MANY_PARTS | code::SERVER_OVERLOADED => {
                ErrorKind::Overloaded { retry_after: BUSY }
            }
            code::READONLY
            | code::TABLE_IS_READ_ONLY
            | code::NOT_ENOUGH_SPACE
            | code::UNKNOWN_USER
            | code::WRONG_PASSWORD
            | code::REQUIRED_PASSWORD
            | code::AUTHENTICATION_FAILED
            | code::ACCESS_DENIED
            | code::UNKNOWN_TABLE
            | code::UNKNOWN_DATABASE => ErrorKind::Unavailable { retry_after: MENDED },
            code::SOCKET_TIMEOUT
            | code::NETWORK_ERROR
            | code::NO_KEEPER
            | code::ABORTED
            | code::ALL_CONNECTION_TRIES_FAILED
            | code::TOO_FEW_LIVE_REPLICAS
            | code::UNSATISFIED_QUORUM
            | code::UNKNOWN_STATUS_OF_INSERT
            | code::KEEPER_EXCEPTION => ErrorKind::Unavailable { retry_after: AWAY },
            _ => ErrorKind::Internal,
        }
    }

    /// What a person who runs the server can do about it, where there is something to be done.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        let Cause::Exception(code) = self.cause else {
            return match self.cause {
                Cause::Unreachable => Some("ClickHouse can't be reached: see storage.clickhouse.endpoints"),
                Cause::Broken | Cause::TimedOut => Some("ClickHouse doesn't answer"),
                Cause::NewerSchema => Some("ClickHouse's tables are of a newer version: use a newer worker"),
                _ => Some("what answers is no ClickHouse: see storage.clickhouse.endpoints"),
            };
        };
        match code {
            code::UNKNOWN_USER
            | code::WRONG_PASSWORD
            | code::REQUIRED_PASSWORD
            | code::AUTHENTICATION_FAILED => {
                Some("ClickHouse refuses the user or password: see storage.clickhouse.username and .password")
            }
            code::ACCESS_DENIED => {
                Some("ClickHouse's user lacks a right: grant what the documentation lists")
            }
            code::READONLY | code::TABLE_IS_READ_ONLY => Some("ClickHouse is read-only"),
            code::NOT_ENOUGH_SPACE => Some("ClickHouse's disk is full"),
            code::TOO_MANY_PARTS => Some("ClickHouse has too many parts: its merges don't keep up"),
            code::MEMORY_LIMIT_EXCEEDED => Some("ClickHouse is out of memory"),
            code::UNKNOWN_TABLE | code::UNKNOWN_DATABASE => {
                Some("ClickHouse lacks Luminate's database or tables: see storage.clickhouse.database")
            }
            code::NO_KEEPER | code::KEEPER_EXCEPTION => Some("ClickHouse has lost its Keeper"),
            code::TOO_FEW_LIVE_REPLICAS | code::UNSATISFIED_QUORUM => {
                Some("ClickHouse has too few replicas alive")
            }
            _ => None,
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind();
        let message = match failure.advice() {
            Some(advice) => format!("{advice} ({})", failure.message),
            None => failure.message,
        };
        Self::new(kind, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::BadResponse(text) => Self::new(exception(&text), text),
            Error::Network(source) => {
                let message = chain(&*source);
                let connecting = source
                    .downcast_ref::<hyper_util::client::legacy::Error>()
                    .is_some_and(hyper_util::client::legacy::Error::is_connect);
                Self::new(if connecting { Cause::Unreachable } else { Cause::Broken }, message)
            }
            Error::TimedOut => Self::new(Cause::TimedOut, "no answer in time"),
            other => Self::new(Cause::Malformed, chain(&other)),
        }
    }
}

/// `Code: 60. DB::Exception: …` or, from something that is no ClickHouse, any text.
fn exception(text: &str) -> Cause {
    let digits = text.split_once("Code: ").map(|(_, rest)| rest);
    let number = digits.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    match number {
        Some(code) => Cause::Exception(code),
        // The client keeps of a refusal the page alone, not its status.
        None => Cause::Foreign,
    }
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> Failure {
        Failure::from(Error::BadResponse(text.to_owned()))
    }

    #[test]
    fn an_exception_is_known_by_its_number() {
        let full = answered("Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)");
        assert_eq!(full.code(), Some(252));
        assert!(matches!(full.kind(), ErrorKind::Overloaded { .. }));
        assert!(StoreError::from(full).message.starts_with("ClickHouse has too many parts"));
    }

    #[test]
    fn memory_of_a_query_and_of_the_server_are_apart() {
        let own =
            answered("Code: 241. DB::Exception: Memory limit (for query) exceeded: (MEMORY_LIMIT_EXCEEDED)");
        assert_eq!(own.kind(), ErrorKind::QueryTooLarge);
        let all =
            answered("Code: 241. DB::Exception: Memory limit (total) exceeded: (MEMORY_LIMIT_EXCEEDED)");
        assert!(matches!(all.kind(), ErrorKind::Overloaded { .. }));
    }

    #[test]
    fn a_page_of_something_else_is_told_apart() {
        for page in ["502 Bad Gateway", "<html>hello</html>"] {
            let failure = answered(page);
            assert_eq!(failure.cause, Cause::Foreign);
            assert!(matches!(failure.kind(), ErrorKind::Unavailable { .. }));
            assert!(failure.advice().unwrap().contains("no ClickHouse"));
        }
    }

    #[test]
    fn a_refused_password_names_the_keys() {
        let refused = answered("Code: 516. DB::Exception: default: Authentication failed");
        assert!(refused.advice().unwrap().contains("storage.clickhouse.username"));
        assert!(!refused.elsewhere());
    }
}
