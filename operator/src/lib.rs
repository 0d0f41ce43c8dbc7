//! Luminate's operator: a `Luminate` becomes a running installation, and stays one.
//!
//! # The walk of a resource
//! A watch sees a resource, an object that it owns or something that it refers to, and puts the resource into
//! the queue (`controller/watches.rs`). One reconcile is five steps (`controller.rs`):
//!
//! 1. **fetch** (IO): what the resource refers to and what there is of it;
//! 2. **validate** (pure, may refuse): resource and surroundings → `Validated`, or a reason for the status;
//! 3. **build** (pure, can't fail): `Validated` → the objects that should be, one file a kind;
//! 4. **apply** (IO): server-side apply where an owned field differs, deletion of what is no longer wanted;
//! 5. **status** (pure, and one write if it differs): conditions from a closed list of reasons.
//!
//! What is refused waits for a change. What failed is tried again after a pause that doubles.
//!
//! Every write passes a gate (`client.rs`) that is open only while this process holds the lease
//! (`leader.rs`), and each is counted: a settled installation causes none.

pub mod check;
pub mod client;
pub mod cluster;
pub mod controller;
pub mod health;
pub mod leader;
pub mod object;
pub mod progress;
pub mod run;
pub mod seeded;
pub mod telemetry;
#[cfg(test)]
mod testing;
