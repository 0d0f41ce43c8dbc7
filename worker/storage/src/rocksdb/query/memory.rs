//! What a query holds, against what it may hold.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{QueryContext, Result};

/// Bytes that the catalogue takes for each series while it groups or ranks them.
const WORKING: usize = 64;

/// Bytes held by all tasks of one query.
#[derive(Debug)]
pub struct Memory<'a> {
    context: &'a QueryContext,
    held: AtomicU64,
}

impl<'a> Memory<'a> {
    /// Nothing held yet; the limit is the context's.
    #[must_use]
    pub fn new(context: &'a QueryContext) -> Self {
        Self { context, held: AtomicU64::new(0) }
    }

    /// Holds `bytes` until the result is dropped.
    ///
    /// # Errors
    /// `QueryTooLarge` past the limit.
    pub fn hold(&self, bytes: usize) -> Result<Held<'_>> {
        let mut held = Held { memory: self, bytes: 0 };
        held.resize(bytes)?;
        Ok(held)
    }

    /// Holds what grouping or ranking so many series will take, until the result is dropped.
    ///
    /// # Errors
    /// As [`Memory::hold`].
    pub fn hold_working(&self, series: usize) -> Result<Working<'_>> {
        let bytes = series * WORKING;
        let mut working = Working { held: Held { memory: self, bytes: 0 } };
        if let Some(pool) = &self.context.pool {
            // Before it is taken, so that of two at once each counts the other.
            pool.expect(bytes as u64);
        }
        let held = working.held.resize(bytes);
        held.map(|()| working)
    }
}

/// What a query is about to use, and no longer than it is dropped.
#[derive(Debug)]
pub struct Working<'a> {
    held: Held<'a>,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if let Some(pool) = &self.held.memory.context.pool {
            pool.expect_no_more(self.held.bytes);
        }
    }
}

/// A part of what a query holds.
#[derive(Debug)]
pub struct Held<'a> {
    memory: &'a Memory<'a>,
    bytes: u64,
}

impl Held<'_> {
    /// It is `bytes` now.
    ///
    /// # Errors
    /// `QueryTooLarge` when all parts together pass the limit.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let held = self.memory.held.fetch_add(more, Ordering::Relaxed) + more;
            self.bytes = bytes;
            let shared = self.memory.context.pool.as_ref().map_or(Ok(()), |pool| pool.take(more, held));
            if held > self.memory.context.max_memory {
                return Err(self.memory.context.memory_exceeded());
            }
            shared?;
        } else if bytes < self.bytes {
            self.give(self.bytes - bytes);
            self.bytes = bytes;
        }
        Ok(())
    }

    fn give(&self, bytes: u64) {
        self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(pool) = &self.memory.context.pool {
            pool.give(bytes);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::memory_pool::MemoryPool;
    use crate::store::ErrorKind;

    #[test]
    fn parts_count_together_and_what_is_dropped_is_free_again() {
        let mut context = QueryContext::with_timeout(Duration::from_secs(1));
        context.max_memory = 100;
        let memory = Memory::new(&context);
        let mut first = memory.hold(60).unwrap();
        assert!(memory.hold(41).is_err());
        let second = memory.hold(40).unwrap();
        assert!(first.resize(61).is_err());
        drop(second);
        assert!(first.resize(100).is_ok());
        drop(first);
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn queries_share_a_pool() {
        let pool = Arc::new(MemoryPool::default());
        let large = usize::try_from(4 * MemoryPool::LEAST).unwrap();
        pool.set_most(large as u64);
        let mut context = QueryContext::with_timeout(Duration::from_secs(1));
        context.pool = Some(pool.clone());
        let (one, other) = (Memory::new(&context), Memory::new(&context));
        let first = one.hold(large).unwrap();
        assert!(matches!(other.hold(large).unwrap_err().kind, ErrorKind::Overloaded { .. }));
        assert!(other.hold(100).is_ok(), "a small one is answered");
        drop(first);
        assert_eq!(pool.held(), 0);
        assert!(other.hold(large).is_ok());
        let series = large / WORKING;
        let working = one.hold_working(series).unwrap();
        assert!(other.hold_working(series).is_err());
        assert_eq!((pool.held(), pool.expected()), (large as u64, large as u64));
        drop(working);
        assert_eq!((pool.held(), pool.expected()), (0, 0));
    }
}
