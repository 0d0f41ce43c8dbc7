//! The rows of an answer as series: one object for each series or group, its rows' times and numbers as lists.

use std::ops::Range;
use std::sync::Arc;

use luminate_storage::model::{Dimensions, GroupKey};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Format, PIECE};
use super::rows::{Group, Rows, dimensions, integer, number, object};

/// About how many bytes a number has as text, with its comma.
const NUMBER: usize = 16;
/// Numbers of a piece.
const NUMBERS: usize = PIECE / NUMBER;

/// A series of an answer: lists are equally long, in the order of time. A number that overflowed is `null`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ResultSeries {
    /// Of a range query.
    Samples(RangeSeries),
    /// Of an aggregate query.
    Aggregates(AggregateSeries),
    /// Of a rate query.
    Rates(RateSeries),
}

/// Raw samples of a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct RangeSeries {
    /// The series' dimensions.
    #[schema(value_type = BTreeMap<String, String>)]
    #[serde(serialize_with = "dimensions")]
    pub dimensions: Dimensions,
    /// Unix milliseconds.
    pub timestamps: Vec<i64>,
    /// The values.
    pub values: Vec<f64>,
}

/// The numbers of a group: one, or one of each bucket when the query named an interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AggregateSeries {
    /// The values of the grouped keys; a key that the group's series lack is left out.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"customer_id": "acme"}))]
    pub group_key: Group,
    /// Starts of the buckets in Unix milliseconds; absent without an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<Vec<i64>>,
    /// `null` where one overflowed.
    #[schema(value_type = Vec<Option<f64>>)]
    pub values: Vec<f64>,
    /// Samples in each.
    pub counts: Vec<u64>,
}

/// The increase per second of a group in each bucket.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateSeries {
    /// The values of the grouped keys; a key that the group's series lack is left out.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"customer_id": "acme"}))]
    pub group_key: Group,
    /// Starts of the buckets in Unix milliseconds.
    pub timestamps: Vec<i64>,
    /// `null` where one overflowed.
    #[schema(value_type = Vec<Option<f64>>)]
    pub rates: Vec<f64>,
}

/// A list of a series.
#[derive(Debug, Clone, Copy)]
enum Column {
    Timestamps,
    Values,
    Counts,
    Rates,
}

impl Column {
    /// What stands before the list.
    fn opening(self) -> &'static [u8] {
        match self {
            Self::Timestamps => b",\"timestamps\":[",
            Self::Values => b",\"values\":[",
            Self::Counts => b",\"counts\":[",
            Self::Rates => b",\"rates\":[",
        }
    }
}

impl Rows {
    /// The lists of its series.
    fn columns(&self) -> &'static [Column] {
        match self {
            Self::Range(_) => &[Column::Timestamps, Column::Values],
            // Either all rows have a time or none.
            Self::Aggregate(rows, _) if rows.first().is_some_and(|row| row.timestamp.is_none()) => {
                &[Column::Values, Column::Counts]
            }
            Self::Aggregate(..) => &[Column::Timestamps, Column::Values, Column::Counts],
            Self::Rate(..) => &[Column::Timestamps, Column::Rates],
        }
    }

    /// The rows from `start` on that are of one series or group.
    fn run(&self, start: usize) -> Range<usize> {
        fn same(one: &GroupKey, other: &GroupKey) -> bool {
            Arc::ptr_eq(one, other) || one == other
        }
        let count = match self {
            Self::Range(rows) => {
                let of = &rows[start].dimensions;
                rows[start..].iter().take_while(|row| row.dimensions.is(of) || row.dimensions == *of).count()
            }
            Self::Aggregate(rows, _) => {
                rows[start..].iter().take_while(|row| same(&row.group, &rows[start].group)).count()
            }
            Self::Rate(rows, _) => {
                rows[start..].iter().take_while(|row| same(&row.group, &rows[start].group)).count()
            }
        };
        start..start + count
    }

    /// Appends whose series or group row `at` is: the object's beginning.
    fn owner(&self, at: usize, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let (keys, values) = match self {
            Self::Range(rows) => {
                out.extend_from_slice(b"{\"dimensions\":");
                return object(&rows[at].dimensions, out);
            }
            Self::Aggregate(rows, keys) => (keys, &rows[at].group),
            Self::Rate(rows, keys) => (keys, &rows[at].group),
        };
        out.extend_from_slice(b"{\"groupKey\":");
        serde_json::to_writer(out, &Group { keys: keys.clone(), values: values.clone() })
    }

    /// Appends a column's numbers of those rows, each with a comma behind it.
    fn numbers(&self, column: Column, of: Range<usize>, out: &mut Vec<u8>) {
        match (self, column) {
            (Self::Range(rows), Column::Timestamps) => {
                each(&rows[of], out, |row, out| integer(row.timestamp, out));
            }
            (Self::Range(rows), _) => each(&rows[of], out, |row, out| number(row.value, out)),
            (Self::Aggregate(rows, _), Column::Timestamps) => {
                each(&rows[of], out, |row, out| integer(row.timestamp.unwrap_or_default(), out));
            }
            (Self::Aggregate(rows, _), Column::Counts) => {
                each(&rows[of], out, |row, out| integer(row.count, out));
            }
            (Self::Aggregate(rows, _), _) => each(&rows[of], out, |row, out| number(row.value, out)),
            (Self::Rate(rows, _), Column::Timestamps) => {
                each(&rows[of], out, |row, out| integer(row.timestamp, out));
            }
            (Self::Rate(rows, _), _) => each(&rows[of], out, |row, out| number(row.rate, out)),
        }
    }
}

