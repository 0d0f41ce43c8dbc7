//! OpenTelemetry's metrics, over HTTP and gRPC on one port, with OpenTelemetry's own SDK for Python too.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use luminate_tests::client::{Client, now};
use luminate_tests::token;
use luminate_tests::worker::{Setup, Worker, free_address};
use serde_json::{Value, json};

fn raw(metric: &str) -> Value {
    json!({"queryType": "range", "metricName": metric, "timeRange": {"relative": "1h"}})
}

/// A gauge of one point as JSON.
fn gauge(name: &str, millis: i64, attributes: &Value) -> Value {
    let point = json!({"timeUnixNano": format!("{millis}000000"), "asInt": "7", "attributes": attributes});
    json!({"name": name, "gauge": {"dataPoints": [point]}})
}

fn request(metrics: &[Value]) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let resource = json!({"attributes": [text("service.name", "api"), text("k8s.pod.uid", "u")]});
    let scope = json!({"name": "lib", "version": "1.2"});
    json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": metrics}]}]})
}

#[test]
fn json_is_stored_and_refused_points_are_counted() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let route = json!([{"key": "http.route", "value": {"stringValue": "/a"}}]);
    let reserved = json!([{"key": "__x", "value": {"boolValue": true}}]);
    let body = request(&[
        gauge("queue.depth", t, &route),
        gauge("queue.depth", t, &reserved),
        gauge("old", 1, &json!([])),
    ]);
    let answer = client.post("/v1/metrics", &body).expect(200);
    let partial = &answer["partialSuccess"];
    assert_eq!(partial["rejectedDataPoints"], "2", "{answer}");
    assert!(
        partial["errorMessage"].as_str().is_some_and(|why| why.contains("INVALID_DIMENSION_KEY")),
        "{answer}"
    );
    let dimensions = json!({"http_route": "/a", "service_name": "api"});
    assert_eq!(
        client.rows(&raw("queue_depth")),
        [json!({"timestamp": t, "value": 7.0, "dimensions": dimensions})]
    );
    assert_eq!(client.post("/v1/metrics", &json!({})).expect(200), json!({}));
}

#[test]
fn refusals_are_statuses_in_the_clients_own_form() {
    let worker = Setup::new().with_auth().with("ingest.max_batch", 1).start();
    let client = worker.client_of("acme");
    let t = now() - 10_000;
    let two = request(&[gauge("a", t, &json!([])), gauge("b", t, &json!([]))]);
    let too_many = client.post("/v1/metrics", &two);
    assert_eq!(too_many.status, 413);
    let status: Value = serde_json::from_str(&too_many.text()).expect("JSON");
    assert_eq!((&status["code"], status["error"].is_null()), (&json!(8), true), "{status}");
    let protobuf = [("content-type", "application/x-protobuf")];
    let broken = client.send("POST", "/v1/metrics", &protobuf, b"\x0A\x05");
    assert_eq!((broken.status, broken.header("content-type")), (400, Some("application/x-protobuf")));
    // google.rpc.Status: code 3, then the message.
    assert!(broken.text().starts_with("\u{8}\u{3}\u{12}"), "{:?}", broken.text());
    let nobody = worker.client().send("POST", "/v1/metrics", &protobuf, b"");
    assert_eq!((nobody.status, nobody.header("content-type")), (401, Some("application/x-protobuf")));
    assert!(nobody.header("www-authenticate").is_some());
    assert_eq!(client.count("a") + client.count("b"), 0);
}

#[test]
fn what_of_resource_and_scope_becomes_a_dimension_is_configured() {
    let worker = Setup::new()
        .with("ingest.otlp.resource_attributes", "k8s.*")
        .with("ingest.otlp.scope_attributes", "name")
        .with("ingest.otlp.metric_suffixes", false)
        .start();
    let client = worker.client();
    let t = now() - 10_000;
    let mut counter = gauge("x", t, &json!([]));
    let points = counter["gauge"]["dataPoints"].take();
    let counter = json!({"name": "jobs", "unit": "s", "sum": {
        "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": points,
    }});
    assert_eq!(client.post("/v1/metrics", &request(&[counter])).expect(200), json!({}));
    assert_eq!(
        client.rows(&raw("jobs"))[0]["dimensions"],
        json!({"k8s_pod_uid": "u", "otel_scope_name": "lib"})
    );
    for (key, value) in
        [("resource_attributes", "a.*.*"), ("scope_attributes", "**"), ("metric_suffixes", "some")]
    {
        let key = format!("ingest.otlp.{key}");
        let (status, said) = Setup::new().with(&key, value).run(&[]);
        assert!(!status.success() && said.contains(&key) && said.contains(value), "{said}");
    }
}

