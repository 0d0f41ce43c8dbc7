//! The resource's definition, as the API server gets it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::Luminate;

/// Size of a volume that nobody gave a size; the rule against shrinking knows it too.
pub const DEFAULT_STORAGE: &str = "100Gi";

/// Longest name of a resource: its children's names are longer, and end up in labels of 63 characters.
const LONGEST_NAME: usize = 40;

/// A rule of the API server's expression language: where, what must hold, and what is said if it doesn't.
struct Rule {
    /// Path of properties below the root; `[]` goes to a list's items.
    at: &'static str,
    rule: String,
    message: String,
}

/// A rule never stands on a section with a default that it reads: the API server checks it against that default
/// before it fills in the section's own fields.
fn rules() -> Vec<Rule> {
    let storage = |object: &str| {
        format!("quantity(has({object}.rocksdb) ? {object}.rocksdb.storage : '{DEFAULT_STORAGE}')")
    };
    let class = |object: &str| {
        format!(
            "(has({object}.rocksdb) && has({object}.rocksdb.storageClassName) ? \
             {object}.rocksdb.storageClassName : '')"
        )
    };
    let stays_rocksdb = "self.backend == 'RocksDB' && oldSelf.backend == 'RocksDB'";
    let rule = |at, rule: String, message: String| Rule { at, rule, message };
    vec![
        rule(
            "",
            format!(
                "self.metadata.name.size() <= {LONGEST_NAME} && \
                 self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
            ),
            format!(
                "metadata.name must be at most {LONGEST_NAME} characters of a-z, 0-9 and -, begin with a \
                 letter and not end with -: Services are named after it"
            ),
        ),
        rule(
            "spec",
            "self.backend != 'ClickHouse' || has(self.clickhouse)".into(),
            "backend ClickHouse needs the section clickhouse with its endpoints".into(),
        ),
        rule(
            "spec",
            "self.backend == 'ClickHouse' || !has(self.clickhouse)".into(),
            "the section clickhouse must be left out for backend RocksDB".into(),
        ),
        rule(
            "spec",
            "self.backend == 'RocksDB' || !has(self.rocksdb)".into(),
            "the section rocksdb must be left out for backend ClickHouse".into(),
        ),
        rule(
            "spec",
            "self.backend != 'RocksDB' || self.replicas <= 1".into(),
            "replicas must be 0 (maintenance) or 1 for backend RocksDB: one worker owns the volume".into(),
        ),
        rule(
            "spec",
            format!(
                "!({stays_rocksdb}) || !{}.isLessThan({})",
                storage("self"),
                storage("oldSelf")
            ),
            format!("rocksdb.storage can't shrink (left out, it is {DEFAULT_STORAGE}): volumes only grow"),
        ),
        rule(
            "spec",
            format!("!({stays_rocksdb}) || {} == {}", class("self"), class("oldSelf")),
            "rocksdb.storageClassName can't be changed: a volume keeps its class".into(),
        ),
        rule(
            "spec",
            format!(
                "!(has(self.clickhouse) && has(oldSelf.clickhouse) && !{enabled} && {was_enabled}) || \
                 (self.replicas >= {bounds}.minReplicas && self.replicas <= {bounds}.maxReplicas)",
                enabled = "self.clickhouse.autoscaling.enabled",
                was_enabled = "oldSelf.clickhouse.autoscaling.enabled",
                bounds = "self.clickhouse.autoscaling",
            ),
            "replicas must be from autoscaling.minReplicas to maxReplicas when autoscaling is switched off: the \
             number of workers must not leap; change it afterwards"
                .into(),
        ),
        rule(
            "spec.clickhouse",
            "self.endpoints.all(endpoint, isURL(endpoint))".into(),
            "each of endpoints must be an http or https URL, such as https://clickhouse:8443".into(),
        ),
        rule(
            "spec.clickhouse",
            "self.autoscaling.minReplicas <= self.autoscaling.maxReplicas".into(),
            "autoscaling.minReplicas must not be larger than autoscaling.maxReplicas".into(),
        ),
        rule(
            "spec.clickhouse.tls",
            "!(has(self.caSecretRef) && has(self.caConfigMapRef))".into(),
            "at most one of caSecretRef and caConfigMapRef may be set".into(),
        ),
        rule(
            "spec.auth",
            "[has(self.jwtSecretRef), has(self.jwksSecretRef), has(self.jwksUrl)].filter(set, set).size() <= 1"
                .into(),
            "at most one of jwtSecretRef, jwksSecretRef and jwksUrl may be set".into(),
        ),
        rule(
            "spec.auth",
            "!has(self.jwksUrl) || isURL(self.jwksUrl)".into(),
            "jwksUrl must be an https URL".into(),
        ),
        rule(
            "spec",
            "!self.ingress.enabled || self.ingress.host != ''".into(),
            "ingress.host is needed when the ingress is enabled".into(),
        ),
        rule(
            "spec.scheduling.tolerations[]",
            "self.operator == 'Exists' || (has(self.key) && self.key != '')".into(),
            "operator must be Exists where key is left out: every taint is tolerated then".into(),
        ),
        rule(
            "spec.scheduling.tolerations[]",
            "self.operator != 'Exists' || !has(self.value) || self.value == ''".into(),
            "value must be left out where operator is Exists".into(),
        ),
        rule(
            "spec.scheduling.tolerations[]",
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')".into(),
            "effect must be NoExecute where tolerationSeconds is set".into(),
        ),
        rule(
            "spec.rocksdb",
            "isQuantity(self.storage) && quantity(self.storage).isGreaterThan(quantity('0'))".into(),
            "storage must be a size above zero, such as 100Gi".into(),
        ),
    ]
}

