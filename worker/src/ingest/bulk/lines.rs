//! JSON lines, each a stretch of one series:
//! `{"metric":{"__name__":"up","job":"node"},"values":[1,0.5],"timestamps":[1767225600000,1767225615000]}`.
//!
//! It is the form that VictoriaMetrics exports and imports. As with other formats that come from there, `:` in a name
//! becomes `_`, labels without a value don't exist, and what isn't finite (`null`, `"NaN"`, `"Infinity"`) is left out
//! and counted. A series is spelled by its `metric` object as it stands there.

use std::borrow::Cow;
use std::sync::Arc;

use luminate_storage::model::{MetricName, RowSeries};
use memchr::memchr;
use serde::Deserialize;

use super::super::json::read_pairs;
use super::super::json::scan::{Scanner, SyntaxError, skip_space};
use super::super::{Problem, Resolver, number, shortened};
use super::{BulkRules, Ending, Piece};
use crate::error::Code;

/// What a spelling of this format begins with: no other's begins so.
const TAG: u8 = 0x12;
/// The key that names the metric.
pub const NAME: &str = "__name__";
/// Instead of numbers that JSON doesn't know.
const NOT_FINITE: [&[u8]; 4] = [b"null", b"\"NaN\"", b"\"Infinity\"", b"\"-Infinity\""];

/// Decodes the whole lines of a text.
pub(super) fn decode(
    text: &[u8],
    at_end: bool,
    first_line: u64,
    rules: &BulkRules,
    resolver: Resolver<'_>,
) -> Piece {
    let piece = Piece::new(rules.series);
    let spelled = vec![TAG];
    let mut decoder = Decoder { rules, resolver, piece, spelled, times: Vec::new(), values: Vec::new() };
    let mut at = 0;
    while at < text.len() && decoder.piece.batch.len() < rules.most_samples {
        let end = match memchr(b'\n', &text[at..]) {
            Some(length) => at + length,
            None if at_end => text.len(),
            None => break,
        };
        decoder.line(text[at..end].trim_ascii(), first_line + decoder.piece.lines);
        decoder.piece.lines += 1;
        at = text.len().min(end + 1);
        if matches!(decoder.piece.ending, Some(Ending::Failed(_))) {
            break;
        }
    }
    decoder.piece.consumed = at;
    decoder.piece
}

struct Decoder<'a> {
    rules: &'a BulkRules,
    resolver: Resolver<'a>,
    piece: Piece,
    /// The spelling at hand, with its tag.
    spelled: Vec<u8>,
    times: Vec<i64>,
    values: Vec<f64>,
}

/// What a line is.
enum Line<'a> {
    /// Samples of the series of this object; its times and values are with the decoder.
    Samples(&'a [u8]),
    /// Not samples.
    Ending(Ending),
}

/// What an export says of itself at its end.
#[derive(Deserialize)]
struct Summary {
    samples: u64,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

impl Decoder<'_> {
    fn line(&mut self, line: &[u8], number: u64) {
        if line.is_empty() {
            return;
        }
        match self.read(line) {
            Ok(Line::Samples(metric)) => self.samples(metric, number),
            Ok(Line::Ending(ending)) => {
                self.piece.ending = match (self.piece.ending.take(), ending) {
                    (Some(Ending::Summary(before)), Ending::Summary(more)) => {
                        Some(Ending::Summary(before.saturating_add(more)))
                    }
                    (_, ending) => Some(ending),
                };
            }
            Err(problem) => self.piece.refused.push(number, 1, None, problem),
        }
    }

