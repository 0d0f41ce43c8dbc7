//! `GET /api/v1/queries` and `DELETE /api/v1/queries/{id}`: running queries, listed and cancelled.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use luminate_storage::store::RunningQuery;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::Segments;
use super::openapi::{Missing, ReadErrors};
use crate::app::AppState;
use crate::error::Error;
use crate::tenant::CanRead;

/// The tenant's running queries.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueriesAnswer {
    /// Oldest first.
    pub queries: Vec<RunningQueryBody>,
}

/// A query that is running.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningQueryBody {
    /// Its id, to cancel it by.
    pub id: String,
    /// How long it runs, in milliseconds.
    pub age_ms: u64,
    /// Samples looked at so far.
    pub samples_scanned: u64,
}

impl From<RunningQuery> for RunningQueryBody {
    fn from(query: RunningQuery) -> Self {
        let age_ms = u64::try_from(query.age.as_millis()).unwrap_or(u64::MAX);
        Self { id: query.id, age_ms, samples_scanned: query.scanned }
    }
}

/// Lists the tenant's running queries.
#[utoipa::path(
    get,
    path = "/api/v1/queries",
    tag = "query",
    responses((status = 200, description = "The queries", body = QueriesAnswer), ReadErrors),
    security(("token" = ["read"])),
)]
pub async fn list(State(state): State<AppState>, caller: CanRead) -> Result<Json<QueriesAnswer>, Error> {
    let queries = state.store()?.running_queries(caller.tenant()).await?;
    Ok(Json(QueriesAnswer { queries: queries.into_iter().map(RunningQueryBody::from).collect() }))
}

/// Cancels a running query of the tenant; its caller gets 409 `QUERY_CANCELLED`.
#[utoipa::path(
    delete,
    path = "/api/v1/queries/{id}",
    tag = "query",
    params(("id" = String, Path, description = "The query's id")),
    responses((status = 204, description = "It stops"), Missing, ReadErrors),
    security(("token" = ["read"])),
)]
pub async fn cancel(
    State(state): State<AppState>,
    caller: CanRead,
    Segments(id): Segments<String>,
) -> Result<StatusCode, Error> {
    if state.store()?.cancel_query(caller.tenant(), &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Error::NoSuch("query"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{App, Fails};

    #[tokio::test]
    async fn no_query_runs_when_none_was_asked() {
        let app = App::new();
        assert_eq!(app.get("/api/v1/queries").await.text(), r#"200 {"queries":[]}"#);
        assert_eq!(
            app.send("DELETE", "/api/v1/queries/x", &[], "").await.error(),
            "404 NOT_FOUND there is no such query"
        );
    }

    #[tokio::test]
    async fn a_running_query_is_listed_and_can_be_cancelled() {
        let app = App::over(Arc::new(Fails::never_answering()));
        let expected = r#"200 {"queries":[{"id":"default-1","ageMs":1500,"samplesScanned":9}]}"#;
        assert_eq!(app.get("/api/v1/queries").await.text(), expected);
        assert_eq!(app.send("DELETE", "/api/v1/queries/default-1", &[], "").await.text(), "204 ");
    }
}
