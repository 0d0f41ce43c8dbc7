//! A request that finds no room waits a moment for it: a burst shorter than that delays, and sheds nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long one waits for room.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often one that waits looks again.
const LOOK: Duration = Duration::from_millis(20);

/// What `attempt` gives once it gives something, tried at once and every 20 ms for a second.
///
/// # Errors
/// The last attempt's.
pub async fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let until = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(_) if Instant::now() < until => sleep(LOOK).await,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_room_or_after_a_second() {
        let started = Instant::now();
        let mut free_in = 5;
        let mut attempt = || {
            free_in -= 1;
            if free_in == 0 { Ok(started.elapsed()) } else { Err("full") }
        };
        assert_eq!(patiently(&mut attempt).await, Ok(4 * LOOK));

        assert_eq!(patiently(|| Err::<(), _>("full")).await, Err("full"));
        assert_eq!(started.elapsed(), 4 * LOOK + PATIENCE);
    }
}
