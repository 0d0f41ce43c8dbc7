//! CSV (RFC 4180): a sample a line, or one of each metric that has a column.
//!
//! Names of dimensions are columns, so a series that lacks one has an empty cell there: a dimension's value has at least
//! one character. A series is spelled by its metric and cells, each behind its length, and by which dimensions they are.

use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader};
use luminate_storage::model::{Dimensions, MetricName, RowSeries};

use super::super::exposition::read_value;
use super::super::{Problem, Resolver, shortened, utf8};
use super::columns::{Column, Columns, MAX_COLUMNS};
use super::{BulkRules, Piece};
use crate::error::{Code, Fault};

/// What a spelling of this format begins with: no other's begins so.
const TAG: u8 = 0x13;
/// Where in a spelling the cells begin: behind tag and digest of the columns.
const CELLS: usize = 1 + size_of::<u128>();

/// The first line of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its cells.
    pub cells: Vec<String>,
    /// Where it ends.
    pub end: usize,
}

/// Reads the header at the beginning of `text`; nothing where it isn't whole.
///
/// # Errors
/// There is none, or it isn't text.
pub fn header(text: &[u8], at_end: bool) -> Result<Option<Header>, Fault> {
    let mut records = Records::new(text, at_end);
    if !records.next() {
        return match at_end {
            true => Err(Fault::of("header", "there is no header")),
            false => Ok(None),
        };
    }
    if records.count > MAX_COLUMNS {
        let reason = format!("{} columns; at most {MAX_COLUMNS} are allowed", records.count);
        return Err(Fault::of("header", reason));
    }
    let cell = |at| std::str::from_utf8(records.cell(at)).map(str::to_owned);
    let cells: Result<Vec<String>, _> = (0..records.count).map(cell).collect();
    let cells = cells.map_err(|_| Fault::of("header", "the header is not UTF-8"))?;
    Ok(Some(Header { cells, end: records.end }))
}

/// Decodes the whole records of a text.
pub(super) fn decode(
    columns: &Arc<Columns>,
    text: &[u8],
    at_end: bool,
    first_line: u64,
    rules: &BulkRules,
    resolver: Resolver<'_>,
) -> Piece {
    let piece = Piece::new(rules.series);
    let mut spelled = vec![TAG];
    spelled.extend_from_slice(&columns.digest);
    let mut decoder = Decoder { columns, rules, resolver, piece, spelled, last: None };
    let mut records = Records::new(text, at_end);
    while decoder.piece.batch.len() < rules.most_samples && records.next() {
        decoder.record(&records, first_line + decoder.piece.lines + records.blank);
        let read = &text[decoder.piece.consumed..records.end];
        decoder.piece.lines += memchr::memchr_iter(b'\n', read).count() as u64;
        decoder.piece.consumed = records.end;
    }
    if at_end && decoder.piece.batch.len() < rules.most_samples {
        let rest = &text[decoder.piece.consumed..];
        decoder.piece.lines += memchr::memchr_iter(b'\n', rest).count() as u64;
        decoder.piece.lines += u64::from(!text.ends_with(b"\n") && !text.is_empty());
        decoder.piece.consumed = text.len();
    }
    decoder.piece
}

/// The records of a text, one after another.
struct Records<'a> {
    reader: Reader,
    text: &'a [u8],
    at_end: bool,
    /// The cells of the record at hand, without what stands between them.
    cells: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
    /// Where it ends, with what follows it.
    end: usize,
    /// Lines without anything before it.
    blank: u64,
}

impl<'a> Records<'a> {
    fn new(text: &'a [u8], at_end: bool) -> Self {
        let (cells, ends) = (vec![0; 4 << 10], vec![0; 64]);
        Self { reader: Reader::new(), text, at_end, cells, ends, count: 0, end: 0, blank: 0 }
    }

