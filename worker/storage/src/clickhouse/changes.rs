//! What one worker must know of the others' deletes and retentions, and when.
//!
//! # Generations
//! Each delete and each change of retention adds one to the tenant's *generation*, a sum that every worker
//! reads each [`Options::refresh`]. A write is resolved under a generation: its series rows carry it, and what
//! a worker remembers of a tenant's series holds for one generation only.
//!
//! A delete raises the generation, waits [`Changes::settled`], and then deletes samples, and the series rows of
//! older generations. Before a write is acknowledged, [`Changes::confirm`] makes sure that what this
//! worker knows is younger than that wait, and says which generation holds: where it has changed, the
//! writer puts its series rows in again under the new one. So of a write whose samples land after a delete
//! has removed its series row, the writer hears of the delete before it acknowledges, and no acknowledged
//! sample is left without a series. No clock is compared with another machine's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Row;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::time::Instant;

use super::client::{Answered, Database};
use super::options::Options;
use crate::model::{MetricName, Tenant};
use crate::store::Retention;

/// What is known of the tenants' generations and retentions.
#[derive(Debug)]
pub struct Changes {
    database: Database,
    default: Arc<Retention>,
    refresh: Duration,
    known: RwLock<Known>,
}

#[derive(Debug)]
struct Known {
    /// No later than when the server was asked.
    since: Instant,
    /// Every tenant's generations together.
    total: u64,
    generations: HashMap<Tenant, u64>,
    retentions: HashMap<Tenant, Arc<Retention>>,
}

#[derive(Debug, Row, Deserialize)]
struct RetentionRow {
    tenant: String,
    default_ms: i64,
    names: Vec<String>,
    millis: Vec<i64>,
}

impl Changes {
    /// Reads what holds now.
    ///
    /// # Errors
    /// What the server says.
    pub async fn open(database: Database, options: &Options) -> Answered<Self> {
        let default = Retention { default: options.default_retention, metrics: Default::default() };
        let known = Known {
            since: Instant::now(),
            total: 0,
            generations: HashMap::new(),
            retentions: HashMap::new(),
        };
        let changes = Self {
            database,
            default: Arc::new(default),
            refresh: options.refresh,
            known: RwLock::new(known),
        };
        changes.refresh().await?;
        Ok(changes)
    }

    /// The tenant's generation, as far as known.
    #[must_use]
    pub fn generation(&self, tenant: &Tenant) -> u64 {
        self.known.read().generations.get(tenant).copied().unwrap_or_default()
    }

    /// The tenant's retention, as far as known.
    #[must_use]
    pub fn retention(&self, tenant: &Tenant) -> Arc<Retention> {
        Arc::clone(self.known.read().retentions.get(tenant).unwrap_or(&self.default))
    }

    /// The tenants that have set a retention, with it.
    #[must_use]
    pub fn retentions(&self) -> Vec<(Tenant, Arc<Retention>)> {
        let known = self.known.read();
        known.retentions.iter().map(|(tenant, retention)| (tenant.clone(), Arc::clone(retention))).collect()
    }

    /// How old what is known may be when a write is acknowledged.
    fn bound(&self) -> Duration {
        self.refresh * 2
    }

    /// How long after a change every worker acknowledges only writes that know of it.
    #[must_use]
    pub fn settled(&self) -> Duration {
        self.bound() + self.refresh / 2
    }

    /// Makes sure that what is known is young enough to acknowledge a write.
    ///
    /// # Errors
    /// What the server says: then nothing may be acknowledged.
    pub async fn confirm(&self) -> Answered<()> {
        if self.known.read().since.elapsed() < self.bound() { Ok(()) } else { self.refresh().await }
    }

    /// Asks the server what has changed.
    ///
    /// # Errors
    /// What the server says.
    pub async fn refresh(&self) -> Answered<()> {
        let since = Instant::now();
        let total: u64 = self.database.statement(include_str!("sql/generation_total.sql")).row().await?;
        if self.known.read().total == total {
            self.know(since, |_| ());
            return Ok(());
        }
        let generations = self.database.statement(include_str!("sql/generations.sql"));
        let generations: Vec<(String, u64)> = generations.rows().await?;
        let retentions: Vec<RetentionRow> =
            self.database.statement(include_str!("sql/retentions.sql")).rows().await?;
        self.know(since, |known| {
            known.generations = generations
                .into_iter()
                .filter_map(|(name, generation)| Some((Tenant::new(&name).ok()?, generation)))
                .collect();
            known.total = known.generations.values().sum();
            known.retentions = retentions.into_iter().filter_map(RetentionRow::read).collect();
        });
        Ok(())
    }

    /// Takes over what was read, unless something read later is there already.
    fn know(&self, since: Instant, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.write();
        if since >= known.since {
            change(&mut known);
            known.since = since;
        }
    }

    /// Raises the tenant's generation and returns it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn raise(&self, tenant: &Tenant) -> Answered<u64> {
        let raise = self.database.statement(include_str!("sql/raise_generation.sql"));
        raise.param("tenant", tenant.as_str().to_owned()).execute().await?;
        self.refresh().await?;
        Ok(self.generation(tenant))
    }

    /// Replaces the tenant's retention, for this worker at once and for others when they next look.
    ///
    /// # Errors
    /// What the server says.
    pub async fn set_retention(&self, tenant: &Tenant, retention: &Retention, now: i64) -> Answered<()> {
        let names: Vec<String> = retention.metrics.keys().map(|name| name.as_str().to_owned()).collect();
        let millis: Vec<i64> = retention.metrics.values().copied().collect();
        self.database
            .statement(include_str!("sql/set_retention.sql"))
            .param("tenant", tenant.as_str().to_owned())
            .param("default_ms", retention.default)
            .param("names", names)
            .param("millis", millis)
            .param("now", u64::try_from(now).unwrap_or_default())
            .execute()
            .await?;
        self.raise(tenant).await.map(drop)
    }
}

impl RetentionRow {
    fn read(self) -> Option<(Tenant, Arc<Retention>)> {
        let metrics = self.names.iter().zip(self.millis);
        let metrics = metrics.filter_map(|(name, millis)| Some((MetricName::new(name).ok()?, millis)));
        let retention = Retention { default: self.default_ms, metrics: metrics.collect() };
        Some((Tenant::new(&self.tenant).ok()?, Arc::new(retention)))
    }
}
