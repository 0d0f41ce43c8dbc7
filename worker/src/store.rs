//! Opening the store that the configuration names.

use std::sync::Arc;

use luminate_crds::worker_config::{Ack, Backend, WorkerConfig};
use luminate_storage::clock::Clock;
use luminate_storage::store::{MetricsStore, Result, StoreError};

/// Opens the store; blocks until its log is replayed. ClickHouse is opened in the background.
///
/// # Errors
/// What the backend says; `Internal` for one that this program was built without.
pub fn open(config: &WorkerConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    match config.storage.backend {
        Backend::RocksDb => rocksdb(config, clock),
        Backend::ClickHouse => clickhouse(config, clock),
    }
}

fn clickhouse(config: &WorkerConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    use luminate_storage::clickhouse::{ClickHouse, Options};

    let settings = config.storage.clickhouse.clone();
    let count = |number: u32| number as usize;
    let store = ClickHouse::open(Options {
        endpoints: settings.endpoints,
        database: settings.database,
        username: settings.username,
        password: settings.password.map(|password| password.expose().to_owned()),
        cluster: settings.cluster,
        ca_file: settings.ca_file,
        fsync: settings.ack == Ack::Durable,
        linger: settings.linger.duration(),
        max_batch_rows: usize::try_from(settings.max_batch_rows).unwrap_or(usize::MAX),
        max_queue_bytes: settings.max_queue_bytes.bytes(),
        pool_size: count(settings.pool_size),
        connect_timeout: settings.connect_timeout.duration(),
        insert_timeout: settings.insert_timeout.duration(),
        query_threads: settings.query_threads.map(count),
        default_retention: config.retention.default.millis(),
        retention_check: config.retention.check_interval.duration(),
        refresh: settings.refresh.duration(),
        clock,
    })?;
    Ok(Arc::new(store))
}

#[cfg(feature = "rocksdb")]
fn rocksdb(config: &WorkerConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    use luminate_storage::rocksdb::engine::{self, Options, RocksDb};

    use crate::allocator::Allocator;

    let settings = &config.storage.rocksdb;
    let unknown = || StoreError::internal("memory and threads are filled in when the configuration is read");
    let store = RocksDb::open(Options {
        path: settings.path.clone(),
        ack: match settings.ack {
            Ack::Durable => engine::Ack::Durable,
            Ack::Buffered => engine::Ack::Buffered,
        },
        memory: settings.memory.ok_or_else(unknown)?.bytes(),
        threads: settings.threads.ok_or_else(unknown)? as usize,
        heavy_samples: config.query_limits.heavy_samples,
        resident: Some(Arc::new(Allocator)),
        default_retention: config.retention.default.millis(),
        retention_check: config.retention.check_interval.duration(),
        seal_window: settings.seal_window.duration(),
        log_cap: settings.log_cap.bytes(),
        backups: settings.backup_path.clone(),
        clock,
    })?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_: &WorkerConfig, _: Arc<dyn Clock>) -> Result<Arc<dyn MetricsStore>> {
    Err(StoreError::internal("this program was built without RocksDB"))
}
