//! The bytes of a segment: its header, and its records.
//!
//! # Format 1
//! All numbers are little endian. A segment begins with a block of 4096 bytes for its header:
//! magic (8 bytes), format (u32), crc32c of the three fields behind it (u32), segment number (u64),
//! epoch (u64), first commit expected (u64). Records follow, each at a multiple of 8: epoch (u64),
//! crc32c of epoch and of all that follows it (u32), packed length (u32), body length (u32), kind
//! (u32), commit (u64), last commit known to be synced (u64), and the body as an LZ4 block. Behind
//! the last record stand at least 8 zero bytes, if the segment goes on.
//!
//! The epoch is drawn at random each time that a file becomes a segment. So neither a stale record
//! of the file's earlier life nor bytes that somebody stored as samples can pass for a record.

use std::path::Path;

use crate::store::{Result, StoreError};

/// The unit in which a segment is written: no write has to read the rest of its page first.
pub const BLOCK: u64 = 4096;
/// The longest body of a record.
pub const MAX_BODY: usize = 1 << 30;
/// The largest segment: one record of the longest body, badly compressible.
pub const MAX_SEGMENT: u64 = (MAX_BODY + MAX_BODY / 64) as u64;
/// Zero bytes behind the last record.
pub const TERMINATOR: usize = 8;

const MAGIC: [u8; 8] = *b"lumi-log";
const FORMAT: u32 = 1;
const SEGMENT_HEADER: usize = 40;
const RECORD_HEADER: usize = 40;
/// LZ4 packs at most 255 bytes into one.
const MAX_RATIO: usize = 255;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its place in the log: each segment's number is one more than that of the one before.
    pub number: u64,
    /// What its records carry.
    pub epoch: u64,
    /// The commit of its first record.
    pub first_commit: u64,
}

impl SegmentHeader {
    /// A header with a new epoch.
    pub fn new(number: u64, first_commit: u64) -> Result<Self> {
        // Zero would make a terminator look like the beginning of a record.
        let epoch = getrandom::u64().map_err(StoreError::internal)?.max(1);
        Ok(Self { number, epoch, first_commit })
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_commit.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the beginning of `segment`, the content of `file`.
    ///
    /// # Errors
    /// `Internal` for a format that this code doesn't know, otherwise `Corrupt`.
    pub fn decode(segment: &[u8], file: &Path) -> Result<Self> {
        let broken =
            || StoreError::corrupt(format!("{}: the log segment's header is broken", file.display()));
        let bytes = segment.get(..SEGMENT_HEADER).ok_or_else(broken)?;
        if bytes[..8] != MAGIC {
            return Err(broken());
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(StoreError::internal(format!(
                "{}: the log has format {format}; this version of Luminate reads and writes format {FORMAT}",
                file.display()
            )));
        }
        let header =
            Self { number: u64_at(bytes, 16), epoch: u64_at(bytes, 24), first_commit: u64_at(bytes, 32) };
        let numbers = 1..u64::MAX / 2;
        let sound = crc32c::crc32c(&bytes[16..]) == u32_at(bytes, 12)
            && header.epoch != 0
            && numbers.contains(&header.number)
            && numbers.contains(&header.first_commit);
        if sound { Ok(header) } else { Err(broken()) }
    }
}

/// What a record is: persisted, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A commit.
    Commit = 1,
    /// The log was closed after the commit named: proof that it was there.
    Closed = 2,
}

/// A record's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it is.
    pub kind: Kind,
    /// The commit's number.
    pub commit: u64,
    /// The last commit that was on stable storage when this record was written.
    pub synced: u64,
}

/// A record that passed its checksum.
#[derive(Debug)]
pub struct Record<'a> {
    /// Its numbers.
    pub header: RecordHeader,
    /// Where the next one begins.
    pub end: usize,
    body_length: usize,
    packed: &'a [u8],
}

impl Record<'_> {
    /// Whether it belongs where commit `expected` comes next.
    pub(super) fn is_next(&self, expected: u64) -> bool {
        match self.header.kind {
            Kind::Commit => self.header.commit == expected,
            Kind::Closed => self.header.commit == expected - 1,
        }
    }
}

/// Fills `out` with a record for `body`, but for its header.
///
/// # Errors
/// `Internal` when the body is longer than [`MAX_BODY`].
pub fn pack(out: &mut Vec<u8>, body: &[u8]) -> Result<()> {
    if body.len() > MAX_BODY {
        return Err(StoreError::internal(format!(
            "a commit of {} bytes is more than a log record can hold",
            body.len()
        )));
    }
    out.clear();
    out.resize(RECORD_HEADER + lz4_flex::block::get_maximum_output_size(body.len()), 0);
    let packed = match body.len() {
        0 => 0,
        _ => lz4_flex::block::compress_into(body, &mut out[RECORD_HEADER..]).map_err(StoreError::internal)?,
    };
    out.truncate(RECORD_HEADER + packed);
    out[12..16].copy_from_slice(&to_u32(packed)?.to_le_bytes());
    out[16..20].copy_from_slice(&to_u32(body.len())?.to_le_bytes());
    Ok(())
}

