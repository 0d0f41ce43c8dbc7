//! Opening the store that the configuration names.

use std::sync::Arc;

use luminate_crds::worker_config::{Backend, WorkerConfig};
use luminate_storage::clock::Clock;
use luminate_storage::store::{MetricsStore, Result, StoreError};

/// Opens the store; blocks until its log is replayed.
///
/// # Errors
/// What the backend says; `Internal` for one that this program was built without.
pub fn open(config: &WorkerConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    match config.storage.backend {
        Backend::RocksDb => rocksdb(config, clock),
        Backend::ClickHouse => {
            Err(StoreError::internal("this version of the worker has no ClickHouse backend"))
        }
    }
}

#[cfg(feature = "rocksdb")]
fn rocksdb(config: &WorkerConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    use luminate_crds::worker_config::Ack as Configured;
    use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};

    let settings = &config.storage.rocksdb;
    let unknown = || StoreError::internal("memory and threads are filled in when the configuration is read");
    let store = RocksDb::open(Options {
        path: settings.path.clone(),
        ack: match settings.ack {
            Configured::Durable => Ack::Durable,
            Configured::Buffered => Ack::Buffered,
        },
        memory: settings.memory.ok_or_else(unknown)?.bytes(),
        threads: settings.threads.ok_or_else(unknown)? as usize,
        default_retention: config.retention.default.millis(),
        retention_check: config.retention.check_interval.duration(),
        seal_window: settings.seal_window.duration(),
        log_cap: settings.log_cap.bytes(),
        clock,
    })?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_: &WorkerConfig, _: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    Err(StoreError::internal("this program was built without RocksDB"))
}
