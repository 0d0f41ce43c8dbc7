//! The text in which Prometheus' targets show their metrics, and OpenMetrics: `up{job="node"} 1 1767225600000`.
//!
//! A series is spelled by its name and labels as they stand there; only an unknown spelling is taken apart. `:` in a
//! name becomes `_`, labels without a value don't exist, NaN and infinities are left out and counted, all as in
//! remote write. Exemplars are passed over.
//!
//! Grammar: Prometheus' "Exposition formats" (text 0.0.4) and OpenMetrics 1.0.

use std::borrow::Cow;
use std::sync::Arc;

use luminate_storage::model::{MetricName, RowSeries};
use luminate_storage::store::SeriesLookup;
use memchr::{memchr, memchr2};

use super::{Decoded, Problem, Resolver, Rules, TooManySamples, number, shortened};
use crate::error::Code;

/// What a spelling of this format begins with: no other's begins so.
const TAG: u8 = 0x02;
const MILLIS: f64 = 1_000.0;

/// What a sample's time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Whole milliseconds.
    Prometheus,
    /// Seconds, with a fraction.
    OpenMetrics,
}

/// Decodes a text, already uncompressed.
///
/// # Errors
/// There are too many samples. Refused lines are no error: they are counted.
pub fn decode(
    body: &[u8],
    dialect: Dialect,
    rules: &Rules,
    lookup: &dyn SeriesLookup,
) -> Result<Decoded, TooManySamples> {
    let mut decoder = Decoder {
        dialect,
        rules,
        resolver: Resolver::new(lookup),
        decoded: Decoded::new(rules.series),
        spelled: vec![TAG],
    };
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        if decoder.decoded.next_index() as usize >= rules.max_batch {
            return Err(TooManySamples { max: rules.max_batch });
        }
        decoder.line(line, number + 1);
    }
    Ok(decoder.decoded)
}

struct Decoder<'a> {
    dialect: Dialect,
    rules: &'a Rules,
    resolver: Resolver<'a>,
    decoded: Decoded,
    /// The spelling at hand, with its tag.
    spelled: Vec<u8>,
}

impl Decoder<'_> {
    fn line(&mut self, line: &[u8], number: usize) {
        let refusal = |what: &str| Problem::new(Code::InvalidSample, format!("line {number}: {what}"));
        let (spelled, rest) = match series_end(line) {
            Ok(end) => line.split_at(end),
            Err(what) => return self.decoded.reject(None, &refusal(what)),
        };
        let sample = match self.sample(rest) {
            Ok(sample) => sample,
            Err(what) => return self.decoded.reject(metric_as_sent(spelled), &refusal(what)),
        };
        let (value, time) = sample;
        if !value.is_finite() {
            return self.decoded.drop_sample();
        }
        if !self.rules.accepts(time) {
            return self.decoded.reject(metric_as_sent(spelled), &self.rules.outside(time));
        }
        match self.series(spelled) {
            Ok(series) => self.decoded.batch.push(series, time, value),
            Err(problem) => self.decoded.reject(metric_as_sent(spelled), &problem),
        }
    }

    /// Value and time.
    fn sample(&self, rest: &[u8]) -> Result<(f64, i64), &'static str> {
        let mut words = rest.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let value = words.next().ok_or("there is no value")?;
        let value = read_value(value).ok_or("the value is no number")?;
        let time = match words.next() {
            None | Some(b"#") => return Ok((value, self.rules.now)),
            Some(time) => self.time(time).ok_or("the timestamp is no number")?,
        };
        match words.next() {
            None | Some(b"#") => Ok((value, time)),
            Some(_) => Err("something follows the timestamp"),
        }
    }

    fn time(&self, word: &[u8]) -> Option<i64> {
        match self.dialect {
            Dialect::Prometheus => std::str::from_utf8(word).ok()?.parse().ok(),
            Dialect::OpenMetrics => {
                let millis = read_value(word)? * MILLIS;
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "clamped to an i64, and out of any window there"
                )]
                millis.is_finite().then(|| millis.round() as i64)
            }
        }
    }

    fn series(&mut self, spelled: &[u8]) -> Result<RowSeries, Problem> {
        self.spelled.truncate(1);
        self.spelled.extend_from_slice(spelled);
        let spelling = self.resolver.hash(&self.spelled);
        if let Some(series) = self.resolver.find(spelling) {
            return Ok(series);
        }
        let Named { metric, labels } = read_series(spelled)?;
        let pairs = labels.iter().filter(|(_, value)| !value.is_empty());
        let pairs = pairs.map(|(key, value)| (*key, value.as_ref()));
        let dimensions = self.resolver.dimensions(pairs, &self.rules.dimensions)?;
        let metric = MetricName::new(&metric.replace(':', "_"))?;
        Ok(self.resolver.describe(&mut self.decoded.batch, metric, dimensions, spelling))
    }
}

