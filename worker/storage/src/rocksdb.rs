//! The embedded engine: an index in memory, a log of its own, a head, and pages in RocksDB.
//!
//! Only the modules behind the feature `rocksdb` know RocksDB; the others are formats and algorithms.

pub mod codec;
pub mod head;
pub mod index;
pub mod log;
pub mod page;
pub mod paged;
pub mod query;
pub mod record;
pub mod scan;
pub mod summary;

#[cfg(feature = "rocksdb")]
pub mod backup;
#[cfg(feature = "rocksdb")]
pub mod check;
#[cfg(feature = "rocksdb")]
mod commit;
#[cfg(feature = "rocksdb")]
pub mod engine;
#[cfg(feature = "rocksdb")]
mod layer;
#[cfg(feature = "rocksdb")]
mod merge;
#[cfg(feature = "rocksdb")]
mod reader;
#[cfg(feature = "rocksdb")]
mod seal;
#[cfg(feature = "rocksdb")]
mod tables;
