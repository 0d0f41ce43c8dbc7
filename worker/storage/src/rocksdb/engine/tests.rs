//! The contract and the differential test over the engine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use crate::clock::ManualClock;
use crate::contract::{Backend, Subject};
use crate::store::{MetricsStore, Result};

use super::{Ack, Options, RocksDb};

/// An engine in a directory of its own.
struct Embedded {
    /// Absent only while it is being opened again.
    store: Option<RocksDb>,
    options: Options,
    settled: u32,
    _directory: TempDir,
}

impl Embedded {
    fn open(&self) -> &RocksDb {
        self.store.as_ref().unwrap()
    }
}

#[async_trait]
impl Subject for Embedded {
    fn store(&self) -> &dyn MetricsStore {
        self.open()
    }

    async fn settle(&mut self) -> Result<()> {
        self.open().seal().await?;
        self.settled += 1;
        // Every third time the layers stay apart, so that queries meet several of them.
        if self.settled.is_multiple_of(3) { self.open().merge().await } else { Ok(()) }
    }

    async fn restart(&mut self) -> Result<()> {
        self.open().close().await?;
        self.store = None;
        self.store = Some(RocksDb::open(self.options.clone())?);
        Ok(())
    }
}

/// Opens engines that seal and merge only when they are told to.
struct Engine;

#[async_trait]
impl Backend for Engine {
    async fn open(&self, clock: Arc<ManualClock>, default_retention: i64) -> Result<Box<dyn Subject>> {
        let directory = tempfile::tempdir().map_err(crate::store::StoreError::internal)?;
        let options = Options {
            path: directory.path().join("data"),
            ack: Ack::Durable,
            memory: 512 << 20,
            threads: 2,
            default_retention,
            retention_check: Duration::from_secs(3_600),
            heavy_samples: 20_000_000,
            resident: None,
            seal_window: Duration::from_secs(7_200),
            log_cap: 256 << 20,
            backups: None,
            clock,
        };
        let store = Some(RocksDb::open(options.clone())?);
        Ok(Box::new(Embedded { store, options, settled: 0, _directory: directory }))
    }
}

crate::contract_tests!(Engine);

/// Steps of a run: about 700 questions between writes, deletes, seals, merges and restarts.
const STEPS: u64 = 1_250;

/// Compares the engine with the model from each of `seeds`; all together ask more than 5,000 questions.
fn compare(seeds: std::ops::Range<u64>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for seed in seeds {
        let report = runtime.block_on(crate::differential::run(seed, STEPS, &Engine));
        let report = report.unwrap_or_else(|difference| panic!("{difference}"));
        assert!(report.questions() >= 625, "{report:?}");
        println!("seed {seed}: {} questions, {} rows compared, none differ", report.questions(), report.rows);
    }
}

#[test]
fn the_engine_and_the_model_agree_on_seeds_0_to_3() {
    compare(0..4);
}

#[test]
fn the_engine_and_the_model_agree_on_seeds_4_to_7() {
    compare(4..8);
}

/// A folder, and all that is in it.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What the store of format 1 was made of: midnight, a minute apart, from the clock's noon on.
mod format_1 {
    use std::path::PathBuf;

