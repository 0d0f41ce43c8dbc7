//! Checks a data folder that no worker has open, and changes nothing in it.
//!
//! Every byte that an answer could depend on is read and held against its checksum: the records of the log
//! that tables don't hold, RocksDB's own log and list of files, what `meta` says, the definitions of series,
//! and every page with its summary, down to the last block. What is damaged is named by tenant, metric and
//! time, as far as what is sound still tells. Beyond checksums it is checked that nothing is missing: a
//! layer's samples are counted, and a series that is present must be defined.

mod layer;
mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use roaring::RoaringBitmap;

use crate::model::Tenant;
use crate::store::{ErrorKind, Result, StoreError};

use super::engine::open::{FORMAT, presence_of, tenant_of, unknown_format};
use super::index::{Index, IndexOptions};
use super::layer::LayerRecord;
use super::log::{self, Lost};
use super::record::{self, Operation};
use super::seal::Sealed;
use super::tables::{Prefix, Strictness, Tables};

pub use report::{Counts, Damage, Report};

use layer::LayerCheck;

/// Told how far a check is: bytes of pages done, and of all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Checks the data folder, or backup, at `path`.
///
/// # Errors
/// Where there is nothing to check: `Unavailable` when a worker has it open, `Internal` when it is no data
/// folder, can't be read, or has a format that this version doesn't know.
pub fn check(path: &Path, progress: Progress<'_>) -> Result<Report> {
    let mut check = Check::new();
    refuse_what_is_none(path)?;
    // 1. The tables as a whole. IO.
    let Some(tables) = check.open(&path.join("tables"))? else {
        check.log(&path.join("log"), None)?;
        return Ok(check.report);
    };
    // 2. What `meta` says of them, and the definitions of series. IO.
    let meta = check.meta(&tables)?;
    check.definitions(&tables);
    // 3. The log behind them. IO.
    check.log(&path.join("log"), Some(meta.sealed.through))?;
    check.presence(&meta);
    // 4. Every page. IO.
    check.layers(&tables, &meta.layers, progress);
    Ok(check.report)
}

/// Refuses a path that is no data folder, or one that a worker uses.
fn refuse_what_is_none(path: &Path) -> Result<()> {
    let shown = path.display();
    if let Err(error) = std::fs::read_dir(path) {
        return Err(StoreError::internal(format!("{shown}: {error}")));
    }
    if !path.join("tables").is_dir() || !path.join("log").is_dir() {
        let what = "no data folder: it has no tables/ and log/";
        return Err(StoreError::internal(format!("{shown} is {what}")));
    }
    let Ok(lock) = File::open(path.join("tables").join("LOCK")) else { return Ok(()) };
    let mut wanted = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&lock, FcntlArg::F_GETLK(&mut wanted)).map_err(StoreError::internal)?;
    if i32::from(wanted.l_type) == nix::libc::F_UNLCK {
        return Ok(());
    }
    let retry_after = std::time::Duration::from_secs(5);
    let by = format!("{shown} is in use by a running worker (process {})", wanted.l_pid);
    Err(StoreError::new(ErrorKind::Unavailable { retry_after }, format!("{by}; check a backup or a copy")))
}

/// What `meta` holds, as far as it can be read.
#[derive(Default)]
struct Meta {
    sealed: Sealed,
    layers: Vec<LayerRecord>,
    presence: Vec<(Tenant, i32, RoaringBitmap)>,
}

struct Check {
    report: Report,
    /// Knows the names of metrics, and no series.
    index: Index,
    defined: RoaringBitmap,
}

impl Check {
    fn new() -> Self {
        let options = IndexOptions { secret: [0; 192], max_spellings: 1_024, memory_budget: u64::MAX };
        Self { report: Report::default(), index: Index::new(options), defined: RoaringBitmap::new() }
    }

    /// Opens the tables, however broken they are, unless nothing of them can be read.
    fn open(&mut self, directory: &Path) -> Result<Option<Tables>> {
        let whole = match Tables::read_only(directory, Strictness::Whole) {
            Ok(tables) => return Ok(Some(tables)),
            Err(error) => error,
        };
        match Tables::read_only(directory, Strictness::Start) {
            Ok(tables) => {
                let note = "the log of RocksDB ends in an unfinished change, which a start leaves out";
                self.report.notes.push(format!("{note}: {whole}"));
                Ok(Some(tables))
            }
            Err(error) => {
                self.report.damage(Damage::of("tables", &error));
                Ok(Tables::read_only(directory, Strictness::Anything).ok())
            }
        }
    }

    fn meta(&mut self, tables: &Tables) -> Result<Meta> {
        if let Some(found) = tables.meta(Prefix::Format, &[]).ok().flatten()
            && found != FORMAT.to_be_bytes()
        {
            return Err(unknown_format(&found));
        }
        if let Err(error) = tables.read_all_meta() {
            self.report.damage(Damage::of("tables, meta", &error));
        }
        let mut meta = Meta::default();
        self.entries(tables, Prefix::Secret, |_, value| (value.len() == 192).then_some(()));
        self.entries(tables, Prefix::Sealed, |_, value| {
            meta.sealed = serde_json::from_slice(value).ok()?;
            Some(())
        });
        self.entries(tables, Prefix::Layer, |_, value| {
            meta.layers.push(serde_json::from_slice(value).ok()?);
            Some(())
        });
        self.entries(tables, Prefix::CutOff, |key, value| {
            (key.len() == 12 && value.len() == 8).then_some(())
        });
        self.entries(tables, Prefix::Retention, |key, value| {
            (tenant_of(key).is_ok() && record::decode_retention(value).is_ok()).then_some(())
        });
        self.entries(tables, Prefix::Presence, |key, value| {
            meta.presence.push(presence_of(key, value).ok()?);
            Some(())
        });
        Ok(meta)
    }

