//! What a tenant's lock guards: dictionaries, series, postings, presence; all in one piece.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_secret;

use crate::model::{DimensionKey, MetricName};

use super::column::Column;
use super::identity::{Identities, Identity, put};
use super::posting::bitmap_bytes;
use super::presence::Presence;
use super::rows::{Row, Rows};
use super::texts::Texts;
use super::varint;

/// Texts are swept when at least this many values were removed, and more than a quarter of all.
const SWEEP: usize = 4_096;

/// A metric: its series and columns.
#[derive(Debug)]
pub struct Metric {
    /// Its number, the same throughout the engine.
    pub number: u32,
    /// Its name.
    pub name: MetricName,
    /// Its series that can be found, marked or not.
    pub series: RoaringBitmap,
    /// How many these are.
    pub count: u64,
    /// A column for each key that it ever had.
    pub columns: Vec<Column>,
    /// The shape of its last new series: the next often has the same.
    shape: u32,
    column_of: HashMap<DimensionKey, u32>,
}

impl Metric {
    /// The column of `key`.
    #[must_use]
    pub fn column(&self, key: &str) -> Option<&Column> {
        // Few keys: cheaper than a name to look up with.
        self.columns.iter().find(|column| column.key().as_str() == key)
    }

    fn column_number(&mut self, key: &DimensionKey) -> u32 {
        if let Some(number) = self.column_of.get(key) {
            return *number;
        }
        let number = self.columns.len() as u32;
        self.columns.push(Column::new(key.clone()));
        self.column_of.insert(key.clone(), number);
        number
    }
}

/// A metric with a set of keys: what all series of that kind share.
#[derive(Debug)]
pub struct Shape {
    /// The metric, by its place in [`Core::metrics`].
    pub metric: u32,
    /// Its columns, in the order of their keys.
    pub columns: Box<[u32]>,
    hash: u64,
}

/// A tenant's series.
#[derive(Debug)]
pub struct Core {
    /// The values.
    pub texts: Texts,
    /// Metrics by place; one stays when its last series is gone.
    pub metrics: Vec<Metric>,
    metric_of_name: HashMap<MetricName, u32>,
    metric_of_number: HashMap<u32, u32>,
    /// Shapes by number, never removed.
    pub shapes: Vec<Shape>,
    shape_of_hash: HashTable<u32>,
    rows: Rows,
    identities: Identities,
    /// Series that can be found.
    known: RoaringBitmap,
    /// Who is present when.
    pub presence: Presence,
    /// Series numbers set aside for this tenant, so that neighbours in time are neighbours in bitmaps.
    pub spare: Range<u32>,
    removed_values: usize,
    columns: usize,
    column_bytes: usize,
    bitmaps: BitmapBytes,
    row: Vec<u8>,
    secret: Arc<[u8; 192]>,
}

/// The size of all bitmaps but postings, measured when it may have changed much.
#[derive(Debug, Default)]
struct BitmapBytes {
    bytes: usize,
    at: (u64, usize),
}

impl Core {
    /// A tenant without series.
    #[must_use]
    pub fn new(secret: Arc<[u8; 192]>) -> Self {
        Self {
            texts: Texts::new(secret.clone()),
            metrics: Vec::new(),
            metric_of_name: HashMap::new(),
            metric_of_number: HashMap::new(),
            shapes: Vec::new(),
            shape_of_hash: HashTable::new(),
            rows: Rows::default(),
            identities: Identities::default(),
            known: RoaringBitmap::new(),
            presence: Presence::default(),
            spare: 0..0,
            removed_values: 0,
            columns: 0,
            column_bytes: 0,
            bitmaps: BitmapBytes::default(),
            row: Vec::new(),
            secret,
        }
    }

    /// The series that can be found.
    #[must_use]
    pub fn known(&self) -> &RoaringBitmap {
        &self.known
    }

    /// The series with this identity.
    #[must_use]
    pub fn find(&self, identity: Identity) -> Option<u32> {
        self.identities.find(identity).filter(|id| self.known.contains(*id))
    }

    /// The place of a metric.
    #[must_use]
    pub fn metric_place(&self, name: &MetricName) -> Option<usize> {
        self.metric_of_name.get(name).map(|place| *place as usize)
    }

    /// A metric, while it has a series that can be found.
    #[must_use]
    pub fn metric(&self, name: &MetricName) -> Option<&Metric> {
        self.metric_place(name).map(|place| &self.metrics[place]).filter(|metric| metric.count > 0)
    }

    /// The place of the metric with this number.
    #[must_use]
    pub fn metric_by_number(&self, number: u32) -> Option<usize> {
        self.metric_of_number.get(&number).map(|place| *place as usize)
    }

