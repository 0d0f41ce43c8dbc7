//! Codecs: one block of values or times as few bytes, and back at memory speed.
//!
//! Values come back bit by bit. Each block is written in the way that cheap statistics promise the
//! least bytes: one value, runs, decimals as integers (differenced, divided, packed or Golomb–Rice
//! coded, a few misfits aside), their bits as integers, raw; and, where there is time for it, pco.

mod bytes;
mod decimal;
mod integers;
mod pack;

use std::num::NonZeroU64;

use pco::standalone::{DecompressorItem, FileDecompressor, simple_compress_into};
use pco::{ChunkConfig, DeltaSpec, FULL_BATCH_N, ModeSpec};

use crate::store::{Result, StoreError};

use integers::{IntegerEncoder, Normal, normalise};

pub use bytes::{Bytes, put_varint};
pub use decimal::snapped;

/// How much work a block is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// A seal: as fast as samples are written.
    Seal,
    /// A merge: every codec is tried.
    Merge,
}

/// First byte of a block of values: how it is coded. Persisted, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    /// One value for all.
    Constant = 1,
    /// Values and how often each is repeated.
    Runs = 2,
    /// A scale, then integers.
    Decimal = 3,
    /// A scale, the places and values of misfits, then integers.
    DecimalPatched = 4,
    /// The bits of the values, in the order of values, as integers.
    Bits = 5,
    /// Eight bytes each.
    Raw = 6,
    /// A scale, minimum and divisor, then integers by pco.
    DecimalPco = 7,
    /// Values by pco.
    Pco = 8,
}

impl Codec {
    fn of(tag: u8) -> Result<Self> {
        use Codec as C;
        let known =
            [C::Constant, C::Runs, C::Decimal, C::DecimalPatched, C::Bits, C::Raw, C::DecimalPco, C::Pco];
        let found = known.into_iter().find(|codec| *codec as u8 == tag);
        found.ok_or_else(|| StoreError::corrupt(format!("unknown codec {tag}")))
    }
}

/// First byte of a block of times. Persisted, never reused.
const TIMES_REGULAR: u8 = 1;
const TIMES_INTEGERS: u8 = 2;

/// Runs are written as such when they are at least this long on average.
const RUN_LENGTH: usize = 12;
/// Below this pco's header and tables outweigh what it saves.
const PCO_VALUES: usize = 256;
const PCO_BYTES: usize = 64;
const PCO_LEVEL: usize = 8;
/// Values without a pattern are as slow to read in either way, so pco need only save three bytes of a hundred.
const PCO_OF_BITS: usize = 97;
/// Where a chunk of pco tells its mode, after its type and the number of its values; which one a
/// dictionary is; and what follows the last chunk. From pco's description of its format.
const PCO_MODE: usize = 4;
const PCO_DICTIONARY: u8 = 4;
const PCO_END: u8 = 0;

/// Encodes blocks; its buffers are kept from one to the next.
#[derive(Debug, Default)]
pub struct Encoder {
    integers: Vec<i64>,
    exceptions: Vec<u32>,
    own: Vec<u8>,
    other: Vec<u8>,
    encoder: IntegerEncoder,
}

impl Encoder {
    /// Appends finite `values` to `out`; the reader must know how many there are. Returns the scale
    /// if they are decimals: all are integers × 10^−scale.
    pub fn values(&mut self, values: &[f64], effort: Effort, out: &mut Vec<u8>) -> Option<u8> {
        let first = values.first()?;
        let changes = values.windows(2).filter(|pair| pair[0].to_bits() != pair[1].to_bits()).count();
        if changes == 0 {
            out.push(Codec::Constant as u8);
            put_value(out, *first);
            let exact = decimal::find(&values[..1], &mut self.integers, &mut self.exceptions);
            return exact.filter(|_| self.exceptions.is_empty());
        }
        if (changes + 1) * RUN_LENGTH <= values.len() {
            return self.runs(values, out);
        }
        match decimal::find(values, &mut self.integers, &mut self.exceptions) {
            Some(scale) => self.decimal(values, scale, effort, out),
            None => {
                self.bits(values, effort, out);
                None
            }
        }
    }

