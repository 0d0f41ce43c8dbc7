//! Values of the resource that have a form of their own.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A quantity as Kubernetes writes them (`500m`, `1Gi`), or a plain number. Never negative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Amount(String);

/// What an [`Amount`] looks like: digits, perhaps a fraction, perhaps a suffix.
pub const AMOUNT_PATTERN: &str = r"^[0-9]+(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";
/// Suffixes and the thousandths that they stand for.
const SUFFIXES: [(&str, u128); 12] = [
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("", 1_000),
];

impl Amount {
    /// The amount that `text` says; [`Amount::thousandths`] tells whether it is one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In thousandths of its unit, rounded up; `None` if it isn't an amount or is too large to tell.
    #[must_use]
    pub fn thousandths(&self) -> Option<u128> {
        thousandths(&self.0)
    }

    /// In whole units (bytes, cores), rounded up; `None` as for [`Amount::thousandths`].
    #[must_use]
    pub fn whole(&self) -> Option<u128> {
        self.thousandths().map(|thousandths| thousandths.div_ceil(1_000))
    }
}

/// The thousandths that `text` means, rounded up, if it is an amount.
#[must_use]
pub fn thousandths(text: &str) -> Option<u128> {
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = text.split_at(end);
    let (_, unit) = SUFFIXES.iter().find(|(name, _)| *name == suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let digits: u128 = fraction.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = digits.checked_mul(*unit)?.div_ceil(scale);
    whole.parse::<u128>().ok()?.checked_mul(*unit)?.checked_add(fraction)
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Amount;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an amount, such as 500m or 1Gi")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Ok(Amount(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": AMOUNT_PATTERN,
            "maxLength": 20,
        })
    }
}

/// Labels or annotations: at most 32, each of at most 1,024 characters.
pub fn pairs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "type": "string", "maxLength": 1024 },
        "maxProperties": 32,
    })
}

/// Anything: checked when it is used, not by the API server.
pub fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        let whole = |text: &str| Amount::new(text).whole();
        assert_eq!(whole("1Gi"), Some(1 << 30));
        assert_eq!(whole("1.5Gi"), Some(3 << 29));
        assert_eq!(whole("100"), Some(100));
        assert_eq!(whole("1500m"), Some(2));
        assert_eq!(Amount::new("0.5").thousandths(), Amount::new("500m").thousandths());
        assert_eq!(whole("1k"), Some(1_000));
        for wrong in ["", "Gi", "-1", "1gi", "1 Gi", "1e3", "1.", ".5", "1.2.3", "one"] {
            assert_eq!(whole(wrong), None, "{wrong}");
        }
        assert_eq!(whole("99999999999999999999999999999999999999Pi"), None);
    }

    #[test]
    fn a_number_is_an_amount() {
        assert_eq!(serde_json::from_str::<Amount>("2").unwrap(), Amount::new("2"));
        assert_eq!(serde_json::from_str::<Amount>("\"2\"").unwrap(), Amount::new("2"));
        assert!(serde_json::from_str::<Amount>("[]").is_err());
    }
}