/// Where name and labels end.
fn series_end(line: &[u8]) -> Result<usize, &'static str> {
    let Some(mut at) = line.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t')) else {
        return Err("there is no value");
    };
    // White space may stand between a name and its labels.
    let labels = at + line[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    if line.get(labels) != Some(&b'{') {
        return Ok(at);
    }
    at = labels + 1;
    loop {
        match memchr2(b'}', b'"', &line[at..]) {
            None => return Err("the labels have no end"),
            Some(found) if line[at + found] == b'}' => return Ok(at + found + 1),
            Some(found) => at = string_end(line, at + found + 1).ok_or("a label's value has no end")?,
        }
    }
}

/// Behind the quotation mark that ends the string which begins at `at`.
fn string_end(line: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', line.get(at..)?)?;
        if line[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

pub(super) fn read_value(word: &[u8]) -> Option<f64> {
    if let Some((value, end)) = number::parse(word, 0)
        && end == word.len()
    {
        return Some(value);
    }
    let number = !word.iter().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E'));
    let named = ["nan", "+inf", "-inf", "inf", "+infinity", "-infinity", "infinity"];
    let named = named.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    if number || named { fast_float2::parse(word).ok() } else { None }
}

/// A series' name and labels.
struct Named<'a> {
    metric: Cow<'a, str>,
    labels: Vec<(&'a str, Cow<'a, str>)>,
}

/// Takes apart what [`series_end`] has found the end of.
fn read_series(spelled: &[u8]) -> Result<Named<'_>, Problem> {
    let wrong = |what: &str| Problem::new(Code::InvalidSample, what);
    let text = std::str::from_utf8(spelled).map_err(|_| wrong("name or labels are not UTF-8"))?;
    let Some((name, labels)) = text.split_once('{') else {
        return Ok(Named { metric: text.into(), labels: Vec::new() });
    };
    let mut named = Named { metric: name.trim().into(), labels: Vec::new() };
    let mut rest = labels.strip_suffix('}').unwrap_or(labels).trim();
    while !rest.is_empty() {
        let (key, after) = match rest.strip_prefix('"') {
            // As Prometheus 3 writes a name that isn't plain.
            Some(quoted) => quoted.split_once('"').ok_or_else(|| wrong("a quoted name has no end"))?,
            None => rest.split_at(rest.find(['=', ',']).unwrap_or(rest.len())),
        };
        let (key, after) = (key.trim(), after.trim_start());
        if let Some(value) = after.strip_prefix('=') {
            let value =
                value.trim_start().strip_prefix('"').ok_or_else(|| wrong("a label's value has no quotes"))?;
            let end = string_end(value.as_bytes(), 0).ok_or_else(|| wrong("a label's value has no end"))?;
            named.labels.push((key, unescaped(&value[..end - 1])));
            rest = value[end..].trim_start();
        } else if named.metric.is_empty() && rest.starts_with('"') {
            named.metric = key.into();
            rest = after;
        } else {
            return Err(wrong("a label has no value"));
        }
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(wrong("labels must be separated by commas")),
        };
    }
    Ok(named)
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(meant @ ('\\' | '"')) => plain.push(meant),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            char => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

