//! The embedded engine: an index in memory, a log of its own, a head, and pages in RocksDB.

pub mod codec;
pub mod head;
pub mod index;
pub mod log;
pub mod page;
pub mod query;
pub mod record;
pub mod scan;
pub mod summary;
