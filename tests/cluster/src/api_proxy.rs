//! A proxy between the operator and the API server that does to requests what networks, servers and nodes do
//! to them on bad days.
//!
//! It passes all on until it has a plan. A plan looks at each request and says what happens to it. Towards the
//! operator it speaks plain HTTP; towards the API server it is who the given kubeconfig says, the operator's own
//! account in tests, so that roles are enforced as without it. Every request is noted, and what came of it.

pub mod request;
mod watches;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub use self::request::{Asked, Verb};
pub use self::watches::WatchFault;
use crate::api;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Not done: no answer for so long, then the connection ends.
    Hang(Duration),
    /// Not done: the connection ends.
    HangUp,
    /// Not done: answered with this status; 429 says to come back in a second.
    Status(u16),
    /// Done after so long, and answered.
    Slow(Duration),
    /// Done, and the connection ends instead of an answer.
    LostAnswer,
    /// Done, and answered with this status.
    StatusAfterwards(u16),
    /// Not done: the process that asked is killed.
    CrashBefore,
    /// Done, and the process that asked is killed before it hears of it.
    CrashAfter,
    /// Done and answered, but the process that asked is stopped before it can read it.
    Stop,
    /// Passed on; what is watched comes as this says. Other requests are passed on.
    Watch(WatchFault),
}

/// What says what happens to requests.
pub type Plan = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What was asked.
    pub asked: Asked,
    /// The object's name, also where the request is a creation.
    pub name: String,
    /// The API server's status; `None` where it wasn't asked.
    pub code: Option<u16>,
    /// When.
    pub at: Instant,
}

/// The process that a plan may kill or stop; kept by whoever starts it.
#[derive(Debug, Clone, Default)]
pub struct Victim(Arc<Mutex<Option<Pid>>>);

impl Victim {
    /// From now on it is this process, or none.
    pub fn is(&self, pid: Option<u32>) {
        let pid = pid.map(|pid| Pid::from_raw(i32::try_from(pid).expect("process ids are small")));
        *held(&self.0) = pid;
    }

    /// Sends it a signal, if there is one.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = *held(&self.0) {
            // It may have ended on its own.
            let _sent = kill(pid, signal);
        }
    }
}

/// A proxy that listens on an address of its own.
#[derive(Debug)]
pub struct ApiProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    server: Client,
    plan: Mutex<Option<Plan>>,
    noted: Mutex<Vec<Noted>>,
    /// Requests and writes so far under this plan.
    counts: Mutex<(u64, u64)>,
    faults: AtomicU64,
    victim: Victim,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl ApiProxy {
    /// A proxy before the API server of `kubeconfig`, whose credentials it uses. Needs a running runtime.
    ///
    /// # Errors
    /// The file can't be used.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub async fn before(kubeconfig: &Path, victim: Victim) -> Result<Self, String> {
        let server = api::client(kubeconfig).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            server,
            plan: Mutex::default(),
            noted: Mutex::default(),
            counts: Mutex::default(),
            faults: AtomicU64::new(0),
            victim,
        });
        let accepting = tokio::spawn(accept(Arc::clone(&shared), listener)).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Writes a kubeconfig that leads here, with `namespace` as its own.
    ///
    /// # Panics
    /// When the folder can't be written to.
    #[must_use]
    pub fn kubeconfig(&self, folder: &Path, namespace: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "nobody", "user": {} }],
            "contexts": [{
                "name": "proxy",
                "context": { "cluster": "proxy", "user": "nobody", "namespace": namespace },
            }],
            "current-context": "proxy",
        });
        let path = folder.join(format!("{namespace}-{}.kubeconfig", self.address.port()));
        fs::write(&path, config.to_string()).expect("a folder of ours");
        path
    }

    /// From now on `plan` says what happens to each request; where it says nothing, it is passed on. Counting
    /// begins anew.
    pub fn plan(&self, plan: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *held(&self.shared.counts) = (0, 0);
        *held(&self.shared.plan) = Some(Box::new(plan));
    }

    /// Passes all on again.
    pub fn heal(&self) {
        *held(&self.shared.plan) = None;
    }

    /// How many requests plans have done something to.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// The same, for a task that outlives a look at the proxy.
    pub fn fault_counter(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.faults.load(Ordering::Relaxed)
    }

    /// The requests since this was asked last, in the order of their ends.
    #[must_use]
    pub fn requests(&self) -> Vec<Noted> {
        std::mem::take(&mut *held(&self.shared.noted))
    }

    /// The time of the last write that isn't of a Lease, among those that [`ApiProxy::requests`] hasn't taken yet.
    #[must_use]
    pub fn last_write(&self) -> Option<Instant> {
        held(&self.shared.noted)
            .iter()
            .rev()
            .find(|noted| noted.asked.counts_as_write())
            .map(|noted| noted.at)
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A lock whose holder can't have left nonsense behind.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(Arc::clone(&shared), client));
        }
    }
}

