//! RocksDB as Luminate uses it: immutable tables of pages, ingested whole, and a small synced `meta`.
//!
//! Nothing else in this crate names RocksDB. Integers in keys are big endian, so that byte order is
//! their order; every field has a fixed width, so no two tenants' or metrics' keys can touch.

mod incoming;
mod records;
mod stored;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quick_cache::Weighter;

use ::rocksdb::checkpoint::Checkpoint;
use ::rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBPinnableSlice, DBRecoveryMode,
    IngestExternalFileOptions, Options, ReadOptions, ReadTier, SstFileWriter, WriteBatch, WriteOptions,
};

use crate::rocksdb::page::{Directory, Scratch, in_page};
use crate::store::{ErrorKind, Result, StoreError};

use incoming::{Incoming, TableFile};

pub use stored::{Half, Strictness};

/// First byte of every key: what kind of record it is. Persisted, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Prefix {
    /// Sample blocks: day, layer, metric, first and last series.
    Page = 1,
    /// What a page holds: the same key as its page.
    Summary = 2,
    /// Definitions of series: seal, part.
    Definitions = 3,
    /// The version of the format.
    Format = 10,
    /// The secret of series identities.
    Secret = 11,
    /// A layer: its number.
    Layer = 12,
    /// How far the log is sealed, and counters that go with it.
    Sealed = 13,
    /// The series present on a day: day, tenant.
    Presence = 14,
    /// A delete that layers still have to honour: commit, metric.
    CutOff = 15,
    /// A tenant's retention: tenant.
    Retention = 16,
}

const PAGES: &str = "pages";
const SUMMARIES: &str = "summaries";
const DEFINITIONS: &str = "definitions";
const META: &str = "default";

/// Where a page or its summary lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageKey {
    /// UTC day, days since the epoch.
    pub day: i32,
    /// The layer.
    pub layer: u64,
    /// The metric.
    pub metric: u32,
    /// The smallest series in it.
    pub first_series: u32,
    /// The largest series in it.
    pub last_series: u32,
}

const PAGE_KEY_BYTES: usize = 1 + 4 + 8 + 4 + 4 + 4;

impl PageKey {
    fn encode(&self, prefix: Prefix) -> [u8; PAGE_KEY_BYTES] {
        let mut key = [0; PAGE_KEY_BYTES];
        key[0] = prefix as u8;
        key[1..5].copy_from_slice(&day_bytes(self.day));
        key[5..13].copy_from_slice(&self.layer.to_be_bytes());
        key[13..17].copy_from_slice(&self.metric.to_be_bytes());
        key[17..21].copy_from_slice(&self.first_series.to_be_bytes());
        key[21..25].copy_from_slice(&self.last_series.to_be_bytes());
        key
    }

    fn decode(key: &[u8]) -> Option<Self> {
        if key.len() != PAGE_KEY_BYTES {
            return None;
        }
        Some(Self {
            day: day_from(key[1..5].try_into().ok()?),
            layer: u64::from_be_bytes(key[5..13].try_into().ok()?),
            metric: u32::from_be_bytes(key[13..17].try_into().ok()?),
            first_series: u32::from_be_bytes(key[17..21].try_into().ok()?),
            last_series: u32::from_be_bytes(key[21..25].try_into().ok()?),
        })
    }

    /// Before every key of a layer.
    fn start_of(day: i32, layer: u64) -> Self {
        Self { day, layer, metric: 0, first_series: 0, last_series: 0 }
    }

    /// Behind every key of a layer.
    fn end_of(day: i32, layer: u64) -> Self {
        Self { day, layer, metric: u32::MAX, first_series: u32::MAX, last_series: u32::MAX }
    }
}

/// A day's bytes in a key: the sign flipped, so that days before 1970 sort first.
#[must_use]
pub fn day_bytes(day: i32) -> [u8; 4] {
    (day.cast_unsigned() ^ 0x8000_0000).to_be_bytes()
}

/// The day that [`day_bytes`] made these of.
#[must_use]
pub fn day_from(bytes: [u8; 4]) -> i32 {
    (u32::from_be_bytes(bytes) ^ 0x8000_0000).cast_signed()
}

/// Changes of `meta`, applied together or not at all.
#[derive(Default)]
pub struct MetaBatch(WriteBatch);

impl MetaBatch {
    /// Sets `prefix ‖ key`.
    pub fn put(&mut self, prefix: Prefix, key: &[u8], value: &[u8]) {
        self.0.put(meta_key(prefix, key), value);
    }

