//! Segments of the log: records come back, and no bytes pass for one or ask for more memory than they deserve.

use std::path::Path;

use luminate_storage::rocksdb::log::format::{
    Kind, RecordHeader, SegmentHeader, decode, ends, finish, pack, unpack,
};

use crate::draw::Draw;
use crate::memory;

const EPOCH: u64 = 0x1122_3344_5566_7788;
/// Where a record has its checksum, its lengths and the rest that is signed.
const CHECKSUM: std::ops::Range<usize> = 8..12;
const SIGNED: usize = 12;

/// The first byte says whether the rest is a segment, a record or header whose checksum is put right, or bodies.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 4 {
        0 => walk(rest),
        1 => walk(&with_checksum(rest)),
        2 => header(rest),
        _ => written(Draw(rest)),
    }
}

fn walk(segment: &[u8]) {
    let (mut at, mut body) = (0, Vec::new());
    while at < segment.len() {
        let _either = ends(segment, at);
        match decode(segment, at, EPOCH) {
            Some(record) => {
                assert!(record.end > at && record.end <= segment.len().next_multiple_of(8));
                let _either = memory::within((1 << 16) + 256 * segment.len(), || unpack(&record, &mut body));
                body = Vec::new();
                at = record.end;
            }
            None => at += 8,
        }
    }
}

/// A record of the epoch with a right checksum over whatever lengths it names.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut record = vec![0; SIGNED];
    record[..8].copy_from_slice(&EPOCH.to_le_bytes());
    record.extend_from_slice(bytes);
    let packed = record.get(12..16).and_then(|packed| packed.try_into().ok()).map_or(0, u32::from_le_bytes);
    let end = (packed as usize).saturating_add(40).min(record.len());
    if end > SIGNED {
        let sum = crc32c::crc32c_append(crc32c::crc32c(&record[..8]), &record[SIGNED..end]);
        record[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
    record
}

fn header(bytes: &[u8]) {
    let mut segment = bytes.to_vec();
    let _either = SegmentHeader::decode(&segment, Path::new("x"));
    if segment.len() < 40 {
        return;
    }
    segment[..8].copy_from_slice(b"lumi-log");
    segment[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let sum = crc32c::crc32c(&segment[16..40]);
    segment[12..16].copy_from_slice(&sum.to_le_bytes());
    if let Ok(header) = SegmentHeader::decode(&segment, Path::new("x")) {
        assert_eq!(header.encode(), segment[..40]);
    }
}

fn written(mut draw: Draw<'_>) {
    let (mut segment, mut bodies) = (Vec::new(), Vec::new());
    while !draw.is_empty() {
        let body = draw.bytes(64).repeat(1 + draw.below(64));
        let mut record = Vec::new();
        let header =
            RecordHeader { kind: Kind::Commit, commit: bodies.len() as u64 + 1, synced: draw.long() };
        pack(&mut record, &body).expect("a short body");
        finish(&mut record, EPOCH, &header);
        segment.extend_from_slice(&record);
        bodies.push((header, body));
    }
    let mut at = 0;
    for (header, body) in &bodies {
        let record = decode(&segment, at, EPOCH).expect("a record that was written");
        let mut unpacked = Vec::new();
        unpack(&record, &mut unpacked).expect("a record that was written");
        assert_eq!((record.header, &unpacked), (*header, body));
        at = record.end;
    }
    assert_eq!(at, segment.len());
}

/// A segment's header and records, and what others are made of.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut record = Vec::new();
    pack(&mut record, &b"a body, a body, a body".repeat(3)).expect("a short body");
    finish(&mut record, EPOCH, &RecordHeader { kind: Kind::Commit, commit: 1, synced: 0 });
    let header = SegmentHeader { number: 1, epoch: EPOCH, first_commit: 1 }.encode();
    vec![
        [vec![0], record.repeat(2), vec![0; 8]].concat(),
        [vec![1], record[SIGNED..].to_vec()].concat(),
        [vec![2], header.to_vec()].concat(),
        [vec![3], vec![9; 40]].concat(),
    ]
}
