//! The index against a naive model: random changes, then every question; and what a restart brings back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{
    DimensionKey, DimensionLimits, Dimensions, MetricName, NewSeries, Selector, SeriesLimits, Spelling,
    Tenant,
};
use crate::rocksdb::query::Catalog;
use crate::store::{
    CardinalityCursor, CardinalityQuery, CardinalityRow, ListPage, ListQuery, Refusal, SeriesLookup,
};

use super::{Definitions, Index, IndexOptions, TenantIndex};

fn new_index() -> Index {
    Index::new(IndexOptions { secret: [42; 192], max_spellings: 1 << 16, memory_budget: u64::MAX })
}

fn tenant() -> Tenant {
    Tenant::new("acme").unwrap()
}

fn metric(name: &str) -> MetricName {
    MetricName::new(name).unwrap()
}

fn key(name: &str) -> DimensionKey {
    DimensionKey::new(name).unwrap()
}

fn dimensions(pairs: &[(&str, &str)]) -> Dimensions {
    Dimensions::new(pairs.iter().copied(), &DimensionLimits::default()).unwrap()
}

fn series(name: &str, pairs: &[(&str, &str)]) -> NewSeries {
    NewSeries { metric: metric(name), dimensions: dimensions(pairs), spelling: None }
}

fn list(prefix: &str, after: Option<&str>, limit: usize) -> ListQuery {
    ListQuery { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit }
}

#[derive(Debug, Clone)]
struct ModelSeries {
    metric: MetricName,
    dimensions: Dimensions,
    days: BTreeSet<i32>,
}

/// What the index must know: series by number.
#[derive(Debug, Default, Clone)]
struct Model {
    series: BTreeMap<u32, ModelSeries>,
    given: BTreeSet<u32>,
}

impl Model {
    fn find(&self, new: &NewSeries) -> Option<u32> {
        let same = |series: &ModelSeries| series.metric == new.metric && series.dimensions == new.dimensions;
        self.series.iter().find(|(_, series)| same(series)).map(|(id, _)| *id)
    }

    fn present(&self) -> impl Iterator<Item = (u32, &ModelSeries)> {
        self.series.iter().filter(|(_, series)| !series.days.is_empty()).map(|(id, series)| (*id, series))
    }

    fn metrics(&self) -> BTreeMap<MetricName, u64> {
        let mut metrics = BTreeMap::new();
        self.series.values().for_each(|series| *metrics.entry(series.metric.clone()).or_default() += 1);
        metrics
    }

    fn resolve(&self, new: &NewSeries, limits: &SeriesLimits) -> Result<Option<u32>, Refusal> {
        if let Some(id) = self.find(new) {
            return Ok(Some(id));
        }
        let metrics = self.metrics();
        let own = metrics.get(&new.metric).copied().unwrap_or(0);
        if own == 0 && metrics.len() as u64 >= limits.max_metrics {
            return Err(Refusal::MetricLimit { limit: limits.max_metrics });
        }
        if own >= limits.max_series_per_metric {
            return Err(Refusal::SeriesLimit { limit: limits.max_series_per_metric });
        }
        Ok(None)
    }

    fn take_off(&mut self, first_kept: impl Fn(&MetricName) -> i32) -> Vec<u32> {
        let mut gone = Vec::new();
        for (id, series) in &mut self.series {
            let before = series.days.len();
            let first = first_kept(&series.metric);
            series.days.retain(|day| *day >= first);
            if before > 0 && series.days.is_empty() {
                gone.push(*id);
            }
        }
        self.series.retain(|id, _| !gone.contains(id));
        gone
    }

    fn page(&self, mut names: Vec<String>, query: &ListQuery) -> ListPage {
        names.retain(|name| name.starts_with(&query.prefix));
        names.sort();
        names.dedup();
        let total = names.len() as u64;
        names.retain(|name| query.after.as_ref().is_none_or(|after| name > after));
        let more = names.len() > query.limit;
        names.truncate(query.limit);
        ListPage { names: names.iter().map(|name| Arc::from(name.as_str())).collect(), more, total }
    }

