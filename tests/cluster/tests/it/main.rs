//! The operator on a real control plane, and the control plane itself.

mod change;
mod control_plane;
mod create;
mod faults;
mod healing;
mod process;
mod scaling;
mod scene;
mod schema;
mod switching;
mod volume;
