//! InfluxDB's line protocol, which Telegraf and many libraries write:
//! `measurement,tag=value field=1.5,other=2i 1767225600000000000`, one point a line.
//!
//! Each field with a number is a sample of the metric `measurement_field`, tags are its dimensions. What a name
//! may not hold here becomes `_`. A field's spelling is the hash of measurement and tags with the field's key behind
//! it, so the former are hashed once a line. Strings are passed over and counted.
//!
//! The grammar is that of InfluxDB's reference (docs.influxdata.com, "Line protocol").

mod scan;

use std::borrow::Cow;
use std::sync::Arc;

use luminate_storage::model::{MetricName, RowSeries, Spelling};
use luminate_storage::store::SeriesLookup;

use self::scan::{Field, Line, Value};
use super::{Decoded, Problem, Resolver, Rules, TooManySamples, shortened, utf8};
use crate::error::Code;

/// What a spelling of this format begins with: no other's begins so.
const TAG: u8 = 0x01;

/// What a point's time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Billionths of a second, as where nothing is said.
    Nanoseconds,
    /// Millionths.
    Microseconds,
    /// Thousandths.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes; of version 1 alone.
    Minutes,
    /// Hours; of version 1 alone.
    Hours,
}

impl Precision {
    /// The precision that a client names.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "" | "ns" | "n" => Self::Nanoseconds,
            "us" | "u" | "µ" | "µs" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    /// Unix milliseconds of a time; what is finer is cut off. `None` past the range of an i64.
    fn millis(self, time: i64) -> Option<i64> {
        match self {
            Self::Nanoseconds => Some(time.div_euclid(1_000_000)),
            Self::Microseconds => Some(time.div_euclid(1_000)),
            Self::Milliseconds => Some(time),
            Self::Seconds => time.checked_mul(1_000),
            Self::Minutes => time.checked_mul(60_000),
            Self::Hours => time.checked_mul(3_600_000),
        }
    }
}

/// Decodes points, already uncompressed.
///
/// # Errors
/// There are too many fields. Refused lines and fields are no error: they are counted.
pub fn decode(
    body: &[u8],
    precision: Precision,
    rules: &Rules,
    lookup: &dyn SeriesLookup,
) -> Result<Decoded, TooManySamples> {
    let mut decoder = Decoder {
        precision,
        rules,
        resolver: Resolver::new(lookup),
        decoded: Decoded::new(rules.series),
        spelled: vec![TAG],
    };
    let (mut fields, mut at, mut number) = (Vec::new(), 0, 0);
    while at < body.len() {
        number += 1;
        fields.clear();
        let (line, next) = scan::line(body, at, &mut fields);
        let places = if matches!(line, Ok(None)) { 0 } else { fields.len().max(1) };
        if decoder.decoded.next_index() as usize + places > rules.max_batch {
            return Err(TooManySamples { max: rules.max_batch });
        }
        match line {
            Ok(Some(line)) => decoder.point(&line, &fields, number),
            Ok(None) => {}
            Err(what) => decoder.refuse_line(number, what),
        }
        at = next;
    }
    Ok(decoder.decoded)
}

struct Decoder<'a> {
    precision: Precision,
    rules: &'a Rules,
    resolver: Resolver<'a>,
    decoded: Decoded,
    /// The spelling at hand: the tag, the hash of measurement and tags, a field's key.
    spelled: Vec<u8>,
}

impl<'a> Decoder<'a> {
    fn refuse_line(&mut self, number: usize, what: &str) {
        self.decoded.reject(None, &Problem::new(Code::InvalidSample, format!("line {number}: {what}")));
    }

