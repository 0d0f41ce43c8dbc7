//! The boundary between how samples are kept and what queries make of them.

use crate::model::TimeRange;
use crate::store::{QueryContext, Result};

use super::summary::HourSummary;

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
    /// Hour summaries where they may answer, samples elsewhere.
    Hours,
    /// Samples only.
    Samples,
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
