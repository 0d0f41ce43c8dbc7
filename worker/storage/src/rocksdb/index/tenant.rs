//! One tenant's series, behind its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use roaring::RoaringBitmap;

use crate::model::{
    Dimensions, MetricName, NewSeries, SeriesHandle, SeriesLimits, Spelling, SpellingHasher, Tenant,
};
use crate::store::{ErrorKind, Refusal, Result, SeriesLookup, StoreError};

use super::Shared;
use super::core::{Core, Metric};
use super::definitions::{Definitions, ShapeOf, Stored};
use super::identity::{Identifier, Identity};
use super::spellings::Spellings;

/// Series that are created or read under one hold of the lock: a millisecond at most.
const AT_ONCE: usize = 512;
/// Series that are removed under one hold of the lock.
const REMOVED_AT_ONCE: usize = 2_048;
/// A small tenant's numbers are set aside one by one, a large one's in groups of up to this many.
const MOST_SPARE: u64 = 64;

/// The series of one tenant.
#[derive(Debug)]
pub struct TenantIndex {
    tenant: Tenant,
    shared: Arc<Shared>,
    hasher: SpellingHasher,
    spellings: Spellings,
    /// What its marks among the guesses of all tenants differ by.
    salt: u64,
    pub(super) core: RwLock<Core>,
    /// What of its memory and of its series all tenants' sums hold.
    accounted: AtomicUsize,
    counted: AtomicU64,
}

type Resolved = std::result::Result<u32, Refusal>;

impl TenantIndex {
    pub(super) fn new(tenant: Tenant, shared: Arc<Shared>) -> Self {
        shared.account(0, Spellings::fixed_bytes() + size_of::<Self>());
        let hasher = SpellingHasher::new(*shared.secret);
        Self {
            salt: hasher.hash(tenant.as_str().as_bytes()).0 as u64,
            hasher,
            spellings: Spellings::default(),
            core: RwLock::new(Core::new(shared.secret.clone())),
            accounted: AtomicUsize::new(0),
            counted: AtomicU64::new(0),
            tenant,
            shared,
        }
    }

    /// The numbers of described series, in their order: found, created under `limits`, or refused.
    /// Definitions of those created are added to `definitions`.
    ///
    /// # Errors
    /// `Unavailable` when there are no more numbers. No series was created then.
    pub fn resolve(
        &self,
        new: &[NewSeries],
        limits: &SeriesLimits,
        definitions: &mut Definitions,
    ) -> Result<Vec<Resolved>> {
        // 1. Who they are. No lock.
        let mut identifier = self.identifier();
        let mut last = None;
        let identities: Vec<Identity> = new
            .iter()
            .map(|series| {
                let NewSeries { metric, dimensions, .. } = series;
                match last.replace(dimensions) {
                    Some(last) if dimensions.is(last) => identifier.of_same(metric),
                    _ => identity(&mut identifier, metric, dimensions),
                }
            })
            .collect();
        // 2. Those that are known. A shared lock.
        let mut resolved: Vec<Resolved> = vec![Ok(u32::MAX); new.len()];
        let missing = self.find_known(&identities, &mut resolved);
        if missing.is_empty() {
            return Ok(resolved);
        }
        // 3. Those that are new. The lock, for some of them at a time.
        if self.shared.bytes.load(Ordering::Relaxed) >= self.shared.memory_budget {
            missing.iter().for_each(|at| resolved[*at] = Err(Refusal::MemoryLimit));
            return Ok(resolved);
        }
        self.check_room(new, &missing)?;
        let mut creation = Creation { index: self, limits, definitions, last: None, texts: Vec::new() };
        for (part, done) in missing.chunks(AT_ONCE).zip((0..).step_by(AT_ONCE)) {
            let mut core = self.core.write();
            // Without the lock a removal may have swept the texts of the series before.
            creation.last = None;
            self.set_aside(&mut core, missing.len() - done)?;
            for at in part {
                resolved[*at] = creation.find_or_create(&mut core, &new[*at], identities[*at])?;
            }
            self.account(&mut core);
        }
        Ok(resolved)
    }

