//! How requests are spelled: in all the ways that the API allows, drawn at random.
//!
//! Most of the time they are spelled plainly, as a program would, so that a worker meets spellings of series
//! that it has seen before.

use std::io::Write;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::Offset;
use luminate_crds::worker_config::Span;
use luminate_storage::model::{
    Aggregation, DimensionKey, NewSeries, Query, Selector, TimeRange, rate_interval,
};

use crate::remote_write::{self, TimeSeries, v2};

/// A sample to write.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Whose.
    pub series: &'a NewSeries,
    /// Unix milliseconds.
    pub time: i64,
    /// The value.
    pub value: f64,
}

/// JSON in one of its spellings.
#[derive(Debug)]
pub struct Speller<'a> {
    random: &'a mut Rng,
    /// When the request is received.
    now: i64,
    /// Fields and dimensions in any order.
    shuffled: bool,
    /// White space between tokens.
    spaced: bool,
    /// Characters as escapes.
    escaped: bool,
    /// Numbers with exponents or all their digits.
    odd_numbers: bool,
    /// Times as RFC 3339, or left out where they are `now`.
    odd_times: bool,
}

impl<'a> Speller<'a> {
    /// One that spells plainly two times of three.
    pub fn new(random: &'a mut Rng, now: i64) -> Self {
        let odd = random.u8(..3) == 0;
        let mut some = || odd && random.bool();
        let (shuffled, spaced, escaped) = (some(), some(), some());
        let (odd_numbers, odd_times) = (some(), some());
        Self { random, now, shuffled, spaced, escaped, odd_numbers, odd_times }
    }

