//! What the backend is opened with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;

/// How the backend reaches its server and works there.
#[derive(Clone)]
pub struct Options {
    /// Addresses of the HTTP interface, tried in order.
    pub endpoints: Vec<String>,
    /// The database, created if the user may.
    pub database: String,
    /// The user (none: the server's default).
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The cluster of replicated tables; one server without.
    pub cluster: Option<String>,
    /// Certificates to trust, PEM; the system's without.
    pub ca_file: Option<PathBuf>,
    /// Whether an insert is on stable storage when it is acknowledged; else the cluster's replicas keep it.
    pub fsync: bool,
    /// Shortest time between the starts of two inserts.
    pub linger: Duration,
    /// Most rows of an insert.
    pub max_batch_rows: usize,
    /// Most bytes that wait to be inserted.
    pub max_queue_bytes: u64,
    /// Most queries at once on this worker.
    pub pool_size: usize,
    /// Time to connect to one endpoint.
    pub connect_timeout: Duration,
    /// Time of an insert with all its retries.
    pub insert_timeout: Duration,
    /// Threads of a query on the server.
    pub query_threads: Option<usize>,
    /// Retention of tenants that set none, in milliseconds.
    pub default_retention: i64,
    /// How often expired samples are removed.
    pub retention_check: Duration,
    /// How often a worker looks whether another has deleted or changed retention.
    pub refresh: Duration,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// For tests and harnesses: a store on the one server at `url` that answers as quickly as it can. What a
    /// sync costs is measured elsewhere, and a delete waits until every worker must have refreshed what it knows.
    #[must_use]
    pub fn quick(url: &str, database: &str, clock: Arc<dyn Clock>, default_retention: i64) -> Self {
        Self {
            endpoints: vec![url.to_owned()],
            database: database.to_owned(),
            username: None,
            password: None,
            cluster: None,
            ca_file: None,
            fsync: false,
            linger: Duration::from_millis(1),
            max_batch_rows: 100_000,
            max_queue_bytes: 64_000_000,
            pool_size: 16,
            connect_timeout: Duration::from_secs(2),
            insert_timeout: Duration::from_secs(30),
            query_threads: None,
            default_retention,
            retention_check: Duration::from_secs(3_600),
            refresh: Duration::from_millis(20),
            clock,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (endpoints, database) = (&self.endpoints, &self.database);
        formatter.debug_struct("Options").field("endpoints", endpoints).field("database", database).finish()
    }
}