    /// Appends times, strictly ascending, to `out`; the reader must know the first and how many there are.
    pub fn times(&mut self, times: &[i64], out: &mut Vec<u8>) {
        let [first, second, ..] = times else { return };
        let step = second.wrapping_sub(*first);
        if times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
            out.push(TIMES_REGULAR);
            put_varint(out, step.cast_unsigned());
            return;
        }
        out.push(TIMES_INTEGERS);
        self.integers.clear();
        self.integers.extend(times.iter().map(|time| time.wrapping_sub(*first)));
        self.encoder.encode(&mut self.integers, out);
    }

    /// Appends any integers to `out`; the reader must know how many there are.
    pub fn integers(&mut self, integers: impl IntoIterator<Item = i64>, out: &mut Vec<u8>) {
        self.integers.clear();
        self.integers.extend(integers);
        self.encoder.encode(&mut self.integers, out);
    }

    fn runs(&mut self, values: &[f64], out: &mut Vec<u8>) -> Option<u8> {
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        for run in values.chunk_by(|one, other| one.to_bits() == other.to_bits()) {
            starts.push(run[0]);
            lengths.push(run.len() as i64);
        }
        out.push(Codec::Runs as u8);
        put_varint(out, starts.len() as u64);
        self.integers(lengths, out);
        match decimal::find(&starts, &mut self.integers, &mut self.exceptions) {
            Some(scale) => self.decimal(&starts, scale, Effort::Seal, out),
            None => {
                self.bits(&starts, Effort::Seal, out);
                None
            }
        }
    }

    fn decimal(&mut self, values: &[f64], scale: u8, effort: Effort, out: &mut Vec<u8>) -> Option<u8> {
        let patched = !self.exceptions.is_empty();
        let normal = normalise(&mut self.integers);
        self.own.clear();
        self.encoder.encode_normal(&self.integers, normal, &mut self.own);
        if effort == Effort::Merge && !patched && self.pco_integers(normal) {
            out.extend_from_slice(&[Codec::DecimalPco as u8, scale]);
            out.extend_from_slice(&self.other);
            return Some(scale);
        }
        let before = out.len();
        out.extend_from_slice(&[if patched { Codec::DecimalPatched } else { Codec::Decimal } as u8, scale]);
        if patched {
            put_varint(out, self.exceptions.len() as u64);
            let mut next = 0;
            for at in &self.exceptions {
                put_varint(out, u64::from(at - next));
                next = at + 1;
            }
            for at in &self.exceptions {
                out.extend_from_slice(&values[*at as usize].to_bits().to_le_bytes());
            }
        }
        out.extend_from_slice(&self.own);
        if out.len() - before > 8 * values.len() {
            out.truncate(before);
            raw(values, out);
        }
        (!patched).then_some(scale)
    }

    fn bits(&mut self, values: &[f64], effort: Effort, out: &mut Vec<u8>) {
        self.integers.clear();
        self.integers.extend(values.iter().map(|value| ordered(*value)));
        self.own.clear();
        self.encoder.encode(&mut self.integers, &mut self.own);
        let own = self.own.len().min(8 * values.len());
        if effort == Effort::Merge && values.len() >= PCO_VALUES {
            let config = ChunkConfig::default().with_compression_level(PCO_LEVEL);
            self.other.clear();
            if simple_compress_into(values, &config, &mut self.other).is_ok()
                && self.other.len() * 100 <= own * PCO_OF_BITS
            {
                out.push(Codec::Pco as u8);
                out.extend_from_slice(&self.other);
                return;
            }
        }
        if self.own.len() < 8 * values.len() {
            out.push(Codec::Bits as u8);
            out.extend_from_slice(&self.own);
        } else {
            raw(values, out);
        }
    }

    /// Whether pco takes a tenth less than `own` for the integers; then `other` is what it wrote.
    fn pco_integers(&mut self, normal: Normal) -> bool {
        if self.integers.len() < PCO_VALUES || self.own.len() < PCO_BYTES {
            return false;
        }
        let delta = match normal.order {
            0 => DeltaSpec::NoOp,
            order => DeltaSpec::TryConsecutive(usize::from(order)),
        };
        let config = ChunkConfig::default()
            .with_compression_level(PCO_LEVEL)
            .with_mode_spec(ModeSpec::Classic)
            .with_delta_spec(delta);
        self.other.clear();
        bytes::put_signed(&mut self.other, normal.minimum);
        put_varint(&mut self.other, normal.divisor);
        let done = simple_compress_into(&self.integers, &config, &mut self.other).is_ok();
        done && self.other.len() * 10 <= self.own.len() * 9
    }
}

