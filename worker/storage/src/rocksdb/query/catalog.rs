//! The boundary between which series there are and what queries make of them.

use std::ops::RangeInclusive;

use crate::model::{DimensionKey, Dimensions, GroupKey, Selector};

/// The series that a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The metric's number.
    pub metric: u32,
    /// Numbers of the series, ascending.
    pub ids: Vec<u32>,
}

/// Series by group, without a string: a group is a row of dictionary numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grouping {
    /// The group of each series, by its position among the ids asked for; groups are numbered from
    /// 0 in the contract's order (values in the order of keys, an absent one first).
    pub of: Vec<u32>,
    /// Numbers of the groups' values, `keys` of them per group; opaque to all but the catalogue.
    pub values: Vec<u32>,
    /// Grouped keys.
    pub keys: usize,
    /// How many groups there are, ≥ 1 where there is a series.
    pub groups: usize,
}

/// What a query asks about a tenant's series; never looks at samples.
pub trait Catalog: Sync {
    /// The series meant by `selector` that are present on one of `days` (UTC, since the epoch);
    /// `None` when the metric is unknown.
    fn select(&self, selector: &Selector, days: RangeInclusive<i32>) -> Option<Selected>;

    /// Groups `ids` by `keys` (none: one group).
    fn group(&self, ids: &[u32], keys: &[DimensionKey]) -> Grouping;

    /// The values that name `group` of `grouping`.
    fn group_key(&self, grouping: &Grouping, group: u32) -> GroupKey;

    /// The dimensions of each of `ids`; empty when it is gone since.
    fn dimensions(&self, ids: &[u32]) -> Vec<Dimensions>;

    /// The place of each of `ids` in the contract's order of series: a permutation of `0..ids.len()`.
    fn ranks(&self, ids: &[u32]) -> Vec<u32>;
}