    fn cardinality(&self, of: Option<&MetricName>, prefix: &str) -> Vec<CardinalityRow> {
        let mut rows: HashMap<(String, Option<String>), u64> = HashMap::new();
        for (_, series) in self.present() {
            match of {
                None => *rows.entry((series.metric.as_str().to_owned(), None)).or_default() += 1,
                Some(metric) if *metric == series.metric => {
                    for (key, value) in series.dimensions.iter() {
                        *rows.entry((key.as_str().to_owned(), None)).or_default() += 1;
                        *rows.entry((key.as_str().to_owned(), Some(value.to_string()))).or_default() += 1;
                    }
                }
                Some(_) => {}
            }
        }
        let rows = rows.into_iter().filter(|((name, _), _)| name.starts_with(prefix));
        let mut rows: Vec<CardinalityRow> = rows
            .map(|((name, value), series)| CardinalityRow {
                series,
                name: name.into(),
                value: value.map(Into::into),
            })
            .collect();
        rows.sort_by(|one, other| {
            let names = (&one.name, &one.value).cmp(&(&other.name, &other.value));
            other.series.cmp(&one.series).then(names)
        });
        rows
    }
}

/// Random names: few metrics, keys that come and go, values of all cardinalities.
struct Names(fastrand::Rng);

impl Names {
    fn metric(&mut self) -> MetricName {
        metric(["cpu", "cpu_total", "disk", "mem", "net"][self.0.usize(..5)])
    }

    fn value(&mut self, key: &str) -> String {
        match key {
            "env" => ["dev", "prod", "prod-eu"][self.0.usize(..3)].to_owned(),
            "host" => format!("host-{}", self.0.u32(..30)),
            "user" => format!("u{}-ä{}", self.0.u32(..9), self.0.u32(..200)),
            _ => "x".repeat(self.0.usize(1..4)),
        }
    }

    fn series(&mut self) -> NewSeries {
        let mut pairs = Vec::new();
        for key in ["app", "env", "host", "user"] {
            if self.0.u8(..10) < 7 {
                pairs.push((key, self.value(key)));
            }
        }
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let name = self.metric();
        series(name.as_str(), &pairs)
    }

    fn list(&mut self) -> ListQuery {
        let prefix = ["", "", "p", "prod", "host-1", "u3-", "zz", "c"][self.0.usize(..8)];
        let after = ["dev", "host-17", "u3-ä5", "a", "cpu"][self.0.usize(..5)];
        list(prefix, self.0.bool().then_some(after), self.0.usize(1..40))
    }
}

