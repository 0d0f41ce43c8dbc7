//! Luminate's storage: plain values, one trait, and the backends behind it.
//!
//! # A batch
//! A route's decoder turns bytes into a columnar [`model::Batch`]: a series that the store knows
//! costs one hash of its raw bytes ([`store::SeriesLookup`]), a new one is parsed and described.
//! [`store::MetricsStore::write`] resolves the described ones against the index, hands the columns to
//! the committer, which writes every waiting batch as one log record, syncs it, applies it to the
//! head and wakes the callers.
//!
//! # Where things are
//! [`model`] values with invariants · [`store`] the trait · [`memory`] the plainest correct
//! implementation, which defines every answer · [`contract`] the suite that every implementation
//! passes · [`differential`] random work over a store and the model, whose answers must agree ·
//! [`observed`] the wrapper that adds deadlines, cancelling and metrics · `rocksdb` the embedded engine.

pub mod clickhouse;
pub mod clock;
pub mod contract;
pub mod differential;
mod export;
#[cfg(test)]
mod faulty;
pub mod memory;
pub mod memory_pool;
pub mod model;
pub mod observed;
mod plan;
pub mod resident;
pub mod rocksdb;
pub mod store;
