//! `{"metrics": [{"name", "timestamp", "value", "dimensions"}, …]}`.
//!
//! Each element is first tried as what nearly all are: the four fields, plain, of a series that the
//! store knows (`Decoder::quick`). Only where that guess fails is the element scanned by the full
//! grammar and taken apart (`Decoder::careful`).
//!
//! # Why a hit needs no validation
//! A spelling is the name's string followed by the dimensions' object, as sent. The store remembers
//! only spellings that passed the full grammar and the rules. Strings and objects end where they end
//! whatever follows, so if the bytes from `{` to the first `}` equal remembered ones, they are the
//! whole object. If the first `}` stands inside a string, nothing is found and the grammar decides.

pub mod scan;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use luminate_storage::model::{Dimensions, MetricName, RowSeries, Spelling};
use luminate_storage::store::SeriesLookup;

use self::scan::{Scanner, SyntaxError, skip_space, text};
use super::{Decoded, Problem, Resolver, Rules, number, shortened, timestamp};
use crate::error::Code;

/// Keeps spellings of this format apart from those of others.
const FORMAT_TAG: u8 = b'J';
/// Arrays and objects open around a field of an element.
const FIELD_DEPTH: usize = 3;

/// Why a whole body is refused; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("the body is not valid JSON: {0}")]
    Syntax(#[from] SyntaxError),
    /// JSON, but not `{"metrics": […]}`.
    #[error("{0}")]
    Shape(String),
    /// More elements than a request may carry.
    #[error("more than {max} metrics in one request")]
    TooMany {
        /// How many are allowed.
        max: usize,
    },
}

/// Decodes a body.
///
/// # Errors
/// A syntax error anywhere, a body of another shape, too many elements. Bad elements are no error:
/// they are counted in the answer.
pub fn decode(body: &[u8], rules: &Rules, lookup: &dyn SeriesLookup) -> Result<Decoded, JsonError> {
    let mut scanner = Scanner::new(body, 0);
    scanner.space();
    if scanner.peek() != b'{' {
        scanner.value(0)?;
        return Err(JsonError::Shape("the body must be an object with the field metrics".into()));
    }
    let mut decoded = None;
    let mut more = scanner.open(b'}');
    while more {
        let key = scanner.key()?;
        match text(&body[key]).as_ref() {
            "metrics" if decoded.is_some() => {
                return Err(JsonError::Shape("the field metrics appears twice".into()));
            }
            "metrics" => decoded = Some(decode_elements(body, &mut scanner, rules, lookup)?),
            other => {
                return Err(JsonError::Shape(format!(
                    "unknown field {:?}; only metrics is allowed",
                    shortened(other)
                )));
            }
        }
        more = scanner.next_member(b'}')?;
    }
    scanner.end()?;
    decoded.ok_or_else(|| JsonError::Shape("the field metrics is missing".into()))
}

fn decode_elements<'a>(
    body: &'a [u8],
    scanner: &mut Scanner<'a>,
    rules: &Rules,
    lookup: &dyn SeriesLookup,
) -> Result<Decoded, JsonError> {
    if scanner.peek() != b'[' {
        scanner.value(1)?;
        return Err(JsonError::Shape("the field metrics must be an array".into()));
    }
    let mut decoder = Decoder {
        body,
        rules,
        resolver: Resolver::new(lookup),
        decoded: Decoded::new(rules.series),
        spelled: vec![FORMAT_TAG],
    };
    let mut more = scanner.open(b']');
    while more {
        if decoder.decoded.next_index() as usize >= rules.max_batch {
            return Err(JsonError::TooMany { max: rules.max_batch });
        }
        let at = scanner.position();
        let end = match decoder.quick(at) {
            Some(end) => end,
            None => decoder.careful(at)?,
        };
        if decoder.decoded.next_index() == 1 {
            decoder.reserve(end - at);
        }
        *scanner = Scanner::new(body, end);
        more = scanner.next_member(b']')?;
    }
    Ok(decoder.decoded)
}

struct Decoder<'a> {
    body: &'a [u8],
    rules: &'a Rules,
    resolver: Resolver<'a>,
    decoded: Decoded,
    /// The tag, the name and the dimensions of the element at hand.
    spelled: Vec<u8>,
}

