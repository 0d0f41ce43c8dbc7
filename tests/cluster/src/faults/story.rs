//! What people do to an installation while things fail: short, so that each of its writes can have a fault.

use serde_json::{Value, json};

/// The name of every story's resource.
pub const NAME: &str = "prod";

/// One thing that somebody does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Makes an object.
    Create(&'static str, Value),
    /// Changes one by a merge patch.
    Change(&'static str, &'static str, Value),
    /// Deletes one; where it is the operator's, it must come back.
    Delete(&'static str, &'static str),
    /// Gives leave to the switch of the backend that the resource asks for.
    AllowSwitch,
    /// Several, at once.
    All(Vec<Self>),
}

/// Things that somebody does, each when the one before has come to an end.
#[derive(Debug, Clone)]
pub struct Story {
    /// Its name.
    pub name: &'static str,
    /// The steps; after the last the operator must be silent.
    pub steps: Vec<Step>,
    /// The steps, from 0, after which the installation isn't ready, and mustn't be.
    pub unready: &'static [usize],
}

/// Every story. `clickhouse` is an address that answers.
#[must_use]
pub fn all(clickhouse: &str) -> Vec<Story> {
    vec![
        clickhouse_life(clickhouse),
        clickhouse_options(clickhouse),
        clickhouse_in_the_way(clickhouse),
        rocksdb_life(),
        rocksdb_volume(),
        switch(clickhouse),
    ]
}

fn resource(spec: Value) -> Step {
    Step::Create(
        "luminates",
        json!({
            "apiVersion": "luminate.dev/v1alpha1", "kind": "Luminate", "metadata": { "name": NAME }, "spec": spec,
        }),
    )
}

fn spec(patch: Value) -> Step {
    Step::Change("luminates", NAME, json!({ "spec": patch }))
}

fn secret(name: &str, data: Value) -> Step {
    let body =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
    Step::Create("secrets", body)
}

const END: Step = Step::Delete("luminates", NAME);

fn one_worker(clickhouse: &str) -> Value {
    json!({ "endpoints": [clickhouse], "autoscaling": { "minReplicas": 1, "maxReplicas": 3 } })
}

/// Created, configured, healed of a deletion and of tampering, deleted.
fn clickhouse_life(clickhouse: &str) -> Story {
    Story {
        name: "clickhouse-life",
        steps: vec![
            resource(json!({ "backend": "ClickHouse", "clickhouse": one_worker(clickhouse) })),
            spec(json!({ "limits": { "writeRps": 7 } })),
            Step::Delete("services", NAME),
            Step::Change(
                "deployments",
                NAME,
                json!({ "spec": { "template": { "spec": { "enableServiceLinks": true } } } }),
            ),
            END,
        ],
        unready: &[],
    }
}

/// Credentials that are changed, parts that come and go, and the number of workers in other hands.
fn clickhouse_options(clickhouse: &str) -> Story {
    let mut section = one_worker(clickhouse);
    section["credentialsSecretRef"] = json!({ "name": "login" });
    Story {
        name: "clickhouse-options",
        steps: vec![
            secret("login", json!({ "username": "u", "password": "one" })),
            resource(json!({
                "backend": "ClickHouse",
                "clickhouse": section,
                "ingress": { "enabled": true, "host": "metrics.example" },
            })),
            Step::Change("secrets", "login", json!({ "stringData": { "password": "two" } })),
            spec(json!({
                "replicas": 2,
                "ingress": { "enabled": false },
                "clickhouse": { "autoscaling": { "enabled": false } },
            })),
            spec(json!({ "clickhouse": { "autoscaling": { "enabled": true } } })),
            END,
        ],
        unready: &[0],
    }
}

/// Somebody else's object of the same name, which must stay as it is until its owner removes it.
fn clickhouse_in_the_way(clickhouse: &str) -> Story {
    let foreign = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": format!("{NAME}-clickhouse"), "labels": { super::state::FOREIGN: "yes" } },
        "data": { "theirs": "untouched" },
    });
    Story {
        name: "clickhouse-in-the-way",
        steps: vec![
            Step::Create("configmaps", foreign),
            resource(json!({ "backend": "ClickHouse", "clickhouse": one_worker(clickhouse) })),
            Step::All(vec![
                Step::Delete("configmaps", "prod-clickhouse"),
                // Without it, the operator looks again within 18 s.
                spec(json!({ "retention": { "default": "7d" } })),
            ]),
            END,
        ],
        unready: &[0, 1],
    }
}

/// The same with a volume.
fn rocksdb_life() -> Story {
    Story {
        name: "rocksdb-life",
        steps: vec![
            resource(json!({ "backend": "RocksDB", "rocksdb": { "storage": "1Gi" } })),
            spec(json!({ "retention": { "default": "7d" } })),
            Step::Delete("statefulsets", NAME),
            spec(json!({ "replicas": 0 })),
            END,
        ],
        unready: &[3],
    }
}

/// A volume that grows, and goes with its resource.
fn rocksdb_volume() -> Story {
    Story {
        name: "rocksdb-volume",
        steps: vec![
            resource(json!({
                "backend": "RocksDB",
                "rocksdb": { "storage": "1Gi", "storageClassName": "expandable", "reclaimPolicy": "Delete" },
            })),
            spec(json!({ "rocksdb": { "storage": "2Gi" } })),
            spec(json!({ "rocksdb": { "reclaimPolicy": "Retain" } })),
            END,
        ],
        unready: &[],
    }
}

/// From the embedded engine to ClickHouse: refused at first, then with leave.
fn switch(clickhouse: &str) -> Story {
    let change =
        json!({ "spec": { "backend": "ClickHouse", "rocksdb": null, "clickhouse": one_worker(clickhouse) } });
    Story {
        name: "switch",
        steps: vec![
            resource(json!({ "backend": "RocksDB", "rocksdb": { "storage": "1Gi" } })),
            Step::Change("luminates", NAME, change),
            Step::AllowSwitch,
            END,
        ],
        unready: &[1],
    }
}
