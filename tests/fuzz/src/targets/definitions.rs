//! Definitions of series: what is loaded is written again, and loads the same.

use luminate_storage::rocksdb::index::{Index, IndexOptions};

use crate::memory;

fn index() -> Index {
    Index::new(IndexOptions { secret: [7; 192], max_spellings: 100, memory_budget: 1 << 30 })
}

/// Loads a blob.
pub fn check(blob: &[u8]) {
    let first = index();
    let (mut ids, mut loaded) = (Vec::new(), Vec::new());
    let listed = first.ids_of(blob, &mut ids);
    // A tenant's index has tables that are large when they are new.
    let count = memory::within((8 << 20) + 1_024 * blob.len(), || {
        first.load(blob, &|_| true, &mut |series, _| loaded.push(series))
    });
    if count.is_err() {
        return;
    }
    // The other way round it may be: what is well formed may contradict itself.
    assert!(listed.is_ok());
    let written = sorted(first.definitions_of(&ids));
    let second = index();
    for blob in &written {
        second.load(blob, &|_| true, &mut |_, _| ()).expect("what was written is loaded");
    }
    assert_eq!(sorted(second.definitions_of(&ids)), written);
    assert_eq!(second.series(), first.series());
}

/// Tenants come in no order.
fn sorted(mut blobs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    blobs.sort();
    blobs
}

/// Two tenants with series.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let section = |tenant: u8, first: u8| {
        let texts = [&[2, 1, b'v', 2][..], "ü".as_bytes()].concat();
        let shapes = [2, first, 1, b'm', 1, 1, b'k', first + 1, 1, b'n', 2, 1, b'a', 1, b'b'];
        let series = [3, first * 2, 0, 0, 2, 0, 1, 2, 1, 0, 1];
        [&[1, tenant][..], &texts, &shapes, &series].concat()
    };
    vec![[vec![1], section(b't', 3), section(b'u', 20)].concat(), vec![1]]
}