    fn samples(&mut self, metric: &[u8], number: u64) {
        let count = self.times.len() as u64;
        let (series, oldest) = match self.series(metric) {
            Ok(found) => found,
            Err(problem) => {
                return self.piece.refused.push(number, count.max(1), name_as_sent(metric), problem);
            }
        };
        self.piece.begin_line(number);
        let (mut outside, mut example) = (0, 0);
        for (time, value) in self.times.iter().zip(&self.values) {
            if !value.is_finite() {
                self.piece.dropped += 1;
            } else if *time < oldest || *time > self.rules.newest {
                (outside, example) = (outside + 1, *time);
            } else {
                self.piece.batch.push(series, *time, *value);
            }
        }
        if outside > 0 {
            let problem = self.rules.outside(oldest, example);
            self.piece.refused.push(number, outside, name_as_sent(metric), problem);
        }
    }

    /// The series, and the oldest sample of it that is accepted.
    fn series(&mut self, metric: &[u8]) -> Result<(RowSeries, i64), Problem> {
        self.spelled.truncate(1);
        self.spelled.extend_from_slice(metric);
        let spelling = self.resolver.hash(&self.spelled);
        let known = self.resolver.find(spelling);
        if let Some(series) = known.filter(|_| self.rules.is_uniform()) {
            return Ok((series, self.rules.oldest));
        }
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        read_pairs(metric, &mut pairs)?;
        let mut names = pairs.iter().filter(|(key, _)| key == NAME).map(|(_, value)| value.as_ref());
        let name = names.next().ok_or_else(|| invalid("metric has no __name__"))?;
        if names.next().is_some() {
            return Err(invalid("__name__ appears twice"));
        }
        let oldest = self.rules.oldest(name);
        if let Some(series) = known {
            return Ok((series, oldest));
        }
        let labels = pairs.iter().filter(|(key, value)| key != NAME && !value.is_empty());
        let labels = labels.map(|(key, value)| (key.as_ref(), value.as_ref()));
        let dimensions = self.resolver.dimensions(labels, &self.rules.dimensions)?;
        let name = MetricName::new(&name.replace(':', "_"))?;
        Ok((self.resolver.describe(&mut self.piece.batch, name, dimensions, spelling), oldest))
    }

    /// Takes a line apart: its times and values are left in the decoder.
    fn read<'l>(&mut self, line: &'l [u8]) -> Result<Line<'l>, Problem> {
        let syntax = |error: SyntaxError| invalid(&format!("not valid JSON: {error}"));
        self.times.clear();
        self.values.clear();
        let mut scanner = Scanner::new(line, 0);
        if scanner.peek() != b'{' {
            return Err(invalid("a line must be a JSON object"));
        }
        let (mut metric, mut ending, mut seen) = (None, None, 0_u8);
        let mut more = scanner.open(b'}');
        while more {
            let key = scanner.key().map_err(syntax)?;
            let (field, start) = (&line[key], scanner.position());
            let bit = match field {
                b"\"metric\"" => {
                    let object = scanner.value(1).map_err(syntax)?;
                    metric = Some(&line[object]).filter(|object| object.starts_with(b"{"));
                    metric.ok_or_else(|| invalid("metric must be an object of strings"))?;
                    1
                }
                b"\"values\"" => {
                    let end = array(line, start, &mut self.values, value)
                        .map_err(|at| wrong(line, at, "values"))?;
                    scanner = Scanner::new(line, end);
                    2
                }
                b"\"timestamps\"" => {
                    let end = array(line, start, &mut self.times, number::parse_integer)
                        .map_err(|at| wrong(line, at, "timestamps"))?;
                    scanner = Scanner::new(line, end);
                    4
                }
                b"\"summary\"" | b"\"error\"" => {
                    let object = &line[scanner.value(1).map_err(syntax)?];
                    ending = Some(read_ending(field, object)?);
                    8
                }
                _ => return Err(invalid("unknown field; metric, values and timestamps are allowed")),
            };
            if seen & bit > 0 {
                return Err(invalid("a field appears twice"));
            }
            seen |= bit;
            more = scanner.next_member(b'}').map_err(syntax)?;
        }
        scanner.end().map_err(syntax)?;
        match (metric, ending) {
            (Some(_), None) if self.times.len() != self.values.len() => {
                let (times, values) = (self.times.len(), self.values.len());
                Err(invalid(&format!("there are {values} values and {times} timestamps")))
            }
            (Some(metric), None) if seen == 7 => Ok(Line::Samples(metric)),
            (None, Some(ending)) if seen == 8 => Ok(Line::Ending(ending)),
            _ => Err(invalid("metric, values and timestamps are needed")),
        }
    }
}

