//! Which series are present on which UTC day.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use super::posting::bitmap_bytes;

/// Presence by day. Every series with a row is present or hidden.
#[derive(Debug, Default)]
pub struct Presence {
    days: BTreeMap<i32, RoaringBitmap>,
    /// Present on some day.
    present: RoaringBitmap,
    /// Created and not marked yet, or on the way out: known to writes or to nobody, not to queries.
    hidden: RoaringBitmap,
}

impl Presence {
    /// Notes that a series was created.
    pub fn create(&mut self, id: u32) {
        self.hidden.insert(id);
    }

    /// Marks `ids`, all of which have been created and not removed, present on `day`.
    pub fn mark(&mut self, day: i32, ids: &RoaringBitmap) {
        if ids.is_empty() {
            return;
        }
        *self.days.entry(day).or_default() |= ids;
        self.present |= ids;
        self.hidden -= ids;
    }

    /// Takes series off the days of which `lost` (given a day and who is present on it) names them;
    /// returns those that are left without a day, hidden from now on.
    pub fn take_off(&mut self, lost: impl Fn(i32, &RoaringBitmap) -> RoaringBitmap) -> RoaringBitmap {
        let mut gone = RoaringBitmap::new();
        for (day, ids) in &mut self.days {
            let lost = lost(*day, ids);
            *ids -= &lost;
            gone |= lost;
        }
        self.days.retain(|_, ids| !ids.is_empty());
        if !gone.is_empty() {
            self.days.values().for_each(|ids| gone -= ids);
            self.present -= &gone;
            self.hidden |= &gone;
        }
        gone
    }

    /// Forgets series whose rows are gone.
    pub fn forget(&mut self, ids: &RoaringBitmap) {
        self.hidden -= ids;
    }

    /// Those of `series` that are present on one of `days`.
    #[must_use]
    pub fn on_days(&self, series: RoaringBitmap, days: RangeInclusive<i32>) -> RoaringBitmap {
        if days.start() > days.end() {
            return RoaringBitmap::new();
        }
        let covers = |day: Option<&i32>| day.is_none_or(|day| days.contains(day));
        if covers(self.days.keys().next()) && covers(self.days.keys().next_back()) {
            return series & &self.present;
        }
        let mut found = RoaringBitmap::new();
        for (_, ids) in self.days.range(days) {
            found |= ids & &series;
        }
        found
    }

    /// Who is present on `day`.
    #[must_use]
    pub fn day(&self, day: i32) -> Option<&RoaringBitmap> {
        self.days.get(&day)
    }

    /// Days on which somebody is present, ascending.
    #[must_use]
    pub fn days(&self) -> Vec<i32> {
        self.days.keys().copied().collect()
    }

    /// How many days these are.
    #[must_use]
    pub fn day_count(&self) -> usize {
        self.days.len()
    }

    /// Present on some day.
    #[must_use]
    pub fn present(&self) -> &RoaringBitmap {
        &self.present
    }

    /// Series with a row that are not present.
    #[must_use]
    pub fn hidden(&self) -> &RoaringBitmap {
        &self.hidden
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let days: usize = self.days.values().map(|ids| bitmap_bytes(ids) + 32).sum();
        days + bitmap_bytes(&self.present) + bitmap_bytes(&self.hidden)
    }
}
