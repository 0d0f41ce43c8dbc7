//! Reading a log without touching it, past everything that is damaged.
//!
//! What a bad record means is decided as in `replay`; but there the first loss ends the reading, and here
//! each is noted and the reading goes on behind it.

use std::path::{Path, PathBuf};

use crate::store::{ErrorKind, Result};

use super::Apply;
use super::format::{self, BLOCK, Kind, Record, SegmentHeader};
use super::replay::{read, read_header, search};
use super::segment;

/// Commits that were on stable storage and can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The segment in which they lie or before which they lay.
    pub file: PathBuf,
    /// Where reading failed.
    pub offset: u64,
    /// The first of them.
    pub first: u64,
    /// The last of them; `None` where nothing says how many there were.
    pub last: Option<u64>,
    /// Why they can't be read.
    pub why: String,
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Commits read that tables don't hold.
    pub commits: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// The last commit found.
    pub last_commit: u64,
    /// Commits that are lost.
    pub lost: Vec<Lost>,
    /// What is unusual and loses nothing.
    pub notes: Vec<String>,
}

/// Reads the log in `directory` and gives `apply` each commit after `sealed` that can be read, in order.
///
/// # Errors
/// `Internal` when a file can't be opened, also for an unknown format.
pub fn inspect(directory: &Path, sealed: u64, apply: Apply<'_>) -> Result<Inspection> {
    let mut segments = Vec::new();
    for (number, path) in segment::look(directory)?.segments {
        segments.push(Found::open(number, path)?);
    }
    // Of segments before the last one that begins early enough tables hold everything.
    let needed = |found: &Found| found.header.as_ref().is_ok_and(|header| header.first_commit <= sealed + 1);
    let from = segments.iter().rposition(needed).unwrap_or(0);
    let mut reading = Reading { sealed, expected: 1, body: Vec::new(), found: Inspection::default(), apply };
    let live = &segments[from..];
    if let Some(Ok(first)) = live.first().map(|found| &found.header) {
        reading.expected = first.first_commit;
        reading.gap_before(
            &live[0].path,
            sealed + 1,
            first.first_commit,
            "the segments before it are missing",
        );
    }
    for (at, found) in live.iter().enumerate() {
        let next = live[at + 1..].iter().find_map(|next| next.header.as_ref().ok());
        reading.segment(found, next.map(|next| next.first_commit), at + 1 < live.len())?;
    }
    reading.found.last_commit = reading.expected - 1;
    Ok(reading.found)
}

/// A segment, its header read.
struct Found {
    path: PathBuf,
    header: std::result::Result<SegmentHeader, String>,
}

impl Found {
    fn open(number: u64, path: PathBuf) -> Result<Self> {
        let header = match read_header(&path) {
            Ok(header) if header.number == number => Ok(header),
            Ok(header) => Err(format!("this is log segment {:x} under a wrong name", header.number)),
            Err(error) if error.kind == ErrorKind::Corrupt => {
                Err("the segment's header is broken".to_owned())
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path, header })
    }
}

struct Reading<'a> {
    sealed: u64,
    /// The commit that comes next.
    expected: u64,
    body: Vec<u8>,
    found: Inspection,
    apply: Apply<'a>,
}

