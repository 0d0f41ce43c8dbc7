//! The answer to a query: rows written out as they are, in pieces, without a tree.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use luminate_storage::model::{
    AggregateRow, Answer, DimensionKey, Dimensions, GroupKey, QueryStats, RangeRow, RateRow,
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::super::input::NDJSON;
use super::body::QueryType;
use crate::body::Share;

/// Rows of a piece.
const PIECE: usize = 512;
/// Bytes of a row besides its texts.
const ROW: usize = 64;
/// Bytes of a reference to a text, and of what is kept with the text.
const TEXT: usize = 48;

/// The answer to a query.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct QueryAnswer {
    /// What was asked.
    pub query_type: QueryType,
    /// The rows: of a range query, an aggregate query or a rate query.
    pub results: Vec<ResultRow>,
    /// How long the store worked, in milliseconds.
    pub execution_time_ms: f64,
    /// Samples looked at, by value or by summary.
    pub points_scanned: u64,
    /// Series with a sample in range.
    pub series_matched: u64,
    /// Whether `limit` left a row out.
    pub truncated: bool,
}

/// A row of an answer. A number that overflowed is `null`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ResultRow {
    /// Of a range query.
    Sample(RangeResult),
    /// Of an aggregate query.
    Aggregate(AggregateResult),
    /// Of a rate query.
    Rate(RateResult),
}

/// A raw sample.
#[derive(Debug, Serialize, ToSchema)]
pub struct RangeResult {
    /// Unix milliseconds.
    timestamp: i64,
    /// The value.
    value: f64,
    /// The series' dimensions.
    #[schema(value_type = BTreeMap<String, String>)]
    #[serde(serialize_with = "dimensions")]
    dimensions: Dimensions,
}

/// One number of a group, and of a bucket when the query named an interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AggregateResult {
    /// The values of the grouped keys; a key that the group's series lack is left out.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"customer_id": "acme"}))]
    group_key: Group,
    /// Start of the bucket in Unix milliseconds; absent without an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    /// `null` where it overflowed.
    #[schema(value_type = Option<f64>, required)]
    value: f64,
    /// Samples in it.
    count: u64,
}

/// The increase per second of a group in a bucket.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateResult {
    /// The values of the grouped keys; a key that the group's series lack is left out.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"customer_id": "acme"}))]
    group_key: Group,
    /// Start of the bucket in Unix milliseconds.
    timestamp: i64,
    /// `null` where it overflowed.
    #[schema(value_type = Option<f64>, required)]
    rate: f64,
}

fn dimensions<S: Serializer>(dimensions: &Dimensions, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(dimensions.iter().map(|(key, value)| (key.as_str(), value.as_ref())))
}

/// The grouped keys of a query with a row's values.
#[derive(Debug)]
struct Group {
    keys: Arc<[DimensionKey]>,
    values: GroupKey,
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.keys.iter().zip(self.values.iter());
        serializer.collect_map(pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?))))
    }
}

/// What a query cost and left out: the end of its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How long the store worked, in milliseconds.
    execution_time_ms: f64,
    /// Samples looked at, by value or by summary.
    points_scanned: u64,
    /// Series with a sample in range.
    series_matched: u64,
    /// Whether `limit` left a row out.
    truncated: bool,
}

impl Summary {
    /// The summary of a query that took `seconds`.
    #[must_use]
    pub fn new(stats: &QueryStats, seconds: f64) -> Self {
        Self {
            // To the microsecond.
            execution_time_ms: (seconds * 1e6).round() / 1e3,
            points_scanned: stats.points_scanned,
            series_matched: stats.series_matched,
            truncated: stats.truncated,
        }
    }
}

/// The rows of any answer.
#[derive(Debug)]
pub enum Rows {
    /// Raw samples.
    Range(Vec<RangeRow>),
    /// Aggregates, and the keys that name their groups.
    Aggregate(Vec<AggregateRow>, Arc<[DimensionKey]>),
    /// Rates, and the keys that name their groups.
    Rate(Vec<RateRow>, Arc<[DimensionKey]>),
}

