//! Attributes: from messages to the keys and values of dimensions.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::Code;
use crate::ingest::line::plain;
use crate::ingest::remote_write::wire::{Field, Fields, MalformedMessage};
use crate::ingest::{Problem, utf8};

/// `KeyValue.key`, `.value`.
const KEY: u32 = 1;
const VALUE: u32 = 2;
/// `AnyValue`'s kinds.
const STRING: u32 = 1;
const BOOL: u32 = 2;
const INT: u32 = 3;
const DOUBLE: u32 = 4;
const ARRAY: u32 = 5;
const MAP: u32 = 6;
const BYTES: u32 = 7;
/// `ArrayValue.values`, `KeyValueList.values`.
const VALUES: u32 = 1;
/// Deepest nesting of arrays and maps in a value.
const MAX_DEPTH: usize = 16;
/// From here on a number's digits are longer than its exponent.
const LARGE: f64 = 1e21;
const SMALL: f64 = 1e-7;

/// An attribute as a dimension: its key as names are here, its value as text.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// An attribute as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// Its key.
    pub key: &'a str,
    value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attribute of a `KeyValue`.
    pub fn read(message: &'a [u8]) -> Result<Self, Problem> {
        let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (KEY, Field::Bytes(bytes)) => key = bytes,
                (VALUE, Field::Bytes(bytes)) => value = bytes,
                (KEY | VALUE, _) => return Err(other_type()),
                _ => {}
            }
        }
        Ok(Self { key: utf8(key, "an attribute's key")?, value })
    }

    /// The dimension; `None` for an attribute without a value, since a dimension has one.
    pub fn pair(&self) -> Result<Option<Pair<'a>>, Problem> {
        let value = Value::read(self.value)?.text(self.key)?;
        let key = plain(Cow::Borrowed(self.key));
        Ok(Some((key, value)).filter(|(_, value)| !value.is_empty()))
    }
}

/// Whether one of `patterns` names `key`.
pub fn named(patterns: &[String], key: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.split_once('*') {
        None => pattern == key,
        Some((before, after)) => {
            key.len() >= before.len() + after.len() && key.starts_with(before) && key.ends_with(after)
        }
    })
}

/// A number as text: as short as it can be, without an exponent where that isn't shorter by far.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else if size != 0.0 && !(SMALL..LARGE).contains(&size) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

fn other_type() -> Problem {
    MalformedMessage("an attribute has fields of other types").into()
}

/// An `AnyValue`.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(&'a [u8]),
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Problem> {
        let mut value = Self::None;
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            value = match (number, field) {
                (STRING, Field::Bytes(bytes)) => Self::Text(bytes),
                (BOOL, Field::Varint(flag)) => Self::Bool(flag != 0),
                (INT, Field::Varint(bits)) => Self::Int(bits.cast_signed()),
                (DOUBLE, Field::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (ARRAY, Field::Bytes(bytes)) => Self::Array(bytes),
                (MAP, Field::Bytes(bytes)) => Self::Map(bytes),
                (BYTES, Field::Bytes(bytes)) => Self::Bytes(bytes),
                (STRING..=BYTES, _) => return Err(other_type()),
                _ => value,
            };
        }
        Ok(value)
    }

    /// As OpenTelemetry has it where attributes are text: "Mapping to non-OTLP Formats".
    fn text(self, key: &str) -> Result<Cow<'a, str>, Problem> {
        Ok(match self {
            Self::None => Cow::Borrowed(""),
            Self::Text(bytes) => Cow::Borrowed(
                std::str::from_utf8(bytes)
                    .map_err(|_| invalid(format!("the value of {key:?} is not UTF-8")))?,
            ),
            Self::Bool(flag) => Cow::Borrowed(if flag { "true" } else { "false" }),
            Self::Int(value) => Cow::Owned(value.to_string()),
            Self::Double(value) => Cow::Owned(number(value)),
            Self::Bytes(bytes) => Cow::Owned(STANDARD.encode(bytes)),
            Self::Array(_) | Self::Map(_) => {
                let mut json = String::new();
                self.json(&mut json, MAX_DEPTH)?;
                Cow::Owned(json)
            }
        })
    }

    /// Appends the value as JSON; `depth` arrays and maps may still be open around another.
    fn json(self, json: &mut String, depth: usize) -> Result<(), Problem> {
        let depth = depth.checked_sub(1).ok_or_else(|| invalid("an attribute is nested too deeply"))?;
        match self {
            Self::None => json.push_str("null"),
            Self::Text(bytes) => quote(json, utf8(bytes, "an attribute's value")?),
            Self::Double(value) if !value.is_finite() => quote(json, &number(value)),
            Self::Bytes(bytes) => quote(json, &STANDARD.encode(bytes)),
            Self::Bool(_) | Self::Int(_) | Self::Double(_) => json.push_str(&self.text("")?),
            Self::Array(message) => {
                json.push('[');
                each_value(message, |at, value| {
                    json.push_str(if at > 0 { "," } else { "" });
                    Value::read(value)?.json(json, depth)
                })?;
                json.push(']');
            }
            Self::Map(message) => {
                json.push('{');
                each_value(message, |at, entry| {
                    json.push_str(if at > 0 { "," } else { "" });
                    let entry = Attribute::read(entry)?;
                    quote(json, entry.key);
                    json.push(':');
                    Value::read(entry.value)?.json(json, depth)
                })?;
                json.push('}');
            }
        }
        Ok(())
    }
}

