//! The queries that run in the installation, whichever worker asked: by their ids on the server.
//!
//! An id is `{tenant}:{the query's own}:{a random number}`: no tenant's name has a colon, and a query
//! that is asked again while its first try still ends has another number.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use super::client::Database;
use super::schema::{Dialect, quoted};
use crate::model::Tenant;
use crate::store::{QueryContext, Result, RunningQuery};

/// The id on the server of a query of `tenant`.
#[must_use]
pub fn query_id(tenant: &Tenant, context: &QueryContext) -> String {
    format!("{tenant}:{}:{:016x}", context.id, fastrand::u64(..))
}

/// What stops the queries whose ids begin with the parameter `prefix`.
#[must_use]
pub fn kill_text(dialect: &Dialect) -> String {
    include_str!("sql/kill.sql").replace("@ON_CLUSTER@", &dialect.on_cluster())
}

/// Where the running queries are listed.
fn processes(dialect: &Dialect) -> String {
    match &dialect.cluster {
        Some(cluster) => format!("clusterAllReplicas({}, system.processes)", quoted(cluster, '\'')),
        None => "system.processes".to_owned(),
    }
}

#[derive(Debug, Row, Deserialize)]
struct Process {
    id: String,
    elapsed: f64,
    scanned: u64,
}

/// Queries of `tenant` that run, oldest first.
///
/// # Errors
/// `Unavailable`, `Internal`.
pub async fn running_queries(
    database: &Database,
    dialect: &Dialect,
    tenant: &Tenant,
) -> Result<Vec<RunningQuery>> {
    let text = include_str!("sql/running.sql").replace("@PROCESSES@", &processes(dialect));
    let prefix = format!("{tenant}:");
    let processes: Vec<Process> = database.statement(text).param("prefix", prefix.clone()).rows().await?;
    Ok(processes.into_iter().filter_map(|process| process.read(&prefix)).collect())
}

impl Process {
    fn read(self, prefix: &str) -> Option<RunningQuery> {
        let (id, _) = self.id.strip_prefix(prefix)?.rsplit_once(':')?;
        let age = Duration::try_from_secs_f64(self.elapsed).unwrap_or_default();
        Some(RunningQuery { id: id.to_owned(), age, scanned: self.scanned })
    }
}

/// Stops the query of `tenant` called `id`; whether there is one.
///
/// # Errors
/// `Unavailable`, `Internal`.
pub async fn cancel(database: &Database, dialect: &Dialect, tenant: &Tenant, id: &str) -> Result<bool> {
    let running = running_queries(database, dialect, tenant).await?;
    if !running.iter().any(|query| query.id == id) {
        return Ok(false);
    }
    database.statement(kill_text(dialect)).param("prefix", format!("{tenant}:{id}:")).execute().await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_its_id_and_a_tenant_its_own() {
        let tenant = Tenant::new("acme").unwrap();
        let mut context = QueryContext::with_timeout(Duration::from_secs(1));
        context.id = "a:b".to_owned();
        let process = |id: String| Process { id, elapsed: 1.5, scanned: 7 };
        let id = query_id(&tenant, &context);
        assert_ne!(id, query_id(&tenant, &context));
        let read = process(id.clone()).read("acme:").unwrap();
        assert_eq!((read.id.as_str(), read.age, read.scanned), ("a:b", Duration::from_millis(1_500), 7));
        assert!(process(id).read("acm:").is_none());
    }
}
