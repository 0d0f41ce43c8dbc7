//! Stores for the suites that run over any of them: the contract and the random comparison with the model.
//!
//! A [`Home`] is where a store's data lie, over any number of restarts. A store is reached from it in one
//! of two ways: [`Direct`], through the storage trait, or [`ThroughHttp`], through a worker and its API,
//! which [`http`] describes.

pub mod embedded;
pub mod http;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use luminate_crds::worker_config;
use luminate_storage::clock::ManualClock;
use luminate_storage::contract::{Backend, Subject};
use luminate_storage::store::{MetricsStore, Result, StoreError};

pub use http::ThroughHttp;

/// How long a store, or a worker over one, may take until it serves.
const START: Duration = Duration::from_secs(60);

/// Which backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The embedded engine.
    RocksDb,
    /// ClickHouse at this address.
    ClickHouse(String),
}

impl Kind {
    /// Its name in configurations and answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RocksDb => "rocksdb",
            Self::ClickHouse(_) => "clickhouse",
        }
    }

    /// Its name in a worker's configuration.
    #[must_use]
    pub fn configured(&self) -> worker_config::Backend {
        match self {
            Self::RocksDb => worker_config::Backend::RocksDb,
            Self::ClickHouse(_) => worker_config::Backend::ClickHouse,
        }
    }

    /// A home without data.
    ///
    /// # Errors
    /// A directory that can't be made.
    pub fn home(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Arc<dyn Home>> {
        match self {
            Self::RocksDb => Ok(Arc::new(embedded::Directory::new(clock, default_retention)?)),
            Self::ClickHouse(url) => Ok(Arc::new(server::OnServer::new(url, clock, default_retention))),
        }
    }
}

/// Where a store's data lie. One store is open over them at a time.
#[async_trait]
pub trait Home: Send + Sync {
    /// Opens the store, or begins to; blocks, inside of a runtime.
    ///
    /// # Errors
    /// What the store says.
    fn open(&self) -> Result<Arc<dyn MetricsStore>>;

    /// Moves samples on through the inside of the store that is open.
    ///
    /// # Errors
    /// What the store says.
    async fn settle(&self) -> Result<()>;

    /// Lets go of the store that was open and has been closed.
    fn leave(&self);
}

/// Opens stores that are called by the trait's methods.
#[derive(Debug, Clone)]
pub struct Direct(pub Kind);

#[async_trait]
impl Backend for Direct {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        let home = self.0.home(clock, default_retention)?;
        let store = Some(opened(&*home).await?);
        Ok(Box::new(Called { store, home }))
    }
}

/// Opens the store and waits until it is.
async fn opened(home: &dyn Home) -> Result<Arc<dyn MetricsStore>> {
    let store = home.open()?;
    let started = Instant::now();
    loop {
        let health = store.health().await;
        if health.healthy() {
            return Ok(store);
        }
        if started.elapsed() > START {
            return Err(StoreError::internal(format!("the store doesn't open: {health:?}")));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

struct Called {
    /// Absent only while it is being opened again.
    store: Option<Arc<dyn MetricsStore>>,
    home: Arc<dyn Home>,
}

#[async_trait]
impl Subject for Called {
    fn store(&self) -> &dyn MetricsStore {
        self.store.as_deref().expect("open but during a restart")
    }

    async fn settle(&mut self) -> Result<()> {
        self.home.settle().await
    }

    async fn restart(&mut self) -> Result<()> {
        self.store().close().await?;
        self.store = None;
        self.home.leave();
        self.store = Some(opened(&*self.home).await?);
        Ok(())
    }
}
