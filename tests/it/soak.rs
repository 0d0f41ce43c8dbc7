//! A while of writes, questions and restarts; `make soak` takes longer.

use std::time::Duration;

use luminate_tests::only_on;
use luminate_tests::soak::{self, Run};

fn run(seconds: u64, forgetful: bool) -> Result<soak::Summary, String> {
    let time = Duration::from_secs(seconds);
    soak::run(&Run { time, restart_every: time / 6, forgetful }, &mut |line| println!("{line}"))
}

#[test]
fn what_was_acknowledged_is_there_after_a_while() {
    only_on!(RocksDb, "its restarts");
    let summary = run(6, false).unwrap();
    assert!(summary.samples > 0 && summary.queries > 0 && summary.restarts > 1, "{summary}");
}

#[test]
fn a_batch_that_was_never_sent_is_missed() {
    only_on!(RocksDb, "its restarts");
    let missed = run(2, true).unwrap_err();
    assert!(missed.contains("holds"), "{missed}");
}
