//! The leaves of the resource's schema, and other values for them.

use serde_json::{Map, Value, json};

use crate::operator::DEFINITION;

/// What the harness makes, so that references to it are good.
pub const REFERRED: &str = "fuzz";
/// A node of a cluster of our own has this label.
const NODE_LABEL: (&str, &str) = ("type", "kwok");

/// A step from a value into it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Field(String),
    /// The first of a list.
    Item,
    /// The entry `fuzz` of a map.
    Entry,
}

/// A place in the spec that has a value, or may have one.
#[derive(Debug, Clone)]
pub struct Leaf {
    parts: Vec<Part>,
    /// The schemas on the way to it, its own last.
    schemas: Vec<Value>,
}

/// The schema of `spec` as it is committed.
///
/// # Panics
/// When the definition isn't one.
#[must_use]
pub fn schema() -> Value {
    let mut definition: Value = serde_saphyr::from_str(DEFINITION).expect("YAML");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].take()
}

/// Every leaf of a schema: values of which the schema knows no parts. A list and a map are leaves, and so are the
/// fields of what they hold.
#[must_use]
pub fn of(schema: &Value) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    walk(&mut vec![], &mut vec![schema.clone()], &mut leaves);
    leaves
}

fn walk(parts: &mut Vec<Part>, schemas: &mut Vec<Value>, leaves: &mut Vec<Leaf>) {
    let schema = schemas.last().cloned().unwrap_or_default();
    let mut into = |part: Part, inner: &Value, leaves: &mut Vec<Leaf>| {
        parts.push(part);
        schemas.push(inner.clone());
        walk(parts, schemas, leaves);
        parts.pop();
        schemas.pop();
    };
    if let Some(fields) = schema["properties"].as_object() {
        for (name, inner) in fields {
            into(Part::Field(name.clone()), inner, leaves);
        }
        return;
    }
    for (key, part) in [("items", Part::Item), ("additionalProperties", Part::Entry)] {
        if schema[key]["properties"].is_object() {
            into(part, &schema[key], leaves);
        }
    }
    leaves.push(Leaf { parts: parts.clone(), schemas: schemas.clone() });
}

impl Leaf {
    /// Its path, such as `clickhouse.tls.caSecretRef.name`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Field(name) if path.is_empty() => path.push_str(name),
                Part::Field(name) => path.push_str(&format!(".{name}")),
                Part::Item => path.push_str("[0]"),
                Part::Entry => path.push_str(".fuzz"),
            }
        }
        path
    }

    /// `spec` with another value there; what has to be around it is made.
    ///
    /// # Panics
    /// When the schema has a pattern for which no value is known here.
    #[must_use]
    pub fn changed(&self, spec: &Value, random: &mut fastrand::Rng) -> Value {
        let mut spec = spec.clone();
        let mut at = &mut spec;
        for (depth, part) in self.parts.iter().enumerate() {
            // What has to be there beside it, such as a reference's name.
            if !at.is_object() && !at.is_array() {
                *at = least(&self.schemas[depth], random);
            }
            at = match part {
                Part::Field(name) => &mut at[name.as_str()],
                Part::Entry => &mut at[REFERRED],
                Part::Item => {
                    let list = at.as_array_mut().expect("the schema says so");
                    if list.is_empty() {
                        list.push(Value::Null);
                    }
                    &mut list[0]
                }
            };
        }
        let schema = self.schemas.last().cloned().unwrap_or_default();
        let optional =
            self.schemas.len() > 1 && !schema.as_object().is_some_and(|own| own.contains_key("default"));
        // Now and then it is left out instead.
        if optional && !at.is_null() && random.u8(0..4) == 0 {
            *at = Value::Null;
            return without_nulls(spec);
        }
        let before = at.clone();
        for _ in 0..20 {
            *at = other(&schema, &self.path(), &before, random);
            if *at != before {
                break;
            }
        }
        without_nulls(spec)
    }
}