/// A bit for each field of an element.
const NAME: u8 = 1;
const TIMESTAMP: u8 = 2;
const VALUE: u8 = 4;
const DIMENSIONS: u8 = 8;

impl Decoder<'_> {
    /// Makes room for as many rows as elements of `bytes` fit into the body.
    fn reserve(&mut self, bytes: usize) {
        let rows = (self.body.len() / bytes.max(1) + 1).min(self.rules.max_batch);
        let batch = &mut self.decoded.batch;
        batch.series.reserve(rows);
        batch.timestamps.reserve(rows);
        batch.values.reserve(rows);
    }

    /// The element at `at`, if it is plain and of a known series: takes its row and returns where it
    /// ends. Otherwise changes nothing.
    ///
    /// It must not accept what [`Decoder::careful`] refuses; it may give up on anything.
    fn quick(&mut self, at: usize) -> Option<usize> {
        let body = self.body;
        let (mut name, mut dimensions) = (0..0, 0..0);
        let (mut time, mut sample) = (self.rules.now, 0.0);
        let mut seen = 0;
        let mut at = skip_space(body, after(body, at, b"{")?);
        loop {
            let field = match body.get(at + 1)? {
                b'n' => NAME,
                b't' => TIMESTAMP,
                b'v' => VALUE,
                _ => DIMENSIONS,
            };
            if seen & field != 0 {
                return None;
            }
            seen |= field;
            at = quick_key(body, at, field)?;
            match field {
                NAME => {
                    let end = after(body, at, b"\"")?;
                    let end = end + memchr::memchr(b'"', &body[end..])? + 1;
                    name = at..end;
                    at = end;
                }
                TIMESTAMP => (time, at) = quick_time(body, at)?,
                VALUE => (sample, at) = number::parse(body, at)?,
                _ => {
                    let start = after(body, at, b"{")?;
                    let end = start + memchr::memchr(b'}', &body[start..])? + 1;
                    dimensions = at..end;
                    at = end;
                }
            }
            at = skip_space(body, at);
            match body.get(at)? {
                b',' => at = skip_space(body, at + 1),
                b'}' => break,
                _ => return None,
            }
        }
        if seen & (NAME | VALUE) != NAME | VALUE || !self.rules.accepts(time) || !sample.is_finite() {
            return None;
        }
        let spelling = self.spell(&name, &dimensions);
        let series = self.resolver.find(spelling)?;
        self.decoded.batch.push(series, time, sample);
        Some(at + 1)
    }

    fn spell(&mut self, name: &Range<usize>, dimensions: &Range<usize>) -> Spelling {
        self.spelled.truncate(1);
        self.spelled.extend_from_slice(&self.body[name.clone()]);
        self.spelled.extend_from_slice(&self.body[dimensions.clone()]);
        self.resolver.hash(&self.spelled)
    }

    /// The element at `at` by the full grammar: its row is taken or it is rejected; returns where it ends.
    ///
    /// # Errors
    /// It isn't JSON.
    fn careful(&mut self, at: usize) -> Result<usize, JsonError> {
        let mut scanner = Scanner::new(self.body, at);
        let fields = Fields::scan(self.body, &mut scanner)?;
        let row = match fields.problem {
            Some(ref problem) => Err(problem.clone()),
            None => self.row(&fields),
        };
        match row {
            Ok((series, time, value)) => self.decoded.batch.push(series, time, value),
            Err(problem) => self.decoded.reject(self.metric_as_sent(&fields), &problem),
        }
        Ok(scanner.position())
    }

    /// The row of an element. Its series comes last: one without a valid sample must not be described.
    fn row(&mut self, fields: &Fields) -> Result<(RowSeries, i64, f64), Problem> {
        let name = required(&fields.name, "name")?;
        let metric = self.metric(name)?;
        let value = self.value(required(&fields.value, "value")?)?;
        let time = match &fields.timestamp {
            Some(span) => self.time(span)?,
            None => self.rules.now,
        };
        if !self.rules.accepts(time) {
            return Err(self.rules.outside(time));
        }
        let dimensions = fields.dimensions.clone().unwrap_or_default();
        let spelling = self.spell(name, &dimensions);
        if let Some(series) = self.resolver.find(spelling) {
            return Ok((series, time, value));
        }
        let object = &self.body[dimensions];
        let dimensions = self.dimensions(object)?;
        let series = self.resolver.describe(&mut self.decoded.batch, metric, dimensions, spelling);
        Ok((series, time, value))
    }

    fn metric(&self, span: &Range<usize>) -> Result<MetricName, Problem> {
        if self.body[span.start] != b'"' {
            return Err(Problem::new(Code::InvalidSample, "name must be a string"));
        }
        Ok(MetricName::new(&text(&self.body[span.clone()]))?)
    }

    fn metric_as_sent(&self, fields: &Fields) -> Option<Arc<str>> {
        let quoted = &self.body[fields.name.clone()?];
        (quoted.first() == Some(&b'"')).then(|| Arc::from(shortened(&text(quoted))))
    }

    fn value(&self, span: &Range<usize>) -> Result<f64, Problem> {
        let refuse = |why| Problem::new(Code::InvalidValue, why);
        match number::parse(self.body, span.start) {
            None => Err(refuse("value must be a number")),
            Some((value, _)) if !value.is_finite() => {
                Err(refuse("value must be finite and fit a 64-bit float"))
            }
            Some((value, _)) => Ok(value),
        }
    }

    fn time(&self, span: &Range<usize>) -> Result<i64, Problem> {
        let refuse = |why| Problem::new(Code::InvalidTimestamp, why);
        let time = &self.body[span.clone()];
        match time.first() {
            Some(b'"') => {
                timestamp::parse_rfc3339(&text(time)).ok_or_else(|| refuse("timestamp is not RFC 3339"))
            }
            Some(b'-' | b'0'..=b'9') => number::parse_integer(time, 0)
                .map(|(time, _)| time)
                .ok_or_else(|| refuse("timestamp must be a whole number of Unix milliseconds")),
            _ => Err(refuse("timestamp must be a whole number of Unix milliseconds or an RFC 3339 string")),
        }
    }

    /// Takes apart an object that the scanner has passed, or the empty text of an absent one.
    fn dimensions(&mut self, object: &[u8]) -> Result<Dimensions, Problem> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        match object.first() {
            None => {}
            Some(b'{') => read_pairs(object, &mut pairs)?,
            Some(_) => {
                return Err(Problem::new(Code::InvalidSample, "dimensions must be an object of strings"));
            }
        }
        let pairs = pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        Ok(self.resolver.dimensions(pairs, &self.rules.dimensions)?)
    }
}

