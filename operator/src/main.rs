//! The operator's command line.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use luminate_operator::check::check;
use luminate_operator::run::{LeaseName, Options, run};
use luminate_operator::telemetry::{LogFormat, LogLevel, start_logs};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Luminate's operator: turns each `Luminate` into a running installation, and keeps it one.
///
/// In a pod it uses the pod's service account, elsewhere the current context of the kubeconfig
/// (KUBECONFIG or ~/.kube/config). First install the resource's definition:
///
///     luminate-operator crd | kubectl apply --server-side -f -
///
/// Then `luminate-operator run` serves every namespace, or with --namespaces only those named, for which
/// Roles in these namespaces are enough. Of several processes with the same --lease one works and the
/// others wait. /livez, /readyz and /metrics are served on --listen.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve resources until told to stop
    Run(RunArgs),
    /// Print the definition of the resource, YAML
    Crd,
    /// Check that the API server knows the resource, and that an operator is ready
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Where the operator's health is served, such as http://luminate-operator:8081; left out, none is looked for
    #[arg(long, value_name = "URL")]
    operator: Option<reqwest::Url>,
    /// Seconds to wait until all is well
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(0..=3600), value_name = "SECONDS")]
    patience: u16,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Namespaces to serve, comma-separated; left out, all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', env = "LUMINATE_OPERATOR_NAMESPACES")]
    namespaces: Vec<String>,
    /// Where health and metrics are served
    #[arg(long, default_value = "0.0.0.0:8081", value_name = "ADDRESS", env = "LUMINATE_OPERATOR_LISTEN")]
    listen: SocketAddr,
    /// The Lease by which one of several processes leads
    #[arg(long, default_value = "luminate-operator", value_name = "NAME", env = "LUMINATE_OPERATOR_LEASE")]
    lease: String,
    /// The Lease's namespace; left out, that of the pod or of the kubeconfig's context
    #[arg(long, value_name = "NAMESPACE", env = "LUMINATE_OPERATOR_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Work without a Lease: only where there is never a second process
    #[arg(long, env = "LUMINATE_OPERATOR_ALONE")]
    alone: bool,
    /// This process's name in the Lease and in events; left out, the host's
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Resources that are worked on at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256), env = "LUMINATE_OPERATOR_CONCURRENCY")]
    concurrency: u16,
    /// Seconds after which everything of a settled resource is read again, whatever the watches say
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(2..=86_400), value_name = "SECONDS", env = "LUMINATE_OPERATOR_RESYNC")]
    resync: u32,
    /// How much is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info, env = "LUMINATE_OPERATOR_LOG_LEVEL")]
    log_level: LogLevel,
    /// How log lines look; left out, text on a terminal, else JSON
    #[arg(long, value_enum, env = "LUMINATE_OPERATOR_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

/// Parses, builds, runs.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Crd => crd(),
        Command::Check(args) => look(args),
        Command::Run(args) => operate(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "luminate-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn crd() -> Done {
    let definition = luminate_crds::luminate::definition_yaml()?;
    Ok(std::io::stdout().write_all(definition.as_bytes())?)
}

/// Says nothing on standard output but that all is well.
fn look(args: CheckArgs) -> Done {
    install_crypto();
    let patience = Duration::from_secs(args.patience.into());
    let told: &[u8] = match args.operator {
        Some(_) => b"the API server knows the resource, and an operator is ready\n",
        None => b"the API server knows the resource\n",
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = kube::Client::try_default().await?;
        Ok::<(), Box<dyn std::error::Error>>(check(&client, args.operator.as_ref(), patience).await?)
    })?;
    Ok(std::io::stdout().write_all(told)?)
}

fn install_crypto() {
    let installed = rustls::crypto::ring::default_provider().install_default();
    if installed.is_err() {
        tracing::debug!("another crypto provider was installed before");
    }
}

fn operate(args: RunArgs) -> Done {
    start_logs(args.log_level, args.log_format)?;
    install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let config = kube::Config::infer().await?;
        let options = options(args, &config)?;
        let stop = CancellationToken::new();
        tokio::spawn(stop_at_signal(stop.clone())?);
        run(config, options, stop).await?;
        tracing::info!("stopped");
        Ok(())
    })
}

fn options(args: RunArgs, config: &kube::Config) -> Result<Options, Box<dyn std::error::Error>> {
    let mut suffix = [0_u8; 4];
    getrandom::fill(&mut suffix).map_err(|error| error.to_string())?;
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    let name = args.identity.or_else(|| host().ok()).unwrap_or_else(|| "luminate-operator".to_owned());
    Ok(Options {
        namespaces: args.namespaces,
        listen: args.listen,
        election: (!args.alone).then(|| LeaseName {
            namespace: args.lease_namespace.unwrap_or_else(|| config.default_namespace.clone()),
            name: args.lease,
        }),
        // A container that is started anew has the pod's name again, but isn't the process that held the lease.
        identity: format!("{name}_{:08x}", u32::from_be_bytes(suffix)),
        concurrency: args.concurrency,
        resync: Duration::from_secs(args.resync.into()),
    })
}

/// The first SIGTERM or SIGINT asks for a graceful end; a second ends the process at once.
fn stop_at_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("told to stop");
        stop.cancel();
        next().await;
        std::process::exit(130);
    })
}
