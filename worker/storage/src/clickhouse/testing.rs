//! The real engine for this crate's tests: one server for all of them, a database for each store.
//!
//! The server is the test server of this repository, found beside the tests' own binary, or by
//! `LUMINATE_TEST_CLICKHOUSE_SERVER`; a running ClickHouse is taken instead when
//! `LUMINATE_TEST_CLICKHOUSE_URL` names it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use super::client::Database;
use super::{ClickHouse, Options};
use crate::clock::{Clock, ManualClock};
use crate::contract::{Backend, Subject};
use crate::store::{MetricsStore, Result};

/// How long anything of the server's may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cluster that the server is the only member of.
const CLUSTER: &str = "main";

/// A server that ends when this process does, since it holds the other end of its input.
struct Server {
    url: String,
    _process: Option<Child>,
    _folder: Option<tempfile::TempDir>,
}

/// The address of the one server of this process.
pub fn url() -> &'static str {
    static SERVER: OnceLock<Server> = OnceLock::new();
    &SERVER.get_or_init(start).url
}

#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where a server is")]
fn start() -> Server {
    if let Ok(url) = std::env::var("LUMINATE_TEST_CLICKHOUSE_URL") {
        return Server { url, _process: None, _folder: None };
    }
    let named = std::env::var_os("LUMINATE_TEST_CLICKHOUSE_SERVER").map(PathBuf::from);
    let own = std::env::current_exe().expect("a test knows its path");
    let beside = || {
        own.ancestors().skip(1).take(2).map(|folder| folder.join("clickhouse")).find(|path| path.is_file())
    };
    let binary = named.or_else(beside).expect("the server isn't built: run `make build`");
    let folder = tempfile::Builder::new().prefix("luminate-clickhouse-").tempdir().expect("a folder");
    let mut process = Command::new(binary)
        .arg("--path")
        .arg(folder.path())
        .args(["--port", "0", "--stop-with-stdin", "--cluster", CLUSTER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server can be run");
    let mut line = String::new();
    let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("it says where it listens");
    let url = line.trim().strip_prefix("listening on ").expect("it says where it listens").to_owned();
    // Whatever else it says goes nowhere, but must not block it.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    Server { url, _process: Some(process), _folder: Some(folder) }
}

/// A name that no other database on the server has.
pub fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Options for a store in `database`, quick to answer.
pub fn options(database: &str, clock: Arc<dyn Clock>, default_retention: i64) -> Options {
    Options::quick(url(), database, clock, default_retention)
}

/// A store that is merged on demand and opened anew over the same database.
pub struct Fresh {
    options: Options,
    store: ClickHouse,
}

impl Fresh {
    /// An empty store, on tables of a cluster if one is named.
    async fn open(clock: Arc<dyn Clock>, default_retention: i64, cluster: Option<&str>) -> Result<Self> {
        let cluster = cluster.map(str::to_owned);
        let options = Options { cluster, ..options(&fresh_name(), clock, default_retention) };
        let store = opened(&options).await?;
        Ok(Self { options, store })
    }

    fn database(&self) -> Database {
        Database::new(&self.options).expect("no certificates are read")
    }
}

async fn opened(options: &Options) -> Result<ClickHouse> {
    let store = ClickHouse::open(options.clone())?;
    store.opened(PATIENCE).await?;
    Ok(store)
}

#[async_trait]
impl Subject for Fresh {
    fn store(&self) -> &dyn MetricsStore {
        &self.store
    }

    async fn settle(&mut self) -> Result<()> {
        let local = if self.options.cluster.is_some() { "_local" } else { "" };
        for table in ["samples", "series"] {
            let merge = format!("OPTIMIZE TABLE {table}{local} FINAL");
            self.database().statement(merge).within(PATIENCE).execute().await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.store.close().await?;
        self.store = opened(&self.options).await?;
        Ok(())
    }
}

impl Drop for Fresh {
    /// Hundreds of databases would slow the server down.
    fn drop(&mut self) {
        let options = self.options.clone();
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(drop_database(&options)));
    }
}

/// Removes the database of `options`.
pub async fn drop_database(options: &Options) {
    let database = Database::new(options).expect("no certificates are read");
    // Not SYNC, for which libchdb waits for ever.
    let drop = format!("DROP DATABASE IF EXISTS {}", options.database);
    // A database that stays is in nobody's way.
    let _ = database.statement(drop).outside().within(PATIENCE).execute().await;
}

/// The server behind TLS: where, and the certificate to trust (PEM).
pub async fn behind_tls() -> (std::net::SocketAddr, String) {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
        })
        .expect("a certificate and its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(url().trim_start_matches("http://")).await;
                if let (Ok(mut client), Ok(mut server)) = (acceptor.accept(client).await, server) {
                    // A client that hangs up is none of our business.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (address, made.cert.pem())
}

/// What opens stores over the server.
pub struct OverServer;

#[async_trait]
impl Backend for OverServer {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Fresh::open(clock, default_retention, None).await?))
    }
}

/// What opens stores over the tables of a cluster.
pub struct OverCluster;

#[async_trait]
impl Backend for OverCluster {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Fresh::open(clock, default_retention, Some(CLUSTER)).await?))
    }
}
