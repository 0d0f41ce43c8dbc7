//! A real Kubernetes control plane with simulated nodes, as processes of its own.
//!
//! `tests/cluster/up` starts the API server, its controllers, the scheduler and kwok in some seconds: pods get
//! Ready without containers, claims get bound without disks, and pods use what [`Namespace::simulate`] says.
//! A test takes a [`Namespace`] of its own in the cluster that all tests of its process share.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use self::api::Api;

pub use self::api::{Refusal, Watch};
pub use self::audit::{Audit, Request};
pub use self::namespace::Namespace;
pub use self::operator::{Installation, Operator};

pub mod admin;
mod api;
pub mod api_proxy;
mod audit;
pub mod faults;
pub mod fuzz;
mod namespace;
pub mod operator;
mod spawn;

/// Names the kubeconfig of a cluster to test on instead of one of our own. A person's `KUBECONFIG` is never used.
const GIVEN: &str = "LUMINATE_TEST_KUBECONFIG";
/// Set to 1, allows a given cluster on which Luminate is installed.
const FORCE: &str = "LUMINATE_TEST_FORCE";
/// The name of Luminate's custom resource definition.
const DEFINITION_NAME: &str = "luminates.luminate.dev";
/// How many ports a control plane takes.
const PORTS: u16 = 7;
/// Far more than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `make` built.
fn programs() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    cache.unwrap_or_else(home).join("luminate/cluster/bin")
}

fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A running control plane. Its processes end when it is dropped, or with the process that started it, whatever
/// happens to that.
#[derive(Debug)]
pub struct Cluster {
    /// Its state, and whatever tests need files for; removed at the end.
    folder: PathBuf,
    kubeconfig: PathBuf,
    own: bool,
    /// Opened by whoever asks first.
    api: OnceLock<Api>,
    /// Cleans up when its standard input closes.
    keeper: Child,
    /// Held open for what the keeper may still say.
    _said: Option<BufReader<ChildStdout>>,
}

impl Cluster {
    /// Starts a control plane of our own, in a new folder and on free ports.
    ///
    /// # Panics
    /// When its programs aren't built, or it doesn't start.
    #[must_use]
    pub fn start() -> Self {
        let mut last = String::new();
        // Somebody else may take the free ports between our look and theirs.
        for _ in 0..3 {
            match Self::launch(new_folder(), free_ports()) {
                Ok(cluster) => return cluster,
                Err(said) if said.contains("address already in use") => last = said,
                Err(said) => panic!("the control plane didn't start:\n{said}"),
            }
        }
        panic!("found no free ports:\n{last}");
    }

