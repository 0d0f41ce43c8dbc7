//! A namespace in which stories are told one after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::Client;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::mirror::{Mirror, Place};
use super::state::{self, State, difference};
use super::story::{NAME, Step, Story};
use super::subject::Subject;
use super::weather::Weather;
use crate::Installation;
use crate::admin::Admin;
use crate::api_proxy::{ApiProxy, Noted, Victim, held};
use crate::operator::Setup;

/// How long a step may take, whatever fails: far more than the longest pause of an operator after few failures.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long bad weather lasts in each step; then all is healed.
const BAD: Duration = Duration::from_secs(4);
/// How long an operator must be silent to count as settled.
const SILENCE: Duration = Duration::from_millis(1_000);
/// The same without faults, where silence is how the end of a step is told.
const LONG_SILENCE: Duration = Duration::from_millis(3_000);
/// Longer than a Lease is valid.
const STOPPED: Duration = Duration::from_secs(17);

/// What a story comes to.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The state after each step.
    pub states: Vec<State>,
    /// How often each object was made.
    pub created: BTreeMap<Place, u32>,
    /// How often each object was deleted.
    pub deleted: BTreeMap<Place, u32>,
    /// How many writes the operator asked for.
    pub writes: u64,
}

/// What was seen of a telling.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What the story came to.
    pub expected: Expected,
    /// Requests that something was done to.
    pub faults: u64,
    /// Operators that were killed or stopped.
    pub kills: u64,
    /// The longest time from a step to its end.
    pub slowest: Duration,
}

/// A namespace, with the ways to it: one for each of two operators.
#[derive(Debug)]
pub struct Slot<'a> {
    admin: Admin,
    mirror: &'a Mirror,
    namespace: String,
    ways: [(ApiProxy, Setup, Victim); 2],
    /// The state of a version of the mirror: it is looked at far more often than it changes.
    known: Mutex<(u64, Arc<State>)>,
}

impl<'a> Slot<'a> {
    /// A namespace that `installation` serves.
    ///
    /// # Errors
    /// The installation's kubeconfig can't be used.
    pub async fn new(
        client: Client,
        mirror: &'a Mirror,
        namespace: &str,
        installation: &Installation<'_>,
        setup: Setup,
    ) -> Result<Self, String> {
        let home = installation.home();
        let way = async || {
            let victim = Victim::default();
            let proxy = ApiProxy::before(installation.kubeconfig(), victim.clone()).await?;
            let through = setup.clone().through(&proxy.kubeconfig(home.cluster().folder(), home.name()));
            Ok::<_, String>((proxy, through, victim))
        };
        let ways = [way().await?, way().await?];
        let (admin, namespace) = (Admin::new(client, namespace), namespace.to_owned());
        Ok(Self { admin, mirror, namespace, ways, known: Mutex::default() })
    }

    /// Its administrator.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Starts an operator that has no other beside it.
    #[must_use]
    pub fn start_alone(&self) -> Subject {
        let (_, setup, victim) = &self.ways[0];
        Subject::start(setup.clone().argument("--alone"), victim.clone())
    }

    /// Whether a resource's status is of what it says now.
    #[must_use]
    pub fn is_observed(&self, name: &str) -> bool {
        let place = ("luminates".to_owned(), name.to_owned());
        self.mirror.with(&self.namespace, |world| {
            world.objects.get(&place).is_some_and(|resource| {
                resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
            })
        })
    }

