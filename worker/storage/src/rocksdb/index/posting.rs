//! Postings: which series have a value, as small as their number and spread allow.

use roaring::RoaringBitmap;

use super::varint;

/// The series of one value: most values of a high-cardinality key have just one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posting {
    /// One series.
    One(u32),
    /// The place of its [`Ids`] in its column.
    Many(u32),
}

/// Two series or more.
#[derive(Debug)]
pub enum Ids {
    /// Very few: no memory beside this.
    Short(Short),
    /// Few, or far apart: varint steps, about 1–3 bytes each.
    Packed(Packed),
    /// Many and close together.
    Bitmap(Box<Bitmap>),
}

/// Up to [`SHORT`] series, ascending.
#[derive(Debug, Clone, Copy, Default)]
pub struct Short {
    ids: [u32; SHORT],
    count: u8,
}

/// As many as fit where the other kinds keep their fields.
const SHORT: usize = 8;

impl Short {
    fn ids(&self) -> &[u32] {
        &self.ids[..usize::from(self.count)]
    }

    /// Adds a series; whether there was room.
    fn insert(&mut self, id: u32) -> bool {
        let Err(at) = self.ids().binary_search(&id) else { return true };
        let count = usize::from(self.count);
        if count == SHORT {
            return false;
        }
        self.ids.copy_within(at..count, at + 1);
        self.ids[at] = id;
        self.count += 1;
        true
    }
}

/// Ascending series as varint steps, the first from 0.
#[derive(Debug, Default)]
pub struct Packed {
    steps: Vec<u8>,
    last: u32,
    count: u32,
}

/// A roaring bitmap that knows its size on the heap.
///
/// Numbers that are greater than all others wait in front of it for some more: to put one behind the last is to look for the
/// last, for which roaring goes through a bitset's 8 KB, and to find its place is to search an array of as many.
#[derive(Debug, Default)]
pub struct Bitmap {
    ids: RoaringBitmap,
    /// Greater than those in `ids`, ascending; the first [`Bitmap::waiting`] of them count.
    tail: [u32; TAIL],
    waiting: u32,
    /// The greatest of all, and of those in `ids`.
    last: u32,
    settled: u32,
    count: u32,
    /// Of `ids`.
    bytes: u32,
}

/// As many as make the allocator's size full.
const TAIL: usize = 28;

/// Part of the room in a bitmap's arrays that may be empty before it is given back.
const EMPTY: u64 = 8;

/// A packed list becomes a bitmap from this many series on, and where it has at least [`DENSE`] in
/// each 65,536 of the numbers that it spans; below that a bitmap's containers cost more than the list.
const BITMAP_FROM: u32 = 64;
const DENSE: u32 = 32;

/// Whether so many series between these two are worth a bitmap.
fn is_dense(count: u32, first: Option<u32>, last: Option<u32>) -> bool {
    let (Some(first), Some(last)) = (first, last) else { return false };
    count >= BITMAP_FROM && count >= DENSE * ((last >> 16) - (first >> 16) + 1)
}

/// Bytes of `ids` on the heap, about.
#[must_use]
pub fn bitmap_bytes(ids: &RoaringBitmap) -> usize {
    let facts = ids.statistics();
    // The statistics count four bytes for each place of an array, which has two, and the bits of a
    // bitset; a container's own fields and the allocator's overhead are some 56 bytes.
    let arrays = facts.n_bytes_array_containers / 2;
    let others = facts.n_bytes_bitset_containers / 8 + facts.n_bytes_run_containers;
    (arrays + others) as usize + facts.n_containers as usize * 56
}

impl Packed {
    fn iter(&self) -> impl Iterator<Item = u32> {
        let mut rest = &self.steps[..];
        let mut id = 0_u32;
        std::iter::from_fn(move || {
            id = id.wrapping_add(varint::take(&mut rest)?);
            Some(id)
        })
    }

    fn push(&mut self, id: u32) {
        if self.steps.capacity() - self.steps.len() < 5 {
            // Not doubled: there may be a million of these.
            self.steps.reserve_exact(5 + self.steps.len() / 4);
        }
        varint::put(&mut self.steps, id - self.last);
        self.last = id;
        self.count += 1;
    }

    fn from_ids(ids: impl Iterator<Item = u32>) -> Self {
        let mut packed = Self::default();
        ids.for_each(|id| packed.push(id));
        packed.steps.shrink_to_fit();
        packed
    }

    fn insert(&mut self, id: u32) {
        if id > self.last {
            return self.push(id);
        }
        let mut ids: Vec<u32> = self.iter().collect();
        if let Err(at) = ids.binary_search(&id) {
            ids.insert(at, id);
            *self = Self::from_ids(ids.into_iter());
        }
    }

