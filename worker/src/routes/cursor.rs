//! Cursors of listings: the last key of a page, opaque to clients, so that pages neither overlap nor
//! leave a gap when names come and go.

use std::fmt::Write;

use crate::error::{Error, Fault};

/// Longest key that a cursor holds, in bytes: what the longest names and values need.
const MAX_KEY_BYTES: usize = 8_192;

/// The cursor after `key`.
#[must_use]
pub fn encode(key: &str) -> String {
    let mut cursor = String::with_capacity(2 * key.len());
    for byte in key.bytes() {
        // Writing to a String doesn't fail.
        let _ = write!(cursor, "{byte:02x}");
    }
    cursor
}

/// The key that a cursor holds.
///
/// # Errors
/// `InvalidParameter`: no listing gave it out.
pub fn decode(cursor: &str) -> Result<String, Error> {
    let (pairs, rest) = cursor.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    let key = bytes.filter(|bytes| rest.is_empty() && (1..=MAX_KEY_BYTES).contains(&bytes.len()));
    key.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(unknown)
}

/// The error of a cursor that no listing gave out.
#[must_use]
pub fn unknown() -> Error {
    Error::InvalidParameter(Fault::of("cursor", "cursor is none that this listing gave out"))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_its_key_back() {
        for key in ["a", "api_latency", "ü\n\0😀"] {
            assert_eq!(decode(&encode(key)).unwrap(), key);
        }
    }

    #[test]
    fn others_are_refused() {
        let long = "61".repeat(MAX_KEY_BYTES + 1);
        for cursor in ["", "6", "6x", "ff", "61 ", long.as_str()] {
            assert_eq!(decode(cursor), Err(unknown()), "{cursor}");
        }
    }
}
