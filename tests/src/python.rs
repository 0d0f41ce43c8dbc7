//! Python with clients of others, for tests against what isn't ours.

use std::path::PathBuf;

/// The interpreter that `.ci/tools clickhouse` has put those clients beside.
///
/// # Panics
/// When it isn't there.
#[must_use]
pub fn interpreter() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let python = cache.join("luminate/clickhouse/venv/bin/python");
    assert!(python.is_file(), "{} is missing: run .ci/tools clickhouse", python.display());
    python
}