fn invalid(what: &str) -> Problem {
    Problem::new(Code::InvalidSample, what)
}

fn wrong(line: &[u8], at: usize, field: &str) -> Problem {
    let code = if field == "values" { Code::InvalidValue } else { Code::InvalidTimestamp };
    let what = if field == "values" { "numbers" } else { "whole Unix milliseconds" };
    let early = if at >= line.len() { ", but the line ends too early" } else { "" };
    Problem::new(code, format!("{field} must be an array of {what}{early} (byte {at})"))
}

fn read_ending(field: &[u8], object: &[u8]) -> Result<Ending, Problem> {
    let ending = match field {
        b"\"summary\"" => {
            serde_json::from_slice(object).map(|Summary { samples }: Summary| Ending::Summary(samples))
        }
        _ => serde_json::from_slice(object).map(|Failure { message }: Failure| Ending::Failed(message)),
    };
    ending.map_err(|_| invalid("a summary or an error that no export wrote"))
}

/// Reads the array that begins at `at` and returns where it ends, or else where something else stands.
fn array<T>(
    line: &[u8],
    mut at: usize,
    items: &mut Vec<T>,
    read: impl Fn(&[u8], usize) -> Option<(T, usize)>,
) -> Result<usize, usize> {
    items.clear();
    if line.get(at) != Some(&b'[') {
        return Err(at);
    }
    at = skip_space(line, at + 1);
    if line.get(at) == Some(&b']') {
        return Ok(at + 1);
    }
    loop {
        let (item, end) = read(line, at).ok_or(at)?;
        items.push(item);
        at = skip_space(line, end);
        match line.get(at) {
            Some(b',') => at = skip_space(line, at + 1),
            Some(b']') => return Ok(at + 1),
            _ => return Err(at),
        }
    }
}

fn value(line: &[u8], at: usize) -> Option<(f64, usize)> {
    number::parse(line, at).or_else(|| {
        let rest = line.get(at..)?;
        let word = NOT_FINITE.iter().find(|word| rest.starts_with(word))?;
        Some((f64::NAN, at + word.len()))
    })
}

