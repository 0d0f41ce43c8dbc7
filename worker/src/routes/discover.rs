//! `GET /api/v1/metrics` and below: what there is, a sorted page at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use luminate_storage::store::{ListPage, ListQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::cursor;
use super::input::{self, Parameters, Segments};
use super::openapi::ReadErrors;
use crate::admission::Class;
use crate::app::AppState;
use crate::error::{Error, Fault};
use crate::tenant::CanRead;

/// Names of a page when the request doesn't say.
const DEFAULT_LIMIT: usize = 100;
/// Most names of a page.
const MAX_LIMIT: usize = 1_000;

/// Which part of a listing is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Most names of the page; default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<String>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only names that begin with this.
    pub prefix: Option<String>,
}

impl ListParameters {
    fn query(self) -> Result<ListQuery, Error> {
        Ok(ListQuery {
            limit: limit(self.limit.as_deref())?,
            after: self.cursor.as_deref().map(cursor::decode).transpose()?,
            prefix: self.prefix.unwrap_or_default(),
        })
    }
}

/// The `limit` of a listing.
///
/// # Errors
/// `InvalidParameter`.
pub fn limit(text: Option<&str>) -> Result<usize, Error> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        Error::InvalidParameter(Fault::of("limit", "limit must be a whole number from 1 to 1000"))
    })
}

fn next_cursor(page: &ListPage) -> Option<String> {
    page.names.last().filter(|_| page.more).map(|name| cursor::encode(name))
}

/// A page of the tenant's metrics.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsAnswer {
    /// Names, ascending by UTF-8 bytes.
    #[schema(value_type = Vec<String>)]
    pub metrics: Vec<Arc<str>>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Lists the tenant's metrics.
