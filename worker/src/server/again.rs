//! Polling what wakes itself again at once.
//!
//! A request's body reaches its handler through a channel whose both ends are in the connection's task: each side wakes the
//! other, which is the task itself. To the runtime a task that was woken while it was polled is one that others may take
//! over, so it wakes a thread that sleeps, for each request with a body; that thread finds nothing, and has taken a core
//! from whoever waits for the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in a row; then others of the thread have their turn.
const MOST: usize = 8;

/// The future isn't polled now: who wakes it wakes the task.
const RESTS: u8 = 0;
/// It is polled.
const POLLED: u8 = 1;
/// It is polled, and was woken since.
const WOKEN: u8 = 2;

#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = self.state.compare_exchange(POLLED, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if woken == Err(RESTS) {
            self.task.wake();
        }
    }
}

/// Polls one future.
#[derive(Debug)]
pub struct Again {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Again {
    /// For a future that wasn't polled yet.
    #[must_use]
    pub fn new() -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(RESTS), task: AtomicWaker::new() });
        Self { waker: Arc::clone(&bell).into(), bell }
    }

    /// Polls `future`, the same in every call, and again while it was woken meanwhile, eight times at most.
    pub fn poll<F: Future>(&self, mut future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Bell { state, task } = &*self.bell;
        task.register(context.waker());
        let mut own = Context::from_waker(&self.waker);
        for _ in 0..MOST {
            state.store(POLLED, Ordering::Release);
            if let ready @ Poll::Ready(_) = future.as_mut().poll(&mut own) {
                state.store(RESTS, Ordering::Release);
                return ready;
            }
            if state.compare_exchange(POLLED, RESTS, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        state.store(RESTS, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once a future that wakes itself `times` times: what it was, how often it was polled, and the task woken.
    fn polled(times: usize) -> (Poll<()>, usize, usize) {
        let (count, again, mut polls) = (Arc::new(Count::default()), Again::new(), 0);
        let waker = Waker::from(count.clone());
        let future = poll_fn(|context| {
            polls += 1;
            if polls > times {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let poll = again.poll(pin!(future), &mut Context::from_waker(&waker));
        (poll, polls, count.0.load(Ordering::Relaxed))
    }

    #[test]
    fn what_wakes_itself_is_polled_again_without_its_task() {
        assert_eq!(polled(0), (Poll::Ready(()), 1, 0));
        assert_eq!(polled(3), (Poll::Ready(()), 4, 0));
    }

    #[test]
    fn what_never_stops_gives_others_their_turn() {
        assert_eq!(polled(usize::MAX), (Poll::Pending, MOST, 1));
    }

    #[test]
    fn who_wakes_it_later_wakes_its_task_even_from_elsewhere() {
        let (count, again) = (Arc::new(Count::default()), Again::new());
        let waker = Waker::from(count.clone());
        let mut kept = None;
        let mut future = pin!(poll_fn(|context| {
            let first = kept.replace(context.waker().clone()).is_none();
            if first { Poll::Pending } else { Poll::Ready(()) }
        }));
        assert!(again.poll(future.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        let later = again.waker.clone();
        std::thread::spawn(move || later.wake()).join().unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(again.poll(future, &mut Context::from_waker(&waker)).is_ready());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        // Each poll asks another thread to wake; one that is lost would end this by its timeout.
        let (again, mut left) = (Again::new(), 20_000);
        let (ask, asked) = std::sync::mpsc::channel::<Waker>();
        let thread = std::thread::spawn(move || asked.iter().for_each(Waker::wake));
        let mut future = pin!(poll_fn(|context| {
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            ask.send(context.waker().clone()).expect("the thread listens");
            Poll::Pending
        }));
        let all = poll_fn(|context| again.poll(future.as_mut(), context));
        tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("a wake was lost");
        drop(ask);
        thread.join().unwrap();
    }
}
