//! A worker's life: listen, open the store, serve, drain, close.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use luminate_crds::worker_config::WorkerConfig;
use luminate_storage::clock::Clock;
use luminate_storage::model::{InvalidName, Tenant};
use luminate_storage::store::{MetricsStore, StoreError};
use tokio::task::{JoinError, JoinHandle};

use crate::app::{self, AppState};
use crate::auth::{Auth, KeyError};
use crate::server::{Server, Stop, Tls, TlsError};

/// Everybody's tenant when auth is disabled.
const DEFAULT_TENANT: &str = "default";

/// Why a worker ended that wasn't told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address can't be had.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Keys of tokens can't be had or used.
    #[error("auth: {0}")]
    Keys(#[from] KeyError),
    /// Certificate or key can't be used.
    #[error("server.tls: {0}")]
    Tls(#[from] TlsError),
    /// The store can't be opened.
    #[error("the store can't be opened: {0}")]
    Open(StoreError),
    /// The store can't be closed cleanly.
    #[error("the store can't be closed: {0}")]
    Close(StoreError),
    /// A part of the worker failed.
    #[error("a task of the worker failed: {0}")]
    Task(#[from] JoinError),
    /// The name of the default tenant isn't one.
    #[error(transparent)]
    Tenant(#[from] InvalidName),
}

/// What opens the store; it blocks.
pub type Opener = Box<dyn FnOnce(&WorkerConfig) -> Result<Arc<dyn MetricsStore>, StoreError> + Send>;

/// A worker that listens.
#[derive(Debug)]
pub struct Worker {
    state: AppState,
    servers: Vec<JoinHandle<()>>,
    /// Tasks that go on for ever.
    followers: Vec<JoinHandle<()>>,
    stop: Stop,
    address: SocketAddr,
}

impl Worker {
    /// Reads keys and certificates and listens: from now on probes are answered.
    ///
    /// # Errors
    /// A key, a certificate or an address that can't be used.
    pub async fn listen(config: WorkerConfig, clock: Arc<dyn Clock>) -> Result<Self, RunError> {
        let mut followers = Vec::new();
        // 1. Keys and certificates. IO.
        let auth = if config.auth.enabled {
            let (auth, follower) = Auth::with_tokens(&config.auth, Arc::clone(&clock))?;
            followers.push(tokio::spawn(follower.run()));
            auth
        } else {
            tracing::warn!("auth is disabled: everybody is tenant `default` with every scope");
            Auth::disabled(Tenant::new(DEFAULT_TENANT)?)
        };
        let tls = Tls::load(&config.server.tls)?;
        followers.extend(tls.clone().map(|tls| tokio::spawn(tls.follow_files())));
        // 2. Sockets. IO.
        let state = AppState::new(config, auth, clock);
        let stop = Stop::default();
        let port = |port| SocketAddr::new(state.config.server.host, port);
        let api =
            bind(port(state.config.server.port), app::router(state.clone()), &state, tls, &stop).await?;
        let address = api.1;
        let mut servers = vec![tokio::spawn(api.0.run())];
        if let Some(own) = state.config.metrics.port.filter(|_| state.config.metrics.enabled) {
            let (page, address) =
                bind(port(own), app::metrics_router(state.clone()), &state, None, &stop).await?;
            tracing::info!(%address, "serving the metrics page");
            servers.push(tokio::spawn(page.run()));
        }
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
        Ok(Self { state, servers, followers, stop, address })
    }

    /// Where the API is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the store and serves until `signal`, then drains and closes.
    ///
    /// # Errors
    /// The store can't be opened or closed, or a server failed.
    pub async fn run(mut self, open: Opener, signal: impl Future<Output = ()>) -> Result<(), RunError> {
        let config = Arc::clone(&self.state.config);
        let mut opening = tokio::task::spawn_blocking(move || open(&config));
        let mut signal = std::pin::pin!(signal);
        tokio::select! {
            opened = &mut opening => {
                self.state.lifecycle.opened(opened?.map_err(RunError::Open)?);
                tracing::info!("ready");
                signal.await;
            }
            // A log that is half replayed is replayed again at the next start.
            () = &mut signal => tracing::info!("told to stop while the store was being opened"),
        }
        self.drain().await?;
        self.close().await
    }

    /// Not ready, but serving; then no new connections; then whatever is in flight has its time.
    async fn drain(&mut self) -> Result<(), RunError> {
        let settings = &self.state.config.server;
        let (delay, grace) = (settings.drain_delay.duration(), settings.shutdown_grace.duration());
        self.state.lifecycle.drain();
        tracing::info!(?delay, ?grace, "draining");
        tokio::time::sleep(delay).await;
        self.stop.gracefully.cancel();
        let stop = self.stop.now.clone();
        let cut_off = tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            stop.cancel();
        });
        for server in self.servers.drain(..) {
            server.await?;
        }
        cut_off.abort();
        Ok(())
    }

    async fn close(self) -> Result<(), RunError> {
        for follower in self.followers {
            follower.abort();
        }
        if let Some(store) = self.state.lifecycle.take_store() {
            store.close().await.map_err(RunError::Close)?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

async fn bind(
    address: SocketAddr,
    app: axum::Router,
    state: &AppState,
    tls: Option<Tls>,
    stop: &Stop,
) -> Result<(Server, SocketAddr), RunError> {
    let failed = |error| RunError::Listen { address, error };
    let metrics = Arc::clone(&state.metrics);
    let server = Server::bind(address, app, &state.config.server, tls, metrics, stop.clone()).await;
    let server = server.map_err(failed)?;
    let address = server.address().map_err(failed)?;
    Ok((server, address))
}

/// Resolves at SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// Signals can't be listened for.
pub fn signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        // The receiver is gone only when the worker is ending already.
        let _ = first.send(());
        next().await;
        tracing::warn!("told to stop a second time: ending at once");
        std::process::exit(130);
    });
    Ok(async move {
        // The task never drops the sender before it has sent.
        let _ = told.await;
    })
}

/// How long threads that are still busy (an open that was cut short) may hold up the end of the process.
pub const LAST_THREADS: Duration = Duration::from_millis(200);
