//! Connections: accepting, timing, refusing, and stopping without losing a request.
//!
//! `axum::serve` never closes a slow or idle connection; this loop gives each one its deadlines
//! (`watch`), bounds how many there are (`Slots`), and drains them on the way out.

mod again;
mod slots;
mod tls;
mod watch;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use luminate_crds::worker_config::Server as Settings;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::metrics::Metrics;

pub use slots::Slots;
pub use tls::{Tls, TlsError};

use again::Again;
use watch::{Deadline, Timed, Watch};

/// How long the loop waits after a failure to accept that isn't one connection's own (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// While stopping, a connection on which nothing happens is given this long: its client may be sending.
const LAST_CALL: Duration = Duration::from_secs(1);
/// Streams that an HTTP/2 client may open and reset before they are seen, and be refused, before it is cut
/// off (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 64;
/// Bytes that wait to be sent on one HTTP/2 stream.
const MAX_SEND_BUFFER: usize = 256 << 10;
/// Headers of an HTTP/1 request.
const MAX_HEADERS: usize = 100;

/// Where a request came from: the connection's address, never a header's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

/// A request on one of the connections kept for probes: all other slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverLimit;

/// Tells a server to stop, in two steps.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Accept no more; finish what is in flight.
    pub gracefully: CancellationToken,
    /// Drop what is still in flight.
    pub now: CancellationToken,
}

/// A listener with everything its connections need.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    app: Router,
    settings: Settings,
    tls: Option<Tls>,
    slots: Slots,
    metrics: Arc<Metrics>,
    stop: Stop,
}

impl Server {
    /// Listens on `address` and is ready to serve `app`.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(
        address: SocketAddr,
        app: Router,
        settings: &Settings,
        tls: Option<Tls>,
        metrics: Arc<Metrics>,
        stop: Stop,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let slots = Slots::new(settings.max_connections);
        let shared = Shared { app, settings: settings.clone(), tls, slots, metrics, stop };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is told to stop and every connection is done.
    pub async fn run(self) {
        let tasks = TaskTracker::new();
        let stop = self.shared.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.gracefully.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.start(&tasks, stream, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Clients whose connections wait to be accepted think that they are connected.
        while let Some(Ok((stream, peer))) = self.listener.accept().now_or_never() {
            self.start(&tasks, stream, peer);
        }
        drop(self.listener);
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = stop.now.cancelled() => {
                tracing::warn!(connections = tasks.len(), "closing connections with requests in flight");
            }
        }
    }

    fn start(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
        let Some(slot) = self.shared.slots.take() else {
            self.shared.metrics.connection_refused();
            return;
        };
        let shared = Arc::clone(&self.shared);
        tasks.spawn(async move {
            let _open = shared.metrics.connection_opened();
            // A failure here is the client's: it went away or doesn't speak HTTP.
            let ended = shared.connection(stream, peer.ip(), slot.over_limit).await;
            if let Err(reason) = ended {
                tracing::trace!(reason, "a connection ended early");
            }
            drop(slot);
        });
    }
}

/// Whether an error of `accept` concerns only the connection that would have been accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

impl Shared {
    async fn connection(&self, stream: TcpStream, peer: IpAddr, over_limit: bool) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => self.serve(stream, peer, over_limit).await,
            Some(tls) => {
                let timeout = self.settings.header_timeout.duration();
                let stream = tokio::time::timeout(timeout, tls.accept(stream)).await;
                let stream =
                    stream.map_err(|_| "no TLS handshake in time")?.map_err(|error| error.to_string())?;
                self.serve(stream, peer, over_limit).await
            }
        }
    }

    /// Serves one connection until it is done, past a deadline, or told to stop.
    async fn serve<S>(&self, stream: S, peer: IpAddr, over_limit: bool) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let watch = Watch::new(Timed::of(&self.settings));
        let service = service_fn(|mut request: Request<Incoming>| {
            let running = watch.request_begins(request.version());
            request.extensions_mut().insert(ClientAddress(peer));
            if over_limit {
                request.extensions_mut().insert(OverLimit);
            }
            let answer = self.app.clone().oneshot(request.map(Body::new));
            async move {
                let answer = answer.await?;
                // The request runs until its answer's last byte is handed over.
                Ok::<_, Infallible>(answer.map(|body| running.until_sent(body)))
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(watch.wrap(stream)), service));
        let (again, mut stopping) = (Again::new(), false);
        loop {
            let deadline = watch.deadline();
            tokio::select! {
                ended = poll_fn(|context| again.poll(connection.as_mut(), context)) => {
                    return ended.map_err(|error| error.to_string());
                }
                () = self.stop.now.cancelled() => return Err("the worker stops".to_owned()),
                () = self.stop.gracefully.cancelled(), if !stopping => {
                    stopping = true;
                    watch.idle_at_most(LAST_CALL);
                    // An HTTP/1 connection that idles would be closed at once, perhaps onto a request.
                    if watch.is_busy() || watch.is_http2() {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = tokio::time::sleep_until(deadline.at()) => match deadline {
                    Deadline::LookAgain(_) => {}
                    Deadline::Idle(_) if watch.is_past(deadline) => connection.as_mut().graceful_shutdown(),
                    Deadline::Dead(_, reason) if watch.is_past(deadline) => return Err(reason.to_owned()),
                    Deadline::Idle(_) | Deadline::Dead(..) => {}
                },
            }
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let header_bytes = self.settings.max_header_bytes;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(hyper_util::rt::TokioTimer::new())
            // `watch` has the deadlines: hyper's would also close connections that merely idle.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(header_bytes.len());
        builder
            .http2()
            .timer(hyper_util::rt::TokioTimer::new())
            .max_concurrent_streams(self.settings.max_concurrent_streams)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_header_list_size(u32::try_from(header_bytes.bytes()).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_SEND_BUFFER)
            .keep_alive_interval(self.settings.idle_timeout.duration() / 2)
            .keep_alive_timeout(self.settings.header_timeout.duration());
        builder
    }
}

#[cfg(test)]
mod tests;
