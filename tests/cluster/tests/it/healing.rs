//! What others do to an installation's objects, and what becomes of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, ROCKSDB, Scene, condition, is_owned, text, wait};

/// Every object of the resource `prod` as it should stay: without what changes by itself.
fn lasting(scene: &Scene) -> BTreeMap<String, Value> {
    let uid = text(&scene.the("luminate", "prod")["metadata"]["uid"]);
    let places = scene.owned(&uid).into_iter();
    places
        .map(|place| {
            let (kind, name) = place.split_once('/').expect("a kind");
            let mut object = scene.the(kind, name);
            object["status"].take();
            let metadata = object["metadata"].as_object_mut().expect("metadata");
            for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
                metadata.remove(field);
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|name, _| name.starts_with("luminate.dev/"));
            }
            // Made anew, a Service gets other addresses and a Secret another value.
            if let Some(spec) = object["spec"].as_object_mut() {
                spec.retain(|field, _| !field.starts_with("clusterIP"));
            }
            if let Some(data) = object["data"].as_object_mut() {
                data.retain(|key, _| key != "jwt-secret");
            }
            (place.clone(), object)
        })
        .collect()
}

#[test]
fn a_deleted_child_comes_back_as_it_was() {
    for manifest in [CLICKHOUSE, ROCKSDB] {
        let scene = Scene::new();
        scene.make(manifest);
        scene.settled("prod");
        let before = lasting(&scene);
        let uid_of =
            |kind: &str, name: &str| scene.get(kind, name).map(|object| text(&object["metadata"]["uid"]));
        for place in before.keys() {
            let (kind, name) = place.split_once('/').expect("a kind");
            let gone = uid_of(kind, name);
            scene.delete(kind, name);
            wait(&format!("{place} is back"), || uid_of(kind, name).filter(|uid| Some(uid) != gone.as_ref()));
        }
        scene.settled("prod");
        assert_eq!(lasting(&scene), before);
    }
}

#[test]
fn what_was_tampered_with_is_healed() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    scene.settled("prod");
    let before = lasting(&scene);
    let tampered = |place: &str, what: &str| {
        wait(&format!("{place} is healed of {what}"), || (lasting(&scene) == before).then_some(()));
    };
    let patches = [
        ("configmap", "prod-clickhouse", json!({ "data": { "config.yaml": "auth: {enabled: false}" } })),
        ("service", "prod", json!({ "spec": { "selector": { "luminate.dev/backend": "other" } } })),
        ("service", "prod", json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "other" } } })),
        ("serviceaccount", "prod", json!({ "automountServiceAccountToken": true })),
        ("hpa", "prod", json!({ "spec": { "maxReplicas": 50 } })),
        ("pdb", "prod", json!({ "spec": { "maxUnavailable": 3 } })),
        ("networkpolicy", "prod", json!({ "spec": { "ingress": [{}] } })),
        ("servicemonitor", "prod", json!({ "spec": { "endpoints": [] } })),
        ("deployment", "prod", json!({ "spec": { "strategy": { "rollingUpdate": { "maxSurge": 3 } } } })),
        ("deployment", "prod", json!({ "metadata": { "annotations": { "luminate.dev/applied": "other" } } })),
        ("deployment", "prod", json!({ "metadata": { "ownerReferences": [] } })),
        ("pdb", "prod", json!({ "metadata": { "ownerReferences": null } })),
    ];
    for (kind, name, patch) in patches {
        scene.change(kind, name, &patch);
        tampered(&format!("{kind} {name}"), &patch.to_string());
    }
    // Without the label by which the operator watches it, the object leaves its sight: that is seen too.
    let unlabelled = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } });
    scene.change("service", "prod", &unlabelled);
    tampered("service prod", "the label's loss");
}

