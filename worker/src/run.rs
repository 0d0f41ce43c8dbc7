//! A worker's life: listen, open the store, serve, drain, close.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use luminate_crds::worker_config::WorkerConfig;
use luminate_storage::clock::Clock;
use luminate_storage::model::{InvalidName, Tenant};
use luminate_storage::observed::Observed;
use luminate_storage::store::{MetricsStore, StoreError};
use tokio::task::{JoinError, JoinHandle};

use crate::allocator::keep_within;
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
        followers.extend(config.storage.rocksdb.memory.map(|most| tokio::spawn(keep_within(most.bytes()))));
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
                let store = opened?.map_err(RunError::Open)?;
                let metrics = Arc::clone(&self.state.metrics);
                self.state.lifecycle.opened(Arc::new(Observed::new(store, metrics)));
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

#[cfg(test)]
mod tests {
    use luminate_crds::worker_config::Span;
    use luminate_storage::clock::SystemClock;
    use luminate_storage::memory::MemoryStore;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    async fn listening(change: impl FnOnce(&mut WorkerConfig)) -> Worker {
        let mut config = WorkerConfig::default();
        config.server.host = [127, 0, 0, 1].into();
        config.server.port = 0;
        config.server.drain_delay = Span::from_millis(0);
        change(&mut config);
        Worker::listen(config, Arc::new(SystemClock)).await.unwrap()
    }

    fn in_memory() -> Opener {
        Box::new(|_| Ok(Arc::new(MemoryStore::new(Arc::new(SystemClock), 86_400_000))))
    }

    async fn status(address: SocketAddr, path: &str) -> u16 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    async fn until(address: SocketAddr, path: &str, wanted: u16) {
        while status(address, path).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn probes_are_answered_while_the_store_is_being_opened() {
        let worker = listening(|_| ()).await;
        let address = worker.address();
        let (open, opened) = std::sync::mpsc::channel::<()>();
        let (stop, stopped) = oneshot::channel::<()>();
        let opener: Opener = Box::new(move |config| {
            opened.recv().unwrap();
            in_memory()(config)
        });
        let running = tokio::spawn(worker.run(opener, async move { drop(stopped.await) }));
        for (probe, expected) in [("live", 200), ("startup", 503), ("ready", 503)] {
            assert_eq!(status(address, &format!("/api/v1/health/{probe}")).await, expected, "{probe}");
        }
        assert_eq!(status(address, "/api/v1/metrics").await, 503);
        open.send(()).unwrap();
        until(address, "/api/v1/health/ready", 200).await;
        assert_eq!(status(address, "/api/v1/health/startup").await, 200);
        assert_eq!(status(address, "/api/v1/metrics").await, 200);
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_it_drains_it_serves_but_is_not_ready() {
        let worker = listening(|config| config.server.drain_delay = Span::from_secs(2)).await;
        let address = worker.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run(in_memory(), async move { drop(stopped.await) }));
        until(address, "/api/v1/health/ready", 200).await;
        stop.send(()).unwrap();
        until(address, "/api/v1/health/ready", 503).await;
        assert_eq!(status(address, "/api/v1/metrics").await, 200);
        running.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_cannot_be_opened_ends_the_worker() {
        let worker = listening(|_| ()).await;
        let opener: Opener = Box::new(|_| Err(StoreError::corrupt("the log is torn")));
        let ended = worker.run(opener, std::future::pending()).await;
        assert_eq!(ended.unwrap_err().to_string(), "the store can't be opened: the log is torn");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = listening(|_| ()).await;
        let mut config = WorkerConfig::default();
        config.server.host = first.address().ip();
        config.server.port = first.address().port();
        let second = Worker::listen(config, Arc::new(SystemClock)).await.unwrap_err().to_string();
        assert!(second.contains(&first.address().to_string()) && second.contains("in use"), "{second}");
    }
}