fn each<Row>(rows: &[Row], out: &mut Vec<u8>, write: impl Fn(&Row, &mut Vec<u8>)) {
    for row in rows {
        write(row, out);
        out.push(b',');
    }
}

/// Writes the rows of one answer, which stand together by series, as series.
#[derive(Debug, Default)]
pub struct SeriesWriter {
    /// The rows of the series that is written, or was last.
    run: Range<usize>,
    /// The list that is written, counted from 1; 0 between two series.
    column: usize,
    /// The row whose number in that list is next.
    at: usize,
}

impl SeriesWriter {
    /// Appends the next numbers of `rows`, which are the same in every call, to `out`; whether there are no more.
    ///
    /// # Errors
    /// None: memory takes everything.
    pub fn piece(&mut self, rows: &Rows, format: Format, out: &mut Vec<u8>) -> serde_json::Result<bool> {
        let columns = rows.columns();
        let mut left = NUMBERS;
        while left > 0 {
            if self.column == 0 {
                if self.run.end == rows.len() {
                    return Ok(true);
                }
                if self.run.end > 0 && format == Format::Object {
                    out.push(b',');
                }
                self.run = rows.run(self.run.end);
                rows.owner(self.run.start, out)?;
                self.next_column(columns, out);
            }
            let until = self.run.end.min(self.at + left);
            rows.numbers(columns[self.column - 1], self.at..until, out);
            left -= until - self.at;
            self.at = until;
            if self.at < self.run.end {
                continue;
            }
            // Behind the list's last number.
            if let Some(comma) = out.last_mut() {
                *comma = b']';
            }
            if self.column < columns.len() {
                self.next_column(columns, out);
            } else {
                out.extend_from_slice(if format == Format::Lines { b"}\n" } else { b"}" });
                self.column = 0;
            }
        }
        Ok(self.column == 0 && self.run.end == rows.len())
    }

    fn next_column(&mut self, columns: &[Column], out: &mut Vec<u8>) {
        out.extend_from_slice(columns[self.column].opening());
        self.column += 1;
        self.at = self.run.start;
    }

    /// About how many bytes the numbers have that aren't written yet.
    pub fn expected(&self, rows: &Rows) -> usize {
        (rows.len() - self.run.start) * rows.columns().len() * NUMBER
    }
}

#[cfg(test)]
mod tests {
    use luminate_storage::model::{AggregateRow, DimensionKey, DimensionLimits, RangeRow, RateRow};

    use super::*;

    const ODD: [f64; 8] = [0.5, f64::INFINITY, -0.0, 53.0, f64::NAN, 1e300, 5e-324, -7.25];

    /// What [`SeriesWriter`] makes of rows, in so many pieces.
    fn written(rows: &Rows, format: Format) -> (String, usize) {
        let (mut writer, mut out, mut pieces) = (SeriesWriter::default(), Vec::new(), 0);
        loop {
            // Into a buffer of its own, as an answer's pieces are.
            let mut piece = Vec::new();
            let done = writer.piece(rows, format, &mut piece).unwrap();
            assert!(piece.len() < 2 * PIECE, "{}", piece.len());
            out.append(&mut piece);
            pieces += 1;
            if done {
                return (String::from_utf8(out).unwrap(), pieces);
            }
        }
    }

    fn as_serde_writes_them(rows: &Rows, series: &[ResultSeries]) -> usize {
        let texts: Vec<String> = series.iter().map(|series| serde_json::to_string(series).unwrap()).collect();
        let lines: String = texts.iter().map(|text| format!("{text}\n")).collect();
        assert_eq!(written(rows, Format::Lines).0, lines);
        let (object, pieces) = written(rows, Format::Object);
        assert_eq!(object, texts.join(","));
        pieces
    }

