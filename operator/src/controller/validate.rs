//! Step 2: a resource and what it refers to become a [`Validated`], or are refused. Pure.
//!
//! What the API server's schema refuses is refused here again: the resource may be older than the schema.

mod limits;
mod overrides;

use std::collections::BTreeMap;

use kube::ResourceExt;
use luminate_crds::condition::Reason;
use luminate_crds::luminate::{
    Amount, Backend, ClickHouseSection, KeyReference, Luminate, LuminateSpec, RocksDbSection, TaintEffect,
    TolerationOperator,
};
use luminate_crds::worker_config::WorkerConfig;
use serde_json::{Map, Value};

use super::build::config;
use super::references::{Looked, Reference, Role, wanted};

/// The shortest secret of tokens that workers accept.
pub const MIN_SECRET_BYTES: usize = 32;

/// Why a resource can't be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason, from the closed list.
    pub reason: Reason,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
}

impl Refused {
    fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self { reason: Reason::InvalidField, message: format!("{field}: {problem}") }
    }
}

type Checked = Result<(), Refused>;

/// The backend's settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendSettings {
    /// Stateless workers.
    ClickHouse(ClickHouseSection),
    /// One worker with a volume.
    RocksDb(RocksDbSection),
}

/// Where the keys of tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// Nobody needs a token.
    Disabled,
    /// A shared secret; `own` if the operator makes it.
    Secret {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
        /// Whether the operator makes it.
        own: bool,
    },
    /// Public keys in a Secret.
    Jwks {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
    },
    /// Public keys that are fetched.
    Url(String),
}

/// A resource that can be served: below this nothing can fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its identity.
    pub uid: String,
    /// Its spec.
    pub spec: LuminateSpec,
    /// The backend's settings.
    pub settings: BackendSettings,
    /// Where the keys of tokens come from.
    pub keys: Keys,
    /// The worker's configuration.
    pub config: WorkerConfig,
    /// What is laid over the pod template.
    pub overrides: Map<String, Value>,
    /// Digest of the data of everything that must roll the pods when it changes; empty if nothing must.
    pub rolling_digest: String,
    /// Whether the cluster knows ServiceMonitors.
    pub service_monitors: bool,
}

impl Validated {
    /// The backend.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.spec.backend
    }

    /// Whether the number of workers is left to an autoscaler.
    #[must_use]
    pub fn autoscaled(&self) -> bool {
        matches!(&self.settings, BackendSettings::ClickHouse(section) if section.autoscaling.enabled)
    }

    /// The fewest workers that make a complete installation.
    #[must_use]
    pub fn least_replicas(&self) -> i32 {
        match &self.settings {
            BackendSettings::ClickHouse(section) if section.autoscaling.enabled => {
                section.autoscaling.min_replicas
            }
            _ => self.spec.replicas,
        }
    }
}

/// What validation looks at beside the resource itself.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// What was found under each reference.
    pub references: BTreeMap<Reference, Looked>,
    /// Whether the cluster knows ServiceMonitors.
    pub service_monitors: bool,
}

/// Checks a resource.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(resource: &Luminate, around: &Surroundings) -> Result<Validated, Refused> {
    let name = resource.name_any();
    let spec = &resource.spec;
    name_serves(&name)?;
    let settings = settings(spec)?;
    limits::check(spec)?;
    resources(spec)?;
    serving(spec)?;
    tolerations(spec)?;
    let keys = keys(&name, spec)?;
    let overrides = spec.pod_template.clone().unwrap_or_default();
    overrides::check(&overrides)?;
    let namespace = resource.namespace().unwrap_or_default();
    let wanted = wanted(&namespace, &name, spec);
    references(&wanted, &keys, around)?;
    Ok(Validated {
        namespace,
        uid: resource.uid().unwrap_or_default(),
        config: config::worker_config(spec, &settings, &keys),
        spec: spec.clone(),
        settings,
        keys,
        overrides,
        rolling_digest: rolling_digest(&resource.uid().unwrap_or_default(), &wanted, around),
        service_monitors: around.service_monitors,
        name,
    })
}

