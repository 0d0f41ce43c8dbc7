//! Content encodings: what is encoded comes back, nothing passes its limit, and the limit bounds the memory.

use std::io::Write;

use bytes::Bytes;
use luminate_worker::ingest::body::{BodyError, Encoding, decode, decode_snappy_block};

use crate::memory;

/// Beginnings of streams.
pub const WORDS: &[&str] = &["\\x1f\\x8b\\x08\\x00", "\\x28\\xb5\\x2f\\xfd", "\\xff\\x06\\x00\\x00sNaPpY"];

const ENCODINGS: [Encoding; 4] = [Encoding::Identity, Encoding::Gzip, Encoding::Zstd, Encoding::Snappy];
/// What a decoder holds beside what it gives out.
const BASE: usize = 1 << 20;
const LIMITS: [usize; 2] = [4 << 10, 1 << 20];

/// The first byte says which encoding, and whether the rest is a stream or what one is made of.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let encoding = ENCODINGS[usize::from(kind % 4)];
    if kind & 4 == 0 {
        raw(rest, encoding);
    } else {
        comes_back(rest, encoding, usize::from(kind >> 4));
    }
}

fn decoded(stream: &[u8], encoding: Encoding, limit: usize) -> Result<Bytes, BodyError> {
    let stream = Bytes::copy_from_slice(stream);
    let decoded = memory::within(BASE + 3 * limit, || decode(stream, encoding, limit));
    if let Ok(decoded) = &decoded {
        // Without an encoding the limit is that of the body as it is received.
        assert!(decoded.len() <= limit || encoding == Encoding::Identity);
    }
    decoded
}

fn raw(stream: &[u8], encoding: Encoding) {
    let [small, large] = LIMITS.map(|limit| decoded(stream, encoding, limit));
    if let Ok(small) = &small {
        assert_eq!(large.as_ref(), Ok(small), "a larger limit changes nothing");
    }
    if let Ok(large) = &large
        && large.len() > LIMITS[0]
        && encoding != Encoding::Identity
    {
        assert_eq!(small, Err(BodyError::TooLarge { limit: LIMITS[0] }));
    }
    let _either = memory::within(BASE + 2 * LIMITS[1], || decode_snappy_block(stream, LIMITS[1]));
}

fn comes_back(text: &[u8], encoding: Encoding, repeat: usize) {
    let text = text.repeat(repeat.max(1));
    for (stream, encoding) in encoded(&text, encoding) {
        match decoded(&stream, encoding, LIMITS[1]) {
            Ok(back) => assert_eq!(back, text),
            Err(error) => assert!(text.len() > LIMITS[1], "{error}"),
        }
        if !text.is_empty() && encoding != Encoding::Identity {
            let most = text.len() - 1;
            assert_eq!(decoded(&stream, encoding, most), Err(BodyError::TooLarge { limit: most }));
        }
    }
}

fn encoded(text: &[u8], encoding: Encoding) -> Vec<(Vec<u8>, Encoding)> {
    let streams = match encoding {
        Encoding::Identity => vec![text.to_vec()],
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).expect("memory takes all");
            vec![encoder.finish().expect("memory takes all")]
        }
        Encoding::Zstd => vec![zstd::stream::encode_all(text, 1).expect("memory takes all")],
        Encoding::Snappy => {
            let mut frames = snap::write::FrameEncoder::new(Vec::new());
            frames.write_all(text).expect("memory takes all");
            let block = snap::raw::Encoder::new().compress_vec(text).expect("a short text");
            // A stream of nothing has no frames.
            if text.is_empty() {
                vec![block]
            } else {
                vec![frames.into_inner().expect("it was written"), block]
            }
        }
    };
    streams.into_iter().map(|stream| (stream, encoding)).collect()
}

/// A stream of each encoding, and what others are made of.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let text = br#"{"metrics":[{"name":"a","value":1},{"name":"a","value":1}]}"#.repeat(3);
    let mut seeds = Vec::new();
    for (at, encoding) in ENCODINGS.into_iter().enumerate() {
        for (stream, _) in encoded(&text, encoding) {
            seeds.push([vec![at as u8], stream].concat());
        }
        seeds.push([vec![at as u8 | 0x24], text.clone()].concat());
    }
    seeds
}
