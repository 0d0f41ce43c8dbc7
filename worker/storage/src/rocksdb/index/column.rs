//! A column: the values that one key has in one metric, and the series of each.

use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::model::DimensionKey;

use super::order;
use super::posting::{Ids, Posting};
use super::table::{Narrow, Table};
use super::texts::Chunks;

/// Up to this many values are searched one by one; more have a table.
const SEARCHED: usize = 8;
/// The text of an ordinal that is free.
const NO_TEXT: u32 = u32::MAX;
/// Orders of columns with fewer values are cheap enough to be made under a lock.
const SMALL: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Value {
    text: u32,
    posting: Posting,
}

/// Values in the order of their texts, kept for listings once one has asked.
#[derive(Debug, Default)]
struct Sorted {
    order: Arc<Vec<u32>>,
    /// Ordinals that came after `order` was made.
    added: Vec<u32>,
}

/// What it takes to bring a column's order up to date without holding its lock.
#[derive(Debug)]
pub struct Sorting {
    order: Arc<Vec<u32>>,
    added: Vec<u32>,
    text_of: Vec<u32>,
    texts: Chunks,
}

/// Values of a key by ordinal. Ordinals of values that are gone are given again.
#[derive(Debug)]
pub struct Column {
    key: DimensionKey,
    values: Vec<Value>,
    many: Vec<Ids>,
    many_bytes: usize,
    /// What a column of few values does without.
    more: Option<Box<More>>,
    /// Text and ordinal of the last series' value: the next one often has the same.
    last: (u32, u32),
    sorted: Mutex<Option<Box<Sorted>>>,
}

#[derive(Debug, Default)]
struct More {
    /// Ordinals by text, once there are more than [`SEARCHED`].
    table: Table<Narrow>,
    free_ordinals: Vec<u32>,
    free_many: Vec<u32>,
}

