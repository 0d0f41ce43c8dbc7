//! A store behind a worker: every call of the trait becomes requests to the worker's API.
//!
//! The worker is the real one, in this process so that it keeps the test's time, and listens on the
//! loopback. What is said is spelled in every way that the API allows ([`spelling`]), and every answer is
//! taken at its word ([`answers`]): a status, a field or a number that the API's description doesn't
//! promise is an error here.
//!
//! # What the API can't say, and what is done instead
//! - **Handles and spellings of series.** Rows are described in full; the worker remembers spellings by
//!   itself, so the plain ones come again and again.
//! - **A batch's limits of series** are the limits of a tier: there is a tier for each, and the token
//!   names it. Of refused samples an answer lists the first 100, so a batch under limits is sent in
//!   requests of 100 samples: rows are refused one by one, so that makes no difference.
//! - **A query's bounds.** Its deadline becomes the request's `timeout`; most samples and most memory are
//!   the worker's own limits, and there is no token to cancel with: [`BEYOND_HTTP`].
//! - **How many names there are** is told of values only; metrics and keys are counted page by page.
//! - **The window of times, the range of a question, rows of an answer and samples of a request** have
//!   bounds in a worker that a store has not; they are set so wide that none is met. Their refusals are
//!   tested where the API is.
//! - **Gauges** are the page of metrics, which is another format.

pub mod answers;
pub mod spelling;
pub mod store;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use luminate_crds::worker_config::{ByteSize, Secret, Span, TierLimits, WorkerConfig};
use luminate_storage::clock::{Clock, ManualClock};
use luminate_storage::contract::{Backend, Subject};
use luminate_storage::model::SeriesLimits;
use luminate_storage::store::{MetricsStore, Result, StoreError};
use luminate_worker::run::{RunError, Worker};
use tokio::sync::oneshot;

use super::{Home, Kind, START};
use crate::http::{self, Connection};
use crate::token;
use store::HttpStore;

/// Cases of the contract whose rule can't be asked for through the API, since its bound isn't part of a
/// request: a cancelled context, a deadline that is over already, most samples and most memory.
pub const BEYOND_HTTP: [&str; 4] = [
    "a_cancelled_query_stops",
    "a_query_past_its_deadline_stops",
    "a_query_may_scan_so_many_samples",
    "a_query_may_hold_so_much",
];

/// Tiers exist for limits up to this many metrics, and up to this many series.
const TIERS: (u64, u64) = (9, 60);
/// So many of anything are never reached.
const PLENTY: u32 = 1_000_000_000;

/// Changes what passes between the client and the worker: the control that shows that a bug is found.
#[derive(Debug, Clone, Copy)]
pub enum Tamper {
    /// Changes the body of a request to a path.
    Request(fn(path: &str, body: &mut Vec<u8>)),
    /// Changes the body of an answer from a path.
    Answer(fn(path: &str, body: &mut Vec<u8>)),
}

/// Opens stores behind workers.
#[derive(Debug, Clone)]
pub struct ThroughHttp {
    kind: Kind,
    tamper: Option<Tamper>,
}

impl ThroughHttp {
    /// Workers over stores of this kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, tamper: None }
    }

    /// The same, through something that changes what is said.
    #[must_use]
    pub fn tampered(self, tamper: Tamper) -> Self {
        Self { tamper: Some(tamper), ..self }
    }
}

#[async_trait]
impl Backend for ThroughHttp {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        let home = self.kind.home(clock.clone(), default_retention)?;
        // The clock's first time follows from the run's seed, so what is spelled does too.
        let random = fastrand::Rng::with_seed(clock.now().unsigned_abs());
        let config = config(&self.kind, default_retention);
        let mut served =
            Served { kind: self.kind.clone(), home, clock, config, tamper: self.tamper, random, store: None };
        served.start()?;
        Ok(Box::new(served))
    }
}

/// A home with a worker over it.
struct Served {
    kind: Kind,
    home: Arc<dyn Home>,
    clock: Arc<ManualClock>,
    config: WorkerConfig,
    tamper: Option<Tamper>,
    random: fastrand::Rng,
    /// Absent only while the worker is being started again.
    store: Option<HttpStore>,
}

impl Served {
    fn start(&mut self) -> Result<()> {
        let serving = Serving::start(self.config.clone(), self.clock.clone(), self.home.clone())?;
        let random = self.random.fork();
        let clock = self.clock.clone();
        self.store = Some(HttpStore::new(self.kind.name(), serving, clock, random, self.tamper));
        Ok(())
    }
}

