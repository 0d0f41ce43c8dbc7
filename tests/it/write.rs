//! `POST /api/v1/write`: what is taken, what is refused and how.

use luminate_tests::client::{Client, now, sample};
use luminate_tests::http::Response;
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn write_text(client: &Client, body: &str) -> Response {
    client.send("POST", "/api/v1/write", &JSON, body.as_bytes())
}

fn raw(metric: &str) -> Value {
    json!({"queryType": "range", "metricName": metric, "timeRange": {"relative": "7d"}})
}

#[test]
fn accepted_samples_are_in_the_next_answer() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 60_000;
    let answer = client
        .write(&[
            sample("api_latency", t, 145.5, &[("customer_id", "acme"), ("endpoint", "/users")]),
            sample("api_latency", t + 1, -0.25, &[("customer_id", "Ünï\u{1f600}\"\\\n")]),
            sample("api_latency", t + 2, 5e-324, &[]),
        ])
        .expect(200);
    assert_eq!(answer["accepted"], 3);
    assert_eq!(answer["rejected"], 0);
    assert_eq!(
        client.rows(&raw("api_latency")),
        [
            json!({"timestamp": t, "value": 145.5, "dimensions": {"customer_id": "acme", "endpoint": "/users"}}),
            json!({"timestamp": t + 1, "value": -0.25, "dimensions": {"customer_id": "Ünï\u{1f600}\"\\\n"}}),
            json!({"timestamp": t + 2, "value": 5e-324, "dimensions": {}}),
        ]
    );
}

