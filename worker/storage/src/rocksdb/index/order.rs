//! Sorting by text without asking for each text twenty times.

use super::texts::Chunks;

/// The places of `numbers`, each the number of a text, in the order of the texts; one that is absent
/// or gone comes first.
#[must_use]
pub fn by_text(texts: &Chunks, numbers: &[u32]) -> Vec<u32> {
    let text = |at: u32| texts.get(numbers[at as usize]);
    let common = common_prefix(texts, numbers);
    // The eight bytes behind what all have in common decide nearly every comparison.
    let mut keyed: Vec<(u64, u32)> =
        (0..numbers.len() as u32).map(|at| (leading(text(at).as_bytes(), common), at)).collect();
    keyed.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| text(one.1).cmp(text(other.1))));
    keyed.into_iter().map(|(_, at)| at).collect()
}

/// Merges `added` into `sorted`; `text_of` tells the text of an item.
#[must_use]
pub fn merge(texts: &Chunks, sorted: &[u32], added: &[u32], text_of: impl Fn(u32) -> u32) -> Vec<u32> {
    let numbers: Vec<u32> = added.iter().map(|item| text_of(*item)).collect();
    let added: Vec<u32> = by_text(texts, &numbers).into_iter().map(|at| added[at as usize]).collect();
    if sorted.is_empty() {
        return added;
    }
    let mut merged = Vec::with_capacity(sorted.len() + added.len());
    let mut rest = sorted;
    for item in added {
        let text = texts.get(text_of(item));
        let before = rest.partition_point(|other| texts.get(text_of(*other)) < text);
        merged.extend_from_slice(&rest[..before]);
        merged.push(item);
        rest = &rest[before..];
    }
    merged.extend_from_slice(rest);
    merged
}

/// How many leading bytes all that are there have in common.
fn common_prefix(texts: &Chunks, numbers: &[u32]) -> usize {
    let mut present =
        numbers.iter().map(|number| texts.get(*number).as_bytes()).filter(|text| !text.is_empty());
    let Some(first) = present.next() else { return 0 };
    present.fold(first.len(), |common, other| {
        first[..common].iter().zip(other).take_while(|(one, other)| one == other).count()
    })
}

/// Eight bytes from `start` on as a number that compares like them, but for missing bytes, which are 0.
fn leading(text: &[u8], start: usize) -> u64 {
    let rest = text.get(start..).unwrap_or(&[]);
    let mut first = [0; 8];
    let length = rest.len().min(8);
    first[..length].copy_from_slice(&rest[..length]);
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
            let mut seen = std::collections::HashSet::new();
            names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
            let ids: Vec<u32> = names.iter().map(|name| texts.intern(name)).collect();
            let sorted = by_text(texts.chunks(), &ids);
            let mut expected = names.clone();
            expected.sort();
            let read = |order: &[u32]| order.iter().map(|at| names[*at as usize].clone()).collect::<Vec<_>>();
            assert_eq!(read(&sorted), expected);
            let (new, old): (Vec<u32>, Vec<u32>) = (0..names.len() as u32).partition(|at| at % 3 != 0);
            let old_ids: Vec<u32> = old.iter().map(|at| ids[*at as usize]).collect();
            let old: Vec<u32> =
                by_text(texts.chunks(), &old_ids).into_iter().map(|at| old[at as usize]).collect();
            let merged = merge(texts.chunks(), &old, &new, |at| ids[at as usize]);
            assert_eq!(read(&merged), expected);
        }
    }
}
