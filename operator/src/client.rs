//! The client: every request passes a gate. A write passes only while this process leads, each is counted,
//! and a watch that starts anew is noted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, Response, header};
use futures_util::future::BoxFuture;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use crate::leader::Fence;
use crate::telemetry::Metrics;

/// How long a write, or a request of the lease, may take. Less than what the fence leaves of a lease.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the answer to a list may take to begin: one of a large cluster takes its time.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may say nothing while an answer is awaited: longer than any watch lasts.
const SILENCE: Duration = Duration::from_secs(75);

/// A write was held back, because this process doesn't lead (any more).
#[derive(Debug, thiserror::Error)]
#[error("this process doesn't hold the lease: nothing is written")]
pub struct NotLeading;

/// The API server didn't begin to answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server didn't answer within {} s", .0.as_secs())]
pub struct TooSlow(Duration);

/// What all requests pass.
#[derive(Debug)]
pub struct Gate {
    fence: Fence,
    metrics: Arc<Metrics>,
    watches: Mutex<BTreeMap<String, Instant>>,
}

impl Gate {
    /// A gate that lets writes pass while `fence` stands.
    #[must_use]
    pub fn new(fence: Fence, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { fence, metrics, watches: Mutex::default() })
    }

    /// The age of the watch that started longest ago. Each starts anew at least every minute, so an
    /// old one hangs.
    #[must_use]
    pub fn oldest_watch(&self) -> Option<Duration> {
        self.watches.lock().values().map(Instant::elapsed).max()
    }

    /// A watch that was ended on purpose hangs no more.
    pub fn forget_watches(&self, path_ends: &str) {
        self.watches.lock().retain(|path, _| !path.ends_with(path_ends));
    }
}

/// A client whose requests pass `gate`. kube's own retries are off: an attempt after a pause must ask again
/// whether this process still leads.
///
/// # Errors
/// The configuration can't be used.
pub fn client(config: Config, gate: Arc<Gate>) -> kube::Result<Client> {
    let config = ours(config);
    Ok(ClientBuilder::try_from(config)?.with_layer(&GateLayer(gate)).build())
}

/// A client without gate, for the lease itself.
///
/// # Errors
/// The configuration can't be used.
pub fn ungated(config: Config) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(ours(config))?.build())
}

/// What holds for both: no retries below ours, and a name by which the API server's own log knows us.
fn ours(mut config: Config) -> Config {
    config.default_retry = false;
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    let name = HeaderValue::from_static(concat!("luminate-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((header::USER_AGENT, name));
    config
}

struct GateLayer(Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: Arc::clone(&self.0) }
    }
}

struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked =
            Asked::of(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        if asked.writes && !self.gate.fence.stands() {
            return Box::pin(std::future::ready(Err(NotLeading.into())));
        }
        let answer = self.inner.call(request);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let patience = if asked.lists { LIST_TIMEOUT } else { REQUEST_TIMEOUT };
            let answer = match tokio::time::timeout(patience, answer).await {
                Ok(answer) => answer?,
                Err(_) => return Err(TooSlow(patience).into()),
            };
            if asked.watch && answer.status().is_success() {
                gate.watches.lock().insert(asked.path, Instant::now());
            }
            if asked.writes {
                gate.metrics.wrote(&asked.resource, asked.verb, answer.status().as_u16());
            }
            Ok(answer)
        })
    }
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    resource: String,
    verb: &'static str,
    writes: bool,
    /// Whether a list or a watch is asked for, not one object.
    lists: bool,
    watch: bool,
}

impl Asked {
    fn of(method: &Method, path: &str, query: &str) -> Self {
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "read",
        };
        let resource = resource_of(path);
        // One object's path ends with its name.
        let lists = verb == "read" && path.ends_with(&format!("/{resource}"));
        let watch = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
        Self {
            path: path.to_owned(),
            resource,
            verb,
            writes: verb != "read",
            lists,
            watch: watch && verb == "read",
        }
    }
}

/// The resource of a path, with its subresource: `/apis/apps/v1/namespaces/a/deployments/b/status` is
/// `deployments/status`.
fn resource_of(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return "other".to_owned(),
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    match rest {
        [resource, _, subresource] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
        [] => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let status =
            Asked::of(&Method::PATCH, "/apis/luminate.dev/v1alpha1/namespaces/a/luminates/b/status", "");
        assert_eq!(
            (status.resource.as_str(), status.verb, status.writes),
            ("luminates/status", "patch", true)
        );
        let watch = Asked::of(&Method::GET, "/api/v1/secrets", "labelSelector=a%3Db&watch=true");
        assert_eq!((watch.resource.as_str(), watch.watch, watch.writes), ("secrets", true, false));
        let one = Asked::of(&Method::GET, "/api/v1/namespaces/secrets/secrets/a", "");
        assert_eq!((watch.lists, one.lists, one.resource.as_str()), (true, false, "secrets"));
        let create = Asked::of(&Method::POST, "/api/v1/namespaces/a/secrets", "");
        assert_eq!((create.resource.as_str(), create.verb), ("secrets", "create"));
        assert_eq!(resource_of("/version"), "other");
        assert_eq!(resource_of("/api/v1/namespaces/a"), "namespaces");
    }
}
