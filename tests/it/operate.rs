//! Probes, figures, the description, and the log.

use luminate_tests::client::{now, sample};
use luminate_tests::worker::{Backend, Setup, Worker};
use serde_json::{Value, json};

#[test]
fn health_names_backend_version_and_checks() {
    let worker = Worker::start();
    let health = worker.client().get("/api/v1/health").expect(200);
    let backend = match Backend::of_suite() {
        Backend::RocksDb => "rocksdb",
        Backend::ClickHouse => "clickhouse",
    };
    assert_eq!((&health["status"], &health["backend"]), (&json!("healthy"), &json!(backend)));
    assert!(health["version"].is_string() && health["checks"].is_object(), "{health}");
}

#[test]
fn the_page_of_figures_counts_what_happened() {
    let worker = Worker::start();
    let client = worker.client();
    client.store(&[sample("m", now(), 1.0, &[]), sample("m", now() - 1, 1.0, &[])]);
    assert_eq!(client.write(&[sample("bad-name", now(), 1.0, &[])]).status, 400);
    let page = client.get("/metrics");
    assert!(page.header("content-type").is_some_and(|kind| kind.contains("text")));
    let text = page.text();
    let has =
        |start: &str, end: &str| text.lines().any(|line| line.starts_with(start) && line.ends_with(end));
    assert!(has("luminate_samples_accepted", " 2"), "{text}");
    assert!(has("luminate_samples_rejected", " 1"), "{text}");
    for name in ["http_requests", "http_request_seconds_bucket", "storage_operation_seconds", "build_info"] {
        assert!(text.contains(&format!("luminate_{name}")), "no {name}: {text}");
    }
}

#[test]
fn the_figures_may_have_a_port_of_their_own() {
    let port = luminate_tests::worker::free_address().port();
    let worker = Setup::new().with("metrics.port", port).start();
    assert_eq!(worker.client().get("/metrics").status, 404);
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    assert_eq!(luminate_tests::client::Client::new(address).get("/metrics").status, 200);
}

/// Every path that the contract names.
const PATHS: [&str; 20] = [
    "/api/v1/write",
    "/api/v1/prom/write",
    "/api/v1/query",
    "/api/v1/query/batch",
    "/api/v1/query/explain",
    "/api/v1/queries",
    "/api/v1/queries/{id}",
    "/api/v1/metrics",
    "/api/v1/metrics/{name}/dimensions",
    "/api/v1/metrics/{name}/dimensions/{key}/values",
    "/api/v1/cardinality",
    "/api/v1/admin/metrics/{name}",
    "/api/v1/admin/retention",
    "/api/v1/admin/usage",
    "/api/v1/admin/backup",
    "/api/v1/admin/backup/{name}",
    "/api/v1/health",
    "/api/v1/health/live",
    "/api/v1/health/ready",
    "/api/v1/health/startup",
];

#[test]
fn the_description_has_every_path_and_resolves() {
    let worker = Worker::start();
    let description = worker.client().get("/api/v1/openapi.json").expect(200);
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for path in PATHS {
        let operations = description["paths"][path].as_object();
        let operations = operations.unwrap_or_else(|| panic!("{path} isn't described"));
        for (method, operation) in operations {
            assert!(
                operation["responses"].as_object().is_some_and(|answers| !answers.is_empty()),
                "{method} {path}"
            );
        }
    }
    let mut references = Vec::new();
    collect_references(&description, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference inside the document");
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.push(reference.clone());
            }
            object.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

#[test]
fn described_paths_answer_and_undescribed_methods_do_not() {
    let worker = Worker::start();
    let client = worker.client();
    let description = client.get("/api/v1/openapi.json").expect(200);
    for (path, operations) in description["paths"].as_object().unwrap() {
        let concrete = path.replace("{name}", "m").replace("{key}", "k").replace("{id}", "x");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let answer = client.send(method, &concrete, &[], &[]);
            let described = operations.get(method.to_ascii_lowercase()).is_some();
            assert_eq!(answer.status != 405, described, "{method} {path}: {}", answer.status);
            assert!(answer.status < 500, "{method} {path}: {}", answer.text());
            let responses = &operations[method.to_ascii_lowercase()]["responses"];
            let class = format!("{}XX", answer.status / 100);
            let known = responses.get(answer.status.to_string()).or_else(|| responses.get(class));
            assert!(
                !described || known.is_some(),
                "{method} {path} answers {}, which isn't described",
                answer.status
            );
        }
    }
}

#[test]
fn requests_have_ids_and_one_line_of_log_each() {
    let worker = Setup::new().with("logging.level", "debug").start();
    let client = worker.client();
    let answer = client.send("GET", "/api/v1/metrics", &[("x-request-id", "my-own-id")], &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.header("x-request-id").is_some(), "{:?}", answer.headers);
    client.store(&[sample("canary_metric", now(), 1.0, &[("k", "canary_value")])]);
    let log = worker.log();
    assert!(log.contains("/api/v1/metrics"), "{log}");
    assert!(!log.contains("canary_value"), "bodies are never logged");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[test]
fn the_start_log_warns_when_auth_is_off_and_only_then() {
    let warns =
        |log: &str| log.lines().any(|line| line.contains("WARN") && line.to_lowercase().contains("auth"));
    assert!(warns(&Worker::start().log()));
    assert!(!warns(&Setup::new().with_auth().start().log()));
}
