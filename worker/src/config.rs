//! Configuration: file, `${VAR}` and `LUMINATE_*` become one checked value.
//!
//! Only this file and `main.rs` read the environment, and only `rules` says which values are allowed.

mod machine;
mod rules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use luminate_crds::worker_config::{
    ENV_PREFIX, InvalidVariable, Key, Kind, WorkerConfig, escape, keys, substitute,
};
use serde_json::{Map, Value};

/// Names the file; everything else that begins with `LUMINATE_` overrides a key.
pub const FILE_VARIABLE: &str = "LUMINATE_CONFIG";

/// The variables of a process.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's. Variables that aren't UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn overrides(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.0.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX) && *name != FILE_VARIABLE);
        own.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Why the worker can't start with its configuration; one message for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {path} can't be read: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is wrong is in this file.
    #[error("{path}: {error}", path = path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<ConfigError>,
    },
    /// A `${VAR}` without default names a variable that isn't set, or has no end.
    #[error(transparent)]
    Substitution(#[from] InvalidVariable),
    /// The file isn't YAML.
    #[error("this is not valid YAML: {0}")]
    Syntax(String),
    /// A key that doesn't exist.
    #[error("{key}: there is no such key{}", hint.as_ref().map(|hint| format!("; did you mean {hint}?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The nearest that does.
        hint: Option<String>,
    },
    /// A value that isn't allowed.
    #[error("{key}{source_name}: {value} is not allowed; it must be {allowed}", source_name = from.as_ref().map(|from| format!(" (from {from})")).unwrap_or_default())]
    Refused {
        /// The key.
        key: String,
        /// The variable that set it, if it wasn't the file.
        from: Option<String>,
        /// The value, or `***`.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

impl ConfigError {
    /// With the file it is in, unless a variable is to blame.
    fn of_file(self, path: &Path) -> Self {
        match self {
            Self::Refused { from: Some(_), .. } => self,
            _ => Self::In { path: path.to_owned(), error: Box::new(self) },
        }
    }
}

/// A checked configuration, and what to warn of once logs are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration; memory and threads are filled in.
    pub config: WorkerConfig,
    /// Variables that begin with `LUMINATE_` and mean nothing.
    pub unrecognised: Vec<String>,
}

/// The configuration from `file`, if there is one, and `environment`.
///
/// # Errors
/// [`ConfigError`], the first that is found.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Loaded, ConfigError> {
    let mut loaded = match file {
        None => parse("", environment)?,
        Some(path) => {
            let unreadable = |error: std::io::Error| ConfigError::Unreadable {
                path: path.to_owned(),
                reason: error.to_string(),
            };
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            parse(&text, environment).map_err(|error| error.of_file(path))?
        }
    };
    machine::fill_in(&mut loaded.config);
    Ok(loaded)
}

/// All of [`load`] but the file and the machine: the configuration that `text` and `environment` are.
///
/// # Errors
/// [`ConfigError`], the first that is found.
pub fn parse(text: &str, environment: &Environment) -> Result<Loaded, ConfigError> {
    let keys = keys();
    // 1. Text to values.
    let text = substitute(text, |name| environment.get(name))?;
    let mut values = values(&text)?;
    refuse_unknown(&Value::Object(values.clone()), "", &keys)?;
    // 2. Overrides.
    let mut sources = BTreeMap::new();
    let mut unrecognised = Vec::new();
    for (name, value) in environment.overrides() {
        match keys.iter().find(|key| key.kind != Kind::Groups && key.env_name() == name) {
            Some(key) => {
                set(&mut values, &key.path, from_variable(key, name, value)?);
                sources.insert(key.path.clone(), name.to_owned());
            }
            None => unrecognised.push(name.to_owned()),
        }
    }
    // 3. Values to types, and what the types can't say.
    let values = Value::Object(values);
    let config: WorkerConfig = serde_path_to_error::deserialize(&values)
        .map_err(|error| refused_by_type(&error, &values, &keys, &sources))?;
    rules::check(&config).map_err(|broken| {
        let from = sources.get(broken.key).cloned();
        ConfigError::Refused {
            key: broken.key.to_owned(),
            from,
            value: broken.value,
            allowed: broken.allowed,
        }
    })?;
    Ok(Loaded { config, unrecognised })
}

/// The file as nested values. Messages carry no piece of the text: it may hold secrets.
fn values(text: &str) -> Result<Map<String, Value>, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options(text, options) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(ConfigError::Syntax("it must be a mapping of sections".to_owned())),
        Err(_) if text.trim().is_empty() => Ok(Map::new()),
        Err(error) => Err(ConfigError::Syntax(error.to_string())),
    }
}

