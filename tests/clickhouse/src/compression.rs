//! Bodies: ClickHouse's own compressed frames and HTTP's content encodings, both ways.
//!
//! A frame is the checksum of what follows (CityHash128 of 2011), one byte of method, the compressed size with
//! these nine bytes, the plain size, and the data.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;

use bytes::{Buf, Bytes};
use flate2::Compression;

use crate::exception::Exception;

/// What one frame holds at most: a client's blocks are far smaller, and a wrong size must not take the memory.
const FRAME_LIMIT: usize = 1 << 30;
/// What the answer's frames hold.
const FRAME: usize = 1 << 20;
const CHECKSUM: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
const NONE: u8 = 0x02;

/// HTTP's encodings of bodies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// gzip.
    Gzip,
    /// zlib, which HTTP calls deflate.
    Deflate,
    /// zstd.
    Zstd,
    /// LZ4's own frames.
    Lz4,
}

impl Encoding {
    /// That of a `Content-Encoding` header; one that the server doesn't know it takes for none.
    ///
    /// # Errors
    /// One that a server knows and this doesn't.
    pub fn of_content(name: &str) -> Result<Self, Exception> {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "gz" => Self::Gzip,
            "deflate" => Self::Deflate,
            "zstd" | "zst" => Self::Zstd,
            "lz4" => Self::Lz4,
            other @ ("br" | "brotli" | "xz" | "lzma" | "bz2" | "snappy") => {
                let message = format!("Content-Encoding {other} isn't built into this test server");
                return Err(Exception::new(48, "NOT_IMPLEMENTED", message));
            }
            _ => Self::Identity,
        })
    }

    /// What the server chooses of an `Accept-Encoding` header, in its order.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let offers: Vec<_> = header
            .split(',')
            .map(|offer| offer.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
            .collect();
        [("zstd", Self::Zstd), ("lz4", Self::Lz4), ("gzip", Self::Gzip), ("deflate", Self::Deflate)]
            .into_iter()
            .find(|(name, _)| offers.iter().any(|offer| offer == name))
            .map_or(Self::Identity, |(_, encoding)| encoding)
    }

    /// Its name in a `Content-Encoding` header.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
            Self::Zstd => Some("zstd"),
            Self::Lz4 => Some("lz4"),
        }
    }
}

/// The pieces of a body that came in.
#[derive(Default)]
pub struct Pieces(std::collections::VecDeque<Bytes>);

impl Pieces {
    /// One piece more.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }

