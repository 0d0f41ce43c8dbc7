//! What the API server notes of each request, but those of the cluster's own parts.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// A reader of the log that starts where the log ended, and goes on where it stopped.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    read: u64,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// Who asked, such as `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// What for, as roles say it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
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
    /// The path and the query.
    pub uri: String,
    /// The answer's HTTP status.
    pub code: u16,
}

impl Request {
    /// Whether it asks for a change.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

impl Audit {
    pub(super) fn from_now(path: PathBuf) -> Self {
        let read = path.metadata().map_or(0, |log| log.len());
        Self { path, read }
    }

    /// The requests since the last look. A watch counts when it begins.
    ///
    /// # Panics
    /// When the log can't be read or says what it shouldn't.
    pub fn requests(&mut self) -> Vec<Request> {
        self.requests_with("")
    }

    /// Those whose line in the log holds a text; reading the others costs most of the time.
    fn requests_with(&mut self, text: &str) -> Vec<Request> {
        let mut log = BufReader::new(File::open(&self.path).expect("the API server's log"));
        log.seek(SeekFrom::Start(self.read)).expect("the API server's log");
        let mut requests = Vec::new();
        let mut line = String::new();
        // The last line may still be being written.
        while log.read_line(&mut line).expect("the API server's log") > 0 && line.ends_with('\n') {
            self.read += line.len() as u64;
            if line.contains(text) {
                requests.extend(parsed(&line));
            }
            line.clear();
        }
        requests
    }

    /// The requests of one user since the last look.
    ///
    /// # Panics
    /// As [`Audit::requests`].
    pub fn requests_of(&mut self, user: &str) -> Vec<Request> {
        let mut requests = self.requests_with(user);
        requests.retain(|request| request.user == user);
        requests
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
struct Status {
    code: u16,
}

/// One request a line, but the end of a watch, whose beginning counted.
fn parsed(line: &str) -> Option<Request> {
    let line: Line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let ended_watch =
        line.verb == "watch" && line.stage == "ResponseComplete" && line.response_status.code == 200;
    (!ended_watch).then_some(Request {
        user: line.user.username,
        verb: line.verb,
        group: line.object_ref.api_group,
        resource: line.object_ref.resource,
        subresource: line.object_ref.subresource,
        namespace: line.object_ref.namespace,
        name: line.object_ref.name,
        uri: line.request_uri,
        code: line.response_status.code,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PATCH: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/n/deployments/d/status?fieldManager=m","verb":"patch","user":{"username":"system:serviceaccount:n:operator","groups":["system:serviceaccounts"]},"objectRef":{"resource":"deployments","namespace":"n","name":"d","apiGroup":"apps","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":409}}"#;

    fn watch(stage: &str) -> String {
        PATCH.replace("ResponseComplete", stage).replace("\"patch\"", "\"watch\"").replace("409", "200")
    }

    #[test]
    fn each_request_counts_once_and_half_a_line_not_yet() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{PATCH}").unwrap();
        let mut audit = Audit::from_now(file.path().to_owned());
        assert_eq!(audit.requests(), []);
        let (half, rest) = PATCH.split_at(100);
        write!(file, "{}\n{}\n{half}", watch("ResponseStarted"), watch("ResponseComplete")).unwrap();
        let verbs: Vec<String> = audit.requests().into_iter().map(|request| request.verb).collect();
        assert_eq!(verbs, ["watch"]);
        writeln!(file, "{rest}").unwrap();
        let request = Request {
            user: "system:serviceaccount:n:operator".into(),
            verb: "patch".into(),
            group: "apps".into(),
            resource: "deployments".into(),
            subresource: "status".into(),
            namespace: "n".into(),
            name: "d".into(),
            uri: "/apis/apps/v1/namespaces/n/deployments/d/status?fieldManager=m".into(),
            code: 409,
        };
        assert_eq!(audit.requests_of("somebody"), []);
        writeln!(file, "{PATCH}").unwrap();
        assert_eq!(audit.requests_of(&request.user.clone()), [request]);
    }

    #[test]
    fn a_path_that_is_no_resource_has_none() {
        let line = r#"{"stage":"ResponseComplete","requestURI":"/readyz","verb":"get","user":{"username":"admin"},"responseStatus":{"code":200}}"#;
        let request = parsed(line).unwrap();
        assert_eq!((request.resource.as_str(), request.uri.as_str(), request.code), ("", "/readyz", 200));
        assert!(!request.is_write());
    }
}