    /// Goes on to the next record; whether there is a whole one.
    fn next(&mut self) -> bool {
        let (mut at, mut written) = (self.end, 0);
        let blank = self.text[at..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        self.blank = blank.filter(|byte| **byte == b'\n').count() as u64;
        self.count = 0;
        loop {
            let (cells, ends) = (&mut self.cells[written..], &mut self.ends[self.count..]);
            let (result, read, wrote, ended) = self.reader.read_record(&self.text[at..], cells, ends);
            (at, written, self.count) = (at + read, written + wrote, self.count + ended);
            match result {
                ReadRecordResult::Record => {
                    // A line's end may be two bytes, of which the reader leaves the second for the next record.
                    let line_feed = self.text[..at].ends_with(b"\r") && self.text.get(at) == Some(&b'\n');
                    self.end = at + usize::from(line_feed);
                    if line_feed {
                        self.reader.reset();
                    }
                    return true;
                }
                ReadRecordResult::End => return false,
                // At the end an empty text tells the reader so.
                ReadRecordResult::InputEmpty if self.at_end => {}
                ReadRecordResult::InputEmpty => return false,
                ReadRecordResult::OutputFull => self.cells.resize(2 * self.cells.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
            }
        }
    }

    fn cell(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.cells[start..self.ends[at]]
    }
}

struct Decoder<'a> {
    columns: &'a Columns,
    rules: &'a BulkRules,
    resolver: Resolver<'a>,
    piece: Piece,
    /// The spelling at hand, with its tag and the columns' digest.
    spelled: Vec<u8>,
    /// The series that this spelling is of: rows of one series mostly follow each other.
    last: Option<(RowSeries, i64)>,
}

impl Decoder<'_> {
    fn record(&mut self, records: &Records<'_>, line: u64) {
        let Columns { columns, name: at_name, values, wide, .. } = self.columns;
        if records.count != columns.len() {
            let what = format!("{} cells, where there are {} columns", records.count, columns.len());
            return self.piece.refused.push(line, 1, None, Problem::new(Code::InvalidSample, what));
        }
        self.piece.begin_line(line);
        let time = self.time(records);
        for at in values {
            let name = match (&columns[*at], at_name) {
                (Column::ValueOf(metric), _) => metric.as_str().as_bytes(),
                (_, Some(name)) => records.cell(*name),
                _ => continue,
            };
            let cell = records.cell(*at).trim_ascii();
            if *wide && cell.is_empty() {
                continue;
            }
            if let Err(problem) = self.sample(records, name, &time, cell) {
                self.piece.refused.push(line, 1, name_as_sent(name), problem);
            }
        }
    }

    fn sample(
        &mut self,
        records: &Records<'_>,
        name: &[u8],
        time: &Result<i64, Problem>,
        cell: &[u8],
    ) -> Result<(), Problem> {
        let value =
            read_value(cell).ok_or_else(|| Problem::new(Code::InvalidValue, "the value is no number"))?;
        let time = time.clone()?;
        if !value.is_finite() {
            self.piece.dropped += 1;
            return Ok(());
        }
        let (series, oldest) = self.series(records, name)?;
        if time < oldest || time > self.rules.newest {
            return Err(self.rules.outside(oldest, time));
        }
        self.piece.batch.push(series, time, value);
        Ok(())
    }

    fn time(&self, records: &Records<'_>) -> Result<i64, Problem> {
        let Some((at, format)) = self.columns.time else { return Ok(self.rules.now) };
        let cell = std::str::from_utf8(records.cell(at).trim_ascii()).ok();
        let wrong = || Problem::new(Code::InvalidTimestamp, "the timestamp can't be read");
        cell.and_then(|cell| format.read(cell)).ok_or_else(wrong)
    }

    /// The series, and the oldest sample of it that is accepted.
    fn series(&mut self, records: &Records<'_>, name: &[u8]) -> Result<(RowSeries, i64), Problem> {
        if self.spell(records, name)
            && let Some(last) = self.last
        {
            return Ok(last);
        }
        self.last = None;
        let spelling = self.resolver.hash(&self.spelled);
        let known = self.resolver.find(spelling);
        let found = match known {
            Some(series) if self.rules.is_uniform() => (series, self.rules.oldest),
            _ => {
                let name = utf8(name, "the metric's name")?;
                let oldest = self.rules.oldest(name);
                match known {
                    Some(series) => (series, oldest),
                    None => {
                        let dimensions = self.dimensions(records)?;
                        let name = MetricName::new(&name.replace(':', "_"))?;
                        (self.resolver.describe(&mut self.piece.batch, name, dimensions, spelling), oldest)
                    }
                }
            }
        };
        self.last = Some(found);
        Ok(found)
    }

