//! Wire formats: bytes become a columnar [`Batch`], one format a file.
//!
//! Each decoder is given the decoded body, the [`Rules`] of the request and the tenant's
//! [`luminate_storage::store::SeriesLookup`], and returns a [`Decoded`]. A series that the store
//! knows costs one hash of the bytes that spell it; only an unknown spelling is parsed. So the bytes
//! that a decoder hashes must be self-delimiting: equal bytes were once validated as a whole.

pub mod body;
pub mod bulk;
pub mod exposition;
pub mod json;
pub mod line;
mod number;
pub mod otlp;
pub mod remote_write;
pub mod timestamp;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use luminate_storage::model::{
    Batch, DimensionLimits, Dimensions, InvalidDimensions, InvalidName, MAX_METRIC_CHARS, MetricName,
    NewSeries, RowSeries, SeriesHandle, SeriesLimits, Spelling,
};
use luminate_storage::store::{Refusal, SeriesLookup};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Code;

/// Most errors that an answer lists; all are counted.
pub const MAX_LISTED_ERRORS: usize = 100;

/// What a request's samples must keep to.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Time of receipt, in Unix milliseconds: the one clock reading of the request.
    pub now: i64,
    /// Oldest sample accepted, in milliseconds before `now`.
    pub max_age: i64,
    /// Latest sample accepted, in milliseconds after `now`.
    pub max_future: i64,
    /// Most samples of a request.
    pub max_batch: usize,
    /// What dimensions must keep to.
    pub dimensions: DimensionLimits,
    /// What the write may create.
    pub series: SeriesLimits,
}

impl Rules {
    /// Whether a sample of `timestamp` is accepted.
    #[must_use]
    pub fn accepts(&self, timestamp: i64) -> bool {
        timestamp >= self.now.saturating_sub(self.max_age)
            && timestamp <= self.now.saturating_add(self.max_future)
    }

    /// The refusal of a sample outside the window.
    fn outside(&self, timestamp: i64) -> Problem {
        let (from, to) = (self.now.saturating_sub(self.max_age), self.now.saturating_add(self.max_future));
        let message = format!("timestamp {timestamp} lies outside the accepted window {from} to {to}");
        Problem::new(Code::TimestampOutOfRange, message)
    }
}

/// A request has more samples than it may carry; nothing of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {max} samples in one request")]
pub struct TooManySamples {
    /// How many are allowed.
    pub max: usize,
}

/// One refused sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SampleError {
    /// Its place in the request, from 0.
    pub index: u32,
    /// Its metric as sent, where that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub metric: Option<Arc<str>>,
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub error: String,
}

/// Why a sample is refused, before it is known which one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    code: Code,
    error: String,
}

impl Problem {
    fn new(code: Code, error: impl Into<String>) -> Self {
        Self { code, error: error.into() }
    }
}

impl From<InvalidName> for Problem {
    fn from(reason: InvalidName) -> Self {
        Self::new(Code::InvalidMetricName, reason.to_string())
    }
}

impl From<InvalidDimensions> for Problem {
    fn from(reason: InvalidDimensions) -> Self {
        let code = match &reason {
            InvalidDimensions::Value { .. } => Code::InvalidDimensionValue,
            InvalidDimensions::TooMany { .. } => Code::TooManyDimensions,
            InvalidDimensions::Key { .. } | InvalidDimensions::Duplicate { .. } => Code::InvalidDimensionKey,
        };
        Self::new(code, reason.to_string())
    }
}

/// What is shown of a text that a client sent: at most as much as a metric's name may have.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(MAX_METRIC_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// A part of what a client sent as text; `what` names it in the refusal.
fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Problem> {
    let refused = |_| Problem::new(Code::InvalidSample, format!("{what} is not UTF-8"));
    std::str::from_utf8(bytes).map_err(refused)
}

/// Samples by why they were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counts(Vec<(Code, u64)>);

