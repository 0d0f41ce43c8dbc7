//! A fleet of machines over time: what each of them measures, round after round, by seed.

use fastrand::Rng;

use super::data::{METRICS, Shape, Values};

/// Milliseconds between two rounds.
pub const STEP: i64 = 10_000;
/// Rounds in which a churning fleet replaces its share of machines: ten minutes.
const ROUNDS_OF_CHURN: usize = 60;
/// Samples lie between the edges of whole seconds' buckets, so that it doesn't matter which edge of a window is open.
const OFFSET: i64 = STEP / 2;

/// Machines with ten metrics each.
#[derive(Debug, Clone)]
pub struct Fleet {
    hosts: usize,
    churn: f64,
    start: i64,
    round: usize,
    values: Vec<Values>,
    rng: Rng,
}

/// What a fleet measured at one time.
#[derive(Debug, Clone)]
pub struct Round {
    /// Unix milliseconds.
    pub time: i64,
    /// The machine in each place.
    pub machines: Vec<usize>,
    /// The ten values of each place, in the order of [`METRICS`].
    pub values: Vec<f64>,
}

impl Fleet {
    /// A fleet of `series / 10` machines, whose first round is a little after `start`, where that is a multiple of [`STEP`].
    #[must_use]
    pub fn new(series: usize, shape: Shape, start: i64, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let hosts = series / METRICS.len();
        let values = (0..hosts * METRICS.len()).map(|_| Values::new(shape, &mut rng)).collect();
        Self { hosts, churn: 0.0, start: start / STEP * STEP + OFFSET, round: 0, values, rng }
    }

    /// The same, but that share of its machines is replaced every ten minutes, evenly over time.
    #[must_use]
    pub fn churning(mut self, share: f64) -> Self {
        self.churn = share;
        self
    }

    /// The next round, ten seconds after the last.
    pub fn next_round(&mut self) -> Round {
        let time = self.start + STEP * self.round as i64;
        let replaced = self.replaced();
        let machines = (0..self.hosts).map(|place| machine(place, self.hosts, replaced)).collect();
        let values = self.values.iter_mut().map(|values| values.next(&mut self.rng)).collect();
        self.round += 1;
        Round { time, machines, values }
    }

    /// The next rounds.
    pub fn rounds(&mut self, count: usize) -> Vec<Round> {
        (0..count).map(|_| self.next_round()).collect()
    }

    /// Machines that were replaced before the next round.
    fn replaced(&self) -> usize {
        (self.hosts as f64 * self.churn * self.round as f64 / ROUNDS_OF_CHURN as f64) as usize
    }
}

/// Who is in `place` after so many were replaced, one place after the other.
fn machine(place: usize, hosts: usize, replaced: usize) -> usize {
    place + hosts * ((replaced + hosts - 1 - place) / hosts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_is_the_same_fleet() {
        let mut fleets = [7, 7, 8].map(|seed| Fleet::new(100, Shape::Decimals, 1_000_000, seed));
        let [one, same, other] = fleets.each_mut().map(|fleet| fleet.rounds(3));
        assert_eq!(one[2].values, same[2].values);
        assert_ne!(one[2].values, other[2].values);
        assert_eq!(one.iter().map(|round| round.time).collect::<Vec<_>>(), [1_005_000, 1_015_000, 1_025_000]);
    }

    #[test]
    fn a_steady_fleet_keeps_its_machines_and_a_churning_one_replaces_a_tenth() {
        let machines = |churn: f64, rounds: usize| -> BTreeSet<usize> {
            let mut fleet = Fleet::new(1_000, Shape::Counter, 0, 1).churning(churn);
            fleet.rounds(rounds).into_iter().flat_map(|round| round.machines).collect()
        };
        assert_eq!(machines(0.0, 61), (0..100).collect());
        assert_eq!(machines(0.1, 1), (0..100).collect());
        assert_eq!(machines(0.1, 61), (0..110).collect());
        // After eleven times as long the first tenth is replaced for the second time.
        assert_eq!(machines(0.1, 661), (0..210).collect());
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        let of = |shape| Fleet::new(50, shape, 0, 3).rounds(40).into_iter().flat_map(|round| round.values);
        assert!(of(Shape::Percent).all(|value| value.fract() == 0.0 && (0.0..=100.0).contains(&value)));
        let decimals =
            |value: f64, places: i32| (value * 10f64.powi(places)).round() / 10f64.powi(places) == value;
        assert!(of(Shape::Decimals).all(|value| decimals(value, 2)));
        assert!(of(Shape::Latency).all(|value| value > 0.0 && decimals(value, 3)));
        let distinct: BTreeSet<u64> = of(Shape::Entropy).map(f64::to_bits).collect();
        assert_eq!(distinct.len(), 2_000, "no value twice");
        let mut counters = Fleet::new(50, Shape::Counter, 0, 3);
        let (first, second) = (counters.next_round().values, counters.next_round().values);
        assert!(first.iter().zip(&second).all(|(before, after)| before <= after));
    }
}
