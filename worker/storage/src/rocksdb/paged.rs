//! A table by number that only takes memory where numbers are in use.
//!
//! Numbers of series are never given twice, so in a cluster whose pods come and go they grow without
//! end, while those in use at a time lie close together.

/// Entries of a page: small enough that a lone one wastes little, large enough that the directory of a
/// billion numbers is a few megabytes.
const PAGE: usize = 256;

/// Entries by number, in pages that come into being with their first entry.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Option<Box<[T]>>>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T: Default> Paged<T> {
    /// The entry at `at`, unless its page was never used.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.as_ref()?.get(at % PAGE)
    }

    /// The entry at `at`, made by default with its page if it must be.
    pub fn entry(&mut self, at: usize) -> &mut T {
        let page = at / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| (0..PAGE).map(|_| T::default()).collect());
        &mut page[at % PAGE]
    }

    /// Entries of used pages with their numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let used = self.pages.iter().enumerate().filter_map(|(at, page)| Some((at, page.as_ref()?)));
        used.flat_map(|(at, page)| (at * PAGE..).zip(page.iter()))
    }

    /// As [`Paged::iter`], to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let used = self.pages.iter_mut().enumerate().filter_map(|(at, page)| Some((at, page.as_mut()?)));
        used.flat_map(|(at, page)| (at * PAGE..).zip(page.iter_mut()))
    }

    /// Bytes of pages and directory, without what entries own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let used = self.pages.iter().flatten().count();
        used * PAGE * size_of::<T>() + self.pages.capacity() * size_of::<Option<Box<[T]>>>()
    }

    /// Whether an entry at `at` would need memory first.
    #[must_use]
    pub fn is_missing(&self, at: usize) -> bool {
        self.pages.get(at / PAGE).is_none_or(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_numbers_cost_no_more_than_their_pages() {
        let mut table = Paged::<u64>::default();
        for at in [3, 1_000_000_000, 4] {
            assert!(table.get(at).is_none_or(|entry| *entry == 0));
            *table.entry(at) = at as u64;
        }
        assert_eq!(
            (table.get(3), table.get(1_000_000_000), table.get(9)),
            (Some(&3), Some(&1_000_000_000), Some(&0))
        );
        assert_eq!((table.get(700), table.is_missing(700), table.is_missing(9)), (None, true, false));
        let filled: Vec<usize> = table.iter().filter(|(_, entry)| **entry > 0).map(|(at, _)| at).collect();
        assert_eq!(filled, [3, 4, 1_000_000_000]);
        table.iter_mut().for_each(|(_, entry)| *entry = 7);
        assert_eq!(table.iter().filter(|(_, entry)| **entry == 7).count(), 2 * PAGE);
        assert!(table.bytes() < 100_000_000, "{}", table.bytes());
    }
}