fn refuse_unknown(value: &Value, path: &str, keys: &[Key]) -> Result<(), ConfigError> {
    let known = keys.iter().any(|key| key.path == path);
    let Value::Object(fields) = value else { return Ok(()) };
    if known {
        return Ok(());
    }
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let section = format!("{path}.");
        if !keys.iter().any(|key| key.path == path || key.path.starts_with(&section)) {
            return Err(ConfigError::UnknownKey { hint: nearest(&path, keys), key: path });
        }
        refuse_unknown(value, &path, keys)?;
    }
    Ok(())
}

/// The key that was probably meant: the same name elsewhere, or nearly the same path.
fn nearest(path: &str, keys: &[Key]) -> Option<String> {
    let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let edits = |key: &&Key| distance(path, &key.path);
    let same = keys.iter().filter(|key| name(&key.path) == name(path)).min_by_key(edits);
    let near = || keys.iter().min_by_key(edits).filter(|key| edits(key) <= 3);
    same.or_else(near).map(|key| key.path.clone())
}

/// Letters to insert, delete or replace to come from one text to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, left) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, right) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// What a variable's text means for its key. Nothing leaves an optional key open, and a list empty.
fn from_variable(key: &Key, name: &str, text: &str) -> Result<Value, ConfigError> {
    let refused = || ConfigError::Refused {
        key: key.path.clone(),
        from: Some(name.to_owned()),
        value: if key.secret { "***".to_owned() } else { format!("{text:?}") },
        allowed: key.kind.to_string(),
    };
    let number = |max: u64| text.trim().parse::<u64>().ok().filter(|number| *number <= max);
    match &key.kind {
        _ if text.is_empty() && key.optional => Ok(Value::Null),
        Kind::Number { max } => number(*max).map(Value::from).ok_or_else(refused),
        Kind::Flag => text.trim().parse().map(Value::Bool).map_err(|_| refused()),
        Kind::List(_) => {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
        }
        _ => Ok(Value::from(text)),
    }
}

fn set(values: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((section, rest)) = path.split_once('.') else {
        values.insert(path.to_owned(), value);
        return;
    };
    let section = values.entry(section).or_insert(Value::Null);
    if !section.is_object() {
        *section = Value::Object(Map::new());
    }
    if let Value::Object(fields) = section {
        set(fields, rest, value);
    }
}

/// A value of the wrong type, with what its key allows. Inside of groups the type's own words must do.
fn refused_by_type(
    error: &serde_path_to_error::Error<serde_json::Error>,
    values: &Value,
    keys: &[Key],
    sources: &BTreeMap<String, String>,
) -> ConfigError {
    let path = error.path().to_string();
    let key = keys.iter().find(|key| path == key.path || path.starts_with(&format!("{}[", key.path)));
    let Some(key) = key else {
        return ConfigError::Refused {
            key: path,
            from: None,
            value: "this".to_owned(),
            allowed: format!("otherwise: {}", error.inner()),
        };
    };
    let value = key.path.split('.').try_fold(values, |value, name| value.get(name)).unwrap_or(&Value::Null);
    let shown = if key.secret { "***".to_owned() } else { value.to_string() };
    let quoted = matches!(key.kind, Kind::Text) && !value.is_string();
    ConfigError::Refused {
        key: key.path.clone(),
        from: sources.get(&key.path).cloned(),
        value: shown,
        allowed: if quoted { format!("{} (in quotes)", key.kind) } else { key.kind.to_string() },
    }
}

