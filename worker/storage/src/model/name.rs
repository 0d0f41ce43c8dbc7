//! Names: tenant, metric, dimension key.

use std::fmt;
use std::sync::Arc;

/// Longest metric name, in characters.
pub const MAX_METRIC_CHARS: usize = 256;
/// Longest dimension key, in characters.
pub const MAX_KEY_CHARS: usize = 128;
const MAX_TENANT_CHARS: usize = 64;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not 1–256 characters of `^[a-zA-Z_][a-zA-Z0-9_]*$`.
    #[error("a metric name is 1 to 256 characters and matches ^[a-zA-Z_][a-zA-Z0-9_]*$")]
    Metric,
    /// Not 1–128 characters of `^[a-zA-Z_][a-zA-Z0-9_]*$`.
    #[error("a dimension key is 1 to 128 characters and matches ^[a-zA-Z_][a-zA-Z0-9_]*$")]
    Key,
    /// `_tenant_id`, or begins with `__`.
    #[error("_tenant_id and keys beginning with __ are reserved")]
    ReservedKey,
    /// Not 1–64 characters of `[A-Za-z0-9_-]`.
    #[error("a tenant id is 1 to 64 characters of A-Z a-z 0-9 _ -")]
    Tenant,
}

fn is_identifier(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'_'))
        && bytes.len() <= max
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, |$text:ident| $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// [`InvalidName`] says what is allowed.
            pub fn new($text: &str) -> Result<Self, InvalidName> {
                $check?;
                Ok(Self(Arc::from($text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, formatter)
            }
        }
    };
}

name!(
    /// Who owns a series; no storage method works without one.
    Tenant,
    |text| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=MAX_TENANT_CHARS).contains(&text.len()) && text.bytes().all(valid) {
            Ok(())
        } else {
            Err(InvalidName::Tenant)
        }
    }
);
name!(
    /// A metric's name: `^[a-zA-Z_][a-zA-Z0-9_]*$`, 1–256 characters.
    MetricName,
    |text| if is_identifier(text, MAX_METRIC_CHARS) { Ok(()) } else { Err(InvalidName::Metric) }
);
name!(
    /// A dimension's key: `^[a-zA-Z_][a-zA-Z0-9_]*$`, 1–128 characters, not reserved.
    DimensionKey,
    |text| {
        if !is_identifier(text, MAX_KEY_CHARS) {
            Err(InvalidName::Key)
        } else if text.starts_with("__") || text == "_tenant_id" {
            Err(InvalidName::ReservedKey)
        } else {
            Ok(())
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_what_the_contract_allows_and_nothing_else() {
        assert!(MetricName::new("api_latency").is_ok());
        assert!(MetricName::new(&"a".repeat(256)).is_ok());
        for bad in ["", "1a", "a-b", "a.b", "ä", "a b", "a\0", &"a".repeat(257)] {
            assert_eq!(MetricName::new(bad), Err(InvalidName::Metric), "{bad:?}");
        }
        assert!(DimensionKey::new("_region").is_ok());
        assert_eq!(DimensionKey::new("__name__"), Err(InvalidName::ReservedKey));
        assert_eq!(DimensionKey::new("_tenant_id"), Err(InvalidName::ReservedKey));
        assert_eq!(DimensionKey::new(&"k".repeat(129)), Err(InvalidName::Key));
        assert!(Tenant::new("acme-1_X").is_ok());
        for bad in ["", "a/b", "..", "a%2e", "a\0", "é", &"a".repeat(65)] {
            assert_eq!(Tenant::new(bad), Err(InvalidName::Tenant), "{bad:?}");
        }
    }
}
