//! A request's parameters: of its URL, and of a form in its body.

use std::borrow::Cow;

/// Names and values, in their order; a name may come more than once.
#[derive(Clone, Debug, Default)]
pub struct Form(pub Vec<(String, String)>);

impl Form {
    /// Those of a URL's query.
    #[must_use]
    pub fn of_url(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name).into_owned(), decoded(value).into_owned())
        });
        Self(pairs.collect())
    }

    /// The first value of a name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The last value of a name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on; what is no switch is off.
    #[must_use]
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.last(name).map(|value| matches!(value, "1" | "true"))
    }
}

/// `%41+b` is `A b`. ClickHouse takes bytes that aren't UTF-8 as they are; here they are replaced.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(hex);
        plain.push(byte.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
        at += if byte.is_some() { 3 } else { 1 };
    }
    Cow::Owned(
        String::from_utf8(plain)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A part of a `multipart/form-data` body.
#[derive(Debug, Eq, PartialEq)]
pub struct Part<'a> {
    /// Its name.
    pub name: String,
    /// Whether it is a file: a table that the query may read.
    pub file: bool,
    /// Its content.
    pub content: &'a [u8],
}

/// The parts of a body, or none where it has no boundary.
#[must_use]
pub fn multipart<'a>(content_type: &str, body: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let boundary = content_type.split(';').find_map(|field| field.trim().strip_prefix("boundary="))?;
    let delimiter = [b"--", boundary.trim_matches('"').as_bytes()].concat();
    let mut parts = Vec::new();
    let mut rest = &body[find(body, &delimiter)? + delimiter.len()..];
    let closing = [b"\r\n".as_slice(), &delimiter].concat();
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n")?;
        let end = find(rest, &closing)?;
        parts.extend(part(&rest[..end]));
        rest = &rest[end + closing.len()..];
    }
    Some(parts)
}

fn part(bytes: &[u8]) -> Option<Part<'_>> {
    let end = find(bytes, b"\r\n\r\n")?;
    let headers = String::from_utf8_lossy(&bytes[..end]);
    let disposition =
        headers.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    Some(Part {
        name: attribute(disposition, "name")?,
        file: attribute(disposition, "filename").is_some(),
        content: &bytes[end + 4..],
    })
}

/// `; name="value"` of a header.
fn attribute(header: &str, name: &str) -> Option<String> {
    header.split(';').find_map(|field| {
        let (key, value) = field.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"').to_owned())
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_decoded() {
        let form = Form::of_url("query=SELECT+1%2B1%0A&a&&b=1&b=2&c=%zz");
        assert_eq!(form.first("query"), Some("SELECT 1+1\n"));
        assert_eq!((form.first("b"), form.last("b")), (Some("1"), Some("2")));
        assert_eq!((form.first("a"), form.first("c")), (Some(""), Some("%zz")));
    }

    #[test]
    fn a_body_has_parts() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT\r\n1\r\n--x\r\n\
            content-disposition: form-data; name=\"t\"; filename=\"t.csv\"\r\nContent-Type: a\r\n\r\n1,2\r\n--x--\r\n";
        let parts = multipart("multipart/form-data; boundary=x", body).expect("parts");
        assert_eq!(
            parts,
            [
                Part { name: "query".into(), file: false, content: b"SELECT\r\n1" },
                Part { name: "t".into(), file: true, content: b"1,2" }
            ]
        );
    }
}
