//! Listings of names, and the table of cardinality.
//!
//! A page is cut out of the order of a column's values, which is kept once it was asked for; only values
//! of present series count. Orders are brought up to date without holding the lock.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::model::{DimensionKey, MetricName};
use crate::store::{
    CardinalityCursor, CardinalityPage, CardinalityQuery, CardinalityRow, ListPage, ListQuery,
};

use super::column::Column;
use super::core::{Core, Metric};
use super::tenant::TenantIndex;
use super::texts::Chunks;

impl TenantIndex {
    /// Metrics with a series present.
    #[must_use]
    pub fn list_metrics(&self, query: &ListQuery) -> ListPage {
        let core = self.core.read();
        let present = core.presence.present();
        let metrics = core.metrics.iter().filter(|metric| !metric.series.is_disjoint(present));
        page_of(metrics.map(|metric| metric.name.as_str()).collect(), query)
    }

    /// Keys of a metric's present series.
    #[must_use]
    pub fn list_keys(&self, metric: &MetricName, query: &ListQuery) -> ListPage {
        let core = self.core.read();
        let Some(metric) = core.metric(metric) else { return ListPage::default() };
        let hidden = core.presence.hidden();
        let columns = metric.columns.iter().filter(|column| column.any_present(hidden));
        page_of(columns.map(|column| column.key().as_str()).collect(), query)
    }

    /// Values of `key` over a metric's present series.
    #[must_use]
    pub fn list_values(&self, metric: &MetricName, key: &DimensionKey, query: &ListQuery) -> ListPage {
        self.prepare(metric, |column| column.key() == key);
        let core = self.core.read();
        let Some(metric) = core.metric(metric) else { return ListPage::default() };
        let Some(column) = metric.column(key.as_str()) else { return ListPage::default() };
        let values = Values::of(&core, metric, column);
        let matching = values.with_prefix(&query.prefix);
        let first = query.after.as_ref().map_or(matching.start, |after| values.first_after(after));
        let mut names = values.present(first.max(matching.start)..matching.end);
        let page = names.by_ref().take(query.limit).map(Arc::from).collect();
        ListPage { names: page, more: names.next().is_some(), total: values.count(matching, &query.prefix) }
    }

    /// Present series per metric, or per key and value of one metric.
    #[must_use]
    pub fn cardinality(&self, query: &CardinalityQuery) -> CardinalityPage {
        match &query.metric {
            None => self.cardinality_of_metrics(query),
            Some(metric) => self.cardinality_of_values(metric, query),
        }
    }

    fn cardinality_of_metrics(&self, query: &CardinalityQuery) -> CardinalityPage {
        let core = self.core.read();
        let present = core.presence.present();
        let mut rows: Vec<(u64, &str)> = core
            .metrics
            .iter()
            .filter(|metric| metric.name.as_str().starts_with(&query.prefix))
            .map(|metric| (metric.series.intersection_len(present), metric.name.as_str()))
            .filter(|(series, name)| *series > 0 && is_after(*series, (name, None), query.after.as_ref()))
            .collect();
        rows.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
        let row = |(series, name): &(u64, &str)| CardinalityRow {
            series: *series,
            name: Arc::from(*name),
            value: None,
        };
        CardinalityPage {
            rows: rows.iter().take(query.limit).map(row).collect(),
            more: rows.len() > query.limit,
        }
    }

    fn cardinality_of_values(&self, metric: &MetricName, query: &CardinalityQuery) -> CardinalityPage {
        self.prepare(metric, |column| column.key().as_str().starts_with(&query.prefix));
        let core = self.core.read();
        let Some(metric) = core.metric(metric) else { return CardinalityPage::default() };
        let mut columns: Vec<&Column> =
            metric.columns.iter().filter(|column| column.key().as_str().starts_with(&query.prefix)).collect();
        columns.sort_unstable_by_key(|column| column.key());
        let table = CountTable::new(&core, columns);
        let mut rows = table.rows(query.after.as_ref());
        let more = rows.len() > query.limit;
        if more && query.limit > 0 {
            rows.select_nth_unstable(query.limit - 1);
        }
        rows.truncate(query.limit);
        rows.sort_unstable();
        CardinalityPage { rows: rows.into_iter().map(|row| table.row(row)).collect(), more }
    }

    /// Sorts the values of columns that were asked for, as far as it takes long.
    fn prepare(&self, metric: &MetricName, wanted: impl Fn(&Column) -> bool) {
        let sortings: Vec<_> = {
            let core = self.core.read();
            let Some(metric) = core.metric(metric) else { return };
            let wanted = metric.columns.iter().filter(|column| wanted(column));
            let sortings = wanted
                .filter_map(|column| Some((column.key().clone(), column.sorting(core.texts.chunks())?)));
            sortings.collect()
        };
        for (key, sorting) in sortings {
            let order = sorting.run();
            let core = self.core.read();
            if let Some(column) = core.metric(metric).and_then(|metric| metric.column(key.as_str())) {
                column.adopt(&sorting, order);
            }
        }
    }
}

/// A page of `names`, which are distinct and in any order.
fn page_of(mut names: Vec<&str>, query: &ListQuery) -> ListPage {
    names.retain(|name| name.starts_with(&query.prefix));
    names.sort_unstable();
    let first = query.after.as_ref().map_or(0, |after| names.partition_point(|name| *name <= after.as_str()));
    let page = names[first..].iter().take(query.limit).map(|name| Arc::from(*name)).collect();
    ListPage { names: page, more: names.len() - first > query.limit, total: names.len() as u64 }
}

/// The values of a column in their order, and which of them have no present series.
struct Values<'a> {
    column: &'a Column,
    texts: &'a Chunks,
    order: Arc<Vec<u32>>,
    absent: HashSet<u32>,
}

