//! The operator as a process: one of several leads, and none does anything that isn't needed.

use std::time::{Duration, Instant};
use std::{env, thread};

use luminate_cluster::Operator;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, ROCKSDB, Scene, apart, condition, wait};

fn named(manifest: &str, name: &str) -> String {
    manifest.replace("name: prod", &format!("name: {name}"))
}

fn writes(operator: &Operator) -> f64 {
    operator.metric("luminate_operator_writes_total", &[])
}

/// Waits until it leads; how long that took is shown, since no test may depend on it.
fn leads_after(what: &str, operator: &Operator) {
    let began = Instant::now();
    wait(&format!("another leads after {what}"), || operator.leads().then_some(()));
    println!("{what}: the next leads after {} ms", began.elapsed().as_millis());
}

/// A change that only a leader follows.
fn follows(scene: &Scene, retention: &str) {
    scene.respec("prod", &json!({ "retention": { "default": retention } }));
    scene.until("the change is followed", "configmap", "prod-rocksdb", |map| {
        map.to_string().contains(retention)
    });
}

#[test]
fn of_several_one_works_and_the_next_takes_over() {
    let (scene, installation) = Scene::apart();
    let first = installation.operator().start();
    wait("the first leads", || first.leads().then_some(()));
    let second = installation.operator().start();
    scene.make(ROCKSDB);
    scene.settled("prod");
    assert!(!second.leads() && writes(&second) == 0.0, "only one writes");
    assert!(second.page("/livez").is_some(), "waiting is no illness");

    first.stop();
    leads_after("a graceful end", &second);
    follows(&scene, "61d");

    let third = installation.operator().start();
    assert!(!third.leads());
    second.kill();
    leads_after("kill -9", &third);
    follows(&scene, "62d");
    third.stop();
}

/// A process that was away for longer than its Lease finds that another leads, and writes nothing any more.
#[test]
fn who_was_away_too_long_writes_no_more() {
    let (scene, installation) = Scene::apart();
    let mut first = installation.operator().start();
    wait("the first leads", || first.leads().then_some(()));
    scene.make(ROCKSDB);
    scene.settled("prod");
    first.signal(Signal::SIGSTOP);
    let second = installation.operator().start();
    leads_after("a process that stands still", &second);
    follows(&scene, "61d");
    // What the first finds when it wakes: a change, and a Lease that isn't its own.
    scene.delete("service", "prod-headless");
    first.signal(Signal::SIGCONT);
    scene.until("the Service is back", "service", "prod-headless", |_| true);
    let status = wait("the first has ended", || first.ended());
    assert!(!status.success(), "whoever runs it must see that it failed");
    assert!(first.log().contains("\"ERROR\"") || first.log().contains("lease"), "{}", first.log());
    assert!(second.leads());
    follows(&scene, "62d");
}

#[test]
fn a_namespace_that_isnt_named_is_left_alone() {
    let (scene, installation) = Scene::apart();
    let other = apart().namespace();
    let operator = installation.operator().start();
    other.create("luminate", ROCKSDB).expect("created");
    scene.make(ROCKSDB);
    scene.settled("prod");
    let untouched = other.get("luminate", "prod").expect("created");
    assert!(untouched.get("status").is_none() && other.get("service", "prod").is_none());
    operator.stop();
}

/// Whatever an operator of another version has noted, pods stay.
#[test]
fn a_restart_replaces_no_pod_and_writes_nothing() {
    let (mut scene, installation) = Scene::apart();
    let operator = installation.operator().start();
    scene.secret("login", &json!({ "username": "luminate", "password": "one" }));
    let login = "credentialsSecretRef: {name: login}\n    autoscaling:";
    scene.make(&named(CLICKHOUSE, "stateless").replace("autoscaling:", login));
    scene.make(&named(ROCKSDB, "embedded"));
    for name in ["stateless", "embedded"] {
        scene.settled(name);
    }
    scene.until("the autoscaler has the count", "hpa", "stateless", |hpa| {
        hpa["status"]["currentReplicas"] == 1
    });
    settle_down(&mut scene);
    let pods = scene.pods();
    operator.stop();
    scene.writes();

    let restarted = |scene: &mut Scene| {
        let operator = installation.operator().start();
        wait("both are looked at", || {
            (operator.metric("luminate_operator_reconciles_total", &["outcome=\"done\""]) >= 2.0)
                .then_some(())
        });
        settle_down(scene);
        operator
    };
    restarted(&mut scene).stop();
    assert_eq!(scene.writes(), [""; 0]);

    let noted = json!({ "metadata": { "annotations": { "luminate.dev/applied": "by-another-version" } } });
    scene.change("deployment", "stateless", &noted);
    scene.change("statefulset", "embedded", &noted);
    let operator = restarted(&mut scene);
    for name in ["stateless", "embedded"] {
        scene.settled(name);
    }
    assert_eq!(scene.pods(), pods);
    operator.stop();
}

/// Waits until a second passes without a write.
fn settle_down(scene: &mut Scene) {
    scene.writes();
    wait("nothing is written", || {
        thread::sleep(Duration::from_secs(1));
        scene.writes().is_empty().then_some(())
    });
}

/// Resyncs and watches that start anew are no reason to write. `LUMINATE_TEST_SETTLED` says for how many seconds that
/// is watched.
#[test]
fn what_is_settled_stays_untouched() {
    let seconds =
        env::var("LUMINATE_TEST_SETTLED").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(15);
    let (mut scene, installation) = Scene::apart();
    let operator = installation.operator().argument("--resync").argument("3").start();
    scene.make(&named(CLICKHOUSE, "stateless"));
    scene.make(&named(ROCKSDB, "embedded"));
    scene.make(&named(ROCKSDB, "waiting").replace("RocksDB}", "RocksDB, tls: {secretRef: {name: missing}}}"));
    scene.make(&named(ROCKSDB, "paused").replace("RocksDB}", "RocksDB, paused: true}"));
    scene.make(&named(ROCKSDB, "resting").replace("RocksDB}", "RocksDB, replicas: 0}"));
    scene.settled("stateless");
    scene.settled("embedded");
    scene.told("waiting", "SpecValid", "ReferenceMissing");
    scene.told("paused", "Progressing", "Paused");
    scene.told("resting", "Ready", "ScaledToZero");
    scene.until("the autoscaler has the count", "hpa", "stateless", |hpa| {
        hpa["status"]["currentReplicas"] == 1
    });
    settle_down(&mut scene);

    let reconciles = || operator.metric("luminate_operator_reconciles_total", &[]);
    let (before, versions) = (reconciles(), versions(&scene));
    scene.requests();
    thread::sleep(Duration::from_secs(seconds));
    let requests = scene.requests();
    let written: Vec<_> = requests.iter().filter(|request| request.is_write()).collect();
    assert!(written.is_empty(), "{written:#?}");
    assert_eq!(self::versions(&scene), versions);
    // It was looked, and watched anew.
    assert!(reconciles() > before + 5.0, "{before} {}", reconciles());
    assert!(requests.iter().any(|request| request.verb == "watch"), "{requests:#?}");
    println!("{seconds} s: {} reconciles, {} requests, no write", reconciles() - before, requests.len());
    operator.stop();
}

fn versions(scene: &Scene) -> Vec<Value> {
    let resources = scene.list("luminate", "");
    assert!(resources.iter().all(|resource| !condition(resource, "Ready").0.is_empty()));
    resources.into_iter().map(|mut resource| resource["metadata"]["resourceVersion"].take()).collect()
}
