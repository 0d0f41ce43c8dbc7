//! The connection to ClickHouse: statements with bound parameters, over whichever endpoint answers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clickhouse::query::Query;
use clickhouse::{Client, RowOwned, RowRead};
use hyper_util::client::legacy::Client as Transport;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::failure::{Cause, Failure};
use super::options::Options;

/// A result of a statement.
pub type Answered<T> = std::result::Result<T, Failure>;

/// Connections that nobody uses are closed before the server does (3 s by default) closes them.
const IDLE: Duration = Duration::from_secs(2);
/// Most bytes that are compressed as one frame: what ClickHouse's own clients make.
const FRAME: usize = 1 << 20;
/// How long a small statement of the backend's own may take.
pub const SHORT: Duration = Duration::from_secs(10);
/// How long a statement that changes tables or takes rows out of them may take.
pub const SCHEMA: Duration = Duration::from_secs(120);

/// How statements run in a cluster: a series lies on one shard with all its samples, so subqueries and joins
/// stay there; an insert returns when a quorum has it, and a question reads what a quorum had.
pub const IN_A_CLUSTER: [(&str, &str); 5] = [
    ("distributed_product_mode", "local"),
    ("distributed_foreground_insert", "1"),
    ("insert_quorum", "auto"),
    ("insert_quorum_parallel", "0"),
    ("select_sequential_consistency", "1"),
];

/// The database that the backend lives in, reachable over one or several endpoints.
#[derive(Clone)]
pub struct Database {
    endpoints: Arc<[Client]>,
    /// The endpoint that is asked first: the one that answered last.
    current: Arc<AtomicUsize>,
    /// Room for queries.
    room: Arc<Semaphore>,
    name: Arc<str>,
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Database {
    /// A database that is connected to at its first statement.
    ///
    /// # Errors
    /// A text, when the certificates can't be read.
    pub fn new(options: &Options) -> std::result::Result<Self, String> {
        let tls = tls(options)?;
        let client = |url: &String| client(url, options, tls.clone());
        Ok(Self {
            endpoints: options.endpoints.iter().map(client).collect(),
            current: Arc::default(),
            room: Arc::new(Semaphore::new(options.pool_size)),
            name: options.database.as_str().into(),
        })
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A statement in this database. `sql` is ours; values come in as parameters.
    pub fn statement(&self, sql: impl Into<String>) -> Statement {
        Statement {
            database: self.clone(),
            sql: sql.into(),
            dress: Vec::new(),
            within: SHORT,
            nowhere: false,
            queued: false,
        }
    }

    /// Inserts a block in `format`, with settings, and returns when the server has it.
    ///
    /// # Errors
    /// Whatever keeps every endpoint from it; after anything but `Unreachable` it may have been done.
    pub async fn insert(&self, insert: &Insert<'_>) -> Answered<()> {
        let attempt = |client: Client| async move {
            let sql = format!("INSERT INTO {} FORMAT {}", insert.into, insert.format);
            let mut request = client.insert_formatted_with(sql);
            for (name, value) in insert.settings {
                request = request.with_setting(*name, value.as_str());
            }
            // Frame by frame, so that compressing a large block holds nobody up for long.
            for start in (0..insert.block.len()).step_by(FRAME) {
                let end = insert.block.len().min(start + FRAME);
                request.send(insert.block.slice(start..end)).await?;
                tokio::task::yield_now().await;
            }
            request.end().await
        };
        self.try_endpoints(insert.within, attempt).await
    }

    /// Calls `attempt` on the endpoint that answered last, then on the others, while one can't be had.
    ///
    /// One that gives no answer in time may be at work on it, so nobody else is asked the same; but whatever comes
    /// next goes to another first. The backend's own small statements see to it that this takes seconds.
    async fn try_endpoints<T, F>(&self, within: Duration, attempt: impl Fn(Client) -> F) -> Answered<T>
    where
        F: Future<Output = clickhouse::error::Result<T>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let count = self.endpoints.len();
        let mut failure = Failure::new(Cause::Unreachable, "there is no endpoint");
        for at in (first..first + count).map(|at| at % count) {
            let Some(client) = self.endpoints.get(at) else { continue };
            let answer = match timeout(within, attempt(client.clone())).await {
                Ok(answer) => answer.map_err(Failure::from),
                Err(_) => {
                    let _moved = self.current.compare_exchange(
                        at,
                        (at + 1) % count,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    Err(Failure::new(Cause::TimedOut, "no answer in time"))
                }
            };
            match answer {
                Ok(answer) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if error.elsewhere() => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }
}

/// A block to insert.
#[derive(Debug)]
pub struct Insert<'a> {
    /// Table, and columns in parentheses.
    pub into: &'a str,
    /// The block's format.
    pub format: &'static str,
    /// The block.
    pub block: Bytes,
    /// Settings of the insert.
    pub settings: &'a [(&'static str, String)],
    /// How long one attempt may take.
    pub within: Duration,
}

type Dress = Arc<dyn Fn(Query) -> Query + Send + Sync>;

/// A statement with its parameters and settings.
#[must_use]
pub struct Statement {
    database: Database,
    sql: String,
    dress: Vec<Dress>,
    within: Duration,
    nowhere: bool,
    queued: bool,
}

impl fmt::Debug for Statement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Statement").field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl Statement {
    /// Binds `{name:Type}` in the text.
    pub fn param(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Serialize + Clone + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        self.dress.push(Arc::new(move |query| query.param(&name, value.clone())));
        self
    }

