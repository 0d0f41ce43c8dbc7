//! What queries ask of the index: which series, in which groups, in which order.
//!
//! A series' values are read under the lock, a part of the series at a time; texts are compared once
//! for each distinct value, without the lock.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashMap;
use roaring::{MultiOps, RoaringBitmap};

use crate::model::{DimensionKey, Dimensions, GroupKey, Selector};
use crate::rocksdb::query::{Catalog, Grouping, Selected};

use super::column::Column;
use super::core::{Core, Metric, Shape};
use super::order::by_text;
use super::tenant::TenantIndex;

/// Series that are read under one hold of the lock.
const AT_ONCE: usize = 8_192;
/// Texts for each series up to which a table by text is smaller than one by hash, which takes some 40 bytes a series.
const TEXTS_OF_A_SERIES: usize = 8;
/// The number of an absent value in a [`Grouping`].
const ABSENT: u32 = u32::MAX;

impl Catalog for TenantIndex {
    fn select(&self, selector: &Selector, days: RangeInclusive<i32>) -> Option<Selected> {
        let core = self.core.read();
        let metric = core.metric(&selector.metric)?;
        let number = metric.number;
        let found = matching(&core, metric, selector).map(|series| core.presence.on_days(series, days));
        drop(core);
        let ids = found.map_or_else(Vec::new, |found| found.iter().collect());
        Some(Selected { metric: number, ids })
    }

    fn group(&self, ids: &[u32], keys: &[DimensionKey]) -> Grouping {
        let mut groups = Groups::new(ids.len());
        let mut values = Vec::new();
        for (done, key) in keys.iter().enumerate() {
            let (mut numbers, distinct) = self.numbered(ids, || text_of_key(key));
            let texts = self.core.read().texts.chunks().clone();
            let order = by_text(&texts, &distinct);
            rerank(&mut numbers, &order);
            let pairs = groups.refine(&numbers, order.len());
            let mut longer = Vec::with_capacity(pairs.len() * (done + 1));
            for (group, rank) in pairs {
                let first = group as usize * done;
                longer.extend_from_slice(&values[first..first + done]);
                longer.push(distinct[order[rank as usize] as usize]);
            }
            values = longer;
        }
        Grouping { of: groups.of, values, keys: keys.len(), groups: groups.count }
    }

    fn group_key(&self, grouping: &Grouping, group: u32) -> GroupKey {
        let core = self.core.read();
        let first = group as usize * grouping.keys;
        let values = grouping.values.get(first..first + grouping.keys).unwrap_or(&[]);
        let text =
            |number: &u32| Some(core.texts.get(*number)).filter(|text| !text.is_empty()).map(Arc::from);
        values.iter().map(text).collect()
    }

    fn dimensions(&self, ids: &[u32]) -> Vec<Dimensions> {
        self.described(ids)
    }

    fn ranks(&self, ids: &[u32]) -> Vec<u32> {
        let mut groups = Groups::new(ids.len());
        let mut place = 0;
        // Pair by pair, as long as there are series that are alike so far and one of them has another.
        while groups.count < ids.len() {
            let (mut numbers, distinct) = self.numbered(ids, || pair_at(place));
            if distinct.iter().all(Option::is_none) {
                // Alike to the end: series of different metrics, or gone since. Any order will do.
                return places(&groups.of);
            }
            let (ranks, count) = self.ranks_of_pairs(&distinct);
            replace(&mut numbers, &ranks);
            groups.refine(&numbers, count);
            place += 1;
        }
        groups.of
    }
}

/// A key (by metric and column) and its value's text.
type Pair = Option<(u32, u32, u32)>;

/// What series are told apart by; the slot is a small number that mostly does, if there is one.
trait Feature: Copy + Eq + Hash {
    fn slot(self) -> Option<u32>;
}

impl Feature for u32 {
    fn slot(self) -> Option<u32> {
        Some(self)
    }
}

impl Feature for Pair {
    fn slot(self) -> Option<u32> {
        self.map(|(_, _, text)| text)
    }
}

/// Numbers given to features in the order of their first appearance.
struct Numbering<T> {
    /// Number by slot: asked first, and right in nearly every case.
    of_slot: Vec<u32>,
    others: HashMap<T, u32>,
    distinct: Vec<T>,
}

impl<T: Feature> Numbering<T> {
    fn number(&mut self, feature: T) -> u32 {
        let next = self.distinct.len() as u32;
        let slot = feature.slot().and_then(|slot| self.of_slot.get_mut(slot as usize));
        let number = match slot {
            Some(number) if *number == ABSENT => {
                *number = next;
                next
            }
            Some(number) if self.distinct[*number as usize] == feature => *number,
            _ => *self.others.entry(feature).or_insert(next),
        };
        if number == next {
            self.distinct.push(feature);
        }
        number
    }
}

