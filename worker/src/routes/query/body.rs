//! The body of a query: read strictly, then checked once into a question that can't be wrong.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use luminate_crds::worker_config::{QueryLimits, Span};
use luminate_storage::model::{
    AggregateQuery, Aggregation, DimensionKey, Having, Query, RangeQuery, RateQuery, Selector, TimeRange,
    rate_interval,
};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::super::input::{self, Time};
use crate::error::{Error, Fault};

/// Rows of an answer when the query doesn't say.
const DEFAULT_LIMIT: u64 = 1_000;
/// Values in all lists of a query together.
const MAX_LISTED: usize = 1_000;
/// Bytes of them: what ClickHouse takes as one parameter (128 KiB), were each byte escaped.
const MAX_LISTED_BYTES: usize = 48 << 10;
/// Longest duration of an interval or gap, in milliseconds: a century. Times stay far from overflowing.
const MAX_SPAN: i64 = 36_525 * 86_400_000;

/// A question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct QueryBody {
    /// What is asked.
    pub query_type: QueryType,
    /// The metric; one that doesn't exist has no rows.
    #[schema(example = "api_latency")]
    pub metric_name: String,
    /// When, at most 90 days.
    pub time_range: TimeRangeBody,
    /// Dimensions that must all be equal.
    #[schema(value_type = Option<BTreeMap<String, String>>, example = json!({"region": "eu"}))]
    pub filters: Option<Filters>,
    /// Dimensions that must each equal one of a list; all lists and all `filters` must hold. A key is in one of both only.
    /// Up to 1,000 values and 48 KiB in all lists together; a value that is in a list twice counts once.
    #[schema(value_type = Option<BTreeMap<String, Vec<String>>>, example = json!({"host": ["web-1", "web-2"]}))]
    pub filters_in: Option<Lists>,
    /// How samples become one number; for aggregate queries only, which need it.
    pub aggregation: Option<AggregationName>,
    /// Keys whose values name a group, at most 10; not for range queries.
    #[schema(max_items = 10, example = json!(["customer_id"]))]
    pub group_by: Option<Vec<String>>,
    /// Width of a bucket, aligned to the Unix epoch; not for range queries.
    #[schema(value_type = Option<String>, example = "5m")]
    pub interval: Option<DurationText>,
    /// Longest segment between two samples that an integral counts; for integrals only.
    #[schema(value_type = Option<String>, example = "1m")]
    pub max_gap: Option<DurationText>,
    /// What a row's number (its value, or rate) must be, all of it; rows of other numbers are not in the answer, nor counted
    /// by `limit`.
    pub having: Option<HavingBody>,
    /// Most rows of the answer; default 1000.
    #[schema(minimum = 1, maximum = 10_000)]
    pub limit: Option<u64>,
    /// How the rows are laid out; default `rows`.
    pub layout: Option<Layout>,
    /// Most time that the query may take; default 10s, cut to 30s.
    #[schema(value_type = Option<String>, example = "10s")]
    pub timeout: Option<DurationText>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueryType {
    /// Raw samples, ordered by time, then series.
    Range,
    /// One number per group and bucket.
    Aggregate,
    /// Increase of counters per second, per group and bucket.
    Rate,
}

/// How the rows of an answer are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One object for each row.
    #[default]
    Rows,
    /// One object for each series or group, with its rows' times and numbers as lists.
    Series,
}

/// How samples become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AggregationName {
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

impl From<AggregationName> for Aggregation {
    fn from(name: AggregationName) -> Self {
        match name {
            AggregationName::Avg => Self::Avg,
            AggregationName::Sum => Self::Sum,
            AggregationName::Count => Self::Count,
            AggregationName::Min => Self::Min,
            AggregationName::Max => Self::Max,
            AggregationName::P50 => Self::P50,
            AggregationName::P95 => Self::P95,
            AggregationName::P99 => Self::P99,
            AggregationName::Integral => Self::Integral,
        }
    }
}

/// When: `start` and `end` (start ≤ t < end), or `relative` (until now).
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with start and end, or with relative")]
pub struct TimeRangeBody {
    /// First moment.
    pub start: Option<Time>,
    /// First moment after.
    pub end: Option<Time>,
    /// A whole number of s, m, h or d before now.
    #[schema(value_type = Option<String>, example = "1h")]
    pub relative: Option<DurationText>,
}

