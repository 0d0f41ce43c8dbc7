//! Who a series is: a keyed hash of its tenant, metric and dimensions.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::model::{MetricName, Tenant};

use super::table::{Entry, Table, Wide};

/// Tables of identities, so that none takes long to grow.
const TABLES: usize = 16;

/// The identity of a series: a keyed hash of tenant, metric and sorted dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u128);

/// Makes identities: every part with its length in front, so that no two sequences look alike.
#[derive(Debug)]
pub struct Identifier {
    bytes: Vec<u8>,
    prefix: usize,
    /// Where the dimensions of the last series end.
    dimensions: usize,
    secret: Arc<[u8; 192]>,
}

impl Identifier {
    /// For the series of `tenant`.
    #[must_use]
    pub fn new(tenant: &Tenant, secret: Arc<[u8; 192]>) -> Self {
        let mut bytes = Vec::with_capacity(512);
        put(&mut bytes, tenant.as_str());
        Self { prefix: bytes.len(), dimensions: bytes.len(), bytes, secret }
    }

    /// The identity of a metric with `dimensions`, sorted by key.
    pub fn of<'a>(
        &mut self,
        metric: &MetricName,
        dimensions: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Identity {
        self.bytes.truncate(self.prefix);
        for (key, value) in dimensions {
            put(&mut self.bytes, key);
            put(&mut self.bytes, value);
        }
        self.dimensions = self.bytes.len();
        self.of_same(metric)
    }

    /// The identity of another metric with the dimensions that were asked for last.
    pub fn of_same(&mut self, metric: &MetricName) -> Identity {
        self.bytes.truncate(self.dimensions);
        put(&mut self.bytes, metric.as_str());
        Identity(xxh3_128_with_secret(&self.bytes, self.secret.as_slice()))
    }
}

/// Appends a part with its length in front.
pub(super) fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Series by identity.
#[derive(Debug, Default)]
pub struct Identities([Table<Wide>; TABLES]);

impl Identities {
    /// The series with this identity.
    #[must_use]
    pub fn find(&self, identity: Identity) -> Option<u32> {
        let wanted = Wide::new(identity.0, 0);
        self.0[table_of(identity)].find(wanted.place(), |entry| entry.same(&wanted)).map(|entry| entry.id())
    }

    /// Gives an identity to series `id`; one that is on its way out may have had it.
    pub fn set(&mut self, identity: Identity, id: u32) {
        let entry = Wide::new(identity.0, id);
        let table = &mut self.0[table_of(identity)];
        if !table.replace(entry, |other| other.same(&entry)) {
            table.insert(entry);
        }
    }

    /// Keeps the identities of series that `alive` accepts, in one of several tables; whether there
    /// is another.
    pub fn retain(&mut self, table: usize, alive: impl Fn(u32) -> bool) -> bool {
        if let Some(table) = self.0.get_mut(table) {
            table.retain(|entry| alive(entry.id()));
        }
        table + 1 < TABLES
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Table::bytes).sum()
    }
}

fn table_of(identity: Identity) -> usize {
    // Bits that neither an entry's place nor what it keeps of the hash is made of.
    (identity.0 >> 124) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sequences_of_names_look_alike() {
        let secret = Arc::new([9; 192]);
        let mut seen = std::collections::HashSet::new();
        let metrics = ["m", "mm"].map(|name| MetricName::new(name).unwrap());
        let sets: [&[(&str, &str)]; 5] =
            [&[], &[("a", "bc")], &[("ab", "c")], &[("a", "b"), ("c", "d")], &[("a", "b\u{1}\0\0\0cd")]];
        for tenant in ["t", "tm"] {
            let mut identifier = Identifier::new(&Tenant::new(tenant).unwrap(), secret.clone());
            for metric in &metrics {
                for dimensions in sets {
                    let identity = identifier.of(metric, dimensions.iter().copied());
                    assert_eq!(identifier.of_same(metric), identity);
                    assert!(seen.insert(identity.0));
                }
            }
            let again = identifier.of(&metrics[0], sets[1].iter().copied());
            assert!(!seen.insert(again.0), "the same again is the same");
        }
    }
}