    /// Metrics with a series that can be found.
    #[must_use]
    pub fn metric_count(&self) -> u64 {
        self.metrics.iter().filter(|metric| metric.count > 0).count() as u64
    }

    /// Adds a metric, whose name and number must be new; returns its place.
    pub fn add_metric(&mut self, name: MetricName, number: u32) -> usize {
        let place = self.metrics.len();
        self.metric_of_name.insert(name.clone(), place as u32);
        self.metric_of_number.insert(number, place as u32);
        self.metrics.push(Metric {
            number,
            name,
            series: RoaringBitmap::new(),
            count: 0,
            columns: Vec::new(),
            shape: u32::MAX,
            column_of: HashMap::new(),
        });
        place
    }

    /// The number of the shape of a metric (by place) with the keys that `keys` goes through, ascending;
    /// new if it must be.
    pub fn shape<'a, I>(&mut self, metric: usize, keys: impl Fn() -> I) -> u32
    where
        I: Iterator<Item = &'a DimensionKey>,
    {
        let Metric { columns, shape: likely, .. } = &self.metrics[metric];
        let likely = *likely;
        let same = |shape: &Shape| {
            let own = shape.columns.iter().map(|column| columns[*column as usize].key());
            shape.metric as usize == metric && own.eq(keys())
        };
        if self.shapes.get(likely as usize).is_some_and(same) {
            return likely;
        }
        self.row.clear();
        self.row.extend_from_slice(&(metric as u32).to_le_bytes());
        keys().for_each(|key| put(&mut self.row, key.as_str()));
        let hash = xxh3_64_with_secret(&self.row, self.secret.as_slice());
        if let Some(found) = self.shape_of_hash.find(hash, |number| same(&self.shapes[*number as usize])) {
            let found = *found;
            self.metrics[metric].shape = found;
            return found;
        }
        let metric_of = &mut self.metrics[metric];
        let before = metric_of.columns.len();
        let columns = keys().map(|key| metric_of.column_number(key)).collect();
        self.columns += metric_of.columns.len() - before;
        let number = self.shapes.len() as u32;
        metric_of.shape = number;
        self.shapes.push(Shape { metric: metric as u32, columns, hash });
        let shapes = &self.shapes;
        self.shape_of_hash.insert_unique(hash, number, |number| shapes[*number as usize].hash);
        number
    }

