//! The watches, and the loop that they feed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use kube::api::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Config, WatchStreamExt, applier};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::Notes;
use super::build::{MANAGED_BY, MANAGER};
use super::children::{Children, Place};
use super::events::Events;
use super::probes::Probes;
use super::queue::Queue;
use super::references::{Key, Reference, References};
use super::{Context, Failed, Guarded, backoff, jittered, pause, reconcile};
use crate::client::Gate;
use crate::cluster::{Cluster, said};
use crate::object::Kind;
use crate::progress::Progress;
use crate::telemetry::Metrics;

/// How long a watch lasts until it starts anew: one whose connection is dead is believed no longer.
const WATCH_SECONDS: u32 = 60;
/// The longest pause after a watch's failures.
const LONGEST_WATCH_PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked whether the cluster has learnt of ServiceMonitors.
const LOOK_FOR_MONITORS: Duration = Duration::from_secs(60);
/// Triggers of a resource within this time are one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// What every scope is run with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The client; its writes pass the gate.
    pub client: ClientHandle,
    /// What requests pass.
    pub gate: Arc<Gate>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// What waits and runs.
    pub progress: Arc<Progress>,
    /// The name of this process, for events.
    pub identity: String,
    /// Reconciles at once.
    pub concurrency: u16,
}

/// A client that can be shown.
#[derive(Clone)]
pub struct ClientHandle(pub Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Client")
    }
}

/// Serves every resource of `scope` (a namespace, or `None` for all) until `stop`; what has begun is ended.
pub async fn run(settings: Settings, scope: Option<String>, stop: CancellationToken) {
    let (reader, writer) = reflector::store::<Guarded>();
    let context = Arc::new(context(&settings, reader));
    let monitors = context.cluster.knows(Kind::ServiceMonitor).await.unwrap_or(false);
    context.monitors.store(monitors, Ordering::Relaxed);
    let mut tasks = JoinSet::new();
    // 1. Watches of objects, and what is asked now and then.
    let mut listed = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ServiceMonitor) {
        let (done, seen) = watch::channel(false);
        listed.push(seen);
        tasks.spawn(watch_kind(Arc::clone(&context), kind, scope.clone(), done));
    }
    tasks.spawn(watch_monitors(Arc::clone(&context), Arc::clone(&settings.gate), scope.clone()));
    tasks.spawn(probe(Arc::clone(&context)));
    // 2. Nothing is decided before everything is known.
    let all_listed = async {
        for mut seen in listed {
            // A watch that has ended belongs to a process that ends.
            let _ = seen.wait_for(|listed| *listed).await;
        }
    };
    tokio::select! {
        () = all_listed => {}
        () = stop.cancelled() => return,
    }
    tracing::info!(scope = scope.as_deref().unwrap_or("all namespaces"), "serving resources");
    // 3. Resources.
    reconcile_all(context, writer, &settings, scope, stop).await;
    tasks.shutdown().await;
}

fn context(settings: &Settings, resources: Store<Guarded>) -> Context {
    let client = settings.client.0.clone();
    Context {
        cluster: Cluster::new(client.clone()),
        resources,
        children: Children::default(),
        references: References::default(),
        notes: Notes::default(),
        probes: Arc::new(Probes::default()),
        events: Events::new(client, &settings.identity),
        metrics: Arc::clone(&settings.metrics),
        progress: Arc::clone(&settings.progress),
        queue: Queue::new(Arc::clone(&settings.progress)),
        monitors: AtomicBool::new(false),
        memory: parking_lot::Mutex::default(),
    }
}