/// Bounds on a number, of which there is at least one; a number that overflowed is within none.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with numbers as gt, gte, lt or lte")]
#[schema(min_properties = 1, example = json!({"gt": 90}))]
pub struct HavingBody {
    /// Greater than this.
    pub gt: Option<f64>,
    /// Greater than or equal to this.
    pub gte: Option<f64>,
    /// Less than this.
    pub lt: Option<f64>,
    /// Less than or equal to this.
    pub lte: Option<f64>,
}

/// A duration such as `5m`, longer than nothing, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub i64);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = DurationText;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number of ms, s, m, h or d above 0, such as \"5m\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DurationText, E> {
        let millis = text.parse().map(Span::millis).unwrap_or_default();
        let fits = (1..=MAX_SPAN).contains(&millis);
        if fits {
            Ok(DurationText(millis))
        } else {
            Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
}

/// Dimensions that must be equal, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FiltersVisitor)
    }
}

struct FiltersVisitor;

impl<'de> Visitor<'de> for FiltersVisitor {
    type Value = Filters;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("an object of keys and the strings that they must equal: only equality is supported")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Filters, A::Error> {
        let mut filters = Vec::new();
        while let Some((key, Equal(value))) = map.next_entry()? {
            filters.push((key, value));
        }
        Ok(Filters(filters))
    }
}

/// The string that a dimension must equal.
struct Equal(String);

impl<'de> Deserialize<'de> for Equal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(EqualVisitor)
    }
}

struct EqualVisitor;

impl Visitor<'_> for EqualVisitor {
    type Value = Equal;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the string that the dimension must equal: only equality is supported")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Equal, E> {
        Ok(Equal(text.to_owned()))
    }
}

/// Dimensions that must equal one of a list each, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Lists(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Lists {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListsVisitor)
    }
}

struct ListsVisitor;

impl<'de> Visitor<'de> for ListsVisitor {
    type Value = Lists;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of keys and lists of strings, one of which they must equal")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists, A::Error> {
        let mut lists = Vec::new();
        while let Some(entry) = map.next_entry()? {
            lists.push(entry);
        }
        Ok(Lists(lists))
    }
}

/// A question that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub query: Query,
    /// How long it may take.
    pub timeout: Duration,
    /// How the rows are laid out.
    pub layout: Layout,
}

fn refuse(field: &str, reason: impl fmt::Display) -> Error {
    Error::InvalidQuery(Fault::of(field, reason))
}

impl QueryBody {
    /// Checks the body against `limits`; `now` is the request's one clock reading.
    ///
    /// # Errors
    /// `InvalidQuery`, `InvalidMetricName`, `InvalidDimensionKey`, each naming its field.
    pub fn check(&self, limits: &QueryLimits, now: i64) -> Result<Question, Error> {
        let selector = self.selector()?;
        let range = self.time_range.check(limits, now)?;
        let group_by = self.group_by(limits)?;
        let having = self.having()?;
        let limit = self.limit(limits)?;
        self.refuse_what_does_not_apply()?;
        let interval = self.interval.map(|interval| interval.0);
        let query = match self.query_type {
            QueryType::Range => Query::Range(RangeQuery { selector, range, having, limit }),
            QueryType::Aggregate => {
                let aggregation =
                    self.aggregation.ok_or_else(|| refuse("aggregation", "aggregation is missing"))?;
                let (aggregation, max_gap) = (aggregation.into(), self.max_gap.map(|gap| gap.0));
                Query::Aggregate(AggregateQuery {
                    selector,
                    range,
                    aggregation,
                    max_gap,
                    group_by,
                    interval,
                    having,
                    limit,
                })
            }
            QueryType::Rate => {
                let interval = interval.unwrap_or_else(|| rate_interval(&range));
                Query::Rate(RateQuery { selector, range, group_by, interval, having, limit })
            }
        };
        Ok(Question { query, timeout: self.timeout(limits), layout: self.layout.unwrap_or_default() })
    }