impl TenantIndex {
    /// What a reader made by `reader` finds for each of `ids`, as numbers given in the order of first
    /// appearance, and what each number stands for.
    fn numbered<T: Feature, R>(&self, ids: &[u32], reader: impl Fn() -> R) -> (Vec<u32>, Vec<T>)
    where
        R: FnMut(&Core, u32) -> T,
    {
        // A table by slot is the faster one too.
        let texts = self.core.read().texts.numbers();
        let of_slot = if texts / TEXTS_OF_A_SERIES <= ids.len() { vec![ABSENT; texts] } else { Vec::new() };
        let mut numbering = Numbering { of_slot, others: HashMap::new(), distinct: Vec::new() };
        let mut numbers = Vec::with_capacity(ids.len());
        let mut read = reader();
        for part in ids.chunks(AT_ONCE) {
            let core = self.core.read();
            numbers.extend(part.iter().map(|id| numbering.number(read(&core, *id))));
        }
        (numbers, numbering.distinct)
    }

    /// The rank of each of `distinct` in the contract's order (no pair, then by key, then by value), and
    /// how many ranks there are. Pairs of two metrics may be alike, and then have one rank.
    fn ranks_of_pairs(&self, distinct: &[Pair]) -> (Vec<u32>, usize) {
        let mut of_column: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
        for (at, pair) in (0..).zip(distinct) {
            if let Some((metric, column, _)) = *pair {
                of_column.entry((metric, column)).or_default().push(at);
            }
        }
        let core = self.core.read();
        let mut of_key: BTreeMap<&DimensionKey, Vec<u32>> = BTreeMap::new();
        for ((metric, column), pairs) in of_column {
            let column = &core.metrics[metric as usize].columns[column as usize];
            of_key.entry(column.key()).or_default().extend(pairs);
        }
        let of_key: Vec<Vec<u32>> = of_key.into_values().collect();
        let texts = core.texts.chunks().clone();
        drop(core);
        let mut ranks = vec![0; distinct.len()];
        let mut next = usize::from(distinct.contains(&None));
        for pairs in of_key {
            let text = |at: u32| distinct[at as usize].map_or(ABSENT, |(_, _, text)| text);
            let numbers: Vec<u32> = pairs.iter().map(|at| text(*at)).collect();
            let mut last = ABSENT;
            for place in by_text(&texts, &numbers) {
                let (number, at) = (numbers[place as usize], pairs[place as usize]);
                next += usize::from(last != number);
                last = number;
                ranks[at as usize] = next as u32 - 1;
            }
        }
        (ranks, next)
    }
}

/// A metric's series and those of them that a query would read, as totals tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoughSeries {
    /// The metric's number.
    pub metric: u32,
    /// At most so many match.
    pub wanted: u64,
    /// So many there are.
    pub all: u64,
}

impl TenantIndex {
    /// About how many series a query would read and how many its metric has, with the metric's number: no bitmap is made.
    #[must_use]
    pub fn rough_series(&self, selector: &Selector) -> Option<RoughSeries> {
        let core = self.core.read();
        let metric = core.metric(&selector.metric)?;
        let one = selector.filters.iter().map(|(key, value)| (key, std::slice::from_ref(value)));
        let some = selector.filters_in.iter().map(|(key, values)| (key, values.as_slice()));
        let sizes = one
            .chain(some)
            .map(|(key, values)| Wanted::of(&core, metric, key, values).map_or(0, |wanted| wanted.size));
        let wanted = sizes.min().unwrap_or(metric.count).min(metric.count);
        Some(RoughSeries { metric: metric.number, wanted, all: metric.count })
    }
}

/// The series that match, present or not; `None` when none of a key's values exists.
fn matching(core: &Core, metric: &Metric, selector: &Selector) -> Option<RoaringBitmap> {
    let mut wanted = Vec::with_capacity(selector.filters.len() + selector.filters_in.len());
    for (key, value) in &selector.filters {
        wanted.push(Wanted::of(core, metric, key, std::slice::from_ref(value))?);
    }
    for (key, values) in &selector.filters_in {
        wanted.push(Wanted::of(core, metric, key, values)?);
    }
    // The smallest first: what follows only takes away.
    wanted.sort_unstable_by_key(|wanted| wanted.size);
    let Some((first, others)) = wanted.split_first() else { return Some(metric.series.clone()) };
    let mut series = first.series();
    for other in others {
        other.intersect(&mut series);
    }
    Some(series)
}

/// Values of a key, one of which a series must have.
struct Wanted<'a> {
    column: &'a Column,
    /// Those that exist: one at least.
    ordinals: Vec<u32>,
    /// How many series have one of them.
    size: u64,
}

impl<'a> Wanted<'a> {
    fn of(core: &Core, metric: &'a Metric, key: &DimensionKey, values: &[String]) -> Option<Self> {
        let column = metric.column(key.as_str())?;
        let ordinal = |value: &String| column.find(core.texts.find(value)?);
        let ordinals: Vec<u32> = values.iter().filter_map(ordinal).collect();
        let size = ordinals.iter().map(|ordinal| column.size(*ordinal)).sum();
        (!ordinals.is_empty()).then_some(Self { column, ordinals, size })
    }

