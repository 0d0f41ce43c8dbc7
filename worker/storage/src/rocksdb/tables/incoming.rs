//! Files on their way into the database.
//!
//! RocksDB names a file in its list of tables (`MANIFEST`), then syncs the list. Where that sync fails it removes the
//! file, though the list on the disk may name it, and then no start could open the database. So a file that was
//! refused after the list had grown is kept, and a start that misses a file tries those that are here: RocksDB knows
//! each by its unique id, and refuses another. `meta` doesn't name what was in it, so it is removed as what no seal
//! finished.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ::rocksdb::{DB, Error};
use parking_lot::Mutex;

use crate::store::{Result, StoreError};

/// The list grows by less at each attempt, before it names anything; an entry that names a file holds its first and its
/// last key, eight bytes more of each, and a unique id.
const ENTRY_BYTES: u64 = 48;

/// The folder of such files.
#[derive(Debug)]
pub(super) struct Incoming {
    /// RocksDB's folder.
    database: PathBuf,
    folder: PathBuf,
    next: AtomicU64,
    /// Files that a list may name, each with the list's name; held by whoever brings one in.
    kept: Mutex<Vec<(String, PathBuf)>>,
}

/// A file that is being made, removed if it isn't brought in.
#[derive(Debug)]
pub(super) struct TableFile {
    pub(super) path: PathBuf,
    kept: bool,
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if !self.kept {
            // After a move into the database there is nothing left under this name.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

impl Incoming {
    /// That of the database in `database`; nothing is made or read.
    pub(super) fn of(database: &Path) -> Self {
        let folder = database.join("incoming");
        Self { database: database.to_owned(), folder, next: AtomicU64::new(0), kept: Mutex::default() }
    }

    /// Opens the database, with a file put back where one is missed; then nothing else is left here.
    ///
    /// # Errors
    /// RocksDB's, by `failed`; `Internal`.
    pub(super) fn open(
        &self,
        open: &dyn Fn() -> std::result::Result<DB, Error>,
        failed: fn(Error) -> StoreError,
    ) -> Result<DB> {
        let db = match open() {
            Ok(db) => db,
            Err(error) => self.put_back(open, &error).ok_or_else(|| failed(error))?,
        };
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(StoreError::internal)?;
        }
        fs::create_dir_all(&self.folder).map_err(StoreError::internal)?;
        Ok(db)
    }

    fn put_back(&self, open: &dyn Fn() -> std::result::Result<DB, Error>, error: &Error) -> Option<DB> {
        let mut missing = self.missing(error)?;
        let mut here: Vec<PathBuf> =
            fs::read_dir(&self.folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let mut at = 0;
        while at < here.len() {
            fs::hard_link(&here[at], &missing).ok()?;
            let error = match open() {
                Ok(db) => {
                    tracing::warn!(file = %missing.display(), "put back a table that RocksDB lists and had removed");
                    return Some(db);
                }
                Err(error) => error,
            };
            match self.missing(&error) {
                // It fits: now another one is missed.
                Some(next) => {
                    here.swap_remove(at);
                    (missing, at) = (next, 0);
                }
                None => {
                    fs::remove_file(&missing).ok()?;
                    at += 1;
                }
            }
        }
        None
    }

    /// The table that an error names, if it isn't there.
    fn missing(&self, error: &Error) -> Option<PathBuf> {
        let text = error.to_string();
        let (before, _) = text.split_once(".sst")?;
        let digits = before.len() - before.bytes().rev().take_while(u8::is_ascii_digit).count();
        let path = self.database.join(format!("{}.sst", &before[digits..]));
        (digits < before.len() && !path.exists()).then_some(path)
    }

    /// A new file for tables of `family`.
    pub(super) fn file(&self, family: &str) -> TableFile {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        TableFile { path: self.folder.join(format!("{family}-{number}.sst")), kept: false }
    }

    /// Brings a file in by `ingest`, which moves it.
    ///
    /// # Errors
    /// Those of `ingest`; the file is kept then if the list may name it.
    pub(super) fn bring(
        &self,
        file: &mut TableFile,
        ingest: impl FnOnce(&Path) -> std::result::Result<(), Error>,
    ) -> std::result::Result<(), Error> {
        let mut kept = self.kept.lock();
        let before = self.list();
        let done = ingest(&file.path);
        let after = self.list();
        let may_be_named = match (&before, &after) {
            (Some((list, before)), Some((same, after))) if list == same => before + ENTRY_BYTES <= *after,
            _ => true,
        };
        if done.is_err() && may_be_named {
            file.kept = true;
            let list = after.as_ref().or(before.as_ref()).map(|(list, _)| list.clone());
            kept.push((list.unwrap_or_default(), file.path.clone()));
        }
        // After a failure RocksDB begins a new list, of what there is.
        kept.retain(|(list, path)| {
            let needed = done.is_err() && after.as_ref().is_none_or(|(now, _)| now == list);
            if !needed {
                let _gone = fs::remove_file(path);
            }
            needed
        });
        done
    }

    /// The list of tables and its length, if both can be read.
    fn list(&self) -> Option<(String, u64)> {
        let name = fs::read_to_string(self.database.join("CURRENT")).ok()?.trim_end().to_owned();
        let length = fs::metadata(self.database.join(&name)).ok()?.len();
        Some((name, length))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tables;
    use super::*;

    fn layer(tables: &Tables, number: u64) -> super::super::LayerFiles {
        let files = tables.begin_layer(0, number);
        let mut writer = files.writer().unwrap();
        writer.put(3, (1, 2), b"page", b"summary").unwrap();
        writer.finish().unwrap();
        files
    }

    fn tables_of(database: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "sst")).collect()
    }

    #[test]
    fn tables_that_the_list_names_are_put_back_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("tables");
        let tables = Tables::open(&database, 1 << 20).unwrap();
        tables.ingest_layer(layer(&tables, 1)).unwrap();
        // Two that were never brought in, of which one reads like the missing ones.
        let (same, other) = (layer(&tables, 1), layer(&tables, 2));
        let decoys = [same.pages.path.clone(), same.summaries.path.clone(), other.pages.path.clone()];
        let kept = decoys.clone().map(|path| fs::read(path).unwrap());
        drop((same, other, tables));
        for (path, bytes) in decoys.iter().zip(&kept) {
            fs::write(path, bytes).unwrap();
        }
        let incoming = database.join("incoming");
        let missing = tables_of(&database);
        assert_eq!(missing.len(), 2);
        for (at, path) in missing.iter().enumerate() {
            fs::rename(path, incoming.join(format!("kept-{at}.sst"))).unwrap();
        }
        let tables = Tables::open(&database, 1 << 20).unwrap();
        assert!(tables.has_layer((0, 1)).unwrap() && !tables.has_layer((0, 2)).unwrap());
        assert_eq!(fs::read_dir(&incoming).unwrap().count(), 0);
        drop(tables);
        // One that is nowhere is an error still.
        fs::remove_file(&tables_of(&database)[0]).unwrap();
        for (path, bytes) in decoys.iter().zip(&kept) {
            fs::write(path, bytes).unwrap();
        }
        let error = Tables::open(&database, 1 << 20).unwrap_err();
        assert_eq!(error.kind, crate::store::ErrorKind::Corrupt, "{error}");
        assert_eq!(tables_of(&database).len(), 1, "nothing is left that doesn't belong there");
    }

    #[test]
    fn a_file_is_kept_where_the_list_has_grown_and_until_another_is_in() {
        let directory = tempfile::tempdir().unwrap();
        let tables = Tables::open(&directory.path().join("tables"), 1 << 20).unwrap();
        let refused = |grows: bool| {
            let mut file = tables.incoming.file("pages");
            fs::write(&file.path, b"bytes").unwrap();
            let wrong = tables.incoming.bring(&mut file, |_| {
                let (list, _) = tables.incoming.list().unwrap();
                if grows {
                    let list = fs::File::options().append(true).open(tables.incoming.database.join(list));
                    std::io::Write::write_all(&mut list.unwrap(), &[0; 64]).unwrap();
                }
                tables.db.ingest_external_file(vec!["/nowhere.sst"])
            });
            assert!(wrong.is_err());
            let path = file.path.clone();
            drop(file);
            path
        };
        assert!(!refused(false).exists());
        let kept = refused(true);
        assert!(kept.exists());
        tables.ingest_layer(layer(&tables, 1)).unwrap();
        assert!(!kept.exists());
    }
}