fn raw(values: &[f64], out: &mut Vec<u8>) {
    out.push(Codec::Raw as u8);
    for value in values {
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

/// A value without the zero bytes at its end, whose number goes in front.
fn put_value(out: &mut Vec<u8>, value: f64) {
    let bytes = value.to_bits().to_be_bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    out.push(used as u8);
    out.extend_from_slice(&bytes[..used]);
}

fn take_value(bytes: &mut Bytes<'_>) -> Result<f64> {
    let used = bytes.count(8)?;
    let mut value = [0; 8];
    value[..used].copy_from_slice(bytes.take(used)?);
    Ok(f64::from_bits(u64::from_be_bytes(value)))
}

/// The bits of a value as an integer that is greater for a greater value.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

fn unordered(bits: i64) -> f64 {
    f64::from_bits((bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()).cast_unsigned())
}

/// Buffers of decoders, kept from block to block.
#[derive(Debug, Default)]
pub struct Buffers {
    integers: Vec<i64>,
    codes: Vec<u64>,
    runs: Vec<f64>,
}

impl Buffers {
    /// Bytes that they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        8 * (self.integers.capacity() + self.codes.capacity() + self.runs.capacity())
    }
}

/// Reads a block of `out.len()` values, all of `bytes`.
///
/// # Errors
/// `Corrupt` for bytes that no encoder wrote.
pub fn decode_values(bytes: &[u8], out: &mut [f64], buffers: &mut Buffers) -> Result<()> {
    decode_first_values(bytes, out.len(), out, buffers)
}

/// Reads the first `out.len()` values of a block of `count`.
///
/// # Errors
/// `Corrupt` for bytes that no encoder wrote; what follows those values may go unnoticed.
pub fn decode_first_values(bytes: &[u8], count: usize, out: &mut [f64], buffers: &mut Buffers) -> Result<()> {
    let mut bytes = Bytes(bytes);
    if out.is_empty() {
        return Ok(());
    }
    match Codec::of(bytes.byte()?)? {
        Codec::Runs => decode_runs(&mut bytes, count, out, buffers),
        codec => decode_plain(codec, &mut bytes, count, out, buffers),
    }
}

fn decode_plain(
    codec: Codec,
    bytes: &mut Bytes<'_>,
    count: usize,
    out: &mut [f64],
    buffers: &mut Buffers,
) -> Result<()> {
    match codec {
        Codec::Constant => out.fill(take_value(bytes)?),
        Codec::Runs => return Err(StoreError::corrupt("runs of runs")),
        Codec::Decimal => decode_decimal(bytes.byte()?, bytes, count, out, buffers)?,
        Codec::DecimalPatched => decode_patched(bytes, count, out, buffers)?,
        Codec::Bits => {
            take_integers(bytes, count, out.len(), buffers)?;
            for (out, bits) in out.iter_mut().zip(&buffers.integers) {
                *out = unordered(*bits);
            }
        }
        Codec::Raw => {
            let bytes = bytes.take(8 * count)?.as_chunks::<8>().0;
            for (out, bytes) in out.iter_mut().zip(bytes) {
                *out = f64::from_bits(u64::from_le_bytes(*bytes));
            }
        }
        Codec::DecimalPco => decode_pco_integers(bytes, count, out, buffers)?,
        Codec::Pco => decode_pco(bytes.0, count, out)?,
    }
    Ok(())
}

fn power_of(scale: u8) -> Result<f64> {
    decimal::power(scale).ok_or_else(|| StoreError::corrupt(format!("scale {scale}")))
}

fn decode_decimal(
    scale: u8,
    bytes: &mut Bytes<'_>,
    count: usize,
    out: &mut [f64],
    buffers: &mut Buffers,
) -> Result<()> {
    let power = power_of(scale)?;
    take_integers(bytes, count, out.len(), buffers)?;
    unscale(&buffers.integers, power, out);
    Ok(())
}

fn unscale(integers: &[i64], power: f64, out: &mut [f64]) {
    // Whole numbers are frequent, and a division costs more than all else.
    match power == 1.0 {
        true => {
            out.iter_mut().zip(integers).for_each(|(out, integer)| *out = decimal::unscaled(*integer, 1.0))
        }
        false => {
            out.iter_mut().zip(integers).for_each(|(out, integer)| *out = decimal::unscaled(*integer, power))
        }
    }
}

fn decode_patched(bytes: &mut Bytes<'_>, count: usize, out: &mut [f64], buffers: &mut Buffers) -> Result<()> {
    let scale = bytes.byte()?;
    let patches = bytes.count(count)?;
    let mut places = Vec::with_capacity(patches);
    let mut next = 0_usize;
    for _ in 0..patches {
        let at = next + bytes.count(count)?;
        if at >= count {
            return Err(StoreError::corrupt("an exception lies outside its block"));
        }
        places.push(at);
        next = at + 1;
    }
    let values = bytes.take(8 * patches)?;
    decode_decimal(scale, bytes, count, out, buffers)?;
    for (at, value) in places.iter().zip(values.as_chunks::<8>().0) {
        let Some(out) = out.get_mut(*at) else { break };
        *out = f64::from_bits(u64::from_le_bytes(*value));
    }
    Ok(())
}

fn decode_runs(bytes: &mut Bytes<'_>, count: usize, out: &mut [f64], buffers: &mut Buffers) -> Result<()> {
    let runs = bytes.count(count)?;
    let mut lengths = Vec::new();
    take_integers(bytes, runs, runs, buffers)?;
    std::mem::swap(&mut lengths, &mut buffers.integers);
    let mut values = std::mem::take(&mut buffers.runs);
    values.resize(runs, 0.0);
    let done = match runs {
        0 => Ok(()),
        _ => decode_plain(Codec::of(bytes.byte()?)?, bytes, runs, &mut values, buffers),
    };
    let mut at = 0_usize;
    for (value, length) in values.iter().zip(&lengths) {
        let end = at.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX));
        if end > count {
            return Err(StoreError::corrupt("runs are longer than their block"));
        }
        let shown = out.len();
        out[at.min(shown)..end.min(shown)].fill(*value);
        at = end;
    }
    buffers.runs = values;
    match at == count {
        true => done,
        false => Err(StoreError::corrupt("runs are shorter than their block")),
    }
}