/// Lists are applied by other fields than the one that must be unique: what is applied would stand beside what
/// somebody made of it, and the API server refuses that.
#[test]
fn a_port_of_the_same_name_is_healed() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    scene.settled("prod");
    let before = lasting(&scene);
    scene.change("service", "prod", &json!({ "spec": { "ports": [{ "name": "http", "port": 1 }] } }));
    let port = json!({ "name": "http", "containerPort": 1 });
    let container = json!({ "name": "worker", "image": "theirs", "ports": [port] });
    scene.change(
        "deployment",
        "prod",
        &json!({ "spec": { "template": { "spec": { "containers": [container] } } } }),
    );
    wait("all is as it was", || (lasting(&scene) == before).then_some(()));
    // What the patch's manager has got is given up by a write of its own, after which nothing else changes.
    let only_ours = |kind: &str| {
        let live = scene.the(kind, "prod");
        let managers = live["metadata"]["managedFields"].as_array().expect("managers").iter();
        let ours: Vec<String> = managers
            .map(|entry| format!("{} {}", text(&entry["manager"]), text(&entry["operation"])))
            .filter(|entry| entry.starts_with("luminate-operator") && !entry.contains("replicas"))
            .collect();
        ours == ["luminate-operator Apply"]
    };
    for kind in ["service", "deployment"] {
        wait(&format!("the {kind} is the operator's alone"), || only_ours(kind).then_some(()));
    }
    scene.settled("prod");
}

#[test]
fn what_others_add_is_left_to_them() {
    let mut scene = Scene::new();
    scene.make(CLICKHOUSE);
    scene.settled("prod");
    scene.writes();
    let note = json!({ "metadata": { "labels": { "team": "metrics" }, "annotations": { "note": "ours" } } });
    for (kind, name) in [("service", "prod"), ("deployment", "prod"), ("configmap", "prod-clickhouse")] {
        scene.change(kind, name, &note);
    }
    // A change that is followed in any case comes after it.
    scene.respec("prod", &json!({ "clickhouse": { "autoscaling": { "maxReplicas": 5 } } }));
    scene.until("the autoscaler has the new bound", "hpa", "prod", |hpa| hpa["spec"]["maxReplicas"] == 5);
    scene.settled("prod");
    for (kind, name) in [("service", "prod"), ("deployment", "prod"), ("configmap", "prod-clickhouse")] {
        assert_eq!(scene.the(kind, name)["metadata"]["labels"]["team"], "metrics", "{kind}");
    }
    let writes = scene.writes();
    let others = writes
        .iter()
        .filter(|write| !write.contains("horizontalpodautoscalers") && !write.contains("/status"));
    assert_eq!(others.count(), 0, "{writes:?}");
}

/// An object that somebody has, of a name that the resource `prod` needs.
fn foreign(kind: &str) -> Value {
    match kind {
        "configmap" => {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "prod-rocksdb" }, "data": { "a": "b" } })
        }
        "service" => {
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "prod" }, "spec": { "ports": [{ "port": 1 }] } })
        }
        _ => json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "prod" },
            "spec": {
                "serviceName": "prod", "replicas": 0, "selector": { "matchLabels": { "app": "theirs" } },
                "template": {
                    "metadata": { "labels": { "app": "theirs" } },
                    "spec": { "containers": [{ "name": "a", "image": "a" }] },
                },
            },
        }),
    }
}

#[test]
fn a_foreign_object_is_reported_and_left_alone() {
    for (kind, name) in [("configmap", "prod-rocksdb"), ("service", "prod"), ("statefulset", "prod")] {
        let scene = Scene::new();
        scene.create(kind, &foreign(kind).to_string()).expect("created");
        let theirs = scene.the(kind, name);
        scene.make(ROCKSDB);
        let (status, message) = scene.told("prod", "Ready", "ForeignObject");
        assert_eq!(status, "False");
        assert!(message.to_lowercase().contains(&format!("{kind} {name}")), "{message}");
        assert!(message.contains("belongs to somebody else"), "{message}");
        assert_eq!(condition(&scene.the("luminate", "prod"), "Degraded").0, "True");
        assert_eq!(scene.the(kind, name)["spec"], theirs["spec"]);
        assert_eq!(scene.the(kind, name)["data"], theirs["data"]);
        assert_eq!(scene.the(kind, name)["metadata"]["uid"], theirs["metadata"]["uid"]);
        let events = scene.event("prod", "ForeignObject");
        let told = |events: &[(String, String)]| matches!(events, [(kind, note)] if kind == "Warning" && note.contains("Rename"));
        assert!(told(&events), "{events:?}");
        // With the cause it is gone.
        scene.delete(kind, name);
        let uid = text(&scene.settled("prod")["metadata"]["uid"]);
        assert!(is_owned(&scene.the(kind, name), &uid));
    }
}

