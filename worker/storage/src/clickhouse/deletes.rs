//! Removing samples: what somebody deletes, and what has expired.
//!
//! Both are lightweight deletes, which take the rows that are there when they begin and none that is
//! inserted later: what was accepted after a delete stays.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use super::changes::Changes;
use super::client::{Answered, Database, SCHEMA, Statement};
use super::schema::Dialect;
use super::series::days::day_of;
use crate::model::{MetricName, Tenant};

/// How long the rows of an expired day are kept beyond it: longer than any clock is wrong.
const GRACE: i64 = 600_000;
/// How long the one worker that sweeps may take.
const LEASE: Duration = Duration::from_secs(600);

/// What deletes from the tables.
#[derive(Debug)]
pub struct Deletes {
    database: Database,
    /// How tables are named.
    dialect: Dialect,
}

impl Deletes {
    /// Deletes in `database`, whose tables are named by `dialect`.
    #[must_use]
    pub fn new(database: Database, dialect: Dialect) -> Self {
        Self { database, dialect }
    }

    /// Deletes a metric's samples before `before` (all without) that are there when the generation is
    /// raised, and the series of whole days of them.
    ///
    /// # Errors
    /// What the server says: then some may be gone, and the same call again completes it.
    pub async fn before(
        &self,
        changes: &Changes,
        tenant: &Tenant,
        metric: &MetricName,
        before: Option<i64>,
    ) -> Answered<()> {
        // 1. From now on workers resolve writes anew. IO.
        let generation = changes.raise(tenant).await?;
        // 2. Until each of them has heard of it.
        tokio::time::sleep(changes.settled()).await;
        // 3. The samples, and the series rows that older generations have left. IO.
        let bound = |sql| self.statement(sql, tenant).param("metric", metric.as_str().to_owned());
        let end = before.unwrap_or(i64::MAX);
        bound(include_str!("sql/delete_samples.sql")).param("before", end).execute().await?;
        // A day that begins before `before` but ends after it keeps its series.
        let day = before.map_or(i32::MAX, day_of);
        let series = bound(include_str!("sql/delete_series.sql")).param("day", day);
        series.param("generation", generation).execute().await
    }

    /// Removes what has expired for everybody: whole days at once where nobody keeps them, else by tenant.
    ///
    /// # Errors
    /// What the server says; the next sweep goes on.
    pub async fn sweep(&self, changes: &Changes, default: i64, now: i64) -> Answered<()> {
        let own = changes.retentions();
        // 1. Days that are past the longest retention of all. IO.
        let longest = own
            .iter()
            .flat_map(|(_, retention)| retention.metrics.values().copied().chain([retention.default]));
        let longest = longest.chain([default]).max().unwrap_or(default);
        self.drop_days(day_of(expired(now, longest))).await?;
        // 2. Tenants that have said nothing. IO.
        let names: Vec<String> = own.iter().map(|(tenant, _)| tenant.as_str().to_owned()).collect();
        if longest > default {
            self.expire("NOT IN", names, "NOT IN", Vec::new(), expired(now, default)).await?;
        }
        // 3. Those that have. IO.
        for (tenant, retention) in own {
            let tenant = vec![tenant.as_str().to_owned()];
            let metrics: Vec<String> =
                retention.metrics.keys().map(|name| name.as_str().to_owned()).collect();
            if retention.default < longest {
                let end = expired(now, retention.default);
                self.expire("IN", tenant.clone(), "NOT IN", metrics, end).await?;
            }
            for (metric, millis) in retention.metrics.iter().filter(|(_, millis)| **millis < longest) {
                let metric = vec![metric.as_str().to_owned()];
                self.expire("IN", tenant.clone(), "IN", metric, expired(now, *millis)).await?;
            }
        }
        Ok(())
    }

    /// Drops the partitions of the days before `day`.
    async fn drop_days(&self, day: i32) -> Answered<()> {
        for table in ["samples", "series"].map(|name| self.dialect.local(name)) {
            let days = self.database.statement(include_str!("sql/old_partitions.sql"));
            let days = days.param("table", table.clone()).param("day", day).rows::<Partition>().await?;
            for Partition { partition } in days {
                // A partition's name is eight digits, and can't be bound.
                let on_cluster = self.dialect.on_cluster();
                let drop = format!("ALTER TABLE {table} {on_cluster} DROP PARTITION {partition}");
                self.database.statement(drop).within(SCHEMA).execute().await?;
                tracing::info!(table, partition, "dropped an expired day");
            }
        }
        Ok(())
    }

    /// Deletes what these tenants have before `end` of these metrics, where there is anything.
    async fn expire(
        &self,
        of_tenants: &str,
        tenants: Vec<String>,
        of_metrics: &str,
        metrics: Vec<String>,
        end: i64,
    ) -> Answered<()> {
        let day = day_of(end);
        let fill = |sql: &str| sql.replace("@OF_TENANTS@", of_tenants).replace("@OF_METRICS@", of_metrics);
        let bound = |sql: &str| {
            let statement = self.database.statement(self.dialect.fill(&fill(sql)));
            statement.param("tenants", tenants.clone()).param("metrics", metrics.clone()).param("day", day)
        };
        if bound(include_str!("sql/count_expired.sql")).row::<u64>().await? == 0 {
            return Ok(());
        }
        for sql in [include_str!("sql/expire_samples.sql"), include_str!("sql/expire_series.sql")] {
            synchronous(bound(sql)).execute().await?;
        }
        Ok(())
    }

    /// Whether this worker is the one that sweeps now, as `worker`.
    ///
    /// Two may both believe it when they ask at the same moment; sweeping twice does no harm.
    ///
    /// # Errors
    /// What the server says.
    pub async fn lease(&self, worker: &str, now: i64) -> Answered<bool> {
        if let Some(holder) = self.holder(now).await? {
            return Ok(holder == worker);
        }
        let lease = self.database.statement(include_str!("sql/take_lease.sql")).param("task", "sweep");
        let until = now.saturating_add(i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX));
        lease.param("worker", worker.to_owned()).param("until", until).execute().await?;
        Ok(self.holder(now).await?.as_deref() == Some(worker))
    }

    async fn holder(&self, now: i64) -> Answered<Option<String>> {
        let holder = self.database.statement(include_str!("sql/lease_holder.sql"));
        let holder = holder.param("task", "sweep").param("now", now).rows::<String>().await?;
        Ok(holder.into_iter().next())
    }

    fn statement(&self, sql: &str, tenant: &Tenant) -> Statement {
        let statement = self.database.statement(self.dialect.fill(sql));
        synchronous(statement).param("tenant", tenant.as_str().to_owned())
    }
}

#[derive(Debug, Row, Deserialize)]
struct Partition {
    partition: String,
}

/// A delete that returns when every replica has done it.
fn synchronous(statement: Statement) -> Statement {
    statement.setting("lightweight_deletes_sync", 2).setting("mutations_sync", 2).within(SCHEMA)
}

/// The end of what has expired for good under a retention of `millis`.
fn expired(now: i64, millis: i64) -> i64 {
    now.saturating_sub(millis).saturating_sub(GRACE)
}
