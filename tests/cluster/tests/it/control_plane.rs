//! The control plane that tests of the operator stand on, itself tested: one test binary of its own, so that
//! the worker's suites need none.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use luminate_cluster::{Cluster, Namespace, until};
use serde_json::{Value, json};

/// Three pods that ask for 100 millicores each.
const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: localhost/any:1
          resources: {requests: {cpu: 100m, memory: 64Mi}}
";

fn ready(namespace: &Namespace<'_>) -> u64 {
    let deployment = namespace.get("deployment", "web").expect("it was applied");
    deployment["status"]["readyReplicas"].as_u64().unwrap_or(0)
}

/// Processes of which a folder's name is an argument.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.to_str().expect("a plain name");
    let commands = fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        fs::read_to_string(entry.ok()?.path().join("cmdline")).ok().map(|command| command.replace('\0', " "))
    });
    commands.filter(|command| command.contains(name)).collect()
}

#[test]
fn pods_get_ready_without_containers() {
    let namespace = Cluster::shared().namespace();
    namespace.apply(DEPLOYMENT);
    until("three pods are ready", || ready(&namespace) == 3);
    let pods = namespace.list("pods", "app=web");
    assert!(pods.iter().all(|pod| pod["status"]["phase"] == "Running"), "{pods:?}");
    assert!(namespace.list("pods", "app=other").is_empty());
}

#[test]
fn an_autoscaler_follows_simulated_load() {
    let namespace = Cluster::shared().namespace();
    namespace.apply(&DEPLOYMENT.replace("replicas: 3", "replicas: 1"));
    namespace.apply(
        "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
",
    );
    until("a pod is ready", || ready(&namespace) == 1);
    namespace.simulate("app=web", "130m", "64Mi");
    until("three pods share the load", || ready(&namespace) == 3);
    namespace.simulate("app=web", "1m", "64Mi");
    until("one is enough", || ready(&namespace) == 1);
}

#[test]
fn a_claim_grows_where_its_class_allows_it() {
    let cluster = Cluster::shared();
    if !cluster.is_own() {
        println!("skipped: a given cluster has classes of its own");
        return;
    }
    let namespace = cluster.namespace();
    for class in ["expandable", "local-path"] {
        namespace.apply(&format!(
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {class}}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{requests: {{storage: 1Gi}}}}}}
"
        ));
    }
    let capacity =
        |claim: &str| namespace.get("pvc", claim).expect("it was applied")["status"]["capacity"].take();
    until("both are bound", || {
        ["expandable", "local-path"].iter().all(|claim| capacity(claim)["storage"] == "1Gi")
    });
    let patch = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}).to_string();
    let grow = |claim: &str| namespace.run(&["patch", "pvc", claim, "--patch", &patch], "");
    let refused = grow("local-path").expect_err("the class can't grow");
    assert!(refused.contains("storageclass"), "{refused}");
    grow("expandable").expect("the class can grow");
    until("it has grown", || capacity("expandable")["storage"] == "2Gi");
}

#[test]
fn an_account_may_do_what_it_was_granted_and_every_request_is_noted() {
    let namespace = Cluster::shared().namespace();
    namespace.apply(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [apps], resources: [deployments], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
",
    );
    namespace.apply(DEPLOYMENT);
    let kubeconfig = namespace.kubeconfig_of("reader");
    let mut audit = Cluster::shared().is_own().then(|| Cluster::shared().audit());
    // The first `--kubeconfig` is the administrator's: the last one counts.
    let kubeconfig = kubeconfig.to_str().expect("a plain name");
    let as_reader = |arguments: &[&str]| {
        namespace.run(&[&["--kubeconfig", kubeconfig, "--cache-dir", "/nonexistent"], arguments].concat(), "")
    };
    let seen = as_reader(&["get", "deployment", "web", "-o", "name"]).expect("granted");
    assert_eq!(seen, "deployment.apps/web");
    let refused = as_reader(&["delete", "deployment", "web"]).expect_err("not granted");
    assert!(refused.contains("Forbidden"), "{refused}");

    let Some(audit) = &mut audit else { return };
    let user = format!("system:serviceaccount:{}:reader", namespace.name());
    let noted: Vec<Value> = audit
        .requests_of(&user)
        .into_iter()
        .filter(|request| !request.resource.is_empty())
        .map(|request| {
            let write = request.is_write();
            json!([
                request.verb,
                request.group,
                request.resource,
                request.namespace,
                request.name,
                request.code,
                write
            ])
        })
        .collect();
    let name = namespace.name();
    assert_eq!(
        noted,
        [
            json!(["get", "apps", "deployments", name, "web", 200, false]),
            json!(["delete", "apps", "deployments", name, "web", 403, true]),
        ]
    );
}

#[test]
fn two_stand_side_by_side_and_leave_nothing() {
    let start = || {
        let cluster = Cluster::start();
        cluster.kubectl(&["create", "configmap", "own", "--from-literal=a=b"]);
        cluster
    };
    let other = thread::spawn(start);
    let (one, other) = (start(), other.join().expect("no panic"));
    assert_ne!(fs::read(one.kubeconfig()).unwrap(), fs::read(other.kubeconfig()).unwrap());
    for cluster in [one, other] {
        let folder: PathBuf = cluster.folder().to_owned();
        assert!(processes_of(&folder).len() >= 6, "{:?}", processes_of(&folder));
        drop(cluster);
        assert_eq!(processes_of(&folder), [""; 0]);
        assert!(!folder.exists(), "{}", folder.display());
    }
}

#[test]
fn a_cluster_dies_with_whoever_keeps_it() {
    let cluster = Cluster::start();
    let folder = cluster.folder().to_owned();
    cluster.kill_keeper();
    until("every process has ended", || processes_of(&folder).is_empty());
    drop(cluster);
    fs::remove_dir_all(folder).expect("nobody was left to do so");
}

/// A person's cluster, played by one of ours.
#[test]
fn on_a_given_cluster_nothing_is_taken_over_and_nothing_left() {
    const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: luminates.luminate.dev}
spec:
  group: luminate.dev
  scope: Namespaced
  names: {kind: Luminate, plural: luminates}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";
    let persons = Cluster::start();
    let installed = || !persons.kubectl(&["get", "crd", "-o", "name", "--ignore-not-found"]).is_empty();

    let given = Cluster::given(persons.kubeconfig(), false).expect("nothing of ours is there");
    assert!(!given.is_own());
    let namespace = given.namespace();
    namespace.apply(DEPLOYMENT);
    until("pods are ready", || ready(&namespace) == 3);
    given.install(DEFINITION);
    let refused = Cluster::given(persons.kubeconfig(), false).expect_err("Luminate is installed");
    assert!(refused.contains("LUMINATE_TEST_FORCE"), "{refused}");
    drop(namespace);
    let folder = given.folder().to_owned();
    drop(given);
    assert!(!folder.exists());
    until("what was installed is gone", || !installed());

    persons.apply(DEFINITION);
    let forced = Cluster::given(persons.kubeconfig(), true).expect("forced");
    forced.install(DEFINITION);
    drop(forced);
    assert!(installed(), "what was there stays");
}
