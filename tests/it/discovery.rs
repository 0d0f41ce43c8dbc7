//! Listings and cardinality.

use luminate_tests::client::{Client, now, sample};
use luminate_tests::worker::Worker;
use serde_json::{Value, json};

fn three_metrics(client: &Client) {
    let t = now() - 1_000;
    let mut samples: Vec<Value> = (0..250)
        .map(|n| sample("requests", t, 1.0, &[("host", &format!("h{n:03}")), ("zone", ["a", "b"][n % 2])]))
        .collect();
    samples.push(sample("errors", t, 1.0, &[("host", "h000"), ("code", "ü")]));
    samples.push(sample("Zebra", t, 1.0, &[]));
    client.store(&samples);
}

/// All pages of a listing.
fn pages(client: &Client, path: &str, field: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = path.to_owned();
    loop {
        let body = client.get(&next).expect(200);
        pages.push(body[field].as_array().unwrap_or_else(|| panic!("no {field}: {body}")).clone());
        let Some(cursor) = body["nextCursor"].as_str() else { return pages };
        let cursor: String = cursor.bytes().map(|byte| format!("%{byte:02x}")).collect();
        next = format!("{path}{}cursor={cursor}", if path.contains('?') { '&' } else { '?' });
        assert!(pages.len() < 1_000, "the pages never end");
    }
}

#[test]
fn listings_are_sorted_and_bounded() {
    let worker = Worker::start();
    let client = worker.client();
    assert_eq!(client.get("/api/v1/metrics").expect(200)["metrics"], json!([]));
    three_metrics(&client);
    assert_eq!(client.get("/api/v1/metrics").expect(200)["metrics"], json!(["Zebra", "errors", "requests"]));
    let keys = client.get("/api/v1/metrics/requests/dimensions").expect(200);
    assert_eq!(keys["dimensions"], json!(["host", "zone"]));
    let values = client.get("/api/v1/metrics/errors/dimensions/code/values").expect(200);
    assert_eq!((&values["values"], &values["total"]), (&json!(["ü"]), &json!(1)));
    let values = client.get("/api/v1/metrics/requests/dimensions/host/values").expect(200);
    assert_eq!(values["values"].as_array().unwrap().len(), 100, "the default limit");
    assert_eq!(values["total"], 250);
    assert!(values["nextCursor"].is_string());
}

#[test]
fn pages_follow_one_another_without_gap_or_overlap() {
    let worker = Worker::start();
    let client = worker.client();
    three_metrics(&client);
    let all: Vec<Value> = (0..250).map(|n| json!(format!("h{n:03}"))).collect();
    for limit in [1, 7, 249, 250, 1_000] {
        let path = format!("/api/v1/metrics/requests/dimensions/host/values?limit={limit}");
        let pages = pages(&client, &path, "values");
        assert!(pages.iter().all(|page| page.len() <= limit));
        assert_eq!(pages.concat(), all, "in pages of {limit}");
    }
    let tens = pages(&client, "/api/v1/metrics/requests/dimensions/host/values?limit=4&prefix=h01", "values");
    assert_eq!(tens.concat(), all[10..20]);
    assert_eq!(pages(&client, "/api/v1/metrics?limit=1", "metrics").concat().len(), 3);
}

#[test]
fn what_does_not_exist_is_an_empty_listing_and_what_is_malformed_400() {
    let worker = Worker::start();
    let client = worker.client();
    three_metrics(&client);
    assert_eq!(client.get("/api/v1/metrics/nothing/dimensions").expect(200)["dimensions"], json!([]));
    let values = client.get("/api/v1/metrics/requests/dimensions/nothing/values").expect(200);
    assert_eq!((&values["values"], &values["total"]), (&json!([]), &json!(0)));
    for path in [
        "/api/v1/metrics/bad-name/dimensions",
        "/api/v1/metrics/requests/dimensions/bad-key/values",
        "/api/v1/metrics?limit=0",
        "/api/v1/metrics?limit=1001",
        "/api/v1/metrics?limit=many",
        "/api/v1/metrics?limits=1",
        "/api/v1/metrics?cursor=%00%ff",
        "/api/v1/cardinality?metric=bad-name",
        "/api/v1/cardinality?cursor=x",
    ] {
        assert!(!client.get(path).refused(400).is_empty(), "{path}");
    }
}

#[test]
fn cardinality_is_counted_by_metric_and_by_key_and_value() {
    let worker = Worker::start();
    let client = worker.client();
    three_metrics(&client);
    let body = client.get("/api/v1/cardinality").expect(200);
    let text = body.to_string();
    let positions: Vec<_> = ["\"requests\"", "\"Zebra\"", "\"errors\""].map(|name| text.find(name)).into();
    assert!(
        positions.iter().all(Option::is_some) && positions.is_sorted(),
        "largest first, then by name: {text}"
    );
    assert!(text.contains("250") && text.contains("1000000"), "series and the limits that apply: {text}");
    let text = client.get("/api/v1/cardinality?metric=requests").expect(200).to_string();
    assert!(text.contains("\"zone\"") && text.contains("125"), "series per key and value: {text}");
}
