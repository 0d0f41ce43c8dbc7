//! Fifteen questions, named and shaped as those of the Time Series Benchmark Suite for a fleet's processors, in each
//! engine's own words.
//!
//! Samples lie between the edges of all windows, so that it means the same whether these are open or closed. Luminate and
//! VictoriaMetrics are asked once: since a query of Luminate's names one metric, one about several is a batch with a query
//! for each. Prometheus is asked per metric, by requests that are under way at once: it drops a metric's name once it has
//! computed something.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};

use super::data::METRICS;
use super::engine::Kind;
use super::fleet::STEP;
use crate::http::{Response, percent, request};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// What a busy processor is above, in percent.
const BUSY: f64 = 90.0;

/// What is there to be asked about.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Machines.
    pub hosts: usize,
    /// The first time, a multiple of an hour.
    pub start: i64,
    /// The hours from there.
    pub hours: i64,
}

/// A kind of question; each time it is asked of other machines and times.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Its name.
    pub name: &'static str,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    /// The maximum per minute of some metrics over some machines, for some hours.
    SingleGroupBy { metrics: usize, hosts: usize, hours: i64 },
    /// The maximum per hour of all metrics over some machines, for eight hours.
    MaxAll { hosts: usize },
    /// The average per hour and machine of some metrics, over everything.
    DoubleGroupBy { metrics: usize },
    /// The last sample of each series.
    LastPoint,
    /// The samples of one machine that are above a threshold.
    HighOfOne,
    /// The minutes of an hour in which machines were above it.
    HighOfAll,
    /// The last five minutes' maxima before a time.
    OrderByLimit,
}

/// All of them.
pub const ALL: [Question; 15] = [
    question("single-groupby-1-1-1", Form::SingleGroupBy { metrics: 1, hosts: 1, hours: 1 }),
    question("single-groupby-1-1-12", Form::SingleGroupBy { metrics: 1, hosts: 1, hours: 12 }),
    question("single-groupby-1-8-1", Form::SingleGroupBy { metrics: 1, hosts: 8, hours: 1 }),
    question("single-groupby-5-1-1", Form::SingleGroupBy { metrics: 5, hosts: 1, hours: 1 }),
    question("single-groupby-5-1-12", Form::SingleGroupBy { metrics: 5, hosts: 1, hours: 12 }),
    question("single-groupby-5-8-1", Form::SingleGroupBy { metrics: 5, hosts: 8, hours: 1 }),
    question("cpu-max-all-1", Form::MaxAll { hosts: 1 }),
    question("cpu-max-all-8", Form::MaxAll { hosts: 8 }),
    question("double-groupby-1", Form::DoubleGroupBy { metrics: 1 }),
    question("double-groupby-5", Form::DoubleGroupBy { metrics: 5 }),
    question("double-groupby-all", Form::DoubleGroupBy { metrics: 10 }),
    question("lastpoint", Form::LastPoint),
    question("high-cpu-1", Form::HighOfOne),
    question("high-cpu-all", Form::HighOfAll),
    question("groupby-orderby-limit", Form::OrderByLimit),
];

const fn question(name: &'static str, form: Form) -> Question {
    Question { name, form }
}

/// A question with its machines and times.
#[derive(Debug)]
pub struct Asked {
    form: Form,
    metrics: Vec<&'static str>,
    /// Nothing: all of them.
    hosts: Vec<String>,
    start: i64,
    end: i64,
    /// Nothing: samples as they are.
    window: Option<i64>,
}