    /// Tells a story in a weather. Without what is expected, what it comes to is found out.
    ///
    /// # Errors
    /// What must not be.
    pub async fn live(
        &mut self,
        story: &Story,
        weather: &Weather,
        expected: Option<&Expected>,
    ) -> Result<Seen, String> {
        self.clean().await?;
        let faults = self.faults();
        let elected = matches!(weather, Weather::TwoLeaders(_));
        self.harm(weather);
        let subjects = self.start(elected);
        let continuing = elected
            .then(|| tokio::spawn(go_on(self.ways.each_ref().map(|way| way.2.clone()), once(&self.ways))));
        let mut told = self.tell(story, weather, expected).await;
        if let Some(continuing) = continuing {
            continuing.abort();
        }
        let (mut ended, mut on_its_own, mut logs) = (0, 0, String::new());
        for subject in subjects {
            ended += subject.ended();
            on_its_own += subject.on_its_own();
            logs += &subject.stop().await;
        }
        self.heal();
        if told.is_ok() && !elected && on_its_own > 0 {
            told = Err(format!("an operator ended on its own, {on_its_own} times"));
        }
        let mut seen = told.map_err(|what| format!("{what}\n{logs}"))?;
        seen.faults = self.faults() - faults;
        seen.kills = ended + u64::from(elected && seen.faults > 0);
        Ok(seen)
    }

    fn faults(&self) -> u64 {
        self.ways.iter().map(|(proxy, ..)| proxy.faults()).sum()
    }

    fn heal(&self) {
        self.ways.iter().for_each(|(proxy, ..)| proxy.heal());
    }

    /// Of two operators one is harmed, whichever is the first to get there.
    fn harm(&self, weather: &Weather) {
        let happened = Arc::new(AtomicBool::new(false));
        for (proxy, ..) in &self.ways {
            let (mut plan, happened) = (weather.plan(), Arc::clone(&happened));
            let once = matches!(weather, Weather::TwoLeaders(_));
            proxy.plan(move |asked| {
                if once && happened.load(Ordering::Relaxed) {
                    return None;
                }
                let fault = plan(asked);
                happened.fetch_or(fault.is_some(), Ordering::Relaxed);
                fault
            });
        }
    }

    fn start(&self, elected: bool) -> Vec<Subject> {
        match elected {
            false => vec![self.start_alone()],
            true => self
                .ways
                .iter()
                .map(|(_, setup, victim)| Subject::start(setup.clone(), victim.clone()))
                .collect(),
        }
    }

