//! Where a scenario plays: a namespace of its own, served by the operator that all scenarios share, or by one of the
//! scenario's own.

use std::ops::Deref;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use luminate_cluster::{Audit, Cluster, Installation, Namespace, Operator, Request};
use serde_json::{Value, json};

/// An installation over the embedded engine with every default.
pub(crate) const ROCKSDB: &str = "
apiVersion: luminate.dev/v1alpha1
kind: Luminate
metadata: {name: prod}
spec: {backend: RocksDB}
";
/// One over ClickHouse, with fewer workers than the default: scenarios are shorter so.
pub(crate) const CLICKHOUSE: &str = "
apiVersion: luminate.dev/v1alpha1
kind: Luminate
metadata: {name: prod}
spec:
  backend: ClickHouse
  clickhouse:
    endpoints: ['http://clickhouse:8123']
    autoscaling: {minReplicas: 1, maxReplicas: 4}
";
/// What the operator makes, beside the claim that a StatefulSet's controller makes.
pub(crate) const KINDS: [&str; 11] = [
    "configmap",
    "deployment",
    "hpa",
    "ingress",
    "networkpolicy",
    "pdb",
    "secret",
    "service",
    "serviceaccount",
    "servicemonitor",
    "statefulset",
];
/// Far more than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace in which resources are served. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Scene {
    namespace: Namespace<'static>,
    audit: Option<Audit>,
    /// Who serves here, as the audit log calls them.
    user: String,
}

impl Deref for Scene {
    type Target = Namespace<'static>;

    fn deref(&self) -> &Self::Target {
        &self.namespace
    }
}

static SHARED: OnceLock<(Installation<'static>, Operator)> = OnceLock::new();

/// The operator that serves every namespace of the shared cluster, with the rights of a whole cluster.
pub(crate) fn shared() -> &'static (Installation<'static>, Operator) {
    SHARED.get_or_init(|| {
        let cluster = Cluster::shared();
        cluster.install(include_str!("../../testdata/service-monitor.yaml"));
        let installation = Installation::everywhere(cluster);
        let operator = installation.operator().start();
        wait("the operator leads", || operator.leads().then_some(()));
        (installation, operator)
    })
}

/// A cluster whose operators each serve named namespaces only, so that tests may stop and harm theirs. On the
/// other, the operator that serves every namespace would mend what a harmed one leaves, or fight it.
pub(crate) fn apart() -> &'static Cluster {
    static APART: OnceLock<Cluster> = OnceLock::new();
    APART.get_or_init(|| {
        let cluster = Cluster::start();
        cluster.install(include_str!("../../testdata/service-monitor.yaml"));
        cluster
    })
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(25));
    }
}

