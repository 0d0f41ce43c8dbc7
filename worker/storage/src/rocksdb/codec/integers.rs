//! A column of integers in as few bits as cheap statistics find.
//!
//! # Format
//! A byte of flags, then: minimum (signed); divisor (with [`DIVIDED`]); a base (signed); a head for each
//! order of differences (signed); the width, one byte; exceptions (with [`PATCHED`]: their number, the
//! gaps between their places, their codes); the bytes of quotients (with [`UNARY`]); the codes' low
//! bits; the quotients.
//!
//! The values less their minimum, by their greatest common divisor, are differenced 0 to 2 times. What
//! is left, less the base (folded with [`FOLDED`], so that both signs are small), are the codes. A code is
//! `width` bits; with [`UNARY`] it is `width` low bits and the rest in unary (Golomb–Rice). Codes too
//! large for that are exceptions: 0 in the stream, the code aside.

use crate::store::{Result, StoreError};

use super::bytes::{Bytes, put_signed, put_varint, unzigzag, zigzag};
use super::pack::{add_unary, bits, pack, pack_unary, put_packed, take_packed, unpack};

const ORDER: u8 = 0b11;
const FOLDED: u8 = 0b100;
const UNARY: u8 = 0b1000;
const DIVIDED: u8 = 0b1_0000;
const PATCHED: u8 = 0b10_0000;
const KNOWN: u8 = 0b11_1111;

/// Quotients from here on are exceptions: one must not fill the stream with zeros.
const MAX_QUOTIENT: u64 = 16;
/// Unary quotients cost some speed, so they must save a thirty-second.
const UNARY_SHARE: u64 = 32;

/// Values that a median is taken of.
const SAMPLE: usize = 61;

/// Codes by how many bits they need.
type Histogram = [u32; 65];

/// A way to write codes, and the bits that it takes.
#[derive(Debug, Clone, Copy)]
struct Coding {
    cost: u64,
    width: u32,
    unary: bool,
}

impl Coding {
    /// Whether `code` has no place in the stream.
    fn excludes(&self, code: u64) -> bool {
        match self.unary {
            true => code >> self.width >= MAX_QUOTIENT,
            false => bits(code) > self.width,
        }
    }
}

/// Buffers of an encoder, kept from block to block.
#[derive(Debug, Default)]
pub struct IntegerEncoder {
    residuals: Vec<i64>,
    codes: Vec<u64>,
    places: Vec<u64>,
    patches: Vec<u64>,
}

/// What differencing prefers, for encoders of another kind.
#[derive(Debug, Clone, Copy)]
pub struct Normal {
    /// Subtracted from every value.
    pub minimum: i64,
    /// Divides every value then.
    pub divisor: u64,
    /// Orders of differences after which the least is left: 0 to 2.
    pub order: u8,
}

impl IntegerEncoder {
    /// Appends `values` to `out`; the reader must know how many there are. `values` becomes scratch.
    pub fn encode(&mut self, values: &mut [i64], out: &mut Vec<u8>) {
        if values.is_empty() {
            return;
        }
        let normal = normalise(values);
        self.encode_normal(values, normal, out);
    }

    /// Appends values that [`normalise`] has changed.
    pub fn encode_normal(&mut self, values: &[i64], normal: Normal, out: &mut Vec<u8>) {
        let Normal { minimum, divisor, order } = normal;
        let mut heads = [0; 2];
        self.residuals.clear();
        self.residuals.extend_from_slice(values);
        for head in &mut heads[..usize::from(order)] {
            *head = self.residuals.first().copied().unwrap_or(0);
            difference(&mut self.residuals);
        }
        let (base, folded, coding) = self.choose(order);
        self.patch(coding);
        let divided = if divisor > 1 { DIVIDED } else { 0 };
        let folded = if folded { FOLDED } else { 0 };
        let unary = if coding.unary { UNARY } else { 0 };
        let patched = if self.places.is_empty() { 0 } else { PATCHED };
        out.push(order | folded | unary | divided | patched);
        put_signed(out, minimum);
        if divisor > 1 {
            put_varint(out, divisor);
        }
        put_signed(out, base);
        for head in &heads[..usize::from(order)] {
            put_signed(out, *head);
        }
        out.push(coding.width as u8);
        if !self.places.is_empty() {
            put_varint(out, self.places.len() as u64);
            put_packed(&self.places, out);
            put_packed(&self.patches, out);
        }
        self.put_codes(coding, out);
    }

