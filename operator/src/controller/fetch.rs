//! Step 1: what a resource refers to and what there is of it. IO.

use std::collections::BTreeMap;

use kube::ResourceExt;
use luminate_crds::luminate::{Backend, Luminate};
use serde_json::Value;

use super::Context;
use super::apply::is_owned;
use super::build::claim_name;
use super::children::Place;
use super::references::{Key, Looked, Reference, wanted};
use super::switching::Sight;
use super::validate::Surroundings;
use crate::object::Kind;

/// What was found.
#[derive(Debug, Default)]
pub struct Fetched {
    /// What the resource refers to.
    pub around: Surroundings,
    /// The Deployment of its name.
    pub deployment: Option<Value>,
    /// The StatefulSet of its name.
    pub stateful_set: Option<Value>,
    /// The Service of its name; read only while the backend is being switched.
    pub service: Option<Value>,
    /// The claim of its only pod.
    pub claim: Option<Value>,
    /// The workloads that were looked for, found or not.
    looked: Vec<Kind>,
    /// The identity of the resource.
    uid: String,
}

impl Fetched {
    /// The resource's own workloads and Service.
    #[must_use]
    pub fn sight(&self) -> Sight<'_> {
        let own = |live: &Option<Value>| live.as_ref().is_some_and(|live| is_owned(live, &self.uid));
        Sight {
            deployment: self.deployment.as_ref().filter(|_| own(&self.deployment)),
            stateful_set: self.stateful_set.as_ref().filter(|_| own(&self.stateful_set)),
            service: self.service.as_ref().filter(|_| own(&self.service)),
        }
    }

    /// What was found already of the workload of this kind, which has the resource's name; `None` if it wasn't
    /// looked for.
    #[must_use]
    pub fn live(&self, kind: Kind) -> Option<Option<&Value>> {
        let live = match kind {
            Kind::Deployment => &self.deployment,
            _ => &self.stateful_set,
        };
        self.looked.contains(&kind).then_some(live.as_ref())
    }
}

/// Reads what a reconcile needs.
///
/// # Errors
/// The API server's.
pub async fn fetch(context: &Context, resource: &Luminate) -> kube::Result<Fetched> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let cluster = &context.cluster;
    let mut fetched = Fetched {
        around: Surroundings {
            references: references(context, resource).await?,
            service_monitors: context.service_monitors(),
        },
        uid: uid.clone(),
        ..Fetched::default()
    };
    let backend = resource.spec.backend;
    // Of the other backend's workload one must be sure: a watch may lag behind what was applied here.
    let user = Key::new(&namespace, &name);
    let needed = |of: Backend, kind| {
        let place = Place::new(kind, &namespace, &name);
        backend == of || context.children.owns(&uid, &place) || context.notes.applied(&user, &place)
    };
    if needed(Backend::ClickHouse, Kind::Deployment) {
        fetched.looked.push(Kind::Deployment);
        fetched.deployment = cluster.get(Kind::Deployment, &namespace, &name).await?;
    }
    if needed(Backend::RocksDB, Kind::StatefulSet) {
        fetched.looked.push(Kind::StatefulSet);
        fetched.stateful_set = cluster.get(Kind::StatefulSet, &namespace, &name).await?;
    }
    if fetched.sight().workload(backend.other()).is_some() {
        fetched.service = cluster.get(Kind::Service, &namespace, &name).await?;
    }
    if backend == Backend::RocksDB {
        fetched.claim = cluster.get(Kind::PersistentVolumeClaim, &namespace, &claim_name(&name)).await?;
    }
    Ok(fetched)
}

/// Everything that the resource refers to, read anew only where something changed.
async fn references(context: &Context, resource: &Luminate) -> kube::Result<BTreeMap<Reference, Looked>> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let wanted: Vec<Reference> =
        wanted(&namespace, &name, &resource.spec).into_iter().map(|(reference, _)| reference).collect();
    context.references.note(&Key::new(&namespace, &name), wanted.iter().cloned());
    let mut found = BTreeMap::new();
    for reference in wanted {
        let looked = match context.references.known(&reference) {
            Some(looked) => looked,
            None => look(context, &reference).await?,
        };
        found.insert(reference, looked);
    }
    Ok(found)
}

async fn look(context: &Context, reference: &Reference) -> kube::Result<Looked> {
    let Key { namespace, name } = &reference.key;
    let (version, looked) = match reference.kind {
        Kind::ConfigMap => match context.cluster.config_map(namespace, name).await? {
            Some(map) => (map.resource_version(), Looked::config_map(&map)),
            None => (None, Looked::Missing),
        },
        _ => match context.cluster.secret(namespace, name).await? {
            Some(secret) => (secret.resource_version(), Looked::secret(&secret)),
            None => (None, Looked::Missing),
        },
    };
    context.references.keep(reference, version.as_deref(), looked.clone());
    Ok(looked)
}