impl Reading<'_> {
    fn segment(&mut self, found: &Found, next: Option<u64>, has_next: bool) -> Result<()> {
        let header = match &found.header {
            Ok(header) => header,
            Err(why) => {
                self.lose(&found.path, 0, next.map(|next| next - 1), why);
                return Ok(());
            }
        };
        self.gap_before(&found.path, self.expected, header.first_commit, "the segment before it is missing");
        self.expected = self.expected.max(header.first_commit);
        let mut bytes = Vec::new();
        read(&found.path, &mut bytes)?;
        self.found.bytes += bytes.len() as u64;
        self.records(&found.path, &bytes, header.epoch, next, has_next)
    }

    fn records(
        &mut self,
        path: &Path,
        bytes: &[u8],
        epoch: u64,
        next: Option<u64>,
        has_next: bool,
    ) -> Result<()> {
        let mut at = BLOCK as usize;
        loop {
            if let Some(record) = format::decode(bytes, at, epoch)
                && record.is_next(self.expected)
            {
                self.record(path, &record, at);
                at = record.end;
                continue;
            }
            let later = search(bytes, at, epoch, self.expected);
            let offset = at as u64;
            match later {
                // Behind an unsynced record that is broken all others are unsynced too.
                Some(later) if !has_next && later.synced < self.expected => {
                    self.torn(path, offset);
                    return Ok(());
                }
                Some(later) => {
                    self.lose(path, offset, Some(later.commit - 1), "a record fails its checksum");
                    at = later.offset;
                }
                None if has_next => {
                    if next.is_none_or(|next| next > self.expected) {
                        self.lose(path, offset, next.map(|next| next - 1), "a record fails its checksum");
                    }
                    return Ok(());
                }
                None => {
                    if !format::ends(bytes, at) {
                        self.torn(path, offset);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn record(&mut self, path: &Path, record: &Record<'_>, at: usize) {
        if record.header.kind == Kind::Closed {
            return;
        }
        let commit = record.header.commit;
        if commit > self.sealed {
            let read = format::unpack(record, &mut self.body);
            match read.and_then(|()| (self.apply)(commit, &self.body)) {
                Ok(()) => self.found.commits += 1,
                Err(error) => self.lose(path, at as u64, Some(commit), &error.message),
            }
        }
        self.expected = commit + 1;
    }

    /// Notes what lies between commit `from` and the beginning of `path`, if anything does.
    fn gap_before(&mut self, path: &Path, from: u64, first: u64, why: &str) {
        if first > from {
            self.expected = from;
            self.lose(path, 0, Some(first - 1), why);
        }
    }

    /// Notes the loss of the commits from the next one on; only of those that tables don't hold.
    fn lose(&mut self, file: &Path, offset: u64, last: Option<u64>, why: &str) {
        let first = self.expected.max(self.sealed + 1);
        if last.is_none_or(|last| first <= last) {
            let file = file.to_owned();
            self.found.lost.push(Lost { file, offset, first, last, why: why.to_owned() });
        } else {
            let place = format!("{}, offset {offset}: {why}", file.display());
            self.found.notes.push(format!("{place}; tables hold everything that was there"));
        }
        self.expected = last.map_or(self.expected, |last| self.expected.max(last + 1));
    }

    fn torn(&mut self, file: &Path, offset: u64) {
        let place = format!("{}, offset {offset}", file.display());
        self.found
            .notes
            .push(format!("{place}: the log ends in an unfinished record, which was never acknowledged"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Log, LogOptions};
    use super::*;

    fn options() -> LogOptions {
        LogOptions { segment_bytes: 16 << 10, spares: 3 }
    }

    fn body(commit: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(commit);
        (0..600).map(|_| random.u8(..)).collect()
    }

    /// A log of 60 commits in some segments; closed, or as a kill leaves it.
    fn log(directory: &Path, closed: bool) {
        let mut log = Log::open(directory, options(), 0, &mut |_, _| Ok(())).unwrap().0;
        for commit in 1..=60 {
            log.append(commit, &body(commit)).unwrap();
            log.sync().unwrap();
        }
        if closed {
            log.close().unwrap();
        }
    }

    fn inspected(directory: &Path, sealed: u64) -> Inspection {
        let mut apply = |commit: u64, found: &[u8]| {
            assert_eq!(found, body(commit));
            Ok(())
        };
        inspect(directory, sealed, &mut apply).unwrap()
    }

    #[test]
    fn a_sound_log_is_read_whole_and_left_as_it_is() {
        for closed in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            log(directory.path(), closed);
            for sealed in [0, 1, 30, 60] {
                let found = inspected(directory.path(), sealed);
                assert_eq!((found.commits, found.last_commit, found.lost.len()), (60 - sealed, 60, 0));
                assert!(found.notes.is_empty(), "{:?}", found.notes);
            }
        }
    }

    #[test]
    fn it_finds_a_loss_where_an_opening_does_and_reads_on_behind_it() {
        let directory = tempfile::tempdir().unwrap();
        let original = directory.path().join("original");
        log(&original, true);
        let mut random = fastrand::Rng::with_seed(4);
        let mut losses = 0;
        for round in 0..400 {
            let copy = directory.path().join("copy");
            fs::create_dir(&copy).unwrap();
            let segments = segment::look(&original).unwrap().segments;
            for (_, path) in &segments {
                fs::copy(path, copy.join(path.file_name().unwrap())).unwrap();
            }
            let file = copy.join(segments[random.usize(..segments.len())].1.file_name().unwrap());
            let mut bytes = fs::read(&file).unwrap();
            // Not the format: that is another error.
            let at = if round % 8 == 0 { random.usize(12..40) } else { random.usize(4_096..bytes.len()) };
            bytes[at] ^= 1 << random.u8(..8);
            fs::write(&file, bytes).unwrap();
            let sealed = random.u64(..60);
            let found = inspected(&copy, sealed);
            let opened = Log::open(&copy, options(), sealed, &mut |_, _| Ok(()));
            assert_eq!(opened.is_err(), !found.lost.is_empty(), "byte {at}, sealed {sealed}: {found:?}");
            if let Some(lost) = found.lost.first() {
                losses += 1;
                let count = lost.last.map_or(0, |last| last + 1 - lost.first);
                assert!(lost.last.is_none() || found.commits + count == 60 - sealed, "{found:?}");
            }
            // Its thread may be making a file.
            drop(opened);
            fs::remove_dir_all(&copy).unwrap();
        }
        assert!(losses > 50);
    }
}