    /// The numbers of `values`' texts; `numbers` holds likely ones and is replaced.
    pub fn intern<'a>(&mut self, values: impl Iterator<Item = &'a str>, numbers: &mut Vec<u32>) {
        let mut count = 0;
        for text in values {
            match numbers.get_mut(count) {
                Some(likely) if self.texts.get(*likely) == text && !text.is_empty() => {}
                Some(other) => *other = self.texts.intern(text),
                None => numbers.push(self.texts.intern(text)),
            }
            count += 1;
        }
        numbers.truncate(count);
    }

    /// Adds series `id`, which must be new, with the texts of its values in the order of its shape.
    pub fn insert(&mut self, id: u32, identity: Identity, shape: u32, values: &[u32]) {
        let Shape { metric, columns, .. } = &self.shapes[shape as usize];
        let metric = &mut self.metrics[*metric as usize];
        self.row.clear();
        varint::put(&mut self.row, shape);
        for (column, text) in columns.iter().zip(values) {
            let column = &mut metric.columns[*column as usize];
            let before = column.bytes();
            varint::put(&mut self.row, column.add(*text, id));
            self.column_bytes = (self.column_bytes + column.bytes()).saturating_sub(before);
        }
        self.rows.push(id, &self.row);
        metric.series.insert(id);
        self.known.insert(id);
        metric.count += 1;
        self.presence.create(id);
        self.identities.set(identity, id);
    }

    /// The row of a series, behind its shape.
    #[must_use]
    pub fn row(&self, id: u32) -> Option<(u32, &Shape, Row<'_>)> {
        let mut row = self.rows.get(id)?;
        let number = row.next();
        Some((number, self.shapes.get(number as usize)?, row))
    }

    /// The texts of a series' values, in the order of its shape.
    pub fn values<'a>(
        &'a self,
        shape: &'a Shape,
        mut row: Row<'a>,
    ) -> impl ExactSizeIterator<Item = u32> + 'a {
        let metric = &self.metrics[shape.metric as usize];
        shape.columns.iter().map(move |column| metric.columns[*column as usize].text(row.next()))
    }

    /// The keys of a shape, ascending.
    pub fn keys<'a>(
        &'a self,
        shape: &'a Shape,
    ) -> impl ExactSizeIterator<Item = &'a DimensionKey> + Clone + 'a {
        let metric = &self.metrics[shape.metric as usize];
        shape.columns.iter().map(|column| metric.columns[*column as usize].key())
    }

    /// Takes series off days: of each metric those before the day that `first_kept` names. Returns
    /// those left without a day, which can't be found any more; [`Core::erase`] removes what they hold.
    pub fn take_off(&mut self, first_kept: impl Fn(&Metric) -> i32) -> RoaringBitmap {
        let kept: Vec<(i32, &RoaringBitmap)> = self
            .metrics
            .iter()
            .filter(|metric| metric.count > 0)
            .map(|metric| (first_kept(metric), &metric.series))
            .collect();
        let gone = self.presence.take_off(|day, present| {
            let lost = kept.iter().filter(|(first, _)| day < *first);
            if kept.iter().all(|(first, _)| day < *first) {
                return present.clone();
            }
            lost.fold(RoaringBitmap::new(), |all, (_, series)| all | (*series & present))
        });
        if !gone.is_empty() {
            self.hide(&gone);
        }
        gone
    }

    /// Removes `ids` altogether.
    pub fn withdraw(&mut self, ids: &RoaringBitmap) {
        self.presence.take_off(|_, present| present & ids);
        self.hide(ids);
        self.erase(ids);
    }

    fn hide(&mut self, gone: &RoaringBitmap) {
        self.known -= gone;
        for metric in &mut self.metrics {
            if !metric.series.is_disjoint(gone) {
                metric.series -= gone;
                metric.count = metric.series.len();
            }
        }
    }

    /// Removes rows and postings of series that can't be found any more.
    pub fn erase(&mut self, gone: &RoaringBitmap) {
        let mut touched = Vec::new();
        for id in gone {
            let Some(mut row) = self.rows.get(id) else { continue };
            let shape = &self.shapes[row.next() as usize];
            touched.extend(shape.columns.iter().map(|column| (shape.metric, *column, row.next())));
            let columns = shape.columns.len();
            self.rows.remove(id, columns);
        }
        touched.sort_unstable();
        touched.dedup();
        for (metric, column, ordinal) in touched {
            let column = &mut self.metrics[metric as usize].columns[column as usize];
            let before = (column.bytes(), column.len());
            column.remove(ordinal, gone);
            self.column_bytes = (self.column_bytes + column.bytes()).saturating_sub(before.0);
            self.removed_values += before.1 - column.len();
        }
        self.presence.forget(gone);
    }

    /// Forgets identities of series that can't be found, in one of several tables; whether there are more.
    pub fn sweep_identities(&mut self, table: usize) -> bool {
        self.identities.retain(table, |id| self.known.contains(id))
    }

    /// Packs anew what removals have left sparse.
    pub fn tidy(&mut self) {
        if self.removed_values > SWEEP && self.removed_values > self.texts.len() / 4 {
            let columns = self.metrics.iter().flat_map(|metric| &metric.columns);
            let mut texts: Vec<u32> = columns.flat_map(Column::texts).collect();
            texts.sort_unstable();
            let used: RoaringBitmap = texts.into_iter().collect();
            self.texts.sweep(&used);
            self.removed_values = 0;
        }
        if self.rows.is_sparse() {
            let shapes = &self.shapes;
            self.rows.pack(|shape| shapes.get(shape as usize).map_or(0, |shape| shape.columns.len()));
        }
    }

    /// Whether `count` more series fit the rows' addresses and the dictionary's numbers.
    #[must_use]
    pub fn has_room(&self, count: usize, columns: usize) -> bool {
        let texts = count.saturating_mul(columns);
        self.rows.has_room(count, columns) && self.texts.has_room(texts)
    }

    /// Bytes on the heap, about; cheap enough to ask after every change.
    pub fn bytes(&mut self) -> usize {
        let now = (self.known.len(), self.presence.day_count());
        let (known, days) = self.bitmaps.at;
        if days != now.1 || known.abs_diff(now.0) > known / 32 {
            let metrics: usize = self.metrics.iter().map(|metric| bitmap_bytes(&metric.series)).sum();
            let bytes = metrics + bitmap_bytes(&self.known) + self.presence.bytes();
            self.bitmaps = BitmapBytes { bytes, at: now };
        }
        let metrics = self.metrics.capacity() * (size_of::<Metric>() + 128);
        let columns = self.columns * (size_of::<Column>() + 96);
        let shapes = self.shapes.capacity() * (size_of::<Shape>() + 64);
        self.texts.bytes()
            + self.rows.bytes()
            + self.column_bytes
            + self.bitmaps.bytes
            + self.identities.bytes()
            + metrics
            + columns
            + shapes
    }
}
