//! What Luminate's black-box tests, fault harnesses, demo and benchmarks share.
//!
//! A test reads: start a [`worker::Worker`], speak to it as a [`client::Client`], look at the
//! [`http::Response`]. Everything goes through the real binary and its HTTP API. The suites that run over
//! any store get theirs from [`subjects`].

pub mod bench;
pub mod clickhouse;
pub mod client;
pub mod crash;
pub mod fault_proxy;
pub mod faults;
pub mod hostile;
pub mod http;
pub mod http2;
pub mod io_faults;
pub mod ledger;
pub mod neighbour;
pub mod otlp;
pub mod process;
pub mod python;
pub mod remote_write;
pub mod rot;
pub mod routes;
pub mod soak;
pub mod subjects;
pub mod token;
pub mod worker;
