//! A catalogue and a scan over plain maps, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::{DimensionKey, DimensionLimits, Dimensions, GroupKey, MetricName, Selector, TimeRange};
use crate::rocksdb::scan::{Detail, Piece, ScanEstimate, ScanSpec, SeriesScan, Visitor};
use crate::rocksdb::summary::{HOUR, HourSummary, Wanted};
use crate::store::{QueryContext, Result};

use super::catalog::{Catalog, Grouping, Selected};

/// The only metric.
pub const METRIC: &str = "m";

/// Series by number, each with its dimensions and samples.
#[derive(Debug, Default)]
pub struct Plain {
    pub series: BTreeMap<u32, (Dimensions, BTreeMap<i64, f64>)>,
    /// Whether scans answer with summaries where they may.
    pub summaries: bool,
    /// Samples that scans have brought at [`Detail::Samples`] or [`Detail::Hours`].
    pub brought: AtomicU64,
}

impl Plain {
    /// Adds a series; its number is no neighbour of the one before.
    pub fn add(&mut self, pairs: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) {
        let id = self.series.len() as u32 * 3 + 1;
        let dimensions = Dimensions::new(pairs.iter().copied(), &DimensionLimits::default()).unwrap();
        self.series.insert(id, (dimensions, samples.into_iter().collect()));
    }

