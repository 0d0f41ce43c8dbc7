//! The server: its engine, its limits, and its routes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::auth::{User, Users};
use crate::cluster;
use crate::compression::Pieces;
use crate::engine::{Connection, Engine};
use crate::exception::Exception;
use crate::form::Form;
use crate::outlet::{Answer, Outlet};
use crate::processes::Processes;
use crate::query;
use crate::request::Incoming;
use crate::session::Sessions;
use crate::socket::Link;

/// How long a query waits for one of the connections.
const WAIT: Duration = Duration::from_secs(10);
/// Settings whose defaults this server must know.
const KNOWN: &str = "'enable_http_compression', 'http_wait_end_of_query', 'replace_running_query', \
    'cancel_http_readonly_queries_on_client_close'";
const EXPOSED: &str = "X-ClickHouse-Query-Id,X-ClickHouse-Summary,X-ClickHouse-Server-Display-Name,\
    X-ClickHouse-Format,X-ClickHouse-Timezone,X-ClickHouse-Exception-Code,X-ClickHouse-Exception-Tag";
const HELP: &str = "Use / or /ping for health checks.\nOr /replicas_status for more sophisticated health checks.\n\n\
    Send queries from your program with POST method or GET /?query=...\n\n\
    Use clickhouse-client:\n\nFor interactive data analysis:\n    clickhouse-client\n\n\
    For batch query processing:\n    clickhouse-client --query='SELECT 1' > result\n    clickhouse-client < query > result\n";

/// What the server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's library.
    pub library: PathBuf,
    /// The folder of the data.
    pub folder: PathBuf,
    /// The cluster that this server is the only member of, if there is to be one.
    pub cluster: Option<String>,
    /// Who may send queries.
    pub users: Vec<User>,
    /// How many queries run at a time.
    pub connections: usize,
    /// Whether each query is logged on one line.
    pub log: bool,
}

/// A server over its engine.
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// Who may send queries.
    pub users: Users,
    /// What runs.
    pub processes: Arc<Processes>,
    /// Named sessions.
    pub sessions: Sessions,
    /// Whether this server is a cluster by itself.
    pub in_a_cluster: bool,
    /// The engine's time zone.
    pub timezone: String,
    version: String,
    host: String,
    defaults: HashMap<String, String>,
    places: Mutex<usize>,
    freed: Condvar,
    connections: usize,
    log: bool,
    _lock: File,
}

/// One of the places that queries run in.
pub struct Permit(Arc<Server>);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.places.lock() += 1;
        self.0.freed.notify_one();
    }
}

impl Server {
    /// Opens the folder.
    ///
    /// # Errors
    /// One sentence: the folder is in use or can't be used, or the engine can't be loaded.
    pub fn open(options: Options) -> Result<Self, String> {
        let folder = options.folder.display();
        std::fs::create_dir_all(&options.folder)
            .map_err(|error| format!("{folder} can't be made: {error}"))?;
        let lock = File::create(options.folder.join("test-server.lock"))
            .map_err(|error| format!("{folder} can't be written: {error}"))?;
        lock.try_lock().map_err(|_| format!("{folder} is in use by another test server"))?;
        let folder =
            options.folder.canonicalize().map_err(|error| format!("{folder} can't be read: {error}"))?;
        let configure =
            |name| cluster::configure(&folder, name).map_err(|error| format!("--cluster: {error}"));
        let configuration = options.cluster.as_deref().map(configure).transpose()?;
        let engine = Engine::open(&options.library, &folder, configuration.as_deref())?;
        let mut first = engine.connect()?;
        let one = |connection: &mut Connection, sql: &str| {
            connection
                .query(sql.as_bytes(), "TSVRaw")
                .map(|answer| String::from_utf8_lossy(&answer.output).trim().to_owned())
        };
        let defaults =
            one(&mut first, &format!("SELECT name, value FROM system.settings WHERE name IN ({KNOWN})"))?;
        let defaults = defaults.lines().filter_map(|line| line.split_once('\t'));
        Ok(Self {
            in_a_cluster: configuration.is_some(),
            users: Users::new(options.users),
            processes: Arc::default(),
            sessions: Sessions::default(),
            timezone: one(&mut first, "SELECT timezone()")?,
            version: one(&mut first, "SELECT version()")?,
            host: one(&mut first, "SELECT hostName()")?,
            defaults: defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            places: Mutex::new(options.connections.max(1)),
            freed: Condvar::new(),
            connections: options.connections.max(1),
            log: options.log,
            engine,
            _lock: lock,
        })
    }

    /// A connection of its own for one query.
    ///
    /// # Errors
    /// The engine refuses it.
    pub fn connect(&self) -> Result<Connection, Exception> {
        self.engine.connect().map_err(|said| Exception::of_engine(&said))
    }

