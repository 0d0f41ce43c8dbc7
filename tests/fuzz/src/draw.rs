//! Structured values drawn from a fuzzer's bytes.

/// Takes values from bytes; zeros once there are none.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a>(pub &'a [u8]);

impl<'a> Draw<'a> {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Up to `most` bytes, at most 255.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let count = self.below(most + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// Eight bytes as a number.
    pub fn long(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// A finite number, often a plain one.
    pub fn value(&mut self) -> f64 {
        match self.byte() {
            0 => 0.0,
            kind @ 1..=99 => f64::from(kind) + f64::from(self.byte()) / 100.0,
            100..=199 => f64::from(self.byte()) - 100.0,
            _ => Some(f64::from_bits(self.long())).filter(|value| value.is_finite()).unwrap_or(-0.0),
        }
    }

    /// A text of one to `most` characters of `alphabet`.
    pub fn text(&mut self, alphabet: &[char], most: usize) -> String {
        let count = 1 + self.below(most);
        (0..count).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}