    fn put_codes(&self, coding: Coding, out: &mut Vec<u8>) {
        let codes = self.codes.iter().copied();
        if !coding.unary {
            return pack(codes, coding.width, out);
        }
        let quotients: u64 = codes.clone().map(|code| (code >> coding.width) + 1).sum();
        put_varint(out, quotients.div_ceil(8));
        pack(codes.clone(), coding.width, out);
        pack_unary(codes.map(|code| code >> coding.width), out);
    }

    /// Fills `codes` in the cheaper of two ways: above the least residual, or around the middle one.
    fn choose(&mut self, order: u8) -> (i64, bool, Coding) {
        let least = self.residuals.iter().copied().min().unwrap_or(0);
        let centre = if order == 2 { 0 } else { middle(self.residuals.len(), |at| self.residuals[at]) };
        let (mut above, mut around) = ([0; 65], [0; 65]);
        for residual in &self.residuals {
            above[bits(residual.wrapping_sub(least).cast_unsigned()) as usize] += 1;
            around[bits(zigzag(residual.wrapping_sub(centre))) as usize] += 1;
        }
        let (above, around) = (cheapest(&above), cheapest(&around));
        let folded = around.cost < above.cost;
        let base = if folded { centre } else { least };
        self.codes.clear();
        let offsets = self.residuals.iter().map(|residual| residual.wrapping_sub(base));
        match folded {
            true => self.codes.extend(offsets.map(zigzag)),
            false => self.codes.extend(offsets.map(i64::cast_unsigned)),
        }
        (base, folded, if folded { around } else { above })
    }

    /// Takes the codes that have no place in the stream aside.
    fn patch(&mut self, coding: Coding) {
        self.places.clear();
        self.patches.clear();
        let mut next = 0;
        for (at, code) in (0_u64..).zip(&mut self.codes) {
            if coding.excludes(*code) {
                self.places.push(at - next);
                self.patches.push(*code);
                next = at + 1;
                *code = 0;
            }
        }
    }
}

/// Subtracts the minimum, divides by the greatest common divisor, and finds the best order.
pub fn normalise(values: &mut [i64]) -> Normal {
    let minimum = values.iter().copied().min().unwrap_or(0);
    let mut divisor = 0;
    for value in values.iter() {
        divisor = greatest_common_divisor(divisor, value.wrapping_sub(minimum).cast_unsigned());
        if divisor == 1 {
            break;
        }
    }
    let divisor = divisor.max(1);
    match divisor {
        1 => values.iter_mut().for_each(|value| *value = value.wrapping_sub(minimum)),
        _ => values.iter_mut().for_each(|value| {
            *value = (value.wrapping_sub(minimum).cast_unsigned() / divisor).cast_signed();
        }),
    }
    Normal { minimum, divisor, order: best_order(values) }
}