#[utoipa::path(
    get,
    path = "/api/v1/metrics",
    tag = "discover",
    params(ListParameters),
    responses((status = 200, description = "A page of names", body = MetricsAnswer), ReadErrors),
    security(("token" = ["read"])),
)]
pub async fn metrics(
    State(state): State<AppState>,
    caller: CanRead,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<MetricsAnswer>, Error> {
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let page = state.store()?.list_metrics(caller.tenant(), &parameters.query()?).await?;
    Ok(Json(MetricsAnswer { next_cursor: next_cursor(&page), metrics: page.names }))
}

/// A page of a metric's dimension keys.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DimensionsAnswer {
    /// Keys, ascending by UTF-8 bytes.
    #[schema(value_type = Vec<String>)]
    pub dimensions: Vec<Arc<str>>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Lists the dimension keys of a metric; one that doesn't exist has none.
#[utoipa::path(
    get,
    path = "/api/v1/metrics/{name}/dimensions",
    tag = "discover",
    params(("name" = String, Path, description = "The metric"), ListParameters),
    responses((status = 200, description = "A page of keys", body = DimensionsAnswer), ReadErrors),
    security(("token" = ["read"])),
)]
pub async fn dimensions(
    State(state): State<AppState>,
    caller: CanRead,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<DimensionsAnswer>, Error> {
    let metric = input::metric("name", &name)?;
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let page = state.store()?.list_dimension_keys(caller.tenant(), &metric, &parameters.query()?).await?;
    Ok(Json(DimensionsAnswer { next_cursor: next_cursor(&page), dimensions: page.names }))
}

/// A page of a dimension's values.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValuesAnswer {
    /// Values, ascending by UTF-8 bytes.
    #[schema(value_type = Vec<String>)]
    pub values: Vec<Arc<str>>,
    /// Values with the prefix, on all pages.
    pub total: u64,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Lists the values of a metric's dimension; one that doesn't exist has none.
#[utoipa::path(
    get,
    path = "/api/v1/metrics/{name}/dimensions/{key}/values",
    tag = "discover",
    params(
        ("name" = String, Path, description = "The metric"),
        ("key" = String, Path, description = "The dimension's key"),
        ListParameters,
    ),
    responses((status = 200, description = "A page of values", body = ValuesAnswer), ReadErrors),
    security(("token" = ["read"])),
)]
pub async fn values(
    State(state): State<AppState>,
    caller: CanRead,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<ValuesAnswer>, Error> {
    let (metric, key) = (input::metric("name", &name)?, input::key("key", &key)?);
    let list = parameters.query()?;
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let page = state.store()?.list_dimension_values(caller.tenant(), &metric, &key, &list).await?;
    Ok(Json(ValuesAnswer { next_cursor: next_cursor(&page), total: page.total, values: page.names }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::App;

    async fn app() -> App {
        let app = App::new();
        let mut samples: Vec<_> =
            (0..250).map(|n| json!({"name": "requests", "value": 1, "dimensions": {"host": format!("h{n:03}"), "zone": "a"}})).collect();
        samples.push(json!({"name": "errors", "value": 1, "dimensions": {"code": "ü"}}));
        samples.push(json!({"name": "Zebra", "value": 1}));
        assert_eq!(app.post("/api/v1/write", &json!({"metrics": samples})).await.status, 200);
        app
    }

    #[tokio::test]
    async fn listings_are_sorted() {
        let app = app().await;
        assert_eq!(
            app.get("/api/v1/metrics").await.text(),
            r#"200 {"metrics":["Zebra","errors","requests"]}"#
        );
        let keys = app.get("/api/v1/metrics/requests/dimensions").await;
        assert_eq!(keys.text(), r#"200 {"dimensions":["host","zone"]}"#);
        let values = app.get("/api/v1/metrics/errors/dimensions/code/values").await;
        assert_eq!(values.text(), r#"200 {"values":["ü"],"total":1}"#);
        assert_eq!(app.get("/api/v1/metrics/nothing/dimensions").await.text(), r#"200 {"dimensions":[]}"#);
    }

    #[tokio::test]
    async fn pages_follow_one_another() {
        let app = app().await;
        for limit in [1, 100, 249, 250, 1_000] {
            let first = format!("/api/v1/metrics/requests/dimensions/host/values?limit={limit}");
            let mut next = Some(first.clone());
            let mut all = Vec::new();
            while let Some(path) = next {
                let page = app.get(&path).await.json;
                assert_eq!(page["total"], 250);
                let values = page["values"].as_array().unwrap();
                assert!(values.len() <= limit && !values.is_empty());
                all.extend(values.clone());
                next = page["nextCursor"].as_str().map(|cursor| format!("{first}&cursor={cursor}"));
            }
            assert_eq!(all, (0..250).map(|n| json!(format!("h{n:03}"))).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn malformed_parts_are_named() {
        let app = App::new();
        for (path, expected) in [
            ("/api/v1/metrics?limit=0", "400 INVALID_PARAMETER limit must be a whole number from 1 to 1000"),
            (
                "/api/v1/metrics?limit=1001",
                "400 INVALID_PARAMETER limit must be a whole number from 1 to 1000",
            ),
            (
                "/api/v1/metrics?limit=many",
                "400 INVALID_PARAMETER limit must be a whole number from 1 to 1000",
            ),
            (
                "/api/v1/metrics?cursor=%00%ff",
                "400 INVALID_PARAMETER cursor is none that this listing gave out",
            ),
            (
                "/api/v1/metrics?limits=1",
                "400 INVALID_PARAMETER Failed to deserialize query string: limits: unknown field `limits`, expected one of `limit`, `cursor`, `prefix`",
            ),
            (
                "/api/v1/metrics/bad-name/dimensions",
                "400 INVALID_METRIC_NAME a metric name is 1 to 256 characters and matches ^[a-zA-Z_][a-zA-Z0-9_]*$",
            ),
            (
                "/api/v1/metrics/m/dimensions/__k/values",
                "400 INVALID_DIMENSION_KEY _tenant_id and keys beginning with __ are reserved",
            ),
            ("/api/v1/metrics/%ff/dimensions", "400 INVALID_PARAMETER Invalid URL: Invalid UTF-8 in `name`"),
        ] {
            assert_eq!(app.get(path).await.error(), expected, "{path}");
        }
    }
}
