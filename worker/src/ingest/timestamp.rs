//! Times as clients write them: RFC 3339, to whole milliseconds.

use jiff::Timestamp;

/// Unix milliseconds of an RFC 3339 time; what is finer than a millisecond is cut off.
///
/// `None` for anything else: the library also reads forms that RFC 3339 doesn't know.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    if !is_rfc3339(text.as_bytes()) {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond().div_euclid(1_000_000)).ok()
}

/// Whether `text` has the form `2026-01-01T00:00:00[.fraction](Z|±00:00)`.
fn is_rfc3339(text: &[u8]) -> bool {
    const DATE_TIME: &[u8; 19] = b"0000-00-00T00:00:00";
    let Some((date_time, rest)) = text.split_at_checked(DATE_TIME.len()) else { return false };
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => byte == other,
    };
    date_time.iter().zip(DATE_TIME).all(fits) && is_offset(without_fraction(rest))
}

/// What follows the fraction of a second, or everything where that is malformed.
fn without_fraction(rest: &[u8]) -> &[u8] {
    let Some(fraction) = rest.strip_prefix(b".") else { return rest };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // The library reads nanoseconds; nobody needs more.
    if (1..=9).contains(&digits) { &fraction[digits..] } else { rest }
}

fn is_offset(text: &[u8]) -> bool {
    match text {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_read_to_the_millisecond() {
        for (text, millis) in [
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01t00:00:00z", 1_767_225_600_000),
            ("2026-01-01 00:00:00Z", 1_767_225_600_000),
            ("2026-01-01T01:30:00+01:30", 1_767_225_600_000),
            ("2026-01-01T00:00:00.5Z", 1_767_225_600_500),
            ("2026-01-01T00:00:00.123999999-00:00", 1_767_225_600_123),
            ("1969-12-31T23:59:59.9999Z", -1),
        ] {
            assert_eq!(parse_rfc3339(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.Z",
            "20260101T000000Z",
            "2026-01-01T00:00:00+01",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00Z[UTC]",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00.5",
            "äöü",
            "2026-01-01T00:00:00é",
            "now",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
