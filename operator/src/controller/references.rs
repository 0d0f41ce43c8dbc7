//! What a resource refers to: which Secrets and ConfigMaps, for what, and who has to know of a change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use luminate_crds::luminate::LuminateSpec;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::validate::{CA_KEY, JWKS_KEY, JWT_KEY, MIN_SECRET_BYTES, own_secret};
use crate::object::{Kind, short};

/// A resource, by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The resource `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A Secret or ConfigMap that a resource refers to, always of the resource's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `Secret` or `ConfigMap`.
    pub kind: Kind,
    /// Where and what it is.
    pub key: Key,
}

impl Reference {
    /// A Secret.
    pub fn secret(namespace: &str, name: &str) -> Self {
        Self { kind: Kind::Secret, key: Key::new(namespace, name) }
    }

    /// A ConfigMap.
    pub fn config_map(namespace: &str, name: &str) -> Self {
        Self { kind: Kind::ConfigMap, key: Key::new(namespace, name) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.name(), self.key.name)
    }
}

/// What a reference is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// ClickHouse's user and password.
    Credentials,
    /// Certificates that ClickHouse's must be signed by.
    Trust {
        /// The key.
        key: String,
    },
    /// The shared secret of tokens.
    JwtSecret {
        /// The key.
        key: String,
    },
    /// The public keys of tokens.
    Jwks {
        /// The key.
        key: String,
    },
    /// The API's certificate.
    Tls,
}

impl Role {
    /// Whether a change of the data must roll the pods. What workers reload in place must not.
    #[must_use]
    pub fn rolls(&self) -> bool {
        matches!(self, Self::Credentials | Self::Trust { .. })
    }

    /// The keys that must be there, with the fewest bytes of each.
    #[must_use]
    pub fn keys(&self) -> Vec<(&str, usize)> {
        match self {
            Self::Credentials => vec![("username", 1), ("password", 0)],
            Self::Trust { key } | Self::Jwks { key } => vec![(key, 1)],
            Self::JwtSecret { key } => vec![(key, MIN_SECRET_BYTES)],
            Self::Tls => vec![("tls.crt", 1), ("tls.key", 1)],
        }
    }

    /// The field that refers to it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Credentials => "spec.clickhouse.credentialsSecretRef",
            Self::Trust { .. } => "spec.clickhouse.tls",
            Self::JwtSecret { .. } => "spec.auth.jwtSecretRef",
            Self::Jwks { .. } => "spec.auth.jwksSecretRef",
            Self::Tls => "spec.tls.secretRef",
        }
    }
}

/// Kind, name and purpose of everything that a resource refers to.
fn roles(name: &str, spec: &LuminateSpec) -> Vec<(Kind, String, Role)> {
    let mut roles = Vec::new();
    if let Some(section) = &spec.clickhouse {
        if let Some(secret) = &section.credentials_secret_ref {
            roles.push((Kind::Secret, secret.name.clone(), Role::Credentials));
        }
        for (kind, reference) in
            [(Kind::Secret, &section.tls.ca_secret_ref), (Kind::ConfigMap, &section.tls.ca_config_map_ref)]
        {
            if let Some(reference) = reference {
                let key = reference.key_or(CA_KEY).to_owned();
                roles.push((kind, reference.name.clone(), Role::Trust { key }));
            }
        }
    }
    if spec.auth.enabled {
        roles.extend(token_role(name, spec));
    }
    if let Some(secret) = &spec.tls.secret_ref {
        roles.push((Kind::Secret, secret.name.clone(), Role::Tls));
    }
    roles
}

fn token_role(name: &str, spec: &LuminateSpec) -> Option<(Kind, String, Role)> {
    let auth = &spec.auth;
    let role = match (&auth.jwt_secret_ref, &auth.jwks_secret_ref, &auth.jwks_url) {
        (Some(secret), _, _) => {
            let key = secret.key_or(JWT_KEY).to_owned();
            (secret.name.clone(), Role::JwtSecret { key })
        }
        (None, Some(secret), _) => {
            (secret.name.clone(), Role::Jwks { key: secret.key_or(JWKS_KEY).to_owned() })
        }
        (None, None, Some(_)) => return None,
        (None, None, None) => (own_secret(name), Role::JwtSecret { key: JWT_KEY.to_owned() }),
    };
    Some((Kind::Secret, role.0, role.1))
}

/// What a resource refers to and for what, the Secret that the operator makes for it included.
#[must_use]
pub fn wanted(namespace: &str, name: &str, spec: &LuminateSpec) -> Vec<(Reference, Role)> {
    let located =
        |(kind, name, role): (Kind, String, Role)| (Reference { kind, key: Key::new(namespace, name) }, role);
    roles(name, spec).into_iter().map(located).collect()
}