fn decode_pco_integers(
    bytes: &mut Bytes<'_>,
    count: usize,
    out: &mut [f64],
    buffers: &mut Buffers,
) -> Result<()> {
    let power = power_of(bytes.byte()?)?;
    let minimum = bytes.signed()?;
    let divisor = bytes.varint()?.cast_signed();
    buffers.integers.resize(out.len(), 0);
    decode_pco(bytes.0, count, &mut buffers.integers)?;
    for integer in &mut buffers.integers {
        *integer = integer.wrapping_mul(divisor).wrapping_add(minimum);
    }
    unscale(&buffers.integers, power, out);
    Ok(())
}

/// Reads the first `out.len()` values of pco's only chunk, which has `count`.
fn decode_pco<T: pco::data_types::Number>(bytes: &[u8], count: usize, out: &mut [T]) -> Result<()> {
    let (file, bytes) = FileDecompressor::new(bytes).map_err(StoreError::corrupt)?;
    // A dictionary gets its memory by the length that it tells, up to 268 MB, before one value is
    // there; no encoder here writes any.
    if bytes.get(PCO_MODE).is_some_and(|mode| mode & 0xf == PCO_DICTIONARY) {
        return Err(StoreError::corrupt("a block of pco has a dictionary"));
    }
    let DecompressorItem::Chunk(mut chunk) =
        file.chunk_decompressor::<T, _>(bytes).map_err(StoreError::corrupt)?
    else {
        return Err(StoreError::corrupt("a block of pco is empty"));
    };
    if chunk.n() != count {
        return Err(StoreError::corrupt(format!("a block of pco has {} values, not {count}", chunk.n())));
    }
    if out.len() == count {
        chunk.read(out).map_err(StoreError::corrupt)?;
        return match chunk.into_src() == [PCO_END] {
            true => Ok(()),
            false => Err(StoreError::corrupt("a block of pco has too many bytes")),
        };
    }
    let (batches, rest) = out.split_at_mut(out.len() / FULL_BATCH_N * FULL_BATCH_N);
    chunk.read(batches).map_err(StoreError::corrupt)?;
    if !rest.is_empty() {
        let mut batch = [T::default(); FULL_BATCH_N];
        chunk.read(&mut batch).map_err(StoreError::corrupt)?;
        rest.copy_from_slice(&batch[..rest.len()]);
    }
    Ok(())
}

