//! The allocator's control, and what the process has of the machine's memory.

#![allow(unsafe_code, reason = "jemalloc's control has no safe wrapper; nothing else is called here")]

use std::ptr;

use luminate_storage::resident::Resident;

use crate::metrics::process;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_something_and_what_is_free_goes_back() {
        let large = vec![1_u8; 64 << 20];
        let full = Allocator.bytes();
        assert!(full > 64 << 20);
        drop(large);
        Allocator.trim();
        assert!(Allocator.bytes() < full - (32 << 20));
    }
}
