//! The rows of an answer as JSON: what many rows share, a series' dimensions or a group's key, becomes text once.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use luminate_storage::model::{
    AggregateRow, Answer, DimensionKey, Dimensions, GroupKey, QueryStats, RangeRow, RateRow,
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::answer::Format;
use super::body::QueryType;

/// Rows of a piece.
pub const ROWS: usize = 512;
/// About how many bytes a row has as text.
const ROW_TEXT: usize = 128;
/// Bytes of a row in memory besides its texts.
const ROW: usize = 64;
/// Bytes of a reference to a text, and of what is kept with the text.
const TEXT: usize = 48;
/// Bytes of texts that are kept to be written again.
const KEPT: usize = 256 << 10;
/// After so many bytes of texts that weren't there, others are kept.
const MISSED: usize = 4 * KEPT;
/// From here on a number may be written with an exponent.
const WHOLE: u64 = 1_000_000_000_000_000;

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
    pub timestamp: i64,
    /// The value.
    pub value: f64,
    /// The series' dimensions.
    #[schema(value_type = BTreeMap<String, String>)]
    #[serde(serialize_with = "dimensions")]
    pub dimensions: Dimensions,
}

/// One number of a group, and of a bucket when the query named an interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AggregateResult {
    /// The values of the grouped keys; a key that the group's series lack is left out.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"customer_id": "acme"}))]
    pub group_key: Group,
    /// Start of the bucket in Unix milliseconds; absent without an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// `null` where it overflowed.
    #[schema(value_type = Option<f64>, required)]
    pub value: f64,
    /// Samples in it.
    pub count: u64,
}

/// The increase per second of a group in a bucket.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateResult {
    /// The values of the grouped keys; a key that the group's series lack is left out.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"customer_id": "acme"}))]
    pub group_key: Group,
    /// Start of the bucket in Unix milliseconds.
    pub timestamp: i64,
    /// `null` where it overflowed.
    #[schema(value_type = Option<f64>, required)]
    pub rate: f64,
}

pub(super) fn dimensions<S: Serializer>(dimensions: &Dimensions, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(dimensions.iter().map(|(key, value)| (key.as_str(), value.as_ref())))
}

/// The grouped keys of a query with a row's values.
#[derive(Debug)]
pub struct Group {
    /// In the query's order.
    pub keys: Arc<[DimensionKey]>,
    /// As many; absent ones are left out.
    pub values: GroupKey,
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.keys.iter().zip(self.values.iter());
        serializer.collect_map(pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?))))
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

    /// How many there are.
    pub fn len(&self) -> usize {
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
                // Rows of one series often follow one another, and count the same.
                let mut last = (0, 0);
                let of_row = |row: &RangeRow| {
                    if last.0 != row.dimensions.identity() {
                        let values = row.dimensions.iter().map(|(_, value)| texts(value));
                        last = (row.dimensions.identity(), values.sum());
                    }
                    last.1
                };
                rows.iter().map(of_row).sum()
            }
            Self::Aggregate(rows, _) => rows.iter().map(|row| groups(&row.group)).sum(),
            Self::Rate(rows, _) => rows.iter().map(|row| groups(&row.group)).sum(),
        };
        (bytes + self.len() * ROW) as u64
    }

    /// Puts rows of a series together, in their order, where they aren't; series by their dimensions. Those of a group are.
    #[must_use]
    pub fn by_series(self) -> Self {
        let Self::Range(rows) = self else { return self };
        let (mut by_identity, mut by_value) = (HashMap::new(), HashMap::new());
        let mut series: Vec<Vec<RangeRow>> = Vec::new();
        for row in rows {
            // Most rows of a series are told by their identity.
            let number = *by_identity.entry(row.dimensions.identity()).or_insert_with(|| {
                *by_value.entry(row.dimensions.clone()).or_insert_with(|| {
                    series.push(Vec::new());
                    series.len() - 1
                })
            });
            series[number].push(row);
        }
        series.sort_unstable_by(|one, other| one[0].dimensions.cmp(&other[0].dimensions));
        Self::Range(series.into_iter().flatten().collect())
    }

    /// What was asked.
    pub fn query_type(&self) -> QueryType {
        match self {
            Self::Range(_) => QueryType::Range,
            Self::Aggregate(..) => QueryType::Aggregate,
            Self::Rate(..) => QueryType::Rate,
        }
    }
}

/// Writes the rows of one answer, one after the other.
#[derive(Debug, Default)]
pub struct RowWriter {
    next: usize,
    series: Series,
    group: Option<(GroupKey, Vec<u8>)>,
}

