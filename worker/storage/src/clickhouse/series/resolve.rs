//! From a batch to rows of the tables: which series each row belongs to, and which rows are refused.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clickhouse::client::Database;
use crate::clickhouse::fingerprint::Fingerprints;
use crate::model::{Batch, NewSeries, RowSeries, SeriesLimits};
use crate::store::{ErrorKind, Refusal, Result, StoreError};

use super::cache::{Created, Metrics, Remembered, TenantSeries};
use super::census::{Floors, Questions};
use super::days::{Days, day_of};

/// Instead of a metric's number: the row's series is described in the batch.
const DESCRIBED: u32 = u32::MAX;

/// A sample with its series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The number of its metric.
    pub metric: u32,
    /// Its place in what was written: of two for one series and time the later wins.
    pub place: u32,
    /// Its series' fingerprint.
    pub fp: u64,
    /// Unix milliseconds.
    pub time: i64,
    /// The value.
    pub value: f64,
}

/// A series that the batch describes and has rows of.
#[derive(Debug)]
pub struct Described {
    /// Its fingerprint.
    pub fp: u64,
    /// Its metric's number.
    pub metric: u32,
    /// Its place in [`Resolved::descriptions`].
    pub at: usize,
    /// Days that it has rows of.
    pub days: Vec<i32>,
    /// Days whose `series` row is in ClickHouse already.
    pub there: Days,
    verdict: Option<std::result::Result<(), Refusal>>,
}

/// A batch whose rows have their series.
#[derive(Debug)]
pub struct Resolved {
    /// Of whom.
    pub tenant: Arc<TenantSeries>,
    /// Under which generation.
    pub generation: u64,
    /// What the rows' metrics are called.
    pub metrics: Arc<Metrics>,
    /// The rows to store.
    pub rows: Vec<Row>,
    /// The days they are of, ascending.
    pub days: Vec<i32>,
    /// The described series that have rows.
    pub described: Vec<Described>,
    /// The series as they were described.
    pub descriptions: Vec<NewSeries>,
    /// For each of them its place in `described`, if it has one.
    places: Vec<Option<u32>>,
    /// The series that the batch creates.
    pub created: Created,
    /// Whether a row came by a handle.
    pub by_handle: bool,
    /// Rows that are refused, ascending.
    pub refused: Vec<(u32, Refusal)>,
}

impl Resolved {
    /// What is known once the batch is stored.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        let described = self.descriptions.iter().zip(&self.places).filter_map(|(series, place)| {
            let own = self.described.get((*place)? as usize)?;
            let mut days = own.there;
            own.days.iter().for_each(|day| days.insert(*day));
            Some(Remembered { fp: own.fp, metric: own.metric, days, spelling: series.spelling })
        });
        described.collect()
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let texts = |series: &NewSeries| {
            series.dimensions.iter().map(|(key, value)| key.as_str().len() + value.len() + 64).sum::<usize>()
        };
        let described: usize = self.descriptions.iter().map(|series| texts(series) + 160).sum();
        (self.rows.len() * size_of::<Row>() + described + 512) as u64
    }
}

/// What a batch is resolved with.
#[derive(Debug)]
pub struct Resolver<'a> {
    /// The tenant's known series, under the generation that holds.
    pub tenant: Arc<TenantSeries>,
    /// Where to ask for others.
    pub database: &'a Database,
    /// What the tenant keeps now.
    pub floors: Floors,
}

fn stale(why: &str) -> StoreError {
    StoreError::new(ErrorKind::StaleSeries, why)
}

