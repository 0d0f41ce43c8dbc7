//! What tests share: resources as the API server would store them, and many of them.

use std::collections::BTreeMap;

use luminate_crds::luminate::{
    AckMode, Amount, Backend, ClickHouseSection, KeyReference, Luminate, LuminateSpec, NameReference, Peer,
    PullPolicy, ReclaimPolicy, RocksDbSection, ServiceType, TaintEffect, Tier, Toleration,
    TolerationOperator,
};
use luminate_crds::worker_config::{LogLevel, Span};

use crate::controller::validate::{Surroundings, Validated, validate};

/// The smallest resource with ClickHouse.
pub fn clickhouse() -> LuminateSpec {
    let mut spec = LuminateSpec::of(Backend::ClickHouse);
    spec.clickhouse = Some(ClickHouseSection::at(["http://clickhouse:8123"]));
    spec
}

/// The smallest resource with RocksDB.
pub fn rocksdb() -> LuminateSpec {
    LuminateSpec::of(Backend::RocksDB)
}

/// A resource of this name in namespace `default`.
pub fn resource(name: &str, spec: LuminateSpec) -> Luminate {
    let mut resource = Luminate::new(name, spec);
    resource.metadata.namespace = Some("default".to_owned());
    resource.metadata.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
    resource.metadata.generation = Some(1);
    resource
}

/// A resource `prod` that can be served.
pub fn validated(spec: LuminateSpec) -> Validated {
    validate(&resource("prod", spec), &Surroundings { service_monitors: true, ..Surroundings::default() })
        .unwrap()
}

/// `count` different resources that can be served. Always the same ones: templates made of them are
/// compared with those of earlier versions, so images are named here and nothing is drawn that isn't seeded.
pub fn corpus(count: usize) -> Vec<LuminateSpec> {
    let mut random = fastrand::Rng::with_seed(20_260_101);
    (0..count).map(|_| arbitrary(&mut random)).collect()
}

fn arbitrary(random: &mut fastrand::Rng) -> LuminateSpec {
    let mut spec = if random.bool() { arbitrary_clickhouse(random) } else { arbitrary_rocksdb(random) };
    spec.image.tag = "1.2.3".to_owned();
    if random.bool() {
        spec.image.repository = "example/luminate".to_owned();
        spec.image.pull_policy = PullPolicy::Always;
        spec.image.pull_secrets = vec![name("pull")];
    }
    if random.u8(0..4) == 0 {
        spec.image.digest = Some(format!("sha256:{}", "a".repeat(64)));
    }
    match random.u8(0..5) {
        0 => spec.auth.enabled = false,
        1 => spec.auth.jwt_secret_ref = Some(key("tokens", random)),
        2 => spec.auth.jwks_secret_ref = Some(key("keys", random)),
        3 => spec.auth.jwks_url = Some("https://id.example/keys".to_owned()),
        _ => {}
    }
    if random.bool() {
        spec.auth.issuer = vec!["https://id.example".to_owned()];
        spec.auth.audience = vec!["luminate".to_owned(), "metrics".to_owned()];
    }
    if random.u8(0..3) == 0 {
        spec.tls.secret_ref = Some(name("api-tls"));
    }
    spec.retention.default = Span::from_days(random.u64(1..400));
    spec.logging.level = if random.bool() { LogLevel::Debug } else { LogLevel::Info };
    spec.monitoring.enabled = random.bool();
    spec.network_policy.enabled = random.bool();
    if random.bool() {
        spec.network_policy.from = vec![Peer { pod_labels: label("app", "grafana"), ..Peer::default() }];
    }
    spec.service.kind = if random.bool() { ServiceType::LoadBalancer } else { ServiceType::ClusterIP };
    spec.service.port = random.u16(1..10_000);
    spec.ingress.enabled = random.bool();
    spec.ingress.host = "metrics.example".to_owned();
    arbitrary_limits(random, &mut spec);
    arbitrary_placement(random, &mut spec);
    spec
}

fn arbitrary_clickhouse(random: &mut fastrand::Rng) -> LuminateSpec {
    let mut spec = clickhouse();
    spec.replicas = random.i32(1..9);
    let section = spec.clickhouse.get_or_insert_with(|| ClickHouseSection::at(["http://clickhouse:8123"]));
    section.endpoints =
        (0..random.usize(1..4)).map(|at| format!("https://clickhouse-{at}.example:8443")).collect();
    section.cluster = if random.bool() { "main".to_owned() } else { String::new() };
    section.credentials_secret_ref = random.bool().then(|| name("login"));
    match random.u8(0..3) {
        0 => section.tls.ca_secret_ref = Some(key("ca", random)),
        1 => section.tls.ca_config_map_ref = Some(key("trust", random)),
        _ => {}
    }
    section.ack = if random.bool() { AckMode::Buffered } else { AckMode::Durable };
    section.query_threads = random.bool().then(|| random.u32(1..64));
    section.autoscaling.enabled = random.bool();
    section.autoscaling.min_replicas = random.i32(1..4);
    section.autoscaling.max_replicas = random.i32(4..20);
    spec
}

fn arbitrary_rocksdb(random: &mut fastrand::Rng) -> LuminateSpec {
    let mut spec = rocksdb();
    spec.replicas = random.i32(0..2);
    if random.bool() {
        spec.rocksdb = Some(RocksDbSection {
            storage: format!("{}Gi", random.u16(1..2_000)),
            storage_class_name: random.bool().then(|| "fast".to_owned()),
            reclaim_policy: if random.bool() { ReclaimPolicy::Delete } else { ReclaimPolicy::Retain },
            ack: if random.bool() { AckMode::Buffered } else { AckMode::Durable },
        });
    }
    spec
}

fn arbitrary_limits(random: &mut fastrand::Rng, spec: &mut LuminateSpec) {
    spec.limits.write_rps = random.u32(1..10_000);
    spec.limits.max_series_per_metric = random.u64(1..1 << 40);
    spec.limits.query.max_range = Span::from_days(random.u64(1..400));
    if random.bool() {
        let tier = Tier { query_rps: Some(random.u32(1..500)), ..Tier::default() };
        spec.limits.tiers = BTreeMap::from([("gold".to_owned(), tier)]);
    }
}

fn arbitrary_placement(random: &mut fastrand::Rng, spec: &mut LuminateSpec) {
    let gibibytes = random.u16(1..9);
    spec.resources.requests.memory = Amount::new(format!("{gibibytes}Gi"));
    spec.resources.limits.memory = Amount::new(format!("{}Gi", gibibytes * 2));
    spec.resources.limits.cpu = random.bool().then(|| Amount::new("4"));
    if random.bool() {
        spec.scheduling.node_selector = label("disk", "ssd");
        spec.scheduling.priority_class_name = Some("high".to_owned());
        spec.scheduling.tolerations = vec![Toleration {
            key: Some("dedicated".to_owned()),
            operator: TolerationOperator::Exists,
            effect: Some(TaintEffect::NoSchedule),
            ..Toleration::default()
        }];
    }
    if random.u8(0..3) == 0 {
        let over = r#"{"metadata": {"labels": {"team": "a"}}, "spec": {"runtimeClassName": "gvisor"}}"#;
        spec.pod_template = serde_json::from_str(over).ok();
    }
}

fn name(name: &str) -> NameReference {
    NameReference { name: name.to_owned() }
}

fn key(name: &str, random: &mut fastrand::Rng) -> KeyReference {
    KeyReference { name: name.to_owned(), key: random.bool().then(|| "other".to_owned()) }
}

fn label(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}
