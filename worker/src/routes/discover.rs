//! Listing metrics, dimensions and values.
