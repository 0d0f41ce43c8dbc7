//! The real operator as a process of its own, with no more rights than its roles grant.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::json;

use super::{Cluster, Namespace, spawn, until};

/// The definition of the resource, as it is committed.
pub const DEFINITION: &str = include_str!("../../../crds/luminate.yaml");
/// The rights of an operator that serves every namespace, and those of its Lease.
pub const CLUSTER_ROLES: &str = include_str!("../../../deploy/rbac/cluster.yaml");
/// The rights of an operator that serves named namespaces, and those of its Lease.
pub const NAMESPACED_ROLES: &str = include_str!("../../../deploy/rbac/namespaced.yaml");
/// The operator's service account.
const ACCOUNT: &str = "luminate-operator";
/// How long an operator may take until it has reached the API server, or has ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// The operator's binary, which `make` builds beside the tests.
///
/// # Panics
/// When it isn't there.
#[must_use]
pub fn binary() -> PathBuf {
    built("luminate-operator")
}

/// The operator that has faults put in on purpose, built likewise.
///
/// # Panics
/// When it isn't there.
#[must_use]
pub fn faulty_binary() -> PathBuf {
    built("luminate-operator-faulty")
}

fn built(name: &str) -> PathBuf {
    let own = env::current_exe().expect("a program knows its path");
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    found
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} isn't built beside {}: run `make test-operator`", own.display()))
}

/// What an operator needs of a cluster: the resource's definition, and a service account that has the rights of
/// `deploy/rbac` and no others, in a namespace of its own.
#[derive(Debug)]
pub struct Installation<'a> {
    home: Namespace<'a>,
    served: Vec<String>,
    kubeconfig: PathBuf,
}

impl<'a> Installation<'a> {
    /// For an operator that serves every namespace. A cluster can have one such operator that leads.
    ///
    /// # Panics
    /// When the cluster refuses.
    #[must_use]
    #[track_caller]
    pub fn everywhere(cluster: &'a Cluster) -> Self {
        let home = prepared(cluster);
        let (rights, lease) = documents(CLUSTER_ROLES);
        let name = home.name().to_owned();
        // Removed with a person's cluster's other objects of ours.
        cluster.install(&rights.replace("name: luminate-operator", &format!("name: {name}")));
        cluster.install(&binding("ClusterRoleBinding", "ClusterRole", &name, &name));
        home.apply(lease);
        home.apply(&binding("RoleBinding", "Role", "luminate-operator-lease", &name));
        Self::new(home, Vec::new())
    }

    /// For an operator that serves these namespaces, by Roles in them and in its own.
    ///
    /// # Panics
    /// When the cluster refuses.
    #[must_use]
    #[track_caller]
    pub fn only(cluster: &'a Cluster, served: &[&Namespace<'_>]) -> Self {
        let home = prepared(cluster);
        let (rights, lease) = documents(NAMESPACED_ROLES);
        for namespace in served {
            namespace.apply(rights);
            namespace.apply(&binding("RoleBinding", "Role", "luminate-operator", home.name()));
        }
        home.apply(lease);
        home.apply(&binding("RoleBinding", "Role", "luminate-operator-lease", home.name()));
        Self::new(home, served.iter().map(|namespace| namespace.name().to_owned()).collect())
    }

    fn new(home: Namespace<'a>, served: Vec<String>) -> Self {
        let kubeconfig = home.kubeconfig_of(ACCOUNT);
        let installation = Self { home, served, kubeconfig };
        // The API server learns of new rights by a watch of its own.
        until("the operator's rights are in force", || installation.has_rights());
        installation
    }

    fn has_rights(&self) -> bool {
        let may = |namespace: &str, group: &str, resource: &str| {
            let attributes =
                json!({ "namespace": namespace, "verb": "get", "group": group, "resource": resource });
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": { "user": self.user(), "resourceAttributes": attributes },
            });
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = self.home.cluster().ask("POST", path, &review.to_string());
            answer.is_ok_and(|review| review["status"]["allowed"] == true)
        };
        let everywhere = [self.home.name().to_owned()];
        let served = if self.served.is_empty() { &everywhere[..] } else { &self.served };
        may(self.home.name(), "coordination.k8s.io", "leases")
            && served.iter().all(|namespace| may(namespace, "luminate.dev", "luminates"))
    }

    /// The namespace in which the operator's account and its Lease are.
    #[must_use]
    pub fn home(&self) -> &Namespace<'a> {
        &self.home
    }

    /// The file by which the operator reaches the cluster, with its own rights.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Who the operator is in the audit log.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{ACCOUNT}", self.home.name())
    }

    /// An operator of this installation, yet to be started. Several stand for one Lease.
    #[must_use]
    pub fn operator(&self) -> Setup {
        let mut setup = Setup {
            folder: self.home.cluster().folder().to_owned(),
            name: self.home.name().to_owned(),
            binary: None,
            kubeconfig: self.kubeconfig.clone(),
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        if !self.served.is_empty() {
            setup = setup.argument("--namespaces").argument(self.served.join(","));
        }
        setup
    }
}

