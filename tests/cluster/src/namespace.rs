//! A namespace of one test, and what tests do in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Cluster, Refusal, Watch, api};

/// A namespace that no other test uses. Dropping it deletes it, with all that is in it.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let name = format!("luminate-test-{:08x}", fastrand::u32(..));
        let manifest = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let made = cluster.ask("POST", "/api/v1/namespaces", &manifest.to_string());
        made.unwrap_or_else(|refusal| panic!("namespace {name}: {refusal}"));
        Self { cluster, name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Runs `kubectl` in it, with `input` to read, and returns what it said.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let arguments = [&["--namespace", &self.name], arguments].concat();
        self.cluster.run(&arguments, input)
    }

    /// The same, where a failure is the test's.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.run(arguments, "").unwrap_or_else(|said| panic!("kubectl {}: {said}", arguments.join(" ")))
    }

    /// Applies a manifest of one or more documents.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.run(&["apply", "-f", "-"], manifest).unwrap_or_else(|said| panic!("kubectl apply: {said}"));
    }

    /// An object as it is now, if it exists. A kind is called as `kubectl` allows.
    ///
    /// # Panics
    /// When the API server refuses.
    #[must_use]
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        match self.cluster.ask("GET", &self.path(kind, name), "") {
            Ok(found) => Some(found),
            Err(refusal) if refusal.code == 404 => None,
            Err(refusal) => panic!("{kind} {name}: {refusal}"),
        }
    }

    /// Every object of a kind that has these labels; an empty selector has all.
    ///
    /// # Panics
    /// When the API server refuses.
    #[must_use]
    #[track_caller]
    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let selector = selector.replace('=', "%3D").replace(',', "%2C");
        let path = format!("{}?labelSelector={selector}", api::path(&self.name, kind));
        let list = self.cluster.ask("GET", &path, "");
        let mut list = list.unwrap_or_else(|refusal| panic!("{kind}: {refusal}"));
        serde_json::from_value(list["items"].take()).expect("a list")
    }

    /// Creates an object, given as YAML, and returns it as it is stored.
    ///
    /// # Errors
    /// The API server's refusal.
    pub fn create(&self, kind: &str, manifest: &str) -> Result<Value, Refusal> {
        self.cluster.ask("POST", &api::path(&self.name, kind), manifest)
    }

    /// The same without effect: only to see whether it would be refused.
    ///
    /// # Errors
    /// The API server's refusal.
    pub fn try_create(&self, kind: &str, manifest: &str) -> Result<Value, Refusal> {
        self.cluster.ask("POST", &format!("{}?dryRun=All", api::path(&self.name, kind)), manifest)
    }

    /// Lays a patch over an object: field by field, `null` takes a field out.
    ///
    /// # Errors
    /// The API server's refusal.
    pub fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<Value, Refusal> {
        self.cluster.ask("PATCH", &self.path(kind, name), &patch.to_string())
    }

    /// The same without effect: only to see whether it would be refused.
    ///
    /// # Errors
    /// The API server's refusal.
    pub fn try_patch(&self, kind: &str, name: &str, patch: &Value) -> Result<Value, Refusal> {
        let path = format!("{}?dryRun=All", self.path(kind, name));
        self.cluster.ask("PATCH", &path, &patch.to_string())
    }

    /// Deletes an object, and what it owns after it.
    ///
    /// # Panics
    /// When the API server refuses.
    #[track_caller]
    pub fn delete(&self, kind: &str, name: &str) {
        let path = format!("{}?propagationPolicy=Background", self.path(kind, name));
        self.cluster.ask("DELETE", &path, "").unwrap_or_else(|refusal| panic!("{kind} {name}: {refusal}"));
    }

    /// Follows every change of the objects of a kind from now on.
    ///
    /// # Panics
    /// When the API server refuses.
    #[must_use]
    #[track_caller]
    pub fn watch(&self, kind: &str) -> Watch {
        self.cluster.api().watch(&api::path(&self.name, kind))
    }

    fn path(&self, kind: &str, name: &str) -> String {
        format!("{}/{name}", api::path(&self.name, kind))
    }

    /// From now on each pod with these labels uses so much CPU and memory, such as `700m` and `1Gi`, as far as
    /// autoscalers see. Pods that come later use what their own annotations say, or nearly nothing.
    ///
    /// # Panics
    /// When there is no such pod.
    #[track_caller]
    pub fn simulate(&self, selector: &str, cpu: &str, memory: &str) {
        let cpu = format!("kwok.x-k8s.io/usage-cpu={cpu}");
        let memory = format!("kwok.x-k8s.io/usage-memory={memory}");
        self.kubectl(&["annotate", "--overwrite", "pods", "--selector", selector, &cpu, &memory]);
    }

    /// The file by which whoever has a token of this service account reaches the cluster: what its roles don't
    /// grant is refused. The token lasts a day.
    ///
    /// # Panics
    /// When there is no such account.
    #[must_use]
    #[track_caller]
    pub fn kubeconfig_of(&self, account: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", account, "--duration=24h"]);
        let shown = self.cluster.kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&shown).expect("JSON, as asked for");
        config["users"][0]["user"] = json!({ "token": token });
        config["contexts"][0]["context"]["namespace"] = json!(self.name);
        let path = self.cluster.folder().join(format!("{}-{account}.kubeconfig", self.name));
        fs::write(&path, config.to_string()).expect("a folder of ours");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of ours");
        path
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // A test that failed has other worries.
        let _gone = self.cluster.run(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}
