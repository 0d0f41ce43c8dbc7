//! What a request asks for, in the words of roles.

use std::fmt;

use hyper::{Method, Uri};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// An object is read.
    Get,
    /// Objects are read.
    List,
    /// Changes are to be told.
    Watch,
    /// An object is made.
    Create,
    /// An object is replaced.
    Update,
    /// An object is changed in part, or applied.
    Patch,
    /// An object is deleted.
    Delete,
    /// Objects are deleted.
    DeleteCollection,
}

impl Verb {
    /// As roles spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether it asks for a change.
    #[must_use]
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// A request as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What is to be done.
    pub verb: Verb,
    /// The group of the resource; empty for the core.
    pub group: String,
    /// The resource, such as `deployments`; empty for a path that is none.
    pub resource: String,
    /// Its subresource, such as `status`; empty for none.
    pub subresource: String,
    /// The namespace; empty for all, or none.
    pub namespace: String,
    /// The object's name; empty for lists, watches and creations.
    pub name: String,
    /// How many requests there were under this plan, this one included.
    pub nth: u64,
    /// How many writes there were under this plan, this one included if it is one. Those of Leases don't count.
    pub nth_write: u64,
}

impl Asked {
    /// The request with this method and address; not counted yet.
    #[must_use]
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let group = match parts.next() {
            Some("apis") => parts.next().unwrap_or_default(),
            _ => "",
        };
        let _version = parts.next();
        let mut rest: Vec<&str> = parts.collect();
        let mut namespace = "";
        // `namespaces/<name>` alone is the namespace itself.
        if rest.len() > 2 && rest[0] == "namespaces" {
            namespace = rest[1];
            rest.drain(..2);
        }
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        Self {
            verb: verb(method, uri.query().unwrap_or_default(), part(1)),
            group: group.to_owned(),
            resource: part(0).to_owned(),
            subresource: part(2).to_owned(),
            namespace: namespace.to_owned(),
            name: part(1).to_owned(),
            nth: 0,
            nth_write: 0,
        }
    }

    /// Whether it is a write that plans count: Leases are renewed whenever it is time.
    #[must_use]
    pub fn counts_as_write(&self) -> bool {
        self.verb.writes() && self.resource != "leases"
    }
}

fn verb(method: &Method, query: &str, name: &str) -> Verb {
    let watches = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ if watches => Verb::Watch,
        _ if name.is_empty() => Verb::List,
        _ => Verb::Get,
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb.name(), self.resource)?;
        for part in [&self.subresource, &self.name].into_iter().filter(|part| !part.is_empty()) {
            write!(formatter, "/{part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(method: Method, uri: &str, expected: &str, namespace: &str, group: &str) {
        let asked = Asked::of(&method, &uri.parse().unwrap());
        assert_eq!(
            (asked.to_string().as_str(), &*asked.namespace, &*asked.group),
            (expected, namespace, group)
        );
    }

    #[test]
    fn requests_are_told_apart() {
        is(Method::GET, "/api/v1/namespaces/a/secrets/s", "get secrets/s", "a", "");
        is(Method::GET, "/api/v1/secrets?limit=500", "list secrets", "", "");
        is(Method::GET, "/api/v1/namespaces/a/secrets?watch=true&x=1", "watch secrets", "a", "");
        is(Method::POST, "/api/v1/namespaces/a/secrets", "create secrets", "a", "");
        is(Method::DELETE, "/apis/apps/v1/namespaces/a/deployments/d", "delete deployments/d", "a", "apps");
        is(Method::GET, "/api/v1/namespaces/a", "get namespaces/a", "", "");
        is(
            Method::PATCH,
            "/apis/luminate.dev/v1alpha1/namespaces/a/luminates/prod/status?force=true",
            "patch luminates/status/prod",
            "a",
            "luminate.dev",
        );
    }

    #[test]
    fn leases_dont_count() {
        let asked = |method, uri: &str| Asked::of(&method, &uri.parse().unwrap());
        let lease = "/apis/coordination.k8s.io/v1/namespaces/a/leases/l";
        assert!(!asked(Method::PUT, lease).counts_as_write());
        assert!(asked(Method::PATCH, "/api/v1/namespaces/a/services/s").counts_as_write());
        assert!(!asked(Method::GET, "/version").counts_as_write());
    }
}
