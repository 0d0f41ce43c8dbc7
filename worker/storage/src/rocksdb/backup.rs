//! Backups: a consistent copy of a store that goes on writing, and what becomes of it.
//!
//! A backup is a folder that a store can be opened from: `tables/`, a checkpoint of RocksDB whose tables are
//! other names for the same bytes, and `log/`, a copy of the log from what those tables hold up to one
//! commit. Beside them `backup.json` says what it is. It is made under a name that ends in `.unfinished` and
//! renamed when all of it is on stable storage, so that what a crash leaves is told from a backup.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::store::{Backup, ErrorKind, Result, StoreError};

use super::commit::{Done, Work};
use super::engine::{Inner, unavailable};
use super::log::{Cut, sync_directory as sync};

/// In a folder that is being restored into: what has arrived so far.
pub const RESTORING: &str = "restoring";

const UNFINISHED: &str = "unfinished";
const RECORD: &str = "backup.json";
/// What a data folder consists of.
const PARTS: [&str; 2] = ["log", "tables"];

/// What a backup says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The last commit in it.
    commit: u64,
    /// Its bytes.
    bytes: u64,
    /// When it was begun, Unix milliseconds.
    created: i64,
}

/// Removes the backups in `folder` that a crash cut off; creates it where it is missing.
///
/// # Errors
/// `Internal`.
pub(super) fn remove_unfinished(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let path = entry.map_err(|error| failed(folder, &error))?.path();
        if path.extension().is_some_and(|suffix| suffix == UNFINISHED) {
            tracing::info!(backup = %path.display(), "removing a backup that was not finished");
            fs::remove_dir_all(&path).map_err(|error| failed(&path, &error))?;
        }
    }
    Ok(())
}

/// Makes a backup that holds every write acknowledged before this was called.
///
/// # Errors
/// `Refused` where no folder is configured, or another backup is being made; `Unavailable` when the disk is
/// full or the store closing; `Internal`.
pub(super) fn make(inner: &Arc<Inner>) -> Result<Backup> {
    let folder = folder(inner)?;
    let busy = || refused("another backup is being made or removed; try again when it is done");
    let _one_at_a_time = inner.backing_up.try_lock().ok_or_else(busy)?;
    let created = inner.options.clock.now();
    // 1. From here on no commit that tables don't hold leaves the log.
    let (done, answer) = Done::new();
    inner.queue.push_work(Work::HoldLog { done })?;
    let held = Held(inner);
    answer.blocking_recv().map_err(|_| unavailable("the store stopped"))??;
    // 2. Tables first: whatever they hold no longer, the log still does. IO.
    let unfinished = folder.join(format!("{created}.{UNFINISHED}"));
    let made = write(inner, &unfinished, created);
    drop(held);
    // 3. It gets its name. IO.
    let named = made.and_then(|record| {
        let name = name_of(&record);
        fs::rename(&unfinished, folder.join(&name)).map_err(|error| failed(&unfinished, &error))?;
        sync(folder)?;
        Ok(backup_of(name, &record))
    });
    if named.is_err() {
        // What can't be removed now is removed at the next start.
        let _left = fs::remove_dir_all(&unfinished);
    }
    named
}

/// The log's files stay while this lives.
struct Held<'a>(&'a Arc<Inner>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A closing queue takes it no more, and the next start releases them.
        let _closing = self.0.queue.push_work(Work::LetLogGo);
    }
}

fn write(inner: &Arc<Inner>, unfinished: &Path, created: i64) -> Result<Record> {
    fs::create_dir(unfinished).map_err(|error| failed(unfinished, &error))?;
    inner.tables.checkpoint(&unfinished.join("tables"))?;
    let cut = cut(inner)?;
    cut.copy(&unfinished.join("log"))?;
    let mut bytes = 0;
    for part in PARTS {
        bytes += sync_files(&unfinished.join(part))?;
    }
    let record = Record { commit: cut.commit(), bytes, created };
    let text = serde_json::to_vec(&record).map_err(StoreError::internal)?;
    let path = unfinished.join(RECORD);
    let written = fs::write(&path, text).and_then(|()| File::open(&path)?.sync_all());
    written.map_err(|error| failed(&path, &error))?;
    sync(unfinished)?;
    Ok(record)
}

fn cut(inner: &Inner) -> Result<Cut> {
    let (cut, answer) = oneshot::channel();
    inner.queue.push_work(Work::CutLog { cut })?;
    answer.blocking_recv().map_err(|_| unavailable("the store stopped"))?
}

