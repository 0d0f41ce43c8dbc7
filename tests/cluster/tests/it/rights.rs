//! What the operator may do is what it does: every right is used, and none is missing.

use std::collections::BTreeSet;

use luminate_cluster::operator::{CLUSTER_ROLES, NAMESPACED_ROLES};
use luminate_cluster::{Namespace, Request};
use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, Scene, text, wait};

/// `verb group/resource` of every rule of a role.
fn granted(namespace: &Namespace<'_>, role: &str) -> BTreeSet<String> {
    let role = namespace.get("roles", role).expect("installed");
    let texts = |list: &Value| -> Vec<String> { list.as_array().into_iter().flatten().map(text).collect() };
    let rules = role["rules"].as_array().expect("rules");
    let of_rule = |rule: &Value| -> Vec<String> {
        let (groups, resources, verbs) =
            (texts(&rule["apiGroups"]), texts(&rule["resources"]), texts(&rule["verbs"]));
        assert_eq!(groups.len(), 1, "{rule}");
        let of = |resource: &String| {
            verbs.iter().map(|verb| format!("{verb} {}/{resource}", groups[0])).collect::<Vec<_>>()
        };
        resources.iter().flat_map(of).collect()
    };
    rules.iter().flat_map(of_rule).collect()
}

/// The same of requests that were allowed. An apply that made something needed the right to create it too.
fn used(requests: &[Request]) -> BTreeSet<String> {
    let answered = requests.iter().filter(|request| !request.forbidden && !request.resource.is_empty());
    let rights = answered.flat_map(|request| {
        let slash = if request.subresource.is_empty() { "" } else { "/" };
        let what = format!("{}/{}{slash}{}", request.group, request.resource, request.subresource);
        let made = (request.verb == "patch" && request.code == 201).then(|| format!("create {what}"));
        [Some(format!("{} {what}", request.verb)), made]
    });
    rights.flatten().collect()
}

/// Everything that can become of an installation, for both backends.
fn live_through_everything(scene: &Scene) {
    let label = json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": "other" } } });
    let tamper = |kind: &str, name: &str| {
        scene.change(kind, name, &label);
        scene.until("it is healed", kind, name, |object| {
            object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "luminate"
        });
    };
    scene.make(CLICKHOUSE);
    scene.respec("prod", &json!({ "ingress": { "enabled": true, "host": "metrics.example" } }));
    scene.settled("prod");
    for kind in [
        "serviceaccount",
        "service",
        "networkpolicy",
        "pdb",
        "deployment",
        "hpa",
        "ingress",
        "servicemonitor",
    ] {
        tamper(kind, "prod");
    }
    tamper("configmap", "prod-clickhouse");
    scene.respec(
        "prod",
        &json!({
            "ingress": { "enabled": false }, "networkPolicy": { "enabled": false }, "monitoring": { "enabled": false },
            "clickhouse": { "autoscaling": { "enabled": false } },
        }),
    );
    scene.settled("prod");
    let size = |size: &str| json!({ "storage": size, "storageClassName": "expandable" });
    let switch = |spec: &Value, gone: &str| {
        scene.respec("prod", spec);
        let generation = scene.the("luminate", "prod")["metadata"]["generation"].to_string();
        let leave = json!({ "luminate.dev/allow-backend-switch": generation });
        scene.change("luminate", "prod", &json!({ "metadata": { "annotations": leave } }));
        scene.settled("prod");
        scene.until_gone(gone, "prod");
    };
    switch(&json!({ "backend": "RocksDB", "clickhouse": null, "rocksdb": size("1Gi") }), "deployment");
    tamper("statefulset", "prod");
    scene.respec("prod", &json!({ "rocksdb": size("2Gi") }));
    scene
        .until("it has grown", "pvc", "data-prod-0", |claim| claim["status"]["capacity"]["storage"] == "2Gi");
    scene.settled("prod");
    let clickhouse = json!({ "endpoints": ["http://clickhouse:8123"], "autoscaling": { "enabled": false } });
    switch(&json!({ "backend": "ClickHouse", "rocksdb": null, "clickhouse": clickhouse }), "statefulset");
}

#[test]
fn every_right_is_used_and_none_is_missing() {
    let (scene, installation) = Scene::apart();
    let mut audit = scene.cluster().audit();
    let operator = installation.operator().argument("--resync").argument("5").start();
    live_through_everything(&scene);
    // Of the Lease: read, made, renewed.
    let user = installation.user();
    let mut requests = Vec::new();
    wait("the Lease is renewed", || {
        requests.extend(audit.requests_of(&user));
        requests.iter().any(|request| request.resource == "leases" && request.verb == "update").then_some(())
    });
    operator.stop();
    requests.extend(audit.requests_of(&user));
    let forbidden: Vec<&Request> = requests.iter().filter(|request| request.forbidden).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");

    let mut granted_here = granted(&scene, "luminate-operator");
    granted_here.extend(granted(installation.home(), "luminate-operator-lease"));
    let used = used(&requests);
    let unused: Vec<&String> = granted_here.difference(&used).collect();
    let missing: Vec<&String> = used.difference(&granted_here).collect();
    assert!(
        unused.is_empty() && missing.is_empty(),
        "granted, never used: {unused:#?}\nused, not granted: {missing:#?}"
    );
}

#[test]
fn a_whole_cluster_needs_the_same_rights_as_a_namespace() {
    let rules = |file: &'static str| file.split_once("rules:\n").expect("rules").1;
    assert_eq!(rules(CLUSTER_ROLES), rules(NAMESPACED_ROLES));
}
