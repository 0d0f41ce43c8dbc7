//! `POST /api/v1/prom/write`, in both versions of the protocol, with bodies encoded by an implementation that isn't
//! ours.

use luminate_tests::client::{Client, now};
use luminate_tests::http::Response;
use luminate_tests::remote_write::{
    HEADERS, Label, MetricMetadata, STALE, TimeSeries, WriteRequest, body, compressed, series, v2,
};
use luminate_tests::worker::{Setup, Worker};
use prost::Message;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/prom/write";

/// A version of the protocol.
#[derive(Debug, Clone, Copy)]
enum Version {
    V1,
    V2,
}

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

fn push(client: &Client, version: Version, timeseries: Vec<TimeSeries>) -> Response {
    match version {
        Version::V1 => client.send("POST", PATH, &HEADERS, &body(timeseries)),
        Version::V2 => client.send("POST", PATH, &v2::HEADERS, &v2::body(&v2::request(&timeseries))),
    }
}

/// Samples, histograms and exemplars that an answer says were written.
fn written(answer: &Response) -> [Option<u64>; 3] {
    ["samples", "histograms", "exemplars"].map(|what| {
        let name = format!("x-prometheus-remote-write-{what}-written");
        answer.header(&name).and_then(|count| count.parse().ok())
    })
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
    let answer = client.send("POST", PATH, &HEADERS, &sent);
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
    for (version, value) in [(Version::V1, 1.0), (Version::V2, 2.0)] {
        // Twice: the second time the worker knows the spelling.
        for _ in 0..2 {
            let sent = vec![series("m", &[("a", "1"), ("b", "2")], &[(t, value)])];
            assert_eq!(push(&client, version, sent).status, 204);
            assert_eq!(client.rows(&raw("m")).len(), 1, "one series, one millisecond, one sample");
            assert_eq!(client.rows(&raw("m"))[0]["value"], value);
        }
    }
    client.store(&[luminate_tests::client::sample("m", t, 3.0, &[("b", "2"), ("a", "1")])]);
    assert_eq!(client.rows(&raw("m")).len(), 1, "one series, one millisecond, one sample");
    assert_eq!(client.rows(&raw("m"))[0]["value"], 3.0);
}

#[test]
fn the_same_references_mean_what_their_own_request_says() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    for (at, host) in (0..).zip(["a", "b", "c", "a"]) {
        let request = v2::request(&[series("m", &[("host", host)], &[(t + at, 1.0)])]);
        assert_eq!(request.timeseries[0].labels_refs, [1, 2, 3, 4]);
        assert_eq!(client.send("POST", PATH, &v2::HEADERS, &v2::body(&request)).status, 204);
    }
    let hosts: Vec<Value> =
        client.rows(&raw("m")).iter().map(|row| row["dimensions"]["host"].clone()).collect();
    assert_eq!(hosts, ["a", "b", "c", "a"]);
}

#[test]
fn stale_markers_and_values_that_are_no_number_are_dropped_without_an_error() {
    for version in VERSIONS {
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
        let answer = push(&client, version, vec![series("m", &[], &samples)]);
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert_eq!(written(&answer), [Some(6), Some(0), Some(0)], "what is dropped isn't lost");
        assert_eq!(client.count("m"), 2);
        // What a target leaves behind that is gone.
        let answer = push(&client, version, vec![series("gone", &[], &[(t, f64::from_bits(STALE))])]);
        assert_eq!((answer.status, written(&answer)), (204, [Some(1), Some(0), Some(0)]));
    }
}

#[test]
fn what_is_refused_answers_400_after_the_good_samples_are_stored() {
    for version in VERSIONS {
        let worker = Worker::start();
        let client = worker.client();
        let t = now() - 10_000;
        let mut unnamed = series("m", &[("k", "v")], &[(t, 1.0)]);
        unnamed.labels.retain(|label| label.name != "__name__");
        let mut twice = series("m", &[("k", "v")], &[(t, 1.0)]);
        twice.labels.push(Label { name: "k".into(), value: "w".into() });
        let many: Vec<(String, String)> = (0..21).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        let many: Vec<(&str, &str)> =
            many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
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
            let sent = vec![series(&good, &[], &[(t, 1.0)]), bad, series(&good, &[("k", "v")], &[(t, 1.0)])];
            let answer = push(&client, version, sent);
            assert!(!answer.refused(400).is_empty(), "{at}");
            assert_eq!(written(&answer), [Some(2), Some(0), Some(0)], "{at}");
            assert_eq!(client.count(&good), 2, "{at}: {}", answer.text());
        }
        assert_eq!(client.count("m"), 0);
    }
}

#[test]
fn what_the_store_refuses_is_counted_too() {
    for version in VERSIONS {
        let worker = Setup::new().with("cardinality_limits.max_series_per_metric", 2).start();
        let client = worker.client();
        let t = now() - 10_000;
        let hosts = ["a", "b", "c", "d"].map(|host| series("m", &[("host", host)], &[(t, 1.0)]));
        let answer = push(&client, version, hosts.to_vec());
        assert_eq!(answer.refused(400), "CARDINALITY_LIMIT");
        assert_eq!(written(&answer), [Some(2), Some(0), Some(0)]);
        assert_eq!(client.count("m"), 2);
    }
}

