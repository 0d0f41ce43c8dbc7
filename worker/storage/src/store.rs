//! The storage trait: what every backend does, in the domain's words.
//!
//! # To add a backend
//! 1. Write a module beside `memory` (the plainest one) with a type that implements [`MetricsStore`].
//! 2. Run [`crate::contract`] over it in that module's tests: every rule of the contract is a case there.
//! 3. Run the differential test over it: random writes and queries, answers equal to `memory`'s.
//! 4. Give the worker's configuration a name for it, and `main.rs` a line that opens it.
//!
//! # What every implementation promises
//! - A returned [`WriteOutcome`] means that each row not listed as rejected is on stable storage
//!   (unless `durable` is false) and visible to the next query.
//! - A batch is atomic: after a crash all its accepted rows are there or none, and writing it again
//!   changes nothing.
//! - Of two samples for one series and millisecond the later written wins.
//! - No call sees anything of another tenant.
//! - Every scan looks at [`QueryContext::check`] at least each millisecond.
//! - No query returns a sample older than now − retention, measured at the time of the query.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::memory_pool::MemoryPool;
use crate::model::{
    AggregateQuery, AggregateRow, Answer, Batch, DimensionKey, ExportQuery, MetricName, Query, RangeQuery,
    RangeRow, RateQuery, RateRow, SeriesHandle, SeriesSamples, Spelling, SpellingHasher, Tenant,
};

/// What can go wrong in a store, as its callers need to tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The query's deadline passed.
    Timeout,
    /// The query was cancelled, or its client hung up.
    Cancelled,
    /// The query would scan or hold more than its limits; the text says which.
    QueryTooLarge,
    /// Too much is waiting already; try again after `retry_after`.
    Overloaded {
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// The store can't answer now (starting, draining, disk full, server away).
    Unavailable {
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// The store as it is set up doesn't do this, or not now; the text is for the client.
    Refused,
    /// A [`SeriesHandle`] is no longer known: describe the series and write again.
    StaleSeries,
    /// Stored bytes fail their checksum; the text says where.
    Corrupt,
    /// A defect, or a failure that no caller can act on.
    Internal,
}

/// An error of a store: its kind for the caller, and a text for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// What the caller can tell apart.
    pub kind: ErrorKind,
    /// What happened, for the log; shown to clients only for [`ErrorKind::QueryTooLarge`] and
    /// [`ErrorKind::Refused`].
    pub message: String,
}

impl StoreError {
    /// An error of `kind` with its text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A defect or a failure that no caller can act on.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, message.to_string())
    }

    /// Stored bytes that fail their checksum.
    pub fn corrupt(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, message.to_string())
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Overloaded { .. } | ErrorKind::Unavailable { .. } | ErrorKind::StaleSeries
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

/// The result of a storage call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A query's bounds: who it is, until when it may work, how much it may read and hold.
#[derive(Debug, Clone)]
pub struct QueryContext {
    /// The query's id, unique in the installation.
    pub id: String,
    /// When it must have stopped.
    pub deadline: Instant,
    /// Cancelled when its client hangs up or somebody cancels it.
    pub cancel: CancellationToken,
    /// Samples scanned so far.
    pub scanned: Arc<AtomicU64>,
    /// Most samples it may scan.
    pub max_scanned_samples: u64,
    /// Most bytes it may hold.
    pub max_memory: u64,
    /// Memory that it shares with other queries, where its store has any.
    pub pool: Option<Arc<MemoryPool>>,
}

impl QueryContext {
    /// A context without limits but a deadline `timeout` from now.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self {
            id: String::new(),
            deadline: Instant::now() + timeout,
            cancel: CancellationToken::new(),
            scanned: Arc::new(AtomicU64::new(0)),
            max_scanned_samples: u64::MAX,
            max_memory: u64::MAX,
            pool: None,
        }
    }

    /// Counts `samples` as scanned and says whether the query may go on.
    ///
    /// # Errors
    /// `Cancelled`, `Timeout`, or `QueryTooLarge` past `max_scanned_samples`.
    pub fn check(&self, samples: u64) -> Result<()> {
        let scanned = self.scanned.fetch_add(samples, Ordering::Relaxed) + samples;
        if scanned > self.max_scanned_samples {
            return Err(StoreError::new(
                ErrorKind::QueryTooLarge,
                format!("the query scans more than {} samples", self.max_scanned_samples),
            ));
        }
        if self.cancel.is_cancelled() {
            return Err(StoreError::new(ErrorKind::Cancelled, "the query was cancelled"));
        }
        if Instant::now() >= self.deadline {
            return Err(StoreError::new(ErrorKind::Timeout, "the query's time is over"));
        }
        Ok(())
    }

    /// The error of a query that would hold more than `max_memory`.
    #[must_use]
    pub fn memory_exceeded(&self) -> StoreError {
        StoreError::new(
            ErrorKind::QueryTooLarge,
            format!("the query needs more than {} bytes of memory", self.max_memory),
        )
    }
}

