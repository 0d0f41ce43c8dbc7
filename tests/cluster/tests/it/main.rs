//! The operator on a real control plane, and the control plane itself.

mod bad_input;
mod change;
mod control_plane;
mod create;
mod deletion;
mod faults;
mod healing;
mod process;
mod rights;
mod scaling;
mod scene;
mod schema;
mod switching;
mod volume;
