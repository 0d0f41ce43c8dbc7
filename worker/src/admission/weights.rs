//! What queries of late have weighed, so that a store which can't tell needn't be asked again.

use std::hash::{DefaultHasher, Hash, Hasher};

use luminate_storage::model::{Query, Tenant};
use parking_lot::Mutex;

/// Queries that are remembered; another one takes the place of one that it meets.
const PLACES: usize = 4_096;

/// Weights of queries, by what makes them alike: whose, which series, and how long a range, about.
#[derive(Debug)]
pub(super) struct Weights(Mutex<Vec<Option<(u64, u64)>>>);

impl Default for Weights {
    fn default() -> Self {
        Self(Mutex::new(vec![None; PLACES]))
    }
}

impl Weights {
    /// What one like `query` has weighed.
    pub(super) fn of(&self, tenant: &Tenant, query: &Query) -> Option<u64> {
        let like = likeness(tenant, query);
        self.0.lock()[place(like)].filter(|(own, _)| *own == like).map(|(_, weight)| weight)
    }

    /// `query` weighs so much.
    pub(super) fn note(&self, tenant: &Tenant, query: &Query, weight: u64) {
        let like = likeness(tenant, query);
        self.0.lock()[place(like)] = Some((like, weight));
    }
}

fn place(like: u64) -> usize {
    (like % PLACES as u64) as usize
}

fn likeness(tenant: &Tenant, query: &Query) -> u64 {
    let selector = query.selector();
    let mut hasher = DefaultHasher::new();
    (tenant.as_str(), selector.metric.as_str()).hash(&mut hasher);
    for (key, value) in &selector.filters {
        (key.as_str(), value.as_ref() as &str).hash(&mut hasher);
    }
    for (key, values) in &selector.filters_in {
        (key.as_str(), values).hash(&mut hasher);
    }
    query.range().millis().max(1).ilog2().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use luminate_storage::model::{Having, MetricName, RangeQuery, Selector, TimeRange};

    use super::*;

    fn query(metric: &str, millis: i64) -> Query {
        let selector = Selector::new(MetricName::new(metric).unwrap(), Vec::new());
        Query::Range(RangeQuery {
            selector,
            range: TimeRange::new(7, 7 + millis).unwrap(),
            having: Having::ANY,
            limit: 1,
        })
    }

    #[test]
    fn one_alike_is_known_and_others_are_not() {
        let weights = Weights::default();
        let [one, two] = ["one", "two"].map(|name| Tenant::new(name).unwrap());
        weights.note(&one, &query("m", 3_600_000), 42);
        assert_eq!(weights.of(&one, &query("m", 3_500_000)), Some(42));
        assert_eq!(weights.of(&one, &query("m", 86_400_000)), None);
        assert_eq!(weights.of(&one, &query("n", 3_600_000)), None);
        assert_eq!(weights.of(&two, &query("m", 3_600_000)), None);
    }
}