/// The API server takes no null for a field.
fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            let taken = std::mem::take(fields);
            *fields = taken
                .into_iter()
                .filter(|(_, own)| !own.is_null())
                .map(|(k, v)| (k, without_nulls(v)))
                .collect();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_nulls(item.take())),
        _ => {}
    }
    value
}

/// The smallest value of a schema.
fn least(schema: &Value, random: &mut fastrand::Rng) -> Value {
    match schema["type"].as_str() {
        Some("array") => json!([]),
        Some("object") | None if !schema["x-kubernetes-int-or-string"].is_boolean() => {
            let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = needed.map(|name| {
                (name.to_owned(), other(&schema["properties"][name], name, &Value::Null, random))
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        _ => other(schema, "", &Value::Null, random),
    }
}

fn other(schema: &Value, path: &str, before: &Value, random: &mut fastrand::Rng) -> Value {
    if let Some(all) = schema["enum"].as_array() {
        return all[random.usize(..all.len())].clone();
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return over_the_template(random);
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return one_of(random, &["750m", "1", "2", "1536Mi", "2Gi", "1.5Gi"]);
    }
    match schema["type"].as_str() {
        Some("boolean") => json!(!before.as_bool().unwrap_or(false)),
        Some("integer") => integer(schema, path, random),
        Some("string") => string(schema, path, random),
        Some("array") => list(&schema["items"], path, random),
        _ => map(schema, path, random),
    }
}

fn integer(schema: &Value, path: &str, random: &mut fastrand::Rng) -> Value {
    // Each is a pod.
    if path.ends_with("eplicas") {
        return json!(random.i64(1..=4));
    }
    let bound = |name: &str, otherwise: f64| schema[name].as_f64().unwrap_or(otherwise) as i64;
    let (least, most) = (bound("minimum", 0.0), bound("maximum", 1e6));
    match random.u8(0..4) {
        0 => json!(least),
        1 => json!(most),
        _ => json!(random.i64(least..=most)),
    }
}

fn list(items: &Value, path: &str, random: &mut fastrand::Rng) -> Value {
    let count = random.usize(0..=2);
    let mut list: Vec<Value> = Vec::new();
    for _ in 0..count {
        let mut item = match items["properties"].as_object() {
            None => other(items, path, &Value::Null, random),
            Some(fields) => {
                let mut item = least(items, random);
                for (name, schema) in fields {
                    if random.bool() {
                        item[name] = other(schema, name, &Value::Null, random);
                    }
                }
                item
            }
        };
        item = without_nulls(item);
        if !list.contains(&item) {
            list.push(item);
        }
    }
    Value::Array(list)
}

fn map(schema: &Value, path: &str, random: &mut fastrand::Rng) -> Value {
    let inner = &schema["additionalProperties"];
    if path == "scheduling.nodeSelector" {
        return json!({ NODE_LABEL.0: NODE_LABEL.1 });
    }
    let mut map = Map::new();
    for key in ["fuzz", "example.dev/fuzz"].into_iter().take(random.usize(0..=2)) {
        let value = match inner["properties"].is_object() {
            true => least(inner, random),
            false => json!(format!("v{}", random.u8(..))),
        };
        map.insert(key.to_owned(), value);
    }
    Value::Object(map)
}

fn one_of(random: &mut fastrand::Rng, values: &[&str]) -> Value {
    json!(values[random.usize(..values.len())])
}

/// Good values, by pattern.
fn string(schema: &Value, path: &str, random: &mut fastrand::Rng) -> Value {
    let field = path.rsplit('.').next().unwrap_or_default();
    let Some(pattern) = schema["pattern"].as_str() else { return by_name(field, random) };
    match pattern {
        r"^[0-9]+(ms|s|m|h|d)$" => one_of(random, &["250ms", "5s", "30s", "2m", "3h", "10d", "45d"]),
        r"^[0-9]+(s|m)$" => one_of(random, &["15s", "45s", "2m"]),
        r"^[0-9]+ ?([KMGT]i?)?B?$" => one_of(random, &["1 MB", "32 MiB", "128MB", "1GiB", "2000000"]),
        r"^[0-9]+(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$" => {
            json!(format!("{}Gi", random.u8(2..200)))
        }
        r"^[-._a-zA-Z0-9]+$" => one_of(random, &["other", "ca.crt", "jwt-secret", "jwks.json"]),
        r"^https?://[^/?#@\s]+/?$" => one_of(random, &["http://127.0.0.1:9", "https://127.0.0.1:10/"]),
        r"^https://[^/?#@\s]+(/[^#\s]*)?$" => {
            one_of(random, &["https://id.example/keys", "https://id.example:8443/"])
        }
        r"^(\*\.)?([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$" => {
            one_of(random, &["metrics.example", "*.example", "a.b.example"])
        }
        r"^/" => one_of(random, &["/", "/metrics", "/a/b"]),
        r"^[A-Za-z0-9_.{}-]*$" => one_of(random, &["", "main", "{cluster}"]),
        r"^[A-Za-z_][A-Za-z0-9_]*$" => one_of(random, &["luminate", "other_db", "_x"]),
        r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$" => one_of(random, &["1.2.3", "latest", "sha-1"]),
        r"^[a-z0-9]([a-z0-9._/:-]*[a-z0-9])?$" => {
            one_of(random, &["example/luminate", "registry.example:5000/a"])
        }
        r"^sha256:[a-f0-9]{64}$" => json!(format!("sha256:{:064x}", random.u64(..))),
        other => panic!("{path}: no value is known for the pattern {other}"),
    }
}

/// Good values, by the name of the field; now and then a reference to nothing.
fn by_name(field: &str, random: &mut fastrand::Rng) -> Value {
    match field {
        "name" if random.u8(0..5) == 0 => json!("nothing"),
        "name" | "priorityClassName" => json!(REFERRED),
        "storageClassName" => one_of(random, &["expandable", "local-path"]),
        "className" => one_of(random, &["nginx", "public"]),
        "key" => one_of(random, &["dedicated", "example.dev/taint"]),
        "value" => one_of(random, &["a", "b", ""]),
        _ => one_of(random, &["https://id.example", "luminate", "a b", "${HOME}", "x: y # z"]),
    }
}

/// Some that are taken, and some that must be refused.
fn over_the_template(random: &mut fastrand::Rng) -> Value {
    match random.u8(0..6) {
        0 => json!({}),
        1 => json!({ "metadata": { "labels": { "team": "a" }, "annotations": { "example.dev/a": "b" } } }),
        2 => json!({ "spec": { "terminationGracePeriodSeconds": 90 } }),
        3 => {
            json!({ "spec": { "containers": [{ "name": "worker", "env": [{ "name": "A", "value": "b" }] }] } })
        }
        4 => json!({ "spec": { "hostNetwork": true } }),
        _ => json!({ "spec": { "dnsPolicy": "Default", "nonsense": { "a": 1 } } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_has_another_value() {
        let leaves = of(&schema());
        assert!(leaves.len() > 100, "{}", leaves.len());
        let mut random = fastrand::Rng::with_seed(1);
        let spec = json!({ "backend": "ClickHouse", "clickhouse": { "endpoints": ["http://a:1"] } });
        for leaf in leaves {
            let changed = (0..50).any(|_| leaf.changed(&spec, &mut random) != spec);
            assert!(changed, "{}", leaf.path());
        }
    }

    #[test]
    fn what_a_value_needs_beside_it_is_made() {
        let leaves = of(&schema());
        let leaf = leaves.iter().find(|leaf| leaf.path() == "auth.jwtSecretRef.key").unwrap();
        let changed = leaf.changed(&json!({ "backend": "RocksDB" }), &mut fastrand::Rng::with_seed(1));
        assert!(changed["auth"]["jwtSecretRef"]["name"].is_string(), "{changed}");
        assert!(leaves.iter().any(|leaf| leaf.path() == "scheduling.tolerations[0].effect"));
        assert!(leaves.iter().any(|leaf| leaf.path() == "limits.tiers.fuzz.queryRps"));
    }
}