    /// Removes `prefix ‖ key`.
    pub fn delete(&mut self, prefix: Prefix, key: &[u8]) {
        self.0.delete(meta_key(prefix, key));
    }
}

fn meta_key(prefix: Prefix, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(prefix as u8);
    full.extend_from_slice(key);
    full
}

/// The part of the cache that directories may take, and what one of a hundred series takes.
const DIRECTORY_SHARE: usize = 16;
const DIRECTORY_BYTES: usize = 4 << 10;
/// The part that places may take, and what one takes.
const PLACE_SHARE: usize = 32;
const PLACE_BYTES: usize = 96;

/// What a directory takes in the cache.
#[derive(Debug, Clone)]
struct DirectoryBytes;

impl Weighter<PageKey, Arc<Directory>> for DirectoryBytes {
    fn weight(&self, key: &PageKey, directory: &Arc<Directory>) -> u64 {
        (size_of_val(key) + directory.bytes()) as u64
    }
}

/// What was found out about pages, which for a little query takes longer than all else. It stays true: layers don't change,
/// and a process gives the number of one only once.
struct Found {
    directories: quick_cache::sync::Cache<PageKey, Arc<Directory>, DirectoryBytes>,
    /// The page of a layer, metric and series, if there is one.
    places: quick_cache::sync::Cache<(i32, u64, u32, u32), Option<PageKey>>,
}

/// The cache of blocks and what was found out, which share so many bytes.
fn caches(bytes: usize) -> (Cache, Found) {
    use quick_cache::sync::Cache as Kept;
    let (directories, places) = (bytes / DIRECTORY_SHARE, bytes / PLACE_SHARE);
    let found = Found {
        directories: Kept::with_weighter(directories / DIRECTORY_BYTES, directories as u64, DirectoryBytes),
        places: Kept::new(places / PLACE_BYTES),
    };
    (Cache::new_lru_cache(bytes - directories - places), found)
}

/// An open database.
pub struct Tables {
    db: DB,
    incoming: Incoming,
    cache: Cache,
    found: Found,
    /// Held while tables are removed, and while a checkpoint is made: between the moments at which it
    /// takes `meta` and the list of tables, none may go that `meta` names.
    removing: Mutex<()>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tables").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens or creates the database in `directory`, with `cache_bytes` for blocks of tables.
    ///
    /// # Errors
    /// `Unavailable` when it is open elsewhere, `Corrupt`, `Internal`.
    pub fn open(directory: &Path, cache_bytes: usize) -> Result<Self> {
        records::look(directory)?;
        let (cache, found) = caches(cache_bytes);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(2);
        // This start's and the last one's: each is 80 KB, which is more than a small tenant's day.
        options.set_keep_log_file_num(2);
        options.set_max_open_files(512);
        options.set_db_write_buffer_size(16 << 20);
        options.set_paranoid_checks(true);
        // A torn last record was never acknowledged; anything else that is broken must be told.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        let incoming = Incoming::of(directory);
        let db = incoming.open(&|| DB::open_cf_descriptors(&options, directory, families(&cache)), failed)?;
        forget_older_options(directory);
        Ok(Self { db, incoming, cache, found, removing: Mutex::default() })
    }

