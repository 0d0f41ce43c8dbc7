//! The samples of a page: time columns and blocks of values, found by a directory.

use std::ops::Range;

use crate::rocksdb::codec::{
    Buffers, Bytes, Effort, Encoder, decode_first_values, decode_integers, decode_times, put_varint,
};
use crate::store::{Result, StoreError};

use super::{DIRECTORY_BYTES, MERGE_BLOCK, VERSION};

/// Version, length of the directory, its checksum.
const HEADER: usize = 1 + 4 + 4;
const CHECKSUM: usize = 4;
/// More than a page can hold, so that a damaged count is found before memory is taken for it.
const MAX_SERIES: usize = 1 << 16;
const MAX_BLOCKS: usize = 1 << 20;

/// A time column that blocks refer to.
#[derive(Debug, Clone, Copy, Default)]
struct Column {
    first: i64,
    last: i64,
    count: usize,
    offset: usize,
    length: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    column: u32,
    offset: usize,
    length: usize,
}

/// Collects blocks.
#[derive(Debug, Default)]
pub(super) struct DataBuilder {
    series: Vec<u32>,
    ends: Vec<usize>,
    blocks: Vec<Block>,
    columns: Vec<Column>,
    /// The times of each column, to find equal ones.
    times: Vec<Vec<i64>>,
    packed_times: Vec<u8>,
    packed_values: Vec<u8>,
}

impl DataBuilder {
    /// Adds a block to the series that is being written; returns its time column and decimal scale.
    pub(super) fn push_block(
        &mut self,
        times: &[i64],
        values: &[f64],
        effort: Effort,
        encoder: &mut Encoder,
    ) -> (u32, Option<u8>) {
        let column = self.column(times, encoder);
        let offset = self.packed_values.len();
        let scale = encoder.values(values, effort, &mut self.packed_values);
        seal(&mut self.packed_values, offset);
        self.blocks.push(Block { column, offset, length: self.packed_values.len() - offset });
        (column, scale)
    }

    fn column(&mut self, times: &[i64], encoder: &mut Encoder) -> u32 {
        // The column of the series before, as a rule.
        let known = self.times.iter().rposition(|known| known == times);
        let at = known.unwrap_or_else(|| {
            let offset = self.packed_times.len();
            encoder.times(times, &mut self.packed_times);
            seal(&mut self.packed_times, offset);
            let length = self.packed_times.len() - offset;
            let (first, last) = (times[0], times[times.len() - 1]);
            self.columns.push(Column { first, last, count: times.len(), offset, length });
            self.times.push(times.to_vec());
            self.columns.len() - 1
        });
        at as u32
    }

    /// Ends the series whose blocks were pushed.
    pub(super) fn end_series(&mut self, series: u32) {
        self.series.push(series);
        self.ends.push(self.blocks.len());
    }

    pub(super) fn size(&self) -> usize {
        let listed = self.series.len() + self.blocks.len() + self.columns.len();
        self.packed_times.len() + self.packed_values.len() + DIRECTORY_BYTES * listed
    }

    pub(super) fn series_count(&self) -> usize {
        self.series.len()
    }

    pub(super) fn first_series(&self) -> u32 {
        self.series.first().copied().unwrap_or(0)
    }

    pub(super) fn finish(&self, encoder: &mut Encoder) -> Vec<u8> {
        let mut directory = Vec::new();
        for count in [self.series.len(), self.blocks.len(), self.columns.len()] {
            put_varint(&mut directory, count as u64);
        }
        let out = &mut directory;
        encoder.integers(self.series.iter().map(|series| i64::from(*series)), out);
        encoder.integers(self.ends.iter().map(|end| *end as i64), out);
        encoder.integers(self.blocks.iter().map(|block| i64::from(block.column)), out);
        encoder.integers(self.blocks.iter().map(|block| block.length as i64), out);
        encoder.integers(self.columns.iter().map(|column| column.count as i64), out);
        encoder.integers(self.columns.iter().map(|column| column.first), out);
        encoder.integers(self.columns.iter().map(|column| column.last.wrapping_sub(column.first)), out);
        encoder.integers(self.columns.iter().map(|column| column.length as i64), out);
        let rest = self.packed_times.len() + self.packed_values.len();
        let mut data = Vec::with_capacity(HEADER + directory.len() + rest);
        data.push(VERSION);
        data.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        data.extend_from_slice(&crc32c::crc32c(&directory).to_le_bytes());
        data.extend_from_slice(&directory);
        data.extend_from_slice(&self.packed_times);
        data.extend_from_slice(&self.packed_values);
        data
    }
}

