//! Random writes and questions over the engine and over the model, for as long as one likes: each seed is
//! a fresh store, with seals, merges and restarts among the questions.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use luminate_storage::clock::ManualClock;
use luminate_storage::contract::{Backend, Subject};
use luminate_storage::differential;
use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};
use luminate_storage::store::{MetricsStore, Result, StoreError};
use tempfile::TempDir;

/// Compares the engine with the model.
#[derive(Debug, Parser)]
struct Arguments {
    /// Questions to ask.
    #[arg(long, default_value_t = 1_000_000)]
    questions: u64,
    /// The first seed; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps from one seed, questions and changes together.
    #[arg(long, default_value_t = 2_000)]
    steps: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut seed = arguments.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let (mut asked, mut rows) = (0, 0);
    while asked < arguments.questions {
        match runtime.block_on(differential::run(seed, arguments.steps, &Engine)) {
            Ok(report) => {
                asked += report.questions();
                rows += report.rows;
                println!(
                    "seed {seed}: {asked} of {} questions, {rows} rows compared, none differ",
                    arguments.questions
                );
            }
            Err(difference) => {
                println!("{difference}");
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    ExitCode::SUCCESS
}

/// Opens engines in directories of their own.
struct Engine;

#[async_trait]
impl Backend for Engine {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        let directory = tempfile::tempdir().map_err(StoreError::internal)?;
        let options = options(&directory.path().join("data"), clock, default_retention);
        let store = Some(RocksDb::open(options.clone())?);
        Ok(Box::new(Embedded { store, options, settled: 0, _directory: directory }))
    }
}

/// Seals and merges happen only when they are told to, so that a seed's run is the same each time.
fn options(path: &Path, clock: Arc<ManualClock>, default_retention: i64) -> Options {
    Options {
        path: path.to_owned(),
        ack: Ack::Durable,
        memory: 512 << 20,
        threads: 2,
        default_retention,
        retention_check: Duration::from_secs(3_600),
        seal_window: Duration::from_secs(86_400),
        log_cap: 1 << 30,
        clock,
    }
}

struct Embedded {
    /// Absent only while it is being opened again.
    store: Option<RocksDb>,
    options: Options,
    settled: u32,
    _directory: TempDir,
}

impl Embedded {
    fn open(&self) -> &RocksDb {
        self.store.as_ref().expect("open but during a restart")
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
        // Every third time the layers stay apart, so that questions meet several of them.
        if self.settled.is_multiple_of(3) { self.open().merge().await } else { Ok(()) }
    }

    async fn restart(&mut self) -> Result<()> {
        self.open().close().await?;
        self.store = None;
        self.store = Some(RocksDb::open(self.options.clone())?);
        Ok(())
    }
}
