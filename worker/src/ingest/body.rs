//! `Content-Encoding`: bodies are decoded to a limit on what comes out.
//!
//! The limit is checked while decoding, so a bomb costs no more memory than the largest honest body.

use std::io::{self, Read};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::bufread::MultiGzDecoder;

/// Room for the first decoded bytes where nothing says how many will come.
const FIRST_ROOM: usize = 64 << 10;
/// Snappy writes no more than 64 bytes for a copy of 3.
const MAX_SNAPPY_RATIO: usize = 22;
/// The stream identifier that the framing format begins with.
const SNAPPY_FRAME_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// The smallest window that a zstd decoder should support (RFC 8878, section 3.1.1.1.2), as a power of 2.
const MIN_ZSTD_WINDOW_LOG: u32 = 23;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// An encoding that isn't spoken here.
    #[error("Content-Encoding {0:?} is not supported; use gzip, zstd, snappy or none")]
    UnknownEncoding(String),
    /// More bytes come out than allowed.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes are not what the encoding says.
    #[error("the body is not valid {encoding}: {reason}")]
    Malformed {
        /// The encoding.
        encoding: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Snappy's framing format, or one raw block.
    Snappy,
}

impl Encoding {
    /// The encoding that the headers name.
    ///
    /// # Errors
    /// They name another, or more than one.
    pub fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        let mut named = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = named.next() else { return Ok(Self::Identity) };
        match named.next() {
            Some(_) => Err(BodyError::UnknownEncoding("several".into())),
            None => Self::named(&String::from_utf8_lossy(first.as_bytes())),
        }
    }

    /// The encoding of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, BodyError> {
        let name = name.trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "snappy" => Ok(Self::Snappy),
            _ => Err(BodyError::UnknownEncoding(name.chars().take(64).collect())),
        }
    }
}

