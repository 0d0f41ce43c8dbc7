//! What one tenant has: which series exist, until when, and how they are listed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{
    Batch, DimensionKey, Dimensions, MetricName, RowSeries, Selector, SeriesHandle, SeriesLimits, Spelling,
};
use crate::store::{
    CardinalityCursor, CardinalityPage, CardinalityQuery, CardinalityRow, Deleted, ErrorKind, ListPage,
    ListQuery, Refusal, Result, Retention, StoreError, Usage,
};

const DAY: i64 = 86_400_000;
/// What a sample takes: its time and its value.
const SAMPLE_BYTES: u64 = 16;

/// The UTC day of `time`, counted from the epoch.
pub fn day_of(time: i64) -> i64 {
    time.div_euclid(DAY)
}

/// One series: it exists as long as it is present on a day.
#[derive(Debug)]
pub struct Series {
    handle: SeriesHandle,
    /// UTC days on which it is present: a sample of the day was accepted, and the whole day is
    /// neither deleted nor expired, though each of its samples may be.
    days: BTreeSet<i64>,
    pub samples: BTreeMap<i64, f64>,
}

/// All that one tenant has.
#[derive(Debug)]
pub struct TenantState {
    metrics: BTreeMap<MetricName, BTreeMap<Dimensions, Series>>,
    handles: HashMap<SeriesHandle, (MetricName, Dimensions)>,
    spellings: HashMap<Spelling, SeriesHandle>,
    pub retention: Retention,
    /// A UTC day, and how many samples were accepted on it.
    accepted: (i64, u64),
}

impl TenantState {
    pub fn new(default_retention: i64) -> Self {
        Self {
            metrics: BTreeMap::new(),
            handles: HashMap::new(),
            spellings: HashMap::new(),
            retention: Retention { default: default_retention, metrics: BTreeMap::new() },
            accepted: (0, 0),
        }
    }

    /// The first time of `metric` that can be seen at `now`.
    fn floor(&self, metric: &MetricName, now: i64) -> i64 {
        now.saturating_sub(self.retention.of(metric))
    }

    /// Drops samples older than now − retention, days that lie wholly before it, and the series that
    /// are left without a day.
    pub fn expire(&mut self, now: i64) {
        for (metric, series) in &mut self.metrics {
            let floor = now.saturating_sub(self.retention.of(metric));
            for one in series.values_mut() {
                one.samples = one.samples.split_off(&floor);
                one.days = one.days.split_off(&day_of(floor));
            }
        }
        self.forget_absent();
    }

    fn forget_absent(&mut self) {
        for series in self.metrics.values_mut() {
            series.retain(|_, one| !one.days.is_empty());
        }
        self.metrics.retain(|_, series| !series.is_empty());
        let metrics = &self.metrics;
        self.handles.retain(|_, (metric, dimensions)| {
            metrics.get(metric).is_some_and(|series| series.contains_key(dimensions))
        });
        let handles = &self.handles;
        self.spellings.retain(|_, handle| handles.contains_key(handle));
    }

    pub fn spellings(&self) -> HashMap<Spelling, SeriesHandle> {
        self.spellings.clone()
    }

