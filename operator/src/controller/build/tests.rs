use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use luminate_crds::luminate::LuminateSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::object::{APPLIED, short};
use crate::testing::{clickhouse, corpus, rocksdb, validated};

/// The digest of every pod template of the corpus. If it changes, an upgrade of the operator alone rolls
/// every pod there is: change it only with a reason that is worth that, and say so in the changelog.
const GOLDEN: &str = "64495a5ce8a8a9ba";

fn built(spec: LuminateSpec) -> Vec<Object> {
    let validated = validated(spec);
    build(&validated, &Position::settled(&validated))
}

fn object(objects: &[Object], kind: Kind, name: &str) -> Value {
    let found = objects.iter().find(|object| object.kind == kind && object.name == name);
    found.unwrap_or_else(|| panic!("no {} {name}", kind.name())).body.clone()
}

fn names(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|object| format!("{} {}", object.kind.name(), object.name)).collect()
}

/// What was written survives becoming the API's type: every field exists and has the right type.
fn is_of<T: Serialize + DeserializeOwned>(body: &Value) {
    let typed: T = serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{error}: {body}"));
    let back = serde_json::to_value(typed).unwrap();
    let difference = crate::controller::apply::compare::difference(body, &back);
    assert_eq!(difference, None, "{body}");
}

fn is_valid(object: &Object) {
    match object.kind {
        Kind::ServiceAccount => is_of::<ServiceAccount>(&object.body),
        Kind::ConfigMap => is_of::<ConfigMap>(&object.body),
        Kind::Secret => is_of::<Secret>(&object.body),
        Kind::Service => is_of::<Service>(&object.body),
        Kind::NetworkPolicy => is_of::<NetworkPolicy>(&object.body),
        Kind::PodDisruptionBudget => is_of::<PodDisruptionBudget>(&object.body),
        Kind::Deployment => is_of::<Deployment>(&object.body),
        Kind::StatefulSet => is_of::<StatefulSet>(&object.body),
        Kind::HorizontalPodAutoscaler => is_of::<HorizontalPodAutoscaler>(&object.body),
        Kind::Ingress => is_of::<Ingress>(&object.body),
        Kind::ServiceMonitor => {}
        Kind::PersistentVolumeClaim => panic!("claims are made by the StatefulSet's controller"),
    }
}

#[test]
fn no_pod_template_has_changed_since_the_last_release() {
    let mut hasher = Sha256::new();
    for spec in corpus(500) {
        for object in built(spec) {
            if matches!(object.kind, Kind::Deployment | Kind::StatefulSet) {
                hasher.update(crate::object::digest(&object.body["spec"]["template"]));
            }
        }
    }
    assert_eq!(short(&hasher.finalize()), GOLDEN, "an upgrade would roll every pod");
}

#[test]
fn every_object_of_the_corpus_is_one_that_the_api_knows() {
    for spec in corpus(200) {
        let objects = built(spec);
        objects.iter().for_each(is_valid);
        let distinct: BTreeSet<String> = names(&objects).into_iter().collect();
        assert_eq!(distinct.len(), objects.len());
    }
}

#[test]
fn every_object_carries_owner_label_and_digest() {
    for spec in corpus(50) {
        for object in built(spec) {
            let metadata = &object.body["metadata"];
            assert_eq!(metadata["labels"][MANAGED_BY], MANAGER);
            assert_eq!(metadata["ownerReferences"][0]["uid"], "00000000-0000-0000-0000-000000000001");
            assert_eq!(metadata["ownerReferences"][0]["controller"], true);
            assert_eq!(metadata["annotations"][APPLIED], object.digest());
            assert_eq!(object.digest().len(), 16);
        }
    }
}

#[test]
fn what_the_smallest_resource_with_clickhouse_owns() {
    let expected = [
        "ServiceAccount prod",
        "ConfigMap prod-clickhouse",
        "Secret prod-jwt",
        "Service prod",
        "NetworkPolicy prod",
        "PodDisruptionBudget prod",
        "Deployment prod",
        "HorizontalPodAutoscaler prod",
        "ServiceMonitor prod",
    ];
    assert_eq!(names(&built(clickhouse())), expected);
}

