//! The API server's own interface, as the administrator sees it: for tests that ask often.
//!
//! `kubectl proxy` brings identity and TLS, so that a request is a few lines of HTTP.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{programs, spawn, until};

/// A way to the API server that is open until it is dropped.
#[derive(Debug)]
pub(crate) struct Api {
    socket: PathBuf,
    proxy: Child,
}

/// The API server's answer where it isn't what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status; 0 where the API server wasn't reached.
    pub code: u16,
    /// What it said.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

/// Prefix and plural of the kinds that tests ask for; a kind is called as `kubectl` allows.
const KINDS: &[(&str, &[&str])] = &[
    (
        "/api/v1",
        &["configmaps", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services", "nodes"],
    ),
    ("/api/v1", &["namespaces", "persistentvolumes", "resourcequotas"]),
    ("/apis/apps/v1", &["deployments", "statefulsets", "replicasets"]),
    ("/apis/autoscaling/v2", &["horizontalpodautoscalers"]),
    ("/apis/coordination.k8s.io/v1", &["leases"]),
    ("/apis/events.k8s.io/v1", &["events"]),
    ("/apis/luminate.dev/v1alpha1", &["luminates"]),
    ("/apis/monitoring.coreos.com/v1", &["servicemonitors"]),
    ("/apis/networking.k8s.io/v1", &["ingresses", "networkpolicies"]),
    ("/apis/policy/v1", &["poddisruptionbudgets"]),
    ("/apis/rbac.authorization.k8s.io/v1", &["roles", "rolebindings"]),
    ("/apis/storage.k8s.io/v1", &["storageclasses"]),
];
const SHORT: &[(&str, &str)] = &[
    ("hpa", "horizontalpodautoscalers"),
    ("ingress", "ingresses"),
    ("lum", "luminates"),
    ("networkpolicy", "networkpolicies"),
    ("ns", "namespaces"),
    ("pdb", "poddisruptionbudgets"),
    ("pv", "persistentvolumes"),
    ("pvc", "persistentvolumeclaims"),
];
const CLUSTERED: [&str; 4] = ["namespaces", "nodes", "persistentvolumes", "storageclasses"];

/// Prefix and plural of a kind.
///
/// # Panics
/// When the kind isn't one of those that tests know.
pub(crate) fn place(kind: &str) -> (&'static str, &'static str) {
    let plural = SHORT.iter().find(|(short, _)| *short == kind).map(|(_, plural)| *plural);
    let wanted = plural.unwrap_or(kind);
    let is_meant = |plural: &str| plural == wanted || plural.strip_suffix('s') == Some(wanted);
    let mut known =
        KINDS.iter().flat_map(|(prefix, plurals)| plurals.iter().map(move |plural| (*prefix, *plural)));
    known
        .find(|(_, plural)| is_meant(plural))
        .unwrap_or_else(|| panic!("{kind}: add it to the kinds that tests know"))
}

/// The path of all objects of a kind in a namespace.
///
/// # Panics
/// As [`place`].
pub(crate) fn path(namespace: &str, kind: &str) -> String {
    let (prefix, plural) = place(kind);
    if CLUSTERED.contains(&plural) {
        format!("{prefix}/{plural}")
    } else {
        format!("{prefix}/namespaces/{namespace}/{plural}")
    }
}

impl Api {
    /// # Panics
    /// When `kubectl` can't be run.
    pub(crate) fn open(kubeconfig: &Path, folder: &Path) -> Self {
        let socket = folder.join("api.sock");
        let mut command = spawn::dying(programs().join("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["proxy", "--unix-socket"])
            .arg(&socket)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let proxy =
            spawn::spawn(command).expect("`make test-operator` builds kubectl; setpriv is of util-linux");
        until("kubectl proxy listens", || UnixStream::connect(&socket).is_ok());
        Self { socket, proxy }
    }

    /// Asks, and returns the object in the answer.
    pub(crate) fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<Value, Refusal> {
        let answer = self.exchange(method, path, kind, body);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let value: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
        if (200..300).contains(&code) {
            return Ok(value);
        }
        let message = value["message"].as_str().unwrap_or(body).to_owned();
        Err(Refusal { code, message })
    }

    /// HTTP 1.0: the answer comes in one piece and ends with the connection.
    fn exchange(&self, method: &str, path: &str, kind: &str, body: &str) -> String {
        let mut connection = self.connection();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: localhost\r\naccept: application/json\r\ncontent-type: {kind}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).expect("the proxy reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("the proxy answers");
        answer
    }

    fn connection(&self) -> UnixStream {
        let connection = UnixStream::connect(&self.socket).expect("the proxy listens");
        connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        connection
    }

    /// Follows every change of the objects under a path from now on.
    pub(crate) fn watch(&self, path: &str) -> Watch {
        let list = self.ask("GET", path, "", "").unwrap_or_else(|refusal| panic!("{path}: {refusal}"));
        let version = list["metadata"]["resourceVersion"].as_str().expect("a list").to_owned();
        let mut connection = UnixStream::connect(&self.socket).expect("the proxy listens");
        let request = format!(
            "GET {path}?watch=1&resourceVersion={version} HTTP/1.0\r\nhost: localhost\r\naccept: application/json\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).expect("the proxy reads");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (collected, reading) = (Arc::clone(&seen), connection.try_clone().expect("a socket"));
        thread::spawn(move || {
            let lines = BufReader::new(reading).lines().map_while(io::Result::ok);
            let changes = lines.skip_while(|line| !line.is_empty()).skip(1);
            for change in changes.filter_map(|line| serde_json::from_str(&line).ok()) {
                collected.lock().expect("nobody panics with it").push(change);
            }
        });
        Watch { seen, connection }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _killed = self.proxy.kill();
        let _waited = self.proxy.wait();
    }
}

/// Every change of some objects since it began, so that nothing between two looks is missed.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Value>>>,
    connection: UnixStream,
}

impl Watch {
    /// The changes so far: `type` is `ADDED`, `MODIFIED` or `DELETED`, and `object` what it led to.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn changes(&self) -> Vec<Value> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    /// The states of the object of this name so far.
    #[must_use]
    pub fn states(&self, name: &str) -> Vec<Value> {
        let changes = self.changes().into_iter().filter(|change| change["type"] != "DELETED");
        let objects = changes.map(|mut change| change["object"].take());
        objects.filter(|object| object["metadata"]["name"] == name).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread that reads ends by it.
        let _closed = self.connection.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn kinds_have_their_usual_names() {
        assert_eq!(path("a", "pod"), "/api/v1/namespaces/a/pods");
        assert_eq!(path("a", "ingress"), "/apis/networking.k8s.io/v1/namespaces/a/ingresses");
        assert_eq!(path("a", "lum"), "/apis/luminate.dev/v1alpha1/namespaces/a/luminates");
        assert_eq!(path("a", "pv"), "/api/v1/persistentvolumes");
    }
}
