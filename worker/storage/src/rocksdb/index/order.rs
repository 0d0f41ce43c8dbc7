//! Sorting by text without asking for each text twenty times.

use super::texts::Chunks;

/// Sorts `numbers` (payload, text) by text and returns the payloads.
#[must_use]
pub fn by_text(texts: &Chunks, numbers: &[(u32, u32)]) -> Vec<u32> {
    let common = common_prefix(texts, numbers);
    // The eight bytes behind what all have in common decide nearly every comparison.
    let mut keyed: Vec<(u64, u32)> = (0_u32..)
        .zip(numbers)
        .map(|(at, (_, text))| (leading(&texts.get(*text).as_bytes()[common..]), at))
        .collect();
    let text = |at: u32| texts.get(numbers[at as usize].1);
    keyed.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| text(one.1).cmp(text(other.1))));
    keyed.into_iter().map(|(_, at)| numbers[at as usize].0).collect()
}

/// Merges `added` into `sorted`; `text_of` tells the text of a payload.
#[must_use]
pub fn merge(texts: &Chunks, sorted: &[u32], added: &[u32], text_of: impl Fn(u32) -> u32) -> Vec<u32> {
    let numbers: Vec<(u32, u32)> = added.iter().map(|payload| (*payload, text_of(*payload))).collect();
    let added = by_text(texts, &numbers);
    if sorted.is_empty() {
        return added;
    }
    let mut merged = Vec::with_capacity(sorted.len() + added.len());
    let mut rest = sorted;
    for payload in added {
        let text = texts.get(text_of(payload));
        let before = rest.partition_point(|other| texts.get(text_of(*other)) < text);
        merged.extend_from_slice(&rest[..before]);
        merged.push(payload);
        rest = &rest[before..];
    }
    merged.extend_from_slice(rest);
    merged
}

/// How many leading bytes all have in common.
fn common_prefix(texts: &Chunks, numbers: &[(u32, u32)]) -> usize {
    let Some((_, first)) = numbers.first() else { return 0 };
    let first = texts.get(*first).as_bytes();
    numbers.iter().fold(first.len(), |common, (_, text)| {
        let other = texts.get(*text).as_bytes();
        first[..common].iter().zip(other).take_while(|(one, other)| one == other).count()
    })
}

/// The first eight bytes as a number that compares like them, but for missing bytes, which are 0.
fn leading(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = bytes.len().min(8);
    first[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::rocksdb::index::texts::Texts;

    use super::*;

    #[test]
    fn the_order_is_that_of_bytes() {
        let mut texts = Texts::new(Arc::new([1; 192]));
        let mut random = fastrand::Rng::with_seed(2);
        for start in ["", "host-", "user-00000000"] {
            let mut names: Vec<String> = (0..500)
                .map(|_| {
                    let letters = (0..random.usize(..12)).map(|_| ['a', 'b', 'ä', '\0'][random.usize(..4)]);
                    format!("{start}{}", letters.collect::<String>())
                })
                .collect();
            names.sort_unstable_by_key(|_| 0);
            names.dedup();
            let ids: Vec<u32> = names.iter().map(|name| texts.intern(name)).collect();
            let numbers: Vec<(u32, u32)> = (0..).zip(ids.iter().copied()).collect();
            let sorted = by_text(texts.chunks(), &numbers);
            let mut expected = names.clone();
            expected.sort();
            let read = |order: &[u32]| order.iter().map(|at| names[*at as usize].clone()).collect::<Vec<_>>();
            assert_eq!(read(&sorted), expected);
            let (old, new): (Vec<_>, Vec<_>) = numbers.iter().copied().partition(|(at, _)| at % 3 == 0);
            let old = by_text(texts.chunks(), &old);
            let new: Vec<u32> = new.iter().map(|(at, _)| *at).collect();
            let merged = merge(texts.chunks(), &old, &new, |at| ids[at as usize]);
            assert_eq!(read(&merged), expected);
        }
    }
}
