//! The engine's write-ahead log: segments made of zeros, overwritten, synced and used again.
//!
//! A record is a commit's number and its body (see the module `record`); the bytes on disk are
//! described in `log/format.rs`, and what a bad record means in `log/replay.rs`. Overwriting zeros
//! that are on disk already leaves the file's metadata alone, so that a sync costs a single write.
//!
//! Segments are numbered and follow each other without a gap; so do commits. The last segment stays
//! even when all its commits are released: its header and its records say which commit comes next.

mod backlog;
mod copy;
pub mod format;
mod inspect;
mod replay;
mod segment;
mod spares;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::store::{ErrorKind, Result, StoreError};

use backlog::Backlog;
use format::{BLOCK, Kind, RecordHeader, SegmentHeader};
use replay::Replayed;
use segment::Segment;
use spares::Spares;

pub use copy::Cut;
pub use inspect::{Inspection, Lost, inspect};
#[cfg(feature = "rocksdb")]
pub(super) use segment::sync_directory;

/// What a replay calls with each commit's number and body.
pub type Apply<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<()>;

/// The first segment of a new log: small, so that an empty store costs next to nothing.
const FIRST_SEGMENT: u64 = 1 << 20;

/// How a log lays out its files.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Bytes of a segment, a multiple of 4096; a record that needs more gets a segment of its own size.
    pub segment_bytes: u64,
    /// Most segments kept for later when they are no longer needed.
    pub spares: usize,
}

impl LogOptions {
    /// For a log that is released when it passes `cap` bytes: 16 segments of at most 16 MB each, and as
    /// many spares as it then gives back at once.
    #[must_use]
    pub fn for_cap(cap: u64) -> Self {
        let segment_bytes = (cap / 16).clamp(64 << 10, 16 << 20).next_multiple_of(BLOCK);
        Self { segment_bytes, spares: 16 }
    }
}

/// What opening a log has found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Commits given to the caller.
    pub commits: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Where the log ended in something unfinished, which is cut off now.
    pub torn_tail: Option<TornTail>,
}

/// The place of an unfinished write, which was never acknowledged as durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the last sound record ends.
    pub offset: u64,
    /// The commit that would have come next.
    pub commit: u64,
}

/// A segment that takes no more records.
#[derive(Debug)]
struct Full {
    path: PathBuf,
    last_commit: u64,
}

/// An open log; one thread owns it.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    options: LogOptions,
    active: Segment,
    full: VecDeque<Full>,
    spares: Spares,
    /// Whether a spare was asked for since the active segment began.
    asked: bool,
    last_commit: u64,
    synced: u64,
    /// Whether the last record says that the log was closed.
    closed: bool,
    released: u64,
    /// Whether files stay though their commits are released: somebody copies them.
    held: bool,
    backlog: Backlog,
    record: Vec<u8>,
    /// Why nothing more is written.
    failure: Option<String>,
}

impl Log {
    /// Opens or creates the log in `directory` and gives `apply` each commit after `sealed`, in order.
    /// What it has given is durable when this returns.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, the offset and the commits that are lost; what `apply` returns;
    /// `Unavailable` when the disk is full; `Internal`, also for an unknown format.
    pub fn open(
        directory: &Path,
        options: LogOptions,
        sealed: u64,
        apply: Apply<'_>,
    ) -> Result<(Self, Recovery)> {
        let started = Instant::now();
        // 1. What is there. IO.
        let listing = segment::list(directory)?;
        let (live, released) = replay::find(listing.segments, sealed)?;
        // 2. Every commit after `sealed`. IO.
        let replayed = match replay::replay(live, sealed, apply)? {
            Some(replayed) => replayed,
            None => begin(directory, &options)?,
        };
        let Replayed { active, full, last_commit, closed, backlog, recovery } = replayed;
        // 3. What is no longer needed becomes spares, behind the caller's back.
        let spares = Spares::start(directory, &options, listing.spares)?;
        spares.recycle(released.into_iter());
        if recovery.commits > 0 {
            let mb_per_second = replay::mb_per_second(recovery.bytes, started.elapsed());
            tracing::info!(commits = recovery.commits, last_commit, mb_per_second, "replayed the log");
        }
        let log = Self {
            directory: directory.to_owned(),
            options,
            active,
            full: full.into(),
            spares,
            asked: false,
            last_commit,
            synced: last_commit,
            closed,
            released: sealed,
            held: false,
            backlog,
            record: Vec::new(),
            failure: None,
        };
        Ok((log, recovery))
    }

