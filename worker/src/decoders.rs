//! Whose turn it is to make a batch of a large body: few at once, since each takes several times as much memory as a body
//! may have.

use luminate_storage::resident::Resident;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::allocator::Allocator;
use crate::error::Error;

/// A large body takes its own size as text and three times that as a batch: a quarter of the worker's memory is for that.
const PARTS_OF_MEMORY: u64 = 16;

/// The turns of large bodies.
#[derive(Debug)]
pub struct Decoders {
    turns: Semaphore,
    memory: u64,
}

impl Decoders {
    /// One a thread, and no more than `memory` has room for where the largest body has `largest` bytes.
    #[must_use]
    pub fn new(threads: u32, memory: u64, largest: u64) -> Self {
        let room = memory / largest.saturating_mul(PARTS_OF_MEMORY).max(1);
        let turns = u64::from(threads).min(room).max(1);
        Self { turns: Semaphore::new(usize::try_from(turns).unwrap_or(1)), memory }
    }

    /// Waits for a turn. Where the process has more than its memory by then, what is free goes back to the system first:
    /// the allocator would keep for a second what the bodies before this one took, for each thread apart.
    ///
    /// # Errors
    /// Never: turns aren't closed.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Error> {
        let turn = self.turns.acquire().await.map_err(|error| Error::Internal(error.to_string()))?;
        if Allocator.bytes() > self.memory {
            Allocator.trim();
        }
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_turn_for_each_thread_that_memory_has_room_for() {
        let turns = |threads, memory| Decoders::new(threads, memory, 10).turns.available_permits();
        assert_eq!(
            (turns(4, u64::MAX), turns(4, 480), turns(4, 200), turns(4, 0), turns(0, 999)),
            (4, 3, 1, 1, 1)
        );
    }
}
