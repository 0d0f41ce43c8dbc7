//! The contract between a user, the operator and the worker: types only.
//!
//! [`worker_config`] is the file that configures a worker: written by hand or rendered by the operator,
//! read by `luminate-worker`. Both sides use these types, so they can't disagree.
//!
//! `luminate` (feature `resource`) is the custom resource that the operator turns into a running
//! installation, and `condition` what it says about its state.

#[cfg(feature = "resource")]
pub mod condition;
#[cfg(feature = "resource")]
pub mod luminate;
pub mod worker_config;
