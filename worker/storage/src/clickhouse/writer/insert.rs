//! One block into one table: until ClickHouse has it, or is known not to have it.
//!
//! # The last write wins
//! Of two rows for one series and millisecond the tables keep the one that was inserted last, so an older
//! block must never land after a newer one. Inserts of a worker are strictly one after the other; but where an
//! answer was lost, the server may still be at work on the block. Therefore a block that may have arrived is
//! sent again, with the same token, until an answer says that it is there: then whatever an earlier
//! attempt still does is dropped as a duplicate. Its callers are answered at their own deadlines, and it keeps
//! its place in the queue's budget. Nothing is lost by waiting: a server that can't be reached, or has no
//! room, takes no later block either. Only where the server refuses this very block for good is it given up, and
//! not before its earlier attempts have run out of the time that the server gives them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clickhouse::block::{MOST_DAYS, Piece};
use crate::clickhouse::client::{Answered, Database, IN_A_CLUSTER, Insert};
use crate::clickhouse::failure::{Cause, Failure, code};
use crate::clickhouse::options::Options;
use crate::store::{ErrorKind, StoreError};

/// Pauses between attempts.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Longest time of one attempt.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Most rows that the server takes as one block; far over any block of ours.
const BLOCK_ROWS: usize = 1 << 24;
/// How many times the linger grows at most, while there are too many parts.
const SLOWEST: u32 = 16;

/// A table that blocks go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Which series there are.
    Series,
    /// Their samples.
    Samples,
}

impl Table {
    fn into(self) -> &'static str {
        match self {
            Self::Series => "series (tenant, metric, fp, day, generation, dimensions)",
            Self::Samples => "samples (tenant, metric, fp, ts, v)",
        }
    }
}

/// Inserts blocks.
#[derive(Debug)]
pub struct Inserter {
    database: Database,
    settings: Vec<(&'static str, String)>,
    /// This worker, whose name no other has.
    worker: String,
    sequence: AtomicU64,
    /// How long one attempt may take.
    within: Duration,
    /// Whether what one endpoint did not get another may have got.
    several: bool,
    /// What went wrong last, until something goes right.
    trouble: Mutex<Option<Failure>>,
    /// How many times longer than set the linger is.
    slowness: Mutex<u32>,
    /// Figures.
    pub counts: Counts,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Inserts that are in ClickHouse.
    pub inserts: AtomicU64,
    /// Rows of them.
    pub rows: AtomicU64,
    /// Attempts after a first one.
    pub retries: AtomicU64,
    /// Microseconds of attempts.
    pub micros: AtomicU64,
}

impl Inserter {
    /// Inserts into `database` as `worker`.
    #[must_use]
    pub fn new(database: Database, options: &Options, worker: &str) -> Self {
        // At least one attempt after the first has time.
        let within = (options.insert_timeout / 2).min(ATTEMPT);
        Self {
            database,
            settings: settings(options, within),
            worker: worker.to_owned(),
            sequence: AtomicU64::new(0),
            within,
            several: options.endpoints.len() > 1,
            trouble: Mutex::default(),
            slowness: Mutex::new(1),
            counts: Counts::default(),
        }
    }

    /// Inserts `piece`; from `until` on it isn't tried again unless it may have arrived, and once
    /// `closing` holds not even then.
    ///
    /// # Errors
    /// What the server says.
    pub async fn insert(
        &self,
        table: Table,
        piece: &Piece,
        until: Instant,
        closing: impl Fn() -> bool,
    ) -> Answered<()> {
        let settings = self.with_token();
        let mut backoff = Backoff::default();
        // When an attempt ended of which it isn't known whether the server has or will have the block.
        let mut unknown: Option<Instant> = None;
        loop {
            let Err(failure) = self.attempt(table, piece, &settings).await else { return Ok(()) };
            self.note(&failure);
            if may_have_arrived(&failure, self.several) {
                unknown = Some(Instant::now());
            }
            let over = Instant::now() >= until;
            let given_up = match unknown {
                Some(_) if passes(&failure) => over && closing(),
                Some(since) => since.elapsed() >= self.within,
                None => over || !passes(&failure),
            };
            if given_up {
                return Err(failure);
            }
            self.counts.retries.fetch_add(1, Ordering::Relaxed);
            backoff.pause().await;
        }
    }