    /// The series of `selector`, in the contract's order of series.
    pub fn select<'a>(
        &'a self,
        selector: &'a Selector,
    ) -> impl Iterator<Item = (&'a Dimensions, &'a Series)> {
        let series = self.metrics.get(&selector.metric).into_iter().flatten();
        series.filter(|(dimensions, _)| selector.matches(dimensions))
    }

    /// Stores the rows one after another; those that would create a series over the limit are refused.
    ///
    /// # Errors
    /// `StaleSeries` when a handle is gone: then nothing is stored.
    pub fn write(&mut self, batch: &Batch, now: i64, next_handle: &mut u32) -> Result<Vec<(u32, Refusal)>> {
        let described = self.described(batch)?;
        let mut refused = Vec::new();
        for (row, (metric, dimensions, spelling)) in (0_u32..).zip(described) {
            let (time, value) = (batch.timestamps[row as usize], batch.values[row as usize]);
            // A sample of a day that is over leaves nothing behind: no series, so it meets no limit.
            if day_of(time) < day_of(self.floor(&metric, now)) {
                continue;
            }
            if let Err(refusal) = self.admit(&metric, &dimensions, &batch.limits) {
                refused.push((row, refusal));
                continue;
            }
            self.count_accepted(now);
            let series = self.series(metric, dimensions, next_handle);
            series.samples.insert(time, value);
            series.days.insert(day_of(time));
            let handle = series.handle;
            if let Some(spelling) = spelling {
                self.spellings.insert(spelling, handle);
            }
        }
        Ok(refused)
    }

    /// What each row of `batch` says: metric, dimensions, and how they were spelled.
    fn described(&self, batch: &Batch) -> Result<Vec<(MetricName, Dimensions, Option<Spelling>)>> {
        let describe = |series: &RowSeries| match series {
            RowSeries::Known(handle) => match self.handles.get(handle) {
                Some((metric, dimensions)) => Ok((metric.clone(), dimensions.clone(), None)),
                None => Err(StoreError::new(ErrorKind::StaleSeries, "a series is gone")),
            },
            RowSeries::New(at) => match batch.new_series.get(*at as usize) {
                Some(new) => Ok((new.metric.clone(), new.dimensions.clone(), new.spelling)),
                None => Err(StoreError::internal("a row names a series that its batch doesn't describe")),
            },
        };
        batch.series.iter().map(describe).collect()
    }

    /// Whether a sample of this series may be stored: known series always, new ones within the limits.
    fn admit(
        &self,
        metric: &MetricName,
        dimensions: &Dimensions,
        limits: &SeriesLimits,
    ) -> std::result::Result<(), Refusal> {
        let of_metric = self.metrics.get(metric);
        if of_metric.is_some_and(|series| series.contains_key(dimensions)) {
            return Ok(());
        }
        if of_metric.is_none() && count(self.metrics.len()) >= limits.max_metrics {
            return Err(Refusal::MetricLimit { limit: limits.max_metrics });
        }
        if of_metric.map_or(0, |series| count(series.len())) >= limits.max_series_per_metric {
            return Err(Refusal::SeriesLimit { limit: limits.max_series_per_metric });
        }
        Ok(())
    }

    /// The series, created where it doesn't exist.
    fn series(&mut self, metric: MetricName, dimensions: Dimensions, next_handle: &mut u32) -> &mut Series {
        let handles = &mut self.handles;
        let name = (metric.clone(), dimensions.clone());
        self.metrics.entry(metric).or_default().entry(dimensions).or_insert_with(|| {
            let handle = SeriesHandle(*next_handle);
            *next_handle += 1;
            handles.insert(handle, name);
            Series { handle, days: BTreeSet::new(), samples: BTreeMap::new() }
        })
    }

    fn count_accepted(&mut self, now: i64) {
        let today = day_of(now);
        if self.accepted.0 != today {
            self.accepted = (today, 0);
        }
        self.accepted.1 += 1;
    }

    /// Series that have a sample before `before`, and those samples.
    pub fn count_before(&self, metric: &MetricName, before: Option<i64>) -> Deleted {
        let mut deleted = Deleted { series: 0, samples: 0 };
        for series in self.metrics.get(metric).into_iter().flat_map(BTreeMap::values) {
            let samples =
                series.samples.keys().filter(|time| before.is_none_or(|before| **time < before)).count();
            deleted.series += u64::from(samples > 0);
            deleted.samples += count(samples);
        }
        deleted
    }

    /// Removes samples before `before`, and the presence on days that lie wholly before it.
    pub fn delete_before(&mut self, metric: &MetricName, before: Option<i64>) {
        for series in self.metrics.get_mut(metric).into_iter().flat_map(BTreeMap::values_mut) {
            match before {
                Some(before) => {
                    series.samples = series.samples.split_off(&before);
                    series.days = series.days.split_off(&day_of(before));
                }
                None => {
                    series.samples.clear();
                    series.days.clear();
                }
            }
        }
        self.forget_absent();
    }

    pub fn usage(&self, now: i64) -> Usage {
        let series = || self.metrics.values().flat_map(BTreeMap::values);
        let samples = series().map(|one| count(one.samples.len())).sum();
        Usage {
            metrics: count(self.metrics.len()),
            series: count(series().count()),
            samples,
            bytes: samples * SAMPLE_BYTES,
            samples_today: if self.accepted.0 == day_of(now) { self.accepted.1 } else { 0 },
        }
    }

    pub fn list_metrics(&self, list: &ListQuery) -> ListPage {
        page(self.metrics.keys().map(|metric| Arc::from(metric.as_str())), list)
    }

    pub fn list_keys(&self, metric: &MetricName, list: &ListQuery) -> ListPage {
        page(self.pairs(metric).map(|(key, _)| Arc::from(key.as_str())), list)
    }

    pub fn list_values(&self, metric: &MetricName, key: &DimensionKey, list: &ListQuery) -> ListPage {
        page(self.pairs(metric).filter(|(own, _)| *own == key).map(|(_, value)| value.clone()), list)
    }

    /// Every (key, value) of every series of `metric`.
    fn pairs(&self, metric: &MetricName) -> impl Iterator<Item = (&DimensionKey, &Arc<str>)> {
        self.metrics.get(metric).into_iter().flat_map(BTreeMap::keys).flat_map(Dimensions::iter)
    }

    /// Series per metric; or, of one metric, series that have a key, and per value of it.
    pub fn cardinality(&self, query: &CardinalityQuery) -> CardinalityPage {
        let mut counts: BTreeMap<(Arc<str>, Option<Arc<str>>), u64> = BTreeMap::new();
        match &query.metric {
            None => {
                for (metric, series) in &self.metrics {
                    counts.insert((Arc::from(metric.as_str()), None), count(series.len()));
                }
            }
            Some(metric) => {
                for (key, value) in self.pairs(metric) {
                    let key: Arc<str> = Arc::from(key.as_str());
                    *counts.entry((key.clone(), None)).or_default() += 1;
                    *counts.entry((key, Some(value.clone()))).or_default() += 1;
                }
            }
        }
        cardinality_page(counts, query)
    }
}

