//! What server-side apply can't heal.
//!
//! It merges a list's items by one key where another must be unique as well: beside a port 1 that somebody calls
//! `http`, our port 8080 of that name is refused. So the lists are replaced whole, by a merge patch, and then
//! applied. The patch has a manager of its own, who gives up all that it has got: what its entry says would stay
//! when a later version no longer applies it.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::controller::build::MANAGER;
use crate::object::Kind;

/// The manager of the merge patch.
const REPLACER: &str = "luminate-operator-replaces";

/// How often its entry is taken out before the reconcile fails; the next one goes on.
const TRIES: usize = 5;

/// Puts `body` in the place of what a live object says instead; `refused` is what its apply came to.
pub(super) async fn replace(
    cluster: &Cluster,
    kind: Kind,
    body: &Value,
    refused: kube::Error,
) -> kube::Result<Value> {
    // Whatever else is wrong with it, this doesn't mend.
    if cluster.merge(kind, REPLACER, body).await.is_err() {
        return Err(refused);
    }
    let live = cluster.apply(kind, MANAGER, body, true).await?;
    give_up(cluster, kind, live).await
}

/// Takes the patch's manager from an object that has it.
///
/// Only at the version that was read, for it writes all managers. A workload's controller writes its status right
/// after its spec was changed, so a conflict is no exception here: the object is read again.
pub(super) async fn give_up(cluster: &Cluster, kind: Kind, mut live: Value) -> kube::Result<Value> {
    let mut tries = 0;
    while let Some(patch) = without_replacer(&live) {
        tries += 1;
        match cluster.merge(kind, REPLACER, &patch).await {
            Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {
                let [namespace, name] =
                    ["namespace", "name"].map(|key| live["metadata"][key].as_str().unwrap_or_default());
                let again = cluster.get(kind, namespace, name).await?;
                live = again.ok_or(kube::Error::Api(status))?;
            }
            written => return written,
        }
    }
    Ok(live)
}

/// Whether the patch's manager still has something: whoever should have given it up was interrupted.
pub(super) fn is_left(live: &Value) -> bool {
    without_replacer(live).is_some()
}

fn without_replacer(live: &Value) -> Option<Value> {
    let metadata = &live["metadata"];
    let entries = metadata["managedFields"].as_array()?;
    let others: Vec<&Value> = entries.iter().filter(|entry| entry["manager"] != REPLACER).collect();
    (others.len() < entries.len()).then(|| {
        json!({ "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "resourceVersion": metadata["resourceVersion"],
            "managedFields": others,
        } })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_replacers_entry_is_taken_out() {
        let entry = |manager: &str| json!({ "manager": manager, "operation": "Update" });
        let live = |managers: &[&str]| {
            let entries: Vec<Value> = managers.iter().map(|manager| entry(manager)).collect();
            json!({ "metadata": { "name": "a", "namespace": "b", "resourceVersion": "7", "managedFields": entries } })
        };
        assert_eq!(without_replacer(&live(&[MANAGER, "kubectl"])), None);
        assert!(is_left(&live(&[REPLACER])) && !is_left(&live(&[MANAGER])));
        let patch = without_replacer(&live(&[MANAGER, REPLACER])).unwrap();
        assert_eq!(patch, live(&[MANAGER]));
        assert_eq!(without_replacer(&json!({ "metadata": {} })), None);
    }
}