/// Completes what [`pack`] began: header, checksum, and zeros up to a multiple of 8.
pub fn finish(out: &mut Vec<u8>, epoch: u64, header: &RecordHeader) {
    out[..8].copy_from_slice(&epoch.to_le_bytes());
    out[20..24].copy_from_slice(&(header.kind as u32).to_le_bytes());
    out[24..32].copy_from_slice(&header.commit.to_le_bytes());
    out[32..40].copy_from_slice(&header.synced.to_le_bytes());
    let checksum = checksum(out);
    out[8..12].copy_from_slice(&checksum.to_le_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..8]), &record[12..])
}

/// Whether something of this epoch begins at `at`.
pub fn begins(segment: &[u8], at: usize, epoch: u64) -> bool {
    segment.get(at..at + 8).is_some_and(|bytes| bytes == epoch.to_le_bytes())
}

/// Whether the records end at `at` as they do when nothing was torn.
pub fn ends(segment: &[u8], at: usize) -> bool {
    segment.iter().skip(at).take(TERMINATOR).all(|byte| *byte == 0)
}

/// The record at `at`, if a sound one of this epoch begins there.
pub fn decode(segment: &[u8], at: usize, epoch: u64) -> Option<Record<'_>> {
    if !begins(segment, at, epoch) {
        return None;
    }
    let rest = &segment[at..];
    let bytes = rest.get(..RECORD_HEADER)?;
    let (packed_length, body_length) = (u32_at(bytes, 12) as usize, u32_at(bytes, 16) as usize);
    let record = rest.get(..RECORD_HEADER.checked_add(packed_length)?)?;
    if checksum(record) != u32_at(bytes, 8) || body_length > packed_length.saturating_mul(MAX_RATIO) {
        return None;
    }
    let kind = match u32_at(bytes, 20) {
        1 => Kind::Commit,
        2 => Kind::Closed,
        _ => return None,
    };
    let header = RecordHeader { kind, commit: u64_at(bytes, 24), synced: u64_at(bytes, 32) };
    let end = at + record.len().next_multiple_of(8);
    Some(Record { header, end, body_length, packed: &record[RECORD_HEADER..] })
}

/// Puts a record's body into `out`, whose memory is used again from record to record.
///
/// # Errors
/// `Corrupt`.
pub fn unpack(record: &Record<'_>, out: &mut Vec<u8>) -> Result<()> {
    out.resize(record.body_length, 0);
    if record.packed.is_empty() && out.is_empty() {
        return Ok(());
    }
    match lz4_flex::block::decompress_into(record.packed, out) {
        Ok(length) if length == record.body_length => Ok(()),
        _ => Err(StoreError::corrupt("a log record passes its checksum but can't be unpacked")),
    }
}

fn to_u32(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(StoreError::internal)
}

/// The number at `at`, which the caller has checked to be inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 0x1122_3344_5566_7788;
    const HEADER: RecordHeader = RecordHeader { kind: Kind::Commit, commit: 7, synced: 6 };

    fn record(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        pack(&mut out, body).unwrap();
        finish(&mut out, EPOCH, &HEADER);
        out
    }

    fn body_of(bytes: &[u8]) -> Option<Vec<u8>> {
        let found = decode(bytes, 0, EPOCH)?;
        assert_eq!(found.header, HEADER);
        let mut body = Vec::new();
        unpack(&found, &mut body).unwrap();
        Some(body)
    }

    #[test]
    fn a_record_comes_back_whatever_its_length() {
        for length in [0, 1, 7, 8, 39, 40, 41, 1000, 70_000] {
            let body: Vec<u8> = (0..length).map(|at| (at % 7) as u8).collect();
            let bytes = record(&body);
            assert_eq!(bytes.len() % 8, 0);
            assert_eq!(body_of(&bytes).unwrap(), body);
            assert_eq!(decode(&bytes, 0, EPOCH).unwrap().end, bytes.len());
        }
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let bytes = record(b"a body that is not compressible: 0123456789");
        let padding = bytes.len() - decode(&bytes, 0, EPOCH).unwrap().packed.len() - RECORD_HEADER;
        for at in 0..bytes.len() - padding {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(decode(&changed, 0, EPOCH).is_none(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_record_and_another_epochs_are_none() {
        let bytes = record(b"body");
        assert!(decode(&bytes, 0, EPOCH + 1).is_none());
        for length in 0..RECORD_HEADER + 5 {
            assert!(decode(&bytes[..length], 0, EPOCH).is_none());
        }
        assert!(decode(&bytes, bytes.len(), EPOCH).is_none());
        assert!(decode(&bytes, usize::MAX - 8, EPOCH).is_none());
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut bytes = record(b"some body");
            bytes[12..20].copy_from_slice(&random.u64(..).to_le_bytes());
            let sum = checksum(&bytes);
            bytes[8..12].copy_from_slice(&sum.to_le_bytes());
            if let Some(record) = decode(&bytes, 0, EPOCH) {
                assert!(record.body_length <= bytes.len() * MAX_RATIO);
                let mut out = Vec::new();
                assert!(unpack(&record, &mut out).is_err());
            }
        }
    }

    #[test]
    fn a_segment_header_is_checked() {
        let file = Path::new("x");
        let header = SegmentHeader::new(3, 70).unwrap();
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes, file).unwrap(), header);
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(SegmentHeader::decode(&changed, file).is_err(), "byte {at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        let error = SegmentHeader::decode(&newer, file).unwrap_err();
        assert!(error.message.contains("format 2"), "{error}");
        assert!(SegmentHeader::decode(&bytes[..20], file).is_err());
    }
}