/// The part of `names` that `list` asks for.
fn page(names: impl Iterator<Item = Arc<str>>, list: &ListQuery) -> ListPage {
    let names: BTreeSet<Arc<str>> = names.filter(|name| name.starts_with(&list.prefix)).collect();
    let total = count(names.len());
    let after = |name: &Arc<str>| list.after.as_deref().is_none_or(|after| after < name.as_ref());
    let mut names: Vec<_> = names.into_iter().filter(after).collect();
    let more = names.len() > list.limit;
    names.truncate(list.limit);
    ListPage { names, more, total }
}

/// The part of `counts` that `query` asks for: largest first, then by name, then by value.
fn cardinality_page(
    counts: BTreeMap<(Arc<str>, Option<Arc<str>>), u64>,
    query: &CardinalityQuery,
) -> CardinalityPage {
    let rows = counts.into_iter().map(|((name, value), series)| CardinalityRow { series, name, value });
    let mut rows: Vec<_> = rows.filter(|row| row.name.starts_with(&query.prefix)).collect();
    // The sort is stable, and the rows came by name and value.
    rows.sort_by_key(|row| std::cmp::Reverse(row.series));
    rows.retain(|row| query.after.as_ref().is_none_or(|after| comes_after(row, after)));
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    CardinalityPage { rows, more }
}

fn comes_after(row: &CardinalityRow, cursor: &CardinalityCursor) -> bool {
    let row = (std::cmp::Reverse(row.series), row.name.as_ref(), row.value.as_deref());
    row > (std::cmp::Reverse(cursor.series), cursor.name.as_str(), cursor.value.as_deref())
}

/// A count as the store's answers carry it.
pub fn count(length: usize) -> u64 {
    length as u64
}