    /// Makes a copy of the database as it is now in `directory`, which must not exist: of files that never
    /// change another name for the same bytes, where the file system allows it.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn checkpoint(&self, directory: &Path) -> Result<()> {
        let _nothing_goes = self.removing.lock();
        let checkpoint = Checkpoint::new(&self.db).map_err(failed)?;
        checkpoint.create_checkpoint(directory).map_err(failed)
    }

    /// The value under `prefix ‖ key` in `meta`.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn meta(&self, prefix: Prefix, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(self.family(META)?, meta_key(prefix, key)).map_err(failed)
    }

    /// Every entry of `meta` under `prefix`: the rest of its key, and its value.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn meta_entries(&self, prefix: Prefix) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut iterator = self.db.raw_iterator_cf(self.family(META)?);
        iterator.seek([prefix as u8]);
        let mut entries = Vec::new();
        while let Some((key, value)) = iterator.item() {
            if key.first() != Some(&(prefix as u8)) {
                break;
            }
            entries.push((key[1..].to_vec(), value.to_vec()));
            iterator.next();
        }
        iterator.status().map_err(failed)?;
        Ok(entries)
    }

    /// Applies `batch`; on stable storage when this returns.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn write_meta(&self, batch: MetaBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch.0, &options).map_err(failed)
    }

    /// A page's bytes.
    ///
    /// # Errors
    /// `Corrupt` when it is missing or fails RocksDB's checksum.
    pub fn page(&self, key: &PageKey, tier: Tier<'_>) -> Result<DBPinnableSlice<'_>> {
        let page = self.half(Half::Pages, key, tier)?;
        page.ok_or_else(|| StoreError::corrupt(format!("{key:?} has a summary but no page")))
    }

    /// A page's summary.
    ///
    /// # Errors
    /// `Corrupt` when it is missing or fails RocksDB's checksum.
    pub fn summary(&self, key: &PageKey, tier: Tier<'_>) -> Result<DBPinnableSlice<'_>> {
        let summary = self.half(Half::Summaries, key, tier)?;
        summary.ok_or_else(|| StoreError::corrupt(format!("{key:?} has no summary any more")))
    }

    /// The page of one metric in one layer that may hold series `id`.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn page_of(
        &self,
        (day, layer, metric): (i32, u64, u32),
        id: u32,
        tier: Tier<'_>,
    ) -> Result<Option<PageKey>> {
        if let Some(found) = self.found.places.get(&(day, layer, metric, id)) {
            return Ok(found);
        }
        let mut found = None;
        self.summaries((day, layer, metric), &[id], tier, &mut |key, _| {
            found = Some(key);
            Ok(())
        })?;
        self.found.places.insert((day, layer, metric, id), found);
        Ok(found)
    }

    /// The directory of a page's bytes; kept from one time to the next as far as there is room.
    ///
    /// # Errors
    /// As of [`Directory::read`].
    pub fn directory(&self, key: &PageKey, page: &[u8], scratch: &mut Scratch) -> Result<Arc<Directory>> {
        if let Some(directory) = self.found.directories.get(key) {
            return Ok(directory);
        }
        let directory = Arc::new(Directory::read(page, scratch).map_err(|error| in_page(key, error))?);
        self.found.directories.insert(*key, directory.clone());
        Ok(directory)
    }

    /// Visits the summaries of one metric in one layer that may hold one of `ids` (ascending).
    ///
    /// # Errors
    /// What `visit` returns; `Corrupt`, `Internal`.
    pub fn summaries(
        &self,
        (day, layer, metric): (i32, u64, u32),
        ids: &[u32],
        tier: Tier<'_>,
        visit: &mut dyn FnMut(PageKey, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(SUMMARIES)?, tier.options());
        let mut rest = ids;
        while let Some(id) = rest.first() {
            let wanted = PageKey { day, layer, metric, first_series: *id, last_series: u32::MAX };
            iterator.seek_for_prev(wanted.encode(Prefix::Summary));
            let found = iterator.item().and_then(|(key, value)| Some((PageKey::decode(key)?, value)));
            let of_metric = |key: &PageKey| (key.day, key.layer, key.metric) == (day, layer, metric);
            match found {
                Some((key, value)) if of_metric(&key) && key.last_series >= *id => {
                    visit(key, value)?;
                    rest = &rest[rest.partition_point(|id| *id <= key.last_series)..];
                }
                _ => {
                    // A table that can't be read looks like one without the page until the next seek.
                    iterator.status().map_err(|error| tier.failed(error))?;
                    // No page holds this one: go on with the first series of the next page.
                    match iterator.valid() {
                        true => iterator.next(),
                        false => iterator.seek(wanted.encode(Prefix::Summary)),
                    }
                    let next = iterator.key().and_then(PageKey::decode).filter(of_metric);
                    let Some(next) = next else { break };
                    rest = &rest[rest.partition_point(|id| *id < next.first_series)..];
                }
            }
        }
        iterator.status().map_err(|error| tier.failed(error))
    }

    /// The keys of a layer's pages, ascending.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn layer_pages(&self, (day, layer): (i32, u64)) -> Result<Vec<PageKey>> {
        let mut iterator = self.db.raw_iterator_cf(self.family(SUMMARIES)?);
        iterator.seek(PageKey::start_of(day, layer).encode(Prefix::Summary));
        let mut keys = Vec::new();
        while let Some(key) = iterator.key().and_then(PageKey::decode) {
            if (key.day, key.layer) != (day, layer) {
                break;
            }
            keys.push(key);
            iterator.next();
        }
        iterator.status().map_err(failed)?;
        Ok(keys)
    }

    /// The (day, layer) pairs that have pages or summaries, whether or not `meta` knows them.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn stored_layers(&self) -> Result<Vec<(i32, u64)>> {
        let mut found = Vec::new();
        for (family, prefix) in Half::BOTH.map(Half::place) {
            let mut iterator = self.db.raw_iterator_cf(self.family(family)?);
            iterator.seek_to_first();
            while let Some(key) = iterator.key().and_then(PageKey::decode) {
                found.push((key.day, key.layer));
                iterator.seek(PageKey::start_of(key.day, key.layer + 1).encode(prefix));
            }
            iterator.status().map_err(failed)?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Whether a layer has both pages and summaries; also when they are damaged.
    ///
    /// # Errors
    /// `Internal`.
    pub fn has_layer(&self, (day, layer): (i32, u64)) -> Result<bool> {
        for (family, prefix) in Half::BOTH.map(Half::place) {
            let mut iterator = self.db.raw_iterator_cf(self.family(family)?);
            iterator.seek(PageKey::start_of(day, layer).encode(prefix));
            let key = iterator.key().and_then(PageKey::decode);
            if key.is_some_and(|key| (key.day, key.layer) == (day, layer)) {
                continue;
            }
            match iterator.status().map_err(failed) {
                Err(error) if error.kind == ErrorKind::Corrupt => {}
                status => return status.map(|()| false),
            }
        }
        Ok(true)
    }

    /// Removes a layer's pages and summaries: whole files at once, then what is left of the range.
    ///
    /// # Errors
    /// `Internal`.
    pub fn drop_layer(&self, (day, layer): (i32, u64)) -> Result<()> {
        let _not_amid_a_checkpoint = self.removing.lock();
        for (family, prefix) in Half::BOTH.map(Half::place) {
            let family = self.family(family)?;
            let from = PageKey::start_of(day, layer).encode(prefix);
            let to = PageKey::start_of(day, layer + 1).encode(prefix);
            // RocksDB counts the end in for files: with `to` it would take the next layer's, if that holds one page.
            let last = PageKey::end_of(day, layer).encode(prefix);
            self.db.delete_file_in_range_cf(family, from, last).map_err(failed)?;
            let mut iterator = self.db.raw_iterator_cf(family);
            iterator.seek(from);
            let left = iterator.key().is_some_and(|key| key < to.as_slice());
            drop(iterator);
            if left {
                self.db.delete_range_cf(family, from, to).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Adds definitions blobs under the number of a seal, one in memory at a time.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn add_definitions(&self, seal: u64, blobs: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        let mut blobs = blobs.peekable();
        if blobs.peek().is_none() {
            return Ok(());
        }
        let mut file = self.incoming.file(DEFINITIONS);
        let options = family_options(DEFINITIONS, &self.cache);
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file.path).map_err(failed)?;
        for (part, blob) in (0_u32..).zip(blobs) {
            writer.put(definitions_key(seal, part), &blob).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        self.ingest(DEFINITIONS, &mut file)
    }

    /// Visits every definitions blob, oldest first.
    ///
    /// # Errors
    /// What `visit` returns; `Corrupt`, `Internal`.
    pub fn definitions(&self, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut iterator = self.db.raw_iterator_cf(self.family(DEFINITIONS)?);
        iterator.seek_to_first();
        while let Some(blob) = iterator.value() {
            visit(blob)?;
            iterator.next();
        }
        iterator.status().map_err(failed)
    }

    /// Removes the definitions blobs of all seals before `seal`.
    ///
    /// # Errors
    /// `Internal`.
    pub fn drop_definitions_before(&self, seal: u64) -> Result<()> {
        let _not_amid_a_checkpoint = self.removing.lock();
        let family = self.family(DEFINITIONS)?;
        let (from, to) = (definitions_key(0, 0), definitions_key(seal, 0));
        // RocksDB counts the end in for files, which may hold nothing but the first key behind the range.
        let last = definitions_key(seal.saturating_sub(1), u32::MAX);
        self.db.delete_file_in_range_cf(family, &from, &last).map_err(failed)?;
        self.db.delete_range_cf(family, &from, &to).map_err(failed)
    }

    /// Begins a layer's files.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn begin_layer(&self, day: i32, layer: u64) -> LayerFiles {
        LayerFiles {
            day,
            layer,
            pages: self.incoming.file(PAGES),
            summaries: self.incoming.file(SUMMARIES),
            options: [PAGES, SUMMARIES].map(|name| family_options(name, &self.cache)),
        }
    }

    /// Makes a finished layer's files part of the database; `meta` must name the layer afterwards.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn ingest_layer(&self, mut files: LayerFiles) -> Result<()> {
        self.ingest(PAGES, &mut files.pages)?;
        self.ingest(SUMMARIES, &mut files.summaries)
    }

    fn ingest(&self, family: &str, file: &mut TableFile) -> Result<()> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.family(family)?;
        let ingest = |path: &Path| self.db.ingest_external_file_cf_opts(family, &options, vec![path]);
        self.incoming.bring(file, ingest).map_err(failed)
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.db.cf_handle(name).ok_or_else(|| StoreError::corrupt(format!("column family {name} is missing")))
    }
}