    fn identifier(&self) -> Identifier {
        Identifier::new(&self.tenant, self.shared.secret.clone())
    }

    fn find_known(&self, identities: &[Identity], resolved: &mut [Resolved]) -> Vec<usize> {
        let core = self.core.read();
        let mut missing = Vec::new();
        for (at, identity) in identities.iter().enumerate() {
            match core.find(*identity) {
                Some(id) => resolved[at] = Ok(id),
                None => missing.push(at),
            }
        }
        missing
    }

    fn check_room(&self, new: &[NewSeries], missing: &[usize]) -> Result<()> {
        let columns = missing.iter().map(|at| new[*at].dimensions.len()).max().unwrap_or(0);
        if !self.core.read().has_room(missing.len(), columns) {
            return Err(exhausted());
        }
        Ok(())
    }

    /// Sees to it that numbers for `count` series are set aside.
    fn set_aside(&self, core: &mut Core, count: usize) -> Result<()> {
        if core.spare.len() < count {
            let least = (core.known().len() / 4).min(MOST_SPARE) as usize;
            let count = u32::try_from(count.max(least)).map_err(|_| exhausted())?;
            core.spare = self.shared.reserve_series(count).ok_or_else(exhausted)?;
        }
        Ok(())
    }

    /// Remembers how series that were resolved are spelled.
    pub fn remember(&self, spelled: &[(Spelling, u32)]) {
        for part in spelled.chunks(AT_ONCE) {
            // Held, so that no series is removed between the look at it and the note of its spelling:
            // a removal forgets spellings only once it has held the lock.
            let core = self.core.read();
            let series = core.known().len() as usize;
            for (spelling, id) in part.iter().filter(|(_, id)| core.known().contains(*id)) {
                let grown = self.spellings.insert(*spelling, *id, series, &self.shared.allowance);
                self.shared.account(0, grown + self.shared.guesses.set(*id, self.salt, *spelling));
            }
        }
    }

    /// Marks those of `ids` (ascending) that are known present on `day`.
    pub fn mark(&self, day: i32, ids: &[u32]) {
        let ids: RoaringBitmap = ids.iter().copied().collect();
        let mut core = self.core.write();
        let known = ids & core.known();
        core.presence.mark(day, &known);
        self.account(&mut core);
    }

    /// The series present on `day`.
    #[must_use]
    pub fn presence(&self, day: i32) -> Option<RoaringBitmap> {
        self.core.read().presence.day(day).cloned()
    }

    /// The days on which a series is present, ascending.
    #[must_use]
    pub fn days(&self) -> Vec<i32> {
        self.core.read().presence.days()
    }

    /// Takes the series of `metric` off all days before `first_kept`; removes and returns those that
    /// are left without a day. One that was never marked stays.
    pub fn delete_days(&self, metric: u32, first_kept: i32) -> Vec<u32> {
        self.remove(|own| if own.number == metric { first_kept } else { i32::MIN })
    }

    /// Takes all series off the days before the first that their metric keeps; removes and returns
    /// those that are left without a day. One that was never marked stays.
    pub fn expire(&self, first_kept: &dyn Fn(&MetricName) -> i32) -> Vec<u32> {
        self.remove(|metric| first_kept(&metric.name))
    }

    fn remove(&self, first_kept: impl Fn(&Metric) -> i32) -> Vec<u32> {
        // 1. Nobody finds them from here on.
        let gone = self.core.write().take_off(first_kept);
        if gone.is_empty() {
            return Vec::new();
        }
        // 2. What they hold, a part at a time.
        let ids: Vec<u32> = gone.iter().collect();
        for part in ids.chunks(REMOVED_AT_ONCE) {
            self.core.write().erase(&part.iter().copied().collect());
        }
        let mut table = 0;
        while self.core.write().sweep_identities(table) {
            table += 1;
        }
        let freed = self.spellings.retain(|id| !gone.contains(id), &self.shared.allowance);
        self.shared.account(freed, 0);
        ids.iter().for_each(|id| self.shared.guesses.clear(*id));
        // 3. The holes that they leave.
        let mut core = self.core.write();
        core.tidy();
        self.account(&mut core);
        ids
    }

