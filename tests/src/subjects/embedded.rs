//! The embedded engine in a directory of its own.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use luminate_storage::clock::ManualClock;
use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};
use luminate_storage::store::{MetricsStore, Result, StoreError};
use tempfile::TempDir;

use super::Home;

/// A temporary directory with the engine's files.
pub struct Directory {
    options: Options,
    engine: Mutex<Option<Arc<RocksDb>>>,
    settled: AtomicU32,
    _directory: TempDir,
}

impl Directory {
    /// An empty one.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(clock: Arc<ManualClock>, default_retention: i64) -> Result<Self> {
        let directory = tempfile::tempdir().map_err(StoreError::internal)?;
        let options = options(&directory.path().join("data"), clock, default_retention);
        Ok(Self { options, engine: Mutex::default(), settled: AtomicU32::new(0), _directory: directory })
    }

    fn engine(&self) -> Option<Arc<RocksDb>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        heavy_samples: 20_000_000,
        resident: None,
        seal_window: Duration::from_secs(86_400),
        log_cap: 1 << 30,
        backups: None,
        clock,
    }
}

#[async_trait]
impl Home for Directory {
    fn open(&self) -> Result<Arc<dyn MetricsStore>> {
        let engine = Arc::new(RocksDb::open(self.options.clone())?);
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine.clone());
        Ok(engine)
    }

    async fn settle(&self) -> Result<()> {
        let engine = self.engine().ok_or_else(|| StoreError::internal("the engine isn't open"))?;
        engine.seal().await?;
        // Every third time the layers stay apart, so that questions meet several of them.
        let settled = self.settled.fetch_add(1, Ordering::Relaxed) + 1;
        if settled.is_multiple_of(3) { engine.merge().await } else { Ok(()) }
    }

    fn leave(&self) {
        drop(self.engine.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
