//! Pages: samples come back bit by bit, and bytes that nobody wrote are refused however right their checksum is.

use luminate_storage::rocksdb::codec::Effort;
use luminate_storage::rocksdb::page::{PageBuilder, PageIndex, PageSummary, Scratch};
use luminate_storage::rocksdb::summary::Wanted;

use crate::draw::Draw;
use crate::memory;

/// Version, length and checksum in front of a directory; version and checksum in front of a summary.
const DIRECTORY: usize = 9;
const SUMMARY: usize = 5;

/// The first byte says whether the rest is a page's data, its summary, or what samples are made of.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 4 {
        0 => data(rest),
        1 => summary(rest),
        kind => written(Draw(rest), if kind == 2 { Effort::Seal } else { Effort::Merge }),
    }
}

fn data(directory: &[u8]) {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(directory).to_le_bytes());
    bytes.extend_from_slice(directory);
    walk(&bytes);
    walk(directory);
}

/// A directory may name a million blocks in a few bytes, and no more.
const MOST: usize = 256 << 20;

fn walk(bytes: &[u8]) {
    let (mut index, mut scratch) = (PageIndex::default(), Scratch::default());
    if memory::within(MOST, || index.read(bytes, &mut scratch)).is_err() {
        return;
    }
    for position in 0..index.series().len().min(100) {
        for block in index.blocks(position).take(10) {
            let _span = index.span(block);
            if let Ok((times, values)) = index.decode(bytes, block, &mut scratch) {
                assert_eq!(times.len(), values.len());
            }
        }
    }
}

fn summary(rest: &[u8]) {
    let mut bytes = vec![1; SUMMARY];
    bytes[1..].copy_from_slice(&crc32c::crc32c(rest).to_le_bytes());
    bytes.extend_from_slice(rest);
    for bytes in [bytes.as_slice(), rest] {
        let Ok(mut summary) = memory::within(MOST, || PageSummary::read(bytes)) else { continue };
        for position in 0..summary.series().len().min(100) {
            let _profile = summary.profile(position).is_summarised();
            for nth in 0..summary.spans(position).len().min(10) {
                let _either = (summary.first_value(position, nth), summary.hour(position, nth, Wanted::All));
            }
        }
    }
}

/// Series with their times and values.
type Samples = Vec<(u32, Vec<i64>, Vec<f64>)>;

fn drawn(mut draw: Draw<'_>) -> Samples {
    let (mut number, mut series) = (0, Vec::new());
    while !draw.is_empty() && series.len() < 8 {
        number += 1 + u32::from(draw.byte());
        let (mut time, mut times, mut values) = (draw.long().cast_signed() >> 16, Vec::new(), Vec::new());
        let (count, step) = (1 + draw.below(256) * (1 + draw.below(8)), 1 + i64::from(draw.byte()) * 1_000);
        let (jitter, kind) = (draw.below(3), draw.below(4));
        for at in 0..count {
            times.push(time);
            time += step + if jitter == 0 { i64::from(draw.byte()) } else { 0 };
            values.push(match kind {
                0 => 12.5,
                1 => (at % 17) as f64 / 100.0,
                _ => draw.value(),
            });
        }
        series.push((number, times, values));
    }
    series
}

fn written(draw: Draw<'_>, effort: Effort) {
    let series = drawn(draw);
    if series.is_empty() {
        return;
    }
    let mut builder = PageBuilder::new(effort);
    series.iter().for_each(|(number, times, values)| builder.push(*number, times, values));
    let page = builder.finish();
    let (mut index, mut scratch) = (PageIndex::default(), Scratch::default());
    index.read(&page.data, &mut scratch).expect("a page that was written");
    let mut summary = PageSummary::read(&page.summary).expect("a page that was written");
    assert!(index.series().iter().eq(series.iter().map(|(number, ..)| number)));
    assert_eq!(index.series(), summary.series());
    for (position, (_, times, values)) in series.iter().enumerate() {
        let (mut own_times, mut own_values) = (Vec::new(), Vec::new());
        for block in index.blocks(position) {
            let (times, values) =
                index.decode(&page.data, block, &mut scratch).expect("a block that was written");
            own_times.extend_from_slice(times);
            own_values.extend(values.iter().map(|value| value.to_bits()));
        }
        assert_eq!(&own_times, times);
        assert!(own_values.into_iter().eq(values.iter().map(|value| value.to_bits())));
        let counted: u64 = summary.spans(position).iter().map(|span| u64::from(span.count)).sum();
        assert!(counted == 0 || counted == times.len() as u64);
        for nth in 0..summary.spans(position).len() {
            summary.hour(position, nth, Wanted::All).expect("an hour that was written");
        }
    }
}

/// A page's directory and summary, and what samples are made of.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let drawn_from: Vec<u8> = (0..200_u32).map(|at| (at * 37 % 251) as u8).collect();
    let mut builder = PageBuilder::new(Effort::Seal);
    drawn(Draw(&drawn_from)).iter().for_each(|(number, times, values)| builder.push(*number, times, values));
    let page = builder.finish();
    let length = u32::from_le_bytes([page.data[1], page.data[2], page.data[3], page.data[4]]) as usize;
    vec![
        [vec![0], page.data[DIRECTORY..DIRECTORY + length].to_vec()].concat(),
        [vec![1], page.summary[SUMMARY..].to_vec()].concat(),
        [vec![2], drawn_from.clone()].concat(),
        [vec![3], drawn_from].concat(),
    ]
}
