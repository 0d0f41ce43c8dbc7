//! Random writes and questions over a store and over the model, whose answers must agree.
//!
//! Everything follows from a seed, so a difference is reported with the seed, the step, the question and
//! both answers, and comes again when the seed is run again. Numbers agree within 1e-9 × max(1, scale),
//! where the model gives the scale ([`crate::memory::Weighed`]); all else is equal.
//!
//! Beside the model there are relations that need no second store: the sums and counts of a range's two
//! parts add up to the whole, and two tenants who got the same rows in another order and in other
//! batches have the same answers.
//!
//! The model's expiry is final and a store's need not be, so a retention is lengthened only after what
//! has expired under the shorter one was deleted.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test suite as a library")]

mod compare;
mod questions;
mod run;
mod world;

use std::collections::BTreeMap;
use std::fmt;

use crate::contract::Backend;

/// What a run did, when nothing differed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How often each kind of step was taken.
    pub steps: BTreeMap<&'static str, u64>,
    /// Samples written.
    pub samples: u64,
    /// Rows that were refused by a limit, by both.
    pub refused: u64,
    /// Rows of answers that were compared.
    pub rows: u64,
    /// Answers that had no row.
    pub empty: u64,
}

impl Report {
    /// Questions asked, relations included.
    #[must_use]
    pub fn questions(&self) -> u64 {
        let asked = ["range", "aggregate", "rate", "listing", "cardinality", "split", "twins"];
        asked.iter().filter_map(|kind| self.steps.get(kind)).sum()
    }
}

/// The first step at which the two didn't agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What the run follows from.
    pub seed: u64,
    /// The step, counted from 0.
    pub step: u64,
    /// What was done or asked.
    pub question: String,
    /// What the store under test says, where the two differ first.
    pub subject: String,
    /// What the model says there.
    pub model: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, question, subject, model } = self;
        write!(formatter, "seed {seed}, step {step}: {question}\n  store: {subject}\n  model: {model}")
    }
}

impl std::error::Error for Difference {}

/// Takes `steps` random steps from `seed` over a fresh store of `backend` and over the model.
///
/// # Errors
/// The first [`Difference`]; an error of the store is one too.
pub async fn run(seed: u64, steps: u64, backend: &dyn Backend) -> Result<Report, Difference> {
    run::Run::open(seed, backend).await?.go(steps).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::ManualClock;
    use crate::contract::{Mode, Subject, cases};
    use crate::faulty::{Fault, Faulty};
    use crate::memory::MemoryStore;
    use crate::memory::tests::Plain;

    /// The model itself with a bug put in.
    struct Buggy(Fault);

    #[async_trait]
    impl Backend for Buggy {
        async fn open(
            &self,
            clock: Arc<ManualClock>,
            default_retention: i64,
        ) -> crate::store::Result<Box<dyn Subject>> {
            let memory = Arc::new(MemoryStore::new(clock, default_retention));
            Ok(Box::new(Plain(Arc::new(Faulty::new(memory, self.0)))))
        }
    }

    const BUGS: [Fault; 9] = [
        Fault::DropsCarryIn,
        Fault::FirstWriteWins,
        Fault::MixesTenants,
        Fault::EndsInclusively,
        Fault::KeepsDeleted,
        Fault::ShiftsMedian,
        Fault::LosesSamples,
        Fault::RepeatsCursor,
        Fault::IgnoresRetention,
    ];

    #[tokio::test]
    async fn a_store_without_a_bug_agrees_and_every_kind_of_step_is_taken() {
        let report =
            run(1, 1_200, &Buggy(Fault::None)).await.unwrap_or_else(|difference| panic!("{difference}"));
        let kinds: Vec<_> = report.steps.keys().copied().collect();
        let all = [
            "aggregate",
            "cardinality",
            "delete",
            "listing",
            "range",
            "rate",
            "restart",
            "retention",
            "settle",
            "split",
            "twins",
            "usage",
            "wait",
            "write",
        ];
        assert_eq!(kinds, all);
        assert!(report.refused > 0 && report.rows > 20_000, "{report:?}");
        // Bounds leave nothing of some answers.
        assert!(report.empty * 5 < report.questions() * 2, "{report:?}");
    }

    #[tokio::test]
    async fn the_same_seed_takes_the_same_steps() {
        let twice = [run(7, 200, &Buggy(Fault::None)).await, run(7, 200, &Buggy(Fault::None)).await];
        assert_eq!(twice[0], twice[1]);
        assert_ne!(twice[0], run(8, 200, &Buggy(Fault::None)).await);
    }

    #[tokio::test]
    async fn every_bug_is_found_within_a_few_runs() {
        for fault in BUGS {
            let mut found = None;
            for seed in 0..10 {
                if found.is_none() {
                    found = run(seed, 400, &Buggy(fault)).await.err();
                }
            }
            let found = found.unwrap_or_else(|| panic!("{fault:?} isn't found"));
            assert!(found.to_string().contains(", step "), "{found}");
        }
    }

    #[tokio::test]
    async fn every_bug_breaks_a_case_of_the_contract() {
        let silenced = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut unbroken = Vec::new();
        for fault in BUGS {
            let mut broken = false;
            for case in cases() {
                let run = tokio::spawn(async move { case.run(&Buggy(fault), Mode::Plain).await });
                broken = broken || run.await.is_err();
            }
            unbroken.extend((!broken).then_some(fault));
        }
        std::panic::set_hook(silenced);
        assert_eq!(unbroken, [], "bugs that no case notices");
    }
}