struct Pair {
    index: Index,
    tenant: Arc<TenantIndex>,
    model: Model,
    names: Names,
    /// Every definitions blob, as a log would hold it.
    blobs: Vec<Vec<u8>>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let index = new_index();
        let tenant = index.tenant(&tenant());
        let names = Names(fastrand::Rng::with_seed(seed));
        Self { index, tenant, model: Model::default(), names, blobs: Vec::new() }
    }

    fn create(&mut self) {
        let new: Vec<NewSeries> = (0..self.names.0.usize(1..60)).map(|_| self.names.series()).collect();
        let limits = match self.names.0.u8(..4) {
            0 => SeriesLimits { max_metrics: 4, max_series_per_metric: 150 },
            _ => SeriesLimits { max_metrics: 5, max_series_per_metric: 700 },
        };
        let mut definitions = Definitions::default();
        let resolved = self.tenant.resolve(&new, &limits, &mut definitions).unwrap();
        assert_eq!(resolved.len(), new.len());
        let mut created = Vec::new();
        for (new, resolved) in new.iter().zip(resolved) {
            match self.model.resolve(new, &limits) {
                Err(refusal) => assert_eq!(resolved, Err(refusal)),
                Ok(Some(id)) => assert_eq!(resolved, Ok(id)),
                Ok(None) => {
                    let id = resolved.unwrap();
                    assert!(self.model.given.insert(id), "number {id} was given before");
                    let (metric, dimensions) = (new.metric.clone(), new.dimensions.clone());
                    self.model.series.insert(id, ModelSeries { metric, dimensions, days: BTreeSet::new() });
                    created.push((id, self.index.metric(&tenant(), &new.metric).unwrap()));
                }
            }
        }
        assert!(definitions.created().eq(created.iter().copied()));
        assert_eq!(definitions.is_empty(), created.is_empty());
        self.blobs.push(definitions.encode());
    }

    fn mark(&mut self) {
        let day = self.names.0.i32(-2..6);
        let ids: Vec<u32> = self.model.series.keys().copied().filter(|_| self.names.0.u8(..4) == 0).collect();
        for id in &ids {
            self.model.series.get_mut(id).unwrap().days.insert(day);
        }
        self.tenant.mark(day, &ids);
    }

    fn remove(&mut self) {
        let first = self.names.0.i32(-2..3);
        if self.names.0.bool() {
            let longer = self.names.metric();
            let first_of = |metric: &MetricName| if *metric == longer { first - 2 } else { first };
            assert_eq!(self.tenant.expire(&first_of), self.model.take_off(first_of));
            return;
        }
        let metric = self.names.metric();
        let first = if self.names.0.u8(..4) == 0 { i32::MAX } else { first };
        let Some(number) = self.index.metric(&tenant(), &metric) else { return };
        let first_of = |other: &MetricName| if *other == metric { first } else { i32::MIN };
        assert_eq!(self.tenant.delete_days(number, first), self.model.take_off(first_of));
    }

    fn compare(&mut self) {
        for _ in 0..6 {
            self.compare_listings();
            self.compare_query();
        }
        let days: BTreeSet<i32> = self.model.series.values().flat_map(|series| series.days.clone()).collect();
        assert!(self.tenant.days().iter().eq(&days));
        for day in days {
            let present = self.model.series.iter().filter(|(_, series)| series.days.contains(&day));
            assert!(self.tenant.presence(day).unwrap().iter().eq(present.map(|(id, _)| *id)));
        }
        let metrics: BTreeSet<&MetricName> = self.model.present().map(|(_, series)| &series.metric).collect();
        let present = self.model.present().count() as u64;
        assert_eq!(self.tenant.usage(), (metrics.len() as u64, present));
        assert_eq!(self.index.series(), present);
        let given: Vec<u32> = self.model.given.iter().copied().collect();
        assert!(
            self.tenant
                .alive_each(&given)
                .iter()
                .zip(&given)
                .all(|(alive, id)| *alive == self.tenant.alive(*id))
        );
        for (id, described) in given.iter().zip(self.tenant.dimensions(&given)) {
            let known = self.model.series.get(id);
            assert_eq!(self.tenant.alive(*id), known.is_some());
            let dimensions = known.map(|series| series.dimensions.clone()).unwrap_or_default();
            assert_eq!(described, dimensions);
            assert_eq!(self.tenant.dimensions(&[*id]), [dimensions]);
        }
    }

    fn compare_listings(&mut self) {
        let (query, metric) = (self.names.list(), self.names.metric());
        let own = || self.model.present().filter(|(_, series)| series.metric == metric);
        let metrics = self.model.present().map(|(_, series)| series.metric.as_str().to_owned()).collect();
        assert_eq!(self.tenant.list_metrics(&query), self.model.page(metrics, &query));
        let keys =
            own().flat_map(|(_, series)| series.dimensions.iter().map(|(key, _)| key.as_str().to_owned()));
        assert_eq!(self.tenant.list_keys(&metric, &query), self.model.page(keys.collect(), &query));
        for name in ["env", "user", "nothing"] {
            let values =
                own().filter_map(|(_, series)| series.dimensions.get(name)).map(|value| value.to_string());
            let expected = self.model.page(values.collect(), &query);
            assert_eq!(self.tenant.list_values(&metric, &key(name), &query), expected);
        }
        let of = self.names.0.bool().then_some(metric);
        let rows = self.model.cardinality(of.as_ref(), &query.prefix);
        let (mut after, mut read) = (None, Vec::new());
        loop {
            let (prefix, limit) = (query.prefix.clone(), query.limit);
            let page =
                self.tenant.cardinality(&CardinalityQuery { metric: of.clone(), prefix, after, limit });
            read.extend(page.rows);
            let last = read.last().filter(|_| page.more);
            let Some(CardinalityRow { series, name, value }) = last else { break };
            let value = value.as_ref().map(|value| value.to_string());
            after = Some(CardinalityCursor { series: *series, name: name.to_string(), value });
        }
        assert_eq!(read, rows);
    }

    fn compare_query(&mut self) {
        let metric = self.names.metric();
        let mut filters = Vec::new();
        for name in ["env", "user", "host"] {
            if self.names.0.u8(..3) == 0 {
                filters.push((key(name), self.names.value(name)));
            }
        }
        let mut selector = Selector::new(metric.clone(), filters);
        // Some of them as lists, which may hold what nobody has.
        for (key, value) in std::mem::take(&mut selector.filters) {
            match self.names.0.usize(..4) {
                0 | 1 => selector.filters.push((key, value)),
                more => {
                    let values: BTreeSet<String> =
                        (0..4 * more).map(|_| self.names.value(key.as_str())).chain([value]).collect();
                    selector.filters_in.push((key, values.into_iter().collect()));
                }
            }
        }
        let first = self.names.0.i32(-3..6);
        let days =
            if self.names.0.bool() { i32::MIN..=i32::MAX } else { first..=first + self.names.0.i32(-1..4) };
        let matching = self.model.series.iter().filter(|(_, series)| {
            let meant = series.metric == metric && selector.matches(&series.dimensions);
            meant && series.days.iter().any(|day| days.contains(day))
        });
        let expected: Vec<u32> = matching.map(|(id, _)| *id).collect();
        match self.tenant.select(&selector, days) {
            Some(selected) => {
                assert_eq!(selected.ids, expected);
                assert_eq!(self.index.metric_name(selected.metric), Some((tenant(), metric)));
            }
            None => assert!(!self.model.series.values().any(|series| series.metric == metric)),
        }
        // Series of several metrics and in any order may be grouped and ranked as well.
        let mut ids: Vec<u32> = match self.names.0.bool() {
            true => expected,
            false => self.model.series.keys().copied().filter(|_| self.names.0.u8(..3) == 0).collect(),
        };
        if self.names.0.bool() {
            self.names.0.shuffle(&mut ids);
        }
        self.compare_groups(&ids);
        self.compare_ranks(&ids);
    }

    fn compare_groups(&mut self, ids: &[u32]) {
        let names = ["env", "user", "app", "nothing", "host"];
        let first = self.names.0.usize(..5);
        let keys: Vec<DimensionKey> =
            names[first..].iter().take(self.names.0.usize(..4)).map(|name| key(name)).collect();
        let grouping = self.tenant.group(ids, &keys);
        let group_of = |id: &u32| -> Vec<Option<Arc<str>>> {
            let dimensions = &self.model.series[id].dimensions;
            keys.iter().map(|key| dimensions.get(key.as_str()).cloned()).collect()
        };
        let expected: BTreeSet<_> = ids.iter().map(group_of).collect();
        let groups =
            (0..grouping.groups as u32).map(|group| self.tenant.group_key(&grouping, group).to_vec());
        let groups: Vec<_> = groups.collect();
        assert!(groups.iter().eq(&expected), "{groups:?} {expected:?}");
        for (id, group) in ids.iter().zip(&grouping.of) {
            assert_eq!(groups[*group as usize], group_of(id));
        }
    }

    fn compare_ranks(&self, ids: &[u32]) {
        let ranks = self.tenant.ranks(ids);
        let mut ordered = vec![None; ids.len()];
        for (id, rank) in ids.iter().zip(ranks) {
            assert_eq!(ordered[rank as usize].replace(*id), None, "a place is given once");
        }
        let dimensions: Vec<&Dimensions> =
            ordered.iter().map(|id| &self.model.series[&id.unwrap()].dimensions).collect();
        assert!(dimensions.is_sorted());
    }

    /// What a restart finds: definitions of tables (series sealed so far) or the log, and presence.
    fn restart(&mut self) {
        let known: Vec<u32> = self.model.series.keys().copied().collect();
        let mut blobs = std::mem::take(&mut self.blobs);
        if self.names.0.bool() {
            blobs = known.chunks(100).flat_map(|ids| self.index.definitions_of(ids)).collect();
        }
        let index = new_index();
        let mut loaded = BTreeSet::new();
        for blob in &blobs {
            let mut each = |id, metric| {
                assert_eq!(index.tenant_of(metric), Some(tenant()));
                loaded.insert(id);
            };
            index.load(blob, &|id| known.contains(&id), &mut each).unwrap();
        }
        assert!(loaded.iter().eq(&known));
        let mut ids = Vec::new();
        blobs.iter().for_each(|blob| index.ids_of(blob, &mut ids).unwrap());
        assert!(known.iter().all(|id| ids.contains(id)));
        self.tenant = index.tenant(&tenant());
        for day in -2..6 {
            let present = self.model.series.iter().filter(|(_, series)| series.days.contains(&day));
            let ids: Vec<u32> = present.map(|(id, _)| *id).collect();
            self.tenant.mark(day, &ids);
        }
        let next = self.index.next_numbers();
        index.raise_numbers(next.0, next.1);
        self.index = index;
        self.blobs = blobs;
    }
}

