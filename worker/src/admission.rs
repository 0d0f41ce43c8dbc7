//! Who is let in while the worker is busy.
//!
//! There is one order, [`Class::ORDER`], and one rule: a request is let in while what it would add to is less full
//! than its class's share. Shares fall along the order, so whoever is let in at a moment, everybody before it would
//! be too. What is full is measured, not guessed:
//!
//! | what | holds up |
//! | --- | --- |
//! | bodies: bytes of requests and answers in memory | all classes |
//! | queries: how many are at work | all but writes of known series |
//! | store: what waits for the log or for an insert, and samples in memory only | what writes |
//!
//! A store that can't store (a full disk) holds up no query. Probes and the metrics page pass no gate at all. Writes of
//! known series have a share of one: they are refused only where there is no room left, by [`crate::body`] or by
//! the store itself.

mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use luminate_storage::model::{Query, Tenant};
use luminate_storage::store::MetricsStore;
use parking_lot::Mutex;

use crate::body::BodyBudget;
use crate::error::Error;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::patience::patiently;

use weights::Weights;

/// Requests that wait; of more, the rest are shed at once.
const MOST_WAITING: u32 = 256;
/// What one that was shed is told to wait.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often the log says that requests are being shed.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How important a request is while not all can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A write, as long as it isn't seen to create series.
    KnownSeries,
    /// A query over few samples, a listing, and what administers.
    LightQuery,
    /// A query over more than `query_limits.heavy_samples`.
    HeavyQuery,
    /// The part of a write that creates series.
    NewSeries,
    /// An import of samples from elsewhere: nobody waits for it.
    Import,
}

impl Class {
    /// Every class, the most important first.
    pub const ORDER: [Self; 5] =
        [Self::KnownSeries, Self::LightQuery, Self::HeavyQuery, Self::NewSeries, Self::Import];

    /// Its name in figures and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KnownSeries => "known_series",
            Self::LightQuery => "light_query",
            Self::HeavyQuery => "heavy_query",
            Self::NewSeries => "new_series",
            Self::Import => "import",
        }
    }

    /// It is let in while what it would add to is less full than this.
    #[must_use]
    pub fn share(self) -> f64 {
        match self {
            Self::KnownSeries => 1.0,
            Self::LightQuery => 0.9,
            Self::HeavyQuery => 0.5,
            Self::NewSeries => 0.45,
            Self::Import => 0.4,
        }
    }

    /// The same of the store, whose head alone is half full in the best of times.
    fn share_of_store(self) -> Option<f64> {
        match self {
            Self::KnownSeries => Some(1.0),
            Self::LightQuery | Self::HeavyQuery => None,
            Self::NewSeries => Some(0.8),
            Self::Import => Some(0.6),
        }
    }

    fn is_query(self) -> bool {
        matches!(self, Self::LightQuery | Self::HeavyQuery)
    }
}

/// How full the worker is, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// Of the memory for bodies and answers, what is held.
    pub bodies: f64,
    /// Of the places for queries, those taken.
    pub queries: f64,
    /// Of the store's room for what waits.
    pub store: f64,
}

impl Pressure {
    /// Whether `class` is let in.
    #[must_use]
    pub fn admits(&self, class: Class) -> bool {
        let share = class.share();
        self.bodies < share
            && (class == Class::KnownSeries || self.queries < share)
            && class.share_of_store().is_none_or(|share| self.store < share)
    }
}

