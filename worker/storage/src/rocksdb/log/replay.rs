//! Reading the log back: every commit in order, or a clear word about what is lost.
//!
//! # A bad record
//! Where a record is expected and none is sound, the segment is searched on. A later record that is
//! sound names the last commit that was synced when it was written: what is missing up to that one
//! was on stable storage, so it is damage. What is missing after it was never acknowledged as durable:
//! the tail is torn, and cut off. A segment is synced before the next one begins, so nothing may be
//! missing before a segment that has a successor. Damage that tables have outlived is only reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::{Result, StoreError};

use super::backlog::Backlog;
use super::format::{self, BLOCK, Kind, MAX_SEGMENT, Record, SegmentHeader};
use super::segment::{self, Segment};
use super::{Apply, Full, Recovery, TornTail};

const PROGRESS: Duration = Duration::from_secs(3);

/// A segment found in the log's directory.
#[derive(Debug)]
pub(super) struct Found {
    path: PathBuf,
    header: SegmentHeader,
}

/// Reads the headers of the segments that hold commits after `sealed`, oldest first, and says which
/// files before them are no longer needed.
///
/// # Errors
/// `Corrupt` when a segment is missing or its header broken; `Internal`, also for an unknown format.
pub(super) fn find(segments: Vec<(u64, PathBuf)>, sealed: u64) -> Result<(Vec<Found>, Vec<PathBuf>)> {
    let mut live: Vec<Found> = Vec::new();
    let mut segments = segments.into_iter().rev();
    for (number, path) in segments.by_ref() {
        let header = read_header(&path)?;
        if header.number != number {
            return Err(StoreError::corrupt(format!(
                "{}: this is log segment {:x} under a wrong name",
                path.display(),
                header.number
            )));
        }
        if let Some(next) = live.last()
            && (next.header.number != number + 1 || header.first_commit > next.header.first_commit)
        {
            return Err(missing_before(next, header.first_commit.max(sealed + 1)));
        }
        live.push(Found { path, header });
        if header.first_commit <= sealed + 1 {
            break;
        }
    }
    if let Some(oldest) = live.last()
        && oldest.header.first_commit > sealed + 1
    {
        return Err(missing_before(oldest, sealed + 1));
    }
    live.reverse();
    let mut released: Vec<PathBuf> = segments.map(|(_, path)| path).collect();
    released.reverse();
    Ok((live, released))
}

fn missing_before(next: &Found, from: u64) -> StoreError {
    let through = next.header.first_commit.saturating_sub(1);
    StoreError::corrupt(format!(
        "the log segment before {} is missing: commits from {from} to {through} are lost",
        next.path.display()
    ))
}

/// What a segment says of itself, in its first block.
///
/// # Errors
/// `Corrupt` when that is broken, or the file too long for a segment; `Internal`.
pub(super) fn read_header(path: &Path) -> Result<SegmentHeader> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(open(path)?, BLOCK), &mut bytes)
        .map_err(|error| segment::failed(path, &error))?;
    SegmentHeader::decode(&bytes, path)
}

/// What is known once all segments are read.
pub(super) struct Replayed {
    /// The segment that takes the next record, positioned and cleared behind its last one.
    pub(super) active: Segment,
    /// Those before it.
    pub(super) full: Vec<Full>,
    /// The last commit.
    pub(super) last_commit: u64,
    /// Whether the last record says that the log was closed.
    pub(super) closed: bool,
    pub(super) backlog: Backlog,
    pub(super) recovery: Recovery,
}

/// Reads `segments` and gives `apply` each commit after `sealed`.
///
/// # Errors
/// `Corrupt` naming what is lost; what `apply` returns; `Unavailable` when the disk is full; `Internal`.
pub(super) fn replay(segments: Vec<Found>, sealed: u64, apply: Apply<'_>) -> Result<Option<Replayed>> {
    let Some(first) = segments.first() else { return Ok(None) };
    let mut reading = Reading {
        sealed,
        expected: first.header.first_commit,
        closed: false,
        body: Vec::new(),
        backlog: Backlog::default(),
        recovery: Recovery::default(),
        progress: Progress::new(&segments),
        apply,
    };
    let mut bytes = Vec::new();
    let mut full = Vec::new();
    for (at, found) in segments.iter().enumerate() {
        if found.header.first_commit != reading.expected {
            return Err(StoreError::corrupt(format!(
                "{}: this log segment begins with commit {}, but the one before goes on to {}",
                found.path.display(),
                found.header.first_commit,
                reading.expected - 1
            )));
        }
        read(&found.path, &mut bytes)?;
        let next = segments.get(at + 1).map(|next| next.header.first_commit);
        let end = reading.segment(found, &bytes, next)?;
        reading.progress.step(bytes.len(), &reading.recovery);
        if let Some(next) = next {
            full.push(Full { path: found.path.clone(), last_commit: next - 1 });
            continue;
        }
        let active = activate(found, bytes.len(), end, reading.recovery.torn_tail.is_some())?;
        let Reading { expected, closed, backlog, recovery, .. } = reading;
        return Ok(Some(Replayed { active, full, last_commit: expected - 1, closed, backlog, recovery }));
    }
    Ok(None)
}

/// Opens the last segment for writing at `end`. What was read of it is made durable, since it counts
/// from now on.
fn activate(found: &Found, length: usize, end: usize, torn: bool) -> Result<Segment> {
    let io = |error| segment::failed(&found.path, &error);
    let file = fs::File::options().read(true).write(true).open(&found.path).map_err(io)?;
    let size = length as u64 / BLOCK * BLOCK;
    let active = Segment { file, path: found.path.clone(), header: found.header, size, position: end as u64 };
    if torn {
        active.clear_rest().map_err(io)?;
    } else {
        active.file.sync_data().map_err(io)?;
    }
    Ok(active)
}

