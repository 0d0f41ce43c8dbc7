//! The control: a fault put into a decoder's answer, which the fuzzer must find.

use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);

/// Puts the fault in, for the rest of the process.
pub fn put_in() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether it is in.
#[must_use]
pub fn is_in() -> bool {
    ON.load(Ordering::Relaxed)
}