async fn reconcile_all(
    context: Arc<Context>,
    writer: Writer<Guarded>,
    settings: &Settings,
    scope: Option<String>,
    stop: CancellationToken,
) {
    let reader = context.resources.clone();
    let label = scope.clone().unwrap_or_else(|| "all".to_owned());
    let api: Api<Guarded> = match scope {
        Some(namespace) => Api::namespaced(settings.client.0.clone(), &namespace),
        None => Api::all(settings.client.0.clone()),
    };
    let seen = Arc::clone(&context);
    let resources = watching(Arc::clone(&context), api, watcher::Config::default(), "Luminate")
        .map(Ok::<_, watcher::Error>)
        .modify(|guarded| guarded.managed_fields_mut().clear())
        .reflect(writer)
        .inspect_ok(move |event| note_gone(&seen, event))
        .applied_objects()
        .filter_map(|outcome| async { outcome.ok() })
        .map(|guarded| ObjectRef::from_obj(&guarded));
    let triggers = futures_util::stream::select(resources, context.queue.stream());
    let queue = waiting(triggers, Arc::clone(&context), reader.clone(), label);
    let queue = queue.map(Ok::<_, std::convert::Infallible>);
    let config = Config::default().concurrency(settings.concurrency).debounce(DEBOUNCE);
    // Each in a task of its own: one that panics doesn't take the others with it.
    let reconciler = |guarded, context| {
        let running = tokio::spawn(reconcile(guarded, context));
        Box::pin(async move { running.await.unwrap_or(Err(Failed::Panicked)) })
    };
    let queue = Box::pin(queue.take_until(stop.cancelled_owned()));
    applier(reconciler, pause, context, reader, queue, config).for_each(|_| std::future::ready(())).await;
}

/// What a watch sees. It starts anew after each failure, after a pause that doubles; the first failure in a row is
/// logged.
fn watching<K>(
    context: Arc<Context>,
    api: Api<K>,
    config: watcher::Config,
    kind: &'static str,
) -> impl Stream<Item = Event<K>>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut failing = false;
    late(watcher(api, config.timeout(WATCH_SECONDS))).backoff(Pauses(0)).filter_map(move |outcome| {
        let event = outcome.map_err(|error| complain(&error, kind, failing));
        if failing && event.is_ok() {
            tracing::info!(kind, "a watch works again");
            context.retry_failed();
        }
        failing = event.is_err();
        std::future::ready(event.ok())
    })
}

/// Pauses after so many failures in a row.
struct Pauses(u32);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1);
        Some(jittered(backoff(self.0).min(LONGEST_WATCH_PAUSE)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Announces a list only when there is an answer: kube announces each attempt, and the pause would never double.
fn late<K, E>(events: impl Stream<Item = Result<Event<K>, E>>) -> impl Stream<Item = Result<Event<K>, E>> {
    let mut announced = false;
    events.flat_map(move |event| {
        let news = match event {
            Ok(Event::Init) => {
                announced = true;
                [None, None]
            }
            Ok(event) => [std::mem::take(&mut announced).then_some(Ok(Event::Init)), Some(Ok(event))],
            Err(error) => [None, Some(Err(error))],
        };
        stream::iter(news.into_iter().flatten())
    })
}

fn complain(error: &watcher::Error, kind: &'static str, again: bool) {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        _ if again => tracing::debug!(%error, kind, "a watch failed again"),
        InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
            tracing::warn!(kind, "the API server doesn't know this kind: is its definition installed?");
        }
        // The usual end of a watch of something that seldom changes.
        WatchError(status) if status.code == 410 => {
            tracing::debug!(kind, "a watch is too old; it starts anew")
        }
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            tracing::warn!(error = said(error), kind, "a watch failed; it starts anew");
        }
        error => tracing::warn!(%error, kind, "a watch failed; it starts anew"),
    }
}

/// Notes since when what exists waits; a trigger of what is gone isn't waiting for anything.
fn waiting(
    triggers: impl Stream<Item = ObjectRef<Guarded>>,
    context: Arc<Context>,
    reader: Store<Guarded>,
    scope: String,
) -> impl Stream<Item = ObjectRef<Guarded>> {
    triggers.inspect(move |object| {
        context.metrics.count(&scope, reader.len());
        if reader.get(object).is_some() {
            let namespace = object.namespace.clone().unwrap_or_default();
            context.queue.waits(&Key::new(namespace, &object.name));
        }
    })
}

/// Nothing is remembered of what is gone, whether the watch saw it go or a new list lacks it.
fn note_gone(context: &Context, event: &Event<Guarded>) {
    let key = |guarded: &Guarded| Key::new(guarded.namespace().unwrap_or_default(), guarded.name_any());
    match event {
        Event::Delete(guarded) => {
            let key = key(guarded);
            tracing::info!(resource = %key, "the resource is gone");
            context.forget(&key);
        }
        Event::InitDone => {
            let known: BTreeSet<Key> = context.resources.state().iter().map(|guarded| key(guarded)).collect();
            let remembered: Vec<Key> = context.memory.lock().keys().cloned().collect();
            remembered.iter().filter(|key| !known.contains(*key)).for_each(|key| context.forget(key));
        }
        _ => {}
    }
}

