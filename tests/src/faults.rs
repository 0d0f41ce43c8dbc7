//! Workers over a ClickHouse on bad days: several clients write through one or two workers while requests
//! between these and the server fail in every way that [`crate::fault_proxy`] knows, and while workers and
//! server are killed.
//!
//! A client sends each batch until it is acknowledged, as clients do, and only then the next. After each
//! plan all is healed, and then
//! - what a worker answers must be what the ledger of acknowledgements says: nothing lost, nothing doubled,
//!   the last write of each series and millisecond;
//! - of a sample whose batches were each sent once, the table must hold one row a batch, before any merge:
//!   whatever a worker repeated on its own must have had no effect;
//! - a refusal must have said when to come back, and nothing of the inside.

mod check;
mod clients;
pub mod weather;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::clickhouse::{ClickHouse, fresh_database};
use crate::fault_proxy::FaultProxy;
use crate::ledger::Ledger;
use crate::worker::{Setup, Worker};
use clients::{Acked, Client, Scene};
use weather::{Event, Weather};

/// The ledger's writers that never delete.
const WRITERS: [u32; 4] = [0, 2, 4, 6];
/// Plans of a database: its parts, which are never merged, must stay few.
const PLANS_OF_A_DATABASE: u32 = 8;
const PROGRESS: Duration = Duration::from_secs(10);

/// A run of the harness.
#[derive(Debug, Clone)]
pub struct Run {
    /// What everything random but the scheduler's choices follows from.
    pub seed: u64,
    /// Fault plans.
    pub plans: u32,
    /// A fault put in on purpose, which must be caught: the server forgets what it has inserted.
    pub forgetful: bool,
}

/// What a run has seen, in one line.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Plans carried out.
    pub plans: u32,
    /// Requests that something was done to.
    pub faults: u64,
    /// Workers and servers killed, restarted or cut off.
    pub events: u32,
    /// Batches acknowledged.
    pub batches: u64,
    /// Samples in them.
    pub samples: u64,
    /// Refusals on the way.
    pub refused: u64,
    /// Connections that a killed worker left without an answer.
    pub unanswered: u64,
    /// Samples read back, over all checks.
    pub read: u64,
    /// Samples whose rows in the table were counted.
    pub counted: u64,
    /// The longest time from healing to the last acknowledgement.
    pub slowest: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} plans: {} requests harmed, {} kills, restarts and cuts; {} batches with {} samples acked after {} \
             refusals and {} hang-ups, none lost; {} samples read, none wrong; rows of {} counted, none doubled; \
             slowest recovery {} ms; seed {}",
            self.plans,
            self.faults,
            self.events,
            self.batches,
            self.samples,
            self.refused,
            self.unanswered,
            self.read,
            self.counted,
            self.slowest.as_millis(),
            self.seed
        )
    }
}

/// Why a run has failed.
#[derive(Debug)]
pub struct Failure {
    /// The plan, from 1.
    pub plan: u32,
    /// Its weather.
    pub weather: String,
    /// What was seen.
    pub what: String,
    /// The run's seed.
    pub seed: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "plan {}: {}; its weather: {}; seed {}",
            self.plan, self.what, self.weather, self.seed
        )
    }
}

impl std::error::Error for Failure {}

/// Carries out a run, telling `progress` a line every few seconds.
///
/// # Errors
/// The first thing that must not be.
pub fn run(run: &Run, progress: &mut dyn FnMut(&str)) -> Result<Summary, Failure> {
    let mut summary = Summary { seed: run.seed, ..Summary::default() };
    let mut random = fastrand::Rng::with_seed(run.seed);
    let mut server = ClickHouse::start();
    let mut site: Option<Site> = None;
    let mut shown = Instant::now();
    while summary.plans < run.plans {
        if summary.plans.is_multiple_of(PLANS_OF_A_DATABASE)
            && let Some(old) = site.take()
        {
            old.demolish(&server);
        }
        let site = site.get_or_insert_with(|| Site::build(&server, run, &mut random));
        let weather = Weather::new(&mut random);
        summary.plans += 1;
        let done = site.live_through(&weather, &mut server, &mut random, &mut summary);
        if let Err(what) = done {
            let weather = weather.to_string();
            return Err(Failure { plan: summary.plans, weather, what, seed: run.seed });
        }
        if shown.elapsed() > PROGRESS {
            shown = Instant::now();
            progress(&format!("{} of {}: {summary}", summary.plans, run.plans));
        }
    }
    Ok(summary)
}

/// One database with its workers, and what it must hold.
struct Site {
    database: String,
    proxy: FaultProxy,
    workers: Vec<Worker>,
    ledger: Ledger,
    seed: u64,
    /// Batches that were sent more than once, by writer and number.
    repeated: Vec<(u32, u64)>,
    harmed: u64,
}

