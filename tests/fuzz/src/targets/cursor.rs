//! Cursors: a key comes back, and what is accepted is the cursor of its key.

use luminate_worker::routes::cursor::{decode, encode};

/// Reads the input as a cursor, and as a key.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(key) = decode(text) {
        assert_eq!(encode(&key), text.to_ascii_lowercase());
    }
    if (1..=8_192).contains(&text.len()) {
        assert_eq!(decode(&encode(text)).as_deref(), Ok(text));
    }
}

/// A cursor and a key.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    vec![encode("api_latency").into_bytes(), "ü😀".into()]
}