/// What `kubectl get` shows; the last but one two only with `-o wide`.
fn columns() -> Vec<CustomResourceColumnDefinition> {
    let ready = |field: &str| format!(".status.conditions[?(@.type==\"Ready\")].{field}");
    let column = |name: &str, type_: &str, json_path: String, priority| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path,
        priority,
        ..CustomResourceColumnDefinition::default()
    };
    vec![
        column("Backend", "string", ".spec.backend".into(), None),
        column("Ready", "string", ready("status"), None),
        column("Replicas", "integer", ".status.readyReplicas".into(), None),
        column("Endpoint", "string", ".status.endpoint".into(), None),
        column("Reason", "string", ready("reason"), Some(1)),
        column("Plan", "string", ".status.plan".into(), Some(1)),
        column("Age", "date", ".metadata.creationTimestamp".into(), None),
    ]
}

/// The definition of the resource: what `luminate-operator crd` prints.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    let mut definition = Luminate::crd();
    for version in &mut definition.spec.versions {
        version.additional_printer_columns = Some(columns());
        let Some(schema) = &mut version.schema else { continue };
        let Some(properties) = schema.open_api_v3_schema.take() else { continue };
        let mut tree = serde_json::to_value(&properties).unwrap_or_default();
        simplify(&mut tree);
        add_rules(&mut tree);
        schema.open_api_v3_schema = Some(serde_json::from_value(tree).unwrap_or(properties));
    }
    definition
}

/// The definition as YAML.
///
/// # Errors
/// A text that YAML can't hold; none is known.
pub fn definition_yaml() -> Result<String, serde_saphyr::SerializeError> {
    let values = serde_json::to_value(definition()).unwrap_or_default();
    serde_saphyr::to_string(&values)
}

fn add_rules(root: &mut Value) {
    for rule in rules() {
        let names = rule.at.split('.').filter(|name| !name.is_empty());
        let place = names.fold(String::new(), |place, name| match name.strip_suffix("[]") {
            Some(list) => format!("{place}/properties/{list}/items"),
            None => format!("{place}/properties/{name}"),
        });
        if let Some(Value::Object(node)) = root.pointer_mut(&place) {
            let rules = node.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
            if let Value::Array(rules) = rules {
                rules.push(json!({ "rule": rule.rule, "message": rule.message }));
            }
        }
    }
}

