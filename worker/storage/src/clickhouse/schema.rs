//! The tables: made and brought up to date by whichever worker comes first.
