//! The operator on bad days: what people do to an installation, again and again, while requests between the
//! operator and the API server fail in every way that [`crate::api_proxy`] knows, and while operators are killed,
//! stopped and replaced.
//!
//! Each story is first told without faults: what there is after each of its steps, and how often each object was
//! made and deleted in all, is what every telling with faults must come to. Tellings run side by side, each in a
//! namespace of its own with operators of its own, which have no rights but those of `deploy/rbac`.

mod mirror;
mod slot;
mod state;
mod story;
mod subject;
mod weather;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use kube::Client;

use crate::api_proxy::held;
use crate::operator::{Setup, faulty_binary};
use crate::{Cluster, Installation, api};

pub use mirror::{Mirror, World};
pub use slot::{Expected, Slot};
pub use state::{State, difference, of as state_of};
pub use story::{Step, Story};
pub use subject::Subject;
pub use weather::Weather;

const PROGRESS: Duration = Duration::from_secs(10);
/// A step that takes longer is told of: it may show a pause of the operator that is too long.
const SLOW: Duration = Duration::from_secs(20);

/// A run of the harness.
#[derive(Debug, Clone)]
pub struct Run {
    /// What everything random but the scheduler's choices follows from.
    pub seed: u64,
    /// Fault plans.
    pub plans: usize,
    /// Plans at once, each with a namespace and an operator.
    pub at_once: usize,
    /// Only stories whose name holds this.
    pub only: String,
    /// Ends after so many failures.
    pub most_failures: usize,
    /// These instead of random plans, with each story.
    pub exactly: Vec<Weather>,
    /// The fault of the operator that has some put in on purpose: the run must fail.
    pub bug: Option<String>,
}

impl Run {
    /// A run of so many plans.
    #[must_use]
    pub fn of(plans: usize, seed: u64) -> Self {
        Self {
            seed,
            plans,
            at_once: 8,
            only: String::new(),
            most_failures: 1,
            exactly: Vec::new(),
            bug: None,
        }
    }
}

/// What a run has seen.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Plans carried out.
    pub plans: usize,
    /// Plans of which a fault happened: some ends come before.
    pub harmed: usize,
    /// Requests that something was done to.
    pub faults: u64,
    /// Operators killed or stopped.
    pub kills: u64,
    /// Writes that the operators asked for.
    pub writes: u64,
    /// Objects made, over all plans.
    pub created: u64,
    /// Objects deleted, over all plans.
    pub deleted: u64,
    /// The longest time from a step to its end.
    pub slowest: Duration,
    /// How long it all took.
    pub took: Duration,
    /// Plans and writes without faults, by story.
    pub stories: BTreeMap<String, (usize, u64)>,
    /// What must not be.
    pub failures: Vec<Failure>,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} plans in {} s, {} with faults: {} requests harmed, {} operators killed or stopped, {} writes; {} \
             objects made and {} deleted, as without faults; slowest recovery {} ms; {} failed; seed {}",
            self.plans,
            self.took.as_secs(),
            self.harmed,
            self.faults,
            self.kills,
            self.writes,
            self.created,
            self.deleted,
            self.slowest.as_millis(),
            self.failures.len(),
            self.seed
        )
    }
}

/// Why a plan has failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The story.
    pub story: String,
    /// What failed in it on purpose.
    pub weather: String,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} with {}: {}", self.story, self.weather, self.what)
    }
}

/// Carries out a run, telling `progress` a line every few seconds. What must not be is in
/// [`Summary::failures`].
///
/// # Errors
/// The stories can't be told without faults.
///
/// # Panics
/// When the cluster isn't our own, or refuses the harness itself.
pub fn run(cluster: &Cluster, run: &Run, progress: &mut dyn FnMut(&str)) -> Result<Summary, String> {
    assert!(cluster.is_own(), "it needs simulated nodes");
    let namespaces: Vec<_> = side_by_side(run.at_once, |_| cluster.namespace());
    let installations = side_by_side(run.at_once, |at| Installation::only(cluster, &[&namespaces[at]]));
    let clickhouse = answering_server();
    let stories: Vec<Story> =
        story::all(&clickhouse).into_iter().filter(|story| story.name.contains(&run.only)).collect();
    runtime().block_on(async {
        let client = api::client(cluster.kubeconfig()).await?;
        let names: Vec<String> = namespaces.iter().map(|namespace| namespace.name().to_owned()).collect();
        let mirror = Mirror::of(&client, &names).await;
        let setup = |installation: &Installation<'_>| match &run.bug {
            Some(bug) => installation.operator().binary(&faulty_binary()).env(BUG, bug),
            None => installation.operator(),
        };
        tell(slots(&client, &mirror, &names, &installations, setup).await?, &stories, run, progress).await
    })
}

