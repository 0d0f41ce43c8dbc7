//! Inputs that grow of a target's seeds without libFuzzer: blind, but the same each time, and in any test.

use fastrand::Rng;

use crate::Target;

/// Longest input, in bytes.
const LONGEST: usize = 4_096;
/// Most changes of an input.
const CHANGES: usize = 4;

/// Makes inputs of seeds, of parts of them, and of words.
#[derive(Debug)]
pub struct Grow {
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    random: Rng,
}

impl Grow {
    /// Inputs of `target`, which has a seed at least.
    #[must_use]
    pub fn of(target: &Target, seed: u64) -> Self {
        let words = target.words.iter().map(|text| word(text)).collect();
        Self { seeds: (target.seeds)(), words, random: Rng::with_seed(seed) }
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..1 + self.random.usize(..CHANGES) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn seed(&mut self) -> Vec<u8> {
        self.seeds[self.random.usize(..self.seeds.len())].clone()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (mut from, mut to) = (self.random.usize(..=input.len()), self.random.usize(..=input.len()));
        if from > to {
            (from, to) = (to, from);
        }
        match self.random.u8(..8) {
            0 => drop(input.drain(from..to.min(from + 8))),
            1 => input.truncate(to),
            2 => {
                let part = input[from..to].to_vec();
                input.splice(from..from, part);
            }
            3 => {
                let other = self.seed();
                let cut = self.random.usize(..=other.len());
                input.splice(from.., other[cut..].iter().copied());
            }
            4 if !self.words.is_empty() => {
                let word = self.words[self.random.usize(..self.words.len())].clone();
                input.splice(from..from, word);
            }
            kind => {
                if let Some(byte) = input.get_mut(from) {
                    *byte = if kind == 5 { *byte ^ 1 << self.random.u8(..8) } else { self.random.u8(..) };
                }
            }
        }
    }
}

/// The bytes of a word of [`Target::words`], in which `\x` and two digits are a byte.
#[must_use]
pub fn word(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.expect("two digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TARGETS;

    #[test]
    fn words_are_bytes() {
        assert_eq!(word("a\\ "), b"a\\ ");
        assert_eq!(word("a:\\x0ab\\xff"), b"a:\nb\xff");
    }

    #[test]
    fn inputs_are_many_and_the_same_each_time() {
        let grown = |seed| -> Vec<Vec<u8>> {
            let mut grow = Grow::of(&TARGETS[0], seed);
            (0..100).map(|_| grow.input()).collect()
        };
        assert_eq!(grown(1), grown(1));
        let distinct: std::collections::BTreeSet<_> = grown(1).into_iter().chain(grown(2)).collect();
        assert!(distinct.len() > 150, "{}", distinct.len());
    }
}
