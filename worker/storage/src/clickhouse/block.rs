//! What one insert carries: the rows of many requests, sorted as the tables are, as a block in format Native.
//!
//! Native with dictionaries for tenant and metric, against RowBinary with their texts in each row: see
//! ARCHITECTURE.md for the figures.
//!
//! # Why sorted here
//! The server finds the block in its tables' order and makes one part of each day of it without a sort,
//! and of several samples for one series and millisecond only the last written is sent.

pub mod native;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::series::cache::Metrics;
use super::series::days::day_of;
use super::series::resolve::{Resolved, Row};
use crate::model::{DimensionKey, Dimensions, MetricName, Tenant};

use native::Native;

/// Most days, which are partitions, that one insert touches.
pub const MOST_DAYS: usize = 100;

/// Rows of one table, for one insert.
#[derive(Debug, Clone)]
pub struct Piece {
    /// In format Native.
    pub bytes: Bytes,
    /// How many.
    pub rows: usize,
}

/// A `series` row.
#[derive(Debug, Clone, Copy)]
struct Presence<'a> {
    /// Its tenant and metric: the place among [`Names::pairs`].
    pair: u32,
    fp: u64,
    day: i32,
    generation: u64,
    dimensions: &'a Dimensions,
}

/// Which `series` rows are wanted of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that aren't known to be there, under the generation of the request.
    Missing,
    /// All, under this generation.
    All(u64),
}

/// The `samples` rows of requests, in pieces of at most `most` rows and [`MOST_DAYS`] days.
#[must_use]
pub fn samples(requests: &[&Resolved], most: usize) -> Vec<Piece> {
    let names = Names::of(requests);
    let mut rows = Vec::with_capacity(requests.iter().map(|request| request.rows.len()).sum());
    for request in requests {
        let pairs = names.by_number(&request.metrics);
        for row in &request.rows {
            let place = rows.len() as u32;
            rows.push(Row { metric: pairs[row.metric as usize], place, ..*row });
        }
    }
    // Of equal ones the last written first, which is the one that stays.
    rows.sort_unstable_by_key(|row| (row.metric, row.fp, row.time, !row.place));
    rows.dedup_by_key(|row| (row.metric, row.fp, row.time));
    let pieces = pieces(rows, most, |row| day_of(row.time));
    pieces.iter().map(|rows| Piece { bytes: encode_samples(rows, &names), rows: rows.len() }).collect()
}

/// The `series` rows of requests, in pieces as those of [`samples`].
#[must_use]
pub fn series(requests: &[(&Resolved, Wanted)], most: usize) -> Vec<Piece> {
    let plain: Vec<&Resolved> = requests.iter().map(|(request, _)| *request).collect();
    if plain.iter().all(|request| request.described.is_empty()) {
        return Vec::new();
    }
    let names = Names::of(&plain);
    let mut rows = Vec::new();
    for (request, wanted) in requests {
        let pairs = names.by_number(&request.metrics);
        for series in request.described.iter().filter(|series| series.admitted()) {
            let dimensions = &request.descriptions[series.at].dimensions;
            let (generation, all) = match *wanted {
                Wanted::Missing => (request.generation, false),
                Wanted::All(generation) => (generation, true),
            };
            let days = series.days.iter().filter(|day| all || !series.there.contains(**day));
            let (pair, fp) = (pairs[series.metric as usize], series.fp);
            rows.extend(days.map(|day| Presence { pair, fp, day: *day, generation, dimensions }));
        }
    }
    rows.sort_unstable_by_key(|row| (row.pair, row.fp, row.day, u64::MAX - row.generation));
    rows.dedup_by_key(|row| (row.pair, row.fp, row.day));
    let pieces = pieces(rows, most, |row| row.day);
    pieces.iter().map(|rows| Piece { bytes: encode_series(rows, &names), rows: rows.len() }).collect()
}

