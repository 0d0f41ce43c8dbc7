//! `POST /api/v1/query/batch`: answers in order, limits, what fails alone and what fails together, and hanging up.

use std::time::{Duration, Instant};

use luminate_tests::client::{Client, now, sample};
use luminate_tests::http::{Connection, Response};
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/query/batch";
const PATIENCE: Duration = Duration::from_secs(30);

/// An hour ago, at a full minute.
fn base() -> i64 {
    now() / 60_000 * 60_000 - 3_600_000
}

fn ask(metric: &str, aggregation: &str, t: i64) -> Value {
    json!({"queryType": "aggregate", "metricName": metric, "aggregation": aggregation,
           "timeRange": {"start": t, "end": t + 3_000_000}})
}

fn batch(client: &Client, queries: &[Value]) -> Response {
    client.post(PATH, &json!({ "queries": queries }))
}

fn answers(client: &Client, queries: &[Value]) -> Vec<Value> {
    let body = batch(client, queries).expect(200);
    let answers = body["answers"].as_array().unwrap_or_else(|| panic!("no answers: {body}"));
    assert_eq!(answers.len(), queries.len());
    answers.clone()
}

fn codes(answers: &[Value]) -> Vec<&str> {
    answers.iter().map(|answer| answer["error"]["code"].as_str().unwrap_or("answered")).collect()
}

/// What takes an engine a while: many samples, of which exact percentiles are wanted.
fn much(client: &Client, t: i64) -> Value {
    for round in 0..20 {
        let one = |n: i64| sample("much", t + round * 10_000 + n, n as f64, &[("n", &(n % 100).to_string())]);
        client.store(&(0..10_000).map(one).collect::<Vec<_>>());
    }
    let mut query = ask("much", "p99", t);
    query["groupBy"] = json!(["n"]);
    query["interval"] = json!("1s");
    query
}

#[test]
fn each_is_answered_as_if_alone_and_in_order() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    let samples: Vec<Value> = (0..2_000)
        .map(|n| {
            sample(
                ["a", "b"][n % 2],
                t + n as i64 * 1_000,
                n as f64,
                &[("k", "\"ü\n"), ("h", &format!("h{}", n % 10))],
            )
        })
        .collect();
    client.store(&samples);
    let range = json!({"start": t, "end": t + 3_000_000});
    let mut queries = vec![
        ask("b", "max", t),
        json!({"queryType": "range", "metricName": "a", "timeRange": range, "limit": 1_000}),
        ask("nothing", "sum", t),
        json!({"queryType": "rate", "metricName": "b", "timeRange": range, "groupBy": ["h"], "interval": "5m"}),
        json!({"queryType": "range", "metricName": "b", "timeRange": range, "filtersIn": {"h": ["h1", "h3"]}}),
        ask("a", "p95", t),
    ];
    queries.extend((0..94).map(|n| ask(["a", "b"][n % 2], "count", t + n as i64 * 1_000)));
    let plain = |mut answer: Value| {
        let took = answer["executionTimeMs"].take();
        assert!(took.is_number(), "{answer}");
        answer
    };
    let alone: Vec<Value> = queries.iter().map(|query| plain(client.query(query).expect(200))).collect();
    let together: Vec<Value> = answers(&client, &queries).into_iter().map(plain).collect();
    assert!(together == alone);
}

#[test]
fn a_malformed_question_refuses_all_and_is_named() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    let good = ask("m", "sum", t);
    let mut bad = good.clone();
    bad["limit"] = json!(0);
    let answer = batch(&client, &[good.clone(), good.clone(), good.clone(), bad]);
    assert_eq!(answer.refused(400), "INVALID_QUERY");
    assert_eq!(answer.json()["error"]["details"]["field"], "queries[3].limit");
    let unnamed = ask("bad-name", "sum", t);
    let answer = batch(&client, &[good.clone(), unnamed]);
    assert_eq!(answer.refused(400), "INVALID_METRIC_NAME");
    assert_eq!(answer.json()["error"]["details"]["field"], "queries[1].metricName");
    for queries in [Vec::new(), vec![good; 101]] {
        let answer = batch(&client, &queries);
        assert_eq!(answer.refused(400), "INVALID_QUERY");
        assert_eq!(answer.json()["error"]["details"]["field"], "queries");
    }
    for body in ["", "{", "[]", "7", "{\"queries\": [{}]}", "{\"queries\": {}}"] {
        let headers = [("content-type", "application/json")];
        assert!(!client.send("POST", PATH, &headers, body.as_bytes()).refused(400).is_empty(), "{body}");
    }
}