async fn serve(shared: Arc<Shared>, client: TcpStream) {
    // Without it the proxy itself would be slow; a socket that is gone needs none.
    let _set = client.set_nodelay(true);
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    // An error here is the client's going, or a fault that it was meant to see.
    let _ended =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await;
}

type Answer = Response<UnsyncBoxBody<Bytes, HangUp>>;

/// Ends the connection.
#[derive(Debug)]
pub(crate) struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the proxy hangs up")
    }
}

impl std::error::Error for HangUp {}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, HangUp> {
    let (asked, fault) = shared.judge(&request);
    let Some(fault) = fault else { return shared.pass_on(asked, request, None).await };
    shared.faults.fetch_add(1, Ordering::Relaxed);
    match fault {
        Fault::Hang(time) => {
            shared.note(asked, None, &Value::Null);
            tokio::time::sleep(time).await;
            Err(HangUp)
        }
        Fault::HangUp => {
            shared.note(asked, None, &Value::Null);
            Err(HangUp)
        }
        Fault::Status(code) => {
            shared.note(asked, None, &Value::Null);
            Ok(refusal(code))
        }
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            shared.pass_on(asked, request, None).await
        }
        Fault::LostAnswer => {
            shared.pass_on(asked, request, None).await?;
            Err(HangUp)
        }
        Fault::StatusAfterwards(code) => {
            shared.pass_on(asked, request, None).await?;
            Ok(refusal(code))
        }
        Fault::CrashBefore => {
            shared.note(asked, None, &Value::Null);
            shared.victim.signal(Signal::SIGKILL);
            Err(HangUp)
        }
        Fault::CrashAfter => {
            let done = shared.pass_on(asked, request, None).await;
            shared.victim.signal(Signal::SIGKILL);
            done.and(Err(HangUp))
        }
        Fault::Stop => {
            let done = shared.pass_on(asked, request, None).await;
            shared.victim.signal(Signal::SIGSTOP);
            done
        }
        Fault::Watch(fault) => shared.pass_on(asked, request, Some(fault)).await,
    }
}

/// What the API server would say with this status.
fn refusal(code: u16) -> Answer {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault that was put in on purpose", "reason": reason, "code": code,
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).expect("a status");
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    if code == 429 {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

impl Shared {
    fn judge(&self, request: &Request<Incoming>) -> (Asked, Option<Fault>) {
        let mut asked = Asked::of(request.method(), request.uri());
        let counts = &mut *held(&self.counts);
        counts.0 += 1;
        counts.1 += u64::from(asked.counts_as_write());
        (asked.nth, asked.nth_write) = *counts;
        let fault = held(&self.plan).as_mut().and_then(|plan| plan(&asked));
        (asked, fault)
    }

    fn note(&self, asked: Asked, code: Option<u16>, body: &Value) {
        let created = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let name = if asked.name.is_empty() { created } else { asked.name.clone() };
        held(&self.noted).push(Noted { asked, name, code, at: Instant::now() });
    }

    /// Has it done, even if who asked is gone meanwhile.
    async fn pass_on(
        self: &Arc<Self>,
        asked: Asked,
        request: Request<Incoming>,
        watch: Option<WatchFault>,
    ) -> Result<Answer, HangUp> {
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.forward(asked, request, watch).await }).await.map_err(|_| HangUp)?
    }

    async fn forward(
        &self,
        asked: Asked,
        request: Request<Incoming>,
        watch: Option<WatchFault>,
    ) -> Result<Answer, HangUp> {
        let (mut head, body) = request.into_parts();
        for hop in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            head.headers.remove(hop);
        }
        let body = body.collect().await.map_err(|_| HangUp)?.to_bytes();
        let answered = self.server.send(Request::from_parts(head, Body::from(body))).await;
        let (mut head, body) = answered.map_err(|_| HangUp)?.into_parts();
        for hop in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            head.headers.remove(hop);
        }
        let code = Some(head.status.as_u16());
        if asked.verb == Verb::Watch {
            self.note(asked, code, &Value::Null);
            let body = match watch {
                Some(fault) => watches::weathered(body, fault),
                None => body.map_err(|_| HangUp).boxed_unsync(),
            };
            return Ok(Response::from_parts(head, body));
        }
        let bytes = body.collect_bytes().await.map_err(|_| HangUp)?;
        let name_is_needed = asked.verb == Verb::Create;
        let value = name_is_needed.then(|| serde_json::from_slice(&bytes).unwrap_or_default());
        self.note(asked, code, &value.unwrap_or_default());
        Ok(Response::from_parts(head, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
    }
}

/// How often each kind of object was written to, by verb: what a plan's writes are told by.
#[must_use]
pub fn tally(requests: &[Noted]) -> BTreeMap<String, u32> {
    let mut tally = BTreeMap::new();
    for noted in requests.iter().filter(|noted| noted.asked.counts_as_write()) {
        *tally.entry(noted.asked.to_string()).or_default() += 1;
    }
    tally
}
