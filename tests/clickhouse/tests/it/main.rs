//! The server as its clients see it: the `clickhouse` crate, curl and Python's clickhouse-connect.

mod client;
mod curl;
mod operate;
mod python;
mod server;
