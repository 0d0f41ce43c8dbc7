//! Bytes per sample on disk, index included: sealed every two hours, and the day merged, as the worker does
//! in the background.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use luminate_storage::clock::SystemClock;
use luminate_storage::model::{
    Batch, DimensionLimits, Dimensions, MetricName, NewSeries, RowSeries, SeriesLimits, Spelling, Tenant,
};
use luminate_storage::rocksdb::engine::{Ack, Options, RocksDb};
use luminate_storage::store::MetricsStore;
use luminate_tests::bench::data::{Shape, Values, dimensions};
use luminate_tests::bench::report::{Better, Figure, Report};
use luminate_tests::client::now;

const SERIES: usize = 1_000;
/// Ten seconds apart: two hours are a seal, twelve of them a day.
const STEP: i64 = 10_000;
const STEPS_OF_A_SEAL: i64 = 720;
const SEALS: i64 = 12;
const DAY: i64 = 86_400_000;

/// Measures every shape of values, each in a store of its own.
pub fn measure(report: &mut Report) {
    println!("disk: {SERIES} series × 24 h at 10 s, ten dimensions");
    for (shape, name, now, aim) in [
        (Shape::Percent, "on disk: whole percentages, as TSBS makes them", None, Some(0.36)),
        (Shape::Decimals, "on disk: walks of two decimals", Some(1.4), Some(1.2)),
        (Shape::Counter, "on disk: counters", None, None),
        (Shape::Latency, "on disk: random latencies of three decimals", None, None),
    ] {
        let runs = vec![bytes_per_sample(shape)];
        report.add(Figure { name, unit: "B/sample", runs, better: Better::Less, now, aim });
    }
}

fn bytes_per_sample(shape: Shape) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let samples = (SERIES as i64 * STEPS_OF_A_SEAL * SEALS) as f64;
    runtime.block_on(async {
        let store = RocksDb::open(options(folder.path())).expect("an empty directory");
        fill(&store, shape).await;
        store.merge().await.expect("a merge");
        let bytes = settled(folder.path()).await;
        store.close().await.expect("a store that works");
        bytes as f64 / samples
    })
}

/// A store that seals only when it is told to.
fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        ack: Ack::Buffered,
        memory: 4 << 30,
        threads: 2,
        default_retention: 30 * DAY,
        retention_check: Duration::from_secs(3_600),
        heavy_samples: 20_000_000,
        seal_window: Duration::from_secs(86_400),
        log_cap: 4 << 30,
        backups: None,
        clock: Arc::new(SystemClock),
    }
}

async fn fill(store: &RocksDb, shape: Shape) {
    let tenant = Tenant::new("bench").expect("a sound name");
    let mut rng = Rng::with_seed(4);
    let mut values: Vec<Values> = (0..SERIES).map(|_| Values::new(shape, &mut rng)).collect();
    let mut time = now() / DAY * DAY - DAY;
    for _ in 0..SEALS {
        for _ in 0..STEPS_OF_A_SEAL / 10 {
            let mut batch = Batch::new(SeriesLimits::NONE);
            let series = rows(store, &tenant, &mut batch);
            for _ in 0..10 {
                for (series, values) in series.iter().zip(&mut values) {
                    batch.push(*series, time, values.next(&mut rng));
                }
                time += STEP;
            }
            store.write(&tenant, batch).await.expect("a store that works");
        }
        store.seal().await.expect("a seal");
    }
}

/// What the rows of each series refer to: what the store knows, or else a description in `batch`.
fn rows(store: &RocksDb, tenant: &Tenant, batch: &mut Batch) -> Vec<RowSeries> {
    let lookup = store.lookup(tenant);
    let metric = MetricName::new("bench").expect("a sound name");
    let described = |host: usize, spelling: Spelling| {
        let pairs = dimensions(host);
        let pairs = pairs.iter().map(|(key, value)| (*key, value.as_str()));
        let dimensions = Dimensions::new(pairs, &DimensionLimits::default()).expect("sound dimensions");
        NewSeries { metric: metric.clone(), dimensions, spelling: Some(spelling) }
    };
    let mut series = Vec::with_capacity(SERIES);
    for host in 0..SERIES {
        let spelling = lookup.hasher().hash(format!("bench {host}").as_bytes());
        series.push(match lookup.find(spelling) {
            Some(handle) => RowSeries::Known(handle),
            None => batch.describe(described(host, spelling)),
        });
    }
    series
}

/// The size of everything but the log, once files that were replaced are gone.
async fn settled(path: &Path) -> u64 {
    let mut last = tables(path);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        last = last.min(tables(path));
    }
    last
}

/// Bytes of all files but the log's, whose segments are kept for later.
fn tables(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let entries = entries.flatten().filter(|entry| entry.file_name() != "log");
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => tables(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
