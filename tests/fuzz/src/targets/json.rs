//! The JSON write body, against a tree and the rules read off it one by one.

use luminate_worker::ingest::json::{JsonError, decode};
use luminate_worker::ingest::timestamp::parse_rfc3339;

use crate::json::Json;
use crate::rows::{NOW, Read, Row, row, rules, twice};

/// Words of such bodies.
pub const WORDS: &[&str] = &[
    "{\"metrics\":[",
    "\"name\":",
    "\"timestamp\":",
    "\"value\":",
    "\"dimensions\":{",
    "1767225600000",
    "\"2026-01-01T00:00:00Z\"",
    "\\u0061",
    "\\ud83d\\ude00",
    "1e999",
    "-0.0",
    "null",
    "true",
];

/// Compares what is read with what the tree says.
pub fn check(body: &[u8]) {
    let tree = Json::read(body);
    agrees_with_library(body, tree.as_ref());
    let read = twice(body.len(), |lookup| decode(body, &rules(), lookup));
    match (read, tree.as_ref().and_then(expected)) {
        (Ok(read), Some(expected)) => assert_eq!(read, expected),
        (Err(JsonError::Syntax(_)), None) => assert!(tree.is_none(), "a document is called malformed"),
        (Err(_), None) => {}
        (read, expected) => panic!("{read:?} against {expected:?}"),
    }
}

/// The reference is itself compared with a library that many use.
fn agrees_with_library(body: &[u8], tree: Option<&Json>) {
    if tree.is_some_and(Json::overflows) {
        return;
    }
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(body) {
        assert!(tree.is_none() || error.to_string().starts_with("number out of range"), "{error}");
    } else {
        assert!(tree.is_some());
    }
}

fn expected(tree: &Json) -> Option<Read> {
    let Json::Object(members) = tree else { return None };
    let [(name, Json::List(elements))] = members.as_slice() else { return None };
    if name != "metrics" || elements.len() > rules().max_batch {
        return None;
    }
    let rows: Vec<Row> = elements.iter().filter_map(element).collect();
    let refused = (elements.len() - rows.len()) as u64;
    Some(Read { rows, refused, dropped: 0 })
}

fn element(element: &Json) -> Option<Row> {
    let members = element.members()?;
    if !members.iter().all(|(name, _)| ["name", "timestamp", "value", "dimensions"].contains(&name.as_str()))
    {
        return None;
    }
    let time = element.get("timestamp").map_or(Some(NOW), time)?;
    let value = element.get("value")?.number().filter(|value| value.is_finite())?;
    let mut pairs = Vec::new();
    if let Some(dimensions) = element.get("dimensions") {
        for (key, value) in dimensions.members()? {
            pairs.push((key.clone(), value.text()?.to_owned()));
        }
    }
    let row = row(element.get("name")?.text()?, &pairs, time, value)?;
    rules().accepts(time).then_some(row)
}

fn time(time: &Json) -> Option<i64> {
    match time {
        Json::Number(text) if text.trim_start_matches('-').len() <= 18 => text.parse().ok(),
        Json::Text(text) => parse_rfc3339(text),
        _ => None,
    }
}

/// Bodies as clients send them.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"metrics":[{"name":"api_latency","timestamp":1767225600000,"value":145.5,"dimensions":{"customer_id":"acme","host":"a"}},{"name":"api_latency","timestamp":1767225600000,"value":145.5,"dimensions":{"customer_id":"acme","host":"a"}}]}"#,
        r#"{ "metrics" : [ { "value": -0.0, "timestamp": "2026-01-01T00:00:00.0019Z", "name": "\u0061" } , {"name":"b","value":1e2}] }"#,
        r#"{"metrics":[{"name":"a","dimensions":{"k":"\"}{","l":"ü😀"},"value":1},{"name":"a","value":1,"value":1},7,{"tags":[]}]}"#,
        r#"{"metrics":[]}"#,
    ];
    bodies.map(|body| body.as_bytes().to_vec()).into()
}