    /// Writes commit `commit`, one more than [`Log::last_commit`]; durable after [`Log::sync`].
    ///
    /// # Errors
    /// `Unavailable` when the disk is full: the log is as before, and the number is free again.
    /// After any other error the log takes nothing more.
    pub fn append(&mut self, commit: u64, body: &[u8]) -> Result<()> {
        self.check_usable()?;
        if commit != self.last_commit + 1 {
            let last = self.last_commit;
            return Err(
                self.fail(StoreError::internal(format!("commit {commit} can't follow commit {last}")))
            );
        }
        let mut record = std::mem::take(&mut self.record);
        let written = self.write(&mut record, Kind::Commit, commit, body);
        self.record = record;
        self.backlog.add(commit, written? as u64);
        self.last_commit = commit;
        self.closed = false;
        self.prepare_next();
        Ok(())
    }

    /// Makes every commit so far durable.
    ///
    /// # Errors
    /// `Internal`; after it the log takes nothing more: what the system says of its pages after a
    /// failed sync can't be trusted.
    pub fn sync(&mut self) -> Result<()> {
        self.check_usable()?;
        if self.synced == self.last_commit {
            return Ok(());
        }
        if let Err(error) = self.active.file.sync_data() {
            let path = self.active.path.display();
            return Err(self.fail(StoreError::internal(format!("{path}: sync failed: {error}"))));
        }
        self.synced = self.last_commit;
        Ok(())
    }

    /// Syncs, and notes durably that the log ends here: damage to its last record is damage from now
    /// on, not a torn tail.
    ///
    /// # Errors
    /// As [`Log::append`] and [`Log::sync`].
    pub fn close(&mut self) -> Result<()> {
        self.sync()?;
        if self.closed || self.last_commit == 0 {
            return Ok(());
        }
        let mut record = Vec::new();
        self.write(&mut record, Kind::Closed, self.last_commit, &[])?;
        if let Err(error) = self.active.file.sync_data() {
            let path = self.active.path.display();
            return Err(self.fail(StoreError::internal(format!("{path}: sync failed: {error}"))));
        }
        self.closed = true;
        Ok(())
    }

    /// The last commit appended, or found at the opening; 0 when there was none.
    #[must_use]
    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// Bytes of the commits that are not released, to within 64 KB.
    #[must_use]
    pub fn unreleased_bytes(&self) -> u64 {
        self.backlog.bytes()
    }

    /// Commits up to `through` are not needed any more: tables hold them, durably.
    pub fn release(&mut self, through: u64) {
        self.released = self.released.max(through);
        self.backlog.release(through);
        if self.held {
            return;
        }
        let old = self.full.iter().take_while(|full| full.last_commit <= self.released).count();
        self.spares.recycle(self.full.drain(..old).map(|full| full.path));
    }

    /// Keeps every file that holds an unreleased commit now, until [`Log::let_go`].
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Ends what [`Log::hold`] began.
    pub fn let_go(&mut self) {
        self.held = false;
        self.release(self.released);
    }

