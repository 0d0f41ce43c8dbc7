//! VictoriaMetrics and Prometheus, as `tests/cluster/build peers` and Debian's package bring them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Kind;
use crate::http::is_ok;
use crate::worker::free_address;

/// How long a peer may take until it answers; a log of many samples takes Prometheus its time.
const START: Duration = Duration::from_secs(300);

/// A process that ends with this value, and its files with it.
#[derive(Debug)]
pub struct Peer {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    second_address: SocketAddr,
    folder: TempDir,
}

/// Where its program is.
fn program(kind: Kind) -> PathBuf {
    if kind == Kind::Prometheus {
        return PathBuf::from("prometheus");
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_default().join("luminate/cluster/bin/victoria-metrics")
}

/// The version that the program says it is.
pub fn version(kind: Kind) -> Option<String> {
    let output = Command::new(program(kind)).arg("--version").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let mut words = said.split_whitespace();
    match kind {
        Kind::Prometheus => words.nth(2).map(str::to_owned),
        _ => words.next_back().map(|word| word.trim_start_matches('v').to_owned()),
    }
}

impl Peer {
    /// Starts it without data.
    pub fn start(kind: Kind) -> Self {
        let folder =
            tempfile::Builder::new().prefix("luminate-bench-").tempdir().expect("a temporary directory");
        fs::write(folder.path().join("prometheus.yml"), "{}\n").expect("a fresh directory");
        let (address, second_address) = (free_address(), free_address());
        let child = spawn(kind, &folder, address, second_address);
        let mut peer = Self { kind, child, address, second_address, folder };
        peer.wait_ready();
        peer
    }

    /// Starts it again on the same data, after its end.
    pub fn start_again(&mut self) {
        self.child = spawn(self.kind, &self.folder, self.address, self.second_address);
        self.wait_ready();
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Where its HTTP interface listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for OpenTSDB's JSON.
    pub fn second_address(&self) -> SocketAddr {
        self.second_address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn wait_ready(&mut self) {
        let started = Instant::now();
        while !is_ok(self.address, self.kind.probe()) {
            let ended = self.child.try_wait().expect("our child").is_some();
            if ended || started.elapsed() > START {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("{} didn't get ready:\n{log}", self.kind.name());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn spawn(kind: Kind, folder: &TempDir, address: SocketAddr, second_address: SocketAddr) -> Child {
    let program = program(kind);
    let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("a log file");
    Command::new(&program)
        .args(arguments(kind, folder, address, second_address))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; `make bench` builds and installs the peers", program.display())
        })
}

/// Defaults, but for where it listens, connections that stay open, and answers that it may not have from a cache:
/// what a person asks is new each time.
fn arguments(kind: Kind, folder: &TempDir, address: SocketAddr, second_address: SocketAddr) -> Vec<String> {
    let data = folder.path().join("data");
    let data = data.display();
    match kind {
        Kind::Prometheus => vec![
            format!("--config.file={}", folder.path().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={data}"),
            format!("--web.listen-address={address}"),
            "--web.enable-remote-write-receiver".to_owned(),
            "--web.enable-admin-api".to_owned(),
            "--log.level=warn".to_owned(),
        ],
        _ => vec![
            format!("-storageDataPath={data}"),
            format!("-httpListenAddr={address}"),
            format!("-opentsdbHTTPListenAddr={second_address}"),
            "-http.connTimeout=6h".to_owned(),
            "-search.disableCache".to_owned(),
            "-search.latencyOffset=0s".to_owned(),
            "-loggerLevel=WARN".to_owned(),
        ],
    }
}
