//! Memory that the queries of a store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::resident::Resident;
use crate::store::{ErrorKind, Result, StoreError};

/// How much queries take before one looks again at what the process has: a look takes some microseconds.
const LOOK: u64 = 4 << 20;

/// Memory that all queries of a store hold together.
#[derive(Debug, Default)]
pub struct MemoryPool {
    held: AtomicU64,
    most: AtomicU64,
    /// Of what is held, what will be in use soon, and may not be yet.
    ahead: AtomicU64,
    process: Option<Process>,
}

/// The process that queries are a part of.
#[derive(Debug)]
struct Process {
    resident: Arc<dyn Resident>,
    most: u64,
}

impl MemoryPool {
    /// A query always gets this much: a light one is answered though heavy ones hold all there is.
    pub const LEAST: u64 = 256 << 10;

    /// A pool of nothing yet, whose queries take no more once the process has `most` bytes: what the other parts count
    /// is not all that they take.
    #[must_use]
    pub fn within(resident: Arc<dyn Resident>, most: u64) -> Self {
        Self { process: Some(Process { resident, most }), ..Self::default() }
    }

    /// From now on queries may hold `bytes` together; what they hold already, they keep.
    pub fn set_most(&self, bytes: u64) {
        self.most.store(bytes, Ordering::Relaxed);
    }

    /// Takes `more` bytes for a query that then holds `own`; to be given back.
    ///
    /// # Errors
    /// `Overloaded`; they are taken all the same.
    pub fn take(&self, more: u64, own: u64) -> Result<()> {
        let before = self.held.fetch_add(more, Ordering::Relaxed);
        let held = before + more;
        if own <= Self::LEAST {
            return Ok(());
        }
        if held > self.most.load(Ordering::Relaxed) || (before / LOOK != held / LOOK && !self.process_fits())
        {
            return Err(used_up());
        }
        Ok(())
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// `bytes` that are taken will be in use soon: whoever looks at the process meanwhile counts them too.
    pub fn expect(&self, bytes: u64) {
        self.ahead.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` are in use by now, or won't be.
    pub fn expect_no_more(&self, bytes: u64) {
        self.ahead.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that will be in use soon.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the process has no more than it may, once what is free is given back.
    fn process_fits(&self) -> bool {
        let Some(Process { resident, most }) = &self.process else { return true };
        let fits = || resident.bytes() + self.expected() <= *most;
        fits() || {
            resident.trim();
            fits()
        }
    }
}

fn used_up() -> StoreError {
    let retry_after = Duration::from_secs(1);
    StoreError::new(ErrorKind::Overloaded { retry_after }, "the memory that queries share is used up")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of `used` bytes, and `free` ones that can be given back.
    #[derive(Debug, Default)]
    struct Fake {
        used: AtomicU64,
        free: AtomicU64,
    }

    impl Resident for Fake {
        fn bytes(&self) -> u64 {
            self.used.load(Ordering::Relaxed) + self.free.load(Ordering::Relaxed)
        }

        fn trim(&self) {
            self.free.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn large_queries_share_what_there_is_and_small_ones_are_always_answered() {
        let (pool, large) = (MemoryPool::default(), 10 * MemoryPool::LEAST);
        pool.set_most(large);
        assert!(pool.take(large, large).is_ok());
        assert!(matches!(pool.take(large, large).unwrap_err().kind, ErrorKind::Overloaded { .. }));
        assert!(pool.take(MemoryPool::LEAST, MemoryPool::LEAST).is_ok());
        pool.give(2 * large);
        assert_eq!(pool.held(), MemoryPool::LEAST);
        assert!(pool.take(MemoryPool::LEAST, large).is_ok());
    }

    #[test]
    fn what_the_process_has_beside_what_is_counted_is_no_room_unless_it_is_free() {
        let process = Arc::new(Fake::default());
        let pool = MemoryPool::within(process.clone(), 10 * LOOK);
        pool.set_most(u64::MAX);
        process.used.store(5 * LOOK, Ordering::Relaxed);
        process.free.store(9 * LOOK, Ordering::Relaxed);
        assert!(pool.take(LOOK, LOOK).is_ok(), "what is free is given back");
        assert_eq!(process.free.load(Ordering::Relaxed), 0);
        pool.expect(5 * LOOK);
        assert!(pool.take(LOOK, LOOK).is_ok());
        pool.expect(1);
        assert!(matches!(pool.take(LOOK, LOOK).unwrap_err().kind, ErrorKind::Overloaded { .. }));
        assert!(pool.take(LOOK, MemoryPool::LEAST).is_ok(), "a small one is answered");
        pool.expect_no_more(1);
        assert!(pool.take(LOOK, LOOK).is_ok());
    }
}