impl Column {
    /// A column without values.
    #[must_use]
    pub fn new(key: DimensionKey) -> Self {
        Self {
            key,
            values: Vec::new(),
            many: Vec::new(),
            many_bytes: 0,
            more: None,
            last: (NO_TEXT, 0),
            sorted: Mutex::new(None),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &DimensionKey {
        &self.key
    }

    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() - self.more.as_ref().map_or(0, |more| more.free_ordinals.len())
    }

    /// The ordinal of the value with this text.
    #[must_use]
    pub fn find(&self, text: u32) -> Option<u32> {
        match &self.more {
            Some(more) if !more.table.is_empty() => {
                more.table.find(Narrow::place_of(text), |entry| entry.key == text).map(|entry| entry.id)
            }
            _ => self.values.iter().position(|value| value.text == text).map(|at| at as u32),
        }
    }

    /// The text of a value.
    #[must_use]
    pub fn text(&self, ordinal: u32) -> u32 {
        self.values[ordinal as usize].text
    }

    /// Texts of all values.
    pub fn texts(&self) -> impl Iterator<Item = u32> {
        self.values.iter().map(|value| value.text).filter(|text| *text != NO_TEXT)
    }

    /// Adds a series to the value with this text; returns its ordinal.
    pub fn add(&mut self, text: u32, id: u32) -> u32 {
        let known = if self.last.0 == text { Some(self.last.1) } else { self.find(text) };
        let Some(ordinal) = known else {
            self.last = (text, self.add_value(text, id));
            return self.last.1;
        };
        self.last = (text, ordinal);
        match self.values[ordinal as usize].posting {
            Posting::One(other) => {
                let ids = Ids::pair(other, id);
                self.many_bytes += ids.bytes();
                let place = if let Some(free) = self.more.as_mut().and_then(|more| more.free_many.pop()) {
                    self.many[free as usize] = ids;
                    free
                } else {
                    grow(&mut self.many);
                    self.many.push(ids);
                    self.many.len() as u32 - 1
                };
                self.values[ordinal as usize].posting = Posting::Many(place);
            }
            Posting::Many(place) => {
                let ids = &mut self.many[place as usize];
                self.many_bytes -= ids.bytes();
                ids.insert(id);
                self.many_bytes += ids.bytes();
            }
        }
        ordinal
    }

    fn add_value(&mut self, text: u32, id: u32) -> u32 {
        let value = Value { text, posting: Posting::One(id) };
        let ordinal = if let Some(free) = self.more.as_mut().and_then(|more| more.free_ordinals.pop()) {
            self.values[free as usize] = value;
            free
        } else {
            grow(&mut self.values);
            self.values.push(value);
            self.values.len() as u32 - 1
        };
        self.add_to_table(text, ordinal);
        if let Some(sorted) = self.sorted.get_mut() {
            sorted.added.push(ordinal);
        }
        ordinal
    }

    fn add_to_table(&mut self, text: u32, ordinal: u32) {
        if self.values.len() <= SEARCHED {
            return;
        }
        let table = &mut self.more.get_or_insert_default().table;
        if !table.is_empty() {
            table.insert(Narrow { key: text, id: ordinal });
            return;
        }
        for (ordinal, value) in (0..).zip(&self.values).filter(|(_, value)| value.text != NO_TEXT) {
            table.insert(Narrow { key: value.text, id: ordinal });
        }
    }

    /// Removes the series in `gone` from a value, and the value when it has no other.
    pub fn remove(&mut self, ordinal: u32, gone: &RoaringBitmap) {
        let left = match self.values[ordinal as usize].posting {
            Posting::One(id) => (!gone.contains(id)).then_some(id),
            Posting::Many(place) => {
                let ids = &mut self.many[place as usize];
                self.many_bytes -= ids.bytes();
                let Some(left) = ids.remove(gone) else {
                    self.many_bytes += ids.bytes();
                    return;
                };
                self.more.get_or_insert_default().free_many.push(place);
                left
            }
        };
        match left {
            Some(id) => self.values[ordinal as usize].posting = Posting::One(id),
            None => self.remove_value(ordinal),
        }
    }

    fn remove_value(&mut self, ordinal: u32) {
        let text = std::mem::replace(&mut self.values[ordinal as usize].text, NO_TEXT);
        if text == NO_TEXT {
            return;
        }
        self.last = (NO_TEXT, 0);
        let more = self.more.get_or_insert_default();
        more.table.remove(Narrow::place_of(text), |entry| entry.key == text);
        more.free_ordinals.push(ordinal);
        *self.sorted.get_mut() = None;
        if self.len() == 0 {
            let key = self.key.clone();
            *self = Self::new(key);
        }
    }

    /// How many series a value has that `hidden` lacks.
    #[must_use]
    pub fn count(&self, ordinal: u32, hidden: &RoaringBitmap) -> u64 {
        match self.values[ordinal as usize].posting {
            _ if self.values[ordinal as usize].text == NO_TEXT => 0,
            Posting::One(id) => u64::from(!hidden.contains(id)),
            Posting::Many(place) => self.many[place as usize].len_without(hidden),
        }
    }

    /// Whether a value has a series that `hidden` lacks.
    #[must_use]
    pub fn any_present(&self, hidden: &RoaringBitmap) -> bool {
        (0..self.values.len() as u32).any(|ordinal| self.count(ordinal, hidden) > 0)
    }

    /// How many series a value has, hidden or not.
    #[must_use]
    pub fn size(&self, ordinal: u32) -> u64 {
        match self.values[ordinal as usize].posting {
            Posting::One(_) => 1,
            Posting::Many(place) => self.many[place as usize].len(),
        }
    }

    /// The series of a value.
    #[must_use]
    pub fn series(&self, ordinal: u32) -> RoaringBitmap {
        match self.values[ordinal as usize].posting {
            Posting::One(id) => RoaringBitmap::from_iter([id]),
            Posting::Many(place) => self.many[place as usize].to_bitmap(),
        }
    }

    /// Removes from `series` all that lack a value.
    pub fn intersect(&self, ordinal: u32, series: &mut RoaringBitmap) {
        match self.values[ordinal as usize].posting {
            Posting::One(id) => *series &= RoaringBitmap::from_iter([id]),
            Posting::Many(place) => self.many[place as usize].intersect(series),
        }
    }

    /// What there is to sort before [`Column::order`] is cheap; `None` when it is already.
    #[must_use]
    pub fn sorting(&self, texts: &Chunks) -> Option<Sorting> {
        let mut sorted = self.sorted.lock();
        let sorted = sorted.get_or_insert_with(|| self.unsorted());
        if sorted.added.len() < SMALL {
            return None;
        }
        Some(Sorting {
            order: sorted.order.clone(),
            added: sorted.added.clone(),
            text_of: self.values.iter().map(|value| value.text).collect(),
            texts: texts.clone(),
        })
    }

    /// Takes over what was sorted, unless the column has changed too much since.
    pub fn adopt(&self, sorting: &Sorting, order: Vec<u32>) {
        let mut sorted = self.sorted.lock();
        let Some(sorted) = sorted.as_mut() else { return };
        if Arc::ptr_eq(&sorted.order, &sorting.order) && sorted.added.starts_with(&sorting.added) {
            sorted.order = Arc::new(order);
            sorted.added.drain(..sorting.added.len());
        }
    }

    /// The ordinals in the order of their texts.
    #[must_use]
    pub fn order(&self, texts: &Chunks) -> Arc<Vec<u32>> {
        let mut sorted = self.sorted.lock();
        let sorted = sorted.get_or_insert_with(|| self.unsorted());
        if !sorted.added.is_empty() {
            let added = std::mem::take(&mut sorted.added);
            sorted.order = Arc::new(order::merge(texts, &sorted.order, &added, |at| self.text(at)));
        }
        sorted.order.clone()
    }

    fn unsorted(&self) -> Box<Sorted> {
        let live = |ordinal: &u32| self.text(*ordinal) != NO_TEXT;
        let added = (0..self.values.len() as u32).filter(live).collect();
        Box::new(Sorted { order: Arc::default(), added })
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| {
            let free = (more.free_ordinals.capacity() + more.free_many.capacity()) * 4;
            more.table.bytes() + free + size_of::<More>()
        });
        let many = self.many.capacity() * size_of::<Ids>() + self.many_bytes;
        self.values.capacity() * size_of::<Value>() + many + more
    }