    /// Spells the series of a record; whether it is that of the record before.
    fn spell(&mut self, records: &Records<'_>, name: &[u8]) -> bool {
        let before = self.spelled.len();
        append(&mut self.spelled, name);
        for at in &self.columns.dimensions {
            append(&mut self.spelled, records.cell(*at));
        }
        let alike = self.spelled[CELLS..before] == self.spelled[before..];
        if alike {
            self.spelled.truncate(before);
        } else {
            self.spelled.drain(CELLS..before);
        }
        alike
    }

    fn dimensions(&mut self, records: &Records<'_>) -> Result<Dimensions, Problem> {
        let mut pairs = Vec::new();
        for at in &self.columns.dimensions {
            if let Column::Dimension(key) = &self.columns.columns[*at] {
                let value = utf8(records.cell(*at), "a dimension's value")?;
                if !value.is_empty() {
                    pairs.push((key.as_str(), value));
                }
            }
        }
        Ok(self.resolver.dimensions(pairs, &self.rules.dimensions)?)
    }
}

/// Appends a cell so that it is known where it ends.
fn append(spelled: &mut Vec<u8>, cell: &[u8]) {
    let length = u32::try_from(cell.len()).unwrap_or(u32::MAX);
    spelled.extend_from_slice(&length.to_le_bytes());
    spelled.extend_from_slice(cell);
}

