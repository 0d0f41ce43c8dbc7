//! Questions and answers.

use std::fmt;
use std::sync::Arc;

use super::having::Having;
use super::name::{DimensionKey, MetricName};
use super::series::Dimensions;

/// A half-open range of Unix milliseconds: `start ≤ t < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    start: i64,
    end: i64,
}

impl TimeRange {
    /// The range, or `None` when it is inverted or empty.
    #[must_use]
    pub fn new(start: i64, end: i64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// First millisecond inside.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// First millisecond after.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Whether `time` lies inside.
    #[must_use]
    pub fn contains(&self, time: i64) -> bool {
        self.start <= time && time < self.end
    }

    /// Length in milliseconds, at least 1.
    #[must_use]
    pub fn millis(&self) -> i64 {
        self.end.saturating_sub(self.start)
    }
}

/// Which series a query reads: one metric, and what its dimensions must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The metric.
    pub metric: MetricName,
    /// `key = value`, all of which must hold; keys distinct.
    pub filters: Vec<(DimensionKey, String)>,
    /// `key = one of the values`, all of which must hold; keys distinct, from those of `filters` too, and values.
    pub filters_in: Vec<(DimensionKey, Vec<String>)>,
}

/// Values of a list that are shown one by one; of a longer list only their number is.
const SHOWN: usize = 8;

impl Selector {
    /// The series of `metric` for which all of `filters` hold.
    #[must_use]
    pub fn new(metric: MetricName, filters: Vec<(DimensionKey, String)>) -> Self {
        Self { metric, filters, filters_in: Vec::new() }
    }

    /// Whether a series with `dimensions` is meant.
    #[must_use]
    pub fn matches(&self, dimensions: &Dimensions) -> bool {
        let own = |key: &DimensionKey| dimensions.get(key.as_str()).map(AsRef::as_ref);
        self.filters.iter().all(|(key, value)| own(key) == Some(value.as_str()))
            && self.filters_in.iter().all(|(key, values)| {
                own(key).is_some_and(|own| values.iter().any(|value| value.as_str() == own))
            })
    }
}

impl fmt::Display for Selector {
    /// In words, for a plan: `m where host = "a" and region in ["eu", "us"]`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equal = self.filters.iter().map(|(key, value)| format!("{key} = {value:?}"));
        let listed = self.filters_in.iter().map(|(key, values)| match values.len() {
            ..=SHOWN => format!("{key} in {values:?}"),
            count => format!("{key} in {count} values"),
        });
        let filters: Vec<String> = equal.chain(listed).collect();
        match filters.is_empty() {
            true => write!(formatter, "{}", self.metric),
            false => write!(formatter, "{} where {}", self.metric, filters.join(" and ")),
        }
    }
}

/// How samples become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// Arithmetic mean.
    Avg,
    /// Sum.
    Sum,
    /// Number of samples.
    Count,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Exact median, linear between closest ranks.
    P50,
    /// Exact 95th percentile.
    P95,
    /// Exact 99th percentile.
    P99,
    /// Value × seconds by the trapezoid rule, per series, then summed.
    Integral,
}

impl Aggregation {
    /// Every aggregation, in the contract's order.
    pub const ALL: [Self; 9] = [
        Self::Avg,
        Self::Sum,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::Integral,
    ];

    /// The name in the contract, such as `p95`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Integral => "integral",
        }
    }

    /// The quantile that this is, in 0–1, if it is one.
    #[must_use]
    pub fn quantile(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.5),
            Self::P95 => Some(0.95),
            Self::P99 => Some(0.99),
            _ => None,
        }
    }
}

/// Raw samples, ordered by time, then series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    /// Which series.
    pub selector: Selector,
    /// When.
    pub range: TimeRange,
    /// What a row's number must be.
    pub having: Having,
    /// Most rows of the answer.
    pub limit: usize,
}

/// One number per group, and per bucket when `interval` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateQuery {
    /// Which series.
    pub selector: Selector,
    /// When.
    pub range: TimeRange,
    /// How.
    pub aggregation: Aggregation,
    /// Longest segment that an integral counts, in milliseconds.
    pub max_gap: Option<i64>,
    /// Keys whose values name a group, in order, distinct.
    pub group_by: Vec<DimensionKey>,
    /// Width of a bucket in milliseconds, > 0; buckets start at multiples of it since the epoch.
    pub interval: Option<i64>,
    /// What a row's number must be.
    pub having: Having,
    /// Most rows of the answer.
    pub limit: usize,
}

