//! `POST /api/v1/import/prometheus`, with what Prometheus' own client for Python shows.

use std::process::Command;

use luminate_tests::client::now;
use luminate_tests::worker::Worker;
use serde_json::{Value, json};

fn raw(metric: &str) -> Value {
    json!({"queryType": "range", "metricName": metric, "timeRange": {"relative": "1h"}})
}

#[test]
fn what_a_target_shows_is_stored() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let body = format!(
        "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
         http_requests_total{{method=\"post\",path=\"/a\\\"b\\\"\"}} 1027 {t}\n\
         http_requests_total{{method=\"post\",path=\"/a\\\"b\\\"\"}} 1028 {}\n\
         latency_seconds{{quantile=\"0.5\"}} NaN {t}\n",
        t + 1_000
    );
    let answer = client.send("POST", "/api/v1/import/prometheus", &[], body.as_bytes());
    assert_eq!(answer.status, 204, "{}", answer.text());
    let row = |at: i64, value: f64| json!({"timestamp": at, "value": value, "dimensions": {"method": "post", "path": "/a\"b\""}});
    assert_eq!(client.rows(&raw("http_requests_total")), [row(t, 1_027.0), row(t + 1_000, 1_028.0)]);
    assert!(client.rows(&raw("latency_seconds")).is_empty());
}

#[test]
fn prometheus_own_client_shows_what_is_stored_in_both_dialects() {
    let worker = Worker::start();
    let client = worker.client();
    let python = luminate_tests::python::interpreter();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/prometheus.py");
    let output = Command::new(python).args([script, &format!("http://{}", worker.address())]).output();
    let output = output.expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "everything holds");
    for dialect in ["text", "openmetrics"] {
        let last = |metric: &str| {
            let rows = client.rows(&raw(&format!("{dialect}_{metric}")));
            assert_eq!(rows.len(), 1, "{dialect} {metric}");
            rows[0].clone()
        };
        let jobs = last("jobs_total");
        assert_eq!((&jobs["value"], &jobs["dimensions"]), (&json!(3.5), &json!({"kind": "a \"b\"\\c\nd"})));
        assert_eq!(last("temperature")["value"], -12.25);
        let buckets = client.rows(&raw(&format!("{dialect}_latency_seconds_bucket")));
        let counts: Vec<_> =
            buckets.iter().map(|row| (row["dimensions"]["le"].clone(), row["value"].clone())).collect();
        assert!(
            counts.contains(&(json!("0.1"), json!(1.0))) && counts.contains(&(json!("+Inf"), json!(2.0)))
        );
    }
}
