//! What the columns of a CSV text hold: told by its header, or by a mapping in VictoriaMetrics' words.

use luminate_storage::model::{DimensionKey, MetricName};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Fault;
use crate::ingest::timestamp::parse_rfc3339;

/// Most columns of a text.
pub const MAX_COLUMNS: usize = 10_000;

/// How a column writes times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// Whole Unix milliseconds, or RFC 3339.
    Either,
    /// Unix seconds, with or without a fraction.
    Seconds,
    /// Whole Unix milliseconds.
    Millis,
    /// Whole Unix nanoseconds.
    Nanos,
    /// RFC 3339.
    Rfc3339,
}

impl TimeFormat {
    /// The time that `cell` says, in Unix milliseconds.
    #[must_use]
    pub fn read(self, cell: &str) -> Option<i64> {
        match self {
            Self::Either if cell.contains(['-', ':']) && !cell.starts_with('-') => parse_rfc3339(cell),
            Self::Either | Self::Millis => cell.parse().ok(),
            Self::Nanos => cell.parse::<i64>().ok().map(|nanos| nanos.div_euclid(1_000_000)),
            Self::Rfc3339 => parse_rfc3339(cell),
            Self::Seconds => match cell.parse::<i64>() {
                Ok(seconds) => seconds.checked_mul(1_000),
                Err(_) => {
                    let millis = cell.parse::<f64>().ok()? * 1_000.0;
                    #[allow(
                        clippy::cast_possible_truncation,
                        reason = "out of any window where it is clamped"
                    )]
                    millis.is_finite().then(|| millis.round() as i64)
                }
            },
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// Nothing that is read.
    Unread,
    /// The metric's name.
    Name,
    /// The sample's time.
    Time(TimeFormat),
    /// The sample's value.
    Value,
    /// A value of this metric.
    ValueOf(MetricName),
    /// The value of this dimension; empty where the series lacks it.
    Dimension(DimensionKey),
}

/// The columns of a text, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// What each holds.
    pub columns: Vec<Column>,
    /// Tells spellings under other dimensions apart.
    pub digest: [u8; 16],
    /// Where the metric's name stands, for a column of values without one.
    pub name: Option<usize>,
    /// Where the time stands, and how it is written.
    pub time: Option<(usize, TimeFormat)>,
    /// Where values stand.
    pub values: Vec<usize>,
    /// Where dimensions stand.
    pub dimensions: Vec<usize>,
    /// Whether a row has values of several metrics, of which some may be missing.
    pub wide: bool,
}

/// The names under which an export writes the sample itself.
pub const SAMPLE: [&str; 3] = ["__name__", "__timestamp__", "__value__"];
/// Other names that are taken for these, where they stand for none of the above.
const PLAIN: [&str; 3] = ["metric", "timestamp", "value"];

impl Columns {
    fn new(columns: Vec<Column>) -> Result<Self, Fault> {
        let fault = |reason: &str| Fault::of("columns", reason);
        let count = |wanted: fn(&Column) -> bool| columns.iter().filter(|column| wanted(column)).count();
        let (names, times) = (count(|c| *c == Column::Name), count(|c| matches!(c, Column::Time(_))));
        let (values, of) = (count(|c| *c == Column::Value), count(|c| matches!(c, Column::ValueOf(_))));
        if names > 1 || times > 1 || values > 1 {
            return Err(fault("there is more than one column of names, times or values"));
        }
        if names != values {
            return Err(fault("a column of names and one of values need each other"));
        }
        if values + of == 0 {
            return Err(fault("no column holds a value"));
        }
        let mut keys: Vec<&str> = columns
            .iter()
            .filter_map(|column| match column {
                Column::Dimension(key) => Some(key.as_str()),
                _ => None,
            })
            .collect();
        let digest = xxh3_128(keys.join("\n").as_bytes()).to_le_bytes();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Fault::of("columns", format_args!("two columns hold the dimension {:?}", pair[0])));
        }
        let time = columns.iter().enumerate().find_map(|(at, column)| match column {
            Column::Time(format) => Some((at, *format)),
            _ => None,
        });
        let places = |wanted: fn(&Column) -> bool| -> Vec<usize> {
            (0..columns.len()).filter(|at| wanted(&columns[*at])).collect()
        };
        Ok(Self {
            digest,
            name: columns.iter().position(|column| *column == Column::Name),
            time,
            values: places(|column| matches!(column, Column::Value | Column::ValueOf(_))),
            dimensions: places(|column| matches!(column, Column::Dimension(_))),
            wide: of > 1,
            columns,
        })
    }

    /// The columns that a header names: `__name__`, `__timestamp__` and `__value__` (or, where these are missing,
    /// `metric`, `timestamp` and `value`); every other is a dimension's key.
    ///
    /// # Errors
    /// One of these is missing, a name appears twice or is no dimension's key.
    pub fn of_header(cells: &[&str]) -> Result<Self, Fault> {
        let mut wanted = [""; 3];
        for (at, name) in SAMPLE.iter().enumerate() {
            wanted[at] = if cells.contains(name) { name } else { PLAIN[at] };
            if !cells.contains(&wanted[at]) {
                let plain = PLAIN[at];
                let reason = format!("the header has neither {name} nor {plain}");
                return Err(Fault::of("header", reason));
            }
        }
        let column = |cell: &&str| match wanted.iter().position(|name| name == cell) {
            Some(0) => Ok(Column::Name),
            Some(1) => Ok(Column::Time(TimeFormat::Either)),
            Some(_) => Ok(Column::Value),
            None => dimension("header", cell),
        };
        Self::new(cells.iter().map(column).collect::<Result<_, _>>()?)
    }

    /// The columns of a mapping such as `1:time:unix_s,2:label:host,4:metric:cpu,5:metric:mem`: what stands in the
    /// column of that number, from 1. Types: `time` (`unix_s`, `unix_ms`, `unix_ns`, `rfc3339`), `label` (a dimension's
    /// key), `metric` (a metric's name: the column holds its values), and `name` and `value`, which need no third part.
    ///
    /// # Errors
    /// The mapping is malformed; the fault names the part.
    pub fn of_mapping(text: &str) -> Result<Self, Fault> {
        let mut columns = Vec::new();
        for part in text.split(',') {
            let fault = |reason: &str| Fault::of("columns", format_args!("{part:?}: {reason}"));
            let mut words = part.trim().splitn(3, ':');
            let number = words.next().and_then(|number| number.parse::<usize>().ok());
            let number = number.filter(|number| (1..=MAX_COLUMNS).contains(number));
            let at = number.ok_or_else(|| fault("a column's number comes first, from 1"))? - 1;
            let (kind, context) = (words.next().unwrap_or_default(), words.next());
            let column = match (kind, context) {
                ("name", None) => Column::Name,
                ("value", None) => Column::Value,
                ("metric", Some(name)) => {
                    Column::ValueOf(MetricName::new(name).map_err(|reason| fault(&reason.to_string()))?)
                }
                ("label", Some(key)) => dimension("columns", key)?,
                ("time", Some("unix_s")) => Column::Time(TimeFormat::Seconds),
                ("time", Some("unix_ms")) => Column::Time(TimeFormat::Millis),
                ("time", Some("unix_ns")) => Column::Time(TimeFormat::Nanos),
                ("time", Some("rfc3339")) => Column::Time(TimeFormat::Rfc3339),
                ("time", _) => return Err(fault("a time is unix_s, unix_ms, unix_ns or rfc3339")),
                _ => return Err(fault("expected time:…, label:…, metric:…, name or value")),
            };
            if columns.len() <= at {
                columns.resize(at + 1, Column::Unread);
            }
            if columns[at] != Column::Unread {
                return Err(fault("the column has a meaning already"));
            }
            columns[at] = column;
        }
        Self::new(columns)
    }
}

