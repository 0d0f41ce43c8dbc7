//! Step 4: live objects become what they should be. IO.
//!
//! Server-side apply, and only where something differs: an apply that changes nothing is still a write, and
//! with a watch on its own objects a loop of them. What is no longer wanted is deleted: by owner, with the
//! identity of what was looked at. Before the first write the resource itself is read past every cache.

pub mod compare;
mod replace;
mod replicas;
mod volume;

use std::collections::{BTreeMap, HashMap};

use kube::ResourceExt;
use kube::api::PropagationPolicy;
use luminate_crds::condition::Reason;
use luminate_crds::luminate::{Backend, Luminate};
use parking_lot::Mutex;
use serde_json::{Value, json};

use replicas::Step;

use super::Context;
use super::build::{self, MANAGER, Position};
use super::children::Place;
use super::fetch::Fetched;
use super::references::{Key, Looked, Reference};
use super::status::Problem;
use super::switching::Switch;
use super::validate::{JWT_KEY, Validated};
use super::volume::{Volume, is_going};
use crate::cluster::{Failure, failure, said};
use crate::object::{APPLIED, Kind, Object, Policy, digest};
use crate::seeded::{self, Bug};

/// What a step of a reconcile failed with; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A request failed.
    #[error("{}", said(.0))]
    Api(#[from] kube::Error),
    /// The resource isn't what it was when the reconcile began: the next one sees what it is now.
    #[error("the resource has changed or gone meanwhile")]
    Stale,
    /// No randomness for a secret.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// What is wrong and stays so.
    pub problems: Vec<Problem>,
    /// Workloads as they are after it.
    pub workloads: BTreeMap<Kind, Value>,
    /// The digest that the resource's own workload should have.
    pub workload_digest: String,
    /// Whether an object has to go before it can be made anew.
    pub waiting: bool,
    /// Whether the volume's driver is at work.
    pub growing: bool,
}

/// What was applied last, and to which version it led: as long as a watch sees no other version, nothing
/// needs to be read.
#[derive(Debug, Default)]
pub struct Notes(Mutex<HashMap<Key, BTreeMap<Place, Note>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    digest: String,
    version: String,
    /// Where the API server keeps another value than it was given (as an admission policy may make it): the
    /// digest of what it keeps. The same again is no difference.
    kept: Option<String>,
}

impl Notes {
    fn of(&self, user: &Key, place: &Place) -> Option<Note> {
        self.0.lock().get(user)?.get(place).cloned()
    }

    fn put(&self, user: &Key, place: Place, note: Note) {
        self.0.lock().entry(user.clone()).or_default().insert(place, note);
    }

    fn drop(&self, user: &Key, place: &Place) {
        if let Some(notes) = self.0.lock().get_mut(user) {
            notes.remove(place);
        }
    }

    /// Whether something was applied there and hasn't been deleted since.
    #[must_use]
    pub fn applied(&self, user: &Key, place: &Place) -> bool {
        self.of(user, place).is_some()
    }

    /// Whether what was applied there last led to this version.
    #[must_use]
    pub fn led_to(&self, user: &Key, place: &Place, version: Option<&str>) -> bool {
        self.of(user, place).is_some_and(|note| Some(note.version.as_str()) == version)
    }

    /// Forgets the versions of a resource's objects, so that all are read again.
    pub fn refresh(&self, user: &Key) {
        for note in self.0.lock().get_mut(user).into_iter().flat_map(BTreeMap::values_mut) {
            note.version.clear();
        }
    }

    /// A resource is gone.
    pub fn forget(&self, user: &Key) {
        self.0.lock().remove(user);
    }
}

/// One reconcile's applying.
struct Run<'a> {
    context: &'a Context,
    resource: &'a Luminate,
    validated: &'a Validated,
    fetched: &'a Fetched,
    user: Key,
    /// Whether the resource was read past every cache and is still what it was.
    confirmed: bool,
    /// Whether the StatefulSet was let go, to be made anew.
    let_go: bool,
    /// Whether a Deployment of somebody else has the name of ours.
    foreign_deployment: bool,
    applied: Applied,
}