    /// Everything in one piece.
    #[must_use]
    pub fn concat(mut self) -> Bytes {
        match self.0.len() {
            1 => self.0.pop_front().unwrap_or_default(),
            _ => self.0.iter().flat_map(|piece| piece.iter().copied()).collect(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.0.front().map_or(&[], |piece| piece.as_ref()))
    }

    fn consume(&mut self, length: usize) {
        if let Some(piece) = self.0.front_mut() {
            piece.advance(length);
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

/// A body in plain, whatever it was packed in.
///
/// # Errors
/// The decoder can't be made.
pub fn plain(body: Pieces, encoding: Encoding, frames: bool) -> io::Result<Box<dyn BufRead + Send>> {
    let decoded: Box<dyn BufRead + Send> = match encoding {
        Encoding::Identity => Box::new(body),
        Encoding::Gzip => {
            Box::new(BufReader::with_capacity(FRAME, flate2::bufread::MultiGzDecoder::new(body)))
        }
        Encoding::Deflate => {
            Box::new(BufReader::with_capacity(FRAME, flate2::bufread::ZlibDecoder::new(body)))
        }
        Encoding::Zstd => Box::new(BufReader::with_capacity(FRAME, zstd::Decoder::with_buffer(body)?)),
        Encoding::Lz4 => Box::new(BufReader::with_capacity(FRAME, lz4_flex::frame::FrameDecoder::new(body))),
    };
    Ok(if frames { Box::new(Frames::new(decoded)) } else { decoded })
}

/// Unpacks ClickHouse's frames.
struct Frames<R> {
    from: R,
    packed: Vec<u8>,
    plain: Vec<u8>,
    /// What of `plain` is still to be read.
    unread: Range<usize>,
}

impl<R: BufRead> Frames<R> {
    fn new(from: R) -> Self {
        Self { from, packed: Vec::new(), plain: Vec::new(), unread: 0..0 }
    }

    fn next(&mut self) -> io::Result<()> {
        let mut checksum = [0; CHECKSUM];
        self.from.read_exact(&mut checksum)?;
        self.packed.resize(HEADER, 0);
        self.from.read_exact(&mut self.packed)?;
        let (method, size, plain) = header(&self.packed);
        if !(HEADER..=FRAME_LIMIT).contains(&size) || plain > FRAME_LIMIT {
            return Err(refused(271, "CANNOT_DECOMPRESS", "a compressed frame names an impossible size"));
        }
        self.packed.resize(size, 0);
        self.from.read_exact(&mut self.packed[HEADER..])?;
        if hash(&self.packed) != checksum {
            let message = "Checksum doesn't match: corrupted data";
            return Err(refused(40, "CHECKSUM_DOESNT_MATCH", message));
        }
        self.unpack(method, plain)
    }

    fn unpack(&mut self, method: u8, plain: usize) -> io::Result<()> {
        let packed = &self.packed[HEADER..];
        // Grown, never filled anew: the decoders write all of what is read.
        if self.plain.len() < plain {
            self.plain.resize(plain, 0);
        }
        let into = &mut self.plain[..plain];
        let length = match method {
            LZ4 => lz4_flex::block::decompress_into(packed, into).ok(),
            ZSTD => zstd::bulk::decompress_to_buffer(packed, into).ok(),
            NONE if packed.len() == plain => {
                into.copy_from_slice(packed);
                Some(plain)
            }
            NONE => None,
            _ => {
                let message = format!("Unknown compression method: {method}");
                return Err(refused(89, "UNKNOWN_COMPRESSION_METHOD", message));
            }
        };
        if length != Some(plain) {
            return Err(refused(271, "CANNOT_DECOMPRESS", "Cannot decompress a frame"));
        }
        self.unread = 0..plain;
        Ok(())
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Frames<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.unread.is_empty() && !self.from.fill_buf()?.is_empty() {
            self.next()?;
        }
        Ok(&self.plain[self.unread.clone()])
    }

    fn consume(&mut self, length: usize) {
        self.unread.start += length;
    }
}

fn header(frame: &[u8]) -> (u8, usize, usize) {
    let mut rest = frame;
    (rest.get_u8(), rest.get_u32_le() as usize, rest.get_u32_le() as usize)
}

/// The hash's two halves are exchanged in the crate's number.
fn hash(data: &[u8]) -> [u8; CHECKSUM] {
    cityhash_rs::cityhash_102_128(data).rotate_left(64).to_le_bytes()
}

fn refused(code: u16, name: &str, message: impl AsRef<str>) -> io::Error {
    io::Error::other(Refused(Exception::new(code, name, message)))
}

/// An exception on its way through `io::Error`.
#[derive(Debug)]
struct Refused(Exception);

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.0.text())
    }
}

impl std::error::Error for Refused {}

/// The exception of a body that can't be read.
#[must_use]
pub fn exception(error: &io::Error) -> Exception {
    if let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
        return refused.0.clone();
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Exception::new(32, "ATTEMPT_TO_READ_AFTER_EOF", "Attempt to read after eof")
        }
        _ => Exception::new(
            354,
            "ZLIB_INFLATE_FAILED",
            format!("The request's body can't be decoded: {error}"),
        ),
    }
}

/// Packs an answer: first in ClickHouse's frames where `compress=1` asks for it, then in HTTP's encoding.
pub struct Packer {
    frames: bool,
    encoder: Encoder,
}

