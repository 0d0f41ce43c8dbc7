//! Connections, timers, stopping.
