//! Whether the operator makes progress: what waits, what is being worked on, and since when.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::Gate;
use crate::controller::references::Key;
use crate::telemetry::Metrics;

/// A reconcile that runs longer hangs: each of its requests has a time limit, and itself too.
pub const LONGEST_RECONCILE: Duration = Duration::from_secs(120);
/// A watch that started longer ago hangs: each is started anew within a minute, and an API server may be away for
/// some.
const LONGEST_WATCH: Duration = Duration::from_secs(600);
/// An item that waits longer shows that nothing is taken from the queue.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What waits and what is being worked on.
#[derive(Debug)]
pub struct Progress {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    waiting: Mutex<HashMap<Key, Instant>>,
    running: Mutex<HashMap<Key, Instant>>,
}

/// A reconcile that runs; it has ended when this is dropped.
#[derive(Debug)]
pub struct Running {
    progress: Arc<Progress>,
    key: Key,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.running.lock().remove(&self.key);
    }
}

impl Progress {
    /// Nothing waits and nothing runs.
    #[must_use]
    pub fn new(gate: Arc<Gate>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { gate, metrics, waiting: Mutex::default(), running: Mutex::default() })
    }

    /// `key` waits to be reconciled.
    pub fn waits(&self, key: &Key) {
        self.waiting.lock().entry(key.clone()).or_insert_with(Instant::now);
    }

    /// `key` doesn't wait any more; it is gone.
    pub fn forget(&self, key: &Key) {
        self.waiting.lock().remove(key);
    }

    /// A reconcile of `key` begins.
    #[must_use]
    pub fn begins(self: &Arc<Self>, key: &Key) -> Running {
        self.waiting.lock().remove(key);
        self.running.lock().insert(key.clone(), Instant::now());
        Running { progress: Arc::clone(self), key: key.clone() }
    }

    /// Why this process should be ended and started anew, if it should.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        let oldest = |items: &Mutex<HashMap<Key, Instant>>| {
            items.lock().values().map(Instant::elapsed).max().unwrap_or_default()
        };
        let (wait, work) = (oldest(&self.waiting), oldest(&self.running));
        let watch = self.gate.oldest_watch().unwrap_or_default();
        self.metrics.ages(work, wait, watch);
        let checks = [
            ("a reconcile has been running", work, LONGEST_RECONCILE),
            ("a resource has been waiting", wait, LONGEST_WAIT),
            ("a watch hasn't started anew", watch, LONGEST_WATCH),
        ];
        let stuck = checks.into_iter().find(|(_, age, longest)| age > longest);
        stuck.map(|(what, age, _)| format!("{what} for {} s", age.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Fence;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_stuck() {
        let metrics = Arc::new(Metrics::default());
        let progress = Progress::new(Gate::new(Fence::forever(), Arc::clone(&metrics)), metrics);
        let key = Key::new("a", "prod");
        progress.waits(&key);
        let running = progress.begins(&key);
        tokio::time::advance(LONGEST_RECONCILE).await;
        assert_eq!(progress.stuck(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(progress.stuck(), Some("a reconcile has been running for 121 s".into()));
        drop(running);
        assert_eq!(progress.stuck(), None);
        progress.waits(&key);
        tokio::time::advance(LONGEST_WAIT + Duration::from_secs(1)).await;
        assert!(progress.stuck().is_some_and(|why| why.contains("waiting")));
        progress.forget(&key);
        assert_eq!(progress.stuck(), None);
    }
}
