//! The number that names a series in the tables.

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Dimensions, MetricName, Tenant};

/// Makes fingerprints of one tenant's series: XXH3-64 without a seed over tenant, metric, and the pairs
/// sorted by key, each text with its length (u32, little-endian) in front, so that no two series look alike.
///
/// Every worker must get the same number for ever: it is a constant of the format.
#[derive(Debug)]
pub struct Fingerprints {
    bytes: Vec<u8>,
    prefix: usize,
}

impl Fingerprints {
    /// For the series of `tenant`.
    #[must_use]
    pub fn new(tenant: &Tenant) -> Self {
        let mut bytes = Vec::with_capacity(512);
        put(&mut bytes, tenant.as_str());
        Self { prefix: bytes.len(), bytes }
    }

    /// The fingerprint of a series.
    pub fn of(&mut self, metric: &MetricName, dimensions: &Dimensions) -> u64 {
        self.bytes.truncate(self.prefix);
        put(&mut self.bytes, metric.as_str());
        for (key, value) in dimensions.iter() {
            put(&mut self.bytes, key.as_str());
            put(&mut self.bytes, value);
        }
        xxh3_64(&self.bytes)
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    // No text that the model accepts is longer.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DimensionLimits;

    fn fingerprint(tenant: &str, metric: &str, pairs: &[(&str, &str)]) -> u64 {
        let dimensions = Dimensions::new(pairs.iter().copied(), &DimensionLimits::default()).unwrap();
        Fingerprints::new(&Tenant::new(tenant).unwrap()).of(&MetricName::new(metric).unwrap(), &dimensions)
    }

    /// Made by ClickHouse's own `xxh3` over the same bytes.
    const GOLDEN: [u64; 4] = [
        1_740_719_236_714_094_157,
        13_101_421_530_457_677_744,
        164_571_055_192_356_825,
        18_443_498_139_815_055_108,
    ];

    #[test]
    fn fingerprints_never_change() {
        assert_eq!(fingerprint("acme", "up", &[]), GOLDEN[0]);
        assert_eq!(fingerprint("acme", "api_latency", &[("region", "eu"), ("host", "a")]), GOLDEN[1]);
        assert_eq!(fingerprint("t", "m", &[("k", "東京")]), GOLDEN[2]);
        let long = "x".repeat(256);
        assert_eq!(fingerprint("t", "m", &[("k", &long), ("l", &long)]), GOLDEN[3]);
    }

    #[test]
    fn every_part_counts_and_order_does_not() {
        let one = fingerprint("t", "m", &[("a", "1"), ("b", "2")]);
        assert_eq!(one, fingerprint("t", "m", &[("b", "2"), ("a", "1")]));
        for other in [
            fingerprint("u", "m", &[("a", "1"), ("b", "2")]),
            fingerprint("t", "n", &[("a", "1"), ("b", "2")]),
            fingerprint("t", "m", &[("a", "1b"), ("b", "2")]),
            fingerprint("t", "m", &[("a", "1")]),
            fingerprint("t", "m", &[("a", "2"), ("b", "1")]),
            fingerprint("tm", "_", &[("a", "1"), ("b", "2")]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn one_maker_makes_many() {
        let tenant = Tenant::new("acme").unwrap();
        let (up, down) = (MetricName::new("up").unwrap(), MetricName::new("down").unwrap());
        let mut fingerprints = Fingerprints::new(&tenant);
        let none = Dimensions::default();
        let first = fingerprints.of(&up, &none);
        assert_ne!(fingerprints.of(&down, &none), first);
        assert_eq!(fingerprints.of(&up, &none), first);
    }
}
