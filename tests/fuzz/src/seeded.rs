//! The control: a fault put into a decoder's answer, which must be found.

use std::cell::Cell;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

/// Puts the fault in, for the rest of this thread.
pub fn put_in() {
    ON.set(true);
}

/// Whether a row is lost whose series has this key: one with a capital letter, which no seed has.
#[must_use]
pub fn loses(key: &str) -> bool {
    ON.get() && key.contains(|char: char| char.is_ascii_uppercase())
}
