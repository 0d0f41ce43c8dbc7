//! What handlers share, and every layer that a request passes.

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use luminate_crds::worker_config::{ByteSize, WorkerConfig};
use luminate_storage::clock::Clock;
use luminate_storage::store::MetricsStore;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::admission::Gate;
use crate::auth::Auth;
use crate::body::BodyBudget;
use crate::error::Error;
use crate::framing;
use crate::lifecycle::Lifecycle;
use crate::limits::{AddressLimits, Limits, limit_addresses};
use crate::metrics::Metrics;
use crate::observe::{self, RequestIds};
use crate::routes;

/// Bytes that the bodies of all requests may hold together at most: this, or a tenth of the worker's memory.
const BODY_BUDGET: u64 = 256 << 20;
const BODY_SHARE: u64 = 10;
/// The largest body fits in, as sent and as a batch, which may take three times as much.
const BODIES_AT_LEAST: u64 = 4;

/// A body that is decoded takes as much as it is large as text, and three times that as a batch.
const DECODED: u64 = 4;
/// What all that are decoded at once may take: a quarter of the worker's memory.
const DECODERS_SHARE: u64 = 4;

/// What handlers share. A request makes dozens of clones on its way through the layers, so that one is a single reference.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What an [`AppState`] refers to.
#[derive(Debug)]
pub struct Shared {
    /// The checked configuration.
    pub config: Arc<WorkerConfig>,
    /// What tells the time: read once a request.
    pub clock: Arc<dyn Clock>,
    /// Who checks tokens.
    pub auth: Arc<Auth>,
    /// Budgets of tenants.
    pub limits: Arc<Limits>,
    /// Budgets of client addresses.
    pub addresses: Arc<AddressLimits>,
    /// What names requests.
    pub request_ids: Arc<RequestIds>,
    /// The worker's own figures.
    pub metrics: Arc<Metrics>,
    /// Bytes that bodies and answers may hold together.
    pub bodies: BodyBudget,
    /// Who is let in while the worker is busy.
    pub gate: Arc<Gate>,
    /// Large bodies are decoded one a core, or fewer where there is no memory for so many.
    pub decoders: Arc<Semaphore>,
    /// Starting, serving or stopping; holds the store.
    pub lifecycle: Arc<Lifecycle>,
}

impl AppState {
    /// A worker that is starting under `config`, which has been checked.
    #[must_use]
    pub fn new(config: WorkerConfig, auth: Auth, clock: Arc<dyn Clock>) -> Self {
        let lifecycle = Arc::new(Lifecycle::default());
        let metrics = Arc::new(Metrics::new(Arc::clone(&lifecycle)));
        let bodies = body_budget(&config);
        let room = (config.query_limits.max_concurrent, config.query_limits.heavy_samples);
        let gate = Gate::new(room, bodies.clone(), Arc::clone(&lifecycle), Arc::clone(&metrics));
        Self(Arc::new(Shared {
            gate: Arc::new(gate),
            decoders: Arc::new(Semaphore::new(decoders(&config))),
            limits: Arc::new(Limits::new(&config, Arc::clone(&metrics))),
            bodies,
            auth: Arc::new(auth),
            lifecycle,
            addresses: Arc::new(AddressLimits::new(config.rate_limits.address_rps)),
            request_ids: Arc::default(),
            config: Arc::new(config),
            clock,
            metrics,
        }))
    }

    /// The store.
    ///
    /// # Errors
    /// `NotServing` until it is open, and once it is closed.
    pub fn store(&self) -> Result<Arc<dyn MetricsStore>, Error> {
        self.lifecycle.store().ok_or(Error::NotServing)
    }
}

