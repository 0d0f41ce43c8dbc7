//! Writes: many requests become one insert, and each is answered when ClickHouse has it.
//!
//! A request is resolved where it arrives ([`super::series`]), waits in the queue, and is taken, with
//! all others that wait, by one background task: it makes a block of them, inserts the `series` rows that
//! are new, then the `samples`, looks whether a delete came between, and wakes the callers. An idle
//! writer inserts at once; else at least the linger lies between the starts of two inserts, and while
//! one is on its way the next block is made ready.

mod insert;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::accepted::Accepted;
use super::block::{self, Piece, Wanted};
use super::changes::Changes;
use super::client::{Answered, Database};
use super::failure::Failure;
use super::options::Options;
use super::series::census::Floors;
use super::series::days::day_of;
use super::series::resolve::{Resolved, Resolver};
use super::series::{BUDGET, Registry};
use crate::clock::Clock;
use crate::model::{Batch, SpellingHasher, Tenant};
use crate::store::{ErrorKind, Gauge, Result, SeriesLookup, StoreError, WriteOutcome};

use insert::{Backoff, Inserter, Table};
use queue::{Queue, Request, Room};

/// When a closing worker's clients may try another.
const CLOSED: Duration = Duration::from_secs(2);

/// Stores batches in ClickHouse.
pub struct Writer {
    inner: Arc<Inner>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writer").finish_non_exhaustive()
    }
}

struct Inner {
    database: Database,
    changes: Arc<Changes>,
    accepted: Arc<Accepted>,
    clock: Arc<dyn Clock>,
    registry: Registry,
    queue: Queue,
    inserter: Inserter,
    linger: Duration,
    max_rows: usize,
    timeout: Duration,
    durable: bool,
}

/// Blocks made of requests.
struct Block {
    requests: Vec<Request>,
    series: Vec<Piece>,
    samples: Vec<Piece>,
}

impl Writer {
    /// A writer with its background task, on the runtime that it is called on.
    #[must_use]
    pub fn start(
        database: Database,
        options: &Options,
        changes: Arc<Changes>,
        accepted: Arc<Accepted>,
    ) -> Arc<Self> {
        let mut secret = [0; 192];
        fastrand::fill(&mut secret);
        let inner = Arc::new(Inner {
            inserter: Inserter::new(database.clone(), options, accepted.worker()),
            database,
            changes,
            accepted,
            clock: Arc::clone(&options.clock),
            registry: Registry::new(SpellingHasher::new(secret), BUDGET),
            queue: Queue::new(options.max_queue_bytes),
            linger: options.linger,
            max_rows: options.max_batch_rows,
            timeout: options.insert_timeout,
            durable: options.fsync,
        });
        let task = tokio::spawn(run(Arc::clone(&inner)));
        Arc::new(Self { inner, task: Mutex::new(Some(task)) })
    }

    /// The tenant's known series.
    #[must_use]
    pub fn lookup(&self, tenant: &Tenant) -> Arc<dyn SeriesLookup> {
        self.inner.registry.tenant(tenant, self.inner.changes.generation(tenant))
    }

    /// Stores a batch; returns when ClickHouse has it.
    ///
    /// # Errors
    /// As [`crate::store::MetricsStore::write`].
    pub async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        let deadline = Instant::now() + self.inner.timeout;
        match timeout_at(deadline, self.inner.write(tenant, batch)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.inner.told(self.inner.inserter.late())),
        }
    }

    /// How full the queue is.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        self.inner.queue.fullness()
    }

    /// Figures of its inside.
    #[must_use]
    pub fn gauges(&self) -> Vec<Gauge> {
        let Inner { queue, registry, inserter, .. } = &*self.inner;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let counts = &inserter.counts;
        let gauge = |name, help, value| Gauge { name, help, value };
        vec![
            gauge("insert_queue_bytes", "Bytes of writes that aren't answered yet.", queue.used() as f64),
            gauge("insert_queue_requests", "Writes that no insert has taken yet.", queue.waiting() as f64),
            gauge(
                "known_series_entries",
                "Series and spellings that this worker remembers.",
                registry.used() as f64,
            ),
            gauge("inserts", "Inserts that ClickHouse has, since the start.", count(&counts.inserts)),
            gauge("insert_rows", "Rows of those inserts.", count(&counts.rows)),
            gauge("insert_retries", "Inserts that were tried again.", count(&counts.retries)),
            gauge("insert_seconds", "Seconds that inserts took.", count(&counts.micros) / 1e6),
            gauge(
                "insert_slowness",
                "How many times longer than set the linger is.",
                f64::from(inserter.slowness()),
            ),
        ]
    }

    /// What keeps inserts from ClickHouse now, if anything does.
    #[must_use]
    pub fn trouble(&self) -> Option<Failure> {
        self.inner.inserter.trouble()
    }

    /// Inserts what waits and stops; later writes answer `Unavailable`.
    pub async fn close(&self) {
        self.inner.queue.close();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the writer ended by itself");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inner.queue.close();
    }
}