pub(super) fn read_pairs<'a>(
    object: &'a [u8],
    pairs: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
) -> Result<(), Problem> {
    let mut scanner = Scanner::new(object, 0);
    let malformed = |error: SyntaxError| Problem::new(Code::InvalidSample, error.to_string());
    let mut more = scanner.open(b'}');
    while more {
        let key = text(&object[scanner.key().map_err(malformed)?]);
        if scanner.peek() != b'"' {
            let message = format!("the value of dimension {:?} must be a string", shortened(&key));
            return Err(Problem::new(Code::InvalidDimensionValue, message));
        }
        let value = text(&object[scanner.string().map_err(malformed)?]);
        pairs.push((key, value));
        more = scanner.next_member(b'}').map_err(malformed)?;
    }
    Ok(())
}

fn required<'a>(span: &'a Option<Range<usize>>, field: &str) -> Result<&'a Range<usize>, Problem> {
    span.as_ref().ok_or_else(|| Problem::new(Code::InvalidSample, format!("{field} is missing")))
}

/// Where `literal` ends, if it stands at `at`.
fn after(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(literal).then_some(at + literal.len())
}

/// Where the value after the key of `field` begins, if exactly that key stands at `at`.
fn quick_key(bytes: &[u8], at: usize, field: u8) -> Option<usize> {
    let end = match field {
        NAME => after(bytes, at, b"\"name\""),
        TIMESTAMP => after(bytes, at, b"\"timestamp\""),
        VALUE => after(bytes, at, b"\"value\""),
        _ => after(bytes, at, b"\"dimensions\""),
    }?;
    Some(skip_space(bytes, after(bytes, skip_space(bytes, end), b":")?))
}

