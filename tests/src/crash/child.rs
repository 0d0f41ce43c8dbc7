//! The program that is killed: writes, and says which batches were acknowledged.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use luminate_storage::clock::ManualClock;
use luminate_storage::model::{
    Batch, DimensionLimits, Dimensions, MetricName, NewSeries, RowSeries, SeriesLimits, Tenant,
};
use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};
use luminate_storage::store::{ErrorKind, MetricsStore, SeriesLookup};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::ledger::{self, BEGIN, Row};

const YEAR: i64 = 365 * 86_400_000;

/// What the program is told, as its one argument.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The store's directory.
    pub path: PathBuf,
    /// The ledger's seed.
    pub seed: u64,
    /// For each writer its first batch.
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
        seal_window: Duration::from_secs(3_600),
        log_cap: 256 << 10,
        clock: Arc::new(ManualClock::new(BEGIN)),
    }
}

/// Where a writer's samples are: tenant and metric; its series carry its number as a dimension.
///
/// # Panics
/// Never: the names are valid.
#[must_use]
pub fn place(writer: u32) -> (Tenant, MetricName) {
    let tenant = Tenant::new(&format!("tenant-{}", writer % 2)).expect("a valid tenant");
    (tenant, MetricName::new(&format!("crash_m{}", writer % 3)).expect("a valid name"))
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
    let (tenant, metric) = place(writer);
    let mut random = fastrand::Rng::with_seed(orders.noise ^ u64::from(writer));
    let lookup = store.lookup(&tenant);
    for number in start.. {
        let rows = ledger::batch(orders.seed, writer, number);
        if orders.ack_early {
            acknowledge(writer, number);
        }
        loop {
            match store.write(&tenant, columns(&*lookup, &metric, writer, &rows)).await {
                Ok(outcome) => {
                    assert!(outcome.refused.is_empty(), "nothing is limited");
                    break;
                }
                Err(error) if matches!(error.kind, ErrorKind::Overloaded { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => give_up(&error),
            }
        }
        if !orders.ack_early {
            acknowledge(writer, number);
        }
        if random.u8(..4) == 0 {
            tokio::time::sleep(Duration::from_micros(random.u64(..8_000))).await;
        }
    }
}

/// One line, written at once: a kill leaves whole lines in the pipe.
fn acknowledge(writer: u32, number: u64) {
    let line = format!("{writer} {number}\n");
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
        if let Err(error) = result {
            give_up(&error);
        }
    }
}