    /// Whether series `id` is known.
    #[must_use]
    pub fn alive(&self, id: u32) -> bool {
        self.core.read().known().contains(id)
    }

    /// Which of `ids` are known: [`TenantIndex::alive`] for many, under one lock.
    #[must_use]
    pub fn alive_each(&self, ids: &[u32]) -> Vec<bool> {
        let core = self.core.read();
        ids.iter().map(|id| core.known().contains(*id)).collect()
    }

    /// Metrics with a series present, and series present, on any day.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        let core = self.core.read();
        let present = core.presence.present();
        let metrics = core.metrics.iter().filter(|metric| !metric.series.is_disjoint(present));
        (metrics.count() as u64, present.len())
    }

    /// The number of a metric that has or had a series.
    #[must_use]
    pub fn metric_number(&self, metric: &MetricName) -> Option<u32> {
        let core = self.core.read();
        core.metric_place(metric).map(|place| core.metrics[place].number)
    }

    /// Numbers of all metrics that have or had a series.
    #[must_use]
    pub fn metric_numbers(&self) -> Vec<u32> {
        self.core.read().metrics.iter().map(|metric| metric.number).collect()
    }

    /// Definitions of those of `wanted` that are known.
    pub(super) fn definitions(&self, wanted: &RoaringBitmap) -> Definitions {
        let mut definitions = Definitions::default();
        let ids: Vec<u32> = (self.core.read().known() & wanted).iter().collect();
        for part in ids.chunks(AT_ONCE) {
            let core = self.core.read();
            for id in part {
                let Some((number, shape, row)) = core.row(*id) else { continue };
                let metric = &core.metrics[shape.metric as usize];
                let of = ShapeOf { number, metric: metric.number, name: &metric.name };
                let values = core.values(shape, row).map(|text| (text, core.texts.get(text)));
                definitions.add(&self.tenant, *id, of, core.keys(shape), values);
            }
        }
        definitions
    }

    /// Loads the series of a section that `keep` accepts.
    pub(super) fn load(
        &self,
        section: &Stored<'_>,
        keep: &dyn Fn(u32) -> bool,
        each: &mut dyn FnMut(u32, u32),
    ) -> Result<()> {
        let mut identifier = self.identifier();
        let mut core = self.core.write();
        let mut shapes: Vec<Option<u32>> = vec![None; section.shapes.len()];
        let mut texts: Vec<Option<u32>> = vec![None; section.texts.len()];
        let mut values = Vec::new();
        for series in section.series.iter().filter(|series| keep(series.id)) {
            let stored = &section.shapes[series.shape as usize];
            each(series.id, stored.metric);
            if core.row(series.id).is_some() {
                continue;
            }
            let first = series.values as usize;
            let places = &section.values[first..first + stored.keys.len()];
            let pairs = stored.keys.iter().zip(places);
            let pairs = pairs.map(|(key, place)| (key.as_str(), section.texts[*place as usize]));
            let identity = identifier.of(&stored.name, pairs);
            if let Some(other) = core.find(identity) {
                if other > series.id {
                    continue;
                }
                core.withdraw(&RoaringBitmap::from_iter([other]));
            }
            let shape = match shapes[series.shape as usize] {
                Some(shape) => shape,
                None => {
                    let metric = stored_metric(&mut core, &stored.name, stored.metric)?;
                    *shapes[series.shape as usize].insert(core.shape(metric, || stored.keys.iter()))
                }
            };
            values.clear();
            for place in places {
                let at = *place as usize;
                let text = texts[at].unwrap_or_else(|| core.texts.intern(section.texts[at]));
                texts[at] = Some(text);
                values.push(text);
            }
            core.insert(series.id, identity, shape, &values);
        }
        self.account(&mut core);
        Ok(())
    }

    /// Bytes of orders that listings have asked for.
    pub(super) fn order_bytes(&self) -> usize {
        let core = self.core.read();
        core.metrics.iter().flat_map(|metric| &metric.columns).map(|column| column.order_bytes()).sum()
    }

    fn account(&self, core: &mut Core) {
        let bytes = core.bytes();
        self.shared.account(self.accounted.swap(bytes, Ordering::Relaxed), bytes);
        let present = core.presence.present().len();
        self.shared.count(self.counted.swap(present, Ordering::Relaxed), present);
    }
}