impl Resolver<'_> {
    /// Gives the rows of `batch` their series; asks ClickHouse where it describes some that aren't known.
    ///
    /// # Errors
    /// `StaleSeries` when a handle isn't known, or not for its row's day: then nothing has happened.
    /// `Unavailable` and the like when ClickHouse was asked in vain.
    pub async fn resolve(self, batch: Batch) -> Result<Resolved> {
        // 1. Rows of known series; may refuse the batch.
        let mut resolved = self.known_rows(&batch)?;
        resolved.descriptions = batch.new_series;
        // 2. What is described, where it has rows.
        self.describe(&mut resolved)?;
        // 3. IO where it isn't known: whether it may be created; may refuse rows.
        let creates = resolved.described.iter().any(|series| series.verdict.is_none());
        if creates && batch.limits == SeriesLimits::NONE {
            resolved.created.add_uncounted();
        } else if creates {
            self.admit(&mut resolved, &batch.limits).await?;
        }
        // 4. Rows of described series.
        self.settle(&mut resolved);
        Ok(resolved)
    }

    /// The rows that aren't expired; those of described series with the description's place as fingerprint.
    fn known_rows(&self, batch: &Batch) -> Result<Resolved> {
        let known = self.tenant.known();
        let mut rows = Vec::with_capacity(batch.len());
        let mut days = DaySet::default();
        let mut by_handle = false;
        let new_floors: Vec<i32> =
            batch.new_series.iter().map(|series| self.floors.of(&series.metric)).collect();
        let mut floors = KnownFloors::new(&self.floors, &known.metrics);
        let columns = batch.series.iter().zip(&batch.timestamps).zip(&batch.values);
        for (place, ((series, &time), &value)) in (0_u32..).zip(columns) {
            let day = day_of(time);
            let (metric, fp, floor) = match series {
                RowSeries::Known(handle) => {
                    let series = known.get(*handle).ok_or_else(|| stale("a series is forgotten"))?;
                    let floor = floors.of(series.metric);
                    if day >= floor && !series.days.contains(day) {
                        return Err(stale("a series isn't known to be there on a day"));
                    }
                    series.touch();
                    by_handle = true;
                    (series.metric, series.fp, floor)
                }
                RowSeries::New(at) => {
                    let undescribed =
                        || StoreError::internal("a row names a series that its batch doesn't describe");
                    (DESCRIBED, u64::from(*at), *new_floors.get(*at as usize).ok_or_else(undescribed)?)
                }
            };
            // A sample of a day that is over leaves nothing behind.
            if day >= floor {
                days.insert(day);
                rows.push(Row { metric, place, fp, time, value });
            }
        }
        Ok(Resolved {
            tenant: Arc::clone(&self.tenant),
            generation: known.generation,
            metrics: Arc::clone(&known.metrics),
            rows,
            days: days.sorted(),
            described: Vec::new(),
            descriptions: Vec::new(),
            places: Vec::new(),
            created: Created::new(Arc::clone(&self.tenant)),
            by_handle,
            refused: Vec::new(),
        })
    }

    /// Fills in `described`: each series that has a row once, in the order of its first row.
    fn describe(&self, resolved: &mut Resolved) -> Result<()> {
        let Resolved { rows, descriptions, places, described, .. } = resolved;
        places.resize(descriptions.len(), None);
        if descriptions.is_empty() {
            return Ok(());
        }
        let mut fingerprints = Fingerprints::new(&self.tenant.tenant);
        let mut by_print: HashMap<u64, u32> = HashMap::with_capacity(descriptions.len());
        let known = self.tenant.known();
        for row in rows.iter().filter(|row| row.metric == DESCRIBED) {
            let at = usize::try_from(row.fp).map_err(StoreError::internal)?;
            let place = *places[at].get_or_insert_with(|| {
                let series = &descriptions[at];
                let fp = fingerprints.of(&series.metric, &series.dimensions);
                *by_print.entry(fp).or_insert_with(|| {
                    described.push(self.described(fp, at, &series.metric, &known));
                    (described.len() - 1) as u32
                })
            });
            let series = &mut described[place as usize];
            let day = day_of(row.time);
            if series.days.last() != Some(&day) && !series.days.contains(&day) {
                series.days.push(day);
            }
        }
        Ok(())
    }

    fn described(
        &self,
        fp: u64,
        at: usize,
        metric: &crate::model::MetricName,
        known: &super::cache::Known,
    ) -> Described {
        let series = known.by_print(fp);
        let there = series.map(|series| series.days).unwrap_or_default();
        if let Some(series) = series {
            series.touch();
        }
        let verdict = there.reaches(self.floors.of(metric)).then_some(Ok(()));
        Described { fp, metric: DESCRIBED, at, days: Vec::new(), there, verdict }
    }

    /// Decides which of the series that aren't known here may be: those that ClickHouse has, and as many
    /// new ones as the limits allow, in the order of their rows.
    async fn admit(&self, resolved: &mut Resolved, limits: &SeriesLimits) -> Result<()> {
        let Resolved { described, descriptions, created, generation, .. } = resolved;
        let questions = Questions {
            database: self.database,
            tenant: &self.tenant,
            generation: *generation,
            floors: &self.floors,
        };
        let mut census = self.tenant.creation.lock().await;
        // 1. What another batch has created or found since it was looked for.
        {
            let known = self.tenant.known();
            for series in described.iter_mut().filter(|series| series.verdict.is_none()) {
                let floor = self.floors.of(&descriptions[series.at].metric);
                let found = known.by_print(series.fp).is_some_and(|known| known.days.reaches(floor));
                if found || self.tenant.pending.contains(series.fp) {
                    series.verdict = Some(Ok(()));
                }
            }
        }
        // 2. What ClickHouse has. IO.
        let metric_of = |series: &Described| &descriptions[series.at].metric;
        let unknown = described.iter().filter(|series| series.verdict.is_none());
        let unknown: Vec<_> = unknown.map(|series| (series.fp, metric_of(series))).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let newest =
            described.iter().flat_map(|series| series.days.iter().copied()).max().unwrap_or_default();
        let found = questions.known(&unknown, newest).await?;
        for series in described.iter_mut().filter(|series| series.verdict.is_none()) {
            if let Some(days) = found.get(&series.fp) {
                series.there.extend(*days);
                series.verdict = Some(Ok(()));
            }
        }
        // 3. How many there may be. IO.
        let mut metrics: Vec<_> =
            described.iter().filter(|series| series.verdict.is_none()).map(metric_of).collect();
        metrics.sort_unstable();
        metrics.dedup();
        if metrics.is_empty() {
            return Ok(());
        }
        let metrics: Vec<_> = metrics.into_iter().cloned().collect();
        census.prepare(&questions, limits, &metrics).await?;
        // 4. The new ones, first come, first served.
        for series in described.iter_mut().filter(|series| series.verdict.is_none()) {
            let metric = &descriptions[series.at].metric;
            let verdict = census.create(metric, limits);
            if verdict.is_ok() {
                created.add(series.fp, metric.clone());
            }
            series.verdict = Some(verdict);
        }
        Ok(())
    }

    /// Gives rows of described series their metric and fingerprint, and takes refused ones out.
    fn settle(&self, resolved: &mut Resolved) {
        let Resolved { rows, places, described, descriptions, metrics, refused, .. } = resolved;
        if descriptions.is_empty() {
            return;
        }
        for series in described.iter_mut().filter(|series| !matches!(series.verdict, Some(Err(_)))) {
            series.metric = metrics.number(&descriptions[series.at].metric);
        }
        rows.retain_mut(|row| {
            if row.metric != DESCRIBED {
                return true;
            }
            let place = places.get(row.fp as usize).copied().flatten();
            let Some(series) = place.and_then(|place| described.get(place as usize)) else { return false };
            if let Some(Err(refusal)) = series.verdict {
                refused.push((row.place, refusal));
                return false;
            }
            (row.metric, row.fp) = (series.metric, series.fp);
            true
        });
        if !refused.is_empty() {
            let mut days = DaySet::default();
            rows.iter().for_each(|row| days.insert(day_of(row.time)));
            resolved.days = days.sorted();
            for place in places.iter_mut() {
                let own = place.and_then(|place| described.get(place as usize));
                if own.is_some_and(|series| matches!(series.verdict, Some(Err(_)))) {
                    *place = None;
                }
            }
        }
    }
}

