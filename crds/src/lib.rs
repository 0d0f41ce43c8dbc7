//! The contract between a user, the operator and the worker: types only.
//!
//! [`worker_config`] is the file that configures a worker: written by hand or rendered by the operator,
//! read by `luminate-worker`. Both sides use these types, so they can't disagree.

pub mod worker_config;
