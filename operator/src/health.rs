//! The operator's own pages: whether it lives, whether it is ready, and its figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::progress::Progress;
use crate::telemetry::Metrics;

/// What the pages tell of.
#[derive(Debug, Clone)]
pub struct Pages {
    /// What lives.
    pub progress: Arc<Progress>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Whether the API server has been reached.
    pub ready: Arc<AtomicBool>,
}

/// Serves the pages at `address` as long as the process lives; answers why it can't.
pub async fn serve(address: SocketAddr, pages: Pages) -> std::io::Error {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    tracing::info!(%address, "serving health and metrics");
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(pages);
    match axum::serve(listener, router).await {
        Err(error) => error,
        Ok(()) => std::io::Error::other("it ended by itself"),
    }
}

async fn livez(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages.progress.stuck() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => {
            tracing::error!(why, "no progress is made");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
    }
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server hasn't been reached yet\n")
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    // Ages are read when they are asked for.
    let _ = pages.progress.stuck();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.metrics.page())
}