    fn is_dense(&self) -> bool {
        is_dense(self.count, self.iter().next(), Some(self.last))
    }
}

impl Bitmap {
    fn new(ids: RoaringBitmap) -> Box<Self> {
        let last = ids.max().unwrap_or(0);
        let (count, bytes) = (ids.len() as u32, bitmap_bytes(&ids) as u32);
        Box::new(Self { ids, last, settled: last, count, bytes, ..Self::default() })
    }

    fn tail(&self) -> &[u32] {
        &self.tail[..self.waiting as usize]
    }

    fn insert(&mut self, id: u32) {
        if id > self.last {
            self.tail[self.waiting as usize] = id;
            self.waiting += 1;
            self.last = id;
            self.count += 1;
            if self.waiting as usize == TAIL {
                self.settle();
            }
        } else if !self.tail().contains(&id) {
            self.settle();
            if self.ids.insert(id) {
                self.count += 1;
                self.weigh(1);
            }
        }
    }

    /// Takes in what waits.
    fn settle(&mut self) {
        let waiting = self.waiting;
        if self.last >> 16 > self.settled >> 16 {
            self.trim();
        }
        let tail = &self.tail[..waiting as usize];
        if self.ids.append(tail.iter().copied()).is_err() {
            self.ids.extend(tail);
        }
        (self.waiting, self.settled) = (0, self.last);
        self.weigh(waiting);
    }

    /// Brings its bytes up to date after the last `added` numbers: measured now and then, guessed in between, as measuring
    /// visits every container.
    fn weigh(&mut self, added: u32) {
        self.bytes += 3 * added;
        if self.count / 1_024 > (self.count - added) / 1_024 {
            self.bytes = bitmap_bytes(&self.ids) as u32;
        }
    }

    /// Gives back what arrays have doubled in vain, where numbers begin that they won't hold. A copy has no empty room,
    /// and as an eighth must be empty before one is made, all copies together are a few times the whole.
    fn trim(&mut self) {
        let facts = self.ids.statistics();
        let (room, used) = (facts.n_bytes_array_containers / 4, u64::from(facts.n_values_array_containers));
        if room - used > room / EMPTY {
            self.ids = self.ids.clone();
            self.bytes = bitmap_bytes(&self.ids) as u32;
        }
    }

    fn to_bitmap(&self) -> RoaringBitmap {
        let mut ids = self.ids.clone();
        ids.extend(self.tail());
        ids
    }

    fn intersect(&self, series: &mut RoaringBitmap) {
        let waiting: RoaringBitmap = self.tail().iter().filter(|id| series.contains(**id)).collect();
        *series &= &self.ids;
        *series |= waiting;
    }

    fn len_without(&self, hidden: &RoaringBitmap) -> u64 {
        let waiting = self.tail().iter().filter(|id| !hidden.contains(**id));
        self.ids.difference_len(hidden) + waiting.count() as u64
    }
}

impl Ids {
    /// Two series.
    #[must_use]
    pub fn pair(one: u32, other: u32) -> Self {
        let mut short = Short::default();
        short.insert(one);
        short.insert(other);
        Self::Short(short)
    }

    /// The smallest kind that holds `ids`.
    fn from_bitmap(ids: RoaringBitmap) -> Self {
        if ids.len() <= SHORT as u64 {
            let mut short = Short::default();
            for id in &ids {
                short.insert(id);
            }
            return Self::Short(short);
        }
        if is_dense(ids.len() as u32, ids.min(), ids.max()) {
            return Self::Bitmap(Bitmap::new(ids));
        }
        Self::Packed(Packed::from_ids(ids.iter()))
    }

    /// Adds a series; cheap when it is greater than all others.
    pub fn insert(&mut self, id: u32) {
        match self {
            Self::Short(short) => {
                if !short.insert(id) {
                    let mut packed = Packed::from_ids(short.ids().iter().copied());
                    packed.insert(id);
                    *self = Self::Packed(packed);
                }
            }
            Self::Packed(packed) => {
                packed.insert(id);
                if packed.count.is_power_of_two() && packed.is_dense() {
                    *self = Self::Bitmap(Bitmap::new(packed.iter().collect()));
                }
            }
            Self::Bitmap(bitmap) => bitmap.insert(id),
        }
    }

    /// Removes the series in `gone`; returns what is left when that is one or none.
    pub fn remove(&mut self, gone: &RoaringBitmap) -> Option<Option<u32>> {
        let mut ids = match self {
            Self::Bitmap(bitmap) => {
                bitmap.settle();
                std::mem::take(&mut bitmap.ids)
            }
            _ => self.to_bitmap(),
        };
        ids -= gone;
        *self = Self::from_bitmap(ids);
        match self {
            Self::Short(short) if short.count <= 1 => Some(short.ids().first().copied()),
            _ => None,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Short(short) => u64::from(short.count),
            Self::Packed(packed) => u64::from(packed.count),
            Self::Bitmap(bitmap) => u64::from(bitmap.count),
        }
    }

