//! Changes of a few bytes of one file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What a file of a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A segment of the log.
    Log,
    /// A table of pages, summaries, definitions, or of what `meta` holds.
    Table,
    /// RocksDB's list of tables.
    Manifest,
    /// RocksDB's own log.
    Wal,
    /// Anything else: names, options, spares.
    Other,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let in_log = path.parent().is_some_and(|folder| folder.ends_with("log"));
        match () {
            () if in_log && name.ends_with(".log") => Self::Log,
            () if name.ends_with(".sst") => Self::Table,
            () if name.starts_with("MANIFEST") => Self::Manifest,
            () if !in_log && name.ends_with(".log") => Self::Wal,
            () => Self::Other,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Log => "log",
            Self::Table => "tables",
            Self::Manifest => "manifest",
            Self::Wal => "wal",
            Self::Other => "other",
        })
    }
}

/// A change of one file.
#[derive(Debug)]
pub struct Flip {
    /// The file's kind.
    pub kind: Kind,
    file: PathBuf,
    content: Vec<u8>,
    how: String,
}

impl fmt::Display for Flip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        write!(formatter, "{} ({}, {name})", self.how, self.kind)
    }
}

impl Flip {
    /// A bit, a byte or a stretch of some file below `store`, where the file holds something.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn anywhere(store: &Path, random: &mut fastrand::Rng) -> Result<Self, String> {
        let mut files = Vec::new();
        list(store, &mut files)?;
        let kinds = [
            Kind::Log,
            Kind::Log,
            Kind::Log,
            Kind::Table,
            Kind::Table,
            Kind::Table,
            Kind::Manifest,
            Kind::Wal,
        ];
        let kind = if random.u8(..24) == 0 { Kind::Other } else { kinds[random.usize(..kinds.len())] };
        let of_kind: Vec<_> = files.iter().filter(|file| Kind::of(file) == kind).collect();
        let file = match of_kind.is_empty() {
            true => &files[random.usize(..files.len())],
            false => of_kind[random.usize(..of_kind.len())],
        };
        let mut content = fs::read(file).map_err(|error| error.to_string())?;
        // Behind what is used there may be zeros; some flips go there too.
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let reach = if random.u8(..16) == 0 { content.len() } else { used };
        if reach == 0 {
            content.push(random.u8(..));
            let how = "a byte appended".to_owned();
            return Ok(Self { kind: Kind::of(file), file: file.clone(), content, how });
        }
        let at = random.usize(..reach);
        let how = change(&mut content, at, random);
        Ok(Self { kind: Kind::of(file), file: file.clone(), content, how })
    }

    /// A byte in the body of a record of the log, whose checksum is made to fit.
    ///
    /// # Errors
    /// There is no record, or a file can't be read.
    pub fn in_a_record(store: &Path, random: &mut fastrand::Rng) -> Result<Self, String> {
        let mut files = Vec::new();
        list(store, &mut files)?;
        let segments: Vec<_> = files.into_iter().filter(|file| Kind::of(file) == Kind::Log).collect();
        for _ in 0..1_000 {
            let file = &segments[random.usize(..segments.len())];
            let mut content = fs::read(file).map_err(|error| error.to_string())?;
            let records = records(&content);
            if records.is_empty() {
                continue;
            }
            let (start, length) = records[random.usize(..records.len())];
            let at = start + HEADER + random.usize(..length);
            content[at] ^= 1 << random.u8(..8);
            let body = crc32c::crc32c(&content[start..start + 8]);
            let sum = crc32c::crc32c_append(body, &content[start + 12..start + HEADER + length]);
            content[start + 8..start + 12].copy_from_slice(&sum.to_le_bytes());
            let how = format!("byte {at} flipped and the checksum made to fit");
            return Ok(Self { kind: Kind::Log, file: file.clone(), content, how });
        }
        Err("no record of the log".to_owned())
    }

    /// Writes the changed file in place of what is there.
    ///
    /// # Errors
    /// It can't be written.
    pub fn apply(&self) -> Result<(), String> {
        fs::write(&self.file, &self.content).map_err(|error| error.to_string())
    }
}

/// Where the epoch of a segment stands, its first record, and a record's header: the log's format 1.
const EPOCH: std::ops::Range<usize> = 24..32;
const FIRST: usize = 4_096;
const HEADER: usize = 40;

/// Where each record of a segment begins, and the length of its body.
fn records(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = FIRST;
    while let (Some(header), Some(epoch)) = (segment.get(at..at + HEADER), segment.get(EPOCH)) {
        let length = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        if &header[..8] != epoch || segment.len() < at + HEADER + length {
            break;
        }
        if length > 0 {
            found.push((at, length));
        }
        at += (HEADER + length).next_multiple_of(8);
    }
    found
}

fn change(content: &mut [u8], at: usize, random: &mut fastrand::Rng) -> String {
    match random.u8(..8) {
        0 => {
            let end = content.len().min(at + random.usize(2..600));
            content[at..end].fill(0);
            format!("bytes {at} to {end} zeroed")
        }
        1 => {
            let end = content.len().min(at + random.usize(2..64));
            content[at..end].fill_with(|| random.u8(..));
            format!("bytes {at} to {end} made noise")
        }
        2 => {
            content[at] = content[at].wrapping_add(random.u8(1..));
            format!("byte {at} changed")
        }
        _ => {
            content[at] ^= 1 << random.u8(..8);
            format!("a bit of byte {at} flipped")
        }
    }
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        entries.push(entry.map_err(|error| error.to_string())?.path());
    }
    // In the same order each time, so that a seed's flips are the same.
    entries.sort_unstable();
    for path in entries {
        match path.is_dir() {
            true => list(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}
