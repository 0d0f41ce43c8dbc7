//! Five questions, and answers in one shape, whatever they were asked of.

use serde_json::{Value, json};

use crate::fleet::Fleet;

/// A question over everything that the fleet has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Every sample of one series.
    OneSeries,
    /// The largest value of five minutes, of the machines of a region.
    FilteredMax,
    /// The average of each region.
    RegionAverage,
    /// The 99th percentile of each machine.
    HostP99,
    /// The rate of a counter, by region and five minutes.
    RegionRate,
}

/// All of them.
pub const ALL: [Question; 5] = [
    Question::OneSeries,
    Question::FilteredMax,
    Question::RegionAverage,
    Question::HostP99,
    Question::RegionRate,
];

/// Rows of an answer: what a value belongs to, and the value.
pub type Answer = Vec<(String, f64)>;

impl Question {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneSeries => "one series",
            Self::FilteredMax => "filter + 5 m max",
            Self::RegionAverage => "group by region: avg",
            Self::HostP99 => "group by host: p99",
            Self::RegionRate => "rate by region, 5 m",
        }
    }

    /// Whether it groups.
    pub fn groups(self) -> bool {
        matches!(self, Self::RegionAverage | Self::HostP99 | Self::RegionRate)
    }

    /// What it is about.
    pub fn metric(self, fleet: &Fleet) -> &str {
        if self == Self::RegionRate { fleet.counter() } else { fleet.gauge() }
    }

    /// As the API takes it.
    pub fn body(self, fleet: &Fleet) -> Value {
        let mut body = json!({
            "metricName": self.metric(fleet), "limit": 10_000, "timeout": "30s",
            "timeRange": {"start": fleet.begin, "end": fleet.end()},
        });
        let more = match self {
            Self::OneSeries => json!({"queryType": "range", "filters": {"hostname": "host_7"}}),
            Self::FilteredMax => json!({"queryType": "aggregate", "aggregation": "max", "interval": "5m",
                                        "filters": {"region": "eu-west-1"}}),
            Self::RegionAverage => {
                json!({"queryType": "aggregate", "aggregation": "avg", "groupBy": ["region"]})
            }
            Self::HostP99 => json!({"queryType": "aggregate", "aggregation": "p99", "groupBy": ["hostname"]}),
            Self::RegionRate => json!({"queryType": "rate", "interval": "5m", "groupBy": ["region"]}),
        };
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        body
    }
}

/// The rows of the API's answer.
pub fn of_api(rows: &[Value]) -> Answer {
    let row = |row: &Value| {
        let group = row["groupKey"].as_object().into_iter().flat_map(|group| group.values());
        let group = group.filter_map(|value| value.as_str().map(str::to_owned));
        let time = row["timestamp"].as_i64().map(|time| time.to_string());
        let value = row["rate"].as_f64().or_else(|| row["value"].as_f64()).expect("a number");
        (group.chain(time).collect::<Vec<_>>().join("\t"), value)
    };
    let mut answer: Answer = rows.iter().map(row).collect();
    answer.sort_by(|left, right| left.0.cmp(&right.0));
    answer
}

/// The rows of a statement's answer: tab-separated, the value last.
pub fn of_statement(text: &str) -> Answer {
    let row = |line: &str| {
        let (key, value) = line.rsplit_once('\t').expect("a key and a value");
        (key.to_owned(), value.parse().expect("a number"))
    };
    let mut answer: Answer = text.lines().map(row).collect();
    answer.sort_by(|left, right| left.0.cmp(&right.0));
    answer
}

/// Where two answers differ by more than summing in another order may make them.
pub fn difference(left: &Answer, right: &Answer) -> Option<String> {
    if left.len() != right.len() {
        return Some(format!("{} rows against {}", left.len(), right.len()));
    }
    let apart = |pair: &(&(String, f64), &(String, f64))| {
        let (left, right) = pair;
        left.0 != right.0 || (left.1 - right.1).abs() > 1e-9 * left.1.abs().max(1.0)
    };
    left.iter().zip(right).find(apart).map(|(left, right)| format!("{left:?} against {right:?}"))
}
