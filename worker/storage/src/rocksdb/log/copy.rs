//! A copy of the log up to one commit, made while the log goes on.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::store::{Result, StoreError};

use super::format::{self, BLOCK, Kind, RecordHeader};
use super::segment;

/// What a copy consists of: whole segments, and the active one up to a position behind which nothing
/// that was written before the cut lies. Bytes before it are never written again while the log is held.
#[derive(Debug)]
pub struct Cut {
    pub(super) full: Vec<PathBuf>,
    pub(super) active: PathBuf,
    pub(super) epoch: u64,
    pub(super) position: u64,
    pub(super) closed: bool,
    pub(super) commit: u64,
}

impl Cut {
    /// The last commit in it.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Copies into `directory`, which is created; the caller syncs it. The copy is a log that was closed: damage to
    /// its last record is damage, and no torn tail.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal`.
    pub fn copy(&self, directory: &Path) -> Result<()> {
        let io = |error| segment::failed(directory, &error);
        fs::create_dir(directory).map_err(io)?;
        for file in &self.full {
            fs::copy(file, target(directory, file)?).map_err(io)?;
        }
        let mut bytes = Vec::new();
        let active = File::open(&self.active).map_err(io)?;
        active.take(self.position).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 != self.position {
            return Err(StoreError::corrupt(format!("{}: shorter than it was", self.active.display())));
        }
        if !self.closed && self.commit > 0 {
            bytes.extend_from_slice(&self.end()?);
        }
        let length = bytes.len().next_multiple_of(BLOCK as usize);
        bytes.resize(length, 0);
        fs::write(target(directory, &self.active)?, &bytes).map_err(io)
    }

    /// The record that says that the log was closed here.
    fn end(&self) -> Result<Vec<u8>> {
        let mut record = Vec::new();
        format::pack(&mut record, &[])?;
        let header = RecordHeader { kind: Kind::Closed, commit: self.commit, synced: self.commit };
        format::finish(&mut record, self.epoch, &header);
        Ok(record)
    }
}

fn target(directory: &Path, file: &Path) -> Result<PathBuf> {
    let name = file.file_name().ok_or_else(|| StoreError::internal("a log segment without a name"))?;
    Ok(directory.join(name))
}