/// A time, in milliseconds or RFC 3339 without escapes, and where it ends.
fn quick_time(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let Some(start) = after(bytes, at, b"\"") else { return number::parse_integer(bytes, at) };
    let end = start + memchr::memchr(b'"', &bytes[start..])?;
    let time = timestamp::parse_rfc3339(std::str::from_utf8(&bytes[start..end]).ok()?)?;
    Some((time, end + 1))
}

/// Where the fields of one element stand, and what is wrong with its shape.
#[derive(Default)]
struct Fields {
    name: Option<Range<usize>>,
    timestamp: Option<Range<usize>>,
    value: Option<Range<usize>>,
    dimensions: Option<Range<usize>>,
    problem: Option<Problem>,
}

impl Fields {
    /// Passes an element to its end, whatever is wrong with it but its syntax.
    fn scan(body: &[u8], scanner: &mut Scanner<'_>) -> Result<Self, SyntaxError> {
        let mut fields = Self::default();
        if scanner.peek() != b'{' {
            scanner.value(FIELD_DEPTH - 1)?;
            fields.problem =
                Some(Problem::new(Code::InvalidSample, "an element of metrics must be an object"));
            return Ok(fields);
        }
        let mut more = scanner.open(b'}');
        while more {
            let key = text(&body[scanner.key()?]);
            let span = scanner.value(FIELD_DEPTH)?;
            fields.put(&key, span);
            more = scanner.next_member(b'}')?;
        }
        Ok(fields)
    }

    fn put(&mut self, key: &str, span: Range<usize>) {
        let field = match key {
            "name" => &mut self.name,
            "timestamp" => &mut self.timestamp,
            "value" => &mut self.value,
            "dimensions" => &mut self.dimensions,
            _ => return self.refuse(Code::InvalidSample, format!("unknown field {:?}", shortened(key))),
        };
        if field.replace(span).is_some() {
            self.refuse(Code::InvalidSample, format!("{key} appears twice"));
        }
    }

    fn refuse(&mut self, code: Code, error: String) {
        self.problem.get_or_insert(Problem { code, error });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KnownSeries, NOW, rules};
    use super::*;

    fn decoded(body: &str) -> Result<Decoded, JsonError> {
        decode(body.as_bytes(), &rules(), &KnownSeries::none())
    }

    /// A sample without regard to how its series is referred to.
    type Sample = (String, Vec<(String, String)>, i64, u64);

    fn samples(decoded: &Decoded) -> Vec<Sample> {
        let batch = &decoded.batch;
        let row = |at: usize| {
            let RowSeries::New(series) = batch.series[at] else { panic!("a described series") };
            let series = &batch.new_series[series as usize];
            let dimensions =
                series.dimensions.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            (series.metric.to_string(), dimensions, batch.timestamps[at], batch.values[at].to_bits())
        };
        (0..batch.len()).map(row).collect()
    }

