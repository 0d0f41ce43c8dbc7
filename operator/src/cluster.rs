//! The API server: the few requests that the operator makes, and what their failures mean.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, ResourceExt};
use luminate_crds::condition::Reason;
use luminate_crds::luminate::{Luminate, LuminateStatus};
use serde_json::{Value, json};

use crate::object::{Kind, values};

/// Requests to the API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cluster")
    }
}

impl Cluster {
    /// Requests through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client itself, for watches.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    fn resources(&self, namespace: &str) -> Api<Luminate> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// An object as it is, if it exists.
    ///
    /// # Errors
    /// The API server's.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> kube::Result<Option<Value>> {
        Ok(self.api(kind, namespace).get_opt(name).await?.as_ref().map(values))
    }

    /// A Secret, if it exists. Its values must not be kept.
    ///
    /// # Errors
    /// The API server's.
    pub async fn secret(&self, namespace: &str, name: &str) -> kube::Result<Option<Secret>> {
        Api::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    /// A ConfigMap, if it exists.
    ///
    /// # Errors
    /// The API server's.
    pub async fn config_map(&self, namespace: &str, name: &str) -> kube::Result<Option<ConfigMap>> {
        Api::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    /// The resource as it is now, past every cache.
    ///
    /// # Errors
    /// The API server's.
    pub async fn resource(&self, namespace: &str, name: &str) -> kube::Result<Option<Luminate>> {
        self.resources(namespace).get_opt(name).await
    }

    /// The status of a resource that may be unreadable otherwise.
    ///
    /// # Errors
    /// The API server's.
    pub async fn status_of(&self, namespace: &str, name: &str) -> kube::Result<Option<LuminateStatus>> {
        let resource = self.raw_resources(namespace).get_opt(name).await?;
        Ok(resource.and_then(|resource| serde_json::from_value(resource.data["status"].clone()).ok()))
    }

    fn raw_resources(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<Luminate>(&()))
    }

    /// Server-side apply of `body` in the name of `manager`. `force` takes fields from others.
    ///
    /// # Errors
    /// The API server's.
    pub async fn apply(&self, kind: Kind, manager: &str, body: &Value, force: bool) -> kube::Result<Value> {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        self.patch(kind, body, &params, &Patch::Apply(body)).await
    }

    /// Lays `body` over the object of its name: its lists take the place of what is there.
    ///
    /// # Errors
    /// The API server's.
    pub async fn merge(&self, kind: Kind, manager: &str, body: &Value) -> kube::Result<Value> {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.patch(kind, body, &params, &Patch::Merge(body)).await
    }

    /// Patches the object that `body` names.
    async fn patch(
        &self,
        kind: Kind,
        body: &Value,
        params: &PatchParams,
        patch: &Patch<&Value>,
    ) -> kube::Result<Value> {
        let text = |name: &str| body["metadata"][name].as_str().unwrap_or_default();
        Ok(values(&self.api(kind, text("namespace")).patch(text("name"), params, patch).await?))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// The API server's; a conflict if there is one of that name.
    pub async fn create(&self, kind: Kind, manager: &str, body: &Value) -> kube::Result<Value> {
        let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
        let object: DynamicObject = serde_json::from_value(body.clone()).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        Ok(values(&self.api(kind, namespace).create(&params, &object).await?))
    }

    /// Deletes the object that has this identity, and only that one.
    ///
    /// # Errors
    /// The API server's; that it is gone already isn't one.
    pub async fn delete(&self, kind: Kind, live: &Value, propagation: PropagationPolicy) -> kube::Result<()> {
        let metadata = &live["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let params = DeleteParams {
            propagation_policy: Some(propagation),
            preconditions: Some(Preconditions { uid: Some(text("uid")), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(kind, &text("namespace")).delete(&text("name"), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the status of the resource that has this identity.
    ///
    /// # Errors
    /// The API server's; a conflict if another resource has the name by now.
    pub async fn write_status(
        &self,
        manager: &str,
        resource: &impl ResourceExt,
        status: &Value,
    ) -> kube::Result<Option<String>> {
        let namespace = resource.namespace().unwrap_or_default();
        let body = json!({
            "apiVersion": "luminate.dev/v1alpha1",
            "kind": "Luminate",
            "metadata": { "name": resource.name_any(), "uid": resource.uid() },
            "status": status,
        });
        let params = PatchParams { force: true, ..PatchParams::apply(manager) };
        let written = self
            .raw_resources(&namespace)
            .patch_status(&resource.name_any(), &params, &Patch::Apply(&body))
            .await?;
        Ok(written.resource_version())
    }

    /// Whether the API server knows a group and version of kinds, and one of them.
    ///
    /// # Errors
    /// The API server's.
    pub async fn knows(&self, kind: Kind) -> kube::Result<bool> {
        let resource = kind.resource();
        match self.client.list_api_group_resources(&resource.api_version).await {
            Ok(list) => Ok(list.resources.iter().any(|known| known.name == resource.plural)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What a failed request means for whoever has to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It will fail again until a person changes something.
    Lasting(Reason, String),
    /// It may succeed when it is tried again.
    Passing,
}

/// What went wrong, for people: of a refusal what the API server says, and nothing else of its answer.
#[must_use]
pub fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => other.to_string(),
    }
}

/// What `error` means.
#[must_use]
pub fn failure(error: &kube::Error) -> Failure {
    let kube::Error::Api(status) = error else { return Failure::Passing };
    let message = || status.message.clone();
    let terminating = status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"));
    match status.code {
        403 if terminating => Failure::Passing,
        // What the authorizer says begins with the user; quotas and admission say something else.
        403 if status.message.contains(" cannot ") => Failure::Lasting(Reason::Forbidden, message()),
        400 | 403 | 413 | 422 => Failure::Lasting(Reason::ApplyRefused, message()),
        _ => Failure::Passing,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn of(code: u16, message: &str) -> Failure {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        failure(&kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_refusal_is_told_in_a_line() {
        let message = "no".to_owned();
        let status = Status { code: 409, reason: "Conflict".into(), message, ..Status::default() };
        assert_eq!(said(&kube::Error::Api(Box::new(status))), "409 Conflict: no");
    }

    #[test]
    fn a_missing_right_differs_from_a_refusal() {
        let forbidden = of(403, "services is forbidden: User \"a\" cannot patch resource \"services\"");
        assert!(matches!(forbidden, Failure::Lasting(Reason::Forbidden, _)));
        assert!(matches!(of(403, "exceeded quota: q"), Failure::Lasting(Reason::ApplyRefused, _)));
        assert!(matches!(of(422, "spec.x: Invalid value"), Failure::Lasting(Reason::ApplyRefused, _)));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for code in [404, 409, 429, 500, 503, 504] {
            assert_eq!(of(code, "x"), Failure::Passing, "{code}");
        }
    }
}