/// What the API server would refuse in a pod, and so in the workload.
fn tolerations(spec: &LuminateSpec) -> Checked {
    for (at, toleration) in spec.scheduling.tolerations.iter().enumerate() {
        let wrong = |field: &str, what: &str| {
            Err(Refused::field(&format!("spec.scheduling.tolerations[{at}].{field}"), what))
        };
        let exists = toleration.operator == TolerationOperator::Exists;
        if !exists && toleration.key.as_ref().is_none_or(String::is_empty) {
            return wrong(
                "operator",
                "it must be Exists where key is left out: every taint is tolerated then",
            );
        }
        if exists && toleration.value.as_ref().is_some_and(|value| !value.is_empty()) {
            return wrong("value", "it must be left out where operator is Exists");
        }
        if toleration.toleration_seconds.is_some() && toleration.effect != Some(TaintEffect::NoExecute) {
            return wrong("effect", "it must be NoExecute where tolerationSeconds is set");
        }
    }
    Ok(())
}

fn name_serves(name: &str) -> Checked {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = name.len() <= 40
        && name.bytes().all(letters)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(Refused::field(
        "metadata.name",
        "it must be at most 40 characters of a-z, 0-9 and -, begin with a letter and not end with -",
    ))
}

fn settings(spec: &LuminateSpec) -> Result<BackendSettings, Refused> {
    match (spec.backend, &spec.clickhouse, &spec.rocksdb) {
        (Backend::ClickHouse, Some(section), None) => clickhouse(section),
        (Backend::ClickHouse, None, _) => {
            Err(Refused::field("spec.clickhouse", "backend ClickHouse needs it, with its endpoints"))
        }
        (Backend::ClickHouse, _, Some(_)) => {
            Err(Refused::field("spec.rocksdb", "it must be left out for backend ClickHouse"))
        }
        (Backend::RocksDB, Some(_), _) => {
            Err(Refused::field("spec.clickhouse", "it must be left out for backend RocksDB"))
        }
        (Backend::RocksDB, None, _) => rocksdb(spec),
    }
}

fn clickhouse(section: &ClickHouseSection) -> Result<BackendSettings, Refused> {
    if section.endpoints.is_empty() {
        return Err(Refused::field("spec.clickhouse.endpoints", "at least one is needed"));
    }
    for endpoint in &section.endpoints {
        if !is_address(endpoint) {
            let problem =
                format!("{endpoint:?} is not an http or https URL, such as https://clickhouse:8443");
            return Err(Refused::field("spec.clickhouse.endpoints", problem));
        }
    }
    let bounds = &section.autoscaling;
    if bounds.min_replicas < 1 || bounds.min_replicas > bounds.max_replicas {
        let problem = format!(
            "minReplicas {} must be at least 1 and not larger than maxReplicas {}",
            bounds.min_replicas, bounds.max_replicas
        );
        return Err(Refused::field("spec.clickhouse.autoscaling", problem));
    }
    if section.tls.ca_secret_ref.is_some() && section.tls.ca_config_map_ref.is_some() {
        let problem = "at most one of caSecretRef and caConfigMapRef may be set";
        return Err(Refused::field("spec.clickhouse.tls", problem));
    }
    Ok(BackendSettings::ClickHouse(section.clone()))
}

/// An http or https address without user, query and fragment.
fn is_address(text: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else { return false };
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    matches!(url.scheme(), "http" | "https") && url.has_host() && bare && url.fragment().is_none()
}

fn rocksdb(spec: &LuminateSpec) -> Result<BackendSettings, Refused> {
    let section = spec.rocksdb_or_default();
    if Amount::new(&section.storage).whole().is_none_or(|bytes| bytes == 0) {
        let problem = format!("{:?} is not a size above zero, such as 100Gi", section.storage);
        return Err(Refused::field("spec.rocksdb.storage", problem));
    }
    if !(0..=1).contains(&spec.replicas) {
        let problem = "it must be 0 (maintenance) or 1 for backend RocksDB: one worker owns the volume";
        return Err(Refused::field("spec.replicas", problem));
    }
    Ok(BackendSettings::RocksDb(section))
}

