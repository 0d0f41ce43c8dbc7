//! Values as integers × 10^−scale, where that gives back the same bits.

/// Largest scale: beyond it a value has more digits than f64 keeps.
pub const MAX_SCALE: u8 = 15;
/// Powers of ten, exact in f64.
const POWERS: [f64; MAX_SCALE as usize + 1] =
    [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
/// 1.5 × 2^52: adding it leaves an integer below 2^51 in the low bits of the sum, rounded to even. Unlike
/// `round` and casts, that is two instructions on every processor, and vectors of them.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// Integers of this size and above don't survive [`SHIFT`].
const LIMIT: f64 = 2_251_799_813_685_248.0;
/// Bits of an exception: the value and its place.
const EXCEPTION_BITS: usize = 74;
/// A larger scale by one makes each integer longer by log2(10) bits.
const BITS_PER_SCALE: f64 = 3.33;
/// With more exceptions than one in this many values are no decimals.
const EXCEPTIONS_SHARE: usize = 6;
/// Values looked at to find the scale before all are tried.
const SAMPLE: usize = 16;

/// `10^scale`; scales over [`MAX_SCALE`] have none.
#[must_use]
pub fn power(scale: u8) -> Option<f64> {
    POWERS.get(usize::from(scale)).copied()
}

/// `value × power` rounded, and whether dividing it by `power` gives the same bits.
#[inline]
fn scaled(value: f64, power: f64) -> (i64, bool) {
    let product = value * power;
    let shifted = product + SHIFT;
    let rounded = shifted - SHIFT;
    let exact = (rounded / power).to_bits() == value.to_bits() && product.abs() < LIMIT;
    (shifted.to_bits().wrapping_sub(SHIFT.to_bits()).cast_signed(), exact)
}

/// The value of `integer × 10^−scale`, `power` being 10^scale.
#[inline]
#[must_use]
pub fn unscaled(integer: i64, power: f64) -> f64 {
    // As exact as a cast for integers below 2^51, and it has a vector form on every processor.
    (f64::from_bits(SHIFT.to_bits().wrapping_add(integer.cast_unsigned())) - SHIFT) / power
}

/// The multiple of 10^−scale that `value` is but for rounding errors.
#[must_use]
pub fn snapped(value: f64, scale: u8) -> Option<f64> {
    let power = power(scale)?;
    let product = value * power;
    let nearest = ((product + SHIFT) - SHIFT) / power;
    (product.abs() < LIMIT && (nearest - value).abs() <= 1e-12 * value.abs()).then_some(nearest)
}

/// The smallest scale above `from` at which `value` is a decimal.
fn scale_of(value: f64, from: u8) -> Option<u8> {
    (from..=MAX_SCALE).find(|scale| scaled(value, POWERS[usize::from(*scale)]).1)
}

/// A scale for `values`; `integers` becomes them at that scale (where `exceptions`, ascending, don't
/// fit, their neighbour). `None` when they are no decimals.
pub fn find(values: &[f64], integers: &mut Vec<i64>, exceptions: &mut Vec<u32>) -> Option<u8> {
    let mut scale = sampled_scale(values)?;
    // Each round raises the scale, so there are few.
    loop {
        scale_all(values, POWERS[usize::from(scale)], integers, exceptions);
        match better_scale(values, exceptions, scale) {
            Some(better) => scale = better,
            None => break,
        }
    }
    if exceptions.len() > values.len() / EXCEPTIONS_SHARE {
        return None;
    }
    for at in exceptions.iter().map(|at| *at as usize) {
        integers[at] = if at > 0 { integers[at - 1] } else { 0 };
    }
    if let Some(second) = integers.get(1).copied().filter(|_| exceptions.first() == Some(&0)) {
        integers[0] = if exceptions.get(1) == Some(&1) { 0 } else { second };
    }
    Some(scale)
}

fn sampled_scale(values: &[f64]) -> Option<u8> {
    let taken = values.len().min(SAMPLE);
    let (mut scale, mut failed) = (0, 0);
    for at in 0..taken {
        match scale_of(values[at * values.len() / taken], scale) {
            Some(found) => scale = found,
            None => failed += 1,
        }
    }
    (failed * 2 <= taken).then_some(scale)
}

fn scale_all(values: &[f64], power: f64, integers: &mut Vec<i64>, exceptions: &mut Vec<u32>) {
    integers.clear();
    exceptions.clear();
    integers.resize(values.len(), 0);
    for ((first, values), integers) in
        (0_u32..).step_by(64).zip(values.chunks(64)).zip(integers.chunks_mut(64))
    {
        let mut all = true;
        for (value, integer) in values.iter().zip(&mut *integers) {
            let (found, exact) = scaled(*value, power);
            *integer = found;
            all &= exact;
        }
        if !all {
            let failing = values.iter().map(|value| !scaled(*value, power).1);
            exceptions.extend((first..).zip(failing).filter(|(_, failing)| *failing).map(|(at, _)| at));
        }
    }
}

/// A larger scale whose longer integers cost less than the exceptions that it makes fit.
fn better_scale(values: &[f64], exceptions: &[u32], scale: u8) -> Option<u8> {
    let mut needing = [0_usize; MAX_SCALE as usize + 1];
    for at in exceptions {
        if let Some(found) = scale_of(values[*at as usize], scale + 1) {
            needing[usize::from(found)] += 1;
        }
    }
    let mut fitting = 0;
    let mut best = (0.0, None);
    for larger in scale + 1..=MAX_SCALE {
        fitting += needing[usize::from(larger)];
        let saved = (fitting * EXCEPTION_BITS) as f64
            - f64::from(larger - scale) * BITS_PER_SCALE * (values.len() - fitting) as f64;
        if saved > best.0 {
            best = (saved, Some(larger));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[f64]) -> Option<(u8, usize)> {
        let (mut integers, mut exceptions) = (Vec::new(), Vec::new());
        let scale = find(values, &mut integers, &mut exceptions)?;
        for (at, value) in values.iter().enumerate() {
            let back = unscaled(integers[at], power(scale)?);
            assert!(exceptions.contains(&(at as u32)) || back.to_bits() == value.to_bits());
        }
        Some((scale, exceptions.len()))
    }

    #[test]
    fn the_scale_is_the_smallest_that_fits_and_oddities_stand_aside() {
        let cents: Vec<f64> = (-5_000..5_000).map(|at| f64::from(at) / 100.0).collect();
        assert_eq!(found(&cents), Some((2, 0)));
        assert_eq!(found(&[3.0; 5]), Some((0, 0)));
        let mut odd = cents.clone();
        odd[77] = 0.123_456_789;
        odd[0] = -0.0;
        odd[1] = 1e300;
        odd[9_999] = f64::MIN_POSITIVE / 8.0;
        assert_eq!(found(&odd), Some((2, 4)));
        let mut random = fastrand::Rng::with_seed(1);
        let entropy: Vec<f64> = (0..100).map(|_| random.f64()).collect();
        assert_eq!(found(&entropy), None);
        let mut later: Vec<f64> = (0..4_000).map(f64::from).collect();
        later[2_001..].iter_mut().for_each(|value| *value += 0.001);
        assert_eq!(found(&later), Some((3, 0)));
    }

    #[test]
    fn sums_of_decimals_snap_to_what_they_should_be() {
        let sum: f64 = (0..1_000).map(|_| 0.1).sum();
        assert_ne!(sum, 100.0);
        assert_eq!(snapped(sum, 1), Some(100.0));
        assert_eq!(snapped(0.123, 1), None);
        assert_eq!(snapped(1e300, 3), None);
    }
}
