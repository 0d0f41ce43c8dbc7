//! The series themselves: for each a row of small numbers, packed.
//!
//! A row is the number of its shape (metric and keys), then for each key the ordinal of its value in
//! the key's column, as varints: ten dimensions of few values take some twelve bytes.

use hashbrown::HashMap;

use super::varint;

/// Series whose places are kept together. Not persisted.
const PAGE: usize = 32;
const ABSENT: u32 = u32::MAX;
/// Rows begin within the first 64 KiB of a chunk, so that a place is 16 bits of chunk and 16 of offset.
const CHUNK: usize = 1 << 16;
/// Rows are packed anew when at least this much, and half of all, is garbage.
const GARBAGE: usize = 1 << 20;

/// Rows by series.
#[derive(Debug, Default)]
pub struct Rows {
    pages: HashMap<u32, Box<[u32; PAGE]>>,
    chunks: Vec<Vec<u8>>,
    full_bytes: usize,
    used: usize,
    garbage: usize,
}

/// A row on its way through a reader.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a>(&'a [u8]);

impl Row<'_> {
    /// The next number: the shape, then the ordinals.
    pub fn next(&mut self) -> u32 {
        debug_assert!(!self.0.is_empty());
        varint::take(&mut self.0).unwrap_or(0)
    }

    /// The number after the next `count`.
    pub fn nth(&mut self, count: usize) -> u32 {
        for _ in 0..count {
            let end = self.0.iter().position(|byte| *byte < 0x80).map_or(self.0.len(), |at| at + 1);
            self.0 = &self.0[end..];
        }
        self.next()
    }
}

impl Rows {
    /// Adds the row of series `id`, which has none.
    pub fn push(&mut self, id: u32, row: &[u8]) {
        let place = self.append(row);
        let page = self.pages.entry(id / PAGE as u32).or_insert_with(|| Box::new([ABSENT; PAGE]));
        page[id as usize % PAGE] = place;
    }

    /// The row of series `id`.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<Row<'_>> {
        let place = self.pages.get(&(id / PAGE as u32))?[id as usize % PAGE];
        if place == ABSENT { None } else { Some(self.at(place)) }
    }

    /// Removes the row of series `id`, which has `columns` columns.
    pub fn remove(&mut self, id: u32, columns: usize) {
        let Some(mut row) = self.get(id) else { return };
        let length = row.0.len();
        row.nth(columns);
        self.garbage += length - row.0.len();
        let number = id / PAGE as u32;
        if let Some(page) = self.pages.get_mut(&number) {
            page[id as usize % PAGE] = ABSENT;
            if page.iter().all(|place| *place == ABSENT) {
                self.pages.remove(&number);
            }
        }
    }

    /// Whether packing the rows anew is worth it.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.garbage > GARBAGE && self.garbage > self.used / 2
    }

    /// Packs the rows anew; `columns_of` tells how many columns a shape has.
    pub fn pack(&mut self, columns_of: impl Fn(u32) -> usize) {
        let mut packed = Self::default();
        let mut ids: Vec<u32> = self.pages.keys().copied().collect();
        ids.sort_unstable();
        for id in ids.iter().flat_map(|page| (0..PAGE as u32).map(move |at| page * PAGE as u32 + at)) {
            let Some(row) = self.get(id) else { continue };
            let mut rest = row;
            let shape = rest.next();
            let columns = columns_of(shape);
            if columns > 0 {
                rest.nth(columns - 1);
            }
            packed.push(id, &row.0[..row.0.len() - rest.0.len()]);
        }
        packed.pages.shrink_to_fit();
        *self = packed;
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tail = self.chunks.last().map_or(0, Vec::capacity);
        let pages = self.pages.len() * (size_of::<[u32; PAGE]>() + 16);
        self.full_bytes + tail + self.chunks.capacity() * 24 + pages + self.pages.capacity() * 17
    }

    /// Whether `count` more rows of at most `columns` columns fit.
    #[must_use]
    pub fn has_room(&self, count: usize, columns: usize) -> bool {
        let bytes = count.saturating_mul(5 * (columns + 1));
        self.chunks.len() + bytes / (CHUNK / 2) + 2 < CHUNK
    }

    fn append(&mut self, row: &[u8]) -> u32 {
        self.used += row.len();
        if self.chunks.last().is_none_or(|tail| tail.len() >= CHUNK) {
            if let Some(full) = self.chunks.last_mut() {
                full.shrink_to_fit();
                self.full_bytes += full.capacity();
            }
            self.chunks.push(Vec::new());
        }
        let number = self.chunks.len() - 1;
        let tail = &mut self.chunks[number];
        let place = (number << 16 | tail.len()) as u32;
        tail.extend_from_slice(row);
        place
    }

    fn at(&self, place: u32) -> Row<'_> {
        let chunk = &self.chunks[(place >> 16) as usize];
        Row(&chunk[(place & 0xFFFF) as usize..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series n has n % 4 columns; the shape is n % 4, ordinals are multiples of n.
    fn row(id: u32) -> Vec<u8> {
        let mut row = Vec::new();
        varint::put(&mut row, id % 4);
        (0..id % 4).for_each(|column| varint::put(&mut row, id * 1_000 * (column + 1)));
        row
    }

    fn check(rows: &Rows, id: u32) {
        let mut found = rows.get(id).unwrap();
        assert_eq!(found.next(), id % 4);
        for column in 0..id % 4 {
            assert_eq!(found.clone().nth(0), id * 1_000 * (column + 1));
            found.next();
        }
        if !id.is_multiple_of(4) {
            assert_eq!(rows.get(id).unwrap().nth((id % 4) as usize), id * 1_000 * (id % 4));
        }
    }

    #[test]
    fn rows_come_back_also_after_removals_and_packing() {
        let mut rows = Rows::default();
        let ids: Vec<u32> = (0..400_000).filter(|id| id % 7 != 3).collect();
        ids.iter().for_each(|id| rows.push(*id, &row(*id)));
        ids.iter().step_by(97).for_each(|id| check(&rows, *id));
        assert!(rows.get(3).is_none() && rows.get(500_000).is_none());
        let gone = |id: &u32| id % 8 != 6 || *id < 50_000;
        ids.iter().filter(|id| gone(id)).for_each(|id| rows.remove(*id, (*id % 4) as usize));
        assert!(rows.is_sparse());
        let bytes = rows.bytes();
        rows.pack(|shape| shape as usize);
        assert!(!rows.is_sparse() && rows.bytes() < bytes / 2);
        for id in 0..400_000 {
            match id % 7 != 3 && !gone(&id) {
                true => check(&rows, id),
                false => assert!(rows.get(id).is_none()),
            }
        }
    }
}