#[async_trait]
impl Subject for Served {
    fn store(&self) -> &dyn MetricsStore {
        self.store.as_ref().expect("there but during a restart")
    }

    async fn settle(&mut self) -> Result<()> {
        self.home.settle().await
    }

    async fn restart(&mut self) -> Result<()> {
        self.store().close().await?;
        self.store = None;
        self.home.leave();
        self.start()
    }
}

/// The name of the tier with these limits.
#[must_use]
pub fn tier(limits: SeriesLimits) -> Option<String> {
    let SeriesLimits { max_metrics, max_series_per_metric } = limits;
    (limits != SeriesLimits::NONE).then(|| format!("{max_metrics}-metrics-{max_series_per_metric}-series"))
}

fn config(kind: &Kind, default_retention: i64) -> WorkerConfig {
    let mut config = WorkerConfig::default();
    config.server.host = [127, 0, 0, 1].into();
    config.server.port = 0;
    config.server.drain_delay = Span::from_millis(0);
    config.server.idle_timeout = Span::from_secs(3_600);
    config.server.max_body_bytes = ByteSize(1 << 30);
    config.auth.enabled = true;
    config.auth.jwt_secret = Some(Secret::new(token::SECRET));
    config.storage.backend = kind.configured();
    config.retention.default = Span::from_millis(default_retention.unsigned_abs());
    let centuries = Span::from_days(200 * 365);
    (config.ingest.max_age, config.ingest.max_future) = (centuries, centuries);
    config.ingest.max_batch = PLENTY;
    config.query_limits.max_range = centuries;
    config.query_limits.max_timeout = Span::from_secs(3_600);
    config.query_limits.max_result_points = PLENTY;
    config.rate_limits.write_rps = PLENTY;
    config.rate_limits.query_rps = PLENTY;
    config.rate_limits.metrics_per_second = u64::from(PLENTY);
    config.cardinality_limits.max_metrics_per_tenant = u64::MAX;
    config.cardinality_limits.max_series_per_metric = u64::MAX;
    for max_metrics in 0..=TIERS.0 {
        for max_series_per_metric in 0..=TIERS.1 {
            let limits = SeriesLimits { max_metrics, max_series_per_metric };
            let quota = TierLimits {
                max_metrics_per_tenant: Some(max_metrics),
                max_series_per_metric: Some(max_series_per_metric),
                ..TierLimits::default()
            };
            config.rate_limits.tiers.extend(tier(limits).map(|tier| (tier, quota)));
        }
    }
    config
}

/// A worker that serves on a thread of its own.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<std::result::Result<(), RunError>>,
}

impl Serving {
    /// Starts a worker over `home` and waits until it is ready.
    ///
    /// # Errors
    /// Why it ended, or that it isn't ready in time.
    pub fn start(config: WorkerConfig, clock: Arc<ManualClock>, home: Arc<dyn Home>) -> Result<Self> {
        let (listening, listens) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let worker = Worker::listen(config, clock).await?;
                // Whoever started this may have given up.
                let _ = listening.send(worker.address());
                let opener = Box::new(move |_: &WorkerConfig| home.open());
                worker.run(opener, async move { drop(stopped.await) }).await
            })
        });
        let running = Mutex::new(Some(Running { stop, thread }));
        let Ok(address) = listens.recv() else {
            let serving = Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), running };
            serving.stop()?;
            return Err(StoreError::internal("the worker ended before it listened"));
        };
        let serving = Self { address, running };
        serving.until_ready()?;
        Ok(serving)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn until_ready(&self) -> Result<()> {
        let started = Instant::now();
        let ready = http::request("GET", "/api/v1/health/ready", &[], &[]);
        let ask = || Connection::open(self.address)?.exchange(&ready);
        while started.elapsed() < START && !self.has_ended() {
            if ask().is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(3));
        }
        self.stop()?;
        Err(StoreError::internal("the worker isn't ready in time"))
    }

    fn has_ended(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_none_or(|running| running.thread.is_finished())
    }

    /// Tells it to stop and waits until it has closed its store; nothing where that was done already.
    ///
    /// # Errors
    /// Why it ended otherwise.
    pub fn stop(&self) -> Result<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { stop, thread }) = running else { return Ok(()) };
        // One that has ended by itself isn't listening.
        let _ = stop.send(());
        let ended = thread.join().map_err(|_| StoreError::internal("the worker panicked"))?;
        ended.map_err(StoreError::internal)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Who wants to know has called `stop`.
        let _ = self.stop();
    }
}