    /// Syncs, and says what a copy of the log up to the last commit consists of; for a log that is held.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn cut(&mut self) -> Result<Cut> {
        self.sync()?;
        Ok(Cut {
            full: self.full.iter().map(|full| full.path.clone()).collect(),
            active: self.active.path.clone(),
            epoch: self.active.header.epoch,
            position: self.active.position,
            closed: self.closed,
            commit: self.last_commit,
        })
    }

    fn check_usable(&self) -> Result<()> {
        match &self.failure {
            Some(why) => Err(StoreError::internal(format!("the log takes nothing more: {why}"))),
            None => Ok(()),
        }
    }

    /// Ends the log's life, unless `error` leaves it as it was.
    fn fail(&mut self, error: StoreError) -> StoreError {
        if !matches!(error.kind, ErrorKind::Unavailable { .. }) && self.failure.is_none() {
            self.failure = Some(error.message.clone());
        }
        error
    }

    /// Writes a record, in a new segment if it must be; returns its length.
    fn write(&mut self, record: &mut Vec<u8>, kind: Kind, commit: u64, body: &[u8]) -> Result<usize> {
        format::pack(record, body).map_err(|error| self.fail(error))?;
        let length = record.len().next_multiple_of(8);
        if !self.active.has_room(length) {
            self.begin_segment(length)?;
        }
        let header = RecordHeader { kind, commit, synced: self.synced };
        format::finish(record, self.active.header.epoch, &header);
        let Err(error) = self.active.write(record) else { return Ok(length) };
        let error = segment::failed(&self.active.path, &error);
        if let Err(undo) = self.active.undo(record) {
            let why = format!("{}; and it can't be undone: {undo}", error.message);
            return Err(self.fail(StoreError::internal(why)));
        }
        Err(self.fail(error))
    }

    /// Goes on in a new segment that has room for `length` bytes.
    fn begin_segment(&mut self, length: usize) -> Result<()> {
        self.sync()?;
        let needed = (length as u64 + BLOCK).next_multiple_of(BLOCK);
        let size = self.options.segment_bytes.max(needed);
        let spare = if size == self.options.segment_bytes { self.spares.take() } else { None };
        let next = SegmentHeader::new(self.active.header.number + 1, self.last_commit + 1)
            .and_then(|header| Segment::create(&self.directory, header, size, spare))
            .map_err(|error| self.fail(error))?;
        let before = std::mem::replace(&mut self.active, next);
        self.full.push_back(Full { path: before.path, last_commit: self.last_commit });
        self.asked = false;
        self.release(self.released);
        Ok(())
    }

    /// Has a spare made once the active segment is half full.
    fn prepare_next(&mut self) {
        if !self.asked && self.active.position > self.active.size / 2 {
            self.asked = true;
            self.spares.want();
        }
    }
}

