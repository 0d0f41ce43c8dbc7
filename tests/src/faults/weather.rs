//! What a plan does to requests, workers and server.

use std::fmt;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fault_proxy::{Asked, Fault, FaultProxy, Kind};

/// Which requests may be harmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Samples,
    Series,
    Inserts,
    All,
}

/// What happens in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing.
    None,
    /// The server can't be reached.
    Cut,
    /// A worker is killed and started again.
    KillWorker,
    /// The server is killed and started again.
    KillServer,
    /// The server ends in good order and is started again.
    RestartServer,
}

/// A plan.
#[derive(Debug, Clone)]
pub struct Weather {
    /// How long it lasts.
    pub lasts: Duration,
    /// What happens in the middle.
    pub event: Event,
    seed: u64,
    target: Target,
    /// Of 100 requests so many are harmed.
    percent: u8,
    /// In one of these ways.
    kinds: Vec<Fault>,
}

impl fmt::Display for Weather {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lasts, event, seed: _, target, percent, kinds } = self;
        write!(formatter, "{percent} % of {target:?}, {kinds:?}, {event:?}, {} ms", lasts.as_millis())
    }
}

impl Weather {
    /// A random one.
    #[must_use]
    pub fn new(random: &mut fastrand::Rng) -> Self {
        Self {
            lasts: Duration::from_millis(random.u64(50..400)),
            event: match random.u8(..40) {
                0 => Event::KillServer,
                1 => Event::RestartServer,
                2..4 => Event::KillWorker,
                4..8 => Event::Cut,
                _ => Event::None,
            },
            seed: random.u64(..),
            target: match random.u8(..8) {
                0..3 => Target::Samples,
                3 => Target::Series,
                4..7 => Target::Inserts,
                _ => Target::All,
            },
            percent: if random.u8(..4) == 0 { 100 } else { random.u8(10..90) },
            kinds: (0..random.usize(1..4)).map(|_| fault(random)).collect(),
        }
    }

    /// Makes a proxy harm requests so, until it is healed.
    pub fn begin(&self, proxy: &FaultProxy) {
        let own = self.clone();
        proxy.plan(move |asked| own.fault(asked));
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let meant = match self.target {
            Target::Samples => asked.table == "samples",
            Target::Series => asked.table == "series",
            Target::Inserts => asked.kind == Kind::Insert,
            Target::All => true,
        };
        // The same for the nth request of a kind whatever the order of the others.
        let place = format!("{:?} {} {}", asked.kind, asked.table, asked.nth);
        let mut random = fastrand::Rng::with_seed(xxh3_64_with_seed(place.as_bytes(), self.seed));
        let harmed = meant && random.u8(..100) < self.percent;
        harmed.then(|| self.kinds[random.usize(..self.kinds.len())].clone())
    }
}

fn fault(random: &mut fastrand::Rng) -> Fault {
    const REFUSED: [u32; 11] = [252, 241, 242, 164, 159, 202, 319, 497, 516, 999, 210];
    const UNSURE: [u32; 4] = [319, 159, 210, 236];
    let refused = REFUSED[random.usize(..REFUSED.len())];
    let unsure = UNSURE[random.usize(..UNSURE.len())];
    let long = random.u8(..8) == 0;
    let time = Duration::from_millis(if long { random.u64(1_500..3_000) } else { random.u64(5..300) });
    match random.u8(..16) {
        0 => Fault::Hang(time),
        1 => Fault::Status([500, 502, 503, 504][random.usize(..4)]),
        2..4 => Fault::Exception(refused),
        4 => Fault::LateException(refused),
        5 => Fault::TaggedException(refused),
        6 => Fault::ResetSending,
        7 => Fault::ResetUnanswered,
        8 => Fault::Slow(time),
        9 => Fault::SlowAnswer(time),
        10..12 => Fault::LostAnswer,
        12 => Fault::CutAnswer,
        13 => Fault::ExceptionAfterwards(unsure),
        14 => Fault::LateExceptionAfterwards(unsure),
        _ => Fault::TaggedExceptionAfterwards(unsure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_fate_depends_on_its_number_alone() {
        let mut random = fastrand::Rng::with_seed(3);
        let asked = |nth| Asked { kind: Kind::Insert, table: "samples".into(), nth, sql: String::new() };
        for _ in 0..50 {
            let weather = Weather { target: Target::Samples, percent: 50, ..Weather::new(&mut random) };
            let fates: Vec<_> = (0..100).map(|nth| weather.fault(&asked(nth))).collect();
            let again: Vec<_> = (0..100).rev().map(|nth| weather.fault(&asked(nth))).collect();
            assert!(fates.iter().eq(again.iter().rev()));
            let harmed = fates.iter().flatten().count();
            assert!((20..80).contains(&harmed), "{harmed} of 100");
        }
    }
}
