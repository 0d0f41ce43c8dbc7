//! Ranges that workers check at their start: a value outside would stop every pod.

use std::fmt::Display;

use luminate_crds::luminate::{LuminateSpec, Tier};
use luminate_crds::worker_config::{ByteSize, Span};

use super::{Checked, Refused};

pub(super) fn check(spec: &LuminateSpec) -> Checked {
    within("spec.auth.leeway", spec.auth.leeway, Span::from_secs(0), Span::from_secs(600))?;
    within("spec.retention.default", spec.retention.default, Span::from_secs(60), Span::from_days(36_500))?;
    rates(spec)?;
    cardinality(spec)?;
    query(spec)?;
    ingest(spec)?;
    if let Some(section) = &spec.clickhouse {
        let (least, most) = (Span::from_millis(10), Span::from_secs(10));
        within("spec.clickhouse.linger", section.linger, least, most)?;
        let (least, most) = (ByteSize(1_000_000), ByteSize(1 << 36));
        within("spec.clickhouse.maxQueueBytes", section.max_queue_bytes, least, most)?;
        within("spec.clickhouse.maxBatchRows", section.max_batch_rows, 1_000, 10_000_000)?;
        within("spec.clickhouse.poolSize", section.pool_size, 1, 1_000)?;
        within("spec.clickhouse.queryThreads", section.query_threads.unwrap_or(1), 1, 1_024)?;
    }
    Ok(())
}

fn rates(spec: &LuminateSpec) -> Checked {
    const MOST: u32 = 1_000_000;
    let limits = &spec.limits;
    within("spec.limits.writeRps", limits.write_rps, 1, MOST)?;
    within("spec.limits.queryRps", limits.query_rps, 1, MOST)?;
    within("spec.limits.metricsPerSecond", limits.metrics_per_second, 1, u64::MAX)?;
    within("spec.limits.concurrentQueries", limits.concurrent_queries, 1, MOST)?;
    within("spec.limits.addressRps", limits.address_rps.unwrap_or(1), 1, MOST)?;
    limits.tiers.iter().try_for_each(|(name, limits)| tier(name, limits))
}

fn tier(name: &str, tier: &Tier) -> Checked {
    let values = [
        ("writeRps", tier.write_rps.map(u64::from)),
        ("queryRps", tier.query_rps.map(u64::from)),
        ("metricsPerSecond", tier.metrics_per_second),
        ("concurrentQueries", tier.concurrent_queries.map(u64::from)),
        ("maxSeriesPerMetric", tier.max_series_per_metric),
        ("maxMetricsPerTenant", tier.max_metrics_per_tenant),
    ];
    let field = |key| format!("spec.limits.tiers.{name}.{key}");
    values.into_iter().try_for_each(|(key, value)| within(&field(key), value.unwrap_or(1), 1, u64::MAX))
}

fn cardinality(spec: &LuminateSpec) -> Checked {
    let limits = &spec.limits;
    within("spec.limits.maxSeriesPerMetric", limits.max_series_per_metric, 1, u64::MAX)?;
    within("spec.limits.maxMetricsPerTenant", limits.max_metrics_per_tenant, 1, u64::MAX)?;
    within("spec.limits.maxDimensions", limits.max_dimensions, 1, 256)?;
    within("spec.limits.maxDimensionValue", limits.max_dimension_value, 1, 65_536)
}

fn query(spec: &LuminateSpec) -> Checked {
    let query = &spec.limits.query;
    let (least, most) = (Span::from_millis(100), Span::from_secs(3_600));
    within("spec.limits.query.maxTimeout", query.max_timeout, least, most)?;
    let least = Span::from_millis(1);
    within("spec.limits.query.defaultTimeout", query.default_timeout, least, query.max_timeout)?;
    within("spec.limits.query.maxRange", query.max_range, Span::from_secs(60), Span::from_days(36_500))?;
    within("spec.limits.query.maxResultPoints", query.max_result_points, 1, 10_000_000)?;
    within("spec.limits.query.maxGroupBy", query.max_group_by, 1, 256)?;
    within("spec.limits.query.maxScannedSamples", query.max_scanned_samples, 1, u64::MAX)?;
    within("spec.limits.query.maxMemory", query.max_memory, ByteSize(1 << 20), ByteSize(1 << 44))
}

fn ingest(spec: &LuminateSpec) -> Checked {
    let ingest = &spec.limits.ingest;
    within("spec.limits.ingest.maxBatch", ingest.max_batch, 1, 10_000_000)?;
    let (least, most) = (ByteSize(1_000), ByteSize(1_000_000_000));
    within("spec.limits.ingest.maxBodyBytes", ingest.max_body_bytes, least, most)?;
    within("spec.limits.ingest.maxAge", ingest.max_age, Span::from_secs(1), Span::from_days(36_500))?;
    within("spec.limits.ingest.maxFuture", ingest.max_future, Span::from_secs(0), Span::from_days(36_500))
}

fn within<T: PartialOrd + Display>(field: &str, value: T, least: T, most: T) -> Checked {
    if least <= value && value <= most {
        return Ok(());
    }
    Err(Refused::field(field, format!("{value} is not allowed; it must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{clickhouse, rocksdb};

    #[test]
    fn the_defaults_lie_in_their_ranges() {
        assert_eq!(check(&rocksdb()), Ok(()));
        assert_eq!(check(&clickhouse()), Ok(()));
    }

    #[test]
    fn a_refusal_names_field_value_and_range() {
        let mut spec = rocksdb();
        spec.limits.query.default_timeout = Span::from_secs(31);
        let message = check(&spec).unwrap_err().message;
        assert_eq!(
            message,
            "spec.limits.query.defaultTimeout: 31s is not allowed; it must be from 1ms to 30s"
        );
        let mut spec = rocksdb();
        spec.limits.tiers.insert("gold".into(), Tier { query_rps: Some(0), ..Tier::default() });
        assert!(check(&spec).unwrap_err().message.starts_with("spec.limits.tiers.gold.queryRps: 0 "));
    }
}
