//! Twenty questions that PromQL and Luminate's API can both ask, and what becomes of them.

use luminate_tests::client::Client;
use serde_json::{Value, json};

use crate::peers::{Numbers, Prometheus, key};

/// Answers may differ by this, relative to the larger: sums are taken in different orders.
const TOLERANCE: f64 = 1e-9;
/// Milliseconds of a bucket of rates: the last whole one began no longer ago than two of them.
const BUCKET: i64 = 30_000;

/// The time that all questions are about.
pub struct Window {
    /// The instant at which PromQL is asked: its ranges end with it.
    at: i64,
    /// First millisecond of Luminate's range.
    start: i64,
    /// Where the last whole bucket of [`BUCKET`] before `at` begins, for rates.
    bucket: i64,
}

impl Window {
    /// The `length` milliseconds up to and including `at`; their first one too, unless `open`.
    pub fn ending(at: i64, length: i64, open: bool) -> Self {
        Self { at, start: at - length + i64::from(open), bucket: at / BUCKET * BUCKET - BUCKET }
    }

    fn aggregate(&self, metric: &str, aggregation: &str, by: &[&str]) -> Value {
        json!({"queryType": "aggregate", "metricName": metric, "aggregation": aggregation, "groupBy": by,
               "timeRange": {"start": self.start, "end": self.at + 1}})
    }

    fn rate(&self, metric: &str, by: &[&str]) -> Value {
        json!({"queryType": "rate", "metricName": metric, "groupBy": by, "interval": "30s",
               "timeRange": {"start": self.bucket, "end": self.bucket + BUCKET}})
    }

    /// What a counter gained a second in the bucket: its value at the end less its value at the start.
    fn gained(&self, metric: &str, by: &str) -> String {
        let at = |time: i64| format!("{metric} @ {}.{:03}", (time - 1) / 1_000, (time - 1) % 1_000);
        format!("sum by ({by}) ({} - {}) / 30", at(self.bucket + BUCKET), at(self.bucket))
    }
}

/// What the two answers should have in common.
#[derive(Clone, Copy, PartialEq)]
enum Expectation {
    Equal,
    /// PromQL's `rate` extrapolates; Luminate's doesn't.
    Extrapolated,
}

