//! Bulk formats: text of any length, read in pieces of whole lines, each of which becomes one batch.
//!
//! A piece is decoded by a function of its bytes alone, so that it can be decoded again when the store has forgotten a
//! series in between. What is refused is listed by line, not by sample: a line may hold thousands.

pub mod columns;
pub mod csv;
pub mod lines;

use std::collections::HashMap;
use std::sync::Arc;

use luminate_storage::model::{Batch, DimensionLimits, MetricName, SeriesLimits};
use luminate_storage::store::{Refusal, Retention, SeriesLookup};
use serde::Serialize;
use utoipa::ToSchema;

use self::columns::Columns;
use super::{Counts, MAX_LISTED_ERRORS, Problem, Resolver, cardinality_problem};
use crate::error::Code;

/// What samples of an import must keep to.
#[derive(Debug, Clone)]
pub struct BulkRules {
    /// The time now, in Unix milliseconds.
    pub now: i64,
    /// Latest sample accepted.
    pub newest: i64,
    /// What dimensions must keep to.
    pub dimensions: DimensionLimits,
    /// What the import may create.
    pub series: SeriesLimits,
    /// A piece ends behind the line with which it has so many samples.
    pub most_samples: usize,
    oldest: i64,
    oldest_of: HashMap<String, i64>,
}

impl BulkRules {
    /// Rules by which samples are accepted for as long as `retention` keeps them, and up to `max_future` milliseconds
    /// from `now`.
    #[must_use]
    pub fn new(now: i64, retention: &Retention, max_future: i64, most_samples: usize) -> Self {
        let of =
            |(metric, millis): (&MetricName, &i64)| (metric.as_str().to_owned(), now.saturating_sub(*millis));
        Self {
            now,
            newest: now.saturating_add(max_future),
            dimensions: DimensionLimits::default(),
            series: SeriesLimits::NONE,
            most_samples,
            oldest: now.saturating_sub(retention.default),
            oldest_of: retention.metrics.iter().map(of).collect(),
        }
    }

    /// Whether every metric has the same retention, so that nobody need know its name.
    fn is_uniform(&self) -> bool {
        self.oldest_of.is_empty()
    }

    /// The oldest sample accepted of `metric`.
    fn oldest(&self, metric: &str) -> i64 {
        match self.is_uniform() {
            true => self.oldest,
            false => self.oldest_of.get(metric.replace(':', "_").as_str()).copied().unwrap_or(self.oldest),
        }
    }

    /// The refusal of a sample that is outside of what is accepted.
    fn outside(&self, oldest: i64, time: i64) -> Problem {
        let message = if time < oldest {
            format!("timestamp {time} is older than the metric's retention, which begins at {oldest}")
        } else {
            format!("timestamp {time} lies in the future: up to {} is accepted", self.newest)
        };
        Problem::new(Code::TimestampOutOfRange, message)
    }
}

/// A format that is read line by line.
#[derive(Debug, Clone)]
pub enum Format {
    /// JSON lines.
    JsonLines,
    /// CSV with these columns.
    Csv(Arc<Columns>),
}

/// What stands in a line of its own at the end of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It is complete and has so many samples.
    Summary(u64),
    /// It ended early, and why.
    Failed(String),
}

/// A line of which something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LineError {
    /// Which, from 1.
    pub line: u64,
    /// How many of its samples.
    pub samples: u64,
    /// Its metric as sent, where that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub metric: Option<Arc<str>>,
    /// Why, for programs; of several reasons the first.
    pub code: Code,
    /// Why, for people.
    pub error: String,
}

/// What was refused: samples by reason, and the first [`MAX_LISTED_ERRORS`] lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    counts: Counts,
    listed: Vec<LineError>,
}

impl Refused {
    fn push(&mut self, line: u64, samples: u64, metric: Option<Arc<str>>, problem: Problem) {
        let Problem { code, error } = problem;
        self.counts.add(code, samples);
        if self.listed.len() < MAX_LISTED_ERRORS {
            self.listed.push(LineError { line, samples, metric, code, error });
        }
    }