    fn selector(&self) -> Result<Selector, Error> {
        let metric = input::metric("metricName", &self.metric_name)?;
        let mut filters: Vec<(DimensionKey, String)> = Vec::new();
        for (key, value) in self.filters.iter().flat_map(|filters| &filters.0) {
            let field = format!("filters.{key}");
            let key = input::key(&field, key)?;
            if filters.iter().any(|(other, _)| *other == key) {
                return Err(refuse(&field, format_args!("{key} appears twice")));
            }
            filters.push((key, value.clone()));
        }
        let filters_in = self.lists(&filters)?;
        Ok(Selector { metric, filters, filters_in })
    }

    fn lists(&self, filters: &[(DimensionKey, String)]) -> Result<Vec<(DimensionKey, Vec<String>)>, Error> {
        let Some(Lists(sent)) = &self.filters_in else { return Ok(Vec::new()) };
        let values = || sent.iter().flat_map(|(_, values)| values);
        let (count, bytes) = (values().count(), values().map(String::len).sum::<usize>());
        for (what, found, most) in [("values", count, MAX_LISTED), ("bytes", bytes, MAX_LISTED_BYTES)] {
            if found > most {
                let reason = format_args!("filtersIn has {found} {what}; at most {most} are allowed");
                return Err(refuse("filtersIn", reason));
            }
        }
        let mut lists: Vec<(DimensionKey, Vec<String>)> = Vec::with_capacity(sent.len());
        for (key, values) in sent {
            let field = format!("filtersIn.{key}");
            let key = input::key(&field, key)?;
            if filters.iter().any(|(other, _)| *other == key) {
                return Err(refuse(&field, format_args!("{key} is in filters too")));
            }
            if lists.iter().any(|(other, _)| *other == key) {
                return Err(refuse(&field, format_args!("{key} appears twice")));
            }
            if values.is_empty() {
                return Err(refuse(&field, "the list is empty: nothing could equal one of it"));
            }
            let mut seen = HashSet::with_capacity(values.len());
            lists.push((key, values.iter().filter(|value| seen.insert(*value)).cloned().collect()));
        }
        Ok(lists)
    }

    fn group_by(&self, limits: &QueryLimits) -> Result<Vec<DimensionKey>, Error> {
        let texts = self.group_by.as_deref().unwrap_or_default();
        let most = limits.max_group_by as usize;
        if texts.len() > most {
            return Err(refuse(
                "groupBy",
                format_args!("groupBy has {} keys; at most {most} are allowed", texts.len()),
            ));
        }
        let mut keys = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let field = format!("groupBy[{at}]");
            let key = input::key(&field, text)?;
            if keys.contains(&key) {
                return Err(refuse(&field, format_args!("{key} appears twice")));
            }
            keys.push(key);
        }
        Ok(keys)
    }

    fn having(&self) -> Result<Having, Error> {
        let Some(HavingBody { gt, gte, lt, lte }) = self.having else { return Ok(Having::ANY) };
        let having = Having { gt, gte, lt, lte };
        if having.is_any() {
            return Err(refuse("having", "having has none of gt, gte, lt and lte"));
        }
        Ok(having)
    }

    fn limit(&self, limits: &QueryLimits) -> Result<usize, Error> {
        let most = u64::from(limits.max_result_points);
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT.min(most));
        if !(1..=most).contains(&limit) {
            return Err(refuse("limit", format_args!("limit is {limit}; 1 to {most} are allowed")));
        }
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    fn timeout(&self, limits: &QueryLimits) -> Duration {
        let asked = self.timeout.map(|timeout| Duration::from_millis(timeout.0.unsigned_abs()));
        asked.unwrap_or(limits.default_timeout.duration()).min(limits.max_timeout.duration())
    }

    fn refuse_what_does_not_apply(&self) -> Result<(), Error> {
        let integral = self.aggregation == Some(AggregationName::Integral);
        let ranges = self.query_type == QueryType::Range;
        let aggregates = self.query_type == QueryType::Aggregate;
        for (field, given, applies, to) in [
            ("aggregation", self.aggregation.is_some(), aggregates, "aggregate queries"),
            ("groupBy", self.group_by.is_some(), !ranges, "aggregate and rate queries"),
            ("interval", self.interval.is_some(), !ranges, "aggregate and rate queries"),
            ("maxGap", self.max_gap.is_some(), aggregates && integral, "the aggregation integral"),
        ] {
            if given && !applies {
                return Err(refuse(field, format_args!("{field} is only for {to}")));
            }
        }
        Ok(())
    }
}