impl RowWriter {
    /// Appends the next rows of `rows`, which are the same in every call, to `out`; whether there are no more.
    ///
    /// # Errors
    /// None: memory takes everything.
    pub fn piece(&mut self, rows: &Rows, format: Format, out: &mut Vec<u8>) -> serde_json::Result<bool> {
        let until = rows.len().min(self.next + ROWS);
        for at in self.next..until {
            if at > 0 && format == Format::Object {
                out.push(b',');
            }
            self.row(rows, at, out)?;
            if format == Format::Lines {
                out.push(b'\n');
            }
        }
        self.next = until;
        Ok(until == rows.len())
    }

    /// About how many bytes the rows have that aren't written yet.
    pub fn expected(&self, rows: &Rows) -> usize {
        (rows.len() - self.next) * ROW_TEXT
    }

    /// Appends row `at` as serde would write a [`ResultRow`].
    fn row(&mut self, rows: &Rows, at: usize, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match rows {
            Rows::Range(rows) => {
                let RangeRow { timestamp, value, dimensions } = &rows[at];
                out.extend_from_slice(b"{\"timestamp\":");
                integer(*timestamp, out);
                out.extend_from_slice(b",\"value\":");
                number(*value, out);
                out.extend_from_slice(b",\"dimensions\":");
                self.series.write(dimensions, out)?;
            }
            Rows::Aggregate(rows, keys) => {
                let AggregateRow { group, timestamp, value, count } = &rows[at];
                self.group(keys, group, out)?;
                if let Some(timestamp) = timestamp {
                    out.extend_from_slice(b",\"timestamp\":");
                    integer(*timestamp, out);
                }
                out.extend_from_slice(b",\"value\":");
                number(*value, out);
                out.extend_from_slice(b",\"count\":");
                integer(*count, out);
            }
            Rows::Rate(rows, keys) => {
                let RateRow { group, timestamp, rate } = &rows[at];
                self.group(keys, group, out)?;
                out.extend_from_slice(b",\"timestamp\":");
                integer(*timestamp, out);
                out.extend_from_slice(b",\"rate\":");
                number(*rate, out);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// The rows of a group stand together.
    fn group(
        &mut self,
        keys: &Arc<[DimensionKey]>,
        values: &GroupKey,
        out: &mut Vec<u8>,
    ) -> serde_json::Result<()> {
        out.extend_from_slice(b"{\"groupKey\":");
        match &self.group {
            Some((last, text)) if last == values => out.extend_from_slice(text),
            _ => {
                let text = serde_json::to_vec(&Group { keys: keys.clone(), values: values.clone() })?;
                out.extend_from_slice(&text);
                self.group = Some((values.clone(), text));
            }
        }
        Ok(())
    }
}

/// Appends a whole number.
pub(super) fn integer(integer: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
}

/// Appends a number as serde writes it.
pub(super) fn number(number: f64, out: &mut Vec<u8>) {
    // Whole numbers are frequent, and need no search for the shortest decimal.
    let whole = number as i64;
    if whole as f64 == number && whole.unsigned_abs() < WHOLE && (whole != 0 || number.is_sign_positive()) {
        integer(whole, out);
        out.extend_from_slice(b".0");
    } else if number.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Dimensions as JSON, by their identity: those of one series are clones of one another, and its rows stand between those of
/// others.
#[derive(Debug, Default)]
struct Series {
    texts: Vec<u8>,
    of: HashMap<usize, Range<usize>>,
    last: Option<(usize, Range<usize>)>,
    /// Bytes of texts that found no room.
    missed: usize,
}

impl Series {
    fn write(&mut self, series: &Dimensions, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let identity = series.identity();
        let last = self.last.as_ref().filter(|(last, _)| *last == identity).map(|(_, text)| text);
        if let Some(text) = last.or_else(|| self.of.get(&identity)).cloned() {
            out.extend_from_slice(&self.texts[text.clone()]);
            self.last = Some((identity, text));
            return Ok(());
        }
        let start = out.len();
        object(series, out)?;
        self.keep(identity, &out[start..]);
        Ok(())
    }

    /// Where not all have room the first stay: rows come in the order of time, so those of a series come again after all
    /// others', and whoever makes room for each finds none again.
    fn keep(&mut self, identity: usize, text: &[u8]) {
        if self.texts.len() + text.len() > KEPT {
            self.missed += text.len();
            if self.missed < MISSED {
                self.last = None;
                return;
            }
            *self = Self::default();
        }
        let place = self.texts.len()..self.texts.len() + text.len();
        self.texts.extend_from_slice(text);
        self.of.insert(identity, place.clone());
        self.last = Some((identity, place));
    }
}

/// Dimensions as JSON. A key is an identifier, and most values too hold nothing that JSON escapes: then they are copied.
pub(super) fn object(series: &Dimensions, out: &mut Vec<u8>) -> serde_json::Result<()> {
    if series.is_empty() {
        out.extend_from_slice(b"{}");
        return Ok(());
    }
    let mut opening: &[u8] = b"{\"";
    for (key, value) in series.iter() {
        out.extend_from_slice(opening);
        opening = b",\"";
        out.extend_from_slice(key.as_str().as_bytes());
        if value.bytes().fold(false, |escaped, byte| escaped | is_escaped(byte)) {
            out.extend_from_slice(b"\":");
            serde_json::to_writer(&mut *out, value.as_ref())?;
        } else {
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
    Ok(())
}

/// Whether a byte of a text isn't written as it is (RFC 8259, section 7).
fn is_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use luminate_storage::model::DimensionLimits;

    use super::*;

    const ODD_NUMBERS: [f64; 18] = [
        53.0,
        -7.0,
        999_999_999_999_999.0,
        1e15,
        -1e15,
        9_007_199_254_740_993.0,
        0.0,
        -0.0,
        0.1,
        1.0,
        -7.25,
        1e21,
        5e-324,
        f64::MAX,
        123_456_789_012_345_680.0,
        f64::NAN,
        f64::INFINITY,
        1.0 / 3.0,
    ];
    const ODD_TEXTS: [&str; 8] =
        ["a", "\"", "\\", "\u{1}\n\t\u{7f}", "ü\u{2028}", "\u{1F980}", "</script>", " "];

    /// Every row by [`RowWriter`], and as serde writes it.
    fn both(rows: &Rows, plain: impl Fn(usize) -> ResultRow) {
        let (mut writer, mut out) = (RowWriter::default(), Vec::new());
        for at in 0..rows.len() {
            out.clear();
            writer.row(rows, at, &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string(&plain(at)).unwrap());
        }
    }

    fn series(text: &str, more: usize) -> Dimensions {
        let long = "x".repeat(more);
        let pairs = [("k", text), ("long", long.as_str())];
        let limits = DimensionLimits { max_dimensions: 2, max_value_chars: usize::MAX };
        Dimensions::new(pairs.into_iter().filter(|(_, value)| !value.is_empty()), &limits).unwrap()
    }

    #[test]
    fn samples_are_written_as_serde_writes_them() {
        // So long that not all are kept.
        for more in [0, 1, KEPT / 4, KEPT + 1] {
            let known: Vec<Dimensions> = ODD_TEXTS.iter().map(|text| series(text, more)).collect();
            let empty = [Dimensions::default(), Dimensions::new([], &DimensionLimits::default()).unwrap()];
            let mut random = fastrand::Rng::with_seed(more as u64);
            let row = |at: i64| RangeRow {
                timestamp: [at, -at, i64::MAX, i64::MIN][at as usize % 4],
                value: *random.choice(&ODD_NUMBERS).unwrap(),
                dimensions: match random.u8(..8) {
                    0 => random.choice(&empty).unwrap().clone(),
                    1 => series("a", more),
                    _ => random.choice(&known).unwrap().clone(),
                },
            };
            let rows: Vec<RangeRow> = (0..60).map(row).collect();
            let plain = |at: usize| {
                let RangeRow { timestamp, value, dimensions } = rows[at].clone();
                ResultRow::Sample(RangeResult { timestamp, value, dimensions })
            };
            both(&Rows::Range(rows.clone()), plain);
        }
    }

    #[test]
    fn groups_are_written_as_serde_writes_them() {
        let keys: Arc<[DimensionKey]> = ["a", "b"].map(|key| DimensionKey::new(key).unwrap()).into();
        let value = |at: usize| (!at.is_multiple_of(3)).then(|| Arc::from(ODD_TEXTS[at % ODD_TEXTS.len()]));
        let group = |at: usize| -> GroupKey { [value(at / 3), value(at / 5)].into() };
        let timestamp = |at: usize| (!at.is_multiple_of(7)).then_some(at as i64 * 60_000);
        let number = |at: usize| ODD_NUMBERS[at % ODD_NUMBERS.len()];
        let aggregate = |at: usize| AggregateRow {
            group: group(at),
            timestamp: timestamp(at),
            value: number(at),
            count: at as u64,
        };
        let grouped = |at: usize| Group { keys: keys.clone(), values: group(at) };
        both(&Rows::Aggregate((0..100).map(aggregate).collect(), keys.clone()), |at| {
            let (group_key, timestamp) = (grouped(at), timestamp(at));
            ResultRow::Aggregate(AggregateResult {
                group_key,
                timestamp,
                value: number(at),
                count: at as u64,
            })
        });
        let rate = |at: usize| RateRow { group: group(at), timestamp: at as i64, rate: number(at) };
        both(&Rows::Rate((0..100).map(rate).collect(), keys.clone()), |at| {
            let (group_key, timestamp) = (grouped(at), at as i64);
            ResultRow::Rate(RateResult { group_key, timestamp, rate: number(at) })
        });
    }
}
