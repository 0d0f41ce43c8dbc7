use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;

use crate::model::Tenant;
use crate::rocksdb::codec::Effort;
use crate::rocksdb::layer::{CutOffs, DAY, Frozen, LayerBuilder, LayerRecord, day_start};
use crate::rocksdb::merge::Cursor;
use crate::rocksdb::record::Rows;
use crate::rocksdb::scan::Indifference;
use crate::rocksdb::summary::{HOUR, HourSummary, Wanted};
use crate::store::ErrorKind;

use super::*;

const METRIC: u32 = 7;
const OTHER: u32 = 8;
const START: i64 = 1_700_000_000_000 / DAY * DAY;

/// Times and values.
type Columns = (Vec<i64>, Vec<f64>);
type Model = BTreeMap<(u32, i64), f64>;

/// A store without its engine: writes, deletes, seals and merges done by hand, beside a model of them.
struct Store {
    _directory: tempfile::TempDir,
    tables: Tables,
    view: View,
    commit: u64,
    layer: u64,
    first_commit: u64,
    model: Model,
}

impl Store {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tables = Tables::open(directory.path(), 8 << 20).unwrap();
        let view = View {
            active: Arc::default(),
            frozen: Vec::new(),
            layers: Vec::new(),
            cut_offs: Arc::new(CutOffs::default()),
        };
        Self {
            _directory: directory,
            tables,
            view,
            commit: 0,
            layer: 0,
            first_commit: 1,
            model: Model::new(),
        }
    }

    /// Series of even numbers belong to the metric, others to another one.
    fn write(&mut self, samples: &[(u32, i64, f64)]) {
        self.commit += 1;
        let rows = Rows {
            tenant: Tenant::new("t").unwrap(),
            ids: samples.iter().map(|sample| sample.0).collect(),
            times: samples.iter().map(|sample| sample.1).collect(),
            values: samples.iter().map(|sample| sample.2).collect(),
        };
        self.view.active.apply(&[&rows]);
        self.model.extend(samples.iter().map(|(id, time, value)| ((*id, *time), *value)));
    }

    fn delete_before(&mut self, before: i64) {
        self.commit += 1;
        self.view.active.delete_before(before, |id| id % 2 == 0);
        Arc::make_mut(&mut self.view.cut_offs).insert(METRIC, self.commit, before);
        self.model.retain(|(id, time), _| id % 2 == 1 || *time >= before);
    }

    fn freeze(&mut self) {
        let head = std::mem::take(&mut self.view.active);
        let (first_commit, last_commit) = (self.first_commit, self.commit);
        self.view.frozen.push(Frozen { head, first_commit, last_commit, accepted: Arc::default() });
        self.first_commit = self.commit + 1;
    }

    fn seal(&mut self, effort: Effort) {
        let frozen = self.view.frozen.remove(0);
        let mut by_day: BTreeMap<i32, BTreeMap<(u32, u32), Columns>> = BTreeMap::new();
        for id in frozen.head.series() {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            frozen.head.read(id, &mut times, &mut values);
            for (time, value) in times.iter().zip(&values) {
                let metric = if id % 2 == 0 { METRIC } else { OTHER };
                let of_series = by_day.entry(day_of(*time)).or_default().entry((metric, id)).or_default();
                of_series.0.push(*time);
                of_series.1.push(*value);
            }
        }
        let commits = (frozen.first_commit, frozen.last_commit);
        for (day, series) in by_day {
            self.layer += 1;
            let files = self.tables.begin_layer(day, self.layer);
            let record = LayerRecord::empty(self.layer, day, commits);
            let mut builder = LayerBuilder::new(&files, record, effort).unwrap();
            for ((metric, id), (times, values)) in &series {
                builder.add(*metric, *id, times, values).unwrap();
            }
            let record = builder.finish().unwrap().unwrap();
            self.tables.ingest_layer(files).unwrap();
            self.view.exchange(&[], vec![Layer::new(record, channel().0)]);
        }
    }

    fn scan(&self, floor: i64, range: TimeRange, detail: Detail, ids: &[u32]) -> Vec<(u32, Vec<Given>)> {
        self.scan_by(floor, ScanSpec::exact(METRIC, range, detail), ids)
    }

    fn scan_by(&self, floor: i64, spec: ScanSpec, ids: &[u32]) -> Vec<(u32, Vec<Given>)> {
        let reader = Reader::new(&self.tables, Arc::new(self.view.clone()), floor);
        let mut given: Vec<(u32, Vec<Given>)> = Vec::new();
        let context = QueryContext::with_timeout(std::time::Duration::from_secs(60));
        let visit = &mut |position: usize, piece: Piece<'_>| {
            if given.last().is_none_or(|(id, _)| *id != ids[position]) {
                given.push((ids[position], Vec::new()));
            }
            given.last_mut().unwrap().1.push(match piece {
                Piece::Hour(summary) => Given::Hour(*summary),
                Piece::Samples { times, values } => {
                    Given::Samples(times.iter().copied().zip(values.iter().copied()).collect())
                }
            });
            Ok(())
        };
        reader.scan(&spec, ids, &context, visit).unwrap();
        given
    }

    fn expected(&self, floor: i64, range: TimeRange, id: u32) -> Vec<(i64, f64)> {
        let from = range.start().max(floor);
        let of_series = self.model.range((id, from)..=(id, i64::MAX));
        of_series
            .map(|((_, time), value)| (*time, *value))
            .take_while(|(time, _)| *time < range.end())
            .collect()
    }

    /// Compares every detail of a scan with the model; returns how many whole hours were given.
    fn check(&self, floor: i64, range: TimeRange, ids: &[u32], what: &str) -> usize {
        let mut expected: Vec<(u32, Vec<(i64, f64)>)> =
            ids.iter().map(|id| (*id, self.expected(floor, range, *id))).collect();
        expected.retain(|(_, samples)| !samples.is_empty());
        let samples: Vec<(u32, Vec<(i64, f64)>)> = self
            .scan(floor, range, Detail::Samples, ids)
            .into_iter()
            .map(|(id, given)| (id, given.into_iter().flat_map(Given::samples).collect()))
            .collect();
        assert_eq!(samples, expected, "{what}: samples");
        self.check_moments(floor, range, &expected, what);
        self.check_indifference(floor, range, ids, &expected, what);
        let existing = self.scan(floor, range, Detail::Existence, ids);
        assert!(existing.iter().map(|(id, _)| id).eq(expected.iter().map(|(id, _)| id)), "{what}: existence");
        assert!(existing.iter().all(|(_, given)| given.len() == 1), "{what}: one piece each");
        let mut hours = 0;
        let given = self.scan(floor, range, Detail::Hours(Wanted::All), ids);
        assert_eq!(given.len(), expected.len(), "{what}: hours");
        for ((id, given), (expected_id, expected)) in given.iter().zip(&expected) {
            assert_eq!(id, expected_id, "{what}");
            let mut rest = &expected[..];
            for piece in given {
                match piece {
                    Given::Samples(samples) => {
                        assert!(rest.starts_with(samples), "{what}: {samples:?} of {rest:?}");
                        rest = &rest[samples.len()..];
                    }
                    Given::Hour(summary) => {
                        hours += 1;
                        let end = summary.hour + HOUR;
                        assert!(range.start() <= summary.hour && end <= range.end(), "{what}");
                        let (own, after) = rest.split_at(rest.partition_point(|(time, _)| *time < end));
                        rest = after;
                        assert_summarises(summary, own, what);
                    }
                }
            }
            assert!(rest.is_empty(), "{what}: not given: {rest:?}");
        }
        hours
    }
}