    /// Takes a line's fields as rows.
    fn point(&mut self, line: &Line<'a>, fields: &[Field<'a>], number: usize) {
        let time = match line.time {
            None => self.rules.now,
            Some(time) => match self.precision.millis(time) {
                Some(millis) => millis,
                None => {
                    return self.refuse_fields(
                        line,
                        fields,
                        &Problem::new(
                            Code::TimestampOutOfRange,
                            format!("line {number}: the timestamp {time} is too large for its precision"),
                        ),
                    );
                }
            },
        };
        if !self.rules.accepts(time) {
            return self.refuse_fields(line, fields, &self.rules.outside(time));
        }
        let Spelling(head) = self.resolver.hash(line.head);
        self.spelled.truncate(1);
        self.spelled.extend_from_slice(&head.to_le_bytes());
        let mut named = None;
        for field in fields {
            match field.value {
                Value::Number(value) if value.is_finite() => match self.series(line, field, &mut named) {
                    Ok(series) => self.decoded.batch.push(series, time, value),
                    Err(problem) => {
                        let metric = metric_as_sent(line.head, field.key);
                        self.decoded.reject(Some(metric), &problem);
                    }
                },
                Value::Number(_) | Value::Text => self.decoded.drop_sample(),
                Value::Malformed => {
                    let value = String::from_utf8_lossy(field.raw);
                    let value: String = value.chars().take(64).collect();
                    let error = format!("line {number}: {value:?} is no number, boolean or quoted string");
                    let metric = metric_as_sent(line.head, field.key);
                    self.decoded.reject(Some(metric), &Problem::new(Code::InvalidValue, error));
                }
            }
        }
    }

    /// Refuses every number of a line.
    fn refuse_fields(&mut self, line: &Line<'a>, fields: &[Field<'a>], problem: &Problem) {
        for field in fields {
            match field.value {
                Value::Text => self.decoded.drop_sample(),
                _ => self.decoded.reject(Some(metric_as_sent(line.head, field.key)), problem),
            }
        }
    }

    /// The series of a field, or why it is refused. `named` is what the line's head says, once it was read.
    fn series(
        &mut self,
        line: &Line<'a>,
        field: &Field<'a>,
        named: &mut Option<Head<'a>>,
    ) -> Result<RowSeries, Problem> {
        self.spelled.truncate(1 + size_of::<u128>());
        self.spelled.extend_from_slice(field.key);
        let spelling = self.resolver.hash(&self.spelled);
        if let Some(series) = self.resolver.find(spelling) {
            return Ok(series);
        }
        let head = match named {
            Some(head) => head,
            None => named.insert(Head::read(line.head)?),
        };
        let metric = metric_name(&head.measurement, &text(field.key, "a field's key")?)?;
        let pairs = head.tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        let dimensions = self.resolver.dimensions(pairs, &self.rules.dimensions)?;
        Ok(self.resolver.describe(&mut self.decoded.batch, metric, dimensions, spelling))
    }
}

/// Measurement and tags, without their escapes.
struct Head<'a> {
    measurement: Cow<'a, str>,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Head<'a> {
    fn read(head: &'a [u8]) -> Result<Self, Problem> {
        let mut parts = scan::split(head, b',');
        let measurement = text(parts.next().unwrap_or_default(), "the measurement")?;
        let mut tags = Vec::new();
        for tag in parts {
            let Some((key, value)) = scan::pair(tag) else {
                let tag = String::from_utf8_lossy(tag);
                let error = format!("the tag {:?} has no value", tag.chars().take(64).collect::<String>());
                return Err(Problem::new(Code::InvalidSample, error));
            };
            let key = plain(text(key, "a tag's key")?);
            tags.push((key, text(value, "a tag's value")?));
        }
        Ok(Self { measurement, tags })
    }
}

/// A part of a line as text.
fn text<'a>(part: &'a [u8], what: &str) -> Result<Cow<'a, str>, Problem> {
    Ok(scan::unescaped(utf8(part, what)?))
}

fn metric_name(measurement: &str, field: &str) -> Result<MetricName, Problem> {
    Ok(MetricName::new(&plain(Cow::Owned(format!("{measurement}_{field}"))))?)
}

