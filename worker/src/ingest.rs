//! Wire formats: one a file, bytes to a batch.
