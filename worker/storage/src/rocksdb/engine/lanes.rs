//! Where queries work, by how many samples they look at: each lane has threads of its own, so that a question over few
//! finds one free however many there are over more.
//!
//! What is little takes no lane: it is answered by the thread that asks, if all of it is in memory. Waking another thread and
//! being woken by it would be most of what it takes.
//!
//! | lane | samples | at once | of one tenant | threads' niceness |
//! | --- | --- | --- | --- | --- |
//! | quick | at most [`QUICK_SAMPLES`] | 4 a thread | 2 a thread | 0 |
//! | light | up to `heavy_samples` | 2 a thread | 1 a thread | 5 |
//! | heavy | more | 2 | 1 | 10 |
//!
//! More at once than threads can work on would only hold memory: whoever waits for its turn holds none.
//! Niceness decides who gets a core where there are fewer cores than lanes at work: of three threads on one, the quick
//! one gets nearly three quarters. Threads that are nice are also due last ([`give_way`]): they give their core to whoever
//! else wakes, be it a write or a question that is little, at once.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::model::Tenant;
use crate::store::{Result, StoreError};

use super::turns::{Turn, Turns};
use super::urgency::give_way;

/// A query over so many samples is done in a tenth of a millisecond.
pub(super) const LITTLE_SAMPLES: u64 = 25_000;
/// And one over so many series, each of which is looked up.
const LITTLE_SERIES: u64 = 128;
/// A query over so many samples is done in milliseconds.
pub(super) const QUICK_SAMPLES: u64 = 200_000;
/// Heavy queries at once.
const HEAVY_AT_ONCE: usize = 2;

/// The lanes of a store.
#[derive(Debug)]
pub(super) struct Lanes {
    quick: (ThreadPool, Turns),
    light: (ThreadPool, Turns),
    heavy: (ThreadPool, Turns),
    heavy_samples: u64,
}

/// About how much a query looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rough {
    pub(super) series: u64,
    pub(super) samples: u64,
}

impl Rough {
    /// Whether the thread that asks may answer.
    pub(super) fn is_little(self) -> bool {
        self.series <= LITTLE_SERIES && self.samples <= LITTLE_SAMPLES
    }
}

/// Which lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Quick,
    Light,
    Heavy,
}

impl Lanes {
    /// Lanes of `threads` each; heavy is what looks at more than `heavy_samples`.
    ///
    /// # Errors
    /// `Internal`: threads can't be started.
    pub(super) fn new(threads: usize, heavy_samples: u64) -> Result<Self> {
        let threads = threads.max(1);
        Ok(Self {
            quick: (pool("query", threads, 0)?, Turns::new(4 * threads, 2 * threads)),
            light: (pool("light-query", threads, 5)?, Turns::new(2 * threads, threads)),
            heavy: (pool("heavy-query", threads, 10)?, Turns::new(HEAVY_AT_ONCE, 1)),
            heavy_samples,
        })
    }

    /// The lane of a query over about so many samples.
    pub(super) fn of(&self, samples: u64) -> Lane {
        match samples {
            _ if samples > self.heavy_samples => Lane::Heavy,
            _ if samples > QUICK_SAMPLES => Lane::Light,
            _ => Lane::Quick,
        }
    }

    /// Waits until it is the turn of `tenant` there.
    ///
    /// # Errors
    /// Never: turns aren't closed.
    pub(super) async fn enter(&self, lane: Lane, tenant: &Tenant) -> Result<Turn<'_>> {
        self.parts(lane).1.take(tenant).await
    }

    /// The threads of a lane.
    pub(super) fn pool(&self, lane: Lane) -> &ThreadPool {
        &self.parts(lane).0
    }

    fn parts(&self, lane: Lane) -> &(ThreadPool, Turns) {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Light => &self.light,
            Lane::Heavy => &self.heavy,
        }
    }
}

fn pool(name: &'static str, threads: usize, niceness: i32) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |at| format!("{name}-{at}"))
        .start_handler(move |_| {
            if niceness > 0 {
                give_way(niceness)
            }
        })
        .build()
        .map_err(StoreError::internal)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::urgency::of_this_thread;
    use super::*;

    #[test]
    fn samples_choose_the_lane() {
        let lanes = Lanes::new(1, 1_000_000).unwrap();
        let of = [0, QUICK_SAMPLES, QUICK_SAMPLES + 1, 1_000_000, 1_000_001].map(|samples| lanes.of(samples));
        assert_eq!(of, [Lane::Quick, Lane::Quick, Lane::Light, Lane::Light, Lane::Heavy]);
        assert_eq!(Lanes::new(1, 100).unwrap().of(101), Lane::Heavy);
    }

    #[tokio::test]
    async fn a_tenant_with_many_light_queries_waits_behind_itself_only() {
        let lanes = Lanes::new(1, 1_000_000).unwrap();
        let (many, other) = (Tenant::new("many").unwrap(), Tenant::new("other").unwrap());
        let _first = lanes.enter(Lane::Light, &many).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(20), lanes.enter(Lane::Light, &many));
        assert!(second.await.is_err(), "its second waits");
        let _others = lanes.enter(Lane::Light, &other).await.unwrap();
        for lane in [Lane::Quick, Lane::Heavy] {
            drop(lanes.enter(lane, &many).await.unwrap());
        }
    }

    #[test]
    fn lanes_yield_to_those_with_fewer_samples() {
        let lanes = Lanes::new(1, 1_000_000).unwrap();
        let urgency = |lane| lanes.pool(lane).install(of_this_thread);
        let (own, usual) = of_this_thread();
        let [quick, light, heavy] = [Lane::Quick, Lane::Light, Lane::Heavy].map(urgency);
        assert_eq!([quick, light, heavy].map(|(nice, _)| nice), [0, 5, 10].map(|more| (own + more).min(19)));
        assert_eq!(quick.1, usual);
        assert!(light.1 == heavy.1 && light.1 >= usual, "{light:?}, usually {usual:?}");
    }
}