/// Where the number stands in Luminate's answer.
#[derive(Clone, Copy)]
enum Answer {
    Rows(&'static str),
    SeriesMatched,
    /// A listing under this path: its total.
    Total(&'static str),
}

/// One question in both languages.
pub struct Question {
    text: &'static str,
    promql: String,
    at: i64,
    luminate: Value,
    by: Vec<&'static str>,
    answer: Answer,
    expectation: Expectation,
}

/// A question with both answers.
pub struct Verdict {
    text: &'static str,
    expectation: Expectation,
    prometheus: Numbers,
    luminate: Numbers,
}

/// All questions about `window`.
pub fn all(window: &Window) -> Vec<Question> {
    let aggregate = |text, promql: &str, metric, aggregation, by: &[&'static str]| Question {
        text,
        promql: promql.to_owned(),
        at: window.at,
        luminate: window.aggregate(metric, aggregation, by),
        by: by.to_vec(),
        answer: Answer::Rows("value"),
        expectation: Expectation::Equal,
    };
    let exact_rate = |text, metric, by| Question {
        text,
        promql: window.gained(metric, by),
        at: window.at,
        luminate: window.rate(metric, &[by]),
        by: vec![by],
        answer: Answer::Rows("rate"),
        expectation: Expectation::Equal,
    };
    let extrapolated = |text, metric: &str, by| Question {
        text,
        promql: format!("sum by ({by}) (rate({metric}[30s]))"),
        at: window.bucket + BUCKET - 1,
        luminate: window.rate(metric, &[by]),
        by: vec![by],
        answer: Answer::Rows("rate"),
        expectation: Expectation::Extrapolated,
    };
    vec![
        aggregate("samples of up", "sum(count_over_time(up[60s]))", "up", "count", &[]),
        aggregate("samples of up by job", "sum by (job) (count_over_time(up[60s]))", "up", "count", &["job"]),
        aggregate(
            "runs of each collector",
            "sum by (collector) (count_over_time(node_scrape_collector_success[60s]))",
            "node_scrape_collector_success",
            "count",
            &["collector"],
        ),
        aggregate(
            "sum of CPU seconds",
            "sum(sum_over_time(node_cpu_seconds_total[60s]))",
            "node_cpu_seconds_total",
            "sum",
            &[],
        ),
        aggregate(
            "sum of CPU seconds by mode",
            "sum by (mode) (sum_over_time(node_cpu_seconds_total[60s]))",
            "node_cpu_seconds_total",
            "sum",
            &["mode"],
        ),
        aggregate("highest load", "max(max_over_time(node_load1[60s]))", "node_load1", "max", &[]),
        aggregate(
            "slowest scrape by job",
            "max by (job) (max_over_time(scrape_duration_seconds[60s]))",
            "scrape_duration_seconds",
            "max",
            &["job"],
        ),
        aggregate(
            "fewest samples of a scrape by job",
            "min by (job) (min_over_time(scrape_samples_scraped[60s]))",
            "scrape_samples_scraped",
            "min",
            &["job"],
        ),
        aggregate(
            "least available memory",
            "min(min_over_time(node_memory_MemAvailable_bytes[60s]))",
            "node_memory_MemAvailable_bytes",
            "min",
            &[],
        ),
        aggregate(
            "average free memory",
            "sum(sum_over_time(node_memory_MemFree_bytes[60s])) / sum(count_over_time(node_memory_MemFree_bytes[60s]))",
            "node_memory_MemFree_bytes",
            "avg",
            &[],
        ),
        aggregate(
            "average CPU seconds by CPU and mode",
            "sum by (cpu, mode) (sum_over_time(node_cpu_seconds_total[60s])) \
             / sum by (cpu, mode) (count_over_time(node_cpu_seconds_total[60s]))",
            "node_cpu_seconds_total",
            "avg",
            &["cpu", "mode"],
        ),
        aggregate("median load", "sum(quantile_over_time(0.5, node_load1[60s]))", "node_load1", "p50", &[]),
        aggregate(
            "p95 of scrape times by job",
            "sum by (job) (quantile_over_time(0.95, scrape_duration_seconds[60s]))",
            "scrape_duration_seconds",
            "p95",
            &["job"],
        ),
        aggregate(
            "p99 of each collector's time",
            "sum by (collector) (quantile_over_time(0.99, node_scrape_collector_duration_seconds[60s]))",
            "node_scrape_collector_duration_seconds",
            "p99",
            &["collector"],
        ),
        Question {
            answer: Answer::SeriesMatched,
            ..aggregate(
                "series of CPU seconds",
                "count(count_over_time(node_cpu_seconds_total[60s]))",
                "node_cpu_seconds_total",
                "count",
                &[],
            )
        },
        Question {
            answer: Answer::Total("/api/v1/metrics/node_cpu_seconds_total/dimensions/mode/values"),
            ..aggregate(
                "modes of a CPU",
                "count(count by (mode) (count_over_time(node_cpu_seconds_total[60s])))",
                "node_cpu_seconds_total",
                "count",
                &[],
            )
        },
        exact_rate("CPU seconds gained a second, by mode", "node_cpu_seconds_total", "mode"),
        exact_rate("samples appended a second", "prometheus_tsdb_head_samples_appended_total", "type"),
        extrapolated("rate() of CPU seconds, by mode", "node_cpu_seconds_total", "mode"),
        extrapolated("rate() of samples appended", "prometheus_tsdb_head_samples_appended_total", "type"),
    ]
}

impl Question {
    /// Asks both.
    pub fn ask(&self, prometheus: &Prometheus, luminate: &Client) -> Verdict {
        Verdict {
            text: self.text,
            expectation: self.expectation,
            prometheus: prometheus.ask(&self.promql, &self.by, self.at),
            luminate: self.ask_luminate(luminate),
        }
    }

    fn ask_luminate(&self, client: &Client) -> Numbers {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        match self.answer {
            Answer::Rows(field) => {
                let rows = client.rows(&self.luminate);
                rows.iter().map(|row| (key(&row["groupKey"], &self.by), number(&row[field]))).collect()
            }
            Answer::SeriesMatched => {
                let body = client.query(&self.luminate).expect(200);
                [(Vec::new(), number(&body["seriesMatched"]))].into()
            }
            Answer::Total(path) => [(Vec::new(), number(&client.get(path).expect(200)["total"]))].into(),
        }
    }
}

impl Verdict {
    /// Whether the answers are as they must be.
    pub fn holds(&self) -> bool {
        !self.prometheus.is_empty() && (self.expectation == Expectation::Extrapolated || self.equal())
    }

    fn equal(&self) -> bool {
        self.difference() <= TOLERANCE
    }

    /// The largest relative difference between the two; infinite where one has a group that the other lacks.
    fn difference(&self) -> f64 {
        if self.prometheus.len() != self.luminate.len() {
            return f64::INFINITY;
        }
        let pairs = self.prometheus.iter().map(|(key, left)| (left, self.luminate.get(key)));
        let apart = pairs.map(|(left, right)| match right {
            Some(right) if left == right => 0.0,
            Some(right) => (left - right).abs() / left.abs().max(right.abs()),
            None => f64::INFINITY,
        });
        apart.fold(0.0, f64::max)
    }

    fn word(&self) -> String {
        match (self.expectation, self.equal()) {
            (_, true) => "equal".to_owned(),
            (Expectation::Equal, false) => format!("DIFFERENT by {:.2e}", self.difference()),
            (Expectation::Extrapolated, false) => {
                format!("apart by up to {:.2} %", self.difference() * 100.0)
            }
        }
    }
}

/// The numbers in a few characters: the only one, or how many and the largest group.
fn shown(numbers: &Numbers) -> String {
    match numbers.len() {
        0 => "nothing".to_owned(),
        1 => numbers.values().map(|value| rounded(*value)).collect(),
        many => {
            let largest = numbers.iter().max_by(|left, right| left.1.total_cmp(right.1));
            let (key, value) = largest.expect("there is one");
            format!("{many} groups; {}: {}", key.join(","), rounded(*value))
        }
    }
}

/// Ten significant digits, which is more than two stores may differ by.
fn rounded(value: f64) -> String {
    let digits = 9 - value.abs().max(1e-9).log10().floor() as i32;
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(0));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Prints the table and what it can't say itself.
pub fn print(verdicts: &[Verdict]) {
    let rows: Vec<[String; 5]> = (1..)
        .zip(verdicts)
        .map(|(number, verdict)| {
            let text = verdict.text.to_owned();
            [format!("{number}"), text, shown(&verdict.prometheus), shown(&verdict.luminate), verdict.word()]
        })
        .collect();
    let head = ["", "question, about the last minute", "Prometheus", "Luminate", ""].map(str::to_owned);
    let width =
        |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    println!();
    for row in [&head].into_iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
    println!();
    println!("Where there are several groups, all of them were compared; the largest is shown.");
    println!(
        "The last two aren't expected to be equal. rate() of PromQL takes the first and the last sample inside"
    );
    println!(
        "its 30 s and extrapolates their slope to both edges. Luminate adds the steps that were measured, the one"
    );
    println!(
        "into the 30 s included, and divides by 30 s: the two questions before them show that this is the"
    );
    println!("counter's value at the end less that at the start.");
    let failed = verdicts.iter().filter(|verdict| !verdict.holds()).count();
    match failed {
        0 => println!("\nall {} answers are as they must be", verdicts.len()),
        _ => println!("\n{failed} of {} answers are wrong", verdicts.len()),
    }
}