fn definitions_key(seal: u64, part: u32) -> Vec<u8> {
    let mut key = vec![Prefix::Definitions as u8];
    key.extend_from_slice(&seal.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// Removes all but the latest of the files in which RocksDB writes down its options at each start: nothing reads them,
/// and the older one that it keeps is 26 KB, as much as many a series' month.
fn forget_older_options(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("OPTIONS-")?.parse::<u64>().ok();
    let mut written: Vec<_> =
        entries.filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect();
    written.sort_unstable();
    written.pop();
    for (_, path) in written {
        // At the latest the next start removes it.
        let _left = std::fs::remove_file(path);
    }
}

fn families(cache: &Cache) -> [ColumnFamilyDescriptor; 4] {
    [META, PAGES, SUMMARIES, DEFINITIONS]
        .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, cache)))
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    table.set_format_version(5);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    // Pages are packed already; and nothing but `meta` is ever compacted: layers are merged by us.
    options.set_disable_auto_compactions(name != META);
    options.set_write_buffer_size(4 << 20);
    options
}

/// The files of a layer that is being written.
pub struct LayerFiles {
    day: i32,
    layer: u64,
    pages: TableFile,
    summaries: TableFile,
    options: [Options; 2],
}

impl LayerFiles {
    /// Opens both files for writing; keys must ascend.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn writer(&self) -> Result<LayerWriter<'_>> {
        let pages = SstFileWriter::create(&self.options[0]);
        pages.open(&self.pages.path).map_err(failed)?;
        let summaries = SstFileWriter::create(&self.options[1]);
        summaries.open(&self.summaries.path).map_err(failed)?;
        Ok(LayerWriter { day: self.day, layer: self.layer, pages, summaries })
    }
}

