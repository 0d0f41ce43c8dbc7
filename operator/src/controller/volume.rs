//! The volume of a StatefulSet: it grows when the resource asks for more, and is never made smaller or
//! deleted. Pure.
//!
//! A claim template can't be changed. So the claim itself is made larger, and then the StatefulSet is made
//! anew around its pod, which goes on running.

use kube::core::ObjectMeta;
use luminate_crds::luminate::{Amount, ReclaimPolicy};
use serde_json::{Value, json};

use super::build::{CLAIM_TEMPLATE, claim_name};
use super::validate::{BackendSettings, Validated};

/// What has to be done about the volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Volume {
    /// The claim has to be applied: its size or its owner isn't what it should be.
    pub claim: Option<Claim>,
    /// The StatefulSet's claim template has another size than the claim is to have.
    pub recreate: bool,
    /// Whether the claim's driver is still at work.
    pub growing: bool,
    /// The volume is larger than the resource says: its size, as it is.
    pub larger: Option<String>,
    /// The size in the live claim template.
    pub template: Option<String>,
}

/// A claim as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its size.
    pub storage: String,
    /// Whether it goes with the resource.
    pub owned: bool,
    /// Whether it grows by this.
    pub grows: bool,
}

impl Volume {
    /// What has to be done, by what is there.
    #[must_use]
    pub fn of(validated: &Validated, stateful_set: Option<&Value>, claim: Option<&Value>) -> Self {
        let BackendSettings::RocksDb(section) = &validated.settings else { return Self::default() };
        let wanted = &section.storage;
        let template = stateful_set.and_then(template_storage);
        let mut volume = Self { template: template.clone(), ..Self::default() };
        let Some(claim) = claim else {
            volume.recreate = template.is_some_and(|template| bytes(&template) != bytes(wanted));
            return volume;
        };
        let requested = storage_of(&claim["spec"]["resources"]["requests"]);
        if bytes(&requested) > bytes(wanted) {
            volume.larger = Some(requested.clone());
        }
        let storage = if volume.larger.is_some() { requested.clone() } else { wanted.clone() };
        let owned = section.reclaim_policy == ReclaimPolicy::Delete;
        let grows = bytes(&requested) < bytes(&storage);
        let known = claim["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let has_owner = known.into_iter().any(|owner| owner["uid"] == validated.uid);
        volume.growing =
            bytes(&storage_of(&claim["status"]["capacity"])) < bytes(&storage) && is_bound(claim);
        volume.recreate = template.is_some_and(|template| bytes(&template) != bytes(&storage));
        if grows || owned != has_owner {
            volume.claim = Some(Claim { storage, owned, grows });
        }
        volume
    }

    /// The size of the claim template as long as the StatefulSet isn't made anew.
    #[must_use]
    pub fn template_storage(&self) -> Option<String> {
        self.template.clone().or_else(|| self.larger.clone())
    }
}

/// The claim's size and owner, as they are applied. Both always: what an apply leaves out, it gives up.
#[must_use]
pub fn claim_body(validated: &Validated, claim: &Claim, live: &Value) -> Value {
    let owners = if claim.owned { json!([reference(&validated.name, &validated.uid)]) } else { json!([]) };
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(&validated.name),
            "namespace": validated.namespace,
            "uid": live["metadata"]["uid"],
            "ownerReferences": owners,
        },
        "spec": { "resources": { "requests": { "storage": claim.storage } } },
    })
}

fn reference(name: &str, uid: &str) -> Value {
    // Not as its controller: that is the StatefulSet's controller's word for pods.
    json!({ "apiVersion": "luminate.dev/v1alpha1", "kind": "Luminate", "name": name, "uid": uid })
}

fn template_storage(stateful_set: &Value) -> Option<String> {
    let templates = stateful_set["spec"]["volumeClaimTemplates"].as_array()?;
    let template = templates.iter().find(|template| template["metadata"]["name"] == CLAIM_TEMPLATE)?;
    Some(storage_of(&template["spec"]["resources"]["requests"]))
}

fn storage_of(amounts: &Value) -> String {
    amounts["storage"].as_str().unwrap_or_default().to_owned()
}

fn bytes(text: &str) -> u128 {
    Amount::new(text).whole().unwrap_or(0)
}

fn is_bound(claim: &Value) -> bool {
    claim["status"]["phase"] == "Bound"
}

