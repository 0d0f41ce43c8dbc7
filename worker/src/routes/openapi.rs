//! `GET /api/v1/openapi.json`: the description of this API, generated from the handlers' types.

mod shared;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder, ResponsesBuilder};
use utoipa::{IntoResponses, Modify};

use crate::error::ErrorBody;

/// What stands above the routes.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Luminate",
        description = "A high-cardinality metrics store. Times are Unix milliseconds; a range is start ≤ t < end; \
            durations are whole numbers of ms, s, m, h or d. Every error is `{\"error\": {code, message, details}}`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "write", description = "Storing samples"),
        (name = "query", description = "Asking"),
        (name = "discover", description = "What there is"),
        (name = "administer", description = "Deleting, retention, usage"),
        (name = "operate", description = "Probes and figures"),
    ),
    components(schemas(ErrorBody)),
    modifiers(&Tokens),
)]
pub struct Frame;

/// Adds how requests prove who they are.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "A token with the claims tenant_id, scopes and exp; not needed when auth is disabled",
            ))
            .build();
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// A refusal that many routes share.
const REFUSALS: [(u16, &str); 13] = [
    (400, "A part of the request is malformed; `details.field` names it"),
    (401, "No token, or one that isn't valid"),
    (403, "The token lacks the scope"),
    (404, "There is no such thing"),
    (408, "The body did not arrive in time"),
    (409, "The query was cancelled"),
    (413, "The body or the batch is larger than allowed"),
    (415, "A `Content-Type` or `Content-Encoding` that isn't taken here"),
    (422, "The query would scan or hold more than its limits"),
    (429, "A limit is used up; `Retry-After` says when there is room again"),
    (500, "A failure inside the worker; `details.requestId` finds it in the log"),
    (503, "The worker can't serve now; `Retry-After` says when to try again"),
    (504, "The query's time is over"),
];

type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

fn refusals(statuses: &[u16]) -> Responses {
    let listed = REFUSALS.iter().filter(|(status, _)| statuses.contains(status));
    let builder = listed.fold(ResponsesBuilder::new(), |builder, (status, description)| {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(*description).content("application/json", body);
        builder.response(status.to_string(), response)
    });
    builder.build().responses
}

macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident, $statuses:expr) => {
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> Responses {
                refusals(&$statuses)
            }
        }
    };
}

refusals!(
    /// How any route with parameters refuses.
    ReadErrors,
    [400, 401, 403, 429, 500, 503]
);
refusals!(
    /// How a route with a body refuses, beside its own 400.
    BodyErrors,
    [401, 403, 408, 413, 415, 429, 500, 503]
);
refusals!(
    /// How a query refuses.
    QueryErrors,
    [400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503, 504]
);
refusals!(
    /// Something named in the path isn't there.
    Missing,
    [404]
);

/// The document over every route.
pub fn document() -> OpenApi {
    let mut document = super::all().into_openapi();
    shared::complete(&mut document);
    document
}

static DOCUMENT: LazyLock<Result<Bytes, String>> =
    LazyLock::new(|| document().to_json().map(Bytes::from).map_err(|error| error.to_string()));

