//! What handlers share, and every layer that a request passes.

use std::sync::Arc;

use axum::Router;
use luminate_crds::worker_config::WorkerConfig;
use luminate_storage::clock::Clock;
use luminate_storage::store::MetricsStore;

use crate::auth::Auth;
use crate::body::BodyBudget;
use crate::error::Error;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::routes;

/// Bytes that the bodies of all requests may hold together, if four of the largest fit in.
const BODY_BUDGET: u64 = 256 << 20;

/// What handlers share.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The checked configuration.
    pub config: Arc<WorkerConfig>,
    /// What tells the time: read once a request.
    pub clock: Arc<dyn Clock>,
    /// Who checks tokens.
    pub auth: Arc<Auth>,
    /// Budgets of tenants.
    pub limits: Arc<Limits>,
    /// The worker's own figures.
    pub metrics: Arc<Metrics>,
    /// Bytes that bodies may hold together.
    pub bodies: BodyBudget,
    /// Starting, serving or stopping; holds the store.
    pub lifecycle: Arc<Lifecycle>,
}

impl AppState {
    /// A worker that is starting under `config`, which has been checked.
    #[must_use]
    pub fn new(config: WorkerConfig, auth: Auth, clock: Arc<dyn Clock>) -> Self {
        let metrics = Arc::new(Metrics::new(&config));
        Self {
            limits: Arc::new(Limits::new(&config, Arc::clone(&metrics))),
            bodies: BodyBudget::new(BODY_BUDGET.max(4 * config.server.max_body_bytes.bytes())),
            auth: Arc::new(auth),
            lifecycle: Arc::default(),
            config: Arc::new(config),
            clock,
            metrics,
        }
    }

    /// The store.
    ///
    /// # Errors
    /// `NotServing` until it is open, and once it is closed.
    pub fn store(&self) -> Result<Arc<dyn MetricsStore>, Error> {
        self.lifecycle.store().ok_or(Error::NotServing)
    }
}

/// Every route behind every layer.
pub fn router(state: AppState) -> Router {
    let (routes, _document) = routes::all().split_for_parts();
    routes.fallback(|| async { Error::NotFound }).with_state(state)
}