/// The first segment of a new log.
fn begin(directory: &Path, options: &LogOptions) -> Result<Replayed> {
    let size = FIRST_SEGMENT.min(options.segment_bytes);
    let active = Segment::create(directory, SegmentHeader::new(1, 1)?, size, None)?;
    Ok(Replayed {
        active,
        full: Vec::new(),
        last_commit: 0,
        closed: false,
        backlog: Backlog::default(),
        recovery: Recovery::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    const SMALL: u64 = 16 << 10;

    type Commits = Vec<(u64, Vec<u8>)>;

    /// A directory in memory where there is one, since most tests sync a lot.
    fn directory() -> TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    fn options() -> LogOptions {
        LogOptions { segment_bytes: SMALL, spares: 3 }
    }

    fn try_open(path: &Path, sealed: u64) -> Result<(Log, Commits, Recovery)> {
        let mut commits = Vec::new();
        let mut apply = |commit, body: &[u8]| {
            commits.push((commit, body.to_vec()));
            Ok(())
        };
        let (log, recovery) = Log::open(path, options(), sealed, &mut apply)?;
        Ok((log, commits, recovery))
    }

    fn open(path: &Path, sealed: u64) -> (Log, Commits, Recovery) {
        try_open(path, sealed).unwrap()
    }

    /// Bytes that don't compress, the same for the same commit for ever: the fixture holds some.
    fn body(commit: u64, length: usize) -> Vec<u8> {
        let mut state = commit;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn bodies(commits: std::ops::RangeInclusive<u64>, length: usize) -> Commits {
        commits.map(|commit| (commit, body(commit, length))).collect()
    }

    fn write(log: &mut Log, commits: std::ops::RangeInclusive<u64>, length: usize) {
        for commit in commits {
            log.append(commit, &body(commit, length)).unwrap();
            log.sync().unwrap();
        }
    }

    fn files(path: &Path, suffix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|found| found == suffix)).collect();
        found.sort_unstable();
        found
    }

    fn segments(path: &Path) -> Vec<PathBuf> {
        files(path, "log")
    }

    fn change(file: &Path, at: u64, change: impl Fn(u8) -> u8) {
        let open = fs::File::options().read(true).write(true).open(file).unwrap();
        let mut byte = [0];
        open.read_exact_at(&mut byte, at).unwrap();
        open.write_all_at(&[change(byte[0])], at).unwrap();
    }

    fn is_corrupt(result: Result<(Log, Commits, Recovery)>, text: &str) {
        let error = result.map(|_| ()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
        assert!(error.message.contains(text), "{error} names no {text}");
    }

    #[test]
    fn commits_come_back_across_segments_and_openings() {
        let directory = directory();
        let (mut log, found, _) = open(directory.path(), 0);
        assert_eq!((found.len(), log.last_commit()), (0, 0));
        write(&mut log, 1..=50, 1000);
        drop(log);
        assert!(segments(directory.path()).len() > 3);
        let (mut log, found, recovery) = open(directory.path(), 0);
        assert_eq!(found, bodies(1..=50, 1000));
        assert_eq!((log.last_commit(), recovery.torn_tail), (50, None));
        write(&mut log, 51..=60, 1000);
        log.close().unwrap();
        drop(log);
        let (mut log, found, _) = open(directory.path(), 20);
        assert_eq!(found, bodies(21..=60, 1000));
        write(&mut log, 61..=61, 0);
        log.close().unwrap();
        drop(log);
        assert_eq!(open(directory.path(), 60).1, bodies(61..=61, 0));
    }

    #[test]
    fn commits_must_follow_each_other() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        assert_eq!(log.append(2, b"x").unwrap_err().kind, ErrorKind::Internal);
    }

    #[test]
    fn a_record_longer_than_a_segment_gets_its_own() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=1, 10);
        write(&mut log, 2..=2, 100_000);
        write(&mut log, 3..=5, 10_000);
        drop(log);
        let (mut log, found, _) = open(directory.path(), 0);
        assert_eq!(found[1], (2, body(2, 100_000)));
        assert_eq!(found[4], (5, body(5, 10_000)));
        log.release(5);
        drop(log);
        let sizes =
            files(directory.path(), "spare").into_iter().map(|path| fs::metadata(path).unwrap().len());
        assert!(sizes.collect::<Vec<_>>().iter().all(|size| *size == SMALL));
    }

    #[test]
    fn segments_are_used_again_and_their_old_records_stay_dead() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=60, 1000);
        let before = segments(directory.path());
        log.release(60);
        drop(log);
        let spares = files(directory.path(), "spare");
        assert_eq!((segments(directory.path()).len(), spares.len()), (1, 3));
        // One of them may be new.
        let (used, unused): (Vec<_>, Vec<_>) =
            spares.iter().partition(|path| fs::read(path).unwrap()[..8] == *b"lumi-log");
        assert!(before.len() > 4 && used.len() >= 2);
        unused.into_iter().for_each(|path| fs::remove_file(path).unwrap());
        let (mut log, ..) = open(directory.path(), 60);
        write(&mut log, 61..=77, 700);
        let active = fs::read(&log.active.path).unwrap();
        let end = usize::try_from(log.active.position).unwrap().next_multiple_of(4096);
        assert!(active[end..].iter().any(|byte| *byte != 0), "old records stand behind the new ones");
        drop(log);
        let (_, found, recovery) = open(directory.path(), 60);
        assert_eq!((found, recovery.torn_tail), (bodies(61..=77, 700), None));
    }

    #[test]
    fn the_last_commit_is_known_after_all_are_released() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=30, 1000);
        log.release(30);
        assert_eq!(log.unreleased_bytes(), 0);
        drop(log);
        for _ in 0..2 {
            let (log, found, _) = open(directory.path(), 30);
            assert_eq!((log.last_commit(), found.len(), log.unreleased_bytes()), (30, 0, 0));
        }
        // Without its files, a log can't claim to know what was sealed: the caller sees 0.
        fs::remove_dir_all(directory.path()).unwrap();
        assert_eq!(open(directory.path(), 30).0.last_commit(), 0);
    }

    #[test]
    fn only_segments_that_are_wholly_released_go() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=40, 1000);
        let bytes = log.unreleased_bytes();
        assert!((40_000..44_000).contains(&bytes), "{bytes}");
        log.release(25);
        write(&mut log, 41..=45, 1000);
        drop(log);
        assert_eq!(open(directory.path(), 25).1, bodies(26..=45, 1000));
        // A caller that knows less than the log has released is told so.
        is_corrupt(try_open(directory.path(), 3), "from 4 to");
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_off() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=3, 100);
        let from = usize::try_from(log.active.position).unwrap();
        write(&mut log, 4..=4, 300);
        let to = usize::try_from(log.active.position).unwrap();
        drop(log);
        let file = &segments(directory.path())[0];
        let whole = fs::read(file).unwrap();
        for cut in from..to {
            for rest in [0, 0xA5] {
                let mut torn = whole.clone();
                torn[cut..].fill(rest);
                fs::write(file, &torn).unwrap();
                let (mut log, found, recovery) = open(directory.path(), 0);
                // The record's last bytes may be padding, or equal to what stands there.
                if torn[from..to] == whole[from..to] || found.len() == 4 {
                    assert_eq!(found, [bodies(1..=3, 100), bodies(4..=4, 300)].concat());
                    continue;
                }
                assert_eq!(found, bodies(1..=3, 100), "cut at {cut}");
                let torn = TornTail { file: file.clone(), offset: from as u64, commit: 4 };
                let reported = cut > from || rest != 0;
                assert_eq!(recovery.torn_tail, reported.then_some(torn), "cut at {cut}");
                write(&mut log, 4..=5, 100);
                drop(log);
                let (_, found, recovery) = open(directory.path(), 0);
                assert_eq!((found, recovery.torn_tail), (bodies(1..=5, 100), None));
            }
        }
    }

    /// Changes each byte of the records in turn; returns what opening says of it.
    fn flip_each(path: &Path, visit: &mut dyn FnMut(u64, Result<(Log, Commits, Recovery)>)) {
        let all = segments(path);
        for file in &all {
            let whole = fs::read(file).unwrap();
            let used = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64;
            for at in (0..40).chain(BLOCK..=used) {
                change(file, at, |byte| byte ^ (1 << (at % 8)));
                visit(at, try_open(path, 0));
                for left in files(path, "log").iter().filter(|found| !all.contains(found)) {
                    fs::remove_file(left).unwrap();
                }
                fs::write(file, &whole).unwrap();
            }
        }
    }

    #[test]
    fn a_flipped_byte_never_makes_a_wrong_commit() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=4, 60);
        let last = log.active.position;
        write(&mut log, 5..=5, 60);
        drop(log);
        let truth = bodies(1..=5, 60);
        let mut torn = 0;
        flip_each(directory.path(), &mut |at, result| match result {
            Err(error) if error.message.contains("format") => assert!((8..12).contains(&at)),
            Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt),
            Ok((_, found, recovery)) => {
                assert_eq!(found, truth[..found.len()]);
                if found.len() < 5 {
                    assert!(found.len() == 4 && at >= last && recovery.torn_tail.is_some(), "{at}");
                    torn += 1;
                }
            }
        });
        assert!(torn >= 100);
    }

    #[test]
    fn a_closed_log_has_no_torn_tail() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=40, 700);
        log.close().unwrap();
        log.close().unwrap();
        let last = log.active.position - 40;
        drop(log);
        assert!(segments(directory.path()).len() > 1);
        let active = segments(directory.path()).pop().unwrap();
        let whole = fs::read(&active).unwrap();
        for at in (BLOCK..last).step_by(37) {
            change(&active, at, |byte| !byte);
            match try_open(directory.path(), 0) {
                Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt),
                Ok((_, found, _)) => assert_eq!(found, bodies(1..=40, 700)),
            }
            fs::write(&active, &whole).unwrap();
        }
    }

    #[test]
    fn damage_names_what_is_lost_unless_tables_hold_it() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=5, 100);
        drop(log);
        let file = segments(directory.path()).pop().unwrap();
        let third = BLOCK + 2 * 144 + 50;
        change(&file, third, |byte| !byte);
        is_corrupt(try_open(directory.path(), 0), "offset 4384: commits from 3 to 3");
        is_corrupt(try_open(directory.path(), 2), "commits from 3 to 3");
        let (log, found, _) = open(directory.path(), 3);
        assert_eq!((found, log.last_commit()), (bodies(4..=5, 100), 5));
    }

    #[test]
    fn a_missing_segment_is_damage() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=60, 1000);
        drop(log);
        let all = segments(directory.path());
        let hidden = directory.path().join("hidden");
        for gone in all.iter().rev().skip(1) {
            fs::rename(gone, &hidden).unwrap();
            is_corrupt(try_open(directory.path(), 0), "is missing");
            fs::rename(&hidden, gone).unwrap();
        }
        fs::rename(&all[0], &hidden).unwrap();
        assert_eq!(open(directory.path(), 40).1, bodies(41..=60, 1000));
    }

    #[test]
    fn commits_that_were_never_synced_may_go_and_stay_gone() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=2, 100);
        for commit in 3..=5 {
            log.append(commit, &body(commit, 100)).unwrap();
        }
        drop(log);
        // The system wrote the pages of commits 4 and 5, but not that of 3.
        let file = segments(directory.path()).pop().unwrap();
        change(&file, BLOCK + 2 * 144 + 50, |byte| !byte);
        let (mut log, found, recovery) = open(directory.path(), 0);
        assert_eq!((found, log.last_commit()), (bodies(1..=2, 100), 2));
        assert_eq!(recovery.torn_tail.unwrap().commit, 3);
        write(&mut log, 3..=3, 100);
        drop(log);
        assert_eq!(open(directory.path(), 0).1, bodies(1..=3, 100));
    }

    #[test]
    fn arbitrary_bytes_are_refused_quietly() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=30, 300);
        drop(log);
        let all = segments(directory.path());
        let whole: Vec<_> = all.iter().map(|path| fs::read(path).unwrap()).collect();
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..400 {
            for (path, bytes) in all.iter().zip(&whole) {
                let mut bytes = bytes.clone();
                for _ in 0..random.usize(0..6) {
                    let (at, length) = (random.usize(..bytes.len()), random.usize(..200));
                    let end = bytes.len().min(at + length);
                    bytes[at..end].fill_with(|| random.u8(..));
                }
                if random.u8(..8) == 0 {
                    bytes.truncate(random.usize(..bytes.len()));
                }
                fs::write(path, &bytes).unwrap();
            }
            let sealed = random.u64(..35);
            if let Ok((_, found, _)) = try_open(directory.path(), sealed) {
                let truth = bodies(sealed + 1..=30.max(sealed), 300);
                assert_eq!(found, truth[..found.len()]);
            }
            for left in segments(directory.path()).iter().filter(|found| !all.contains(found)) {
                fs::remove_file(left).unwrap();
            }
        }
    }

    #[test]
    fn after_a_failed_sync_nothing_more_is_written() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=2, 100);
        log.append(3, b"three").unwrap();
        // A device that takes every byte and can't be synced.
        log.active.file = fs::File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(log.sync().unwrap_err().kind, ErrorKind::Internal);
        log.active.file = fs::File::options().write(true).open(&log.active.path).unwrap();
        let before = fs::read(&log.active.path).unwrap();
        assert_eq!(log.append(4, b"four").unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(log.sync().unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(log.close().unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(fs::read(&log.active.path).unwrap(), before);
    }

    #[test]
    fn a_refused_write_leaves_the_number_free_unless_it_cannot_be_undone() {
        let directory = directory();
        let (mut log, ..) = open(directory.path(), 0);
        write(&mut log, 1..=2, 100);
        let full_disk = |read| fs::File::options().read(read).write(true).open("/dev/full").unwrap();
        let own = std::mem::replace(&mut log.active.file, full_disk(true));
        assert!(matches!(log.append(3, b"three").unwrap_err().kind, ErrorKind::Unavailable { .. }));
        assert_eq!(log.last_commit(), 2);
        log.active.file = own;
        write(&mut log, 3..=3, 100);
        drop(log);
        let (mut log, found, _) = open(directory.path(), 0);
        assert_eq!(found, bodies(1..=3, 100));
        log.active.file = full_disk(false);
        assert_eq!(log.append(4, b"four").unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(log.append(4, b"four").unwrap_err().kind, ErrorKind::Internal);
    }

    /// A file system of `bytes`, unmounted when it goes.
    struct Small(TempDir);

    impl Small {
        fn new(bytes: usize) -> Option<Self> {
            let directory = tempfile::tempdir().unwrap();
            let size = format!("size={bytes}");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path());
            mount.output().is_ok_and(|output| output.status.success()).then_some(Self(directory))
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _left = Command::new("umount").arg(self.0.path()).status();
        }
    }

    #[test]
    fn a_full_disk_refuses_commits_until_it_has_room() {
        let Some(small) = Small::new(256 << 10) else {
            println!("skipped: mounting a tmpfs needs root");
            return;
        };
        let path = small.0.path().join("log");
        let (mut log, ..) = open(&path, 0);
        let ballast = small.0.path().join("ballast");
        fs::write(&ballast, vec![1; 64 << 10]).unwrap();
        let mut commit = 1;
        // Twice, since a spare under way may have taken the room and given it back.
        for _ in 0..2 {
            let error = loop {
                match log.append(commit, &body(commit, 3000)).and_then(|()| log.sync()) {
                    Ok(()) => commit += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(error.kind, ErrorKind::Unavailable { .. }), "{error}");
        }
        assert!(commit > 20);
        assert_eq!(log.last_commit(), commit - 1);
        fs::remove_file(&ballast).unwrap();
        write(&mut log, commit..=commit + 3, 3000);
        drop(log);
        let (mut log, found, _) = open(&path, 0);
        assert_eq!(found, bodies(1..=commit + 3, 3000));
        // Room that a release gives back is enough.
        log.release(commit + 3);
        drop(log);
        let (mut log, ..) = open(&path, commit + 3);
        write(&mut log, commit + 4..=commit + 10, 3000);
    }

    /// Where the log of format 1 is kept that [`format_1_is_read_forever`] opens.
    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/log-1")
    }

    #[test]
    #[ignore = "made the fixture; a format's fixture is never made anew"]
    fn make_the_fixture_of_format_1() {
        let (mut log, ..) = open(&fixture(), 0);
        write(&mut log, 1..=12, 1500);
        log.append(13, &[7; 5000]).unwrap();
        log.close().unwrap();
    }

    #[test]
    fn format_1_is_read_forever() {
        let directory = directory();
        for file in segments(&fixture()) {
            fs::copy(&file, directory.path().join(file.file_name().unwrap())).unwrap();
        }
        let (log, found, recovery) = open(directory.path(), 2);
        assert_eq!(found[..10], bodies(3..=12, 1500));
        assert_eq!(found[10..], [(13, vec![7; 5000])]);
        assert_eq!((log.last_commit(), recovery.torn_tail), (13, None));
        assert!(log.closed);
    }
}