fn resources(spec: &LuminateSpec) -> Checked {
    let (requests, most) = (&spec.resources.requests, &spec.resources.limits);
    for (name, request, limit) in
        [("cpu", &requests.cpu, most.cpu.as_ref()), ("memory", &requests.memory, Some(&most.memory))]
    {
        let field = format!("spec.resources.requests.{name}");
        let Some(wanted) = request.thousandths().filter(|wanted| *wanted > 0) else {
            return Err(Refused::field(&field, format!("{request} is not an amount above zero")));
        };
        let Some(limit) = limit else { continue };
        let Some(most) = limit.thousandths() else {
            return Err(Refused::field(
                &format!("spec.resources.limits.{name}"),
                format!("{limit} is not an amount"),
            ));
        };
        if wanted > most {
            return Err(Refused::field(&field, format!("{request} is more than the limit, {limit}")));
        }
    }
    Ok(())
}

fn serving(spec: &LuminateSpec) -> Checked {
    if spec.replicas < 0 {
        return Err(Refused::field("spec.replicas", "it must not be negative"));
    }
    if spec.service.port == 0 {
        return Err(Refused::field("spec.service.port", "it must be from 1 to 65535"));
    }
    if spec.ingress.enabled && spec.ingress.host.is_empty() {
        return Err(Refused::field("spec.ingress.host", "it is needed when the ingress is enabled"));
    }
    Ok(())
}

/// Where the keys come from, and whether the algorithms fit them.
fn keys(name: &str, spec: &LuminateSpec) -> Result<Keys, Refused> {
    let auth = &spec.auth;
    let key = |reference: &KeyReference, usual: &str| reference.key_or(usual).to_owned();
    let keys = match (&auth.jwt_secret_ref, &auth.jwks_secret_ref, &auth.jwks_url) {
        _ if !auth.enabled => return Ok(Keys::Disabled),
        (None, None, None) => Keys::Secret { name: own_secret(name), key: JWT_KEY.to_owned(), own: true },
        (Some(secret), None, None) => {
            Keys::Secret { name: secret.name.clone(), key: key(secret, JWT_KEY), own: false }
        }
        (None, Some(secret), None) => Keys::Jwks { name: secret.name.clone(), key: key(secret, JWKS_KEY) },
        (None, None, Some(url)) if is_https(url) => Keys::Url(url.clone()),
        (None, None, Some(url)) => {
            return Err(Refused::field("spec.auth.jwksUrl", format!("{url:?} is not an https URL")));
        }
        _ => {
            let problem = "at most one of jwtSecretRef, jwksSecretRef and jwksUrl may be set";
            return Err(Refused::field("spec.auth", problem));
        }
    };
    let shared = matches!(keys, Keys::Secret { .. });
    match auth.algorithms.iter().find(|algorithm| algorithm.is_symmetric() != shared) {
        None => Ok(keys),
        Some(algorithm) => {
            let needs = if shared { "public keys" } else { "a shared secret" };
            Err(Refused::field("spec.auth.algorithms", format!("{algorithm:?} needs {needs}")))
        }
    }
}

fn is_https(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| url.scheme() == "https" && url.has_host())
}

/// The usual key of a shared secret.
pub const JWT_KEY: &str = "jwt-secret";
/// The usual key of a JSON Web Key Set.
pub const JWKS_KEY: &str = "jwks.json";
/// The usual key of certificates to trust.
pub const CA_KEY: &str = "ca.crt";

/// The Secret that the operator makes where no keys are given.
#[must_use]
pub fn own_secret(name: &str) -> String {
    format!("{name}-jwt")
}

fn references(wanted: &[(Reference, Role)], keys: &Keys, around: &Surroundings) -> Checked {
    for (reference, role) in wanted {
        let own = matches!(keys, Keys::Secret { own: true, .. }) && matches!(role, Role::JwtSecret { .. });
        match around.references.get(reference) {
            // Not asked for, or about to be made.
            None => {}
            Some(Looked::Missing) if own => {}
            Some(Looked::Missing) => {
                return Err(Refused {
                    reason: Reason::ReferenceMissing,
                    message: format!("{reference} doesn't exist; {} refers to it", role.field()),
                });
            }
            Some(Looked::Found { sizes, .. }) => usable(reference, role, sizes)?,
        }
    }
    Ok(())
}