impl Store {
    /// Asks for single samples: the first, the last and one between of each series.
    fn check_moments(&self, floor: i64, range: TimeRange, expected: &[(u32, Vec<(i64, f64)>)], what: &str) {
        for (id, samples) in expected {
            for at in [0, samples.len() / 2, samples.len() - 1] {
                let sample = samples[at];
                let after = samples.get(at + 1).map_or(range.end(), |(time, _)| *time);
                let moment = TimeRange::new(sample.0, after.min(sample.0 + 1_000)).unwrap();
                let given = self.scan(floor, moment, Detail::Samples, &[*id]).into_iter();
                let found: Vec<_> =
                    given.flat_map(|(_, given)| given.into_iter().flat_map(Given::samples)).collect();
                assert_eq!(found, [sample], "{what}: series {id} at a moment");
            }
        }
    }

    /// Asks with bounds between the values: those within are as they are, the others on their side.
    fn check_indifference(
        &self,
        floor: i64,
        range: TimeRange,
        ids: &[u32],
        expected: &[(u32, Vec<(i64, f64)>)],
        what: &str,
    ) {
        let mut values: Vec<f64> =
            expected.iter().flat_map(|(_, samples)| samples).map(|(_, value)| *value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let quantile = |of: usize| values.get(values.len() * of / 8).copied();
        let (Some(at_most), Some(at_least)) = (quantile(5), quantile(7)) else { return };
        for indifferent in [
            Indifference { at_most, at_least: f64::INFINITY },
            Indifference { at_most: f64::NEG_INFINITY, at_least: at_most },
            Indifference { at_most, at_least },
        ] {
            let side = |value: f64| match (value <= indifferent.at_most, value >= indifferent.at_least) {
                (true, _) => (f64::NEG_INFINITY, true),
                (_, true) => (f64::INFINITY, true),
                _ => (value, false),
            };
            let spec = ScanSpec { metric: METRIC, range, detail: Detail::Samples, indifferent };
            let given = self.scan_by(floor, spec, ids);
            assert_eq!(given.len(), expected.len(), "{what}: {indifferent:?}");
            for ((id, given), (expected_id, expected)) in given.into_iter().zip(expected) {
                assert_eq!(id, *expected_id, "{what}");
                let found =
                    given.into_iter().flat_map(Given::samples).map(|(time, value)| (time, side(value)));
                let expected = expected.iter().map(|(time, value)| (*time, side(*value)));
                assert!(found.eq(expected), "{what}: series {id}, {indifferent:?}");
            }
        }
    }
}

enum Given {
    Hour(HourSummary),
    Samples(Vec<(i64, f64)>),
}

impl Given {
    fn samples(self) -> Vec<(i64, f64)> {
        match self {
            Self::Samples(samples) => samples,
            Self::Hour(summary) => panic!("an hour in a scan of samples: {summary:?}"),
        }
    }
}

fn assert_summarises(found: &HourSummary, samples: &[(i64, f64)], what: &str) {
    let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
    let exact = HourSummary::of(&times, &values);
    let most = exact.min.abs().max(exact.max.abs()) * f64::from(exact.count);
    let near = |one: f64, other: f64, terms: f64| (one - other).abs() <= 1e-10 * terms.max(1e-300);
    assert!(near(found.sum, exact.sum, most), "{what}: {found:?} {exact:?}");
    assert!(near(found.increase, exact.increase, most), "{what}: {found:?} {exact:?}");
    assert!(near(found.integral, exact.integral, most * 3_600.0), "{what}: {found:?} {exact:?}");
    let rest = HourSummary { sum: exact.sum, increase: exact.increase, integral: exact.integral, ..*found };
    assert_eq!(rest, exact, "{what}");
}

fn some_value(random: &mut fastrand::Rng) -> f64 {
    match random.u32(0..4) {
        0 => random.f64(),
        1 => f64::from(random.i32(-900..900)) / 100.0,
        _ => f64::from(random.u32(0..100)),
    }
}

/// Random commits: mostly the present of many series, sometimes the past, sometimes a delete.
fn fill(store: &mut Store, random: &mut fastrand::Rng, now: &mut i64) {
    let step = [1_000, 10_000, 60_000, 900_000][random.usize(0..4)];
    for _ in 0..random.usize(1..60) {
        *now += step;
        let late = if random.u32(0..8) == 0 { random.i64(0..2 * DAY) / step * step } else { 0 };
        let ids: BTreeSet<u32> = (0..random.usize(1..30)).map(|_| random.u32(0..300)).collect();
        let mut samples = Vec::new();
        for id in ids {
            samples.push((id, *now - late, some_value(random)));
            for back in 1..random.i64(1..40) {
                samples.push((id, *now - late - back * step, some_value(random)));
            }
        }
        store.write(&samples);
        if random.u32(0..60) == 0 {
            store.delete_before(*now - random.i64(0..DAY));
        }
    }
}

#[test]
fn scans_equal_a_model_over_layers_heads_deletes_and_floors() {
    let mut hours = 0;
    for seed in 0..16 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut store, mut now) = (Store::open(), START);
        for _ in 0..random.usize(1..7) {
            fill(&mut store, &mut random, &mut now);
            if random.u32(0..5) > 0 {
                store.freeze();
            }
            while store.view.frozen.len() > random.usize(0..2) {
                store.seal(if random.bool() { Effort::Seal } else { Effort::Merge });
            }
        }
        for round in 0..60 {
            let span = 1_i64 << random.u32(10..29);
            let aligned = if random.bool() { HOUR } else { 1 };
            let start = (now - random.i64(0..3 * DAY)) / aligned * aligned;
            let end = (start + span) / aligned * aligned + aligned;
            let range = TimeRange::new(if random.u32(0..9) == 0 { i64::MIN } else { start }, end).unwrap();
            let floor = if random.bool() { i64::MIN } else { now - random.i64(0..2 * DAY) };
            let part = random.u32(1..5);
            let ids: Vec<u32> =
                (0..320).filter(|id| id % 2 == 0 && (part == 1 || random.u32(0..part) == 0)).collect();
            hours += store.check(floor, range, &ids, &format!("seed {seed} round {round}"));
        }
    }
    assert!(hours > 4_000, "{hours} hours came from summaries");
}

