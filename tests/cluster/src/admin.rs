//! Requests of the cluster's administrator, without a process for each as `kubectl` would need.

use std::path::Path;
use std::time::Duration;

use hyper::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::{Refusal, api};

/// A client that is who a kubeconfig says, and repeats nothing on its own.
///
/// # Errors
/// The file can't be used.
pub async fn client(kubeconfig: &Path) -> Result<Client, String> {
    // Another part of the process may have chosen the same before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", kubeconfig.display());
    let read = Kubeconfig::read_from(kubeconfig).map_err(|error| said(&error))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(read, &options).await.map_err(|error| said(&error))?;
    config.default_retry = false;
    config.read_timeout = None;
    config.connect_timeout = Some(Duration::from_secs(30));
    Client::try_from(config).map_err(|error| said(&error))
}

/// One namespace, as the administrator sees it.
#[derive(Clone)]
pub struct Admin {
    client: Client,
    namespace: String,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Admin").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> Self {
        format!("the administrator's request was refused with {refusal}")
    }
}

impl Admin {
    /// The administrator in a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Where a resource's objects are.
    ///
    /// # Panics
    /// When tests don't know it.
    fn path(&self, resource: &str, rest: &str) -> String {
        api::path(&self.namespace, resource) + rest
    }

    async fn send(&self, method: Method, path: String, kind: &str, body: &Value) -> Result<Value, Refusal> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(bytes);
        self.client.request(request.expect("a plain path")).await.map_err(|error| match error {
            kube::Error::Api(status) => Refusal { code: status.code, message: status.message },
            other => Refusal { code: 0, message: other.to_string() },
        })
    }

    /// Makes an object.
    ///
    /// # Errors
    /// The API server's.
    pub async fn create(&self, resource: &str, body: &Value) -> Result<Value, Refusal> {
        self.send(Method::POST, self.path(resource, ""), "application/json", body).await
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// The API server's.
    pub async fn merge(&self, resource: &str, name: &str, patch: &Value) -> Result<Value, Refusal> {
        let path = self.path(resource, &format!("/{name}?fieldManager=a-person"));
        self.send(Method::PATCH, path, "application/merge-patch+json", patch).await
    }

    /// Changes an object by a JSON patch.
    ///
    /// # Errors
    /// The API server's.
    pub async fn patch(&self, resource: &str, name: &str, patch: &Value) -> Result<Value, Refusal> {
        let path = self.path(resource, &format!("/{name}?fieldManager=a-person"));
        self.send(Method::PATCH, path, "application/json-patch+json", patch).await
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The API server's.
    pub async fn get(&self, resource: &str, name: &str) -> Result<Value, Refusal> {
        self.send(Method::GET, self.path(resource, &format!("/{name}")), "application/json", &Value::Null)
            .await
    }

    /// Deletes an object; that it is gone already is well.
    ///
    /// # Errors
    /// The API server's.
    pub async fn delete(&self, resource: &str, name: &str) -> Result<(), Refusal> {
        let path = self.path(resource, &format!("/{name}?propagationPolicy=Background"));
        match self.send(Method::DELETE, path, "application/json", &Value::Null).await {
            Ok(_) | Err(Refusal { code: 404, .. }) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }
}
