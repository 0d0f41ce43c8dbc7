//! A process of the operator: reach the API server, become the leader, serve, give the lease back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::{Client, Config};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Gate, client, ungated};
use crate::cluster::said;
use crate::controller;
use crate::controller::Settings;
use crate::health::{Pages, serve};
use crate::leader::{Election, Fence, Lost};
use crate::progress::Progress;
use crate::telemetry::Metrics;

/// What a process is told at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespaces whose resources are served; empty: all.
    pub namespaces: Vec<String>,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// The lease, unless this process is alone.
    pub election: Option<LeaseName>,
    /// This process's name; no two may have the same.
    pub identity: String,
    /// Reconciles at once, per scope.
    pub concurrency: u16,
}

/// The lease by which one process leads.
#[derive(Debug, Clone)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why a process ended that wasn't told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no configuration of a client, or it can't be used.
    #[error("the API server can't be reached: {0}")]
    Client(#[from] kube::Error),
    /// Health and metrics can't be served.
    #[error("health and metrics can't be served on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// This process leads no more.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Runs until `stop`.
///
/// # Errors
/// [`RunError`]; the process should end, and be started anew.
pub async fn run(config: Config, options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    let fence = if options.election.is_some() { Fence::default() } else { Fence::forever() };
    let gate = Gate::new(fence.clone(), Arc::clone(&metrics));
    let progress = Progress::new(Arc::clone(&gate), Arc::clone(&metrics));
    let ready = Arc::new(AtomicBool::new(false));
    let settings = Settings {
        client: controller::ClientHandle(client(config.clone(), Arc::clone(&gate))?),
        gate,
        metrics: Arc::clone(&metrics),
        progress: Arc::clone(&progress),
        identity: options.identity.clone(),
        concurrency: options.concurrency,
    };
    let bare = ungated(config)?;
    let pages = Pages { progress, metrics: Arc::clone(&metrics), ready: Arc::clone(&ready) };
    let served = serve(options.listen, pages);
    let work = async {
        reach(&bare, &stop).await;
        ready.store(true, Ordering::Relaxed);
        lead(&options, settings, bare, fence, &metrics, &stop).await
    };
    tokio::select! {
        ended = work => ended,
        error = served => Err(RunError::Listen { address: options.listen, error }),
    }
}

/// Waits until the API server answers.
async fn reach(client: &Client, stop: &CancellationToken) {
    let retry = std::time::Duration::from_secs(1);
    while !stop.is_cancelled() {
        match tokio::time::timeout(crate::client::REQUEST_TIMEOUT, client.apiserver_version()).await {
            Ok(Ok(version)) => {
                return tracing::info!(version = version.git_version, "reached the API server");
            }
            Ok(Err(error)) => {
                tracing::warn!(error = said(&error), "the API server can't be reached; it is tried again")
            }
            Err(_) => tracing::warn!("the API server doesn't answer; it is tried again"),
        }
        tokio::time::sleep(retry).await;
    }
}

/// Serves while this process leads.
async fn lead(
    options: &Options,
    settings: Settings,
    bare: Client,
    fence: Fence,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let Some(lease) = &options.election else {
        metrics.lead(true);
        work(options, &settings, stop.clone()).await;
        return Ok(());
    };
    let election = Election::new(bare, &lease.namespace, &lease.name, &options.identity, fence);
    let held = tokio::select! {
        held = election.acquire() => held,
        () = stop.cancelled() => return Ok(()),
    };
    metrics.lead(true);
    // What has begun is ended while the lease is still held; then it is given back.
    let worked = CancellationToken::new();
    let served = async {
        work(options, &settings, stop.clone()).await;
        worked.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        held = election.hold(held, worked.clone()) => Ok(held?),
        () = served => Ok(()),
    }
}

async fn work(options: &Options, settings: &Settings, stop: CancellationToken) {
    let mut scopes = JoinSet::new();
    let all = [None];
    let named: Vec<Option<String>> = options.namespaces.iter().cloned().map(Some).collect();
    for scope in if named.is_empty() { all.to_vec() } else { named } {
        scopes.spawn(controller::run(settings.clone(), scope, stop.clone()));
    }
    scopes.join_all().await;
}