#[test]
fn one_that_fails_leaves_the_others_their_answers() {
    let worker = Setup::new().with("query_limits.max_scanned_samples", 1_000).start();
    let (client, t) = (worker.client(), base());
    let samples: Vec<Value> = (0..2_000).map(|n| sample("large", t + n, 1.0, &[])).collect();
    client.store(&samples);
    client.store(&[sample("small", t, 7.0, &[])]);
    let (large, small) = (ask("large", "p50", t), ask("small", "sum", t));
    let answers = answers(&client, &[small.clone(), large, small]);
    assert_eq!(codes(&answers), ["answered", "QUERY_TOO_LARGE", "answered"]);
    assert!(answers[1]["error"]["message"].as_str().unwrap().contains("1000"), "{}", answers[1]);
    assert!([0, 2].iter().all(|at| answers[*at]["results"][0]["value"] == 7.0));
}

#[test]
fn every_query_counts_against_the_rate() {
    let worker = Setup::new().with_auth().with("rate_limits.query_rps", 10).start();
    let (one, two) = (worker.client_of("one"), worker.client_of("two"));
    let query = ask("m", "sum", base());
    assert_eq!(batch(&one, &vec![query.clone(); 10]).status, 200);
    let answer = batch(&one, &vec![query.clone(); 10]);
    assert_eq!(answer.refused(429), "RATE_LIMITED");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(batch(&two, &vec![query; 100]).status, 200, "paid off afterwards");
    assert_eq!(two.get("/api/v1/metrics").refused(429), "RATE_LIMITED");
}

#[test]
fn siblings_wait_for_the_tenants_places() {
    let setup = Setup::new().with_auth().with("rate_limits.concurrent_queries", 1);
    let setup = setup.with("rate_limits.query_rps", 1_000).with("rate_limits.metrics_per_second", 10_000_000);
    let worker = setup.with("ingest.max_batch", 10_000).start();
    let (client, t) = (worker.client_of("one"), base());
    let query = much(&client, t);
    assert_eq!(codes(&answers(&client, &vec![query; 12])), ["answered"; 12]);
}

#[test]
fn siblings_wait_for_the_workers_places() {
    let worker = Setup::new().with("query_limits.max_concurrent", 4).with("ingest.max_batch", 10_000).start();
    let (client, t) = (worker.client(), base());
    let query = much(&client, t);
    assert_eq!(codes(&answers(&client, &vec![query; 24])), ["answered"; 24]);
}

#[test]
fn a_client_that_hangs_up_cancels_all() {
    let worker = Setup::new().with("ingest.max_batch", 10_000).start();
    let (client, t) = (worker.client(), base());
    let query = much(&client, t);
    let body = json!({ "queries": vec![query; 100] }).to_string();
    let json = [("content-type", "application/json")];
    let mut connection = Connection::open(worker.address()).expect("the worker listens");
    connection.send(&client.request("POST", PATH, &json, body.as_bytes())).expect("sent");
    let running = || client.get("/api/v1/queries").expect(200)["queries"].as_array().map_or(0, Vec::len);
    let waited = Instant::now();
    while running() == 0 {
        assert!(waited.elapsed() < PATIENCE, "none of the batch is at work");
    }
    drop(connection);
    let waited = Instant::now();
    // For a moment between two of them none runs, so none may for a while.
    let mut idle = 0;
    while idle < 20 {
        assert!(waited.elapsed() < PATIENCE, "the batch goes on");
        idle = if running() == 0 { idle + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(5));
    }
}