    /// The body of a write.
    pub fn samples(&mut self, rows: &[Row<'_>]) -> String {
        let samples = rows.iter().map(|row| self.sample(row)).collect();
        let samples = self.array(samples);
        self.object(vec![("metrics", samples)])
    }

    fn sample(&mut self, row: &Row<'_>) -> String {
        let mut fields = vec![("name", self.text(row.series.metric.as_str()))];
        if !(self.odd_times && row.time == self.now) {
            fields.push(("timestamp", self.time(row.time)));
        }
        fields.push(("value", self.number(row.value)));
        let dimensions = &row.series.dimensions;
        if !dimensions.is_empty() || !self.shuffled {
            let pairs = dimensions.iter().map(|(key, value)| (key.as_str(), self.text(value))).collect();
            fields.push(("dimensions", self.object(pairs)));
        }
        self.object(fields)
    }

    /// The body of a query that may take `timeout` milliseconds, whose rows are to come as series or one by one.
    pub fn query(&mut self, query: &Query, timeout: u64, in_series: bool) -> String {
        let (selector, range) = (query.selector(), query.range());
        let mut fields = vec![("metricName", self.text(selector.metric.as_str()))];
        fields.push(("timeRange", self.range(&range)));
        fields.push(("timeout", format!("\"{timeout}ms\"")));
        if in_series || self.shuffled {
            fields.push(("layout", self.text(if in_series { "series" } else { "rows" })));
        }
        self.filters(selector, &mut fields);
        let bounds: Vec<_> =
            query.having().bounds().map(|(name, _, bound)| (name, self.number(bound))).collect();
        if !bounds.is_empty() {
            fields.push(("having", self.object(bounds)));
        }
        let limit = match query {
            Query::Range(query) => {
                fields.push(("queryType", self.text("range")));
                query.limit
            }
            Query::Aggregate(query) => {
                fields.push(("queryType", self.text("aggregate")));
                fields.push(("aggregation", self.text(query.aggregation.name())));
                // Other aggregations have no segments; the API refuses to be told how long they may be.
                let max_gap = query.max_gap.filter(|_| query.aggregation == Aggregation::Integral);
                fields.extend(max_gap.map(|gap| ("maxGap", self.duration(gap))));
                fields.extend(query.interval.map(|interval| ("interval", self.duration(interval))));
                self.group_by(&query.group_by, &mut fields);
                query.limit
            }
            Query::Rate(query) => {
                fields.push(("queryType", self.text("rate")));
                if query.interval != rate_interval(&range) || self.random.bool() {
                    fields.push(("interval", self.duration(query.interval)));
                }
                self.group_by(&query.group_by, &mut fields);
                query.limit
            }
        };
        fields.push(("limit", limit.min(super::PLENTY as usize).to_string()));
        self.object(fields)
    }

    fn filters(&mut self, selector: &Selector, fields: &mut Vec<(&str, String)>) {
        if !selector.filters.is_empty() || self.random.bool() {
            let pairs =
                selector.filters.iter().map(|(key, value)| (key.as_str(), self.text(value))).collect();
            fields.push(("filters", self.object(pairs)));
        }
        if !selector.filters_in.is_empty() || self.random.u8(..8) == 0 {
            let lists = selector.filters_in.iter().map(|(key, values)| (key.as_str(), self.list(values)));
            let lists = lists.collect();
            fields.push(("filtersIn", self.object(lists)));
        }
    }

    fn list(&mut self, values: &[String]) -> String {
        let texts = values.iter().map(|value| self.text(value)).collect();
        self.array(texts)
    }

    fn group_by(&mut self, keys: &[DimensionKey], fields: &mut Vec<(&str, String)>) {
        if keys.is_empty() && self.random.bool() {
            return;
        }
        let keys = keys.iter().map(|key| self.text(key.as_str())).collect();
        fields.push(("groupBy", self.array(keys)));
    }

    fn range(&mut self, range: &TimeRange) -> String {
        let span = self.now - range.start();
        if range.end() == self.now + 1 && span > 0 && self.random.bool() {
            let relative = self.duration(span);
            return self.object(vec![("relative", relative)]);
        }
        let (start, end) = (self.time(range.start()), self.time(range.end()));
        self.object(vec![("start", start), ("end", end)])
    }

    fn duration(&mut self, millis: i64) -> String {
        let millis = millis.unsigned_abs();
        if self.odd_times { format!("\"{millis}ms\"") } else { format!("\"{}\"", Span::from_millis(millis)) }
    }

    fn time(&mut self, millis: i64) -> String {
        if self.odd_times && self.random.bool() {
            format!("\"{}\"", rfc3339(self.random, millis))
        } else {
            millis.to_string()
        }
    }

    fn number(&mut self, value: f64) -> String {
        match self.random.u8(..3) {
            0 if self.odd_numbers => format!("{value:e}"),
            1 if self.odd_numbers => format!("{value}"),
            _ => serde_json::to_string(&value).expect("a finite number"),
        }
    }

    fn text(&mut self, text: &str) -> String {
        let quoted = serde_json::to_string(text).expect("a text");
        if !self.escaped {
            return quoted;
        }
        let mut out = String::from("\"");
        for character in text.chars() {
            if self.random.bool() || character.is_control() || matches!(character, '"' | '\\') {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                out.push(character);
            }
        }
        out + "\""
    }

    fn array(&mut self, items: Vec<String>) -> String {
        let (space, between) = (self.space(), self.space());
        format!("[{space}{}{space}]", items.join(&format!(",{between}")))
    }

    fn object(&mut self, mut fields: Vec<(&str, String)>) -> String {
        if self.shuffled {
            self.random.shuffle(&mut fields);
        }
        let (space, between) = (self.space(), self.space());
        let fields = fields.iter().map(|(name, value)| format!("\"{name}\":{between}{value}"));
        format!("{{{space}{}{space}}}", fields.collect::<Vec<_>>().join(&format!("{between},{space}")))
    }

    fn space(&mut self) -> &'static str {
        if self.spaced { self.random.choice(["", " ", "\n\t", "\r\n  "]).expect("some") } else { "" }
    }
}

/// A time as RFC 3339, in some zone, maybe with digits finer than a millisecond, which are cut off.
fn rfc3339(random: &mut Rng, millis: i64) -> String {
    let nanos = if random.bool() { random.i128(0..1_000_000) } else { 0 };
    let time = Timestamp::from_nanosecond(i128::from(millis) * 1_000_000 + nanos);
    let time = time.expect("a time within a few centuries");
    if random.bool() {
        return time.to_string();
    }
    let offset = Offset::from_seconds(random.i32(-14..=14) * 3_600 + random.i32(0..4) * 900);
    time.display_with_offset(offset.expect("less than a day")).to_string()
}

/// A time as a parameter: Unix milliseconds or RFC 3339.
pub fn parameter_time(random: &mut Rng, millis: i64) -> String {
    if random.bool() { rfc3339(random, millis) } else { millis.to_string() }
}

