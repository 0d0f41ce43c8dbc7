//! ClickHouse: a database of its own on a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use luminate_storage::clickhouse::client::Database;
use luminate_storage::clickhouse::{ClickHouse, Options};
use luminate_storage::clock::ManualClock;
use luminate_storage::store::{MetricsStore, Result, StoreError};

use super::Home;
use crate::clickhouse::fresh_database;

/// How long anything of the server's may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A database that is made by the first store over it and removed at the end.
pub struct OnServer {
    options: Options,
}

impl OnServer {
    /// One that doesn't exist yet, on the server at `url`.
    #[must_use]
    pub fn new(url: &str, clock: Arc<ManualClock>, default_retention: i64) -> Self {
        Self { options: Options::quick(url, &fresh_database(), clock, default_retention) }
    }

    async fn statement(&self, sql: String) -> Result<()> {
        let database = Database::new(&self.options).map_err(StoreError::internal)?;
        Ok(database.statement(sql).within(PATIENCE).execute().await?)
    }
}

#[async_trait]
impl Home for OnServer {
    fn open(&self) -> Result<Arc<dyn MetricsStore>> {
        Ok(Arc::new(ClickHouse::open(self.options.clone())?))
    }

    async fn settle(&self) -> Result<()> {
        for table in ["samples", "series"] {
            self.statement(format!("OPTIMIZE TABLE {table} FINAL")).await?;
        }
        Ok(())
    }

    fn leave(&self) {}
}

impl Drop for OnServer {
    /// Hundreds of databases would slow the server down.
    fn drop(&mut self) {
        let options = self.options.clone();
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let database = Database::new(&options).map_err(std::io::Error::other)?;
            let drop = format!("DROP DATABASE IF EXISTS {}", options.database);
            let done = runtime.block_on(database.statement(drop).outside().within(PATIENCE).execute());
            done.map_err(|failure| std::io::Error::other(failure.to_string()))
        });
        // A database that stays is in nobody's way.
        let _ = removed.join();
    }
}