    fn series(&self) -> RoaringBitmap {
        self.ordinals.iter().map(|ordinal| self.column.series(*ordinal)).union()
    }

    /// Removes from `series` all that lack these values.
    fn intersect(&self, series: &mut RoaringBitmap) {
        match self.ordinals[..] {
            [ordinal] => self.column.intersect(ordinal, series),
            _ => *series &= self.series(),
        }
    }
}

/// Reads the text of `key`'s value, [`ABSENT`] where there is none.
fn text_of_key(key: &DimensionKey) -> impl FnMut(&Core, u32) -> u32 {
    // Where the key is among those of the last shape.
    let mut last: Option<(u32, Option<(usize, u32)>)> = None;
    move |core, id| {
        let Some((number, shape, mut row)) = core.row(id) else { return ABSENT };
        let place = match last {
            Some((same, place)) if same == number => place,
            _ => place_of_key(core, shape, key),
        };
        last = Some((number, place));
        let Some((place, column)) = place else { return ABSENT };
        let metric = &core.metrics[shape.metric as usize];
        metric.columns[column as usize].text(row.nth(place))
    }
}

fn place_of_key(core: &Core, shape: &Shape, key: &DimensionKey) -> Option<(usize, u32)> {
    let place = core.keys(shape).position(|own| own == key)?;
    Some((place, shape.columns[place]))
}

/// Reads the pair at `place`.
fn pair_at(place: usize) -> impl FnMut(&Core, u32) -> Pair {
    move |core, id| {
        let (_, shape, mut row) = core.row(id)?;
        let column = *shape.columns.get(place)?;
        let metric = &core.metrics[shape.metric as usize];
        Some((shape.metric, column, metric.columns[column as usize].text(row.nth(place))))
    }
}

/// Replaces numbers by their places in `order`.
fn rerank(numbers: &mut [u32], order: &[u32]) {
    let mut rank = vec![0; order.len()];
    for (place, number) in (0..).zip(order) {
        rank[*number as usize] = place;
    }
    replace(numbers, &rank);
}

/// Replaces each number by what `by` has in its place.
fn replace(numbers: &mut [u32], by: &[u32]) {
    for number in numbers {
        *number = by[*number as usize];
    }
}

/// A partition of series, its groups numbered in order.
struct Groups {
    of: Vec<u32>,
    count: usize,
}

impl Groups {
    /// All in one group.
    fn new(series: usize) -> Self {
        Self { of: vec![0; series], count: usize::from(series > 0) }
    }

    /// Splits the groups by `ranks`, of which there are `count` and each occurs; new groups are numbered
    /// by old group, then rank. Returns these of each.
    fn refine(&mut self, ranks: &[u32], count: usize) -> Vec<(u32, u32)> {
        let pairs = if count == 1 {
            (0..self.count as u32).map(|group| (group, 0)).collect()
        } else if self.count == 1 {
            self.of.copy_from_slice(ranks);
            (0..count as u32).map(|rank| (0, rank)).collect()
        } else if self.count.saturating_mul(count) / 4 <= ranks.len() {
            self.refine_by_table(ranks, count)
        } else {
            self.refine_by_sorting(ranks)
        };
        self.count = pairs.len();
        pairs
    }

    fn refine_by_table(&mut self, ranks: &[u32], count: usize) -> Vec<(u32, u32)> {
        let mut numbers = vec![ABSENT; self.count * count];
        for (group, rank) in self.of.iter().zip(ranks) {
            numbers[*group as usize * count + *rank as usize] = 0;
        }
        let mut pairs = Vec::new();
        for (place, number) in numbers.iter_mut().enumerate().filter(|(_, number)| **number == 0) {
            *number = pairs.len() as u32;
            pairs.push(((place / count) as u32, (place % count) as u32));
        }
        for (group, rank) in self.of.iter_mut().zip(ranks) {
            *group = numbers[*group as usize * count + *rank as usize];
        }
        pairs
    }

    fn refine_by_sorting(&mut self, ranks: &[u32]) -> Vec<(u32, u32)> {
        let pairs = self.of.iter().zip(ranks);
        let mut sorted: Vec<(u32, u32, u32)> =
            (0..).zip(pairs).map(|(at, (group, rank))| (*group, *rank, at)).collect();
        sorted.sort_unstable();
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for (group, rank, at) in sorted {
            if pairs.last() != Some(&(group, rank)) {
                pairs.push((group, rank));
            }
            self.of[at as usize] = pairs.len() as u32 - 1;
        }
        pairs
    }
}

/// A place for each, in the order of their groups.
fn places(of: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..of.len() as u32).collect();
    order.sort_by_key(|at| of[*at as usize]);
    let mut places = vec![0; of.len()];
    for (place, at) in (0..).zip(order) {
        places[at as usize] = place;
    }
    places
}
