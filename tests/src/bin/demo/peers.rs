//! Prometheus and node_exporter as processes of this demo.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::client::Client;
use luminate_tests::http::percent;
use luminate_tests::worker::{Worker, free_address};
use serde_json::Value;
use tempfile::TempDir;

/// How long a peer may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A process that ends with this value, and its files with it.
struct Peer {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Peer {
    fn start(program: &str, address: SocketAddr, folder: TempDir, arguments: &[String], probe: &str) -> Self {
        let log = File::create(folder.path().join("log")).expect("a log file");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; `make demo` installs it"));
        let mut peer = Self { child, address, folder };
        peer.wait_for(program, probe);
        peer
    }

    fn wait_for(&mut self, program: &str, probe: &str) {
        let started = Instant::now();
        loop {
            let listens = std::net::TcpStream::connect(self.address).is_ok();
            if listens && Client::new(self.address).get(probe).status == 200 {
                return;
            }
            let ended = self.child.try_wait().expect("our child").is_some();
            assert!(!ended && started.elapsed() < START, "{program} doesn't start:\n{}", self.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("luminate-demo-").tempdir().expect("a temporary directory")
}

/// A running node_exporter.
pub struct NodeExporter(Peer);

impl NodeExporter {
    /// Starts it on a free port.
    pub fn start() -> Self {
        let address = free_address();
        let listen = format!("--web.listen-address={address}");
        Self(Peer::start("prometheus-node-exporter", address, folder(), &[listen], "/"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// A running Prometheus.
pub struct Prometheus {
    peer: Peer,
    version: String,
}

/// The label values of a series and its number.
pub type Numbers = BTreeMap<Vec<String>, f64>;

impl Prometheus {
    /// Starts it on a free port: it scrapes all three each second and writes to the worker.
    pub fn start(exporter: &NodeExporter, worker: &Worker) -> Self {
        let (address, folder) = (free_address(), folder());
        let config = folder.path().join("prometheus.yml");
        fs::write(&config, configuration(exporter.address(), worker.address(), address)).expect("a file");
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let peer = Peer::start("prometheus", address, folder, &arguments, "/-/ready");
        let build = Client::new(address).get("/api/v1/status/buildinfo").expect(200);
        let version = build["data"]["version"].as_str().unwrap_or("of unknown version").to_owned();
        Self { peer, version }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.peer.address
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether a range selector leaves out the sample at its very start: since version 3.
    pub fn range_start_is_open(&self) -> bool {
        self.version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok())
            .is_some_and(|major| major >= 3)
    }

    /// What PromQL says at `time` (Unix milliseconds), by the values of `labels`.
    pub fn ask(&self, query: &str, labels: &[&str], time: i64) -> Numbers {
        let path =
            format!("/api/v1/query?query={}&time={}.{:03}", percent(query), time / 1_000, time % 1_000);
        let answer = Client::new(self.address()).get(&path).expect(200);
        let rows = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}")).clone();
        rows.iter().map(|row| (key(&row["metric"], labels), number(&row["value"][1]))).collect()
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("not a number: {value}"))
}

/// The values of `labels` in an object of them; nothing stands for one that is absent.
pub fn key(object: &Value, labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| object[*label].as_str().unwrap_or_default().to_owned()).collect()
}

fn configuration(exporter: SocketAddr, worker: SocketAddr, own: SocketAddr) -> String {
    let job = |name: &str, target: SocketAddr| {
        format!("  - job_name: {name}\n    static_configs:\n      - targets: ['{target}']\n")
    };
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 900ms\n\
         scrape_configs:\n{}{}{}\
         remote_write:\n  - url: http://{worker}/api/v1/prom/write\n\
         \x20   queue_config:\n      batch_send_deadline: 500ms\n",
        job("node", exporter),
        job("prometheus", own),
        job("luminate", worker),
    )
}
