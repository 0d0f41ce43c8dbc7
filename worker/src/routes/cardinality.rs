//! How many series there are.