/// A slot for each namespace, served by its installation.
pub(crate) async fn slots<'a>(
    client: &Client,
    mirror: &'a Mirror,
    namespaces: &[String],
    installations: &[Installation<'_>],
    setup: impl Fn(&Installation<'_>) -> Setup,
) -> Result<Vec<Slot<'a>>, String> {
    let mut slots = Vec::new();
    for (namespace, installation) in namespaces.iter().zip(installations) {
        slots.push(Slot::new(client.clone(), mirror, namespace, installation, setup(installation)).await?);
    }
    Ok(slots)
}

/// Names the fault of an operator that was built with faults.
pub const BUG: &str = "LUMINATE_OPERATOR_SEEDED_BUG";

/// Makes so many of something at once.
pub(crate) fn side_by_side<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let makers: Vec<_> = (0..count)
            .map(|at| {
                scope.spawn({
                    let make = &make;
                    move || make(at)
                })
            })
            .collect();
        makers.into_iter().map(|maker| maker.join().expect("it said why")).collect()
    })
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("threads")
}

/// Something that answers as a ClickHouse server does when asked whether it is there. It lasts as long as this
/// process.
///
/// # Panics
/// When the machine has no free port.
#[must_use]
pub fn answering_server() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut client = client;
                let mut some = [0; 1_000];
                while client.read(&mut some).is_ok_and(|read| read > 0) {
                    // Who has gone needs no answer.
                    let _gone = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nOk.\n");
                }
            });
        }
    });
    format!("http://{address}")
}

/// A plan that is yet to be carried out: a story by number, and what fails.
type Order = (usize, Weather);

async fn tell(
    mut slots: Vec<Slot<'_>>,
    stories: &[Story],
    run: &Run,
    progress: &mut dyn FnMut(&str),
) -> Result<Summary, String> {
    let began = Instant::now();
    let expected = without_faults(&mut slots, stories).await?;
    progress(&format!("{} stories told without faults in {} s", stories.len(), began.elapsed().as_secs()));
    let writes: Vec<u64> = expected.iter().map(|expected| expected.writes).collect();
    let orders = Mutex::new(VecDeque::from(orders(&writes, run)));
    let named = stories.iter().zip(&writes).map(|(story, writes)| (story.name.to_owned(), (0, *writes)));
    let summary = Summary { seed: run.seed, stories: named.collect(), ..Summary::default() };
    let summary = Mutex::new(summary);
    let shown = Mutex::new((Instant::now(), progress));
    let working = slots.iter_mut().map(async |slot| {
        while let Some((at, weather)) = next(&orders, &summary, run) {
            let outcome = slot.live(&stories[at], &weather, Some(&expected[at])).await;
            let slow = outcome.as_ref().ok().map(|seen| seen.slowest).filter(|slowest| *slowest > SLOW);
            let failed = note(&mut held(&summary), &stories[at], &weather, outcome);
            let (last, progress) = &mut *held(&shown);
            if let Some(failure) = failed {
                progress(&format!("failed: {failure}"));
            }
            if let Some(slow) = slow {
                progress(&format!("slow: {} with {weather}: {} ms", stories[at].name, slow.as_millis()));
            }
            if last.elapsed() > PROGRESS {
                *last = Instant::now();
                held(&summary).took = began.elapsed();
                progress(&held(&summary).to_string());
            }
        }
    });
    futures_util::future::join_all(working).await;
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.took = began.elapsed();
    Ok(summary)
}

