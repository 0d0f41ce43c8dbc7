//! The head: what was written since the last seal, in memory, one open block per series.

mod block;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;

pub use block::OpenBlock;

use super::paged::Paged;
use super::record::Rows;

/// Locks of a head; series are spread over them by number. Not persisted.
const SHARDS: usize = 16;

/// Open blocks by series; written by the committer only, read by every query.
#[derive(Debug)]
pub struct Head {
    shards: Vec<RwLock<Paged<OpenBlock>>>,
    bytes: AtomicU64,
    samples: AtomicU64,
    min_time: AtomicI64,
    max_time: AtomicI64,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            bytes: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            min_time: AtomicI64::new(i64::MAX),
            max_time: AtomicI64::new(i64::MIN),
        }
    }
}

impl Head {
    /// Adds the rows of committed batches, in order.
    pub fn apply(&self, batches: &[&Rows]) {
        // Grouped by shard first, so that no lock is held longer than a part of the work takes.
        let mut starts = [0_usize; SHARDS + 1];
        for rows in batches {
            for id in &rows.ids {
                starts[*id as usize % SHARDS + 1] += 1;
            }
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let mut next = starts;
        let mut order = vec![(0_u32, 0_u32); starts[SHARDS]];
        for (batch, rows) in (0_u32..).zip(batches) {
            for (row, id) in (0_u32..).zip(&rows.ids) {
                let place = &mut next[*id as usize % SHARDS];
                order[*place] = (batch, row);
                *place += 1;
            }
        }
        let (mut grown, mut min_time, mut max_time) = (0_usize, i64::MAX, i64::MIN);
        for shard in 0..SHARDS {
            let part = &order[starts[shard]..starts[shard + 1]];
            if part.is_empty() {
                continue;
            }
            let mut blocks = self.shards[shard].write();
            for (batch, row) in part {
                let rows = batches[*batch as usize];
                let (id, time) = (rows.ids[*row as usize], rows.times[*row as usize]);
                let slot = id as usize / SHARDS;
                if blocks.is_missing(slot) {
                    let without = blocks.bytes();
                    blocks.entry(slot);
                    grown = grown.wrapping_add(blocks.bytes() - without);
                }
                let block = blocks.entry(slot);
                let before = block.heap_bytes();
                block.push(time, rows.values[*row as usize]);
                // Wraps when a block shrinks; the sum is right again modulo 2^64.
                grown = grown.wrapping_add(block.heap_bytes()).wrapping_sub(before);
                min_time = min_time.min(time);
                max_time = max_time.max(time);
            }
        }
        self.bytes.fetch_add(grown as u64, Ordering::Relaxed);
        self.samples.fetch_add(order.len() as u64, Ordering::Relaxed);
        self.min_time.fetch_min(min_time, Ordering::Relaxed);
        self.max_time.fetch_max(max_time, Ordering::Relaxed);
    }

    /// Appends the samples of series `id` to `times` and `values`, ascending, without duplicates.
    pub fn read(&self, id: u32, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        self.read_within(id, &(i64::MIN..=i64::MAX), times, values);
    }

    /// The same of those whose times are in `range`.
    pub fn read_within(
        &self,
        id: u32,
        range: &RangeInclusive<i64>,
        times: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) {
        let blocks = self.shards[id as usize % SHARDS].read();
        if let Some(block) = blocks.get(id as usize / SHARDS) {
            block.decode_within(range, times, values);
        }
    }

    /// Removes samples with `time < before` of the series that `belongs` accepts.
    pub fn delete_before(&self, before: i64, belongs: impl Fn(u32) -> bool) {
        for (shard, blocks) in self.shards.iter().enumerate() {
            for (slot, block) in blocks.write().iter_mut() {
                if !block.is_empty() && belongs(id_of(shard, slot)) {
                    let (had, left) = block.delete_before(before);
                    self.samples.fetch_sub((had - left) as u64, Ordering::Relaxed);
                }
            }
        }
    }

    /// The series with a sample, ascending.
    #[must_use]
    pub fn series(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        for (shard, blocks) in self.shards.iter().enumerate() {
            let blocks = blocks.read();
            let filled = blocks.iter().filter(|(_, block)| !block.is_empty());
            ids.extend(filled.map(|(slot, _)| id_of(shard, slot)));
        }
        ids.sort_unstable();
        ids
    }

    /// Samples held of series `id`, before equal times are merged.
    #[must_use]
    pub fn count(&self, id: u32) -> usize {
        let blocks = self.shards[id as usize % SHARDS].read();
        blocks.get(id as usize / SHARDS).map_or(0, OpenBlock::count)
    }

    /// Whether a sample may lie in `[start, end)`.
    #[must_use]
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min_time.load(Ordering::Relaxed) < end && start <= self.max_time.load(Ordering::Relaxed)
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Samples it took in, less the deleted ones.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "made of a u32")]
fn id_of(shard: usize, slot: usize) -> u32 {
    (slot * SHARDS + shard) as u32
}

#[cfg(test)]
mod tests {
    use crate::model::Tenant;

    use super::*;

    fn rows(rows: &[(u32, i64, f64)]) -> Rows {
        Rows {
            tenant: Tenant::new("t").unwrap(),
            ids: rows.iter().map(|row| row.0).collect(),
            times: rows.iter().map(|row| row.1).collect(),
            values: rows.iter().map(|row| row.2).collect(),
        }
    }

    fn read(head: &Head, id: u32) -> Vec<(i64, f64)> {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        head.read(id, &mut times, &mut values);
        times.into_iter().zip(values).collect()
    }

    #[test]
    fn batches_apply_in_order_and_deletes_touch_only_what_belongs() {
        let head = Head::default();
        let first = rows(&[(5, 10, 1.0), (21, 10, 2.0), (5, 20, 3.0)]);
        let second = rows(&[(5, 10, 4.0), (700, 30, 5.0)]);
        head.apply(&[&first, &second]);
        assert_eq!(read(&head, 5), [(10, 4.0), (20, 3.0)]);
        assert_eq!(read(&head, 21), [(10, 2.0)]);
        assert_eq!(read(&head, 6), []);
        assert_eq!(head.series(), [5, 21, 700]);
        assert!(head.overlaps(30, 31) && !head.overlaps(31, 99) && !head.overlaps(0, 10));
        head.delete_before(20, |id| id == 5);
        assert_eq!(read(&head, 5), [(20, 3.0)]);
        assert_eq!(read(&head, 21), [(10, 2.0)]);
        assert!(head.bytes() > 0);
    }
}