    fn series(host: &str) -> Dimensions {
        Dimensions::new([("host", host)], &DimensionLimits::default()).unwrap()
    }

    /// How many rows groups have, in lists that end at, before and behind the end of a piece.
    const COUNTS: [&[usize]; 7] = [
        &[],
        &[1],
        &[3, 1, 2],
        &[NUMBERS],
        &[NUMBERS - 1, 2, NUMBERS + 1],
        &[NUMBERS / 2, NUMBERS / 2, 1],
        &[3 * NUMBERS, 1],
    ];

    #[test]
    fn samples_stand_together_by_series_in_their_order() {
        for counts in COUNTS {
            let hosts: Vec<Dimensions> = (0..counts.len()).map(|n| series(&format!("\"{n}\n"))).collect();
            // By time, then series; every other row's dimensions are equal to those of its series but no clones of them.
            let row = |number: usize, at: usize| RangeRow {
                timestamp: at as i64 - 5,
                value: ODD[(number + at) % ODD.len()],
                dimensions: match at % 2 {
                    0 => hosts[number].clone(),
                    _ => series(&format!("\"{number}\n")),
                },
            };
            let most = counts.iter().copied().max().unwrap_or(0);
            let rows = (0..most).flat_map(|at| {
                let there = counts.iter().enumerate().filter(move |(_, count)| at < **count);
                there.map(move |(number, _)| (number, at))
            });
            // The last series comes first where times are equal, which the contract wouldn't do.
            let mut rows: Vec<(usize, usize)> = rows.collect();
            rows.sort_by_key(|(number, at)| (*at, usize::MAX - number));
            let rows: Vec<RangeRow> = rows.into_iter().map(|(number, at)| row(number, at)).collect();
            let expected: Vec<ResultSeries> = counts
                .iter()
                .enumerate()
                .map(|(number, count)| {
                    ResultSeries::Samples(RangeSeries {
                        dimensions: hosts[number].clone(),
                        timestamps: (0..*count).map(|at| at as i64 - 5).collect(),
                        values: (0..*count).map(|at| ODD[(number + at) % ODD.len()]).collect(),
                    })
                })
                .collect();
            as_serde_writes_them(&Rows::Range(rows).by_series(), &expected);
        }
    }

    #[test]
    fn groups_are_lists_of_their_numbers() {
        let keys: Arc<[DimensionKey]> = ["a", "b"].map(|key| DimensionKey::new(key).unwrap()).into();
        let mut most = 0;
        for counts in COUNTS {
            for timed in [true, false] {
                let (mut aggregates, mut rates) = (Vec::new(), Vec::new());
                let (mut of_aggregates, mut of_rates) = (Vec::new(), Vec::new());
                for (number, count) in counts.iter().enumerate() {
                    // Groups of one object and equal ones.
                    let values = || -> GroupKey { [None, Some(format!("ü\\{number}").into())].into() };
                    let (one, group_key) = (values(), || Group { keys: keys.clone(), values: values() });
                    let group = |at: usize| if at.is_multiple_of(3) { values() } else { one.clone() };
                    let value = |at: usize| ODD[(number + at) % ODD.len()];
                    aggregates.extend((0..*count).map(|at| AggregateRow {
                        group: group(at),
                        timestamp: timed.then_some(at as i64),
                        value: value(at),
                        count: (at * number) as u64,
                    }));
                    let row = |at| RateRow { group: group(at), timestamp: at as i64, rate: value(at) };
                    rates.extend((0..*count).map(row));
                    let timestamps = || (0..*count as i64).collect::<Vec<_>>();
                    let values = || (0..*count).map(value).collect::<Vec<_>>();
                    of_aggregates.push(ResultSeries::Aggregates(AggregateSeries {
                        group_key: group_key(),
                        timestamps: timed.then(timestamps),
                        values: values(),
                        counts: (0..*count).map(|at| (at * number) as u64).collect(),
                    }));
                    let (timestamps, rates) = (timestamps(), values());
                    of_rates.push(ResultSeries::Rates(RateSeries {
                        group_key: group_key(),
                        timestamps,
                        rates,
                    }));
                }
                let aggregates = Rows::Aggregate(aggregates, keys.clone());
                most = most.max(as_serde_writes_them(&aggregates.by_series(), &of_aggregates));
                as_serde_writes_them(&Rows::Rate(rates, keys.clone()), &of_rates);
            }
        }
        assert!(most > 5, "pieces end within lists");
    }
}