    async fn attempt(
        &self,
        table: Table,
        piece: &Piece,
        settings: &[(&'static str, String)],
    ) -> Answered<()> {
        let started = Instant::now();
        let insert = Insert {
            into: table.into(),
            format: "Native",
            block: piece.bytes.clone(),
            settings,
            within: self.within,
        };
        let answer = self.database.insert(&insert).await;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counts.micros.fetch_add(micros, Ordering::Relaxed);
        if answer.is_ok() {
            self.counts.inserts.fetch_add(1, Ordering::Relaxed);
            self.counts.rows.fetch_add(piece.rows as u64, Ordering::Relaxed);
            *self.trouble.lock() = None;
            let mut slowness = self.slowness.lock();
            *slowness = (*slowness - 1).max(1);
        }
        answer
    }

    /// The settings of a new block: the token is the same at each attempt, and at no other block.
    fn with_token(&self) -> Vec<(&'static str, String)> {
        let mut token = self.worker.clone();
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        // Writing to a text doesn't fail.
        let _ = write!(token, "-{number}");
        let mut settings = self.settings.clone();
        settings.push(("insert_deduplication_token", token));
        settings
    }

    fn note(&self, failure: &Failure) {
        if failure.code() == Some(code::TOO_MANY_PARTS) {
            let mut slowness = self.slowness.lock();
            *slowness = (*slowness * 2).min(SLOWEST);
        }
        let mut trouble = self.trouble.lock();
        // Once per kind of trouble, not at each attempt.
        if trouble.as_ref().is_none_or(|before| before.cause != failure.cause) {
            tracing::warn!(error = %failure, advice = failure.advice(), "an insert into ClickHouse failed");
        }
        *trouble = Some(failure.clone());
    }

    /// What went wrong last, until something goes right.
    #[must_use]
    pub fn trouble(&self) -> Option<Failure> {
        self.trouble.lock().clone()
    }

    /// How many times longer than set the linger should be.
    #[must_use]
    pub fn slowness(&self) -> u32 {
        *self.slowness.lock()
    }

    /// What to tell a caller whose time is over.
    #[must_use]
    pub fn late(&self) -> StoreError {
        let none = || Failure::new(Cause::TimedOut, "the insert isn't done in time");
        refusal(self.trouble().unwrap_or_else(none))
    }
}

fn settings(options: &Options, within: Duration) -> Vec<(&'static str, String)> {
    let mut settings: Vec<(&str, String)> = [
        ("async_insert", 0),
        ("insert_deduplicate", 1),
        // A block is one part of each of its days: nothing splits it, joins it or sorts it again.
        ("max_insert_block_size", BLOCK_ROWS),
        ("min_insert_block_size_rows", 0),
        ("min_insert_block_size_bytes", 0),
        ("max_insert_threads", 1),
        ("optimize_on_insert", 0),
        ("max_partitions_per_insert_block", MOST_DAYS),
        // An exception comes with its status, not at the end of a 200.
        ("wait_end_of_query", 1),
    ]
    .map(|(name, value)| (name, value.to_string()))
    .into();
    settings.push(("max_execution_time", within.as_secs().max(1).to_string()));
    if options.cluster.is_some() {
        settings.extend(IN_A_CLUSTER.map(|(name, value)| (name, value.to_owned())));
        settings.push(("insert_quorum_timeout", within.as_millis().to_string()));
    }
    settings
}

/// Whether the failed attempt may have stored the block, or may still.
fn may_have_arrived(failure: &Failure, several: bool) -> bool {
    match failure.cause {
        // With several endpoints this one may not be the first that failed.
        Cause::Unreachable => several,
        Cause::NewerSchema => false,
        Cause::Broken | Cause::TimedOut | Cause::Foreign | Cause::Malformed => true,
        Cause::Exception(code) => {
            several
                || matches!(
                    code,
                    code::TIMEOUT_EXCEEDED
                        | code::SOCKET_TIMEOUT
                        | code::NETWORK_ERROR
                        | code::ALL_CONNECTION_TRIES_FAILED
                        | code::UNSATISFIED_QUORUM
                        | code::UNKNOWN_STATUS_OF_INSERT
                        | code::KEEPER_EXCEPTION
                )
        }
    }
}

/// Whether the same block may fare better in a moment, without anybody's doing.
fn passes(failure: &Failure) -> bool {
    match failure.cause {
        Cause::Unreachable | Cause::Broken | Cause::TimedOut | Cause::Foreign => true,
        Cause::Malformed | Cause::NewerSchema => false,
        // The server has too little memory, not this insert.
        Cause::Exception(code::MEMORY_LIMIT_EXCEEDED) => failure.kind() != ErrorKind::QueryTooLarge,
        Cause::Exception(code) => matches!(
            code,
            code::TIMEOUT_EXCEEDED
                | code::TOO_MANY_QUERIES
                | code::SOCKET_TIMEOUT
                | code::NETWORK_ERROR
                | code::NO_KEEPER
                | code::ABORTED
                | code::TABLE_IS_READ_ONLY
                | code::TOO_MANY_PARTS
                | code::ALL_CONNECTION_TRIES_FAILED
                | code::TOO_FEW_LIVE_REPLICAS
                | code::UNSATISFIED_QUORUM
                | code::UNKNOWN_STATUS_OF_INSERT
                | code::QUERY_WAS_CANCELLED
                | code::SERVER_OVERLOADED
                | code::KEEPER_EXCEPTION
        ),
    }
}

/// What a failed insert is to the caller of a write.
pub fn refusal(failure: Failure) -> StoreError {
    of_a_write(StoreError::from(failure))
}

/// What a failed statement is to the caller of a write, which has no deadline or size of its own that it
/// could have passed.
pub fn of_a_write(error: StoreError) -> StoreError {
    let StoreError { kind, message } = error;
    let kind = match kind {
        ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::QueryTooLarge => {
            ErrorKind::Unavailable { retry_after: BACKOFF[1] }
        }
        kind => kind,
    };
    StoreError { kind, message }
}

/// Pauses that double, each jittered so that workers don't come in step.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// The next pause.
    pub async fn pause(&mut self) {
        let whole = (BACKOFF[0] * 2_u32.saturating_pow(self.0)).min(BACKOFF[1]);
        self.0 = (self.0 + 1).min(8);
        tokio::time::sleep(whole.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that reaches nobody.
    fn inserter(cluster: Option<&str>) -> Inserter {
        let options = Options {
            endpoints: vec!["http://127.0.0.1:1".to_owned()],
            database: "none".to_owned(),
            username: None,
            password: None,
            cluster: cluster.map(str::to_owned),
            ca_file: None,
            fsync: true,
            linger: Duration::from_millis(500),
            max_batch_rows: 1,
            max_queue_bytes: 1,
            pool_size: 1,
            connect_timeout: Duration::from_secs(1),
            insert_timeout: Duration::from_secs(1),
            query_threads: None,
            default_retention: 1,
            retention_check: Duration::from_secs(1),
            refresh: Duration::from_secs(1),
            clock: std::sync::Arc::new(crate::clock::SystemClock),
        };
        Inserter::new(Database::new(&options).unwrap(), &options, "w")
    }

    fn exception(code: u32) -> Failure {
        Failure::new(Cause::Exception(code), "")
    }

    #[test]
    fn only_what_was_never_sent_or_was_refused_is_known_not_to_be_there() {
        for cause in [Cause::Broken, Cause::TimedOut, Cause::Exception(code::UNKNOWN_STATUS_OF_INSERT)] {
            assert!(may_have_arrived(&Failure::new(cause, ""), false), "{cause:?}");
        }
        for cause in [Cause::Unreachable, Cause::Exception(code::TOO_MANY_PARTS)] {
            let failure = Failure::new(cause, "");
            assert!(!may_have_arrived(&failure, false), "{cause:?}");
            assert!(may_have_arrived(&failure, true), "another endpoint may have it");
        }
    }

    #[test]
    fn what_a_person_must_mend_is_not_tried_again() {
        for code in
            [code::ACCESS_DENIED, code::AUTHENTICATION_FAILED, code::UNKNOWN_TABLE, code::NOT_ENOUGH_SPACE]
        {
            assert!(!passes(&exception(code)), "{code}");
            assert!(matches!(refusal(exception(code)).kind, ErrorKind::Unavailable { .. }), "{code}");
        }
        for code in [code::TOO_MANY_PARTS, code::TABLE_IS_READ_ONLY, code::UNKNOWN_STATUS_OF_INSERT] {
            assert!(passes(&exception(code)), "{code}");
        }
        let total =
            Failure::new(Cause::Exception(code::MEMORY_LIMIT_EXCEEDED), "Memory limit (total) exceeded");
        assert!(passes(&total));
        assert!(!passes(&exception(code::MEMORY_LIMIT_EXCEEDED)));
    }

    #[test]
    fn too_many_parts_slow_the_writer_down() {
        let inserter = inserter(None);
        inserter.note(&exception(code::ABORTED));
        assert_eq!(inserter.slowness(), 1);
        let slower = [2, 4, 8, 16, 16].map(|_| {
            inserter.note(&exception(code::TOO_MANY_PARTS));
            inserter.slowness()
        });
        assert_eq!(slower, [2, 4, 8, 16, 16]);
        assert!(matches!(inserter.late().kind, ErrorKind::Overloaded { .. }));
    }

    #[test]
    fn a_token_is_never_used_for_two_blocks() {
        let token = |inserter: &Inserter| inserter.with_token().pop().unwrap();
        let one = inserter(None);
        assert_ne!(token(&one), token(&one));
        let quorum =
            |inserter: &Inserter| inserter.with_token().iter().any(|(name, _)| *name == "insert_quorum");
        assert_eq!((quorum(&one), quorum(&inserter(Some("main")))), (false, true));
    }

    #[test]
    fn a_write_never_fails_as_a_query_does() {
        for code in [code::TIMEOUT_EXCEEDED, code::QUERY_WAS_CANCELLED, code::MEMORY_LIMIT_EXCEEDED] {
            assert!(matches!(refusal(exception(code)).kind, ErrorKind::Unavailable { .. }), "{code}");
        }
        assert!(matches!(refusal(exception(code::TOO_MANY_PARTS)).kind, ErrorKind::Overloaded { .. }));
    }
}
