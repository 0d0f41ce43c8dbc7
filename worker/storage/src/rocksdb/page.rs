//! Pages: the samples of up to some hundred series of one metric and layer, and beside them a summary.
//!
//! # Data
//! A version byte; a directory (its length and checksum in front); the distinct time columns; the
//! blocks of values, series by series. Every column and block ends with its own CRC-32C, so what is
//! damaged is reported and nothing else is lost. Series scraped together share their time columns.
//!
//! # Summary
//! A version byte, a checksum, the series, and what they did per UTC hour, in packed columns. When a
//! series has samples (hours, counts, first and last times: a *profile*) is stored once for all series
//! that share their time columns. A series with fewer than `SUMMARISED_FROM` samples per hour in
//! which it has any has no hour summaries: reading its samples costs no more. The fields of an hour
//! that follow from others are not stored but for a bit that says so.

mod data;
mod summary;

use crate::store::StoreError;

use super::codec::{Effort, Encoder};

pub use data::{Directory, KeptScratch, PageIndex, Scratch};
pub use summary::{PageSummary, Profile, Span};

use summary::SummaryBuilder;

/// First byte of data and of a summary. Persisted, never reused.
const VERSION: u8 = 1;
/// Samples per hour with a sample from which a series' hours are summarised.
const SUMMARISED_FROM: usize = 4;
/// Samples of a block at most, by effort: a short scan decodes little, a merged day packs well.
const SEAL_BLOCK: usize = 1_024;
const MERGE_BLOCK: usize = 8_192;
/// More than the directory takes for a series or block.
const DIRECTORY_BYTES: usize = 6;

/// A finished page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The smallest series in it.
    pub first_series: u32,
    /// Samples.
    pub data: Vec<u8>,
    /// What they amount to.
    pub summary: Vec<u8>,
}

/// Takes series with their samples and packs them.
#[derive(Debug)]
pub struct PageBuilder {
    effort: Effort,
    encoder: Encoder,
    data: data::DataBuilder,
    summary: SummaryBuilder,
}

impl PageBuilder {
    /// An empty page.
    #[must_use]
    pub fn new(effort: Effort) -> Self {
        Self {
            effort,
            encoder: Encoder::default(),
            data: data::DataBuilder::default(),
            summary: SummaryBuilder::default(),
        }
    }

    /// Adds a series, greater than those before, with its samples: equally long, at least one, times
    /// strictly ascending, values finite.
    pub fn push(&mut self, series: u32, times: &[i64], values: &[f64]) {
        debug_assert!(!times.is_empty() && times.len() == values.len());
        let longest = if self.effort == Effort::Seal { SEAL_BLOCK } else { MERGE_BLOCK };
        // Blocks of equal length pack better than a full one and a stub.
        let length = times.len().div_ceil(times.len().div_ceil(longest));
        let mut scale = Some(0);
        let mut columns = Vec::with_capacity(times.len().div_ceil(length));
        for (times, values) in times.chunks(length).zip(values.chunks(length)) {
            let (column, found) = self.data.push_block(times, values, self.effort, &mut self.encoder);
            scale = scale.zip(found).map(|(one, other)| one.max(other));
            columns.push(column);
        }
        self.data.end_series(series);
        self.summary.push(series, columns, times, values, scale);
    }

    /// Bytes so far, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.size() + self.summary.size()
    }

    /// Series so far.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.data.series_count()
    }

    /// The page; nothing must be read from one without a series.
    #[must_use]
    pub fn finish(mut self) -> Page {
        Page {
            first_series: self.data.first_series(),
            data: self.data.finish(&mut self.encoder),
            summary: self.summary.finish(&mut self.encoder),
        }
    }
}

/// Adds to an error in which page it was met.
pub fn in_page(page: &impl std::fmt::Debug, error: StoreError) -> StoreError {
    StoreError::new(error.kind, format!("{page:?}: {}", error.message))
}

#[cfg(test)]
mod tests;