fn usable(reference: &Reference, role: &Role, sizes: &BTreeMap<String, usize>) -> Checked {
    let unusable = |message: String| Refused { reason: Reason::ReferenceUnusable, message };
    for (key, least) in role.keys() {
        let field = role.field();
        match sizes.get(key) {
            None => {
                return Err(unusable(format!("{reference} has no key {key}; {field} needs it")));
            }
            Some(size) if *size < least => {
                let problem = format!("has {size} bytes under the key {key}; {field} needs at least {least}");
                return Err(unusable(format!("{reference} {problem}")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// With the resource's identity: equal passwords of two installations don't show as equal.
fn rolling_digest(uid: &str, wanted: &[(Reference, Role)], around: &Surroundings) -> String {
    let mut digests = vec![Value::from(uid)];
    for (reference, role) in wanted {
        if let (true, Some(Looked::Found { digest, .. })) = (role.rolls(), around.references.get(reference)) {
            digests.push(Value::from(digest.as_str()));
        }
    }
    if digests.len() == 1 { String::new() } else { crate::object::digest(&Value::Array(digests)) }
}

#[cfg(test)]
mod tests {
    use luminate_crds::luminate::LuminateSpec;

    use super::*;
    use crate::testing::{clickhouse as with_clickhouse, resource, rocksdb as with_rocksdb};

    fn refused(spec: LuminateSpec) -> String {
        match validate(&resource("prod", spec), &Surroundings::default()) {
            Ok(_) => String::new(),
            Err(refused) => format!("{}: {}", refused.reason, refused.message),
        }
    }

    fn changed(spec: LuminateSpec, change: impl FnOnce(&mut LuminateSpec)) -> String {
        let mut spec = spec;
        change(&mut spec);
        refused(spec)
    }

    #[test]
    fn a_toleration_is_one_that_a_pod_may_have() {
        use luminate_crds::luminate::Toleration;
        let of = |toleration: Toleration| {
            changed(with_rocksdb(), |spec| spec.scheduling.tolerations = vec![toleration])
        };
        let key = || Some("dedicated".to_owned());
        let all = Toleration { operator: TolerationOperator::Exists, ..Toleration::default() };
        assert_eq!(of(all.clone()), "");
        assert_eq!(of(Toleration { key: key(), ..Toleration::default() }), "");
        assert!(of(Toleration::default()).contains("tolerations[0].operator: it must be Exists"));
        assert!(of(Toleration { value: key(), ..all.clone() }).contains("value: it must be left out"));
        assert!(
            of(Toleration { toleration_seconds: Some(1), ..all }).contains("effect: it must be NoExecute")
        );
    }

    #[test]
    fn three_lines_are_enough() {
        assert_eq!(refused(with_clickhouse()), "");
        assert_eq!(refused(with_rocksdb()), "");
    }

    #[test]
    fn what_the_schema_refuses_is_refused_here_too() {
        let ch = |change: fn(&mut ClickHouseSection)| {
            changed(with_clickhouse(), |spec| change(spec.clickhouse.as_mut().unwrap()))
        };
        assert!(changed(with_clickhouse(), |spec| spec.clickhouse = None).contains("spec.clickhouse"));
        assert!(
            changed(with_clickhouse(), |spec| spec.rocksdb = Some(RocksDbSection::default()))
                .contains("spec.rocksdb")
        );
        assert!(
            changed(with_rocksdb(), |spec| spec.clickhouse = with_clickhouse().clickhouse)
                .contains("spec.clickhouse")
        );
        assert!(changed(with_rocksdb(), |spec| spec.replicas = 2).contains("spec.replicas"));
        assert!(ch(|section| section.endpoints = vec!["clickhouse:8123".into()]).contains("not an http"));
        assert!(ch(|section| section.endpoints = vec!["http://u:p@c:8123".into()]).contains("not an http"));
        assert!(ch(|section| section.endpoints.clear()).contains("at least one"));
        assert!(
            ch(|section| section.autoscaling.min_replicas = 11).contains("not larger than maxReplicas 10")
        );
        let storage = |storage: &str| {
            changed(with_rocksdb(), |spec| {
                spec.rocksdb = Some(RocksDbSection { storage: storage.into(), ..RocksDbSection::default() });
            })
        };
        assert_eq!(storage("5Gi"), "");
        assert!(storage("much").contains("spec.rocksdb.storage") && storage("0").contains("above zero"));
        assert!(changed(with_rocksdb(), |spec| spec.ingress.enabled = true).contains("spec.ingress.host"));
        assert!(
            changed(with_rocksdb(), |spec| spec.auth.jwks_url = Some("http://x/".into())).contains("https")
        );
    }

    #[test]
    fn requests_fit_under_their_limits() {
        let of = |request: &str, limit: &str| {
            changed(with_rocksdb(), |spec| {
                spec.resources.requests.memory = Amount::new(request);
                spec.resources.limits.memory = Amount::new(limit);
            })
        };
        assert_eq!(of("1Gi", "1024Mi"), "");
        assert!(of("2Gi", "1Gi").contains("more than the limit"));
        assert!(of("0", "1Gi").contains("above zero"));
        assert!(of("1Gi", "lots").contains("spec.resources.limits.memory"));
    }

    #[test]
    fn algorithms_fit_the_keys() {
        use luminate_crds::luminate::Algorithm;
        let of = |algorithm, url: Option<&str>| {
            changed(with_rocksdb(), |spec| {
                spec.auth.algorithms = vec![algorithm];
                spec.auth.jwks_url = url.map(Into::into);
            })
        };
        assert_eq!(of(Algorithm::HS256, None), "");
        assert!(of(Algorithm::RS256, None).contains("RS256 needs public keys"));
        assert_eq!(of(Algorithm::RS256, Some("https://id.example/keys")), "");
        assert!(
            of(Algorithm::HS256, Some("https://id.example/keys")).contains("HS256 needs a shared secret")
        );
    }

    fn around(reference: Reference, looked: Looked) -> Surroundings {
        Surroundings { references: BTreeMap::from([(reference, looked)]), service_monitors: false }
    }

    fn found(keys: &[(&str, usize)], digest: &str) -> Looked {
        let sizes = keys.iter().map(|(key, size)| ((*key).to_owned(), *size)).collect();
        Looked::Found { sizes, digest: digest.to_owned() }
    }

    #[test]
    fn a_reference_must_exist_and_have_its_keys() {
        let mut spec = with_clickhouse();
        spec.clickhouse.as_mut().unwrap().credentials_secret_ref =
            Some(luminate_crds::luminate::NameReference { name: "login".into() });
        let resource = resource("prod", spec);
        let login = || Reference::secret("default", "login");
        let outcome =
            |looked| validate(&resource, &around(login(), looked)).map_err(|refused| refused.reason);
        assert_eq!(outcome(Looked::Missing).unwrap_err(), Reason::ReferenceMissing);
        assert_eq!(outcome(found(&[("username", 4)], "")).unwrap_err(), Reason::ReferenceUnusable);
        let one = outcome(found(&[("username", 4), ("password", 4)], "one")).unwrap();
        let two = outcome(found(&[("username", 4), ("password", 4)], "two")).unwrap();
        assert_ne!(one.rolling_digest, two.rolling_digest);
        assert_ne!(one.rolling_digest, "");
    }

    #[test]
    fn the_own_secret_need_not_exist_but_another_must_be_long_enough() {
        let own = Reference::secret("default", "prod-jwt");
        let outcome = |looked| {
            validate(&resource("prod", with_rocksdb()), &around(own.clone(), looked))
                .map_err(|refused| refused.message)
        };
        assert!(outcome(Looked::Missing).is_ok());
        assert!(outcome(found(&[("jwt-secret", 31)], "")).unwrap_err().contains("at least 32"));
        let one = outcome(found(&[("jwt-secret", 32)], "one")).unwrap();
        assert_eq!(one.rolling_digest, "", "a secret of tokens is reloaded in place");
    }
}
