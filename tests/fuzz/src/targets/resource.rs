//! A resource becomes objects: whatever its fields are, what is built is whole, and its file is one that workers read.

use std::collections::BTreeSet;

use luminate_crds::luminate::{Backend, ClickHouseSection, Luminate, LuminateSpec};
use luminate_operator::controller::build::config::FILE;
use luminate_operator::controller::build::{Position, build};
use luminate_operator::controller::validate::{Surroundings, validate};
use luminate_operator::object::Kind;
use luminate_worker::config::{Environment, parse};

use crate::memory;

/// Words of resources.
pub const WORDS: &[&str] = &[
    "\"backend\":",
    "\"ClickHouse\"",
    "\"RocksDB\"",
    "\"replicas\":",
    "\"clickhouse\":{",
    "\"endpoints\":[",
    "\"rocksdb\":{",
    "\"storage\":",
    "\"100Gi\"",
    "\"auth\":{",
    "\"tls\":{",
    "\"retention\":{",
    "\"limits\":{",
    "\"tiers\":{",
    "\"resources\":{",
    "\"scheduling\":{",
    "\"podTemplate\":{",
    "\"spec\":{",
    "\"metadata\":{",
    "\"ingress\":{",
    "\"service\":{",
    "\"image\":{",
    "\"autoscaling\":{",
    "\"enabled\":true",
    "\"1e3m\"",
    "\"90d\"",
];

/// Reads, checks and builds.
pub fn check(text: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<LuminateSpec>(text) else { return };
    let mut resource = Luminate::new("prod", spec);
    resource.metadata.namespace = Some("default".into());
    resource.metadata.uid = Some("00000000-0000-0000-0000-000000000001".into());
    let around = Surroundings { service_monitors: true, ..Surroundings::default() };
    let most = (8 << 20) + 512 * text.len();
    let Ok(validated) = memory::within(most, || validate(&resource, &around)) else { return };
    let objects = memory::within(most, || build(&validated, &Position::settled(&validated)));
    let names: BTreeSet<_> = objects.iter().map(|object| (object.kind.name(), &object.name)).collect();
    assert_eq!(names.len(), objects.len(), "two objects have one name");
    for object in &objects {
        let metadata = &object.body["metadata"];
        assert_eq!(metadata["name"], object.name.as_str());
        assert_eq!(metadata["ownerReferences"][0]["uid"], "00000000-0000-0000-0000-000000000001");
        if let (Kind::ConfigMap, Some(file)) = (object.kind, object.body["data"][FILE].as_str()) {
            // Beside the file there are variables, of Secrets that the pod refers to.
            let read = parse(file, &Environment::default());
            read.unwrap_or_else(|error| panic!("a worker refuses its file: {error}\n{file}"));
        }
    }
    let again = build(&validated, &Position::settled(&validated));
    assert!(objects.iter().zip(&again).all(|(one, other)| one.digest() == other.digest()));
}

/// The smallest resources, and some with most fields.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut clickhouse = LuminateSpec::of(Backend::ClickHouse);
    clickhouse.clickhouse = Some(ClickHouseSection::at(["http://clickhouse:8123"]));
    let mut large = clickhouse.clone();
    large.ingress.enabled = true;
    large.ingress.host = "metrics.example".into();
    large.auth.issuer = vec!["https://id.example".into()];
    let over = r#"{"metadata":{"labels":{"team":"a"}},"spec":{"runtimeClassName":"gvisor"}}"#;
    large.pod_template = serde_json::from_str(over).ok();
    let specs = [LuminateSpec::of(Backend::RocksDB), clickhouse, large];
    let mut seeds: Vec<Vec<u8>> =
        specs.iter().map(|spec| serde_json::to_vec(spec).expect("a spec can be written")).collect();
    seeds.push(br#"{"backend":"RocksDB"}"#.to_vec());
    seeds
}
