//! How many connections there may be.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections kept for probes and the metrics page when all others are taken: on these, everything
/// else is answered 503.
const SPARE: usize = 32;
/// Descriptors that the store and the runtime need beside connections.
const RESERVED_DESCRIPTORS: u64 = 512;

/// The connections that may be open at once.
#[derive(Debug)]
pub struct Slots {
    regular: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    /// Whether it is one kept for probes.
    pub over_limit: bool,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// Slots for `max` connections, or fewer where the process may not open as many files.
    #[must_use]
    pub fn new(max: u32) -> Self {
        let max = max.min(descriptors());
        Self { regular: Arc::new(Semaphore::new(max as usize)), spare: Arc::new(Semaphore::new(SPARE)) }
    }

    /// A slot, or nothing when even the spare ones are taken.
    #[must_use]
    pub fn take(&self) -> Option<Slot> {
        let slot = |over_limit| move |permit| Slot { over_limit, _permit: permit };
        let regular = Arc::clone(&self.regular).try_acquire_owned().map(slot(false));
        regular.or_else(|_| Arc::clone(&self.spare).try_acquire_owned().map(slot(true))).ok()
    }
}

/// Descriptors left for connections: the soft limit is often 1024 outside of containers.
fn descriptors() -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(soft) = soft_limit(&limits) else { return u32::MAX };
    let left = soft.saturating_sub(RESERVED_DESCRIPTORS).max(soft / 2).max(1);
    u32::try_from(left).unwrap_or(u32::MAX)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_slots_come_after_the_others() {
        let slots = Slots::new(2);
        let taken: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.len(), 2 + SPARE);
        assert_eq!(taken.iter().filter(|slot| !slot.over_limit).count(), 2);
        drop(taken);
        assert!(!slots.take().unwrap().over_limit);
    }

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files            unlimited   unlimited   files\n"), None);
    }
}
