//! What a batch leaves behind when some of its samples are of days that are over: nothing of those.

use crate::model::{Batch, MetricName, RowSeries, Tenant};
use crate::rocksdb::commit::Living;
use crate::rocksdb::layer::day_of;

use super::Inner;

/// A batch without the rows that nobody will ever see.
pub(super) struct Arrival {
    /// The others.
    pub(super) batch: Batch,
    /// The number that each of its rows had, where rows were left out.
    places: Option<Vec<u32>>,
}

impl Arrival {
    /// The number of row `row` in the batch as it came.
    pub(super) fn place(&self, row: u32) -> u32 {
        self.places.as_ref().and_then(|places| places.get(row as usize)).copied().unwrap_or(row)
    }
}

impl Inner {
    /// Leaves out the rows of days that are past their metric's retention, and series that only they have.
    pub(super) fn arrival(&self, tenant: &Tenant, batch: Batch) -> Arrival {
        let living = self.living(tenant);
        let of_all = living.of_all();
        if batch.timestamps.iter().all(|time| *time >= of_all) {
            return Arrival { batch, places: None };
        }
        let mut kept = Batch::new(batch.limits);
        let mut described = vec![None; batch.new_series.len()];
        let mut places = Vec::new();
        for (row, series) in batch.series.iter().enumerate() {
            let time = batch.timestamps[row];
            if time < of_all && self.is_over(&living, &batch, *series, time) {
                continue;
            }
            let series = match *series {
                RowSeries::New(at) => {
                    let at = at as usize;
                    *described[at].get_or_insert_with(|| kept.describe(batch.new_series[at].clone()))
                }
                known => known,
            };
            kept.push(series, time, batch.values[row]);
            places.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        Arrival { batch: kept, places: Some(places) }
    }

    fn is_over(&self, living: &Living, batch: &Batch, series: RowSeries, time: i64) -> bool {
        let is_past = |metric: &MetricName| day_of(time) < living.of(metric);
        match series {
            RowSeries::New(at) => is_past(&batch.new_series[at as usize].metric),
            RowSeries::Known(handle) => {
                let metric = self.numbers.read().metric_of(handle.0);
                let name = metric.and_then(|metric| self.index.metric_name(metric));
                name.is_some_and(|(_, name)| is_past(&name))
            }
        }
    }
}