    /// Bytes of its order, where a listing has asked for it.
    #[must_use]
    pub fn order_bytes(&self) -> usize {
        let sorted = self.sorted.lock();
        sorted.as_ref().map_or(0, |sorted| (sorted.order.capacity() + sorted.added.capacity()) * 4)
    }
}

impl Sorting {
    /// Sorts.
    #[must_use]
    pub fn run(&self) -> Vec<u32> {
        order::merge(&self.texts, &self.order, &self.added, |ordinal| self.text_of[ordinal as usize])
    }
}

/// Makes room for one more, by a quarter at a time: there may be a million of them.
fn grow<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact(if items.len() < 64 { items.len().max(2) } else { items.len() / 4 });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use crate::rocksdb::index::texts::Texts;

    use super::*;

    #[test]
    fn values_and_their_series_equal_a_map_and_orders_stay_right() {
        let mut random = fastrand::Rng::with_seed(9);
        for distinct in [5, 300, 4_000] {
            let mut texts = Texts::new(Arc::new([3; 192]));
            let mut column = Column::new(DimensionKey::new("k").unwrap());
            let mut model: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            let none = RoaringBitmap::new();
            for id in 0..6_000_u32 {
                let value = format!("v{}", random.u32(..distinct));
                column.add(texts.intern(&value), id);
                model.entry(value).or_default().insert(id);
                if id % 1_500 == 700
                    && let Some(sorting) = column.sorting(texts.chunks())
                {
                    column.adopt(&sorting, sorting.run());
                }
                if id % 1_000 == 999 {
                    let gone: RoaringBitmap = (0..id).filter(|_| random.u8(..3) == 0).collect();
                    let ordinals: Vec<u32> = column.order(texts.chunks()).to_vec();
                    ordinals.iter().for_each(|ordinal| column.remove(*ordinal, &gone));
                    model.values_mut().for_each(|ids| ids.retain(|id| !gone.contains(*id)));
                    model.retain(|_, ids| !ids.is_empty());
                }
            }
            let order = column.order(texts.chunks());
            assert_eq!((order.len(), column.len()), (model.len(), model.len()));
            for (ordinal, (value, ids)) in order.iter().zip(&model) {
                assert_eq!(texts.get(column.text(*ordinal)), value);
                assert_eq!(column.find(texts.find(value).unwrap()), Some(*ordinal));
                assert!(column.series(*ordinal).iter().eq(ids.iter().copied()));
                assert_eq!(column.count(*ordinal, &none), ids.len() as u64);
                assert_eq!(column.size(*ordinal), ids.len() as u64);
            }
        }
    }
}