/// Whether a live object is about to go.
#[must_use]
pub fn is_going(live: &Value) -> bool {
    let metadata: Option<ObjectMeta> = serde_json::from_value(live["metadata"].clone()).ok();
    metadata.is_some_and(|metadata| metadata.deletion_timestamp.is_some())
}

#[cfg(test)]
mod tests {
    use luminate_crds::luminate::RocksDbSection;

    use super::*;
    use crate::testing::{rocksdb, validated};

    fn of(storage: &str, policy: ReclaimPolicy) -> Validated {
        let mut spec = rocksdb();
        let section =
            RocksDbSection { storage: storage.into(), reclaim_policy: policy, ..RocksDbSection::default() };
        spec.rocksdb = Some(section);
        validated(spec)
    }

    fn stateful_set(storage: &str) -> Value {
        json!({ "spec": { "volumeClaimTemplates": [{
            "metadata": { "name": "data" },
            "spec": { "resources": { "requests": { "storage": storage } } },
        }] } })
    }

    fn claim(requested: &str, capacity: &str) -> Value {
        json!({
            "metadata": { "uid": "c" },
            "spec": { "resources": { "requests": { "storage": requested } } },
            "status": { "phase": "Bound", "capacity": { "storage": capacity } },
        })
    }

    #[test]
    fn a_settled_volume_needs_nothing() {
        let volume = Volume::of(
            &of("1Ti", ReclaimPolicy::Retain),
            Some(&stateful_set("1024Gi")),
            Some(&claim("1Ti", "1Ti")),
        );
        assert_eq!(volume.claim, None);
        assert!(!volume.recreate && !volume.growing && volume.larger.is_none());
    }

    #[test]
    fn it_grows_by_its_claim_and_then_the_template_follows() {
        let validated = of("200Gi", ReclaimPolicy::Retain);
        let first = Volume::of(&validated, Some(&stateful_set("100Gi")), Some(&claim("100Gi", "100Gi")));
        assert_eq!(first.claim, Some(Claim { storage: "200Gi".into(), owned: false, grows: true }));
        assert!(first.recreate && first.growing);
        let then = Volume::of(&validated, Some(&stateful_set("100Gi")), Some(&claim("200Gi", "100Gi")));
        assert!(then.claim.is_none() && then.recreate && then.growing);
        let last = Volume::of(&validated, Some(&stateful_set("200Gi")), Some(&claim("200Gi", "200Gi")));
        assert!(!last.recreate && !last.growing);
    }

    #[test]
    fn it_never_shrinks() {
        let volume = Volume::of(
            &of("50Gi", ReclaimPolicy::Retain),
            Some(&stateful_set("100Gi")),
            Some(&claim("100Gi", "100Gi")),
        );
        assert_eq!(volume.larger, Some("100Gi".into()));
        assert!(volume.claim.is_none() && !volume.recreate);
        let without = Volume::of(&of("50Gi", ReclaimPolicy::Retain), None, Some(&claim("100Gi", "100Gi")));
        assert_eq!(without.template_storage(), Some("100Gi".into()));
    }

    #[test]
    fn it_goes_with_the_resource_only_where_that_was_asked_for() {
        let (template, plain) = (stateful_set("1Gi"), claim("1Gi", "1Gi"));
        let delete = of("1Gi", ReclaimPolicy::Delete);
        let wanted = Volume::of(&delete, Some(&template), Some(&plain)).claim.unwrap();
        let body = claim_body(&delete, &wanted, &plain);
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], delete.uid);
        let mut owned = plain.clone();
        owned["metadata"]["ownerReferences"] = body["metadata"]["ownerReferences"].clone();
        assert_eq!(Volume::of(&delete, Some(&template), Some(&owned)).claim, None);
        let retain = of("1Gi", ReclaimPolicy::Retain);
        let back = Volume::of(&retain, Some(&template), Some(&owned)).claim.unwrap();
        assert_eq!(claim_body(&retain, &back, &owned)["metadata"]["ownerReferences"], json!([]));
    }

    #[test]
    fn without_a_claim_the_template_alone_is_made_anew() {
        let volume = Volume::of(&of("2Gi", ReclaimPolicy::Retain), Some(&stateful_set("1Gi")), None);
        assert!(volume.recreate && volume.claim.is_none());
    }
}
