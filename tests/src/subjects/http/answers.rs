//! What the worker answers, read to the letter: a field that is missing, unknown or odd is an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use luminate_storage::model::{
    AggregateRow, Answer, DimensionKey, DimensionLimits, Dimensions, GroupKey, QueryStats, RangeRow, RateRow,
    SeriesSamples,
};
use luminate_storage::store::{ErrorKind, Refusal, Result, StoreError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::http::Response;

/// The media type of rows as lines.
pub const NDJSON: &str = "application/x-ndjson";

/// An answer that isn't as the API describes it.
fn odd(what: &str, response: &Response) -> StoreError {
    let text: String = response.text().chars().take(2_000).collect();
    StoreError::internal(format!("{what}: answered {} {text}", response.status))
}

/// The error that a response of another status than expected is.
#[must_use]
pub fn failure(response: &Response) -> StoreError {
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else {
        return odd("an error that isn't JSON", response);
    };
    let retry_after = response.header("retry-after").and_then(|seconds| seconds.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let kind = match (response.status, body["error"]["code"].as_str(), retry_after) {
        (504, Some("QUERY_TIMEOUT"), _) => ErrorKind::Timeout,
        (409, Some("QUERY_CANCELLED"), _) => ErrorKind::Cancelled,
        (422, Some("QUERY_TOO_LARGE"), _) => ErrorKind::QueryTooLarge,
        (503, Some("OVERLOADED"), Some(retry_after)) => ErrorKind::Overloaded { retry_after },
        (503, Some("UNAVAILABLE"), Some(retry_after)) => ErrorKind::Unavailable { retry_after },
        _ => return odd("an error", response),
    };
    StoreError::new(kind, response.text())
}

/// The fields of an object, each of which must be taken.
#[derive(Debug)]
pub struct Fields<'a> {
    response: &'a Response,
    fields: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object that a response of 200 is.
    ///
    /// # Errors
    /// Another status, or not an object of JSON.
    pub fn of(response: &'a Response) -> Result<Self> {
        if response.status != 200 {
            return Err(failure(response));
        }
        Self::of_any(response)
    }

    /// The object that a response of any status is.
    ///
    /// # Errors
    /// Not an object of JSON.
    pub fn of_any(response: &'a Response) -> Result<Self> {
        if response.header("content-type") != Some("application/json") {
            return Err(odd("not called JSON", response));
        }
        let fields = serde_json::from_slice(&response.body);
        Ok(Self { response, fields: fields.map_err(|error| odd(&error.to_string(), response))? })
    }

    /// The field `name`, if it is there.
    ///
    /// # Errors
    /// It is of another type.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.fields.remove(name) else { return Ok(None) };
        let value = serde_json::from_value(value);
        value.map(Some).map_err(|error| odd(&format!("{name}: {error}"), self.response))
    }

    /// The field `name`.
    ///
    /// # Errors
    /// It is absent or of another type.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        self.optional(name)?.ok_or_else(|| odd(&format!("{name} is missing"), self.response))
    }

    /// Makes sure that no field is left.
    ///
    /// # Errors
    /// One is.
    pub fn end(self) -> Result<()> {
        match self.fields.keys().next() {
            Some(name) => Err(odd(&format!("{name} is unknown"), self.response)),
            None => Ok(()),
        }
    }
}

/// What a write answered: accepted and refused samples, by their places in the request.
#[derive(Debug, Default)]
pub struct Written {
    /// Samples stored.
    pub accepted: u64,
    /// Those refused, all of them.
    pub refused: Vec<(usize, Refusal)>,
    /// Whether the stored ones are durable.
    pub durable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    index: usize,
    #[serde(rename = "metric")]
    _metric: String,
    code: String,
    error: String,
}

