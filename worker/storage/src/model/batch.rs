//! What a client wrote, as columns.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::name::MetricName;
use super::series::Dimensions;

/// The hash of a series as a client spelled it: raw bytes, before any parsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spelling(pub u128);

/// Hashes spellings with a secret of this process, so that no client can aim at a collision.
#[derive(Clone)]
pub struct SpellingHasher(Box<[u8; 192]>);

impl SpellingHasher {
    /// A hasher over `secret` (192 random bytes).
    #[must_use]
    pub fn new(secret: [u8; 192]) -> Self {
        Self(Box::new(secret))
    }

    /// The spelling of a series written as `bytes`; a wire format puts its own tag in front, so
    /// that equal bytes of two formats differ.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> Spelling {
        Spelling(xxh3_128_with_secret(bytes, self.0.as_slice()))
    }
}

impl fmt::Debug for SpellingHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SpellingHasher(…)")
    }
}

/// A series that the store knows already: the store's own number for it, opaque to everyone else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesHandle(pub u32);

/// The series of a row: one that the store knows, or the n-th of [`Batch::new_series`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSeries {
    /// Known to the store.
    Known(SeriesHandle),
    /// Described in the batch; not necessarily new to the store.
    New(u32),
}

/// A series that the batch describes in full.
#[derive(Debug, Clone)]
pub struct NewSeries {
    /// Its metric.
    pub metric: MetricName,
    /// Its dimensions.
    pub dimensions: Dimensions,
    /// How the client spelled it, for the store to remember.
    pub spelling: Option<Spelling>,
}

/// What a write may create at most; known series are never refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Metrics of the tenant.
    pub max_metrics: u64,
    /// Series of one metric.
    pub max_series_per_metric: u64,
}

impl SeriesLimits {
    /// No limit.
    pub const NONE: Self = Self { max_metrics: u64::MAX, max_series_per_metric: u64::MAX };
    /// Nothing new at all.
    pub const NOTHING_NEW: Self = Self { max_metrics: 0, max_series_per_metric: 0 };
}

/// Bytes of a row in its columns.
const ROW: usize = size_of::<RowSeries>() + size_of::<i64>() + size_of::<f64>();
/// Bytes of a dimension besides its texts: two references, and what the allocator keeps of each text.
const TEXTS: usize = 64;

/// The samples of one request in columns of equal length; row n is `(series[n], timestamps[n], values[n])`.
///
/// Rows are in the client's order: of two for the same series and millisecond the later wins.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The series of each row.
    pub series: Vec<RowSeries>,
    /// Unix milliseconds of each row, inside the accepted window.
    pub timestamps: Vec<i64>,
    /// The finite value of each row.
    pub values: Vec<f64>,
    /// The series described in this batch.
    pub new_series: Vec<NewSeries>,
    /// What the write may create.
    pub limits: SeriesLimits,
}

impl Batch {
    /// An empty batch under `limits`.
    #[must_use]
    pub fn new(limits: SeriesLimits) -> Self {
        Self {
            series: Vec::new(),
            timestamps: Vec::new(),
            values: Vec::new(),
            new_series: Vec::new(),
            limits,
        }
    }

    /// Describes a series and returns what its rows refer to.
    pub fn describe(&mut self, series: NewSeries) -> RowSeries {
        let index = u32::try_from(self.new_series.len()).unwrap_or(u32::MAX);
        self.new_series.push(series);
        RowSeries::New(index)
    }

    /// Appends a row.
    pub fn push(&mut self, series: RowSeries, timestamp: i64, value: f64) {
        debug_assert!(value.is_finite());
        self.series.push(series);
        self.timestamps.push(timestamp);
        self.values.push(value);
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let described = |series: &NewSeries| {
            let texts = series.dimensions.iter().map(|(key, value)| key.as_str().len() + value.len() + TEXTS);
            texts.sum::<usize>() + size_of::<NewSeries>()
        };
        (self.len() * ROW + self.new_series.iter().map(described).sum::<usize>()) as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}
