//! `POST /api/v1/query/batch`: many questions in one request, each answered as if it had come alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use luminate_storage::model::Query;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;

use super::answer::{Found, QueryAnswer, response_of_many};
use super::body::{QueryBody, Question};
use super::{Place, enter, input, work};
use crate::app::AppState;
use crate::body::Received;
use crate::error::{Error, ErrorBody, Fault};
use crate::observe::{RequestId, log_part};
use crate::routes::openapi::QueryErrors;
use crate::tenant::{Caller, CanRead};

/// Queries of a batch.
const MOST: usize = 100;
/// Queries of one batch that are at work at once, where the limits allow so many: it shares the worker with others.
const AT_ONCE: usize = 8;

/// Many questions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct BatchBody {
    /// The questions, 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub queries: Vec<QueryBody>,
}

/// What a question of a batch is answered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchPart {
    /// As it would be alone.
    Answer(QueryAnswer),
    /// It failed; others may have been answered.
    Error(ErrorBody),
}

/// The answers to many questions.
#[derive(Debug, ToSchema)]
pub struct BatchAnswer {
    /// One for each question, in their order.
    pub answers: Vec<BatchPart>,
}

/// Answers many questions, each as if it had come alone, in their order. Each counts against the tenant's limits; those that
/// may not be at work at once wait for one another, which counts against their `timeout`. One that fails has
/// `{"error": …}` in its place, and the others their answers; but a body with a malformed question is refused
/// as a whole, before anything is asked. A client that hangs up cancels them all.
#[utoipa::path(
    post,
    path = "/api/v1/query/batch",
    tag = "query",
    request_body = BatchBody,
    responses((status = 200, description = "The answers", body = BatchAnswer), QueryErrors),
    security(("token" = ["read"])),
)]
pub async fn batch(
    State(state): State<AppState>,
    caller: CanRead,
    id: RequestId,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Error> {
    let questions = questions(&state, &headers, &body)?;
    // The first has been charged with the request.
    state.limits.queries(&caller.caller, questions.len())?;
    let at_once = AT_ONCE.min(state.limits.queries_at_once(&caller.caller)).max(1);
    let siblings = Arc::new(Siblings::begin(state, caller.caller));
    let answers: Vec<_> = questions.into_iter().map(|question| answer(siblings.clone(), question)).collect();
    let answers: Vec<Result<Found, Error>> = stream::iter(answers).buffered(at_once).collect().await;
    let told = |(at, answer): (usize, Result<Found, Error>)| {
        answer.map_err(|error| {
            log_part(&id, at, &error);
            error.body(Some(&id.0))
        })
    };
    Ok(response_of_many(answers.into_iter().enumerate().map(told).collect()))
}

fn questions(state: &AppState, headers: &HeaderMap, body: &Received) -> Result<Vec<Question>, Error> {
    let BatchBody { queries } = input::json(state, headers, body, Error::InvalidQuery)?;
    if !(1..=MOST).contains(&queries.len()) {
        let reason = format_args!("queries has {} of them; 1 to {MOST} are allowed", queries.len());
        return Err(Error::InvalidQuery(Fault::of("queries", reason)));
    }
    // One clock reading a request.
    let now = state.clock.now();
    let check = |(at, query): (usize, &QueryBody)| {
        let question = query.check(&state.config.query_limits, now);
        question.map_err(|error| error.within(format_args!("queries[{at}]")))
    };
    queries.iter().enumerate().map(check).collect()
}

/// Answers a question in a task of its own, from when it is polled on: little ones are answered by the thread that asks,
/// and there may be several. Dropped, it stops.
async fn answer(siblings: Arc<Siblings>, question: Question) -> Result<Found, Error> {
    let task = tokio::spawn(async move { siblings.answer(question).await });
    match AbortOnDropHandle::new(task).await {
        Ok(answer) => answer,
        // Nobody aborts a task that is waited for.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The questions of a batch, which give way to one another.
struct Siblings {
    state: AppState,
    caller: Caller,
    begun: Instant,
    at_work: AtomicU32,
    /// Told whenever one of them is done.
    done: Notify,
}

/// One of them is at work.
struct Working<'a>(&'a Siblings);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::AcqRel);
        self.0.done.notify_waiters();
    }
}

impl Siblings {
    fn begin(state: AppState, caller: Caller) -> Self {
        let (at_work, done) = (AtomicU32::new(0), Notify::new());
        Self { state, caller, begun: Instant::now(), at_work, done }
    }

    async fn answer(&self, question: Question) -> Result<Found, Error> {
        let place = self.enter(&question.query).await?;
        self.at_work.fetch_add(1, Ordering::AcqRel);
        let _working = Working(self);
        let timeout = question.timeout.saturating_sub(self.begun.elapsed());
        let question = Question { timeout, ..question };
        work(&self.state, &self.caller.tenant, &question, place).await
    }

