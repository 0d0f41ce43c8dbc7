//! Each rule of the definition, accepted and refused by the real API server.

use luminate_cluster::Refusal;
use serde_json::{Value, json};

use crate::scene::Scene;

/// A resource of this name and spec, which is YAML in flow style.
fn resource(name: &str, spec: &str) -> String {
    format!("{{apiVersion: luminate.dev/v1alpha1, kind: Luminate, metadata: {{name: {name}}}, spec: {spec}}}")
}

fn rocksdb(fields: &str) -> String {
    resource("prod", &format!("{{backend: RocksDB, {fields}}}"))
}

/// With these fields of the section `clickhouse`.
fn clickhouse(fields: &str) -> String {
    resource("prod", &format!("{{backend: ClickHouse, clickhouse: {{{fields}}}}}"))
}

fn at_clickhouse(fields: &str) -> String {
    clickhouse(&format!("endpoints: ['http://clickhouse:8123'], {fields}"))
}

#[track_caller]
fn accepts(scene: &Scene, manifest: &str) {
    scene.try_create("luminate", manifest).unwrap_or_else(|refusal| panic!("{refusal}\n{manifest}"));
}

#[track_caller]
fn refuses(scene: &Scene, manifest: &str, because: &str) {
    refused(scene.try_create("luminate", manifest), because);
}

#[track_caller]
fn refused(outcome: Result<Value, Refusal>, because: &str) {
    let refusal = outcome.expect_err("a refusal");
    assert!(refusal.code == 422 && refusal.message.contains(because), "{refusal}\nisn't about: {because}");
}

#[test]
fn the_section_of_the_backend_and_no_other_is_set() {
    let scene = Scene::new();
    accepts(&scene, &rocksdb(""));
    accepts(&scene, &rocksdb("rocksdb: {storage: 1Gi}"));
    accepts(&scene, &at_clickhouse(""));
    refuses(&scene, &resource("prod", "{backend: ClickHouse}"), "needs the section clickhouse");
    refuses(
        &scene,
        &rocksdb("clickhouse: {endpoints: ['http://c:8123']}"),
        "clickhouse must be left out for backend RocksDB",
    );
    let both = "{backend: ClickHouse, clickhouse: {endpoints: ['http://c:8123']}, rocksdb: {}}";
    refuses(&scene, &resource("prod", both), "rocksdb must be left out for backend ClickHouse");
    refuses(&scene, &resource("prod", "{backend: Memory}"), "spec.backend");
    refuses(&scene, &resource("prod", "{}"), "spec.backend: Required");
}

#[test]
fn a_name_serves_for_a_service() {
    let scene = Scene::new();
    for good in ["a", "prod-2", &"a".repeat(40)] {
        accepts(&scene, &resource(good, "{backend: RocksDB}"));
    }
    for bad in ["2prod", "a.b", &"a".repeat(41)] {
        refuses(&scene, &resource(bad, "{backend: RocksDB}"), "metadata.name must be at most 40 characters");
    }
}

#[test]
fn values_lie_within_their_bounds() {
    let scene = Scene::new();
    accepts(&scene, &rocksdb("replicas: 0"));
    refuses(&scene, &rocksdb("replicas: 2"), "replicas must be 0 (maintenance) or 1");
    refuses(&scene, &rocksdb("replicas: -1"), "spec.replicas");
    accepts(&scene, &at_clickhouse("autoscaling: {minReplicas: 4, maxReplicas: 4}"));
    let bounds = "autoscaling.minReplicas must not be larger";
    refuses(&scene, &at_clickhouse("autoscaling: {minReplicas: 5, maxReplicas: 4}"), bounds);
    refuses(&scene, &at_clickhouse("autoscaling: {minReplicas: 11}"), bounds);
    refuses(&scene, &at_clickhouse("autoscaling: {minReplicas: 0}"), "minReplicas");
    refuses(&scene, &at_clickhouse("autoscaling: {maxReplicas: 1001}"), "maxReplicas");
    refuses(&scene, &at_clickhouse("autoscaling: {targetCPUUtilizationPercentage: 0}"), "targetCPU");
    refuses(&scene, &at_clickhouse("database: 'a-b'"), "database");
    refuses(&scene, &at_clickhouse("poolSize: 0"), "poolSize");
    refuses(&scene, &rocksdb("service: {port: 0}"), "spec.service.port");
    refuses(&scene, &rocksdb("service: {port: 65536}"), "spec.service.port");
    refuses(&scene, &rocksdb("service: {type: ExternalName}"), "spec.service.type");
    refuses(&scene, &rocksdb("limits: {queryRps: 0}"), "spec.limits.queryRps");
    refuses(&scene, &rocksdb("monitoring: {interval: soon}"), "spec.monitoring.interval");
    refuses(&scene, &rocksdb("image: {digest: 'sha256:abc'}"), "spec.image.digest");
}

#[test]
fn sizes_and_amounts_are_such() {
    let scene = Scene::new();
    accepts(&scene, &rocksdb("rocksdb: {storage: 1.5Ti}"));
    refuses(&scene, &rocksdb("rocksdb: {storage: '0'}"), "storage must be a size above zero");
    refuses(&scene, &rocksdb("rocksdb: {storage: much}"), "spec.rocksdb.storage");
    accepts(&scene, &rocksdb("resources: {requests: {cpu: 2, memory: 512Mi}, limits: {memory: 1Gi}}"));
    refuses(&scene, &rocksdb("resources: {requests: {memory: lots}}"), "spec.resources.requests.memory");
    accepts(&scene, &rocksdb("retention: {default: 90d}"));
    refuses(&scene, &rocksdb("retention: {default: ever}"), "spec.retention.default");
    refuses(&scene, &rocksdb("limits: {query: {maxMemory: plenty}}"), "spec.limits.query.maxMemory");
}

