//! Memory that the queries of a store share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::store::{ErrorKind, Result, StoreError};

/// Memory that all queries of a store hold together.
#[derive(Debug, Default)]
pub struct MemoryPool {
    held: AtomicU64,
    most: AtomicU64,
}

impl MemoryPool {
    /// A query always gets this much: a light one is answered though heavy ones hold all there is.
    pub const LEAST: u64 = 256 << 10;

    /// From now on queries may hold `bytes` together; what they hold already, they keep.
    pub fn set_most(&self, bytes: u64) {
        self.most.store(bytes, Ordering::Relaxed);
    }

    /// Takes `more` bytes for a query that then holds `own`; to be given back.
    ///
    /// # Errors
    /// `Overloaded`; they are taken all the same.
    pub fn take(&self, more: u64, own: u64) -> Result<()> {
        let held = self.held.fetch_add(more, Ordering::Relaxed) + more;
        if own > Self::LEAST && held > self.most.load(Ordering::Relaxed) {
            let retry_after = Duration::from_secs(1);
            return Err(StoreError::new(
                ErrorKind::Overloaded { retry_after },
                "the memory that queries share is used up",
            ));
        }
        Ok(())
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