impl Rows {
    /// Takes an answer apart.
    pub fn of<Row>(answer: Answer<Row>, rows: impl FnOnce(Vec<Row>) -> Self) -> (Self, QueryStats) {
        (rows(answer.rows), answer.stats)
    }

    fn len(&self) -> usize {
        match self {
            Self::Range(rows) => rows.len(),
            Self::Aggregate(rows, _) => rows.len(),
            Self::Rate(rows, _) => rows.len(),
        }
    }

    /// About how many bytes of memory they take.
    pub fn bytes(&self) -> u64 {
        let texts = |text: &str| text.len() + TEXT;
        let groups = |group: &GroupKey| group.iter().flatten().map(|value| texts(value)).sum::<usize>();
        let bytes: usize = match self {
            Self::Range(rows) => {
                rows.iter().flat_map(|row| row.dimensions.iter()).map(|(_, value)| texts(value)).sum()
            }
            Self::Aggregate(rows, _) => rows.iter().map(|row| groups(&row.group)).sum(),
            Self::Rate(rows, _) => rows.iter().map(|row| groups(&row.group)).sum(),
        };
        (bytes + self.len() * ROW) as u64
    }

    fn query_type(&self) -> QueryType {
        match self {
            Self::Range(_) => QueryType::Range,
            Self::Aggregate(..) => QueryType::Aggregate,
            Self::Rate(..) => QueryType::Rate,
        }
    }

    /// Appends row `at` to `out`.
    fn write(&self, at: usize, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let group = |keys: &Arc<[DimensionKey]>, values: &GroupKey| Group {
            keys: keys.clone(),
            values: values.clone(),
        };
        match self {
            Self::Range(rows) => {
                let RangeRow { timestamp, value, dimensions } = rows[at].clone();
                serde_json::to_writer(out, &RangeResult { timestamp, value, dimensions })
            }
            Self::Aggregate(rows, keys) => {
                let AggregateRow { group: values, timestamp, value, count } = &rows[at];
                let (timestamp, value, count) = (*timestamp, *value, *count);
                let group_key = group(keys, values);
                serde_json::to_writer(out, &AggregateResult { group_key, timestamp, value, count })
            }
            Self::Rate(rows, keys) => {
                let RateRow { group: values, timestamp, rate } = &rows[at];
                let (timestamp, rate) = (*timestamp, *rate);
                serde_json::to_writer(out, &RateResult { group_key: group(keys, values), timestamp, rate })
            }
        }
    }
}

/// How an answer is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One JSON object.
    Object,
    /// A row a line, then the summary.
    Lines,
}

/// An answer that is written out piece by piece.
struct Pieces {
    rows: Rows,
    summary: Summary,
    layout: Layout,
    next: usize,
    done: bool,
    /// Memory of the rows, held until the last is sent.
    _held: Share,
}

impl Pieces {
    fn piece(&mut self) -> serde_json::Result<Bytes> {
        let mut out = Vec::with_capacity(PIECE * 128);
        if self.next == 0 && self.layout == Layout::Object {
            out.extend_from_slice(b"{\"queryType\":");
            serde_json::to_writer(&mut out, &self.rows.query_type())?;
            out.extend_from_slice(b",\"results\":[");
        }
        let until = self.rows.len().min(self.next + PIECE);
        for at in self.next..until {
            if at > 0 && self.layout == Layout::Object {
                out.push(b',');
            }
            self.rows.write(at, &mut out)?;
            if self.layout == Layout::Lines {
                out.push(b'\n');
            }
        }
        self.next = until;
        if until == self.rows.len() {
            self.done = true;
            self.end(&mut out)?;
        }
        Ok(out.into())
    }

