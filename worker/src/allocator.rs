//! The allocator's control, and what the process has of the machine's memory.

#![allow(unsafe_code, reason = "jemalloc's control has no safe wrapper; nothing else is called here")]

use std::ptr;
use std::time::Duration;

use luminate_storage::resident::Resident;

use crate::metrics::process;

/// How often one looks whether there is too much.
const LOOK: Duration = Duration::from_millis(20);
/// The same while there is less than half of it.
const LOOK_AT_REST: Duration = Duration::from_millis(200);

/// The allocator of this process, jemalloc.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

impl Resident for Allocator {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number of bytes")]
    fn bytes(&self) -> u64 {
        process::resident().map_or(0, |bytes| bytes as u64)
    }

    fn trim(&self) {
        // The arena of this number stands for all.
        let purge = c"arena.4096.purge";
        // SAFETY: the name ends with a zero, and no value is read or written. Whoever doesn't know it says so, and does
        // nothing.
        let _known = unsafe {
            tikv_jemalloc_sys::mallctl(purge.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0)
        };
    }
}

/// Gives back what is free while the process has more than `most` bytes; never ends.
///
/// The allocator keeps for a second what was freed, for each of its arenas apart: of bodies or queries in turn on
/// several threads, each may leave behind what it took.
pub async fn keep_within(most: u64) {
    loop {
        let bytes = Allocator.bytes();
        if bytes > most {
            Allocator.trim();
        }
        tokio::time::sleep(if bytes > most / 2 { LOOK } else { LOOK_AT_REST }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_goes_back() {
        let large = std::hint::black_box(vec![1_u8; 256 << 20]);
        let full = Allocator.bytes();
        assert!(full > 256 << 20);
        drop(large);
        Allocator.trim();
        assert!(Allocator.bytes() < full - (128 << 20));
    }
}
