//! Numbers as JSON writes them: its grammar to the letter, every value correctly rounded.

/// Powers of ten that f64 holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// Up to here every integer is an f64.
const MAX_EXACT: u64 = 1 << 53;
/// So many digits never overflow a u64.
const MAX_DIGITS: usize = 19;

/// Reads the number that begins at `at`: its value, infinite when it overflows, and where it ends.
///
/// `None` when no JSON number begins there. What follows it is the caller's concern.
#[must_use]
pub fn parse(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let whole = at + usize::from(negative);
    let (mantissa, point) = digits(bytes, whole, 0);
    if point == whole || (bytes[whole] == b'0' && point > whole + 1) {
        return None;
    }
    let (mantissa, mut end) = match bytes.get(point) {
        Some(b'.') => digits(bytes, point + 1, mantissa),
        _ => (mantissa, point),
    };
    let fraction = end.saturating_sub(point + 1);
    if end == point + 1 {
        return None;
    }
    let count = point - whole + fraction;
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        end = exponent(bytes, end + 1)?;
    } else if count <= MAX_DIGITS && mantissa <= MAX_EXACT {
        // Both operands are exact, so the division rounds once: correctly.
        let value = mantissa as f64 / EXACT_POWERS[fraction];
        return Some((if negative { -value } else { value }, end));
    }
    Some((fast_float2::parse(&bytes[at..end]).ok()?, end))
}

/// Appends the digits at `at` to `mantissa`, wrapping; and where they end.
fn digits(bytes: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (mantissa, at)
}

fn exponent(bytes: &[u8], at: usize) -> Option<usize> {
    let start = at + usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
    let (_, end) = digits(bytes, start, 0);
    (end > start).then_some(end)
}

/// Reads the integer that begins at `at` and where it ends, when it is an i64 written without
/// fraction and exponent.
#[must_use]
pub fn parse_integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(negative);
    let (magnitude, end) = digits(bytes, start, 0);
    let count = end - start;
    let leading_zero = count > 1 && bytes[start] == b'0';
    // 18 digits are always an i64; 19 only sometimes, and no time is that far.
    if !(1..=18).contains(&count) || leading_zero || matches!(bytes.get(end), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let value = i64::try_from(magnitude).ok()?;
    Some((if negative { -value } else { value }, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_that_of_json() {
        for good in [
            "0",
            "-0",
            "10",
            "0.5",
            "-12.250",
            "1e5",
            "1E+5",
            "0e-0",
            "123456789012345678901234567890",
            "1e999",
        ] {
            let (value, end) = parse(good.as_bytes(), 0).unwrap();
            assert_eq!(
                (value.to_bits(), end),
                (good.parse::<f64>().unwrap().to_bits(), good.len()),
                "{good}"
            );
        }
        for bad in [
            "", "-", "+1", ".5", "5.", "01", "-01", "00", "1e", "1e+", "1.e5", "NaN", "Infinity", "-inf",
            "0x1",
        ] {
            let read = parse(bad.as_bytes(), 0);
            assert!(read.is_none_or(|(_, end)| end < bad.len()), "{bad}: {read:?}");
        }
    }

    #[test]
    fn every_number_is_the_one_that_the_standard_library_reads() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let text = match random.u8(..4) {
                0 => format!("{}", f64::from_bits(random.u64(..))),
                1 => format!("{:e}", f64::from_bits(random.u64(..))),
                2 => format!("{:.*}", random.usize(..25), random.f64() * 1e6 - 5e5),
                _ => format!("{}.{}", random.u64(..), random.u64(..)),
            };
            if text.contains(['N', 'i']) {
                continue;
            }
            let expected: f64 = text.parse().unwrap();
            let read = parse(text.as_bytes(), 0).unwrap();
            assert_eq!((read.0.to_bits(), read.1), (expected.to_bits(), text.len()), "{text}");
        }
    }

    #[test]
    fn integers_are_whole_and_fit() {
        assert_eq!(parse_integer(b"1767225600000,", 0), Some((1_767_225_600_000, 13)));
        assert_eq!(parse_integer(b"-5", 0), Some((-5, 2)));
        for bad in ["", "-", "1.5", "1.0", "1e3", "01", "1234567890123456789", "x"] {
            assert_eq!(parse_integer(bad.as_bytes(), 0), None, "{bad}");
        }
    }
}