    fn end(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self.layout {
            Layout::Object => {
                // The summary's fields stand beside the rows: its opening brace is dropped.
                out.extend_from_slice(b"],");
                let summary = serde_json::to_vec(&self.summary)?;
                out.extend_from_slice(summary.strip_prefix(b"{").unwrap_or(&summary));
            }
            Layout::Lines => {
                out.extend_from_slice(b"{\"summary\":");
                serde_json::to_writer(&mut *out, &self.summary)?;
                out.extend_from_slice(b"}\n");
            }
        }
        Ok(())
    }
}

impl Iterator for Pieces {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.done).then(|| self.piece())
    }
}

/// The response with `rows`; long ones are written out as the client reads them, and `held` until then.
pub fn response(rows: Rows, summary: Summary, layout: Layout, held: Share) -> Response {
    let short = rows.len() <= PIECE;
    let mut pieces = Pieces { rows, summary, layout, next: 0, done: false, _held: held };
    let body = match pieces.next() {
        Some(Ok(piece)) if short => Body::from(piece),
        Some(first) => Body::from_stream(futures_util::stream::iter(std::iter::once(first).chain(pieces))),
        None => Body::empty(),
    };
    let kind = if layout == Layout::Lines { NDJSON } else { "application/json" };
    ([(CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use luminate_storage::model::DimensionLimits;
    use serde_json::{Value, json};

    use super::*;

    fn rows(count: i64) -> Rows {
        let dimensions = Dimensions::new([("k", "\"ü\n")], &DimensionLimits::default()).unwrap();
        let row = |timestamp| RangeRow { timestamp, value: 0.5, dimensions: dimensions.clone() };
        Rows::Range((0..count).map(row).collect())
    }

    async fn text(rows: Rows, layout: Layout) -> String {
        let stats = QueryStats { points_scanned: 7, series_matched: 1, truncated: true };
        let held = crate::body::BodyBudget::new(0, 0).share(None);
        let body = response(rows, Summary::new(&stats, 0.001_234_567), layout, held).into_body();
        String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_object_has_the_rows_and_what_they_cost() {
        let expected = r#"{"queryType":"range","results":[{"timestamp":0,"value":0.5,"dimensions":{"k":"\"ü\n"}}],"executionTimeMs":1.235,"pointsScanned":7,"seriesMatched":1,"truncated":true}"#;
        assert_eq!(text(rows(1), Layout::Object).await, expected);
    }

    #[tokio::test]
    async fn absent_keys_are_left_out_and_overflows_are_null() {
        let keys: Arc<[DimensionKey]> =
            [DimensionKey::new("a").unwrap(), DimensionKey::new("b").unwrap()].into();
        let group: GroupKey = [None, Some("x".into())].into();
        let row = AggregateRow { group: group.clone(), timestamp: None, value: f64::INFINITY, count: 2 };
        let aggregate = text(Rows::Aggregate(vec![row], keys.clone()), Layout::Lines).await;
        assert!(
            aggregate.starts_with("{\"groupKey\":{\"b\":\"x\"},\"value\":null,\"count\":2}\n{\"summary\":"),
            "{aggregate}"
        );
        let row = RateRow { group, timestamp: 5, rate: f64::NAN };
        let rate = text(Rows::Rate(vec![row], keys), Layout::Lines).await;
        assert!(rate.starts_with("{\"groupKey\":{\"b\":\"x\"},\"timestamp\":5,\"rate\":null}\n"), "{rate}");
    }

    #[tokio::test]
    async fn long_answers_are_whole_in_both_layouts() {
        for count in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let object: Value =
                serde_json::from_str(&text(rows(count as i64), Layout::Object).await).unwrap();
            assert_eq!(object["results"].as_array().unwrap().len(), count);
            let lines = text(rows(count as i64), Layout::Lines).await;
            let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len(), count + 1);
            assert!(lines[..count].iter().enumerate().all(|(at, line)| line["timestamp"] == at));
            assert_eq!(
                lines[count],
                json!({"summary": {"executionTimeMs": 1.235, "pointsScanned": 7, "seriesMatched": 1, "truncated": true}})
            );
        }
    }
}