/// Puts the content of the segment at `path` into `bytes`.
///
/// # Errors
/// `Corrupt` when it is too long for one, `Internal`.
pub(super) fn read(path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    let mut file = open(path)?;
    bytes.clear();
    std::io::Read::read_to_end(&mut file, bytes).map_err(|error| segment::failed(path, &error))?;
    Ok(())
}

fn open(path: &Path) -> Result<fs::File> {
    let io = |error| segment::failed(path, &error);
    let file = fs::File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() > MAX_SEGMENT {
        return Err(StoreError::corrupt(format!("{}: no log segment is so long", path.display())));
    }
    Ok(file)
}

struct Reading<'a> {
    sealed: u64,
    /// The commit that comes next.
    expected: u64,
    closed: bool,
    /// A record's body; its memory is used again.
    body: Vec<u8>,
    backlog: Backlog,
    recovery: Recovery,
    progress: Progress,
    apply: Apply<'a>,
}

/// What a search behind a bad record has found.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) offset: usize,
    /// The first commit that is there again.
    pub(super) commit: u64,
    /// The last commit that is known to have been synced.
    pub(super) synced: u64,
}

impl Reading<'_> {
    /// Reads one segment, whose successor begins with commit `next`; returns where its records end.
    fn segment(&mut self, found: &Found, bytes: &[u8], next: Option<u64>) -> Result<usize> {
        let epoch = found.header.epoch;
        let mut at = BLOCK as usize;
        loop {
            match format::decode(bytes, at, epoch) {
                Some(record) if record.is_next(self.expected) => {
                    self.record(&record, record.end - at)?;
                    at = record.end;
                }
                _ => {
                    let later = search(bytes, at, epoch, self.expected);
                    match self.bad_record(found, (bytes, at), later, next)? {
                        Some(resume) => at = resume,
                        None => return Ok(at),
                    }
                }
            }
        }
    }

    fn record(&mut self, record: &Record<'_>, length: usize) -> Result<()> {
        self.closed = record.header.kind == Kind::Closed;
        if self.closed {
            return Ok(());
        }
        let commit = record.header.commit;
        if commit > self.sealed {
            format::unpack(record, &mut self.body)?;
            (self.apply)(commit, &self.body)?;
            self.backlog.add(commit, length as u64);
            self.recovery.commits += 1;
            self.recovery.bytes += self.body.len() as u64;
        }
        self.expected = commit + 1;
        Ok(())
    }

    /// Decides what it means that no record is at `at`: where to go on, or that the segment ends here.
    fn bad_record(
        &mut self,
        found: &Found,
        (bytes, at): (&[u8], usize),
        later: Option<Later>,
        next: Option<u64>,
    ) -> Result<Option<usize>> {
        let there_again = later.as_ref().map(|later| later.commit).or(next).unwrap_or(self.expected);
        let synced = next.map(|next| next - 1).or(later.as_ref().map(|later| later.synced)).unwrap_or(0);
        let lost = (self.expected.max(self.sealed + 1), synced.min(there_again.saturating_sub(1)));
        let offset = at as u64;
        if lost.0 <= lost.1 {
            return Err(StoreError::corrupt(format!(
                "{}, offset {offset}: commits from {} to {} are lost, though they were on stable storage",
                found.path.display(),
                lost.0,
                lost.1
            )));
        }
        if there_again <= self.sealed + 1 && there_again > self.expected {
            tracing::warn!(
                file = %found.path.display(),
                offset,
                from = self.expected,
                before = there_again,
                "the log is damaged where tables hold everything already"
            );
            self.expected = there_again;
            return Ok(later.map(|later| later.offset));
        }
        if next.is_none() && (later.is_some() || !format::ends(bytes, at)) {
            self.recovery.torn_tail =
                Some(TornTail { file: found.path.clone(), offset, commit: self.expected });
        }
        Ok(None)
    }
}

/// Searches for sound records of commits from `expected` on, at `from` and behind.
pub(super) fn search(bytes: &[u8], from: usize, epoch: u64, expected: u64) -> Option<Later> {
    let mut later: Option<Later> = None;
    let mut at = from;
    while at + 8 <= bytes.len() {
        let Some(record) = format::decode(bytes, at, epoch) else {
            at += 8;
            continue;
        };
        let header = record.header;
        let commit =
            if header.kind == Kind::Closed { header.commit.saturating_add(1) } else { header.commit };
        if commit >= expected {
            let found = later.get_or_insert(Later { offset: at, commit, synced: 0 });
            found.synced = found.synced.max(header.synced);
        }
        at = record.end;
    }
    later
}

/// Says each few seconds how far the replay is.
struct Progress {
    started: Instant,
    shown: Instant,
    total: u64,
    done: u64,
}

impl Progress {
    fn new(segments: &[Found]) -> Self {
        let length = |found: &Found| fs::metadata(&found.path).map_or(0, |metadata| metadata.len());
        let now = Instant::now();
        Self { started: now, shown: now, total: segments.iter().map(length).sum(), done: 0 }
    }

    fn step(&mut self, bytes: usize, recovery: &Recovery) {
        self.done += bytes as u64;
        if self.shown.elapsed() < PROGRESS {
            return;
        }
        self.shown = Instant::now();
        tracing::info!(
            percent = 100 * self.done / self.total.max(1),
            commits = recovery.commits,
            mb_per_second = mb_per_second(recovery.bytes, self.started.elapsed()),
            "replaying the log"
        );
    }
}

/// Megabytes a second, rounded down.
pub(super) fn mb_per_second(bytes: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes / 1000 / millis
}
