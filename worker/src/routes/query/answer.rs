//! The answer to a query, or to many: written out in pieces, without a tree.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use luminate_storage::model::QueryStats;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::input::NDJSON;
use super::body::{Layout, QueryType};
use super::rows::{ResultRow, RowWriter, Rows};
use super::series::{ResultSeries, SeriesWriter};
use crate::body::Share;
use crate::error::ErrorBody;

/// Bytes of a piece, about.
pub const PIECE: usize = 64 << 10;
/// Bytes of what stands around all rows, at most.
const ENDS: usize = 256;

/// The answer to a query.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryAnswer {
    /// What was asked.
    pub query_type: QueryType,
    /// The rows of a range query, an aggregate query or a rate query, or series of them.
    pub results: Vec<QueryResult>,
    /// How long the store worked, in milliseconds.
    pub execution_time_ms: f64,
    /// Samples looked at, by value or by summary.
    pub points_scanned: u64,
    /// Series with a sample in range.
    pub series_matched: u64,
    /// Whether `limit` left a row out.
    pub truncated: bool,
}

/// A part of an answer, as the query's type and layout say.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum QueryResult {
    /// Of the layout `rows`.
    Row(ResultRow),
    /// Of the layout `series`.
    Series(ResultSeries),
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

/// An answer, before it is written out.
#[derive(Debug)]
pub struct Found {
    rows: Rows,
    layout: Layout,
    summary: Summary,
    /// Memory of the rows, held until the last is sent.
    _held: Share,
}

impl Found {
    /// Rows in the order of the contract and how they are to be laid out, what they cost, and what holds their memory.
    #[must_use]
    pub fn new(rows: Rows, layout: Layout, summary: Summary, held: Share) -> Self {
        let rows = if layout == Layout::Series { rows.by_series() } else { rows };
        Self { rows, layout, summary, _held: held }
    }
}

/// How an answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Object,
    /// A row or series a line, then the summary.
    Lines,
}

/// What is written out piece by piece.
trait Written: Send + 'static {
    /// Appends the next piece to `out`.
    fn piece(&mut self, out: &mut Vec<u8>) -> serde_json::Result<()>;

    /// Whether there is no more of it.
    fn is_done(&self) -> bool;

    /// About how many bytes the next piece has.
    fn expected(&self) -> usize;

    /// The next piece, if there is one.
    fn next_piece(&mut self) -> Option<serde_json::Result<Bytes>> {
        if self.is_done() {
            return None;
        }
        let mut out = Vec::with_capacity(self.expected());
        Some(self.piece(&mut out).map(|()| out.into()))
    }
}

enum Writer {
    Rows(RowWriter),
    Series(SeriesWriter),
}

/// An answer that is written out piece by piece.
struct Pieces {
    found: Found,
    format: Format,
    begun: bool,
    done: bool,
    writer: Writer,
}

impl Pieces {
    fn new(found: Found, format: Format) -> Self {
        let writer = match found.layout {
            Layout::Rows => Writer::Rows(RowWriter::default()),
            Layout::Series => Writer::Series(SeriesWriter::default()),
        };
        Self { found, format, begun: false, done: false, writer }
    }

    fn end(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self.format {
            Format::Object => {
                // The summary's fields stand beside the rows: its opening brace is dropped.
                out.extend_from_slice(b"],");
                let summary = serde_json::to_vec(&self.found.summary)?;
                out.extend_from_slice(summary.strip_prefix(b"{").unwrap_or(&summary));
            }
            Format::Lines => {
                out.extend_from_slice(b"{\"summary\":");
                serde_json::to_writer(&mut *out, &self.found.summary)?;
                out.extend_from_slice(b"}\n");
            }
        }
        Ok(())
    }
}

