//! Accumulators by (group, window), of which only as many are kept as there can be rows.

use hashbrown::HashMap;

/// Windows side by side in one block at most: found by one look-up, at the price of empty neighbours.
const BLOCK: u64 = 16;

/// Windows in a block where `wanted` rows are of so many groups with so many windows each: none that no wanted row needs.
#[must_use]
pub fn width(wanted: usize, groups: usize, windows: u64) -> u64 {
    let each = (wanted / groups.max(1)) as u64;
    windows.min(each).clamp(1, BLOCK)
}

/// What is kept of the samples of one group in one window.
pub trait Cell: Default + Send {
    /// Whether it makes no row.
    fn is_empty(&self) -> bool;

    /// Samples in it.
    fn count(&self) -> u64;

    /// Adds what `other` has seen.
    fn merge(&mut self, other: Self);

    /// Bytes that it holds elsewhere.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Neighbouring windows of one group; ordered as rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// The group.
    pub group: u32,
    block: u64,
}

/// Cells of the first `wanted` rows, and some more.
#[derive(Debug)]
pub struct Cells<C> {
    wanted: usize,
    /// Windows in a block.
    width: u64,
    /// The last block that may hold a wanted row, once that is known.
    last: Option<BlockKey>,
    blocks: HashMap<BlockKey, usize>,
    /// `width` cells for each block.
    cells: Vec<C>,
    /// Cells that are not empty.
    occupied: usize,
    /// The block looked up before.
    recent: Option<(BlockKey, usize)>,
    heap_bytes: usize,
}

impl<C: Cell> Cells<C> {
    /// Room for the first `wanted` rows, in blocks of `width` windows; blocks after `last` are known to hold none of them.
    #[must_use]
    pub fn new(wanted: usize, width: u64, last: Option<BlockKey>) -> Self {
        Self {
            wanted: wanted.max(1),
            width: width.max(1),
            last,
            blocks: HashMap::new(),
            cells: Vec::new(),
            occupied: 0,
            recent: None,
            heap_bytes: 0,
        }
    }

    /// The last block that may hold a wanted row, if there is one.
    #[must_use]
    pub fn last(&self) -> Option<BlockKey> {
        self.last
    }

    /// Cells that are not empty, where there are exactly `count`.
    pub fn if_exactly(&self, count: u64) -> Option<impl Iterator<Item = &C>> {
        let cells = self.cells.iter().filter(|cell| !cell.is_empty());
        (self.occupied as u64 == count).then_some(cells)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let block = size_of::<(BlockKey, usize)>() + 1;
        self.cells.capacity() * size_of::<C>() + self.blocks.capacity() * block + self.heap_bytes
    }

    /// Counts bytes that a cell has come to hold elsewhere.
    pub fn grow_heap(&mut self, bytes: usize) {
        self.heap_bytes += bytes;
    }

    /// The cell of a window, which the caller fills; `None` when it and all later ones of the group
    /// can't be among the wanted rows.
    pub fn at(&mut self, group: u32, window: u64) -> Option<&mut C> {
        let offset = (window % self.width) as usize;
        let mut at = self.block(BlockKey { group, block: window / self.width })? + offset;
        if self.cells[at].is_empty() {
            if self.occupied >= self.most() {
                self.prune();
                at = self.block(BlockKey { group, block: window / self.width })? + offset;
            }
            self.occupied += 1;
        }
        Some(&mut self.cells[at])
    }

    /// Takes over what `other` has seen.
    pub fn merge(&mut self, mut other: Self) {
        self.last = match (self.last, other.last) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for (key, from) in std::mem::take(&mut other.blocks) {
            let Some(to) = self.block(key) else { continue };
            for offset in 0..self.width as usize {
                self.cells[to + offset].merge(std::mem::take(&mut other.cells[from + offset]));
            }
        }
        if self.recount() >= self.most() {
            self.prune();
        }
    }

    /// The wanted rows: group, window and cell, in order.
    #[must_use]
    pub fn into_rows(mut self) -> Vec<(u32, u64, C)> {
        let mut rows = Vec::with_capacity(self.occupied.min(self.wanted));
        for key in self.sorted() {
            let at = self.blocks[&key];
            for offset in 0..self.width {
                let cell = std::mem::take(&mut self.cells[at + offset as usize]);
                if !cell.is_empty() && rows.len() < self.wanted {
                    rows.push((key.group, key.block * self.width + offset, cell));
                }
            }
        }
        rows
    }

