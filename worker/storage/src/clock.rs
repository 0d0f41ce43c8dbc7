//! The only place that reads the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A clock that is further ahead than this of where it should be has jumped.
const JUMP: Duration = Duration::from_secs(600);
/// How long a clock that has jumped ahead must stay there to be believed.
const HOLD: Duration = Duration::from_secs(3_600);

/// A source of wall-clock time, in Unix milliseconds.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now, in Unix milliseconds.
    fn now(&self) -> i64;

    /// The time for what can't be undone, such as the removal of what has expired. It differs from
    /// [`Clock::now`] only while a jump ahead isn't believed yet.
    fn trusted(&self) -> i64 {
        self.now()
    }
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the Clock")]
    fn now(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The machine's clock, whose jumps ahead are not believed for an hour: a time server that errs, or a
/// battery that is empty, must not make everything look expired. A clock that is set back is believed at
/// once: what it makes look younger is only kept longer. Time that a machine slept through counts as a jump.
#[derive(Debug)]
pub struct SteadyClock(Mutex<Steady>);

impl Default for SteadyClock {
    fn default() -> Self {
        Self(Mutex::new(Steady { wall: SystemClock.now(), read: Instant::now(), ahead: None }))
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> i64 {
        SystemClock.now()
    }

    fn trusted(&self) -> i64 {
        self.0.lock().trusted(SystemClock.now(), Instant::now())
    }
}

/// What a steady clock remembers.
#[derive(Debug)]
struct Steady {
    /// The last time believed, and when it was read.
    wall: i64,
    read: Instant,
    /// Since when the clock is ahead of where it should be.
    ahead: Option<Instant>,
}

impl Steady {
    fn trusted(&mut self, wall: i64, at: Instant) -> i64 {
        let expected = self.wall.saturating_add(millis(at.saturating_duration_since(self.read)));
        let jumped = wall > expected.saturating_add(millis(JUMP));
        if jumped && self.ahead.is_none() {
            tracing::error!(
                seconds = (wall - expected) / 1_000,
                "the clock has jumped ahead; nothing expires by it for an hour"
            );
        }
        let ahead = *self.ahead.get_or_insert(at);
        if jumped && at.saturating_duration_since(ahead) < HOLD {
            return expected;
        }
        *self = Self { wall, read: at, ahead: None };
        wall
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A clock that stands still until it is set: for tests that depend on the time.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now` (Unix milliseconds).
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self(AtomicI64::new(now))
    }

    /// Moves the clock to `now` (Unix milliseconds).
    pub fn set(&self, now: i64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_ahead_is_believed_after_an_hour_and_one_back_at_once() {
        let start = Instant::now();
        let mut steady = Steady { wall: 1_000_000, read: start, ahead: None };
        let mut at = |seconds: u64, wall_seconds: i64| {
            steady.trusted(1_000_000 + wall_seconds * 1_000, start + Duration::from_secs(seconds)) / 1_000
                - 1_000
        };
        const YEAR: i64 = 365 * 86_400;
        assert_eq!(at(10, 12), 12, "it may run a little fast");
        assert_eq!(at(20, YEAR), 22, "a jump");
        assert_eq!(at(3_000, YEAR + 3_000), 3_002);
        assert_eq!(at(3_100, 3_100), 3_100, "set right again");
        assert_eq!(at(3_200, YEAR), 3_200);
        assert_eq!(at(3_200 + 3_599, YEAR + 3_599), 3_200 + 3_599, "not yet");
        assert_eq!(at(3_200 + 3_600, YEAR + 3_600), YEAR + 3_600, "it stayed there");
        assert_eq!(at(7_000, -YEAR), -YEAR, "set back");
        assert_eq!(at(7_100, 500), 100 - YEAR, "forward again is a jump");
    }
}