/// The metric of a refused line, for the answer.
fn name_as_sent(metric: &[u8]) -> Option<Arc<str>> {
    let mut pairs = Vec::new();
    // What stands before a malformed pair counts.
    let _malformed = read_pairs(metric, &mut pairs);
    let (_, name) = pairs.into_iter().find(|(key, _)| key == NAME)?;
    Some(Arc::from(shortened(&name)))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{KnownSeries, NOW};
    use super::super::testing::*;
    use super::super::{Format, decode as decode_any};
    use super::*;

    fn lines(text: &str) -> Piece {
        decoded(&Format::JsonLines, text)
    }

    fn line(metric: &str, values: &str, timestamps: &str) -> String {
        format!(r#"{{"metric":{metric},"values":{values},"timestamps":{timestamps}}}"#)
    }

    #[test]
    fn a_line_is_a_stretch_of_a_series() {
        let times = format!("[{NOW},{}]", NOW + 1_000);
        let text = [
            line(r#"{"__name__":"up","job":"a"}"#, "[1,-0]", &times),
            String::new(),
            line(r#"{"job":"b:\"é\"","__name__":"a:up","empty":""}"#, "[ 1e-3 , 2.50 ]", &times),
            line(r#"{"__name__":"up"}"#, r#"[null,"NaN"]"#, &times),
            line(r#"{"__name__":"up"}"#, r#"["Infinity",7]"#, &times),
            line(r#"{"__name__":"none"}"#, "[]", "[]"),
        ];
        let piece = lines(&text.join("\r\n"));
        let expected = [
            "up{job=a} 0 1",
            "up{job=a} 1000 -0",
            "a_up{job=b:\"é\"} 0 0.001",
            "a_up{job=b:\"é\"} 1000 2.5",
            "up{} 1000 7",
        ];
        assert_eq!(rows(&piece), expected);
        assert!(piece.batch.values[1].is_sign_negative());
        assert_eq!((piece.dropped, piece.refused.total(), piece.lines, piece.samples()), (3, 0, 6, 8));
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_and_holds_up_no_other() {
        let good = line(r#"{"__name__":"up"}"#, "[1]", &format!("[{NOW}]"));
        let one = format!("[{NOW}]");
        let many = format!("[{NOW},{NOW},{NOW}]");
        for (bad, what) in [
            ("nonsense".to_owned(), "2×1 InvalidSample: a line must be a JSON object"),
            ("{".to_owned(), "2×1 InvalidSample: not valid JSON"),
            (good[..good.len() - 1].to_owned(), "2×1 InvalidSample: not valid JSON"),
            (format!("{good}{good}"), "2×1 InvalidSample: not valid JSON"),
            (r#"{"metrics":[]}"#.to_owned(), "2×1 InvalidSample: unknown field"),
            ("{}".to_owned(), "2×1 InvalidSample: metric, values and timestamps are needed"),
            (line(r#""up""#, "[1]", &one), "2×1 InvalidSample: metric must be an object"),
            (line(r#"{"job":"a"}"#, "[1]", &one), "2×1 InvalidSample: metric has no __name__"),
            (
                line(r#"{"__name__":"a","__name__":"b"}"#, "[1]", &one),
                "2×1 InvalidSample: __name__ appears twice",
            ),
            (line(r#"{"__name__":"a","j":1}"#, "[1]", &one), "2×1 InvalidDimensionValue: "),
            (line(r#"{"__name__":"a b"}"#, "[1,2,3]", &many), "2×3 InvalidMetricName: "),
            (line(r#"{"__name__":"a","__x":"b"}"#, "[1]", &one), "2×1 InvalidDimensionKey: "),
            (line(r#"{"__name__":"a","j":"b","j":"c"}"#, "[1]", &one), "2×1 InvalidDimensionKey: "),
            (
                line(r#"{"__name__":"up"}"#, "[1,2]", &one),
                "2×1 InvalidSample: there are 2 values and 1 timestamps",
            ),
            (
                line(r#"{"__name__":"up"}"#, "[1,]", &one),
                "2×1 InvalidValue: values must be an array of numbers",
            ),
            (line(r#"{"__name__":"up"}"#, "[true]", &one), "2×1 InvalidValue: "),
            (line(r#"{"__name__":"up"}"#, "7", &one), "2×1 InvalidValue: "),
            (
                line(r#"{"__name__":"up"}"#, "[1]", "[1.5]"),
                "2×1 InvalidTimestamp: timestamps must be an array of whole",
            ),
            (line(r#"{"__name__":"up"}"#, "[1]", "[\"now\"]"), "2×1 InvalidTimestamp: "),
            (
                line(r#"{"__name__":"up"}"#, "[1]", "[5]"),
                "2×1 TimestampOutOfRange: timestamp 5 is older than",
            ),
            (line(r#"{"__name__":"up"}"#, "[1]", "[1e3]"), "2×1 InvalidTimestamp: "),
            (
                format!(r#"{{"metric":{{"__name__":"up"}},"values":[1],"values":[1],"timestamps":{one}}}"#),
                "2×1 InvalidSample: a field appears twice",
            ),
        ] {
            let piece = lines(&format!("{good}\n{bad}\n{good}"));
            assert_eq!(piece.batch.len(), 2, "{bad}");
            let errors = errors(&piece);
            assert!(errors.len() == 1 && errors[0].starts_with(what), "{bad}: {errors:?}, not {what}");
        }
    }

    #[test]
    fn samples_are_accepted_as_long_as_the_metrics_retention_keeps_them() {
        let times =
            [NOW - 30 * DAY - 1, NOW - 30 * DAY, NOW - DAY - 1, NOW - DAY, NOW + 3_600_000, NOW + 3_600_001];
        let times = format!("{times:?}");
        let text =
            ["up", "short"].map(|name| line(&format!(r#"{{"__name__":"{name}"}}"#), "[1,2,3,4,5,6]", &times));
        let piece = lines(&text.join("\n"));
        let values = &piece.batch.values;
        assert_eq!(values, &[2.0, 3.0, 4.0, 5.0, 4.0, 5.0]);
        let errors = errors(&piece);
        assert_eq!(errors.len(), 2);
        assert!(
            errors[0].starts_with("1×2 TimestampOutOfRange")
                && errors[1].starts_with("2×4 TimestampOutOfRange")
        );
        let mut known = KnownSeries::none();
        let mut decoded = super::super::super::Decoded::new(rules().series);
        decoded.batch = piece.batch;
        known.learn(&decoded);
        let again = decode_any(&Format::JsonLines, text.join("\n").as_bytes(), true, 1, &rules(), &known);
        assert_eq!((again.batch.values.len(), again.batch.new_series.len()), (6, 0));
    }

    #[test]
    fn lines_are_whole_wherever_the_text_is_cut() {
        let mut random = fastrand::Rng::with_seed(4);
        let text: Vec<String> = (0..60)
            .map(|at| match random.u8(..5) {
                0 => format!("nonsense {at}"),
                1 => String::new(),
                _ => line(
                    &format!(r#"{{"__name__":"m","at":"{at}"}}"#),
                    "[1,2]",
                    &format!("[{NOW},{}]", NOW + 1),
                ),
            })
            .collect();
        for text in [text.join("\n"), text.join("\n") + "\n"] {
            let whole = in_pieces(&Format::JsonLines, text.as_bytes(), usize::MAX >> 1);
            for most in [1, 7, 64, 1_000] {
                assert_eq!(in_pieces(&Format::JsonLines, text.as_bytes(), most), whole, "{most}");
            }
        }
    }

    #[test]
    fn the_end_of_an_export_is_understood() {
        let good = line(r#"{"__name__":"up"}"#, "[1]", &format!("[{NOW}]"));
        let summary = r#"{"summary":{"metrics":1,"series":1,"samples":1}}"#;
        let piece = lines(&format!("{good}\n{summary}\n{good}\n{summary}\n"));
        assert_eq!((piece.ending, piece.batch.len()), (Some(Ending::Summary(2)), 2));
        let most = format!(r#"{{"summary":{{"metrics":1,"series":1,"samples":{}}}}}"#, u64::MAX);
        assert_eq!(lines(&format!("{most}\n{summary}\n")).ending, Some(Ending::Summary(u64::MAX)));
        let error = r#"{"error":{"code":"UNAVAILABLE","message":"gone","details":{}}}"#;
        let piece = lines(&format!("{good}\n{error}\n{good}\n"));
        assert_eq!(
            (piece.ending, piece.batch.len(), piece.lines),
            (Some(Ending::Failed("gone".into())), 1, 2)
        );
        assert_eq!(errors(&lines(r#"{"summary":{}}"#)).len(), 1);
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let mut random = fastrand::Rng::with_seed(6);
        let good = line(r#"{"__name__":"up","k":"v"}"#, "[1,2.5,null]", &format!("[{NOW},{NOW},{NOW}]"));
        for _ in 0..5_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"{}[]\",:\\\n"[random.usize(..9)]),
                }
            }
            let piece = decode_any(&Format::JsonLines, &bytes, true, 1, &rules(), &KnownSeries::none());
            assert_eq!(piece.consumed, bytes.len());
        }
    }
}
