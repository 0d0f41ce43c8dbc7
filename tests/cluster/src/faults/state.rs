//! What a namespace has come to, without what differs from run to run: identities, versions, times, places.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::mirror::{Place, World, is_operators};

/// A namespace's objects that matter: the resource, and what the operator made or found.
pub type State = BTreeMap<Place, Value>;

/// The state of a namespace.
#[must_use]
pub fn of(world: &World, namespace: &str) -> State {
    let identities = identities(world);
    let objects = world.objects.iter().filter(|((plural, name), object)| {
        is_operators(object) || plural == "luminates" || name.starts_with("foreign") || is_foreign(object)
    });
    objects
        .map(|(place, object)| {
            let mut text = plain(&place.0, object).to_string().replace(namespace, "NAMESPACE");
            for uid in &identities {
                text = text.replace(uid, "OWNER");
            }
            (place.clone(), serde_json::from_str(&text).expect("it was JSON"))
        })
        .collect()
}

/// The label of an object that a story puts in the operator's way.
pub const FOREIGN: &str = "luminate.dev/test-foreign";

fn is_foreign(object: &Value) -> bool {
    object["metadata"]["labels"].get(FOREIGN).is_some()
}

/// A foreign object that the operator has laid hands on.
#[must_use]
pub fn taken(state: &State) -> Option<String> {
    let foreign = state.iter().filter(|(_, object)| is_foreign(object));
    let taken = |object: &Value| {
        let fields = object["metadata"]["fields"].as_object();
        is_operators(object) || fields.is_some_and(|fields| !fields.is_empty())
    };
    let mut found = foreign.filter(|(_, object)| taken(object));
    found.next().map(|((plural, name), _)| format!("{plural}/{name} was taken from its owner"))
}

fn identities(world: &World) -> Vec<&str> {
    let resources = world.objects.iter().filter(|((plural, _), _)| plural == "luminates");
    resources.filter_map(|(_, object)| object["metadata"]["uid"].as_str()).collect()
}

fn plain(plural: &str, object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = metadata(&object["metadata"]);
    let fields = object.as_object_mut().expect("an object");
    fields.insert("metadata".to_owned(), metadata);
    if plural == "secrets" {
        // That they stay as they are is watched by the mirror.
        fields.remove("data");
    }
    match fields.get_mut("status") {
        Some(status) if plural == "luminates" => conditions(status),
        _ => drop(fields.remove("status")),
    }
    if let Some(spec) = fields.get_mut("spec") {
        strip(plural, spec);
        spec.get_mut("template").map(salted);
    }
    object
}

fn metadata(metadata: &Value) -> Value {
    let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    // It covers the owner's identity.
    if annotations.contains_key("luminate.dev/applied") {
        annotations.insert("luminate.dev/applied".to_owned(), json!("some"));
    }
    annotations.retain(|name, _| !name.starts_with("volume.") && !name.starts_with("pv."));
    json!({
        "labels": metadata["labels"],
        "annotations": annotations,
        "ownerReferences": metadata["ownerReferences"],
        "finalizers": metadata["finalizers"],
        "going": metadata["deletionTimestamp"].is_string(),
        "fields": fields(&metadata["managedFields"]),
    })
}

/// Which fields the operator has, under which of its names.
fn fields(entries: &Value) -> BTreeMap<String, Value> {
    let entries = entries.as_array().into_iter().flatten();
    let own =
        entries.filter(|entry| entry["manager"].as_str().is_some_and(|name| name.starts_with("luminate")));
    own.map(|entry| {
        let part = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let key = format!("{} {} {}", part("manager"), part("operation"), part("subresource"));
        (key, entry["fieldsV1"].clone())
    })
    .collect()
}

/// What is salted with the resource's identity: that it has changed is seen by the revision.
fn salted(template: &mut Value) {
    if let Some(digest) = template.pointer_mut("/metadata/annotations/luminate.dev~1secrets") {
        *digest = json!("some");
    }
}

fn conditions(status: &mut Value) {
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().map(|fields| fields.remove("lastTransitionTime"));
    }
}

/// What the cluster chooses.
fn strip(plural: &str, spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    match plural {
        "services" => {
            for name in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
                let headless = fields.get(name).is_some_and(|value| value == "None");
                fields.retain(|own, _| own != name || headless);
            }
            for port in fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
        "persistentvolumeclaims" => {
            fields.remove("volumeName");
        }
        _ => {}
    }
}

/// The first difference between two states, for people.
#[must_use]
pub fn difference(expected: &State, found: &State) -> Option<String> {
    if let Some((plural, name)) = expected.keys().find(|place| !found.contains_key(*place)) {
        return Some(format!("{plural}/{name} is missing"));
    }
    if let Some((plural, name)) = found.keys().find(|place| !expected.contains_key(*place)) {
        return Some(format!("{plural}/{name} should not be there"));
    }
    found.iter().find_map(|(place, object)| {
        let path = format!("{}/{}", place.0, place.1);
        first_difference(&path, &expected[place], object)
    })
}

fn first_difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    if expected == found {
        return None;
    }
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => in_maps(path, one, other),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (one, other))| first_difference(&format!("{path}[{at}]"), one, other))
        }
        _ => Some(format!("{path} is {found} instead of {expected}")),
    }
}

fn in_maps(path: &str, one: &Map<String, Value>, other: &Map<String, Value>) -> Option<String> {
    let names = one.keys().chain(other.keys());
    names.into_iter().find_map(|name| {
        let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
        first_difference(&format!("{path}.{name}"), &of(one), &of(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(uid: &str, image: &str) -> World {
        let resource = json!({
            "metadata": { "uid": uid, "resourceVersion": uid },
            "status": { "conditions": [{ "type": "Ready", "lastTransitionTime": uid }] },
        });
        let deployment = json!({
            "metadata": {
                "uid": format!("d{uid}"),
                "labels": { "app.kubernetes.io/managed-by": "luminate-operator" },
                "ownerReferences": [{ "uid": uid }],
                "managedFields": [{ "manager": "luminate-operator", "operation": "Apply", "time": uid }],
            },
            "spec": { "image": image },
            "status": { "observedGeneration": uid },
        });
        let mut world = World::default();
        world.objects.insert(("luminates".into(), "prod".into()), resource);
        world.objects.insert(("deployments".into(), "prod".into()), deployment);
        world
    }

    #[test]
    fn runs_that_came_to_the_same_are_equal() {
        let state = |uid: &str, image: &str| of(&world(uid, image), "luminate-test-1");
        assert_eq!(difference(&state("one", "x"), &state("two", "x")), None);
        let said = difference(&state("one", "x"), &state("two", "y")).unwrap();
        assert_eq!(said, r#"deployments/prod.spec.image is "y" instead of "x""#);
        let mut less = state("one", "x");
        less.pop_first();
        assert_eq!(difference(&state("one", "x"), &less).unwrap(), "deployments/prod is missing");
    }
}