#[test]
fn what_the_smallest_resource_with_rocksdb_owns() {
    let expected = [
        "ServiceAccount prod",
        "ConfigMap prod-rocksdb",
        "Secret prod-jwt",
        "Service prod",
        "Service prod-headless",
        "NetworkPolicy prod",
        "StatefulSet prod",
        "ServiceMonitor prod",
    ];
    assert_eq!(names(&built(rocksdb())), expected);
}

#[test]
fn the_autoscaler_owns_the_number_of_workers() {
    let mut spec = clickhouse();
    assert_eq!(object(&built(spec.clone()), Kind::Deployment, "prod")["spec"].get("replicas"), None);
    if let Some(section) = &mut spec.clickhouse {
        section.autoscaling.enabled = false;
    }
    spec.replicas = 4;
    let objects = built(spec);
    assert_eq!(object(&objects, Kind::Deployment, "prod")["spec"]["replicas"], 4);
    assert!(!names(&objects).contains(&"HorizontalPodAutoscaler prod".to_owned()));
}

#[test]
fn workers_scale_up_fast_and_down_slowly() {
    let behavior = &object(&built(clickhouse()), Kind::HorizontalPodAutoscaler, "prod")["spec"]["behavior"];
    assert_eq!(
        behavior["scaleUp"],
        json!({ "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            { "type": "Percent", "value": 100, "periodSeconds": 15 },
            { "type": "Pods", "value": 2, "periodSeconds": 15 },
        ] })
    );
    assert_eq!(
        behavior["scaleDown"],
        json!({ "stabilizationWindowSeconds": 300, "selectPolicy": "Min", "policies": [
            { "type": "Percent", "value": 50, "periodSeconds": 60 },
            { "type": "Pods", "value": 1, "periodSeconds": 60 },
        ] })
    );
}

