//! The worker's command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use luminate_crds::worker_config::{Span, WorkerConfig};
use luminate_storage::clock::{Clock, SteadyClock, SystemClock};
use luminate_storage::model::Tenant;
use luminate_worker::auth::{Wish, mint};
use luminate_worker::config::{self, Environment, Loaded};
#[cfg(feature = "rocksdb")]
use luminate_worker::offline;
use luminate_worker::run::{LAST_THREADS, Worker, signals};
use luminate_worker::tenant::Scope;
use luminate_worker::{store, telemetry};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Luminate's worker: stores metrics and answers queries over HTTP.
///
/// Without a file every default holds: RocksDB in ./data, port 8080, no tokens. Any key of the file is
/// overridden by a variable: LUMINATE_ and its path, such as LUMINATE_SERVER_PORT=9090 or
/// LUMINATE_STORAGE_ROCKSDB_PATH=/var/lib/luminate. `luminate-worker config` shows what holds.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The configuration file, YAML
    #[arg(long, global = true, value_name = "FILE", env = config::FILE_VARIABLE)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the effective configuration, secrets masked
    Config {
        /// Only check it
        #[arg(long)]
        check: bool,
    },
    /// Make a token, signed with the configured secret
    Token(TokenArgs),
    /// Verify every checksum of a data folder or backup that no worker has open, and change nothing in it
    ///
    /// What is damaged is named by tenant, metric and time, a line each. Ends with 0 when all is sound, 1 when
    /// something is damaged, 2 when there is no data folder or it can't be read.
    #[cfg(feature = "rocksdb")]
    Check {
        /// The folder: storage.rocksdb.path of a worker that is stopped, a copy of it, or a backup
        path: PathBuf,
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Copy a backup into an empty folder, once every checksum of it is verified
    #[cfg(feature = "rocksdb")]
    Restore {
        /// The backup: a folder in storage.rocksdb.backup_path, or a copy of it
        backup: PathBuf,
        /// The folder that will be storage.rocksdb.path of a worker
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// Whose: 1 to 64 characters of A-Z a-z 0-9 _ -
    #[arg(long, value_parser = |text: &str| Tenant::new(text))]
    tenant: Tenant,
    /// What it allows: read, write, admin, backup, comma-separated
    #[arg(long, value_delimiter = ',', required = true, value_parser = scope)]
    scopes: Vec<Scope>,
    /// Its tier, which chooses the tenant's limits
    #[arg(long)]
    tier: Option<String>,
    /// How long it is valid, such as 1h or 30d
    #[arg(long, default_value = "1h")]
    ttl: Span,
}

fn scope(name: &str) -> Result<Scope, String> {
    let known = Scope::ALL.into_iter().find(|scope| scope.name() == name);
    known.ok_or_else(|| "a scope is read, write, admin or backup".to_owned())
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // No log is written yet.
            let _ = writeln!(std::io::stderr(), "luminate-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let load = || config::load(cli.config.as_deref(), &Environment::of_process());
    match cli.command {
        // These need no configuration, and must work where none is valid.
        #[cfg(feature = "rocksdb")]
        Some(Command::Check { path, json }) => return Ok(offline::check(&path, json)?),
        #[cfg(feature = "rocksdb")]
        Some(Command::Restore { backup, path }) => return Ok(offline::restore(&backup, &path)?),
        None => return serve(load()?),
        Some(Command::Config { check: true }) => {
            load()?;
            print("the configuration is valid\n")?;
        }
        Some(Command::Config { check: false }) => print(&config::print(&load()?.config)?)?,
        Some(Command::Token(wish)) => token(&load()?.config, wish)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn token(config: &WorkerConfig, args: TokenArgs) -> Result<(), Failure> {
    let TokenArgs { tenant, scopes, tier, ttl } = args;
    let token = mint(&config.auth, &Wish { tenant, scopes, tier, ttl }, SystemClock.now())?;
    print(&format!("{token}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn serve(loaded: Loaded) -> Result<ExitCode, Failure> {
    telemetry::start(&loaded.config.logging)?;
    for name in &loaded.unrecognised {
        tracing::warn!(name, "this variable is no key of the configuration");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::default());
        let signal = signals()?;
        let worker = Worker::listen(loaded.config, Arc::clone(&clock)).await?;
        worker.run(Box::new(move |config| store::open(config, clock)), signal).await?;
        Ok::<(), Failure>(())
    });
    runtime.shutdown_timeout(LAST_THREADS);
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker ends");
            ExitCode::FAILURE
        }
    })
}