impl Counts {
    fn add(&mut self, code: Code, samples: u64) {
        match self.0.iter_mut().find(|(own, _)| *own == code) {
            Some((_, count)) => *count += samples,
            None => self.0.push((code, samples)),
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

/// The refused samples of a request: counted by code, the first [`MAX_LISTED_ERRORS`] listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejections {
    counts: Counts,
    listed: Vec<SampleError>,
}

impl Rejections {
    /// Counts a refused sample; lists it while there is room. `index` never decreases.
    fn push(&mut self, index: u32, metric: Option<Arc<str>>, problem: &Problem) {
        self.counts.add(problem.code, 1);
        if self.listed.len() < MAX_LISTED_ERRORS {
            let Problem { code, error } = problem.clone();
            self.listed.push(SampleError { index, metric, code, error });
        }
    }

    /// Samples refused.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.total()
    }

    /// Samples refused, by reason.
    #[must_use]
    pub fn counts(&self) -> &[(Code, u64)] {
        &self.counts.0
    }

    /// The first refused samples, by their place in the request.
    #[must_use]
    pub fn listed(&self) -> &[SampleError] {
        &self.listed
    }

    /// Adds what the store refused: `(place in the request, metric, why)`, ascending; of several at one place the
    /// first counts.
    pub fn add_refused(&mut self, refused: impl IntoIterator<Item = (u32, MetricName, Refusal)>) {
        let mut listed = Vec::new();
        let mut last = None;
        for (index, metric, refusal) in refused {
            if last.replace(index) == Some(index) {
                continue;
            }
            self.counts.add(Code::CardinalityLimit, 1);
            if listed.len() < MAX_LISTED_ERRORS {
                listed.push(cardinality_error(index, &metric, refusal));
            }
        }
        self.listed.append(&mut listed);
        self.listed.sort_by_key(|error| error.index);
        self.listed.truncate(MAX_LISTED_ERRORS);
    }
}

fn cardinality_error(index: u32, metric: &MetricName, refusal: Refusal) -> SampleError {
    let Problem { code, error } = cardinality_problem(refusal);
    SampleError { index, metric: Some(Arc::from(metric.as_str())), code, error }
}

fn cardinality_problem(refusal: Refusal) -> Problem {
    let error = match refusal {
        Refusal::MetricLimit { limit } => {
            format!("a new metric would pass the tenant's limit of {limit} metrics")
        }
        Refusal::SeriesLimit { limit } => {
            format!("a new series would pass the limit of {limit} series per metric")
        }
        Refusal::MemoryLimit => "the memory for series is used up; known series go on".to_owned(),
    };
    Problem::new(Code::CardinalityLimit, error)
}

/// A decoded request: rows to store, and what was left out.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The valid samples.
    pub batch: Batch,
    /// The refused ones.
    pub rejections: Rejections,
    /// Samples left out without being an error: NaN and ±Inf of remote write.
    pub dropped: u64,
    /// Places in the request that became no row, ascending.
    gaps: Vec<u32>,
    /// Rows that share the place of the row before them, ascending.
    joined: Vec<u32>,
}

impl Decoded {
    fn new(limits: SeriesLimits) -> Self {
        Self {
            batch: Batch::new(limits),
            rejections: Rejections::default(),
            dropped: 0,
            gaps: Vec::new(),
            joined: Vec::new(),
        }
    }

    /// The place in the request of the sample that comes next.
    fn next_index(&self) -> u32 {
        u32::try_from(self.batch.len() - self.joined.len() + self.gaps.len()).unwrap_or(u32::MAX)
    }

    /// Lets the row that comes next share the place of the last one: both stand for parts of one thing that was sent.
    fn join_next_row(&mut self) {
        self.joined.push(u32::try_from(self.batch.len()).unwrap_or(u32::MAX));
    }

    fn reject(&mut self, metric: Option<Arc<str>>, problem: &Problem) {
        let index = self.next_index();
        self.rejections.push(index, metric, problem);
        self.gaps.push(index);
    }

    fn drop_sample(&mut self) {
        self.dropped += 1;
        self.gaps.push(self.next_index());
    }

    /// What is needed, once the batch is with the store, to say which samples it refused.
    #[must_use]
    pub fn described_rows(&self) -> DescribedRows {
        if self.batch.new_series.is_empty() {
            return DescribedRows::default();
        }
        DescribedRows {
            rows: self.batch.series.clone(),
            metrics: self.batch.new_series.iter().map(|series| series.metric.clone()).collect(),
            gaps: self.gaps.clone(),
            joined: self.joined.clone(),
        }
    }
}

