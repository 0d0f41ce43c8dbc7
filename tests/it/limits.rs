//! Budgets of requests, samples, series and metrics.

use luminate_tests::client::{now, sample};
use luminate_tests::http::Response;
use luminate_tests::token::{claims, signed};
use luminate_tests::worker::Setup;
use serde_json::{Value, json};

fn retry_after(answer: &Response) -> u64 {
    answer.header("retry-after").expect("429 says when to come back").parse().expect("whole seconds")
}

#[test]
fn requests_over_the_rate_are_429_and_other_tenants_go_on() {
    let worker =
        Setup::new().with_auth().with("rate_limits.write_rps", 5).with("rate_limits.query_rps", 5).start();
    let (one, two) = (worker.client_of("one"), worker.client_of("two"));
    let writes: Vec<Response> = (0..20).map(|n| one.write(&[sample("m", now() - n, 1.0, &[])])).collect();
    let refused: Vec<&Response> = writes.iter().filter(|answer| answer.status == 429).collect();
    assert!(writes[0].status == 200 && refused.len() >= 5, "{} refused", refused.len());
    assert_eq!(refused[0].refused(429), "RATE_LIMITED");
    assert!((1..=60).contains(&retry_after(refused[0])));
    let reads: Vec<Response> = (0..20).map(|_| one.get("/api/v1/metrics")).collect();
    assert!(reads.iter().any(|answer| answer.status == 429));
    assert_eq!(two.write(&[sample("m", now(), 1.0, &[])]).status, 200);
    assert_eq!(two.get("/api/v1/metrics").status, 200);
    assert_eq!(worker.client().get("/api/v1/health/live").status, 200);
    let stored = writes.iter().filter(|answer| answer.status == 200).count() as u64;
    assert!(stored < 20);
}

#[test]
fn a_flood_of_bad_tokens_takes_nothing_from_the_tenant_it_names() {
    let worker = Setup::new().with_auth().with("rate_limits.query_rps", 5).start();
    let forged = format!("{}x", luminate_tests::token::of("victim"));
    for _ in 0..50 {
        assert_eq!(worker.client().with_token(&forged).get("/api/v1/metrics").status, 401);
    }
    assert_eq!(worker.client_of("victim").get("/api/v1/metrics").status, 200);
}

#[test]
fn samples_over_the_rate_are_429_as_a_whole() {
    let worker = Setup::new().with_auth().with("rate_limits.metrics_per_second", 100).start();
    let client = worker.client_of("one");
    let batch = |name: &str| -> Vec<Value> { (0..100).map(|n| sample(name, now() - n, 1.0, &[])).collect() };
    client.store(&batch("first"));
    let answer = client.write(&batch("second"));
    assert_eq!(answer.refused(429), "RATE_LIMITED");
    assert!(retry_after(&answer) >= 1);
    assert_eq!(client.count("second"), 0);
}

#[test]
fn a_tier_has_budgets_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.yaml");
    std::fs::write(&file, "rate_limits: {query_rps: 1, tiers: {gold: {query_rps: 1000}}}\n").unwrap();
    let mut setup = Setup::new().with("auth.enabled", true);
    setup = setup.with("auth.jwt_secret", luminate_tests::token::SECRET).with("config", file.display());
    let worker = setup.start();
    let mut gold = claims("rich", &["read"]);
    gold["tier"] = json!("gold");
    let rich = worker.client().with_token(signed(&gold));
    assert!((0..20).all(|_| rich.get("/api/v1/metrics").status == 200));
    let poor = worker.client().with_token(signed(&claims("poor", &["read"])));
    assert!((0..20).any(|_| poor.get("/api/v1/metrics").status == 429));
}

#[test]
fn without_auth_no_rate_is_limited() {
    let worker = Setup::new().with("rate_limits.query_rps", 1).with("rate_limits.write_rps", 1).start();
    let client = worker.client();
    assert!((0..50).all(|n| client.write(&[sample("m", now() - n, 1.0, &[])]).status == 200));
    assert!((0..50).all(|_| client.get("/api/v1/metrics").status == 200));
}

#[test]
fn the_series_over_the_limit_is_refused_and_known_ones_go_on() {
    let mut worker = Setup::new().with("cardinality_limits.max_series_per_metric", 1_000).start();
    let series = |n: usize| sample("m", now() - 1, n as f64, &[("n", &n.to_string()), ("k", "v")]);
    let known: Vec<Value> = (0..1_000).map(series).collect();
    worker.client().store(&known);
    for _ in 0..2 {
        let client = worker.client();
        let answer = client.write(&[series(5), series(1_000), series(6)]).expect(207);
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)));
        assert_eq!(answer["errors"][0]["index"], 1);
        assert_eq!(answer["errors"][0]["code"], "CARDINALITY_LIMIT");
        client.store(&known);
        client.store(&[sample("other", now(), 1.0, &[("n", "1000")])]);
        let values = client.get("/api/v1/metrics/m/dimensions/n/values").expect(200);
        assert_eq!(values["total"], 1_000);
        worker.restart();
    }
}

#[test]
fn the_metric_over_the_limit_is_refused_and_known_ones_go_on() {
    let worker = Setup::new().with("cardinality_limits.max_metrics_per_tenant", 10).start();
    let client = worker.client();
    let metric = |n: usize| sample(&format!("m{n}"), now(), 1.0, &[]);
    client.store(&(0..10).map(metric).collect::<Vec<_>>());
    let answer = client.write(&[metric(3), metric(10)]).expect(207);
    assert_eq!(answer["errors"][0]["code"], "CARDINALITY_LIMIT");
    assert_eq!(client.get("/api/v1/metrics").expect(200)["metrics"].as_array().unwrap().len(), 10);
}

#[test]
fn the_limits_of_dimensions_are_configurable() {
    let worker = Setup::new()
        .with("cardinality_limits.max_dimensions", 2)
        .with("cardinality_limits.max_dimension_value", 3)
        .start();
    let client = worker.client();
    client.store(&[sample("m", now(), 1.0, &[("a", "äöü"), ("b", "1")])]);
    let answer = client.write(&[
        sample("m", now(), 1.0, &[("a", "1"), ("b", "1"), ("c", "1")]),
        sample("m", now(), 1.0, &[("a", "1234")]),
    ]);
    assert!(!answer.refused(400).is_empty());
    let errors = answer.json()["errors"].clone();
    assert_eq!(errors[0]["code"], "TOO_MANY_DIMENSIONS");
    assert_eq!(errors[1]["code"], "INVALID_DIMENSION_VALUE");
}
