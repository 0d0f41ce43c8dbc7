//! `GET /api/v1/health` and the three probes; none needs a token.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::lifecycle::Stage;

/// Whether the worker can serve.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthBody {
    /// `healthy` or `unhealthy`.
    pub status: Status,
    /// The store's backend.
    pub backend: &'static str,
    /// The worker's version.
    pub version: &'static str,
    /// Each check: `ok`, or why it fails.
    pub checks: BTreeMap<&'static str, String>,
}

/// Whether the worker can serve, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every check passes.
    Healthy,
    /// A check fails.
    Unhealthy,
}

impl Status {
    fn of(healthy: bool) -> (StatusCode, Self) {
        if healthy {
            (StatusCode::OK, Self::Healthy)
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, Self::Unhealthy)
        }
    }
}

/// A probe's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProbeBody {
    /// `healthy` or `unhealthy`.
    pub status: Status,
}

/// Whether the worker can serve, check by check.
#[utoipa::path(
    get,
    path = "/api/v1/health",
    tag = "operate",
    responses(
        (status = 200, description = "Every check passes", body = HealthBody),
        (status = 503, description = "A check fails", body = HealthBody),
    )
)]
pub async fn health(State(state): State<AppState>) -> (StatusCode, Json<HealthBody>) {
    let (backend, mut checks, degraded) = checks(&state).await;
    checks.extend(degraded.into_iter().map(|(name, why)| (name, Err(why))));
    let (code, status) = Status::of(checks.iter().all(|(_, result)| result.is_ok()));
    let checks = checks.into_iter().map(|(name, result)| (name, result.err().unwrap_or_else(|| "ok".into())));
    let version = env!("CARGO_PKG_VERSION");
    (code, Json(HealthBody { status, backend, version, checks: checks.collect() }))
}

type Checks = Vec<(&'static str, Result<(), String>)>;
type Degraded = Vec<(&'static str, String)>;

async fn checks(state: &AppState) -> (&'static str, Checks, Degraded) {
    let lifecycle = match state.lifecycle.stage() {
        Stage::Serving => Ok(()),
        Stage::Starting => Err("the store is being opened".to_owned()),
        Stage::Draining => Err("the worker is stopping".to_owned()),
    };
    let mut checks = vec![("lifecycle", lifecycle)];
    let Some(store) = state.lifecycle.store() else {
        return (backend_name(state), checks, Vec::new());
    };
    let health = store.health().await;
    checks.extend(health.checks);
    (store.backend(), checks, health.degraded)
}

fn backend_name(state: &AppState) -> &'static str {
    match state.config.storage.backend {
        luminate_crds::worker_config::Backend::RocksDb => "rocksdb",
        luminate_crds::worker_config::Backend::ClickHouse => "clickhouse",
    }
}

/// Whether the process makes progress.
#[utoipa::path(get, path = "/api/v1/health/live", tag = "operate",
    responses((status = 200, description = "It does", body = ProbeBody)))]
pub async fn live() -> (StatusCode, Json<ProbeBody>) {
    probe(true)
}

/// Whether it takes requests: the store answers and the worker isn't stopping. What is merely degraded,
/// such as writes while ClickHouse has too many parts, leaves it ready: queries go on.
#[utoipa::path(get, path = "/api/v1/health/ready", tag = "operate",
    responses(
        (status = 200, description = "It does", body = ProbeBody),
        (status = 503, description = "Not now", body = ProbeBody),
    ))]
pub async fn ready(State(state): State<AppState>) -> (StatusCode, Json<ProbeBody>) {
    let (_, checks, _) = checks(&state).await;
    probe(checks.iter().all(|(_, result)| result.is_ok()))
}

/// Whether recovery is done.
#[utoipa::path(get, path = "/api/v1/health/startup", tag = "operate",
    responses(
        (status = 200, description = "It is", body = ProbeBody),
        (status = 503, description = "Not yet", body = ProbeBody),
    ))]
pub async fn startup(State(state): State<AppState>) -> (StatusCode, Json<ProbeBody>) {
    probe(state.lifecycle.stage() != Stage::Starting)
}

fn probe(healthy: bool) -> (StatusCode, Json<ProbeBody>) {
    let (code, status) = Status::of(healthy);
    (code, Json(ProbeBody { status }))
}
