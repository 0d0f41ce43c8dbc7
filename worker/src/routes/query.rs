//! `POST /api/v1/query` and `/explain`; many questions at once are in `batch`.

mod answer;
pub mod batch;
pub mod body;
mod rows;
mod series;

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use luminate_storage::model::{Query, QueryStats, Tenant};
use luminate_storage::store::{MetricsStore, Plan, QueryContext, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

use self::answer::{Format, Found, Summary, response};
use self::body::{QueryBody, QueryType, Question};
use self::rows::Rows;
use super::input;
use super::openapi::QueryErrors;
use crate::admission::{Admitted, Class};
use crate::app::AppState;
use crate::body::{Received, Share};
use crate::error::Error;
use crate::limits::QueryPermit;
use crate::tenant::{Caller, CanRead};

pub use self::answer::QueryAnswer;

/// Rows of an answer that room is taken for at most before it is there: what a limit may be by default.
const EXPECTED_ROWS: usize = 10_000;
/// Bytes of memory that a row of an answer is expected to take.
const EXPECTED_ROW: usize = 256;

/// Answers a question. With `Accept: application/x-ndjson` each row, or series, is a line, and the last line is
/// `{"summary": …}`. A client that hangs up cancels its query.
#[utoipa::path(
    post,
    path = "/api/v1/query",
    tag = "query",
    request_body = QueryBody,
    responses(
        (status = 200, description = "The rows, or series of them", content(
            (QueryAnswer = "application/json"),
            (String = "application/x-ndjson"),
        )),
        QueryErrors,
    ),
    security(("token" = ["read"])),
)]
pub async fn query(
    State(state): State<AppState>,
    caller: CanRead,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    let question = question(&state, &headers, &body)?;
    let format = if input::wants_ndjson(&headers) { Format::Lines } else { Format::Object };
    let place = enter(&state, &caller.caller, &question.query).await?;
    let found = work(&state, caller.tenant(), &question, place).await?;
    Ok(response(found, format))
}

/// What a question needs to be at work, until it is answered: two places, and room for its answer.
struct Place {
    _permit: QueryPermit,
    _admitted: Admitted,
    held: Share,
}

/// Lets a question in: as its tenant and the worker may have so many at work.
///
/// # Errors
/// `TooManyQueries`, `Shed`; what the store says when it is asked for a plan.
async fn enter(state: &AppState, caller: &Caller, query: &Query) -> Result<Place, Error> {
    let store = state.store()?;
    let permit = state.limits.query(caller)?;
    let admitted = state.gate.query(store.as_ref(), &caller.tenant, query).await?;
    // Room for the answer, before it is there.
    let mut held = state.bodies.share(Some(&caller.tenant));
    let expected = (most_rows(query).min(EXPECTED_ROWS) * EXPECTED_ROW) as u64;
    held.grow_within(expected, Class::LightQuery.share()).map_err(|_| state.gate.shed(Class::LightQuery))?;
    Ok(Place { _permit: permit, _admitted: admitted, held })
}

/// Answers a question that was let in, and gives its places back.
async fn work(state: &AppState, tenant: &Tenant, question: &Question, place: Place) -> Result<Found, Error> {
    let store = state.store()?;
    let context = context(state, tenant, question);
    // Dropped with this future when the client hangs up: the store's scan sees it and stops.
    let _cancel_on_drop = context.cancel.clone().drop_guard();
    let start = Instant::now();
    let (rows, stats) = run(store.as_ref(), tenant, &question.query, &context).await?;
    state.gate.weighed(tenant, &question.query, stats.points_scanned);
    let summary = Summary::new(&stats, start.elapsed().as_secs_f64());
    let Place { mut held, .. } = place;
    let bytes = rows.bytes();
    held.shrink_to(bytes);
    held.grow_within(bytes, Class::LightQuery.share())?;
    Ok(Found::new(rows, question.layout, summary, held))
}

