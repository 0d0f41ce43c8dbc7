//! Requests that wait to be inserted, bounded in bytes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clickhouse::block::MOST_DAYS;
use crate::clickhouse::series::resolve::Resolved;
use crate::store::{ErrorKind, Result, StoreError};

/// Shortest and longest advice on when to come again.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// How much the newest insert counts in the rate at which the queue drains.
const NEWEST: f64 = 0.3;

/// A resolved batch, and who waits for it.
#[derive(Debug)]
pub struct Request {
    /// The batch.
    pub resolved: Resolved,
    /// Who waits; gone when the caller has given up.
    pub done: oneshot::Sender<Result<()>>,
    /// Its place in the queue's budget, until it is answered for good.
    pub room: Room,
}

/// Bytes taken of the queue's budget; given back when dropped.
#[derive(Debug)]
pub struct Room {
    /// How many.
    pub bytes: u64,
    used: Arc<AtomicU64>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Requests in the order of their arrival.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Told when a request arrives and when the queue closes.
    changed: Notify,
    /// Bytes of requests that aren't answered yet, waiting or on their way.
    used: Arc<AtomicU64>,
    most: u64,
    /// Bytes per second that inserts have taken lately; 0 before the first.
    rate: Mutex<f64>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    /// An empty queue of at most `most` bytes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            used: Arc::default(),
            most,
            rate: Mutex::new(0.0),
        }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The share of its bytes that is in use.
    #[must_use]
    pub fn fullness(&self) -> f64 {
        self.used() as f64 / self.most.max(1) as f64
    }

    /// Requests that no insert has taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Whether it takes nothing more in.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes `bytes` of the budget; one request may be larger than all of it, if it is alone.
    ///
    /// # Errors
    /// `Overloaded`, with the time in which the queue will have drained.
    pub fn room(&self, bytes: u64) -> Result<Room> {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            (used == 0 || used.saturating_add(bytes) <= self.most).then(|| used.saturating_add(bytes))
        });
        match taken {
            Ok(_) => Ok(Room { bytes, used: Arc::clone(&self.used) }),
            Err(_) => Err(StoreError::new(
                ErrorKind::Overloaded { retry_after: self.drained_in() },
                "too much is waiting to be inserted into ClickHouse",
            )),
        }
    }

    /// Appends a request.
    ///
    /// # Errors
    /// The request, when the queue is closed.
    pub fn push(&self, request: Request) -> std::result::Result<(), Box<Request>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Box::new(request));
        }
        state.waiting.push_back(request);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes no more requests in; those that wait are still taken out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until there is a request; whether there will ever be one.
    pub async fn arrived(&self) -> bool {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                // Whoever has given up before anything was sent isn't inserted.
                while state.waiting.front().is_some_and(|request| request.done.is_closed()) {
                    state.waiting.pop_front();
                }
                if !state.waiting.is_empty() {
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// The first requests that together have at most `most` rows and touch at most [`MOST_DAYS`] days;
    /// the first one whatever it has. Skips those whose callers have given up.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<Request> {
        let mut taken = Vec::new();
        let mut rows = 0;
        let mut days = BTreeSet::new();
        let mut state = self.state.lock();
        while let Some(request) = state.waiting.pop_front() {
            if request.done.is_closed() {
                continue;
            }
            rows += request.resolved.rows.len();
            days.extend(request.resolved.days.iter().copied());
            if !taken.is_empty() && (rows > most || days.len() > MOST_DAYS) {
                state.waiting.push_front(request);
                break;
            }
            taken.push(request);
        }
        taken
    }

    /// Notes that `bytes` were inserted in `time`.
    pub fn drained(&self, bytes: u64, time: Duration) {
        let newest = bytes as f64 / time.as_secs_f64().max(0.001);
        let mut rate = self.rate.lock();
        *rate = if *rate == 0.0 { newest } else { *rate * (1.0 - NEWEST) + newest * NEWEST };
    }

    /// How long what is in the queue takes at the rate of late.
    #[must_use]
    pub fn drained_in(&self) -> Duration {
        let rate = *self.rate.lock();
        let seconds = if rate > 0.0 { self.used() as f64 / rate } else { 0.0 };
        Duration::try_from_secs_f64(seconds).unwrap_or(RETRY[1]).clamp(RETRY[0], RETRY[1])
    }
}
