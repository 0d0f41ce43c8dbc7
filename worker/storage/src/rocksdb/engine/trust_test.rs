//! Clocks that jump, backups, and stores of which a part is missing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::{Clock, ManualClock};
use crate::contract::trial::{DAY, SECOND, T0, metric, series};
use crate::model::{Batch, Having, NewSeries, RangeQuery, Selector, SeriesLimits, Tenant, TimeRange};
use crate::rocksdb::backup;
use crate::rocksdb::check::{Report, check};
use crate::rocksdb::seal::rewrite_definitions;
use crate::rocksdb::tables::Tables;
use crate::store::{ErrorKind, ListQuery, MetricsStore, QueryContext, Retention};

use super::tests::copy;
use super::{Ack, Options, RocksDb};

const YEAR: i64 = 365 * DAY;

/// A clock that has jumped and isn't believed.
#[derive(Debug)]
struct Jumping(AtomicI64);

impl Clock for Jumping {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn trusted(&self) -> i64 {
        T0
    }
}

fn options(path: &Path, clock: Arc<dyn Clock>) -> Options {
    Options {
        path: path.to_owned(),
        ack: Ack::Durable,
        memory: 128 << 20,
        threads: 1,
        default_retention: 30 * DAY,
        retention_check: Duration::from_millis(1),
        heavy_samples: 20_000_000,
        resident: None,
        seal_window: Duration::from_secs(7_200),
        log_cap: 1 << 20,
        backups: None,
        clock,
    }
}

fn still(path: &Path) -> Options {
    options(path, Arc::new(ManualClock::new(T0)))
}

fn tenant() -> Tenant {
    Tenant::new("t").unwrap()
}

async fn write(store: &RocksDb, time: i64) {
    write_to(store, "m{k=v}", time).await;
}

async fn write_to(store: &RocksDb, name: &str, time: i64) {
    let mut batch = Batch::new(SeriesLimits::NONE);
    let (metric, dimensions) = series(name);
    let new = batch.describe(NewSeries { metric, dimensions, spelling: None });
    batch.push(new, time, 1.5);
    assert!(store.write(&tenant(), batch).await.unwrap().refused.is_empty());
}

/// Samples that a question sees, and metrics that are listed.
async fn seen(store: &RocksDb) -> (usize, usize) {
    let range = TimeRange::new(T0 - 3 * YEAR, T0 + 3 * YEAR).unwrap();
    let selector = Selector::new(metric("m"), Vec::new());
    let query = RangeQuery { selector, range, having: Having::ANY, limit: 1_000 };
    let context = QueryContext::with_timeout(Duration::from_secs(60));
    let rows = store.query_range(&tenant(), &query, &context).await.unwrap().rows.len();
    let list = ListQuery { prefix: String::new(), after: None, limit: 10 };
    (rows, store.list_metrics(&tenant(), &list).await.unwrap().names.len())
}

fn checked(path: &Path) -> Report {
    check(path, &mut |_, _| {}).unwrap()
}

fn folder() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    (directory, path)
}

#[tokio::test]
async fn a_jump_ahead_hides_and_removes_nothing() {
    let (_directory, path) = folder();
    let clock = Arc::new(Jumping(AtomicI64::new(T0)));
    let store = RocksDb::open(options(&path, clock.clone())).unwrap();
    for n in 0..20 {
        write(&store, T0 - n * DAY - SECOND).await;
    }
    store.seal().await.unwrap();
    write(&store, T0 - SECOND / 2).await;
    assert_eq!(seen(&store).await, (21, 1));
    clock.0.store(T0 + YEAR, Ordering::SeqCst);
    assert_eq!(seen(&store).await, (0, 1), "retention is exact for questions");
    store.seal().await.unwrap();
    store.merge().await.unwrap();
    // The merger looks for expired days each half second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    clock.0.store(T0, Ordering::SeqCst);
    assert_eq!(seen(&store).await, (21, 1));
    store.close().await.unwrap();
    drop(store);
    assert_eq!(seen(&RocksDb::open(options(&path, clock)).unwrap()).await, (21, 1));
}

#[tokio::test]
async fn a_clock_that_is_set_back_loses_nothing() {
    let (_directory, path) = folder();
    let clock = Arc::new(ManualClock::new(T0));
    let store = RocksDb::open(options(&path, clock.clone())).unwrap();
    write(&store, T0 - SECOND).await;
    store.seal().await.unwrap();
    clock.set(T0 - YEAR);
    write(&store, T0 - YEAR).await;
    assert_eq!(seen(&store).await, (2, 1));
    store.seal().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = RocksDb::open(options(&path, clock.clone())).unwrap();
    assert_eq!(seen(&store).await, (2, 1));
    clock.set(T0);
    assert_eq!(seen(&store).await, (1, 1), "what is a year old has expired");
}

