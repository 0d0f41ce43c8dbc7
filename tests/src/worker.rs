//! The real worker as a process of its own.

use std::collections::VecDeque;
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::clickhouse::{ClickHouse, OwnDatabase};
use crate::client::Client;
use crate::http::is_ok;
use crate::{process, token};

/// How long a worker may take until it is ready.
const START: Duration = Duration::from_secs(60);

/// The worker's binary, which `make` builds beside the tests.
///
/// # Panics
/// When it isn't there.
#[must_use]
pub fn binary() -> PathBuf {
    binary_named("luminate-worker")
}

/// A binary of the workspace, which `make` builds beside the tests.
///
/// # Panics
/// When it isn't there.
#[must_use]
pub fn binary_named(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its path");
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    found
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} isn't built beside {}: run `make build`", own.display()))
}

/// What the workers of a suite keep their samples in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded engine, in a folder of the worker's own.
    RocksDb,
    /// A database of its own in the server that all tests share.
    ClickHouse,
}

impl Backend {
    /// That of the running program: the black-box suite is built twice, and its second name says so.
    ///
    /// # Panics
    /// Never: a program knows its path.
    #[must_use]
    pub fn of_suite() -> Self {
        let own = std::env::current_exe().expect("a program knows its path");
        let name = own.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("it_clickhouse") { Self::ClickHouse } else { Self::RocksDb }
    }
}

/// Ends a test in the suite of the other backend, and says why: `only_on!(RocksDb, "its folder")`.
#[macro_export]
macro_rules! only_on {
    ($backend:ident, $about:literal) => {
        if $crate::worker::Backend::of_suite() != $crate::worker::Backend::$backend {
            println!("skipped: this is about {}", $about);
            return;
        }
    };
}

/// How a worker is to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    settings: Vec<(String, String)>,
    folder: Option<Arc<TempDir>>,
    /// Dropped with the last worker that uses it.
    _database: Option<Arc<OwnDatabase>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// The defaults but for an address of its own, samples of its own in the suite's backend, and no delay
    /// before a drain.
    #[must_use]
    pub fn new() -> Self {
        match Backend::of_suite() {
            Backend::RocksDb => Self::rocksdb(),
            Backend::ClickHouse => {
                let own = OwnDatabase::new();
                let setup = Self::clickhouse(&ClickHouse::shared().url(), &own.name);
                Self { _database: Some(Arc::new(own)), ..setup }
            }
        }
    }

    /// The same over the embedded engine, in a folder of its own.
    #[must_use]
    pub fn rocksdb() -> Self {
        Self { settings: Vec::new(), folder: None, _database: None }
            .with("server.host", "127.0.0.1")
            .with("server.drain_delay", "0s")
            .with("logging.format", "json")
    }

    /// The same over a database of the server at `url`, to which it inserts as often as it may.
    #[must_use]
    pub fn clickhouse(url: &str, database: &str) -> Self {
        Self::rocksdb()
            .with("storage.backend", "clickhouse")
            .with("storage.clickhouse.endpoints", url)
            .with("storage.clickhouse.database", database)
            .with("storage.clickhouse.linger", "10ms")
            .with("storage.clickhouse.refresh", "50ms")
    }

    /// Sets a key of the configuration, such as `ingest.max_batch`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        let name = format!("LUMINATE_{}", key.to_ascii_uppercase().replace('.', "_"));
        self.settings.retain(|(own, _)| *own != name);
        self.settings.push((name, value.to_string()));
        self
    }

    /// Data that lie there, and a free port: for a worker that listens before it finds that it can't use them.
    #[must_use]
    pub fn over(self, data: &Path) -> Self {
        self.with("storage.rocksdb.path", data.display()).with("server.port", free_address().port())
    }

    /// Lets the worker ask for tokens signed with [`token::SECRET`], under budgets that no test meets by
    /// accident.
    #[must_use]
    pub fn with_auth(self) -> Self {
        self.with("auth.enabled", true)
            .with("auth.jwt_secret", token::SECRET)
            .with("rate_limits.write_rps", 100_000)
            .with("rate_limits.query_rps", 100_000)
            .with("rate_limits.metrics_per_second", 100_000_000)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it doesn't get ready; the log is in the message.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Worker {
        let mut last = String::new();
        // Somebody else may take the free port between our look and the worker's.
        for _ in 0..3 {
            let mut worker = Worker::launch(&self, free_address());
            match worker.get_ready() {
                Ok(()) => return worker,
                Err(log) if log.contains("in use") => last = log,
                Err(log) => panic!("the worker didn't get ready:\n{log}"),
            }
        }
        panic!("found no free port:\n{last}");
    }

    /// Starts it at `address` and doesn't wait for it.
    #[must_use]
    pub fn start_at(self, address: SocketAddr) -> Worker {
        Worker::launch(&self, address)
    }

    /// Runs it although it can't start, and returns its exit status and what it said.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let output =
            command(self, folder.path()).args(arguments).output().expect("the worker's binary can be run");
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }
}

