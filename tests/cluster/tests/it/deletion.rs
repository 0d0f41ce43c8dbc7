//! The end of an installation.

use std::thread;
use std::time::Duration;

use crate::scene::{CLICKHOUSE, ROCKSDB, Scene, text, wait};

#[test]
fn everything_goes_with_its_resource() {
    let mut scene = Scene::new();
    scene.make(CLICKHOUSE);
    let uid = text(&scene.settled("prod")["metadata"]["uid"]);
    scene.secret("persons-own", &serde_json::json!({ "a": "b" }));
    scene.delete("luminate", "prod");
    scene.until_gone("luminate", "prod");
    wait("everything that it owned is gone", || scene.owned(&uid).is_empty().then_some(()));
    wait("no pod is left", || scene.list("pods", "").is_empty().then_some(()));
    scene.the("secret", "persons-own");
    // Nothing is made again of what was seen going.
    scene.requests();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.writes(), [""; 0]);
    assert!(scene.owned(&uid).is_empty());
}

#[test]
fn whoever_deletes_a_resource_and_keeps_its_objects_can_make_it_again() {
    for (manifest, kind) in [(CLICKHOUSE, "deployment"), (ROCKSDB, "statefulset")] {
        let scene = Scene::new();
        scene.make(manifest);
        scene.settled("prod");
        let (pods, keys) = (scene.pods(), scene.the("secret", "prod-jwt")["data"].clone());
        scene.kubectl(&["delete", "luminate", "prod", "--cascade=orphan"]);
        scene.make(manifest);
        let uid = text(&scene.settled("prod")["metadata"]["uid"]);
        scene.until("it has the new owner", kind, "prod", |object| crate::scene::is_owned(object, &uid));
        assert_eq!(scene.pods(), pods, "no pod was replaced");
        assert_eq!(scene.the("secret", "prod-jwt")["data"], keys);
    }
}

#[test]
fn a_resource_made_anew_at_once_serves() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    let before = text(&scene.settled("prod")["metadata"]["uid"]);
    scene.delete("luminate", "prod");
    scene.until_gone("luminate", "prod");
    scene.make(ROCKSDB);
    let after = text(&scene.settled("prod")["metadata"]["uid"]);
    wait("nothing of its predecessor is left", || scene.owned(&before).is_empty().then_some(()));
    scene.settled("prod");
    assert!(scene.owned(&after).contains(&"statefulset/prod".into()), "{:?}", scene.owned(&after));
}

#[test]
fn a_namespace_that_ends_isnt_fought_over() {
    let mut scene = Scene::new();
    scene.make(ROCKSDB);
    scene.settled("prod");
    scene.requests();
    let name = scene.name().to_owned();
    scene.cluster().kubectl(&["delete", "namespace", &name, "--timeout=110s"]);
    let refused = scene.requests().iter().filter(|request| request.code == 403).count();
    assert!(refused < 40, "{refused} attempts to make something where nothing can be made");
}
