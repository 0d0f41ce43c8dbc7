//! Segments as files: made of zeros, written in whole blocks, found again by their names.

use std::fs::{self, File};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::{ErrorKind, Result, StoreError};

use super::format::{BLOCK, SegmentHeader, TERMINATOR};

const SEGMENT_SUFFIX: &str = ".log";
const SPARE_SUFFIX: &str = ".spare";
const UNFINISHED_SUFFIX: &str = ".unfinished";
/// Zeros are written in pieces of this size.
const PIECE: usize = 1 << 20;

/// The segment that takes the next record.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// What it says of itself.
    pub(super) header: SegmentHeader,
    /// Its length in bytes, a multiple of the block.
    pub(super) size: u64,
    /// Where the next record goes.
    pub(super) position: u64,
}

impl Segment {
    /// Makes a segment of `size` bytes out of `spare`, or of nothing, durably. The header is on
    /// stable storage before the name is: a segment whose header is broken was not torn.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, and then nothing has changed; `Internal`.
    pub(super) fn create(
        directory: &Path,
        header: SegmentHeader,
        size: u64,
        spare: Option<PathBuf>,
    ) -> Result<Self> {
        let path = directory.join(format!("{:016x}{SEGMENT_SUFFIX}", header.number));
        let from = spare.unwrap_or_else(|| path.with_extension(&UNFINISHED_SUFFIX[1..]));
        let file = Self::prepare(&from, &header, size).and_then(|file| {
            fs::rename(&from, &path)?;
            Ok(file)
        });
        let file = file.map_err(|error| {
            // What is left is removed at the next start if it can't be now.
            let _left = fs::remove_file(&from);
            failed(&path, &error)
        })?;
        sync_directory(directory).map_err(|error| StoreError::internal(error.message))?;
        Ok(Self { file, path, header, size, position: BLOCK })
    }

    fn prepare(path: &Path, header: &SegmentHeader, size: u64) -> io::Result<File> {
        let file = match path.extension().is_some_and(|suffix| suffix == &SPARE_SUFFIX[1..]) {
            true => File::options().read(true).write(true).open(path)?,
            false => zeroed(path, size)?,
        };
        // The block behind the header too: there the records end until the first is written.
        let mut blocks = [0; 2 * BLOCK as usize];
        let bytes = header.encode();
        blocks[..bytes.len()].copy_from_slice(&bytes);
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(blocks.len());
        file.write_all_at(&blocks[..length], 0)?;
        file.sync_data()?;
        Ok(file)
    }

    /// Whether a record of `length` bytes fits.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.position.saturating_add(length as u64) <= self.size
    }

    /// Writes `record` where the next one goes, with zeros behind it up to the end of its block, and
    /// steps over it. After an error the position is as before.
    pub(super) fn write(&mut self, record: &mut Vec<u8>) -> io::Result<()> {
        let length = record.len() as u64;
        let end = (self.position + length + TERMINATOR as u64).next_multiple_of(BLOCK).min(self.size);
        record.resize(usize::try_from(end - self.position).unwrap_or(record.len()), 0);
        self.file.write_all_at(record, self.position)?;
        self.position += length;
        Ok(())
    }

    /// After a failed write of `record`: makes sure that what was written is no record.
    pub(super) fn undo(&self, record: &[u8]) -> io::Result<()> {
        let Err(error) = self.file.write_all_at(&[0; 8], self.position) else { return Ok(()) };
        // A full disk may refuse even this; then it has refused a part of the record too, which fails its checksum.
        let mut bytes = vec![0; record.len()];
        self.file.read_exact_at(&mut bytes, self.position)?;
        if bytes == record { Err(error) } else { Ok(()) }
    }

    /// Zeroes everything from the position on, and syncs.
    pub(super) fn clear_rest(&self) -> io::Result<()> {
        write_zeros(&self.file, self.position, self.size)?;
        self.file.sync_data()
    }
}

/// What a log's directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers and paths of segments, ascending.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// Files that may become segments.
    pub(super) spares: Vec<PathBuf>,
    /// Files that were to become either, of which nothing is used.
    unfinished: Vec<PathBuf>,
}

/// Creates `directory` if it is missing, removes what was left unfinished, and lists the rest.
///
/// # Errors
/// `Unavailable` when the disk is full, `Internal`.
pub(super) fn list(directory: &Path) -> Result<Listing> {
    fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    if let Some(parent) = directory.parent() {
        sync_directory(parent)?;
    }
    let listing = look(directory)?;
    for path in &listing.unfinished {
        fs::remove_file(path).map_err(|error| failed(path, &error))?;
    }
    Ok(listing)
}

/// Lists `directory` and leaves all as it is.
///
/// # Errors
/// `Internal`.
pub(super) fn look(directory: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, &error))? {
        let path = entry.map_err(|error| failed(directory, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(SEGMENT_SUFFIX).and_then(number_of) {
            listing.segments.push((number, path));
        } else if name.ends_with(SPARE_SUFFIX) {
            listing.spares.push(path);
        } else if name.ends_with(UNFINISHED_SUFFIX) {
            listing.unfinished.push(path);
        } else {
            tracing::warn!(file = %path.display(), "this file is none of the log's; left alone");
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

fn number_of(name: &str) -> Option<u64> {
    let plain = name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(name, 16).ok()).flatten()
}

/// Makes a spare of `size` bytes of zeros.
pub(super) fn create_spare(directory: &Path, size: u64) -> io::Result<PathBuf> {
    let path = spare_path(directory)?;
    let unfinished = path.with_extension(&UNFINISHED_SUFFIX[1..]);
    let made = zeroed(&unfinished, size).and_then(|file| file.sync_all());
    if let Err(error) = made.and_then(|()| fs::rename(&unfinished, &path)) {
        let _left = fs::remove_file(&unfinished);
        return Err(error);
    }
    Ok(path)
}

/// Turns a segment that is no longer needed into a spare.
pub(super) fn make_spare(segment: &Path) -> io::Result<PathBuf> {
    let directory = segment.parent().unwrap_or(Path::new("."));
    let path = spare_path(directory)?;
    fs::rename(segment, &path)?;
    Ok(path)
}

/// A name that no file has: drawn at random, so that it needs no counter across restarts.
fn spare_path(directory: &Path) -> io::Result<PathBuf> {
    let number = getrandom::u64().map_err(io::Error::other)?;
    Ok(directory.join(format!("{number:016x}{SPARE_SUFFIX}")))
}

/// A new file of `size` zeros, written and not only allocated: overwriting them changes no metadata,
/// so that a sync of the overwritten costs one write.
fn zeroed(path: &Path, size: u64) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    write_zeros(&file, 0, size)?;
    Ok(file)
}

fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Makes renames and removals in `directory` durable.
///
/// # Errors
/// `Unavailable` when the disk is full, `Internal`.
pub(in crate::rocksdb) fn sync_directory(directory: &Path) -> Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let synced = File::open(directory).and_then(|open| open.sync_all());
    synced.map_err(|error| failed(directory, &error))
}

/// Whether an error says that there is no space, which may change.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::WriteZero)
}

/// A failure of `path` as the store's error.
pub(super) fn failed(path: &Path, error: &io::Error) -> StoreError {
    let kind = match is_full(error) {
        true => ErrorKind::Unavailable { retry_after: Duration::from_secs(5) },
        false => ErrorKind::Internal,
    };
    StoreError::new(kind, format!("{}: {error}", path.display()))
}