impl<'a> Values<'a> {
    fn of(core: &'a Core, metric: &Metric, column: &'a Column) -> Self {
        let texts = core.texts.chunks();
        Self { column, texts, order: column.order(texts), absent: absent_values(core, metric, column) }
    }

    fn text(&self, ordinal: u32) -> &'a str {
        self.texts.get(self.column.text(ordinal))
    }

    fn with_prefix(&self, prefix: &str) -> Range<usize> {
        let start = self.order.partition_point(|ordinal| self.text(*ordinal) < prefix);
        let rest = &self.order[start..];
        start..start + rest.partition_point(|ordinal| self.text(*ordinal).starts_with(prefix))
    }

    fn first_after(&self, name: &str) -> usize {
        self.order.partition_point(|ordinal| self.text(*ordinal) <= name)
    }

    fn present(&self, range: Range<usize>) -> impl Iterator<Item = &'a str> {
        let ordinals = self.order.get(range).unwrap_or(&[]).iter();
        ordinals.filter(|ordinal| !self.absent.contains(*ordinal)).map(|ordinal| self.text(*ordinal))
    }

    /// How many values in the range of a prefix are present.
    fn count(&self, matching: Range<usize>, prefix: &str) -> u64 {
        let absent = self.absent.iter().filter(|ordinal| self.text(**ordinal).starts_with(prefix));
        (matching.len() - absent.count()) as u64
    }
}

/// Ordinals of values none of whose series is present: found from the series that aren't, few as a rule.
fn absent_values(core: &Core, metric: &Metric, column: &Column) -> HashSet<u32> {
    let hidden = core.presence.hidden();
    let mut seen = HashSet::new();
    for id in hidden {
        let Some((_, shape, mut row)) = core.row(id) else { continue };
        if core.metrics[shape.metric as usize].number != metric.number {
            continue;
        }
        let place =
            shape.columns.iter().position(|number| std::ptr::eq(&metric.columns[*number as usize], column));
        if let Some(place) = place {
            seen.insert(row.nth(place));
        }
    }
    seen.retain(|ordinal| column.count(*ordinal, hidden) == 0);
    seen
}

/// Counts of keys and values, as numbers that sort like the rows: 32 bits of how few series there are,
/// 32 bits of the row's place by name and value.
struct CountTable<'a> {
    core: &'a Core,
    columns: Vec<(&'a Column, Arc<Vec<u32>>)>,
    /// Place of each column's own row; its values follow.
    starts: Vec<u32>,
}

impl<'a> CountTable<'a> {
    fn new(core: &'a Core, columns: Vec<&'a Column>) -> Self {
        let order = |column: &'a Column| (column, column.order(core.texts.chunks()));
        let columns: Vec<_> = columns.into_iter().map(order).collect();
        let mut starts = Vec::with_capacity(columns.len());
        let mut place = 0;
        for (_, order) in &columns {
            starts.push(place);
            place += order.len() as u32 + 1;
        }
        Self { core, columns, starts }
    }

    /// All rows behind `after`, in no order.
    fn rows(&self, after: Option<&CardinalityCursor>) -> Vec<u64> {
        let hidden = self.core.presence.hidden();
        let first = after.map_or(0, |after| sortable(after.series, self.first_after(after)));
        let mut rows = Vec::new();
        for ((column, order), start) in self.columns.iter().zip(&self.starts) {
            let mut all = 0;
            for (place, ordinal) in (start + 1..).zip(order.iter()) {
                let series = column.count(*ordinal, hidden);
                all += series;
                if series > 0 {
                    rows.push(sortable(series, place));
                }
            }
            if all > 0 {
                rows.push(sortable(all, *start));
            }
        }
        rows.retain(|row| *row >= first);
        rows
    }

    /// The place of the first row whose name and value come after the cursor's.
    fn first_after(&self, cursor: &CardinalityCursor) -> u32 {
        let mut place = 0;
        for ((column, order), start) in self.columns.iter().zip(&self.starts) {
            place = match (column.key().as_str().cmp(&cursor.name), &cursor.value) {
                (std::cmp::Ordering::Less, _) => start + 1 + order.len() as u32,
                (std::cmp::Ordering::Equal, None) => start + 1,
                (std::cmp::Ordering::Equal, Some(value)) => {
                    let text = |ordinal: &u32| self.core.texts.get(column.text(*ordinal));
                    start + 1 + order.partition_point(|ordinal| text(ordinal) <= value.as_str()) as u32
                }
                (std::cmp::Ordering::Greater, _) => return place,
            };
        }
        place
    }

    fn row(&self, row: u64) -> CardinalityRow {
        let place = row as u32;
        let at = self.starts.partition_point(|start| *start <= place) - 1;
        let (column, order) = &self.columns[at];
        let within = (place - self.starts[at]) as usize;
        let value = within.checked_sub(1).map(|at| Arc::from(self.core.texts.get(column.text(order[at]))));
        CardinalityRow {
            series: u64::from(u32::MAX - (row >> 32) as u32),
            name: Arc::from(column.key().as_str()),
            value,
        }
    }
}

fn sortable(series: u64, place: u32) -> u64 {
    let series = u32::try_from(series).unwrap_or(u32::MAX);
    u64::from(u32::MAX - series) << 32 | u64::from(place)
}

/// Whether a row comes after the cursor's: fewer series, or as many and a later name.
fn is_after(series: u64, name: (&str, Option<&str>), after: Option<&CardinalityCursor>) -> bool {
    after.is_none_or(|after| {
        series < after.series
            || series == after.series && name > (after.name.as_str(), after.value.as_deref())
    })
}