enum Encoder {
    Identity(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
}

impl Packer {
    /// An empty answer.
    ///
    /// # Errors
    /// The encoder can't be made.
    pub fn new(encoding: Encoding, frames: bool) -> io::Result<Self> {
        // The server's levels: http_zlib_compression_level is 3.
        let encoder = match encoding {
            Encoding::Identity => Encoder::Identity(Vec::new()),
            Encoding::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), Compression::new(3))),
            Encoding::Deflate => {
                Encoder::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), Compression::new(3)))
            }
            Encoding::Zstd => Encoder::Zstd(zstd::Encoder::new(Vec::new(), 3)?),
            Encoding::Lz4 => Encoder::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
        };
        Ok(Self { frames, encoder })
    }

    /// Adds bytes of the answer.
    ///
    /// # Errors
    /// An encoder fails, which none does into memory.
    pub fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        if !self.frames {
            return self.encoder.write_all(plain);
        }
        plain.chunks(FRAME).try_for_each(|part| self.encoder.write_all(&frame(part)))
    }

    /// What is ready to be sent.
    pub fn take(&mut self) -> Bytes {
        std::mem::take(self.encoder.ready()).into()
    }

    /// How much is ready to be sent.
    pub fn ready(&mut self) -> usize {
        self.encoder.ready().len()
    }

    /// Makes everything written ready, so that the other side can decode it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Identity(_) => Ok(()),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Deflate(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Lz4(encoder) => encoder.flush(),
        }
    }

    /// The answer's last bytes.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(match self.encoder {
            Encoder::Identity(ready) => ready,
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Deflate(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
        }
        .into())
    }
}

impl Encoder {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(ready) => ready.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Deflate(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Lz4(encoder) => encoder.write_all(bytes),
        }
    }

    fn ready(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Identity(ready) => ready,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Lz4(encoder) => encoder.get_mut(),
        }
    }
}

/// One frame of LZ4.
fn frame(plain: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; CHECKSUM + HEADER + lz4_flex::block::get_maximum_output_size(plain.len())];
    let packed = lz4_flex::block::compress_into(plain, &mut frame[CHECKSUM + HEADER..]).unwrap_or_default();
    frame.truncate(CHECKSUM + HEADER + packed);
    let size = u32::try_from(HEADER + packed).unwrap_or(u32::MAX);
    frame[CHECKSUM] = LZ4;
    frame[CHECKSUM + 1..CHECKSUM + 5].copy_from_slice(&size.to_le_bytes());
    let plain = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    frame[CHECKSUM + 5..CHECKSUM + HEADER].copy_from_slice(&plain.to_le_bytes());
    let checksum = hash(&frame[CHECKSUM..]);
    frame[..CHECKSUM].copy_from_slice(&checksum);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &[u8]) -> Pieces {
        let mut pieces = Pieces::default();
        bytes.chunks(7).for_each(|piece| pieces.push(Bytes::copy_from_slice(piece)));
        pieces
    }

    fn unpacked(bytes: &[u8], encoding: Encoding, frames: bool) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        super::plain(pieces(bytes), encoding, frames)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_is_packed_unpacks() {
        let data: Vec<u8> = (0..3_000_000u32).map(|at| (at / 7) as u8).collect();
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::Lz4]
        {
            for frames in [false, true] {
                let mut packer = Packer::new(encoding, frames).expect("a packer");
                let mut packed = Vec::new();
                for part in data.chunks(1_000_003) {
                    packer.write(part).expect("written");
                    packer.flush().expect("flushed");
                    packed.extend_from_slice(&packer.take());
                }
                packed.extend_from_slice(&packer.finish().expect("finished"));
                assert!(
                    unpacked(&packed, encoding, frames).expect("unpacked") == data,
                    "{encoding:?} {frames}"
                );
            }
        }
    }

    #[test]
    fn a_frame_has_the_bytes_that_clickhouse_writes() {
        // ClickHouse's frame of "hello": the checksum is CityHash128 of what follows it.
        let mut packed = frame(b"hello");
        assert_eq!(packed[16..25], [0x82, 15, 0, 0, 0, 5, 0, 0, 0]);
        packed[20] = 0xff;
        let error = unpacked(&packed, Encoding::Identity, true).expect_err("the size is wrong");
        assert_eq!(exception(&error).code, 271);
        let mut packed = frame(b"hello");
        packed[28] ^= 1;
        let error = unpacked(&packed, Encoding::Identity, true).expect_err("the data are wrong");
        assert_eq!(exception(&error).code, 40);
        let error =
            unpacked(&frame(b"hello")[..28], Encoding::Identity, true).expect_err("the end is missing");
        assert_eq!(exception(&error).code, 32);
    }

    #[test]
    fn the_server_chooses_an_encoding() {
        assert_eq!(Encoding::accepted("gzip, deflate;q=0.5, br"), Encoding::Gzip);
        assert_eq!(Encoding::accepted("gzip,zstd"), Encoding::Zstd);
        assert_eq!(Encoding::accepted("identity"), Encoding::Identity);
    }
}
