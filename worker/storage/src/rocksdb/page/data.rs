//! The samples of a page: time columns and blocks of values, found by a directory.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use crate::rocksdb::codec::{
    Buffers, Bytes, Effort, Encoder, decode_first_values, decode_integers, decode_times, put_varint,
    step_of_times,
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

/// What a thread keeps: more than blocks need, less than a directory that nobody wrote can ask for.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// So many samples of one value.
    pub fn repeated(&mut self, value: f64, count: usize) -> &[f64] {
        self.values.clear();
        self.values.resize(count, value);
        &self.values
    }

    fn bytes(&self) -> usize {
        self.buffers.bytes() + 8 * self.values.capacity()
    }
}

/// The buffers that a thread keeps from one scan to the next: a little one would take longer to get new ones than
/// to fill them.
#[derive(Debug)]
pub struct KeptScratch(Box<Scratch>);

impl Default for KeptScratch {
    fn default() -> Self {
        Self(KEPT.take().unwrap_or_default())
    }
}

impl Drop for KeptScratch {
    fn drop(&mut self) {
        if self.0.bytes() <= KEPT_BYTES {
            KEPT.set(Some(std::mem::take(&mut self.0)));
        }
    }
}

impl Deref for KeptScratch {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl DerefMut for KeptScratch {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.0
    }
}

/// The directory of a page's data: which series it has, and where their blocks lie.
#[derive(Debug, Default)]
pub struct Directory {
    series: Vec<u32>,
    ends: Vec<u32>,
    blocks: Vec<Block>,
    columns: Vec<Column>,
}

impl Directory {
    /// Reads the directory of `data`.
    ///
    /// # Errors
    /// `Corrupt` for an unknown version, a wrong checksum, or a directory that contradicts itself.
    pub fn read(data: &[u8], scratch: &mut Scratch) -> Result<Self> {
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
        let mut read = Self::default();
        read.fill(directory, HEADER + length, scratch)?;
        Ok(read)
    }

    fn fill(&mut self, directory: &[u8], start: usize, scratch: &mut Scratch) -> Result<()> {
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

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(self.series.as_slice())
            + size_of_val(self.ends.as_slice())
            + size_of_val(self.blocks.as_slice())
            + size_of_val(self.columns.as_slice())
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
}

/// Decodes the blocks of a page; every call must be given the same data again.
#[derive(Debug, Default)]
pub struct PageIndex {
    directory: Arc<Directory>,
    /// The column that was looked at last, and its step if it is regular: the next block has the same one as a rule.
    current: Option<(u32, Option<NonZeroU64>)>,
    /// Which samples of that column `times` holds, and which of those were asked for.
    held: Range<usize>,
    shown: Range<usize>,
    times: Vec<i64>,
}

impl PageIndex {
    /// Goes on to the page that has this directory.
    pub fn open(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
        self.current = None;
        (self.held, self.shown) = (0..0, 0..0);
    }

    /// Goes on to the page of `data`.
    ///
    /// # Errors
    /// As of [`Directory::read`]; then no page is open.
    pub fn read(&mut self, data: &[u8], scratch: &mut Scratch) -> Result<()> {
        self.open(Arc::default());
        self.open(Arc::new(Directory::read(data, scratch)?));
        Ok(())
    }

    /// The series, ascending.
    #[must_use]
    pub fn series(&self) -> &[u32] {
        self.directory.series()
    }

    /// The blocks of the series at `position`, in the order of time.
    #[must_use]
    pub fn blocks(&self, position: usize) -> Range<usize> {
        self.directory.blocks(position)
    }

    /// The times of a block's first and last samples.
    #[must_use]
    pub fn span(&self, block: usize) -> (i64, i64) {
        self.directory.span(block)
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
        let column = self.look_at(data, block, scratch)?;
        self.show(column.first, 0..column.count);
        let values = self.values(data, block, column.count, scratch)?;
        Ok((self.times(), values))
    }

    /// Which samples of a block lie in `[start, end)`; [`Self::times`] are theirs then.
    ///
    /// # Errors
    /// `Corrupt` when its time column fails its checksum, or can't be decoded.
    pub fn within(
        &mut self,
        data: &[u8],
        block: usize,
        (start, end): (i64, i64),
        scratch: &mut Scratch,
    ) -> Result<Range<usize>> {
        let column = self.look_at(data, block, scratch)?;
        let step = self.current.and_then(|(_, step)| step);
        let before = |time: i64| match step {
            _ if time <= column.first => 0,
            _ if time > column.last => column.count,
            // After the first time, so the difference fits.
            Some(step) => time.wrapping_sub(column.first).cast_unsigned().div_ceil(step.get()) as usize,
            None => self.times.partition_point(|own| *own < time),
        };
        let from = before(start);
        let within = from..before(end).max(from);
        self.show(column.first, within.clone());
        Ok(within)
    }

    /// Makes `wanted` of the current column the samples of [`Self::times`]; regular ones are not there before.
    fn show(&mut self, first: i64, wanted: Range<usize>) {
        let is_held = self.held.start <= wanted.start && wanted.end <= self.held.end;
        if let (Some((_, Some(step))), false) = (self.current, is_held) {
            let step = step.get().cast_signed();
            let time = |at: usize| first.wrapping_add(step.wrapping_mul(at as i64));
            self.times.clear();
            self.times.extend(wanted.clone().map(time));
            self.held = wanted.clone();
        }
        self.shown = wanted;
    }

    /// The column of a block, which is the current one then: its step is known, or its times are held.
    fn look_at(&mut self, data: &[u8], block: usize, scratch: &mut Scratch) -> Result<Column> {
        let number = self.directory.blocks[block].column;
        let column = self.directory.columns[number as usize];
        if self.current.is_some_and(|(current, _)| current == number) {
            return Ok(column);
        }
        self.current = None;
        (self.held, self.shown) = (0..0, 0..0);
        let packed = opened(data, column.offset, column.length)?;
        let step = step_of_times(packed, column.count, (column.first, column.last))?;
        if step.is_none() {
            self.times.resize(column.count, 0);
            decode_times(packed, column.first, &mut self.times, &mut scratch.buffers)?;
            if self.times.last() != Some(&column.last) {
                return Err(StoreError::corrupt("a time column does not end as its directory says"));
            }
            self.held = 0..column.count;
        }
        self.current = Some((number, step));
        Ok(column)
    }

    /// The times of the samples that were asked for last, strictly ascending.
    #[must_use]
    pub fn times(&self) -> &[i64] {
        &self.times[self.shown.start - self.held.start..self.shown.end - self.held.start]
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
        let Block { column, offset, length } = self.directory.blocks[block];
        let count = self.directory.columns[column as usize].count;
        let Scratch { buffers, values } = scratch;
        values.resize(wanted.min(count), 0.0);
        decode_first_values(opened(data, offset, length)?, count, values, buffers)?;
        Ok(values)
    }
}

fn set<T>(items: &mut [T], integers: &[i64], mut set: impl FnMut(&mut T, i64)) {
    for (item, integer) in items.iter_mut().zip(integers) {
        set(item, *integer);
    }
}