    /// The cluster that all tests of this process share: the one that `LUMINATE_TEST_KUBECONFIG` names, or one of
    /// our own. Work in a [`Cluster::namespace`], and do no harm to it.
    ///
    /// # Panics
    /// As [`Cluster::start`], and as [`Cluster::given`] refuses.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let Some(path) = std::env::var_os(GIVEN) else { return Self::start() };
            let force = std::env::var_os(FORCE).is_some_and(|set| set == "1");
            Self::given(Path::new(&path), force).unwrap_or_else(|refused| panic!("{GIVEN}: {refused}"))
        })
    }

    /// The cluster of a person, of which every namespace but our own is left alone.
    ///
    /// # Errors
    /// When it doesn't answer, or Luminate is installed there and `force` isn't set: its resources are somebody's,
    /// and another operator may serve them.
    pub fn given(kubeconfig: &Path, force: bool) -> Result<Self, String> {
        let folder = new_folder();
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let cluster = Self {
            keeper: keep(&folder, kubeconfig),
            folder,
            kubeconfig: kubeconfig.to_owned(),
            own: false,
            api: OnceLock::new(),
            _said: None,
        };
        let installed =
            cluster.run(&["get", "crd", DEFINITION_NAME, "--ignore-not-found", "-o", "name"], "")?;
        if !installed.is_empty() && !force {
            return Err(format!(
                "Luminate is installed there ({installed}); {FORCE}=1 tests on it all the same"
            ));
        }
        Ok(cluster)
    }

    fn launch(folder: PathBuf, ports: u16) -> Result<Self, String> {
        let mut log = tempfile::tempfile().expect("a temporary file");
        let mut keeper = Command::new(scripts().join("up"))
            .args(["control-plane", "--stop-with-stdin"])
            .env("LUMINATE_CLUSTER_STATE", &folder)
            .env("LUMINATE_CLUSTER_PORT_BASE", ports.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("a temporary file"))
            .spawn()
            .expect("the script can be run");
        let mut said = BufReader::new(keeper.stdout.take().expect("a pipe"));
        let mut line = String::new();
        if matches!(said.read_line(&mut line), Ok(read) if read > 0) {
            let kubeconfig = folder.join("kubeconfig");
            return Ok(Self {
                folder,
                kubeconfig,
                own: true,
                api: OnceLock::new(),
                keeper,
                _said: Some(said),
            });
        }
        keeper.wait().expect("our child");
        log.rewind().expect("our file");
        log.read_to_string(&mut line).expect("our file");
        Err(line)
    }

    /// Whether it was started here: such a one has simulated nodes, an audit log, and the class `expandable`.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The file by which an administrator reaches it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A folder for files that tests need, removed with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a part of it, such as `kube-controller-manager`, has logged so far; empty where it isn't our own.
    #[must_use]
    pub fn log(&self, part: &str) -> String {
        fs::read_to_string(self.folder.join(format!("log/{part}.log"))).unwrap_or_default()
    }

    /// Kills whatever ends its processes in good order: they end all the same, and its folder stays.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn kill_keeper(&self) {
        let keeper = i32::try_from(self.keeper.id()).expect("process ids are small");
        kill(Pid::from_raw(keeper), Signal::SIGKILL).expect("our child");
    }

    /// Sends a signal to a part of it, such as `kube-scheduler`.
    ///
    /// # Panics
    /// When it isn't our own, or has no such part.
    pub fn signal(&self, part: &str, signal: Signal) {
        let file = self.folder.join("pid").join(part);
        let id = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        // Behind it stands when the process began.
        let id = id.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("our process");
    }

    /// The requests that its API server answers from now on.
    ///
    /// # Panics
    /// When it isn't our own: others' logs can't be read.
    #[must_use]
    pub fn audit(&self) -> Audit {
        assert!(self.own, "only a cluster of our own has an audit log");
        Audit::from_now(self.folder.join("audit.log"))
    }

    /// A new namespace, deleted when it is dropped.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn namespace(&self) -> Namespace<'_> {
        Namespace::new(self)
    }

    /// Runs `kubectl` as the administrator, with `input` to read, and returns what it said.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>], input: &str) -> Result<String, String> {
        kubectl(&self.kubeconfig, &self.folder, arguments, input)
    }

    /// The same, where a failure is the test's.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.run(arguments, "").unwrap_or_else(|said| panic!("kubectl {}: {said}", arguments.join(" ")))
    }

    fn api(&self) -> &Api {
        self.api.get_or_init(|| Api::open(&self.kubeconfig))
    }

    /// Asks the API server itself, as the administrator, with a body that may be YAML; quicker than `kubectl`.
    ///
    /// # Errors
    /// Whatever isn't a success.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, Refusal> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/yaml" };
        self.api().ask(method.parse().expect("a method"), path, kind, body)
    }

    /// Applies a manifest of one or more documents.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.run(&["apply", "-f", "-"], manifest).unwrap_or_else(|said| panic!("kubectl apply: {said}"));
    }

    /// Applies objects that belong to no namespace, such as the custom resource definition, and waits until
    /// definitions are established. From a person's cluster they are removed at the end, unless they were there.
    ///
    /// # Panics
    /// When they are refused.
    #[track_caller]
    pub fn install(&self, manifest: &str) {
        let there = self.run(&["get", "-f", "-", "--ignore-not-found", "-o", "name"], manifest);
        if there.is_ok_and(|names| names.is_empty()) {
            let mut list = File::options().create(true).append(true).open(self.folder.join("installed.yaml"));
            let file = list.as_mut().expect("a folder of ours");
            write!(file, "---\n{manifest}\n").expect("a folder of ours");
        }
        self.apply(manifest);
        let wait = ["wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"];
        // It fails at once where there is none, and while one is so new that it has no conditions.
        until("the definitions are established", || {
            self.run(&["get", "crd", "-o", "name"], "").is_ok_and(|names| names.is_empty())
                || self.run(&wait, "").is_ok()
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.api.take());
        drop(self.keeper.stdin.take());
        let started = Instant::now();
        while matches!(self.keeper.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        // Mostly ended.
        let _killed = self.keeper.kill();
    }
}

fn kubectl(
    kubeconfig: &Path,
    folder: &Path,
    arguments: &[impl AsRef<OsStr>],
    input: &str,
) -> Result<String, String> {
    let program = programs().join("kubectl");
    let mut child = Command::new(&program)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("KUBECACHEDIR", folder.join("kube-cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}; `make test-operator` builds it", program.display()))?;
    // It may end without reading; then what it says tells why.
    let _written = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("our child");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

/// A shell that outlives this process, and removes from a person's cluster what was installed there.
fn keep(folder: &Path, kubeconfig: &Path) -> Child {
    const WHEN_DONE: &str = r#"trap '' INT
        cat >/dev/null
        [ ! -e "$0/installed.yaml" ] || "$2" --kubeconfig "$1" delete --wait=false --ignore-not-found -f "$0/installed.yaml"
        rm -rf "$0""#;
    Command::new("sh")
        .args(["-c", WHEN_DONE])
        .args([folder, kubeconfig, &programs().join("kubectl")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell can be run")
}

/// A path that nothing has.
fn new_folder() -> PathBuf {
    std::env::temp_dir().join(format!("luminate-cluster-{:016x}", fastrand::u64(..)))
}

/// The first of some ports on which nobody listens now, below those that the kernel hands out.
fn free_ports() -> u16 {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let first = 20_000 + 8 * fastrand::u16(0..1_500);
        if (first..first + PORTS).all(free) {
            return first;
        }
    }
}

/// Waits until something holds.
///
/// # Panics
/// When it doesn't within five minutes.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(25));
    }
}
