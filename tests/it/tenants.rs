//! Tenants never see one another, whatever their names and however warm the caches.

use luminate_tests::client::{Client, now, sample};
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

/// Names that are prefixes of one another, differ in case only, or would meet in a careless key.
fn names() -> Vec<String> {
    let mut names: Vec<String> =
        ["a", "aa", "a_", "a-", "A", "a_m", "_", "-", "0", "default", "_tenant_id"].map(str::to_owned).into();
    names.push("a".repeat(63));
    names.push("a".repeat(64));
    names
}

fn question(metric: &str) -> Value {
    json!({"queryType": "aggregate", "metricName": metric, "aggregation": "sum", "timeRange": {"relative": "1h"}})
}

/// Gives every tenant the same series, one metric and one value of its own.
fn inhabit(worker: &Worker) -> Vec<(String, Client)> {
    let t = now() - 1_000;
    let clients: Vec<_> = names().into_iter().map(|name| (name.clone(), worker.client_of(&name))).collect();
    for (at, (_, client)) in clients.iter().enumerate() {
        client.store(&[
            sample("m", t, at as f64 + 1.0, &[("k", "v"), ("own", &format!("secret{at}"))]),
            sample(&format!("metric_of_{at}"), t, 1.0, &[("k", "v")]),
        ]);
    }
    clients
}

fn sees_only_its_own(at: usize, client: &Client) {
    for _ in 0..2 {
        assert_eq!(client.number(&question("m")), at as f64 + 1.0);
        assert_eq!(
            client.get("/api/v1/metrics").expect(200)["metrics"],
            json!(["m", format!("metric_of_{at}")])
        );
        let values = client.get("/api/v1/metrics/m/dimensions/own/values").expect(200);
        assert_eq!((&values["values"], &values["total"]), (&json!([format!("secret{at}")]), &json!(1)));
    }
    let neighbour = if at == 0 { 1 } else { at - 1 };
    assert!(client.rows(&question(&format!("metric_of_{neighbour}"))).is_empty());
    for path in [
        format!("/api/v1/metrics/metric_of_{neighbour}/dimensions"),
        format!("/api/v1/metrics/metric_of_{neighbour}/dimensions/k/values"),
        format!("/api/v1/cardinality?metric=metric_of_{neighbour}"),
        "/api/v1/cardinality?metric=m".to_owned(),
        "/api/v1/cardinality".to_owned(),
        "/api/v1/admin/usage".to_owned(),
        "/api/v1/queries".to_owned(),
    ] {
        let text = client.get(&path).text();
        for other in (0..names().len()).filter(|other| *other != at) {
            assert!(!text.contains(&format!("\"secret{other}\"")), "{path}: {text}");
            assert!(
                !text.contains(&format!("\"metric_of_{other}\"")) || path.contains("metric_of"),
                "{path}: {text}"
            );
        }
    }
    let plan = client.post("/api/v1/query/explain", &question(&format!("metric_of_{neighbour}"))).expect(200);
    assert!(!plan.to_string().contains("\"series\":1"), "{plan}");
}

#[test]
fn a_tenant_sees_only_its_own_before_and_after_a_restart() {
    let mut worker = Setup::new().with_auth().start();
    for (at, (_, client)) in inhabit(&worker).iter().enumerate() {
        sees_only_its_own(at, client);
    }
    worker.restart();
    for (at, name) in names().iter().enumerate() {
        sees_only_its_own(at, &worker.client_of(name));
    }
}

#[test]
fn a_tenant_changes_only_its_own() {
    let worker = Setup::new().with_auth().start();
    let clients = inhabit(&worker);
    let (_, first) = &clients[0];
    assert_eq!(first.delete("/api/v1/admin/metrics/m").expect(200)["samples"], 1);
    assert_eq!(first.delete("/api/v1/admin/metrics/metric_of_1").expect(200)["samples"], 0);
    let short = json!({"default": "1ms", "metrics": {}});
    let shorter = first.put("/api/v1/admin/retention", &short);
    assert!([200, 400].contains(&shorter.status), "{}", shorter.text());
    for (at, (_, client)) in clients.iter().enumerate().skip(1) {
        sees_only_its_own(at, client);
        assert_eq!(client.get("/api/v1/admin/retention").expect(200)["default"], "30d");
    }
}

#[test]
fn the_page_of_figures_names_no_tenant_metric_or_value() {
    let worker = Setup::new().with_auth().start();
    worker.client_of("canary-tenant").store(&[sample(
        "canary_metric",
        now(),
        1.0,
        &[("canary_key", "canary_value")],
    )]);
    let _ = worker.client_of("canary-tenant").get("/api/v1/metrics/canary_path/dimensions");
    let page = worker.client().get("/metrics").text();
    assert!(page.contains("luminate_"), "{page}");
    assert!(!page.contains("canary"), "{page}");
    for path in ["/api/v1/health", "/api/v1/openapi.json"] {
        assert!(!worker.client().get(path).text().contains("canary"), "{path}");
    }
}

#[test]
fn hostile_names_in_paths_reach_nothing() {
    let worker = Setup::new().with_auth().start();
    inhabit(&worker);
    let client = worker.client_of("a");
    for name in [
        "..",
        "%2e%2e",
        "..%2f..%2f",
        "%00",
        "m%00",
        "a%2fm",
        "%ff",
        "m;aa",
        "*",
        "m'--",
        "%",
        &"m".repeat(10_000),
    ] {
        for path in [
            format!("/api/v1/metrics/{name}/dimensions"),
            format!("/api/v1/metrics/m/dimensions/{name}/values"),
            format!("/api/v1/metrics?prefix={name}"),
            format!("/api/v1/metrics?cursor={name}"),
            format!("/api/v1/cardinality?metric={name}"),
            format!("/api/v1/queries/{name}"),
        ] {
            let answer = client.get(&path);
            assert!(answer.status < 500, "{path}: {}", answer.text());
            assert!(!answer.text().contains("secret"), "{path}: {}", answer.text());
        }
        assert!(client.delete(&format!("/api/v1/admin/metrics/{name}")).status < 500);
    }
    assert_eq!(client.number(&question("m")), 1.0);
}
