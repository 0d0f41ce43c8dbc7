//! The API server's own interface, as the administrator sees it: for tests that ask often.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::StreamExt;
use hyper::{Method, Request};
use kube::Client;
use kube::api::WatchEvent;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to the API server for threads that wait for their answers.
#[derive(Debug)]
pub(crate) struct Api {
    client: Opaque,
    runtime: Runtime,
}

struct Opaque(Client);

impl fmt::Debug for Opaque {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
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

/// A client that is who a kubeconfig says, and repeats nothing on its own.
///
/// # Errors
/// The file can't be used.
pub async fn client(kubeconfig: &Path) -> Result<Client, String> {
    // Another part of the process may have chosen the same before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let said = |error: &dyn fmt::Display| format!("{}: {error}", kubeconfig.display());
    let read = Kubeconfig::read_from(kubeconfig).map_err(|error| said(&error))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(read, &options).await.map_err(|error| said(&error))?;
    config.default_retry = false;
    config.read_timeout = None;
    config.connect_timeout = Some(Duration::from_secs(30));
    Client::try_from(config).map_err(|error| said(&error))
}

/// Asks, and returns the object in the answer; a text that is no object as it is.
pub(crate) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    kind: &str,
    body: String,
) -> Result<Value, Refusal> {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(body.into_bytes()).expect("a plain path");
    let answer = tokio::time::timeout(PATIENCE, client.request_text(request)).await;
    match answer {
        Ok(Ok(text)) => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        Ok(Err(kube::Error::Api(status))) => Err(Refusal { code: status.code, message: status.message }),
        Ok(Err(other)) => Err(Refusal { code: 0, message: other.to_string() }),
        Err(late) => Err(Refusal { code: 0, message: late.to_string() }),
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
    /// When the kubeconfig can't be used.
    pub(crate) fn open(kubeconfig: &Path) -> Self {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).enable_all().build().expect("a thread");
        let opened = kubeconfig.to_owned();
        let client = wait(&runtime, async move { client(&opened).await });
        let client = Opaque(client.unwrap_or_else(|what| panic!("{what}")));
        Self { client, runtime }
    }

    /// Asks, and returns the object in the answer.
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: &str,
    ) -> Result<Value, Refusal> {
        let (client, path, body) = (self.client.0.clone(), path.to_owned(), body.to_owned());
        wait(&self.runtime, async move { send(&client, method, &path, kind, body).await })
    }

    /// Follows every change of the objects under a path from now on.
    pub(crate) fn watch(&self, path: &str) -> Watch {
        let list = self.ask(Method::GET, path, "application/json", "");
        let list = list.unwrap_or_else(|refusal| panic!("{path}: {refusal}"));
        let version = list["metadata"]["resourceVersion"].as_str().expect("a list").to_owned();
        let request = Request::get(format!("{path}?watch=1&resourceVersion={version}")).body(Vec::new());
        let (client, request) = (self.client.0.clone(), request.expect("a plain path"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&seen);
        let following = self.runtime.spawn(async move {
            let Ok(changes) = client.request_events::<Value>(request).await else { return };
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                let change = change.ok().and_then(told);
                collected.lock().expect("nobody panics with it").extend(change);
            }
        });
        Watch { seen, following }
    }
}

/// Waits for what is done on the runtime's own thread, so that it may be waited for anywhere.
fn wait<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    let (done, answer) = mpsc::sync_channel(1);
    runtime.spawn(async move { done.send(work.await) });
    answer.recv().expect("nothing panics there")
}

fn told(event: WatchEvent<Value>) -> Option<Value> {
    let (kind, object) = match event {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return None,
    };
    Some(json!({ "type": kind, "object": object }))
}

/// Every change of some objects since it began, so that nothing between two looks is missed.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Value>>>,
    following: JoinHandle<()>,
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

    /// How many objects were so in some state so far.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn count(&self, so: impl Fn(&Value) -> bool) -> usize {
        let seen = self.seen.lock().expect("nobody panics with it");
        let objects = seen.iter().map(|change| &change["object"]).filter(|object| so(object));
        objects.map(|object| object["metadata"]["uid"].as_str()).collect::<HashSet<_>>().len()
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
        self.following.abort();
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
