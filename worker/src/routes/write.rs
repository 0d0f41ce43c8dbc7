//! Writing samples as JSON.
