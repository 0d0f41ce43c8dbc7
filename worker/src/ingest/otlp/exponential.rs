//! Exponential histograms: from buckets that grow by a factor to buckets with bounds.
//!
//! Bucket `i` of scale `s` holds the values in (2^(i·2⁻ˢ), 2^((i+1)·2⁻ˢ)]. A finer scale than [`SCALE`] is made
//! coarser by joining neighbours, which is exact: each bound of a scale is one of the next finer, too. So the bounds
//! are always the same few ones whatever scale a sender is at just now, and samples of several senders add up.

use super::points::Part;

/// The finest scale that is kept: four buckets to each power of two. A percentile that is interpolated in such a bucket
/// is off by at most 9 %, and a series is needed for each bucket, so a finer one would pay for little with much.
const SCALE: i64 = 2;
/// The coarsest scale that makes sense: its buckets are as wide as all that a float holds.
const COARSEST: i64 = -11;
/// 2^(n/4): a table, so that a bound is the same number, and the same text, on every machine.
const QUARTERS: [f64; 4] = [1.0, 1.189_207_115_002_721, std::f64::consts::SQRT_2, 1.681_792_830_507_429];

/// One side of a histogram: the counts of neighbouring buckets, and the first one's index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// Index of the first bucket.
    pub offset: i64,
    /// Counts, from the first bucket on.
    pub counts: Vec<u64>,
}

impl Side {
    /// Empties it.
    pub fn clear(&mut self) {
        self.offset = 0;
        self.counts.clear();
    }

    /// The buckets from the first to the last that holds anything.
    fn held(&self) -> impl DoubleEndedIterator<Item = (i64, u64)> + '_ {
        let filled = |count: &u64| *count > 0;
        let first = self.counts.iter().position(filled).unwrap_or(self.counts.len());
        let end = self.counts.iter().rposition(filled).map_or(first, |last| last + 1);
        let offset = self.offset;
        (first..end).map(move |at| (offset + at as i64, self.counts[at]))
    }
}

/// Appends the buckets of a histogram but that of everything, in the order of their bounds: each counts what is no
/// larger than its bound.
///
/// # Errors
/// The scale is none that exists.
pub fn expand(
    scale: i64,
    zero: (u64, f64),
    positive: &Side,
    negative: &Side,
    parts: &mut Vec<(Part, f64)>,
) -> Result<(), String> {
    if scale < COARSEST {
        return Err(format!("the scale {scale} is coarser than {COARSEST}"));
    }
    let mut buckets = Buckets { parts, last: f64::NEG_INFINITY, total: 0 };
    // 1. Below zero, from the largest size to the smallest: what is a bucket's lower bound above is its upper one here.
    for (at, (index, count)) in negative.held().rev().enumerate() {
        if at == 0 {
            buckets.bound(-bound(end(index, scale)));
        }
        buckets.total = buckets.total.saturating_add(count);
        buckets.bound(-bound(start(index, scale)));
    }
    // 2. About zero.
    buckets.total = buckets.total.saturating_add(zero.0);
    if buckets.total > 0 {
        buckets.bound(zero.1.max(0.0));
    }
    // 3. Above.
    for (at, (index, count)) in positive.held().enumerate() {
        if at == 0 {
            buckets.bound(bound(start(index, scale)));
        }
        buckets.total = buckets.total.saturating_add(count);
        buckets.bound(bound(end(index, scale)));
    }
    Ok(())
}

struct Buckets<'a> {
    parts: &'a mut Vec<(Part, f64)>,
    last: f64,
    total: u64,
}

impl Buckets<'_> {
    /// What was counted so far is no larger than `bound`. The bucket of the same bound is brought up to date.
    fn bound(&mut self, bound: f64) {
        if bound.is_finite() && bound > self.last {
            self.parts.push((Part::Bucket(bound), self.total as f64));
            self.last = bound;
        } else if bound == self.last
            && let Some((Part::Bucket(_), count)) = self.parts.last_mut()
        {
            *count = self.total as f64;
        }
    }
}

/// Where the bucket begins that bucket `index` of `scale` becomes a part of, as quarters of a power of two.
fn start(index: i64, scale: i64) -> i64 {
    match scale - SCALE {
        finer @ 0.. => index >> finer.min(63),
        coarser => index.saturating_mul(1 << -coarser),
    }
}

/// Where it ends.
fn end(index: i64, scale: i64) -> i64 {
    match scale - SCALE {
        finer @ 0.. => (index >> finer.min(63)) + 1,
        coarser => index.saturating_add(1).saturating_mul(1 << -coarser),
    }
}

