//! What fails during a story.

use std::fmt;
use std::time::Duration;

use crate::api_proxy::{Asked, Fault, Plan, Verb, WatchFault};

/// What fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Calm,
    /// Something happens to the n-th write.
    Write(u64, Fault),
    /// Something happens to the n-th write, and to the m-th after it.
    Twice(u64, u64, Fault),
    /// Something happens to so many requests in a row, reads and watches too, from the n-th on.
    Outage(u64, u64, Fault),
    /// So many requests in a thousand fail in every way there is.
    Storm(u64, u16),
    /// Every watch goes wrong like this.
    Watches(WatchFault),
    /// Every answer takes so long.
    Slow(Duration),
    /// There are two processes; the one that leads is stopped at its n-th write, until the other leads.
    TwoLeaders(u64),
}

/// What may happen to a write.
pub const HARMS: [Fault; 10] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::LostAnswer,
    Fault::HangUp,
    Fault::Status(409),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::StatusAfterwards(504),
    // Longer than an operator waits.
    Fault::Hang(Duration::from_secs(6)),
];

impl Weather {
    /// What the proxy is to do.
    #[must_use]
    pub fn plan(&self) -> Plan {
        match self.clone() {
            Self::Calm => Box::new(|_| None),
            Self::Write(nth, fault) => Box::new(move |asked| at_write(asked, nth, &fault)),
            Self::Twice(first, later, fault) => Box::new(move |asked| {
                at_write(asked, first, &fault).or_else(|| at_write(asked, first + later, &fault))
            }),
            Self::Outage(first, count, fault) => {
                Box::new(move |asked| (first..first + count).contains(&asked.nth).then(|| fault.clone()))
            }
            Self::Storm(seed, permille) => storm(seed, permille),
            Self::Watches(fault) => {
                Box::new(move |asked| (asked.verb == Verb::Watch).then_some(Fault::Watch(fault)))
            }
            Self::Slow(time) => Box::new(move |_| Some(Fault::Slow(time))),
            Self::TwoLeaders(nth) => Box::new(move |asked| at_write(asked, nth, &Fault::Stop)),
        }
    }

    /// Everything that is done to every single write of a story that has so many.
    #[must_use]
    pub fn of_each_write(writes: u64) -> Vec<Self> {
        (1..=writes).flat_map(|nth| HARMS.into_iter().map(move |fault| Self::Write(nth, fault))).collect()
    }

    /// One of the others.
    #[must_use]
    pub fn any(random: &mut fastrand::Rng, writes: u64) -> Self {
        let millis =
            |random: &mut fastrand::Rng, from: u64, to: u64| Duration::from_millis(random.u64(from..to));
        match random.u8(0..10) {
            0 | 1 => Self::Storm(random.u64(..), random.u16(20..250)),
            2 => {
                let later = random.u64(1..=6);
                Self::Twice(random.u64(1..=writes), later, harm(random))
            }
            3 => Self::Outage(random.u64(1..=writes * 3), random.u64(2..=8), outage(random)),
            4 => Self::Watches(WatchFault::EndsAfter(millis(random, 20, 800))),
            5 => Self::Watches(WatchFault::BreaksAfter(millis(random, 20, 800))),
            6 => Self::Watches(WatchFault::BreaksAfterParts(random.usize(0..4))),
            7 => Self::Watches(WatchFault::Lags(millis(random, 100, 3_000))),
            8 => Self::Watches(WatchFault::Gone(millis(random, 20, 1_500))),
            _ => Self::Slow(millis(random, 10, 150)),
        }
    }

    /// Whether it is about a crash.
    #[must_use]
    pub fn crashes(&self) -> bool {
        matches!(self, Self::Write(_, Fault::CrashBefore | Fault::CrashAfter))
    }

    /// Whether it ends by itself, without being healed.
    #[must_use]
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Storm(..) | Self::Watches(_) | Self::Slow(_))
    }
}

fn at_write(asked: &Asked, nth: u64, fault: &Fault) -> Option<Fault> {
    (asked.counts_as_write() && asked.nth_write == nth).then(|| fault.clone())
}

fn harm(random: &mut fastrand::Rng) -> Fault {
    HARMS[random.usize(..HARMS.len())].clone()
}

/// What an API server that is out of order says to everything.
fn outage(random: &mut fastrand::Rng) -> Fault {
    match random.u8(0..4) {
        0 => Fault::HangUp,
        1 => Fault::Status(429),
        2 => Fault::Status(500),
        _ => Fault::Status(503),
    }
}

fn storm(seed: u64, permille: u16) -> Plan {
    let mut random = fastrand::Rng::with_seed(seed);
    Box::new(move |asked| {
        if random.u16(0..1_000) >= permille {
            return None;
        }
        Some(match (asked.verb, random.u8(0..4)) {
            (Verb::Watch, 0) => Fault::Watch(WatchFault::Gone(Duration::from_millis(random.u64(1..1_000)))),
            (Verb::Watch, 1) => Fault::Watch(WatchFault::Lags(Duration::from_millis(random.u64(1..2_000)))),
            (Verb::Watch, _) => {
                Fault::Watch(WatchFault::BreaksAfter(Duration::from_millis(random.u64(1..2_000))))
            }
            // Crashes and hanging are rarer: with them alone nothing would ever get on.
            (_, 0) if random.u8(0..4) > 0 => Fault::Slow(Duration::from_millis(random.u64(1..300))),
            _ => harm(&mut random),
        })
    })
}

impl fmt::Display for Weather {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}
