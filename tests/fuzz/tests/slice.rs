//! A slice of fuzzing that any test run has: no libFuzzer, no clock, the same inputs each time.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::Path;
use std::thread;

use luminate_fuzz::grow::Grow;
use luminate_fuzz::{TARGETS, Target, seeded};

/// How many inputs of each target are tried.
const TRIED: usize = 20_000;

/// Runs `work` for each of `targets`, each on a thread of its own.
fn each(targets: &[&str], work: impl Fn(&Target) + Sync) {
    let chosen = TARGETS.iter().filter(|target| targets.contains(&target.name));
    let work = &work;
    thread::scope(|scope| chosen.for_each(|target| drop(scope.spawn(move || work(target)))));
}

fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|target| target.name).collect()
}

/// The first input of those tried for which the target fails.
fn found(target: &Target) -> Option<Vec<u8>> {
    let mut grow = Grow::of(target, 1);
    (0..TRIED).map(|_| grow.input()).find(|input| catch_unwind(|| (target.check)(input)).is_err())
}

#[test]
fn every_target_holds_for_its_seeds_and_their_beginnings() {
    each(&names(), |target| {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for seed in &seeds {
            (target.check)(seed);
            (0..seed.len()).step_by(7).for_each(|cut| (target.check)(&seed[..cut]));
        }
    });
}

#[test]
fn every_target_holds_for_what_grows_of_its_seeds() {
    each(&names(), |target| {
        if let Some(input) = found(target) {
            panic!("{} fails for b\"{}\"", target.name, input.escape_ascii());
        }
    });
}

/// The control, for targets with a reference. Seeds don't have it, so it is the growing that finds it.
#[test]
fn a_fault_that_is_put_in_is_found() {
    each(&["json", "line", "remote-write"], |target| {
        seeded::put_in();
        (target.seeds)().iter().for_each(|seed| (target.check)(seed));
        assert!(found(target).is_some(), "{}", target.name);
    });
}

#[test]
fn what_once_failed_holds() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for target in TARGETS {
        let Ok(files) = std::fs::read_dir(found.join(target.name)) else { continue };
        files.for_each(|file| (target.check)(&std::fs::read(file.unwrap().path()).unwrap()));
    }
}

#[test]
fn names_are_distinct() {
    let distinct: BTreeSet<_> = names().into_iter().collect();
    assert_eq!(distinct.len(), TARGETS.len());
}
