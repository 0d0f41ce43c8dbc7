//! Python's clickhouse-connect, which knows nothing of this server.

use std::path::PathBuf;
use std::process::Command;

use crate::server::Server;

#[test]
fn clickhouse_connect_finds_a_server() {
    let server = Server::start();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    let python = cache.join("luminate/clickhouse/venv/bin/python");
    assert!(python.is_file(), "{} is missing: run .ci/tools clickhouse", python.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/connect.py");
    let port = server.url.rsplit(':').next().expect("a port");
    let output = Command::new(python).args([script, port]).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "everything holds");
}
