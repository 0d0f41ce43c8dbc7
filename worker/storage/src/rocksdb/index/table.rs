//! A compact hash table: open addressing with linear probing over entries that know their own hash.
//!
//! Not hashbrown, because that doubles: its load lies between 44 and 88 %, this one's between 64 and
//! 80 %, without a control byte, and a table of millions grows in steps of a quarter. And an entry can
//! be displaced in place, which is all that a bounded cache needs.

/// What a [`Table`] holds.
pub trait Entry: Copy {
    /// An entry that stands for none.
    const VACANT: Self;
    /// Whether it stands for none.
    fn is_vacant(&self) -> bool;
    /// Its hash, spread over all of u32.
    fn place(&self) -> u32;
}

/// A 128-bit hash, of which 80 bits are kept, and a series, in 14 bytes: a series has three of these or more.
///
/// Hashes are keyed with a secret, and four bits more choose the table, so that among a billion series two are alike
/// with a probability below 1 in 10 million, and none by aim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wide {
    hash: [u16; 5],
    id: [u16; 2],
}

impl Wide {
    /// The entry of `hash` and `id`.
    #[must_use]
    pub fn new(hash: u128, id: u32) -> Self {
        let part = |at: u32| (hash >> (16 * at)) as u16;
        Self { hash: [part(0), part(1), part(2), part(3), part(4)], id: [id as u16, (id >> 16) as u16] }
    }

    /// The series.
    #[must_use]
    pub fn id(&self) -> u32 {
        u32::from(self.id[0]) | u32::from(self.id[1]) << 16
    }

    /// Whether both have the same hash.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Entry for Wide {
    const VACANT: Self = Self { hash: [0; 5], id: [u16::MAX; 2] };

    fn is_vacant(&self) -> bool {
        self.id == Self::VACANT.id
    }

    fn place(&self) -> u32 {
        u32::from(self.hash[2]) | u32::from(self.hash[3]) << 16
    }
}

/// A 32-bit number (a hash, or another number) and what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrow {
    /// What is looked up.
    pub key: u32,
    /// What it leads to.
    pub id: u32,
}

impl Narrow {
    /// Where an entry with this key belongs.
    #[must_use]
    pub fn place_of(key: u32) -> u32 {
        // Fibonacci hashing: numbers given out in sequence land far apart.
        key.wrapping_mul(0x9E37_79B1)
    }
}

impl Entry for Narrow {
    const VACANT: Self = Self { key: 0, id: u32::MAX };

    fn is_vacant(&self) -> bool {
        self.id == u32::MAX
    }

    fn place(&self) -> u32 {
        Self::place_of(self.key)
    }
}

const SMALLEST: usize = 8;
/// Up to here a table doubles.
const DOUBLES: usize = 1 << 12;

/// The table.
#[derive(Debug, Clone)]
pub struct Table<E> {
    slots: Vec<E>,
    used: usize,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self { slots: Vec::new(), used: 0 }
    }
}

