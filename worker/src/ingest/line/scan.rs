//! The line protocol's syntax over bytes.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use crate::ingest::number;

/// A line with something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Measurement and tags, as written.
    pub head: &'a [u8],
    /// The time, in the request's precision.
    pub time: Option<i64>,
}

/// A field as written, and what its value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub raw: &'a [u8],
    /// What that is.
    pub value: Value,
}

/// What a field's value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number, or a boolean as 1 or 0.
    Number(f64),
    /// A quoted string.
    Text,
    /// Nothing of these.
    Malformed,
}

/// A line, or what is wrong with it; `None` is one that says nothing.
pub type Scanned<'a> = Result<Option<Line<'a>>, &'static str>;

/// Reads the line that begins at `at`, its fields into `fields`; and where the next begins. A quoted string may go
/// over the end of a line.
pub fn line<'a>(body: &'a [u8], at: usize, fields: &mut Vec<Field<'a>>) -> (Scanned<'a>, usize) {
    let start = at + body[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
    match body.get(start) {
        None => return (Ok(None), body.len()),
        Some(b'\n') => return (Ok(None), start + 1),
        Some(b'#') => return (Ok(None), line_end(body, start) + 1),
        Some(_) => {}
    }
    let mut cursor = Cursor { body, at: start };
    let scanned = cursor.point(fields);
    let end = line_end(body, cursor.at);
    if scanned.is_err() {
        fields.clear();
    }
    (scanned.map(Some), end + 1)
}

fn line_end(body: &[u8], at: usize) -> usize {
    memchr(b'\n', &body[at..]).map_or(body.len(), |found| at + found)
}

struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn point(&mut self, fields: &mut Vec<Field<'a>>) -> Result<Line<'a>, &'static str> {
        let head = self.head()?;
        loop {
            fields.push(self.field()?);
            match self.body.get(self.at) {
                Some(b',') => self.at += 1,
                _ => break,
            }
        }
        self.spaces();
        let time = self.time()?;
        Ok(Line { head, time })
    }

    /// Measurement and tags: up to a space that isn't escaped.
    fn head(&mut self) -> Result<&'a [u8], &'static str> {
        let start = self.at;
        loop {
            let rest = &self.body[self.at..];
            self.at += memchr2(b' ', b'\n', rest).unwrap_or(rest.len());
            if self.body.get(self.at) != Some(&b' ') {
                return Err("there are no fields");
            }
            if !is_escaped(self.body, start, self.at) {
                break;
            }
            self.at += 1;
        }
        let head = &self.body[start..self.at];
        self.spaces();
        if head.first() == Some(&b',') { Err("there is no measurement") } else { Ok(head) }
    }

    fn field(&mut self) -> Result<Field<'a>, &'static str> {
        let key = self.key()?;
        let start = self.at;
        let value = match self.body.get(start) {
            Some(b'"') => {
                self.string()?;
                Value::Text
            }
            _ => {
                let rest = &self.body[start..];
                let end = memchr3(b',', b' ', b'\n', rest).unwrap_or(rest.len());
                self.at = start + end;
                value(without_return(&rest[..end]))
            }
        };
        let raw = without_return(&self.body[start..self.at]);
        Ok(Field { key, raw, value })
    }

    /// A field's key, and past the `=` behind it.
    fn key(&mut self) -> Result<&'a [u8], &'static str> {
        let start = self.at;
        loop {
            let rest = &self.body[self.at..];
            let Some(found) = memchr3(b'=', b' ', b'\n', rest) else {
                self.at = self.body.len();
                return Err("a field has no value");
            };
            self.at += found;
            match self.body[self.at] {
                b'\n' => return Err("a field has no value"),
                b'=' if !is_escaped(self.body, start, self.at) => break,
                b' ' if !is_escaped(self.body, start, self.at) => return Err("a field has no value"),
                _ => self.at += 1,
            }
        }
        let key = &self.body[start..self.at];
        self.at += 1;
        if key.is_empty() { Err("a field has no key") } else { Ok(key) }
    }

    /// Passes a quoted string.
    fn string(&mut self) -> Result<(), &'static str> {
        self.at += 1;
        while let Some(found) = memchr2(b'"', b'\\', &self.body[self.at..]) {
            self.at += found;
            if self.body[self.at] == b'"' {
                self.at += 1;
                return match self.body.get(self.at) {
                    None | Some(b',' | b' ' | b'\n' | b'\r') => Ok(()),
                    Some(_) => Err("something follows a quoted string"),
                };
            }
            self.at = (self.at + 2).min(self.body.len());
        }
        // What was meant to end it isn't to be found: the next line may be whole.
        Err("a quoted string has no end")
    }

    fn time(&mut self) -> Result<Option<i64>, &'static str> {
        let rest = &self.body[self.at..];
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += end;
        let token = rest[..end].trim_ascii();
        if token.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(token).ok();
        match text.and_then(|text| text.parse().ok()) {
            Some(time) => Ok(Some(time)),
            None => Err("the timestamp is no whole number"),
        }
    }

    fn spaces(&mut self) {
        self.at += self.body[self.at..].iter().take_while(|byte| **byte == b' ').count();
    }
}

/// Whether the byte at `at` has an odd number of backslashes before it, none of them before `start`.
fn is_escaped(body: &[u8], start: usize, at: usize) -> bool {
    body[start..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn without_return(token: &[u8]) -> &[u8] {
    token.strip_suffix(b"\r").unwrap_or(token)
}

/// What a value without quotes is.
fn value(token: &[u8]) -> Value {
    if let Some((value, end)) = number::parse(token, 0) {
        match &token[end..] {
            [] => return Value::Number(value),
            [b'i'] => return integer(&token[..end], true),
            [b'u'] => return integer(&token[..end], false),
            _ => {}
        }
    }
    match token {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Value::Number(1.0),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Value::Number(0.0),
        // Forms that JSON doesn't know, such as `1.`, `.5` and `+1`; names of what is no number aren't any.
        _ if token.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E')) => {
            fast_float2::parse(token).map_or(Value::Malformed, Value::Number)
        }
        _ => Value::Malformed,
    }
}

/// Whole numbers beyond 2^53 are rounded, as every number here is an f64.
fn integer(digits: &[u8], signed: bool) -> Value {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let whole = match signed {
        true => text.parse::<i64>().map(|whole| whole as f64),
        false => text.parse::<u64>().map(|whole| whole as f64),
    };
    whole.map_or(Value::Malformed, Value::Number)
}

/// The parts between separators that aren't escaped.
pub fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = (0..text.len()).find(|at| text[*at] == separator && !is_escaped(text, 0, *at));
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// A tag's key and value.
pub fn pair(tag: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = split(tag, b'=');
    let (key, value) = (parts.next()?, parts.next()?);
    (parts.next().is_none() && !key.is_empty() && !value.is_empty()).then_some((key, value))
}

/// A name or value without the backslashes before commas, spaces and equals signs; others are meant.
pub fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\\' || !matches!(chars.peek(), Some(',' | ' ' | '=' | '\\')) {
            plain.push(char);
        } else if let Some(meant) = chars.next() {
            plain.push(meant);
        }
    }
    Cow::Owned(plain)
}