/// Why the store refused a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its metric would be one more than the tenant may have.
    MetricLimit {
        /// Metrics allowed.
        limit: u64,
    },
    /// Its series would be one more than the metric may have.
    SeriesLimit {
        /// Series allowed.
        limit: u64,
    },
    /// The store has no memory left for another series, whoever's; known ones go on.
    MemoryLimit,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Rows that were refused, ascending; all others are stored.
    pub refused: Vec<(u32, Refusal)>,
    /// Whether the stored rows survive a power cut from now on.
    pub durable: bool,
}

/// Which part of a sorted listing is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only names that begin with this.
    pub prefix: String,
    /// Only names after this one (the last of the page before).
    pub after: Option<String>,
    /// Most names, ≥ 1.
    pub limit: usize,
}

/// A page of a sorted listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// Names, ascending by UTF-8 bytes.
    pub names: Vec<Arc<str>>,
    /// Whether more follow; the next page begins after the last of `names`.
    pub more: bool,
    /// Names with the prefix, on all pages.
    pub total: u64,
}

/// How many series something has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardinalityRow {
    /// Series present.
    pub series: u64,
    /// The metric, or a dimension key of the metric asked for.
    pub name: Arc<str>,
    /// A value of that key, where rows are per value; `None` for the row of a whole key or metric.
    pub value: Option<Arc<str>>,
}

/// Where a page of cardinality rows begins: after the row with this count, name and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardinalityCursor {
    /// Its series.
    pub series: u64,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

/// Which part of the cardinality table is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardinalityQuery {
    /// Rows per key and value of this metric; per metric when absent.
    pub metric: Option<MetricName>,
    /// Only names (metrics, or keys) that begin with this.
    pub prefix: String,
    /// Where to begin.
    pub after: Option<CardinalityCursor>,
    /// Most rows, ≥ 1.
    pub limit: usize,
}

/// A page of the cardinality table: series descending, then name, then value (absent first).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CardinalityPage {
    /// The rows.
    pub rows: Vec<CardinalityRow>,
    /// Whether more follow.
    pub more: bool,
}

/// How long a tenant's samples live, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// For every metric not named below.
    pub default: i64,
    /// For single metrics.
    pub metrics: BTreeMap<MetricName, i64>,
}

impl Retention {
    /// The retention of `metric` in milliseconds.
    #[must_use]
    pub fn of(&self, metric: &MetricName) -> i64 {
        self.metrics.get(metric).copied().unwrap_or(self.default)
    }
}

/// What a delete removed, or would remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Series that lost a sample.
    pub series: u64,
    /// Samples.
    pub samples: u64,
}

/// What a tenant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Metrics with a series present.
    pub metrics: u64,
    /// Series present on any day.
    pub series: u64,
    /// Samples held, before last-write-wins has merged duplicates: an upper bound.
    pub samples: u64,
    /// Bytes held on disk or in the head: the engine's estimate for this tenant.
    pub bytes: u64,
    /// Samples accepted since midnight UTC.
    pub samples_today: u64,
}

/// A copy of the whole store, all tenants', at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its name, by which it is deleted and restored.
    pub name: String,
    /// Its bytes; those that it shares with the store count.
    pub bytes: u64,
    /// The last commit in it.
    pub commit: u64,
    /// When it was begun, Unix milliseconds; every write acknowledged before then is in it.
    pub created: i64,
}

/// What a query would do; nothing of it is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps in words, in order.
    pub steps: Vec<String>,
    /// Series that match in the index.
    pub series: u64,
    /// Samples that would be scanned, estimated.
    pub samples: u64,
    /// Bytes that would be read, estimated.
    pub bytes: u64,
}

