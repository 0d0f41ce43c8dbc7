//! A store's life: opened in the background, kept up to date, closed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::accepted::Accepted;
use super::changes::Changes;
use super::client::{Answered, Database};
use super::deletes::Deletes;
use super::failure::Failure;
use super::options::Options;
use super::query::{Reader, Visible};
use super::schema::{self, Dialect};
use super::series::days::day_of;
use super::writer::Writer;
use crate::model::{SpellingHasher, Tenant};
use crate::store::{ErrorKind, Health, NoSeries, Result, SeriesLookup, StoreError};

/// Between two attempts to open, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often other workers are told what was accepted here.
const TELL: Duration = Duration::from_secs(10);
/// When a store that isn't open yet is worth another try.
const SOON: Duration = Duration::from_secs(2);

/// What an open store is made of.
#[derive(Debug)]
pub struct Parts {
    pub database: Database,
    pub options: Arc<Options>,
    /// How tables are named.
    pub dialect: Dialect,
    pub changes: Arc<Changes>,
    pub accepted: Arc<Accepted>,
    pub writer: Arc<Writer>,
    pub deletes: Deletes,
}

impl Parts {
    /// The time now, in Unix milliseconds.
    pub fn now(&self) -> i64 {
        self.options.clock.now()
    }

    /// What answers `tenant`'s questions.
    pub fn reader<'a>(&'a self, tenant: &'a Tenant) -> Reader<'a> {
        let visible = Visible { now: self.now(), retention: self.changes.retention(tenant) };
        let (database, dialect, threads) = (&self.database, &self.dialect, self.options.query_threads);
        Reader { database, dialect, threads, tenant, visible }
    }

    /// Tells other workers, and this one's own questions, what was accepted here.
    pub async fn tell_accepted(&self) -> Answered<()> {
        self.accepted.tell(&self.database, i64::from(day_of(self.now()))).await
    }

    /// Removes what has expired, if no other worker is at it.
    async fn sweep(&self) -> Answered<()> {
        let now = self.now();
        if self.deletes.lease(self.accepted.worker(), now).await? {
            self.deletes.sweep(&self.changes, self.options.default_retention, now).await?;
        }
        Ok(())
    }

    /// Keeps up with the other workers, for ever.
    async fn follow(&self, trouble: &Mutex<Option<Failure>>) {
        let (mut told, mut swept) = (tokio::time::Instant::now(), tokio::time::Instant::now());
        loop {
            sleep(self.options.refresh).await;
            *trouble.lock() = self.changes.refresh().await.err();
            if told.elapsed() >= TELL {
                told = tokio::time::Instant::now();
                report("telling what was accepted", self.tell_accepted().await);
            }
            if swept.elapsed() >= self.options.retention_check {
                swept = tokio::time::Instant::now();
                report("removing what has expired", self.sweep().await);
            }
        }
    }
}

/// What failed here is tried again before long.
fn report(what: &'static str, result: Answered<()>) {
    if let Err(failure) = result {
        tracing::warn!(error = %StoreError::from(failure), "{what} failed");
    }
}

enum State {
    /// Not yet, and why.
    Waiting(Option<Failure>),
    Open(Arc<Parts>),
    Closed,
}

/// A store that is being opened, is open, or was.
pub struct Opening {
    state: watch::Sender<State>,
    /// What the last look at the server failed with.
    trouble: Mutex<Option<Failure>>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Opening")
    }
}

impl Opening {
    /// Begins.
    pub fn begin(options: Options) -> Result<Arc<Self>> {
        let runtime = Handle::try_current().map_err(StoreError::internal)?;
        let database = Database::new(&options).map_err(StoreError::internal)?;
        let opening = Arc::new(Self {
            state: watch::Sender::new(State::Waiting(None)),
            trouble: Mutex::default(),
            stop: CancellationToken::new(),
            task: Mutex::default(),
        });
        let task = Arc::clone(&opening).run(database, Arc::new(options));
        *opening.task.lock() = Some(runtime.spawn(task));
        Ok(opening)
    }

    async fn run(self: Arc<Self>, database: Database, options: Arc<Options>) {
        let stop = self.stop.clone();
        let life = async {
            let parts = self.open(database, options).await;
            tracing::info!("ClickHouse is open");
            self.state.send_replace(State::Open(Arc::clone(&parts)));
            parts.follow(&self.trouble).await;
        };
        stop.run_until_cancelled(life).await;
    }

