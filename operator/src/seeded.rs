//! Faults put in on purpose, which the fault harness must catch: a harness that has never found anything proves
//! nothing. Only `luminate-operator-faulty` has them, which is built with the feature `seeded-bugs` alone;
//! anywhere else each question here is answered with a constant no.

/// A fault put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Whatever has the name of a child is overwritten, whosever it is.
    NoOwnerCheck,
}

#[cfg(all(feature = "seeded-bugs", not(debug_assertions)))]
compile_error!("an operator with faults must not be shipped");

/// Whether this process has it: the variable `LUMINATE_OPERATOR_SEEDED_BUG` names one.
#[cfg(feature = "seeded-bugs")]
#[must_use]
pub fn has(bug: Bug) -> bool {
    let name = match bug {
        Bug::NoOwnerCheck => "no-owner-check",
    };
    std::env::var("LUMINATE_OPERATOR_SEEDED_BUG").is_ok_and(|set| set == name)
}

/// Never.
#[cfg(not(feature = "seeded-bugs"))]
#[must_use]
pub const fn has(_: Bug) -> bool {
    false
}
