//! The operator on a real control plane, and the control plane itself.

mod control_plane;
mod create;
mod process;
mod scene;