/// The effective configuration as YAML, secrets masked.
///
/// # Errors
/// A text that YAML can't hold; none is known.
pub fn print(config: &WorkerConfig) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(config).map(|text| escape(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, environment: Environment) -> Result<Loaded, String> {
        parse(text, &environment).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        parsed(text, Environment::default()).unwrap_err()
    }

    #[test]
    fn without_a_file_every_default_holds() {
        for text in ["", "\n", "# only a comment\n", "{}", "---\n"] {
            let loaded =
                parsed(text, Environment::default()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(loaded.config, WorkerConfig::default());
        }
    }

    #[test]
    fn the_file_is_read_with_its_variables_replaced() {
        let text =
            "server:\n  port: ${PORT}\n  max_body_bytes: ${SIZE:-5 MB}\nauth:\n  jwt_secret: \"${SECRET}\"\n";
        let secret = "0123456789abcdef0123456789abcdef";
        let environment = Environment::from([("PORT", "9000"), ("SECRET", secret)]);
        let config = parsed(text, environment).unwrap().config;
        assert_eq!(config.server.port, 9000);
        assert_eq!(config.server.max_body_bytes.bytes(), 5_000_000);
        assert_eq!(config.auth.jwt_secret.unwrap().expose(), secret);
    }

    #[test]
    fn a_variable_overrides_its_key() {
        let environment = Environment::from([
            ("LUMINATE_SERVER_PORT", "9090"),
            ("LUMINATE_STORAGE_ROCKSDB_PATH", "/srv/luminate"),
            ("LUMINATE_AUTH_AUDIENCE", "a, b"),
            ("LUMINATE_METRICS_ENABLED", "false"),
            ("LUMINATE_STORAGE_ROCKSDB_MEMORY", "2 GiB"),
            ("LUMINATE_RATE_LIMITS_ADDRESS_RPS", ""),
            ("LUMINATE_CONFIG", "/etc/luminate.yaml"),
        ]);
        let loaded = parsed("server: {port: 1234, host: \"::1\"}", environment).unwrap();
        assert_eq!(loaded.unrecognised, Vec::<String>::new());
        let config = loaded.config;
        assert_eq!((config.server.port, config.server.host.to_string()), (9090, "::1".to_owned()));
        assert_eq!(config.storage.rocksdb.path, Path::new("/srv/luminate"));
        assert_eq!(config.auth.audience, ["a", "b"]);
        assert!(!config.metrics.enabled);
        assert_eq!(config.storage.rocksdb.memory.unwrap().bytes(), 2 << 30);
        assert_eq!(config.rate_limits.address_rps, None);
    }

    #[test]
    fn a_variable_that_means_nothing_is_named_and_passed_over() {
        let environment =
            Environment::from([("LUMINATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"), ("OTHER", "x")]);
        assert_eq!(parsed("", environment).unwrap().unrecognised, ["LUMINATE_PORT_8080_TCP"]);
    }

    #[test]
    fn a_refusal_names_key_value_and_what_is_allowed() {
        for (text, expected) in [
            ("server: {prt: 1}", "server.prt: there is no such key; did you mean server.port?"),
            ("port: 1", "port: there is no such key; did you mean server.port?"),
            ("nonsense_entirely: 1", "nonsense_entirely: there is no such key"),
            (
                "server: {port: 70000}",
                "server.port: 70000 is not allowed; it must be a whole number from 0 to 65535",
            ),
            (
                "server: {port: \"x\"}",
                "server.port: \"x\" is not allowed; it must be a whole number from 0 to 65535",
            ),
            (
                "server: {header_timeout: 10}",
                "server.header_timeout: 10 is not allowed; it must be a duration with its unit (ms, s, m, h, d), such as 10s",
            ),
            (
                "storage: {backend: postgres}",
                "storage.backend: \"postgres\" is not allowed; it must be one of rocksdb, clickhouse",
            ),
            ("auth: {issuer: 5}", "auth.issuer: 5 is not allowed; it must be a list of texts"),
            (
                "storage: {clickhouse: {database: 5}}",
                "storage.clickhouse.database: 5 is not allowed; it must be a text (in quotes)",
            ),
        ] {
            assert_eq!(refusal(text), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_variable_that_set_the_value() {
        let refused = |name, value| parsed("", Environment::from([(name, value)])).unwrap_err();
        assert_eq!(
            refused("LUMINATE_SERVER_PORT", "70000"),
            "server.port (from LUMINATE_SERVER_PORT): \"70000\" is not allowed; it must be a whole number from 0 to 65535"
        );
        assert!(refused("LUMINATE_AUTH_ALGORITHMS", "HS256,none").starts_with(
            "auth.algorithms (from LUMINATE_AUTH_ALGORITHMS): [\"HS256\",\"none\"] is not allowed; it must be a list of HS256"
        ));
        assert!(refused("LUMINATE_QUERY_LIMITS_MAX_RANGE", "soon").contains("\"soon\" is not allowed"));
    }

    #[test]
    fn groups_of_tiers_are_checked_too() {
        let text = refusal("rate_limits: {tiers: {gold: {write_rsp: 5}}}");
        assert!(text.starts_with("rate_limits.tiers.gold") && text.contains("write_rsp"), "{text}");
    }

    #[test]
    fn no_message_shows_a_secret() {
        for text in [
            "auth: {jwt_secret: [canary]}",
            "auth: {jwt_secret: canary}",
            "auth: {jwt_secret: canary\n  broken",
            "auth:\n  jwt_secret: \"canary\n",
            "auth: {jwt_secret: canary, jwt_secret: canary}",
            "storage: {clickhouse: {password: {canary: canary}}}",
        ] {
            let message = refusal(text);
            assert!(!message.contains("canary"), "{message}");
        }
        let environment = Environment::from([("LUMINATE_AUTH_JWT_SECRET", "canary")]);
        assert!(!parsed("", environment).unwrap_err().contains("canary"));
        let text = "auth: {jwt_secret: 0123456789-canary-0123456789-canary}";
        let config = parsed(text, Environment::default()).unwrap().config;
        assert!(!print(&config).unwrap().contains("canary") && !format!("{config:?}").contains("canary"));
    }

    #[test]
    fn what_is_printed_is_a_configuration() {
        let mut odd = WorkerConfig::default();
        odd.storage.clickhouse.username = Some("$${A} # ${B".to_owned());
        for config in [WorkerConfig::default(), odd] {
            let printed = print(&config).unwrap();
            assert_eq!(parsed(&printed, Environment::default()).unwrap().config, config, "{printed}");
        }
    }
}