/// The answer to a write; of a status that fits what it says.
///
/// # Errors
/// An error instead of an answer, or an odd one.
pub fn written(response: &Response) -> Result<Written> {
    if response.status == 204 {
        return Ok(Written { durable: true, ..Written::default() });
    }
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    if body["accepted"].is_null() {
        return Err(failure(response));
    }
    let mut fields = Fields::of_any(response)?;
    let (accepted, rejected): (u64, usize) = (fields.take("accepted")?, fields.take("rejected")?);
    let errors: Vec<Refused> = fields.take("errors")?;
    let durable = fields.optional("durable")?.unwrap_or(true);
    let error: Option<Value> = fields.optional("error")?;
    fields.end()?;
    if errors.len() != rejected || error.is_some() != (response.status == 400) {
        return Err(odd("refusals that don't add up", response));
    }
    let refused = errors.iter().map(|refused| Some((refused.index, refusal(refused)?)));
    let refused: Option<Vec<_>> = refused.collect();
    let refused = refused.ok_or_else(|| odd("a refusal that isn't a limit's", response))?;
    Ok(Written { accepted, refused, durable })
}

fn refusal(refused: &Refused) -> Option<Refusal> {
    if refused.code != "CARDINALITY_LIMIT" {
        return None;
    }
    let limit = refused.error.split(' ').find_map(|word| word.parse().ok())?;
    match refused.error.rsplit(' ').next()? {
        "metrics" => Some(Refusal::MetricLimit { limit }),
        "metric" => Some(Refusal::SeriesLimit { limit }),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Whole<'a> {
    query_type: String,
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
    #[serde(rename = "executionTimeMs")]
    _execution_time_ms: f64,
    points_scanned: u64,
    series_matched: u64,
    truncated: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    summary: Summary,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Summary {
    #[serde(rename = "executionTimeMs")]
    _execution_time_ms: f64,
    points_scanned: u64,
    series_matched: u64,
    truncated: bool,
}

/// The rows of a query's answer and what they cost; `kind` is the query's type, `read` reads a result's rows from its text.
///
/// # Errors
/// An error instead of an answer, or an odd one.
pub fn answer<Row>(
    response: &Response,
    kind: &str,
    read: impl Fn(&str) -> serde_json::Result<Vec<Row>>,
) -> Result<Answer<Row>> {
    if response.status != 200 {
        return Err(failure(response));
    }
    let wrong = |error: serde_json::Error| odd(&error.to_string(), response);
    let text = std::str::from_utf8(&response.body).map_err(|_| odd("not UTF-8", response))?;
    let (results, stats) = match response.header("content-type") {
        Some("application/json") => {
            let whole: Whole<'_> = serde_json::from_str(text).map_err(wrong)?;
            if whole.query_type != kind {
                return Err(odd("another type of query", response));
            }
            let Whole { points_scanned, series_matched, truncated, .. } = whole;
            let results = whole.results.iter().map(|result| result.get()).collect::<Vec<_>>();
            (results, QueryStats { points_scanned, series_matched, truncated })
        }
        Some(NDJSON) => {
            let mut lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
            let last = lines.pop().unwrap_or_default();
            let LastLine { summary } = serde_json::from_str(last).map_err(wrong)?;
            let Summary { points_scanned, series_matched, truncated, .. } = summary;
            (lines, QueryStats { points_scanned, series_matched, truncated })
        }
        _ => return Err(odd("another type of content", response)),
    };
    let rows = results.into_iter().map(read).collect::<serde_json::Result<Vec<Vec<Row>>>>().map_err(wrong)?;
    Ok(Answer { rows: rows.into_iter().flatten().collect(), stats })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    answers: Vec<&'a RawValue>,
}

/// The answers to a batch, each as the response that it would have been alone.
///
/// # Errors
/// The batch was refused, or its answers aren't as the API describes them.
pub fn parts(response: &Response) -> Result<Vec<Response>> {
    if response.status != 200 {
        return Err(failure(response));
    }
    let batch: serde_json::Result<Batch<'_>> = serde_json::from_slice(&response.body);
    let batch = batch.map_err(|error| odd(&error.to_string(), response))?;
    Ok(batch.answers.into_iter().map(|answer| part(answer.get())).collect())
}

fn part(text: &str) -> Response {
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let error = serde_json::from_str::<Value>(text).map(|mut part| part["error"].take()).unwrap_or_default();
    let retry_after = error["details"]["retryAfterSeconds"].as_u64();
    headers.extend(retry_after.map(|seconds| ("retry-after".to_owned(), seconds.to_string())));
    let status = match error["code"].as_str() {
        None => 200,
        Some("QUERY_TIMEOUT") => 504,
        Some("QUERY_CANCELLED") => 409,
        Some("QUERY_TOO_LARGE") => 422,
        Some("OVERLOADED" | "UNAVAILABLE") => 503,
        Some(_) => 500,
    };
    Response { status, headers, body: text.as_bytes().to_vec() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportLine<'a> {
    metric: BTreeMap<String, String>,
    #[serde(borrow)]
    values: Vec<&'a RawValue>,
    timestamps: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportEnd {
    summary: ExportSummary,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportSummary {
    metrics: u64,
    series: u64,
    samples: u64,
}

/// The stretches of an export of one metric, each of at most `piece` samples.
///
/// # Errors
/// It isn't one, or its summary says something else.
pub fn exported(response: &Response, piece: usize) -> Result<Vec<SeriesSamples>> {
    let wrong = |error: serde_json::Error| odd(&error.to_string(), response);
    let text = std::str::from_utf8(&response.body).map_err(|_| odd("not UTF-8", response))?;
    let mut lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
    let ExportEnd { summary } = serde_json::from_str(lines.pop().unwrap_or_default()).map_err(wrong)?;
    let (mut stretches, mut samples) = (Vec::new(), 0);
    for line in lines {
        let ExportLine { metric, values, timestamps } = serde_json::from_str(line).map_err(wrong)?;
        let values = values.into_iter().map(number).collect::<serde_json::Result<Vec<_>>>().map_err(wrong)?;
        if values.len() != timestamps.len() || !metric.contains_key("__name__") {
            return Err(odd("a line of an export", response));
        }
        let pairs = metric.iter().filter(|(key, _)| *key != "__name__");
        let pairs = pairs.map(|(key, value)| (key.as_str(), value.as_str()));
        let dimensions = Dimensions::new(pairs, &DimensionLimits::default()).map_err(StoreError::internal)?;
        samples += values.len() as u64;
        let pieces = timestamps.chunks(piece).zip(values.chunks(piece));
        stretches.extend(pieces.map(|(timestamps, values)| SeriesSamples {
            dimensions: dimensions.clone(),
            timestamps: timestamps.to_vec(),
            values: values.to_vec(),
        }));
    }
    let found = u64::from(!stretches.is_empty());
    let series = stretches.chunk_by(|one, next| one.dimensions == next.dimensions).count() as u64;
    if (summary.metrics, summary.series, summary.samples) != (found, series, samples) {
        return Err(odd("a summary that isn't that of the lines", response));
    }
    Ok(stretches)
}

/// A number as its nearest f64, which is more than serde_json promises; NaN for `null`.
fn number(raw: &RawValue) -> serde_json::Result<f64> {
    if raw.get() == "null" {
        return Ok(f64::NAN);
    }
    raw.get().parse().map_err(|_| serde::de::Error::custom("a value that is no number"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeLine<'a> {
    timestamp: i64,
    #[serde(borrow)]
    value: &'a RawValue,
    dimensions: BTreeMap<String, String>,
}

/// A raw sample.
///
/// # Errors
/// It isn't one.
pub fn range_row(text: &str) -> serde_json::Result<RangeRow> {
    let RangeLine { timestamp, value, dimensions } = serde_json::from_str(text)?;
    Ok(RangeRow { timestamp, value: number(value)?, dimensions: of_pairs(&dimensions)? })
}

fn of_pairs(pairs: &BTreeMap<String, String>) -> serde_json::Result<Dimensions> {
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Dimensions::new(pairs, &DimensionLimits::default()).map_err(serde::de::Error::custom)
}

/// The numbers of a list that has one for each of `count` rows, of which there is at least one.
fn list(values: &[&RawValue], count: usize) -> serde_json::Result<Vec<f64>> {
    if values.len() != count || count == 0 {
        return Err(serde::de::Error::custom("lists of a series that aren't equally long, or empty"));
    }
    values.iter().map(|value| number(value)).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeLists<'a> {
    dimensions: BTreeMap<String, String>,
    timestamps: Vec<i64>,
    #[serde(borrow)]
    values: Vec<&'a RawValue>,
}

/// The raw samples of a series.
///
/// # Errors
/// They aren't.
pub fn range_series(text: &str) -> serde_json::Result<Vec<RangeRow>> {
    let RangeLists { dimensions, timestamps, values } = serde_json::from_str(text)?;
    let (dimensions, values) = (of_pairs(&dimensions)?, list(&values, timestamps.len())?);
    let row = |(timestamp, value)| RangeRow { timestamp, value, dimensions: dimensions.clone() };
    Ok(timestamps.into_iter().zip(values).map(row).collect())
}

/// Puts raw samples that stand by series, each of which is there once and in order, into the order of rows.
///
/// # Errors
/// They don't stand so.
pub fn by_time(rows: &mut [RangeRow]) -> Result<()> {
    let of_series = |row: &RangeRow| (row.dimensions.clone(), row.timestamp);
    if !rows.is_sorted_by(|one, other| of_series(one) < of_series(other)) {
        return Err(StoreError::internal(
            "series that aren't in their order, or samples that aren't in theirs",
        ));
    }
    rows.sort_by_key(|row| (row.timestamp, row.dimensions.clone()));
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AggregateLine<'a> {
    group_key: BTreeMap<String, Arc<str>>,
    timestamp: Option<i64>,
    #[serde(borrow)]
    value: &'a RawValue,
    count: u64,
}

/// An aggregate of a query that grouped by `keys`.
///
/// # Errors
/// It isn't one.
pub fn aggregate_row(text: &str, keys: &[DimensionKey]) -> serde_json::Result<AggregateRow> {
    let AggregateLine { group_key, timestamp, value, count } = serde_json::from_str(text)?;
    Ok(AggregateRow { group: group(group_key, keys)?, timestamp, value: number(value)?, count })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AggregateLists<'a> {
    group_key: BTreeMap<String, Arc<str>>,
    timestamps: Option<Vec<i64>>,
    #[serde(borrow)]
    values: Vec<&'a RawValue>,
    counts: Vec<u64>,
}

/// The aggregates of a group, of a query that grouped by `keys`.
///
/// # Errors
/// They aren't.
pub fn aggregate_series(text: &str, keys: &[DimensionKey]) -> serde_json::Result<Vec<AggregateRow>> {
    let AggregateLists { group_key, timestamps, values, counts } = serde_json::from_str(text)?;
    let (group, values) = (group(group_key, keys)?, list(&values, counts.len())?);
    let timestamps = match timestamps {
        Some(timestamps) => timestamps.into_iter().map(Some).collect(),
        None => vec![None],
    };
    if timestamps.len() != values.len() {
        return Err(serde::de::Error::custom("a group without a time for each number"));
    }
    let row = |((timestamp, value), count)| AggregateRow { group: group.clone(), timestamp, value, count };
    Ok(timestamps.into_iter().zip(values).zip(counts).map(row).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RateLine<'a> {
    group_key: BTreeMap<String, Arc<str>>,
    timestamp: i64,
    #[serde(borrow)]
    rate: &'a RawValue,
}

/// A rate of a query that grouped by `keys`.
///
/// # Errors
/// It isn't one.
pub fn rate_row(text: &str, keys: &[DimensionKey]) -> serde_json::Result<RateRow> {
    let RateLine { group_key, timestamp, rate } = serde_json::from_str(text)?;
    Ok(RateRow { group: group(group_key, keys)?, timestamp, rate: number(rate)? })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RateLists<'a> {
    group_key: BTreeMap<String, Arc<str>>,
    timestamps: Vec<i64>,
    #[serde(borrow)]
    rates: Vec<&'a RawValue>,
}

/// The rates of a group, of a query that grouped by `keys`.
///
/// # Errors
/// They aren't.
pub fn rate_series(text: &str, keys: &[DimensionKey]) -> serde_json::Result<Vec<RateRow>> {
    let RateLists { group_key, timestamps, rates } = serde_json::from_str(text)?;
    let (group, rates) = (group(group_key, keys)?, list(&rates, timestamps.len())?);
    let row = |(timestamp, rate)| RateRow { group: group.clone(), timestamp, rate };
    Ok(timestamps.into_iter().zip(rates).map(row).collect())
}

fn group(mut values: BTreeMap<String, Arc<str>>, keys: &[DimensionKey]) -> serde_json::Result<GroupKey> {
    let group = keys.iter().map(|key| values.remove(key.as_str())).collect();
    match values.keys().next() {
        Some(key) => Err(serde::de::Error::custom(format!("nobody grouped by {key}"))),
        None => Ok(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, kind: &str, body: &str) -> Response {
        let headers =
            vec![("content-type".to_owned(), kind.to_owned()), ("retry-after".to_owned(), "2".to_owned())];
        Response { status, headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_refusal_is_read_from_its_words() {
        let body = r#"{"accepted":1,"rejected":2,"errors":[
            {"index":0,"metric":"m","code":"CARDINALITY_LIMIT","error":"a new metric would pass the tenant's limit of 3 metrics"},
            {"index":2,"metric":"m","code":"CARDINALITY_LIMIT","error":"a new series would pass the limit of 7 series per metric"}]}"#;
        let read = written(&response(207, "application/json", body)).unwrap();
        let expected = [(0, Refusal::MetricLimit { limit: 3 }), (2, Refusal::SeriesLimit { limit: 7 })];
        assert_eq!((read.accepted, read.refused.as_slice(), read.durable), (1, &expected[..], true));
        assert!(written(&response(207, "application/json", &body.replace(":2,\"err", ":3,\"err"))).is_err());
    }

    #[test]
    fn numbers_are_read_to_the_last_bit() {
        for value in [5e-324, 0.1 + 0.2, -0.0, f64::MAX, 9.209_123_456_789_012e-300] {
            let text = format!(
                "{{\"timestamp\":1,\"value\":{},\"dimensions\":{{}}}}",
                serde_json::to_string(&value).unwrap()
            );
            assert_eq!(range_row(&text).unwrap().value.to_bits(), value.to_bits());
        }
    }

    #[test]
    fn series_are_read_strictly() {
        let keys = [DimensionKey::new("k").unwrap()];
        let aggregates =
            |lists: &str| aggregate_series(&format!(r#"{{"groupKey":{{"k":"a"}},{lists}}}"#), &keys);
        let rows = aggregates(r#""timestamps":[1,2],"values":[0.5,null],"counts":[3,4]"#).unwrap();
        let read: Vec<_> = rows.iter().map(|row| (row.timestamp, row.value.is_nan(), row.count)).collect();
        assert_eq!(read, [(Some(1), false, 3), (Some(2), true, 4)]);
        assert_eq!(aggregates(r#""values":[0.5],"counts":[3]"#).unwrap()[0].timestamp, None);
        for bad in [
            r#""values":[0.5,1],"counts":[3,4]"#,
            r#""timestamps":[1],"values":[0.5,1],"counts":[3,4]"#,
            r#""timestamps":[1,2],"values":[0.5],"counts":[3,4]"#,
            r#""timestamps":[],"values":[],"counts":[]"#,
        ] {
            assert!(aggregates(bad).is_err(), "{bad}");
        }
        let raw = |host: &str, times: &str| {
            range_series(&format!(
                r#"{{"dimensions":{{"host":"{host}"}},"timestamps":{times},"values":[1,2]}}"#
            ))
            .unwrap()
        };
        let mut rows = [raw("a", "[1,3]"), raw("b", "[1,2]")].concat();
        by_time(&mut rows).unwrap();
        assert_eq!(rows.iter().map(|row| row.timestamp).collect::<Vec<_>>(), [1, 1, 2, 3]);
        for bad in
            [vec![raw("b", "[1,2]"), raw("a", "[1,3]")], vec![raw("a", "[3,1]")], vec![raw("a", "[1,2]"); 2]]
        {
            assert!(by_time(&mut bad.concat()).is_err());
        }
    }

    #[test]
    fn an_error_keeps_its_kind() {
        let of = |status, code: &str| {
            let body = format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"m\"}}}}");
            failure(&response(status, "application/json", &body)).kind
        };
        assert_eq!(of(504, "QUERY_TIMEOUT"), ErrorKind::Timeout);
        assert_eq!(of(503, "OVERLOADED"), ErrorKind::Overloaded { retry_after: Duration::from_secs(2) });
        assert_eq!(of(500, "OVERLOADED"), ErrorKind::Internal);
    }
}