/// What was found under a reference. Values are never kept, only their sizes and one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// Nothing.
    Missing,
    /// An object.
    Found {
        /// Bytes under each key.
        sizes: BTreeMap<String, usize>,
        /// Digest of all of its data.
        digest: String,
    },
}

impl Looked {
    /// What a Secret shows.
    #[must_use]
    pub fn secret(secret: &Secret) -> Self {
        let data =
            secret.data.iter().flatten().map(|(key, ByteString(bytes))| (key.as_str(), bytes.as_slice()));
        Self::found(data)
    }

    /// What a ConfigMap shows.
    #[must_use]
    pub fn config_map(map: &ConfigMap) -> Self {
        let texts = map.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes()));
        let bytes =
            map.binary_data.iter().flatten().map(|(key, ByteString(bytes))| (key.as_str(), bytes.as_slice()));
        Self::found(texts.chain(bytes))
    }

    fn found<'a>(data: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let data: BTreeMap<&str, &[u8]> = data.collect();
        let mut hasher = Sha256::new();
        for (key, bytes) in &data {
            for part in [key.as_bytes(), bytes] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        let sizes = data.iter().map(|(key, bytes)| ((*key).to_owned(), bytes.len())).collect();
        Self::Found { sizes, digest: short(&hasher.finalize()) }
    }
}

/// Who refers to what, and what was found, as long as nothing changed.
///
/// The watches of Secrets and ConfigMaps pass by every object of the namespaces watched; of these only
/// what is referred to leaves a trace here, and that is a resource version.
#[derive(Debug, Default)]
pub struct References(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// What each user refers to.
    wanted: BTreeMap<Key, BTreeSet<Reference>>,
    /// The same the other way round.
    users: BTreeMap<Reference, BTreeSet<Key>>,
    latest: BTreeMap<Reference, String>,
    found: BTreeMap<Reference, (String, Looked)>,
    /// While a watch starts anew: what it should list, if it is still there.
    expected: BTreeSet<Reference>,
}

/// The resource version of what isn't there.
const ABSENT: &str = "";

impl Inner {
    /// `user` refers to it no more; nothing is kept of what nobody refers to.
    fn leave(&mut self, user: &Key, reference: &Reference) {
        let Some(users) = self.users.get_mut(reference) else { return };
        users.remove(user);
        if users.is_empty() {
            self.users.remove(reference);
            self.latest.remove(reference);
            self.found.remove(reference);
        }
    }

    fn seen(&mut self, reference: &Reference, version: Option<&str>) -> Vec<Key> {
        self.expected.remove(reference);
        let Some(users) = self.users.get(reference) else { return Vec::new() };
        let version = version.unwrap_or(ABSENT);
        let known = self.found.get(reference).is_some_and(|(found, _)| found == version);
        self.latest.insert(reference.clone(), version.to_owned());
        if known { Vec::new() } else { users.iter().cloned().collect() }
    }
}

impl References {
    /// Notes that `user` refers to exactly `wanted`.
    pub fn note(&self, user: &Key, wanted: impl IntoIterator<Item = Reference>) {
        let wanted: BTreeSet<Reference> = wanted.into_iter().collect();
        let inner = &mut *self.0.lock();
        let before = inner.wanted.remove(user).unwrap_or_default();
        before.difference(&wanted).for_each(|reference| inner.leave(user, reference));
        for reference in wanted.difference(&before) {
            inner.users.entry(reference.clone()).or_default().insert(user.clone());
        }
        if !wanted.is_empty() {
            inner.wanted.insert(user.clone(), wanted);
        }
    }

    /// A watch saw `reference` in this version (`None`: it is gone). Answers who has to know.
    pub fn seen(&self, reference: &Reference, version: Option<&str>) -> Vec<Key> {
        self.0.lock().seen(reference, version)
    }

    /// A watch of a kind starts anew: it lists everything.
    pub fn listing(&self, kind: Kind) {
        let inner = &mut *self.0.lock();
        inner.expected.retain(|reference| reference.kind != kind);
        inner.expected.extend(inner.users.keys().filter(|reference| reference.kind == kind).cloned());
    }

    /// It has listed everything: what wasn't listed is gone. Answers who has to know.
    pub fn listed(&self, kind: Kind) -> Vec<Key> {
        let inner = &mut *self.0.lock();
        let gone: Vec<Reference> =
            inner.expected.iter().filter(|reference| reference.kind == kind).cloned().collect();
        gone.iter().flat_map(|reference| inner.seen(reference, None)).collect()
    }

    /// What was found last, unless a watch has seen another version since.
    #[must_use]
    pub fn known(&self, reference: &Reference) -> Option<Looked> {
        let inner = self.0.lock();
        let (version, looked) = inner.found.get(reference)?;
        let current = inner.latest.get(reference).is_none_or(|latest| latest == version);
        current.then(|| looked.clone())
    }

