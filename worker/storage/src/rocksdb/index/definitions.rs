//! Definitions: which series there are, as bytes for the log and the tables.
//!
//! # Format
//! A version byte (1), then sections until the end. A section is one tenant's:
//! - tenant: text
//! - texts: count, then each text
//! - shapes: count, then each: metric number, metric name (text), count of keys, each key (text),
//!   ascending
//! - series: count, then each: number (zigzag difference to the one before, the first to 0), shape (its
//!   place in the section), and for each key of the shape its value (its place among the texts)
//!
//! A text is its length in bytes and its bytes in UTF-8; all numbers are varints of at most five bytes.

use hashbrown::HashMap;

use crate::model::{DimensionKey, MetricName, Tenant};
use crate::store::{Result, StoreError};

use super::varint;

/// The first byte of a blob; never reused for another format.
const VERSION: u8 = 1;

/// Series that were created, on their way into the log.
#[derive(Debug, Default)]
pub struct Definitions {
    sections: Vec<Section>,
    created: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Section {
    tenant: Tenant,
    texts: Table,
    shapes: Table,
    series: Part,
    last: u32,
}

/// A part of a section: how many entries, and their bytes.
#[derive(Debug, Default)]
struct Part {
    count: u32,
    bytes: Vec<u8>,
}

/// A part whose entries are named by the dictionary's numbers.
#[derive(Debug, Default)]
struct Table {
    places: HashMap<u32, u32>,
    part: Part,
}

/// The metric and keys that a series has, with the number that its tenant's index gave them.
#[derive(Debug, Clone, Copy)]
pub struct ShapeOf<'a> {
    /// Its number in the index.
    pub number: u32,
    /// The metric's number.
    pub metric: u32,
    /// The metric's name.
    pub name: &'a MetricName,
}

impl Definitions {
    /// The series created, each with its metric's number.
    pub fn created(&self) -> impl Iterator<Item = (u32, u32)> {
        self.created.iter().copied()
    }

    /// Whether none was created.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.created.is_empty()
    }

    /// Adds a series: its shape with the shape's `keys`, and its `values` with their numbers.
    pub(super) fn add<'a>(
        &mut self,
        tenant: &Tenant,
        id: u32,
        shape: ShapeOf<'_>,
        keys: impl ExactSizeIterator<Item = &'a DimensionKey>,
        values: impl Iterator<Item = (u32, &'a str)>,
    ) {
        self.created.push((id, shape.metric));
        if self.sections.last().is_none_or(|section| section.tenant != *tenant) {
            self.sections.push(Section::new(tenant.clone()));
        }
        if let Some(section) = self.sections.last_mut() {
            section.add(id, shape, keys, values);
        }
    }

    /// The blob; empty when no series was created.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut blob = Vec::with_capacity(1 + self.sections.iter().map(Section::size).sum::<usize>());
        blob.push(VERSION);
        for section in &self.sections {
            put_text(&mut blob, section.tenant.as_str());
            for part in [&section.texts.part, &section.shapes.part, &section.series] {
                varint::put(&mut blob, part.count);
                blob.extend_from_slice(&part.bytes);
            }
        }
        blob
    }
}

impl Section {
    fn new(tenant: Tenant) -> Self {
        Self { tenant, texts: Table::default(), shapes: Table::default(), series: Part::default(), last: 0 }
    }

    fn size(&self) -> usize {
        let parts = [&self.texts.part, &self.shapes.part, &self.series];
        parts.map(|part| part.bytes.len() + 5).iter().sum::<usize>() + self.tenant.as_str().len() + 5
    }

    fn add<'a>(
        &mut self,
        id: u32,
        shape: ShapeOf<'_>,
        keys: impl ExactSizeIterator<Item = &'a DimensionKey>,
        values: impl Iterator<Item = (u32, &'a str)>,
    ) {
        let step = id.wrapping_sub(self.last).cast_signed();
        varint::put(&mut self.series.bytes, ((step << 1) ^ (step >> 31)).cast_unsigned());
        self.last = id;
        let place = self.shapes.place(shape.number, |bytes| {
            varint::put(bytes, shape.metric);
            put_text(bytes, shape.name.as_str());
            varint::put(bytes, keys.len() as u32);
            keys.for_each(|key| put_text(bytes, key.as_str()));
        });
        varint::put(&mut self.series.bytes, place);
        for (number, text) in values {
            let place = self.texts.place(number, |bytes| put_text(bytes, text));
            varint::put(&mut self.series.bytes, place);
        }
        self.series.count += 1;
    }
}