    /// Gives `read` each entry of one kind; one that it returns `None` for is damaged.
    fn entries(&mut self, tables: &Tables, prefix: Prefix, mut read: impl FnMut(&[u8], &[u8]) -> Option<()>) {
        let place = format!("tables, meta, {prefix:?}");
        // What can't be read is reported by the reading of all.
        for (key, value) in tables.meta_entries(prefix).unwrap_or_default() {
            if read(&key, &value).is_none() {
                self.report.damage(Damage::of(&place, &StoreError::corrupt("an entry can't be read")));
            }
        }
    }

    fn definitions(&mut self, tables: &Tables) {
        let (index, defined) = (&self.index, &mut self.defined);
        let mut broken = Vec::new();
        let read = tables.definitions(&mut |blob| {
            broken.extend(define(index, defined, blob).err());
            Ok(())
        });
        for error in broken.into_iter().chain(read.err()) {
            self.report.damage(Damage::of("tables, definitions of series", &error));
        }
    }

    /// Reads the log behind the last commit that tables hold. Where that isn't known, nobody can say what is
    /// missing before the first segment.
    fn log(&mut self, directory: &Path, sealed: Option<u64>) -> Result<()> {
        let mut accepted = BTreeMap::new();
        let (index, defined) = (&self.index, &mut self.defined);
        let mut apply = |commit: u64, body: &[u8]| {
            record::read(body, &mut |operation| {
                match operation {
                    Operation::Definitions(blob) => define(index, defined, blob)?,
                    Operation::Accepted(time) => drop(accepted.insert(commit, time)),
                    _ => {}
                }
                Ok(())
            })
        };
        let found = log::inspect(directory, sealed.unwrap_or(0), &mut apply)?;
        self.report.counts.log_commits = found.commits;
        self.report.counts.bytes += found.bytes;
        self.report.notes.extend(found.notes);
        for lost in found.lost.iter().filter(|lost| sealed.is_some() || lost.offset > 0) {
            self.report.damage(damage_of(lost, &accepted));
        }
        if let Some(sealed) = sealed.filter(|sealed| found.last_commit < *sealed)
            && found.lost.is_empty()
        {
            let last = found.last_commit;
            let what = format!("it ends at commit {last}, but tables hold commits through {sealed}");
            self.report.damage(Damage::of("log", &StoreError::corrupt(what)));
        }
        Ok(())
    }

    /// Every series that is present must be defined.
    fn presence(&mut self, meta: &Meta) {
        self.report.counts.series =
            meta.presence.iter().fold(RoaringBitmap::new(), |all, (.., ids)| all | ids).len();
        for (tenant, day, ids) in &meta.presence {
            let undefined = (ids - &self.defined).len();
            if undefined > 0 {
                let what = format!("the definitions of {undefined} series are missing");
                let damage = Damage::of("tables, definitions of series", &StoreError::corrupt(what));
                self.report.damage(damage.of_tenant(tenant).of_day(*day));
            }
        }
    }

    fn layers(&mut self, tables: &Tables, layers: &[LayerRecord], progress: Progress<'_>) {
        let total = layers.iter().map(LayerRecord::bytes).sum();
        let mut done = 0;
        for record in layers {
            let mut check = LayerCheck::new(tables, record, &self.index);
            for (metric, totals) in &record.metrics {
                check.metric(*metric, totals, &mut self.report);
                done += totals.bytes;
                progress(done, total);
            }
        }
        self.report.counts.layers = layers.len() as u64;
        let stored = tables.stored_layers().unwrap_or_else(|error| {
            // What is damaged of a layer that is in use is told already.
            if self.report.is_sound() {
                self.report.damage(Damage::of("tables", &error));
            }
            Vec::new()
        });
        let named = |place: &(i32, u64)| layers.iter().any(|record| (record.day, record.id) == *place);
        if stored.iter().any(|place| !named(place)) {
            self.report
                .notes
                .push("tables of a seal or merge that was cut off; the next start removes them".into());
        }
    }
}

/// Notes what a blob defines.
fn define(index: &Index, defined: &mut RoaringBitmap, blob: &[u8]) -> Result<()> {
    let mut ids = Vec::new();
    index.load(blob, &|_| false, &mut |_, _| {})?;
    index.ids_of(blob, &mut ids)?;
    defined.extend(ids);
    Ok(())
}

/// What the loss of commits means: when they were accepted follows from their neighbours.
fn damage_of(lost: &Lost, accepted: &BTreeMap<u64, i64>) -> Damage {
    let before = accepted.range(..lost.first).next_back().map(|(_, time)| *time);
    let after = lost.last.and_then(|last| accepted.range(last + 1..).next()).map(|(_, time)| *time);
    let commits = match lost.last {
        Some(last) => format!("commits {} to {last} are lost", lost.first),
        None => format!("commits from {} on are lost", lost.first),
    };
    let place = format!("{}, offset {}", lost.file.display(), lost.offset);
    Damage::of(&place, &StoreError::corrupt(format!("{}: {commits}", lost.why))).accepted(before, after)
}
