//! Whether a live object is as it should be.
//!
//! What is wanted must be there; what others added is theirs. The API server writes some values in a form
//! of its own (amounts) and leaves out what is empty: neither is a difference.

use luminate_crds::luminate::thousandths;
use serde_json::{Map, Value};

/// Lists whose items have a name: others may add items of their own. Any other list is compared as a whole.
const NAMED: [(&str, &[&str]); 10] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("ports", &["containerPort", "port", "protocol"]),
    ("topologySpreadConstraints", &["topologyKey"]),
    ("hostAliases", &["ip"]),
    ("ownerReferences", &["uid"]),
];

/// The path of the first field of `wanted` that `live` lacks or has otherwise.
#[must_use]
pub fn difference(wanted: &Value, live: &Value) -> Option<String> {
    differs(wanted, Some(live), "", "")
}

fn differs(wanted: &Value, live: Option<&Value>, path: &str, list: &str) -> Option<String> {
    let Some(live) = live else {
        return (!is_empty(wanted)).then(|| path.to_owned());
    };
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => fields(wanted, live, path),
        (Value::Array(wanted), Value::Array(live)) => items(wanted, live, path, list),
        (Value::String(wanted), Value::String(live)) => {
            (wanted != live && !same_amount(wanted, live, path)).then(|| path.to_owned())
        }
        (Value::Number(wanted), Value::Number(live)) => {
            (wanted.as_f64() != live.as_f64()).then(|| path.to_owned())
        }
        (wanted, live) => (wanted != live && !(is_empty(wanted) && is_empty(live))).then(|| path.to_owned()),
    }
}

fn fields(wanted: &Map<String, Value>, live: &Map<String, Value>, path: &str) -> Option<String> {
    wanted.iter().find_map(|(name, value)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        differs(value, live.get(name), &path, name)
    })
}

fn items(wanted: &[Value], live: &[Value], path: &str, list: &str) -> Option<String> {
    let keys = NAMED.iter().find(|(name, _)| *name == list).map(|(_, keys)| *keys);
    let Some(keys) = keys else {
        if wanted.len() != live.len() {
            return Some(path.to_owned());
        }
        let mut pairs = wanted.iter().zip(live).enumerate();
        return pairs
            .find_map(|(at, (wanted, live))| differs(wanted, Some(live), &format!("{path}[{at}]"), ""));
    };
    wanted.iter().enumerate().find_map(|(at, wanted)| {
        let same = |live: &&Value| {
            keys.iter().all(|key| wanted.get(*key).is_none_or(|value| live.get(*key) == Some(value)))
        };
        differs(wanted, live.iter().find(same), &format!("{path}[{at}]"), "")
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// `1024Mi` and `1Gi` are the same; only where amounts stand.
fn same_amount(wanted: &str, live: &str, path: &str) -> bool {
    let amounts = path.contains(".requests.") || path.contains(".limits.") || path.ends_with("sizeLimit");
    amounts && thousandths(wanted).is_some_and(|amount| thousandths(live) == Some(amount))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_added_is_no_difference() {
        let wanted = json!({ "spec": { "containers": [{ "name": "worker", "image": "a" }] } });
        let live = json!({
            "spec": { "containers": [{ "name": "agent" }, { "name": "worker", "image": "a", "tty": false }], "x": 1 },
            "status": {},
        });
        assert_eq!(difference(&wanted, &live), None);
    }

    #[test]
    fn what_was_changed_or_taken_away_is_named() {
        let wanted =
            json!({ "spec": { "containers": [{ "name": "worker", "image": "a" }], "args": [1, 2] } });
        let changed =
            json!({ "spec": { "containers": [{ "name": "worker", "image": "b" }], "args": [1, 2] } });
        assert_eq!(difference(&wanted, &changed), Some("spec.containers[0].image".into()));
        let gone = json!({ "spec": { "containers": [], "args": [1, 2] } });
        assert_eq!(difference(&wanted, &gone), Some("spec.containers[0]".into()));
        let shorter = json!({ "spec": { "containers": wanted["spec"]["containers"], "args": [1] } });
        assert_eq!(difference(&wanted, &shorter), Some("spec.args".into()));
    }

    #[test]
    fn forms_of_the_api_server_are_no_difference() {
        let wanted = json!({
            "resources": { "requests": { "memory": "1024Mi", "cpu": "0.5" } },
            "annotations": {}, "from": [], "none": null,
        });
        let live = json!({ "resources": { "requests": { "memory": "1Gi", "cpu": "500m" } } });
        assert_eq!(difference(&wanted, &live), None);
        assert_eq!(difference(&json!({ "a": "1024Mi" }), &json!({ "a": "1Gi" })), Some("a".into()));
    }

    #[test]
    fn ports_are_matched_by_number_and_protocol() {
        let wanted = json!({ "ports": [{ "port": 53, "protocol": "TCP" }] });
        let live = json!({ "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP", "nodePort": 3 }] });
        assert_eq!(difference(&wanted, &live), None);
        assert!(difference(&wanted, &json!({ "ports": [{ "port": 53, "protocol": "UDP" }] })).is_some());
    }

    #[test]
    fn false_and_zero_are_not_absent() {
        assert_eq!(difference(&json!({ "a": false }), &json!({})), Some("a".into()));
        assert_eq!(difference(&json!({ "a": 0 }), &json!({})), Some("a".into()));
    }
}
