//! Luminate's worker: the HTTP server.
//!
//! # A batch
//! [`server`] accepts a connection → the layers of [`app`] → `routes::write` → [`ingest`] turns bytes into
//! a columnar batch (a known series costs one hash of its raw bytes) → [`limits`] →
//! `MetricsStore::write(tenant, batch)` → log, group commit, head → summary → 2xx. Any error → the one
//! match in [`error`].
//!
//! # Where things are
//! [`config`] file and environment → one checked value · [`run`] a worker's life · [`server`] connections, timers, stopping ·
//! [`app`] state and layers · [`routes`] one endpoint a file · [`ingest`] one wire format a file ·
//! [`auth`] and [`tenant`] token → tenant · [`limits`] budgets of tenants and addresses · [`metrics`]
//! every figure's name · `offline` a data folder checked, a backup restored · [`error`] what goes wrong and how it is answered.

pub mod admission;
pub mod allocator;
pub mod app;
pub mod auth;
pub mod body;
pub mod config;
pub mod error;
pub mod framing;
pub mod ingest;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod observe;
#[cfg(feature = "rocksdb")]
pub mod offline;
mod patience;
pub mod routes;
pub mod run;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tenant;
