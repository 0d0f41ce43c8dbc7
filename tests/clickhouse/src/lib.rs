//! ClickHouse over HTTP.