impl Scene {
    /// A namespace that the shared operator serves.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let (installation, _) = shared();
        Self::of(Cluster::shared(), installation.user())
    }

    /// A namespace of the cluster whose operators are the tests' own, and an installation that serves it.
    #[track_caller]
    pub(crate) fn apart() -> (Self, Installation<'static>) {
        let mut scene = Self::of(apart(), String::new());
        let installation = Installation::only(apart(), &[&scene.namespace]);
        scene.user = installation.user();
        (scene, installation)
    }

    fn of(cluster: &'static Cluster, user: String) -> Self {
        let audit = cluster.is_own().then(|| cluster.audit());
        Self { namespace: cluster.namespace(), audit, user }
    }

    /// Creates a resource.
    #[track_caller]
    pub(crate) fn make(&self, manifest: &str) {
        self.create("luminate", manifest).unwrap_or_else(|refusal| panic!("{refusal}\n{manifest}"));
    }

    /// Creates a Secret with these texts.
    #[track_caller]
    pub(crate) fn secret(&self, name: &str, data: &Value) {
        let secret =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
        self.create("secret", &secret.to_string()).unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    /// An object that must be there.
    #[track_caller]
    pub(crate) fn the(&self, kind: &str, name: &str) -> Value {
        self.get(kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// Changes an object.
    #[track_caller]
    pub(crate) fn change(&self, kind: &str, name: &str, patch: &Value) -> Value {
        self.patch(kind, name, patch).unwrap_or_else(|refusal| panic!("{kind} {name}: {refusal}"))
    }

    /// Changes a resource's spec.
    #[track_caller]
    pub(crate) fn respec(&self, name: &str, spec: &Value) {
        self.change("luminate", name, &json!({ "spec": spec }));
    }

    /// Waits until an object is as it should be, and returns it. In the end the message shows what it is instead.
    #[track_caller]
    pub(crate) fn until(
        &self,
        what: &str,
        kind: &str,
        name: &str,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Value {
        let started = Instant::now();
        loop {
            let found = self.get(kind, name);
            match found {
                Some(object) if holds(&object) => return object,
                _ if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(25)),
                other => panic!("still not: {what}; {kind} {name} is {}", shown(other)),
            }
        }
    }

    /// Waits until there is no such object.
    #[track_caller]
    pub(crate) fn until_gone(&self, kind: &str, name: &str) {
        wait(&format!("{kind} {name} is gone"), || self.get(kind, name).is_none().then_some(()));
    }

    /// Waits until the resource's newest generation serves and nothing is being changed.
    #[track_caller]
    pub(crate) fn settled(&self, name: &str) -> Value {
        self.until("it serves and is settled", "luminate", name, |resource| {
            is_current(resource)
                && condition(resource, "Ready").0 == "True"
                && condition(resource, "Progressing").0 == "False"
        })
    }

    /// Waits until a condition of the newest generation has this reason, and returns its status and its message.
    #[track_caller]
    pub(crate) fn told(&self, name: &str, kind: &str, reason: &str) -> (String, String) {
        let resource = self.until(&format!("{kind} because of {reason}"), "luminate", name, |resource| {
            is_current(resource) && condition(resource, kind).1 == reason
        });
        let (status, _, message) = condition(&resource, kind);
        (status, message)
    }

    /// Names and kinds of what a resource owns, in order.
    pub(crate) fn owned(&self, uid: &str) -> Vec<String> {
        let mut owned: Vec<String> = KINDS
            .iter()
            .flat_map(|kind| {
                let objects = self.list(kind, "").into_iter().filter(|object| is_owned(object, uid));
                objects.map(move |object| format!("{kind}/{}", text(&object["metadata"]["name"])))
            })
            .collect();
        owned.sort();
        owned
    }

    /// Events about a resource: type, reason and note.
    pub(crate) fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let events = self.list("events", "");
        let about = events
            .iter()
            .filter(|event| event["regarding"]["kind"] == "Luminate" && event["regarding"]["name"] == name);
        about.map(|event| (text(&event["type"]), text(&event["reason"]), text(&event["note"]))).collect()
    }

    /// Waits until an event of this reason is about a resource, and returns those that are: type and note.
    #[track_caller]
    pub(crate) fn event(&self, name: &str, reason: &str) -> Vec<(String, String)> {
        wait(&format!("an event tells of {reason}"), || {
            let events = self.events(name).into_iter().filter(|(_, own, _)| own == reason);
            let told: Vec<_> = events.map(|(kind, _, note)| (kind, note)).collect();
            (!told.is_empty()).then_some(told)
        })
    }

    /// Names of the pods that there are and stay, in order.
    pub(crate) fn pods(&self) -> Vec<String> {
        let pods = self.list("pods", "app.kubernetes.io/name=luminate");
        let staying = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        // A StatefulSet's pod has the same name each time.
        let mut names: Vec<String> = staying
            .map(|pod| format!("{} {}", text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"])))
            .collect();
        names.sort();
        names
    }

    /// What the operator has asked for in this namespace since the last look; nothing is known of a given cluster.
    pub(crate) fn requests(&mut self) -> Vec<Request> {
        let (user, namespace) = (self.user.clone(), self.namespace.name().to_owned());
        let Some(audit) = &mut self.audit else { return Vec::new() };
        // A request is noted just after it was answered.
        thread::sleep(Duration::from_millis(300));
        let mut requests = audit.requests_of(&user);
        requests.retain(|request| request.namespace == namespace);
        requests
    }

    /// The changes that it has asked for since the last look.
    pub(crate) fn writes(&mut self) -> Vec<String> {
        let writes = self.requests().into_iter().filter(Request::is_write);
        writes
            .map(|write| {
                let slash = if write.subresource.is_empty() { "" } else { "/" };
                format!("{} {}{slash}{} {}", write.verb, write.resource, write.subresource, write.name)
            })
            .collect()
    }
}

impl Drop for Scene {
    /// Nothing may have been refused: every right that is needed is granted.
    fn drop(&mut self) {
        if thread::panicking() {
            if let Some((_, operator)) = SHARED.get() {
                let log = operator.log();
                let lines: Vec<&str> =
                    log.lines().filter(|line| line.contains(self.namespace.name())).collect();
                eprintln!("the operator's log ends:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            return;
        }
        if let Some(audit) = &mut self.audit {
            let (user, namespace) = (&self.user, self.namespace.name());
            let refused: Vec<Request> = audit
                .requests_of(user)
                .into_iter()
                .filter(|request| request.namespace == namespace && request.forbidden)
                .collect();
            assert!(refused.is_empty(), "{refused:#?}");
        }
    }
}

/// Whether the status speaks of the resource's newest generation.
pub(crate) fn is_current(resource: &Value) -> bool {
    resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
}

/// Status, reason and message of a condition.
pub(crate) fn condition(resource: &Value, kind: &str) -> (String, String, String) {
    let conditions = resource["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    let of = |field: &str| found.map_or_else(String::new, |condition| text(&condition[field]));
    (of("status"), of("reason"), of("message"))
}

/// Whether an object's owner has this identity.
pub(crate) fn is_owned(object: &Value, uid: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.into_iter().any(|owner| owner["uid"] == uid)
}

/// A text, or the empty one where there is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An object without what nobody reads.
fn shown(object: Option<Value>) -> String {
    let Some(mut object) = object else { return "not there".into() };
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    serde_json::to_string_pretty(&object).expect("JSON")
}
