//! `GET /api/v1/cardinality`: how many series there are, largest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use luminate_storage::store::{CardinalityCursor, CardinalityPage, CardinalityQuery, CardinalityRow};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input::{self, Parameters};
use super::openapi::ReadErrors;
use super::{cursor, discover};
use crate::admission::Class;
use crate::app::AppState;
use crate::error::Error;
use crate::tenant::{Caller, CanRead};

/// Which part of the table is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CardinalityParameters {
    /// Count per dimension key and value of this metric; absent: per metric.
    pub metric: Option<String>,
    /// Most rows of the page; default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<String>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only metrics (or keys) that begin with this.
    pub prefix: Option<String>,
}

impl CardinalityParameters {
    fn query(self) -> Result<CardinalityQuery, Error> {
        Ok(CardinalityQuery {
            metric: self.metric.as_deref().map(|name| input::metric("metric", name)).transpose()?,
            limit: discover::limit(self.limit.as_deref())?,
            after: self.cursor.as_deref().map(read_cursor).transpose()?,
            prefix: self.prefix.unwrap_or_default(),
        })
    }
}

/// A page of the table, largest first, then by name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CardinalityAnswer {
    /// The rows.
    pub cardinality: Vec<CardinalityCount>,
    /// The limits that apply.
    pub limits: CardinalityLimits,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Series of a metric, of a dimension key, or of one value of a key.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CardinalityCount {
    /// The metric, when no metric was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub metric: Option<Arc<str>>,
    /// The dimension's key, when a metric was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<Arc<str>>,
    /// The value; absent in the row of a whole key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub value: Option<Arc<str>>,
    /// Series present.
    pub series: u64,
}

/// What a write may create at most.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CardinalityLimits {
    /// Metrics of the tenant.
    pub max_metrics: u64,
    /// Series of one metric.
    pub max_series_per_metric: u64,
}

impl CardinalityLimits {
    /// The limits of a caller.
    #[must_use]
    pub fn of(state: &AppState, caller: &Caller) -> Self {
        let limits = state.limits.series(caller);
        Self { max_metrics: limits.max_metrics, max_series_per_metric: limits.max_series_per_metric }
    }
}

/// Counts series per metric, or per dimension key and value of one metric.
#[utoipa::path(
    get,
    path = "/api/v1/cardinality",
    tag = "discover",
    params(CardinalityParameters),
    responses((status = 200, description = "A page of the table", body = CardinalityAnswer), ReadErrors),
    security(("token" = ["read"])),
)]
pub async fn cardinality(
    State(state): State<AppState>,
    caller: CanRead,
    Parameters(parameters): Parameters<CardinalityParameters>,
) -> Result<Json<CardinalityAnswer>, Error> {
    let query = parameters.query()?;
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let page = state.store()?.cardinality(caller.tenant(), &query).await?;
    let next_cursor = next_cursor(&page);
    let per_key = query.metric.is_some();
    let count = |CardinalityRow { series, name, value }| {
        let (metric, key) = if per_key { (None, Some(name)) } else { (Some(name), None) };
        CardinalityCount { metric, key, value, series }
    };
    let cardinality = page.rows.into_iter().map(count).collect();
    let limits = CardinalityLimits::of(&state, &caller.caller);
    Ok(Json(CardinalityAnswer { cardinality, limits, next_cursor }))
}

/// Count, name and value in lines; names have no line ends, a value may.
fn next_cursor(page: &CardinalityPage) -> Option<String> {
    let CardinalityRow { series, name, value } = page.rows.last().filter(|_| page.more)?;
    Some(cursor::encode(&match value {
        Some(value) => format!("{series}\n{name}\n{value}"),
        None => format!("{series}\n{name}"),
    }))
}

fn read_cursor(text: &str) -> Result<CardinalityCursor, Error> {
    let key = cursor::decode(text)?;
    let mut lines = key.splitn(3, '\n');
    let series = lines.next().and_then(|series| series.parse().ok()).ok_or_else(cursor::unknown)?;
    let name = lines.next().ok_or_else(cursor::unknown)?.to_owned();
    Ok(CardinalityCursor { series, name, value: lines.next().map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::App;

    async fn app() -> App {
        let app = App::new();
        let sample = |name: &str, host: &str| json!({"name": name, "value": 1, "dimensions": {"host": host, "zone": "a\nb"}});
        let samples = [sample("two", "a"), sample("two", "b"), sample("one", "a"), sample("ONE", "a")];
        assert_eq!(app.post("/api/v1/write", &json!({"metrics": samples})).await.status, 200);
        app
    }

    #[tokio::test]
    async fn metrics_are_counted_largest_first() {
        let expected = json!({
            "cardinality": [{"metric": "two", "series": 2}, {"metric": "ONE", "series": 1}, {"metric": "one", "series": 1}],
            "limits": {"maxMetrics": 1_000, "maxSeriesPerMetric": 1_000_000},
        });
        assert_eq!(app().await.get("/api/v1/cardinality").await.json, expected);
    }

    #[tokio::test]
    async fn keys_and_values_of_a_metric_are_counted_page_by_page() {
        let app = app().await;
        let expected = [
            json!({"key": "host", "series": 2}),
            json!({"key": "zone", "series": 2}),
            json!({"key": "zone", "value": "a\nb", "series": 2}),
            json!({"key": "host", "value": "a", "series": 1}),
            json!({"key": "host", "value": "b", "series": 1}),
        ];
        for limit in 1..=6 {
            let first = format!("/api/v1/cardinality?metric=two&limit={limit}");
            let (mut next, mut rows) = (Some(first.clone()), Vec::new());
            while let Some(path) = next {
                let page = app.get(&path).await.json;
                rows.extend(page["cardinality"].as_array().unwrap().clone());
                next = page["nextCursor"].as_str().map(|cursor| format!("{first}&cursor={cursor}"));
            }
            assert_eq!(rows, expected, "in pages of {limit}");
        }
    }

    #[tokio::test]
    async fn malformed_parameters_are_refused() {
        let app = App::new();
        for path in ["?metric=bad-name", "?cursor=x", "?cursor=61", "?limit=0", "?metrics=m"] {
            assert_eq!(app.get(&format!("/api/v1/cardinality{path}")).await.status, 400, "{path}");
        }
    }
}
