//! What the process has of the machine's memory, which is more than its parts count: texts on their way, what the
//! allocator keeps for whoever asks next, and what lies idle between what is in use.

use std::fmt::Debug;

/// Who knows what the process has.
pub trait Resident: Send + Sync + Debug {
    /// Bytes of it in memory; 0 where nobody tells.
    fn bytes(&self) -> u64;

    /// Gives the system back what is free, and only kept for whoever asks next.
    fn trim(&self);
}
