//! ClickHouse's format Native: a block as columns, each with its name and type in front.
//!
//! Numbers are little-endian; a text has its length in front as LEB128. What a column of
//! `LowCardinality(String)` looks like: a version (1), then flags with the width of an index, the keys,
//! and an index per row. Source: ClickHouse, src/Formats/NativeReader.cpp and
//! src/DataTypes/Serializations/SerializationLowCardinality.cpp; read by the engine in this crate's tests.

/// The one version of `LowCardinality`'s layout.
const LOW_CARDINALITY_VERSION: u64 = 1;
/// The keys stand in the block itself.
const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;

/// A block that is being written.
#[derive(Debug)]
pub struct Native {
    bytes: Vec<u8>,
}

impl Native {
    /// A block of so many columns and rows, in about `capacity` bytes.
    #[must_use]
    pub fn new(columns: usize, rows: usize, capacity: usize) -> Self {
        let mut native = Self { bytes: Vec::with_capacity(capacity) };
        native.varint(columns as u64);
        native.varint(rows as u64);
        native
    }

    /// The block.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Begins a column.
    pub fn column(&mut self, name: &str, kind: &str) {
        self.text(name);
        self.text(kind);
    }

    /// Begins a column of `LowCardinality(String)`, or one that has such a column in it.
    pub fn low_cardinality(&mut self) {
        self.number(LOW_CARDINALITY_VERSION.to_le_bytes());
    }

    /// The rows of a column of `LowCardinality(String)`: its keys, and each row's place among them.
    pub fn indices<'a>(
        &mut self,
        keys: impl ExactSizeIterator<Item = &'a str>,
        rows: impl ExactSizeIterator<Item = u32>,
    ) {
        // Nothing at all stands for no rows.
        if rows.len() == 0 {
            return;
        }
        let width = match keys.len() {
            0..=0xff => 0,
            0x100..=0xffff => 1,
            _ => 2,
        };
        self.number((HAS_ADDITIONAL_KEYS | width).to_le_bytes());
        self.number((keys.len() as u64).to_le_bytes());
        keys.for_each(|key| self.text(key));
        self.number((rows.len() as u64).to_le_bytes());
        match width {
            0 => self.bytes.extend(rows.map(|row| row as u8)),
            1 => self.numbers(rows.map(|row| (row as u16).to_le_bytes())),
            _ => self.numbers(rows.map(u32::to_le_bytes)),
        }
    }

    /// Numbers of one width.
    pub fn numbers<const WIDTH: usize>(&mut self, numbers: impl ExactSizeIterator<Item = [u8; WIDTH]>) {
        let start = self.bytes.len();
        self.bytes.resize(start + numbers.len() * WIDTH, 0);
        // Into space that is there already: half the time of appending each.
        let (space, _) = self.bytes[start..].as_chunks_mut::<WIDTH>();
        space.iter_mut().zip(numbers).for_each(|(place, number)| *place = number);
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: [u8; 8]) {
        self.bytes.extend_from_slice(&number);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_laid_out_as_the_format_says() {
        let mut native = Native::new(2, 3, 0);
        native.column("m", "LowCardinality(String)");
        native.low_cardinality();
        native.indices(["a", "bc"].into_iter(), [0, 1, 1].into_iter());
        native.column("v", "UInt16");
        native.numbers([1_u16, 2, 258].map(u16::to_le_bytes).into_iter());
        let mut expected = vec![2, 3, 1, b'm', 22];
        expected.extend(b"LowCardinality(String)");
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 2, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'b', b'c']);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        expected.extend([1, b'v', 6]);
        expected.extend(b"UInt16");
        expected.extend([1, 0, 2, 0, 2, 1]);
        assert_eq!(native.into_bytes(), expected);
    }

    #[test]
    fn long_texts_and_many_keys_have_wider_numbers() {
        let mut native = Native::new(1, 300, 0);
        native.text(&"x".repeat(300));
        assert_eq!(native.into_bytes()[3..6], [0xac, 2, b'x']);
        let mut native = Native::new(1, 1, 0);
        native.indices((0..256).map(|_| ""), [255].into_iter());
        let bytes = native.into_bytes();
        assert_eq!((bytes[2], bytes[3], bytes.ends_with(&[1, 0, 0, 0, 0, 0, 0, 0, 255, 0])), (1, 2, true));
    }
}