#[test]
fn it_answers_like_the_model_whatever_happens() {
    for seed in 0..12 {
        let mut pair = Pair::new(seed);
        for _ in 0..60 {
            match pair.names.0.u8(..12) {
                0..5 => pair.create(),
                5..8 => pair.mark(),
                8..10 => pair.remove(),
                10 => pair.compare(),
                _ => pair.restart(),
            }
        }
        pair.compare();
    }
}

#[test]
fn a_series_that_comes_back_has_a_new_number_and_the_old_spelling_is_forgotten() {
    let index = new_index();
    let tenant = index.tenant(&tenant());
    let new = [series("cpu", &[("host", "a")]), series("cpu", &[("host", "b")])];
    let resolve = || {
        let mut definitions = Definitions::default();
        let resolved = tenant.resolve(&new, &SeriesLimits::NONE, &mut definitions).unwrap();
        (resolved.into_iter().map(Result::unwrap).collect::<Vec<u32>>(), definitions.encode())
    };
    let (ids, first) = resolve();
    tenant.remember(&[(Spelling(1), ids[0]), (Spelling(2), ids[1])]);
    assert_eq!(tenant.find(Spelling(2)).map(|handle| handle.0), Some(ids[1]));
    tenant.mark(3, &ids[..1]);
    let metric_number = index.metric(&Tenant::new("acme").unwrap(), &metric("cpu")).unwrap();
    assert_eq!(tenant.delete_days(metric_number, i32::MAX), ids[..1], "what was never marked stays");
    assert!(tenant.find(Spelling(1)).is_none() && tenant.find(Spelling(2)).is_some());
    assert!(!index.is_alive(metric_number, ids[0]) && index.is_alive(metric_number, ids[1]));
    tenant.remember(&[(Spelling(1), ids[0])]);
    assert!(tenant.find(Spelling(1)).is_none(), "a series that is gone isn't remembered");
    let (again, second) = resolve();
    assert!(again[0] > ids[1] && again[1] == ids[1]);
    // A log holds both: the second replaces the first, in either order.
    for blobs in [[&first, &second], [&second, &first]] {
        let other = new_index();
        for blob in &blobs {
            other.load(blob, &|_| true, &mut |_, _| {}).unwrap();
        }
        let loaded = other.tenant(&Tenant::new("acme").unwrap());
        assert_eq!((loaded.alive(ids[0]), loaded.alive(again[0]), loaded.alive(ids[1])), (false, true, true));
        assert!(other.next_numbers().0 > again[0]);
    }
}

