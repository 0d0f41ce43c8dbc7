//! Who sends a request: by headers, by Basic authorisation or by the URL, never by two of them.

use hyper::HeaderMap;

use crate::exception::Exception;
use crate::form::Form;

/// Somebody who may send queries.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password, which may be empty.
    pub password: String,
    /// Whether every query of theirs runs with `readonly=1`.
    pub reads_only: bool,
}

/// Those who may send queries.
#[derive(Clone, Debug)]
pub struct Users(Vec<User>);

/// What a server adds for the user that it is installed with.
const FORGOTTEN: &str = "\n\nIf you use ClickHouse Cloud, the password can be reset at https://clickhouse.cloud/\n\
    on the settings page for the corresponding service.\n\n\
    If you have installed ClickHouse and forgot password you can reset it in the configuration file.\n\
    The password for default user is typically located at /etc/clickhouse-server/users.d/default-password.xml\n\
    and deleting this file will reset the password.\n\
    See also /etc/clickhouse-server/users.xml on the server where ClickHouse is installed.\n\n";

impl Users {
    /// These; `default` without a password where nobody writes.
    #[must_use]
    pub fn new(mut users: Vec<User>) -> Self {
        if users.iter().all(|user| user.reads_only) {
            users.push(User { name: "default".into(), password: String::new(), reads_only: false });
        }
        Self(users)
    }

    /// The user of a request.
    ///
    /// # Errors
    /// Code 516, or 194 where no password was sent.
    pub fn authenticate(&self, headers: &HeaderMap, url: &Form) -> Result<&User, Exception> {
        let (name, password) = credentials(headers, url)?;
        let user = self.0.iter().find(|user| user.name == name && user.password == password);
        user.ok_or_else(|| {
            let help = if name == "default" { FORGOTTEN } else { "" };
            let message = format!(
                "{name}: Authentication failed: password is incorrect, or there is no user with such name.{help}"
            );
            match password.is_empty() {
                true => Exception::new(194, "REQUIRED_PASSWORD", message),
                false => Exception::new(516, "AUTHENTICATION_FAILED", message),
            }
        })
    }
}

fn credentials(headers: &HeaderMap, url: &Form) -> Result<(String, String), Exception> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (user, key, authorization) =
        (header("X-ClickHouse-User"), header("X-ClickHouse-Key"), header("Authorization"));
    let in_url = url.first("user").is_some() || url.first("password").is_some();
    let (name, password, by) = if !user.is_empty() || !key.is_empty() {
        if !authorization.is_empty() {
            return Err(two("X-ClickHouse HTTP headers", "Authorization HTTP header"));
        }
        if in_url {
            return Err(two("X-ClickHouse HTTP headers", "authentication via parameters"));
        }
        (user.to_owned(), key.to_owned(), "X-ClickHouse HTTP headers")
    } else if !authorization.is_empty() {
        if in_url {
            return Err(two("Authorization HTTP header", "authentication via parameters"));
        }
        let (name, password) = basic(authorization)?;
        (name, password, "Authorization HTTP header")
    } else {
        let or = |name, or: &str| url.first(name).unwrap_or(or).to_owned();
        (or("user", "default"), or("password", ""), "authentication via parameters")
    };
    match name.is_empty() {
        true => Err(failed(format!("Got an empty user name from {by}"))),
        false => Ok((name, password)),
    }
}

fn basic(authorization: &str) -> Result<(String, String), Exception> {
    let (scheme, info) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        let message =
            format!("Invalid authentication: '{scheme}' HTTP Authorization scheme is not supported");
        return Err(failed(message));
    }
    let plain = String::from_utf8_lossy(&base64(info.trim())).into_owned();
    let (name, password) = plain.split_once(':').unwrap_or((&plain, ""));
    Ok((name.to_owned(), password.to_owned()))
}

/// What is no digit is skipped.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

fn two(one: &str, other: &str) -> Exception {
    failed(format!("Invalid authentication: it is not allowed to use {one} and {other} simultaneously"))
}

fn failed(message: String) -> Exception {
    Exception::new(516, "AUTHENTICATION_FAILED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(headers: &[(&'static str, &str)], url: &str) -> Result<bool, u16> {
        let users = Users::new(vec![
            User { name: "ann".into(), password: "se:cret".into(), reads_only: false },
            User { name: "rob".into(), password: "r".into(), reads_only: true },
        ]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header"));
        }
        users.authenticate(&map, &Form::of_url(url)).map(|user| user.reads_only).map_err(|error| error.code)
    }

    #[test]
    fn one_way_of_three() {
        assert_eq!(code(&[], "user=ann&password=se:cret"), Ok(false));
        assert_eq!(code(&[("x-clickhouse-user", "rob"), ("x-clickhouse-key", "r")], ""), Ok(true));
        assert_eq!(code(&[("authorization", "Basic YW5uOnNlOmNyZXQ=")], ""), Ok(false));
        assert_eq!(code(&[("authorization", "Basic YW5uOnNlOmNyZXQ=")], "user=ann"), Err(516));
        assert_eq!(code(&[], "user=ann&password=x"), Err(516));
        assert_eq!(code(&[], ""), Err(194));
        assert_eq!(code(&[("authorization", "Bearer x")], ""), Err(516));
    }
}