/// The series of a request: those that the store knows, and those that the batch describes, each once.
struct Resolver<'a> {
    lookup: &'a dyn SeriesLookup,
    described: HashMap<Spelling, RowSeries, BuildHasherDefault<AsItIs>>,
    /// The last series that was found.
    previous: SeriesHandle,
    /// Dimensions of the last series that wasn't: the next often has the same.
    dimensions: Dimensions,
}

/// A spelling is a hash already, keyed with a secret.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<'a> Resolver<'a> {
    fn new(lookup: &'a dyn SeriesLookup) -> Self {
        Self {
            lookup,
            described: HashMap::default(),
            previous: SeriesHandle(0),
            dimensions: Dimensions::default(),
        }
    }

    fn hash(&self, spelled: &[u8]) -> Spelling {
        self.lookup.hasher().hash(spelled)
    }

    fn find(&mut self, spelling: Spelling) -> Option<RowSeries> {
        match self.lookup.find_after(self.previous, spelling) {
            Some(handle) => {
                self.previous = handle;
                Some(RowSeries::Known(handle))
            }
            None if self.described.is_empty() => None,
            None => self.described.get(&spelling).copied(),
        }
    }

    /// The dimensions of a series to be described, under the limits of the request.
    fn dimensions<'p>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'p str, &'p str)>,
        limits: &DimensionLimits,
    ) -> Result<Dimensions, InvalidDimensions> {
        self.dimensions = Dimensions::like(&self.dimensions, pairs, limits)?;
        Ok(self.dimensions.clone())
    }

    fn describe(
        &mut self,
        batch: &mut Batch,
        metric: MetricName,
        dimensions: Dimensions,
        spelling: Spelling,
    ) -> RowSeries {
        let series = batch.describe(NewSeries { metric, dimensions, spelling: Some(spelling) });
        self.described.insert(spelling, series);
        series
    }
}

/// Where the rows of described series came from: only such a row can be refused by the store.
#[derive(Debug, Clone, Default)]
pub struct DescribedRows {
    rows: Vec<RowSeries>,
    metrics: Vec<MetricName>,
    gaps: Vec<u32>,
    joined: Vec<u32>,
}