impl TimeRangeBody {
    fn check(&self, limits: &QueryLimits, now: i64) -> Result<TimeRange, Error> {
        let most = limits.max_range;
        let too_long = || refuse("timeRange", format_args!("timeRange is longer than {most}"));
        match (self.start, self.end, self.relative) {
            (None, None, Some(DurationText(span))) => {
                if span > most.millis() {
                    return Err(too_long());
                }
                TimeRange::new(now - span, now + 1)
            }
            (Some(Time(start)), Some(Time(end)), None) => {
                if end.saturating_sub(start) > most.millis() {
                    return Err(too_long());
                }
                TimeRange::new(start, end)
            }
            _ => return Err(refuse("timeRange", "timeRange has either start and end, or relative")),
        }
        .ok_or_else(|| refuse("timeRange", "start must lie before end"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_767_225_600_000;

    fn check(body: Value) -> Result<Question, Error> {
        let body: QueryBody = serde_json::from_value(body).unwrap();
        body.check(&QueryLimits::default(), NOW)
    }

    fn query(more: Value) -> Value {
        let mut body = json!({"queryType": "aggregate", "metricName": "m", "timeRange": {"relative": "1h"}, "aggregation": "p95"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[test]
    fn a_relative_range_ends_with_the_present_millisecond() {
        let range = |relative: &str| {
            check(query(json!({"timeRange": {"relative": relative}}))).unwrap().query.range()
        };
        assert_eq!((range("15m").start(), range("15m").end()), (NOW - 900_000, NOW + 1));
        assert_eq!(range("90d").start(), NOW - 90 * 86_400_000);
    }

    #[test]
    fn a_range_may_be_of_either_spelling() {
        let body = query(json!({"timeRange": {"start": "2026-01-01T00:00:00Z", "end": NOW + 5}}));
        let range = check(body).unwrap().query.range();
        assert_eq!((range.start(), range.end()), (NOW, NOW + 5));
    }

    #[test]
    fn defaults_and_caps() {
        let Question { query: Query::Aggregate(aggregate), timeout, layout: Layout::Rows } =
            check(query(json!({}))).unwrap()
        else {
            panic!()
        };
        assert_eq!((aggregate.limit, aggregate.interval, timeout), (1_000, None, Duration::from_secs(10)));
        assert_eq!(check(query(json!({"timeout": "1h"}))).unwrap().timeout, Duration::from_secs(30));
        assert_eq!(check(query(json!({"timeout": "250ms"}))).unwrap().timeout, Duration::from_millis(250));
        let rate = json!({"queryType": "rate", "metricName": "m", "timeRange": {"start": NOW, "end": NOW + 300_001}});
        let Query::Rate(rate) = check(rate).unwrap().query else { panic!() };
        assert_eq!(rate.interval, 5_000);
    }

    #[test]
    fn bounds_are_taken_as_they_are() {
        let having = |having: Value| check(query(json!({"having": having}))).unwrap().query.having();
        assert_eq!(having(json!({"gt": 90})), Having { gt: Some(90.0), ..Having::ANY });
        let all = Having { gt: Some(-1.5), gte: Some(0.0), lt: Some(1e300), lte: Some(7.0) };
        assert_eq!(having(json!({"gt": -1.5, "gte": 0, "lt": 1e300, "lte": 7, })), all);
        assert_eq!(having(Value::Null), Having::ANY);
        let error = check(query(json!({"having": {}}))).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidQuery(fault) if fault.field.as_deref() == Some("having")),
            "{error:?}"
        );
    }

    #[test]
    fn a_list_has_each_of_its_values_once() {
        let more = json!({"filters": {"zone": "z"}, "filtersIn": {"host": ["b", "a", "b"], "rack": [""]}});
        let question = check(query(more)).unwrap();
        let Selector { filters, filters_in, .. } = question.query.selector();
        let texts = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let key = |name: &str| DimensionKey::new(name).unwrap();
        assert_eq!(*filters, [(key("zone"), "z".to_owned())]);
        assert_eq!(*filters_in, [(key("host"), texts(&["b", "a"])), (key("rack"), texts(&[""]))]);
        let none = check(query(json!({"filtersIn": {}}))).unwrap();
        assert_eq!(none, check(query(json!({}))).unwrap());
    }

    #[test]
    fn what_is_out_of_bounds_names_its_field() {
        let listed = |count: usize| (0..count).map(|n| format!("v{n}")).collect::<Vec<_>>();
        assert!(check(query(json!({"filtersIn": {"a": listed(400), "b": listed(600)}}))).is_ok());
        let eleven: Vec<String> = (0..11).map(|n| format!("k{n}")).collect();
        for (more, code, field) in [
            (json!({"metricName": "bad-name"}), "INVALID_METRIC_NAME", "metricName"),
            (json!({"filters": {"bad-key": "x"}}), "INVALID_DIMENSION_KEY", "filters.bad-key"),
            (json!({"filtersIn": {"bad-key": ["x"]}}), "INVALID_DIMENSION_KEY", "filtersIn.bad-key"),
            (json!({"filtersIn": {"a": ["x"], "b": []}}), "INVALID_QUERY", "filtersIn.b"),
            (json!({"filters": {"a": "x"}, "filtersIn": {"a": ["x"]}}), "INVALID_QUERY", "filtersIn.a"),
            (json!({"filtersIn": {"a": listed(400), "b": listed(601)}}), "INVALID_QUERY", "filtersIn"),
            (json!({"filtersIn": {"a": ["x".repeat(49_153)]}}), "INVALID_QUERY", "filtersIn"),
            (json!({"groupBy": ["a", "__b"]}), "INVALID_DIMENSION_KEY", "groupBy[1]"),
            (json!({"groupBy": ["a", "a"]}), "INVALID_QUERY", "groupBy[1]"),
            (json!({"groupBy": eleven}), "INVALID_QUERY", "groupBy"),
            (json!({"limit": 0}), "INVALID_QUERY", "limit"),
            (json!({"limit": 10_001}), "INVALID_QUERY", "limit"),
            (json!({"maxGap": "5m"}), "INVALID_QUERY", "maxGap"),
            (json!({"aggregation": null}), "INVALID_QUERY", "aggregation"),
            (json!({"queryType": "range"}), "INVALID_QUERY", "aggregation"),
            (json!({"queryType": "rate", "aggregation": null, "maxGap": "5m"}), "INVALID_QUERY", "maxGap"),
            (
                json!({"queryType": "range", "aggregation": null, "interval": "5m"}),
                "INVALID_QUERY",
                "interval",
            ),
            (json!({"timeRange": {"relative": "91d"}}), "INVALID_QUERY", "timeRange"),
            (json!({"timeRange": {"start": NOW, "end": NOW}}), "INVALID_QUERY", "timeRange"),
            (json!({"timeRange": {"start": NOW, "end": NOW - 1}}), "INVALID_QUERY", "timeRange"),
            (
                json!({"timeRange": {"start": NOW - 90 * 86_400_000 - 1, "end": NOW}}),
                "INVALID_QUERY",
                "timeRange",
            ),
            (json!({"timeRange": {"start": NOW}}), "INVALID_QUERY", "timeRange"),
            (
                json!({"timeRange": {"start": NOW, "end": NOW + 1, "relative": "1h"}}),
                "INVALID_QUERY",
                "timeRange",
            ),
        ] {
            let error = check(query(more.clone())).unwrap_err();
            let body = error.body(None).error;
            assert_eq!((body.code.name(), &body.details["field"]), (code, &json!(field)), "{more}");
        }
    }

    #[test]
    fn durations_are_whole_and_above_nothing() {
        let read =
            |text: &str| serde_json::from_value::<DurationText>(json!(text)).map(|duration| duration.0).ok();
        assert_eq!(read("90s"), Some(90_000));
        assert_eq!(read("36525d"), Some(MAX_SPAN));
        for bad in ["", "0s", "-5m", "1.5h", "5", "5y", "36526d", "99999999999999999999d", "soon"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
