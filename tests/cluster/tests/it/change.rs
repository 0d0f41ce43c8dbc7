//! A resource that changes: everything follows, and pods are replaced exactly when they must.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, ROCKSDB, Scene, text, wait};

/// A change of the spec, whether it replaces the pods, and a text that shows in an object afterwards.
struct Change {
    spec: Value,
    rolls: bool,
    shows: (&'static str, &'static str, &'static str),
}

fn rolls(spec: Value, kind: &'static str, name: &'static str, text: &'static str) -> Change {
    Change { spec, rolls: true, shows: (kind, name, text) }
}

fn keeps(spec: Value, kind: &'static str, name: &'static str, text: &'static str) -> Change {
    Change { spec, rolls: false, shows: (kind, name, text) }
}

/// Makes one change after the other. A wrong guess of either kind fails: pods that stay, pods that go.
fn follow(scene: &Scene, changes: Vec<Change>) {
    scene.settled("prod");
    for change in changes {
        let before = scene.pods();
        scene.respec("prod", &change.spec);
        scene.settled("prod");
        let (kind, name, shown) = change.shows;
        let object = scene.the(kind, name).to_string();
        assert!(object.contains(shown), "{}: {kind} {name} lacks {shown}", change.spec);
        let (before, after) = (BTreeSet::from_iter(before), BTreeSet::from_iter(scene.pods()));
        if change.rolls {
            assert!(before.is_disjoint(&after), "{}: pods of before are left", change.spec);
        } else {
            assert_eq!(before, after, "{}", change.spec);
        }
    }
}

#[test]
fn what_the_worker_reads_replaces_the_pods() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    let file = |spec, text| rolls(spec, "configmap", "prod-rocksdb", text);
    follow(
        &scene,
        vec![
            file(json!({ "retention": { "default": "90d" } }), "90d"),
            file(json!({ "rocksdb": { "ack": "Buffered" } }), "buffered"),
            file(json!({ "logging": { "level": "debug" } }), "debug"),
            file(json!({ "limits": { "queryRps": 7, "tiers": { "gold": { "queryRps": 200 } } } }), "gold"),
            file(
                json!({ "limits": { "query": { "maxTimeout": "60s" }, "ingest": { "maxBatch": 777 } } }),
                "777",
            ),
            file(json!({ "monitoring": { "enabled": false } }), "enabled: false"),
            file(json!({ "auth": { "issuer": ["https://id.example/"] } }), "https://id.example/"),
        ],
    );
}

#[test]
fn what_makes_a_pod_replaces_the_pods() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    let pod = |spec, text| rolls(spec, "statefulset", "prod", text);
    follow(
        &scene,
        vec![
            pod(json!({ "image": { "tag": "next" } }), "luminate-worker:next"),
            pod(
                json!({ "image": { "pullPolicy": "Always", "pullSecrets": [{ "name": "registry" }] } }),
                "registry",
            ),
            pod(
                json!({ "resources": { "requests": { "cpu": "250m" }, "limits": { "memory": "2Gi" } } }),
                "250m",
            ),
            pod(json!({ "scheduling": { "nodeSelector": { "type": "kwok" } } }), "\"type\":\"kwok\""),
            pod(
                json!({ "scheduling": { "tolerations": [{ "key": "dedicated", "operator": "Exists" }] } }),
                "dedicated",
            ),
            pod(
                json!({ "podTemplate": { "metadata": { "annotations": { "team": "metrics" } } } }),
                "\"team\":\"metrics\"",
            ),
            pod(json!({ "podTemplate": null }), "dedicated"),
        ],
    );
}

#[test]
fn what_is_around_the_pods_leaves_them_alone() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    let scaling = |fields: Value| json!({ "clickhouse": { "autoscaling": fields } });
    follow(
        &scene,
        vec![
            keeps(json!({ "service": { "port": 443, "type": "NodePort" } }), "service", "prod", "NodePort"),
            keeps(json!({ "service": { "annotations": { "a": "b" } } }), "service", "prod", "\"a\":\"b\""),
            keeps(
                json!({ "ingress": { "enabled": true, "host": "metrics.example" } }),
                "ingress",
                "prod",
                "metrics.example",
            ),
            keeps(json!({ "ingress": { "path": "/metrics" } }), "ingress", "prod", "/metrics"),
            keeps(
                json!({ "monitoring": { "interval": "15s", "labels": { "release": "p" } } }),
                "servicemonitor",
                "prod",
                "15s",
            ),
            keeps(
                json!({ "networkPolicy": { "from": [{ "namespaceLabels": { "team": "metrics" } }] } }),
                "networkpolicy",
                "prod",
                "\"team\":\"metrics\"",
            ),
            keeps(scaling(json!({ "maxReplicas": 7 })), "hpa", "prod", "\"maxReplicas\":7"),
            keeps(
                scaling(json!({ "targetCPUUtilizationPercentage": 55 })),
                "hpa",
                "prod",
                "\"averageUtilization\":55",
            ),
            rolls(json!({ "clickhouse": { "linger": "1s" } }), "configmap", "prod-clickhouse", "1s"),
            rolls(
                json!({ "clickhouse": { "endpoints": ["https://other:8443"], "database": "metrics" } }),
                "configmap",
                "prod-clickhouse",
                "https://other:8443",
            ),
        ],
    );
    assert!(
        scene.the("networkpolicy", "prod").to_string().contains("8443"),
        "workers may reach the new server"
    );
}