#[test]
fn addresses_are_such() {
    let scene = Scene::new();
    let at = |address: &str| clickhouse(&format!("endpoints: ['{address}']"));
    for good in ["http://clickhouse:8123", "https://[::1]:8443", "https://clickhouse.example/"] {
        accepts(&scene, &at(good));
    }
    for bad in [
        "clickhouse:8123",
        "ftp://clickhouse",
        "http://user:password@clickhouse",
        "http://c:port",
        "http://c/?a",
    ] {
        refuses(&scene, &at(bad), "endpoints");
    }
    refuses(&scene, &clickhouse("endpoints: []"), "spec.clickhouse.endpoints");
    accepts(&scene, &rocksdb("auth: {jwksUrl: 'https://id.example/keys'}"));
    refuses(&scene, &rocksdb("auth: {jwksUrl: 'http://id.example/keys'}"), "jwksUrl");
    refuses(&scene, &rocksdb("auth: {jwksUrl: 'https://id.example:port/keys'}"), "jwksUrl must be");
}

#[test]
fn what_excludes_or_needs_another_is_known() {
    let scene = Scene::new();
    let tolerating = |fields: &str| rocksdb(&format!("scheduling: {{tolerations: [{{{fields}}}]}}"));
    accepts(&scene, &tolerating("key: a, value: b"));
    accepts(&scene, &tolerating("operator: Exists"));
    accepts(&scene, &tolerating("key: a, effect: NoExecute, tolerationSeconds: 5"));
    refuses(&scene, &tolerating("value: b"), "operator must be Exists where key is left out");
    refuses(&scene, &tolerating("key: a, operator: Exists, value: b"), "value must be left out");
    refuses(&scene, &tolerating("key: a, tolerationSeconds: 5"), "effect must be NoExecute");
    accepts(&scene, &at_clickhouse("tls: {caSecretRef: {name: a}}"));
    accepts(&scene, &at_clickhouse("tls: {caConfigMapRef: {name: a}}"));
    refuses(
        &scene,
        &at_clickhouse("tls: {caSecretRef: {name: a}, caConfigMapRef: {name: a}}"),
        "at most one of caSecretRef",
    );
    accepts(&scene, &rocksdb("auth: {jwtSecretRef: {name: a}}"));
    refuses(
        &scene,
        &rocksdb("auth: {jwtSecretRef: {name: a}, jwksSecretRef: {name: b}}"),
        "at most one of jwtSecretRef",
    );
    accepts(&scene, &rocksdb("ingress: {enabled: true, host: metrics.example}"));
    refuses(&scene, &rocksdb("ingress: {enabled: true}"), "ingress.host is needed");
    // No reference leaves its namespace: what isn't in the schema isn't stored.
    let stored = scene.try_create("luminate", &rocksdb("auth: {jwtSecretRef: {name: a, namespace: other}}"));
    assert_eq!(stored.expect("accepted")["spec"]["auth"]["jwtSecretRef"], json!({ "name": "a" }));
}

#[test]
fn what_exists_may_not_change_as_it_likes() {
    let scene = Scene::new();
    let size = |storage: &str| json!({ "spec": { "rocksdb": { "storage": storage } } });
    let class = |class: &str| json!({ "spec": { "rocksdb": { "storageClassName": class } } });
    scene.make(&resource("plain", "{backend: RocksDB, paused: true}"));
    scene.make(&resource(
        "sized",
        "{backend: RocksDB, paused: true, rocksdb: {storage: 200Gi, storageClassName: fast}}",
    ));
    let change = |name: &str, patch: &Value| scene.try_patch("luminate", name, patch);
    for (name, patch) in [
        ("plain", size("100Gi")),
        ("plain", size("0.1Ti")),
        ("sized", size("201Gi")),
        ("sized", class("fast")),
    ] {
        change(name, &patch).unwrap_or_else(|refusal| panic!("{name} {patch}: {refusal}"));
    }
    refused(change("plain", &size("99Gi")), "rocksdb.storage can't shrink");
    refused(change("sized", &size("199Gi")), "rocksdb.storage can't shrink");
    refused(change("sized", &json!({ "spec": { "rocksdb": { "storage": null } } })), "can't shrink");
    refused(change("sized", &class("slow")), "rocksdb.storageClassName can't be changed");
    refused(change("plain", &class("slow")), "rocksdb.storageClassName can't be changed");
    // Another backend is another matter: the operator asks for leave.
    let clickhouse = json!({ "endpoints": ["http://clickhouse:8123"] });
    let other = json!({ "spec": { "backend": "ClickHouse", "rocksdb": null, "clickhouse": clickhouse } });
    change("sized", &other).expect("accepted");
}

#[test]
fn every_default_is_stored() {
    let scene = Scene::new();
    let stored = scene.try_create("luminate", &at_clickhouse("")).expect("accepted");
    let spec = &stored["spec"];
    for (path, value) in [
        ("/replicas", json!(1)),
        ("/clickhouse/database", json!("luminate")),
        ("/clickhouse/autoscaling/minReplicas", json!(3)),
        ("/clickhouse/autoscaling/maxReplicas", json!(10)),
        ("/auth/enabled", json!(true)),
        ("/retention/default", json!("30d")),
        ("/service/port", json!(8080)),
        ("/resources/requests/cpu", json!("500m")),
        ("/networkPolicy/enabled", json!(true)),
        ("/paused", json!(false)),
    ] {
        assert_eq!(spec.pointer(path), Some(&value), "{path}");
    }
}