/// A namespace with the operator's account, in a cluster that knows the resource.
fn prepared(cluster: &Cluster) -> Namespace<'_> {
    // Two that create the same at once would hinder each other.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    cluster.install(DEFINITION);
    let home = cluster.namespace();
    home.kubectl(&["create", "serviceaccount", ACCOUNT]);
    home
}

/// The two documents of a file of rights: the operator's, and its Lease's.
fn documents(file: &str) -> (&str, &str) {
    file.split_once("\n---\n").expect("two documents")
}

fn binding(kind: &str, role_kind: &str, role: &str, account_namespace: &str) -> String {
    format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: {kind}
metadata: {{name: {role}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {role_kind}, name: {role}}}
subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {account_namespace}}}]
"
    )
}

/// How an operator is to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    folder: PathBuf,
    name: String,
    /// Another than the one that is built beside the tests.
    binary: Option<PathBuf>,
    kubeconfig: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Setup {
    /// Adds an argument of `luminate-operator run`.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Sets a variable of its environment, of which it sees nothing else but `PATH`.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Lets it be another binary than the one that is built beside the tests.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Lets it reach the API server by this file instead, such as one that leads through a proxy.
    #[must_use]
    pub fn through(mut self, kubeconfig: &Path) -> Self {
        kubeconfig.clone_into(&mut self.kubeconfig);
        self
    }

    /// Starts it and waits until it has reached the API server; another may lead.
    ///
    /// # Panics
    /// When it doesn't; the log is in the message.
    #[must_use]
    #[track_caller]
    pub fn start(&self) -> Operator {
        let mut last = String::new();
        // Somebody else may take the free port between our look and the operator's.
        for _ in 0..3 {
            let mut operator = self.launch();
            match operator.get_ready() {
                Ok(()) => return operator,
                Err(log) if log.contains("in use") => last = log,
                Err(log) => panic!("the operator didn't reach the API server:\n{log}"),
            }
        }
        panic!("found no free port:\n{last}");
    }

    /// Starts it and doesn't wait.
    ///
    /// # Panics
    /// When the binary can't be run.
    #[must_use]
    pub fn launch(&self) -> Operator {
        let address = free_address();
        let log = self.folder.join(format!("{}-operator-{:08x}.log", self.name, fastrand::u32(..)));
        let file = File::create(&log).expect("a folder of ours");
        let mut command = spawn::dying(self.binary.clone().unwrap_or_else(binary));
        command
            .args(["run", "--log-format", "json", "--listen", &address.to_string()])
            .args(&self.arguments)
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("KUBECONFIG", &self.kubeconfig)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file);
        let child = spawn::spawn(command).expect("setpriv, of util-linux, can be run");
        Operator { child, address, log }
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket")
}

/// A running operator. Dropping it kills it; it dies with this process, whatever happens to that.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Operator {
    /// Waits until it has reached the API server; the log where it hasn't in time.
    fn get_ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while self.page("/readyz").is_none() {
            if self.ended().is_some() || started.elapsed() > PATIENCE {
                return Err(self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its metrics are.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// What it has logged so far, one JSON object a line.
    ///
    /// # Panics
    /// When the log can't be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log file")
    }

    /// A page of it, such as `/livez`, if it answers 200.
    #[must_use]
    pub fn page(&self, path: &str) -> Option<String> {
        let ask = || -> io::Result<String> {
            let mut connection = TcpStream::connect(self.address)?;
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(connection, "GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
    }

    /// The sum of a metric's samples whose labels hold each of these texts, such as `outcome="done"`.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.page("/metrics").unwrap_or_default();
        let samples = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, own_labels) = series.split_once('{').unwrap_or((series, ""));
            let meant = own == name && labels.iter().all(|label| own_labels.contains(label));
            meant.then(|| value.parse().unwrap_or(0.0))
        });
        samples.fold(0.0, |sum, value: f64| sum + value)
    }

    /// Whether it leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.metric("luminate_operator_leader", &[]) > 0.0
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// Never: it is our child.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }

    /// Sends it a signal: SIGSTOP and SIGCONT let time pass it by.
    ///
    /// # Panics
    /// When it has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("our child");
    }

    /// Asks it to end, and waits.
    ///
    /// # Panics
    /// When it doesn't end, or not with success.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let mut status = None;
        until("the operator has ended", || {
            status = self.ended();
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}:\n{}", self.log());
    }

    /// Ends it as a crash would.
    ///
    /// # Panics
    /// Never: it is our child.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _killed = self.child.kill();
            let _waited = self.child.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the operator's log ends:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}