    /// Adds what was refused of later lines.
    pub fn append(&mut self, later: Self) {
        for (code, samples) in later.counts.0 {
            self.counts.add(code, samples);
        }
        let room = MAX_LISTED_ERRORS - self.listed.len();
        self.listed.extend(later.listed.into_iter().take(room));
    }

    /// Samples refused; a line that can't be read counts as one.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.total()
    }

    /// Samples refused, by reason.
    #[must_use]
    pub fn counts(&self) -> &[(Code, u64)] {
        &self.counts.0
    }

    /// The first lines.
    #[must_use]
    pub fn listed(&self) -> &[LineError] {
        &self.listed
    }
}

/// A decoded piece.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The samples to store.
    pub batch: Batch,
    /// How many bytes were read; the rest is part of a line, or of another piece.
    pub consumed: usize,
    /// How many lines that were.
    pub lines: u64,
    /// What was refused.
    pub refused: Refused,
    /// Samples left out without being an error: NaN and infinities.
    pub dropped: u64,
    /// The last line, where it is an export's own.
    pub ending: Option<Ending>,
    /// The number of each line with samples to store, by its first row.
    rows: Vec<(u32, u64)>,
}

impl Piece {
    fn new(series: SeriesLimits) -> Self {
        Self {
            batch: Batch::new(series),
            consumed: 0,
            lines: 0,
            refused: Refused::default(),
            dropped: 0,
            ending: None,
            rows: Vec::new(),
        }
    }

    /// Samples that its lines had.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.batch.len() as u64 + self.refused.total() + self.dropped
    }

    /// What is needed, once the batch is with the store, to say which lines it refused something of.
    #[must_use]
    pub fn take_places(&mut self) -> Places {
        let metric_of = |row: usize| match self.batch.series.get(row) {
            Some(luminate_storage::model::RowSeries::New(at)) => {
                self.batch.new_series.get(*at as usize).map(|series| series.metric.clone())
            }
            _ => None,
        };
        let metrics = match self.batch.new_series.is_empty() {
            true => Vec::new(),
            false => self.rows.iter().map(|(row, _)| metric_of(*row as usize)).collect(),
        };
        Places { rows: std::mem::take(&mut self.rows), metrics }
    }

    /// Notes that the next row is the first of `line`.
    fn begin_line(&mut self, line: u64) {
        let row = u32::try_from(self.batch.len()).unwrap_or(u32::MAX);
        match self.rows.last_mut() {
            Some(last) if last.0 == row => last.1 = line,
            _ => self.rows.push((row, line)),
        }
    }
}

/// Which line each row of a batch came from.
#[derive(Debug, Default)]
pub struct Places {
    rows: Vec<(u32, u64)>,
    metrics: Vec<Option<MetricName>>,
}

impl Places {
    /// The lines of the rows that the store refused.
    #[must_use]
    pub fn refused(&self, rows: &[(u32, Refusal)]) -> Refused {
        let mut refused = Refused::default();
        let place = |row: u32| self.rows.partition_point(|(first, _)| *first <= row).saturating_sub(1);
        for rows in rows.chunk_by(|one, next| place(one.0) == place(next.0)) {
            let place = place(rows[0].0);
            let line = self.rows.get(place).map_or(0, |(_, line)| *line);
            let metric = self.metrics.get(place).cloned().flatten();
            let metric = metric.map(|metric| Arc::from(metric.as_str()));
            refused.push(line, rows.len() as u64, metric, cardinality_problem(rows[0].1));
        }
        refused
    }
}