/// Reads the first `wanted` of `count` integers into the buffer.
fn take_integers(bytes: &mut Bytes<'_>, count: usize, wanted: usize, buffers: &mut Buffers) -> Result<()> {
    buffers.integers.resize(wanted, 0);
    integers::decode_first_integers(bytes, count, &mut buffers.integers, &mut buffers.codes)
}

/// What lies between two of `count` times that are regular, of a block that begins with `first` and ends with `last`;
/// `None` for others, which have to be decoded.
///
/// # Errors
/// `Corrupt` when regular times don't end there.
pub fn step_of_times(bytes: &[u8], count: usize, (first, last): (i64, i64)) -> Result<Option<NonZeroU64>> {
    let mut bytes = Bytes(bytes);
    if count < 2 || bytes.byte()? != TIMES_REGULAR {
        return Ok(None);
    }
    let step = bytes.varint()?;
    match i128::from(step) * (count as i128 - 1) == i128::from(last) - i128::from(first) {
        true => Ok(NonZeroU64::new(step)),
        false => Err(StoreError::corrupt("regular times don't end as their directory says")),
    }
}

/// Reads `out.len()` times that begin with `first`, all of `bytes`; they are strictly ascending.
///
/// # Errors
/// `Corrupt` for bytes that no encoder wrote.
pub fn decode_times(bytes: &[u8], first: i64, out: &mut [i64], buffers: &mut Buffers) -> Result<()> {
    let mut bytes = Bytes(bytes);
    match out {
        [] => return Ok(()),
        [only] => *only = first,
        _ => match bytes.byte()? {
            TIMES_REGULAR => {
                let step = bytes.varint()?.cast_signed();
                let mut time = first;
                for out in &mut *out {
                    *out = time;
                    time = time.wrapping_add(step);
                }
            }
            TIMES_INTEGERS => {
                integers::decode_integers(&mut bytes, out, &mut buffers.codes)?;
                out.iter_mut().for_each(|time| *time = time.wrapping_add(first));
            }
            tag => return Err(StoreError::corrupt(format!("unknown codec of times {tag}"))),
        },
    }
    let ascending = out.windows(2).fold(true, |ascending, pair| ascending & (pair[0] < pair[1]));
    match ascending {
        true => Ok(()),
        false => Err(StoreError::corrupt("times do not ascend")),
    }
}

/// Reads `out.len()` integers that [`Encoder::integers`] wrote.
///
/// # Errors
/// `Corrupt` for bytes that no encoder wrote.
pub fn decode_integers(bytes: &mut Bytes<'_>, out: &mut [i64], buffers: &mut Buffers) -> Result<()> {
    integers::decode_integers(bytes, out, &mut buffers.codes)
}

#[cfg(test)]
mod tests;