/// Splits sorted rows where they are too many for one insert or of too many days.
fn pieces<R>(rows: Vec<R>, most: usize, day_of: impl Fn(&R) -> i32) -> Vec<Vec<R>> {
    let mut days: Vec<i32> = Vec::new();
    for row in &rows {
        let day = day_of(row);
        if days.last() != Some(&day) && !days.contains(&day) {
            days.push(day);
        }
    }
    days.sort_unstable();
    let by_days = match days.len() {
        0..=MOST_DAYS => vec![rows],
        many => {
            let mut groups: Vec<Vec<R>> = (0..many.div_ceil(MOST_DAYS)).map(|_| Vec::new()).collect();
            for row in rows {
                let at = days.partition_point(|day| *day < day_of(&row));
                groups[at / MOST_DAYS].push(row);
            }
            groups
        }
    };
    let most = most.max(1);
    let mut pieces = Vec::new();
    for mut rows in by_days.into_iter().filter(|rows| !rows.is_empty()) {
        while rows.len() > most {
            let rest = rows.split_off(most);
            pieces.push(std::mem::replace(&mut rows, rest));
        }
        pieces.push(rows);
    }
    pieces
}

/// The tenants and metrics of a block, numbered in their order.
#[derive(Debug)]
struct Names {
    tenants: Vec<Tenant>,
    metrics: Vec<MetricName>,
    /// Places of tenant and metric, in the order of both names.
    pairs: Vec<(u32, u32)>,
    /// For each list of metrics the pairs by its numbers.
    numbers: HashMap<*const Metrics, Vec<u32>>,
}

/// Instead of a pair's number: the metric has no row.
const NONE: u32 = u32::MAX;

