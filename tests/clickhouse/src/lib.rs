//! ClickHouse over HTTP.

pub mod auth;
pub mod cluster;
pub mod compression;
pub mod engine;
pub mod exception;
pub mod form;
pub mod format;
pub mod lexer;
pub mod outlet;
pub mod processes;
pub mod query;
pub mod request;
pub mod serve;
pub mod server;
pub mod session;
pub mod socket;
pub mod statement;
