//! The operator on bad days: a slice of what `make operator-faults` and `make operator-fuzz` run for long.

use luminate_cluster::faults::{self, Run, Summary, Weather};
use luminate_cluster::fuzz;

use crate::scene::apart;

fn tell(run: &Run) -> Result<Summary, String> {
    faults::run(apart(), run, &mut |line| println!("{line}"))
}

/// Why a run of an operator with a fault put in on purpose has failed.
fn caught(bug: &str, story: &str, exactly: Vec<Weather>) -> String {
    let (only, bug) = (story.to_owned(), Some(bug.to_owned()));
    let run = Run { at_once: 4, only, bug, exactly, ..Run::of(0, 1) };
    match tell(&run) {
        Err(what) => what,
        Ok(summary) => summary.failures.first().expect("it must be caught").what.clone(),
    }
}

#[test]
fn whatever_fails_it_comes_to_the_same() {
    let summary = tell(&Run::of(25, 20_261_126)).expect("stories without faults");
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
    assert!(summary.harmed > 15, "{summary}");
}

#[test]
fn an_operator_that_takes_what_is_not_its_own_is_caught() {
    let what = caught("no-owner-check", "clickhouse-in-the-way", vec![Weather::Calm]);
    assert!(what.contains("was taken from its owner"), "{what}");
}

#[test]
fn what_is_changed_and_changed_back_is_as_before() {
    let run = fuzz::Run { seed: 20_261_126, changes: 24, at_once: 4, most_failures: 1 };
    let summary = fuzz::run(apart(), &run, &mut |line| println!("{line}")).expect("two installations");
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
}
