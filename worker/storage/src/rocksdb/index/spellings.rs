//! From a series as a client spells it to its number: the first thing that a write asks, per row.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::model::Spelling;

use super::table::{Entry, Table, Wide};

/// Locks of a cache. Not persisted.
const SHARDS: usize = 64;
/// Spellings that a tenant may have beside [`PER_SERIES`] for each of its series.
const FLOOR: usize = 4_096;
/// Spellings that a series may have on average: a client that spells one series in ever new ways
/// then displaces its own spellings, and nobody else's.
const PER_SERIES: usize = 4;

/// What all caches together hold and may hold.
#[derive(Debug)]
pub struct Allowance {
    used: AtomicUsize,
    most: usize,
}

impl Allowance {
    /// None used of `most` entries.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }
}

/// Apart in memory, so that threads at different shards don't share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<Table<Wide>>);

/// The spellings of one tenant, bounded. A lookup takes one shared lock and looks at one or two
/// cache lines.
#[derive(Debug)]
pub struct Spellings {
    shards: Box<[Shard]>,
    len: AtomicUsize,
}

impl Default for Spellings {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), len: AtomicUsize::new(0) }
    }
}

impl Spellings {
    /// The series with this spelling.
    #[must_use]
    pub fn find(&self, spelling: Spelling) -> Option<u32> {
        let wanted = Wide::new(spelling.0, 0);
        let shard = self.shard(spelling).0.read();
        shard.find(wanted.place(), |entry| entry.same(&wanted)).map(|entry| entry.id())
    }

    /// Remembers a spelling of series `id` of a tenant with `series` series; returns by how many
    /// bytes the cache grew.
    pub fn insert(&self, spelling: Spelling, id: u32, series: usize, allowance: &Allowance) -> usize {
        let entry = Wide::new(spelling.0, id);
        let mut shard = self.shard(spelling).0.write();
        if shard.replace(entry, |other| other.same(&entry)) {
            return 0;
        }
        let before = (shard.len(), shard.bytes());
        let own = FLOOR + series.saturating_mul(PER_SERIES);
        let spent = self.len.load(Ordering::Relaxed) >= own
            || allowance.used.load(Ordering::Relaxed) >= allowance.most;
        if spent && shard.is_full() {
            shard.displace(entry);
        } else {
            shard.insert(entry);
        }
        let added = shard.len() - before.0;
        self.len.fetch_add(added, Ordering::Relaxed);
        allowance.used.fetch_add(added, Ordering::Relaxed);
        shard.bytes() - before.1
    }

    /// Keeps the spellings of series that `alive` accepts, shard by shard; returns the bytes given back.
    pub fn retain(&self, alive: impl Fn(u32) -> bool, allowance: &Allowance) -> usize {
        let mut freed = 0;
        for shard in &self.shards {
            let mut shard = shard.0.write();
            let before = (shard.len(), shard.bytes());
            shard.retain(|entry| alive(entry.id()));
            let removed = before.0 - shard.len();
            self.len.fetch_sub(removed, Ordering::Relaxed);
            allowance.used.fetch_sub(removed, Ordering::Relaxed);
            freed += before.1.saturating_sub(shard.bytes());
        }
        freed
    }

    /// Bytes that even an empty one takes.
    #[must_use]
    pub fn fixed_bytes() -> usize {
        SHARDS * size_of::<Shard>()
    }

    fn shard(&self, spelling: Spelling) -> &Shard {
        // Bits that neither an entry's place nor what it keeps of the hash is made of.
        &self.shards[(spelling.0 >> 122) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling(n: u32) -> Spelling {
        Spelling(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()))
    }

    #[test]
    fn a_spelling_is_found_until_its_series_is_gone() {
        let (spellings, allowance) = (Spellings::default(), Allowance::new(1 << 20));
        let mut bytes = 0;
        for n in 0..20_000 {
            bytes += spellings.insert(spelling(n), n / 2, 10_000, &allowance);
        }
        assert!((0..20_000).all(|n| spellings.find(spelling(n)) == Some(n / 2)));
        assert_eq!(spellings.find(spelling(20_000)), None);
        assert_eq!(spellings.insert(spelling(5), 77, 10_000, &allowance), 0);
        assert_eq!(spellings.find(spelling(5)), Some(77));
        let freed = spellings.retain(|id| id % 10 == 0, &allowance);
        assert!(freed > bytes / 2 && freed < bytes);
        assert!((0..20_000).all(|n| spellings.find(spelling(n)).is_none_or(|id| id % 10 == 0)));
        assert_eq!(spellings.find(spelling(41)), Some(20));
        assert_eq!(allowance.used.load(Ordering::Relaxed), 2_000);
        spellings.retain(|_| false, &allowance);
        assert_eq!(allowance.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_tenant_with_few_series_displaces_its_own_spellings() {
        let (spellings, allowance) = (Spellings::default(), Allowance::new(1 << 20));
        let mut bytes = 0;
        for n in 0..200_000 {
            bytes += spellings.insert(spelling(n), 1, 10, &allowance);
            assert_eq!(spellings.find(spelling(n)), Some(1));
        }
        assert!(allowance.used.load(Ordering::Relaxed) < 2 * FLOOR && bytes < 64 * FLOOR);
        let full = Allowance::new(0);
        let other = Spellings::default();
        (0..10_000).for_each(|n| {
            other.insert(spelling(n), n, 10_000, &full);
        });
        let found = (0..10_000).filter(|n| other.find(spelling(*n)) == Some(*n)).count();
        assert!((SHARDS..=8 * SHARDS).contains(&found), "a little even when others hold all: {found}");
    }
}