/// A process that sees of the environment what the setup says, and nothing of the person's.
fn command(setup: &Setup, folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .env_clear()
        .env("LUMINATE_STORAGE_ROCKSDB_PATH", folder.join("data"))
        .envs(setup.settings.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// A running worker. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Worker {
    setup: Setup,
    folder: Arc<TempDir>,
    child: Child,
    address: SocketAddr,
}

impl Worker {
    /// A worker with the defaults of [`Setup::new`].
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Setup::new().start()
    }

    fn launch(setup: &Setup, address: SocketAddr) -> Self {
        let folder = setup.folder.clone().unwrap_or_else(|| {
            Arc::new(tempfile::Builder::new().prefix("luminate-").tempdir().expect("a temporary directory"))
        });
        let log =
            File::options().create(true).append(true).open(folder.path().join("log")).expect("a log file");
        let child = command(setup, folder.path())
            .env("LUMINATE_SERVER_PORT", address.port().to_string())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("the worker's binary can be run");
        Self { setup: setup.clone(), folder, child, address }
    }

    /// Waits until it is ready; the log where it isn't in time.
    fn get_ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while !self.is_ready() {
            if self.child.try_wait().expect("our child").is_some() || started.elapsed() > START {
                return Err(self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether its readiness probe passes now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        is_ok(self.address, "/api/v1/health/ready")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A user without a token.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A user of `tenant` with every scope.
    #[must_use]
    pub fn client_of(&self, tenant: &str) -> Client {
        self.client().with_token(token::of(tenant))
    }

    /// Resident memory now, in bytes.
    #[must_use]
    pub fn rss(&self) -> u64 {
        process::rss(self.pid())
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        process::signal(self.pid(), Signal::SIGTERM);
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        process::signal(self.pid(), Signal::SIGKILL);
        self.child.wait().expect("our child");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When that takes longer than `patience`.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(started.elapsed() < patience, "still running after {patience:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as an operator would, and starts it again on the same data.
    #[track_caller]
    pub fn restart(&mut self) {
        self.terminate();
        let status = self.wait(Duration::from_secs(30));
        assert!(status.success(), "ended with {status}:\n{}", self.log());
        self.start_again();
    }

    /// Starts it again on the same data, after its end.
    ///
    /// # Panics
    /// When it doesn't get ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        let setup = Setup { folder: Some(self.folder.clone()), ..self.setup.clone() };
        *self = setup.start();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the worker's log ends:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

/// Addresses of late, of which none is given twice.
const LATE: usize = 1_000;

/// An address that nobody listens on now, and that nobody else here was given lately and may listen on next.
///
/// # Panics
/// When the machine has none left.
#[must_use]
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<VecDeque<SocketAddr>> = Mutex::new(VecDeque::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        if !given.contains(&address) {
            given.truncate(LATE - 1);
            given.push_front(address);
            return address;
        }
    }
}