#[tokio::test]
#[allow(
    clippy::await_holding_lock,
    reason = "held as by another backup: the call refuses, and waits for nothing"
)]
async fn a_backup_holds_head_layers_deletes_and_retention() {
    let (directory, path) = folder();
    let backups = directory.path().join("backups");
    let store = RocksDb::open(Options { backups: Some(backups.clone()), ..still(&path) }).unwrap();
    let empty = store.backup().await.unwrap();
    assert_eq!(empty.commit, 0);
    for n in 1..=9 {
        write(&store, T0 - n * DAY).await;
    }
    store.seal().await.unwrap();
    let retention = Retention { default: 5 * DAY, metrics: [(metric("m"), 20 * DAY)].into() };
    store.set_retention(&tenant(), retention.clone()).await.unwrap();
    store.delete_before(&tenant(), &metric("m"), Some(T0 - 7 * DAY), false).await.unwrap();
    write(&store, T0 - 9 * DAY).await;
    let made = store.backup().await.unwrap();
    write(&store, T0 - SECOND).await;
    assert_eq!(store.backups().await.unwrap(), [empty.clone(), made.clone()]);
    let hold = store.inner.backing_up.lock();
    assert_eq!(store.backup().await.unwrap_err().kind, ErrorKind::Refused);
    drop(hold);
    for (backup, expected) in [(empty, (0, 0)), (made, (8, 1))] {
        let from = backups.join(&backup.name);
        assert!(checked(&from).is_sound(), "{:?}", checked(&from));
        let into = directory.path().join(format!("restored-{}", backup.name));
        backup::restore(&from, &into).unwrap();
        let restored = RocksDb::open(still(&into)).unwrap();
        assert_eq!(seen(&restored).await, expected);
        if expected.0 > 0 {
            assert_eq!(restored.retention(&tenant()).await.unwrap(), retention);
        }
        write(&restored, T0 - 2 * SECOND).await;
        assert_eq!(seen(&restored).await.0, expected.0 + 1);
    }
    assert_eq!(seen(&store).await, (9, 1));
}

/// A store that was closed with everything in tables.
async fn sealed() -> (TempDir, std::path::PathBuf) {
    let (directory, path) = folder();
    let store = RocksDb::open(still(&path)).unwrap();
    write(&store, T0 - SECOND).await;
    store.seal().await.unwrap();
    store.close().await.unwrap();
    (directory, path)
}

/// Changes the tables of a store that is closed.
fn change(path: &Path, change: impl FnOnce(&Tables)) {
    change(&Tables::open(&path.join("tables"), 1 << 20).unwrap());
}

#[tokio::test]
async fn a_store_whose_tables_or_definitions_are_missing_is_refused_and_the_check_says_so() {
    let (_directory, path) = sealed().await;
    assert!(checked(&path).is_sound());
    let layer = {
        let store = RocksDb::open(still(&path)).unwrap();
        let view = store.inner.view.load();
        (view.layers[0].record.day, view.layers[0].record.id)
    };
    change(&path, |tables| tables.drop_layer(layer).unwrap());
    let error = RocksDb::open(still(&path)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("are missing"), "{error}");
    let report = checked(&path);
    let damage = &report.damage[0];
    assert_eq!((damage.tenant.as_deref(), damage.metric.as_deref()), (Some("t"), Some("m")));
    assert_eq!(damage.times, Some((T0 - SECOND, T0 - SECOND)));

    let (_directory, path) = sealed().await;
    change(&path, |tables| tables.drop_definitions_before(u64::MAX).unwrap());
    let error = RocksDb::open(still(&path)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("the definitions of 1 series are missing"), "{error}");
    assert!(!checked(&path).is_sound());
}

#[tokio::test]
async fn a_log_that_is_lost_before_its_sync_takes_its_new_series_with_it_and_nothing_else() {
    let (_directory, path) = folder();
    let (_lost, after) = folder();
    let store = RocksDb::open(Options { ack: Ack::Buffered, ..still(&path) }).unwrap();
    write_to(&store, "m{k=sealed}", T0 - SECOND).await;
    store.seal().await.unwrap();
    // 1. What is synced of the log.
    copy(&path.join("log"), &after.join("log"));
    // 2. What only the log knows, then a synced change of `meta` that has to do with the day of it.
    write_to(&store, "m{k=logged}", T0 - SECOND).await;
    store.inner.stored_definitions.store(1_000_000, Ordering::Relaxed);
    rewrite_definitions(&store.inner).unwrap();
    copy(&path.join("tables"), &after.join("tables"));
    let store_after = RocksDb::open(still(&after)).unwrap();
    assert_eq!(seen(&store_after).await, (1, 1));
    // 3. Where the log stays, a seal says on which days its series are present.
    assert_eq!(seen(&store).await, (2, 1));
    store.seal().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = RocksDb::open(still(&path)).unwrap();
    assert_eq!(seen(&store).await, (2, 1));
}

#[tokio::test]
async fn a_single_series_outlives_the_merge_of_its_layers() {
    let (_directory, path) = folder();
    let store = RocksDb::open(still(&path)).unwrap();
    for n in 1..=12 {
        write(&store, T0 - n * SECOND).await;
        store.seal().await.unwrap();
        store.merge().await.unwrap();
        assert_eq!(seen(&store).await, (usize::try_from(n).unwrap(), 1));
    }
    store.close().await.unwrap();
    drop(store);
    let store = RocksDb::open(still(&path)).unwrap();
    assert_eq!(seen(&store).await, (12, 1));
}

#[test]
fn a_layer_that_is_dropped_takes_nothing_of_the_next_one() {
    let (_directory, path) = folder();
    let tables = Tables::open(&path, 1 << 20).unwrap();
    for layer in 1..=3 {
        let files = tables.begin_layer(0, layer);
        let mut writer = files.writer().unwrap();
        writer.put(0, (0, 0), b"page", b"summary").unwrap();
        writer.finish().unwrap();
        tables.ingest_layer(files).unwrap();
    }
    tables.drop_layer((0, 1)).unwrap();
    let left = [1, 2, 3].map(|layer| tables.has_layer((0, layer)).unwrap());
    assert_eq!(left, [false, true, true]);
}