    /// How many of them `hidden` lacks.
    #[must_use]
    pub fn len_without(&self, hidden: &RoaringBitmap) -> u64 {
        match self {
            _ if hidden.is_empty() => self.len(),
            Self::Short(short) => short.ids().iter().filter(|id| !hidden.contains(**id)).count() as u64,
            Self::Packed(packed) => packed.iter().filter(|id| !hidden.contains(*id)).count() as u64,
            Self::Bitmap(bitmap) => bitmap.len_without(hidden),
        }
    }

    /// As a bitmap.
    #[must_use]
    pub fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Self::Short(short) => short.ids().iter().collect(),
            Self::Packed(packed) => packed.iter().collect(),
            Self::Bitmap(bitmap) => bitmap.to_bitmap(),
        }
    }

    /// Removes from `series` all that are not among these.
    pub fn intersect(&self, series: &mut RoaringBitmap) {
        match self {
            Self::Bitmap(bitmap) => bitmap.intersect(series),
            _ => *series &= self.to_bitmap(),
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Short(_) => 0,
            Self::Packed(packed) => packed.steps.capacity() + 8,
            Self::Bitmap(bitmap) => bitmap.bytes as usize + size_of::<Bitmap>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn both_kinds_equal_a_set_in_any_order_of_change() {
        let mut random = fastrand::Rng::with_seed(5);
        for spread in [50, 4_000, 200_000, u32::MAX - 1] {
            let mut model = BTreeSet::from([1, 2]);
            let mut ids = Ids::pair(2, 1);
            for step in 0..3_000 {
                let id = if step % 3 == 0 { random.u32(..spread) } else { model.last().map_or(0, |l| l + 1) };
                let id = id.min(u32::MAX - 1);
                model.insert(id);
                ids.insert(id);
                assert_eq!(ids.len(), model.len() as u64);
            }
            assert!(ids.to_bitmap().iter().eq(model.iter().copied()));
            let hidden: RoaringBitmap = model.iter().copied().filter(|id| id % 3 == 0).collect();
            assert_eq!(ids.len_without(&hidden), model.iter().filter(|id| *id % 3 != 0).count() as u64);
            let mut half: RoaringBitmap = model.iter().copied().step_by(2).chain([u32::MAX]).collect();
            ids.intersect(&mut half);
            assert_eq!(half.len(), model.len().div_ceil(2) as u64);
            assert_eq!(ids.remove(&hidden), None);
            model.retain(|id| id % 3 != 0);
            assert!(ids.to_bitmap().iter().eq(model.iter().copied()));
            let last = model.pop_last();
            assert_eq!(ids.remove(&model.iter().copied().collect()), Some(last));
            assert_eq!(ids.remove(&last.into_iter().collect()), Some(None));
        }
    }

    #[test]
    fn what_a_bitmap_doubled_in_vain_is_given_back() {
        // 3,277 numbers of each 65,536 would leave a fifth of every array empty.
        let mut ids = Ids::pair(0, 20);
        (2..100_000).for_each(|n| ids.insert(n * 20));
        assert!(matches!(ids, Ids::Bitmap(_)) && ids.bytes() < 236_000, "{}", ids.bytes());
        assert!(ids.to_bitmap().iter().eq((0..100_000).map(|n| n * 20)));
    }

    #[test]
    fn the_bytes_of_a_bitmap_are_measured_in_whatever_order_it_grows() {
        // Two bitsets of 8 KB each.
        let mut falling = Ids::pair(99_999, 99_998);
        (0..99_998).rev().for_each(|id| falling.insert(id));
        assert!(matches!(falling, Ids::Bitmap(_)) && falling.bytes() < 20_000, "{}", falling.bytes());
        assert!(falling.to_bitmap().iter().eq(0..100_000));
    }

    #[test]
    fn a_sparse_list_stays_packed_and_a_dense_one_does_not() {
        let mut sparse = Ids::pair(0, 100_000);
        let mut dense = Ids::pair(0, 10);
        for n in 2..1_000 {
            sparse.insert(n * 100_000);
            dense.insert(n * 10);
        }
        assert!(matches!(sparse, Ids::Packed(_)) && sparse.bytes() < 4_000);
        assert!(matches!(dense, Ids::Bitmap(_)) && dense.bytes() < 4_000);
        assert!(size_of::<Ids>() <= 40 && size_of::<Posting>() == 8);
    }
}