fn question(state: &AppState, headers: &HeaderMap, body: &Received) -> Result<Question, Error> {
    let body: QueryBody = input::json(state, headers, body, Error::InvalidQuery)?;
    body.check(&state.config.query_limits, state.clock.now())
}

fn most_rows(query: &Query) -> usize {
    match query {
        Query::Range(query) => query.limit,
        Query::Aggregate(query) => query.limit,
        Query::Rate(query) => query.limit,
    }
}

fn context(state: &AppState, tenant: &Tenant, question: &Question) -> QueryContext {
    let max_scanned_samples = state.config.query_limits.max_scanned_samples;
    QueryContext { max_scanned_samples, ..reading(state, tenant, question.timeout) }
}

/// The context of something that reads for `tenant`, under an id of its own.
pub(super) fn reading(state: &AppState, tenant: &Tenant, timeout: Duration) -> QueryContext {
    QueryContext {
        id: format!("{tenant}-{}", state.request_ids.next()),
        max_memory: state.config.query_limits.max_memory.bytes(),
        ..QueryContext::with_timeout(timeout)
    }
}

async fn run(
    store: &dyn MetricsStore,
    tenant: &Tenant,
    query: &Query,
    context: &QueryContext,
) -> Result<(Rows, QueryStats), StoreError> {
    match query {
        Query::Range(query) => Ok(Rows::of(store.query_range(tenant, query, context).await?, Rows::Range)),
        Query::Aggregate(query) => {
            let answer = store.aggregate(tenant, query, context).await?;
            Ok(Rows::of(answer, |rows| Rows::Aggregate(rows, query.group_by.clone().into())))
        }
        Query::Rate(query) => {
            let answer = store.rate(tenant, query, context).await?;
            Ok(Rows::of(answer, |rows| Rows::Rate(rows, query.group_by.clone().into())))
        }
    }
}

/// What a query would do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanAnswer {
    /// What is asked.
    pub query_type: QueryType,
    /// The steps in words, in order.
    pub steps: Vec<String>,
    /// Series that match.
    pub series: u64,
    /// Samples that would be looked at, estimated.
    pub samples: u64,
    /// Bytes that would be read, estimated.
    pub bytes: u64,
}