/// Lets the SDK export, and looks at what came.
fn exports(address: &str, client: &Client, certificate: Option<&Path>) {
    let python = luminate_tests::python::interpreter();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/otlp.py");
    let mut command = Command::new(python);
    command.args([script, address, &token::of("acme")]).args(certificate);
    // What Python's requests would trust instead of the certificate that it is given.
    command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
    let output = command.output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "everything holds");
    if certificate.is_some() {
        return;
    }
    let values = |metric: &str, wanted: Value| {
        let rows = client.rows(&raw(metric));
        let rows = rows.iter().filter(|row| row["dimensions"] == wanted);
        rows.map(|row| row["value"].as_f64().expect("a number")).collect::<Vec<_>>()
    };
    for way in ["http", "grpc"] {
        let all = json!({"service_name": way, "http_route": "/a", "ok": "true", "codes": "[1,2]"});
        let of = json!({"service_name": way});
        let bucket = |le: &str| json!({"service_name": way, "le": le});
        // The provider's end exports once more.
        assert_eq!(values(&format!("{way}_requests_total"), all)[..2], [3.0, 6.0]);
        assert_eq!(values(&format!("{way}_queue_depth"), of.clone())[..2], [-2.0, -4.0]);
        assert_eq!(values(&format!("{way}_load_ratio"), of.clone())[..2], [0.25, 0.25]);
        let latency = format!("{way}_latency_seconds");
        assert_eq!(values(&format!("{latency}_bucket"), bucket("0.1"))[..2], [1.0, 2.0]);
        assert_eq!(values(&format!("{latency}_bucket"), bucket("+Inf"))[..2], [2.0, 4.0]);
        assert_eq!(values(&format!("{latency}_sum"), of.clone())[..2], [0.5625, 1.125]);
        assert_eq!(values(&format!("{latency}_max"), of.clone())[..2], [0.5, 0.5]);
        let size = format!("{way}_size_bytes");
        assert_eq!(values(&format!("{size}_bucket"), bucket("1"))[..2], [1.0, 2.0]);
        assert_eq!(values(&format!("{size}_bucket"), bucket("4"))[..2], [2.0, 4.0]);
        assert_eq!(values(&format!("{size}_count"), of)[..2], [2.0, 4.0]);
        let deltas =
            json!({"service_name": format!("{way}_d"), "http_route": "/a", "ok": "true", "codes": "[1,2]"});
        assert_eq!(values(&format!("{way}_d_requests_delta"), deltas), [3.0, 3.0]);
        assert!(client.rows(&raw(&format!("{way}_d_requests_total"))).is_empty());
        // What was refused held up nothing else.
        assert!(client.rows(&raw(&format!("{way}_part_requests_total"))).is_empty());
        assert!(client.count(&format!("{way}_part_load_ratio")) >= 2);
    }
}

#[test]
fn opentelemetrys_own_sdk_exports_over_http_and_grpc() {
    let worker = Setup::new().with_auth().start();
    exports(&worker.address().to_string(), &worker.client_of("acme"), None);
    assert!(worker.client_of("other").rows(&raw("http_load_ratio")).is_empty());
}

#[test]
fn the_same_goes_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let address = free_address();
    let worker = Setup::new()
        .with_auth()
        .with("server.tls.cert_file", certificate.display())
        .with("server.tls.key_file", key.display())
        .start_at(address);
    wait_for(address);
    exports(&format!("localhost:{}", address.port()), &worker.client_of("acme"), Some(&certificate));
}

/// Waits until somebody listens; what comes before the store is open is sent again by the SDK.
fn wait_for(address: SocketAddr) {
    for _ in 0..600 {
        if TcpStream::connect(address).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("nobody listens at {address}");
}