/// Decodes a body that was received whole.
///
/// # Errors
/// It isn't what its encoding says, or more than `limit` bytes come out.
pub fn decode(wire: Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, BodyError> {
    match encoding {
        Encoding::Identity => Ok(wire),
        Encoding::Gzip => {
            let expected = gzip_size(&wire);
            drain(MultiGzDecoder::new(wire.as_ref()), "gzip", expected, limit)
        }
        Encoding::Zstd => decode_zstd(&wire, limit),
        Encoding::Snappy if wire.starts_with(SNAPPY_FRAME_MAGIC) => {
            drain(snap::read::FrameDecoder::new(wire.as_ref()), "snappy", FIRST_ROOM, limit)
        }
        Encoding::Snappy => decode_snappy_block(&wire, limit),
    }
}

/// Decodes one raw block of snappy, the only form that remote write knows.
///
/// # Errors
/// As [`decode`].
pub fn decode_snappy_block(wire: &[u8], limit: usize) -> Result<Bytes, BodyError> {
    let malformed =
        |error: snap::Error| BodyError::Malformed { encoding: "snappy", reason: error.to_string() };
    let size = snap::raw::decompress_len(wire).map_err(malformed)?;
    if wire.is_empty() || size > wire.len().saturating_mul(MAX_SNAPPY_RATIO) {
        let reason = "the block is too short for its size".into();
        return Err(BodyError::Malformed { encoding: "snappy", reason });
    }
    if size > limit {
        return Err(BodyError::TooLarge { limit });
    }
    snap::raw::Decoder::new().decompress_vec(wire).map(Bytes::from).map_err(malformed)
}

fn decode_zstd(wire: &Bytes, limit: usize) -> Result<Bytes, BodyError> {
    let malformed = |error: io::Error| BodyError::Malformed { encoding: "zstd", reason: error.to_string() };
    let announced = zstd::zstd_safe::get_frame_content_size(wire).ok().flatten();
    let announced = announced.map_or(Ok(FIRST_ROOM), usize::try_from).unwrap_or(usize::MAX);
    if announced > limit && announced != FIRST_ROOM {
        return Err(BodyError::TooLarge { limit });
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(wire.as_ref()).map_err(malformed)?;
    let window = limit.max(1).next_power_of_two().ilog2().max(MIN_ZSTD_WINDOW_LOG);
    decoder.window_log_max(window).map_err(malformed)?;
    drain(decoder, "zstd", announced, limit)
}

/// The decoded size that a gzip stream ends with: right for one honest member, a guess otherwise.
fn gzip_size(wire: &[u8]) -> usize {
    wire.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

/// Reads `decoder` to its end; `expected` bytes are expected.
fn drain(
    mut decoder: impl Read,
    encoding: &'static str,
    expected: usize,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let malformed = |error: io::Error| BodyError::Malformed { encoding, reason: error.to_string() };
    // One byte more than expected, so that the end is seen without growing.
    let mut decoded = vec![0; expected.min(limit).max(FIRST_ROOM.min(limit)) + 1];
    let mut filled = 0;
    loop {
        match decoder.read(&mut decoded[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(malformed(error)),
        }
        if filled > limit {
            return Err(BodyError::TooLarge { limit });
        }
        if filled == decoded.len() {
            let larger = (decoded.len() * 2).min(limit + 1);
            decoded.reserve_exact(larger - filled);
            decoded.resize(larger, 0);
        }
    }
    decoded.truncate(filled);
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(data, 3).unwrap()
    }

    fn snappy_frames(data: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(data).unwrap();
        encoder.into_inner().unwrap()
    }

    fn snappy_block(data: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(data).unwrap()
    }

    type Encode = fn(&[u8]) -> Vec<u8>;
    const ENCODINGS: [(Encoding, Encode); 4] = [
        (Encoding::Gzip, gzip),
        (Encoding::Zstd, zstd),
        (Encoding::Snappy, snappy_frames),
        (Encoding::Snappy, snappy_block),
    ];

    fn sample_text(bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(5);
        std::iter::repeat_with(|| random.alphanumeric() as u8).take(bytes).collect()
    }

    #[test]
    fn every_encoding_comes_back_up_to_the_limit() {
        for (encoding, encode) in ENCODINGS {
            for size in [1, 1_000, 70_000, LIMIT - 1, LIMIT] {
                let text = sample_text(size);
                assert_eq!(
                    decode(encode(&text).into(), encoding, LIMIT).unwrap(),
                    text,
                    "{encoding:?} {size}"
                );
            }
            let larger = encode(&sample_text(LIMIT + 1));
            assert_eq!(
                decode(larger.into(), encoding, LIMIT),
                Err(BodyError::TooLarge { limit: LIMIT }),
                "{encoding:?}"
            );
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        for (encoding, encode) in ENCODINGS {
            let bomb = encode(&vec![0; 64 << 20]);
            assert_eq!(
                decode(bomb.into(), encoding, LIMIT),
                Err(BodyError::TooLarge { limit: LIMIT }),
                "{encoding:?}"
            );
        }
        let streamed = {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_contentsize(false).unwrap();
            encoder.write_all(&vec![0; 8 << 20]).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(decode(streamed.into(), Encoding::Zstd, LIMIT), Err(BodyError::TooLarge { limit: LIMIT }));
    }

    #[test]
    fn truncated_streams_are_refused() {
        for (encoding, encode) in ENCODINGS {
            let whole = encode(&sample_text(3_000));
            for cut in 1..whole.len() {
                // A framed snappy stream without chunks is empty, and complete.
                if std::ptr::fn_addr_eq(encode, snappy_frames as Encode) && cut == SNAPPY_FRAME_MAGIC.len() {
                    continue;
                }
                let decoded = decode(whole[..cut].to_vec().into(), encoding, LIMIT);
                assert!(
                    matches!(decoded, Err(BodyError::Malformed { .. })),
                    "{encoding:?} cut at {cut}: {decoded:?}"
                );
            }
        }
        assert_eq!(decode(snappy_block(b"").into(), Encoding::Snappy, LIMIT).unwrap(), b"".as_slice());
        assert!(decode(Bytes::new(), Encoding::Gzip, LIMIT).is_err());
        assert!(decode(Bytes::new(), Encoding::Snappy, LIMIT).is_err());
    }

    #[test]
    fn lying_streams_are_refused() {
        for (encoding, encode) in ENCODINGS {
            let whole = encode(&sample_text(3_000));
            let trailing = [whole.as_slice(), b"garbage!"].concat();
            assert!(decode(trailing.into(), encoding, LIMIT).is_err(), "{encoding:?}");
            assert!(
                decode(Bytes::from_static(b"{\"metrics\":[]}"), encoding, LIMIT).is_err(),
                "{encoding:?}"
            );
        }
        let mut lie = gzip(&sample_text(3_000));
        let checksum = lie.len() - 6;
        lie[checksum] ^= 1;
        assert!(matches!(decode(lie.into(), Encoding::Gzip, LIMIT), Err(BodyError::Malformed { .. })));
        let huge_block = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x00, b'a'];
        assert!(matches!(decode_snappy_block(&huge_block, LIMIT), Err(BodyError::Malformed { .. })));
    }

    #[test]
    fn members_of_gzip_follow_each_other() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(two.into(), Encoding::Gzip, LIMIT).unwrap(), b"one two".as_slice());
    }

    #[test]
    fn headers_name_the_encoding() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            Encoding::of(&headers)
        };
        assert_eq!(of(&[]), Ok(Encoding::Identity));
        assert_eq!(of(&["identity"]), Ok(Encoding::Identity));
        assert_eq!(of(&["GZIP"]), Ok(Encoding::Gzip));
        assert_eq!(of(&["zstd"]), Ok(Encoding::Zstd));
        assert_eq!(of(&["snappy"]), Ok(Encoding::Snappy));
        assert_eq!(of(&["br"]), Err(BodyError::UnknownEncoding("br".into())));
        assert_eq!(of(&["gzip, gzip"]), Err(BodyError::UnknownEncoding("gzip, gzip".into())));
        assert_eq!(of(&["gzip", "gzip"]), Err(BodyError::UnknownEncoding("several".into())));
    }
}
