//! `GET /metrics`: the worker's own figures.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::app::AppState;
use crate::error::{Error, ErrorBody};

/// What Prometheus asks for.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The worker's own figures.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operate",
    responses(
        (status = 200, description = "The figures as OpenMetrics text", content_type = "application/openmetrics-text", body = String),
        (status = 404, description = "The page is switched off or has a port of its own", body = ErrorBody),
    )
)]
pub async fn page(State(state): State<AppState>) -> Result<impl IntoResponse, Error> {
    let settings = &state.config.metrics;
    if !settings.enabled || settings.port.is_some() {
        return Err(Error::NotFound);
    }
    render(&state).await
}

/// The page, wherever it is served.
///
/// # Errors
/// `Internal`.
pub async fn render(state: &AppState) -> Result<impl IntoResponse + use<>, Error> {
    if let Some(store) = state.lifecycle.store() {
        state.metrics.refresh_active_series(store.as_ref()).await;
    }
    state.metrics.set_pressure(state.gate.pressure());
    let page = state.metrics.page().map_err(|error| Error::Internal(error.to_string()))?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], page))
}
