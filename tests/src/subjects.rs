//! Stores for the suites that run over any of them: the contract and the random comparison with the model.
//!
//! A [`Home`] is where a store's data lie, over any number of restarts. A store is reached from it in one
//! of two ways: [`Direct`], through the storage trait, or [`ThroughHttp`], through a worker and its API,
//! which [`http`] describes.

pub mod embedded;
pub mod http;

use std::sync::Arc;

use async_trait::async_trait;
use luminate_crds::worker_config;
use luminate_storage::clock::ManualClock;
use luminate_storage::contract::{Backend, Subject};
use luminate_storage::store::{MetricsStore, Result};

pub use http::ThroughHttp;

/// Which backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The embedded engine.
    RocksDb,
}

impl Kind {
    /// Its name in configurations and answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RocksDb => "rocksdb",
        }
    }

    /// Its name in a worker's configuration.
    #[must_use]
    pub fn configured(&self) -> worker_config::Backend {
        match self {
            Self::RocksDb => worker_config::Backend::RocksDb,
        }
    }

    /// A home without data.
    ///
    /// # Errors
    /// A directory that can't be made.
    pub fn home(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Arc<dyn Home>> {
        match self {
            Self::RocksDb => Ok(Arc::new(embedded::Directory::new(clock, default_retention)?)),
        }
    }
}

/// Where a store's data lie. One store is open over them at a time.
#[async_trait]
pub trait Home: Send + Sync {
    /// Opens the store; blocks, inside of a runtime.
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
        let store = Some(home.open()?);
        Ok(Box::new(Called { store, home }))
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
        self.store = Some(self.home.open()?);
        Ok(())
    }
}