    #[test]
    fn the_example_of_the_contract_is_read() {
        let body = r#"{"metrics": [{"name": "api_latency", "timestamp": 1767225600000, "value": 145.5,
            "dimensions": {"customer_id": "acme", "endpoint": "/users"}}]}"#;
        let dimensions = vec![("customer_id".into(), "acme".into()), ("endpoint".into(), "/users".into())];
        let expected = vec![("api_latency".to_owned(), dimensions, 1_767_225_600_000, 145.5_f64.to_bits())];
        assert_eq!(samples(&decoded(body).unwrap()), expected);
    }

    #[test]
    fn fields_may_stand_in_any_order_and_be_absent() {
        let body = r#"{"metrics":[{"dimensions":{},"value":1,"name":"a"},{"value":-0.0,"timestamp":"2026-01-01T00:00:00.0019Z","name":"\u0061"}]}"#;
        let expected = vec![
            ("a".to_owned(), vec![], NOW, 1f64.to_bits()),
            ("a".to_owned(), vec![], NOW + 1, (-0f64).to_bits()),
        ];
        assert_eq!(samples(&decoded(body).unwrap()), expected);
        assert!(decoded(r#"{"metrics":[]}"#).unwrap().batch.is_empty());
    }

    #[test]
    fn a_bad_element_is_rejected_and_the_others_are_kept() {
        for (element, code, message) in [
            ("5", "INVALID_SAMPLE", "an element of metrics must be an object"),
            ("[[]]", "INVALID_SAMPLE", "an element of metrics must be an object"),
            (r#"{"name":"a","value":1,"tags":{}}"#, "INVALID_SAMPLE", r#"unknown field "tags""#),
            (r#"{"name":"a","value":1,"value":1}"#, "INVALID_SAMPLE", "value appears twice"),
            (r#"{"value":1}"#, "INVALID_SAMPLE", "name is missing"),
            (r#"{"name":"a"}"#, "INVALID_SAMPLE", "value is missing"),
            (r#"{"name":7,"value":1}"#, "INVALID_SAMPLE", "name must be a string"),
            (
                r#"{"name":"bad-name","value":1}"#,
                "INVALID_METRIC_NAME",
                "a metric name is 1 to 256 characters and matches ^[a-zA-Z_][a-zA-Z0-9_]*$",
            ),
            (r#"{"name":"a","value":"1"}"#, "INVALID_VALUE", "value must be a number"),
            (r#"{"name":"a","value":null}"#, "INVALID_VALUE", "value must be a number"),
            (r#"{"name":"a","value":1e999}"#, "INVALID_VALUE", "value must be finite and fit a 64-bit float"),
            (
                r#"{"name":"a","value":1,"timestamp":1.5}"#,
                "INVALID_TIMESTAMP",
                "timestamp must be a whole number of Unix milliseconds",
            ),
            (
                r#"{"name":"a","value":1,"timestamp":"today"}"#,
                "INVALID_TIMESTAMP",
                "timestamp is not RFC 3339",
            ),
            (
                r#"{"name":"a","value":1,"timestamp":null}"#,
                "INVALID_TIMESTAMP",
                "timestamp must be a whole number of Unix milliseconds or an RFC 3339 string",
            ),
            (
                r#"{"name":"a","value":1,"timestamp":0}"#,
                "TIMESTAMP_OUT_OF_RANGE",
                "timestamp 0 lies outside the accepted window 1766620800000 to 1767229200000",
            ),
            (
                r#"{"name":"a","value":1,"dimensions":[]}"#,
                "INVALID_SAMPLE",
                "dimensions must be an object of strings",
            ),
            (
                r#"{"name":"a","value":1,"dimensions":{"k":1}}"#,
                "INVALID_DIMENSION_VALUE",
                r#"the value of dimension "k" must be a string"#,
            ),
            (
                r#"{"name":"a","value":1,"dimensions":{"k":""}}"#,
                "INVALID_DIMENSION_VALUE",
                r#"the value of dimension "k" has 0 characters; 1 to 256 are allowed"#,
            ),
            (
                r#"{"name":"a","value":1,"dimensions":{"k-":"v"}}"#,
                "INVALID_DIMENSION_KEY",
                r#"dimension key "k-": a dimension key is 1 to 128 characters and matches ^[a-zA-Z_][a-zA-Z0-9_]*$"#,
            ),
            (
                r#"{"name":"a","value":1,"dimensions":{"_tenant_id":"v"}}"#,
                "INVALID_DIMENSION_KEY",
                r#"dimension key "_tenant_id": _tenant_id and keys beginning with __ are reserved"#,
            ),
            (
                r#"{"name":"a","value":1,"dimensions":{"k":"v","\u006b":"w"}}"#,
                "INVALID_DIMENSION_KEY",
                r#"dimension key "k" appears twice"#,
            ),
        ] {
            let body = format!(
                r#"{{"metrics":[{{"name":"good","value":1}},{element},{{"name":"good","value":2}}]}}"#
            );
            let decoded = decoded(&body).unwrap();
            assert_eq!((decoded.batch.len(), decoded.batch.new_series.len()), (2, 1), "{element}");
            let [error] = decoded.rejections.listed() else { panic!("one error: {element}") };
            assert_eq!(serde_json::to_value(error.code).unwrap(), code, "{element}");
            assert_eq!((error.index, error.error.as_str()), (1, message), "{element}");
        }
    }

    #[test]
    fn twenty_dimensions_are_allowed_and_one_more_is_not() {
        let body = |count: usize| {
            let pairs: Vec<String> = (0..count).map(|n| format!(r#""k{n}":"v""#)).collect();
            format!(r#"{{"metrics":[{{"name":"a","value":1,"dimensions":{{{}}}}}]}}"#, pairs.join(","))
        };
        assert_eq!(decoded(&body(20)).unwrap().batch.len(), 1);
        assert_eq!(decoded(&body(21)).unwrap().rejections.listed()[0].code, Code::TooManyDimensions);
    }

    #[test]
    fn the_window_includes_both_ends() {
        let rules = rules();
        for (time, accepted) in [
            (NOW - rules.max_age, true),
            (NOW - rules.max_age - 1, false),
            (NOW + rules.max_future, true),
            (NOW + rules.max_future + 1, false),
        ] {
            let body = format!(r#"{{"metrics":[{{"name":"a","value":1,"timestamp":{time}}}]}}"#);
            assert_eq!(decoded(&body).unwrap().batch.len() == 1, accepted, "{time}");
        }
    }

    #[test]
    fn a_body_of_another_shape_is_refused() {
        for (body, message) in [
            ("[]", "the body must be an object with the field metrics"),
            ("{}", "the field metrics is missing"),
            (r#"{"metrics":{}}"#, "the field metrics must be an array"),
            (r#"{"metrics":[],"metrics":[]}"#, "the field metrics appears twice"),
            (r#"{"metric":[]}"#, r#"unknown field "metric"; only metrics is allowed"#),
            ("", "the body is not valid JSON: the text ends too early at byte 0"),
            (
                r#"{"metrics":[]} x"#,
                "the body is not valid JSON: something follows the end of the document at byte 15",
            ),
            (
                r#"{"metrics":[{"name":"a","value":NaN}]}"#,
                "the body is not valid JSON: NaN and Infinity are not JSON at byte 32",
            ),
            (
                r#"{"metrics":[{"name":"a","value":1},]}"#,
                "the body is not valid JSON: expected a value at byte 35",
            ),
        ] {
            assert_eq!(decoded(body).unwrap_err().to_string(), message, "{body}");
        }
    }

    #[test]
    fn one_element_too_many_refuses_the_body() {
        let rules = Rules { max_batch: 2, ..rules() };
        let body =
            |count| format!(r#"{{"metrics":[{}]}}"#, vec![r#"{"name":"a","value":1}"#; count].join(","));
        assert_eq!(decode(body(2).as_bytes(), &rules, &KnownSeries::none()).unwrap().batch.len(), 2);
        let refused = decode(body(3).as_bytes(), &rules, &KnownSeries::none());
        assert_eq!(refused.unwrap_err(), JsonError::TooMany { max: 2 });
    }

    #[test]
    fn a_known_spelling_is_found_wherever_its_object_ends() {
        let mut known = KnownSeries::none();
        for body in [
            r#"{"metrics":[{"name":"a","dimensions":{"k":"plain"},"value":1}]}"#,
            r#"{"metrics":[{"name":"a","dimensions":{"k":"}"},"value":1}]}"#,
            r#"{"metrics":[{"name":"a","dimensions":{"k":"\"}{"},"value":1}]}"#,
            r#"{"metrics":[{"name":"a","value":1}]}"#,
        ] {
            let new = decode(body.as_bytes(), &rules(), &known).unwrap();
            assert_eq!(new.batch.new_series.len(), 1, "{body}");
            known.learn(&new);
            let again = decode(body.as_bytes(), &rules(), &known).unwrap();
            assert!(again.batch.new_series.is_empty() && again.batch.len() == 1, "{body}");
        }
    }

    #[test]
    fn a_series_is_described_once_in_a_batch() {
        let element = r#"{"name":"a","dimensions":{"k":"}"},"value":1}"#;
        let body = format!(r#"{{"metrics":[{element},{element},{element}]}}"#);
        let decoded = decoded(&body).unwrap();
        assert_eq!((decoded.batch.len(), decoded.batch.new_series.len()), (3, 1));
    }

    /// The plain reading of a body by serde_json's tree; `None` where the body is to be refused.
    fn oracle(body: &[u8]) -> Option<(Vec<Sample>, u64)> {
        let tree: serde_json::Value = serde_json::from_slice(body).ok()?;
        let object = tree.as_object()?;
        let elements = object.get("metrics")?.as_array()?;
        if object.len() != 1 {
            return None;
        }
        let good: Vec<Sample> = elements.iter().filter_map(oracle_sample).collect();
        let rejected = (elements.len() - good.len()) as u64;
        Some((good, rejected))
    }

    fn oracle_sample(element: &serde_json::Value) -> Option<Sample> {
        let object = element.as_object()?;
        if object.keys().any(|key| !["name", "timestamp", "value", "dimensions"].contains(&key.as_str())) {
            return None;
        }
        let metric = MetricName::new(object.get("name")?.as_str()?).ok()?.to_string();
        let value = object.get("value")?.as_number()?.as_f64()?;
        let time = match object.get("timestamp") {
            None => NOW,
            Some(serde_json::Value::String(time)) => timestamp::parse_rfc3339(time)?,
            Some(time) => time.as_i64()?,
        };
        let empty = serde_json::Map::new();
        let pairs = match object.get("dimensions") {
            None => &empty,
            Some(pairs) => pairs.as_object()?,
        };
        let pairs: Option<Vec<(&str, &str)>> =
            pairs.iter().map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
        let dimensions = Dimensions::new(pairs?, &rules().dimensions).ok()?;
        let dimensions = dimensions.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        rules().accepts(time).then_some((metric, dimensions, time, value.to_bits()))
    }

    const SEED: &str = r#"{"metrics":[{"name":"cpu","timestamp":1767225600123,"value":1.25,"dimensions":{"host":"a","dc":"x}y"}},
 { "dimensions" : { "k" : "\u00e4\\\"" } , "value" : -3e2 , "name" : "m" },{"name":"cpu","value":0,"timestamp":"2026-01-01T00:00:00Z"},
{"name":"bad name","value":1},{"name":"cpu","timestamp":1767225600123,"value":1.25,"dimensions":{"host":"a","dc":"x}y"}}]}"#;

    /// Compares with the oracle, first with nothing known, then with everything known that the seed spells.
    fn compare(body: &[u8], known: &KnownSeries) {
        let shown = String::from_utf8_lossy(body);
        let plain = decode(body, &rules(), &KnownSeries::none());
        match (&plain, oracle(body)) {
            // Keys that appear twice are refused, but vanish in a tree.
            (Ok(decoded), Some(_))
                if decoded.rejections.listed().iter().any(|error| error.error.contains("twice")) => {}
            (Ok(decoded), Some((good, rejected))) => {
                assert_eq!((samples(decoded), decoded.rejections.total()), (good, rejected), "{shown}");
            }
            (Err(_), None) => {}
            // Numbers that overflow are valid JSON, though no tree holds them.
            (Ok(decoded), None) if decoded.rejections.total() > 0 => {}
            (plain, oracle) => panic!("{plain:?} against {oracle:?}: {shown}"),
        }
        let quick = decode(body, &rules(), known);
        match (plain, quick) {
            (Ok(plain), Ok(quick)) => {
                assert_eq!(plain.rejections, quick.rejections, "{shown}");
                assert_eq!(
                    (&plain.batch.timestamps, &plain.batch.values),
                    (&quick.batch.timestamps, &quick.batch.values),
                    "{shown}"
                );
            }
            (plain, quick) => assert_eq!(plain.err(), quick.err(), "{shown}"),
        }
    }

    #[test]
    fn truncated_at_every_byte_it_agrees_with_a_tree() {
        let mut known = KnownSeries::none();
        known.learn(&decoded(SEED).unwrap());
        for cut in 0..=SEED.len() {
            compare(&SEED.as_bytes()[..cut], &known);
        }
    }

    #[test]
    fn mutated_at_random_it_agrees_with_a_tree() {
        let mut known = KnownSeries::none();
        known.learn(&decoded(SEED).unwrap());
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let mut body = SEED.as_bytes().to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                match random.u8(..4) {
                    0 => body[at] = random.u8(..),
                    1 => drop(body.remove(at)),
                    2 => body.insert(at, *random.choice(b"\"\\{}[]:,01.eE+- atnv\x1f\xc3").unwrap()),
                    _ => {
                        let end = random.usize(at..body.len().min(at + 60));
                        let copied = body[at..end].to_vec();
                        let to = random.usize(..body.len());
                        body.splice(to..to, copied);
                    }
                }
            }
            compare(&body, &known);
        }
    }
}