/// 2^(quarters/4); infinite past what a float holds, and 0 below what it holds in full.
fn bound(quarters: i64) -> f64 {
    let exponent = quarters.div_euclid(4);
    let fraction = QUARTERS[quarters.rem_euclid(4) as usize];
    match u64::try_from(exponent.saturating_add(1_023)) {
        Ok(biased @ 1..=2_046) => fraction * f64::from_bits(biased << 52),
        Ok(2_047..) => f64::INFINITY,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(offset: i64, counts: &[u64]) -> Side {
        Side { offset, counts: counts.to_vec() }
    }

    fn expanded(scale: i64, zero: (u64, f64), positive: &Side, negative: &Side) -> Vec<(f64, f64)> {
        let mut parts = Vec::new();
        expand(scale, zero, positive, negative, &mut parts).unwrap();
        let bucket = |(part, count): (Part, f64)| match part {
            Part::Bucket(bound) => (bound, count),
            other => panic!("{other:?}"),
        };
        parts.into_iter().map(bucket).collect()
    }

    #[test]
    fn buckets_lie_between_powers_of_two() {
        let none = Side::default();
        assert_eq!(
            expanded(0, (0, 0.0), &side(0, &[1, 0, 2]), &none),
            [(1.0, 0.0), (2.0, 1.0), (4.0, 1.0), (8.0, 3.0)]
        );
        assert_eq!(expanded(-1, (0, 0.0), &side(-1, &[5]), &none), [(0.25, 0.0), (1.0, 5.0)]);
        let quarters = expanded(2, (0, 0.0), &side(-2, &[1, 1, 1, 1]), &none);
        let expected = [-2, -1, 0, 1, 2].map(|at| 2f64.powf(f64::from(at) / 4.0));
        for ((found, count), (at, wanted)) in quarters.iter().zip(expected.iter().enumerate()) {
            assert!((found / wanted - 1.0).abs() < 1e-15 && *count == at as f64, "{found} {wanted}");
        }
    }

    #[test]
    fn finer_scales_are_joined_to_the_same_bounds() {
        let mut random = fastrand::Rng::with_seed(9);
        for scale in -3..=20 {
            let mut side =
                || side(random.i64(-300..300), &(0..160).map(|_| random.u64(0..9)).collect::<Vec<_>>());
            let (positive, negative) = (side(), side());
            let found = expanded(scale, (5, 0.0), &positive, &negative);
            // Each bucket's middle with its count, by the definition.
            let middles = |side: &Side| {
                let middle = |at: usize| ((side.offset + at as i64) as f64 + 0.5) / 2f64.powi(scale as i32);
                side.counts
                    .iter()
                    .enumerate()
                    .map(|(at, count)| (middle(at).exp2(), *count))
                    .collect::<Vec<_>>()
            };
            let mut values = middles(&positive);
            values.extend(middles(&negative).into_iter().map(|(value, count)| (-value, count)));
            values.push((0.0, 5));
            for (bound, count) in &found {
                let held =
                    values.iter().filter(|(value, _)| value <= bound).map(|(_, count)| count).sum::<u64>();
                assert_eq!(held as f64, *count, "{scale} {bound}");
            }
            let total = values.iter().map(|(_, count)| count).sum::<u64>();
            let finite = values.iter().all(|(value, _)| value.abs() < 1e300);
            assert!(!finite || found.last().unwrap().1 == total as f64, "{scale}");
            assert!(found.is_sorted_by(|left, right| left.0 < right.0), "{scale}");
        }
    }

    #[test]
    fn the_bound_below_the_first_bucket_is_given_too() {
        // The value 1 at a fine scale: in (0.84, 1].
        let lower = 1.681_792_830_507_429 / 2.0;
        assert_eq!(expanded(20, (0, 0.0), &side(-1, &[3]), &Side::default()), [(lower, 0.0), (1.0, 3.0)]);
        assert_eq!(
            expanded(20, (0, 0.0), &Side::default(), &side(-1, &[3])),
            [(-1.0, 0.0), (-lower, 3.0), (0.0, 3.0)]
        );
    }

    #[test]
    fn negative_values_and_zeros_come_first() {
        let found = expanded(0, (7, 0.5), &side(0, &[2]), &side(1, &[1, 4]));
        assert_eq!(found, [(-8.0, 0.0), (-4.0, 4.0), (-2.0, 5.0), (0.5, 12.0), (1.0, 12.0), (2.0, 14.0)]);
        assert_eq!(expanded(0, (3, 0.0), &Side::default(), &Side::default()), [(0.0, 3.0)]);
        assert_eq!(expanded(0, (0, 0.0), &side(5, &[0, 0]), &Side::default()), []);
    }

    #[test]
    fn bounds_past_what_a_float_holds_are_left_to_the_bucket_of_everything() {
        let none = Side::default();
        assert_eq!(
            expanded(0, (0, 0.0), &side(1_022, &[1, 1, 1]), &none),
            [(2f64.powi(1_022), 0.0), (2f64.powi(1_023), 1.0)]
        );
        assert_eq!(expanded(-11, (0, 0.0), &side(i64::from(i32::MAX), &[1]), &none), []);
        assert_eq!(expanded(0, (0, 0.0), &side(-2_000, &[1, 1]), &none), [(0.0, 2.0)]);
        assert!(expand(-12, (0, 0.0), &none, &none, &mut Vec::new()).is_err());
    }
}