    /// Keeps what was found in this version (`None`: nothing).
    pub fn keep(&self, reference: &Reference, version: Option<&str>, looked: Looked) {
        let inner = &mut *self.0.lock();
        if inner.users.contains_key(reference) {
            inner.found.insert(reference.clone(), (version.unwrap_or(ABSENT).to_owned(), looked));
        }
    }

    /// Keeps what a Secret shows that was just made.
    pub fn keep_made(&self, reference: &Reference, live: serde_json::Value) {
        if let Ok(secret) = serde_json::from_value::<Secret>(live) {
            self.keep(reference, secret.metadata.resource_version.as_deref(), Looked::secret(&secret));
        }
    }

    /// Forgets what was found for `user`, so that it is looked up again.
    pub fn refresh(&self, user: &Key) {
        let inner = &mut *self.0.lock();
        for reference in inner.wanted.get(user).into_iter().flatten() {
            inner.found.remove(reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{clickhouse, rocksdb};

    fn found(size: usize) -> Looked {
        Looked::Found { sizes: BTreeMap::from([("a".to_owned(), size)]), digest: String::new() }
    }

    #[test]
    fn the_digest_follows_the_data_and_nothing_else() {
        let secret = |pairs: &[(&str, &str)]| {
            let data =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
            Looked::secret(&Secret { data: Some(data.collect()), ..Secret::default() })
        };
        assert_eq!(secret(&[("a", "1"), ("b", "2")]), secret(&[("b", "2"), ("a", "1")]));
        assert_ne!(secret(&[("a", "1")]), secret(&[("a", "2")]));
        assert_ne!(secret(&[("a", "bc")]), secret(&[("ab", "c")]));
    }

    #[test]
    fn only_users_hear_of_a_change_and_only_of_a_new_version() {
        let references = References::default();
        let login = Reference::secret("a", "login");
        let user = Key::new("a", "prod");
        assert_eq!(references.seen(&login, Some("1")), []);
        references.note(&user, [login.clone()]);
        references.keep(&login, Some("1"), found(1));
        assert_eq!(references.seen(&login, Some("1")), []);
        assert_eq!(references.known(&login), Some(found(1)));
        assert_eq!(references.seen(&login, Some("2")), std::slice::from_ref(&user));
        assert_eq!(references.known(&login), None);
        references.note(&user, []);
        assert_eq!(references.seen(&login, Some("3")), []);
    }

    #[test]
    fn an_answer_that_a_change_overtook_is_not_believed() {
        let references = References::default();
        let login = Reference::secret("a", "login");
        references.note(&Key::new("a", "prod"), [login.clone()]);
        references.seen(&login, Some("2"));
        references.keep(&login, Some("1"), found(1));
        assert_eq!(references.known(&login), None);
        references.seen(&login, None);
        references.keep(&login, None, Looked::Missing);
        assert_eq!(references.known(&login), Some(Looked::Missing));
    }

    #[test]
    fn what_was_made_needs_not_be_read() {
        let references = References::default();
        let own = Reference::secret("a", "prod-jwt");
        references.note(&Key::new("a", "prod"), [own.clone()]);
        references.keep(&own, None, Looked::Missing);
        let live = serde_json::json!({ "metadata": { "resourceVersion": "7" }, "data": { "a": "Zm9v" } });
        references.keep_made(&own, live);
        assert!(matches!(references.known(&own), Some(Looked::Found { sizes, .. }) if sizes["a"] == 3));
        assert_eq!(references.seen(&own, Some("7")), []);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let references = References::default();
        let (here, gone) = (Reference::secret("a", "here"), Reference::secret("a", "gone"));
        let user = Key::new("a", "prod");
        references.note(&user, [here.clone(), gone.clone()]);
        for reference in [&here, &gone] {
            references.keep(reference, Some("1"), found(1));
        }
        references.listing(Kind::Secret);
        assert_eq!(references.seen(&here, Some("1")), []);
        assert_eq!(references.listed(Kind::Secret), [user]);
        assert_eq!(references.known(&gone), None);
        assert_eq!(references.known(&here), Some(found(1)));
    }

    #[test]
    fn references_stay_in_the_namespace_of_the_resource() {
        let mut spec = clickhouse();
        spec.auth.jwt_secret_ref =
            Some(luminate_crds::luminate::KeyReference { name: "tokens".into(), key: Some("k".into()) });
        let wanted = wanted("here", "prod", &spec);
        assert_eq!(wanted, [(Reference::secret("here", "tokens"), Role::JwtSecret { key: "k".into() })]);
        let own = super::wanted("here", "prod", &rocksdb());
        assert_eq!(own[0].0, Reference::secret("here", "prod-jwt"));
    }
}
