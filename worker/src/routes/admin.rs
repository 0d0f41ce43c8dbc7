//! `/api/v1/admin`: deleting samples, retention, usage.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use luminate_crds::worker_config::Span;
use luminate_storage::store::{Retention, Usage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::cardinality::CardinalityLimits;
use super::input::{self, Parameters, Segments, Time};
use super::openapi::{BodyErrors, ReadErrors};
use super::query::body::DurationText;
use crate::admission::Class;
use crate::app::AppState;
use crate::body::Received;
use crate::error::{Error, Fault};
use crate::tenant::CanAdmin;

/// Shortest retention, in milliseconds.
const MIN_RETENTION: i64 = 1_000;

/// What is deleted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct DeleteParameters {
    /// Only samples before this time: Unix milliseconds or RFC 3339; absent: all.
    pub before: Option<String>,
    /// `true` only counts.
    #[param(value_type = Option<bool>)]
    pub dry_run: Option<String>,
}

/// What was deleted, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteAnswer {
    /// The metric.
    pub metric: String,
    /// Series that lost a sample.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Whether they were only counted.
    pub dry_run: bool,
}

/// Deletes a metric's samples; they are gone for queries when the answer returns.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/metrics/{name}",
    tag = "administer",
    params(("name" = String, Path, description = "The metric"), DeleteParameters),
    responses((status = 200, description = "What was deleted", body = DeleteAnswer), ReadErrors),
    security(("token" = ["admin"])),
)]
pub async fn delete_metric(
    State(state): State<AppState>,
    caller: CanAdmin,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<Json<DeleteAnswer>, Error> {
    let metric = input::metric("name", &name)?;
    let before = parameters.before.as_deref().map(before).transpose()?;
    let dry_run = input::flag("dryRun", parameters.dry_run.as_deref())?;
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let deleted = state.store()?.delete_before(caller.tenant(), &metric, before, dry_run).await?;
    Ok(Json(DeleteAnswer { metric: name, series: deleted.series, samples: deleted.samples, dry_run }))
}

fn before(text: &str) -> Result<i64, Error> {
    let reason = "before must be whole Unix milliseconds or an RFC 3339 time";
    Time::parse(text).map(|time| time.0).ok_or_else(|| Error::InvalidParameter(Fault::of("before", reason)))
}

/// How long the tenant's samples live.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RetentionBody {
    /// For every metric not named below.
    #[schema(example = "30d")]
    pub default: String,
    /// For single metrics.
    #[schema(example = json!({"debug_events": "1d"}))]
    pub metrics: BTreeMap<String, String>,
}

/// The tenant's whole new retention.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with default and metrics")]
#[schema(as = NewRetention)]
pub struct RetentionChange {
    /// For every metric not named below; absent: the worker's default.
    #[schema(value_type = Option<String>, example = "30d")]
    pub default: Option<DurationText>,
    /// For single metrics; those not named follow the default.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"debug_events": "1d"}))]
    pub metrics: BTreeMap<String, DurationText>,
}

impl From<&Retention> for RetentionBody {
    fn from(retention: &Retention) -> Self {
        let text = |millis: i64| Span::from_millis(millis.unsigned_abs()).to_string();
        Self {
            default: text(retention.default),
            metrics: retention
                .metrics
                .iter()
                .map(|(name, millis)| (name.to_string(), text(*millis)))
                .collect(),
        }
    }
}

impl RetentionChange {
    fn check(self, default: i64, max_metrics: u64) -> Result<Retention, Error> {
        let refuse = |field: &str, reason: String| Err(Error::InvalidBody(Fault::of(field, reason)));
        if self.metrics.len() as u64 > max_metrics {
            return refuse(
                "metrics",
                format!("{} metrics; at most {max_metrics} are allowed", self.metrics.len()),
            );
        }
        let mut metrics = BTreeMap::new();
        for (name, DurationText(millis)) in &self.metrics {
            let field = format!("metrics.{name}");
            if *millis < MIN_RETENTION {
                return refuse(&field, "a retention is at least 1s".into());
            }
            metrics.insert(input::metric(&field, name)?, *millis);
        }
        let default = self.default.map_or(default, |default| default.0);
        if default < MIN_RETENTION {
            return refuse("default", "a retention is at least 1s".into());
        }
        Ok(Retention { default, metrics })
    }
}

/// How long the tenant's samples live.
#[utoipa::path(
    get,
    path = "/api/v1/admin/retention",
    tag = "administer",
    responses((status = 200, description = "The retention", body = RetentionBody), ReadErrors),
    security(("token" = ["admin"])),
)]
pub async fn retention(
    State(state): State<AppState>,
    caller: CanAdmin,
) -> Result<Json<RetentionBody>, Error> {
    let retention = state.store()?.retention(caller.tenant()).await?;
    Ok(Json(RetentionBody::from(&retention)))
}

/// Replaces the tenant's retention; queries honour it when the answer returns.
#[utoipa::path(
    put,
    path = "/api/v1/admin/retention",
    tag = "administer",
    request_body = RetentionChange,
    responses(
        (status = 200, description = "The new retention", body = RetentionBody),
        (status = 400, description = "The body is malformed", body = crate::error::ErrorBody),
        BodyErrors,
    ),
    security(("token" = ["admin"])),
)]
pub async fn set_retention(
    State(state): State<AppState>,
    caller: CanAdmin,
    headers: HeaderMap,
    body: Received,
) -> Result<Json<RetentionBody>, Error> {
    let change: RetentionChange = input::json(&state, &headers, &body, Error::InvalidBody)?;
    let limits = state.limits.series(&caller.caller);
    let retention = change.check(state.config.retention.default.millis(), limits.max_metrics)?;
    let answer = RetentionBody::from(&retention);
    state.store()?.set_retention(caller.tenant(), retention).await?;
    Ok(Json(answer))
}

