//! What the schema can't refuse and the operator can't serve: it says so once, waits quietly, and goes on when the
//! cause is gone.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use luminate_cluster::Cluster;
use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, ROCKSDB, Scene, condition, wait};

/// A resource that refers to a Secret of ClickHouse's credentials.
fn with_login() -> String {
    CLICKHOUSE.replace("autoscaling:", "credentialsSecretRef: {name: login}\n    autoscaling:")
}

/// The resource can't be served for this reason, and one event told of it; what the condition says.
#[track_caller]
fn refused(scene: &Scene, reason: &str) -> String {
    let (status, message) = scene.told("prod", "SpecValid", reason);
    assert_eq!(status, "False");
    let resource = scene.the("luminate", "prod");
    let truth = |kind: &str| condition(&resource, kind).0;
    assert_eq!((truth("Ready"), truth("Degraded")), ("False".into(), "True".into()));
    let told = scene.event("prod", reason);
    assert!(matches!(told.as_slice(), [(kind, _)] if kind == "Warning"), "{told:?}");
    message
}

/// Nothing is written while nothing changes, and hardly anything is asked.
#[track_caller]
fn quiet(scene: &mut Scene) {
    scene.requests();
    thread::sleep(Duration::from_secs(3));
    let requests = scene.requests();
    assert!(
        requests.len() <= 2 && !requests.iter().any(luminate_cluster::Request::is_write),
        "{requests:#?}"
    );
}

#[test]
fn a_missing_secret_is_named_and_its_coming_noticed() {
    let mut scene = Scene::new();
    scene.make(&with_login());
    let message = refused(&scene, "ReferenceMissing");
    assert!(message.contains("Secret login doesn't exist"), "{message}");
    assert!(message.contains("spec.clickhouse.credentialsSecretRef"), "{message}");
    assert!(scene.event("prod", "ReferenceMissing")[0].1.contains("Create the object that is named"));
    quiet(&mut scene);

    scene.secret("login", &json!({ "username": "luminate" }));
    let message = refused(&scene, "ReferenceUnusable");
    assert!(message.contains("no key password"), "{message}");
    quiet(&mut scene);

    scene.change("secret", "login", &json!({ "stringData": { "password": "one" } }));
    scene.settled("prod");
    assert_eq!(scene.event("prod", "Available").len(), 1);
}

#[test]
fn what_serves_goes_on_while_a_secret_is_away() {
    let scene = Scene::new();
    scene.secret("login", &json!({ "username": "luminate", "password": "one" }));
    scene.make(&with_login());
    scene.settled("prod");
    let pods = scene.pods();
    scene.delete("secret", "login");
    refused(&scene, "ReferenceMissing");
    assert_eq!(scene.the("luminate", "prod")["status"]["readyReplicas"], 1);
    scene.secret("login", &json!({ "username": "luminate", "password": "one" }));
    scene.settled("prod");
    assert_eq!(scene.pods(), pods, "the same credentials, the same pods");
}

#[test]
fn a_secret_too_short_for_tokens_is_refused() {
    let mut scene = Scene::new();
    scene.secret("tokens", &json!({ "jwt-secret": "short" }));
    scene.make(&ROCKSDB.replace("RocksDB}", "RocksDB, auth: {jwtSecretRef: {name: tokens}}}"));
    let message = refused(&scene, "ReferenceUnusable");
    assert!(message.contains("5 bytes") && message.contains("at least 32"), "{message}");
    assert!(!message.contains("short"), "values aren't told");
    quiet(&mut scene);
    scene.change(
        "secret",
        "tokens",
        &json!({ "stringData": { "jwt-secret": "0123456789abcdef0123456789abcdef" } }),
    );
    scene.settled("prod");
}

#[test]
fn a_forbidden_override_is_refused_and_named() {
    let mut scene = Scene::new();
    scene.make(ROCKSDB);
    scene.settled("prod");
    let pods = scene.pods();
    for (over, named) in [
        (json!({ "spec": { "hostNetwork": true } }), "spec.hostNetwork"),
        (
            json!({ "spec": { "containers": [{ "name": "worker", "securityContext": { "privileged": true } }] } }),
            "privileged",
        ),
        (json!({ "spec": { "containers": [{ "name": "worker", "image": "other" }] } }), "image"),
        (json!({ "spec": { "volumes": [{ "name": "host", "hostPath": { "path": "/" } }] } }), "hostPath"),
        (json!({ "spec": { "no-such-field": 1 } }), "no-such-field"),
    ] {
        scene.respec("prod", &json!({ "podTemplate": null }));
        scene.told("prod", "SpecValid", "Valid");
        scene.respec("prod", &json!({ "podTemplate": over }));
        let (status, message) = scene.told("prod", "SpecValid", "OverrideForbidden");
        assert!(status == "False" && message.contains(named), "{over}: {message}");
    }
    assert_eq!(scene.event("prod", "OverrideForbidden").len(), 1, "told once, not for each attempt");
    quiet(&mut scene);
    scene.respec("prod", &json!({ "podTemplate": null }));
    scene.settled("prod");
    assert_eq!(scene.pods(), pods);
}

