//! Slices of the crash harness, and the faults that it must catch. `make kill9` runs it for long.

use std::path::PathBuf;

use luminate_tests::crash::power::Volume;
use luminate_tests::crash::{self, Crash, Failure, Fault, Plan, Summary};
use luminate_tests::only_on;

fn run(cycles: u32, crash: Crash, fault: Fault) -> Result<Summary, Failure> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_crash"));
    let plan = Plan { seed: fastrand::u64(..), cycles, crash, fault, program };
    let result = crash::run(&plan, &mut |line| println!("{line}"));
    match &result {
        Ok(summary) => println!("{summary}"),
        Err(failure) => println!("{failure}"),
    }
    result
}

/// Whether power can be cut here.
fn has_volumes() -> bool {
    let made = Volume::new();
    if let Err(error) = &made {
        println!("skipped: no file system to cut off: {error}");
    }
    made.is_ok()
}

#[test]
fn no_acked_sample_is_lost_or_doubled_by_200_kills() {
    only_on!(RocksDb, "its log");
    let summary = run(200, Crash::Kill, Fault::None).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(summary.steps > 2_000 && summary.checked > 100, "{summary}");
}

#[test]
fn no_acked_sample_is_lost_by_50_power_cuts() {
    only_on!(RocksDb, "its log");
    if has_volumes() {
        let summary = run(50, Crash::PowerCut, Fault::None).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(summary.steps > 500, "{summary}");
    }
}

#[test]
fn an_ack_before_the_write_is_caught() {
    only_on!(RocksDb, "its log");
    let failure = run(20, Crash::Kill, Fault::AckEarly).expect_err("acked batches were lost");
    assert!(failure.what.contains("acked samples lost"), "{failure}");
}

#[test]
fn an_ack_before_the_sync_is_caught() {
    only_on!(RocksDb, "its log");
    if has_volumes() {
        let failure = run(20, Crash::PowerCut, Fault::NoSync).expect_err("acked batches were lost");
        assert!(failure.what.contains("acked samples lost"), "{failure}");
    }
}