impl Names {
    fn of(requests: &[&Resolved]) -> Self {
        // 1. Which metrics have rows.
        let mut numbers: HashMap<*const Metrics, (&Resolved, Vec<u32>)> = HashMap::new();
        for request in requests {
            let known = request.metrics.names(<[MetricName]>::len);
            let (_, used) =
                numbers.entry(Arc::as_ptr(&request.metrics)).or_insert_with(|| (request, Vec::new()));
            used.resize(known.max(used.len()), NONE);
            request.rows.iter().for_each(|row| used[row.metric as usize] = 0);
        }
        // 2. Their names, in order.
        let mut named: Vec<(Tenant, MetricName)> = Vec::new();
        for (request, used) in numbers.values() {
            request.metrics.names(|names| {
                let used = names.iter().zip(used).filter(|(_, used)| **used != NONE);
                named.extend(used.map(|(name, _)| (request.tenant.tenant.clone(), name.clone())));
            });
        }
        named.sort_unstable();
        named.dedup();
        // 3. The numbers of the ordered ones.
        for (request, used) in numbers.values_mut() {
            request.metrics.names(|names| {
                for (name, pair) in names.iter().zip(used).filter(|(_, pair)| **pair != NONE) {
                    let wanted = (&request.tenant.tenant, name);
                    *pair = named.partition_point(|(tenant, metric)| (tenant, metric) < wanted) as u32;
                }
            });
        }
        let numbers = numbers.into_iter().map(|(list, (_, pairs))| (list, pairs)).collect();
        let mut tenants: Vec<Tenant> = named.iter().map(|(tenant, _)| tenant.clone()).collect();
        tenants.dedup();
        let mut metrics: Vec<MetricName> = named.iter().map(|(_, metric)| metric.clone()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        let place = |(tenant, metric): &(Tenant, MetricName)| {
            let tenant = tenants.partition_point(|own| own < tenant) as u32;
            (tenant, metrics.partition_point(|own| own < metric) as u32)
        };
        let pairs = named.iter().map(place).collect();
        Self { tenants, metrics, pairs, numbers }
    }

    fn by_number(&self, metrics: &Arc<Metrics>) -> &[u32] {
        self.numbers.get(&Arc::as_ptr(metrics)).map_or(&[], Vec::as_slice)
    }

    /// The columns `tenant` and `metric` of rows with these pairs.
    fn encode(&self, native: &mut Native, pairs: impl ExactSizeIterator<Item = u32> + Clone) {
        native.column("tenant", "LowCardinality(String)");
        native.low_cardinality();
        let tenants = self.tenants.iter().map(Tenant::as_str);
        native.indices(tenants, pairs.clone().map(|pair| self.pairs[pair as usize].0));
        native.column("metric", "LowCardinality(String)");
        native.low_cardinality();
        let metrics = self.metrics.iter().map(MetricName::as_str);
        native.indices(metrics, pairs.map(|pair| self.pairs[pair as usize].1));
    }
}

fn encode_samples(rows: &[Row], names: &Names) -> Bytes {
    let mut native = Native::new(5, rows.len(), rows.len() * 30 + 4_096);
    names.encode(&mut native, rows.iter().map(|row| row.metric));
    native.column("fp", "UInt64");
    native.numbers(rows.iter().map(|row| row.fp.to_le_bytes()));
    native.column("ts", "DateTime64(3, 'UTC')");
    native.numbers(rows.iter().map(|row| row.time.to_le_bytes()));
    native.column("v", "Float64");
    native.numbers(rows.iter().map(|row| row.value.to_le_bytes()));
    native.into_bytes().into()
}

fn encode_series(rows: &[Presence<'_>], names: &Names) -> Bytes {
    let mut native = Native::new(6, rows.len(), rows.len() * 128 + 4_096);
    names.encode(&mut native, rows.iter().map(|row| row.pair));
    native.column("fp", "UInt64");
    native.numbers(rows.iter().map(|row| row.fp.to_le_bytes()));
    native.column("day", "Date32");
    native.numbers(rows.iter().map(|row| row.day.to_le_bytes()));
    native.column("generation", "UInt64");
    native.numbers(rows.iter().map(|row| row.generation.to_le_bytes()));
    native.column("dimensions", "Map(LowCardinality(String), String)");
    encode_dimensions(&mut native, rows);
    native.into_bytes().into()
}

/// A map per row: where each ends, then all keys, then all values.
fn encode_dimensions(native: &mut Native, rows: &[Presence<'_>]) {
    native.low_cardinality();
    let mut end = 0_u64;
    native.numbers(rows.iter().map(|row| {
        end += row.dimensions.len() as u64;
        end.to_le_bytes()
    }));
    let mut keys: Vec<&str> = Vec::new();
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let all = rows.iter().flat_map(|row| row.dimensions.iter()).map(|(key, _)| DimensionKey::as_str(key));
    let indices: Vec<u32> = all
        .map(|key| {
            *numbers.entry(key).or_insert_with(|| {
                keys.push(key);
                (keys.len() - 1) as u32
            })
        })
        .collect();
    native.indices(keys.into_iter(), indices.into_iter());
    rows.iter().flat_map(|row| row.dimensions.iter()).for_each(|(_, value)| native.text(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn row(fp: u64, time: i64) -> Row {
        Row { metric: 0, place: 0, fp, time, value: 0.0 }
    }

    #[test]
    fn rows_of_too_many_days_are_split_by_day() {
        // Each of two series has a row on each of 250 days.
        let rows: Vec<Row> = (0..500).map(|at| row(at / 250, (at % 250) as i64 * DAY)).collect();
        let parts = pieces(rows, 1_000, |row| day_of(row.time));
        let days = |part: &Vec<Row>| {
            let mut days: Vec<i32> = part.iter().map(|row| day_of(row.time)).collect();
            days.sort_unstable();
            days.dedup();
            (days.len(), days[0], part.len())
        };
        assert_eq!(
            parts.iter().map(days).collect::<Vec<_>>(),
            [(100, 0, 200), (100, 100, 200), (50, 200, 100)]
        );
        assert!(parts.iter().all(|part| part.is_sorted_by_key(|row| (row.fp, row.time))));
    }

    #[test]
    fn too_many_rows_are_split_in_their_order() {
        let rows: Vec<Row> = (0..25).map(|at| row(at, 0)).collect();
        let parts = pieces(rows.clone(), 10, |row| day_of(row.time));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(parts.concat(), rows);
        assert_eq!(pieces(rows, 25, |row| day_of(row.time)).len(), 1);
        assert!(pieces(Vec::<Row>::new(), 10, |row| day_of(row.time)).is_empty());
    }
}
