//! The routes of a worker as its own description has them: whoever walks over these leaves none out.

use serde_json::Value;

use crate::worker::Worker;

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In capitals.
    pub method: String,
    /// With braces around what is open.
    pub path: String,
    /// Whether a token is needed.
    pub needs_token: bool,
}

/// Every route that the worker describes.
///
/// # Panics
/// When it describes none.
#[must_use]
#[track_caller]
pub fn routes(worker: &Worker) -> Vec<Route> {
    let document = worker.client().get("/api/v1/openapi.json").expect(200);
    let paths = document["paths"].as_object().expect("paths");
    let routes: Vec<Route> = paths.iter().flat_map(|(path, operations)| of_path(path, operations)).collect();
    assert!(routes.len() >= 20, "{routes:?}");
    routes
}

fn of_path(path: &str, operations: &Value) -> Vec<Route> {
    const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];
    let described = METHODS.iter().filter_map(|method| Some((method, operations.get(method)?)));
    let route = |(method, operation): (&&str, &Value)| Route {
        method: method.to_ascii_uppercase(),
        path: path.to_owned(),
        needs_token: operation.get("security").is_some_and(|needed| needed != &Value::Array(Vec::new())),
    };
    described.map(route).collect()
}

/// A path with `value` for each part in braces.
#[must_use]
pub fn filled(path: &str, value: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { value } else { part });
    parts.collect::<Vec<_>>().join("/")
}