impl SeriesLookup for TenantIndex {
    fn hasher(&self) -> &SpellingHasher {
        &self.hasher
    }

    fn find(&self, spelling: Spelling) -> Option<SeriesHandle> {
        self.spellings.find(spelling).map(SeriesHandle)
    }

    fn find_after(&self, previous: SeriesHandle, spelling: Spelling) -> Option<SeriesHandle> {
        let next = previous.0.wrapping_add(1);
        if self.shared.guesses.is(next, self.salt, spelling) {
            return Some(SeriesHandle(next));
        }
        self.find(spelling)
    }
}

fn identity(identifier: &mut Identifier, metric: &MetricName, dimensions: &Dimensions) -> Identity {
    identifier.of(metric, dimensions.iter().map(|(key, value)| (key.as_str(), value.as_ref())))
}

/// The place of a metric that a blob names, added if it must be.
fn stored_metric(core: &mut Core, name: &MetricName, number: u32) -> Result<usize> {
    match (core.metric_place(name), core.metric_by_number(number)) {
        (None, None) => Ok(core.add_metric(name.clone(), number)),
        (Some(place), Some(other)) if place == other => Ok(place),
        _ => Err(StoreError::corrupt(format!("definitions name metric {number} in two ways"))),
    }
}

fn exhausted() -> StoreError {
    let kind = ErrorKind::Unavailable { retry_after: Duration::from_secs(600) };
    StoreError::new(kind, "there are no numbers left for new series")
}

/// What the creation of a batch's series needs.
struct Creation<'a> {
    index: &'a TenantIndex,
    limits: &'a SeriesLimits,
    definitions: &'a mut Definitions,
    /// Dimensions of the series before, and its values: the next one often has the same, or much the same.
    last: Option<&'a Dimensions>,
    texts: Vec<u32>,
}

impl<'a> Creation<'a> {
    fn find_or_create(
        &mut self,
        core: &mut Core,
        series: &'a NewSeries,
        identity: Identity,
    ) -> Result<Resolved> {
        // Another batch, or an earlier row of this one, may have created it since.
        if let Some(id) = core.find(identity) {
            return Ok(Ok(id));
        }
        let place = core.metric_place(&series.metric);
        if let Err(refusal) = self.check_limits(core, place) {
            return Ok(Err(refusal));
        }
        let id = core.spare.next().ok_or_else(exhausted)?;
        let place = place.unwrap_or_else(|| {
            let number = self.index.shared.add_metric(&self.index.tenant, &series.metric);
            core.add_metric(series.metric.clone(), number)
        });
        let keys = series.dimensions.iter().map(|(key, _)| key);
        let shape = core.shape(place, || series.dimensions.iter().map(|(key, _)| key));
        if !self.last.replace(&series.dimensions).is_some_and(|last| series.dimensions.is(last)) {
            core.intern(series.dimensions.iter().map(|(_, value)| value.as_ref()), &mut self.texts);
        }
        core.insert(id, identity, shape, &self.texts);
        let of = ShapeOf { number: shape, metric: core.metrics[place].number, name: &series.metric };
        let values = series.dimensions.iter().map(|(_, value)| value.as_ref());
        let values = self.texts.iter().copied().zip(values);
        self.definitions.add(&self.index.tenant, id, of, keys, values);
        Ok(Ok(id))
    }

    fn check_limits(&self, core: &Core, place: Option<usize>) -> std::result::Result<(), Refusal> {
        let series = place.map_or(0, |place| core.metrics[place].count);
        if series == 0 && core.metric_count() >= self.limits.max_metrics {
            return Err(Refusal::MetricLimit { limit: self.limits.max_metrics });
        }
        if series >= self.limits.max_series_per_metric {
            return Err(Refusal::SeriesLimit { limit: self.limits.max_series_per_metric });
        }
        Ok(())
    }
}
