//! What a decoder of writes has read, whichever way its series were found.

use std::collections::HashMap;
use std::fmt::Debug;

use luminate_storage::model::{
    DimensionLimits, Dimensions, MetricName, RowSeries, SeriesHandle, SeriesLimits, Spelling, SpellingHasher,
};
use luminate_storage::store::SeriesLookup;
use luminate_worker::ingest::{Decoded, Rules};

use crate::{memory, seeded};

/// 2026-01-01T00:00:00Z.
pub const NOW: i64 = 1_767_225_600_000;
/// What a request takes however small it is: its answer lists a hundred errors.
const BASE: usize = 1 << 20;
/// Most bytes held for a byte of a request.
const RATIO: usize = 64;

/// The rules that all targets decode by.
#[must_use]
pub fn rules() -> Rules {
    Rules {
        now: NOW,
        max_age: 7 * 86_400_000,
        max_future: 3_600_000,
        max_batch: 10_000,
        dimensions: DimensionLimits::default(),
        series: SeriesLimits::NONE,
    }
}

/// A row: metric, dimensions, time, and its value's bits.
pub type Row = (String, Vec<(String, String)>, i64, u64);

/// A row of checked names, or nothing where the model refuses them.
#[must_use]
pub fn row(metric: &str, pairs: &[(String, String)], time: i64, value: f64) -> Option<Row> {
    let metric = MetricName::new(metric).ok()?;
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let dimensions = Dimensions::new(pairs, &DimensionLimits::default()).ok()?;
    Some(row_of(&metric, &dimensions, time, value))
}

fn row_of(metric: &MetricName, dimensions: &Dimensions, time: i64, value: f64) -> Row {
    let pairs = dimensions.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    (metric.to_string(), pairs, time, value.to_bits())
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Read {
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// How many were refused.
    pub refused: u64,
    /// How many were left out without being an error.
    pub dropped: u64,
}

struct Known {
    hasher: SpellingHasher,
    handles: HashMap<Spelling, SeriesHandle>,
    series: Vec<(MetricName, Dimensions)>,
}

impl Known {
    fn none() -> Self {
        Self { hasher: SpellingHasher::new([7; 192]), handles: HashMap::new(), series: Vec::new() }
    }

    fn learn(&mut self, decoded: &Decoded) {
        for series in &decoded.batch.new_series {
            let spelling = series.spelling.expect("every series has a spelling");
            let next = SeriesHandle(self.series.len() as u32);
            assert!(self.handles.insert(spelling, next).is_none(), "a series is described twice");
            self.series.push((series.metric.clone(), series.dimensions.clone()));
        }
    }

    fn read(&self, decoded: &Decoded) -> Read {
        let batch = &decoded.batch;
        let row = |at: usize| {
            let (metric, dimensions) = match batch.series[at] {
                RowSeries::Known(SeriesHandle(known)) => {
                    let (metric, dimensions) = &self.series[known as usize];
                    (metric, dimensions)
                }
                RowSeries::New(new) => {
                    let series = &batch.new_series[new as usize];
                    (&series.metric, &series.dimensions)
                }
            };
            let (time, value) = (batch.timestamps[at], batch.values[at]);
            assert!(rules().accepts(time) && value.is_finite(), "{metric} at {time}: {value}");
            row_of(metric, dimensions, time, value)
        };
        Read {
            rows: (0..batch.len()).map(row).collect(),
            refused: decoded.rejections.total(),
            dropped: decoded.dropped,
        }
    }
}

impl SeriesLookup for Known {
    fn hasher(&self) -> &SpellingHasher {
        &self.hasher
    }

    fn find(&self, spelling: Spelling) -> Option<SeriesHandle> {
        self.handles.get(&spelling).copied()
    }
}

/// Decodes a request of `length` bytes twice: with nothing known, and with every series known that it describes. Both
/// must read the same, keep to the rules, and take memory in proportion.
///
/// # Errors
/// The request is refused as a whole, both times.
pub fn twice<E: Debug>(
    length: usize,
    decode: impl Fn(&dyn SeriesLookup) -> Result<Decoded, E>,
) -> Result<Read, E> {
    twice_within(BASE + RATIO * length, decode)
}

/// [`twice`], with at most so many bytes held.
///
/// # Errors
/// The request is refused as a whole, both times.
pub fn twice_within<E: Debug>(
    most: usize,
    decode: impl Fn(&dyn SeriesLookup) -> Result<Decoded, E>,
) -> Result<Read, E> {
    let mut known = Known::none();
    let first = memory::within(most, || decode(&known))?;
    let mut read = known.read(&first);
    known.learn(&first);
    let second = decode(&known).expect("what was read once is read again");
    assert!(second.batch.new_series.is_empty(), "a known series is described");
    assert_eq!(known.read(&second), read);
    assert_eq!(second.rejections, first.rejections);
    read.rows.retain(|(_, pairs, ..)| !pairs.iter().any(|(key, _)| seeded::loses(key)));
    Ok(read)
}

/// What several requests amount to.
#[must_use]
pub fn sum(reads: impl IntoIterator<Item = Read>) -> Read {
    reads.into_iter().fold(Read::default(), |mut sum, read| {
        sum.rows.extend(read.rows);
        sum.refused += read.refused;
        sum.dropped += read.dropped;
        sum
    })
}