    /// Lets a question in. One for which there is no room waits while a sibling is at work, which makes some.
    async fn enter(&self, query: &Query) -> Result<Place, Error> {
        loop {
            // From before the attempt on, so that none that is done meanwhile is missed.
            let done = self.done.notified();
            match enter(&self.state, &self.caller, query).await {
                Err(Error::TooManyQueries { .. } | Error::Shed(_))
                    if self.at_work.load(Ordering::Acquire) > 0 =>
                {
                    done.await;
                }
                entered => return entered,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use luminate_storage::store::ErrorKind;
    use serde_json::{Value, json};

    use super::super::super::testing::{App, Fails, NOW};
    use super::{AT_ONCE, MOST};

    const PATH: &str = "/api/v1/query/batch";

    fn sum(metric: &str, more: Value) -> Value {
        let range = json!({"start": NOW, "end": NOW + 60_000});
        let mut body =
            json!({"queryType": "aggregate", "metricName": metric, "aggregation": "sum", "timeRange": range});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn batch(queries: &[Value]) -> Value {
        json!({ "queries": queries })
    }

    #[tokio::test]
    async fn answers_come_in_order_as_if_alone() {
        let app = App::new();
        let sample = |name: &str, host: &str| json!({"name": name, "timestamp": NOW, "value": 2, "dimensions": {"host": host}});
        let samples = [sample("a", "x"), sample("a", "y"), sample("b", "x")];
        assert_eq!(app.post("/api/v1/write", &json!({"metrics": samples})).await.status, 200);
        let queries = [
            sum("b", json!({})),
            sum("a", json!({"groupBy": ["host"]})),
            sum("none", json!({})),
            sum("a", json!({"filtersIn": {"host": ["y", "z"]}})),
            json!({"queryType": "range", "metricName": "a", "timeRange": {"relative": "1h"}}),
        ];
        let mut alone = Vec::new();
        for query in &queries {
            alone.push(app.post("/api/v1/query", query).await.json);
        }
        let answer = app.post(PATH, &batch(&queries)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let mut answers = answer.json["answers"].as_array().unwrap().clone();
        for answer in alone.iter_mut().chain(&mut answers) {
            assert!(answer["executionTimeMs"].take().is_number());
        }
        assert_eq!(answers, alone);
    }

    #[tokio::test]
    async fn malformed_batches_name_the_question_and_its_field() {
        let app = App::new();
        let good = sum("m", json!({}));
        let third = |bad: Value| batch(&[good.clone(), good.clone(), bad]);
        for (body, field) in [
            (batch(&[]), "queries"),
            (batch(&vec![good.clone(); MOST + 1]), "queries"),
            (json!({}), "queries"),
            (json!({"queries": [good], "limit": 1}), "limit"),
            (json!({"queries": good}), "queries"),
            (third(json!(7)), "queries[2]"),
            (third(sum("m", json!({"limit": "x"}))), "queries[2].limit"),
            (third(sum("m", json!({"limit": 0}))), "queries[2].limit"),
            (third(sum("bad-name", json!({}))), "queries[2].metricName"),
            (third(sum("m", json!({"filters": {"__x": "y"}}))), "queries[2].filters.__x"),
            (third(sum("m", json!({"filtersIn": {"x": []}}))), "queries[2].filtersIn.x"),
            (third(sum("m", json!({"queries": []}))), "queries[2].queries"),
        ] {
            let answer = app.post(PATH, &body).await;
            let error = &answer.json["error"];
            let text = error["message"].as_str().unwrap();
            let named = error["details"]["field"] == field || text.contains(&format!("`{field}`"));
            assert!(answer.status == 400 && named, "{field}: {}", answer.text());
        }
        assert_eq!(app.post(PATH, &batch(&vec![good.clone(); MOST])).await.status, 200);
    }

    #[tokio::test]
    async fn questions_that_fail_say_so_in_their_places() {
        let app = App::over(Arc::new(Fails::at_queries(ErrorKind::Internal)));
        let answer = app.post(PATH, &batch(&[sum("a", json!({})), sum("b", json!({}))])).await;
        assert_eq!((answer.status, answer.json["answers"].as_array().unwrap().len()), (200, 2));
        for part in answer.json["answers"].as_array().unwrap() {
            assert_eq!(part["error"]["code"], "INTERNAL");
            assert!(part["error"]["details"]["requestId"].is_string(), "{part}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_places_for_queries_all_are_shed() {
        let app = App::with(|config| config.query_limits.max_concurrent = 0);
        let answer = app.post(PATH, &batch(&vec![sum("a", json!({})); 3])).await;
        let codes: Vec<&Value> =
            answer.json["answers"].as_array().unwrap().iter().map(|part| &part["error"]["code"]).collect();
        assert_eq!(codes, ["OVERLOADED"; 3]);
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_cancels_all_that_are_at_work() {
        let store = Arc::new(Fails::never_answering());
        let app = App::over(store.clone());
        let body = batch(&vec![sum("a", json!({})); 3 * AT_ONCE]);
        let asked = tokio::time::timeout(Duration::from_millis(20), app.post(PATH, &body));
        assert!(asked.await.is_err());
        // Their tasks are dropped by the runtime.
        tokio::task::yield_now().await;
        let asked = store.asked();
        assert_eq!(asked.len(), AT_ONCE, "the others wait");
        assert!(asked.iter().all(|query| query.cancel.is_cancelled()));
    }
}
