//! Every leaf of the resource's schema, changed and changed back: what the operator makes of a resource depends
//! on what it says now, and not on what it has said before.
//!
//! A change that the API server refuses must be refused with a sentence. One that it takes must never leave the
//! installation degraded, unless the operator says what of the resource it can't serve.

pub mod leaves;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api_proxy::held;
use crate::faults::{Mirror, Slot, State, Step, answering_server, difference, runtime, side_by_side, slots};
use crate::{Cluster, Installation, api};
use leaves::{Leaf, REFERRED};

const PROGRESS: Duration = Duration::from_secs(10);
/// How long pods may take after a change before it is taken back all the same: some changes have none get ready.
const PODS: Duration = Duration::from_secs(6);
/// How long nothing may happen until a change counts as done.
const SILENCE: Duration = Duration::from_millis(500);

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// What everything random but the scheduler's choices follows from.
    pub seed: u64,
    /// Changes, each with its taking back.
    pub changes: usize,
    /// Changes at once, each in a namespace of its own.
    pub at_once: usize,
    /// Ends after so many failures.
    pub most_failures: usize,
}

/// What a run has seen.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Changes tried.
    pub changes: usize,
    /// Leaves that were changed.
    pub leaves: BTreeSet<String>,
    /// Leaves of the schema.
    pub all_leaves: usize,
    /// Changes that the API server refused, each with a sentence.
    pub refused: usize,
    /// Changes that were taken, and of which the operator said that it can't serve them.
    pub invalid: usize,
    /// Changes that couldn't be taken back: a volume never shrinks.
    pub for_good: usize,
    /// How often each leaf's change changed an object; those of which none did are worth a look.
    pub effects: BTreeMap<String, usize>,
    /// How long it all took.
    pub took: Duration,
    /// What must not be.
    pub failures: Vec<String>,
}

impl Summary {
    /// Leaves of which no change that was taken changed any object.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&str> {
        self.effects.iter().filter(|(_, effects)| **effects == 0).map(|(path, _)| path.as_str()).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} changes of {} of {} leaves in {} s: {} refused by the API server and {} by the operator, each with a \
             reason; {} for good; all others changed back to the same state; {} failed; seed {}",
            self.changes,
            self.leaves.len(),
            self.all_leaves,
            self.took.as_secs(),
            self.refused,
            self.invalid,
            self.for_good,
            self.failures.len(),
            self.seed
        )
    }
}

/// What came of a change.
enum Outcome {
    Refused,
    Changed { invalid: bool, effect: bool, back: bool },
}

/// Carries out a run, telling `progress` a line every few seconds.
///
/// # Errors
/// The harness itself fails.
///
/// # Panics
/// When the cluster isn't our own, or refuses the harness itself.
pub fn run(cluster: &Cluster, run: &Run, progress: &mut dyn FnMut(&str)) -> Result<Summary, String> {
    assert!(cluster.is_own(), "it needs simulated nodes");
    let namespaces: Vec<_> = side_by_side(run.at_once, |_| cluster.namespace());
    let installations = side_by_side(run.at_once, |at| Installation::only(cluster, &[&namespaces[at]]));
    cluster.install(&format!(
        "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {REFERRED}}}, value: 1}}"
    ));
    let clickhouse = answering_server();
    runtime().block_on(async {
        let client = api::client(cluster.kubeconfig()).await?;
        let names: Vec<String> = namespaces.iter().map(|namespace| namespace.name().to_owned()).collect();
        let mirror = Mirror::of(&client, &names).await;
        let slots =
            slots(&client, &mirror, &names, &installations, |installation| installation.operator()).await?;
        fuzz(&slots, &clickhouse, run, progress).await
    })
}