    /// Sets a setting of the server for this statement.
    pub fn setting(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        self.dress.push(Arc::new(move |query| query.with_setting(name, value.as_str())));
        self
    }

    /// Gives the statement an id, by which it can be found and killed.
    pub fn id(self, id: &str) -> Self {
        self.setting("query_id", id)
    }

    /// How long it may take on each endpoint (default [`SHORT`]).
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Runs it outside our database, which may not exist yet.
    pub fn outside(mut self) -> Self {
        self.nowhere = true;
        self
    }

    /// Waits for one of the places that queries share.
    pub fn queued(mut self) -> Self {
        self.queued = true;
        self
    }

    /// Runs it and returns its rows.
    ///
    /// # Errors
    /// Whatever keeps every endpoint from answering.
    pub async fn rows<T: RowOwned + RowRead>(self) -> Answered<Vec<T>> {
        let _place = self.place().await;
        self.database.try_endpoints(self.within, |client| self.dressed(&client).fetch_all::<T>()).await
    }

    /// Runs it and returns its one row.
    ///
    /// # Errors
    /// As [`Statement::rows`]; `Malformed` when there is none.
    pub async fn row<T: RowOwned + RowRead>(self) -> Answered<T> {
        let rows = self.rows().await?;
        let none = || Failure::new(Cause::Malformed, "the answer has no row");
        rows.into_iter().next().ok_or_else(none)
    }

    /// Runs it.
    ///
    /// # Errors
    /// As [`Statement::rows`].
    pub async fn execute(self) -> Answered<()> {
        let _place = self.place().await;
        self.database.try_endpoints(self.within, |client| self.dressed(&client).execute()).await
    }

    /// A place among the queries; held until it is dropped.
    async fn place(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        if self.queued { Arc::clone(&self.database.room).acquire_owned().await.ok() } else { None }
    }

    fn dressed(&self, client: &Client) -> Query {
        let query = match self.nowhere {
            true => client.clone().with_database("system").query_raw(&self.sql),
            false => client.query_raw(&self.sql),
        };
        self.dress.iter().fold(query, |query, dress| dress(query))
    }
}

/// What the endpoint's certificate is checked against.
fn tls(options: &Options) -> std::result::Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = &options.ca_file else {
        let builder = builder.with_platform_verifier().map_err(|error| error.to_string())?;
        return Ok(builder.with_no_client_auth());
    };
    let unreadable = |error| format!("storage.clickhouse.ca_file: {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("holds no certificate".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn client(url: &str, options: &Options, tls: ClientConfig) -> Client {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(options.connect_timeout));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let transport = Transport::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(options.pool_size)
        .build(connector);
    let mut client = Client::with_http_client(transport)
        .with_url(url)
        .with_database(options.database.as_str())
        .with_product_info("luminate", env!("CARGO_PKG_VERSION"));
    if options.cluster.is_some() {
        for (name, value) in IN_A_CLUSTER {
            client = client.with_setting(name, value);
        }
    }
    if let Some(username) = &options.username {
        client = client.with_user(username.as_str());
    }
    if let Some(password) = &options.password {
        client = client.with_password(password.as_str());
    }
    client
}