    /// Every value of every dimension, sorted; a value's number is its place + 1, 0 is absent.
    fn dictionary(&self) -> Vec<Arc<str>> {
        let all = self.series.values().flat_map(|(dimensions, _)| dimensions.iter());
        all.map(|(_, value)| value.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl Catalog for Plain {
    fn select(&self, selector: &Selector, days: RangeInclusive<i32>) -> Option<Selected> {
        let present = |samples: &BTreeMap<i64, f64>| {
            samples.keys().any(|time| days.contains(&(time.div_euclid(86_400_000) as i32)))
        };
        let meant = self
            .series
            .iter()
            .filter(|(_, (dimensions, samples))| selector.matches(dimensions) && present(samples));
        let ids = meant.map(|(id, _)| *id).collect();
        (selector.metric.as_str() == METRIC).then_some(Selected { metric: 0, ids })
    }

    fn group(&self, ids: &[u32], keys: &[DimensionKey]) -> Grouping {
        let dictionary = self.dictionary();
        let number = |value: &Arc<str>| dictionary.binary_search(value).unwrap() as u32 + 1;
        let names = |id: &u32| -> Vec<u32> {
            keys.iter().map(|key| self.series[id].0.get(key.as_str()).map_or(0, number)).collect()
        };
        let rows: Vec<Vec<u32>> = ids.iter().map(names).collect();
        let groups: Vec<Vec<u32>> = rows.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        Grouping {
            of: rows.iter().map(|row| groups.binary_search(row).unwrap() as u32).collect(),
            values: groups.concat(),
            keys: keys.len(),
            groups: groups.len(),
        }
    }

    fn group_key(&self, grouping: &Grouping, group: u32) -> GroupKey {
        let from = group as usize * grouping.keys;
        let dictionary = self.dictionary();
        let value = |number: &u32| number.checked_sub(1).map(|at| dictionary[at as usize].clone());
        grouping.values[from..from + grouping.keys].iter().map(value).collect()
    }

    fn dimensions(&self, ids: &[u32]) -> Vec<Dimensions> {
        ids.iter().map(|id| self.series[id].0.clone()).collect()
    }

    fn ranks(&self, ids: &[u32]) -> Vec<u32> {
        let sorted: BTreeSet<&Dimensions> = ids.iter().map(|id| &self.series[id].0).collect();
        let sorted: Vec<&Dimensions> = sorted.into_iter().collect();
        ids.iter().map(|id| sorted.binary_search(&&self.series[id].0).unwrap() as u32).collect()
    }
}

impl SeriesScan for Plain {
    fn scan(
        &self,
        spec: &ScanSpec,
        ids: &[u32],
        context: &QueryContext,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        assert!(ids.is_sorted(), "series are asked for in ascending order");
        for (position, id) in ids.iter().enumerate() {
            let range = spec.range.start()..spec.range.end();
            let samples: Vec<(i64, f64)> =
                self.series[id].1.range(range).map(|(time, value)| (*time, *value)).collect();
            let hour_of = |sample: &(i64, f64)| sample.0.div_euclid(HOUR);
            for hour in samples.chunk_by(|one, other| hour_of(one) == hour_of(other)) {
                context.check(hour.len() as u64)?;
                self.visit_hour(spec, hour, *id, &mut |piece| visit(position, piece))?;
                if spec.detail == Detail::Existence {
                    break;
                }
            }
        }
        Ok(())
    }

    fn estimate(&self, spec: &ScanSpec, ids: &[u32]) -> ScanEstimate {
        let range = spec.range.start()..spec.range.end();
        let samples: usize = ids.iter().map(|id| self.series[id].1.range(range.clone()).count()).sum();
        ScanEstimate { samples: samples as u64, bytes: 2 * samples as u64 }
    }
}

/// What a scan tells of an hour: what isn't asked for is no number.
fn only(detail: Detail, hour: HourSummary) -> HourSummary {
    let HourSummary { first, last, sum, min, max, increase, integral, .. } = hour;
    let mut none = hour;
    let HourSummary { first: a, last: b, sum: c, min: d, max: e, increase: f, integral: g, .. } = &mut none;
    for value in [a, b, c, d, e, f, g] {
        *value = f64::NAN;
    }
    match detail {
        Detail::Hours(Wanted::Sum) => HourSummary { sum, ..none },
        Detail::Hours(Wanted::Min) => HourSummary { min, ..none },
        Detail::Hours(Wanted::Max) => HourSummary { max, ..none },
        Detail::Hours(Wanted::Increase) => HourSummary { first, last, increase, ..none },
        Detail::Hours(Wanted::Integral) => HourSummary { first, last, integral, ..none },
        Detail::Hours(Wanted::All) => unreachable!("no question wants everything"),
        Detail::Hours(Wanted::Count) | Detail::Existence | Detail::Samples => none,
    }
}

impl Plain {
    /// Shows one hour of a series as a summary, where it may and the dice say so, or in short pieces.
    fn visit_hour(
        &self,
        spec: &ScanSpec,
        hour: &[(i64, f64)],
        id: u32,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (times, values): (Vec<i64>, Vec<f64>) = hour.iter().copied().unzip();
        let start = times[0].div_euclid(HOUR) * HOUR;
        let whole = spec.range.start() <= start && start + HOUR <= spec.range.end();
        let drawn = (start / HOUR + i64::from(id)).rem_euclid(5) != 0;
        if spec.detail != Detail::Existence {
            self.brought.fetch_add(times.len() as u64, Ordering::Relaxed);
        }
        if let (Detail::Existence | Detail::Hours(_), true) = (spec.detail, self.summaries && whole && drawn)
        {
            return visit(Piece::Hour(&only(spec.detail, HourSummary::of(&times, &values))));
        }
        let piece = if spec.detail == Detail::Existence { times.len() } else { id as usize % 7 + 2 };
        for (times, values) in times.chunks(piece).zip(values.chunks(piece)) {
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            match spec.indifferent.one_for(min, max) {
                Some(value) => visit(Piece::Samples { times, values: &vec![value; times.len()] })?,
                None => visit(Piece::Samples { times, values })?,
            }
        }
        Ok(())
    }
}

pub fn selector(filters: &[(&str, &str)]) -> Selector {
    let filters = filters.iter().map(|(key, value)| (DimensionKey::new(key).unwrap(), (*value).to_owned()));
    Selector::new(MetricName::new(METRIC).unwrap(), filters.collect())
}

pub fn keys(names: &[&str]) -> Vec<DimensionKey> {
    names.iter().map(|name| DimensionKey::new(name).unwrap()).collect()
}

pub fn between(start: i64, end: i64) -> TimeRange {
    TimeRange::new(start, end).unwrap()
}

pub fn context() -> QueryContext {
    QueryContext::with_timeout(Duration::from_secs(600))
}

pub fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}
