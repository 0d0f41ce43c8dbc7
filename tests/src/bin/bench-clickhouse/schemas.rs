//! Three schemas for the same samples: how each is made, filled and asked.
//!
//! Luminate's is made by a worker, and its questions are the statements that a worker sends, taken down on
//! their way. Those of the others are written here the way their own products ask: SigNoz joins the samples
//! to what its table of series says of their labels; OpenTelemetry's exporter has every label on each sample.

use luminate_tests::clickhouse::ClickHouse;
use luminate_tests::worker::Setup;

use crate::fleet::{Fleet, Row};
use crate::native::{self, Column};
use crate::questions::Question;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 86_400_000;
/// Rows of a block that describes series.
const SERIES_OF_A_BLOCK: usize = 50_000;

/// A schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Samples by series, series by day.
    Luminate,
    /// SigNoz's `samples_v4` and `time_series_v4`.
    SigNoz,
    /// The OpenTelemetry collector's ClickHouse exporter: a map of labels on each sample.
    OpenTelemetry,
}

/// All of them, ours first.
pub const ALL: [Schema; 3] = [Schema::Luminate, Schema::SigNoz, Schema::OpenTelemetry];

/// Rows for a table.
#[derive(Debug)]
pub struct Insert {
    into: &'static str,
    block: Vec<u8>,
}

