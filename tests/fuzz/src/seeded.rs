//! The control: a fault put into a decoder's answer, which must be found.

use std::cell::Cell;

/// A row is lost where a key of its series is of this kind. No seed has such a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has a capital letter, which blind changes come upon.
    Capital,
    /// It is one certain word, which only who follows branches and comparisons comes upon.
    Word,
}

thread_local! {
    static PUT_IN: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Puts a fault in, for the rest of this thread.
pub fn put_in(fault: Fault) {
    PUT_IN.set(Some(fault));
}

/// Whether a row is lost whose series has this key.
#[must_use]
pub fn loses(key: &str) -> bool {
    match PUT_IN.get() {
        None => false,
        Some(Fault::Capital) => key.contains(|char: char| char.is_ascii_uppercase()),
        Some(Fault::Word) => key == "zone",
    }
}