fn invalid(error: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidDimensionValue, error)
}

fn quote(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

/// Gives each of an array's or map's values, with its place, to `take`.
fn each_value<'a>(
    message: &'a [u8],
    mut take: impl FnMut(usize, &'a [u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut fields = Fields::new(message);
    let mut at = 0;
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (VALUES, Field::Bytes(value)) => take(at, value)?,
            (VALUES, _) => return Err(other_type()),
            _ => continue,
        }
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::testing::{AnyValue, KeyValue, any};
    use super::*;

    fn pair(key: &str, value: Option<AnyValue>) -> Result<Option<(String, String)>, Problem> {
        let message = KeyValue { key: key.into(), value }.encode_to_vec();
        let pair = Attribute::read(&message)?.pair()?;
        Ok(pair.map(|(key, value)| (key.into_owned(), value.into_owned())))
    }

    fn value(value: any::Value) -> String {
        pair("k", Some(AnyValue { value: Some(value) })).unwrap().unwrap().1
    }

    #[test]
    fn every_kind_of_value_becomes_text() {
        use any::Value as V;
        let any = |value: V| AnyValue { value: Some(value) };
        assert_eq!(value(V::Text("a b".into())), "a b");
        assert_eq!(value(V::Bool(true)), "true");
        assert_eq!(value(V::Int(i64::MIN)), "-9223372036854775808");
        assert_eq!(value(V::Double(0.5)), "0.5");
        assert_eq!(value(V::Double(f64::NAN)), "NaN");
        assert_eq!(value(V::Bytes(vec![0, 255, 1])), "AP8B");
        let list = any::ArrayValue {
            values: vec![
                any(V::Text("a\"b".into())),
                any(V::Double(f64::NEG_INFINITY)),
                any(V::Bytes(vec![0])),
                AnyValue { value: None },
            ],
        };
        assert_eq!(value(V::Array(list.clone())), r#"["a\"b","-Infinity","AA==",null]"#);
        let entries = vec![
            KeyValue { key: "x".into(), value: Some(any(V::Array(list))) },
            KeyValue { key: "y".into(), value: Some(any(V::Bool(false))) },
        ];
        let map = any::KeyValueList { values: entries };
        assert_eq!(value(V::Map(map)), r#"{"x":["a\"b","-Infinity","AA==",null],"y":false}"#);
    }

    #[test]
    fn keys_become_names_and_attributes_without_a_value_nothing() {
        let text = |text: &str| Some(AnyValue { value: Some(any::Value::Text(text.into())) });
        let found = |key: &str| pair(key, text("v")).unwrap().unwrap().0;
        assert_eq!((found("http.route"), found("9-p")), ("http_route".to_owned(), "_9_p".to_owned()));
        assert_eq!(pair("k", text("")), Ok(None));
        assert_eq!(pair("k", None), Ok(None));
    }

    #[test]
    fn values_nested_without_end_are_refused() {
        let mut nested = AnyValue { value: None };
        for _ in 0..40 {
            nested = AnyValue { value: Some(any::Value::Array(any::ArrayValue { values: vec![nested] })) };
        }
        assert!(pair("k", Some(nested)).unwrap_err().error.contains("nested too deeply"));
    }

    #[test]
    fn a_pattern_has_one_star() {
        let named = |pattern: &str, key: &str| named(&[pattern.to_owned()], key);
        assert!(named("*", "anything") && named("host.name", "host.name") && named("k8s.*", "k8s.pod.name"));
        assert!(named("k8s.*.name", "k8s.pod.name") && !named("k8s.*.name", "k8s.pod.uid"));
        assert!(!named("host.name", "host.names") && !named("aa*aa", "aaa"));
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (value, text) in [
            (0.0, "0"),
            (5.0, "5"),
            (-2.5, "-2.5"),
            (0.005, "0.005"),
            (1e20, "100000000000000000000"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