/// The OpenAPI 3.1 document of this API. Needs no token.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "operate",
    responses((status = 200, description = "The document", content_type = "application/json")),
)]
pub async fn openapi() -> Response {
    match &*DOCUMENT {
        Ok(document) => ([(CONTENT_TYPE, "application/json")], document.clone()).into_response(),
        Err(error) => crate::error::Error::Internal(error.clone()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{App, NOW};

    async fn served() -> Value {
        let answer = App::new().get("/api/v1/openapi.json").await;
        assert_eq!(answer.status, 200);
        answer.json
    }

    #[tokio::test]
    async fn every_route_of_the_contract_is_described() {
        let document = served().await;
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = document["paths"].as_object().unwrap();
        let mut routes: Vec<String> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
            })
            .collect();
        routes.sort();
        let expected = [
            "delete /api/v1/admin/backup/{name}",
            "delete /api/v1/admin/metrics/{name}",
            "delete /api/v1/queries/{id}",
            "get /api/v1/admin/backup",
            "get /api/v1/admin/export",
            "get /api/v1/admin/retention",
            "get /api/v1/admin/usage",
            "get /api/v1/cardinality",
            "get /api/v1/health",
            "get /api/v1/health/live",
            "get /api/v1/health/ready",
            "get /api/v1/health/startup",
            "get /api/v1/metrics",
            "get /api/v1/metrics/{name}/dimensions",
            "get /api/v1/metrics/{name}/dimensions/{key}/values",
            "get /api/v1/openapi.json",
            "get /api/v1/queries",
            "get /metrics",
            "get /ping",
            "post /api/v1/admin/backup",
            "post /api/v1/admin/import",
            "post /api/v1/import/prometheus",
            "post /api/v1/prom/write",
            "post /api/v1/query",
            "post /api/v1/query/batch",
            "post /api/v1/query/explain",
            "post /api/v1/write",
            "post /api/v2/write",
            "post /v1/metrics",
            "post /write",
            "put /api/v1/admin/retention",
        ];
        assert_eq!(routes, expected);
    }

    #[tokio::test]
    async fn every_reference_leads_somewhere_and_every_code_is_listed() {
        let document = served().await;
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        let codes = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
        assert!(codes.contains(&json!("INVALID_METRIC_NAME")) && codes.contains(&json!("QUERY_TIMEOUT")));
    }

    #[tokio::test]
    async fn bytes_have_no_schema_that_a_client_would_write_as_a_list_of_numbers() {
        let document = served().await;
        let otlp = &document["paths"]["/v1/metrics"]["post"];
        let answer = |status: &str| &otlp["responses"][status];
        let remote_write = &document["paths"]["/api/v1/prom/write"]["post"]["requestBody"];
        for holder in [remote_write, &otlp["requestBody"], answer("200"), answer("4XX"), answer("5XX")] {
            assert_eq!(holder["content"]["application/x-protobuf"], json!({}));
        }
    }

    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| collect(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }

    #[tokio::test]
    async fn answers_have_the_shape_that_is_described() {
        let document = served().await;
        let app = App::new();
        let samples = json!({"metrics": [
            {"name": "m", "timestamp": NOW, "value": 1, "dimensions": {"k": "v"}},
            {"name": "m", "timestamp": NOW + 1_000, "value": 2, "dimensions": {"k": "v"}},
            {"name": "bad-name", "value": 1},
        ]});
        let range = json!({"start": NOW, "end": NOW + 60_000});
        let ask = |kind: &str, more: Value| {
            let mut body = json!({"queryType": kind, "metricName": "m", "timeRange": range});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let avg = ask("aggregate", json!({"aggregation": "avg", "groupBy": ["k"], "interval": "1m"}));
        for (method, path, route, body) in [
            ("post", "/api/v1/write", "", samples),
            ("post", "/api/v1/write", "", json!({"metrics": [7]})),
            ("post", "/api/v1/write", "", json!([])),
            ("post", "/api/v2/write?precision=d", "/api/v2/write", Value::Null),
            ("post", "/api/v1/admin/import?format=xml", "/api/v1/admin/import", Value::Null),
            ("post", "/api/v1/query", "", ask("range", json!({}))),
            ("post", "/api/v1/query", "", avg.clone()),
            ("post", "/api/v1/query", "", ask("rate", json!({"groupBy": ["k"]}))),
            ("post", "/api/v1/query", "", ask("guess", json!({}))),
            ("post", "/api/v1/query/batch", "", json!({"queries": [avg, ask("range", json!({}))]})),
            ("post", "/api/v1/query/batch", "", json!({"queries": [ask("guess", json!({}))]})),
            ("post", "/api/v1/query/explain", "", avg),
            ("get", "/api/v1/queries", "", Value::Null),
            ("delete", "/api/v1/queries/x", "/api/v1/queries/{id}", Value::Null),
            ("get", "/api/v1/metrics?limit=1", "/api/v1/metrics", Value::Null),
            ("get", "/api/v1/metrics?limit=0", "/api/v1/metrics", Value::Null),
            ("get", "/api/v1/metrics/m/dimensions", "/api/v1/metrics/{name}/dimensions", Value::Null),
            (
                "get",
                "/api/v1/metrics/m/dimensions/k/values",
                "/api/v1/metrics/{name}/dimensions/{key}/values",
                Value::Null,
            ),
            ("get", "/api/v1/cardinality?metric=m", "/api/v1/cardinality", Value::Null),
            ("get", "/api/v1/cardinality", "", Value::Null),
            ("get", "/api/v1/admin/retention", "", Value::Null),
            ("put", "/api/v1/admin/retention", "", json!({"default": "1d"})),
            ("put", "/api/v1/admin/retention", "", json!({"default": 1})),
            ("get", "/api/v1/admin/usage", "", Value::Null),
            ("delete", "/api/v1/admin/metrics/m", "/api/v1/admin/metrics/{name}", Value::Null),
            ("get", "/api/v1/health", "", Value::Null),
        ] {
            let sent = if body.is_null() { String::new() } else { body.to_string() };
            let answer = app.send(&method.to_ascii_uppercase(), path, &[], sent).await;
            let route = if route.is_empty() { path } else { route };
            let responses = &document["paths"][route][method]["responses"];
            let schema = &responses[answer.status.to_string()]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{method} {route} answers {}, which isn't described", answer.status);
            fits(&document, schema, &answer.json)
                .unwrap_or_else(|why| panic!("{method} {path}: {why} in {}", answer.json));
        }
    }

    /// Whether `value` has the shape of `schema`: types, required and unknown fields.
    fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = document.pointer(reference.trim_start_matches('#')).ok_or("a dangling reference")?;
            return fits(document, target, value);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let fitting = variants.iter().filter(|variant| fits(document, variant, value).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { Err(format!("{value} fits {fitting} of {schema}")) };
        }
        if let Some(variants) = schema["anyOf"].as_array() {
            let fitting = variants.iter().any(|variant| fits(document, variant, value).is_ok());
            return if fitting { Ok(()) } else { Err(format!("{value} fits none of {schema}")) };
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let allowed = |name: &Value| name == kind || (name == "number" && kind == "integer");
        let fits_kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().any(allowed),
            Value::Null => true,
            name => allowed(name),
        };
        if !fits_kind || schema["enum"].as_array().is_some_and(|names| !names.contains(value)) {
            return Err(format!("{value} is no {schema}"));
        }
        if let Value::Array(items) = value {
            items.iter().try_for_each(|item| fits(document, &schema["items"], item))?;
        }
        let Value::Object(fields) = value else { return Ok(()) };
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                return Err(format!("{name} is missing"));
            }
        }
        for (name, field) in fields {
            let described = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            match described {
                Some(described) => fits(document, described, field)?,
                None if schema["properties"].is_object() => return Err(format!("{name} isn't described")),
                None => {}
            }
        }
        Ok(())
    }
}
