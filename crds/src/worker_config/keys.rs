//! Every key of the configuration, read from its schema: so no list of keys can drift from the types.

use std::fmt;

use serde_json::{Map, Value};

use super::WorkerConfig;

/// What all environment variables that override a key begin with.
pub const ENV_PREFIX: &str = "LUMINATE_";

/// A key that holds a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its path, such as `server.tls.cert_file`.
    pub path: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be left open (`null`).
    pub optional: bool,
    /// Whether its value is never shown.
    pub secret: bool,
    /// What it is for.
    pub about: String,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An IP address.
    Address,
    /// A whole number, at most this.
    Number {
        /// The largest.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(Vec<String>),
    /// A size, such as `10 MB`.
    Size,
    /// A duration, such as `10s`.
    Span,
    /// A list of texts, or of these words.
    List(Option<Vec<String>>),
    /// Named groups of keys; can't be set from the environment.
    Groups,
}

impl Key {
    /// The environment variable that overrides it, such as `LUMINATE_SERVER_TLS_CERT_FILE`.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("{ENV_PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }
}

impl fmt::Display for Kind {
    /// What is allowed, in words.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => formatter.write_str("a text"),
            Self::Address => formatter.write_str("an IP address, such as 0.0.0.0 or ::"),
            Self::Number { max: u64::MAX } => formatter.write_str("a whole number that isn't negative"),
            Self::Number { max } => write!(formatter, "a whole number from 0 to {max}"),
            Self::Flag => formatter.write_str("true or false"),
            Self::OneOf(words) => write!(formatter, "one of {}", words.join(", ")),
            Self::Size => {
                formatter.write_str("a size with its unit (B, KB, MB, GB, KiB, MiB, GiB), such as 10 MB")
            }
            Self::Span => formatter.write_str("a duration with its unit (ms, s, m, h, d), such as 10s"),
            Self::List(None) => formatter.write_str("a list of texts"),
            Self::List(Some(words)) => write!(formatter, "a list of {}", words.join(", ")),
            Self::Groups => formatter.write_str("groups of keys by name"),
        }
    }
}

/// Every key that holds a value, sorted by its path.
#[must_use]
pub fn keys() -> Vec<Key> {
    let schema = schemars::schema_for!(WorkerConfig);
    let root = schema.as_value();
    let mut keys = Vec::new();
    collect(root, root, "", &mut keys);
    keys
}

fn collect(node: &Value, root: &Value, path: &str, keys: &mut Vec<Key>) {
    let none = Map::new();
    let fields = node.get("properties").and_then(Value::as_object).unwrap_or(&none);
    for (name, field) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let (definition, named, optional) = resolved(field, root);
        if definition.get("properties").is_some() {
            collect(definition, root, &path, keys);
            continue;
        }
        keys.push(Key {
            path,
            kind: kind(definition, root, named),
            optional,
            secret: definition.get("writeOnly").is_some_and(|secret| secret == true),
            about: text(field, "description"),
        });
    }
}

/// The definition behind references and `null`; its name, if it has one; whether `null` is allowed.
fn resolved<'a>(field: &'a Value, root: &'a Value) -> (&'a Value, &'a str, bool) {
    let mut optional =
        field.get("type").and_then(Value::as_array).is_some_and(|types| types.contains(&"null".into()));
    let mut field = field;
    if let Some(choices) = field.get("anyOf").and_then(Value::as_array) {
        optional = true;
        field = choices.iter().find(|choice| choice.get("type") != Some(&"null".into())).unwrap_or(field);
    }
    let Some(reference) = field.get("$ref").and_then(Value::as_str) else {
        return (field, "", optional);
    };
    let definition = root.pointer(reference.trim_start_matches('#')).unwrap_or(field);
    (definition, reference.rsplit('/').next().unwrap_or_default(), optional)
}

fn kind(definition: &Value, root: &Value, named: &str) -> Kind {
    match named {
        "ByteSize" => return Kind::Size,
        "Span" => return Kind::Span,
        _ => {}
    }
    if let Some(words) = words(definition) {
        return Kind::OneOf(words);
    }
    match type_of(definition) {
        "integer" => Kind::Number {
            max: definition.get("maximum").and_then(Value::as_u64).unwrap_or_else(|| largest(definition)),
        },
        "boolean" => Kind::Flag,
        "array" => Kind::List(definition.get("items").and_then(|items| words(resolved(items, root).0))),
        "object" => Kind::Groups,
        _ if definition.get("format").is_some_and(|format| format == "ip") => Kind::Address,
        _ => Kind::Text,
    }
}

fn largest(definition: &Value) -> u64 {
    match definition.get("format").and_then(Value::as_str) {
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        _ => u64::MAX,
    }
}

/// The words of an enumeration, whether or not its words are described.
fn words(definition: &Value) -> Option<Vec<String>> {
    let owned = |word: &Value| word.as_str().map(str::to_owned);
    if let Some(words) = definition.get("enum").and_then(Value::as_array) {
        return words.iter().map(owned).collect();
    }
    let described = definition.get("oneOf").and_then(Value::as_array)?;
    described.iter().map(|word| word.get("const").and_then(owned)).collect()
}

fn type_of(definition: &Value) -> &str {
    match definition.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default()
        }
        _ => "",
    }
}

fn text(node: &Value, name: &str) -> String {
    node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(path: &str) -> Key {
        keys().into_iter().find(|key| key.path == path).unwrap_or_else(|| panic!("no key {path}"))
    }

    #[test]
    fn each_kind_is_recognised() {
        assert_eq!(key("server.host").kind, Kind::Address);
        assert_eq!(key("server.port").kind, Kind::Number { max: 65_535 });
        assert_eq!(key("server.max_body_bytes").kind, Kind::Size);
        assert_eq!(key("auth.leeway").kind, Kind::Span);
        assert_eq!(key("auth.enabled").kind, Kind::Flag);
        assert_eq!(key("auth.audience").kind, Kind::List(None));
        assert!(
            matches!(key("auth.algorithms").kind, Kind::List(Some(words)) if words.contains(&"EdDSA".into()))
        );
        assert_eq!(key("storage.backend").kind, Kind::OneOf(vec!["rocksdb".into(), "clickhouse".into()]));
        assert_eq!(key("rate_limits.tiers").kind, Kind::Groups);
        assert_eq!(key("storage.clickhouse.max_batch_rows").kind, Kind::Number { max: u64::MAX });
    }

    #[test]
    fn open_keys_and_secrets_are_known_as_such() {
        let secrets: Vec<String> = keys().into_iter().filter(|key| key.secret).map(|key| key.path).collect();
        assert_eq!(secrets, ["auth.jwt_secret", "storage.clickhouse.password"]);
        assert!(key("auth.jwt_secret").optional && key("storage.rocksdb.memory").optional);
        assert!(key("metrics.port").optional && !key("server.port").optional);
        assert_eq!(key("storage.rocksdb.memory").kind, Kind::Size);
        assert_eq!(key("metrics.port").kind, Kind::Number { max: 65_535 });
    }

    #[test]
    fn no_two_keys_share_a_variable_and_each_is_explained() {
        let all = keys();
        let names: HashSet<String> = all.iter().map(Key::env_name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.contains("LUMINATE_STORAGE_ROCKSDB_PATH"));
        for key in all {
            assert!(!key.about.is_empty(), "{} has no description", key.path);
        }
    }
}