#[test]
fn pods_are_restricted() {
    for spec in [clickhouse(), rocksdb()] {
        let backend = spec.backend;
        let kind = if backend == Backend::ClickHouse { Kind::Deployment } else { Kind::StatefulSet };
        let body = object(&built(spec), kind, "prod");
        let pod = &body["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["runAsUser"], 1000);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(pod["terminationGracePeriodSeconds"], 55);
        assert_eq!(pod["containers"][0]["lifecycle"], json!({ "preStop": { "sleep": { "seconds": 15 } } }));
    }
}

#[test]
fn credentials_are_read_by_the_kubelet() {
    let mut spec = clickhouse();
    if let Some(section) = &mut spec.clickhouse {
        section.credentials_secret_ref =
            Some(luminate_crds::luminate::NameReference { name: "login".to_owned() });
    }
    let body = object(&built(spec), Kind::Deployment, "prod");
    let env = &body["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[1]["name"], "LUMINATE_STORAGE_CLICKHOUSE_PASSWORD");
    assert_eq!(env[1]["valueFrom"]["secretKeyRef"], json!({ "name": "login", "key": "password" }));
}

#[test]
fn a_change_of_the_file_rolls_the_pods_and_nothing_else_does() {
    let template = |change: &dyn Fn(&mut LuminateSpec)| {
        let mut spec = clickhouse();
        change(&mut spec);
        object(&built(spec), Kind::Deployment, "prod")["spec"]["template"].clone()
    };
    let base = template(&|_| ());
    assert_ne!(base, template(&|spec| spec.limits.write_rps = 7));
    assert_ne!(base, template(&|spec| spec.image.tag = "9".into()));
    assert_eq!(base, template(&|spec| spec.service.port = 80));
    assert_eq!(base, template(&|spec| spec.replicas = 7));
    assert_eq!(base, template(&|spec| spec.network_policy.enabled = false));
    assert_eq!(base, template(&|spec| spec.clickhouse.as_mut().unwrap().autoscaling.max_replicas = 20));
}

#[test]
fn workers_may_reach_only_what_they_need() {
    let egress = |spec| object(&built(spec), Kind::NetworkPolicy, "prod")["spec"]["egress"].clone();
    let dns = json!({ "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }] });
    assert_eq!(egress(rocksdb()), json!([dns]));
    assert_eq!(egress(clickhouse()), json!([dns, { "ports": [{ "protocol": "TCP", "port": 8123 }] }]));
    let mut spec = rocksdb();
    spec.auth.jwks_url = Some("https://id.example/keys".into());
    assert_eq!(egress(spec), json!([dns, { "ports": [{ "protocol": "TCP", "port": 443 }] }]));
}

#[test]
fn the_claim_template_keeps_its_size_where_it_must() {
    let validated = validated(rocksdb());
    let position = Position { template_storage: Some("50Gi".into()), ..Position::settled(&validated) };
    let size = |position: &Position| {
        let body = object(&build(&validated, position), Kind::StatefulSet, "prod");
        body["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].clone()
    };
    assert_eq!(size(&position), "50Gi");
    assert_eq!(size(&Position::settled(&validated)), "100Gi");
}

#[test]
fn traffic_goes_where_the_position_says() {
    let validated = validated(clickhouse());
    let position = Position { traffic: Backend::RocksDB, ..Position::settled(&validated) };
    let service = object(&build(&validated, &position), Kind::Service, "prod");
    assert_eq!(service["spec"]["selector"]["luminate.dev/backend"], "rocksdb");
}

/// The examples that are shipped, each with what a person would see of it.
const EXAMPLES: [(&str, &str); 4] = [
    ("clickhouse.yaml", include_str!("../../../../deploy/examples/clickhouse.yaml")),
    ("clickhouse-full.yaml", include_str!("../../../../deploy/examples/clickhouse-full.yaml")),
    ("rocksdb.yaml", include_str!("../../../../deploy/examples/rocksdb.yaml")),
    ("rocksdb-full.yaml", include_str!("../../../../deploy/examples/rocksdb-full.yaml")),
];

fn examples() -> impl Iterator<Item = (&'static str, crate::controller::validate::Validated)> {
    use crate::controller::validate::{Surroundings, validate};
    EXAMPLES.into_iter().map(|(name, text)| {
        let mut resource: luminate_crds::luminate::Luminate =
            serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        resource.metadata.namespace = Some("default".into());
        let validated = validate(&resource, &Surroundings::default());
        (name, validated.unwrap_or_else(|refused| panic!("{name}: {}", refused.message)))
    })
}

#[test]
fn every_example_can_be_served() {
    for (_, validated) in examples() {
        build(&validated, &Position::settled(&validated)).iter().for_each(is_valid);
    }
}

#[test]
fn a_worker_accepts_every_file_that_is_rendered() {
    use luminate_worker::config::{Environment, load};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yaml");
    let environment = Environment::from([
        ("LUMINATE_STORAGE_CLICKHOUSE_USERNAME", "user"),
        ("LUMINATE_STORAGE_CLICKHOUSE_PASSWORD", "canary"),
    ]);
    let mut hostile = rocksdb();
    hostile.auth.issuer = ["${LUMINATE_STORAGE_CLICKHOUSE_PASSWORD}", "a: b", "# c"].map(Into::into).to_vec();
    let all = examples().map(|(_, validated)| validated);
    for validated in all.chain(corpus(100).into_iter().chain([hostile]).map(validated)) {
        let text = config::file(&validated.config);
        std::fs::write(&path, &text).unwrap();
        let loaded = load(Some(&path), &environment).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(loaded.unrecognised, Vec::<String>::new());
        assert_eq!(loaded.config.auth, validated.config.auth);
        assert_eq!(loaded.config.server, validated.config.server);
        assert_eq!(loaded.config.rate_limits, validated.config.rate_limits);
        assert_eq!(loaded.config.query_limits, validated.config.query_limits);
        assert_eq!(loaded.config.ingest, validated.config.ingest);
    }
}
