//! A slice of the bit rot harness, and the faults that it must catch. `make bitrot` runs it for long.

use luminate_tests::only_on;
use luminate_tests::rot::{self, Failure, Fault, Plan, Summary};

fn run(flips: u32, fault: Fault) -> Result<Summary, Failure> {
    let result = rot::run(&Plan { seed: fastrand::u64(..), flips, fault }, &mut |line| println!("{line}"));
    match &result {
        Ok(summary) => println!("{summary}"),
        Err(failure) => println!("{failure}"),
    }
    result
}

#[test]
fn no_answer_is_wrong_after_300_flips_and_the_check_finds_each_that_matters() {
    only_on!(RocksDb, "its files");
    let summary = run(300, Fault::None).unwrap_or_else(|failure| panic!("{failure}"));
    let found: u32 = summary.files.values().map(|tally| tally.found).sum();
    assert!(found > 100, "{summary}");
}

#[test]
fn a_store_that_verifies_no_checksum_is_caught() {
    only_on!(RocksDb, "its files");
    let failure = run(500, Fault::FittingChecksums).expect_err("a flip made a wrong number");
    assert!(failure.what.contains("a wrong answer"), "{failure}");
}

#[test]
fn a_check_that_finds_nothing_is_caught() {
    only_on!(RocksDb, "its files");
    let failure = run(100, Fault::BlindCheck).expect_err("a flip was not found");
    assert!(failure.what.contains("called it sound"), "{failure}");
}
