//! Requests of the cluster's administrator that many tasks make at once.

use hyper::Method;
use kube::Client;
use serde_json::Value;

use crate::{Refusal, api};

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
        let body = if body.is_null() { String::new() } else { body.to_string() };
        api::send(&self.client, method, &path, kind, body).await
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
