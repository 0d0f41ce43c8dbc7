//! What the watches saw of objects: their identity, version and owner, nothing more.
//!
//! The watches are of metadata only. With them, a reconcile of a settled installation reads its workload and
//! nothing else, and a thousand installations fit into a few megabytes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use luminate_crds::luminate::Luminate;
use parking_lot::Mutex;

use super::build::{INSTANCE, MANAGED_BY, MANAGER};
use super::references::Key;
use crate::object::Kind;

/// An object, by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its kind.
    pub kind: Kind,
    /// Where and what it is.
    pub key: Key,
}

impl Place {
    /// The object of a kind, in a namespace, with a name.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, key: Key::new(namespace, name) }
    }
}

/// What was seen of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Child {
    /// Its version.
    pub version: String,
    /// The identity of the resource that owns it.
    pub owner: Option<String>,
    /// The resource by name: of its owner, or else of its label.
    pub resource: Option<String>,
}

impl Child {
    fn of(metadata: &ObjectMeta) -> Self {
        let owners = metadata.owner_references.iter().flatten();
        let kind = Luminate::kind(&());
        let owner = owners
            .into_iter()
            .find(|owner| owner.kind == kind && owner.api_version.starts_with("luminate.dev/"));
        let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let labelled = label(MANAGED_BY).filter(|value| *value == MANAGER).and_then(|_| label(INSTANCE));
        Self {
            version: metadata.resource_version.clone().unwrap_or_default(),
            owner: owner.map(|owner| owner.uid.clone()),
            resource: owner.map(|owner| owner.name.clone()).or_else(|| labelled.cloned()),
        }
    }
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Children(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: BTreeMap<Place, Child>,
    /// The same by owner.
    owned: BTreeMap<String, BTreeSet<Place>>,
    /// While a watch starts anew: what it has listed so far.
    listing: BTreeMap<Kind, BTreeSet<Key>>,
}

impl Inner {
    fn put(&mut self, place: &Place, child: Child) {
        self.take(place);
        if let Some(owner) = &child.owner {
            self.owned.entry(owner.clone()).or_default().insert(place.clone());
        }
        self.seen.insert(place.clone(), child);
    }

    fn take(&mut self, place: &Place) -> Option<Child> {
        let child = self.seen.remove(place)?;
        if let Some(owner) = &child.owner
            && let Some(places) = self.owned.get_mut(owner)
        {
            places.remove(place);
            if places.is_empty() {
                self.owned.remove(owner);
            }
        }
        Some(child)
    }
}

impl Children {
    /// A watch saw an object. Answers the resources that have to look.
    pub fn applied(&self, place: &Place, metadata: &ObjectMeta) -> Vec<Key> {
        let inner = &mut *self.0.lock();
        let child = Child::of(metadata);
        if let Some(listed) = inner.listing.get_mut(&place.kind) {
            listed.insert(place.key.clone());
        }
        let before = inner.seen.get(place);
        if before == Some(&child) {
            return Vec::new();
        }
        let affected = resources(&place.key.namespace, [before, Some(&child)]);
        if child.resource.is_some() || before.is_some() {
            inner.put(place, child);
        }
        affected
    }

    /// A watch saw that an object is gone. Answers the resources that have to look.
    pub fn deleted(&self, place: &Place, metadata: &ObjectMeta) -> Vec<Key> {
        let inner = &mut *self.0.lock();
        let before = inner.take(place);
        resources(&place.key.namespace, [before.as_ref(), Some(&Child::of(metadata))])
    }

    /// A watch of a kind starts anew: it lists everything.
    pub fn listing(&self, kind: Kind) {
        self.0.lock().listing.insert(kind, BTreeSet::new());
    }