async fn fuzz(
    slots: &[Slot<'_>],
    clickhouse: &str,
    run: &Run,
    progress: &mut dyn FnMut(&str),
) -> Result<Summary, String> {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(run.seed);
    let all = leaves::of(&leaves::schema());
    let orders = Mutex::new(orders(&all, run.changes, &mut random));
    let summary = Mutex::new(Summary { seed: run.seed, all_leaves: all.len(), ..Summary::default() });
    let shown = Mutex::new((Instant::now(), progress));
    let working = slots.iter().map(async |slot| {
        let mut bench = Bench::set_up(slot, clickhouse).await?;
        while let Some((leaf, seed)) = next(&orders, &summary, run.most_failures) {
            let outcome = bench.change(&leaf, &mut fastrand::Rng::with_seed(seed)).await;
            let failed = outcome.as_ref().err().map(|what| format!("failed: {}: {what}", leaf.path()));
            note(&mut held(&summary), &leaf.path(), outcome);
            let (last, progress) = &mut *held(&shown);
            if let Some(failed) = failed {
                progress(&failed);
            }
            if last.elapsed() > PROGRESS {
                *last = Instant::now();
                held(&summary).took = began.elapsed();
                progress(&held(&summary).to_string());
            }
        }
        bench.take_down().await;
        Ok::<(), String>(())
    });
    for outcome in futures_util::future::join_all(working).await {
        outcome?;
    }
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.took = began.elapsed();
    Ok(summary)
}

/// Every leaf in turn, in random order.
fn orders(all: &[Leaf], changes: usize, random: &mut fastrand::Rng) -> VecDeque<(Leaf, u64)> {
    let mut orders = VecDeque::new();
    while orders.len() < changes {
        let mut round: Vec<Leaf> = all.to_vec();
        random.shuffle(&mut round);
        orders.extend(round.into_iter().map(|leaf| (leaf, random.u64(..))));
    }
    orders.truncate(changes);
    orders
}

fn next(orders: &Mutex<VecDeque<(Leaf, u64)>>, summary: &Mutex<Summary>, most: usize) -> Option<(Leaf, u64)> {
    if held(summary).failures.len() >= most {
        return None;
    }
    held(orders).pop_front()
}

fn note(summary: &mut Summary, path: &str, outcome: Result<Outcome, String>) {
    summary.changes += 1;
    summary.leaves.insert(path.to_owned());
    match outcome {
        Ok(Outcome::Refused) => summary.refused += 1,
        Ok(Outcome::Changed { invalid, effect, back }) => {
            summary.invalid += usize::from(invalid);
            summary.for_good += usize::from(!back);
            *summary.effects.entry(path.to_owned()).or_default() += usize::from(effect);
        }
        Err(what) => summary.failures.push(format!("{path}: {what}")),
    }
}

/// The resources of a namespace, one a backend.
const NAMES: [&str; 2] = ["clickhouse", "rocksdb"];

/// A namespace with an installation of each backend.
struct Bench<'a, 'b> {
    slot: &'a Slot<'b>,
    operator: crate::faults::Subject,
}

impl<'a, 'b> Bench<'a, 'b> {
    async fn set_up(slot: &'a Slot<'b>, clickhouse: &str) -> Result<Self, String> {
        let operator = slot.start_alone();
        for (plural, body) in referred() {
            slot.take(&Step::Create(plural, body)).await?;
        }
        let specs = [
            json!({
                "backend": "ClickHouse",
                "clickhouse": { "endpoints": [clickhouse], "autoscaling": { "minReplicas": 1, "maxReplicas": 3 } },
            }),
            json!({ "backend": "RocksDB", "rocksdb": { "storage": "1Gi", "storageClassName": "expandable" } }),
        ];
        for (name, spec) in NAMES.into_iter().zip(specs) {
            let body = json!({
                "apiVersion": "luminate.dev/v1alpha1", "kind": "Luminate", "metadata": { "name": name }, "spec": spec,
            });
            slot.take(&Step::Create("luminates", body)).await?;
        }
        let bench = Self { slot, operator };
        bench.settled(Duration::from_secs(120)).await?;
        Ok(bench)
    }

    async fn take_down(self) {
        drop(self.operator.stop().await);
    }

    /// Changes a leaf and changes it back.
    async fn change(&mut self, leaf: &Leaf, random: &mut fastrand::Rng) -> Result<Outcome, String> {
        let path = leaf.path();
        let name = match path.split('.').next() {
            Some("clickhouse") => NAMES[0],
            Some("rocksdb") => NAMES[1],
            _ => NAMES[random.usize(..2)],
        };
        self.settled(Duration::from_secs(120)).await?;
        let before = self.slot.admin().get("luminates", name).await?["spec"].clone();
        let changed = leaf.changed(&before, random);
        let state = self.state();
        let said = |what: String| format!("{what}; {name} with {changed}");
        // 1. Changed.
        if !self.set(name, &changed).await.map_err(said)? {
            return Ok(Outcome::Refused);
        }
        let settled = self.settled(PODS).await;
        let invalid = self.invalid(name);
        let effect = difference(&children(&state), &children(&self.state())).is_some();
        // 2. Changed back, also where it has failed: the next change begins here.
        let back = self.set(name, &before).await.map_err(said)?;
        if back {
            let same = || difference(&state, &self.state()).is_none();
            if !self.slot.until(Duration::from_secs(60), same).await {
                let what = difference(&state, &self.state()).unwrap_or_default();
                return Err(said(format!("changed back, {what}")));
            }
        }
        settled.map_err(said)?;
        Ok(Outcome::Changed { invalid: invalid.map_err(said)?, effect, back })
    }

    /// Whether the API server takes a spec.
    async fn set(&self, name: &str, spec: &Value) -> Result<bool, String> {
        let patch = json!([{ "op": "replace", "path": "/spec", "value": spec }]);
        match self.slot.admin().patch("luminates", name, &patch).await {
            Ok(taken) => self.slot.shows("luminates", &taken).await.map(|()| true),
            Err(refused) if matches!(refused.code, 400 | 422) && refused.message.len() > 20 => Ok(false),
            Err(refused) => Err(format!("refused with {}: {:?}", refused.code, refused.message)),
        }
    }

    /// Waits until both resources' statuses are of what they say now, and nothing happens any more; not for ever
    /// for pods.
    async fn settled(&self, pods: Duration) -> Result<(), String> {
        let (done, ready) = (
            || NAMES.iter().all(|name| self.is_observed(name)),
            || NAMES.iter().all(|name| !self.condition(name, "Progressing").0),
        );
        if !self.slot.until(Duration::from_secs(60), done).await {
            return Err("the status isn't of this generation".to_owned());
        }
        self.slot.silence(SILENCE).await?;
        if !ready() {
            self.slot.until(pods, ready).await;
            self.slot.silence(SILENCE).await?;
        }
        Ok(())
    }

    fn resource(&self, name: &str) -> Value {
        self.state().get(&("luminates".to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    fn is_observed(&self, name: &str) -> bool {
        self.slot.is_observed(name)
    }

    /// A condition's status, reason and message.
    fn condition(&self, name: &str, kind: &str) -> (bool, String, String) {
        let resource = self.resource(name);
        let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        (found["status"] == "True", text("reason"), text("message"))
    }

    /// Whether the operator says that it can't serve the resource as it is.
    fn invalid(&self, name: &str) -> Result<bool, String> {
        let (valid, reason, message) = self.condition(name, "SpecValid");
        if !valid {
            let told = !reason.is_empty() && message.len() > 10;
            return told
                .then_some(true)
                .ok_or_else(|| format!("invalid without a reason: {reason:?} {message:?}"));
        }
        match self.condition(name, "Degraded") {
            (true, reason, message) => Err(format!("valid, and degraded by {reason}: {message}")),
            _ => Ok(false),
        }
    }

    /// What there is, without generations, how often it has rolled and what is the autoscaler's.
    fn state(&self) -> State {
        let mut state = (*self.slot.state()).clone();
        let autoscaled = state.keys().any(|(plural, _)| plural == "horizontalpodautoscalers");
        for ((plural, _), object) in &mut state {
            if plural == "persistentvolumeclaims" {
                // Whose the size is depends on whether the claim was ever grown or given away.
                object["metadata"].as_object_mut().map(|metadata| metadata.remove("fields"));
            }
            if plural == "deployments" && autoscaled {
                forget_the_number(object);
            }
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove("deployment.kubernetes.io/revision");
            }
            forget_generations(&mut object["status"]);
            if object["status"].is_null() {
                object.as_object_mut().map(|fields| fields.remove("status"));
            }
        }
        state
    }
}

/// How many workers there are is the autoscaler's, and it takes minutes to have fewer: whether it has ever written
/// the number also decides who has the field.
fn forget_the_number(deployment: &mut Value) {
    deployment["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
    let fields = deployment["metadata"]["fields"].as_object_mut();
    if let Some(fields) = fields {
        fields.retain(|name, _| !name.starts_with("luminate-operator-replicas"));
    }
}

fn forget_generations(status: &mut Value) {
    let Some(fields) = status.as_object_mut() else { return };
    for name in ["observedGeneration", "replicas", "readyReplicas"] {
        fields.remove(name);
    }
    for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let counts = condition["message"].as_str().is_some_and(|message| message.contains(" workers are "));
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("observedGeneration");
            // The reason stays.
            fields.retain(|name, _| name != "message" || !counts);
        }
    }
}

/// A state without the resources themselves.
fn children(state: &State) -> State {
    state
        .iter()
        .filter(|((plural, _), _)| plural != "luminates")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// What references lead to.
fn referred() -> [(&'static str, Value); 3] {
    let metadata = json!({ "name": REFERRED });
    let keys = json!({
        "username": "u", "password": "p", "ca.crt": CERTIFICATE, "jwt-secret": "s".repeat(40),
        "jwks.json": r#"{"keys": []}"#, "other": CERTIFICATE, "tls.crt": CERTIFICATE, "tls.key": "k",
    });
    [
        (
            "secrets",
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys }),
        ),
        (
            "configmaps",
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "data": { "ca.crt": CERTIFICATE, "other": CERTIFICATE },
            }),
        ),
        (
            "secrets",
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "fuzz-tls" }, "type": "kubernetes.io/tls",
                "stringData": { "tls.crt": CERTIFICATE, "tls.key": "k" },
            }),
        ),
    ]
}

/// Nobody reads it: workers aren't run.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