/// Watches one kind: objects of the operator, and of Secrets and ConfigMaps everything, since a resource
/// may refer to any. Metadata only.
async fn watch_kind(context: Arc<Context>, kind: Kind, scope: Option<String>, done: watch::Sender<bool>) {
    let resource = kind.resource();
    let client = context.cluster.client();
    let api: Api<PartialObjectMeta<DynamicObject>> = match &scope {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let referable = matches!(kind, Kind::Secret | Kind::ConfigMap);
    let config = match referable {
        true => watcher::Config::default(),
        false => watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}")),
    };
    let mut events = std::pin::pin!(watching(Arc::clone(&context), api, config, kind.name()));
    while let Some(event) = events.next().await {
        seen(&context, kind, referable, event, &done);
    }
}

fn seen(
    context: &Context,
    kind: Kind,
    referable: bool,
    event: Event<PartialObjectMeta<DynamicObject>>,
    done: &watch::Sender<bool>,
) {
    let place = |object: &PartialObjectMeta<DynamicObject>| {
        Place::new(kind, object.namespace().unwrap_or_default(), object.name_any())
    };
    let reference = |place: &Place| Reference { kind, key: place.key.clone() };
    let mut affected = match event {
        Event::Init => {
            context.children.listing(kind);
            context.references.listing(kind);
            Vec::new()
        }
        Event::InitApply(object) | Event::Apply(object) => {
            let place = place(&object);
            let mut affected = context.children.applied(&place, &object.metadata);
            let version = object.metadata.resource_version.as_deref();
            // The echo of what was applied here is no news.
            affected.retain(|key| !context.notes.led_to(key, &place, version));
            if referable {
                affected.extend(context.references.seen(&reference(&place), version));
            }
            affected
        }
        Event::Delete(object) => {
            let place = place(&object);
            let mut affected = context.children.deleted(&place, &object.metadata);
            if referable {
                affected.extend(context.references.seen(&reference(&place), None));
            }
            affected
        }
        Event::InitDone => {
            done.send_replace(true);
            let mut affected = context.children.listed(kind);
            affected.extend(context.references.listed(kind));
            affected
        }
    };
    affected.sort();
    affected.dedup();
    affected.into_iter().for_each(|key| context.queue.push(key));
}

/// Watches ServiceMonitors while the cluster knows them, and looks from time to time whether it does.
async fn watch_monitors(context: Arc<Context>, gate: Arc<Gate>, scope: Option<String>) {
    loop {
        if context.service_monitors() {
            let (done, _) = watch::channel(false);
            let watching = watch_kind(Arc::clone(&context), Kind::ServiceMonitor, scope.clone(), done);
            tokio::select! {
                () = watching => {}
                () = known_changes(&context, true) => gate.forget_watches("/servicemonitors"),
            }
        } else {
            known_changes(&context, false).await;
        }
    }
}

/// Waits until the cluster knows ServiceMonitors, or no more, and has every resource looked at then.
async fn known_changes(context: &Context, before: bool) {
    loop {
        tokio::time::sleep(LOOK_FOR_MONITORS).await;
        match context.cluster.knows(Kind::ServiceMonitor).await {
            Ok(known) if known != before => {
                context.monitors.store(known, Ordering::Relaxed);
                tracing::info!(known, "whether the cluster knows ServiceMonitors has changed");
                let keys: Vec<Key> = context.memory.lock().keys().cloned().collect();
                keys.into_iter().for_each(|key| context.queue.push(key));
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "can't tell whether ServiceMonitors are known"),
        }
    }
}

async fn probe(context: Arc<Context>) {
    let told = Arc::clone(&context);
    Arc::clone(&context.probes).run(move |key| told.queue.push(key.clone())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_announced_when_it_answers() {
        let events =
            [Ok(Event::Init), Err("down"), Ok(Event::Init), Ok(Event::InitApply(1)), Ok(Event::InitDone)];
        let seen: Vec<_> = late(stream::iter(events)).collect().await;
        let expected = [Err("down"), Ok(Event::Init), Ok(Event::InitApply(1)), Ok(Event::InitDone)];
        assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
    }
}