/// Brings every object to what it should be.
///
/// # Errors
/// What may pass when it is tried again. What won't is in [`Applied::problems`].
pub async fn apply(
    context: &Context,
    resource: &Luminate,
    validated: &Validated,
    fetched: &Fetched,
    switch: Switch,
) -> Result<Applied, ApplyError> {
    let mut run = Run {
        context,
        resource,
        validated,
        fetched,
        user: Key::new(&validated.namespace, &validated.name),
        confirmed: false,
        let_go: false,
        foreign_deployment: false,
        applied: Applied::default(),
    };
    // 1. The volume, which decides on the size in the claim template.
    let volume = Volume::of(validated, fetched.stateful_set.as_ref(), run.claim());
    let template_storage = run.volume(&volume).await?;
    let position = Position { traffic: switch.traffic(validated.backend()), template_storage };
    let objects = build::build(validated, &position);
    // 2. An autoscaler that must go goes first: it would go on setting what is about to be set.
    let orphans = run.orphans(&objects, switch);
    for place in orphans.iter().filter(|place| place.kind == Kind::HorizontalPodAutoscaler) {
        run.delete(place).await?;
    }
    // 3. Everything that should be.
    for object in objects.iter().filter(|object| !is_needed_by_old(object.kind, validated, switch)) {
        match object.kind {
            // It would set how many pods somebody else's Deployment has.
            Kind::HorizontalPodAutoscaler if run.foreign_deployment => run.delete(&run.place(object)).await?,
            _ => run.object(object).await?,
        }
    }
    // 4. Everything that should no longer be.
    for place in orphans.iter().filter(|place| place.kind != Kind::HorizontalPodAutoscaler) {
        run.delete(place).await?;
    }
    Ok(run.applied)
}

/// The digest that the resource's own workload should have, where nothing is applied.
#[must_use]
pub fn wanted_digest(validated: &Validated, fetched: &Fetched, switch: Switch) -> String {
    let volume = Volume::of(validated, fetched.stateful_set.as_ref(), fetched.claim.as_ref());
    let template_storage = volume.template_storage().filter(|_| volume.recreate || volume.larger.is_some());
    let position = Position { traffic: switch.traffic(validated.backend()), template_storage };
    let objects = build::build(validated, &position);
    let workload = objects.iter().find(|object| is_workload(object.kind));
    workload.map(|object| object.digest().to_owned()).unwrap_or_default()
}

fn is_workload(kind: Kind) -> bool {
    matches!(kind, Kind::Deployment | Kind::StatefulSet)
}

/// Whether a live object belongs to the resource of this identity.
#[must_use]
pub fn is_owned(live: &Value, uid: &str) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.into_iter().any(|owner| owner["uid"] == uid)
}

/// Whether a live object was applied by the operator for the resource of this name, and somebody took its
/// owner away.
fn is_disowned(live: &Value, name: &str) -> bool {
    let metadata = &live["metadata"];
    let owners = metadata["ownerReferences"].as_array().is_none_or(Vec::is_empty);
    let labelled = metadata["labels"][build::INSTANCE] == name;
    let managers = metadata["managedFields"].as_array().into_iter().flatten();
    let applied =
        managers.into_iter().any(|entry| entry["manager"] == MANAGER && entry["operation"] == "Apply");
    owners && labelled && applied && metadata["annotations"][APPLIED].is_string()
}

/// Whether a live object belongs to an earlier resource of the same name: it is about to be collected.
fn is_of_predecessor(live: &Value, name: &str) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.into_iter().any(|owner| {
        owner["kind"] == "Luminate"
            && owner["name"] == name
            && owner["apiVersion"].as_str().is_some_and(|version| version.starts_with("luminate.dev/"))
    })
}