fn dimension(field: &str, key: &str) -> Result<Column, Fault> {
    let fault =
        |reason| Fault::of(field, format_args!("{:?}: {reason}", key.chars().take(128).collect::<String>()));
    DimensionKey::new(key).map(Column::Dimension).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(columns: Result<Columns, Fault>) -> Vec<String> {
        let column = |column: &Column| match column {
            Column::Dimension(key) => key.to_string(),
            Column::ValueOf(metric) => format!("={metric}"),
            other => format!("{other:?}"),
        };
        columns.unwrap().columns.iter().map(column).collect()
    }

    #[test]
    fn a_header_names_the_columns() {
        let header = ["host", "__value__", "__timestamp__", "__name__", "value"];
        assert_eq!(of(Columns::of_header(&header)), ["host", "Value", "Time(Either)", "Name", "value"]);
        let header = ["metric", "timestamp", "value", "zone"];
        assert_eq!(of(Columns::of_header(&header)), ["Name", "Time(Either)", "Value", "zone"]);
        for (header, reason) in [
            (&["metric", "value"][..], "neither __timestamp__ nor timestamp"),
            (&["metric", "timestamp", "value", "a", "a"], "two columns hold the dimension \"a\""),
            (&["metric", "metric", "timestamp", "value"], "more than one"),
            (&["metric", "timestamp", "value", "a b"], "\"a b\": "),
            (&["metric", "timestamp", "value", ""], "\"\": "),
            (&["metric", "timestamp", "value", "__x"], "\"__x\": "),
        ] {
            let fault = Columns::of_header(header).unwrap_err();
            assert!(fault.reason.contains(reason), "{header:?}: {}", fault.reason);
        }
    }

    #[test]
    fn a_mapping_says_what_columns_hold() {
        let mapping = "2:metric:ask,3:metric:bid,1:label:ticker,5:time:unix_s";
        assert_eq!(of(Columns::of_mapping(mapping)), ["ticker", "=ask", "=bid", "Unread", "Time(Seconds)"]);
        assert_eq!(of(Columns::of_mapping("1:name,2:value")), ["Name", "Value"]);
        for (mapping, reason) in [
            ("", "number comes first"),
            ("0:value", "number comes first"),
            ("99999999:value", "number comes first"),
            ("1:value", "need each other"),
            ("1:label:a", "no column holds a value"),
            ("1:time:soon", "a time is"),
            ("1:guess:x", "expected time"),
            ("1:metric:a b", "\"1:metric:a b\""),
            ("1:metric:a,1:metric:b", "meaning already"),
            ("1:metric:a,2:label:__x", "__x"),
        ] {
            let fault = Columns::of_mapping(mapping).unwrap_err();
            assert!(fault.reason.contains(reason), "{mapping}: {}", fault.reason);
        }
    }

    #[test]
    fn times_are_read_as_the_column_writes_them() {
        use TimeFormat as F;
        for (format, cell, time) in [
            (F::Either, "1767225600000", Some(1_767_225_600_000)),
            (F::Either, "-5", Some(-5)),
            (F::Either, "2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
            (F::Either, "1.5", None),
            (F::Seconds, "1767225600", Some(1_767_225_600_000)),
            (F::Seconds, "1767225600.25", Some(1_767_225_600_250)),
            (F::Seconds, "NaN", None),
            (F::Seconds, "9223372036854775807", None),
            (F::Nanos, "1767225600000999999", Some(1_767_225_600_000)),
            (F::Rfc3339, "1767225600000", None),
            (F::Millis, "", None),
        ] {
            assert_eq!(format.read(cell), time, "{format:?} {cell}");
        }
    }
}