impl DescribedRows {
    /// The places in the request and metrics of `refused` rows, ascending.
    pub fn locate<'a>(
        &'a self,
        refused: &'a [(u32, Refusal)],
    ) -> impl Iterator<Item = (u32, MetricName, Refusal)> + 'a {
        let mut gaps = self.gaps.iter().copied().peekable();
        let mut joined = self.joined.iter().copied().peekable();
        let (mut shift, mut shared) = (0, 0);
        refused.iter().filter_map(move |(row, refusal)| {
            while joined.next_if(|joined| joined <= row).is_some() {
                shared += 1;
            }
            let place = row - shared;
            while gaps.next_if(|gap| *gap <= place + shift).is_some() {
                shift += 1;
            }
            let Some(RowSeries::New(series)) = self.rows.get(*row as usize) else { return None };
            Some((place + shift, self.metrics.get(*series as usize)?.clone(), *refusal))
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A lookup whose content a test decides.

    use luminate_storage::model::SpellingHasher;

    use super::*;

    /// Knows what it is told.
    pub struct KnownSeries {
        hasher: SpellingHasher,
        known: HashMap<Spelling, SeriesHandle>,
    }

    impl KnownSeries {
        pub fn none() -> Self {
            Self { hasher: SpellingHasher::new([7; 192]), known: HashMap::new() }
        }

        /// Learns every series that `decoded` describes, numbered from where it stands.
        pub fn learn(&mut self, decoded: &Decoded) {
            for series in &decoded.batch.new_series {
                let next = SeriesHandle(self.known.len() as u32);
                if let Some(spelling) = series.spelling {
                    self.known.entry(spelling).or_insert(next);
                }
            }
        }
    }

    impl SeriesLookup for KnownSeries {
        fn hasher(&self) -> &SpellingHasher {
            &self.hasher
        }

        fn find(&self, spelling: Spelling) -> Option<SeriesHandle> {
            self.known.get(&spelling).copied()
        }
    }

    /// Rows of new series as `metric{key=value} time value`, the time since [`NOW`].
    pub fn rows(decoded: &Decoded) -> Vec<String> {
        let batch = &decoded.batch;
        let row = |at: usize| {
            let RowSeries::New(series) = batch.series[at] else { panic!("a new series") };
            let series = &batch.new_series[series as usize];
            let pairs = series.dimensions.iter().map(|(key, value)| format!("{key}={value}"));
            let pairs = pairs.collect::<Vec<_>>().join(",");
            let (time, value) = (batch.timestamps[at] - NOW, batch.values[at]);
            format!("{}{{{pairs}}} {time} {value}", series.metric.as_str())
        };
        (0..batch.len()).map(row).collect()
    }

    /// Refused samples as `place code: why`.
    pub fn errors(decoded: &Decoded) -> Vec<String> {
        let listed = decoded.rejections.listed().iter();
        listed.map(|error| format!("{} {:?}: {}", error.index, error.code, error.error)).collect()
    }

    /// 2026-01-01T00:00:00Z.
    pub const NOW: i64 = 1_767_225_600_000;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_rows_are_located_by_their_place_in_the_request() {
        let body =
            br#"{"metrics":[{"name":"a","value":"x"},{"name":"a","value":1},7,{"name":"b","value":1}]}"#;
        let decoded = json::decode(body, &testing::rules(), &testing::KnownSeries::none()).unwrap();
        let limit = Refusal::MetricLimit { limit: 1 };
        let described = decoded.described_rows();
        let located: Vec<_> = described.locate(&[(0, limit), (1, limit)]).collect();
        assert_eq!(
            located.iter().map(|(at, name, _)| (*at, name.as_str())).collect::<Vec<_>>(),
            [(1, "a"), (3, "b")]
        );
        let mut rejections = decoded.rejections;
        rejections.add_refused(located);
        assert_eq!(rejections.total(), 4);
        assert_eq!(rejections.listed().iter().map(|error| error.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(rejections.counts().last(), Some(&(Code::CardinalityLimit, 2)));
    }

    #[test]
    fn rows_that_share_a_place_are_located_there_and_counted_once() {
        let mut decoded = Decoded::new(SeriesLimits::NONE);
        let lookup = testing::KnownSeries::none();
        let mut resolver = Resolver::new(&lookup);
        // Places: 0 of one row, 1 refused, 2 of three rows, 3 of one.
        for (at, name) in ["a", "b", "b", "b", "c"].into_iter().enumerate() {
            let metric = MetricName::new(name).unwrap();
            let spelling = resolver.hash(&[at as u8]);
            if at == 1 {
                decoded.reject(None, &Problem::new(Code::InvalidValue, "no"));
            }
            if at == 2 || at == 3 {
                decoded.join_next_row();
            }
            let series = resolver.describe(&mut decoded.batch, metric, Dimensions::default(), spelling);
            decoded.batch.push(series, testing::NOW, 1.0);
        }
        assert_eq!(decoded.next_index(), 4);
        let described = decoded.described_rows();
        let refused: Vec<_> = (0..5).map(|row| (row, Refusal::MemoryLimit)).collect();
        let located: Vec<_> = described.locate(&refused).map(|(at, name, _)| format!("{at}{name}")).collect();
        assert_eq!(located, ["0a", "2b", "2b", "2b", "3c"]);
        let mut rejections = decoded.rejections;
        rejections.add_refused(described.locate(&refused));
        assert_eq!(rejections.counts(), [(Code::InvalidValue, 1), (Code::CardinalityLimit, 3)]);
        assert_eq!(rejections.listed().iter().map(|error| error.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_hundred_errors_are_listed_and_all_are_counted() {
        let mut rejections = Rejections::default();
        for index in 0..250 {
            rejections.push(index, None, &Problem::new(Code::InvalidValue, "no"));
        }
        assert_eq!((rejections.total(), rejections.listed().len()), (250, MAX_LISTED_ERRORS));
    }
}
