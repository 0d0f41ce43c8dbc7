//! What a check says.

use serde::Serialize;

use crate::model::{MetricName, Tenant};
use crate::rocksdb::layer::{DAY, day_start};
use crate::store::StoreError;

/// Lines of damage that a report holds at most: a disk that is all noise has no end of them.
const MOST: usize = 10_000;

/// What a check has found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What is damaged; neighbours of the same tenant, metric and layer are one.
    pub damage: Vec<Damage>,
    /// More of it that isn't listed.
    pub unlisted: u64,
    /// What is unusual and harms nothing.
    pub notes: Vec<String>,
    /// What was read.
    pub counts: Counts,
}

/// What was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Commits of the log that tables don't hold.
    pub log_commits: u64,
    /// Layers.
    pub layers: u64,
    /// Pages.
    pub pages: u64,
    /// Samples in pages.
    pub samples: u64,
    /// Series present on any day.
    pub series: u64,
    /// Bytes of the log, of pages and of summaries.
    pub bytes: u64,
}

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Damage {
    /// Where it lies.
    pub place: String,
    /// Whose it is, where that is known.
    pub tenant: Option<String>,
    /// Of what, where that is known.
    pub metric: Option<String>,
    /// First and last time of the samples concerned, Unix milliseconds, where they are known.
    pub times: Option<(i64, i64)>,
    /// When commits that are lost were accepted: after the first and before the second, where that is known.
    pub accepted: (Option<i64>, Option<i64>),
    /// What is wrong with it.
    pub what: String,
    /// Damaged pages that this stands for, at least 1.
    pub pages: u64,
    /// The layer, by which neighbours are joined.
    #[serde(skip)]
    pub layer: Option<u64>,
}

impl Damage {
    pub(super) fn of(place: &str, error: &StoreError) -> Self {
        Self { place: place.to_owned(), what: error.message.clone(), pages: 1, ..Self::default() }
    }

    pub(super) fn of_tenant(self, tenant: &Tenant) -> Self {
        Self { tenant: Some(tenant.to_string()), ..self }
    }

    pub(super) fn of_metric(self, owner: Option<&(Tenant, MetricName)>) -> Self {
        match owner {
            Some((tenant, name)) => Self { metric: Some(name.to_string()), ..self.of_tenant(tenant) },
            None => self,
        }
    }

    pub(super) fn of_day(self, day: i32) -> Self {
        self.between(day_start(day), day_start(day) + DAY - 1)
    }

    pub(super) fn between(self, first: i64, last: i64) -> Self {
        Self { times: Some((first, last)), ..self }
    }

    pub(super) fn accepted(self, after: Option<i64>, before: Option<i64>) -> Self {
        Self { accepted: (after, before), ..self }
    }

    /// Takes in a neighbour, if it is one.
    fn join(&mut self, other: &Self) -> bool {
        let place = |one: &Self| (one.layer, one.tenant.clone(), one.metric.clone());
        if self.layer.is_none() || place(self) != place(other) {
            return false;
        }
        if let (Some(own), Some(others)) = (self.times, other.times) {
            self.times = Some((own.0.min(others.0), own.1.max(others.1)));
        }
        self.pages += other.pages;
        true
    }
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    pub(super) fn damage(&mut self, damage: Damage) {
        if self.damage.last_mut().is_some_and(|last| last.join(&damage)) {
            return;
        }
        match self.damage.len() < MOST {
            true => self.damage.push(damage),
            false => self.unlisted += 1,
        }
    }
}