/// Takes out what only says again what is known: `null` beside an optional field, sizes of Rust's
/// integers that Kubernetes doesn't know, and the defaults of a section's fields at the section itself.
fn simplify(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            fields.remove("nullable");
            fields.remove("title");
            if let Some(format) = fields.get_mut("format") {
                simplify_format(format);
            }
            if fields.get("minimum").is_some_and(|least| least == 0.0) && fields.contains_key("format") {
                fields.insert("minimum".to_owned(), json!(0));
            }
            empty_default(fields);
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn simplify_format(format: &mut Value) {
    match format.as_str() {
        Some("uint16" | "uint32") => *format = "int32".into(),
        Some("uint64") => *format = "int64".into(),
        _ => {}
    }
}

fn empty_default(fields: &mut Map<String, Value>) {
    let section = fields.contains_key("properties");
    if let Some(default) = fields.get_mut("default").filter(|_| section) {
        *default = json!({});
    }
}

#[cfg(test)]
mod tests {
    use kube::core::cel::Validator;

    use super::*;

    fn schema() -> Value {
        let schema = definition().spec.versions.remove(0).schema.unwrap();
        serde_json::to_value(schema.open_api_v3_schema.unwrap()).unwrap()
    }

    /// A resource of this name and spec; `spec` is YAML.
    fn resource(name: &str, spec: &str) -> Value {
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        json!({
            "apiVersion": "luminate.dev/v1alpha1", "kind": "Luminate",
            "metadata": { "name": name, "namespace": "default" }, "spec": spec,
        })
    }

    /// As the API server fills in defaults: those of a section that is itself a default too.
    fn with_defaults(node: &Value, mut value: Value) -> Value {
        let properties = node["properties"].as_object();
        if let (Some(fields), Some(properties)) = (value.as_object_mut(), properties) {
            for (name, property) in properties {
                let given = fields.get(name).or(property.get("default")).cloned();
                if let Some(given) = given {
                    fields.insert(name.clone(), with_defaults(property, given));
                }
            }
        }
        value
    }

    fn refusals(object: &Value, old: Option<&Value>) -> Vec<String> {
        let schema = schema();
        let object = with_defaults(&schema, object.clone());
        let old = old.map(|old| with_defaults(&schema, old.clone()));
        match Validator::new().validate(&schema, &object, old.as_ref()) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
        }
    }

    fn created(spec: &str) -> String {
        refusals(&resource("prod", spec), None).join("; ")
    }

    fn changed(old: &str, new: &str) -> String {
        refusals(&resource("prod", new), Some(&resource("prod", old))).join("; ")
    }

    const ROCKSDB: &str = "{backend: RocksDB}";
    const CLICKHOUSE: &str = "{backend: ClickHouse, clickhouse: {endpoints: ['http://clickhouse:8123']}}";

    #[test]
    fn the_committed_file_is_current() {
        let committed = include_str!("../../luminate.yaml");
        let current = definition_yaml().unwrap();
        assert!(
            committed == current,
            "crds/luminate.yaml is out of date: luminate-operator crd > crds/luminate.yaml"
        );
        let read_back: Value = serde_saphyr::from_str(committed).unwrap();
        assert_eq!(read_back, serde_json::to_value(definition()).unwrap());
    }

    #[test]
    fn it_is_small_enough_to_apply() {
        assert!(definition_yaml().unwrap().len() < 64 << 10);
    }

    #[test]
    fn every_rule_stands_where_it_was_meant_to() {
        let text = schema().to_string();
        for rule in rules() {
            let message = Value::from(rule.message.clone()).to_string();
            assert!(text.contains(&message), "{}", rule.message);
            assert!(!rule.message.contains('\n') && !rule.rule.contains('\n'));
        }
    }

    /// As the API server does when it gets the definition.
    #[test]
    fn every_default_keeps_the_rules_of_its_place() {
        fn walk(node: &Value, checked: &mut usize) {
            if node.get("default").is_some() && node.get("x-kubernetes-validations").is_some() {
                let outcome = Validator::new().validate(node, &node["default"], None);
                assert!(outcome.is_ok(), "{node}");
                *checked += 1;
            }
            node["properties"].as_object().into_iter().flatten().for_each(|(_, field)| walk(field, checked));
        }
        let mut checked = 0;
        walk(&schema(), &mut checked);
        assert!(checked > 0);
    }

    #[test]
    fn three_lines_are_enough() {
        assert_eq!(created(ROCKSDB), "");
        assert_eq!(created(CLICKHOUSE), "");
    }

    #[test]
    fn exactly_the_section_of_the_backend_may_be_set() {
        assert_eq!(created("{backend: RocksDB, rocksdb: {storage: 1Gi}}"), "");
        assert!(created("{backend: ClickHouse}").contains("needs the section clickhouse"));
        let both = "clickhouse: {endpoints: ['http://c:8123']}, rocksdb: {}";
        assert!(created(&format!("{{backend: RocksDB, {both}}}")).contains("clickhouse must be left out"));
        assert!(created(&format!("{{backend: ClickHouse, {both}}}")).contains("rocksdb must be left out"));
    }

    #[test]
    fn a_name_must_serve_for_a_service() {
        let spec = ROCKSDB;
        for good in ["a", "prod", "prod-2", &"a".repeat(40)] {
            assert_eq!(refusals(&resource(good, spec), None).join(""), "", "{good}");
        }
        for bad in ["2prod", "a.b", "a-", &"a".repeat(41)] {
            assert!(refusals(&resource(bad, spec), None).join("").contains("metadata.name"), "{bad}");
        }
    }

    #[test]
    fn one_worker_owns_the_volume() {
        assert_eq!(created("{backend: RocksDB, replicas: 0}"), "");
        assert!(created("{backend: RocksDB, replicas: 2}").contains("replicas must be 0"));
        assert_eq!(created(&CLICKHOUSE.replace("{backend", "{replicas: 5, backend")), "");
    }

    #[test]
    fn a_volume_grows_but_never_shrinks() {
        let of = |size: &str| format!("{{backend: RocksDB, rocksdb: {{storage: {size}}}}}");
        assert_eq!(changed(&of("100Gi"), &of("200Gi")), "");
        assert_eq!(changed(&of("1Ti"), &of("1024Gi")), "");
        assert!(changed(&of("200Gi"), &of("100Gi")).contains("can't shrink"));
        assert_eq!(changed(ROCKSDB, &of("100Gi")), "");
        assert!(changed(ROCKSDB, &of("99Gi")).contains("can't shrink"));
        assert!(changed(&of("200Gi"), ROCKSDB).contains("can't shrink"));
        assert_eq!(changed(CLICKHOUSE, &of("1Gi")), "");
    }

    #[test]
    fn a_volume_keeps_its_class() {
        let of = |class: &str| format!("{{backend: RocksDB, rocksdb: {{storageClassName: {class}}}}}");
        assert_eq!(changed(&of("fast"), &of("fast")), "");
        assert!(changed(&of("fast"), &of("slow")).contains("storageClassName can't be changed"));
        assert!(changed(ROCKSDB, &of("slow")).contains("storageClassName can't be changed"));
        assert_eq!(changed(CLICKHOUSE, &of("slow")), "");
    }

    #[test]
    fn a_volume_has_a_size() {
        let of = |size: &str| created(&format!("{{backend: RocksDB, rocksdb: {{storage: '{size}'}}}}"));
        assert_eq!(of("1Gi"), "");
        assert!(of("0").contains("storage must be a size above zero"));
    }

    #[test]
    fn endpoints_are_addresses() {
        let at = |address: &str| created(&CLICKHOUSE.replace("http://clickhouse:8123", address));
        assert_eq!(at("https://[::1]:8443"), "");
        assert!(at("clickhouse").contains("endpoints"));
        assert!(at("http://clickhouse:port").contains("endpoints"));
    }

    #[test]
    fn replicas_lie_between_their_bounds() {
        let of = |bounds: &str| {
            created(&CLICKHOUSE.replace("endpoints:", &format!("autoscaling: {{{bounds}}}, endpoints:")))
        };
        assert_eq!(of("minReplicas: 4, maxReplicas: 4"), "");
        assert!(of("minReplicas: 5, maxReplicas: 4").contains("minReplicas"));
        assert!(of("minReplicas: 11").contains("minReplicas"));
    }

    #[test]
    fn the_number_of_workers_does_not_leap_when_autoscaling_is_switched_off() {
        let of = |replicas: &str, enabled: &str| {
            let autoscaling = format!("autoscaling: {{enabled: {enabled}}}, endpoints:");
            let spec = CLICKHOUSE.replace("endpoints:", &autoscaling);
            spec.replace("{backend", &format!("{{replicas: {replicas}, backend"))
        };
        assert!(changed(CLICKHOUSE, &of("1", "false")).contains("must not leap"));
        assert!(changed(CLICKHOUSE, &of("11", "false")).contains("must not leap"));
        assert_eq!(changed(CLICKHOUSE, &of("3", "false")), "");
        assert_eq!(changed(&of("3", "false"), &of("1", "false")), "");
        assert_eq!(changed(&of("1", "false"), &of("1", "true")), "");
        assert_eq!(created(&of("1", "false")), "");
        assert_eq!(changed(ROCKSDB, &of("1", "false")), "");
    }

    #[test]
    fn trust_has_one_source() {
        let of =
            |tls: &str| created(&CLICKHOUSE.replace("endpoints:", &format!("tls: {{{tls}}}, endpoints:")));
        assert_eq!(of("caSecretRef: {name: a}"), "");
        assert_eq!(of("caConfigMapRef: {name: a}"), "");
        assert!(of("caSecretRef: {name: a}, caConfigMapRef: {name: a}").contains("at most one"));
    }

    #[test]
    fn keys_have_one_source() {
        let of = |auth: &str| created(&format!("{{backend: RocksDB, auth: {{{auth}}}}}"));
        assert_eq!(of("jwtSecretRef: {name: a}"), "");
        assert_eq!(of("jwksUrl: 'https://id.example/keys'"), "");
        assert!(of("jwtSecretRef: {name: a}, jwksSecretRef: {name: b}").contains("at most one"));
        assert!(of("jwksUrl: 'not an address'").contains("jwksUrl must be"));
    }

    #[test]
    fn an_ingress_needs_a_host() {
        let of = |ingress: &str| created(&format!("{{backend: RocksDB, ingress: {{{ingress}}}}}"));
        assert_eq!(of("enabled: true, host: metrics.example"), "");
        assert_eq!(of("enabled: false"), "");
        assert!(of("enabled: true").contains("ingress.host is needed"));
    }

    #[test]
    fn a_toleration_is_one_that_a_pod_may_have() {
        let of = |fields: &str| {
            created(&format!("{{backend: RocksDB, scheduling: {{tolerations: [{{{fields}}}]}}}}"))
        };
        assert_eq!(of("key: a, operator: Equal, value: b"), "");
        assert_eq!(of("operator: Exists"), "");
        assert_eq!(of("key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5"), "");
        assert!(of("operator: Equal, value: b").contains("operator must be Exists where key is left out"));
        assert!(of("key: a, operator: Exists, value: b").contains("value must be left out"));
        let seconds = "effect must be NoExecute";
        assert!(of("key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 5").contains(seconds));
        assert!(of("key: a, operator: Exists, tolerationSeconds: 5").contains(seconds));
    }

    #[test]
    fn defaults_of_the_schema_are_those_of_the_types() {
        for (spec, of) in [
            (ROCKSDB, super::super::LuminateSpec::of(super::super::Backend::RocksDB)),
            (CLICKHOUSE, {
                let mut spec = super::super::LuminateSpec::of(super::super::Backend::ClickHouse);
                spec.clickhouse = Some(super::super::ClickHouseSection::at(["http://clickhouse:8123"]));
                spec
            }),
        ] {
            let stored = with_defaults(&schema(), resource("prod", spec));
            assert_eq!(stored["spec"], serde_json::to_value(&of).unwrap());
            assert_eq!(
                serde_json::from_value::<super::super::LuminateSpec>(stored["spec"].clone()).unwrap(),
                of
            );
        }
    }

    /// The API server bounds what a rule may cost by the bounds of the values that it reads.
    #[test]
    fn every_text_list_and_map_is_bounded() {
        fn walk(node: &Value, path: &str, unbounded: &mut Vec<String>) {
            let bounded = |key: &str| node.get(key).is_some() || node.get("enum").is_some();
            match node["type"].as_str() {
                Some("string") if !bounded("maxLength") && node.get("format").is_none() => {
                    unbounded.push(path.to_owned());
                }
                Some("array") if !bounded("maxItems") => unbounded.push(path.to_owned()),
                Some("object") if node.get("additionalProperties").is_some() && !bounded("maxProperties") => {
                    unbounded.push(path.to_owned());
                }
                _ => {}
            }
            for (name, field) in node["properties"].as_object().into_iter().flatten() {
                walk(field, &format!("{path}.{name}"), unbounded);
            }
            for key in ["items", "additionalProperties"] {
                if node.get(key).is_some_and(Value::is_object) {
                    walk(&node[key], &format!("{path}[]"), unbounded);
                }
            }
        }
        let mut unbounded = Vec::new();
        walk(&schema()["properties"]["spec"], "spec", &mut unbounded);
        walk(&schema()["properties"]["status"], "status", &mut unbounded);
        assert_eq!(unbounded, Vec::<String>::new());
    }
}