#[test]
fn an_unreachable_server_is_told_of_and_hinders_nothing() {
    // A port that is free now, and taken later.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let mut scene = Scene::new();
    scene.make(&CLICKHOUSE.replace("clickhouse:8123", &format!("127.0.0.1:{port}")));
    scene.settled("prod");
    let (status, message) = scene.told("prod", "BackendReachable", "Unreachable");
    assert!(status == "False" && message.contains(&port.to_string()), "{message}");
    let told = scene.event("prod", "Unreachable");
    assert!(matches!(told.as_slice(), [(_, note)] if note.contains("Check the address")), "{told:?}");
    assert_eq!(
        condition(&scene.the("luminate", "prod"), "Ready").0,
        "True",
        "workers may reach what it can't"
    );
    quiet(&mut scene);
}

#[test]
fn a_refusal_of_the_api_server_is_passed_on() {
    let mut scene = Scene::new();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "few" },
        "spec": { "hard": { "count/deployments.apps": "0" } },
    });
    scene.create("resourcequotas", &quota.to_string()).expect("created");
    scene.until("the quota is in force", "resourcequotas", "few", |quota| !quota["status"]["hard"].is_null());
    scene.make(CLICKHOUSE);
    let (status, message) = scene.told("prod", "Ready", "ApplyRefused");
    assert!(status == "False" && message.contains("exceeded quota: few"), "{message}");
    assert_eq!(scene.event("prod", "ApplyRefused").len(), 1);
    scene.the("service", "prod");
    // What was made beside it is news at first; then it is tried now and then.
    scene.requests();
    wait("it is tried no more than once in three seconds", || {
        thread::sleep(Duration::from_secs(3));
        let refused = scene.requests().into_iter().filter(|request| request.code == 403).count();
        (refused <= 1).then_some(())
    });
    scene.delete("resourcequotas", "few");
    scene.settled("prod");
}

/// A definition of another version may let in what this operator can't read.
#[test]
fn one_that_cant_be_read_harms_no_other() {
    let cluster = Cluster::start();
    let definition = luminate_cluster::operator::DEFINITION;
    let mut lax: Value = {
        cluster.install(definition);
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/luminates.luminate.dev";
        cluster.ask("GET", path, "").expect("installed")
    };
    let strict = lax["spec"].clone();
    let schema = &mut lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"] = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let namespace = cluster.namespace();
    let installation = luminate_cluster::Installation::only(&cluster, &[&namespace]);
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/luminates.luminate.dev";
    let replace = |spec: &Value| {
        cluster
            .ask("PATCH", path, &json!({ "spec": { "versions": spec["versions"] } }).to_string())
            .expect("replaced");
    };
    replace(&lax["spec"]);
    let poison = "{apiVersion: luminate.dev/v1alpha1, kind: Luminate, metadata: {name: poison}, spec: {backend: Paper}}";
    wait("the lax definition is in force", || namespace.create("luminate", poison).ok());
    replace(&strict);
    let operator = installation.operator().start();
    wait("the strict definition is in force", || {
        let other = poison.replace("poison", "other");
        namespace.try_create("luminate", &other).is_err().then_some(())
    });
    namespace.create("luminate", ROCKSDB).expect("created");
    let ready = |name: &str| namespace.get("luminate", name).map(|resource| condition(&resource, "Ready"));
    wait("the good one serves", || ready("prod").filter(|(status, ..)| status == "True"));
    let reason = |name: &str| {
        ready(name).filter(|(_, reason, message)| reason == "Unreadable" && message.contains("Paper"))
    };
    // The status can be written although the spec isn't valid by now: rules hold for what changes.
    wait("the bad one's status says why", || reason("poison"));
    assert!(operator.page("/livez").is_some());
    namespace.patch("luminate", "poison", &json!({ "spec": { "backend": "RocksDB" } })).expect("repaired");
    wait("the repaired one serves", || ready("poison").filter(|(status, ..)| status == "True"));
    operator.stop();
}