/// Elements that are refused, with the code and a word that the message must have.
fn refused_elements() -> Vec<(String, &'static str, &'static str)> {
    let t = now();
    let many: Vec<String> = (0..21).map(|n| format!("\"k{n}\": \"v\"")).collect();
    let with = |dimensions: &str| {
        format!(r#"{{"name": "m", "timestamp": {t}, "value": 1, "dimensions": {dimensions}}}"#)
    };
    let at = |time: &str| format!(r#"{{"name": "m", "timestamp": {time}, "value": 1}}"#);
    let valued = |value: &str| format!(r#"{{"name": "m", "timestamp": {t}, "value": {value}}}"#);
    let named = |name: &str| format!(r#"{{"name": {name}, "timestamp": {t}, "value": 1}}"#);
    let long = "x".repeat(257);
    vec![
        (named("\"bad-name\""), "INVALID_METRIC_NAME", "name"),
        (named("\"\""), "INVALID_METRIC_NAME", "name"),
        (named("\"1m\""), "INVALID_METRIC_NAME", "name"),
        (named("\"m\\u0000\""), "INVALID_METRIC_NAME", "name"),
        (named(&format!("\"{long}\"")), "INVALID_METRIC_NAME", "name"),
        (named("7"), "", "name"),
        (named("null"), "", "name"),
        (format!(r#"{{"timestamp": {t}, "value": 1}}"#), "", "name"),
        (with(r#"{"bad-key": "v"}"#), "INVALID_DIMENSION_KEY", "bad-key"),
        (with(r#"{"": "v"}"#), "INVALID_DIMENSION_KEY", "key"),
        (with(r#"{"__name__": "v"}"#), "INVALID_DIMENSION_KEY", "__name__"),
        (with(r#"{"_tenant_id": "other"}"#), "INVALID_DIMENSION_KEY", "_tenant_id"),
        (with(&format!("{{{:?}: \"v\"}}", "k".repeat(129))), "INVALID_DIMENSION_KEY", "key"),
        (with(r#"{"k": ""}"#), "INVALID_DIMENSION_VALUE", "k"),
        (with(&format!(r#"{{"k": "{long}"}}"#)), "INVALID_DIMENSION_VALUE", "k"),
        (with(r#"{"k": 5}"#), "", "k"),
        (with(r#"{"k": null}"#), "", "k"),
        (with(r#"{"k": "1", "k": "2"}"#), "", "k"),
        (with("[]"), "", "dimensions"),
        (with(&format!("{{{}}}", many.join(","))), "TOO_MANY_DIMENSIONS", "21"),
        (valued("\"1\""), "", "value"),
        (valued("null"), "", "value"),
        (valued("\"NaN\""), "", "value"),
        (valued("1e999"), "INVALID_VALUE", "value"),
        (valued("-1e999"), "INVALID_VALUE", "value"),
        (valued("true"), "", "value"),
        (format!(r#"{{"name": "m", "timestamp": {t}}}"#), "", "value"),
        (at(&(t - 8 * 86_400_000).to_string()), "TIMESTAMP_OUT_OF_RANGE", "timestamp"),
        (at(&(t + 3_700_000).to_string()), "TIMESTAMP_OUT_OF_RANGE", "timestamp"),
        (at("1.5"), "INVALID_TIMESTAMP", "timestamp"),
        (at("-1"), "TIMESTAMP_OUT_OF_RANGE", "timestamp"),
        (at("99999999999999999999"), "", "timestamp"),
        (at("\"yesterday\""), "INVALID_TIMESTAMP", "timestamp"),
        (at("\"2026-13-01T00:00:00Z\""), "INVALID_TIMESTAMP", "timestamp"),
        (at("true"), "", "timestamp"),
        (format!(r#"{{"name": "m", "timestamp": {t}, "value": 1, "unit": "ms"}}"#), "", "unit"),
        (format!(r#"{{"name": "m", "name": "m", "timestamp": {t}, "value": 1}}"#), "", "name"),
        ("7".to_owned(), "", ""),
        ("null".to_owned(), "", ""),
        ("[]".to_owned(), "", ""),
    ]
}

#[test]
fn a_bad_sample_is_named_and_the_good_ones_beside_it_are_stored() {
    let worker = Worker::start();
    let client = worker.client();
    for (at, (element, code, word)) in refused_elements().into_iter().enumerate() {
        let metric = format!("good_{at}");
        let t = now() - 1_000;
        let good = |n: i64| sample(&metric, t + n, 1.0, &[("n", &n.to_string())]);
        let body = format!(r#"{{"metrics": [{}, {element}, {}]}}"#, good(0), good(1));
        let answer = write_text(&client, &body);
        assert_eq!(answer.status, 207, "{element}: {}", answer.text());
        let answer = answer.json();
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)), "{element}");
        let error = &answer["errors"][0];
        assert_eq!(error["index"], 1, "{element}: {answer}");
        let own = error["code"].as_str().unwrap();
        assert!(!own.is_empty() && (code.is_empty() || own == code), "{element}: {error}");
        let message = error["error"].as_str().unwrap();
        assert!(message.contains(word), "{element}: {message:?} doesn't name {word:?}");
        assert_eq!(client.count(&metric), 2, "{element}");
    }
    assert_eq!(client.count("m"), 0);
}

#[test]
fn a_request_without_a_good_sample_is_400_and_says_both_what_and_why() {
    let worker = Worker::start();
    let client = worker.client();
    let bad: Vec<Value> = (0..150).map(|_| sample("bad-name", now(), 1.0, &[])).collect();
    let answer = client.write(&bad);
    assert!(!answer.refused(400).is_empty());
    let body = answer.json();
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(0), &json!(150)));
    assert_eq!(body["errors"].as_array().unwrap().len(), 100, "the first hundred");
    assert_eq!(body["errors"][99]["index"], 99);
    assert_eq!(body["errors"][0]["metric"], "bad-name");
}

#[test]
fn json_broken_at_any_byte_stores_nothing_and_is_never_a_failure_of_the_server() {
    let worker = Worker::start();
    let client = worker.client();
    let whole = json!({"metrics": [
        sample("broken", now(), 1.5, &[("k", "v\u{e4}\n")]),
        sample("broken", now() - 1, -2e3, &[]),
    ]})
    .to_string();
    for end in 0..whole.len() {
        let answer = client.send("POST", "/api/v1/write", &JSON, &whole.as_bytes()[..end]);
        assert!(!answer.refused(400).is_empty(), "cut at {end}");
    }
    assert_eq!(client.count("broken"), 0);
    for at in 0..whole.len() {
        for byte in [0_u8, b'"', b'{', b']', 0xff] {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] = byte;
            let answer = client.send("POST", "/api/v1/write", &JSON, &bytes);
            assert!([200, 207, 400].contains(&answer.status), "{byte} at {at}: {}", answer.text());
        }
    }
}

#[test]
fn a_body_that_is_not_the_documented_object_is_refused() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now();
    for body in [
        "[]",
        "7",
        "null",
        "\"metrics\"",
        "{}",
        r#"{"metrics": {}}"#,
        r#"{"metrics": null}"#,
        r#"{"metric": []}"#,
        r#"{"metrics": [], "extra": 1}"#,
        r#"{"metrics": []} {}"#,
        r#"{"metrics": [], "metrics": []}"#,
        "\u{feff}{\"metrics\": []}",
        &format!(r#"{{"metrics": [{{"name": "m", "timestamp": {t}, "value": 01}}]}}"#),
        &format!(r#"{{"metrics": [{{"name": "m", "timestamp": {t}, "value": .5}}]}}"#),
        &format!(r#"{{"metrics": [{{"name": "m", "timestamp": {t}, "value": NaN}}]}}"#),
        &format!(r#"{{"metrics": [{{"name": "m", "timestamp": {t}, "value": 1,}}]}}"#),
    ] {
        assert!(!write_text(&client, body).refused(400).is_empty(), "{body}");
    }
    assert_eq!(client.count("m"), 0);
}

#[test]
fn deep_nesting_is_refused_without_harm() {
    let worker = Worker::start();
    let client = worker.client();
    for open in ["[", "{\"a\":"] {
        let body = format!("{{\"metrics\": {}", open.repeat(1_000_000));
        assert_eq!(write_text(&client, &body).status, 400);
    }
    client.store(&[sample("m", now(), 1.0, &[])]);
}

#[test]
fn times_are_milliseconds_or_rfc_3339_or_now() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() / 1_000 * 1_000 - 60_000;
    let text = |millis: i64, fraction: &str, zone: &str| {
        let time = jiff::Timestamp::from_second(millis / 1_000).unwrap();
        format!("{}{fraction}{zone}", time.strftime("%Y-%m-%dT%H:%M:%S"))
    };
    let two_hours = text(t + 7_200_000, ".25", "+02:00");
    let times = json!([t, text(t, ".001999", "Z"), two_hours]);
    for (n, time) in times.as_array().unwrap().iter().enumerate() {
        let element = json!({"name": "m", "timestamp": time, "value": n});
        assert_eq!(client.write(&[element]).expect(200)["accepted"], 1, "{time}");
    }
    let stamps: Vec<Value> = client.rows(&raw("m")).iter().map(|row| row["timestamp"].clone()).collect();
    assert_eq!(stamps, [json!(t), json!(t + 1), json!(t + 250)], "finer than a millisecond is cut off");

    let before = now();
    assert_eq!(client.write(&[json!({"name": "timeless", "value": 1})]).expect(200)["accepted"], 1);
    let stamp = client.rows(&raw("timeless"))[0]["timestamp"].as_i64().unwrap();
    assert!((before..=now()).contains(&stamp));
}

#[test]
fn the_last_write_of_a_series_and_millisecond_wins() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 1_000;
    client.store(&[
        sample("m", t, 1.0, &[("a", "1"), ("b", "2")]),
        sample("m", t, 2.0, &[("b", "2"), ("a", "1")]),
    ]);
    let values = |client: &Client| -> Vec<Value> {
        client.rows(&raw("m")).iter().map(|row| row["value"].clone()).collect()
    };
    assert_eq!(values(&client), [json!(2.0)], "the later element, however its keys are ordered");
    client.store(&[sample("m", t, 3.0, &[("a", "1"), ("b", "2")])]);
    assert_eq!(values(&client), [json!(3.0)]);
    assert_eq!(client.count("m"), 1, "a retried sample isn't counted twice");
}

#[test]
fn too_many_samples_or_bytes_are_413() {
    let worker = Setup::new().with("ingest.max_batch", 100).with("server.max_body_bytes", "100 KB").start();
    let client = worker.client();
    let at = now();
    let samples: Vec<Value> = (0..101).map(|n| sample("m", at - n, 1.0, &[])).collect();
    client.store(&samples[..100]);
    assert!(!client.write(&samples).refused(413).is_empty());
    let padding = " ".repeat(110_000);
    assert!(!write_text(&client, &format!(r#"{{"metrics": []{padding}}}"#)).refused(413).is_empty());
    assert_eq!(client.count("m"), 100);
}

#[test]
fn unknown_types_encodings_methods_and_paths_have_their_own_answers() {
    let worker = Worker::start();
    let client = worker.client();
    let body = json!({"metrics": [sample("m", now(), 1.0, &[])]}).to_string();
    let send = |headers: &[(&str, &str)]| client.send("POST", "/api/v1/write", headers, body.as_bytes());
    assert!(!send(&[("content-type", "text/csv")]).refused(415).is_empty());
    assert!(!send(&[JSON[0], ("content-encoding", "br")]).refused(415).is_empty());
    assert_eq!(send(&[("content-type", "application/json; charset=utf-8")]).status, 200);
    assert_eq!(send(&[JSON[0], ("content-encoding", "identity")]).status, 200);
    assert!(!client.get("/api/v1/write").refused(405).is_empty());
    assert!(!client.post("/api/v1/wrote", &json!({})).refused(404).is_empty());
}
