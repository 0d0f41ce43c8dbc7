//! A look at RocksDB's own logs before RocksDB reads them.
//!
//! A record in its list of tables or in its log whose kind has become that of a file that is used again
//! (RocksDB can do that, and here never does) makes it read for ever, or take the record for the end.

use std::path::Path;

use crate::store::{Result, StoreError};

const BLOCK: usize = 32 << 10;
/// Checksum, length, kind.
const HEADER: usize = 4 + 2 + 1;
/// Kinds of records in files that are used again.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Looks at every list of tables and log in `directory`.
///
/// # Errors
/// `Corrupt`, `Internal`.
pub(super) fn look(directory: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(StoreError::internal)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("MANIFEST-") || path.extension().is_some_and(|suffix| suffix == "log") {
            let bytes = std::fs::read(&path).map_err(StoreError::internal)?;
            if let Some(at) = recycled(&bytes) {
                let path = path.display();
                return Err(StoreError::corrupt(format!("{path}: the record at byte {at} is damaged")));
            }
        }
    }
    Ok(())
}

/// Where the first record lies that is broken and of such a kind; what else is broken RocksDB finds.
fn recycled(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
        }
        let header = bytes.get(at..at + HEADER)?;
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let body = bytes.get(at + HEADER - 1..at + HEADER + length);
        let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if body.is_none_or(|body| masked(crc32c::crc32c(body)) != stored) {
            return RECYCLED.contains(&header[6]).then_some(at);
        }
        at += HEADER + length;
    }
}

/// A checksum as RocksDB keeps it (util/crc32c.h): rotated and shifted, since it is often summed again.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let of = [&[kind], body].concat();
        let mut bytes = masked(crc32c::crc32c(&of)).to_le_bytes().to_vec();
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(of);
        bytes
    }

    #[test]
    fn only_a_broken_record_of_a_recycled_file_is_named() {
        let first = record(1, b"one");
        let sound = [first.clone(), record(1, b"two")].concat();
        assert_eq!(recycled(&sound), None);
        for kind in 0..=255 {
            let mut bytes = sound.clone();
            bytes[first.len() + 6] = kind;
            let expected = RECYCLED.contains(&kind).then_some(first.len());
            assert_eq!(recycled(&bytes), expected, "kind {kind}");
        }
        for cut in 0..sound.len() {
            assert_eq!(recycled(&sound[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn records_go_on_behind_the_stub_of_a_block() {
        let long = record(1, &vec![7; BLOCK - HEADER - 3]);
        let mut bytes = [long, vec![0; 3], record(1, b"next")].concat();
        assert_eq!(recycled(&bytes), None);
        bytes[BLOCK + 6] = 5;
        assert_eq!(recycled(&bytes), Some(BLOCK));
    }
}
