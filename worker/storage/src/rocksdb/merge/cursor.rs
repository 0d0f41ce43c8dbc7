//! Reads a layer from its first series to its last, and joins what several layers hold of one.

use ::rocksdb::DBPinnableSlice;

use crate::rocksdb::layer::LayerRecord;
use crate::rocksdb::page::{PageIndex, Scratch, in_page};
use crate::rocksdb::tables::{PageKey, Tables, Tier};
use crate::store::Result;

/// A place in a layer: one series and all its samples there.
pub struct Cursor<'a> {
    tables: &'a Tables,
    last_commit: u64,
    keys: std::vec::IntoIter<PageKey>,
    /// The page that is being read.
    page: Option<(PageKey, DBPinnableSlice<'a>)>,
    index: PageIndex,
    position: usize,
    times: Vec<i64>,
    values: Vec<f64>,
    scratch: Scratch,
}

impl<'a> Cursor<'a> {
    /// Begins at the first series of `layer`.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn open(tables: &'a Tables, layer: &LayerRecord) -> Result<Self> {
        let mut cursor = Self {
            tables,
            last_commit: layer.last_commit,
            keys: tables.layer_pages((layer.day, layer.id))?.into_iter(),
            page: None,
            index: PageIndex::default(),
            position: 0,
            times: Vec::new(),
            values: Vec::new(),
            scratch: Scratch::default(),
        };
        cursor.next_page()?;
        Ok(cursor)
    }

    /// The metric and series that it is at; `None` at the end.
    #[must_use]
    pub fn series(&self) -> Option<(u32, u32)> {
        let (key, _) = self.page.as_ref()?;
        Some((key.metric, *self.index.series().get(self.position)?))
    }

    /// The samples of that series, times strictly ascending; none at the end.
    #[must_use]
    pub fn samples(&self) -> (&[i64], &[f64]) {
        (&self.times, &self.values)
    }

    /// The last commit of the layer.
    #[must_use]
    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// Goes on to the next series.
    ///
    /// # Errors
    /// `Corrupt`, `Internal`.
    pub fn advance(&mut self) -> Result<()> {
        self.position += 1;
        match self.position < self.index.series().len() {
            true => self.decode(),
            false => self.next_page(),
        }
    }

    fn next_page(&mut self) -> Result<()> {
        self.page = None;
        self.position = 0;
        for key in self.keys.by_ref() {
            let bytes = self.tables.page(&key, Tier::All)?;
            self.index.read(&bytes, &mut self.scratch).map_err(|error| in_page(&key, error))?;
            if !self.index.series().is_empty() {
                self.page = Some((key, bytes));
                break;
            }
        }
        self.decode()
    }

    fn decode(&mut self) -> Result<()> {
        self.times.clear();
        self.values.clear();
        let Some((key, bytes)) = &self.page else { return Ok(()) };
        for block in self.index.blocks(self.position) {
            let decoded = self.index.decode(bytes, block, &mut self.scratch);
            let (times, values) = decoded.map_err(|error| in_page(key, error))?;
            self.times.extend_from_slice(times);
            self.values.extend_from_slice(values);
        }
        Ok(())
    }
}

/// Adds newer samples to older ones, both strictly ascending; at equal times the newer one stays.
pub fn merge_samples(
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
    mut newer_times: &[i64],
    mut newer_values: &[f64],
) {
    let Some(first) = newer_times.first() else { return };
    if times.last().is_none_or(|last| last < first) {
        times.extend_from_slice(newer_times);
        values.extend_from_slice(newer_values);
        return;
    }
    let from = times.partition_point(|time| time < first);
    let (old_times, old_values) = (times.split_off(from), values.split_off(from));
    for (time, value) in old_times.into_iter().zip(old_values) {
        let before = newer_times.partition_point(|newer| *newer < time);
        times.extend_from_slice(&newer_times[..before]);
        values.extend_from_slice(&newer_values[..before]);
        (newer_times, newer_values) = (&newer_times[before..], &newer_values[before..]);
        if newer_times.first() != Some(&time) {
            times.push(time);
            values.push(value);
        }
    }
    times.extend_from_slice(newer_times);
    values.extend_from_slice(newer_values);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_newer_of_two_equal_times_stays() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..500 {
            let (mut model, mut times, mut values) = (BTreeMap::new(), Vec::new(), Vec::new());
            for layer in 0..4 {
                let added: BTreeMap<i64, f64> =
                    (0..random.usize(0..20)).map(|_| (random.i64(0..60), f64::from(layer))).collect();
                let (new_times, new_values): (Vec<i64>, Vec<f64>) = added.iter().unzip();
                merge_samples(&mut times, &mut values, &new_times, &new_values);
                model.extend(added);
            }
            assert!(times.iter().eq(model.keys()) && values.iter().eq(model.values()));
        }
    }
}
