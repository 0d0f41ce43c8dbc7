//! What a query holds, against what it may hold.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{QueryContext, Result};

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
            if held > self.memory.context.max_memory {
                return Err(self.memory.context.memory_exceeded());
            }
        } else if bytes < self.bytes {
            self.memory.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
}