/// A query that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningQuery {
    /// Its id.
    pub id: String,
    /// How long it runs.
    pub age: Duration,
    /// Samples scanned so far.
    pub scanned: u64,
}

/// Whether a store can serve, check by check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Each check's name and, where it fails, why (fit for a client: no internals).
    pub checks: Vec<(&'static str, std::result::Result<(), String>)>,
    /// What doesn't work though the store serves on, such as writes on a full disk, and why.
    pub degraded: Vec<(&'static str, String)>,
}

impl Health {
    /// What `checks` say, with nothing degraded.
    #[must_use]
    pub fn of(checks: Vec<(&'static str, std::result::Result<(), String>)>) -> Self {
        Self { checks, degraded: Vec::new() }
    }

    /// Whether it serves: every check passes.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|(_, result)| result.is_ok())
    }
}

/// A figure of the store's inside, for the metrics page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauge {
    /// Its name without prefix, such as `head_bytes`.
    pub name: &'static str,
    /// What it measures, one sentence.
    pub help: &'static str,
    /// Its value now.
    pub value: f64,
}

/// One tenant's known series, asked once a request and then once a row.
pub trait SeriesLookup: Send + Sync {
    /// What hashes a spelling.
    fn hasher(&self) -> &SpellingHasher;
    /// The series that was once described with this spelling, if the store remembers.
    fn find(&self, spelling: Spelling) -> Option<SeriesHandle>;
    /// The same, where the row before was of series `previous`: agents repeat their order, so a store may look at what
    /// comes after it first.
    fn find_after(&self, _previous: SeriesHandle, spelling: Spelling) -> Option<SeriesHandle> {
        self.find(spelling)
    }
}

/// A lookup that finds nothing, so that every series is described: where none is known yet, and for the second try of
/// a batch that named a series which the store has forgotten.
#[derive(Debug)]
pub struct NoSeries(pub SpellingHasher);

impl SeriesLookup for NoSeries {
    fn hasher(&self) -> &SpellingHasher {
        &self.0
    }

    fn find(&self, _: Spelling) -> Option<SeriesHandle> {
        None
    }
}

/// An export under way: dropped, it ends.
///
/// It is no snapshot: a sample that was acknowledged before it began comes, unless it is deleted or expires
/// meanwhile; one acknowledged since may come or not.
#[async_trait]
pub trait Export: Send {
    /// The next stretches: series in the order of [`crate::model::Dimensions`], the samples of each in the order of
    /// time, over as many stretches as it takes; none at the end. After an error it goes on where it was.
    ///
    /// # Errors
    /// As [`MetricsStore::query_range`].
    async fn next(&mut self) -> Result<Vec<SeriesSamples>>;
}

/// A store of metrics. Object-safe; every method takes the tenant that it serves.
#[async_trait]
pub trait MetricsStore: Send + Sync {
    /// The backend's name in answers: `rocksdb`, `clickhouse`, `memory`.
    fn backend(&self) -> &'static str;

    /// The tenant's known series, for one request's rows.
    fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup>;

    /// Stores a batch; returns when it is as durable as the store is set to make it.
    ///
    /// # Errors
    /// `StaleSeries` (nothing stored), `Overloaded`, `Unavailable`, `Internal`. After any error but
    /// `StaleSeries` and `Overloaded` the batch may or may not be stored; writing it again is harmless.
    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome>;

    /// Raw samples: time ascending, then series in the order of [`crate::model::Dimensions`].
    ///
    /// # Errors
    /// `Timeout`, `Cancelled`, `QueryTooLarge`, `Corrupt`, `Unavailable`, `Internal`; so for all queries.
    async fn query_range(
        &self,
        tenant: &Tenant,
        query: &RangeQuery,
        context: &QueryContext,
    ) -> Result<Answer<RangeRow>>;

    /// One value per group and bucket, ordered by group, then time.
    ///
    /// # Errors
    /// As [`MetricsStore::query_range`].
    async fn aggregate(
        &self,
        tenant: &Tenant,
        query: &AggregateQuery,
        context: &QueryContext,
    ) -> Result<Answer<AggregateRow>>;

