//! The program that is killed: writes and deletes, and says which steps were acknowledged.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use luminate_storage::clock::ManualClock;
use luminate_storage::model::{
    Batch, DimensionLimits, Dimensions, MetricName, NewSeries, RowSeries, SeriesLimits, Tenant,
};
use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};
use luminate_storage::store::{ErrorKind, MetricsStore, SeriesLookup, StoreError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::ledger::{self, BEGIN, Row, Step};

const YEAR: i64 = 365 * 86_400_000;

/// What the program is told, as its one argument.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The store's directory.
    pub path: PathBuf,
    /// The ledger's seed.
    pub seed: u64,
    /// For each writer its first step.
    pub starts: Vec<u64>,
    /// A seed for what isn't in the ledger: pauses, seals, merges.
    pub noise: u64,
    /// A fault to be caught: acknowledges before it writes.
    pub ack_early: bool,
    /// A fault to be caught: the store doesn't sync before it acknowledges.
    pub no_sync: bool,
}

/// A store whose head, log and segments are so small that a short life has seals, merges and segments
/// that are used again.
#[must_use]
pub fn options(path: &Path, ack: Ack) -> Options {
    Options {
        path: path.to_owned(),
        ack,
        memory: 256 << 20,
        threads: 2,
        default_retention: 50 * YEAR,
        retention_check: Duration::from_secs(3_600),
        heavy_samples: 20_000_000,
        resident: None,
        seal_window: Duration::from_secs(3_600),
        log_cap: 256 << 10,
        backups: None,
        clock: Arc::new(ManualClock::new(BEGIN)),
    }
}

/// Where a writer's samples are: tenant and metric, which it shares unless it deletes. Its series carry its
/// number as a dimension.
///
/// # Panics
/// Never: the names are valid.
#[must_use]
pub fn place(writer: u32) -> (Tenant, MetricName) {
    let tenant = Tenant::new(&format!("tenant-{}", writer / 4)).expect("a valid tenant");
    let metric = if ledger::deletes(writer) { format!("own_{writer}") } else { "shared".to_owned() };
    (tenant, MetricName::new(&metric).expect("a valid name"))
}

/// Writes until it is killed.
///
/// # Panics
/// When the store fails while nobody has harmed it.
pub fn run(orders: Orders) {
    let ack = if orders.no_sync { Ack::Buffered } else { Ack::Durable };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let store = RocksDb::open(options(&orders.path, ack)).unwrap_or_else(|error| give_up(&error));
        let (store, orders) = (Arc::new(store), Arc::new(orders));
        let mut tasks = JoinSet::new();
        for (writer, start) in (0..).zip(&orders.starts) {
            tasks.spawn(write(store.clone(), orders.clone(), writer, *start));
        }
        tasks.spawn(async move { reorganise(&store, orders.noise).await });
        // None ends but by a panic, which has said why.
        let _ended = tasks.join_next().await;
        std::process::exit(4);
    });
}

fn give_up(error: &dyn std::fmt::Display) -> ! {
    eprintln!("{error}");
    std::process::exit(3);
}

async fn write(store: Arc<RocksDb>, orders: Arc<Orders>, writer: u32, start: u64) {
    let mut random = fastrand::Rng::with_seed(orders.noise ^ u64::from(writer));
    for number in start.. {
        let step = ledger::step(orders.seed, writer, number);
        if orders.ack_early {
            say(Said::Acked(writer, number));
        }
        while let Err(error) = perform(&store, writer, &step).await {
            match error.kind {
                ErrorKind::Overloaded { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
                // A delete took a series between the look at it and the write.
                ErrorKind::StaleSeries => {}
                _ => give_up(&error),
            }
        }
        if !orders.ack_early {
            say(Said::Acked(writer, number));
        }
        if random.u8(..4) == 0 {
            tokio::time::sleep(Duration::from_micros(random.u64(..8_000))).await;
        }
    }
}

/// Does one step of a writer.
///
/// # Errors
/// The store's.
///
/// # Panics
/// When a row is refused though nothing is limited.
pub async fn perform(store: &RocksDb, writer: u32, step: &Step) -> Result<(), StoreError> {
    let (tenant, metric) = place(writer);
    match step {
        Step::Write(rows) => {
            let batch = columns(&*store.lookup(&tenant), &metric, writer, rows);
            let outcome = store.write(&tenant, batch).await?;
            assert!(outcome.refused.is_empty(), "nothing is limited");
        }
        Step::Delete(before) => {
            store.delete_before(&tenant, &metric, *before, false).await?;
        }
    }
    Ok(())
}

/// What the program says, a line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The store has acknowledged a writer's step.
    Acked(u32, u64),
    /// A seal or a merge is done.
    Reorganised,
}

impl Said {
    /// Reads a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some((writer, number)) => Some(Self::Acked(writer.parse().ok()?, number.parse().ok()?)),
            None => (line == "reorganised").then_some(Self::Reorganised),
        }
    }
}

/// One line, written at once: a kill leaves whole lines in the pipe.
fn say(said: Said) {
    let line = match said {
        Said::Acked(writer, number) => format!("{writer} {number}\n"),
        Said::Reorganised => "reorganised\n".to_owned(),
    };
    let mut out = std::io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody listens: the one who would have killed us is dead.
        std::process::exit(0);
    }
}

/// A batch as a client would send it: known series by their number, the others described.
fn columns(lookup: &dyn SeriesLookup, metric: &MetricName, writer: u32, rows: &[Row]) -> Batch {
    let mut batch = Batch::new(SeriesLimits::NONE);
    for row in rows {
        let spelling = lookup.hasher().hash(format!("{writer}/{}", row.series).as_bytes());
        let series = match lookup.find(spelling) {
            Some(handle) => RowSeries::Known(handle),
            None => {
                let (writer, series) = (writer.to_string(), row.series.to_string());
                let pairs = [("writer", writer.as_str()), ("series", series.as_str())];
                let dimensions =
                    Dimensions::new(pairs, &DimensionLimits::default()).expect("valid dimensions");
                batch.describe(NewSeries { metric: metric.clone(), dimensions, spelling: Some(spelling) })
            }
        };
        batch.push(series, row.time, row.value);
    }
    batch
}

/// Seals and merges at random moments.
async fn reorganise(store: &RocksDb, noise: u64) {
    let mut random = fastrand::Rng::with_seed(noise);
    loop {
        tokio::time::sleep(Duration::from_millis(random.u64(2..120))).await;
        let result = if random.u8(..3) == 0 { store.merge().await } else { store.seal().await };
        match result {
            Ok(()) => say(Said::Reorganised),
            Err(error) => give_up(&error),
        }
    }
}
