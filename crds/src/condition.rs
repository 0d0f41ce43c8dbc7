//! What the operator says about an installation: condition types, and reasons from a closed list.

use std::fmt;

/// A condition of a `Luminate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The installation of this generation serves.
    Ready,
    /// Something is being changed.
    Progressing,
    /// Something is wrong that needs a person, or time.
    Degraded,
    /// The resource and what it refers to can be used.
    SpecValid,
    /// The store's servers answer the operator.
    BackendReachable,
}

impl ConditionType {
    /// Every type, in the order of the status.
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::Progressing, Self::Degraded, Self::SpecValid, Self::BackendReachable];

    /// Its name in the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::SpecValid => "SpecValid",
            Self::BackendReachable => "BackendReachable",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $advice:literal,)+) => {
        /// Why a condition is as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in the status, in events and in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What to do about it: the runbook's line.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)+ }
            }
        }
    };
}

reasons! {
    /// Every replica of this generation is ready.
    Available => "Nothing to do.",
    /// Replicas are missing or not ready yet.
    WaitingForReplicas => "Look at the pods: kubectl describe pod -l app.kubernetes.io/instance=<name>.",
    /// `replicas` is 0: maintenance.
    ScaledToZero => "Set spec.replicas to 1 when the maintenance is over.",
    /// `paused` is true: nothing but the status is written.
    Paused => "Set spec.paused to false to let changes through.",
    /// Every object is as it should be.
    Settled => "Nothing to do.",
    /// Pods are being replaced or added.
    RollingOut => "Wait; if it lasts longer than ten minutes, look at the newest pod's events.",
    /// The other backend's workload is being brought up.
    SwitchingBackend => "Wait; status.plan says the next step.",
    /// The volume is being made larger.
    GrowingVolume => "Wait for the storage driver; the claim's conditions say what it waits for.",
    /// Nothing is wrong.
    AsExpected => "Nothing to do.",
    /// A rollout makes no progress.
    RolloutStuck => "Look at the newest pod's events and log; correct the resource or the image.",
    /// An object of a name that is needed belongs to somebody else.
    ForeignObject => "Rename or delete the object that is named, or give the Luminate another name.",
    /// The storage class doesn't let a volume grow.
    VolumeCannotGrow => "Set allowVolumeExpansion on the storage class; until then the volume stays as it is and serves.",
    /// The volume that exists is larger than `storage`.
    VolumeLarger => "Set spec.rocksdb.storage to the size of the volume; volumes don't shrink.",
    /// `backend` was changed without leave.
    BackendSwitchRefused => "Annotate with luminate.dev/allow-backend-switch: \"<generation>\", or set backend back.",
    /// The API server refused an object.
    ApplyRefused => "The message says which object and why; correct the resource, a quota or an admission policy.",
    /// The operator lacks a right.
    Forbidden => "Grant the operator's role what the message names, or reinstall the chart.",
    /// The API server didn't answer as it should; it is tried again.
    ApiUnavailable => "Nothing to do unless it lasts: then look at the API server.",
    /// The resource and what it refers to can be used.
    Valid => "Nothing to do.",
    /// A field has a value that can't be used.
    InvalidField => "Correct the field that the message names.",
    /// The resource can't be read as a Luminate.
    Unreadable => "Update the CRD, then correct the field that the message names.",
    /// A Secret or ConfigMap that is referred to doesn't exist.
    ReferenceMissing => "Create the object that is named, in the same namespace.",
    /// A Secret or ConfigMap lacks a key, or its value can't be used.
    ReferenceUnusable => "Give the object the key that is named; a JWT secret has at least 32 bytes.",
    /// `podTemplate` changes what it may not.
    OverrideForbidden => "Remove the field that is named from spec.podTemplate.",
    /// Every server answers.
    Reachable => "Nothing to do.",
    /// At least one server doesn't answer.
    Unreachable => "Check the address, the server and network policies between it and the operator.",
    /// The operator can't resolve a server's name.
    NameNotResolved => "Nothing, if workers are ready: the name may be known to pods only. Else correct the endpoint.",
    /// No server has been asked yet.
    NotProbed => "Wait half a minute.",
    /// The store is part of the worker.
    Embedded => "Nothing to do.",
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_api_allows_and_each_reason_has_advice() {
        for reason in Reason::ALL {
            let name = reason.name();
            assert!(name.starts_with(|first: char| first.is_ascii_uppercase()), "{name}");
            assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric()) && name.len() <= 64, "{name}");
            assert!(reason.advice().ends_with('.'), "{name}");
        }
    }

    #[test]
    fn the_runbook_knows_every_reason() {
        let runbook = include_str!("../../deploy/runbook.md");
        for reason in Reason::ALL {
            let line = runbook.lines().find(|line| line.starts_with(&format!("| `{}` |", reason.name())));
            assert!(line.is_some_and(|line| line.contains(reason.advice())), "{}", reason.name());
        }
    }

    #[test]
    fn no_two_names_are_equal() {
        let names: std::collections::BTreeSet<&str> =
            Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