impl Table {
    fn place(&mut self, number: u32, put: impl FnOnce(&mut Vec<u8>)) -> u32 {
        *self.places.entry(number).or_insert_with(|| {
            put(&mut self.part.bytes);
            self.part.count += 1;
            self.part.count - 1
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

/// One tenant's part of a blob.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    /// Whose.
    pub tenant: Tenant,
    /// Values, named by their place.
    pub texts: Vec<&'a str>,
    /// Metrics with keys, named by their place.
    pub shapes: Vec<StoredShape>,
    /// The series.
    pub series: Vec<StoredSeries>,
    /// Values of all series, as places among `texts`.
    pub values: Vec<u32>,
}

/// A metric and its keys, ascending.
#[derive(Debug)]
pub(super) struct StoredShape {
    /// The metric's number.
    pub metric: u32,
    /// Its name.
    pub name: MetricName,
    /// The keys.
    pub keys: Vec<DimensionKey>,
}

/// A series; its values begin at `values` of [`Stored::values`], one for each key of its shape.
#[derive(Debug)]
pub(super) struct StoredSeries {
    /// Its number.
    pub id: u32,
    /// Its shape.
    pub shape: u32,
    /// Where its values begin.
    pub values: u32,
}

/// Reads a blob; every name in it is valid and every place exists.
///
/// # Errors
/// `Corrupt`.
pub(super) fn decode(blob: &[u8]) -> Result<Vec<Stored<'_>>> {
    let broken = || StoreError::corrupt("definitions of series pass their checksum but can't be read");
    let Some((version, mut rest)) = blob.split_first() else { return Ok(Vec::new()) };
    if *version != VERSION {
        let message = format!("definitions of series have format {version}; {VERSION} is known");
        return Err(StoreError::corrupt(message));
    }
    let mut sections = Vec::new();
    while !rest.is_empty() {
        sections.push(section(&mut rest).ok_or_else(broken)?);
    }
    Ok(sections)
}

fn section<'a>(rest: &mut &'a [u8]) -> Option<Stored<'a>> {
    let tenant = Tenant::new(text(rest)?).ok()?;
    let texts = list(rest, text)?;
    let shapes = list(rest, shape)?;
    let count = varint::take(rest)?;
    let (mut series, mut values) = (Vec::new(), Vec::new());
    let mut id = 0_u32;
    for _ in 0..count {
        let step = varint::take(rest)?;
        id = id.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
        let shape = varint::take(rest)?;
        let keys = shapes.get(shape as usize).map(|shape: &StoredShape| shape.keys.len())?;
        // The greatest number stands for none throughout the engine.
        if id == u32::MAX {
            return None;
        }
        series.push(StoredSeries { id, shape, values: u32::try_from(values.len()).ok()? });
        for _ in 0..keys {
            let value = varint::take(rest)?;
            texts.get(value as usize)?;
            values.push(value);
        }
    }
    Some(Stored { tenant, texts, shapes, series, values })
}

fn shape(rest: &mut &[u8]) -> Option<StoredShape> {
    let metric = varint::take(rest)?;
    let name = MetricName::new(text(rest)?).ok()?;
    let keys = list(rest, |rest| DimensionKey::new(text(rest)?).ok())?;
    let ascending = keys.windows(2).all(|pair| pair[0] < pair[1]);
    (ascending && metric != u32::MAX).then_some(StoredShape { metric, name, keys })
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = varint::take(rest)? as usize;
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    std::str::from_utf8(text).ok()
}

fn list<'a, T>(rest: &mut &'a [u8], mut item: impl FnMut(&mut &'a [u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = varint::take(rest)? as usize;
    // An item takes a byte at least, so a lying count can't ask for more memory than a blob deserves.
    let mut items = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        items.push(item(rest)?);
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Definitions {
        let mut definitions = Definitions::default();
        let keys = ["a", "b"].map(|key| DimensionKey::new(key).unwrap());
        let name = MetricName::new("m").unwrap();
        for (tenant, id) in [("t", 7), ("t", 3), ("u", u32::MAX - 1)] {
            let shape = ShapeOf { number: 4, metric: 9, name: &name };
            let values = [(1, "x"), (id, "ü")].into_iter();
            definitions.add(&Tenant::new(tenant).unwrap(), id, shape, keys.iter(), values);
        }
        let shape = ShapeOf { number: 5, metric: 10, name: &name };
        definitions.add(&Tenant::new("u").unwrap(), 0, shape, [].iter(), [].into_iter());
        definitions
    }

    #[test]
    fn series_come_back_with_their_names() {
        let definitions = sample();
        let created = [(7, 9), (3, 9), (u32::MAX - 1, 9), (0, 10)];
        assert!(definitions.created().eq(created));
        let blob = definitions.encode();
        let sections = decode(&blob).unwrap();
        let ids = |at: usize| sections[at].series.iter().map(|series| series.id).collect::<Vec<_>>();
        assert_eq!((sections.len(), ids(0), ids(1)), (2, vec![7, 3], vec![u32::MAX - 1, 0]));
        assert_eq!(sections[0].texts, ["x", "ü", "ü"]);
        assert_eq!(sections[0].values, [0, 1, 0, 2]);
        assert_eq!(sections[1].shapes.len(), 2);
        assert_eq!(sections[1].shapes[0].keys.len(), 2);
        assert!(Definitions::default().encode().is_empty() && decode(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_format_is_what_it_was() {
        let mut definitions = Definitions::default();
        let name = MetricName::new("m").unwrap();
        let keys = [DimensionKey::new("k").unwrap()];
        let shape = ShapeOf { number: 0, metric: 300, name: &name };
        let tenant = Tenant::new("t").unwrap();
        definitions.add(&tenant, 1, shape, keys.iter(), [(0, "v")].into_iter());
        let expected = [1, 1, b't', 1, 1, b'v', 1, 0xAC, 2, 1, b'm', 1, 1, b'k', 1, 2, 0, 0];
        assert_eq!(definitions.encode(), expected);
    }

    #[test]
    fn broken_bytes_are_errors_and_never_panic() {
        let blob = sample().encode();
        for cut in 1..blob.len() {
            if let Ok(sections) = decode(&blob[..cut]) {
                assert!(sections.len() < 2, "only between sections");
            }
        }
        let mut random = fastrand::Rng::with_seed(8);
        for _ in 0..20_000 {
            let mut noise = blob.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..noise.len());
                noise[at] = random.u8(..);
            }
            let _ = decode(&noise);
        }
        assert!(decode(&[2]).is_err());
        assert!(decode(&[1, 1, b't', 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).is_err());
    }
}
