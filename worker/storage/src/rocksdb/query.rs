//! Queries over a catalogue of series and a scan of their samples; names neither RocksDB nor the index.

mod catalog;

pub use catalog::{Catalog, Grouping, Selected};