fn regular(store: &mut Store, from: i64, to: i64) {
    for id in (0..20).step_by(2) {
        let samples =
            (from..to).step_by(10_000).map(|time| (id, time, (time / 10_000 % 77 + i64::from(id)) as f64));
        store.write(&samples.collect::<Vec<_>>());
    }
    store.freeze();
}

#[test]
fn an_hour_across_two_layers_and_the_head_is_one_summary() {
    let mut store = Store::open();
    regular(&mut store, START, START + HOUR + 600_000);
    store.seal(Effort::Seal);
    regular(&mut store, START + HOUR + 600_000, START + 2 * HOUR + 5_000);
    store.seal(Effort::Seal);
    let range = TimeRange::new(START, START + 3 * HOUR).unwrap();
    let ids: Vec<u32> = (0..20).step_by(2).collect();
    assert_eq!(store.check(i64::MIN, range, &ids, "layers"), 30);
    store.write(&[(4, START + 2 * HOUR + 900_000, 5.0)]);
    assert_eq!(store.check(i64::MIN, range, &ids, "and the head"), 30);
    store.write(&[(6, START + 1_800_000, 5.0)]);
    assert_eq!(store.check(i64::MIN, range, &ids, "an overlap"), 29);
    store.delete_before(START + HOUR - 20_000);
    assert_eq!(store.check(i64::MIN, range, &ids, "a delete inside the first hour"), 20);
    assert_eq!(store.check(START + 2 * HOUR - 1, range, &ids, "a floor"), 10);
}