#[test]
fn tenants_see_nothing_of_each_other() {
    let index = new_index();
    let names = ["a", "aa", "a-a"].map(|name| Tenant::new(name).unwrap());
    let mut seen = BTreeSet::new();
    for name in &names {
        let mut definitions = Definitions::default();
        let resolved =
            index.tenant(name).resolve(&[series("m", &[("k", "v")])], &SeriesLimits::NONE, &mut definitions);
        let id = resolved.unwrap()[0].unwrap();
        assert!(seen.insert(id));
        assert!(seen.insert(index.metric(name, &metric("m")).unwrap() + 1_000_000));
        index.tenant(name).remember(&[(Spelling(7), id)]);
        assert_eq!(index.tenant(name).find(Spelling(7)).unwrap().0, id);
    }
    assert_eq!(index.tenants().len(), 3);
    assert_eq!(index.definitions_of(&(0..10).collect::<Vec<_>>()).len(), 3);
    assert!(index.find_tenant(&Tenant::new("b").unwrap()).is_none());
}

#[test]
fn a_full_memory_stops_creation_and_nothing_else() {
    let full = Index::new(IndexOptions { secret: [1; 192], max_spellings: 10, memory_budget: 60_000 });
    let tenant = full.tenant(&tenant());
    let mut created = 0;
    loop {
        let new: Vec<NewSeries> =
            (0..100).map(|n| series("m", &[("id", &format!("value-{}", created + n))])).collect();
        let resolved = tenant.resolve(&new, &SeriesLimits::NONE, &mut Definitions::default()).unwrap();
        if resolved[0].is_err() {
            assert_eq!(resolved, [Err(Refusal::MemoryLimit); 100]);
            break;
        }
        created += resolved.len();
    }
    assert!(created >= 100, "{created}");
    let mixed = [series("m", &[("id", "value-5")]), series("m", &[("id", "never seen")])];
    let mut definitions = Definitions::default();
    let resolved = tenant.resolve(&mixed, &SeriesLimits::NONE, &mut definitions).unwrap();
    assert!(resolved[0].is_ok() && resolved[1] == Err(Refusal::MemoryLimit));
    assert!(definitions.encode().is_empty());
}

