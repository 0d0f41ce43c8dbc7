//! The operator on a real control plane, and the control plane itself.

mod control_plane;
mod process;
