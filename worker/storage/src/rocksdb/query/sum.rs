//! Sums that lose neither low bits nor a finite result.

/// What is about to overflow goes on at this scale.
const SCALE: f64 = 1.0 / 18_446_744_073_709_551_616.0;
/// Values added up in lanes before their sum is added exactly: the error stays below 2^-45 of Σ|terms|.
const BLOCK: usize = 1_024;
const LANES: usize = 8;

/// A compensated sum (Neumaier), so that the order of terms hardly matters.
///
/// An overflow in between is harmless as long as the whole sum is finite; a term that overflowed
/// before, as the sum of an hour may, leaves it infinite.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    high: f64,
    low: f64,
    /// What would have overflowed, times [`SCALE`].
    spilled: f64,
}

impl Sum {
    /// Adds one term.
    pub fn add(&mut self, term: f64) {
        let high = self.high + term;
        if !high.is_finite() {
            self.spilled += self.high * SCALE + term * SCALE;
            self.high = 0.0;
            return;
        }
        self.low += match self.high.abs() >= term.abs() {
            true => (self.high - high) + term,
            false => (term - high) + self.high,
        };
        self.high = high;
    }

    /// Adds many terms.
    pub fn add_all(&mut self, terms: &[f64]) {
        for block in terms.chunks(BLOCK) {
            let sum = if let [one] = block { *one } else { sum_in_lanes(block) };
            if sum.is_finite() {
                self.add(sum);
            } else {
                block.iter().for_each(|term| self.add(*term));
            }
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        self.add(other.high);
        self.low += other.low;
        self.spilled += other.spilled;
    }

    /// The sum; not finite where it overflows.
    #[must_use]
    pub fn total(&self) -> f64 {
        let rest = self.high + self.low;
        if self.spilled == 0.0 { rest } else { (self.spilled + rest * SCALE) / SCALE }
    }
}

/// Eight sums at once, which a compiler turns into vector instructions.
fn sum_in_lanes(values: &[f64]) -> f64 {
    let (eights, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(terms: &[f64]) -> f64 {
        let mut sum = Sum::default();
        terms.iter().for_each(|term| sum.add(*term));
        sum.total()
    }

    #[test]
    fn low_bits_are_kept() {
        assert_eq!(total(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(total(&vec![0.1; 1_000_000]), 100_000.0);
        assert_eq!(total(&[5e-324]), 5e-324);
    }

    #[test]
    fn an_overflow_in_between_is_harmless_and_one_of_the_whole_stays() {
        assert_eq!(total(&[1e308, 1e308, -1e308, -1e308, 3.0]), 3.0);
        assert_eq!(total(&[1e308, 1e308, 1e308, -1.5e308, -1e308]), 5e307);
        assert_eq!(total(&[1e308, 1e308]), f64::INFINITY);
        assert_eq!(total(&[-1e308, -1e308]), f64::NEG_INFINITY);
        assert!(!total(&[f64::INFINITY, 1.0]).is_finite());
    }

    #[test]
    fn terms_one_by_one_together_and_merged_agree() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..200 {
            let huge = if round % 4 == 0 { 1e308 } else { 1e6 };
            let terms: Vec<f64> = (0..random.usize(0..5_000)).map(|_| (random.f64() - 0.5) * huge).collect();
            let plain = total(&terms);
            let scale: f64 = terms.iter().map(|term| (term / huge).abs()).sum();
            let (left, right) = terms.split_at(random.usize(0..=terms.len()));
            let (mut sum, mut other) = (Sum::default(), Sum::default());
            sum.add_all(left);
            other.add_all(right);
            sum.merge(other);
            let (one, other) = (sum.total() / huge, plain / huge);
            assert!(one == other || (one - other).abs() <= 1e-12 * scale.max(1.0), "round {round}");
        }
    }
}