#[test]
fn broken_definitions_are_errors_and_never_panic() {
    let source = new_index();
    let new: Vec<NewSeries> =
        (0..40).map(|n| series("m", &[("a", "x"), ("b", &format!("v{}", n % 7))])).collect();
    let mut definitions = Definitions::default();
    source.tenant(&tenant()).resolve(&new, &SeriesLimits::NONE, &mut definitions).unwrap();
    let blob = definitions.encode();
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..3_000 {
        let mut noise = blob.clone();
        for _ in 0..random.usize(1..3) {
            let at = random.usize(..noise.len());
            noise[at] = random.u8(..);
        }
        let index = new_index();
        if index.load(&noise, &|_| true, &mut |_, _| {}).is_ok() {
            assert!(index.tenants().len() <= 1);
        }
    }
}

#[test]
fn the_account_of_memory_grows_and_shrinks_with_the_series() {
    let index = new_index();
    let tenant = index.tenant(&tenant());
    let empty = index.memory();
    for part in 0..10 {
        let new: Vec<NewSeries> = (0..2_000)
            .map(|n| series("m", &[("id", &format!("value-{}", part * 2_000 + n)), ("env", "prod")]))
            .collect();
        let resolved = tenant.resolve(&new, &SeriesLimits::NONE, &mut Definitions::default()).unwrap();
        let ids: Vec<u32> = resolved.into_iter().map(Result::unwrap).collect();
        tenant.mark(1, &ids);
    }
    let full = index.memory();
    let each = (full - empty) / 20_000;
    assert!((50..150).contains(&each), "{each} bytes a series of two dimensions");
    let page = tenant.list_values(&metric("m"), &key("id"), &list("value-1", None, 3));
    assert_eq!((page.total, page.more), (11_111, true));
    assert!(index.memory() > full, "a listing's order counts");
    let kept: Vec<u32> = (0..20_000).step_by(9).collect();
    tenant.mark(2, &kept);
    assert_eq!(tenant.expire(&|_| 2).len(), 20_000 - kept.len());
    let page = tenant.list_values(&metric("m"), &key("id"), &list("value-", None, 9_000));
    assert_eq!((page.names.len(), page.total), (kept.len(), kept.len() as u64));
    let env = Selector::new(metric("m"), vec![(key("env"), "prod".to_owned())]);
    assert_eq!(tenant.select(&env, 0..=9).unwrap().ids, kept);
    for (id, dimensions) in kept.iter().zip(tenant.dimensions(&kept)) {
        assert_eq!(dimensions.get("id").unwrap().as_ref(), format!("value-{id}"));
    }
    // What is left keeps its places, so not all that the others held comes back before it goes too.
    let part = index.memory();
    assert!(part < empty + (full - empty) / 4 * 3, "{part} {full} {empty}");
    assert_eq!(tenant.expire(&|_| 3).len(), kept.len());
    let none = index.memory();
    assert!(none < empty + (full - empty) / 3, "{none} {full} {empty}");
}

