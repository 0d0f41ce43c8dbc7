//! Running queries: list and cancel.