fn next(orders: &Mutex<VecDeque<Order>>, summary: &Mutex<Summary>, run: &Run) -> Option<Order> {
    if held(summary).failures.len() >= run.most_failures {
        return None;
    }
    held(orders).pop_front()
}

/// What is next; nobody else waits while it is done.
fn first_of(orders: &Mutex<VecDeque<usize>>) -> Option<usize> {
    held(orders).pop_front()
}

/// Every story twice: what a story comes to must not depend on chance.
async fn without_faults(slots: &mut [Slot<'_>], stories: &[Story]) -> Result<Vec<Expected>, String> {
    let expected: Mutex<BTreeMap<usize, Expected>> = Mutex::default();
    let orders: Mutex<VecDeque<usize>> = Mutex::new((0..stories.len()).collect());
    // Few at once: without faults, silence is how the end of a step is told.
    let telling = slots.iter_mut().take(4).map(async |slot| {
        while let Some(at) = first_of(&orders) {
            let story = &stories[at];
            let said = |error| format!("{} without faults: {error}", story.name);
            let first = slot.live(story, &Weather::Calm, None).await.map_err(said)?.expected;
            slot.live(story, &Weather::Calm, Some(&first)).await.map_err(said)?;
            held(&expected).insert(at, first);
        }
        Ok::<(), String>(())
    });
    for outcome in futures_util::future::join_all(telling).await {
        outcome?;
    }
    Ok(expected.into_inner().unwrap_or_default().into_values().collect())
}

/// Crashes before and after every write come first; then everything else that may happen to a write, two
/// processes, and what is random, in random order.
fn orders(writes: &[u64], run: &Run) -> Vec<Order> {
    if !run.exactly.is_empty() {
        let stories = 0..writes.len();
        return run
            .exactly
            .iter()
            .flat_map(|weather| stories.clone().map(|at| (at, weather.clone())))
            .collect();
    }
    let mut random = fastrand::Rng::with_seed(run.seed);
    let of_writes = writes.iter().enumerate();
    let all =
        of_writes.flat_map(|(at, writes)| Weather::of_each_write(*writes).into_iter().map(move |w| (at, w)));
    let (mut crashes, mut others): (Vec<Order>, Vec<Order>) = all.partition(|(_, weather)| weather.crashes());
    for (at, writes) in writes.iter().enumerate() {
        others.extend((1..=*writes).step_by(4).map(|nth| (at, Weather::TwoLeaders(nth))));
    }
    for _ in 0..others.len().max(run.plans) / 2 {
        let at = random.usize(..writes.len());
        others.push((at, Weather::any(&mut random, writes[at])));
    }
    random.shuffle(&mut crashes);
    random.shuffle(&mut others);
    // A short run is of everything.
    let mut orders = if run.plans < 2 * crashes.len() {
        others.extend(crashes);
        random.shuffle(&mut others);
        others
    } else {
        crashes.extend(others);
        crashes
    };
    while orders.len() < run.plans {
        let at = random.usize(..writes.len());
        orders.push((at, Weather::any(&mut random, writes[at])));
    }
    orders.truncate(run.plans);
    orders
}

fn note(
    summary: &mut Summary,
    story: &Story,
    weather: &Weather,
    outcome: Result<slot::Seen, String>,
) -> Option<Failure> {
    summary.plans += 1;
    if let Some((plans, _)) = summary.stories.get_mut(story.name) {
        *plans += 1;
    }
    match outcome {
        Ok(seen) => {
            summary.harmed += usize::from(seen.faults > 0);
            summary.faults += seen.faults;
            summary.kills += seen.kills;
            summary.writes += seen.expected.writes;
            summary.created += seen.expected.created.values().map(|count| u64::from(*count)).sum::<u64>();
            summary.deleted += seen.expected.deleted.values().map(|count| u64::from(*count)).sum::<u64>();
            summary.slowest = summary.slowest.max(seen.slowest);
        }
        Err(what) => {
            let failure = Failure { story: story.name.to_owned(), weather: weather.to_string(), what };
            summary.failures.push(failure.clone());
            return Some(failure);
        }
    }
    None
}