/// The gate of a worker.
#[derive(Debug)]
pub struct Gate {
    most_queries: u32,
    heavy_samples: u64,
    queries: AtomicU32,
    waiting: AtomicU32,
    weights: Weights,
    bodies: BodyBudget,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    told: Mutex<Option<Instant>>,
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// The gate whose place it has, where it has one.
    gate: Option<Arc<Gate>>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.queries.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// One that waits for room.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// A gate with room for `most_queries`, of which one is heavy that would look at more than `heavy_samples`.
    #[must_use]
    pub fn new(
        (most_queries, heavy_samples): (u32, u64),
        bodies: BodyBudget,
        lifecycle: Arc<Lifecycle>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            most_queries,
            heavy_samples,
            queries: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            weights: Weights::default(),
            bodies,
            lifecycle,
            metrics,
            told: Mutex::default(),
        }
    }

    /// How full the worker is now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure_beside(0)
    }

    /// The same for a request that holds `own` bytes of the memory for bodies.
    fn pressure_beside(&self, own: u64) -> Pressure {
        Pressure {
            bodies: self.bodies.fullness_beside(own),
            queries: f64::from(self.queries.load(Ordering::Acquire)) / f64::from(self.most_queries.max(1)),
            store: self.lifecycle.store().map_or(0.0, |store| store.pressure()),
        }
    }

    /// Lets a request of `class` in, at once or after a short wait; it counts until the result is dropped.
    ///
    /// # Errors
    /// `Shed`.
    pub async fn enter(self: &Arc<Self>, class: Class) -> Result<Admitted, Error> {
        let admitted = match self.enter_now(class) {
            Some(admitted) => Some(admitted),
            None => self.enter_soon(class).await,
        };
        admitted.ok_or_else(|| self.shed(class))
    }

    /// Lets a query in: as a heavy one if it is, which only matters while there is no room for all.
    ///
    /// # Errors
    /// `Shed`; what the store says when it is asked for a plan.
    pub async fn query(
        self: &Arc<Self>,
        store: &dyn MetricsStore,
        tenant: &Tenant,
        query: &Query,
    ) -> Result<Admitted, Error> {
        let known = store.weight(tenant, query).or_else(|| self.weights.of(tenant, query));
        let weight = match known {
            Some(weight) => weight,
            None if self.pressure().admits(Class::HeavyQuery) => 0,
            None => {
                // A plan costs the server something too, so asking for one has a place like a light query.
                let _asking = self.enter(Class::LightQuery).await?;
                let weight = store.explain(tenant, query).await?.samples;
                self.weights.note(tenant, query, weight);
                weight
            }
        };
        let heavy = weight > self.heavy_samples;
        self.enter(if heavy { Class::HeavyQuery } else { Class::LightQuery }).await
    }

    /// `query` has looked at so many samples, and so will one like it.
    pub fn weighed(&self, tenant: &Tenant, query: &Query, samples: u64) {
        self.weights.note(tenant, query, samples);
    }

    /// Whether a write that holds `own` bytes may create series now. It can't wait: it holds memory that others need.
    #[must_use]
    pub fn may_create(&self, own: u64) -> bool {
        let may = self.pressure_beside(own).admits(Class::NewSeries);
        if may {
            self.metrics.admitted(Class::NewSeries);
        }
        may
    }

    /// The error of a request that isn't let in; counts it, and tells the log now and then.
    pub fn shed(&self, class: Class) -> Error {
        self.metrics.shed(class);
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            let Pressure { bodies, queries, store } = self.pressure();
            tracing::warn!(class = class.name(), bodies, queries, store, "busy: requests are being shed");
        }
        Error::Shed(class)
    }

    fn enter_now(self: &Arc<Self>, class: Class) -> Option<Admitted> {
        if !self.pressure().admits(class) {
            return None;
        }
        let gate = if class.is_query() { Some(self.take_place(class)?) } else { None };
        self.metrics.admitted(class);
        Some(Admitted { gate })
    }

    /// A place for a query; two that come at once don't take the same.
    fn take_place(self: &Arc<Self>, class: Class) -> Option<Arc<Self>> {
        let most = f64::from(self.most_queries) * class.share();
        let more = |taken: u32| (f64::from(taken) < most).then_some(taken + 1);
        self.queries.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Arc::clone(self))
    }

    async fn enter_soon(self: &Arc<Self>, class: Class) -> Option<Admitted> {
        let more = |waiting: u32| (waiting < MOST_WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        let _waiting = Waiting(&self.waiting);
        patiently(|| self.enter_now(class).ok_or(())).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(most: u32) -> Arc<Gate> {
        let metrics = Arc::new(Metrics::new(Arc::default()));
        Arc::new(Gate::new((most, 100), BodyBudget::new(1 << 20, 1 << 20), Arc::default(), metrics))
    }

    fn times(pressure: impl Fn(f64) -> Pressure) -> impl Iterator<Item = Pressure> {
        (0..=110).map(move |part| pressure(f64::from(part) / 100.0))
    }

    #[test]
    fn whoever_is_let_in_everybody_before_would_be_too() {
        let nothing = Pressure { bodies: 0.0, queries: 0.0, store: 0.0 };
        let bodies = times(|bodies| Pressure { bodies, ..nothing });
        let queries = times(|queries| Pressure { queries, ..nothing });
        let store = times(|store| Pressure { store, ..nothing });
        for pressure in bodies.chain(queries).chain(store) {
            let admitted = Class::ORDER.map(|class| pressure.admits(class));
            let writes = [admitted[0], admitted[3], admitted[4]];
            assert!(writes.is_sorted_by(|before, after| before >= after), "{pressure:?}: {admitted:?}");
            // What the store holds up, queries pass.
            let ordered = admitted.is_sorted_by(|before, after| before >= after);
            assert!(ordered || pressure.store > 0.0, "{pressure:?}: {admitted:?}");
        }
        assert!(Class::ORDER.iter().all(|class| nothing.admits(*class)));
    }

    #[test]
    fn a_store_that_is_full_holds_up_writes_only() {
        let full = Pressure { bodies: 0.0, queries: 0.0, store: 1.0 };
        assert_eq!(Class::ORDER.map(|class| full.admits(class)), [false, true, true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn places_for_heavy_queries_leave_room_for_light_ones() {
        let gate = gate(10);
        let mut heavy = Vec::new();
        while let Ok(admitted) = gate.enter(Class::HeavyQuery).await {
            heavy.push(admitted);
        }
        assert_eq!(heavy.len(), 5);
        assert!(!gate.may_create(0));
        assert_eq!(gate.enter(Class::Import).await.unwrap_err(), Error::Shed(Class::Import));
        let mut light = Vec::new();
        while let Ok(admitted) = gate.enter(Class::LightQuery).await {
            light.push(admitted);
        }
        assert_eq!(light.len(), 4);
        assert!(gate.pressure().admits(Class::KnownSeries));
        drop((heavy, light));
        assert!(gate.may_create(0) && gate.enter(Class::HeavyQuery).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_burst_only_waits() {
        let gate = gate(10);
        let mut taken = Vec::new();
        for _ in 0..5 {
            taken.push(gate.enter(Class::HeavyQuery).await.unwrap());
        }
        let late = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(Class::HeavyQuery).await.is_ok() }
        });
        tokio::time::sleep(crate::patience::PATIENCE / 2).await;
        taken.pop();
        assert!(late.await.unwrap());
    }
}
