//! Listening, and ending: on a signal, or with the standard input.

use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::server::{Options, Server};
use crate::socket::Socket;

/// How long running queries may take to end by themselves when the server stops.
const PATIENCE: Duration = Duration::from_secs(3);
/// A thread for each request, also while it waits for a place: killing queries must not wait behind them.
const THREADS: usize = 1_024;
/// The engine parses deeply nested queries on the caller's stack.
const STACK: usize = 16 << 20;

/// Runs a server until it is told to stop.
///
/// # Errors
/// One sentence: the folder, the library or the address can't be used.
pub fn run(options: Options, address: SocketAddr, stop_with_stdin: bool) -> Result<(), String> {
    let server = Arc::new(Server::open(options)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| format!("no threads: {error}"))?;
    let served = runtime.block_on(serve(Arc::clone(&server), address, stop_with_stdin));
    runtime.shutdown_timeout(PATIENCE);
    server.sessions.clear();
    served
}

async fn serve(server: Arc<Server>, address: SocketAddr, stop_with_stdin: bool) -> Result<(), String> {
    let refused = |error: io::Error| format!("{address} can't be listened on: {error}");
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let mut output = io::stdout();
    // Whoever started this may not read.
    let _ = writeln!(output, "listening on http://{address}").and_then(|()| output.flush());
    let stop = stop(stop_with_stdin).map_err(|error| format!("no signals: {error}"))?;
    let sweeper = Arc::clone(&server);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sweeper.sessions.sweep();
        }
    });
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted
                && let Ok((socket, link)) = Socket::new(stream)
            {
                let server = Arc::clone(&server);
                let service = service_fn(move |request| Arc::clone(&server).serve(request, Arc::clone(&link)));
                let mut http = http1::Builder::new();
                // A client who sends everything and goes has asked all the same.
                http.timer(TokioTimer::new()).max_buf_size(1 << 20).half_close(true);
                tokio::spawn(connections.watch(http.serve_connection(TokioIo::new(socket), service)));
            },
            () = stop.notified() => break,
        }
    }
    drop(listener);
    wait(&server).await;
    // The last answers are on their way.
    let _ = tokio::time::timeout(PATIENCE, connections.shutdown()).await;
    Ok(())
}

/// Waits for what runs, then cancels it.
async fn wait(server: &Arc<Server>) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if server.processes.count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let server = Arc::clone(server);
    let _ = tokio::task::spawn_blocking(move || server.processes.cancel_all(&server.engine)).await;
}

/// Notified when it is time to stop.
fn stop(with_stdin: bool) -> io::Result<Arc<Notify>> {
    let stop = Arc::new(Notify::new());
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, stop) = (signal(kind)?, Arc::clone(&stop));
        tokio::spawn(async move {
            signals.recv().await;
            stop.notify_one();
        });
    }
    if with_stdin {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let _ = io::stdin().lock().read_to_end(&mut Vec::new());
            stop.notify_one();
        });
    }
    Ok(stop)
}