    /// The value that a setting has where nobody sets it.
    #[must_use]
    pub fn default_setting(&self, name: &str) -> Option<&str> {
        self.defaults.get(name).map(String::as_str)
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Code 202 where none is free for long.
    pub fn permit(self: &Arc<Self>) -> Result<Permit, Exception> {
        let end = Instant::now() + WAIT;
        let mut places = self.places.lock();
        while *places == 0 {
            if self.freed.wait_until(&mut places, end).timed_out() && *places == 0 {
                let message = format!("Too many simultaneous queries. Maximum: {}", self.connections);
                return Err(Exception::new(202, "TOO_MANY_SIMULTANEOUS_QUERIES", message));
            }
        }
        *places -= 1;
        Ok(Permit(Arc::clone(self)))
    }

    /// A query id such as the server gives.
    #[must_use]
    pub fn new_id(&self) -> String {
        let digits = random().map(|byte| format!("{byte:02x}")).concat();
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }

    /// An answer with the headers that every one has.
    #[must_use]
    pub fn outlet(&self, head: oneshot::Sender<Response<Answer>>) -> Outlet {
        let tag: String = random().map(|byte| char::from(b'a' + byte % 26)).iter().collect();
        let mut outlet = Outlet::new(head, HeaderMap::new(), &self.version, tag.clone());
        outlet.header("content-type", "text/plain; charset=UTF-8");
        outlet.header("access-control-expose-headers", EXPOSED);
        outlet.header("x-clickhouse-server-display-name", &self.host);
        outlet.header("x-clickhouse-exception-tag", &tag);
        outlet
    }

    /// One line for a query, where asked for: never its text or data.
    pub fn log(&self, user: &str, elapsed: Duration, exception: Option<&Exception>) {
        if self.log {
            let code = exception.map_or(0, |exception| exception.code);
            eprintln!("user={user} milliseconds={} code={code}", elapsed.as_millis());
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// None: every fault is an answer.
    pub async fn serve(
        self: Arc<Self>,
        request: Request<Body>,
        link: Arc<Link>,
    ) -> Result<Response<Answer>, Infallible> {
        let (path, reads) = (request.uri().path(), matches!(*request.method(), Method::GET | Method::HEAD));
        let queried = request.uri().query().is_some();
        Ok(match path {
            "/ping" if reads => text(StatusCode::OK, "text/html; charset=UTF-8", "Ok.\n"),
            "/replicas_status" if reads => text(StatusCode::OK, "text/plain; charset=UTF-8", "Ok.\n"),
            "/" if reads && !queried => text(StatusCode::OK, "text/html; charset=UTF-8", "Ok.\n"),
            "/" | "/query" if *request.method() == Method::OPTIONS => options(),
            "/" | "/query" if queried || *request.method() == Method::POST => self.query(request, link).await,
            other => {
                let message = format!("There is no handle {other}\n\n{HELP}");
                text(StatusCode::NOT_FOUND, "text/plain; charset=UTF-8", message)
            }
        })
    }

    async fn query(self: Arc<Self>, request: Request<Body>, link: Arc<Link>) -> Response<Answer> {
        let (parts, mut body) = request.into_parts();
        let sized = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| parts.headers.contains_key(name));
        let unbounded = parts.method == Method::POST && !sized;
        let mut pieces = Pieces::default();
        while let Some(frame) = body.frame().await {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(piece)) => pieces.push(piece),
                Ok(Err(_)) => {}
                Err(_) => {
                    return text(
                        StatusCode::BAD_REQUEST,
                        "text/plain; charset=UTF-8",
                        "The body broke off\n",
                    );
                }
            }
        }
        let url = Form::of_url(parts.uri.query().unwrap_or_default());
        let incoming = Incoming { method: parts.method, headers: parts.headers, url, body: pieces };
        let (head, answer) = oneshot::channel();
        if unbounded {
            let message =
                "The Transfer-Encoding is not chunked and there is no Content-Length header for POST request";
            let outlet = self.outlet(head);
            tokio::task::spawn_blocking(move || {
                outlet.fail(&Exception::new(381, "HTTP_LENGTH_REQUIRED", message));
            });
            return answer.await.unwrap_or_else(|_| died());
        }
        let through = Arc::clone(&link);
        tokio::task::spawn_blocking(move || query::serve(&self, incoming, head, &link));
        match answer.await {
            Ok(mut answer) => {
                answer.body_mut().through(through);
                answer
            }
            Err(_) => died(),
        }
    }
}

fn died() -> Response<Answer> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=UTF-8", "The query's thread died\n")
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::of(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What the default configuration says to browsers that ask before they send.
fn options() -> Response<Answer> {
    let mut response = Response::new(Answer::of(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        (
            "access-control-allow-headers",
            "origin, x-requested-with, x-clickhouse-format, x-clickhouse-user, x-clickhouse-key, Authorization",
        ),
        ("access-control-allow-methods", "POST, GET, OPTIONS"),
        ("access-control-max-age", "86400"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn random() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    // A new state has new keys: enough for what only has to be unique.
    let half = || RandomState::new().hash_one(Instant::now()).to_le_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half());
    bytes[8..].copy_from_slice(&half());
    bytes
}
