//! The whole black-box suite again, unchanged, with the workers over ClickHouse; and what only that can
//! meet.

mod faults;
#[path = "main.rs"]
mod suite;
