//! Protobuf's wire format: fields of a message, without a parsed tree.

/// A message that breaks protobuf's wire format, or the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedMessage(pub &'static str);

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// An integer of variable length.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// A message, string or bytes.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32,
}

/// The fields of a message, in the order in which they were written.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next field begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next field: its number and value.
    ///
    /// # Errors
    /// The bytes end inside the field, or it has no number or type that exists.
    #[inline]
    pub fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, MalformedMessage> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (tag, at) = varint(self.bytes, self.at)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or(MalformedMessage("a field has no number"))?;
        let (field, end) = match tag & 7 {
            0 => varint(self.bytes, at).map(|(value, end)| (Field::Varint(value), end))?,
            1 => (Field::Fixed64(u64::from_le_bytes(fixed(self.bytes, at)?)), at + 8),
            2 => {
                let (length, start) = length(self.bytes, at)?;
                (Field::Bytes(&self.bytes[start..start + length]), start + length)
            }
            5 => fixed::<4>(self.bytes, at).map(|_| (Field::Fixed32, at + 4))?,
            _ => return Err(MalformedMessage("a field has a type that doesn't exist")),
        };
        self.at = end;
        Ok(Some((number, field)))
    }
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], MalformedMessage> {
    let taken = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    taken.copied().ok_or(MalformedMessage("a field is longer than its message"))
}

/// The varint at `at` and where it ends.
///
/// # Errors
/// It has no end, or more than 64 bits.
#[inline]
pub fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), MalformedMessage> {
    match bytes.get(at) {
        Some(byte) if *byte < 0x80 => Ok((u64::from(*byte), at + 1)),
        _ => long_varint(bytes, at),
    }
}

/// A varint of up to eight bytes, all at once: times have six, and there is one in every sample. Byte by byte that is
/// a fifth of reading them.
#[inline]
fn long_varint(bytes: &[u8], at: usize) -> Result<(u64, usize), MalformedMessage> {
    let rest = bytes.get(at..).unwrap_or_default();
    let word = match (rest.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(word), _) => u64::from_le_bytes(*word),
        // Most times end their message: they are in its last eight bytes.
        (None, Some(word)) if !rest.is_empty() => u64::from_le_bytes(*word) >> (64 - 8 * rest.len()),
        _ => return slow_varint(bytes, at),
    };
    let ends = !word & 0x8080_8080_8080_8080;
    let length = ends.trailing_zeros() as usize / 8 + 1;
    if length > rest.len().min(8) {
        return slow_varint(bytes, at);
    }
    // The bytes up to the first that ends it, seven bits of each, moved together by pairs.
    let bits = word & (ends ^ (ends - 1)) & 0x7F7F_7F7F_7F7F_7F7F;
    let bits = (bits & 0x007F_007F_007F_007F) | ((bits & 0x7F00_7F00_7F00_7F00) >> 1);
    let bits = (bits & 0x0000_3FFF_0000_3FFF) | ((bits & 0x3FFF_0000_3FFF_0000) >> 2);
    let bits = (bits & 0x0000_0000_0FFF_FFFF) | ((bits & 0x0FFF_FFFF_0000_0000) >> 4);
    Ok((bits, at + length))
}

#[cold]
fn slow_varint(bytes: &[u8], at: usize) -> Result<(u64, usize), MalformedMessage> {
    let mut value = 0;
    for (count, byte) in bytes.get(at..).unwrap_or_default().iter().take(10).enumerate() {
        if count == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7F) << (7 * count);
        if *byte < 0x80 {
            return Ok((value, at + count + 1));
        }
    }
    Err(MalformedMessage("an integer has no end"))
}

/// The length at `at`, and where what has that length begins; it lies inside `bytes`.
///
/// # Errors
/// The bytes end before.
#[inline]
pub fn length(bytes: &[u8], at: usize) -> Result<(usize, usize), MalformedMessage> {
    let (length, start) = varint(bytes, at)?;
    match usize::try_from(length) {
        Ok(length) if length <= bytes.len() - start => Ok((length, start)),
        _ => Err(MalformedMessage("a field is longer than its message")),
    }
}

/// Appends a length-delimited field to a message; `tag` is one byte.
pub fn append(message: &mut Vec<u8>, tag: u8, field: &[u8]) {
    message.push(tag);
    append_varint(message, field.len() as u64);
    message.extend_from_slice(field);
}

/// Appends an integer of variable length as a field; `tag` is one byte.
pub fn append_integer(message: &mut Vec<u8>, tag: u8, value: u64) {
    message.push(tag);
    append_varint(message, value);
}

/// Appends a varint to a message.
pub fn append_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_type_are_read() {
        let message = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1A, 2, b'h', b'i', 0x25, 1, 2, 3, 4];
        let mut fields = Fields::new(&message);
        assert_eq!(fields.next(), Ok(Some((1, Field::Varint(150)))));
        assert_eq!(fields.next(), Ok(Some((2, Field::Fixed64(1)))));
        assert_eq!(fields.next(), Ok(Some((3, Field::Bytes(b"hi")))));
        assert_eq!(fields.next(), Ok(Some((4, Field::Fixed32))));
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn integers_of_every_length_are_read_wherever_they_end() {
        for bits in 0..=64 {
            for value in [1u64.unbounded_shl(bits).wrapping_sub(1), 1u64.unbounded_shl(bits)] {
                let mut message = vec![0xFF];
                append_varint(&mut message, value);
                let end = message.len();
                assert_eq!(varint(&message, 1), Ok((value, end)));
                message.extend_from_slice(&[0xFF; 8]);
                assert_eq!(varint(&message, 1), Ok((value, end)));
                assert!(varint(&message[..end - 1], 1).is_err());
            }
        }
        // More bytes than are needed.
        assert_eq!(varint(&[0x81, 0x80, 0x00], 0), Ok((1, 3)));
    }

    #[test]
    fn lying_lengths_and_endless_integers_are_refused() {
        let lies: [&[u8]; 9] = [
            &[0x0A, 5, 1],
            &[0x0A],
            &[0x80],
            &[0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            &[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            &[0x00, 0],
            &[0x0B],
            &[0x09, 1],
            &[0x0D, 1],
        ];
        for lie in lies {
            assert!(Fields::new(lie).next().is_err(), "{lie:?}");
        }
    }

    #[test]
    fn what_is_appended_is_read_again() {
        for size in [0, 1, 127, 128, 300, 20_000] {
            let field = vec![7; size];
            let mut message = Vec::new();
            append(&mut message, 0x0A, &field);
            assert_eq!(Fields::new(&message).next(), Ok(Some((1, Field::Bytes(&field)))));
        }
    }
}