    use super::*;
    use crate::contract::trial::{DAY, HOUR, SECOND, T0, metric, series};
    use crate::model::{
        AggregateQuery, Aggregation, Batch, DimensionKey, Having, NewSeries, Selector, SeriesLimits, Tenant,
        TimeRange,
    };
    use crate::store::{QueryContext, Retention};

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store-1")
    }

    fn options(path: &Path) -> Options {
        Options {
            path: path.to_owned(),
            ack: Ack::Durable,
            memory: 128 << 20,
            threads: 1,
            default_retention: 30 * DAY,
            retention_check: Duration::from_secs(3_600),
            heavy_samples: 20_000_000,
            resident: None,
            seal_window: Duration::from_secs(7_200),
            log_cap: 1 << 20,
            backups: None,
            clock: Arc::new(ManualClock::new(T0 + 12 * HOUR)),
        }
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    async fn write(store: &RocksDb, name: &str, minutes: std::ops::Range<i64>) {
        let mut batch = Batch::new(SeriesLimits::NONE);
        for host in 0..5 {
            let (metric, dimensions) = series(&format!("cpu{{host=h{host},region=eu}}"));
            let row = batch.describe(NewSeries { metric, dimensions, spelling: None });
            for minute in minutes.clone() {
                batch.push(row, T0 + minute * 60 * SECOND, f64::from(host) + minute as f64 / 4.0);
            }
        }
        assert_eq!(store.write(&tenant(name), batch).await.unwrap().refused, []);
    }

    /// Count and sum by host, and the retention, as text.
    async fn held(store: &RocksDb, name: &str) -> Vec<String> {
        let query = AggregateQuery {
            selector: Selector::new(metric("cpu"), Vec::new()),
            range: TimeRange::new(T0, T0 + DAY).unwrap(),
            aggregation: Aggregation::Sum,
            max_gap: None,
            group_by: vec![DimensionKey::new("host").unwrap()],
            interval: None,
            having: Having::ANY,
            limit: 10,
        };
        let context = QueryContext::with_timeout(Duration::from_secs(60));
        let answer = store.aggregate(&tenant(name), &query, &context).await.unwrap();
        let rows = answer.rows.iter().map(|row| format!("{:?} {} {}", row.group, row.count, row.value));
        let retention = store.retention(&tenant(name)).await.unwrap();
        rows.chain([format!("{} {:?}", retention.default / HOUR, retention.metrics)]).collect()
    }

    #[test]
    #[ignore = "made the fixture; a format's fixture is never made anew"]
    fn make_the_fixture() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = RocksDb::open(options(&fixture())).unwrap();
            write(&store, "acme", 0..200).await;
            write(&store, "initech", 0..10).await;
            store.seal().await.unwrap();
            write(&store, "acme", 150..300).await;
            store.seal().await.unwrap();
            store.merge().await.unwrap();
            let cut = Some(T0 + 100 * 60 * SECOND);
            store.delete_before(&tenant("acme"), &metric("cpu"), cut, false).await.unwrap();
            let metrics = [(metric("debug"), DAY)].into();
            store.set_retention(&tenant("initech"), Retention { default: 7 * DAY, metrics }).await.unwrap();
            write(&store, "acme", 300..320).await;
            store.close().await.unwrap();
        });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_read_forever() {
        let directory = tempfile::tempdir().unwrap();
        copy(&fixture(), directory.path());
        let store = RocksDb::open(options(directory.path())).unwrap();
        let of_acme: Vec<String> = (0..5)
            .map(|host| {
                let sum: f64 = (100..320).map(|minute| f64::from(host) + f64::from(minute) / 4.0).sum();
                format!("[Some(\"h{host}\")] 220 {sum}")
            })
            .chain(["720 {}".to_owned()])
            .collect();
        assert_eq!(held(&store, "acme").await, of_acme);
        let of_initech: Vec<String> = (0..5)
            .map(|host| format!("[Some(\"h{host}\")] 10 {}", f64::from(host) * 10.0 + 11.25))
            .chain(["168 {\"debug\": 86400000}".to_owned()])
            .collect();
        assert_eq!(held(&store, "initech").await, of_initech);
        write(&store, "acme", 320..321).await;
        assert!(held(&store, "acme").await[0].contains(" 221 "));
        store.close().await.unwrap();
    }

    #[test]
    fn an_unknown_format_and_a_directory_in_use_are_refused_in_a_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let store = RocksDb::open(options(directory.path())).unwrap();
        let twice = RocksDb::open(options(directory.path())).unwrap_err();
        assert!(matches!(twice.kind, crate::store::ErrorKind::Unavailable { .. }), "{twice}");
        drop(store);
        let tables = crate::rocksdb::tables::Tables::open(&directory.path().join("tables"), 1 << 20).unwrap();
        let mut batch = crate::rocksdb::tables::MetaBatch::default();
        batch.put(crate::rocksdb::tables::Prefix::Format, &[], &7_u32.to_be_bytes());
        tables.write_meta(batch).unwrap();
        drop(tables);
        let refused = RocksDb::open(options(directory.path())).unwrap_err();
        assert!(refused.message.contains("format 7"), "{refused}");
    }
}
