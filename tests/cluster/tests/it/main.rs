//! The operator on a real control plane, and the control plane itself.

mod control_plane;
mod faults;
mod process;