    async fn tell(
        &mut self,
        story: &Story,
        weather: &Weather,
        expected: Option<&Expected>,
    ) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let mut requests: Vec<Noted> = Vec::new();
        for (at, step) in story.steps.iter().enumerate() {
            let said = |what: String| format!("step {} of {}, {step:?}: {what}", at + 1, story.steps.len());
            if at > 0 && !weather.passes() {
                self.harm(weather);
            }
            self.take(step).await.map_err(said)?;
            let began = Instant::now();
            let last = at + 1 == story.steps.len();
            match expected {
                Some(expected) => {
                    // Settled means silent, and that nothing comes after it.
                    let silence = match story.steps.len() - at {
                        1 => Some(SILENCE / 2),
                        2 => Some(SILENCE),
                        _ => None,
                    };
                    self.settles(&expected.states[at], weather, silence).await.map_err(said)?;
                }
                None => {
                    if last {
                        self.collected().await.map_err(said)?;
                    } else if !story.unready.contains(&at) {
                        self.gets_ready().await.map_err(said)?;
                    }
                    self.silence(LONG_SILENCE).await.map_err(said)?;
                }
            }
            seen.slowest = seen.slowest.max(began.elapsed());
            if let Some(what) = state::taken(&self.state()) {
                return Err(said(what));
            }
            seen.expected.states.push((*self.state()).clone());
            requests.extend(self.ways.iter().flat_map(|(proxy, ..)| proxy.requests()));
        }
        seen.expected.writes = requests.iter().filter(|noted| noted.asked.counts_as_write()).count() as u64;
        self.count(&mut seen.expected, expected)?;
        Ok(seen)
    }

    /// What was made and deleted in all, and whether it is what it should be.
    fn count(&self, found: &mut Expected, expected: Option<&Expected>) -> Result<(), String> {
        let rewritten = self.mirror.with(&self.namespace, |world| {
            found.created.clone_from(&world.created);
            found.deleted.clone_from(&world.deleted);
            world.rewritten.clone()
        });
        if let Some((plural, name)) = rewritten.first() {
            return Err(format!("{plural}/{name} was written anew: who had its data is locked out"));
        }
        let Some(expected) = expected else { return Ok(()) };
        for (what, expected, found) in
            [("made", &expected.created, &found.created), ("deleted", &expected.deleted, &found.deleted)]
        {
            let places = expected.keys().chain(found.keys());
            let of = |counts: &BTreeMap<Place, u32>, place| counts.get(place).copied().unwrap_or(0);
            if let Some(place) = places.into_iter().find(|place| of(expected, place) != of(found, place)) {
                let (plural, name) = place;
                let (wanted, found) = (of(expected, place), of(found, place));
                return Err(format!("{plural}/{name} was {what} {found} times instead of {wanted}"));
            }
        }
        Ok(())
    }

    /// What there is now.
    pub(crate) fn state(&self) -> Arc<State> {
        let known = &mut *held(&self.known);
        self.mirror.with(&self.namespace, |world| {
            if known.0 != world.version {
                *known = (world.version, Arc::new(state::of(world, &self.namespace)));
            }
        });
        Arc::clone(&known.1)
    }

    /// Waits until the resource says that it is ready as it is now.
    async fn gets_ready(&self) -> Result<(), String> {
        let place = ("luminates".to_owned(), NAME.to_owned());
        let ready = |world: &mut super::World| {
            let resource = world.objects.get(&place).cloned().unwrap_or_default();
            let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            ready && resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
        };
        let is = || self.mirror.with(&self.namespace, ready);
        self.until(PATIENCE, is).await.then_some(()).ok_or("it doesn't get ready".to_owned())
    }

    /// Waits until the garbage collector has done its work.
    async fn collected(&self) -> Result<(), String> {
        let owned = |object: &Value| object["metadata"]["ownerReferences"].is_array();
        let none = || self.mirror.with(&self.namespace, |world| !world.objects.values().any(owned));
        self.until(PATIENCE, none).await.then_some(()).ok_or("what it owns isn't collected".to_owned())
    }

    /// Does what a step says, and waits until the mirror shows it.
    pub(crate) async fn take(&self, step: &Step) -> Result<(), String> {
        match step {
            Step::Create(plural, body) => {
                let made = self.admin.create(plural, body).await?;
                self.shows(plural, &made).await
            }
            Step::Change(plural, name, patch) => {
                let changed = self.admin.merge(plural, name, patch).await?;
                self.shows(plural, &changed).await
            }
            Step::AllowSwitch => {
                let before = self.admin.get("luminates", NAME).await?;
                let generation = before["metadata"]["generation"].to_string();
                let leave = json!({ "luminate.dev/allow-backend-switch": generation });
                let patch = json!({ "metadata": { "annotations": leave } });
                let changed = self.admin.merge("luminates", NAME, &patch).await?;
                self.shows("luminates", &changed).await
            }
            Step::All(steps) => {
                for step in steps {
                    Box::pin(self.take(step)).await?;
                }
                Ok(())
            }
            Step::Delete(plural, name) => {
                let place = ((*plural).to_owned(), (*name).to_owned());
                let gone = || {
                    let counted = |world: &mut super::World| world.deleted.get(&place).copied().unwrap_or(0);
                    self.mirror.with(&self.namespace, counted)
                };
                let before = gone();
                self.admin.delete(plural, name).await?;
                self.until(PATIENCE, || gone() > before)
                    .await
                    .then_some(())
                    .ok_or("it isn't deleted".to_owned())
            }
        }
    }

    /// Waits until the mirror has seen this version of an object, or a later one.
    pub(crate) async fn shows(&self, plural: &str, object: &Value) -> Result<(), String> {
        let version = |object: &Value| -> u64 {
            object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let wanted = version(object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let place = (plural.to_owned(), name);
        let seen = || {
            let look = |world: &mut super::World| world.objects.get(&place).map_or(0, version);
            self.mirror.with(&self.namespace, look) >= wanted
        };
        self.until(PATIENCE, seen)
            .await
            .then_some(())
            .ok_or("the harness doesn't see its own write".to_owned())
    }

    /// Waits until something holds, looking whenever anything changes.
    pub(crate) async fn until(&self, patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let mut changes = self.mirror.changes();
        let began = Instant::now();
        while !holds() {
            if began.elapsed() > patience {
                return false;
            }
            // Woken at once by whatever happens in any namespace, so it is bounded from below too.
            let _changed = tokio::time::timeout(Duration::from_millis(200), changes.changed()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Waits until all is as it should be, and stays so in silence where that is asked for.
    async fn settles(
        &self,
        expected: &State,
        weather: &Weather,
        silence: Option<Duration>,
    ) -> Result<(), String> {
        let began = Instant::now();
        loop {
            self.comes_to(expected, weather).await?;
            let Some(silence) = silence else { return Ok(()) };
            self.heal();
            self.silence(silence).await?;
            match difference(expected, &self.state()) {
                None => return Ok(()),
                // Pods may still be on their way.
                Some(_) if began.elapsed() < PATIENCE => {}
                Some(what) => return Err(format!("it was as it should be, and then {what}")),
            }
        }
    }

    async fn comes_to(&self, expected: &State, weather: &Weather) -> Result<(), String> {
        let is = || difference(expected, &self.state()).is_none();
        if self.until(BAD, is).await {
            return Ok(());
        }
        if !weather.passes() {
            self.heal();
        }
        if self.until(PATIENCE, is).await {
            return Ok(());
        }
        let what = difference(expected, &self.state()).unwrap_or_default();
        Err(format!("after {} s {what}", (BAD + PATIENCE).as_secs()))
    }

    /// Waits until nobody has written anything for so long.
    pub(crate) async fn silence(&self, time: Duration) -> Result<(), String> {
        let (began, mut last, mut state) = (Instant::now(), Instant::now(), self.state());
        while last.elapsed() < time {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.state();
            if now != state {
                (last, state) = (Instant::now(), now);
            }
            let wrote = self.ways.iter().filter_map(|(proxy, ..)| proxy.last_write()).max();
            last = wrote.map_or(last, |wrote| last.max(wrote));
            if began.elapsed() > PATIENCE {
                let requests: Vec<Noted> =
                    self.ways.iter().flat_map(|(proxy, ..)| proxy.requests()).collect();
                let tally = crate::api_proxy::tally(&requests);
                return Err(format!("it is never silent: {tally:?}"));
            }
        }
        Ok(())
    }

    /// Removes whatever the story before has left.
    async fn clean(&self) -> Result<(), String> {
        self.heal();
        let places: Vec<Place> =
            self.mirror.with(&self.namespace, |world| world.objects.keys().cloned().collect());
        for (plural, name) in places.iter().filter(|(plural, _)| plural == "luminates").chain(&places) {
            self.admin.delete(plural, name).await?;
        }
        let empty = |world: &mut super::World| world.objects.is_empty() && world.pods.is_empty();
        if !self.until(PATIENCE, || self.mirror.with(&self.namespace, empty)).await {
            let left = self.mirror.with(&self.namespace, |world| {
                (world.objects.keys().cloned().collect::<Vec<_>>(), world.pods.clone())
            });
            return Err(format!("the harness can't clean up: {left:?}"));
        }
        self.mirror.with(&self.namespace, super::World::clear_counts);
        self.ways.iter().for_each(|(proxy, ..)| drop(proxy.requests()));
        Ok(())
    }
}

/// Whether the one fault has happened so far, by the proxies' counts.
fn once(ways: &[(ApiProxy, Setup, Victim); 2]) -> impl Fn() -> bool + Send + use<> {
    let counters = ways.each_ref().map(|(proxy, ..)| (proxy.fault_counter(), proxy.faults()));
    move || counters.iter().any(|(counter, before)| counter() > *before)
}

/// Lets a stopped operator go on when its Lease has long run out.
async fn go_on(victims: [Victim; 2], happened: impl Fn() -> bool + Send) {
    while !happened() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(STOPPED).await;
    for victim in victims {
        victim.signal(Signal::SIGCONT);
    }
}