/// A remote write of either version.
pub struct RemoteWrite {
    /// What says which version it is.
    pub headers: [(&'static str, &'static str); 3],
    /// As it goes over the wire.
    pub body: Vec<u8>,
    /// Which row each sample in it is: none for those that the worker drops.
    pub places: Vec<Option<usize>>,
}

/// Rows as a remote write.
pub fn remote_write(random: &mut Rng, rows: &[Row<'_>]) -> RemoteWrite {
    let odd = random.u8(..3) == 0;
    let (mut message, mut places) = (Vec::<TimeSeries>::new(), Vec::new());
    let runs = rows.chunk_by(|left, right| std::ptr::eq(left.series, right.series));
    for run in runs {
        let metric = run[0].series.metric.as_str();
        // A recording rule's name, which becomes the same metric.
        let name = if odd && random.bool() { metric.replace('_', ":") } else { metric.to_owned() };
        let dimensions = run[0].series.dimensions.iter();
        let mut labels: Vec<_> = dimensions.map(|(key, value)| (key.as_str(), value.as_ref())).collect();
        if odd && random.bool() {
            labels.push(("empty", ""));
        }
        let mut samples = Vec::new();
        for row in run {
            if odd && random.u8(..8) == 0 {
                samples.push((row.time, f64::from_bits(remote_write::STALE)));
                places.push(None);
            }
            samples.push((row.time, row.value));
            places.push(Some(places.iter().flatten().count()));
        }
        message.push(remote_write::series(&name, &labels, &samples));
    }
    if random.bool() {
        let body = v2::body(&v2::request(&message));
        return RemoteWrite { headers: v2::HEADERS, body, places };
    }
    RemoteWrite { headers: remote_write::HEADERS, body: remote_write::body(message), places }
}

/// A body, and the name of its encoding if it has one.
pub fn encoded(random: &mut Rng, body: Vec<u8>) -> (Option<&'static str>, Vec<u8>) {
    match random.u8(..8) {
        0 => (Some("gzip"), gzip(&body)),
        1 => (Some("zstd"), zstd::encode_all(body.as_slice(), 3).expect("memory takes it")),
        2 => (Some("snappy"), remote_write::compressed(&body)),
        3 => (Some("snappy"), framed(&body)),
        4 => (Some("identity"), body),
        _ => (None, body),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(body).expect("memory takes it");
    encoder.into_inner().expect("memory takes it")
}

#[cfg(test)]
mod tests {
    use luminate_storage::model::{DimensionLimits, Dimensions, MetricName};
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_spelling_says_the_same() {
        let pairs = [("k", "é \"\\\u{1F980}\n"), ("z", "1")];
        let dimensions = Dimensions::new(pairs, &DimensionLimits::default()).unwrap();
        let series = NewSeries { metric: MetricName::new("m_").unwrap(), dimensions, spelling: None };
        let row = Row { series: &series, time: 1_767_225_600_123, value: -0.1 };
        let mut spellings = std::collections::HashSet::new();
        for seed in 0..200 {
            let mut random = Rng::with_seed(seed);
            let text = Speller::new(&mut random, 0).samples(&[row]);
            let read: Value = serde_json::from_str(&text).unwrap();
            let sample = &read["metrics"][0];
            assert_eq!((sample["name"].as_str(), sample["value"].as_f64()), (Some("m_"), Some(-0.1)));
            let time = match &sample["timestamp"] {
                Value::String(text) => {
                    text.parse::<Timestamp>().unwrap().as_nanosecond().div_euclid(1_000_000)
                }
                number => i128::from(number.as_i64().unwrap()),
            };
            assert_eq!(time, 1_767_225_600_123);
            assert!(pairs.iter().all(|(key, value)| sample["dimensions"][key] == *value), "{text}");
            spellings.insert(text);
        }
        assert!(spellings.len() > 20, "{}", spellings.len());
    }

    #[test]
    fn places_of_a_remote_write_name_their_rows() {
        let series = NewSeries {
            metric: MetricName::new("m").unwrap(),
            dimensions: Dimensions::default(),
            spelling: None,
        };
        let rows: Vec<_> = (0..100).map(|time| Row { series: &series, time, value: 1.0 }).collect();
        let longest =
            (0..20).map(|seed| remote_write(&mut Rng::with_seed(seed), &rows).places).max_by_key(Vec::len);
        let places = longest.unwrap();
        assert!(places.len() > 100);
        assert_eq!(places.into_iter().flatten().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}
