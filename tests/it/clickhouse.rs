//! The whole black-box suite again, unchanged, with the workers over ClickHouse.

#[path = "main.rs"]
mod suite;
