//! Black-box tests: the real worker, spoken to over HTTP, an area of the contract a file.

mod admin;
mod auth;
mod backup;
mod bulk;
mod check;
mod configuration;
mod crash;
mod differential;
mod discovery;
mod disk;
mod encodings;
mod exposition;
mod hostile;
mod lifecycle;
mod limits;
mod line_protocol;
mod operate;
mod otlp;
mod overload;
mod query;
mod remote_write;
mod rot;
mod soak;
mod tenants;
mod tls;
mod write;
