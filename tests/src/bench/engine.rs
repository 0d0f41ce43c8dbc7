//! Luminate and its peers as processes: started and ended here, with their data in a temporary folder.

mod peer;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use luminate_storage::clock::SystemClock;
use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};
use luminate_storage::store::MetricsStore;
use serde::{Deserialize, Serialize};

use self::peer::Peer;
use super::encode::Protocol;
use super::load::{Endpoint, Server, settle};
use crate::client::Client;
use crate::http::Response;
use crate::otlp;
use crate::process;
use crate::remote_write::{HEADERS, v2};
use crate::worker::{Setup, Worker};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const DAY: Duration = Duration::from_secs(86_400);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
pub enum Kind {
    /// This.
    Luminate,
    /// VictoriaMetrics, a single node.
    #[value(name = "victoriametrics")]
    VictoriaMetrics,
    /// Prometheus as a receiver of remote write.
    Prometheus,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Luminate, Self::VictoriaMetrics, Self::Prometheus];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Luminate => "Luminate",
            Self::VictoriaMetrics => "VictoriaMetrics",
            Self::Prometheus => "Prometheus",
        }
    }

    /// What it promises when it acknowledges a write, as it is run here: with its defaults.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Self::Luminate => {
                "acknowledges what is on stable storage: one synced log record for all batches that wait; a power cut loses nothing acknowledged"
            }
            Self::VictoriaMetrics => {
                "acknowledges what is in memory and has no log: a kill or a power cut loses up to about five seconds of acknowledged samples"
            }
            Self::Prometheus => {
                "acknowledges what is written to its log but not synced: a kill loses nothing, a power cut what the kernel hadn't written yet"
            }
        }
    }

    /// Which version is measured; nothing where the engine isn't installed.
    #[must_use]
    pub fn version(self) -> Option<String> {
        match self {
            Self::Luminate => Some(env!("CARGO_PKG_VERSION").to_owned()),
            _ => peer::version(self),
        }
    }

    /// Where it says that it is ready, which looks at no data.
    #[must_use]
    pub fn probe(self) -> &'static str {
        match self {
            Self::Luminate => "/api/v1/health/ready",
            Self::VictoriaMetrics => "/health",
            Self::Prometheus => "/-/ready",
        }
    }

    /// Where it takes that protocol.
    #[must_use]
    pub fn endpoint(self, protocol: Protocol) -> Option<Endpoint> {
        let (path, headers): (_, &[(&str, &str)]) = match (self, protocol) {
            (Self::Luminate | Self::VictoriaMetrics, Protocol::LineWide | Protocol::LineNarrow) => {
                ("/api/v2/write", &[])
            }
            (Self::Luminate | Self::VictoriaMetrics, Protocol::Text) => ("/api/v1/import/prometheus", &[]),
            (Self::Luminate, Protocol::RemoteWrite) => ("/api/v1/prom/write", &HEADERS),
            (_, Protocol::RemoteWrite) => ("/api/v1/write", &HEADERS),
            (Self::Luminate, Protocol::RemoteWrite2) => ("/api/v1/prom/write", &v2::HEADERS),
            (Self::Luminate, Protocol::Otlp) => ("/v1/metrics", &otlp::HEADERS),
            (Self::VictoriaMetrics, Protocol::Otlp) => ("/opentelemetry/v1/metrics", &otlp::HEADERS),
            (Self::Luminate, Protocol::Json) => ("/api/v1/write", JSON),
            (Self::VictoriaMetrics, Protocol::JsonLines) => ("/api/v1/import", JSON),
            (Self::VictoriaMetrics, Protocol::OpenTsdb) => ("/api/put", JSON),
            _ => return None,
        };
        Some(Endpoint { path, headers })
    }
}

/// A running engine. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Worker(Worker),
    Peer(Peer),
}

impl Server for Engine {
    fn address(&self) -> SocketAddr {
        match &self.process {
            Process::Worker(worker) => worker.address(),
            Process::Peer(peer) => peer.address(),
        }
    }

    fn pid(&self) -> u32 {
        match &self.process {
            Process::Worker(worker) => worker.pid(),
            Process::Peer(peer) => peer.pid(),
        }
    }
}

impl Engine {
    /// Starts one without data, and waits until it is ready. All have their defaults, but for limits of what one request
    /// may carry or ask.
    #[must_use]
    pub fn start(kind: Kind) -> Self {
        let process = match kind {
            Kind::Luminate => Process::Worker(
                Setup::rocksdb()
                    .with("ingest.max_batch", 100_000)
                    .with("query_limits.max_result_points", 1_000_000)
                    .start(),
            ),
            _ => Process::Peer(Peer::start(kind)),
        };
        Self { kind, process }
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The server of a protocol: OpenTSDB's has an address of its own.
    #[must_use]
    pub fn server(&self, protocol: Protocol) -> impl Server + use<> {
        let address = match &self.process {
            Process::Peer(peer) if protocol == Protocol::OpenTsdb => peer.second_address(),
            _ => self.address(),
        };
        At { address, pid: self.pid() }
    }

    /// A user of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// GET, which must be answered with a success.
    ///
    /// # Panics
    /// When it isn't.
    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        let answer = self.client().get(path);
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        answer
    }

