//! Sizes, spans of time and secrets, as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Units of sizes: SI powers of 1000 and binary powers of 1024, largest last.
const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("", 1),
];
/// Units of spans, in milliseconds.
const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a size or a span could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not a whole number with a unit of size.
    #[error(
        "{0:?} is not a size: write a whole number of B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as \"10 MB\""
    )]
    Size(String),
    /// Not a whole number with a unit of time.
    #[error("{0:?} is not a duration: write a whole number with ms, s, m, h or d, such as \"10s\"")]
    Span(String),
}

/// A number of bytes, written as a plain number or with a unit: `10 MB` = 10,000,000, `10 MiB` = 10,485,760.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes, as a length in memory.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for ByteSize {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        scaled(text, &SIZES).map(Self).ok_or_else(|| InvalidUnit::Size(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits =
            |(unit, size): &&(&str, u64)| !unit.is_empty() && self.0 >= *size && self.0.is_multiple_of(*size);
        match SIZES.iter().rev().find(fits) {
            Some((unit, size)) => write!(formatter, "{} {unit}", self.0 / size),
            None => write!(formatter, "{} B", self.0),
        }
    }
}

/// A span of time, written with a unit: `100ms`, `10s`, `5m`, `1h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A span of `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of `secs` seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of `days` days.
    #[must_use]
    pub const fn from_days(days: u64) -> Self {
        Self(Duration::from_secs(days * 86_400))
    }

    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// In milliseconds.
    #[must_use]
    pub fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Span {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        scaled(text, &SPANS).map(Self::from_millis).ok_or_else(|| InvalidUnit::Span(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis().unsigned_abs();
        let fits = |(_, size): &&(&str, u64)| millis >= *size && millis.is_multiple_of(*size);
        let (unit, size) = SPANS.iter().rev().find(fits).unwrap_or(&SPANS[1]);
        write!(formatter, "{}{unit}", millis / size)
    }
}

/// A whole number with one of `units`, in the smallest of them.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

/// Text that is never shown: not by `Debug`, not in a printed configuration, not in a log.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

macro_rules! written_as_text {
    ($name:ident, $pattern:literal, $kind:literal, |$number:ident| $from_number:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str($kind)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, $number: u64) -> Result<$name, E> {
                        $from_number.ok_or_else(|| E::invalid_type(Unexpected::Unsigned($number), &self))
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        match u64::try_from(number) {
                            Ok(number) => self.visit_u64(number),
                            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                        }
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

written_as_text!(ByteSize, "^[0-9]+ ?([KMGT]i?)?B?$", "a size, such as 10 MB", |number| Some(ByteSize(
    number
)));
written_as_text!(Span, "^[0-9]+(ms|s|m|h|d)$", "a duration with its unit, such as 10s", |number| (number
    == 0)
    .then_some(Span::from_millis(0)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_si_and_binary_units() {
        let bytes = |text: &str| text.parse::<ByteSize>().map(ByteSize::bytes);
        assert_eq!(bytes("10 MB"), Ok(10_000_000));
        assert_eq!(bytes("10MiB"), Ok(10 << 20));
        assert_eq!(bytes("512"), Ok(512));
        for wrong in ["", "MB", "-1 MB", "1.5 GB", "10 mb", "10 MBs", "99999999999 TB"] {
            assert_eq!(bytes(wrong), Err(InvalidUnit::Size(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn spans_need_a_unit() {
        let millis = |text: &str| text.parse::<Span>().map(Span::millis);
        assert_eq!(millis("100ms"), Ok(100));
        assert_eq!(millis("30d"), Ok(30 * 86_400_000));
        for wrong in ["", "10", "s", "-1s", "1.5s", "10 sec", "1h30m"] {
            assert_eq!(millis(wrong), Err(InvalidUnit::Span(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["10 MB", "1 GiB", "512 B", "0 B", "1 TB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["100ms", "90s", "5m", "36h", "7d", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn numbers_without_a_unit_are_bytes_but_never_a_span() {
        assert_eq!(serde_json::from_str::<ByteSize>("4096").unwrap(), ByteSize(4096));
        assert!(serde_json::from_str::<Span>("10").is_err());
        assert!(serde_json::from_str::<ByteSize>("-1").is_err());
        assert_eq!(serde_json::from_str::<Span>("0").unwrap(), Span::from_millis(0));
    }

    #[test]
    fn a_secret_is_shown_nowhere() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "canary");
    }
}
