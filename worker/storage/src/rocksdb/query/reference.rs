//! Every query again, written as plainly as possible; random questions must have the same answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    AggregateQuery, AggregateRow, Aggregation, Answer, Dimensions, GroupKey, Having, QueryStats, RangeQuery,
    RangeRow, RateQuery, RateRow, Selector, TimeRange,
};
use crate::rocksdb::summary::HOUR;

use super::Threads;
use super::fixture::{Plain, between, context, keys, pool, selector};

/// Dimensions and samples in a range, of the series meant that have one.
fn samples_in(store: &Plain, selector: &Selector, range: TimeRange) -> Vec<(Dimensions, Vec<(i64, f64)>)> {
    let meant = store.series.values().filter(|(dimensions, _)| selector.matches(dimensions));
    let cut = meant.map(|(dimensions, samples)| {
        let inside = samples.iter().filter(|(time, _)| range.contains(**time));
        (dimensions.clone(), inside.map(|(time, value)| (*time, *value)).collect::<Vec<_>>())
    });
    let mut found: Vec<_> = cut.filter(|(_, samples)| !samples.is_empty()).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

fn group_of(dimensions: &Dimensions, by: &[crate::model::DimensionKey]) -> GroupKey {
    by.iter().map(|key| dimensions.get(key.as_str()).cloned()).collect()
}

fn cut<Row>(
    mut rows: Vec<Row>,
    number: impl Fn(&Row) -> f64,
    (having, limit): (Having, usize),
    matched: usize,
) -> Answer<Row> {
    rows.retain(|row| having.admits(number(row)));
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let stats = QueryStats { points_scanned: 0, series_matched: matched as u64, truncated };
    Answer { rows, stats }
}

fn range(store: &Plain, query: &RangeQuery) -> Answer<RangeRow> {
    let series = samples_in(store, &query.selector, query.range);
    let mut rows = Vec::new();
    for (dimensions, samples) in &series {
        for (timestamp, value) in samples {
            rows.push(RangeRow { timestamp: *timestamp, value: *value, dimensions: dimensions.clone() });
        }
    }
    rows.sort_by(|one, other| (one.timestamp, &one.dimensions).cmp(&(other.timestamp, &other.dimensions)));
    cut(rows, |row| row.value, (query.having, query.limit), series.len())
}

/// What a row is made of: samples, and terms of its value.
#[derive(Default)]
struct Made {
    samples: Vec<f64>,
    terms: Vec<f64>,
}

impl Made {
    fn value(&self, aggregation: Aggregation) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        match aggregation {
            Aggregation::Count => count as f64,
            Aggregation::Sum | Aggregation::Integral => self.terms.iter().sum(),
            Aggregation::Avg => self.terms.iter().sum::<f64>() / count as f64,
            Aggregation::Min => sorted[0],
            Aggregation::Max => sorted[count - 1],
            Aggregation::P50 | Aggregation::P95 | Aggregation::P99 => {
                let rank = aggregation.quantile().unwrap() * (count - 1) as f64;
                let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
                low * (1.0 - rank.fract()) + high * rank.fract()
            }
        }
    }

    /// What the tolerance is relative to.
    fn scale(&self) -> f64 {
        self.terms.iter().map(|term| term.abs()).sum::<f64>().max(1.0)
    }
}

/// Rows with their scales.
fn aggregate(store: &Plain, query: &AggregateQuery) -> Answer<(AggregateRow, f64)> {
    let series = samples_in(store, &query.selector, query.range);
    let bucket = |time: i64| query.interval.map(|width| time.div_euclid(width) * width);
    let mut made: BTreeMap<(GroupKey, Option<i64>), Made> = BTreeMap::new();
    for (dimensions, samples) in &series {
        let group = group_of(dimensions, &query.group_by);
        for (time, value) in samples {
            let made = made.entry((group.clone(), bucket(*time))).or_default();
            made.samples.push(*value);
            if query.aggregation != Aggregation::Integral {
                made.terms.push(*value);
            }
        }
        if query.aggregation != Aggregation::Integral {
            continue;
        }
        for pair in samples.windows(2) {
            let ((from, v0), (to, v1)) = (pair[0], pair[1]);
            if query.max_gap.is_some_and(|gap| to - from > gap) {
                continue;
            }
            // Edges between: the samples, and every bucket's start strictly between them.
            let mut edges = BTreeSet::from([from, to]);
            let mut next = query.interval.map_or(i64::MAX, |width| (from.div_euclid(width) + 1) * width);
            while next < to {
                edges.insert(next);
                next += query.interval.unwrap();
            }
            let at = |time: i64| v0 + (v1 - v0) * (time - from) as f64 / (to - from) as f64;
            let edges: Vec<i64> = edges.into_iter().collect();
            for part in edges.windows(2) {
                let area = (at(part[0]) + at(part[1])) / 2.0 * (part[1] - part[0]) as f64 / 1_000.0;
                made.entry((group.clone(), bucket(part[0]))).or_default().terms.push(area);
            }
        }
    }
    let row = |((group, timestamp), made): ((GroupKey, Option<i64>), Made)| {
        let (value, count) = (made.value(query.aggregation), made.samples.len() as u64);
        (AggregateRow { group, timestamp, value, count }, made.scale())
    };
    cut(made.into_iter().map(row).collect(), |(row, _)| row.value, (query.having, query.limit), series.len())
}

