//! ClickHouse: workers without state of their own over tables that they share.
//!
//! [`client`] speaks to the server, [`schema`] makes the tables.

pub mod accepted;
pub mod changes;
pub mod client;
pub mod failure;
pub mod listing;
pub mod options;
pub mod query;
pub mod running;
pub mod schema;