fn greatest_common_divisor(mut one: u64, mut other: u64) -> u64 {
    if one == 0 || other == 0 {
        return one | other;
    }
    // The usual case: the divisor so far holds.
    if other.is_multiple_of(one) {
        return one;
    }
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// After how many differences the values need the least bits, roughly.
fn best_order(values: &[i64]) -> u8 {
    if values.len() < 3 {
        return 0;
    }
    let step = |at: usize| values[at + 1].wrapping_sub(values[at]);
    let centre = middle(values.len(), |at| values[at]);
    let slope = middle(values.len() - 1, step);
    let mut costs = [0_u32; 3];
    costs[0] = bits(values[0].wrapping_sub(centre).unsigned_abs());
    let mut before = slope;
    for pair in values.windows(2) {
        let delta = pair[1].wrapping_sub(pair[0]);
        costs[0] += bits(pair[1].wrapping_sub(centre).unsigned_abs());
        costs[1] += bits(delta.wrapping_sub(slope).unsigned_abs());
        costs[2] += bits(delta.wrapping_sub(before).unsigned_abs());
        before = delta;
    }
    // An equal cost goes to fewer differences.
    let best = (0..3_u8).min_by_key(|order| costs[usize::from(*order)]);
    best.unwrap_or(0)
}

/// The median of up to [`SAMPLE`] of `count` values: unlike a mean, outliers don't move it.
fn middle(count: usize, value: impl Fn(usize) -> i64) -> i64 {
    let mut sample = [0; SAMPLE];
    let taken = count.min(SAMPLE);
    for (at, place) in sample[..taken].iter_mut().enumerate() {
        *place = value(at * count / taken);
    }
    match taken {
        0 => 0,
        _ => *sample[..taken].select_nth_unstable(taken / 2).1,
    }
}

/// Replaces values by the differences between neighbours: one fewer.
fn difference(values: &mut Vec<i64>) {
    for at in 1..values.len() {
        values[at - 1] = values[at].wrapping_sub(values[at - 1]);
    }
    values.pop();
}

/// The cheapest coding for codes of these lengths.
fn cheapest(histogram: &Histogram) -> Coding {
    let widest = histogram.iter().rposition(|count| *count > 0).unwrap_or(0);
    let count: u32 = histogram.iter().sum();
    let packed = cheapest_packed(histogram, widest, count);
    let unary = (0..widest as u32).map(|width| unary_cost(histogram, widest, count, width));
    match unary.min_by_key(|coding| coding.cost) {
        Some(unary) if unary.cost + packed.cost / UNARY_SHARE < packed.cost => unary,
        _ => packed,
    }
}

fn cheapest_packed(histogram: &Histogram, widest: usize, count: u32) -> Coding {
    let mut best = Coding { cost: u64::from(count) * widest as u64, width: widest as u32, unary: false };
    let mut exceptions = 0;
    for width in (0..widest).rev() {
        exceptions += histogram[width + 1];
        let cost = u64::from(count) * width as u64 + exceptions_cost(exceptions, count, widest);
        if cost < best.cost {
            best = Coding { cost, width: width as u32, unary: false };
        }
    }
    best
}

/// Bits of `exceptions` among `count`: a gap of about log2 of the largest, the code, and the frame.
fn exceptions_cost(exceptions: u32, count: u32, widest: usize) -> u64 {
    if exceptions == 0 {
        return 0;
    }
    let gap = bits(u64::from(count / exceptions)) + 2;
    u64::from(exceptions) * (u64::from(gap) + widest as u64) + 32
}

fn unary_cost(histogram: &Histogram, widest: usize, count: u32, width: u32) -> Coding {
    let mut cost = u64::from(count) * (u64::from(width) + 1) + 8;
    let mut exceptions = 0;
    for (length, codes) in histogram.iter().enumerate().take(widest + 1).skip(width as usize + 1) {
        let over = length - width as usize;
        // Quotients of these codes lie in [2^(over-1), 2^over).
        match 1 << (over - 1) < MAX_QUOTIENT {
            true => cost += u64::from(*codes) * ((3 << (over - 1)) - 1) / 2,
            false => exceptions += codes,
        }
        if over > 5 && exceptions > count / 4 {
            return Coding { cost: u64::MAX / 2, width, unary: true };
        }
    }
    cost += exceptions_cost(exceptions, count, widest);
    Coding { cost, width, unary: true }
}

/// Reads `out.len()` integers that [`IntegerEncoder::encode`] wrote.
///
/// # Errors
/// `Corrupt` for bytes that it can't have written.
pub fn decode_integers(bytes: &mut Bytes<'_>, out: &mut [i64], codes: &mut Vec<u64>) -> Result<()> {
    decode_first_integers(bytes, out.len(), out, codes)
}

/// Reads the first `out.len()` of `count` integers.
///
/// # Errors
/// As of [`decode_integers`].
pub fn decode_first_integers(
    bytes: &mut Bytes<'_>,
    count: usize,
    out: &mut [i64],
    codes: &mut Vec<u64>,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let flags = bytes.byte()?;
    let order = usize::from(flags & ORDER);
    if flags & !KNOWN != 0 || order > 2 || order > count {
        return Err(StoreError::corrupt(format!("unknown coding of integers {flags}")));
    }
    let minimum = bytes.signed()?;
    let divisor = if flags & DIVIDED != 0 { bytes.varint()? } else { 1 }.cast_signed();
    let base = bytes.signed()?;
    let mut heads = [0; 2];
    for head in &mut heads[..order] {
        *head = bytes.signed()?;
    }
    let width = u32::from(bytes.byte()?);
    // What a shorter block leaves of a longer one is overwritten.
    codes.resize(out.len().saturating_sub(order), 0);
    decode_codes(bytes, flags, width, count - order, codes)?;
    let scale = (minimum, divisor);
    match flags & FOLDED != 0 {
        true => integrate(codes, |code| base.wrapping_add(unzigzag(code)), order, heads, scale, out),
        false => integrate(codes, |code| base.wrapping_add(code.cast_signed()), order, heads, scale, out),
    }
    Ok(())
}

/// Reads the first `codes.len()` of `total` codes.
fn decode_codes(bytes: &mut Bytes<'_>, flags: u8, width: u32, total: usize, codes: &mut [u64]) -> Result<()> {
    let count = if flags & PATCHED != 0 { bytes.count(total)? } else { 0 };
    let mut aside = vec![0; 2 * count];
    let (places, patches) = aside.split_at_mut(count);
    if count > 0 {
        take_packed(bytes, places)?;
        take_packed(bytes, patches)?;
    }
    if flags & UNARY != 0 {
        let quotients = bytes.count(bytes.0.len())?;
        unpack(bytes, width, total, codes)?;
        if width > 63 || !add_unary(bytes.take(quotients)?, width, codes) {
            return Err(StoreError::corrupt("too few quotients"));
        }
    } else {
        unpack(bytes, width, total, codes)?;
    }
    let mut next = 0_usize;
    for (gap, patch) in places.iter().zip(patches) {
        let at = usize::try_from(*gap).unwrap_or(usize::MAX).saturating_add(next);
        if at >= total {
            return Err(StoreError::corrupt("an exception lies outside its block"));
        }
        if let Some(code) = codes.get_mut(at) {
            *code = *patch;
        }
        next = at + 1;
    }
    Ok(())
}

/// Undoes the differences, the division and the shift; `residual` undoes the folding.
#[inline(always)]
fn integrate(
    codes: &[u64],
    residual: impl Fn(u64) -> i64,
    order: usize,
    heads: [i64; 2],
    (minimum, divisor): (i64, i64),
    out: &mut [i64],
) {
    // The sums run over values already scaled, so that the usual divisor 1 is not another pass.
    let scaled = |value: i64| value.wrapping_mul(divisor);
    match order {
        0 => {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = minimum.wrapping_add(scaled(residual(*code)));
            }
        }
        1 => {
            let [first, rest @ ..] = out else { return };
            let mut sum = minimum.wrapping_add(scaled(heads[0]));
            *first = sum;
            for (out, code) in rest.iter_mut().zip(codes) {
                sum = sum.wrapping_add(scaled(residual(*code)));
                *out = sum;
            }
        }
        _ => {
            let [first, rest @ ..] = out else { return };
            let mut sum = minimum.wrapping_add(scaled(heads[0]));
            let mut delta = scaled(heads[1]);
            *first = sum;
            let [second, rest @ ..] = rest else { return };
            sum = sum.wrapping_add(delta);
            *second = sum;
            for (out, code) in rest.iter_mut().zip(codes) {
                delta = delta.wrapping_add(scaled(residual(*code)));
                sum = sum.wrapping_add(delta);
                *out = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut out = Vec::new();
        IntegerEncoder::default().encode(&mut values.to_vec(), &mut out);
        let mut back = vec![0; values.len()];
        let mut bytes = Bytes(&out);
        decode_integers(&mut bytes, &mut back, &mut Vec::new()).unwrap();
        assert_eq!(back, values);
        assert!(bytes.0.is_empty());
        let mut codes = vec![7; 3];
        for wanted in [0, 1, 2, 3, 64, 65, values.len() / 2, values.len().saturating_sub(1)] {
            let wanted = wanted.min(values.len());
            let mut first = vec![0; wanted];
            decode_first_integers(&mut Bytes(&out), values.len(), &mut first, &mut codes).unwrap();
            assert_eq!(first, values[..wanted]);
        }
        out.len()
    }

    #[test]
    fn all_shapes_come_back() {
        let mut random = fastrand::Rng::with_seed(3);
        for count in [0, 1, 2, 3, 4, 10, 65, 500, 1_024] {
            for shape in 0..9 {
                let most = 1 << random.u32(1..40);
                let mut level = 0_i64;
                let values: Vec<i64> = (0..count)
                    .map(|at| {
                        level = level.wrapping_add(random.i64(-4..5));
                        match shape {
                            0 => 7,
                            1 => at * 10_000,
                            2 => level,
                            3 => random.i64(..),
                            4 => at * at * 3 - 5,
                            5 => level * 1_000 + 17,
                            6 if at % 50 == 0 => i64::MIN,
                            7 if at % 9 == 0 => i64::MAX - level,
                            8 => random.i64(0..most),
                            _ => level,
                        }
                    })
                    .collect();
                round_trip(&values);
            }
        }
    }

    #[test]
    fn regular_and_constant_columns_take_a_few_bytes() {
        assert!(round_trip(&[1_700_000_000_000; 1_000]) <= 10);
        let regular: Vec<i64> = (0..1_000).map(|at| at * 10_000).collect();
        assert!(round_trip(&regular) <= 9);
        let quadratic: Vec<i64> = (0..1_000).map(|at| at * at).collect();
        assert!(round_trip(&quadratic) <= 9);
    }

    #[test]
    fn a_few_outliers_and_gaps_cost_little() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut values: Vec<i64> = (0..1_000).map(|_| random.i64(0..4)).collect();
        values[500] = 1 << 40;
        assert!(round_trip(&values) <= 280, "{}", round_trip(&values));
        let mut time = 0;
        let gaps: Vec<i64> = (0..1_000)
            .map(|_| {
                time += if random.u32(0..50) == 0 { 20_000 } else { 10_000 };
                time
            })
            .collect();
        assert!(round_trip(&gaps) <= 40, "{}", round_trip(&gaps));
    }

    #[test]
    fn small_steps_take_little_more_than_their_entropy() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut level = 0.0;
        let walk: Vec<i64> = (0..1_000)
            .map(|_| {
                level += (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                level as i64
            })
            .collect();
        assert!(round_trip(&walk) <= 310, "{}", round_trip(&walk));
    }

    #[test]
    fn bytes_that_nobody_wrote_are_refused_or_read_but_never_worse() {
        let mut random = fastrand::Rng::with_seed(6);
        let mut valid = Vec::new();
        let mut values: Vec<i64> = (0..300).map(|at| at * 3 + random.i64(0..1 << (at % 30))).collect();
        IntegerEncoder::default().encode(&mut values, &mut valid);
        let (mut out, mut codes) = (vec![0; 300], Vec::new());
        for round in 0..50_000 {
            let mut bytes = match round % 2 {
                0 => valid.clone(),
                _ => (0..random.usize(0..80)).map(|_| random.u8(..)).collect(),
            };
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
            let _either = decode_integers(&mut Bytes(&bytes), &mut out, &mut codes);
        }
    }
}
