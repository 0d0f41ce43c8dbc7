//! What queries ask of the index: which series, in which groups, in which order.
//!
//! A series' values are read under the lock, a part of the series at a time; texts are compared once
//! for each distinct value, without the lock.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::model::{DimensionKey, Dimensions, GroupKey, Selector};
use crate::rocksdb::query::{Catalog, Grouping, Selected};

use super::core::{Core, Metric, Shape};
use super::order::by_text;
use super::tenant::TenantIndex;

/// Series that are read under one hold of the lock.
const AT_ONCE: usize = 8_192;
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
        let mut of = vec![0; ids.len()];
        let mut groups: Vec<Vec<u32>> = if ids.is_empty() { Vec::new() } else { vec![Vec::new()] };
        for key in keys {
            let (mut numbers, distinct) = self.numbered(ids, |core| text_of_key(core, key));
            // An absent value comes before any other.
            let texts = self.core.read().texts.chunks().clone();
            let present: Vec<(u32, u32)> = (0..)
                .zip(&distinct)
                .filter(|(_, text)| **text != ABSENT)
                .map(|(at, text)| (at, *text))
                .collect();
            let mut order: Vec<u32> =
                (0..).zip(&distinct).filter(|(_, text)| **text == ABSENT).map(|(at, _)| at).collect();
            order.extend(by_text(&texts, &present));
            rerank(&mut numbers, &order);
            let pairs = refine(&mut of, &numbers);
            groups = pairs
                .into_iter()
                .map(|(group, rank)| {
                    let mut values = groups[group as usize].clone();
                    values.push(distinct[order[rank as usize] as usize]);
                    values
                })
                .collect();
        }
        Grouping { of, keys: keys.len(), groups: groups.len(), values: groups.concat() }
    }

    fn group_key(&self, grouping: &Grouping, group: u32) -> GroupKey {
        let core = self.core.read();
        let first = group as usize * grouping.keys;
        let values = grouping.values.get(first..first + grouping.keys).unwrap_or(&[]);
        values.iter().map(|text| (*text != ABSENT).then(|| Arc::from(core.texts.get(*text)))).collect()
    }

    fn dimensions(&self, id: u32) -> Dimensions {
        self.core.read().dimensions(id)
    }

    fn ranks(&self, ids: &[u32]) -> Vec<u32> {
        let mut of = vec![0; ids.len()];
        let mut groups = 1;
        let mut place = 0;
        // Pair by pair, as long as there are series that are alike so far and one of them has another.
        while groups < ids.len() {
            let (mut numbers, distinct) = self.numbered(ids, |core| pair_at(core, place));
            if distinct.iter().all(Option::is_none) {
                break;
            }
            replace(&mut numbers, &self.ranks_of_pairs(&distinct));
            groups = refine(&mut of, &numbers).len();
            place += 1;
        }
        // Series that are gone since are all alike: they take places beside each other.
        if groups < ids.len() { places(&of) } else { of }
    }
}

/// A key (by metric and column) and its value's text.
type Pair = Option<(u32, u32, u32)>;

impl TenantIndex {
    /// What `read` finds for each of `ids`, as numbers given in the order of first appearance, and
    /// what each number stands for. `read` gets the lock's contents and returns what is asked for
    /// each series by its shape and row.
    fn numbered<T: Copy + Eq + Hash, R>(&self, ids: &[u32], read: impl Fn(&Core) -> R) -> (Vec<u32>, Vec<T>)
    where
        R: FnMut(&Core, u32) -> T,
    {
        let mut number_of: HashMap<T, u32> = HashMap::new();
        let mut distinct = Vec::new();
        let mut numbers = Vec::with_capacity(ids.len());
        let mut last = None;
        for part in ids.chunks(AT_ONCE) {
            let core = self.core.read();
            let mut read = read(&core);
            for id in part {
                let found = read(&core, *id);
                let number = match last {
                    Some((same, number)) if same == found => number,
                    _ => *number_of.entry(found).or_insert_with(|| {
                        distinct.push(found);
                        distinct.len() as u32 - 1
                    }),
                };
                last = Some((found, number));
                numbers.push(number);
            }
        }
        (numbers, distinct)
    }

    /// The rank of each of `distinct` in the contract's order: no pair, then by key, then by value.
    /// Pairs of two metrics may be alike, and then have one rank.
    fn ranks_of_pairs(&self, distinct: &[Pair]) -> Vec<u32> {
        let mut columns: HashMap<(u32, u32), Vec<(u32, u32)>> = HashMap::new();
        for (at, pair) in (0..).zip(distinct) {
            if let Some((metric, column, text)) = *pair {
                columns.entry((metric, column)).or_default().push((at, text));
            }
        }
        let core = self.core.read();
        let mut of_key: BTreeMap<&DimensionKey, Vec<(u32, u32)>> = BTreeMap::new();
        for ((metric, column), values) in columns {
            let column = &core.metrics[metric as usize].columns[column as usize];
            of_key.entry(column.key()).or_default().extend(values);
        }
        let values: Vec<Vec<(u32, u32)>> = of_key.into_values().collect();
        let texts = core.texts.chunks().clone();
        drop(core);
        let mut ranks = vec![0; distinct.len()];
        let mut rank = 0;
        for values in values {
            let mut last = None;
            for at in by_text(&texts, &values) {
                let text = distinct[at as usize].map(|(_, _, text)| text);
                rank += u32::from(last != Some(text));
                last = Some(text);
                ranks[at as usize] = rank;
            }
        }
        ranks
    }
}

/// The series that match, present or not; `None` when a value doesn't exist.
fn matching(core: &Core, metric: &Metric, selector: &Selector) -> Option<RoaringBitmap> {
    let mut postings = Vec::with_capacity(selector.filters.len());
    for (key, value) in &selector.filters {
        let column = metric.column(key.as_str())?;
        let ordinal = column.find(core.texts.find(value)?)?;
        postings.push((column.size(ordinal), column, ordinal));
    }
    // The smallest first: what follows only takes away.
    postings.sort_unstable_by_key(|(size, ..)| *size);
    let Some(((_, column, ordinal), others)) = postings.split_first() else {
        return Some(metric.series.clone());
    };
    let mut series = column.series(*ordinal);
    for (_, column, ordinal) in others {
        column.intersect(*ordinal, &mut series);
    }
    Some(series)
}

/// Reads the text of `key`'s value, [`ABSENT`] where there is none.
fn text_of_key<'k>(_: &Core, key: &'k DimensionKey) -> impl FnMut(&Core, u32) -> u32 + use<'k> {
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
fn pair_at(_: &Core, place: usize) -> impl FnMut(&Core, u32) -> Pair + use<> {
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

/// Splits groups by `ranks`: groups are numbered anew, by old group, then rank. Returns those of each.
fn refine(of: &mut [u32], ranks: &[u32]) -> Vec<(u32, u32)> {
    let mut number_of: HashMap<(u32, u32), u32> = HashMap::new();
    let mut pairs = Vec::new();
    let mut last = None;
    for (group, rank) in of.iter_mut().zip(ranks) {
        let pair = (*group, *rank);
        *group = match last {
            Some((same, number)) if same == pair => number,
            _ => *number_of.entry(pair).or_insert_with(|| {
                pairs.push(pair);
                pairs.len() as u32 - 1
            }),
        };
        last = Some((pair, *group));
    }
    drop(number_of);
    let mut order: Vec<u32> = (0..pairs.len() as u32).collect();
    order.sort_unstable_by_key(|at| pairs[*at as usize]);
    rerank(of, &order);
    order.into_iter().map(|at| pairs[at as usize]).collect()
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