/// The metric of a refused sample, for the answer.
fn metric_as_sent(spelled: &[u8]) -> Option<Arc<str>> {
    let name = spelled.split(|byte| *byte == b'{').next()?;
    let name = String::from_utf8_lossy(name.trim_ascii());
    (!name.is_empty()).then(|| Arc::from(shortened(&name)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KnownSeries, NOW, errors, rows, rules};
    use super::*;

    fn decoded(body: &str) -> Decoded {
        decode(body.as_bytes(), Dialect::Prometheus, &rules(), &KnownSeries::none()).unwrap()
    }

    #[test]
    fn what_targets_show_is_read() {
        let decoded = decoded(&format!(
            "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
             http_requests_total{{method=\"post\",code=\"200\"}} 1027 {NOW}\n\
             http_requests_total{{ method = \"post\" , code=\"400\", }}    3 {NOW}\n\n\
             job:rate:5m 1.5e-3\r\n\
             path{{p=\"C:\\\\DIR\\\\}}\\\"x\\\"\\n\",empty=\"\"}} 2\n\
             quantile{{quantile=\"0.5\"}} NaN\n\
             bucket {{le=\"+Inf\"}} +Inf\n"
        ));
        assert_eq!(
            rows(&decoded),
            [
                "http_requests_total{code=200,method=post} 0 1027",
                "http_requests_total{code=400,method=post} 0 3",
                "job_rate_5m{} 0 0.0015",
                "path{p=C:\\DIR\\}\"x\"\n} 0 2",
            ]
        );
        assert_eq!((decoded.dropped, decoded.rejections.total()), (2, 0));
    }

    #[test]
    fn openmetrics_counts_seconds_and_has_exemplars() {
        let body = "foo_bucket{le=\"0.1\"} 8 1767225600.25 # {trace_id=\"a\"} 0.067 1767225600.0\n\
                    foo_count 9 # {trace_id=\"b\"} 0.5\nfoo 1 1767225600\n# EOF\n";
        let decoded = decode(body.as_bytes(), Dialect::OpenMetrics, &rules(), &KnownSeries::none()).unwrap();
        assert_eq!(rows(&decoded), ["foo_bucket{le=0.1} 250 8", "foo_count{} 0 9", "foo{} 0 1"]);
    }

    #[test]
    fn names_in_quotes_are_judged_as_others() {
        assert_eq!(rows(&decoded("{\"up\",\"job\"=\"a\"} 1")), ["up{job=a} 0 1"]);
        assert!(errors(&decoded("{\"my.up\",job=\"a\"} 1"))[0].starts_with("0 InvalidMetricName"));
        assert!(errors(&decoded("up{\"my.job\"=\"a\"} 1"))[0].starts_with("0 InvalidDimensionKey"));
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_and_holds_up_no_other() {
        for (bad, what) in [
            ("up", "InvalidSample: line 2: there is no value"),
            ("up{a=\"b\"}", "InvalidSample: line 2: there is no value"),
            ("up{a=\"b\" 1", "InvalidSample: line 2: the labels have no end"),
            ("up{a=\"b} 1", "InvalidSample: line 2: a label's value has no end"),
            ("up x", "InvalidSample: line 2: the value is no number"),
            ("up 0x1", "InvalidSample: line 2: the value is no number"),
            ("up 1 x", "InvalidSample: line 2: the timestamp is no number"),
            ("up 1 1.5", "InvalidSample: line 2: the timestamp is no number"),
            ("up 1 1767225600000 1", "InvalidSample: line 2: something follows the timestamp"),
            ("up{a=b} 1", "InvalidSample: a label's value has no quotes"),
            ("up{a} 1", "InvalidSample: a label has no value"),
            ("up{a=\"b\"c=\"d\"} 1", "InvalidSample: labels must be separated by commas"),
            ("up{a=\"b\",a=\"c\"} 1", "InvalidDimensionKey: "),
            ("up{__x=\"b\"} 1", "InvalidDimensionKey: "),
            ("{a=\"b\"} 1", "InvalidMetricName: "),
            ("up 1 5", "TimestampOutOfRange: "),
        ] {
            let decoded = decoded(&format!("good 1\n{bad}\ngood 2"));
            assert_eq!(decoded.batch.values, [1.0, 2.0], "{bad}");
            let errors = errors(&decoded);
            assert_eq!(errors.len(), 1, "{bad}");
            assert!(errors[0].starts_with(&format!("1 {what}")), "{bad}: {errors:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let body = b"up{a=\"\xff\"} 1\nup\xff 1\nup 1\xff\nup 1";
        let decoded = decode(body, Dialect::Prometheus, &rules(), &KnownSeries::none()).unwrap();
        assert_eq!((decoded.batch.len(), decoded.rejections.total()), (1, 3));
    }

    #[test]
    fn known_series_are_found_and_each_new_one_is_described_once() {
        let body = "m{a=\"b\"} 1\nm{a=\"b\"} 2\nm 3";
        let mut known = KnownSeries::none();
        let first = decoded(body);
        assert_eq!((first.batch.len(), first.batch.new_series.len()), (3, 2));
        known.learn(&first);
        let second = decode(body.as_bytes(), Dialect::Prometheus, &rules(), &known).unwrap();
        assert_eq!((second.batch.len(), second.batch.new_series.len()), (3, 0));
        assert_eq!(second.batch.series[0], second.batch.series[1]);
        assert_ne!(second.batch.series[0], second.batch.series[2]);
    }

    #[test]
    fn one_sample_too_many_refuses_the_request() {
        let rules = Rules { max_batch: 2, ..rules() };
        let read = |body: &str| decode(body.as_bytes(), Dialect::Prometheus, &rules, &KnownSeries::none());
        assert_eq!(read("# a\nup 1\n\nup 2\n# EOF\n").unwrap().batch.len(), 2);
        assert_eq!(read("up 1\nup 2\nup 3").unwrap_err(), TooManySamples { max: 2 });
    }

    #[test]
    fn whatever_was_written_is_read() {
        let mut random = fastrand::Rng::with_seed(9);
        let letters = ["a", "b", ",", "=", " ", "\\", "\"", "é", "#", "{", "}", "\n"];
        for _ in 0..2_000 {
            let mut word = || -> String {
                (0..random.usize(1..6)).map(|_| letters[random.usize(..letters.len())]).collect()
            };
            let (one, other) = (word(), word());
            let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let number = random.f64() * 1e6 - 5e5;
            let body = format!("m{{k=\"{}\",l=\"{}\"}} {number} {NOW}", escaped(&one), escaped(&other));
            assert_eq!(rows(&decoded(&body)), [format!("m{{k={one},l={other}}} 0 {number}")], "{body}");
        }
    }

    #[test]
    fn whatever_comes_loses_no_line_and_panics_nowhere() {
        let good = format!("a{{b=\"c\",d=\"e\\\"\"}} 1.5 {NOW}\nup 7\n{{\"f\",g=\"h\"}} 2 # {{}} 1\n");
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut body = good.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                body[at] = [b',', b'=', b' ', b'\n', b'"', b'\\', b'{', b'}', b'#', 0xFF][random.usize(..10)];
            }
            let cut = random.usize(..=body.len());
            let dialect = [Dialect::Prometheus, Dialect::OpenMetrics][random.usize(..2)];
            let decoded = decode(&body[..cut], dialect, &rules(), &KnownSeries::none()).unwrap();
            let places = decoded.batch.len() as u64 + decoded.rejections.total() + decoded.dropped;
            assert_eq!(places, u64::from(decoded.next_index()));
            assert!(decoded.batch.values.iter().all(|value| value.is_finite()));
        }
    }
}