/// Per-second increase of counters, per bucket and group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateQuery {
    /// Which series.
    pub selector: Selector,
    /// When; the last sample in `[start − interval, start)` is the carry-in.
    pub range: TimeRange,
    /// Keys whose values name a group, in order, distinct.
    pub group_by: Vec<DimensionKey>,
    /// Width of a bucket in milliseconds, > 0.
    pub interval: i64,
    /// What a row's number must be.
    pub having: Having,
    /// Most rows of the answer.
    pub limit: usize,
}

/// Every sample of a selector's series, series by series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportQuery {
    /// Which series.
    pub selector: Selector,
    /// When.
    pub range: TimeRange,
    /// About how many samples to hold at once, ≥ 1; never more than twice as many are.
    pub piece: usize,
}

/// A stretch of one series: equally long columns, times strictly ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSamples {
    /// The series' dimensions.
    pub dimensions: Dimensions,
    /// Unix milliseconds.
    pub timestamps: Vec<i64>,
    /// Values.
    pub values: Vec<f64>,
}

/// The interval of a rate query that names none: the smallest common step that gives at most 300 buckets.
#[must_use]
pub fn rate_interval(range: &TimeRange) -> i64 {
    const STEPS: [i64; 11] = [1, 5, 10, 15, 30, 60, 300, 900, 3_600, 21_600, 86_400];
    let buckets = |step: i64| (range.end() - 1).div_euclid(step) - range.start().div_euclid(step) + 1;
    STEPS.into_iter().map(|seconds| seconds * 1_000).find(|step| buckets(*step) <= 300).unwrap_or(86_400_000)
}

/// Any question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Raw samples.
    Range(RangeQuery),
    /// Aggregates.
    Aggregate(AggregateQuery),
    /// Rates.
    Rate(RateQuery),
}

impl Query {
    /// Which series it reads.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        match self {
            Self::Range(query) => &query.selector,
            Self::Aggregate(query) => &query.selector,
            Self::Rate(query) => &query.selector,
        }
    }

    /// When.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        match self {
            Self::Range(query) => query.range,
            Self::Aggregate(query) => query.range,
            Self::Rate(query) => query.range,
        }
    }

    /// What a row's number must be.
    #[must_use]
    pub fn having(&self) -> Having {
        match self {
            Self::Range(query) => query.having,
            Self::Aggregate(query) => query.having,
            Self::Rate(query) => query.having,
        }
    }
}

/// A raw sample with its series' dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeRow {
    /// Unix milliseconds.
    pub timestamp: i64,
    /// The value.
    pub value: f64,
    /// The series' dimensions.
    pub dimensions: Dimensions,
}

/// The values of the grouped keys, in the query's order; `None` where the series lacks the key.
pub type GroupKey = Arc<[Option<Arc<str>>]>;

/// One aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateRow {
    /// Whose.
    pub group: GroupKey,
    /// Start of the bucket in Unix milliseconds, when the query named an interval.
    pub timestamp: Option<i64>,
    /// The number; not finite where it overflowed.
    pub value: f64,
    /// Samples in it.
    pub count: u64,
}

/// One rate.
#[derive(Debug, Clone, PartialEq)]
pub struct RateRow {
    /// Whose.
    pub group: GroupKey,
    /// Start of the bucket in Unix milliseconds.
    pub timestamp: i64,
    /// Increase per second; not finite where it overflowed.
    pub rate: f64,
}

/// What an answer cost and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueryStats {
    /// Samples looked at, by value or by summary; differs between backends.
    pub points_scanned: u64,
    /// Series with a sample in range.
    pub series_matched: u64,
    /// Whether `limit` left a row out.
    pub truncated: bool,
}

/// Rows in the contract's order, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<Row> {
    /// The rows: group then time, or time then series.
    pub rows: Vec<Row>,
    /// What they cost.
    pub stats: QueryStats,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_told_in_words() {
        let key = |name: &str| DimensionKey::new(name).unwrap();
        let mut selector = Selector::new(MetricName::new("m").unwrap(), Vec::new());
        assert_eq!(selector.to_string(), "m");
        selector.filters.push((key("host"), "a".to_owned()));
        selector.filters_in.push((key("region"), vec!["eu".to_owned(), "us".to_owned()]));
        assert_eq!(selector.to_string(), r#"m where host = "a" and region in ["eu", "us"]"#);
        selector.filters_in[0].1 = vec!["eu".to_owned(); 9];
        assert_eq!(selector.to_string(), r#"m where host = "a" and region in 9 values"#);
    }

    #[test]
    fn a_rate_without_an_interval_gets_the_smallest_step_with_300_buckets() {
        let over = |millis| rate_interval(&TimeRange::new(0, millis).unwrap());
        assert_eq!(over(300_000), 1_000);
        assert_eq!(over(300_001), 5_000);
        assert_eq!(over(3_600_000), 15_000);
        assert_eq!(over(90 * 86_400_000), 21_600_000 * 4);
    }
}