impl Described {
    /// Whether it is to be stored.
    #[must_use]
    pub fn admitted(&self) -> bool {
        !matches!(self.verdict, Some(Err(_)))
    }
}

/// The days of rows, of which few differ and most are the last one's.
#[derive(Debug, Default)]
struct DaySet(Vec<i32>);

impl DaySet {
    fn insert(&mut self, day: i32) {
        if self.0.last() == Some(&day) {
            return;
        }
        match self.0.iter().position(|own| *own == day) {
            // Where the next row's is looked for first.
            Some(at) => {
                let last = self.0.len() - 1;
                self.0.swap(at, last);
            }
            None => self.0.push(day),
        }
    }

    fn sorted(mut self) -> Vec<i32> {
        self.0.sort_unstable();
        self.0
    }
}

/// The floors of metrics by number, each looked up once.
#[derive(Debug)]
struct KnownFloors<'a> {
    floors: &'a Floors,
    metrics: &'a Metrics,
    of_all: Option<i32>,
    known: HashMap<u32, i32>,
}

impl<'a> KnownFloors<'a> {
    fn new(floors: &'a Floors, metrics: &'a Metrics) -> Self {
        Self { floors, metrics, of_all: floors.of_all(), known: HashMap::new() }
    }

    fn of(&mut self, metric: u32) -> i32 {
        if let Some(floor) = self.of_all {
            return floor;
        }
        *self.known.entry(metric).or_insert_with(|| {
            let floor = |names: &[crate::model::MetricName]| {
                names.get(metric as usize).map(|name| self.floors.of(name))
            };
            self.metrics.names(floor).unwrap_or(i32::MIN)
        })
    }
}