fn rate(store: &Plain, query: &RateQuery) -> Answer<RateRow> {
    let (start, width) = (query.range.start(), query.interval);
    let matched = samples_in(store, &query.selector, query.range).len();
    let mut sums: BTreeMap<(GroupKey, i64), f64> = BTreeMap::new();
    for (dimensions, samples) in samples_in(store, &query.selector, between(start - width, query.range.end()))
    {
        for pair in samples.windows(2) {
            let ((_, v0), (time, v1)) = (pair[0], pair[1]);
            if time >= start {
                let bucket = time.div_euclid(width) * width;
                let sum = sums.entry((group_of(&dimensions, &query.group_by), bucket)).or_default();
                *sum += if v1 < v0 { v1 } else { v1 - v0 };
            }
        }
    }
    let row = |((group, timestamp), sum): ((GroupKey, i64), f64)| RateRow {
        group,
        timestamp,
        rate: sum / (width as f64 / 1_000.0),
    };
    cut(sums.into_iter().map(row).collect(), |row| row.rate, (query.having, query.limit), matched)
}

/// Some hours of some series: gaps, resets, negative values, absent keys, one series without samples.
fn random_store(random: &mut fastrand::Rng) -> (Plain, i64) {
    let base = [0, 1_700_000_000_000, 1_699_999_200_000][random.usize(0..3)];
    let mut store = Plain { summaries: random.bool(), ..Plain::default() };
    // Where it is coarse, series share times.
    let grid = [1, 15_000][random.usize(0..2)];
    for number in 0..random.usize(1..300) {
        let unique = format!("{:03}", number * 7 % 307);
        let (a, b) = (random.usize(0..4), random.usize(0..6).to_string());
        let mut pairs = vec![("id", unique.as_str())];
        if a > 0 {
            pairs.push(("a", ["", "x", "y", "zé"][a]));
        }
        if random.bool() {
            pairs.push(("b", &b));
        }
        let mut time = base + random.i64(-6 * HOUR..6 * HOUR);
        let step = [1_000, 15_000, 60_000, 1_200_000][random.usize(0..4)];
        let (mut value, counter) = (random.f64() * 100.0 - 50.0, random.bool());
        let samples: Vec<(i64, f64)> = (0..random.usize(0..60))
            .map(|_| {
                time += if random.u8(0..12) == 0 { random.i64(1..5 * HOUR) } else { random.i64(1..=step) };
                value = match counter {
                    true if random.u8(0..15) == 0 => random.f64(),
                    true => value.abs() + f64::from(random.u8(0..9)),
                    false => value + random.f64() * 10.0 - 5.0,
                };
                (time / grid * grid, value)
            })
            .collect();
        store.add(&pairs, samples);
    }
    (store, base)
}

struct Asked {
    selector: Selector,
    range: TimeRange,
    group_by: Vec<crate::model::DimensionKey>,
    interval: Option<i64>,
    having: Having,
    limit: usize,
}

/// Mostly no bounds, else one or two that some rows lie within.
fn random_having(random: &mut fastrand::Rng) -> Having {
    let bound = |random: &mut fastrand::Rng| random.f64() * 120.0 - 60.0;
    match random.u8(0..6) {
        0 => Having { gt: Some(bound(random)), ..Having::ANY },
        1 => Having { lte: Some(bound(random)), ..Having::ANY },
        2 => Having { gte: Some(-bound(random).abs()), lt: Some(bound(random).abs()), ..Having::ANY },
        _ => Having::ANY,
    }
}

fn random_question(random: &mut fastrand::Rng, base: i64) -> Asked {
    let start = base + random.i64(-8 * HOUR..8 * HOUR);
    let start = if random.bool() { start.div_euclid(HOUR) * HOUR } else { start };
    let length = [1, 1_000, HOUR / 2, 3 * HOUR, 20 * HOUR][random.usize(0..5)] + random.i64(0..HOUR);
    let length = if random.bool() { (length / HOUR + 1) * HOUR } else { length };
    let filters: &[&[(&str, &str)]] = &[&[], &[("a", "x")], &[("a", "zé"), ("b", "2")], &[("a", "no")]];
    let groups: &[&[&str]] = &[&[], &["a"], &["b", "a"], &["id"], &["no"]];
    let widths = [None, Some(HOUR), Some(2 * HOUR), Some(24 * HOUR), Some(7 * 60_000), Some(999)];
    Asked {
        selector: selector(filters[random.usize(0..filters.len())]),
        range: between(start, start + length),
        group_by: keys(groups[random.usize(0..groups.len())]),
        interval: widths[random.usize(0..widths.len())],
        having: random_having(random),
        limit: [1, 5, 100, 10_000][random.usize(0..4)],
    }
}