/// Writes a layer's pages in the order of (metric, first series).
pub struct LayerWriter<'a> {
    day: i32,
    layer: u64,
    pages: SstFileWriter<'a>,
    summaries: SstFileWriter<'a>,
}

impl LayerWriter<'_> {
    /// Adds a page and its summary.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn put(
        &mut self,
        metric: u32,
        (first_series, last_series): (u32, u32),
        page: &[u8],
        summary: &[u8],
    ) -> Result<()> {
        let key = PageKey { day: self.day, layer: self.layer, metric, first_series, last_series };
        self.pages.put(key.encode(Prefix::Page), page).map_err(failed)?;
        self.summaries.put(key.encode(Prefix::Summary), summary).map_err(failed)
    }

    /// Finishes both files; synced when this returns.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn finish(mut self) -> Result<()> {
        self.pages.finish().map_err(failed)?;
        self.summaries.finish().map_err(failed)
    }
}

/// Where a read looks.
#[derive(Debug, Clone, Copy)]
pub enum Tier<'a> {
    /// Wherever it is: it may wait for the disk.
    All,
    /// Only in memory. What isn't there is noted, and an error.
    Memory(&'a AtomicBool),
}

impl Tier<'_> {
    fn options(self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if matches!(self, Self::Memory(_)) {
            options.set_read_tier(ReadTier::BlockCache);
        }
        options
    }

    fn failed(self, error: ::rocksdb::Error) -> StoreError {
        if let Self::Memory(missed) = self
            && error.kind() == ::rocksdb::ErrorKind::Incomplete
        {
            missed.store(true, Ordering::Relaxed);
        }
        failed(error)
    }
}

fn failed(error: ::rocksdb::Error) -> StoreError {
    use ::rocksdb::ErrorKind as Kind;
    let text = error.to_string();
    let kind = match error.kind() {
        Kind::Corruption => ErrorKind::Corrupt,
        Kind::IOError if text.contains("No space left") || text.contains("lock") => {
            ErrorKind::Unavailable { retry_after: std::time::Duration::from_secs(5) }
        }
        _ => ErrorKind::Internal,
    };
    StoreError::new(kind, text)
}