impl Schema {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Luminate => "Luminate",
            Self::SigNoz => "SigNoz v4",
            Self::OpenTelemetry => "OpenTelemetry",
        }
    }

    /// Its database.
    pub fn database(self) -> &'static str {
        match self {
            Self::Luminate => "luminate",
            Self::SigNoz => "signoz",
            Self::OpenTelemetry => "otel",
        }
    }

    /// Makes its tables anew.
    pub fn create(self, server: &ClickHouse) {
        let database = self.database();
        server.execute(&format!("DROP DATABASE IF EXISTS {database}"));
        let sql = match self {
            Self::Luminate => {
                drop(Setup::clickhouse(&server.url(), database).start());
                return;
            }
            Self::SigNoz => include_str!("sql/signoz.sql"),
            Self::OpenTelemetry => include_str!("sql/otel.sql"),
        };
        server.execute(&format!("CREATE DATABASE {database}"));
        for statement in sql.split(";\n").filter(|statement| statement.contains("CREATE")) {
            let answer = server.send(&[("database", database)], statement.as_bytes());
            let answer = answer.expect("the server answers");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    /// What describes the series before their samples come.
    pub fn series(self, fleet: &Fleet) -> Vec<Insert> {
        let all: Vec<(usize, usize)> = (0..fleet.metrics.len())
            .flat_map(|metric| (0..fleet.hosts).map(move |host| (metric, host)))
            .collect();
        let chunks = all.chunks(SERIES_OF_A_BLOCK);
        match self {
            Self::Luminate => chunks.flat_map(|chunk| luminate_series(fleet, chunk)).collect(),
            Self::SigNoz => chunks.flat_map(|chunk| signoz_series(fleet, chunk)).collect(),
            Self::OpenTelemetry => Vec::new(),
        }
    }

    /// Samples as they are inserted: ours sorted, as the worker does; the others' as they arrive.
    pub fn samples(self, fleet: &Fleet, rows: &[Row]) -> Insert {
        match self {
            Self::Luminate => luminate_samples(fleet, rows),
            Self::SigNoz => signoz_samples(fleet, rows),
            Self::OpenTelemetry => otel_samples(fleet, rows),
        }
    }

    /// The statement for a question; none for ours, which a worker writes.
    pub fn ask(self, fleet: &Fleet, question: Question) -> Option<String> {
        match self {
            Self::Luminate => None,
            Self::SigNoz => Some(signoz_asks(fleet, question)),
            Self::OpenTelemetry => Some(otel_asks(fleet, question)),
        }
    }
}

impl Insert {
    /// Sends it, with a token as a writer does that may have to repeat it; ours with what else the worker sets.
    pub fn send(&self, server: &ClickHouse, schema: Schema, number: usize) {
        let query = format!("INSERT INTO {} FORMAT Native", self.into);
        let token = format!("{} {number}", self.into);
        let parameters = [
            ("database", schema.database()),
            ("query", query.as_str()),
            ("async_insert", "0"),
            ("insert_deduplication_token", token.as_str()),
            ("optimize_on_insert", if schema == Schema::Luminate { "0" } else { "1" }),
        ];
        let answer = server.send(&parameters, &self.block).expect("the server answers");
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    }
}

fn metrics(fleet: &Fleet) -> Vec<&str> {
    fleet.metrics.iter().map(|(name, _)| name.as_str()).collect()
}

fn luminate_samples(fleet: &Fleet, rows: &[Row]) -> Insert {
    let mut rows: Vec<(usize, u64, i64, f64)> = rows
        .iter()
        .map(|row| (row.metric, fleet.fingerprint(row.metric, row.host), row.time, row.value))
        .collect();
    let names = metrics(fleet);
    rows.sort_unstable_by(|left, right| {
        (names[left.0], left.1, left.2).cmp(&(names[right.0], right.1, right.2))
    });
    let columns = [
        native::words("tenant", &["default"], rows.iter().map(|_| 0)),
        native::words("metric", &names, rows.iter().map(|row| row.0)),
        native::unsigned("fp", rows.iter().map(|row| row.1)),
        native::signed("ts", "DateTime64(3, 'UTC')", rows.iter().map(|row| row.2)),
        native::floats("v", rows.iter().map(|row| row.3)),
    ];
    Insert { into: "samples (tenant, metric, fp, ts, v)", block: native::block(rows.len(), &columns) }
}

fn luminate_series(fleet: &Fleet, series: &[(usize, usize)]) -> Vec<Insert> {
    let insert = |day: i64| {
        let columns = [
            native::words("tenant", &["default"], series.iter().map(|_| 0)),
            native::words("metric", &metrics(fleet), series.iter().map(|(metric, _)| *metric)),
            native::unsigned("fp", fingerprints(fleet, series)),
            native::days("day", series.iter().map(|_| day as i32)),
            labels(fleet, "dimensions", series.len(), series.iter().map(|(_, host)| *host)),
        ];
        let into = "series (tenant, metric, fp, day, dimensions)";
        Insert { into, block: native::block(series.len(), &columns) }
    };
    (fleet.begin / DAY..=(fleet.end() - 1) / DAY).map(insert).collect()
}

fn signoz_samples(fleet: &Fleet, rows: &[Row]) -> Insert {
    let columns = [
        native::words("metric_name", &metrics(fleet), rows.iter().map(|row| row.metric)),
        native::unsigned("fingerprint", rows.iter().map(|row| fleet.fingerprint(row.metric, row.host))),
        native::signed("unix_milli", "Int64", rows.iter().map(|row| row.time)),
        native::floats("value", rows.iter().map(|row| row.value)),
    ];
    let into = "samples_v4 (metric_name, fingerprint, unix_milli, value)";
    Insert { into, block: native::block(rows.len(), &columns) }
}

/// A row per series and hour.
fn signoz_series(fleet: &Fleet, series: &[(usize, usize)]) -> Vec<Insert> {
    let labels: Vec<String> = series
        .iter()
        .map(|(metric, host)| {
            let pairs = fleet.dimensions(*host).iter().map(|(key, value)| format!(r#""{key}":"{value}""#));
            let pairs: Vec<String> = pairs.collect();
            format!(r#"{{"__name__":"{}",{}}}"#, fleet.metrics[*metric].0, pairs.join(","))
        })
        .collect();
    let insert = |hour: i64| {
        let columns = [
            native::words("metric_name", &metrics(fleet), series.iter().map(|(metric, _)| *metric)),
            native::unsigned("fingerprint", fingerprints(fleet, series)),
            native::signed("unix_milli", "Int64", series.iter().map(|_| hour * HOUR)),
            native::texts("labels", labels.iter().map(String::as_str)),
        ];
        let into = "time_series_v4 (metric_name, fingerprint, unix_milli, labels)";
        Insert { into, block: native::block(series.len(), &columns) }
    };
    (fleet.begin / HOUR..=(fleet.end() - 1) / HOUR).map(insert).collect()
}

fn otel_samples(fleet: &Fleet, rows: &[Row]) -> Insert {
    const NANOS: i64 = 1_000_000;
    let service =
        fleet.keys().iter().position(|key| *key == "service").expect("a dimension of every machine");
    let services: Vec<String> = (0..20).map(|service| service.to_string()).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let place = |row: &Row| fleet.dimensions(row.host)[service].1.parse().expect("services are numbers");
    let columns = [
        native::words("ServiceName", &services, rows.iter().map(place)),
        native::texts("MetricName", rows.iter().map(|row| fleet.metrics[row.metric].0.as_str())),
        labels(fleet, "Attributes", rows.len(), rows.iter().map(|row| row.host)),
        native::signed("StartTimeUnix", "DateTime64(9)", rows.iter().map(|_| fleet.begin * NANOS)),
        native::signed("TimeUnix", "DateTime64(9)", rows.iter().map(|row| row.time * NANOS)),
        native::floats("Value", rows.iter().map(|row| row.value)),
    ];
    let into = "otel_metrics_gauge (ServiceName, MetricName, Attributes, StartTimeUnix, TimeUnix, Value)";
    Insert { into, block: native::block(rows.len(), &columns) }
}

fn labels(fleet: &Fleet, name: &'static str, rows: usize, hosts: impl Iterator<Item = usize>) -> Column {
    let values = hosts.flat_map(|host| fleet.dimensions(host).iter().map(|(_, value)| value.as_str()));
    native::maps(name, &fleet.keys(), rows, values)
}

fn fingerprints(fleet: &Fleet, series: &[(usize, usize)]) -> impl Iterator<Item = u64> {
    series.iter().map(|(metric, host)| fleet.fingerprint(*metric, *host))
}

fn signoz_asks(fleet: &Fleet, question: Question) -> String {
    let (start, end) = (fleet.begin, fleet.end());
    let metric = question.metric(fleet);
    let hour = start / HOUR * HOUR;
    let own = "env = 'default' AND temporality = 'Unspecified'";
    let samples =
        format!("{own} AND metric_name = '{metric}' AND unix_milli >= {start} AND unix_milli < {end}");
    let series = |column: &str, filter: &str| {
        format!(
            "SELECT DISTINCT fingerprint{column} FROM time_series_v4 \
             WHERE {own} AND metric_name = '{metric}' AND unix_milli >= {hour} AND unix_milli < {end}{filter}"
        )
    };
    let label = |key: &str| format!(", JSONExtractString(labels, '{key}') AS {key}");
    let filter = |key: &str, value: &str| format!(" AND JSONExtractString(labels, '{key}') = '{value}'");
    let bucket = "intDiv(unix_milli, 300000) * 300000 AS bucket";
    match question {
        Question::OneSeries => format!(
            "SELECT unix_milli, value FROM samples_v4 WHERE {samples} AND fingerprint IN ({}) ORDER BY unix_milli",
            series("", &filter("hostname", "host_7"))
        ),
        Question::FilteredMax => format!(
            "SELECT {bucket}, max(value) FROM samples_v4 INNER JOIN ({}) AS series USING fingerprint \
             WHERE {samples} GROUP BY bucket ORDER BY bucket",
            series("", &filter("region", "eu-west-1"))
        ),
        Question::RegionAverage => format!(
            "SELECT region, avg(value) FROM samples_v4 INNER JOIN ({}) AS series USING fingerprint \
             WHERE {samples} GROUP BY region ORDER BY region",
            series(&label("region"), "")
        ),
        Question::HostP99 => format!(
            "SELECT hostname, quantileExactInclusive(0.99)(value) FROM samples_v4 \
             INNER JOIN ({}) AS series USING fingerprint WHERE {samples} GROUP BY hostname ORDER BY hostname",
            series(&label("hostname"), "")
        ),
        Question::RegionRate => format!(
            "SELECT region, intDiv(unix_milli, 300000) * 300000 AS bucket, \
             sum(if(value < last, value, value - last)) / 300 FROM (\
             SELECT region, unix_milli, value, lagInFrame(value, 1, value) OVER (PARTITION BY fingerprint \
             ORDER BY unix_milli) AS last FROM samples_v4 INNER JOIN ({}) AS series USING fingerprint \
             WHERE {samples}) GROUP BY region, bucket ORDER BY region, bucket",
            series(&label("region"), "")
        ),
    }
}

fn otel_asks(fleet: &Fleet, question: Question) -> String {
    let from = format!(
        "FROM otel_metrics_gauge WHERE MetricName = '{}' AND TimeUnix >= fromUnixTimestamp64Milli({}) \
         AND TimeUnix < fromUnixTimestamp64Milli({})",
        question.metric(fleet),
        fleet.begin,
        fleet.end()
    );
    let time = "toUnixTimestamp64Milli(TimeUnix)";
    let bucket = format!("intDiv({time}, 300000) * 300000 AS bucket");
    match question {
        Question::OneSeries => {
            format!("SELECT {time}, Value {from} AND Attributes['hostname'] = 'host_7' ORDER BY TimeUnix")
        }
        Question::FilteredMax => format!(
            "SELECT {bucket}, max(Value) {from} AND Attributes['region'] = 'eu-west-1' \
             GROUP BY bucket ORDER BY bucket"
        ),
        Question::RegionAverage => format!(
            "SELECT Attributes['region'] AS region, avg(Value) {from} GROUP BY region ORDER BY region"
        ),
        Question::HostP99 => format!(
            "SELECT Attributes['hostname'] AS hostname, quantileExactInclusive(0.99)(Value) {from} \
             GROUP BY hostname ORDER BY hostname"
        ),
        Question::RegionRate => format!(
            "SELECT region, intDiv(time, 300000) * 300000 AS bucket, \
             sum(if(value < last, value, value - last)) / 300 FROM (\
             SELECT Attributes['region'] AS region, {time} AS time, Value AS value, \
             lagInFrame(Value, 1, Value) OVER (PARTITION BY ServiceName, MetricName, Attributes \
             ORDER BY TimeUnix) AS last {from}) GROUP BY region, bucket ORDER BY region, bucket"
        ),
    }
}