#[test]
fn threads_that_create_mark_remove_and_ask_leave_it_whole() {
    let index = Arc::new(new_index());
    let tenant = index.tenant(&tenant());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let running = || !stop.load(std::sync::atomic::Ordering::Relaxed);
    let of = |n: u32| series("m", &[("id", &format!("value-{n}")), ("env", ["dev", "prod"][n as usize % 2])]);
    let given = std::thread::scope(|scope| {
        let writers = [0, 1].map(|seed| {
            let tenant = &tenant;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut given = Vec::new();
                for round in 0..150 {
                    let new: Vec<NewSeries> = (0..40).map(|_| of(random.u32(..3_000))).collect();
                    let mut definitions = Definitions::default();
                    let ids = tenant.resolve(&new, &SeriesLimits::NONE, &mut definitions).unwrap();
                    let mut ids: Vec<u32> = ids.into_iter().map(Result::unwrap).collect();
                    given.extend(definitions.created().map(|(id, _)| id));
                    let spelled =
                        ids.iter().map(|id| (Spelling(u128::from(*id) << 40), *id)).collect::<Vec<_>>();
                    tenant.remember(&spelled);
                    ids.sort_unstable();
                    ids.dedup();
                    tenant.mark(round / 50, &ids);
                }
                given
            })
        });
        scope.spawn(|| {
            while running() {
                tenant.expire(&|_| 1);
            }
        });
        scope.spawn(|| {
            let selector = Selector::new(metric("m"), vec![(key("env"), "dev".to_owned())]);
            while running() {
                let ids =
                    tenant.select(&selector, i32::MIN..=i32::MAX).map_or_else(Vec::new, |found| found.ids);
                let grouping = tenant.group(&ids, &[key("env"), key("id")]);
                assert!(grouping.groups <= ids.len());
                assert_eq!(tenant.ranks(&ids).iter().collect::<BTreeSet<_>>().len(), ids.len());
                let page = tenant.list_values(&metric("m"), &key("id"), &list("value-1", None, 2_000));
                assert!(page.names.is_sorted() && page.total >= page.names.len() as u64);
            }
        });
        let given: Vec<Vec<u32>> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        given.concat()
    });
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "no number is given twice");
    tenant.expire(&|_| 1);
    let mut identities = BTreeSet::new();
    for (id, dimensions) in given.iter().copied().zip(tenant.dimensions(&given)) {
        let found = tenant.find(Spelling(u128::from(id) << 40));
        assert!(found.is_none() || tenant.alive(id), "no spelling of a series that is gone");
        assert_eq!(dimensions.is_empty(), !tenant.alive(id));
        assert!(dimensions.is_empty() || identities.insert(dimensions), "a series has one number");
    }
    let total = identities.len() as u64;
    let all = tenant.list_values(&metric("m"), &key("id"), &list("", None, 1));
    assert_eq!((tenant.usage(), all.total), ((1, total), total));
}