/// Decodes the whole lines at the beginning of `text`, up to a piece's worth of samples; `at_end` says that nothing
/// comes behind it. `first_line` is the number of its first line.
#[must_use]
pub fn decode(
    format: &Format,
    text: &[u8],
    at_end: bool,
    first_line: u64,
    rules: &BulkRules,
    lookup: &dyn SeriesLookup,
) -> Piece {
    match format {
        Format::JsonLines => lines::decode(text, at_end, first_line, rules, Resolver::new(lookup)),
        Format::Csv(columns) => csv::decode(columns, text, at_end, first_line, rules, Resolver::new(lookup)),
    }
}

#[cfg(test)]
mod testing {
    use super::super::testing::{KnownSeries, NOW};
    use super::*;

    pub const DAY: i64 = 86_400_000;

    pub fn rules() -> BulkRules {
        let metrics = [(MetricName::new("short").unwrap(), DAY)].into();
        BulkRules::new(NOW, &Retention { default: 30 * DAY, metrics }, 3_600_000, 1_000_000)
    }

    pub fn decoded(format: &Format, text: &str) -> Piece {
        decode(format, text.as_bytes(), true, 1, &rules(), &KnownSeries::none())
    }

    /// Rows of new series as `metric{key=value} time value`, the time since [`NOW`].
    pub fn rows(piece: &Piece) -> Vec<String> {
        let mut decoded = super::super::Decoded::new(SeriesLimits::NONE);
        decoded.batch = piece.batch.clone();
        super::super::testing::rows(&decoded)
    }

    /// Refused lines as `line×samples code: why`.
    pub fn errors(piece: &Piece) -> Vec<String> {
        let line =
            |error: &LineError| format!("{}×{} {:?}: {}", error.line, error.samples, error.code, error.error);
        piece.refused.listed().iter().map(line).collect()
    }

    /// Decodes `text` in pieces of at most `most` bytes more than what was left over, and joins what comes out.
    pub fn in_pieces(format: &Format, text: &[u8], most: usize) -> (Vec<String>, Vec<String>, u64) {
        let (mut found, mut wrong, mut line) = (Vec::new(), Vec::new(), 1);
        let (mut from, mut to) = (0, 0);
        loop {
            to = text.len().min(to + most);
            let piece =
                decode(format, &text[from..to], to == text.len(), line, &rules(), &KnownSeries::none());
            found.extend(rows(&piece));
            wrong.extend(errors(&piece));
            line += piece.lines;
            from += piece.consumed;
            if to == text.len() && from == to {
                return (found, wrong, line - 1);
            }
            assert!(to < text.len() || piece.consumed > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::KnownSeries;
    use super::testing::*;
    use super::*;

    #[test]
    fn what_the_store_refuses_is_listed_by_line() {
        let text = concat!(
            r#"{"metric":{"__name__":"a"},"values":[1,2],"timestamps":[1767225600000,1767225600001]}"#,
            "\nnonsense\n",
            r#"{"metric":{"__name__":"b"},"values":[1,2,3],"timestamps":[1767225600000,1767225600001,1767225600002]}"#,
        );
        let mut piece = decoded(&Format::JsonLines, text);
        let limit = Refusal::MetricLimit { limit: 1 };
        let refused = piece.take_places().refused(&[(2, limit), (3, limit), (4, limit)]);
        assert_eq!((refused.total(), refused.listed().len()), (3, 1));
        let error = &refused.listed()[0];
        assert_eq!((error.line, error.samples, error.metric.as_deref()), (3, 3, Some("b")));
        piece.refused.append(refused);
        assert_eq!((piece.refused.total(), piece.refused.listed().len()), (4, 2));
    }

    #[test]
    fn a_piece_ends_with_its_share_of_samples() {
        let line = r#"{"metric":{"__name__":"a"},"values":[1,2],"timestamps":[1767225600000,1767225600001]}"#;
        let text = [line; 5].join("\n");
        let rules = BulkRules { most_samples: 3, ..rules() };
        let piece = decode(&Format::JsonLines, text.as_bytes(), true, 1, &rules, &KnownSeries::none());
        assert_eq!((piece.batch.len(), piece.lines, piece.consumed), (4, 2, 2 * (line.len() + 1)));
    }
}
