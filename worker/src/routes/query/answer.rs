//! The answer to a query, or to many: written out in pieces, without a tree.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use luminate_storage::model::QueryStats;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::input::NDJSON;
use super::body::QueryType;
use super::rows::{ResultRow, Rows, Writer};
use crate::body::Share;
use crate::error::ErrorBody;

/// Rows of a piece.
const PIECE: usize = 512;
/// About how many bytes a row has, and what stands around all rows.
const ROW: usize = 128;
const ENDS: usize = 256;
/// Bytes of a piece that is made of several short answers.
const PIECE_BYTES: usize = PIECE * ROW;

/// The answer to a query.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
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
    summary: Summary,
    /// Memory of the rows, held until the last is sent.
    _held: Share,
}

impl Found {
    /// Rows, what they cost, and what holds their memory.
    #[must_use]
    pub fn new(rows: Rows, summary: Summary, held: Share) -> Self {
        Self { rows, summary, _held: held }
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

/// An answer that is written out piece by piece.
struct Pieces {
    found: Found,
    layout: Layout,
    next: usize,
    done: bool,
    writer: Writer,
}

impl Pieces {
    fn new(found: Found, layout: Layout) -> Self {
        Self { found, layout, next: 0, done: false, writer: Writer::default() }
    }

    fn end(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self.layout {
            Layout::Object => {
                // The summary's fields stand beside the rows: its opening brace is dropped.
                out.extend_from_slice(b"],");
                let summary = serde_json::to_vec(&self.found.summary)?;
                out.extend_from_slice(summary.strip_prefix(b"{").unwrap_or(&summary));
            }
            Layout::Lines => {
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
        if self.next == 0 && self.layout == Layout::Object {
            out.extend_from_slice(b"{\"queryType\":");
            serde_json::to_writer(&mut *out, &rows.query_type())?;
            out.extend_from_slice(b",\"results\":[");
        }
        let until = rows.len().min(self.next + PIECE);
        for at in self.next..until {
            if at > 0 && self.layout == Layout::Object {
                out.push(b',');
            }
            self.writer.row(rows, at, out)?;
            if self.layout == Layout::Lines {
                out.push(b'\n');
            }
        }
        self.next = until;
        if until == rows.len() {
            self.done = true;
            self.end(out)?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn expected(&self) -> usize {
        ENDS + (self.found.rows.len() - self.next).min(PIECE) * ROW
    }
}

/// The response with an answer; a long one is written out as the client reads it.
pub fn response(found: Found, layout: Layout) -> Response {
    let kind = if layout == Layout::Lines { NDJSON } else { "application/json" };
    in_pieces(Pieces::new(found, layout), kind)
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
        while out.len() < PIECE_BYTES {
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
        self.rest.iter().map(each).sum::<usize>().min(PIECE_BYTES)
    }
}

/// The response with the answers to a batch, each of which may be an error instead.
pub fn response_of_many(answers: Vec<Result<Found, ErrorBody>>) -> Response {
    let pieces = |found| Box::new(Pieces::new(found, Layout::Object));
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

    use super::*;

    fn rows(count: i64) -> Rows {
        let dimensions = Dimensions::new([("k", "\"ü\n")], &DimensionLimits::default()).unwrap();
        let row = |timestamp| RangeRow { timestamp, value: 0.5, dimensions: dimensions.clone() };
        Rows::Range((0..count).map(row).collect())
    }

    fn found(rows: Rows, stats: QueryStats) -> Found {
        let held = crate::body::BodyBudget::new(0, 0).share(None);
        Found::new(rows, Summary::new(&stats, 0.001_234_567), held)
    }

    async fn text(rows: Rows, layout: Layout) -> String {
        let stats = QueryStats { points_scanned: 7, series_matched: 1, truncated: true };
        let body = response(found(rows, stats), layout).into_body();
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

    #[tokio::test]
    async fn many_answers_are_each_as_if_alone_and_in_order() {
        let error = || crate::error::Error::NotFound.body(None);
        let counts = [1, 0, 3 * PIECE, 7, PIECE];
        for refused in 0..=counts.len() {
            let (mut answers, mut expected) = (Vec::new(), Vec::new());
            for (at, count) in counts.into_iter().enumerate() {
                if at == refused {
                    answers.push(Err(error()));
                    expected.push(serde_json::to_string(&error()).unwrap());
                }
                let stats = QueryStats { points_scanned: 7, series_matched: 1, truncated: true };
                answers.push(Ok(found(rows(count as i64), stats)));
                expected.push(text(rows(count as i64), Layout::Object).await);
            }
            let body = response_of_many(answers).into_body();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let expected = format!("{{\"answers\":[{}]}}", expected.join(","));
            assert!(bytes == expected.as_bytes(), "{refused}");
        }
    }
}