#[test]
fn an_orphan_is_removed_and_what_only_looks_like_one_is_not() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    let uid = text(&scene.settled("prod")["metadata"]["uid"]);
    let made = |name: &str, labels: Value, owner: Option<&str>| {
        let owners: Vec<Value> = owner
            .iter()
            .map(|uid| json!({ "apiVersion": "luminate.dev/v1alpha1", "kind": "Luminate", "name": "prod", "uid": uid }))
            .collect();
        let metadata = json!({ "name": name, "labels": labels, "ownerReferences": owners });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        scene.create("configmap", &map.to_string()).expect("created");
    };
    let managed =
        json!({ "app.kubernetes.io/managed-by": "luminate-operator", "app.kubernetes.io/instance": "prod" });
    made("labelled-only", managed.clone(), None);
    made("owned-only", json!({}), Some(&uid));
    made("orphan", managed, Some(&uid));
    scene.until_gone("configmap", "orphan");
    scene.the("configmap", "labelled-only");
    scene.the("configmap", "owned-only");
}

#[test]
fn while_paused_nothing_but_the_status_is_written() {
    let mut scene = Scene::new();
    scene.make(ROCKSDB);
    scene.settled("prod");
    scene.respec("prod", &json!({ "paused": true }));
    scene.told("prod", "Progressing", "Paused");
    assert_eq!(condition(&scene.the("luminate", "prod"), "Ready").0, "True", "what runs goes on serving");
    scene.writes();
    scene.delete("service", "prod-headless");
    scene.change("service", "prod", &json!({ "spec": { "sessionAffinity": "ClientIP", "selector": { "luminate.dev/backend": "other" } } }));
    scene.respec("prod", &json!({ "retention": { "default": "90d" }, "image": { "tag": "next" } }));
    let (status, message) = scene.told("prod", "Ready", "Paused");
    assert!(status == "False" && message.contains("changes wait"), "{message}");
    let writes = scene.writes();
    assert!(
        !writes.is_empty() && writes.iter().all(|write| write == "patch luminates/status prod"),
        "{writes:?}"
    );
    assert!(scene.get("service", "prod-headless").is_none());

    scene.respec("prod", &json!({ "paused": false }));
    scene.settled("prod");
    scene.the("service", "prod-headless");
    assert_eq!(scene.the("service", "prod")["spec"]["selector"]["luminate.dev/backend"], "rocksdb");
    assert!(scene.the("statefulset", "prod").to_string().contains("luminate-worker:next"));
}

#[test]
fn maintenance_takes_the_worker_away_and_brings_it_back() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    scene.settled("prod");
    let claim = text(&scene.the("pvc", "data-prod-0")["metadata"]["uid"]);
    scene.respec("prod", &json!({ "replicas": 0 }));
    let (status, _) = scene.told("prod", "Ready", "ScaledToZero");
    assert_eq!(status, "False");
    wait("no pod is left", || scene.pods().is_empty().then_some(()));
    assert_eq!(scene.told("prod", "Degraded", "AsExpected").0, "False", "it was wanted");
    scene.kubectl(&["scale", "luminate", "prod", "--replicas=1"]);
    scene.settled("prod");
    assert_eq!(text(&scene.the("pvc", "data-prod-0")["metadata"]["uid"]), claim, "with the same volume");
}