impl Run<'_> {
    fn place(&self, object: &Object) -> Place {
        Place::new(object.kind, &self.validated.namespace, &object.name)
    }

    /// Before the first write: is the resource still what it was? A cache may be older than what was applied
    /// since, by whom ever, and would have it rolled back.
    async fn confirm(&mut self) -> Result<(), ApplyError> {
        if self.confirmed {
            return Ok(());
        }
        let current = self.context.cluster.resource(&self.validated.namespace, &self.validated.name).await?;
        let same = current.is_some_and(|current| {
            current.uid() == self.resource.uid()
                && current.metadata.generation == self.resource.metadata.generation
                && current.metadata.deletion_timestamp.is_none()
        });
        self.confirmed = same;
        if same { Ok(()) } else { Err(ApplyError::Stale) }
    }

    /// Notes a failure that won't pass by itself, and hands back one that may.
    fn problem(&mut self, place: &Place, error: kube::Error) -> Result<(), ApplyError> {
        match failure(&error) {
            Failure::Passing => Err(error.into()),
            Failure::Lasting(reason, message) => {
                let message = format!("{} {}: {message}", place.kind.name(), place.key.name);
                self.add(reason, message);
                Ok(())
            }
        }
    }

    fn add(&mut self, reason: Reason, message: String) {
        tracing::debug!(resource = %self.user, reason = reason.name(), message, "an object isn't as it should be");
        self.applied.problems.push(Problem { reason, message, blocks: true });
    }

    async fn object(&mut self, object: &Object) -> Result<(), ApplyError> {
        let place = self.place(object);
        if is_workload(object.kind) {
            object.digest().clone_into(&mut self.applied.workload_digest);
        }
        if object.kind == Kind::StatefulSet && self.let_go {
            self.applied.waiting = true;
            return Ok(());
        }
        if object.policy == Policy::CreateOnce {
            return self.once(object, place).await;
        }
        let note = self.context.notes.of(&self.user, &place);
        let seen = self.context.children.version(&place);
        let unchanged = note.as_ref().is_some_and(|note| {
            note.digest == object.digest() && seen.as_deref() == Some(note.version.as_str())
        });
        if unchanged && !is_workload(object.kind) {
            return Ok(());
        }
        let live = match self.fetched.live(object.kind) {
            Some(live) => live.cloned(),
            None => self.context.cluster.get(object.kind, &self.validated.namespace, &object.name).await?,
        };
        match live {
            None => self.create(object, place).await,
            Some(live) if is_going(&live) => {
                self.applied.waiting = true;
                Ok(())
            }
            Some(live)
                if is_owned(&live, &self.validated.uid)
                    || is_disowned(&live, &self.validated.name)
                    || seeded::has(Bug::NoOwnerCheck) =>
            {
                self.update(object, place, live, note).await
            }
            Some(live) if is_of_predecessor(&live, &self.validated.name) => {
                self.applied.waiting = true;
                Ok(())
            }
            Some(_) => {
                self.foreign_deployment |= object.kind == Kind::Deployment;
                let message = format!(
                    "{} {} exists and belongs to somebody else; it is left alone",
                    object.kind.name(),
                    object.name
                );
                self.add(Reason::ForeignObject, message);
                Ok(())
            }
        }
    }

    /// The secret of tokens: made if there is none, and never touched again, whoever made it.
    async fn once(&mut self, object: &Object, place: Place) -> Result<(), ApplyError> {
        let reference = Reference { kind: object.kind, key: place.key.clone() };
        let known = self.fetched.around.references.get(&reference);
        if known.is_some_and(|known| *known != Looked::Missing) {
            return Ok(());
        }
        self.confirm().await?;
        match self.context.cluster.create(object.kind, MANAGER, &with_secret(&object.body)?).await {
            Ok(live) => {
                tracing::info!(resource = %self.user, kind = object.kind.name(), name = object.name, "created");
                self.context.references.keep_made(&reference, live);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => self.problem(&place, error),
        }
    }

    async fn create(&mut self, object: &Object, place: Place) -> Result<(), ApplyError> {
        self.confirm().await?;
        let cluster = &self.context.cluster;
        let body = match object.kind {
            Kind::Deployment => replicas::at_first(self.validated, &object.body),
            _ => object.body.clone(),
        };
        // Not by force: what somebody made in this very moment isn't taken from them.
        match cluster.apply(object.kind, MANAGER, &body, false).await {
            Ok(live) => {
                tracing::info!(resource = %self.user, kind = object.kind.name(), name = object.name, "created");
                let live = self.hand_over(object, live).await?;
                self.note(object, place, &live, None);
                Ok(())
            }
            Err(error) => self.problem(&place, error),
        }
    }

    /// The number of workers is the autoscaler's, once there are as many as it would have at least.
    async fn hand_over(&mut self, object: &Object, live: Value) -> Result<Value, ApplyError> {
        if object.kind != Kind::Deployment {
            return Ok(live);
        }
        let step = replicas::next(self.validated, &live);
        if step != Step::None {
            self.confirm().await?;
        }
        Ok(replicas::hand_over(&self.context.cluster, step, &object.body, live).await?)
    }

    async fn update(
        &mut self,
        object: &Object,
        place: Place,
        live: Value,
        note: Option<Note>,
    ) -> Result<(), ApplyError> {
        let cluster = &self.context.cluster;
        if replace::is_left(&live) {
            self.confirm().await?;
        }
        let live = replace::give_up(cluster, object.kind, live).await?;
        let live = match self.hand_over(object, live).await {
            Ok(live) => live,
            Err(ApplyError::Api(error)) => return self.problem(&place, error),
            Err(other) => return Err(other),
        };
        let Some(difference) = compare::difference(&object.body, &live) else {
            self.note(object, place, &live, None);
            return Ok(());
        };
        let kept = digest(&lasting(&live));
        let known = note.is_some_and(|note| {
            note.digest == object.digest() && note.kept.as_deref() == Some(kept.as_str())
        });
        if known {
            self.note(object, place, &live, Some(kept));
            return Ok(());
        }
        self.confirm().await?;
        let mut body = object.body.clone();
        // Should it have been replaced meanwhile, this is a conflict.
        body["metadata"]["uid"] = live["metadata"]["uid"].clone();
        let applied = match cluster.apply(object.kind, MANAGER, &body, true).await {
            Err(kube::Error::Api(status)) if status.code == 422 => {
                replace::replace(cluster, object.kind, &body, kube::Error::Api(status)).await
            }
            applied => applied,
        };
        match applied {
            Ok(live) => {
                tracing::info!(
                    resource = %self.user, kind = object.kind.name(), name = object.name, difference, "applied"
                );
                let other = compare::difference(&object.body, &live);
                if let Some(other) = &other {
                    tracing::warn!(
                        resource = %self.user, kind = object.kind.name(), name = object.name, difference = other,
                        "the API server keeps another value"
                    );
                }
                let kept = other.map(|_| digest(&lasting(&live)));
                self.note(object, place, &live, kept);
                Ok(())
            }
            Err(error) => self.problem(&place, error),
        }
    }

    fn note(&mut self, object: &Object, place: Place, live: &Value, kept: Option<String>) {
        if is_workload(object.kind) {
            self.applied.workloads.insert(object.kind, live.clone());
        }
        let version = live["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let note = Note { digest: object.digest().to_owned(), version, kept };
        self.context.notes.put(&self.user, place, note);
    }

    /// What the resource owns and should no longer. Secrets stay: they hold what can't be made again. A
    /// claim isn't the operator's to delete.
    fn orphans(&self, objects: &[Object], switch: Switch) -> Vec<Place> {
        let owned = self.context.children.owned(&self.validated.uid, &self.validated.namespace);
        let wanted = |place: &Place| {
            objects.iter().any(|object| object.kind == place.kind && object.name == place.key.name)
        };
        let old = |place: &Place| switch.keeps_old() && is_of_backend(place, self.validated);
        let stays = |place: &Place| matches!(place.kind, Kind::Secret | Kind::PersistentVolumeClaim);
        owned.into_iter().filter(|place| !wanted(place) && !stays(place) && !old(place)).collect()
    }

    async fn delete(&mut self, place: &Place) -> Result<(), ApplyError> {
        let Place { kind, key } = place;
        let Some(live) = self.context.cluster.get(*kind, &key.namespace, &key.name).await? else {
            self.context.notes.drop(&self.user, place);
            return Ok(());
        };
        let ours =
            is_owned(&live, &self.validated.uid) && live["metadata"]["labels"][build::MANAGED_BY] == MANAGER;
        if !ours || is_going(&live) {
            return Ok(());
        }
        self.confirm().await?;
        match self.context.cluster.delete(*kind, &live, PropagationPolicy::Background).await {
            Ok(()) => {
                tracing::info!(resource = %self.user, kind = kind.name(), name = key.name, "deleted");
                self.context.notes.drop(&self.user, place);
                Ok(())
            }
            Err(error) => self.problem(place, error),
        }
    }
}

/// Workers that go to ClickHouse serve until the embedded engine does: their NetworkPolicy stays as it is, since
/// the resource no longer says where ClickHouse was.
fn is_needed_by_old(kind: Kind, validated: &Validated, switch: Switch) -> bool {
    kind == Kind::NetworkPolicy && switch.keeps_old() && validated.backend() == Backend::RocksDB
}

/// Whether an object is only of use to the other backend's workers than the resource asks for.
fn is_of_backend(place: &Place, validated: &Validated) -> bool {
    let old = validated.backend().other();
    match place.kind {
        Kind::Deployment | Kind::StatefulSet | Kind::HorizontalPodAutoscaler | Kind::PodDisruptionBudget => {
            true
        }
        Kind::ConfigMap => place.key.name == build::config::config_map_name(&validated.name, old),
        Kind::Service => place.key.name != validated.name,
        _ => false,
    }
}

/// The Secret's body with a secret of 32 random bytes, as hexadecimal digits.
fn with_secret(body: &Value) -> Result<Value, ApplyError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(ApplyError::Random)?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut body = body.clone();
    body["stringData"] = json!({ JWT_KEY: secret });
    Ok(body)
}

