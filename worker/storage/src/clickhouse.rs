//! ClickHouse: workers without state of their own over tables that they share.
//!
//! [`client`] speaks to the server, [`schema`] makes the tables.

pub mod accepted;
pub mod block;
pub mod changes;
pub mod client;
pub mod failure;
pub mod fingerprint;
pub mod options;
pub mod schema;
pub mod series;
pub mod writer;