impl Site {
    fn build(server: &ClickHouse, run: &Run, random: &mut fastrand::Rng) -> Self {
        let (database, proxy) = (fresh_database(), FaultProxy::before(server.address()));
        let seed = random.u64(..);
        let workers: Vec<Worker> =
            (0..random.usize(1..=2)).map(|_| setup(&proxy, &database).start()).collect();
        let site = Self {
            database,
            proxy,
            workers,
            ledger: Ledger::new(seed, 8),
            seed,
            repeated: Vec::new(),
            harmed: 0,
        };
        site.stop_merges(server);
        if run.forgetful {
            for table in ["samples", "series"] {
                let window = "MODIFY SETTING non_replicated_deduplication_window = 0";
                server.execute(&format!("ALTER TABLE {}.{table} {window}", site.database));
            }
        }
        site
    }

    /// Merges would remove what was inserted twice before it can be counted.
    fn stop_merges(&self, server: &ClickHouse) {
        server.execute(&format!("SYSTEM STOP MERGES {}.samples", self.database));
    }

    fn demolish(self, server: &ClickHouse) {
        drop(self.workers);
        server.execute(&format!("DROP DATABASE {}", self.database));
    }

    /// One plan: harm, heal, check.
    fn live_through(
        &mut self,
        weather: &Weather,
        server: &mut ClickHouse,
        random: &mut fastrand::Rng,
        summary: &mut Summary,
    ) -> Result<(), String> {
        // 1. Clients write while it storms.
        let scene = Scene::new(self.seed, self.workers.iter().map(Worker::address).collect());
        let clients: Vec<Client> = WRITERS
            .map(|writer| Client::new(&scene, writer, self.ledger.next(writer), random.u64(..)))
            .into();
        weather.begin(&self.proxy);
        let acked: Vec<Result<Acked, String>> = thread::scope(|scope| {
            let clients: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(move || client.write())).collect();
            self.storm(weather, server, &scene);
            clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| Err("a client panicked".into())))
                .collect()
        });
        summary.events += u32::from(weather.event != Event::None);
        summary.faults += self.proxy.faults() - self.harmed;
        self.harmed = self.proxy.faults();
        // 2. What they were told counts.
        for acked in acked {
            self.note(&acked?, summary);
        }
        // 3. The store must say the same.
        let reader = &self.workers[random.usize(..self.workers.len())];
        for writer in WRITERS {
            let found = check::read(&reader.client(), writer)?;
            summary.read += found.len() as u64;
            self.ledger.check(writer, &found).map_err(|violation| violation.to_string())?;
        }
        summary.counted +=
            check::count_rows(server, self.seed, &self.database, &self.ends(), &self.repeated)?;
        Ok(())
    }

    /// Lets the weather pass, and heals all.
    fn storm(&mut self, weather: &Weather, server: &mut ClickHouse, scene: &Scene) {
        thread::sleep(weather.lasts / 2);
        match weather.event {
            Event::None => {}
            Event::Cut => self.proxy.close(),
            Event::KillWorker => {
                scene.expect_hang_ups();
                self.workers[0].kill();
            }
            Event::KillServer => server.kill(),
            Event::RestartServer => server.stop(),
        }
        thread::sleep(weather.lasts / 2);
        if matches!(weather.event, Event::KillServer | Event::RestartServer) {
            server.start_again();
            self.stop_merges(server);
        }
        self.proxy.heal();
        if weather.event == Event::KillWorker {
            self.workers[0].start_again();
            scene.moved(0, self.workers[0].address());
        }
        scene.heal();
    }

    fn note(&mut self, acked: &Acked, summary: &mut Summary) {
        for (number, attempts) in &acked.batches {
            summary.batches += 1;
            summary.samples += self.ledger.acked(acked.writer, *number) as u64;
            if *attempts > 1 {
                self.repeated.push((acked.writer, *number));
            }
        }
        summary.refused += acked.refused;
        summary.unanswered += acked.unanswered;
        summary.slowest = summary.slowest.max(acked.recovered);
    }

    /// The batches of each writer so far.
    fn ends(&self) -> Vec<(u32, u64)> {
        WRITERS.map(|writer| (writer, self.ledger.next(writer))).into()
    }
}

/// Workers that give up soon, take old samples, and answer all at once.
fn setup(proxy: &FaultProxy, database: &str) -> Setup {
    Setup::clickhouse(&proxy.url(), database)
        .with("storage.clickhouse.insert_timeout", "10s")
        .with("storage.clickhouse.connect_timeout", "500ms")
        .with("ingest.max_age", "36500d")
        .with("retention.default", "36500d")
        .with("query_limits.max_result_points", 10_000_000)
        .with("query_limits.max_timeout", "60s")
}
