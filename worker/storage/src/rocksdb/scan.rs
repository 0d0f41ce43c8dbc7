//! The boundary between how samples are kept and what queries make of them.

use crate::model::{Having, TimeRange};
use crate::store::{QueryContext, Result};

use super::summary::{HourSummary, Wanted};

/// A stretch of one series: what it did in a whole UTC hour, or its samples.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Every sample of one UTC hour that lies wholly in the scanned range, as a summary.
    Hour(&'a HourSummary),
    /// Samples: equally long, times strictly ascending, all in the scanned range.
    Samples {
        /// Unix milliseconds.
        times: &'a [i64],
        /// Values.
        values: &'a [f64],
    },
}

/// How much of each sample a scan must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Whether there is one: a series with a sample in range gets exactly one piece, of either kind.
    Existence,
    /// Hour summaries where they may answer, of which this is wanted; samples elsewhere.
    Hours(Wanted),
    /// Samples only.
    Samples,
}

/// Values of which it makes no difference how small or how great they are: one may be given as any other on its side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Indifference {
    /// Those that are at most this.
    pub at_most: f64,
    /// Those that are at least this.
    pub at_least: f64,
}

impl Indifference {
    /// To no value.
    pub const NONE: Self = Self { at_most: f64::NEG_INFINITY, at_least: f64::INFINITY };

    /// To values that `having` doesn't admit.
    #[must_use]
    pub fn outside(having: &Having) -> Self {
        let below = [having.gt, having.gte.map(f64::next_down)].into_iter().flatten();
        let above = [having.lt, having.lte.map(f64::next_up)].into_iter().flatten();
        Self {
            at_most: below.fold(f64::NEG_INFINITY, f64::max),
            at_least: above.fold(f64::INFINITY, f64::min),
        }
    }

    /// To what either is.
    #[must_use]
    pub fn or(&self, other: Self) -> Self {
        let (at_most, at_least) = (self.at_most.max(other.at_most), self.at_least.min(other.at_least));
        Self { at_most, at_least }
    }

    /// Whether there is a value to which it is.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::NONE
    }

    /// A value that may stand for all of a stretch's, of which these are the least and the greatest.
    #[must_use]
    pub fn one_for(&self, min: f64, max: f64) -> Option<f64> {
        match (max <= self.at_most, min >= self.at_least) {
            (true, _) => Some(max),
            (_, true) => Some(min),
            _ => None,
        }
    }
}

/// What a scan reads.
#[derive(Debug, Clone, Copy)]
pub struct ScanSpec {
    /// The metric's number.
    pub metric: u32,
    /// When.
    pub range: TimeRange,
    /// How much.
    pub detail: Detail,
    /// Which values needn't be as they are, where samples are given.
    pub indifferent: Indifference,
}

impl ScanSpec {
    /// Reads every value as it is.
    #[must_use]
    pub fn exact(metric: u32, range: TimeRange, detail: Detail) -> Self {
        Self { metric, range, detail, indifferent: Indifference::NONE }
    }
}

/// What a scan would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanEstimate {
    /// Samples in the pages and head blocks that it would touch.
    pub samples: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Takes the pieces of a scan: the position in the scanned ids, and the next stretch of that series.
pub type Visitor<'a> = dyn FnMut(usize, Piece<'_>) -> Result<()> + 'a;

/// Something that can be scanned by series; one snapshot of the store, shared by a query's tasks.
///
/// Duplicates are merged, deleted and expired samples left out.
pub trait SeriesScan: Sync {
    /// Visits the series `ids` (ascending) one after another in that order, the pieces of each in
    /// time order and disjoint; a series without a sample in range is not visited.
    ///
    /// # Errors
    /// What the visitor returns; `Cancelled`, `Timeout`, `QueryTooLarge` by `context`; `Corrupt`.
    fn scan(
        &self,
        spec: &ScanSpec,
        ids: &[u32],
        context: &QueryContext,
        visit: &mut Visitor<'_>,
    ) -> Result<()>;

    /// What [`SeriesScan::scan`] would cost.
    fn estimate(&self, spec: &ScanSpec, ids: &[u32]) -> ScanEstimate;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_without_an_admitted_value_is_stood_for_by_one_that_is_not_admitted() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut bound = |numbers: [f64; 3]| numbers.get(random.usize(..4)).copied();
        for _ in 0..2_000 {
            let having = Having {
                gt: bound([-1.0, 0.0, 2.0]),
                gte: bound([-1.0, 0.5, f64::MAX]),
                lt: bound([1.0, 2.0, 3.0]),
                lte: bound([0.0, 2.5, f64::MIN]),
            };
            let indifferent = Indifference::outside(&having);
            for (min, max) in [(-2.0, -1.0), (0.0, 0.0), (0.0, 0.5), (-1.0, 3.0), (2.0, 2.5), (3.0, 4.0)] {
                let stand_in = indifferent.one_for(min, max);
                assert!(stand_in.is_none_or(|value| !having.admits(value)), "{having:?} {min} {max}");
                let below = having.gt.is_some_and(|gt| max <= gt) || having.gte.is_some_and(|gte| max < gte);
                let above = having.lt.is_some_and(|lt| min >= lt) || having.lte.is_some_and(|lte| min > lte);
                assert_eq!(stand_in.is_some(), below || above, "{having:?} {min} {max}");
            }
        }
    }
}