/// Appends the checksum of what `out` holds from `offset` on.
fn seal(out: &mut Vec<u8>, offset: usize) {
    let checksum = crc32c::crc32c(&out[offset..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The part of `data` at `offset`, less its checksum, which must be right.
fn opened(data: &[u8], offset: usize, length: usize) -> Result<&[u8]> {
    let part = data.get(offset..).and_then(|data| data.get(..length));
    let (Some(part), true) = (part, length >= CHECKSUM) else {
        return Err(StoreError::corrupt("a block lies outside its page"));
    };
    let (packed, checksum) = part.split_at(length - CHECKSUM);
    if crc32c::crc32c(packed).to_le_bytes() != checksum {
        return Err(StoreError::corrupt(format!("the block at byte {offset} fails its checksum")));
    }
    Ok(packed)
}

/// Buffers for decoding.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) buffers: Buffers,
    values: Vec<f64>,
}

impl Scratch {
    /// So many samples of one value.
    pub fn repeated(&mut self, value: f64, count: usize) -> &[f64] {
        self.values.clear();
        self.values.resize(count, value);
        &self.values
    }
}

/// The directory of a page's data, read once; every call must be given the same data again.
#[derive(Debug, Default)]
pub struct PageIndex {
    series: Vec<u32>,
    ends: Vec<u32>,
    blocks: Vec<Block>,
    columns: Vec<Column>,
    /// The column that `times` holds: the next block has the same one as a rule.
    decoded: Option<u32>,
    times: Vec<i64>,
}

impl PageIndex {
    /// Reads the directory of `data`, in place of the one read before.
    ///
    /// # Errors
    /// `Corrupt` for an unknown version, a wrong checksum, or a directory that contradicts itself.
    pub fn read(&mut self, data: &[u8], scratch: &mut Scratch) -> Result<()> {
        self.clear();
        let mut bytes = Bytes(data);
        let version = bytes.byte()?;
        if version != VERSION {
            return Err(StoreError::corrupt(format!("a page of unknown version {version}")));
        }
        let (length, checksum) = (bytes.word()? as usize, bytes.word()?);
        let directory = bytes.take(length)?;
        if crc32c::crc32c(directory) != checksum {
            return Err(StoreError::corrupt("the directory of a page fails its checksum"));
        }
        let done = self.read_directory(directory, HEADER + length, scratch);
        if done.is_err() {
            self.clear();
        }
        done
    }

    fn clear(&mut self) {
        self.series.clear();
        self.ends.clear();
        self.blocks.clear();
        self.columns.clear();
        self.decoded = None;
    }

    fn read_directory(&mut self, directory: &[u8], start: usize, scratch: &mut Scratch) -> Result<()> {
        let mut bytes = Bytes(directory);
        let series = bytes.count(MAX_SERIES)?;
        let blocks = bytes.count(MAX_BLOCKS)?;
        let columns = bytes.count(blocks)?;
        let mut take = |count: usize, read: &mut dyn FnMut(&[i64])| -> Result<()> {
            let mut integers = vec![0; count];
            decode_integers(&mut bytes, &mut integers, &mut scratch.buffers)?;
            read(&integers);
            Ok(())
        };
        self.blocks.resize(blocks, Block::default());
        self.columns.resize(columns, Column::default());
        let (of_blocks, of_columns) = (&mut self.blocks, &mut self.columns);
        take(series, &mut |all| self.series.extend(all.iter().map(|series| *series as u32)))?;
        take(series, &mut |all| self.ends.extend(all.iter().map(|end| *end as u32)))?;
        take(blocks, &mut |all| set(of_blocks, all, |block, column| block.column = column as u32))?;
        take(blocks, &mut |all| set(of_blocks, all, |block, length| block.length = length as usize))?;
        take(columns, &mut |all| set(of_columns, all, |column, count| column.count = count as usize))?;
        take(columns, &mut |all| set(of_columns, all, |column, first| column.first = first))?;
        take(columns, &mut |all| {
            set(of_columns, all, |column, span| column.last = column.first.wrapping_add(span));
        })?;
        take(columns, &mut |all| set(of_columns, all, |column, length| column.length = length as usize))?;
        let mut offset = start;
        for column in of_columns.iter_mut() {
            column.offset = offset;
            offset = offset.saturating_add(column.length);
        }
        for block in of_blocks.iter_mut() {
            block.offset = offset;
            offset = offset.saturating_add(block.length);
        }
        self.check()
    }

    /// A directory with a right checksum is as it was written; this keeps one that nobody wrote from
    /// doing harm.
    fn check(&self) -> Result<()> {
        let sorted = self.series.windows(2).all(|pair| pair[0] < pair[1])
            && self.ends.windows(2).all(|pair| pair[0] <= pair[1])
            && self.ends.last().map_or(0, |end| *end as usize) == self.blocks.len();
        let known = self.blocks.iter().all(|block| (block.column as usize) < self.columns.len());
        let counted = self.columns.iter().all(|column| (1..=MERGE_BLOCK).contains(&column.count));
        match sorted && known && counted {
            true => Ok(()),
            false => Err(StoreError::corrupt("the directory of a page contradicts itself")),
        }
    }

    /// The series, ascending.
    #[must_use]
    pub fn series(&self) -> &[u32] {
        &self.series
    }

    /// The blocks of the series at `position`, in the order of time.
    #[must_use]
    pub fn blocks(&self, position: usize) -> Range<usize> {
        let start = if position > 0 { self.ends[position - 1] } else { 0 };
        start as usize..self.ends[position] as usize
    }

    /// The times of a block's first and last samples.
    #[must_use]
    pub fn span(&self, block: usize) -> (i64, i64) {
        let column = &self.columns[self.blocks[block].column as usize];
        (column.first, column.last)
    }

    /// Decodes a block: times strictly ascending, and their values.
    ///
    /// # Errors
    /// `Corrupt` when the block or its time column fails its checksum, or can't be decoded.
    pub fn decode<'a>(
        &'a mut self,
        data: &[u8],
        block: usize,
        scratch: &'a mut Scratch,
    ) -> Result<(&'a [i64], &'a [f64])> {
        self.decode_times(data, block, scratch)?;
        let values = self.values(data, block, self.times.len(), scratch)?;
        Ok((&self.times, values))
    }

    /// The times that were decoded last, strictly ascending.
    #[must_use]
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// Decodes the times of a block.
    ///
    /// # Errors
    /// `Corrupt` when its time column fails its checksum, or can't be decoded.
    pub fn decode_times(&mut self, data: &[u8], block: usize, scratch: &mut Scratch) -> Result<()> {
        let number = self.blocks[block].column;
        let column = self.columns[number as usize];
        if self.decoded != Some(number) {
            self.decoded = None;
            self.times.resize(column.count, 0);
            let packed = opened(data, column.offset, column.length)?;
            decode_times(packed, column.first, &mut self.times, &mut scratch.buffers)?;
            if self.times.last() != Some(&column.last) {
                return Err(StoreError::corrupt("a time column does not end as its directory says"));
            }
            self.decoded = Some(number);
        }
        Ok(())
    }

    /// The values of a block's first `wanted` samples.
    ///
    /// # Errors
    /// `Corrupt` when the block fails its checksum, or can't be decoded.
    pub fn values<'a>(
        &self,
        data: &[u8],
        block: usize,
        wanted: usize,
        scratch: &'a mut Scratch,
    ) -> Result<&'a [f64]> {
        let Block { column, offset, length } = self.blocks[block];
        let (count, Scratch { buffers, values }) = (self.columns[column as usize].count, scratch);
        values.resize(count, 0.0);
        decode_first_values(opened(data, offset, length)?, wanted, values, buffers)?;
        values.get(..wanted).ok_or_else(|| StoreError::internal("more values than a block has"))
    }
}

fn set<T>(items: &mut [T], integers: &[i64], mut set: impl FnMut(&mut T, i64)) {
    for (item, integer) in items.iter_mut().zip(integers) {
        set(item, *integer);
    }
}