#[test]
fn native_histograms_are_refused_and_exemplars_start_times_and_metadata_passed_over() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let mut request = v2::request(&[
        series("requests_total", &[("job", "api")], &[(t, 1.0), (t + 1_000, 2.0)]),
        series("latency_seconds", &[("job", "api")], &[]),
    ]);
    request.symbols.push("What was asked.".to_owned());
    let help_ref = u32::try_from(request.symbols.len()).unwrap() - 1;
    request.timeseries[0].metadata = Some(v2::Metadata { kind: 1, help_ref, unit_ref: 0 });
    request.timeseries[0].exemplars =
        vec![v2::Exemplar { labels_refs: vec![3, 4], value: 1.0, timestamp: t }];
    request.timeseries[0].samples[0].start_timestamp = t - 60_000;
    let sent = v2::body(&request);
    let answer = client.send("POST", PATH, &v2::HEADERS, &sent);
    assert_eq!((answer.status, written(&answer)), (204, [Some(2), Some(0), Some(0)]));
    request.timeseries[1].histograms = vec![v2::Histogram { count_int: 3, sum: 0.5, timestamp: t }];
    let answer = client.send("POST", PATH, &v2::HEADERS, &v2::body(&request));
    assert_eq!(answer.refused(400), "INVALID_SAMPLE");
    assert_eq!(written(&answer), [Some(2), Some(0), Some(0)]);
    let body = answer.json();
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(body["errors"][0]["metric"], "latency_seconds");
    assert_eq!(client.count("requests_total"), 2);
    assert_eq!(client.count("latency_seconds"), 0);
}

#[test]
fn a_request_that_contradicts_itself_is_400_and_says_where() {
    let worker = Worker::start();
    let client = worker.client();
    let good = v2::request(&[series("m", &[("k", "v")], &[(now(), 1.0)])]);
    let field = |change: fn(&mut v2::Request)| {
        let mut request = good.clone();
        change(&mut request);
        let answer = client.send("POST", PATH, &v2::HEADERS, &v2::body(&request));
        assert_eq!(answer.refused(400), "INVALID_BODY");
        assert_eq!(written(&answer), [Some(0); 3]);
        answer.json()["error"]["details"]["field"].clone()
    };
    assert_eq!(field(|request| request.timeseries[0].labels_refs[0] = 5), "timeseries[0].labels_refs");
    assert_eq!(field(|request| request.timeseries[0].labels_refs.push(0)), "timeseries[0].labels_refs");
    assert_eq!(field(|request| request.symbols[0] = "k".into()), "symbols[0]");
    assert_eq!(field(|request| request.symbols.clear()), "symbols");
    assert_eq!(client.count("m"), 0);
}

#[test]
fn broken_bodies_are_400_and_store_nothing() {
    let t = now() - 10_000;
    let timeseries = vec![series("m", &[("k", "v"), ("l", "w")], &[(t, 1.0), (t + 1, 2.0)])];
    let mut request = v2::request(&timeseries);
    let second = request.encode_to_vec();
    // A table of symbols without series is a message too: it says nothing.
    request.timeseries.clear();
    let table = request.encoded_len();
    let first = WriteRequest { timeseries, metadata: vec![] }.encode_to_vec();
    for (headers, plain, shortest) in [(HEADERS, first, 1), (v2::HEADERS, second, table + 1)] {
        let worker = Worker::start();
        let client = worker.client();
        let send = |bytes: &[u8]| client.send("POST", PATH, &headers, bytes);
        for end in shortest..plain.len() {
            assert_eq!(send(&compressed(&plain[..end])).status, 400, "cut at {end}");
        }
        assert_eq!(client.count("m"), 0);
        for at in 0..plain.len() {
            for byte in [0x00, 0x7f, 0xff] {
                let mut bytes = plain.clone();
                bytes[at] = byte;
                let status = send(&compressed(&bytes)).status;
                assert!([204, 400].contains(&status), "{byte:#x} at {at}: {status}");
            }
        }
        let whole = compressed(&plain);
        for end in 0..whole.len() {
            let status = send(&whole[..end]).status;
            assert!(status == 400 || end == 0, "compressed, cut at {end}: {status}");
        }
        assert_eq!(send(&plain).status, 400, "not compressed");
    }
}

#[test]
fn other_types_and_versions_are_415() {
    let worker = Worker::start();
    let client = worker.client();
    let one = vec![series("m", &[], &[(now(), 1.0)])];
    let (first, second) = (body(one.clone()), v2::body(&v2::request(&one)));
    let send = |kind: &str, sent: &[u8]| {
        client.send("POST", PATH, &[("content-type", kind), ("content-encoding", "snappy")], sent).status
    };
    assert_eq!(send("application/json", &first), 415);
    assert_eq!(send("application/x-protobuf;proto=io.prometheus.write.v3.Request", &second), 415);
    assert_eq!(send("application/x-protobuf;proto=prometheus.WriteRequest", &first), 204);
    assert_eq!(send("application/x-protobuf;proto=io.prometheus.write.v2.Request", &second), 204);
    // What is one message and called the other is no empty success.
    assert_eq!(send("application/x-protobuf", &second), 400);
    assert_eq!(send("application/x-protobuf;proto=io.prometheus.write.v2.Request", &first), 400);
}
