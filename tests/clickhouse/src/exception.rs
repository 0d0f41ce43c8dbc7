//! ClickHouse's exceptions: their text as a server says it, and the HTTP status of their code.

use hyper::StatusCode;

/// An exception: its code and its text without the server's version.
#[derive(Clone, Debug)]
pub struct Exception {
    /// ClickHouse's code.
    pub code: u16,
    text: String,
}

impl Exception {
    /// One of the server's own.
    pub fn new(code: u16, name: &str, message: impl AsRef<str>) -> Self {
        let message = message.as_ref();
        Self { code, text: format!("Code: {code}. DB::Exception: {message}. ({name})") }
    }

    /// What the engine says, without what shows that it isn't a server: nested prefixes, the path of a
    /// body, and where an insert's data were parsed from.
    #[must_use]
    pub fn of_engine(said: &str) -> Self {
        let mut text = said.trim_end().to_owned();
        while let Some(inner) = unnest(&text) {
            text = inner;
        }
        for hidden in [": While executing File", ": data for INSERT was parsed from file"] {
            text = text.replace(hidden, "");
        }
        while let Some(start) = text.find(": (in file/uri /proc/self/fd/") {
            let Some(length) = text[start..].find(')') else { break };
            text.replace_range(start..=start + length, "");
        }
        let code = text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split('.').next())
            .and_then(|code| code.parse().ok())
            .unwrap_or(1002);
        Self { code, text }.in_servers_words()
    }

    /// The names of the user and of an unknown setting, as a server with the default configuration says it.
    fn in_servers_words(mut self) -> Self {
        if self.code == 115
            && let Some(name) =
                self.text.split("Unknown setting '").nth(1).and_then(|rest| rest.split('\'').next())
        {
            return Self::new(
                115,
                "UNKNOWN_SETTING",
                format!(
                    "Setting {name} is neither a builtin setting nor started with the prefix 'SQL_' registered \
                     for user-defined settings"
                ),
            );
        }
        self.text = self.text.replace("clickhouse-local", "clickhouse-server");
        self
    }

    /// The same, with the user's name where the engine says its own only user's.
    #[must_use]
    pub fn for_user(mut self, user: &str) -> Self {
        if user != "default" {
            self.text =
                self.text.replacen("DB::Exception: default: ", &format!("DB::Exception: {user}: "), 1);
        }
        self
    }

    /// Its text without the version.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a query's text can't be parsed.
    #[must_use]
    pub fn is_syntax(&self) -> bool {
        self.code == 62
    }

    /// The text that a server of this version sends, with its closing line break.
    #[must_use]
    pub fn message(&self, version: &str) -> String {
        format!("{} (version {version} (official build))\n", self.text)
    }

    /// The status of an answer that hasn't begun, as the server's `exceptionCodeToHTTPStatus` has it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.code {
            // REQUIRED_PASSWORD
            194 => StatusCode::UNAUTHORIZED,
            // UNKNOWN_USER, WRONG_PASSWORD, AUTHENTICATION_FAILED, SET_NON_GRANTED_ROLE, ACCESS_DENIED
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            // What can't be parsed, BAD_ARGUMENTS, what is wrong with columns, types or an AST, INCORRECT_DATA.
            6
            | 8
            | 15
            | 25..=27
            | 36..=38
            | 41
            | 44
            | 53
            | 62
            | 72
            | 117
            | 123
            | 167
            | 168
            | 223
            | 321
            | 376
            | 427
            | 441
            | 675
            | 676 => StatusCode::BAD_REQUEST,
            // UNKNOWN_FUNCTION, _IDENTIFIER, _TYPE, _STORAGE, _TABLE, _AGGREGATE_FUNCTION, _FORMAT, _TYPE_OF_QUERY,
            // _DATABASE, _SETTING, _DIRECTION_OF_SORTING, _DATABASE_ENGINE, _ROLE
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => StatusCode::NOT_FOUND,
            // QUERY_IS_TOO_LARGE
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            // NOT_IMPLEMENTED
            48 => StatusCode::NOT_IMPLEMENTED,
            // CANNOT_OPEN_FILE, SOCKET_TIMEOUT, CANNOT_SCHEDULE_TASK
            76 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            // HTTP_LENGTH_REQUIRED
            381 => StatusCode::LENGTH_REQUIRED,
            // TIMEOUT_EXCEEDED
            159 => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The inner exception of `Code: N. DB::Exception: <inner> (version …). (NAME)`, which the engine wraps.
fn unnest(text: &str) -> Option<String> {
    let start = text.find("Code: ")?;
    let inner = start + 6 + text[start + 6..].find("Code: ")?;
    let head = &text[start..inner];
    if !(head.ends_with("Exception: ") && head.len() < 60) {
        return None;
    }
    let inner = &text[inner..];
    let end = inner.rfind(" (version ").unwrap_or(inner.len());
    Some(inner[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_wraps_is_said_as_a_server_says_it() {
        let said = "Code: 33. DB::Exception: Code: 33. DB::Exception: Cannot read all data. Bytes read: 5. Bytes \
                    expected: 8: (at row 126550)\n: (in file/uri /proc/self/fd/17): While executing \
                    BinaryRowInputFormat: While executing File: data for INSERT was parsed from file. \
                    (CANNOT_READ_ALL_DATA) (version 26.5.1.1). (CANNOT_READ_ALL_DATA)";
        let exception = Exception::of_engine(said);
        assert_eq!(exception.code, 33);
        assert_eq!(
            exception.message("26.5.1.1"),
            "Code: 33. DB::Exception: Cannot read all data. Bytes read: 5. Bytes expected: 8: (at row 126550)\n: \
             While executing BinaryRowInputFormat. (CANNOT_READ_ALL_DATA) (version 26.5.1.1 (official build))\n"
        );
        let plain =
            Exception::of_engine("Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE)");
        assert_eq!((plain.code, plain.status()), (60, StatusCode::NOT_FOUND));
    }

    #[test]
    fn statuses_are_the_servers() {
        for (code, status) in [
            (62, 400),
            (60, 404),
            (81, 404),
            (115, 404),
            (159, 408),
            (516, 403),
            (194, 401),
            (164, 500),
            (241, 500),
        ] {
            assert_eq!(Exception::new(code, "X", "y").status().as_u16(), status, "{code}");
        }
    }
}
