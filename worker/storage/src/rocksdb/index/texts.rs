//! A tenant's dictionary of dimension values: each text once, named by a number.
//!
//! Numbers are never given twice while the process runs, so a query may keep one across locks: it
//! finds the same text or none. Texts lie in chunks that don't change once they are full, so that a
//! query can sort a million of them without holding up anybody.

use std::sync::Arc;

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_secret;

use super::table::{Narrow, Table};

/// Texts of a chunk.
const CHUNK: u32 = 256;
/// Tables of the dictionary, so that none takes long to grow.
const TABLES: usize = 16;
/// Bytes of a chunk beside its contents: reference counts, two vectors, the allocator's overhead.
const CHUNK_OVERHEAD: usize = 120;

#[derive(Debug, Clone, Default)]
struct Chunk {
    /// Where each text ends.
    ends: Vec<u32>,
    text: String,
}

impl Chunk {
    fn get(&self, at: usize) -> &str {
        let Some(end) = self.ends.get(at) else { return "" };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        self.text.get(start as usize..*end as usize).unwrap_or("")
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    /// The same numbers, without the texts that `used` lacks.
    fn without_unused(&self, first: u32, used: &RoaringBitmap) -> Self {
        let mut kept = Self::default();
        for at in 0..self.ends.len() {
            kept.push(if used.contains(first + at as u32) { self.get(at) } else { "" });
        }
        kept.shrink();
        kept
    }

    fn shrink(&mut self) {
        self.ends.shrink_to_fit();
        self.text.shrink_to_fit();
    }

    fn bytes(&self) -> usize {
        self.ends.capacity() * 4 + self.text.capacity() + CHUNK_OVERHEAD
    }
}

/// Texts by number; a clone shares all full chunks.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    full: Vec<Arc<Chunk>>,
    tail: Chunk,
}

impl Chunks {
    /// The text with this number; empty when it is gone.
    #[must_use]
    pub fn get(&self, id: u32) -> &str {
        let chunk = (id / CHUNK) as usize;
        let at = (id % CHUNK) as usize;
        match self.full.get(chunk) {
            Some(chunk) => chunk.get(at),
            None if chunk == self.full.len() => self.tail.get(at),
            None => "",
        }
    }

    /// How many numbers were given.
    fn next(&self) -> u32 {
        self.full.len() as u32 * CHUNK + self.tail.ends.len() as u32
    }
}

/// The dictionary.
#[derive(Debug)]
pub struct Texts {
    chunks: Chunks,
    tables: [Table<Narrow>; TABLES],
    secret: Arc<[u8; 192]>,
    full_bytes: usize,
}

impl Texts {
    /// An empty dictionary that hashes with `secret`, so that no client can aim at its collisions.
    #[must_use]
    pub fn new(secret: Arc<[u8; 192]>) -> Self {
        Self { chunks: Chunks::default(), tables: Default::default(), secret, full_bytes: 0 }
    }

    /// The number of `text`, new if it must be.
    pub fn intern(&mut self, text: &str) -> u32 {
        let (table, key) = self.spot(text);
        if let Some(id) = self.look(table, key, text) {
            return id;
        }
        let id = self.chunks.next();
        let chunks = &mut self.chunks;
        chunks.tail.push(text);
        if chunks.tail.ends.len() == CHUNK as usize {
            let mut full = std::mem::take(&mut chunks.tail);
            full.shrink();
            self.full_bytes += full.bytes();
            chunks.full.push(Arc::new(full));
        }
        self.tables[table].insert(Narrow { key, id });
        id
    }

    /// The number of `text`, if it has one.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<u32> {
        let (table, key) = self.spot(text);
        self.look(table, key, text)
    }

    /// The text with this number; empty when it is gone.
    #[must_use]
    pub fn get(&self, id: u32) -> &str {
        self.chunks.get(id)
    }

    /// The texts as they are now.
    #[must_use]
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Whether `count` more numbers can be given.
    #[must_use]
    pub fn has_room(&self, count: usize) -> bool {
        (self.chunks.next() as usize).saturating_add(count) < (u32::MAX - CHUNK) as usize
    }

    /// How many numbers were given.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.chunks.next() as usize
    }

    /// How many texts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// Forgets the texts that `used` lacks, but for the last few, whose chunk still grows.
    pub fn sweep(&mut self, used: &RoaringBitmap) {
        for (chunk, first) in self.chunks.full.iter_mut().zip((0..).step_by(CHUNK as usize)) {
            let kept = used.range_cardinality(first..first + CHUNK);
            if kept < chunk.ends.len() as u64 {
                self.full_bytes -= chunk.bytes();
                let swept = if kept == 0 { Chunk::default() } else { chunk.without_unused(first, used) };
                *chunk = Arc::new(swept);
                self.full_bytes += chunk.bytes();
            }
        }
        let tail = self.chunks.full.len() as u32 * CHUNK;
        for table in &mut self.tables {
            table.retain(|entry| entry.id >= tail || used.contains(entry.id));
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(Table::bytes).sum();
        self.full_bytes + self.chunks.tail.bytes() + self.chunks.full.capacity() * 8 + tables
    }

    fn spot(&self, text: &str) -> (usize, u32) {
        let hash = xxh3_64_with_secret(text.as_bytes(), self.secret.as_slice());
        ((hash >> 60) as usize % TABLES, hash as u32)
    }

    fn look(&self, table: usize, key: u32, text: &str) -> Option<u32> {
        let same = |entry: &Narrow| entry.key == key && self.chunks.get(entry.id) == text;
        self.tables[table].find(Narrow::place_of(key), same).map(|entry| entry.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_keep_their_numbers_until_they_are_swept() {
        let mut texts = Texts::new(Arc::new([7; 192]));
        let name = |n: u32| format!("value-{n}-ä");
        let ids: Vec<u32> = (0..2_000).map(|n| texts.intern(&name(n))).collect();
        assert_eq!(ids, (0..2_000).collect::<Vec<_>>());
        assert_eq!(
            (texts.intern(&name(77)), texts.find(&name(1_999)), texts.find("")),
            (77, Some(1_999), None)
        );
        let before = texts.chunks().clone();
        let used: RoaringBitmap = (0..2_000).filter(|id| *id >= 600 && id % 2 == 0).collect();
        let bytes = texts.bytes();
        texts.sweep(&used);
        assert!(texts.bytes() < bytes);
        for id in 0..2_000 {
            assert_eq!(before.get(id), name(id), "a clone stays as it was");
            if used.contains(id) || id >= 1_792 {
                assert_eq!((texts.get(id), texts.find(&name(id))), (name(id).as_str(), Some(id)));
            } else {
                assert_eq!((texts.get(id), texts.find(&name(id))), ("", None));
            }
        }
        assert_eq!(texts.intern(&name(1)), 2_000, "no number is given twice");
        assert_eq!(texts.get(9_999), "");
    }
}
