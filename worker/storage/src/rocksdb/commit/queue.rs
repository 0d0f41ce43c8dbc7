//! What waits for the committer, bounded in bytes.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::model::Tenant;
use crate::rocksdb::log::Cut;
use crate::rocksdb::record::Rows;
use crate::store::{ErrorKind, Result, Retention, StoreError};

use super::GROUP_BYTES;

/// Where the committer's answer goes; a caller that went away is no error.
#[derive(Debug)]
pub struct Done(oneshot::Sender<Result<()>>);

impl Done {
    /// An answer's two ends.
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<Result<()>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers the caller.
    pub fn answer(self, result: Result<()>) {
        // The client may have hung up; its samples are stored all the same.
        let _gone = self.0.send(result);
    }
}

/// A batch whose series have all got numbers.
#[derive(Debug)]
pub struct Batch {
    /// Its samples.
    pub rows: Rows,
    /// The definitions of series that it created; empty when none.
    pub definitions: Vec<u8>,
    /// Its caller.
    pub done: Done,
}

impl Batch {
    fn bytes(&self) -> u64 {
        (self.rows.ids.len() * 20 + self.definitions.len()) as u64
    }
}

/// Any other change.
#[derive(Debug)]
pub enum Work {
    /// Deletes samples of a metric.
    Delete {
        /// Whose.
        tenant: Tenant,
        /// The metric's number.
        metric: u32,
        /// The first time that stays.
        before: i64,
        /// The caller.
        done: Done,
    },
    /// Replaces a retention.
    Retention {
        /// Whose.
        tenant: Tenant,
        /// The new one.
        retention: Retention,
        /// The caller.
        done: Done,
    },
    /// Removes series whose last day has expired.
    Expire {
        /// Whose.
        tenant: Tenant,
        /// The caller.
        done: Done,
    },
    /// Freezes the head now.
    Freeze {
        /// The caller.
        done: Done,
    },
    /// Keeps the log's files, so that they can be copied.
    HoldLog {
        /// The caller.
        done: Done,
    },
    /// Says what a copy of the held log up to now consists of.
    CutLog {
        /// The caller.
        cut: oneshot::Sender<Result<Cut>>,
    },
    /// The log may give back its files again.
    LetLogGo,
    /// Tables hold everything through this commit: the log may forget it.
    Sealed {
        /// The last such commit.
        through: u64,
    },
}

/// What the committer takes at once: batches, and then perhaps one other change that came after them.
#[derive(Debug, Default)]
pub struct Taken {
    /// Batches in their order.
    pub batches: Vec<Batch>,
    /// The change behind them.
    pub other: Option<Work>,
}

#[derive(Debug)]
enum Item {
    Batch(Batch),
    Other(Work),
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: u64,
    closed: bool,
}

/// The committer's queue.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    capacity: u64,
}

impl Queue {
    /// An empty queue that holds at most about `capacity` bytes of batches.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), capacity }
    }

    /// Whether a batch may come in now; asked before any series is created for it.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full, `Unavailable` when it is closed.
    pub fn admit(&self) -> Result<()> {
        let state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        if state.bytes >= self.capacity {
            let retry_after = Duration::from_secs(1);
            return Err(StoreError::new(
                ErrorKind::Overloaded { retry_after },
                "too many batches wait for the log",
            ));
        }
        Ok(())
    }

    /// Appends an admitted batch.
    ///
    /// # Errors
    /// `Unavailable` when the queue has been closed.
    pub fn push_batch(&self, batch: Batch) -> Result<()> {
        let bytes = batch.bytes();
        self.push(Item::Batch(batch), bytes)
    }

    /// Appends another change.
    ///
    /// # Errors
    /// `Unavailable` when the queue has been closed.
    pub fn push_work(&self, work: Work) -> Result<()> {
        self.push(Item::Other(work), 0)
    }

    fn push(&self, item: Item, bytes: u64) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        state.items.push_back(item);
        state.bytes += bytes;
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes what waits, up to one record's worth; empty after `timeout`, `None` when closed and empty.
    pub fn take(&self, timeout: Duration) -> Option<Taken> {
        let mut state = self.state.lock();
        if state.items.is_empty() && !state.closed {
            self.ready.wait_for(&mut state, timeout);
        }
        if state.items.is_empty() && state.closed {
            return None;
        }
        let mut taken = Taken::default();
        let mut bytes = 0;
        while bytes < GROUP_BYTES {
            match state.items.pop_front() {
                Some(Item::Batch(batch)) => {
                    bytes += batch.bytes();
                    taken.batches.push(batch);
                }
                Some(Item::Other(work)) => {
                    taken.other = Some(work);
                    break;
                }
                None => break,
            }
        }
        state.bytes -= bytes;
        Some(taken)
    }

    /// Takes nothing more in; what waits is still taken out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Bytes of waiting batches.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Batches and changes that wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.state.lock().items.len()
    }
}

fn closed() -> StoreError {
    let retry_after = Duration::from_secs(5);
    StoreError::new(ErrorKind::Unavailable { retry_after }, "the store is closing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: usize) -> Batch {
        let tenant = Tenant::new("t").unwrap();
        let rows = Rows { tenant, ids: vec![0; rows], times: vec![0; rows], values: vec![0.0; rows] };
        Batch { rows, definitions: Vec::new(), done: Done::new().0 }
    }

    #[test]
    fn a_change_ends_a_group_and_keeps_its_place() {
        let queue = Queue::new(1 << 30);
        queue.push_batch(batch(1)).unwrap();
        queue.push_batch(batch(2)).unwrap();
        queue.push_work(Work::Sealed { through: 7 }).unwrap();
        queue.push_batch(batch(3)).unwrap();
        let first = queue.take(Duration::ZERO).unwrap();
        assert_eq!(first.batches.len(), 2);
        assert!(matches!(first.other, Some(Work::Sealed { through: 7 })));
        assert_eq!(queue.take(Duration::ZERO).unwrap().batches.len(), 1);
        assert_eq!(queue.bytes(), 0);
        queue.close();
        assert!(queue.take(Duration::ZERO).is_none());
        assert!(queue.push_batch(batch(1)).is_err());
    }

    #[test]
    fn a_full_queue_sheds_and_recovers() {
        let queue = Queue::new(100);
        queue.admit().unwrap();
        queue.push_batch(batch(5)).unwrap();
        let refused = queue.admit().unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::Overloaded { .. }));
        queue.take(Duration::ZERO);
        queue.admit().unwrap();
    }
}