/// Large bodies that may be decoded at once under `config`.
fn decoders(config: &WorkerConfig) -> usize {
    let threads = config.storage.rocksdb.threads.unwrap_or(1) as usize;
    let each = DECODED * config.server.max_body_bytes.bytes();
    let room = memory(config) / DECODERS_SHARE / each.max(1);
    threads.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

/// The worker's memory, where it is told.
fn memory(config: &WorkerConfig) -> u64 {
    config.storage.rocksdb.memory.map_or(u64::MAX, ByteSize::bytes)
}

/// What bodies and answers may hold together under `config`; of one tenant, half where tenants are told apart.
fn body_budget(config: &WorkerConfig) -> BodyBudget {
    let least = BODIES_AT_LEAST * config.server.max_body_bytes.bytes();
    let all = (memory(config) / BODY_SHARE).min(BODY_BUDGET).max(least);
    let of_tenant = if config.auth.enabled { (all / 2).max(least) } else { all };
    BodyBudget::new(all, of_tenant)
}

/// Every route behind every layer.
pub fn router(state: AppState) -> Router {
    let (routes, _document) = routes::all().split_for_parts();
    let header = SetResponseHeaderLayer::if_not_present;
    // Outermost first. A tenant's own budgets are charged behind all of these, by the extractors in
    // `tenant`: only a checked token names the tenant whose budget it is.
    let layers = ServiceBuilder::new()
        // Below nothing, so that no panic passes it; names the request, so that all others can.
        .layer(from_fn_with_state(state.clone(), observe::recover))
        // Above everything that refuses, and that writes refusals anew.
        .layer(from_fn(routes::otlp::in_its_form))
        // Answers are for one tenant and one moment, and are what they say they are; above `log`, which
        // writes some of them anew.
        .layer(header(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        // Above figures and limits, so that what they refuse is logged and has the request's id.
        .layer(from_fn(observe::log))
        // Above the limit, so that what it refuses is counted.
        .layer(from_fn_with_state(state.clone(), observe::count))
        // Above the limit: it costs nothing, and what follows may rely on it.
        .layer(from_fn(framing::refuse_ambiguous))
        // Above everything that costs: a token's check, a body, a query.
        .layer(from_fn_with_state(state.clone(), limit_addresses));
    routes.fallback(|| async { Error::NotFound }).layer(layers).with_state(state)
}

/// Only the metrics page, for a port of its own.
pub fn metrics_router(state: AppState) -> Router {
    let page = |State(state): State<AppState>| async move { routes::metrics::render(&state).await };
    Router::new().route("/metrics", get(page)).fallback(|| async { Error::NotFound }).with_state(state)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, Response};
    use http_body_util::BodyExt;
    use luminate_storage::clock::ManualClock;
    use luminate_storage::model::Tenant;
    use tower::ServiceExt;

    use super::*;

    fn state() -> AppState {
        let auth = Auth::disabled(Tenant::new("default").unwrap());
        AppState::new(WorkerConfig::default(), auth, Arc::new(ManualClock::new(0)))
    }

    async fn ask(app: Router, method: &str, path: &str) -> Response<Body> {
        let request =
            Request::builder().method(method).uri(path).header("host", "a").header("x-request-id", "r1");
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn large_bodies_are_decoded_at_once_as_far_as_memory_has_room_for_them() {
        let of = |threads, memory: &str| {
            let mut config = WorkerConfig::default();
            config.server.max_body_bytes = "10 MB".parse().unwrap();
            (config.storage.rocksdb.threads, config.storage.rocksdb.memory) =
                (Some(threads), Some(memory.parse().unwrap()));
            decoders(&config)
        };
        assert_eq!([of(4, "64 MB"), of(4, "512 MB"), of(4, "8 GB"), of(1, "8 GB")], [1, 3, 4, 1]);
    }

    #[tokio::test]
    async fn an_unknown_path_is_answered_in_the_form_of_all_errors() {
        let response = ask(router(state()), "GET", "/nowhere").await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-request-id"]),
            (404, &"r1".parse().unwrap())
        );
        let expected =
            r#"{"error":{"code":"NOT_FOUND","message":"there is nothing under this path","details":{}}}"#;
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(text(response).await, expected);
    }

    #[tokio::test]
    async fn a_wrong_method_names_the_right_ones() {
        let response = ask(router(state()), "DELETE", "/api/v1/health").await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET,HEAD".parse().unwrap())
        );
        assert!(text(response).await.contains("METHOD_NOT_ALLOWED"));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_that_names_the_request() {
        let state = state();
        let panicking = Router::new()
            .route(
                "/boom",
                get(|| async {
                    if true {
                        panic!("canary")
                    }
                }),
            )
            .layer(from_fn_with_state(state.clone(), observe::count))
            .layer(from_fn(observe::log))
            .layer(from_fn_with_state(state.clone(), observe::recover));
        let response = ask(panicking, "GET", "/boom").await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-request-id"]),
            (500, &"r1".parse().unwrap())
        );
        let body = text(response).await;
        assert!(body.contains(r#""requestId":"r1""#) && !body.contains("canary"), "{body}");
        assert!(state.metrics.page().unwrap().contains(r#"route="/boom",method="GET",status="500"} 1"#));
    }

    #[tokio::test]
    async fn probes_tell_starting_from_serving() {
        let app = router(state());
        for (path, status) in [("live", 200), ("startup", 503), ("ready", 503)] {
            let response = ask(app.clone(), "GET", &format!("/api/v1/health/{path}")).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
        let health = text(ask(app, "GET", "/api/v1/health").await).await;
        assert!(health.contains(r#""status":"unhealthy""#) && health.contains("being opened"), "{health}");
    }

    #[tokio::test]
    async fn figures_name_routes_and_never_raw_paths() {
        let app = router(state());
        ask(app.clone(), "GET", "/secret-canary").await;
        ask(app.clone(), "GET", "/api/v1/health/live").await;
        let page = text(ask(app, "GET", "/metrics").await).await;
        assert!(
            page.contains(r#"luminate_http_requests_total{route="unmatched",method="GET",status="404"} 1"#),
            "{page}"
        );
        assert!(page.contains(r#"route="/api/v1/health/live""#) && !page.contains("canary"));
        assert!(page.contains(r#"luminate_build_info{version=""#) && page.ends_with("# EOF\n"));
    }
}
