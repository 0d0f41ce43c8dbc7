//! `POST /api/v1/prom/write`, with bodies encoded by an implementation that isn't ours.

use luminate_tests::client::{Client, now};
use luminate_tests::http::Response;
use luminate_tests::remote_write::{
    HEADERS, Label, MetricMetadata, STALE, TimeSeries, WriteRequest, body, compressed, series,
};
use luminate_tests::worker::Worker;
use prost::Message;
use serde_json::{Value, json};

fn push(client: &Client, timeseries: Vec<TimeSeries>) -> Response {
    client.send("POST", "/api/v1/prom/write", &HEADERS, &body(timeseries))
}

fn raw(metric: &str) -> Value {
    json!({"queryType": "range", "metricName": metric, "timeRange": {"relative": "1h"}})
}

#[test]
fn labels_become_dimensions_and_the_name_the_metric() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let request = WriteRequest {
        timeseries: vec![
            series("http_requests_total", &[("job", "api"), ("code", "200")], &[(t, 1.0), (t + 1_000, 2.5)]),
            series("job:rate:5m", &[("job", "api"), ("empty", "")], &[(t, -0.0)]),
            series("no_samples", &[("job", "api")], &[]),
        ],
        metadata: vec![MetricMetadata {
            kind: 1,
            metric_family_name: "http_requests_total".into(),
            help: "x".into(),
        }],
    };
    let sent = compressed(&request.encode_to_vec());
    let answer = client.send("POST", "/api/v1/prom/write", &HEADERS, &sent);
    assert_eq!(answer.status / 100, 2, "{}", answer.text());
    assert_eq!(
        client.rows(&raw("http_requests_total")),
        [
            json!({"timestamp": t, "value": 1.0, "dimensions": {"code": "200", "job": "api"}}),
            json!({"timestamp": t + 1_000, "value": 2.5, "dimensions": {"code": "200", "job": "api"}}),
        ]
    );
    let rows = client.rows(&raw("job_rate_5m"));
    assert_eq!(rows[0]["dimensions"], json!({"job": "api"}), "an empty label is no label");
    assert!(client.rows(&raw("no_samples")).is_empty());
}

#[test]
fn a_series_is_the_same_however_it_is_written() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    assert_eq!(push(&client, vec![series("m", &[("a", "1"), ("b", "2")], &[(t, 1.0)])]).status / 100, 2);
    client.store(&[luminate_tests::client::sample("m", t, 2.0, &[("b", "2"), ("a", "1")])]);
    assert_eq!(client.rows(&raw("m")).len(), 1, "one series, one millisecond, one sample");
    assert_eq!(client.rows(&raw("m"))[0]["value"], 2.0);
}

#[test]
fn stale_markers_and_values_that_are_no_number_are_dropped_without_an_error() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let samples = [
        (t, 1.0),
        (t + 1, f64::from_bits(STALE)),
        (t + 2, f64::NAN),
        (t + 3, f64::INFINITY),
        (t + 4, f64::NEG_INFINITY),
        (t + 5, 2.0),
    ];
    assert_eq!(push(&client, vec![series("m", &[], &samples)]).status / 100, 2);
    assert_eq!(client.count("m"), 2);
}

#[test]
fn what_is_refused_answers_400_after_the_good_samples_are_stored() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let mut unnamed = series("m", &[("k", "v")], &[(t, 1.0)]);
    unnamed.labels.retain(|label| label.name != "__name__");
    let mut twice = series("m", &[("k", "v")], &[(t, 1.0)]);
    twice.labels.push(Label { name: "k".into(), value: "w".into() });
    let many: Vec<(String, String)> = (0..21).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let bad = [
        unnamed,
        twice,
        series("m", &many, &[(t, 1.0)]),
        series("bad-name", &[], &[(t, 1.0)]),
        series("m", &[("bad-key", "v")], &[(t, 1.0)]),
        series("m", &[("__reserved", "v")], &[(t, 1.0)]),
        series("m", &[("_tenant_id", "v")], &[(t, 1.0)]),
        series("m", &[("k", &"v".repeat(257))], &[(t, 1.0)]),
        series("m", &[], &[(t - 8 * 86_400_000, 1.0)]),
        series("m", &[], &[(i64::MIN, 1.0)]),
    ];
    for (at, bad) in bad.into_iter().enumerate() {
        let good = format!("good_{at}");
        let answer = push(
            &client,
            vec![series(&good, &[], &[(t, 1.0)]), bad, series(&good, &[("k", "v")], &[(t, 1.0)])],
        );
        assert!(!answer.refused(400).is_empty(), "{at}");
        assert_eq!(client.count(&good), 2, "{at}: {}", answer.text());
    }
    assert_eq!(client.count("m"), 0);
}

#[test]
fn broken_bodies_are_400_and_store_nothing() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let plain = WriteRequest {
        timeseries: vec![series("m", &[("k", "v"), ("l", "w")], &[(t, 1.0), (t + 1, 2.0)])],
        metadata: vec![],
    };
    let plain = plain.encode_to_vec();
    let send = |bytes: &[u8]| client.send("POST", "/api/v1/prom/write", &HEADERS, bytes);
    for end in 1..plain.len() {
        assert_eq!(send(&compressed(&plain[..end])).status, 400, "cut at {end}");
    }
    assert_eq!(client.count("m"), 0);
    for at in 0..plain.len() {
        for byte in [0x00, 0x7f, 0xff] {
            let mut bytes = plain.clone();
            bytes[at] = byte;
            let status = send(&compressed(&bytes)).status;
            assert!([200, 204, 400].contains(&status), "{byte:#x} at {at}: {status}");
        }
    }
    let whole = compressed(&plain);
    for end in 0..whole.len() {
        let status = send(&whole[..end]).status;
        assert!(status == 400 || end == 0, "compressed, cut at {end}: {status}");
    }
    assert_eq!(send(&plain).status, 400, "not compressed");
}

#[test]
fn other_types_and_versions_are_415() {
    let worker = Worker::start();
    let client = worker.client();
    let sent = body(vec![series("m", &[], &[(now(), 1.0)])]);
    let send = |headers: &[(&str, &str)]| client.send("POST", "/api/v1/prom/write", headers, &sent).status;
    assert_eq!(send(&[("content-type", "application/json"), ("content-encoding", "snappy")]), 415);
    let second = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    assert_eq!(send(&[("content-type", second), ("content-encoding", "snappy")]), 415);
    let first = "application/x-protobuf;proto=prometheus.WriteRequest";
    assert_eq!(send(&[("content-type", first), ("content-encoding", "snappy")]) / 100, 2);
}