/// A name with `_` in place of what names don't hold here.
pub(super) fn plain(name: Cow<'_, str>) -> Cow<'_, str> {
    let holds = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let starts = !name.starts_with(|char: char| char.is_ascii_digit());
    if starts && name.chars().all(holds) {
        return name;
    }
    let rest = name.chars().map(|char| if holds(char) { char } else { '_' });
    let mut plain = String::with_capacity(name.len() + 1);
    if !starts {
        plain.push('_');
    }
    plain.extend(rest);
    Cow::Owned(plain)
}

/// The metric of a refused field, for the answer.
fn metric_as_sent(head: &[u8], field: &[u8]) -> Arc<str> {
    let measurement = scan::split(head, b',').next().unwrap_or_default();
    let name = format!("{}_{}", String::from_utf8_lossy(measurement), String::from_utf8_lossy(field));
    Arc::from(shortened(&name))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KnownSeries, NOW, errors, rows, rules};
    use super::*;

    fn decoded(body: &str) -> Decoded {
        decode(body.as_bytes(), Precision::Milliseconds, &rules(), &KnownSeries::none()).unwrap()
    }

    #[test]
    fn each_number_of_a_point_is_a_sample() {
        let decoded = decoded(&format!(
            "# a comment\n\n cpu,host=a,region=eu usage=1.5,count=2i,free=3u,up=t,down=FALSE,os=\"a b,c=d\\\" \n e\" {NOW}\r\n\
             mem used=7"
        ));
        assert_eq!(
            rows(&decoded),
            [
                "cpu_usage{host=a,region=eu} 0 1.5",
                "cpu_count{host=a,region=eu} 0 2",
                "cpu_free{host=a,region=eu} 0 3",
                "cpu_up{host=a,region=eu} 0 1",
                "cpu_down{host=a,region=eu} 0 0",
                "mem_used{} 0 7",
            ]
        );
        assert_eq!((decoded.dropped, decoded.rejections.total()), (1, 0));
    }

    #[test]
    fn numbers_have_every_form_that_influxdb_takes() {
        let values = [
            ("1", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("+2.5", 2.5),
            ("-1e3", -1_000.0),
            ("9223372036854775807i", i64::MAX as f64),
            ("-9223372036854775808i", i64::MIN as f64),
            ("18446744073709551615u", u64::MAX as f64),
        ];
        for (text, value) in values {
            assert_eq!(decoded(&format!("m f={text}")).batch.values, [value], "{text}");
        }
        for text in ["", "x", "1x", "nan", "inf", "1.5i", "-1u", "tRUE", "0x1", "9223372036854775808i", "'a'"]
        {
            let decoded = decoded(&format!("m f={text},g=1"));
            assert_eq!(decoded.batch.len(), 1, "{text}");
            assert!(errors(&decoded)[0].starts_with("0 InvalidValue: line 1:"), "{text}");
        }
        assert_eq!(decoded("m f=1e999").dropped, 1);
    }

    #[test]
    fn escapes_are_undone_and_names_are_made_plain() {
        let decoded =
            decoded("my\\ disk.io,a\\,b=c\\=d\\ e,p=C:\\\\,q=\\n read\\=bytes=1,2nd=2 1767225600000");
        assert_eq!(
            rows(&decoded),
            [
                "my_disk_io_read_bytes{a_b=c=d e,p=C:\\,q=\\n} 0 1",
                "my_disk_io_2nd{a_b=c=d e,p=C:\\,q=\\n} 0 2"
            ]
        );
        assert_eq!(rows(&super::tests::decoded("2x f=1")), ["_2x_f{} 0 1"]);
    }

    #[test]
    fn times_count_what_the_client_says() {
        for (name, time) in [
            ("", "1767225600000999999"),
            ("us", "1767225600000999"),
            ("u", "1767225600000000"),
            ("ms", "1767225600000"),
            ("s", "1767225600"),
            ("m", "29453760"),
            ("h", "490896"),
        ] {
            let precision = Precision::of(name).unwrap();
            let body = format!("m f=1 {time}");
            let decoded = decode(body.as_bytes(), precision, &rules(), &KnownSeries::none()).unwrap();
            assert_eq!(decoded.batch.timestamps, [NOW], "{name}");
        }
        assert_eq!(Precision::of("d"), None);
        let far = decode(b"m f=1,g=2 9223372036854775807", Precision::Hours, &rules(), &KnownSeries::none());
        assert_eq!(errors(&far.unwrap()).len(), 2);
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_and_holds_up_no_other() {
        for (bad, what) in [
            ("m", "InvalidSample: line 2: there are no fields"),
            (",a=b f=1", "InvalidSample: line 2: there is no measurement"),
            ("m f", "InvalidSample: line 2: a field has no value"),
            ("m f 1", "InvalidSample: line 2: a field has no value"),
            ("m =1", "InvalidSample: line 2: a field has no key"),
            ("m f=1,", "InvalidSample: line 2: a field has no value"),
            ("m f=1 x", "InvalidSample: line 2: the timestamp is no whole number"),
            ("m f=1 1.5", "InvalidSample: line 2: the timestamp is no whole number"),
            ("m f=\"a\"b", "InvalidSample: line 2: something follows a quoted string"),
            ("m,a f=1", "InvalidSample: the tag \"a\" has no value"),
            ("m,a= f=1", "InvalidSample: the tag \"a=\" has no value"),
            ("m,a=b,a=c f=1", "InvalidDimensionKey: "),
            ("m f=1 5", "TimestampOutOfRange: "),
        ] {
            let decoded = decoded(&format!("good f=1\n{bad}\ngood f=2"));
            assert_eq!(decoded.batch.values, [1.0, 2.0], "{bad}");
            let errors = errors(&decoded);
            assert_eq!(errors.len(), 1, "{bad}");
            assert!(errors[0].starts_with(&format!("1 {what}")), "{bad}: {errors:?}");
        }
        let open = decoded("good f=1\nm f=\"a\ngood f=2");
        assert_eq!((open.batch.len(), open.rejections.total()), (2, 1), "what has no end ends with its line");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let body = b"m,a=\xff f=1\nm f\xff=1\nm f=\xff\nm f=1";
        let decoded = decode(body, Precision::Milliseconds, &rules(), &KnownSeries::none()).unwrap();
        assert_eq!((decoded.batch.len(), decoded.rejections.total()), (1, 3));
    }

    #[test]
    fn known_series_are_found_and_each_new_one_is_described_once() {
        let body = "m,a=b f=1,g=2\nm,a=b f=3,g=4\nm,a=c f=5";
        let mut known = KnownSeries::none();
        let first = decoded(body);
        assert_eq!((first.batch.len(), first.batch.new_series.len()), (5, 3));
        known.learn(&first);
        let second = decode(body.as_bytes(), Precision::Milliseconds, &rules(), &known).unwrap();
        assert_eq!((second.batch.len(), second.batch.new_series.len()), (5, 0));
        assert_eq!(second.batch.series[0], second.batch.series[2]);
        assert_ne!(second.batch.series[0], second.batch.series[1]);
        assert_ne!(second.batch.series[0], second.batch.series[4]);
    }

    #[test]
    fn one_field_too_many_refuses_the_request() {
        let rules = Rules { max_batch: 3, ..rules() };
        let read = |body: &str| decode(body.as_bytes(), Precision::Seconds, &rules, &KnownSeries::none());
        assert_eq!(read("m f=1,g=2\nm h=3\n\n# end\n").unwrap().batch.len(), 3);
        assert_eq!(read("m f=1,g=2\nm h=3,i=4").unwrap_err(), TooManySamples { max: 3 });
        assert_eq!(read("m f=1,g=2\nm h=3\nm").unwrap_err(), TooManySamples { max: 3 });
    }

    /// A text in which everything that must be is escaped.
    fn escaped(text: &str) -> String {
        text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ")
    }

    #[test]
    fn whatever_was_written_is_read() {
        let mut random = fastrand::Rng::with_seed(9);
        let letters = ["a", "b", ",", "=", " ", "\\", "\"", "é", "#"];
        for _ in 0..2_000 {
            let mut word = |least: usize| -> String {
                let length = random.usize(least..5);
                (0..length).map(|_| letters[random.usize(..letters.len())]).collect()
            };
            let (value, field) = (word(1), word(1));
            let number = random.f64() * 1e6 - 5e5;
            let body = format!("m,k={} {}={number} {NOW}", escaped(&value), escaped(&field));
            let decoded = decoded(&body);
            let metric = plain(Cow::Owned(format!("m_{field}"))).into_owned();
            assert_eq!(rows(&decoded), [format!("{metric}{{k={value}}} 0 {number}")], "{body}");
        }
    }

    #[test]
    fn whatever_comes_loses_no_line_and_panics_nowhere() {
        let good =
            format!("cpu,host=a\\ b,region=eu usage=1.5,count=2i,os=\"a b\\\"\" {NOW}\nmem used=7i,free=f\n");
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut body = good.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                body[at] = [b',', b'=', b' ', b'\n', b'"', b'\\', b'#', 0xFF][random.usize(..8)];
            }
            let cut = random.usize(..=body.len());
            let decoded =
                decode(&body[..cut], Precision::Milliseconds, &rules(), &KnownSeries::none()).unwrap();
            let (batch, rejections) = (&decoded.batch, &decoded.rejections);
            let places = batch.len() as u64 + rejections.total() + decoded.dropped;
            assert_eq!(places, u64::from(decoded.next_index()));
            assert!(batch.values.iter().all(|value| value.is_finite()));
        }
    }
}
