//! A slice of the harness whose disk fails, and the fault that it must catch. `make io-faults` takes every point.

use std::process::Command;

use luminate_tests::io_faults::disk::Disk;
use luminate_tests::only_on;

/// What the harness says, as a program of its own, since it counts the panics of all threads; `None` where no disk can
/// be made to fail.
fn run(arguments: &[&str]) -> Option<(bool, String)> {
    if let Err(error) = Disk::new() {
        println!("skipped: no disk that fails: {error}");
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_io-faults")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    Some((output.status.success(), said))
}

#[test]
fn no_acked_sample_is_lost_by_a_disk_that_fails_at_200_points() {
    only_on!(RocksDb, "its files");
    if let Some((passed, said)) = run(&["--points", "200"]) {
        assert!(
            passed && said.contains("Broken") && said.contains("Full") && said.contains("Short"),
            "{said}"
        );
    }
}

#[test]
fn a_disk_that_loses_writes_is_caught() {
    only_on!(RocksDb, "its files");
    if let Some((passed, said)) = run(&["--points", "100", "--control"]) {
        assert!(!passed && said.contains("Lost at call"), "{said}");
    }
}