/// The finished backups, oldest first.
///
/// # Errors
/// `Refused` where no folder is configured; `Internal`.
pub(super) fn list(inner: &Inner) -> Result<Vec<Backup>> {
    let folder = folder(inner)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let entry = entry.map_err(|error| failed(folder, &error))?;
        let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)).map(str::to_owned) else {
            continue;
        };
        let Ok(text) = fs::read(entry.path().join(RECORD)) else { continue };
        if let Ok(record) = serde_json::from_slice(&text) {
            found.push(backup_of(name, &record));
        }
    }
    found.sort_by_key(|backup| (backup.created, backup.commit));
    Ok(found)
}

/// Removes a backup; whether it was there.
///
/// # Errors
/// `Refused` where no folder is configured, or a backup is being made; `Internal`.
pub(super) fn delete(inner: &Inner, name: &str) -> Result<bool> {
    let folder = folder(inner)?;
    let path = folder.join(name);
    if !is_name(name) || !path.join(RECORD).is_file() {
        return Ok(false);
    }
    let busy = || refused("a backup is being made or removed; try again when it is done");
    let _one_at_a_time = inner.backing_up.try_lock().ok_or_else(busy)?;
    // Under its other name first, so that half a backup never has the name of a whole one.
    let unfinished = folder.join(format!("{name}.{UNFINISHED}"));
    fs::rename(&path, &unfinished).map_err(|error| failed(&path, &error))?;
    sync(folder)?;
    fs::remove_dir_all(&unfinished).map_err(|error| failed(&unfinished, &error))?;
    Ok(true)
}

/// Copies `backup` into `target`, which must be empty or missing, durably. Bytes, files.
///
/// What has arrived lies in a folder of its own until all has, and a store refuses a folder that has one.
///
/// # Errors
/// `Refused` when `target` holds something; `Unavailable` when the disk is full; `Internal`.
pub fn restore(backup: &Path, target: &Path) -> Result<(u64, u64)> {
    if backup.extension().is_some_and(|suffix| suffix == UNFINISHED) {
        return Err(refused(format!("{}: this backup was not finished", backup.display())));
    }
    fs::create_dir_all(target).map_err(|error| failed(target, &error))?;
    if !is_empty(target)? {
        return Err(refused(format!(
            "{} is not empty; a restore needs a folder of its own",
            target.display()
        )));
    }
    let arriving = target.join(RESTORING);
    fs::create_dir(&arriving).map_err(|error| failed(&arriving, &error))?;
    sync(target)?;
    let (mut bytes, mut files) = (0, 0);
    for part in PARTS {
        let (from, to) = (backup.join(part), arriving.join(part));
        fs::create_dir(&to).map_err(|error| failed(&to, &error))?;
        for file in files_of(&from)? {
            let name = file.file_name().unwrap_or_default();
            bytes += fs::copy(&file, to.join(name)).map_err(|error| failed(&file, &error))?;
            files += 1;
        }
        sync_files(&to)?;
    }
    sync(&arriving)?;
    // The log first: a log without tables is refused, and tables without a log might not be.
    for part in PARTS {
        fs::rename(arriving.join(part), target.join(part)).map_err(|error| failed(target, &error))?;
        sync(target)?;
    }
    fs::remove_dir(&arriving).map_err(|error| failed(&arriving, &error))?;
    sync(target)?;
    if let Some(parent) = target.parent() {
        sync(parent)?;
    }
    Ok((bytes, files))
}

/// Whether a folder holds nothing; what a new file system has of its own doesn't count.
fn is_empty(folder: &Path) -> Result<bool> {
    let entries = fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
    Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found"))
}

/// The files in `folder` that a copy needs: all but RocksDB's lock and its own messages.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let path = entry.map_err(|error| failed(folder, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && name != "LOCK" && !name.starts_with("LOG") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Syncs each file in `folder`, and the folder; their bytes.
fn sync_files(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for path in files_of(folder)? {
        let file = File::open(&path).map_err(|error| failed(&path, &error))?;
        file.sync_all().map_err(|error| failed(&path, &error))?;
        bytes += file.metadata().map_err(|error| failed(&path, &error))?.len();
    }
    sync(folder)?;
    Ok(bytes)
}

fn folder(inner: &Inner) -> Result<&Path> {
    let none = || refused("no folder for backups is configured: storage.rocksdb.backup_path names it");
    inner.options.backups.as_deref().ok_or_else(none)
}

/// When it was begun, and its last commit.
fn name_of(record: &Record) -> String {
    format!("{}-{}", record.created, record.commit)
}

/// Whether a text can be a backup's name: no other can lead out of the folder.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn backup_of(name: String, record: &Record) -> Backup {
    Backup { name, bytes: record.bytes, commit: record.commit, created: record.created }
}

fn refused(why: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Refused, why)
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let text = format!("{}: {error}", path.display());
    if full { unavailable(text) } else { StoreError::internal(text) }
}