/// Requests that together answer a question, each with the metric that it is about where the answer doesn't say.
pub type Requests = Vec<(Option<&'static str>, Vec<u8>)>;

/// An answer as numbers by (metric, machine, time), in which every engine's should be equal.
pub type Answer = BTreeMap<(String, String, i64), f64>;

impl Question {
    /// The question about machines and times that `rng` names.
    #[must_use]
    pub fn draw(&self, data: &Data, rng: &mut Rng) -> Asked {
        let end_of_data = data.start + data.hours * HOUR;
        let (metrics, hosts, hours, window) = match self.form {
            Form::SingleGroupBy { metrics, hosts, hours } => (metrics, hosts, hours, Some(MINUTE)),
            Form::MaxAll { hosts } => (METRICS.len(), hosts, 8, Some(HOUR)),
            Form::DoubleGroupBy { metrics } => (metrics, 0, 12, Some(HOUR)),
            Form::LastPoint => (METRICS.len(), 0, 0, None),
            Form::HighOfOne => (1, 1, 12, None),
            Form::HighOfAll => (1, 0, 1, Some(MINUTE)),
            Form::OrderByLimit => (1, 0, 0, Some(MINUTE)),
        };
        let hours = hours.min(data.hours);
        let first = data.start + HOUR * rng.i64(0..=data.hours - hours);
        let (start, end) = match self.form {
            Form::LastPoint => (end_of_data - STEP, end_of_data),
            Form::OrderByLimit => {
                let end = data.start + MINUTE * rng.i64(5..=data.hours * 60);
                (end - 5 * MINUTE, end)
            }
            _ => (first, first + hours * HOUR),
        };
        let mut chosen: Vec<usize> = (0..data.hosts).collect();
        rng.shuffle(&mut chosen);
        let hosts = chosen.into_iter().take(hosts).map(|host| format!("host_{host}")).collect();
        Asked { form: self.form, metrics: METRICS[..metrics].to_vec(), hosts, start, end, window }
    }
}

impl Asked {
    /// The question in the words of that engine.
    #[must_use]
    pub fn requests(&self, kind: Kind) -> Requests {
        match kind {
            Kind::Luminate => self.luminate(),
            Kind::VictoriaMetrics => vec![(None, self.promql(None))],
            Kind::Prometheus => {
                self.metrics.iter().map(|metric| (Some(*metric), self.promql(Some(metric)))).collect()
            }
        }
    }

    fn luminate(&self) -> Requests {
        let mut body = json!({"queryType": "aggregate", "limit": 1_000_000, "timeout": "30s",
                              "timeRange": {"start": self.start, "end": self.end}});
        let mut set = |key: &str, value: Value| body[key] = value;
        match self.form {
            Form::LastPoint | Form::HighOfOne => set("queryType", json!("range")),
            Form::DoubleGroupBy { .. } => set("aggregation", json!("avg")),
            _ => set("aggregation", json!("max")),
        }
        if let Some(window) = self.window {
            set("interval", json!(format!("{}m", window / MINUTE)));
        }
        if self.by_host() && self.window.is_some() {
            set("groupBy", json!(["hostname"]));
        }
        if self.is_about_busy_ones() {
            set("having", json!({"gt": BUSY}));
        }
        // As the others answer. Of the last samples each is of another series.
        if !matches!(self.form, Form::LastPoint) {
            set("layout", json!("series"));
        }
        match self.hosts.as_slice() {
            [] => {}
            [host] => set("filters", json!({"hostname": host})),
            hosts => set("filtersIn", json!({"hostname": hosts})),
        }
        let query = |metric: &&'static str| {
            let mut query = body.clone();
            query["metricName"] = json!(metric);
            query
        };
        let post = |path: &str, body: &Value| {
            request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
        };
        match self.metrics.as_slice() {
            [metric] => vec![(Some(*metric), post("/api/v1/query", &query(metric)))],
            metrics => {
                let queries: Vec<Value> = metrics.iter().map(query).collect();
                vec![(None, post("/api/v1/query/batch", &json!({"queries": queries})))]
            }
        }
    }

    fn is_about_busy_ones(&self) -> bool {
        matches!(self.form, Form::HighOfOne | Form::HighOfAll)
    }

    /// Whether an answer's rows are of one machine each.
    fn by_host(&self) -> bool {
        matches!(self.form, Form::DoubleGroupBy { .. } | Form::LastPoint | Form::HighOfOne | Form::HighOfAll)
    }

    fn promql(&self, metric: Option<&str>) -> Vec<u8> {
        let selector = self.selector(metric);
        let window = self.window.unwrap_or(STEP) / 1_000;
        let names = if metric.is_some() { "" } else { "__name__" };
        let query = match self.form {
            Form::SingleGroupBy { .. } | Form::MaxAll { .. } | Form::OrderByLimit => {
                format!("max(max_over_time({selector}[{window}s])) by ({names})")
            }
            Form::DoubleGroupBy { .. } => {
                let keys = [names, "hostname"].into_iter().filter(|key| !key.is_empty()).collect::<Vec<_>>();
                format!("avg(avg_over_time({selector}[{window}s])) by ({})", keys.join(","))
            }
            Form::LastPoint => format!("last_over_time({selector}[{window}s])"),
            Form::HighOfOne => format!("{selector} > {BUSY}"),
            Form::HighOfAll => format!("max_over_time({selector}[{window}s]) > {BUSY}"),
        };
        let seconds = |time: i64| time / 1_000;
        let path = match self.form {
            Form::LastPoint => format!("/api/v1/query?query={}&time={}", percent(&query), seconds(self.end)),
            _ => format!(
                "/api/v1/query_range?query={}&start={}&end={}&step={window}",
                percent(&query),
                seconds(self.start) + window,
                seconds(self.end)
            ),
        };
        request("GET", &path, &[], &[])
    }

    fn selector(&self, metric: Option<&str>) -> String {
        let name = match (metric.as_ref(), self.metrics.as_slice()) {
            (Some(metric), _) | (None, [metric]) => format!("__name__=\"{metric}\""),
            (None, metrics) => format!("__name__=~\"{}\"", metrics.join("|")),
        };
        let hosts = match self.hosts.as_slice() {
            [] => String::new(),
            [host] => format!(",hostname=\"{host}\""),
            hosts => format!(",hostname=~\"{}\"", hosts.join("|")),
        };
        format!("{{{name}{hosts}}}")
    }

    /// What the answers to [`Asked::requests`] say; of numbers for the same place the largest, as the questions are about
    /// maxima wherever there can be several.
    #[must_use]
    pub fn read(&self, kind: Kind, answers: &[(Option<&'static str>, Response)]) -> Answer {
        let mut read = Answer::new();
        for (metric, answer) in answers {
            let answer = answer.expect(200);
            match kind {
                Kind::Luminate => self.read_answers(*metric, &answer, &mut read),
                _ => self.read_series(*metric, &answer, &mut read),
            }
        }
        read
    }

    fn read_answers(&self, metric: Option<&str>, answer: &Value, read: &mut Answer) {
        if let Some(metric) = metric {
            return self.read_rows(metric, answer, read);
        }
        let answers = answer["answers"].as_array().expect("answers");
        assert_eq!(answers.len(), self.metrics.len(), "an answer for each metric");
        for (metric, answer) in self.metrics.iter().zip(answers) {
            self.read_rows(metric, answer, read);
        }
    }

    fn read_rows(&self, metric: &str, answer: &Value, read: &mut Answer) {
        assert_eq!(answer["truncated"], false, "an answer without all its rows");
        for result in answer["results"].as_array().expect("results") {
            let host = result["groupKey"]["hostname"].as_str().or(result["dimensions"]["hostname"].as_str());
            let list = |one: &str, many: &str| match &result[one] {
                Value::Null => result[many].as_array().expect("a list").clone(),
                one => vec![one.clone()],
            };
            let (times, values) = (list("timestamp", "timestamps"), list("value", "values"));
            assert_eq!(times.len(), values.len(), "a time for each number");
            for (time, value) in times.iter().zip(&values) {
                let (time, value) = (time.as_i64().expect("a time"), value.as_f64().expect("a number"));
                self.put(metric, host, time, value, read);
            }
        }
    }

    fn read_series(&self, metric: Option<&str>, answer: &Value, read: &mut Answer) {
        for series in answer["data"]["result"].as_array().expect("series") {
            let labels = &series["metric"];
            let metric = labels["__name__"].as_str().or(metric).unwrap_or(self.metrics[0]);
            let one = series["value"].as_array().map(|value| Value::Array(value.clone()));
            let values = series["values"].as_array().cloned().unwrap_or_default();
            for value in values.iter().chain(&one) {
                let seconds = value[0].as_f64().expect("a time");
                // A window is known by its end there and by its start here; a sample by when it was seen.
                let back = self.window.unwrap_or(STEP / 2);
                let time = (seconds * 1e3) as i64 - back;
                let number = value[1].as_str().and_then(|text| text.parse().ok()).expect("a number");
                self.put(metric, labels["hostname"].as_str(), time, number, read);
            }
        }
    }

    fn put(&self, metric: &str, host: Option<&str>, time: i64, value: f64, read: &mut Answer) {
        let host = host.filter(|_| self.by_host()).unwrap_or_default();
        let place = read.entry((metric.to_owned(), host.to_owned(), time)).or_insert(f64::NEG_INFINITY);
        *place = place.max(value);
    }
}

/// Where two answers differ by more than rounding, in words.
///
/// # Errors
/// They do.
pub fn compare(one: &Answer, other: &Answer) -> Result<(), String> {
    if one.len() != other.len() {
        return Err(format!("{} numbers and {}", one.len(), other.len()));
    }
    for ((place, value), (other_place, other_value)) in one.iter().zip(other) {
        let tolerance = 1e-9 * value.abs().max(1.0);
        if place != other_place || (value - other_value).abs() > tolerance {
            return Err(format!("{place:?} is {value}, and {other_place:?} is {other_value}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Data = Data { hosts: 20, start: 100 * HOUR, hours: 12 };

    fn drawn(name: &str) -> Asked {
        let question = ALL.iter().find(|question| question.name == name).expect("a question");
        question.draw(&DATA, &mut Rng::with_seed(1))
    }

    fn answer(body: Value) -> Response {
        Response { status: 200, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    #[test]
    fn questions_stay_within_the_data() {
        for question in ALL {
            for seed in 0..100 {
                let asked = question.draw(&DATA, &mut Rng::with_seed(seed));
                let end = DATA.start + DATA.hours * HOUR;
                assert!(
                    DATA.start <= asked.start && asked.start < asked.end && asked.end <= end,
                    "{asked:?}"
                );
                let again = question.draw(&DATA, &mut Rng::with_seed(seed));
                assert_eq!(asked.requests(Kind::Prometheus), again.requests(Kind::Prometheus));
            }
        }
    }

    #[test]
    fn all_but_prometheus_are_asked_once() {
        for question in ALL {
            let counts = Kind::ALL.map(|kind| drawn(question.name).requests(kind).len());
            assert_eq!(counts, [1, 1, drawn(question.name).metrics.len()], "{}", question.name);
        }
    }

    #[test]
    fn luminate_gets_a_query_for_each_metric_and_a_list_of_machines() {
        let body = |name: &str| {
            let (_, bytes) = drawn(name).requests(Kind::Luminate).remove(0);
            let text = String::from_utf8(bytes).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a body");
            let path = head.split(' ').nth(1).expect("a path").to_owned();
            (path, serde_json::from_str::<Value>(body).expect("JSON"))
        };
        let (path, many) = body("single-groupby-5-8-1");
        assert_eq!(path, "/api/v1/query/batch");
        let queries = many["queries"].as_array().expect("queries");
        let metrics: Vec<&Value> = queries.iter().map(|query| &query["metricName"]).collect();
        assert_eq!(metrics, METRICS[..5]);
        for query in queries {
            assert_eq!(query["filtersIn"]["hostname"].as_array().map(Vec::len), Some(8), "{query}");
        }
        let (path, one) = body("single-groupby-1-1-1");
        assert_eq!((path.as_str(), &one["metricName"]), ("/api/v1/query", &json!(METRICS[0])));
        assert!(one["filters"]["hostname"].is_string() && one["filtersIn"].is_null(), "{one}");
    }

    #[test]
    fn a_batch_reads_as_the_answers_for_its_metrics() {
        let asked = drawn("single-groupby-5-1-1");
        let part = |value: usize| {
            let series =
                json!({"groupKey": {}, "timestamps": [asked.start], "values": [value], "counts": [6]});
            json!({"results": [series], "truncated": false})
        };
        let answers: Vec<Value> = (0..5).map(part).collect();
        let read = asked.read(Kind::Luminate, &[(None, answer(json!({"answers": answers})))]);
        let place = |metric: &str| (metric.to_owned(), String::new(), asked.start);
        assert!((0..5).all(|at| read[&place(METRICS[at])] == at as f64) && read.len() == 5, "{read:?}");
    }

    #[test]
    fn maxima_of_several_machines_read_as_one_number_everywhere() {
        let asked = drawn("single-groupby-1-8-1");
        let (start, end) = (asked.start, (asked.start + MINUTE) as f64 / 1e3);
        let row = |value: f64| {
            let row = json!({"groupKey": {}, "timestamp": start, "value": value, "count": 6});
            (Some(METRICS[0]), answer(json!({"results": [row], "truncated": false})))
        };
        let luminate = asked.read(Kind::Luminate, &[row(7.0), row(9.0), row(8.0)]);
        let series =
            |metric: Value| answer(json!({"data": {"result": [{"metric": metric, "values": [[end, "9"]]}]}}));
        let named = series(json!({"__name__": METRICS[0]}));
        let victoria_metrics = asked.read(Kind::VictoriaMetrics, &[(None, named)]);
        let prometheus = asked.read(Kind::Prometheus, &[(Some(METRICS[0]), series(json!({})))]);
        assert_eq!(compare(&luminate, &victoria_metrics), Ok(()));
        assert_eq!(compare(&luminate, &prometheus), Ok(()));
        assert_eq!(luminate.into_values().collect::<Vec<_>>(), [9.0]);
    }

    #[test]
    fn busy_ones_are_asked_for_by_their_numbers() {
        for (question, busy) in [("high-cpu-1", true), ("high-cpu-all", true), ("cpu-max-all-1", false)] {
            let asked = drawn(question);
            for (kind, word) in
                [(Kind::Luminate, r#""having":{"gt":90.0}"#), (Kind::VictoriaMetrics, "%3E%2090")]
            {
                let (_, request) = &asked.requests(kind)[0];
                let request = String::from_utf8_lossy(request);
                assert_eq!(request.contains(word), busy, "{question}: {request}");
            }
        }
    }

    #[test]
    fn differences_beyond_rounding_are_told() {
        let answer = |place: i64, value: f64| {
            Answer::from([
                (("m".to_owned(), "h".to_owned(), 1), 0.5),
                (("m".to_owned(), "h".to_owned(), place), value),
            ])
        };
        assert_eq!(compare(&answer(2, 50.0), &answer(2, 50.0 + 1e-9)), Ok(()));
        assert!(compare(&answer(2, 50.0), &answer(2, 50.1)).is_err());
        assert!(compare(&answer(2, 50.0), &answer(3, 50.0)).is_err());
        assert!(compare(&answer(2, 50.0), &answer(1, 50.0)).is_err(), "a number is missing");
    }
}
