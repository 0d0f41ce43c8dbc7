//! Events: transitions that a person would want to know of, each told once.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt};
use luminate_crds::luminate::Luminate;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::status::Transition;
use super::{backoff, jittered};
use crate::cluster::{Failure, failure, said};

/// A transition that flaps is told once in this time.
const QUIET: Duration = Duration::from_secs(300);
/// How often an event is tried to be written: for about half a minute.
const ATTEMPTS: u32 = 7;
/// The longest note that the API server takes.
const LONGEST_NOTE: usize = 1_000;

/// Writes events.
pub struct Events {
    client: Client,
    instance: String,
    told: Mutex<HashMap<(String, String, String), Instant>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Events {
    /// Events in the name of the process `instance`.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.to_owned(), told: Mutex::default() }
    }

    /// Tells of `transitions` of a resource, in the background.
    pub fn tell(&self, resource: &impl Resource<DynamicType = ()>, transitions: &[Transition]) {
        for transition in transitions.iter().filter(|transition| self.is_news(resource, transition)) {
            let namespace = resource.namespace().unwrap_or_default();
            let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            let event = event(resource, transition, &self.instance, Timestamp::now());
            tokio::spawn(write(events, event));
        }
    }

    fn is_news(&self, resource: &impl Resource<DynamicType = ()>, transition: &Transition) -> bool {
        let uid = resource.uid().unwrap_or_default();
        let told = &mut *self.told.lock();
        told.retain(|_, at| at.elapsed() < QUIET);
        let key = (uid, transition.condition.clone(), transition.reason.clone());
        told.insert(key, Instant::now()).is_none()
    }
}

/// Writes an event, and tries again for a while: nothing else will tell of it. What can't be written in the end is
/// logged.
async fn write(events: Api<Event>, event: Event) {
    for attempt in 1..=ATTEMPTS {
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => return,
            // The answer to an earlier attempt was lost.
            Err(kube::Error::Api(status)) if status.is_already_exists() => return,
            Err(error) if attempt == ATTEMPTS || !matches!(failure(&error), Failure::Passing) => {
                let reason = event.reason.as_deref().unwrap_or_default();
                return tracing::warn!(error = said(&error), reason, "an event couldn't be written");
            }
            Err(_) => tokio::time::sleep(jittered(backoff(attempt))).await,
        }
    }
}

fn event(
    resource: &impl Resource<DynamicType = ()>,
    transition: &Transition,
    instance: &str,
    now: Timestamp,
) -> Event {
    let name = resource.name_any();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: resource.namespace(),
            ..ObjectMeta::default()
        },
        type_: Some(if transition.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(transition.reason.clone()),
        action: Some(transition.condition.clone()),
        note: Some(transition.note.chars().take(LONGEST_NOTE).collect()),
        regarding: Some(ObjectReference {
            api_version: Some(Luminate::api_version(&()).into_owned()),
            kind: Some(Luminate::kind(&()).into_owned()),
            name: Some(name),
            namespace: resource.namespace(),
            uid: resource.uid(),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some("luminate.dev/operator".to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{resource, rocksdb};

    #[test]
    fn an_event_says_what_happened_to_whom() {
        let transition = Transition {
            warning: true,
            reason: "ForeignObject".into(),
            condition: "Degraded".into(),
            note: "x".repeat(2_000),
        };
        let event = event(&resource("prod", rocksdb()), &transition, "pod-1", Timestamp::UNIX_EPOCH);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.note.map(|note| note.len()), Some(LONGEST_NOTE));
        assert_eq!(event.regarding.and_then(|object| object.name).as_deref(), Some("prod"));
        assert_eq!(event.metadata.name.as_deref(), Some("prod.0"));
    }
}
