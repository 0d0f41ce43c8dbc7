//! Deleting samples, retention, usage.
