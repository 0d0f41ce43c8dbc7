//! Fills a layer's tables with pages, series by series.

use crate::rocksdb::codec::Effort;
use crate::rocksdb::page::PageBuilder;
use crate::rocksdb::tables::{LayerFiles, LayerWriter};
use crate::store::Result;

use super::LayerRecord;

/// A page is closed at this size or number of series: 16–64 KB are read and checked quickly, and
/// still spread their header over many series.
const PAGE_BYTES: usize = 48 << 10;
const PAGE_SERIES: usize = 128;

/// Takes series in the order (metric, series) and writes them as pages of one layer.
pub struct LayerBuilder<'a> {
    writer: LayerWriter<'a>,
    effort: Effort,
    page: PageBuilder,
    metric: u32,
    last_series: u32,
    record: LayerRecord,
}

impl<'a> LayerBuilder<'a> {
    /// Begins a layer in `files`; `record` gives its number, day and commits.
    ///
    /// # Errors
    /// As of the tables.
    pub fn new(files: &'a LayerFiles, record: LayerRecord, effort: Effort) -> Result<Self> {
        Ok(Self {
            writer: files.writer()?,
            effort,
            page: PageBuilder::new(effort),
            metric: 0,
            last_series: 0,
            record,
        })
    }

    /// Adds a series with its samples: equally long, ascending, perhaps none.
    ///
    /// # Errors
    /// As of the tables.
    pub fn add(&mut self, metric: u32, series: u32, times: &[i64], values: &[f64]) -> Result<()> {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
        if metric != self.metric || self.page.size() >= PAGE_BYTES || self.page.series_count() >= PAGE_SERIES
        {
            self.close_page()?;
        }
        self.metric = metric;
        self.last_series = series;
        self.page.push(series, times, values);
        self.record.min_time = self.record.min_time.min(*first);
        self.record.max_time = self.record.max_time.max(*last);
        let totals = self.record.metrics.entry(metric).or_default();
        totals.series += 1;
        totals.samples += times.len() as u64;
        Ok(())
    }

    /// Finishes the tables; `None` when no sample was added, and then there is nothing to ingest.
    ///
    /// # Errors
    /// As of the tables.
    pub fn finish(mut self) -> Result<Option<LayerRecord>> {
        self.close_page()?;
        if self.record.metrics.is_empty() {
            return Ok(None);
        }
        self.writer.finish()?;
        Ok(Some(self.record))
    }

    fn close_page(&mut self) -> Result<()> {
        if self.page.series_count() == 0 {
            return Ok(());
        }
        let page = std::mem::replace(&mut self.page, PageBuilder::new(self.effort)).finish();
        let series = (page.first_series, self.last_series);
        self.writer.put(self.metric, series, &page.data, &page.summary)?;
        let totals = self.record.metrics.entry(self.metric).or_default();
        totals.bytes += (page.data.len() + page.summary.len()) as u64;
        Ok(())
    }
}