/// What of a live object stays as it is while nobody changes it.
fn lasting(live: &Value) -> Value {
    let mut lasting = live.clone();
    if let Some(fields) = lasting.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = lasting["metadata"].as_object_mut() {
        for name in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(name);
        }
    }
    lasting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_hold_until_another_version_is_wanted_or_seen() {
        let notes = Notes::default();
        let (user, place) = (Key::new("a", "prod"), Place::new(Kind::Service, "a", "prod"));
        assert!(!notes.applied(&user, &place));
        let note = Note { digest: "d".into(), version: "1".into(), kept: None };
        notes.put(&user, place.clone(), note.clone());
        assert_eq!(notes.of(&user, &place), Some(note));
        assert!(notes.led_to(&user, &place, Some("1")) && !notes.led_to(&user, &place, Some("2")));
        notes.refresh(&user);
        assert_eq!(notes.of(&user, &place).map(|note| note.version), Some(String::new()));
        assert!(notes.applied(&user, &place));
        notes.forget(&user);
        assert!(!notes.applied(&user, &place));
    }

    #[test]
    fn only_the_owner_or_who_applied_it_has_an_object() {
        let owned = json!({ "metadata": { "ownerReferences": [{ "uid": "u" }] } });
        assert!(is_owned(&owned, "u") && !is_owned(&owned, "v") && !is_owned(&json!({}), "u"));
        let mut disowned = json!({ "metadata": {
            "labels": { "app.kubernetes.io/instance": "prod" },
            "annotations": { APPLIED: "d" },
            "managedFields": [{ "manager": "luminate-operator", "operation": "Apply" }],
        } });
        assert!(is_disowned(&disowned, "prod") && !is_disowned(&disowned, "other"));
        let predecessor = json!({ "apiVersion": "luminate.dev/v1alpha1", "kind": "Luminate", "name": "prod", "uid": "old" });
        let collected = json!({ "metadata": { "ownerReferences": [predecessor] } });
        assert!(is_of_predecessor(&collected, "prod") && !is_of_predecessor(&owned, "prod"));
        disowned["metadata"]["ownerReferences"] = json!([{ "uid": "somebody" }]);
        assert!(!is_disowned(&disowned, "prod"));
        assert!(!is_disowned(
            &json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "prod" } } }),
            "prod"
        ));
    }

    #[test]
    fn a_secret_is_drawn_anew_and_long_enough() {
        let body = json!({ "stringData": { JWT_KEY: "" } });
        let (one, two) = (with_secret(&body).unwrap(), with_secret(&body).unwrap());
        assert_ne!(one, two);
        assert_eq!(one["stringData"][JWT_KEY].as_str().map(str::len), Some(64));
    }

    #[test]
    fn what_changes_by_itself_doesnt_last() {
        let live = json!({
            "metadata": { "name": "a", "resourceVersion": "1", "managedFields": [] }, "spec": { "x": 1 }, "status": {},
        });
        assert_eq!(lasting(&live), json!({ "metadata": { "name": "a" }, "spec": { "x": 1 } }));
    }
}