    /// Tries until it is open.
    async fn open(&self, database: Database, options: Arc<Options>) -> Arc<Parts> {
        let (mut pause, longest) = PAUSES;
        loop {
            match attempt(&database, &options).await {
                Ok(parts) => return Arc::new(parts),
                Err(failure) => {
                    tracing::warn!(error = %StoreError::from(failure.clone()), retry_in = ?pause, "can't open ClickHouse");
                    self.state.send_replace(State::Waiting(Some(failure)));
                }
            }
            sleep(pause.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// The parts of the open store.
    pub fn parts(&self) -> Result<Arc<Parts>> {
        match &*self.state.borrow() {
            State::Open(parts) => Ok(Arc::clone(parts)),
            State::Waiting(Some(failure)) => Err(unavailable(&StoreError::from(failure.clone()).message)),
            State::Waiting(None) => Err(unavailable(&waiting(None))),
            State::Closed => Err(unavailable("the store is closed")),
        }
    }

    /// Waits until it is open.
    pub async fn opened(&self, patience: Duration) -> Result<()> {
        let mut state = self.state.subscribe();
        // The sender lives as long as this.
        let _ = timeout(patience, state.wait_for(|state| !matches!(state, State::Waiting(_)))).await;
        self.parts().map(drop)
    }

    /// A lookup that knows nothing: so every row describes its series.
    pub fn nothing_known(&self) -> Arc<dyn SeriesLookup> {
        let mut secret = [0; 192];
        fastrand::fill(&mut secret);
        Arc::new(NoSeries(SpellingHasher::new(secret)))
    }

    /// Whether the server answers, and whether it takes writes.
    pub fn health(&self) -> Health {
        let (answers, degraded) = match &*self.state.borrow() {
            State::Waiting(failure) => (Err(waiting(failure.as_ref())), None),
            State::Closed => (Err("the store is closed".to_owned()), None),
            State::Open(parts) => {
                let answers = self.trouble.lock().as_ref().map_or(Ok(()), |failure| Err(words(failure)));
                (answers, parts.writer.trouble().map(|failure| words(&failure)))
            }
        };
        let degraded = degraded.map(|words| ("writes", words)).into_iter().collect();
        Health { checks: vec![("clickhouse", answers)], degraded }
    }

    /// Ends what goes on in the background.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Inserts what waits, and ends.
    pub async fn close(&self) -> Answered<()> {
        self.stop();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It was told to stop, and has nothing to say.
            let _ = task.await;
        }
        let State::Open(parts) = self.state.send_replace(State::Closed) else { return Ok(()) };
        parts.writer.close().await;
        parts.tell_accepted().await
    }
}

async fn attempt(database: &Database, options: &Arc<Options>) -> Answered<Parts> {
    // 1. The tables. IO.
    schema::migrate(database, options).await?;
    let durable = schema::durable(database, options).await?;
    if durable != options.fsync {
        tracing::warn!(
            durable,
            "the tables were made with another setting of storage.clickhouse.ack, which holds"
        );
    }
    // 2. What other workers have changed. IO.
    let changes = Arc::new(Changes::open(database.clone(), options).await?);
    // 3. The parts.
    let accepted = Arc::new(Accepted::new(format!("{:016x}", fastrand::u64(..))));
    let options = Arc::new(Options { fsync: durable, ..options.as_ref().clone() });
    let writer = Writer::start(database.clone(), &options, Arc::clone(&changes), Arc::clone(&accepted));
    let dialect = Dialect::of(&options);
    let deletes = Deletes::new(database.clone(), dialect.clone());
    let database = database.clone();
    Ok(Parts { database, options, dialect, changes, accepted, writer, deletes })
}

fn waiting(failure: Option<&Failure>) -> String {
    failure.map_or_else(|| "ClickHouse is being opened".to_owned(), words)
}

/// What a person may read of a failure: no texts of the server, which may hold anything.
fn words(failure: &Failure) -> String {
    failure.advice().unwrap_or("ClickHouse refuses a statement: see the log").to_owned()
}

fn unavailable(message: &str) -> StoreError {
    StoreError::new(ErrorKind::Unavailable { retry_after: SOON }, message)
}
