//! Which series comes next: agents send theirs in the same order each time, and that of the first time is the order
//! of their numbers. So before a spelling is looked up in a table, which is a miss of the cache or two, the series
//! after the last one is asked whether it is spelled so; numbers in sequence stand side by side.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Spelling;

/// Marks of a page.
const PAGE: usize = 1 << 14;
/// Most marks of all pages: 512 MB.
const MOST: usize = 1 << 26;

type Page = Box<[AtomicU64]>;

/// A mark of each series' last spelling, at a place made of its number; of two series with one place, the later's.
///
/// A mark is 63 bits of tenant, number and spelling, the last keyed with a secret: that another's mark is the same is
/// as good as impossible, by chance or by aim.
#[derive(Debug)]
pub struct Guesses {
    pages: Box<[OnceLock<Page>]>,
}

impl Guesses {
    /// No mark, with room for `most` (rounded up to a power of two).
    #[must_use]
    pub fn new(most: usize) -> Self {
        let pages = most.clamp(PAGE, MOST).next_power_of_two() / PAGE;
        Self { pages: (0..pages).map(|_| OnceLock::new()).collect() }
    }

    /// Whether series `id` of the tenant with this `salt` was last spelled so.
    #[must_use]
    pub fn is(&self, id: u32, salt: u64, spelling: Spelling) -> bool {
        let (page, place) = self.place(id);
        let page = self.pages.get(page).and_then(OnceLock::get);
        page.is_some_and(|page| page[place].load(Ordering::Relaxed) == mark(id, salt, spelling))
    }

    /// Remembers how series `id` is spelled; returns by how many bytes the marks grew.
    pub fn set(&self, id: u32, salt: u64, spelling: Spelling) -> usize {
        let (page, place) = self.place(id);
        let mut grown = 0;
        let make = || {
            grown = PAGE * size_of::<AtomicU64>();
            (0..PAGE).map(|_| AtomicU64::new(0)).collect()
        };
        self.pages[page].get_or_init(make)[place].store(mark(id, salt, spelling), Ordering::Relaxed);
        grown
    }

    /// Forgets series `id`, or who stands in its place.
    pub fn clear(&self, id: u32) {
        let (page, place) = self.place(id);
        if let Some(page) = self.pages[page].get() {
            page[place].store(0, Ordering::Relaxed);
        }
    }

    fn place(&self, id: u32) -> (usize, usize) {
        let id = id as usize;
        (id / PAGE % self.pages.len(), id % PAGE)
    }
}

/// Never 0, which is nobody's.
fn mark(id: u32, salt: u64, spelling: Spelling) -> u64 {
    let of_series = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((spelling.0 >> 64) as u64 ^ salt ^ of_series) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling(n: u32) -> Spelling {
        Spelling(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()))
    }

    #[test]
    fn a_series_is_only_what_it_was_last_spelled_like() {
        let guesses = Guesses::new(0);
        let grown: usize = (0..1_000).map(|id| guesses.set(id, 7, spelling(id))).sum();
        assert_eq!(grown, PAGE * 8);
        assert!((0..1_000).all(|id| guesses.is(id, 7, spelling(id))));
        assert!(
            (0..1_000).all(|id| !guesses.is(id, 7, spelling(id + 1)) && !guesses.is(id, 8, spelling(id)))
        );
        guesses.set(5, 7, spelling(2_000));
        assert!(guesses.is(5, 7, spelling(2_000)) && !guesses.is(5, 7, spelling(5)));
        guesses.clear(6);
        assert!(!guesses.is(6, 7, spelling(6)) && guesses.is(7, 7, spelling(7)));
    }

    #[test]
    fn the_later_of_two_series_in_one_place_has_it() {
        let guesses = Guesses::new(PAGE);
        let later = 9 + PAGE as u32;
        guesses.set(9, 7, spelling(1));
        assert!(!guesses.is(later, 7, spelling(1)), "the number is part of the mark");
        assert_eq!(guesses.set(later, 7, spelling(1)), 0);
        assert!(guesses.is(later, 7, spelling(1)) && !guesses.is(9, 7, spelling(1)));
        assert!(!guesses.is(u32::MAX, 7, spelling(1)));
    }
}
