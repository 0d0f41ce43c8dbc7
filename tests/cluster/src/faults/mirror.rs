//! What there is in the namespaces of a run, by watches of the harness's own: what an operator has come to is
//! seen without asking the API server for it again and again, and whatever was made or deleted is counted, by
//! whoever it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api;
use crate::api_proxy::held;

/// What is watched.
const WATCHED: [&str; 13] = [
    "serviceaccounts",
    "configmaps",
    "secrets",
    "services",
    "persistentvolumeclaims",
    "deployments",
    "statefulsets",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "networkpolicies",
    "ingresses",
    "luminates",
    "pods",
];

/// An object by resource and name.
pub type Place = (String, String);

/// A namespace.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// What there is now.
    pub objects: BTreeMap<Place, Value>,
    /// How many were made since the counts were cleared.
    pub created: BTreeMap<Place, u32>,
    /// How many are gone since then.
    pub deleted: BTreeMap<Place, u32>,
    /// Secrets of the operator whose data changed: they are made once.
    pub rewritten: BTreeSet<Place>,
    /// Pods that there are.
    pub pods: BTreeSet<String>,
    /// Grows with each change.
    pub version: u64,
}

impl World {
    /// Forgets what was counted.
    pub fn clear_counts(&mut self) {
        self.created.clear();
        self.deleted.clear();
        self.rewritten.clear();
    }
}

/// The watches; they end when it is dropped.
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    _watches: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    worlds: Mutex<BTreeMap<String, World>>,
    changed: watch::Sender<u64>,
}

impl Mirror {
    /// Watches these namespaces, and has listed everything.
    pub async fn of(client: &Client, namespaces: &[String]) -> Self {
        let worlds = namespaces.iter().map(|name| (name.clone(), World::default())).collect();
        let shared = Arc::new(Shared { worlds: Mutex::new(worlds), changed: watch::Sender::new(0) });
        let mut watches = JoinSet::new();
        let mut listed = Vec::new();
        for plural in WATCHED {
            let (done, seen) = watch::channel(false);
            listed.push(seen);
            watches.spawn(follow(client.clone(), Arc::clone(&shared), resource(plural), done));
        }
        for mut seen in listed {
            // A watch ends with the mirror only.
            let _listed = seen.wait_for(|listed| *listed).await;
        }
        Self { shared, _watches: watches }
    }

    /// Looks at a namespace, or changes what is counted of it.
    ///
    /// # Panics
    /// When it isn't one of those that are watched.
    pub fn with<T>(&self, namespace: &str, look: impl FnOnce(&mut World) -> T) -> T {
        look(held(&self.shared.worlds).get_mut(namespace).expect("a namespace of this mirror"))
    }

    /// Tells when anything has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

fn resource(plural: &str) -> ApiResource {
    let (prefix, _) = api::place(plural);
    let api_version = prefix.trim_start_matches("/apis/").trim_start_matches("/api/").to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: plural.to_owned(),
        plural: plural.to_owned(),
        api_version: api_version.clone(),
    }
}

async fn follow(client: Client, shared: Arc<Shared>, resource: ApiResource, done: watch::Sender<bool>) {
    let plural = resource.plural.clone();
    let events = watcher(Api::<DynamicObject>::all_with(client, &resource), watcher::Config::default());
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitDone) => {
                done.send_replace(true);
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => shared.seen(&plural, object),
            Ok(Event::Delete(object)) => shared.gone(&plural, &object),
            Ok(Event::Init) => {}
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
        }
    }
}

impl Shared {
    fn change(&self, namespace: Option<String>, change: impl FnOnce(&mut World)) {
        let known = namespace.is_some_and(|name| {
            let worlds = &mut *held(&self.worlds);
            let world = worlds.get_mut(&name);
            world
                .map(|world| {
                    world.version += 1;
                    change(world);
                })
                .is_some()
        });
        if known {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    fn seen(&self, plural: &str, object: DynamicObject) {
        let (namespace, name) = (object.namespace(), object.name_any());
        self.change(namespace, |world| {
            if plural == "pods" {
                world.pods.insert(name);
                return;
            }
            if is_the_clusters_own(plural, &name) {
                return;
            }
            let place = (plural.to_owned(), name);
            let object = serde_json::to_value(object).expect("it came as JSON");
            let before = world.objects.get(&place);
            if before.is_none_or(|before| before["metadata"]["uid"] != object["metadata"]["uid"]) {
                *world.created.entry(place.clone()).or_default() += 1;
            } else if before.is_some_and(|before| is_operators(&object) && before["data"] != object["data"])
                && plural == "secrets"
            {
                world.rewritten.insert(place.clone());
            }
            world.objects.insert(place, object);
        });
    }

    fn gone(&self, plural: &str, object: &DynamicObject) {
        let (namespace, name) = (object.namespace(), object.name_any());
        self.change(namespace, |world| {
            if plural == "pods" {
                world.pods.remove(&name);
                return;
            }
            let place = (plural.to_owned(), name);
            if world.objects.remove(&place).is_some() {
                *world.deleted.entry(place).or_default() += 1;
            }
        });
    }
}

/// Every namespace has these.
fn is_the_clusters_own(plural: &str, name: &str) -> bool {
    matches!((plural, name), ("configmaps", "kube-root-ca.crt") | ("serviceaccounts", "default"))
}

/// Whether an object is the operator's, by label.
#[must_use]
pub fn is_operators(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "luminate-operator"
}