impl<E: Entry> Table<E> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<E>()
    }

    /// Whether one more entry would make it grow.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used >= self.slots.len() / 5 * 4
    }

    /// The entry at `place` that `matches`.
    pub fn find(&self, place: u32, matches: impl FnMut(&E) -> bool) -> Option<E> {
        self.position(place, matches).map(|at| self.slots[at])
    }

    /// Adds an entry, which must not be there.
    pub fn insert(&mut self, entry: E) {
        if self.is_full() {
            let size = self.slots.len();
            self.rebuild(if size < DOUBLES { (size * 2).max(SMALLEST) } else { size / 4 * 5 }, |_| true);
        }
        self.put(entry);
    }

    /// Puts `entry` in place of the one that `matches`; whether there was one.
    pub fn replace(&mut self, entry: E, matches: impl FnMut(&E) -> bool) -> bool {
        let Some(at) = self.position(entry.place(), matches) else { return false };
        self.slots[at] = entry;
        true
    }

    /// Puts `entry`, which must not be there, in place of one that has the same or a near place.
    pub fn displace(&mut self, entry: E) {
        if self.slots.is_empty() {
            return self.insert(entry);
        }
        let mut at = self.home(entry.place());
        if self.slots[at].is_vacant() {
            while self.slots[at].is_vacant() && self.used > 0 {
                at = self.next(at);
            }
            self.remove_at(at);
            return self.put(entry);
        }
        // The home slot is taken, so an entry is found in it or, if that is taken too, behind it.
        let next = self.next(at);
        if !self.slots[next].is_vacant() && entry.place() & 1 == 1 {
            at = next;
        }
        self.slots[at] = entry;
    }

    /// Removes the entry at `place` that `matches`.
    pub fn remove(&mut self, place: u32, matches: impl FnMut(&E) -> bool) -> Option<E> {
        let at = self.position(place, matches)?;
        let removed = self.slots[at];
        self.remove_at(at);
        Some(removed)
    }

    fn remove_at(&mut self, mut hole: usize) {
        if self.slots[hole].is_vacant() {
            return;
        }
        let mut at = self.next(hole);
        // Entries behind the hole move up, unless that would put them before their home.
        while !self.slots[at].is_vacant() {
            let home = self.home(self.slots[at].place());
            let movable = if hole <= at { home <= hole || home > at } else { home <= hole && home > at };
            if movable {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = E::VACANT;
        self.used -= 1;
    }

    /// Keeps the entries that `keep` accepts.
    pub fn retain(&mut self, keep: impl Fn(&E) -> bool) {
        let kept = self.iter().filter(|entry| keep(entry)).count();
        if kept == 0 {
            *self = Self::default();
        } else if kept < self.used {
            let size = (kept / 4 * 5 + SMALLEST).next_multiple_of(5).min(self.slots.len());
            self.rebuild(size, keep);
        }
    }

    /// The entries in no order.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.slots.iter().filter(|entry| !entry.is_vacant())
    }

    fn rebuild(&mut self, size: usize, keep: impl Fn(&E) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![E::VACANT; size]);
        self.used = 0;
        for entry in old.iter().filter(|entry| !entry.is_vacant() && keep(entry)) {
            self.put(*entry);
        }
    }

    fn put(&mut self, entry: E) {
        let mut at = self.home(entry.place());
        while !self.slots[at].is_vacant() {
            at = self.next(at);
        }
        self.slots[at] = entry;
        self.used += 1;
    }

    fn position(&self, place: u32, mut matches: impl FnMut(&E) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(place);
        loop {
            let entry = &self.slots[at];
            if entry.is_vacant() {
                return None;
            }
            if matches(entry) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    fn home(&self, place: u32) -> usize {
        ((u64::from(place) * self.slots.len() as u64) >> 32) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn find(table: &Table<Narrow>, key: u32) -> Option<u32> {
        table.find(Narrow::place_of(key), |entry| entry.key == key).map(|entry| entry.id)
    }

    #[test]
    fn it_equals_a_hash_map_under_random_changes() {
        let mut random = fastrand::Rng::with_seed(11);
        for keys in [6, 40, 3_000, 30_000] {
            let (mut table, mut model) = (Table::<Narrow>::default(), HashMap::new());
            for step in 0..60_000_u32 {
                let key = random.u32(..keys) * 7;
                match random.u8(..10) {
                    0..6 => {
                        let entry = Narrow { key, id: step };
                        if !table.replace(entry, |other| other.key == key) {
                            table.insert(entry);
                        }
                        model.insert(key, step);
                    }
                    6..9 => {
                        let removed = table.remove(Narrow::place_of(key), |entry| entry.key == key);
                        assert_eq!(removed.map(|entry| entry.id), model.remove(&key));
                    }
                    _ if step % 1_000 == 0 => {
                        table.retain(|entry| entry.id % 3 != 0);
                        model.retain(|_, id| *id % 3 != 0);
                    }
                    _ => assert_eq!(find(&table, key), model.get(&key).copied()),
                }
                assert_eq!(table.len(), model.len());
            }
            for key in (0..keys).map(|key| key * 7) {
                assert_eq!(find(&table, key), model.get(&key).copied());
            }
            assert_eq!(table.iter().count(), model.len());
        }
    }

    #[test]
    fn displacing_keeps_the_size_and_loses_only_what_gave_way() {
        let mut table = Table::<Narrow>::default();
        (0..1_000).for_each(|key| table.insert(Narrow { key, id: key }));
        let (bytes, entries) = (table.bytes(), table.len());
        for key in 1_000..20_000 {
            table.displace(Narrow { key, id: key });
            assert_eq!(find(&table, key), Some(key));
        }
        let found = (0..20_000).filter(|key| find(&table, *key) == Some(*key)).count();
        assert_eq!(found, table.len(), "every entry can be found");
        assert_eq!((table.len(), table.bytes()), (entries, bytes));
    }
}
