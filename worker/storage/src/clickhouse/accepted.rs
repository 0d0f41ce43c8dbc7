//! How many samples each tenant has written on a day: counted here, and told to the others now and then.
//!
//! A worker's rows carry all that it has accepted on the day so far, so that writing one twice changes
//! nothing. What it counted since the last row is lost when it is killed: a figure for people, no limit.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::client::{Answered, Database};
use crate::model::Tenant;

/// What this worker has accepted.
#[derive(Debug)]
pub struct Accepted {
    /// This worker, named at random at its start.
    worker: String,
    counts: Mutex<HashMap<(Tenant, i64), Count>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    samples: u64,
    /// How many of them the others know of.
    told: u64,
}

impl Accepted {
    /// Nothing yet, for the worker called `worker`.
    #[must_use]
    pub fn new(worker: String) -> Self {
        Self { worker, counts: Mutex::default() }
    }

    /// This worker's name.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Counts `samples` of `tenant` accepted on `day` (days since the epoch).
    pub fn add(&self, tenant: &Tenant, day: i64, samples: u64) {
        if samples > 0 {
            self.counts.lock().entry((tenant.clone(), day)).or_default().samples += samples;
        }
    }

    /// What this worker has accepted of `tenant` on `day`.
    #[must_use]
    pub fn of(&self, tenant: &Tenant, day: i64) -> u64 {
        self.counts.lock().get(&(tenant.clone(), day)).map_or(0, |count| count.samples)
    }

    /// Tells the others, and forgets days before `day` that they know of.
    ///
    /// # Errors
    /// What the server says; then the next call tells it.
    pub async fn tell(&self, database: &Database, day: i64) -> Answered<()> {
        let news: Vec<((Tenant, i64), u64)> = {
            let counts = self.counts.lock();
            let untold = counts.iter().filter(|(_, count)| count.told < count.samples);
            untold.map(|(of, count)| (of.clone(), count.samples)).collect()
        };
        if news.is_empty() {
            return Ok(());
        }
        let tenants: Vec<String> = news.iter().map(|((tenant, _), _)| tenant.as_str().to_owned()).collect();
        let days: Vec<i32> =
            news.iter().map(|((_, day), _)| i32::try_from(*day).unwrap_or_default()).collect();
        let samples: Vec<u64> = news.iter().map(|(_, samples)| *samples).collect();
        database
            .statement(include_str!("sql/tell_accepted.sql"))
            .param("tenants", tenants)
            .param("days", days)
            .param("samples", samples)
            .param("worker", self.worker.clone())
            .execute()
            .await?;
        let mut counts = self.counts.lock();
        for (of, samples) in news {
            counts.entry(of).or_default().told = samples;
        }
        counts.retain(|(_, own), count| *own >= day || count.told < count.samples);
        Ok(())
    }
}
