//! The volume of the embedded engine: it grows, stays and comes back.

use serde_json::{Value, json};

use crate::scene::{ROCKSDB, Scene, condition, text};

fn on_class(class: &str) -> String {
    ROCKSDB.replace(
        "spec: {backend: RocksDB}",
        &format!("spec: {{backend: RocksDB, rocksdb: {{storage: 1Gi, storageClassName: {class}}}}}"),
    )
}

fn storage(size: &str) -> Value {
    json!({ "rocksdb": { "storage": size } })
}

fn template(workload: &Value) -> &Value {
    &workload["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
}

#[test]
fn it_grows_under_a_worker_that_goes_on_serving() {
    let scene = Scene::new();
    scene.make(&on_class("expandable"));
    scene.settled("prod");
    let (pods, claim) = (scene.pods(), text(&scene.the("pvc", "data-prod-0")["metadata"]["uid"]));
    let watch = scene.watch("pods");
    scene.respec("prod", &storage("3Gi"));
    scene.until("the claim has grown", "pvc", "data-prod-0", |claim| {
        claim["status"]["capacity"]["storage"] == "3Gi"
    });
    scene.until("the template has followed", "statefulset", "prod", |workload| *template(workload) == "3Gi");
    let resource = scene.settled("prod");
    assert_eq!(condition(&resource, "Degraded").1, "AsExpected");
    assert_eq!(scene.pods(), pods, "the same pod serves");
    assert!(watch.changes().iter().all(|change| change["type"] != "DELETED"), "{:?}", watch.changes());
    assert_eq!(text(&scene.the("pvc", "data-prod-0")["metadata"]["uid"]), claim);
    assert!(
        scene.events("prod").iter().any(|(_, reason, _)| reason == "GrowingVolume"),
        "{:?}",
        scene.events("prod")
    );
    // And a rollout after it still works: the pod belongs to the StatefulSet that was made anew.
    scene.respec("prod", &json!({ "retention": { "default": "90d" } }));
    scene.settled("prod");
    assert_ne!(scene.pods(), pods);
}

#[test]
fn where_the_class_cant_grow_the_condition_says_so_and_the_rest_goes_on() {
    let mut scene = Scene::new();
    scene.make(&on_class("local-path"));
    scene.settled("prod");
    scene.respec("prod", &storage("2Gi"));
    let (status, message) = scene.told("prod", "Degraded", "VolumeCannotGrow");
    assert!(status == "True" && message.contains("2Gi"), "{message}");
    let resource = scene.the("luminate", "prod");
    assert_eq!(condition(&resource, "Ready").0, "True", "it serves with what it has");
    let told = scene.event("prod", "VolumeCannotGrow");
    assert!(
        matches!(told.as_slice(), [(kind, note)] if kind == "Warning" && note.contains("allowVolumeExpansion")),
        "{told:?}"
    );
    // Other changes are followed meanwhile, and nothing is tried in a loop.
    scene.respec("prod", &json!({ "retention": { "default": "90d" } }));
    scene.until("the file says so", "configmap", "prod-rocksdb", |map| map.to_string().contains("90d"));
    scene.told("prod", "Ready", "Available");
    scene.writes();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let tried = scene.writes().iter().filter(|write| write.contains("persistentvolumeclaims")).count();
    assert!(tried <= 1, "{tried} attempts in three seconds");
}

#[test]
fn a_volume_that_is_larger_than_was_asked_for_stays() {
    let scene = Scene::new();
    scene.make(&on_class("expandable"));
    scene.settled("prod");
    let grown = json!({ "spec": { "resources": { "requests": { "storage": "5Gi" } } } });
    scene.change("pvc", "data-prod-0", &grown);
    let (_, message) = scene.told("prod", "Degraded", "VolumeLarger");
    assert!(message.contains("5Gi"), "{message}");
    assert_eq!(condition(&scene.the("luminate", "prod"), "Ready").0, "True");
    scene.respec("prod", &storage("5Gi"));
    scene.settled("prod");
    scene.told("prod", "Degraded", "AsExpected");
}

#[test]
fn it_outlives_its_resource_and_is_taken_up_again() {
    let scene = Scene::new();
    scene.make(&on_class("expandable"));
    let uid = text(&scene.settled("prod")["metadata"]["uid"]);
    let claim = scene.the("pvc", "data-prod-0");
    scene.delete("luminate", "prod");
    everything_goes(&scene, &uid);
    let kept = scene.the("pvc", "data-prod-0");
    assert!(kept["metadata"]["deletionTimestamp"].is_null(), "{kept}");

    scene.make(&on_class("expandable"));
    scene.settled("prod");
    assert_eq!(scene.the("pvc", "data-prod-0")["spec"]["volumeName"], claim["spec"]["volumeName"]);
}

#[test]
fn it_goes_with_its_resource_where_that_was_asked_for() {
    let scene = Scene::new();
    scene.make(&on_class("expandable"));
    scene.settled("prod");
    let owned = |owned: bool| {
        scene.until("the claim's owner is as the policy says", "pvc", "data-prod-0", |claim| {
            claim["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty()) == owned
        });
    };
    for (policy, goes) in [("Delete", true), ("Retain", false), ("Delete", true)] {
        scene.respec("prod", &json!({ "rocksdb": { "reclaimPolicy": policy } }));
        owned(goes);
    }
    let uid = text(&scene.settled("prod")["metadata"]["uid"]);
    scene.delete("luminate", "prod");
    everything_goes(&scene, &uid);
    scene.until_gone("pvc", "data-prod-0");
}

#[track_caller]
fn everything_goes(scene: &Scene, uid: &str) {
    scene.until_gone("luminate", "prod");
    crate::scene::wait("everything that it owned is gone", || scene.owned(uid).is_empty().then_some(()));
    crate::scene::wait("no pod is left", || scene.list("pods", "").is_empty().then_some(()));
}