    /// It has listed everything: what wasn't listed is gone. Answers the resources that have to look.
    pub fn listed(&self, kind: Kind) -> Vec<Key> {
        let inner = &mut *self.0.lock();
        let listed = inner.listing.remove(&kind).unwrap_or_default();
        let gone: Vec<Place> = inner
            .seen
            .keys()
            .filter(|place| place.kind == kind && !listed.contains(&place.key))
            .cloned()
            .collect();
        let mut affected = Vec::new();
        for place in gone {
            let before = inner.take(&place);
            affected.extend(resources(&place.key.namespace, [before.as_ref(), None]));
        }
        affected
    }

    /// The version in which an object was seen last.
    #[must_use]
    pub fn version(&self, place: &Place) -> Option<String> {
        self.0.lock().seen.get(place).map(|child| child.version.clone())
    }

    /// Whether an object was seen that the resource with this identity owns.
    #[must_use]
    pub fn owns(&self, owner: &str, place: &Place) -> bool {
        self.0.lock().seen.get(place).is_some_and(|child| child.owner.as_deref() == Some(owner))
    }

    /// Everything in a namespace that the resource with this identity owns.
    #[must_use]
    pub fn owned(&self, owner: &str, namespace: &str) -> Vec<Place> {
        let inner = self.0.lock();
        let owned = inner.owned.get(owner).into_iter().flatten();
        owned.filter(|place| place.key.namespace == namespace).cloned().collect()
    }
}

fn resources(namespace: &str, children: [Option<&Child>; 2]) -> Vec<Key> {
    let names: BTreeSet<&String> =
        children.into_iter().flatten().filter_map(|child| child.resource.as_ref()).collect();
    names.into_iter().map(|name| Key::new(namespace, name)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn metadata(version: &str, owner: Option<&str>, label: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            resource_version: Some(version.to_owned()),
            owner_references: owner.map(|name| {
                vec![OwnerReference {
                    api_version: "luminate.dev/v1alpha1".into(),
                    kind: "Luminate".into(),
                    name: name.into(),
                    uid: format!("uid-{name}"),
                    ..OwnerReference::default()
                }]
            }),
            labels: label.map(|name| {
                [(MANAGED_BY.to_owned(), MANAGER.to_owned()), (INSTANCE.to_owned(), name.to_owned())].into()
            }),
            ..ObjectMeta::default()
        }
    }

    fn service() -> Place {
        Place::new(Kind::Service, "a", "prod")
    }

    #[test]
    fn a_new_version_is_told_once() {
        let children = Children::default();
        let prod = [Key::new("a", "prod")];
        assert_eq!(children.applied(&service(), &metadata("1", Some("prod"), None)), prod);
        assert_eq!(children.applied(&service(), &metadata("1", Some("prod"), None)), []);
        assert_eq!(children.applied(&service(), &metadata("2", Some("prod"), None)), prod);
        assert_eq!(children.version(&service()).as_deref(), Some("2"));
        assert!(children.owns("uid-prod", &service()));
        assert_eq!(children.owned("uid-prod", "a"), [service()]);
    }

    #[test]
    fn who_loses_an_object_hears_of_it() {
        let children = Children::default();
        let prod = [Key::new("a", "prod")];
        children.applied(&service(), &metadata("1", Some("prod"), Some("prod")));
        assert_eq!(children.applied(&service(), &metadata("2", None, None)), prod);
        children.applied(&service(), &metadata("3", Some("prod"), None));
        assert_eq!(children.deleted(&service(), &metadata("4", None, None)), prod);
        assert_eq!(children.version(&service()), None);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let children = Children::default();
        children.applied(&service(), &metadata("1", Some("prod"), None));
        let map = Place::new(Kind::ConfigMap, "a", "prod");
        children.applied(&map, &metadata("1", Some("prod"), None));
        children.listing(Kind::Service);
        assert_eq!(children.listed(Kind::Service), [Key::new("a", "prod")]);
        assert_eq!(children.owned("uid-prod", "a"), [map]);
    }

    #[test]
    fn what_is_nobodys_leaves_no_trace() {
        let children = Children::default();
        assert_eq!(children.applied(&service(), &metadata("1", None, None)), []);
        assert_eq!(children.version(&service()), None);
    }
}
