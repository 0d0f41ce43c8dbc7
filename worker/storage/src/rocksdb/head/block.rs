//! The open block of one series: samples as they arrive, delta-coded, a few bytes each.
//!
//! # Format (in memory only)
//! The first sample is 8 + 8 raw bytes. Each later one begins with a header byte: the high nibble is
//! the number of bytes of the zigzag delta-of-delta of its time (0: none); the low nibble says how its
//! value follows: 0 the same bits as before, 1–8 that many high bytes of the XOR with the value before,
//! 9–14 that many bytes less 8 of the zigzag delta of `value × 10^scale`. A header of 0x0F is followed
//! by a new scale and no sample.

use std::ops::RangeInclusive;

/// Largest power of ten by which values are tried as integers.
const MAX_SCALE: u8 = 6;
const POWERS: [f64; MAX_SCALE as usize + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
/// The scale of a block whose values are no short decimals: not tried again.
const NO_SCALE: u8 = u8::MAX;
const SCALE_CHANGE: u8 = 0x0F;
/// Integers below this survive the way through f64.
const MAX_SCALED: f64 = 4_503_599_627_370_496.0;
/// 1.5 × 2^52: a double of this size has no bits for a fraction, so that adding and taking it away rounds
/// to the nearest integer, ties to even, without a call of the C library.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// The low n bytes of a word.
const MASKS: [u64; 9] = [
    0,
    0xFF,
    0xFFFF,
    0xFF_FFFF,
    0xFFFF_FFFF,
    0xFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF,
    0xFF_FFFF_FFFF_FFFF,
    u64::MAX,
];
/// Late samples are merged into the block when they are this many, or an eighth of it.
const LATE_MERGE: usize = 32;
/// The allocator gives small memory in multiples of this: what is asked for between two is wasted.
const STEP: usize = 16;

/// Samples of one series since the last seal.
#[derive(Debug, Default)]
pub struct OpenBlock {
    bytes: Vec<u8>,
    /// Samples that arrived behind the last one, in order of arrival; each wins over an equal time.
    late: Option<Box<Late>>,
    last_time: i64,
    last_delta: i64,
    last_value: f64,
    count: u32,
    scale: u8,
}

#[derive(Debug, Default)]
struct Late(Vec<(i64, f64)>);

impl OpenBlock {
    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Samples held, before equal times are merged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize + self.late.as_ref().map_or(0, |late| late.0.len())
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.late.as_ref().map_or(0, |late| late.0.capacity() * 16)
    }

    /// Takes a sample; one with the time of an earlier one replaces it.
    pub fn push(&mut self, time: i64, value: f64) {
        if self.count == 0 {
            self.begin(time, value);
        } else if time > self.last_time {
            self.append(time, value);
        } else if self.late.is_some() || time < self.last_time || value.to_bits() != self.last_value.to_bits()
        {
            self.push_late(time, value);
        }
    }

    /// Appends every sample to `times` and `values`, ascending and without duplicates.
    pub fn decode_into(&self, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        self.decode_within(&(i64::MIN..=i64::MAX), times, values);
    }

    /// The same of those whose times are in `range`.
    pub fn decode_within(&self, range: &RangeInclusive<i64>, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        if self.count == 0 || self.last_time < *range.start() {
            return;
        }
        let Some(late) = &self.late else { return self.decode_stream(range, times, values) };
        let (mut own_times, mut own_values) = (Vec::new(), Vec::new());
        self.decode_stream(range, &mut own_times, &mut own_values);
        let mut late: Vec<_> = late.0.iter().filter(|(time, _)| range.contains(time)).copied().collect();
        late.sort_by_key(|(time, _)| *time);
        let mut next = 0;
        for at in 0..late.len() {
            if late.get(at + 1).is_some_and(|(time, _)| *time == late[at].0) {
                continue;
            }
            let (time, value) = late[at];
            let until = next + own_times[next..].partition_point(|own| *own < time);
            times.extend_from_slice(&own_times[next..until]);
            values.extend_from_slice(&own_values[next..until]);
            times.push(time);
            values.push(value);
            next = until + usize::from(own_times.get(until) == Some(&time));
        }
        times.extend_from_slice(&own_times[next..]);
        values.extend_from_slice(&own_values[next..]);
    }

    /// Removes samples with `time < before`; returns how many there were before and are left.
    pub fn delete_before(&mut self, before: i64) -> (usize, usize) {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        self.decode_into(&mut times, &mut values);
        let kept = times.partition_point(|time| *time < before);
        if kept > 0 {
            self.rebuild(&times[kept..], &values[kept..]);
        }
        (times.len(), times.len() - kept)
    }

    fn rebuild(&mut self, times: &[i64], values: &[f64]) {
        *self = Self::default();
        for (time, value) in times.iter().zip(values) {
            self.push(*time, *value);
        }
    }

    fn push_late(&mut self, time: i64, value: f64) {
        let late = &mut self.late.get_or_insert_default().0;
        late.push((time, value));
        if late.len() >= LATE_MERGE.max(self.count as usize / 8) {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            self.decode_into(&mut times, &mut values);
            self.rebuild(&times, &values);
        }
    }

    fn begin(&mut self, time: i64, value: f64) {
        self.bytes.reserve_exact(2 * STEP);
        self.bytes.extend_from_slice(&time.to_le_bytes());
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        (self.last_time, self.last_value, self.last_delta, self.count) = (time, value, 0, 1);
    }

    fn append(&mut self, time: i64, value: f64) {
        let delta = time - self.last_time;
        let delta_of_delta = zigzag(delta - self.last_delta);
        let time_bytes = significant_bytes(delta_of_delta);
        let (value_mode, value_bytes, payload) = self.value_code(value);
        self.reserve(1 + usize::from(time_bytes) + value_bytes);
        self.bytes.push((time_bytes << 4) | value_mode);
        self.bytes.extend_from_slice(&delta_of_delta.to_le_bytes()[..usize::from(time_bytes)]);
        self.bytes.extend_from_slice(&payload.to_le_bytes()[..value_bytes]);
        (self.last_time, self.last_delta, self.last_value) = (time, delta, value);
        self.count += 1;
    }

    /// Sees to it that there is room for `more` bytes.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            // Doubling would waste a quarter of the head on average; there are millions of blocks.
            let room = needed.max(self.bytes.len() / 4 * 5).next_multiple_of(STEP);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
    }

    /// The value's mode, its number of bytes and the bytes; may write a scale change first.
    fn value_code(&mut self, value: f64) -> (u8, usize, u64) {
        let difference = value.to_bits() ^ self.last_value.to_bits();
        if difference == 0 {
            return (0, 0, 0);
        }
        let zeros = difference.trailing_zeros() / 8;
        #[allow(clippy::cast_possible_truncation, reason = "1 to 8")]
        let xor_bytes = (8 - zeros) as u8;
        let mut best = (xor_bytes, usize::from(xor_bytes), difference >> (8 * zeros));
        if self.scale == NO_SCALE {
            return best;
        }
        let mut delta = scaled_delta(self.last_value, value, self.scale);
        if delta.is_none() {
            let found = (0..=MAX_SCALE)
                .find_map(|scale| scaled_delta(self.last_value, value, scale).map(|found| (scale, found)));
            match found {
                Some((scale, found)) if usize::from(significant_bytes(found)) + 2 < best.1 => {
                    self.reserve(2);
                    self.bytes.extend_from_slice(&[SCALE_CHANGE, scale]);
                    self.scale = scale;
                    delta = Some(found);
                }
                Some(_) => {}
                None => self.scale = NO_SCALE,
            }
        }
        if let Some(delta) = delta {
            let bytes = significant_bytes(delta).max(1);
            if bytes <= 6 && usize::from(bytes) < best.1 {
                best = (8 + bytes, usize::from(bytes), delta);
            }
        }
        best
    }

    /// Appends those that arrived in order and are in `range`: up to its end, unless that is the last one.
    fn decode_stream(&self, range: &RangeInclusive<i64>, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        if self.count > 1 && self.last_time - self.last_delta < *range.start() {
            if range.contains(&self.last_time) {
                times.push(self.last_time);
                values.push(self.last_value);
            }
            return;
        }
        times.reserve(self.count as usize);
        values.reserve(self.count as usize);
        let mut reader = Reader { bytes: &self.bytes, at: 0 };
        let mut time = reader.take(8).cast_signed();
        let mut value = f64::from_bits(reader.take(8));
        let (mut delta, mut scale) = (0_i64, 0_u8);
        // `value` as an integer at `scale`, while that is known: a run of decimals is then a run of
        // integer additions, and no division waits for another.
        let mut integer = None;
        while time <= *range.end() {
            if time >= *range.start() {
                times.push(time);
                values.push(value);
            }
            let mut header = SCALE_CHANGE;
            while header == SCALE_CHANGE {
                let Some(next) = self.bytes.get(reader.at) else { return };
                (header, reader.at) = (*next, reader.at + 1);
                if header == SCALE_CHANGE {
                    (scale, integer) = (self.bytes[reader.at], None);
                    reader.at += 1;
                }
            }
            delta += unzigzag(reader.take(usize::from(header >> 4)));
            time += delta;
            let mode = header & 0x0F;
            if mode > 8 {
                let step = unzigzag(reader.take(usize::from(mode - 8)));
                let next = integer.or_else(|| scaled(value, scale)).unwrap_or(0) + step;
                value = unscaled(next, scale);
                integer = Some(next);
            } else if mode > 0 {
                let difference = reader.take(usize::from(mode)) << (8 * (8 - u32::from(mode)));
                value = f64::from_bits(value.to_bits() ^ difference);
                integer = None;
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> u64 {
        let mut word = [0; 8];
        if let Some(eight) = self.bytes.get(self.at..self.at + 8) {
            word.copy_from_slice(eight);
            self.at += count;
            return u64::from_le_bytes(word) & MASKS[count];
        }
        word[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        u64::from_le_bytes(word)
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[allow(clippy::cast_possible_truncation, reason = "at most 8")]
fn significant_bytes(value: u64) -> u8 {
    (64 - value.leading_zeros()).div_ceil(8) as u8
}

fn scaled_delta(before: f64, value: f64, scale: u8) -> Option<u64> {
    Some(zigzag(scaled(value, scale)? - scaled(before, scale)?))
}

/// `value × 10^scale` as an integer, when the way back gives the same bits.
#[allow(clippy::cast_possible_truncation, reason = "below 2^52")]
fn scaled(value: f64, scale: u8) -> Option<i64> {
    let product = value * POWERS[usize::from(scale)];
    if product.abs() < MAX_SCALED {
        let candidate = ((product + ROUNDER) - ROUNDER) as i64;
        (unscaled(candidate, scale).to_bits() == value.to_bits()).then_some(candidate)
    } else {
        None
    }
}

#[allow(clippy::cast_precision_loss, reason = "below 2^52, or checked by the way back")]
fn unscaled(value: i64, scale: u8) -> f64 {
    value as f64 / POWERS[usize::from(scale)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn decoded(block: &OpenBlock) -> Vec<(i64, u64)> {
        decoded_within(block, &(i64::MIN..=i64::MAX))
    }

    fn decoded_within(block: &OpenBlock, range: &RangeInclusive<i64>) -> Vec<(i64, u64)> {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        block.decode_within(range, &mut times, &mut values);
        times.into_iter().zip(values.into_iter().map(f64::to_bits)).collect()
    }

    fn value(random: &mut fastrand::Rng, shape: u32, before: f64) -> f64 {
        match shape {
            0 => f64::from(random.i32(-1000..1000)),
            1 => ((before + random.f64() - 0.5) * 100.0).round() / 100.0,
            2 => before + f64::from(random.u32(0..500)),
            3 => random.f64(),
            4 => [0.0, -0.0, f64::MIN_POSITIVE / 3.0, 1e308, -1e-300, 0.1, 1e15][random.usize(0..7)],
            _ => before,
        }
    }

    #[test]
    fn what_goes_in_comes_out_bit_by_bit_in_any_order_of_arrival() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut block, mut model) = (OpenBlock::default(), BTreeMap::new());
            let (mut time, mut last) = (1_700_000_000_000_i64, 0.0);
            let disorder = random.u32(0..4);
            let mixed = random.bool();
            let shape = random.u32(0..6);
            for _ in 0..random.usize(1..600) {
                time += if random.u32(0..10) == 0 { random.i64(0..100_000) } else { 10_000 };
                let late = disorder > 0 && random.u32(0..10) < disorder;
                let at = if late { time - random.i64(0..50) * 10_000 } else { time };
                last = value(&mut random, if mixed { seed as u32 % 6 } else { shape }, last);
                block.push(at, last);
                model.insert(at, last.to_bits());
            }
            let expected: Vec<(i64, u64)> = model.clone().into_iter().collect();
            assert_eq!(decoded(&block), expected, "seed {seed}");
            let before = expected[expected.len() / 2].0;
            block.delete_before(before);
            let kept: Vec<(i64, u64)> = model.split_off(&before).into_iter().collect();
            assert_eq!(decoded(&block), kept, "seed {seed} after the delete");
        }
    }

    #[test]
    fn any_part_of_it_is_what_lies_there_of_the_whole() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut block = OpenBlock::default();
            let late = random.u32(0..3) * 4;
            let (mut time, mut last) = (0, 0.0);
            for _ in 0..random.usize(1..40) {
                time += random.i64(1..5);
                last = value(&mut random, seed as u32 % 6, last);
                block.push(if random.u32(0..20) < late { random.i64(0..=time) } else { time }, last);
            }
            let whole = decoded(&block);
            for start in -1..=time + 1 {
                for end in start..=time + 1 {
                    let part = whole.iter().filter(|(time, _)| (start..=end).contains(time)).copied();
                    let found = decoded_within(&block, &(start..=end));
                    assert_eq!(found, part.collect::<Vec<_>>(), "seed {seed}, {start} to {end}");
                }
            }
        }
    }

    #[test]
    fn a_gauge_of_two_decimals_takes_three_bytes_and_a_repeated_sample_none() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut block, mut level) = (OpenBlock::default(), 50.0);
        for at in 0..1_000 {
            level = value(&mut random, 1, level);
            block.push(at * 10_000, level);
            block.push(at * 10_000, level);
        }
        assert_eq!(block.count(), 1_000);
        assert!(block.bytes.len() < 2_600, "{}", block.bytes.len());
    }

    #[test]
    fn a_few_samples_take_a_few_steps_of_memory() {
        let mut block = OpenBlock::default();
        for at in 0..8 {
            block.push(1_700_000_000_000 + at * 10_000, (at % 3) as f64);
        }
        assert_eq!((block.count(), block.heap_bytes()), (8, 2 * STEP));
        (8..1_000).for_each(|at| block.push(1_700_000_000_000 + at * 10_000, (at % 3) as f64));
        assert!(block.heap_bytes() <= block.bytes.len() / 4 * 5 + STEP);
    }

    #[test]
    fn a_backfill_in_reverse_is_merged_as_it_grows() {
        let mut block = OpenBlock::default();
        for at in (0..20_000).rev() {
            block.push(at, 1.0);
        }
        assert!(block.late.as_ref().map_or(0, |late| late.0.len()) <= 2_500);
        assert_eq!(decoded(&block).len(), 20_000);
    }
}
