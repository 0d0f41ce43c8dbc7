//! Marks series as present on the days of their samples.

use std::collections::HashMap;

use crate::model::Tenant;
use crate::rocksdb::engine::Inner;
use crate::rocksdb::layer::{day_of, day_start};
use crate::rocksdb::paged::Paged;
use crate::rocksdb::record::Rows;

/// Which (day, series) are marked already: asked for every row, so a bit each.
#[derive(Debug, Default)]
pub struct Marks(HashMap<i32, Paged<u64>>);

/// Marks of more days than a write window usually has are forgotten and made anew.
const MOST_DAYS: usize = 32;

impl Marks {
    /// Marks the series of `rows` in the index, where they are not yet.
    pub fn mark(&mut self, inner: &Inner, rows: &Rows) {
        let mut fresh: HashMap<i32, Vec<u32>> = HashMap::new();
        let (mut last_time, mut day) = (i64::MIN, 0);
        for (id, time) in rows.ids.iter().zip(&rows.times) {
            if *time != last_time {
                (last_time, day) = (*time, day_of(*time));
            }
            if self.set(day, *id) {
                fresh.entry(day).or_default().push(*id);
            }
        }
        for (day, mut ids) in fresh {
            ids.sort_unstable();
            inner.mark_present(&rows.tenant, day, &ids);
        }
    }

    /// Sets the bit; whether it was unset.
    fn set(&mut self, day: i32, id: u32) -> bool {
        if self.0.len() > MOST_DAYS && !self.0.contains_key(&day) {
            self.0.clear();
        }
        let (word, bit) = (id as usize / 64, 1_u64 << (id % 64));
        let word = self.0.entry(day).or_default().entry(word);
        let unset = *word & bit == 0;
        *word |= bit;
        unset
    }
}

impl Inner {
    /// Marks `ids` (ascending) present on `day`.
    pub(in crate::rocksdb) fn mark_present(&self, tenant: &Tenant, day: i32, ids: &[u32]) {
        self.index.tenant(tenant).mark(day, ids);
        self.dirty_days.lock().insert((tenant.clone(), day));
        if day_start(day) < self.living(tenant).of_all() {
            // It may have expired before it came: whoever asks next looks again.
            self.expired.lock().remove(tenant);
        }
    }
}