fn closed() -> StoreError {
    StoreError::new(ErrorKind::Unavailable { retry_after: CLOSED }, "the store is closed")
}

impl Inner {
    async fn write(&self, tenant: &Tenant, batch: Batch) -> Result<WriteOutcome> {
        if self.queue.is_closed() {
            return Err(closed());
        }
        // 1. Room for its rows; may refuse it. What it describes is counted once it is resolved.
        let rows = batch.len() as u64 * size_of::<super::series::resolve::Row>() as u64;
        drop(self.room(rows)?);
        // 2. Its series. IO where some aren't known.
        let resolver = Resolver {
            tenant: self.registry.tenant(tenant, self.changes.generation(tenant)),
            database: &self.database,
            floors: Floors::new(self.clock.now(), self.changes.retention(tenant)),
        };
        let mut resolved = resolver.resolve(batch).await.map_err(insert::of_a_write)?;
        let refused = std::mem::take(&mut resolved.refused);
        // 3. Into the queue, and out of it when it is stored. IO.
        if !resolved.rows.is_empty() {
            let room = self.room(resolved.bytes())?;
            let (done, answer) = oneshot::channel();
            self.queue.push(Request { resolved, done, room }).map_err(|_| closed())?;
            let unanswered = |_| StoreError::internal("the writer has dropped a batch");
            answer.await.map_err(unanswered)??;
        }
        Ok(WriteOutcome { refused, durable: self.durable })
    }

    /// Makes a block on a thread that may block: half a million rows take some 50 ms.
    async fn prepare(&self, requests: Vec<Request>) -> Option<Block> {
        let most = self.max_rows;
        let block = tokio::task::spawn_blocking(move || Block::of(requests, most)).await;
        block.inspect_err(|error| tracing::error!(%error, "a block can't be made")).ok()
    }

    /// An error as a caller is told it: how long the server is busy shows in how fast the queue drains.
    fn told(&self, error: StoreError) -> StoreError {
        let kind = match error.kind {
            ErrorKind::Overloaded { .. } => ErrorKind::Overloaded { retry_after: self.queue.drained_in() },
            kind => kind,
        };
        StoreError { kind, ..error }
    }

    /// Room in the queue.
    fn room(&self, bytes: u64) -> Result<Room> {
        self.queue.room(bytes).map_err(|full| match self.inserter.trouble() {
            // Why it is full says more than that it is.
            Some(trouble) => self.told(insert::refusal(trouble)),
            None => full,
        })
    }

    /// Inserts a block and answers its requests.
    async fn store(&self, block: Block) {
        let started = Instant::now();
        let until = started + self.timeout;
        let Block { requests, series, samples } = block;
        let bytes = requests.iter().map(|request| request.room.bytes).sum();
        // 1. Series first: whoever finds a sample finds its series. IO.
        let stored = match self.insert(Table::Series, &series, until).await {
            Ok(()) => self.insert(Table::Samples, &samples, until).await,
            failed => failed,
        };
        if stored.is_ok() {
            self.queue.drained(bytes, started.elapsed());
        }
        // 2. Whether a delete came between. IO, seldom.
        match stored {
            Ok(()) => self.acknowledge(requests, until).await,
            Err(failure) => self.refuse(requests, failure),
        }
        self.registry.sweep();
    }

    async fn insert(&self, table: Table, pieces: &[Piece], until: Instant) -> Answered<()> {
        for piece in pieces {
            self.inserter.insert(table, piece, until, || self.queue.is_closed()).await?;
        }
        Ok(())
    }

