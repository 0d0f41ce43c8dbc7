//! A database that is only read, for checks: nothing of its directory changes, whatever is broken in it.

use std::path::Path;

use parking_lot::Mutex;

use ::rocksdb::{DB, DBPinnableSlice, DBRecoveryMode, Options, ReadOptions};

use crate::store::{Result, StoreError};

use super::{
    Incoming, META, PAGES, PageKey, Prefix, SUMMARIES, Tables, Tier, caches, failed, families, records,
};

const CACHE_BYTES: usize = 8 << 20;
const READ_AHEAD: usize = 1 << 20;

/// What opening a database that is only read puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing: not even a last change that was never finished.
    Whole,
    /// What a start puts up with: that.
    Start,
    /// Everything that leaves something to read.
    Anything,
}

/// One of the two halves of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Samples.
    Pages,
    /// What they amount to.
    Summaries,
}

impl Half {
    pub(super) const BOTH: [Self; 2] = [Self::Pages, Self::Summaries];

    /// Its column family, and what its keys begin with.
    pub(super) fn place(self) -> (&'static str, Prefix) {
        match self {
            Self::Pages => (PAGES, Prefix::Page),
            Self::Summaries => (SUMMARIES, Prefix::Summary),
        }
    }
}

impl Tables {
    /// Opens the database in `directory` to be read only.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn read_only(directory: &Path, strictness: Strictness) -> Result<Self> {
        records::look(directory)?;
        let (cache, found) = caches(CACHE_BYTES);
        let mut options = Options::default();
        options.set_max_open_files(256);
        options.set_paranoid_checks(strictness != Strictness::Anything);
        options.set_wal_recovery_mode(match strictness {
            Strictness::Whole => DBRecoveryMode::AbsoluteConsistency,
            _ => DBRecoveryMode::TolerateCorruptedTailRecords,
        });
        let db = DB::open_cf_descriptors_read_only(&options, directory, families(&cache), false)
            .map_err(failed)?;
        let incoming = Incoming::of(directory);
        Ok(Self { db, incoming, cache, found, removing: Mutex::default() })
    }

    /// Visits one half of a metric in a layer, in the order of keys, until something can't be read.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn visit_half(
        &self,
        half: Half,
        (day, layer, metric): (i32, u64, u32),
        visit: &mut dyn FnMut(PageKey, &[u8]),
    ) -> Result<()> {
        let (family, prefix) = half.place();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        let start = PageKey { day, layer, metric, first_series: 0, last_series: 0 };
        iterator.seek(start.encode(prefix));
        while let Some((key, value)) = iterator.item() {
            let Some(key) = PageKey::decode(key) else {
                return Err(StoreError::corrupt("a key that is no page's lies among pages"));
            };
            if (key.day, key.layer, key.metric) != (day, layer, metric) {
                break;
            }
            visit(key, value);
            iterator.next();
        }
        iterator.status().map_err(failed)
    }

    /// One entry of a half.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn half(&self, half: Half, key: &PageKey, tier: Tier<'_>) -> Result<Option<DBPinnableSlice<'_>>> {
        let (family, prefix) = half.place();
        let found = self.db.get_pinned_cf_opt(self.family(family)?, key.encode(prefix), &tier.options());
        found.map_err(|error| tier.failed(error))
    }

    /// Reads every entry of `meta`, of whatever kind.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn read_all_meta(&self) -> Result<()> {
        let mut iterator = self.db.raw_iterator_cf(self.family(META)?);
        iterator.seek_to_first();
        while iterator.valid() {
            iterator.next();
        }
        iterator.status().map_err(failed)
    }
}