/// Says what a query would do; nothing of it is executed.
#[utoipa::path(
    post,
    path = "/api/v1/query/explain",
    tag = "query",
    request_body = QueryBody,
    responses((status = 200, description = "The plan", body = PlanAnswer), QueryErrors),
    security(("token" = ["read"])),
)]
pub async fn explain(
    State(state): State<AppState>,
    caller: CanRead,
    headers: HeaderMap,
    body: Received,
) -> Result<Json<PlanAnswer>, Error> {
    let question = question(&state, &headers, &body)?;
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let Plan { steps, series, samples, bytes } =
        state.store()?.explain(caller.tenant(), &question.query).await?;
    let query_type = match question.query {
        Query::Range(_) => QueryType::Range,
        Query::Aggregate(_) => QueryType::Aggregate,
        Query::Rate(_) => QueryType::Rate,
    };
    Ok(Json(PlanAnswer { query_type, steps, series, samples, bytes }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use luminate_storage::store::ErrorKind;
    use serde_json::{Value, json};

    use super::super::testing::{App, Fails, NOW};

    fn aggregate(more: Value) -> Value {
        let mut body = json!({"queryType": "aggregate", "metricName": "m", "aggregation": "sum", "timeRange": {"start": NOW, "end": NOW + 60_000}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    async fn fleet() -> App {
        let app = App::new();
        let sample = |at: i64, value: f64, dimensions: Value| json!({"name": "m", "timestamp": NOW + at, "value": value, "dimensions": dimensions});
        let samples = [
            sample(0, 1.0, json!({"host": "a", "region": "eu"})),
            sample(10_000, 3.0, json!({"host": "a", "region": "eu"})),
            sample(20_000, 7.0, json!({"host": "b"})),
        ];
        assert_eq!(app.post("/api/v1/write", &json!({"metrics": samples})).await.status, 200);
        app
    }

    #[tokio::test]
    async fn each_type_of_query_has_its_rows() {
        let app = fleet().await;
        for (body, results) in [
            (
                json!({"queryType": "range", "metricName": "m", "timeRange": {"start": NOW, "end": NOW + 10_001}, "filters": {"host": "a"}}),
                json!([
                    {"timestamp": NOW, "value": 1.0, "dimensions": {"host": "a", "region": "eu"}},
                    {"timestamp": NOW + 10_000, "value": 3.0, "dimensions": {"host": "a", "region": "eu"}},
                ]),
            ),
            (
                aggregate(json!({"filtersIn": {"host": ["b", "nobody"]}})),
                json!([{"groupKey": {}, "value": 7.0, "count": 1}]),
            ),
            (
                aggregate(json!({"groupBy": ["region"]})),
                json!([
                    {"groupKey": {}, "value": 7.0, "count": 1},
                    {"groupKey": {"region": "eu"}, "value": 4.0, "count": 2},
                ]),
            ),
            (
                aggregate(json!({"interval": "15s"})),
                json!([
                    {"groupKey": {}, "timestamp": NOW, "value": 4.0, "count": 2},
                    {"groupKey": {}, "timestamp": NOW + 15_000, "value": 7.0, "count": 1},
                ]),
            ),
            (
                json!({"queryType": "rate", "metricName": "m", "timeRange": {"start": NOW, "end": NOW + 60_000}, "interval": "20s"}),
                json!([{"groupKey": {}, "timestamp": NOW, "rate": 0.1}]),
            ),
            (
                aggregate(json!({"interval": "15s", "layout": "series"})),
                json!([{"groupKey": {}, "timestamps": [NOW, NOW + 15_000], "values": [4.0, 7.0], "counts": [2, 1]}]),
            ),
            (
                aggregate(json!({"groupBy": ["region"], "layout": "series"})),
                json!([
                    {"groupKey": {}, "values": [7.0], "counts": [1]},
                    {"groupKey": {"region": "eu"}, "values": [4.0], "counts": [2]},
                ]),
            ),
            (aggregate(json!({"metricName": "nothing"})), json!([])),
        ] {
            let answer = app.post("/api/v1/query", &body).await;
            assert_eq!((answer.status, &answer.json["results"]), (200, &results), "{body}");
            assert_eq!(answer.json["queryType"], body["queryType"]);
        }
    }

    #[tokio::test]
    async fn lines_end_with_the_summary() {
        let app = fleet().await;
        let body = json!({"queryType": "range", "metricName": "m", "limit": 2, "timeRange": {"start": NOW, "end": NOW + 60_000}});
        let headers = [("accept", "application/x-ndjson")];
        let answer = app.send("POST", "/api/v1/query", &headers, body.to_string()).await;
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        let text = answer.text();
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.lines().last().unwrap().starts_with("{\"summary\":{") && text.contains("\"truncated\":true"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn malformed_questions_name_what_is_wrong() {
        let app = App::new();
        for (more, expected) in [
            (json!({"group_by": ["host"]}), "400 INVALID_QUERY group_by: unknown field `group_by`"),
            (
                json!({"queryType": "guess"}),
                "400 INVALID_QUERY queryType: unknown variant `guess`, expected one of `range`, `aggregate`, `rate`",
            ),
            (
                json!({"aggregation": "p42"}),
                "400 INVALID_QUERY aggregation: unknown variant `p42`, expected one of `avg`, `sum`",
            ),
            (
                json!({"metricName": 7}),
                "400 INVALID_QUERY metricName: invalid type: integer `7`, expected a string",
            ),
            (
                json!({"interval": 60}),
                "400 INVALID_QUERY interval: invalid type: integer `60`, expected a whole number of ms, s, m, h or d above 0",
            ),
            (
                json!({"filters": {"host": {"ne": "a"}}}),
                "400 INVALID_QUERY filters.host: invalid type: map, expected the string that the dimension must equal: only equality is supported",
            ),
            (
                json!({"filters": ["host"]}),
                "400 INVALID_QUERY filters: invalid type: sequence, expected an object of keys and the strings that they must equal: only equality is supported",
            ),
            (
                json!({"filtersIn": {"host": "a"}}),
                "400 INVALID_QUERY filtersIn.host: invalid type: string \"a\", expected a sequence",
            ),
            (
                json!({"filtersIn": {"host": ["a", 7]}}),
                "400 INVALID_QUERY filtersIn.host[1]: invalid type: integer `7`, expected a string",
            ),
            (
                json!({"filtersIn": ["host"]}),
                "400 INVALID_QUERY filtersIn: invalid type: sequence, expected an object of keys and lists of strings, one of which they must equal",
            ),
            (
                json!({"timeRange": {"start": 1.5, "end": NOW}}),
                "400 INVALID_QUERY timeRange.start: invalid type: floating point `1.5`, expected whole Unix milliseconds",
            ),
            (
                json!({"timeRange": "1h"}),
                "400 INVALID_QUERY timeRange: invalid type: string \"1h\", expected an object with start and end, or with relative",
            ),
            (
                json!({"layout": "columns"}),
                "400 INVALID_QUERY layout: unknown variant `columns`, expected `rows` or `series`",
            ),
            (json!({"limit": -1}), "400 INVALID_QUERY limit: invalid value: integer `-1`, expected u64"),
        ] {
            let answer = app.post("/api/v1/query", &aggregate(more.clone())).await;
            let field = answer.json["error"]["details"]["field"].as_str().unwrap_or("none").to_owned();
            let message = answer.json["error"]["message"].as_str().unwrap().to_owned();
            let shown = format!(
                "{} {} {field}: {message}",
                answer.status,
                answer.json["error"]["code"].as_str().unwrap()
            );
            assert!(shown.starts_with(expected), "{shown}, not {expected}");
        }
        for body in ["", "{", "[]", "7", "null", "{\"queryType\": \"range\"} x"] {
            assert_eq!(app.send("POST", "/api/v1/query", &[], body).await.status, 400, "{body}");
        }
    }

    #[tokio::test]
    async fn each_way_to_stop_has_its_answer() {
        for (kind, expected) in [
            (ErrorKind::Timeout, "504 QUERY_TIMEOUT"),
            (ErrorKind::Cancelled, "409 QUERY_CANCELLED"),
            (ErrorKind::QueryTooLarge, "422 QUERY_TOO_LARGE"),
            (ErrorKind::Internal, "500 INTERNAL"),
        ] {
            let app = App::over(Arc::new(Fails::at_queries(kind)));
            let answer = app.post("/api/v1/query", &aggregate(json!({}))).await;
            assert!(answer.error().starts_with(expected), "{}, not {expected}", answer.error());
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_cancels_its_query() {
        let store = Arc::new(Fails::never_answering());
        let app = App::over(store.clone());
        let body = aggregate(json!({}));
        let asked =
            tokio::time::timeout(std::time::Duration::from_millis(20), app.post("/api/v1/query", &body));
        assert!(asked.await.is_err());
        assert!(store.last_query().cancel.is_cancelled());
        assert!(store.last_query().id.starts_with("default-"));
    }

    #[tokio::test]
    async fn explain_says_what_would_be_done() {
        let app = fleet().await;
        let answer = app.post("/api/v1/query/explain", &aggregate(json!({}))).await;
        assert_eq!((answer.status, &answer.json["series"]), (200, &json!(2)));
        assert!(
            answer.json["samples"].is_u64()
                && answer.json["bytes"].is_u64()
                && answer.json["steps"].is_array()
        );
        assert_eq!(app.post("/api/v1/query/explain", &aggregate(json!({"limit": 0}))).await.status, 400);
    }
}
