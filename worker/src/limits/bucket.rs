//! A budget that fills evenly: at most a second's worth is saved up.

use std::time::{Duration, Instant};

/// A budget of some rate per second that holds one second's worth.
///
/// It is kept as the time at which the budget will be full again (the generic cell rate algorithm,
/// ITU-T I.371), so a new one needs no clock and an idle one equals a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Takes `amount` at `rate` per second, or says how long until that is possible.
    ///
    /// An amount of more than a second's worth needs a full budget and then takes longer to pay off: so
    /// a large request is possible, and the mean rate still holds.
    ///
    /// # Errors
    /// The time until the same call succeeds, if nothing else is taken meanwhile.
    pub fn take(&mut self, amount: u64, rate: u64, now: Instant) -> Result<(), Duration> {
        self.take_more(0, amount, rate, now)
    }

    /// Takes `amount` more of what `paid` has been taken of just now, as if both were taken at once.
    ///
    /// # Errors
    /// As [`TokenBucket::take`].
    pub fn take_more(&mut self, paid: u64, amount: u64, rate: u64, now: Instant) -> Result<(), Duration> {
        let rate = rate.max(1);
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        // What must be there now: the amount, but never more than can be there.
        let needed = cost(amount.min(rate.saturating_sub(paid)), rate);
        let wait = (full_at.duration_since(now) + needed).saturating_sub(Duration::from_secs(1));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at = full_at.checked_add(cost(amount, rate)).or(Some(full_at));
        Ok(())
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

/// The time in which `rate` per second brings `amount`.
fn cost(amount: u64, rate: u64) -> Duration {
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_seconds_worth_is_there_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = TokenBucket::default();
        assert!((0..10).all(|_| bucket.take(1, 10, start).is_ok()));
        assert_eq!(bucket.take(1, 10, start), Err(SECOND / 10));
        assert_eq!(bucket.take(1, 10, start + SECOND / 10), Ok(()));
        assert_eq!(bucket.take(10, 10, start + SECOND / 10), Err(SECOND));
    }

    #[test]
    fn waiting_as_long_as_told_is_enough() {
        let start = Instant::now();
        let mut bucket = TokenBucket::default();
        bucket.take(7, 10, start).unwrap();
        let wait = bucket.take(9, 10, start).unwrap_err();
        assert_eq!(
            bucket.clone().take(9, 10, start + wait - Duration::from_nanos(1)),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(bucket.take(9, 10, start + wait), Ok(()));
    }

    #[test]
    fn more_than_a_seconds_worth_needs_a_full_budget_and_is_paid_off() {
        let start = Instant::now();
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take(50, 10, start), Ok(()));
        assert_eq!(bucket.take(1, 10, start), Err(4 * SECOND + SECOND / 10));
        assert!(!bucket.is_full(start + 4 * SECOND) && bucket.is_full(start + 5 * SECOND));
    }

    #[test]
    fn what_is_taken_in_two_steps_is_as_if_at_once() {
        let start = Instant::now();
        for amount in [1, 2, 10, 11, 50] {
            let (mut once, mut twice) = (TokenBucket::default(), TokenBucket::default());
            once.take(amount, 10, start).unwrap();
            twice.take(1, 10, start).unwrap();
            twice.take_more(1, amount - 1, 10, start).unwrap();
            assert_eq!(once, twice, "{amount}");
        }
        let mut used = TokenBucket::default();
        used.take(6, 10, start).unwrap();
        used.take(1, 10, start).unwrap();
        assert_eq!(used.take_more(1, 4, 10, start), Err(SECOND / 10));
    }

    #[test]
    fn absurd_amounts_do_not_overflow() {
        let mut bucket = TokenBucket::default();
        let now = Instant::now();
        assert_eq!(bucket.take(u64::MAX, 1, now), Ok(()));
        assert!(bucket.take(1, 1, now).is_err());
    }
}