#[test]
fn a_cursor_reads_every_series_of_a_layer() {
    let (mut store, mut random, mut now) = (Store::open(), fastrand::Rng::with_seed(1), START + HOUR);
    for _ in 0..200 {
        now += 1_000;
        let sample = |id: u32| (id, now, some_value(&mut random));
        store.write(&(0..300).map(sample).collect::<Vec<_>>());
    }
    store.freeze();
    store.seal(Effort::Seal);
    let mut cursor = Cursor::open(&store.tables, &store.view.layers[0].record).unwrap();
    let mut read = Vec::new();
    while let Some((metric, id)) = cursor.series() {
        assert_eq!(metric, if id % 2 == 0 { METRIC } else { OTHER });
        let (times, values) = cursor.samples();
        read.extend(times.iter().zip(values).map(|(time, value)| ((id, *time), *value)));
        cursor.advance().unwrap();
    }
    assert_eq!(cursor.last_commit(), 200);
    read.sort_by_key(|(key, _)| *key);
    assert!(read.into_iter().eq(store.model));
}

#[test]
fn a_scan_stops_when_its_context_says_so_and_counts_what_it_read() {
    let mut store = Store::open();
    regular(&mut store, START, START + 4 * HOUR);
    store.seal(Effort::Seal);
    let reader = Reader::new(&store.tables, Arc::new(store.view.clone()), i64::MIN);
    let range = TimeRange::new(START, START + day_start(1)).unwrap();
    let spec = ScanSpec::exact(METRIC, range, Detail::Samples);
    let ids: Vec<u32> = (0..20).collect();
    let mut context = QueryContext::with_timeout(std::time::Duration::from_secs(60));
    reader.scan(&spec, &ids, &context, &mut |_, _| Ok(())).unwrap();
    assert_eq!(context.scanned.load(std::sync::atomic::Ordering::Relaxed), 10 * 4 * 360);
    context.max_scanned_samples = 20_000;
    let error = reader.scan(&spec, &ids, &context, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::QueryTooLarge);
    let estimate = reader.estimate(&spec, &ids);
    assert_eq!(estimate.samples, 10 * 4 * 360);
    assert!(estimate.bytes > 0);
    let context = QueryContext::with_timeout(std::time::Duration::from_secs(60));
    context.cancel.cancel();
    let error = reader.scan(&spec, &ids, &context, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[test]
fn a_scan_from_memory_alone_has_all_of_it_or_fails_and_says_that_it_missed() {
    let mut store = Store::open();
    let mut random = fastrand::Rng::with_seed(6);
    // Several pages and blocks: ingesting a table reads its first and its last.
    let ids: Vec<u32> = (0..1_000).map(|number| 2 * number).collect();
    for minute in 0..60 {
        let sample = |id: &u32| (*id, START + minute * 60_000, random.f64());
        store.write(&ids.iter().map(sample).collect::<Vec<_>>());
    }
    store.freeze();
    let range = TimeRange::new(START, START + day_start(1)).unwrap();
    let scan = |store: &Store, in_memory: bool| {
        let missed = std::sync::atomic::AtomicBool::new(false);
        let reader = Reader::new(&store.tables, Arc::new(store.view.clone()), i64::MIN);
        let reader = if in_memory { reader.in_memory(&missed) } else { reader };
        let context = QueryContext::with_timeout(std::time::Duration::from_secs(60));
        let spec = ScanSpec::exact(METRIC, range, Detail::Samples);
        let done = reader.scan(&spec, &ids, &context, &mut |_, _| Ok(())).is_ok();
        let scanned = context.scanned.load(std::sync::atomic::Ordering::Relaxed);
        (done, scanned, missed.load(std::sync::atomic::Ordering::Relaxed))
    };
    let all = (true, 60_000, false);
    assert_eq!(scan(&store, true), all, "what isn't sealed is in memory");
    store.seal(Effort::Seal);
    let (done, _, missed) = scan(&store, true);
    assert!(!done && missed, "nobody has read what was sealed");
    assert_eq!(scan(&store, false), all);
    assert_eq!(scan(&store, true), all, "now it is in memory");
}
