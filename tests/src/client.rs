//! A user of the API, with or without a token.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http::{Connection, Response, request};

/// Unix milliseconds now.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292278994")
}

/// A sample as the write API takes it.
#[must_use]
pub fn sample(name: &str, timestamp: i64, value: f64, dimensions: &[(&str, &str)]) -> Value {
    let dimensions: serde_json::Map<_, _> =
        dimensions.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({"name": name, "timestamp": timestamp, "value": value, "dimensions": dimensions})
}

/// One user: an address and maybe a token. Each request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
}

impl Client {
    /// A user without a token.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None }
    }

    /// The same user with this token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { address: self.address, token: Some(token.into()) }
    }

    /// The bytes of a request of this user.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut all = headers.to_vec();
        if let Some(bearer) = &bearer {
            all.push(("authorization", bearer));
        }
        request(method, path, &all, body)
    }

    /// Sends a request on a new connection and reads its answer.
    #[must_use]
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut all = headers.to_vec();
        all.push(("connection", "close"));
        let mut connection = Connection::open(self.address).expect("the worker listens");
        // A server may answer and hang up before it has read all of a body that it refuses.
        let sent = connection.send(&self.request(method, path, &all, body));
        connection
            .receive()
            .unwrap_or_else(|error| panic!("{method} {path}: {error} (sending ended with {sent:?})"))
    }

    /// GET.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], &[])
    }

    /// DELETE.
    #[must_use]
    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, &[], &[])
    }

    /// POST of JSON.
    #[must_use]
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// PUT of JSON.
    #[must_use]
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Response {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Writes samples.
    #[must_use]
    #[track_caller]
    pub fn write(&self, samples: &[Value]) -> Response {
        self.post("/api/v1/write", &json!({"metrics": samples}))
    }

    /// Writes samples, all of which must be taken.
    #[track_caller]
    pub fn store(&self, samples: &[Value]) {
        for samples in samples.chunks(10_000) {
            let body = self.write(samples).expect(200);
            assert_eq!(body["accepted"], samples.len(), "{body}");
        }
    }

    /// Asks a question.
    #[must_use]
    #[track_caller]
    pub fn query(&self, query: &Value) -> Response {
        self.post("/api/v1/query", query)
    }

    /// The rows that answer a question.
    #[must_use]
    #[track_caller]
    pub fn rows(&self, query: &Value) -> Vec<Value> {
        let body = self.query(query).expect(200);
        body["results"].as_array().unwrap_or_else(|| panic!("no results: {body}")).clone()
    }

    /// The single number that answers an aggregate question without groups.
    #[must_use]
    #[track_caller]
    pub fn number(&self, query: &Value) -> f64 {
        let rows = self.rows(query);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0]["value"].as_f64().unwrap_or_else(|| panic!("no number: {rows:?}"))
    }

    /// How many samples of `metric` were written in the last week or will be in the next hour.
    #[must_use]
    #[track_caller]
    pub fn count(&self, metric: &str) -> u64 {
        let query = json!({
            "queryType": "aggregate", "metricName": metric, "aggregation": "count",
            "timeRange": {"start": now() - 8 * 86_400_000, "end": now() + 3_700_000},
        });
        self.rows(&query).first().map_or(0, |row| row["count"].as_u64().expect("a count"))
    }
}
