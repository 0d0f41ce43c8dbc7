//! The contract and the differential test over the engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use crate::clock::ManualClock;
use crate::contract::{Backend, Subject};
use crate::store::{MetricsStore, Result};

use super::{Ack, Options, RocksDb};

/// An engine in a directory of its own.
struct Embedded {
    /// Absent only while it is being opened again.
    store: Option<RocksDb>,
    options: Options,
    settled: u32,
    _directory: TempDir,
}

impl Embedded {
    fn open(&self) -> &RocksDb {
        self.store.as_ref().unwrap()
    }
}

#[async_trait]
impl Subject for Embedded {
    fn store(&self) -> &dyn MetricsStore {
        self.open()
    }

    async fn settle(&mut self) -> Result<()> {
        self.open().seal().await?;
        self.settled += 1;
        // Every third time the layers stay apart, so that queries meet several of them.
        if self.settled.is_multiple_of(3) { self.open().merge().await } else { Ok(()) }
    }

    async fn restart(&mut self) -> Result<()> {
        self.open().close().await?;
        self.store = None;
        self.store = Some(RocksDb::open(self.options.clone())?);
        Ok(())
    }
}

/// Opens engines that seal and merge only when they are told to.
struct Engine;

#[async_trait]
impl Backend for Engine {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        let directory = tempfile::tempdir().map_err(crate::store::StoreError::internal)?;
        let options = Options {
            path: directory.path().join("data"),
            ack: Ack::Durable,
            memory: 512 << 20,
            threads: 2,
            default_retention,
            retention_check: Duration::from_secs(3_600),
            seal_window: Duration::from_secs(7_200),
            log_cap: 256 << 20,
            clock,
        };
        let store = Some(RocksDb::open(options.clone())?);
        Ok(Box::new(Embedded { store, options, settled: 0, _directory: directory }))
    }
}

crate::contract_tests!(Engine);

/// Steps of a run: about 700 questions between writes, deletes, seals, merges and restarts.
const STEPS: u64 = 1_250;

/// Compares the engine with the model from each of `seeds`; all together ask more than 5,000 questions.
fn compare(seeds: std::ops::Range<u64>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for seed in seeds {
        let report = runtime.block_on(crate::differential::run(seed, STEPS, &Engine));
        let report = report.unwrap_or_else(|difference| panic!("{difference}"));
        assert!(report.questions() >= 625, "{report:?}");
        println!("seed {seed}: {} questions, {} rows compared, none differ", report.questions(), report.rows);
    }
}

#[test]
fn the_engine_and_the_model_agree_on_seeds_0_to_3() {
    compare(0..4);
}

#[test]
fn the_engine_and_the_model_agree_on_seeds_4_to_7() {
    compare(4..8);
}