fn same_stats(mut got: QueryStats, expected: QueryStats, what: &str) {
    got.points_scanned = 0;
    assert_eq!(got, expected, "{what}");
}

#[test]
fn random_aggregates_are_those_of_the_reference() {
    let pool = pool();
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (store, base) = random_store(&mut random);
        for question in 0..12 {
            let asked = random_question(&mut random, base);
            let gaps = [None, Some(0), Some(20_000), Some(300_000), Some(HOUR), Some(3 * HOUR)];
            let aggregation = Aggregation::ALL[random.usize(0..9)];
            let query = AggregateQuery {
                selector: asked.selector,
                range: asked.range,
                aggregation,
                max_gap: gaps[random.usize(0..6)].filter(|_| aggregation == Aggregation::Integral),
                group_by: asked.group_by,
                interval: asked.interval,
                having: asked.having,
                limit: asked.limit,
            };
            let threads = if random.bool() { Threads::Pool(&pool) } else { Threads::Caller };
            let what = format!("seed {seed}, question {question}, {threads:?}: {query:?}");
            let got = super::aggregate(&store, &store, &query, &context(), threads).unwrap();
            let expected = aggregate(&store, &query);
            same_stats(got.stats, expected.stats, &what);
            assert_eq!(got.rows.len(), expected.rows.len(), "{what}");
            for (got, (expected, scale)) in got.rows.iter().zip(&expected.rows) {
                assert!((got.value - expected.value).abs() <= 1e-9 * scale, "{what}: {got:?}, {expected:?}");
                let key = |row: &AggregateRow| (row.group.clone(), row.timestamp, row.count);
                assert_eq!(key(got), key(expected), "{what}");
            }
        }
    }
}

#[test]
fn random_rates_are_those_of_the_reference() {
    let pool = pool();
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (store, base) = random_store(&mut random);
        for question in 0..12 {
            let asked = random_question(&mut random, base);
            let query = RateQuery {
                selector: asked.selector,
                range: asked.range,
                group_by: asked.group_by,
                interval: asked.interval.unwrap_or(60_000),
                having: asked.having,
                limit: asked.limit,
            };
            let threads = if random.bool() { Threads::Pool(&pool) } else { Threads::Caller };
            let what = format!("seed {seed}, question {question}, {threads:?}: {query:?}");
            let got = super::rate(&store, &store, &query, &context(), threads).unwrap();
            let expected = rate(&store, &query);
            same_stats(got.stats, expected.stats, &what);
            assert_eq!(got.rows.len(), expected.rows.len(), "{what}");
            for (got, expected) in got.rows.iter().zip(&expected.rows) {
                let scale = expected.rate.abs().max(1e3);
                assert!((got.rate - expected.rate).abs() <= 1e-9 * scale, "{what}: {got:?}, {expected:?}");
                assert_eq!((&got.group, got.timestamp), (&expected.group, expected.timestamp), "{what}");
            }
        }
    }
}

#[test]
fn random_ranges_are_those_of_the_reference() {
    let pool = pool();
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (store, base) = random_store(&mut random);
        for question in 0..12 {
            let Asked { selector, range: when, having, limit, .. } = random_question(&mut random, base);
            let query = RangeQuery { selector, range: when, having, limit };
            let threads = if random.bool() { Threads::Pool(&pool) } else { Threads::Caller };
            let what = format!("seed {seed}, question {question}, {threads:?}: {query:?}");
            let got = super::range(&store, &store, &query, &context(), threads).unwrap();
            let expected = range(&store, &query);
            same_stats(got.stats, expected.stats, &what);
            assert_eq!(got.rows, expected.rows, "{what}");
        }
    }
}

#[test]
fn points_scanned_are_samples_by_value_or_by_summary() {
    let (store, _) = random_store(&mut fastrand::Rng::with_seed(4));
    let all: usize = store.series.values().map(|(_, samples)| samples.len()).sum();
    let query = AggregateQuery {
        selector: selector(&[]),
        range: between(-100 * HOUR, 500_000 * HOUR),
        aggregation: Aggregation::Sum,
        max_gap: None,
        group_by: Vec::new(),
        interval: None,
        having: Having::ANY,
        limit: 10,
    };
    let answer = super::aggregate(&store, &store, &query, &context(), Threads::Pool(&pool())).unwrap();
    assert_eq!(answer.stats.points_scanned, all as u64);
}
