//! Reading and writing the small fields around packed data; a short read is `Corrupt`, never a panic.

use crate::store::{Result, StoreError};

/// Appends `value` in groups of seven bits, the low ones first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed value so that small ones of either sign are short.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// 0, −1, 1, −2 … become 0, 1, 2, 3 …
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The way back from [`zigzag`].
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// What is left of some stored bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `count` bytes.
    ///
    /// # Errors
    /// `Corrupt` when fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(StoreError::corrupt("packed data ends early"));
        };
        self.0 = rest;
        Ok(taken)
    }

    /// The next byte.
    ///
    /// # Errors
    /// `Corrupt` at the end.
    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Four bytes, little endian.
    ///
    /// # Errors
    /// `Corrupt` when fewer are left.
    pub fn word(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Eight bytes, little endian.
    ///
    /// # Errors
    /// `Corrupt` when fewer are left.
    pub fn long(&mut self) -> Result<u64> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }

    /// What [`put_varint`] wrote.
    ///
    /// # Errors
    /// `Corrupt` when it has no end within 64 bits.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(StoreError::corrupt("a number in packed data has no end"))
    }

    /// What `put_signed` wrote.
    ///
    /// # Errors
    /// As of [`Bytes::varint`].
    pub fn signed(&mut self) -> Result<i64> {
        self.varint().map(unzigzag)
    }

    /// A count or length of at most `most`.
    ///
    /// # Errors
    /// `Corrupt` when it is larger.
    pub fn count(&mut self, most: usize) -> Result<usize> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        match count <= most {
            true => Ok(count),
            false => {
                Err(StoreError::corrupt(format!("a count in packed data is {count}, at most {most} can be")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_ends_are_noticed() {
        let numbers = [0, 1, 127, 128, 300, u64::MAX / 2, u64::MAX];
        let mut out = Vec::new();
        for number in numbers {
            put_varint(&mut out, number);
            put_signed(&mut out, number.cast_signed());
        }
        let mut bytes = Bytes(&out);
        for number in numbers {
            assert_eq!(bytes.varint().unwrap(), number);
            assert_eq!(bytes.signed().unwrap(), number.cast_signed());
        }
        assert!(bytes.varint().is_err());
        assert!(Bytes(&[0xFF; 20]).varint().is_err());
        assert!(Bytes(&[9]).count(8).is_err());
    }
}