    /// Waits until what was acknowledged is on the disk and nothing is left to do. VictoriaMetrics acknowledges what it
    /// has in memory, so it is told to write that; the others have written it.
    pub fn rest(&self) {
        if self.kind == Kind::VictoriaMetrics {
            let _flushed = self.get("/internal/force_flush");
        }
        settle(self);
    }

    /// The least resident memory that it has in some seconds of rest.
    #[must_use]
    pub fn rss_at_rest(&self) -> u64 {
        self.rest();
        least(|| process::rss(self.pid()))
    }

    /// Ends it at once, as a crash would, and starts it again on the same data; the seconds of processor time and on the
    /// wall until it was ready.
    pub fn crash(&mut self) -> (f64, f64) {
        match &mut self.process {
            Process::Worker(worker) => worker.kill(),
            Process::Peer(peer) => peer.kill(),
        }
        let started = Instant::now();
        self.start_again();
        (process::cpu(self.pid()).as_secs_f64(), started.elapsed().as_secs_f64())
    }

    fn start_again(&mut self) {
        match &mut self.process {
            Process::Worker(worker) => worker.start_again(),
            Process::Peer(peer) => peer.start_again(),
        }
    }

    /// Brings what it holds into the form in which it stays: how many bytes that has on disk, index included, logs and
    /// caches left out, and the processor time that it took.
    ///
    /// Luminate seals and merges; VictoriaMetrics flushes and merges; Prometheus makes a snapshot, in which all is in blocks.
    pub fn settle_on_disk(&mut self) -> Settled {
        self.rest();
        if let Process::Worker(worker) = &mut self.process {
            return seal_and_merge(worker);
        }
        let before = process::cpu(self.pid());
        let bytes = self.merged_bytes();
        Settled { bytes, cpu: process::cpu(self.pid()) - before }
    }

    fn merged_bytes(&self) -> u64 {
        match self.kind {
            Kind::VictoriaMetrics => {
                let _merging = self.get("/internal/force_merge");
                settle(self);
                least(|| size(&self.data(), &["cache", "tmp", "flock.lock"]))
            }
            _ => {
                let answer =
                    self.client().post("/api/v1/admin/tsdb/snapshot", &serde_json::Value::Null).expect(200);
                let name = answer["data"]["name"].as_str().expect("a snapshot's name");
                size(&self.data().join("snapshots").join(name), &[])
            }
        }
    }

    fn data(&self) -> PathBuf {
        match &self.process {
            Process::Worker(worker) => worker.data(),
            Process::Peer(peer) => peer.data(),
        }
    }
}

/// What an engine holds in the form in which it stays.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// Bytes on disk.
    pub bytes: u64,
    /// What it took to bring it there, after the engine was at rest.
    pub cpu: Duration,
}

/// The worker seals every two hours of the clock and merges in the background; here it is done at once, by the same
/// engine within this process while the worker is away.
fn seal_and_merge(worker: &mut Worker) -> Settled {
    worker.terminate();
    let status = worker.wait(Duration::from_secs(60));
    assert!(status.success(), "ended with {status}:\n{}", worker.log());
    let data = worker.data();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let settled = runtime.block_on(async {
        let store = RocksDb::open(options(&data)).expect("the worker has closed it");
        let before = process::cpu(std::process::id());
        store.seal().await.expect("a seal");
        store.merge().await.expect("a merge");
        let cpu = process::cpu(std::process::id()) - before;
        // Its log, and where RocksDB writes what it does.
        let bytes = least(|| size(&data, &["log", "LOG"]));
        store.close().await.expect("a store that works");
        Settled { bytes, cpu }
    });
    worker.start_again();
    settled
}

struct At {
    address: SocketAddr,
    pid: u32,
}

impl Server for At {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> u32 {
        self.pid
    }
}

/// A store that seals only when it is told to.
fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        ack: Ack::Buffered,
        memory: 4 << 30,
        threads: 2,
        default_retention: 30 * DAY.as_millis() as i64,
        retention_check: DAY,
        heavy_samples: u64::MAX,
        resident: None,
        seal_window: DAY,
        log_cap: 4 << 30,
        backups: None,
        clock: Arc::new(SystemClock),
    }
}

/// The smallest figure in some seconds: what is of no more use goes a little later.
fn least(figure: impl Fn() -> u64) -> u64 {
    let figures = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(250));
        figure()
    });
    figures.min().unwrap_or_default()
}

/// Bytes of all files below `path` but those in or called one of `without`, with any ending.
fn size(path: &Path, without: &[&str]) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let counts = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        without.iter().all(|left_out| {
            name.strip_prefix(left_out).is_none_or(|end| !(end.is_empty() || end.starts_with('.')))
        })
    };
    let entries = entries.flatten().filter(counts);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path(), without),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