    /// Answers requests whose rows are in ClickHouse.
    ///
    /// A delete raises its tenant's generation, waits until every worker acknowledges only what knows of it, and
    /// then takes the samples and the `series` rows of older generations. So where the generation has
    /// changed since a request was resolved, its samples may have landed after that and its `series`
    /// rows before: they are inserted again under the new one. Rows that came by a handle have no
    /// description here; their caller describes them and writes them again, which changes nothing.
    async fn acknowledge(&self, mut requests: Vec<Request>, until: Instant) {
        let mut generations: Vec<u64> = requests.iter().map(|request| request.resolved.generation).collect();
        loop {
            if let Err(failure) = self.confirm(until).await {
                return self.refuse(requests, failure);
            }
            let mut again = Vec::new();
            for (request, under) in requests.into_iter().zip(generations) {
                let now = self.changes.generation(&request.resolved.tenant.tenant);
                if now == under {
                    self.succeed(request, now);
                } else if request.resolved.by_handle {
                    let stale = "the tenant's series changed while they were written";
                    answer(request, Err(StoreError::new(ErrorKind::StaleSeries, stale)));
                } else {
                    again.push((request, now));
                }
            }
            if again.is_empty() {
                return;
            }
            let wanted: Vec<(&Resolved, Wanted)> =
                again.iter().map(|(request, now)| (&request.resolved, Wanted::All(*now))).collect();
            let series = block::series(&wanted, self.max_rows);
            (requests, generations) = again.into_iter().unzip();
            if let Err(failure) = self.insert(Table::Series, &series, until).await {
                return self.refuse(requests, failure);
            }
        }
    }

    fn refuse(&self, requests: Vec<Request>, failure: Failure) {
        let error = self.told(insert::refusal(failure));
        requests.into_iter().for_each(|request| answer(request, Err(error.clone())));
    }

    async fn confirm(&self, until: Instant) -> Answered<()> {
        let mut backoff = Backoff::default();
        loop {
            match self.changes.confirm().await {
                Err(failure) if Instant::now() >= until => return Err(failure),
                Err(_) => backoff.pause().await,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn succeed(&self, mut request: Request, generation: u64) {
        let resolved = &mut request.resolved;
        resolved.created.stored();
        if resolved.generation == generation && !resolved.described.is_empty() {
            resolved.tenant.remember(&resolved.metrics, &resolved.remembered());
        }
        let rows = resolved.rows.len() as u64;
        self.accepted.add(&resolved.tenant.tenant, i64::from(day_of(self.clock.now())), rows);
        answer(request, Ok(()));
    }
}

fn answer(request: Request, answer: Result<()>) {
    let Request { resolved, done, room } = request;
    // Whoever hears the answer finds the room free and the series settled.
    drop((resolved, room));
    // Nobody hears it where the caller has given up.
    let _ = done.send(answer);
}

impl Block {
    fn of(requests: Vec<Request>, most: usize) -> Self {
        let wanted: Vec<(&Resolved, Wanted)> =
            requests.iter().map(|request| (&request.resolved, Wanted::Missing)).collect();
        let series = block::series(&wanted, most);
        let resolved: Vec<&Resolved> = requests.iter().map(|request| &request.resolved).collect();
        let samples = block::samples(&resolved, most);
        Self { requests, series, samples }
    }
}

/// The background task: until the queue is closed and empty.
async fn run(inner: Arc<Inner>) {
    let mut flight: Option<JoinHandle<()>> = None;
    let mut not_before = Instant::now();
    while inner.queue.arrived().await {
        // 1. Together with whatever comes until the linger is over.
        sleep_until(not_before).await;
        let requests = inner.queue.take(inner.max_rows);
        // 2. CPU, while the insert before is on its way.
        let Some(block) = inner.prepare(requests).await else { continue };
        // 3. Never two at a time.
        if let Some(flight) = flight.take() {
            landed(flight).await;
        }
        not_before = Instant::now() + inner.linger * inner.inserter.slowness();
        let own = Arc::clone(&inner);
        flight = Some(tokio::spawn(async move { own.store(block).await }));
    }
    if let Some(flight) = flight {
        landed(flight).await;
    }
}

async fn landed(flight: JoinHandle<()>) {
    if let Err(error) = flight.await {
        tracing::error!(%error, "an insert ended by itself");
    }
}

#[cfg(test)]
mod tests;
