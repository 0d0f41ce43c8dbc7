//! From one backend to the other: only with leave, and by steps.

use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, ROCKSDB, Scene, condition, text};

const LEAVE: &str = "luminate.dev/allow-backend-switch";

fn to_clickhouse() -> Value {
    let section = json!({ "endpoints": ["http://clickhouse:8123"], "autoscaling": { "minReplicas": 2, "maxReplicas": 4 } });
    json!({ "backend": "ClickHouse", "rocksdb": null, "clickhouse": section })
}

fn to_rocksdb() -> Value {
    json!({ "backend": "RocksDB", "clickhouse": null, "rocksdb": { "storage": "1Gi" } })
}

/// Asks for the switch, sees it refused, and gives leave. What it said of the next step.
fn refused_then_allowed(scene: &Scene, spec: &Value, old: (&str, &str)) {
    scene.settled("prod");
    let (kind, lower) = old;
    scene.respec("prod", spec);
    let (status, _) = scene.told("prod", "Ready", "BackendSwitchRefused");
    assert_eq!(status, "False");
    let resource = scene.the("luminate", "prod");
    let plan = text(&resource["status"]["plan"]);
    let generation = &resource["metadata"]["generation"];
    assert!(plan.contains(LEAVE) && plan.contains(&format!("\"{generation}\"")), "{plan}");
    let told = scene.event("prod", "BackendSwitchRefused");
    assert!(matches!(told.as_slice(), [(kind, _)] if kind == "Warning"), "{told:?}");
    // What ran goes on.
    assert_eq!(scene.the("service", "prod")["spec"]["selector"]["luminate.dev/backend"], lower);
    scene.the(kind, "prod");
    // Leave of another generation is none.
    let leave = |generation: &str| json!({ "metadata": { "annotations": { LEAVE: generation } } });
    scene.change("luminate", "prod", &leave("1"));
    scene.change("luminate", "prod", &leave(&generation.to_string()));
}

/// Which workloads there were when the Service had which selector, step by step.
fn traffic(services: &[Value]) -> Vec<String> {
    let mut selectors: Vec<String> =
        services.iter().map(|service| text(&service["spec"]["selector"]["luminate.dev/backend"])).collect();
    selectors.dedup();
    selectors
}

#[test]
fn from_the_embedded_engine_to_clickhouse() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    let (services, workloads) = (scene.watch("service"), scene.watch("statefulset"));
    refused_then_allowed(&scene, &to_clickhouse(), ("statefulset", "rocksdb"));
    let resource = scene.settled("prod");
    assert_eq!(resource["status"]["backend"], "ClickHouse");
    assert!(resource["status"]["plan"].is_null(), "{}", resource["status"]["plan"]);
    scene.until_gone("statefulset", "prod");
    scene.until_gone("service", "prod-headless");
    scene.until_gone("configmap", "prod-rocksdb");
    for (kind, name) in
        [("deployment", "prod"), ("hpa", "prod"), ("pdb", "prod"), ("configmap", "prod-clickhouse")]
    {
        scene.the(kind, name);
    }
    let seen: Vec<String> = traffic(&services.states("prod"));
    assert_eq!(seen.last().map(String::as_str), Some("clickhouse"), "{seen:?}");
    assert!(workloads.changes().iter().any(|change| change["type"] == "DELETED"));
    let claim = scene.the("pvc", "data-prod-0");
    assert!(claim["metadata"]["deletionTimestamp"].is_null(), "the volume stays");
}

#[test]
fn from_clickhouse_to_the_embedded_engine_and_back() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    refused_then_allowed(&scene, &to_rocksdb(), ("deployment", "clickhouse"));
    let resource = scene.settled("prod");
    assert_eq!(resource["status"]["backend"], "RocksDB");
    for (kind, name) in
        [("deployment", "prod"), ("hpa", "prod"), ("pdb", "prod"), ("configmap", "prod-clickhouse")]
    {
        scene.until_gone(kind, name);
    }
    let volume = scene.the("pvc", "data-prod-0")["spec"]["volumeName"].clone();
    refused_then_allowed(&scene, &to_clickhouse(), ("statefulset", "rocksdb"));
    scene.settled("prod");
    scene.until_gone("statefulset", "prod");
    refused_then_allowed(&scene, &to_rocksdb(), ("deployment", "clickhouse"));
    scene.settled("prod");
    assert_eq!(scene.the("pvc", "data-prod-0")["spec"]["volumeName"], volume, "the data is found again");
}

#[test]
fn traffic_waits_until_the_new_workers_are_ready() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    scene.settled("prod");
    // No node has this label: the new workers can't come up.
    let mut spec = to_clickhouse();
    spec["scheduling"] = json!({ "nodeSelector": { "nowhere": "yes" } });
    refused_then_allowed(&scene, &spec, ("statefulset", "rocksdb"));
    let (status, _) = scene.told("prod", "Ready", "SwitchingBackend");
    assert_eq!(status, "False");
    let resource = scene.the("luminate", "prod");
    assert!(text(&resource["status"]["plan"]).starts_with("1/3"), "{}", resource["status"]["plan"]);
    scene.the("deployment", "prod");
    assert_eq!(scene.the("service", "prod")["spec"]["selector"]["luminate.dev/backend"], "rocksdb");
    assert_eq!(scene.the("statefulset", "prod")["status"]["readyReplicas"], 1, "the old one serves");
    assert_eq!(resource["status"]["backend"], "RocksDB");
    // Going back is a change like any other, and the new workers go.
    scene.respec(
        "prod",
        &json!({ "backend": "RocksDB", "clickhouse": null, "scheduling": { "nodeSelector": null } }),
    );
    let generation = scene.the("luminate", "prod")["metadata"]["generation"].to_string();
    scene.change("luminate", "prod", &json!({ "metadata": { "annotations": { LEAVE: generation } } }));
    scene.settled("prod");
    scene.until_gone("deployment", "prod");
    assert_eq!(condition(&scene.the("luminate", "prod"), "Degraded").0, "False");
}