impl Written for Pieces {
    fn piece(&mut self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let rows = &self.found.rows;
        if !std::mem::replace(&mut self.begun, true) && self.format == Format::Object {
            out.extend_from_slice(b"{\"queryType\":");
            serde_json::to_writer(&mut *out, &rows.query_type())?;
            out.extend_from_slice(b",\"results\":[");
        }
        self.done = match &mut self.writer {
            Writer::Rows(writer) => writer.piece(rows, self.format, out)?,
            Writer::Series(writer) => writer.piece(rows, self.format, out)?,
        };
        if self.done { self.end(out) } else { Ok(()) }
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn expected(&self) -> usize {
        let left = match &self.writer {
            Writer::Rows(writer) => writer.expected(&self.found.rows),
            Writer::Series(writer) => writer.expected(&self.found.rows),
        };
        ENDS + left.min(PIECE)
    }
}

/// The response with an answer; a long one is written out as the client reads it.
pub fn response(found: Found, format: Format) -> Response {
    let kind = if format == Format::Lines { NDJSON } else { "application/json" };
    in_pieces(Pieces::new(found, format), kind)
}

/// The response of what is written in pieces: whole where it is done after the first.
fn in_pieces(mut written: impl Written, kind: &'static str) -> Response {
    let body = match written.next_piece() {
        Some(Ok(piece)) if written.is_done() => Body::from(piece),
        Some(first) => {
            let others = std::iter::from_fn(move || written.next_piece());
            Body::from_stream(futures_util::stream::iter(std::iter::once(first).chain(others)))
        }
        None => Body::empty(),
    };
    ([(CONTENT_TYPE, kind)], body).into_response()
}

/// Answers to many questions, in their order.
struct Parts {
    /// Those that are not written yet; the first may be in part.
    rest: VecDeque<Result<Box<Pieces>, ErrorBody>>,
    begun: bool,
    done: bool,
}

impl Written for Parts {
    fn piece(&mut self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"{\"answers\":[");
        }
        while out.len() < PIECE {
            match self.rest.front_mut() {
                Some(Ok(pieces)) => {
                    pieces.piece(out)?;
                    if !pieces.done {
                        continue;
                    }
                }
                Some(Err(error)) => serde_json::to_writer(&mut *out, error)?,
                None => {
                    out.extend_from_slice(b"]}");
                    self.done = true;
                    break;
                }
            }
            // What it held is free again.
            self.rest.pop_front();
            if !self.rest.is_empty() {
                out.push(b',');
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn expected(&self) -> usize {
        let each = |pieces: &Result<Box<Pieces>, _>| pieces.as_ref().map_or(ENDS, |pieces| pieces.expected());
        self.rest.iter().map(each).sum::<usize>().min(PIECE)
    }
}

/// The response with the answers to a batch, each of which may be an error instead.
pub fn response_of_many(answers: Vec<Result<Found, ErrorBody>>) -> Response {
    let pieces = |found| Box::new(Pieces::new(found, Format::Object));
    let rest = answers.into_iter().map(|answer| answer.map(pieces)).collect();
    in_pieces(Parts { rest, begun: false, done: false }, "application/json")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use luminate_storage::model::{
        AggregateRow, DimensionKey, DimensionLimits, Dimensions, GroupKey, RangeRow, RateRow,
    };
    use serde_json::{Value, json};

    use super::super::rows::ROWS;
    use super::*;

    fn rows(count: i64) -> Rows {
        let dimensions = Dimensions::new([("k", "\"ü\n")], &DimensionLimits::default()).unwrap();
        let row = |timestamp| RangeRow { timestamp, value: 0.5, dimensions: dimensions.clone() };
        Rows::Range((0..count).map(row).collect())
    }

    fn found(rows: Rows, layout: Layout, stats: QueryStats) -> Found {
        let held = crate::body::BodyBudget::new(0, 0).share(None);
        Found::new(rows, layout, Summary::new(&stats, 0.001_234_567), held)
    }

    async fn text(rows: Rows, format: Format) -> String {
        let stats = QueryStats { points_scanned: 7, series_matched: 1, truncated: true };
        let body = response(found(rows, Layout::Rows, stats), format).into_body();
        String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_object_has_the_rows_and_what_they_cost() {
        let expected = r#"{"queryType":"range","results":[{"timestamp":0,"value":0.5,"dimensions":{"k":"\"ü\n"}}],"executionTimeMs":1.235,"pointsScanned":7,"seriesMatched":1,"truncated":true}"#;
        assert_eq!(text(rows(1), Format::Object).await, expected);
    }

    #[tokio::test]
    async fn absent_keys_are_left_out_and_overflows_are_null() {
        let keys: Arc<[DimensionKey]> =
            [DimensionKey::new("a").unwrap(), DimensionKey::new("b").unwrap()].into();
        let group: GroupKey = [None, Some("x".into())].into();
        let row = AggregateRow { group: group.clone(), timestamp: None, value: f64::INFINITY, count: 2 };
        let aggregate = text(Rows::Aggregate(vec![row], keys.clone()), Format::Lines).await;
        assert!(
            aggregate.starts_with("{\"groupKey\":{\"b\":\"x\"},\"value\":null,\"count\":2}\n{\"summary\":"),
            "{aggregate}"
        );
        let row = RateRow { group, timestamp: 5, rate: f64::NAN };
        let rate = text(Rows::Rate(vec![row], keys), Format::Lines).await;
        assert!(rate.starts_with("{\"groupKey\":{\"b\":\"x\"},\"timestamp\":5,\"rate\":null}\n"), "{rate}");
    }

    #[tokio::test]
    async fn series_stand_where_rows_would() {
        let stats = QueryStats { points_scanned: 7, series_matched: 1, truncated: true };
        let body = response(found(rows(2), Layout::Series, stats), Format::Object).into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let expected = r#"{"queryType":"range","results":[{"dimensions":{"k":"\"ü\n"},"timestamps":[0,1],"values":[0.5,0.5]}],"executionTimeMs":1.235,"pointsScanned":7,"seriesMatched":1,"truncated":true}"#;
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    #[tokio::test]
    async fn long_answers_are_whole_in_both_formats() {
        for count in [0, 1, ROWS, ROWS + 1, 3 * ROWS] {
            let object: Value =
                serde_json::from_str(&text(rows(count as i64), Format::Object).await).unwrap();
            assert_eq!(object["results"].as_array().unwrap().len(), count);
            let lines = text(rows(count as i64), Format::Lines).await;
            let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len(), count + 1);
            assert!(lines[..count].iter().enumerate().all(|(at, line)| line["timestamp"] == at));
            assert_eq!(
                lines[count],
                json!({"summary": {"executionTimeMs": 1.235, "pointsScanned": 7, "seriesMatched": 1, "truncated": true}})
            );
        }
    }

    #[tokio::test]
    async fn many_answers_are_each_as_if_alone_and_in_order() {
        let error = || crate::error::Error::NotFound.body(None);
        let counts = [1, 0, 3 * ROWS, 7, ROWS];
        for refused in 0..=counts.len() {
            let (mut answers, mut expected) = (Vec::new(), Vec::new());
            for (at, count) in counts.into_iter().enumerate() {
                if at == refused {
                    answers.push(Err(error()));
                    expected.push(serde_json::to_string(&error()).unwrap());
                }
                let stats = QueryStats { points_scanned: 7, series_matched: 1, truncated: true };
                answers.push(Ok(found(rows(count as i64), Layout::Rows, stats)));
                expected.push(text(rows(count as i64), Format::Object).await);
            }
            let body = response_of_many(answers).into_body();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let expected = format!("{{\"answers\":[{}]}}", expected.join(","));
            assert!(bytes == expected.as_bytes(), "{refused}");
        }
    }
}
