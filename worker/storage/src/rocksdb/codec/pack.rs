//! Unsigned integers in a fixed number of bits each, and in unary.

use crate::store::Result;

use super::bytes::Bytes;

/// Values unpacked at a time: a chunk of any width is a whole number of words.
const CHUNK: usize = 64;

/// Bits that `value` needs.
#[must_use]
pub fn bits(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Bytes that `count` values of `width` bits take.
#[must_use]
pub fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends the low `width` (0–64) bits of each value, the low bits first, without gaps.
pub fn pack(values: impl IntoIterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let (mut word, mut filled) = (0_u64, 0_u32);
    for value in values {
        let value = value & mask;
        word |= value << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            // What did not fit: the upper `filled` bits of the value.
            word = value.checked_shr(width - filled).unwrap_or(0);
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Reads the first `out.len()` of `count` values of `width` bits, all of whose bytes are taken.
///
/// # Errors
/// `Corrupt` when there are not enough bytes or `width` is over 64.
pub fn unpack(bytes: &mut Bytes<'_>, width: u32, count: usize, out: &mut [u64]) -> Result<()> {
    let Some(unpack) = UNPACK.get(width as usize) else {
        return Err(crate::store::StoreError::corrupt(format!("packed data of {width} bits a value")));
    };
    let packed = bytes.take(packed_bytes(count, width))?;
    unpack(&packed[..packed_bytes(out.len().min(count), width)], out);
    Ok(())
}

/// Values in as few bits each as the largest needs: their number is known, the width goes in front.
pub fn put_packed(values: &[u64], out: &mut Vec<u8>) {
    let width = bits(values.iter().fold(0, |all, value| all | value));
    out.push(width as u8);
    pack(values.iter().copied(), width, out);
}

/// What [`put_packed`] wrote.
///
/// # Errors
/// As of [`unpack`].
pub fn take_packed(bytes: &mut Bytes<'_>, out: &mut [u64]) -> Result<()> {
    let width = u32::from(bytes.byte()?);
    unpack(bytes, width, out.len(), out)
}

/// Appends each value as that many zero bits and a one.
pub fn pack_unary(values: impl IntoIterator<Item = u64>, out: &mut Vec<u8>) {
    let (mut word, mut filled) = (0_u64, 0_u64);
    for value in values {
        filled += value;
        while filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            word = 0;
            filled -= 64;
        }
        word |= 1 << filled;
        filled += 1;
        if filled == 64 {
            out.extend_from_slice(&word.to_le_bytes());
            (word, filled) = (0, 0);
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Adds to each of `out` the next unary value of `bytes`, shifted by `shift` (below 64); whether there were enough.
pub fn add_unary(bytes: &[u8], shift: u32, out: &mut [u64]) -> bool {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let (mut at, mut start, mut expected) = (0, 0_u64, 0_u64);
    for word in words.iter().chain([&last]) {
        let mut word = u64::from_le_bytes(*word);
        let Some(out) = out.get_mut(at..) else { break };
        at += word.count_ones() as usize;
        for value in out {
            if word == 0 {
                break;
            }
            let place = start + u64::from(word.trailing_zeros());
            *value += (place - expected) << shift;
            expected = place + 1;
            word &= word - 1;
        }
        start += 64;
    }
    at >= out.len()
}

/// Measured: with the width a constant and the loop written out, a value costs about one cycle, a
/// third of a loop over variable widths.
fn unpack_width<const WIDTH: usize>(packed: &[u8], out: &mut [u64]) {
    let (chunks, rest) = out.as_chunks_mut::<CHUNK>();
    let whole = 8 * WIDTH;
    for (chunk, packed) in chunks.iter_mut().zip(packed.chunks_exact(whole)) {
        unpack_chunk::<WIDTH>(packed, chunk);
    }
    if !rest.is_empty() {
        let tail = &packed[chunks.len() * whole..];
        let mut padded = [0; 8 * 64];
        padded[..tail.len()].copy_from_slice(tail);
        let mut chunk = [0; CHUNK];
        unpack_chunk::<WIDTH>(&padded[..whole], &mut chunk);
        rest.copy_from_slice(&chunk[..rest.len()]);
    }
}

fn unpack_chunk<const WIDTH: usize>(packed: &[u8], out: &mut [u64; CHUNK]) {
    let mut words = [0_u64; WIDTH];
    for (word, bytes) in words.iter_mut().zip(packed.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let mask = u64::MAX >> (64 - WIDTH);
    macro_rules! values {
        ($($at:literal)*) => {$(
            let (word, shift) = ($at * WIDTH / 64, $at * WIDTH % 64);
            let low = words[word] >> shift;
            out[$at] = match shift + WIDTH > 64 {
                true => low | words[(word + 1) % WIDTH] << ((64 - shift) % 64),
                false => low,
            } & mask;
        )*};
    }
    values!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    values!(32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
}

fn unpack_nothing(_packed: &[u8], out: &mut [u64]) {
    out.fill(0);
}

macro_rules! table {
    ($($width:literal)*) => { [unpack_nothing, $(unpack_width::<$width>),*] };
}

type Unpack = fn(&[u8], &mut [u64]);

/// By width.
const UNPACK: [Unpack; 65] = table!(
    1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
    33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_length_comes_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for width in 0..=64_u32 {
            for count in [0, 1, 2, 7, 63, 64, 65, 128, 200, 1_000] {
                let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
                let values: Vec<u64> = (0..count).map(|_| random.u64(..) & mask).collect();
                let mut out = Vec::new();
                pack(values.iter().copied(), width, &mut out);
                assert_eq!(out.len(), packed_bytes(count, width), "{width} {count}");
                let mut back = vec![7; count];
                unpack(&mut Bytes(&out), width, count, &mut back).unwrap();
                assert_eq!(back, values, "{width} {count}");
                for wanted in [0, 1, count / 3, count.saturating_sub(1)].map(|wanted| wanted.min(count)) {
                    let (mut bytes, mut first) = (Bytes(&out), vec![7; wanted]);
                    unpack(&mut bytes, width, count, &mut first).unwrap();
                    assert_eq!(first, values[..wanted], "{width} {wanted} of {count}");
                    assert!(bytes.0.is_empty());
                }
                if !out.is_empty() {
                    assert!(unpack(&mut Bytes(&out[1..]), width, count, &mut back).is_err());
                }
            }
        }
        assert!(unpack(&mut Bytes(&[0; 100]), 65, 1, &mut [0]).is_err());
    }

    #[test]
    fn unary_comes_back_with_its_low_bits() {
        let mut random = fastrand::Rng::with_seed(2);
        for most in [0, 1, 3, 20, 300] {
            for count in [0, 1, 5, 64, 1_000] {
                let values: Vec<u64> = (0..count).map(|_| random.u64(0..=most)).collect();
                let mut out = Vec::new();
                pack_unary(values.iter().copied(), &mut out);
                let mut back = vec![1; count];
                assert!(add_unary(&out, 3, &mut back));
                assert_eq!(back, values.iter().map(|value| (value << 3) + 1).collect::<Vec<_>>());
                assert!(count == 0 || !add_unary(&out[..out.len() - 1], 3, &mut back));
            }
        }
    }
}