#[test]
fn what_is_switched_off_goes_and_comes_back() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    scene.respec("prod", &json!({ "ingress": { "enabled": true, "host": "metrics.example" } }));
    scene.settled("prod");
    let on = |on: bool| {
        json!({
            "ingress": { "enabled": on },
            "networkPolicy": { "enabled": on },
            "monitoring": { "enabled": on },
        })
    };
    let switched = ["ingress", "networkpolicy", "servicemonitor"];
    scene.respec("prod", &on(false));
    scene.settled("prod");
    switched.iter().for_each(|kind| scene.until_gone(kind, "prod"));
    scene.respec("prod", &on(true));
    scene.settled("prod");
    for kind in switched {
        scene.the(kind, "prod");
    }
}

/// Pods before and after something that isn't a change of the resource, which must have been seen by then.
fn pods_around(scene: &Scene, act: impl FnOnce()) -> (Vec<String>, Vec<String>) {
    scene.settled("prod");
    let before = scene.pods();
    act();
    // A change that is followed in any case comes after it.
    scene.respec("prod", &json!({ "service": { "annotations": { "seen": text(&scene.the("luminate", "prod")["metadata"]["resourceVersion"]) } } }));
    scene.settled("prod");
    (before, scene.pods())
}

#[test]
fn new_credentials_replace_the_pods() {
    let scene = Scene::new();
    scene.secret("login", &json!({ "username": "luminate", "password": "one" }));
    scene.secret("trust", &json!({ "ca.crt": "one" }));
    scene.make(CLICKHOUSE);
    let section =
        json!({ "credentialsSecretRef": { "name": "login" }, "tls": { "caSecretRef": { "name": "trust" } } });
    scene.respec("prod", &json!({ "clickhouse": section }));
    for (secret, key) in [("login", "password"), ("trust", "ca.crt")] {
        scene.settled("prod");
        let pods = scene.pods();
        scene.change("secret", secret, &json!({ "stringData": { key: "two" } }));
        wait(&format!("no pod of before {secret} changed is left"), || {
            let now = scene.pods();
            (!now.is_empty() && now.iter().all(|pod| !pods.contains(pod))).then_some(())
        });
    }
    let label = json!({ "metadata": { "labels": { "reviewed": "yes" } } });
    let (before, after) = pods_around(&scene, || drop(scene.change("secret", "login", &label)));
    assert_eq!(before, after, "only the data counts");
}

#[test]
fn what_workers_reload_replaces_no_pods() {
    let scene = Scene::new();
    scene.secret("tokens", &json!({ "jwt-secret": "0123456789abcdef0123456789abcdef" }));
    scene.secret("certificate", &json!({ "tls.crt": "one", "tls.key": "one" }));
    scene.make(ROCKSDB);
    scene.respec(
        "prod",
        &json!({ "auth": { "jwtSecretRef": { "name": "tokens" } }, "tls": { "secretRef": { "name": "certificate" } } }),
    );
    for (secret, data) in [
        ("tokens", json!({ "jwt-secret": "fedcba9876543210fedcba9876543210" })),
        ("certificate", json!({ "tls.crt": "two", "tls.key": "two" })),
    ] {
        let patch = json!({ "stringData": data });
        let (before, after) = pods_around(&scene, || drop(scene.change("secret", secret, &patch)));
        assert_eq!(before, after, "{secret}");
    }
}

#[test]
fn the_secret_of_tokens_is_made_once() {
    let scene = Scene::new();
    scene.make(ROCKSDB);
    scene.settled("prod");
    let made = scene.the("secret", "prod-jwt")["data"].clone();
    scene.change(
        "secret",
        "prod-jwt",
        &json!({ "stringData": { "jwt-secret": "a person's own, of more than 32 bytes" } }),
    );
    let (before, after) = pods_around(&scene, || ());
    assert_eq!(before, after);
    let kept = scene.the("secret", "prod-jwt")["data"].clone();
    assert_ne!(kept, made, "what a person put there stays");
    // Where keys come from elsewhere, it stays all the same: tokens of it may be in use again.
    scene.respec("prod", &json!({ "auth": { "jwksUrl": "https://id.example/keys" } }));
    scene.settled("prod");
    assert_eq!(scene.the("secret", "prod-jwt")["data"], kept);
}