/// The metric of a refused line, for the answer.
fn name_as_sent(name: &[u8]) -> Option<Arc<str>> {
    let name = String::from_utf8_lossy(name);
    (!name.is_empty()).then(|| Arc::from(shortened(&name)))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{KnownSeries, NOW};
    use super::super::testing::*;
    use super::super::{Format, decode as decode_any};
    use super::*;

    fn format(header: &str) -> Format {
        let header = super::header(header.as_bytes(), true).unwrap().unwrap();
        let cells: Vec<&str> = header.cells.iter().map(String::as_str).collect();
        Format::Csv(Arc::new(Columns::of_header(&cells).unwrap()))
    }

    fn plain() -> Format {
        format("__name__,__timestamp__,__value__,host,note\n")
    }

    #[test]
    fn a_line_is_a_sample() {
        let text = format!(
            "up,{NOW},1,a,\r\n\"up\",\"{}\",-0,\"a\",\"\"\r\n\r\na:up,2026-01-01T00:00:02Z,2.5e3,,\"x \"\"y\"\", z\"\n\
             up,{NOW},NaN,a,\nup,{NOW},7,,\"two\nlines\"",
            NOW + 1_000
        );
        let piece = decoded(&plain(), &text);
        let expected = [
            "up{host=a} 0 1",
            "up{host=a} 1000 -0",
            "a_up{note=x \"y\", z} 2000 2500",
            "up{note=two\nlines} 0 7",
        ];
        assert_eq!(rows(&piece), expected);
        assert_eq!(
            (piece.batch.new_series.len(), piece.dropped, piece.refused.total(), piece.lines),
            (3, 1, 0, 7)
        );
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_and_holds_up_no_other() {
        for (bad, what) in [
            ("up".to_owned(), "3×1 InvalidSample: 1 cells, where there are 5 columns"),
            (format!("up,{NOW},1,a,b,c"), "3×1 InvalidSample: 6 cells"),
            (format!("up,{NOW},x,a,b"), "3×1 InvalidValue: the value is no number"),
            (format!("up,{NOW},,a,b"), "3×1 InvalidValue: "),
            (format!("up,{NOW},0x10,a,b"), "3×1 InvalidValue: "),
            ("up,soon,1,a,b".to_owned(), "3×1 InvalidTimestamp: "),
            ("up,,1,a,b".to_owned(), "3×1 InvalidTimestamp: "),
            ("up,5,1,a,b".to_owned(), "3×1 TimestampOutOfRange: timestamp 5 is older"),
            (format!(",{NOW},1,a,b"), "3×1 InvalidMetricName: "),
            (format!("a b,{NOW},1,a,b"), "3×1 InvalidMetricName: "),
            (format!("up,{NOW},1,{},b", "x".repeat(257)), "3×1 InvalidDimensionValue: "),
            ("{\"error\":{\"code\":\"INTERNAL\"}}".to_owned(), "3×1 InvalidSample: 1 cells"),
        ] {
            let piece = decoded(&plain(), &format!("up,{NOW},1,a,b\n\n{bad}\nup,{NOW},2,a,b\n"));
            assert_eq!(piece.batch.values, [1.0, 2.0], "{bad}");
            let errors = errors(&piece);
            assert!(errors.len() == 1 && errors[0].starts_with(what), "{bad}: {errors:?}, not {what}");
        }
        let piece =
            decode_any(&plain(), b"up,1767225600000,1,\xff,\n", true, 1, &rules(), &KnownSeries::none());
        assert_eq!(errors(&piece), ["1×1 InvalidSample: a dimension's value is not UTF-8"]);
    }

    #[test]
    fn a_mapping_makes_several_samples_of_a_line() {
        let mapping = "2:metric:ask,3:metric:bid,1:label:ticker,4:time:unix_s";
        let format = Format::Csv(Arc::new(Columns::of_mapping(mapping).unwrap()));
        let piece = decoded(&format, "GOOG,1.23,4.56,1767225600\nMSFT,,21.5,1767225601\n");
        assert_eq!(
            rows(&piece),
            ["ask{ticker=GOOG} 0 1.23", "bid{ticker=GOOG} 0 4.56", "bid{ticker=MSFT} 1000 21.5"]
        );
        let format = Format::Csv(Arc::new(Columns::of_mapping("1:metric:load").unwrap()));
        assert_eq!(rows(&decoded(&format, "0.5\n")), ["load{} 0 0.5"]);
    }

    #[test]
    fn a_series_is_known_again_by_its_cells_and_their_columns() {
        let text = format!("up,{NOW},1,a,\nup,{NOW},2,,a\nup,{NOW},3,a,\n");
        let first = decoded(&plain(), &text);
        assert_eq!((first.batch.new_series.len(), first.batch.series[0]), (2, first.batch.series[2]));
        let mut known = KnownSeries::none();
        let mut learned = super::super::super::Decoded::new(rules().series);
        learned.batch = first.batch;
        known.learn(&learned);
        let again = |format: &Format| {
            decode_any(format, text.as_bytes(), true, 1, &rules(), &known).batch.new_series.len()
        };
        assert_eq!(again(&plain()), 0);
        // The same cells under other names are other series.
        assert_eq!(again(&format("__name__,__timestamp__,__value__,note,host\n")), 2);
    }

    #[test]
    fn lines_are_whole_wherever_the_text_is_cut() {
        let mut random = fastrand::Rng::with_seed(8);
        let lines: Vec<String> = (0..60)
            .map(|at| match random.u8(..6) {
                0 => format!("nonsense {at}"),
                1 => String::new(),
                2 => format!("m,{NOW},{at},\"a\r\n\"\"{at},\",x"),
                _ => format!("m,{NOW},{at},a,b"),
            })
            .collect();
        for end in ["\n", "\r\n"] {
            for text in [lines.join(end), lines.join(end) + end] {
                let whole = in_pieces(&plain(), text.as_bytes(), usize::MAX >> 1);
                assert!(!whole.0.is_empty() && !whole.1.is_empty());
                for most in [1, 7, 64, 1_000] {
                    let cut = in_pieces(&plain(), text.as_bytes(), most);
                    assert_eq!((&cut.0, &cut.1), (&whole.0, &whole.1), "{most}");
                }
            }
        }
    }

    #[test]
    fn a_header_may_come_in_parts() {
        let text = b"metric,timestamp,value,\"a\nb\"\n";
        assert!((0..text.len() - 1).all(|end| matches!(super::header(&text[..end], false), Ok(None))));
        assert_eq!(super::header(text, false).unwrap().unwrap().cells[3], "a\nb");
        assert!(super::header(b"", true).unwrap_err().reason.contains("no header"));
        assert!(super::header(b"\xff\n", true).is_err());
        let header = super::header(b"\xEF\xBB\xBFmetric,timestamp,value\r\nup", false).unwrap().unwrap();
        assert_eq!((header.cells[0].as_str(), header.end), ("metric", 27));
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let mut random = fastrand::Rng::with_seed(6);
        let good = format!("up,{NOW},1,\"a\"\"\",b\r\nup,{NOW},1,,\n");
        for _ in 0..5_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"\",\r\n;x"[random.usize(..6)]),
                }
            }
            let piece = decode_any(&plain(), &bytes, true, 1, &rules(), &KnownSeries::none());
            assert_eq!(piece.consumed, bytes.len());
        }
    }
}