/// What the tenant holds, against its limits.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageAnswer {
    /// Metrics with a series present.
    pub metrics: u64,
    /// Series present.
    pub series: u64,
    /// Samples held; an upper bound.
    pub samples: u64,
    /// Bytes held, estimated.
    pub bytes: u64,
    /// Samples accepted since midnight UTC.
    pub samples_today: u64,
    /// The limits that apply.
    pub limits: CardinalityLimits,
}

/// Says what the tenant holds.
#[utoipa::path(
    get,
    path = "/api/v1/admin/usage",
    tag = "administer",
    responses((status = 200, description = "What it holds", body = UsageAnswer), ReadErrors),
    security(("token" = ["admin"])),
)]
pub async fn usage(State(state): State<AppState>, caller: CanAdmin) -> Result<Json<UsageAnswer>, Error> {
    let _admitted = state.gate.enter(Class::LightQuery).await?;
    let Usage { metrics, series, samples, bytes, samples_today } =
        state.store()?.usage(caller.tenant()).await?;
    let limits = CardinalityLimits::of(&state, &caller.caller);
    Ok(Json(UsageAnswer { metrics, series, samples, bytes, samples_today, limits }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{App, NOW};

    async fn app() -> App {
        let app = App::new();
        let sample = |at: i64, host: &str| json!({"name": "m", "timestamp": NOW + at, "value": 1, "dimensions": {"host": host}});
        let samples =
            [sample(0, "a"), sample(1_000, "a"), sample(0, "b"), json!({"name": "kept", "value": 1})];
        assert_eq!(app.post("/api/v1/write", &json!({"metrics": samples})).await.status, 200);
        app
    }

    #[tokio::test]
    async fn a_dry_run_counts_and_a_delete_deletes() {
        let app = app().await;
        for (query, samples, series) in [
            (format!("?before={}&dryRun=true", NOW + 1_000), 2, 2),
            ("?before=2026-01-01T00:00:01Z&dryRun=false".to_owned(), 2, 2),
            (String::new(), 1, 1),
            (String::new(), 0, 0),
        ] {
            let answer = app.send("DELETE", &format!("/api/v1/admin/metrics/m{query}"), &[], "").await;
            let expected = json!({"metric": "m", "series": series, "samples": samples, "dryRun": query.contains("true")});
            assert_eq!((answer.status, answer.json), (200, expected), "{query}");
        }
        assert_eq!(app.samples("kept").await.as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn malformed_deletes_are_refused() {
        let app = App::new();
        for (path, expected) in [
            ("bad-name", "400 INVALID_METRIC_NAME"),
            (
                "m?before=yesterday",
                "400 INVALID_PARAMETER before must be whole Unix milliseconds or an RFC 3339 time",
            ),
            ("m?before=1.5", "400 INVALID_PARAMETER before must be"),
            ("m?dryRun=perhaps", "400 INVALID_PARAMETER dryRun must be true or false"),
            ("m?befor=5", "400 INVALID_PARAMETER"),
        ] {
            let answer = app.send("DELETE", &format!("/api/v1/admin/metrics/{path}"), &[], "").await;
            assert!(answer.error().starts_with(expected), "{}, not {expected}", answer.error());
        }
    }

    #[tokio::test]
    async fn a_new_retention_replaces_the_old_one() {
        let app = app().await;
        assert_eq!(app.get("/api/v1/admin/retention").await.text(), r#"200 {"default":"30d","metrics":{}}"#);
        let wanted = json!({"default": "7d", "metrics": {"debug_events": "36h"}});
        assert_eq!(app.put("/api/v1/admin/retention", &wanted).await.json, wanted);
        assert_eq!(app.get("/api/v1/admin/retention").await.json, wanted);
        let emptied = app.put("/api/v1/admin/retention", &json!({})).await;
        assert_eq!(emptied.text(), r#"200 {"default":"30d","metrics":{}}"#);
    }

    #[tokio::test]
    async fn malformed_retentions_are_refused_and_change_nothing() {
        let app = App::new();
        for (body, expected) in [
            (json!({"default": "soon"}), "400 INVALID_BODY default"),
            (json!({"default": "0s"}), "400 INVALID_BODY default"),
            (json!({"default": "5ms"}), "400 INVALID_BODY default"),
            (json!({"default": 30}), "400 INVALID_BODY default"),
            (json!({"metrics": {"bad-name": "1d"}}), "400 INVALID_METRIC_NAME metrics.bad-name"),
            (json!({"metrics": {"m": "-1d"}}), "400 INVALID_BODY metrics.m"),
            (json!({"metricz": {}}), "400 INVALID_BODY metricz"),
        ] {
            let answer = app.put("/api/v1/admin/retention", &body).await;
            let error = &answer.json["error"];
            let shown = format!(
                "{} {} {}",
                answer.status,
                error["code"].as_str().unwrap(),
                error["details"]["field"].as_str().unwrap()
            );
            assert_eq!(shown, expected, "{body}");
        }
        assert_eq!(app.get("/api/v1/admin/retention").await.text(), r#"200 {"default":"30d","metrics":{}}"#);
    }

    #[tokio::test]
    async fn usage_counts_what_is_held() {
        let usage = app().await.get("/api/v1/admin/usage").await.json;
        assert_eq!(
            (&usage["metrics"], &usage["series"], &usage["samples"], &usage["samplesToday"]),
            (&json!(2), &json!(3), &json!(4), &json!(4))
        );
        assert_eq!(usage["limits"], json!({"maxMetrics": 1_000, "maxSeriesPerMetric": 1_000_000}));
    }
}