    /// As many cells as are filled before those that no row needs are given up.
    fn most(&self) -> usize {
        self.wanted.saturating_mul(2).saturating_add(BLOCK as usize)
    }

    /// Where a block's cells begin.
    fn block(&mut self, key: BlockKey) -> Option<usize> {
        if let Some((recent, at)) = self.recent
            && recent == key
        {
            return Some(at);
        }
        if self.last.is_some_and(|last| key > last) {
            return None;
        }
        let (next, width) = (self.cells.len(), self.width as usize);
        let at = *self.blocks.entry(key).or_insert(next);
        if at == next {
            self.cells.resize_with(next + width, C::default);
        }
        self.recent = Some((key, at));
        Some(at)
    }

    fn sorted(&self) -> Vec<BlockKey> {
        let mut keys: Vec<BlockKey> = self.blocks.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// Gives up every block after the one that completes the wanted rows.
    fn prune(&mut self) {
        let keys = self.sorted();
        let (blocks, mut cells) = (std::mem::take(&mut self.blocks), std::mem::take(&mut self.cells));
        self.recent = None;
        let mut occupied = 0;
        for key in keys {
            if self.last.is_some_and(|last| key > last) {
                break;
            }
            let (from, to) = (blocks[&key], self.cells.len());
            let block = from..from + self.width as usize;
            self.cells.extend(cells[block].iter_mut().map(std::mem::take));
            self.blocks.insert(key, to);
            occupied += self.cells[to..].iter().filter(|cell| !cell.is_empty()).count();
            if occupied >= self.wanted {
                self.last = Some(key);
            }
        }
        self.recount();
    }

    /// Looks at every cell again; how many are not empty.
    fn recount(&mut self) -> usize {
        let filled = self.cells.iter().filter(|cell| !cell.is_empty());
        (self.occupied, self.heap_bytes) =
            filled.fold((0, 0), |(count, bytes), cell| (count + 1, bytes + cell.heap_bytes()));
        self.occupied
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    impl Cell for u64 {
        fn is_empty(&self) -> bool {
            *self == 0
        }

        fn count(&self) -> u64 {
            *self
        }

        fn merge(&mut self, other: Self) {
            *self += other;
        }
    }

    #[test]
    fn the_first_rows_are_exact_whatever_is_given_up() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let windows = random.u64(1..200);
            let (wanted, groups) = (random.usize(1..50), random.u32(1..200));
            let width = random.u64(1..=BLOCK);
            let mut model = BTreeMap::new();
            let mut last = None;
            let mut parts = Vec::new();
            for _ in 0..random.usize(1..5) {
                let mut cells: Cells<u64> = Cells::new(wanted, width, last);
                for _ in 0..random.usize(0..2_000) {
                    let (group, window) = (random.u32(0..groups), random.u64(0..windows));
                    *model.entry((group, window)).or_insert(0) += 1;
                    if let Some(cell) = cells.at(group, window) {
                        *cell += 1;
                    }
                }
                last = cells.last();
                parts.push(cells);
            }
            let mut cells = parts.pop().unwrap();
            parts.into_iter().for_each(|part| cells.merge(part));
            let expected: Vec<_> = model
                .into_iter()
                .take(wanted)
                .map(|((group, window), count)| (group, window, count))
                .collect();
            assert_eq!(cells.into_rows(), expected, "seed {seed}");
        }
    }

    #[test]
    fn many_groups_of_few_rows_each_have_no_empty_neighbours() {
        let widths =
            [(1_001, 1_000_000), (1_001, 500), (1_001, 1)].map(|(wanted, groups)| width(wanted, groups, 9));
        assert_eq!(widths, [1, 2, 9]);
        assert_eq!((width(1_000, 0, 100), width(1_000, 1, 0)), (BLOCK, 1));
    }

    #[test]
    fn a_million_groups_hold_no_more_than_the_rows_wanted() {
        let mut cells: Cells<u64> = Cells::new(1_001, 1, None);
        let mut most = 0;
        for group in (0..1_000_000).rev() {
            if let Some(cell) = cells.at(group, 0) {
                *cell += 1;
            }
            most = most.max(cells.bytes());
        }
        assert!(most < 200_000, "{most}");
        assert_eq!(cells.into_rows().last(), Some(&(1_000, 0, 1)));
    }
}