    /// Increase per second per group and bucket, ordered by group, then time.
    ///
    /// # Errors
    /// As [`MetricsStore::query_range`].
    async fn rate(
        &self,
        tenant: &Tenant,
        query: &RateQuery,
        context: &QueryContext,
    ) -> Result<Answer<RateRow>>;

    /// Every sample of the series chosen, series by series, within bounded memory; `context` bounds all of it.
    ///
    /// # Errors
    /// As [`MetricsStore::query_range`].
    async fn export(
        &self,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Box<dyn Export>>;

    /// What a query would do.
    ///
    /// # Errors
    /// As [`MetricsStore::query_range`].
    async fn explain(&self, tenant: &Tenant, query: &Query) -> Result<Plan>;

    /// Metrics with a series present.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`; so for all listings.
    async fn list_metrics(&self, tenant: &Tenant, list: &ListQuery) -> Result<ListPage>;

    /// Dimension keys of a metric's present series.
    ///
    /// # Errors
    /// As [`MetricsStore::list_metrics`].
    async fn list_dimension_keys(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        list: &ListQuery,
    ) -> Result<ListPage>;

    /// Values of one key over a metric's present series.
    ///
    /// # Errors
    /// As [`MetricsStore::list_metrics`].
    async fn list_dimension_values(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        key: &DimensionKey,
        list: &ListQuery,
    ) -> Result<ListPage>;

    /// Present series per metric, or per key and value of one metric, largest first.
    ///
    /// # Errors
    /// As [`MetricsStore::list_metrics`].
    async fn cardinality(&self, tenant: &Tenant, query: &CardinalityQuery) -> Result<CardinalityPage>;

    /// Deletes a metric's samples with `t < before` (all, when absent) that were accepted until now;
    /// gone for queries when this returns. With `dry_run` only counts.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn delete_before(
        &self,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
        dry_run: bool,
    ) -> Result<Deleted>;

    /// The tenant's retention.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn retention(&self, tenant: &Tenant) -> Result<Retention>;

    /// Replaces the tenant's retention, durably; queries honour it at once.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn set_retention(&self, tenant: &Tenant, retention: Retention) -> Result<()>;

    /// What the tenant holds.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn usage(&self, tenant: &Tenant) -> Result<Usage>;

    /// Queries of the tenant that run in this installation, oldest first.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn running_queries(&self, tenant: &Tenant) -> Result<Vec<RunningQuery>>;

    /// Cancels one; whether it was there.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    async fn cancel_query(&self, tenant: &Tenant, id: &str) -> Result<bool>;

    /// The error of a store that makes no backups.
    fn no_backups(&self) -> StoreError {
        StoreError::new(ErrorKind::Refused, format!("the backend {} makes no backups", self.backend()))
    }

    /// Makes a backup of all tenants while writes and queries go on: it holds every write that was
    /// acknowledged before this was called. Goes on when the caller hangs up.
    ///
    /// # Errors
    /// `Refused` where the store makes none, or makes one already; `Unavailable`, `Internal`.
    async fn backup(&self) -> Result<Backup> {
        Err(self.no_backups())
    }

    /// The finished backups, oldest first.
    ///
    /// # Errors
    /// `Refused`, `Internal`.
    async fn backups(&self) -> Result<Vec<Backup>> {
        Err(self.no_backups())
    }

    /// Removes a backup; whether it was there.
    ///
    /// # Errors
    /// `Refused` where the store makes none, or makes one now; `Internal`.
    async fn delete_backup(&self, _name: &str) -> Result<bool> {
        Err(self.no_backups())
    }

    /// Whether it can serve now; cheap enough for a probe each second.
    async fn health(&self) -> Health;

    /// How full the place is where writes wait, and what is in memory only: 0 when empty, from 1 on it refuses them.
    fn pressure(&self) -> f64 {
        0.0
    }

    /// About how many samples `query` would look at, where that is known without reading anything.
    fn weight(&self, _tenant: &Tenant, _query: &Query) -> Option<u64> {
        None
    }

    /// Figures of its inside.
    fn gauges(&self) -> Vec<Gauge>;

    /// Commits what is waiting and stops; later calls answer `Unavailable`.
    ///
    /// # Errors
    /// `Internal`, when something acked may not be safe.
    async fn close(&self) -> Result<()>;
}
