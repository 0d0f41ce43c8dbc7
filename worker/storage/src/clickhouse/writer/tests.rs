//! Writes against the real engine, with what lies between now and then in the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::clickhouse::schema;
use crate::clickhouse::testing::{self, drop_database, fresh_name};
use crate::clock::ManualClock;
use crate::contract::trial::{DAY, T0, series};
use crate::model::{NewSeries, RowSeries, SeriesLimits};
use crate::store::Refusal;

const NOW: i64 = T0 + DAY / 2;

/// A worker's writing half over a database of its own.
struct Bench {
    options: Options,
    clock: Arc<ManualClock>,
    database: Database,
    changes: Arc<Changes>,
    accepted: Arc<Accepted>,
    writer: Arc<Writer>,
    tenant: Tenant,
}

impl Bench {
    async fn new(change: impl FnOnce(&mut Options)) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let mut options = testing::options(&fresh_name(), clock.clone(), 15 * DAY);
        schema::migrate(&Database::new(&options).unwrap(), &options).await.unwrap();
        change(&mut options);
        Self::over(options, clock).await
    }

    /// Another worker over the same database.
    async fn over(options: Options, clock: Arc<ManualClock>) -> Self {
        let database = Database::new(&options).unwrap();
        let direct = Options { endpoints: vec![testing::url().to_owned()], ..options.clone() };
        let changes = Changes::open(Database::new(&direct).unwrap(), &options).await.unwrap();
        let (changes, accepted) = (Arc::new(changes), Arc::new(Accepted::new(fresh_name())));
        let writer = Writer::start(database, &options, Arc::clone(&changes), Arc::clone(&accepted));
        let (database, tenant) = (Database::new(&direct).unwrap(), Tenant::new("acme").unwrap());
        Self { options, clock, database, changes, accepted, writer, tenant }
    }

    /// Rows of (series, time after [`T0`], value), each series described unless a handle is known.
    fn batch(&self, limits: SeriesLimits, rows: &[(&str, i64, f64)]) -> Batch {
        let lookup = self.writer.lookup(&self.tenant);
        let mut batch = Batch::new(limits);
        for (text, time, value) in rows {
            let spelling = lookup.hasher().hash(text.as_bytes());
            let series = match lookup.find(spelling) {
                Some(handle) => RowSeries::Known(handle),
                None => {
                    let (metric, dimensions) = series(text);
                    batch.describe(NewSeries { metric, dimensions, spelling: Some(spelling) })
                }
            };
            batch.push(series, T0 + time, *value);
        }
        batch
    }

    async fn write(&self, rows: &[(&str, i64, f64)]) -> Result<WriteOutcome> {
        self.writer.write(&self.tenant, self.batch(SeriesLimits::NONE, rows)).await
    }

    /// Writes as a client does that comes again.
    async fn write_until_stored(&self, rows: &[(&str, i64, f64)]) {
        while let Err(error) = self.write(rows).await {
            assert!(matches!(error.kind, ErrorKind::Unavailable { .. }), "{error:?}");
        }
    }

    async fn ask<T: clickhouse::RowOwned + clickhouse::RowRead>(&self, sql: &str) -> Vec<T> {
        self.database.statement(sql).rows().await.unwrap()
    }

    /// Rows of a table, merged or not.
    async fn count(&self, table: &str) -> u64 {
        self.ask::<u64>(&format!("SELECT count() FROM {table}")).await[0]
    }

    async fn samples(&self) -> Vec<String> {
        let sql = "SELECT concat(toString(tenant), ' ', toString(metric), ' ', \
                   toString(toUnixTimestamp64Milli(ts)), ' ', toString(v)) FROM samples FINAL \
                   ORDER BY tenant, metric, ts, v";
        self.ask::<String>(sql).await
    }

    async fn parts(&self, table: &str) -> u64 {
        let sql = format!(
            "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = '{table}' AND active"
        );
        self.ask::<u64>(&sql).await[0]
    }

    async fn end(self) {
        self.writer.close().await;
        drop_database(&Options { endpoints: vec![testing::url().to_owned()], ..self.options.clone() }).await;
    }
}

/// What a [`Proxy`] does with a connection.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// The request gets there, its answer is lost.
    LoseAnswer,
    /// Neither gets anywhere.
    Hang,
}

/// A way to the server that can be cut.
struct Proxy {
    port: u16,
    mode: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(Mode::Pass as u8));
        let own = Arc::clone(&mode);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, Arc::clone(&own)));
            }
        });
        Self { port, mode, task }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Nobody listens any more, and what was connected breaks; returns the port.
    async fn cut(self) -> u16 {
        self.task.abort();
        let _ = self.task.await;
        self.port
    }
}

async fn carry(mut client: TcpStream, mode: Arc<AtomicU8>) {
    let server = TcpStream::connect(testing::url().trim_start_matches("http://")).await.unwrap();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.split();
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(read) = tokio::io::AsyncReadExt::read(&mut from_client, &mut buffer).await else { return };
            while mode.load(Ordering::SeqCst) == Mode::Hang as u8 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if read == 0 || to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(read) = tokio::io::AsyncReadExt::read(&mut from_server, &mut buffer).await else { return };
            if read == 0 || mode.load(Ordering::SeqCst) == Mode::LoseAnswer as u8 {
                return;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => (),
        () = down => (),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_arrive_as_they_were_written() {
    let bench = Bench::new(|_| ()).await;
    let rows =
        [("m{k=東京,a=x}", 5, 1.5), ("n", -DAY, -0.0), ("m{k=東京,a=x}", 7, 2.0), ("m{a=x,k=東京}", 5, 9.0)];
    let outcome = bench.write(&rows).await.unwrap();
    assert_eq!(outcome, WriteOutcome { refused: vec![], durable: false });
    let at = |time: i64| T0 + time;
    let expected =
        [format!("acme m {} 9", at(5)), format!("acme m {} 2", at(7)), format!("acme n {} -0", at(-DAY))];
    assert_eq!(bench.samples().await, expected);
    // Only the last of two for one millisecond was sent.
    assert_eq!(bench.count("samples").await, 3);
    let series = bench
        .ask::<String>(
            "SELECT concat(toString(metric), toString(dimensions), ' ', toString(toInt32(day)), ' ', \
             toString(fp IN (SELECT fp FROM samples))) \
             FROM series ORDER BY metric",
        )
        .await;
    let day = day_of(T0);
    assert_eq!(series, [format!("m{{'a':'x','k':'東京'}} {day} 1"), format!("n{{}} {} 1", day - 1)]);
    assert_eq!(bench.accepted.of(&bench.tenant, i64::from(day_of(NOW))), 4);
    bench.end().await;
}

/// What was written last for a tenant's series and time.
type Written = BTreeMap<(String, String, i64), f64>;

/// Writes a tenant's random batches one after another, each again in full where it is stale.
async fn write_randomly(bench: &Bench, name: &str, seed: u64) -> Written {
    let (mut random, tenant) = (fastrand::Rng::with_seed(seed), Tenant::new(name).unwrap());
    let mut written = Written::new();
    for _ in 0..20 {
        let lookup = bench.writer.lookup(&tenant);
        let rows = (0..random.usize(1..300)).map(|_| {
            let text = format!("m{}{{k=v{}}}", random.u8(0..5), random.u8(0..40));
            (text, T0 - DAY * random.i64(0..3) + random.i64(0..50), random.f64())
        });
        let rows: Vec<(String, i64, f64)> = rows.collect();
        let batch = |by_handle: bool| {
            let mut batch = Batch::new(SeriesLimits::NONE);
            for (text, time, value) in &rows {
                let spelling = lookup.hasher().hash(text.as_bytes());
                let known = lookup.find(spelling).filter(|_| by_handle).map(RowSeries::Known);
                let row = known.unwrap_or_else(|| {
                    let (metric, dimensions) = series(text);
                    batch.describe(NewSeries { metric, dimensions, spelling: Some(spelling) })
                });
                batch.push(row, *time, *value);
            }
            batch
        };
        let outcome = match bench.writer.write(&tenant, batch(true)).await {
            Err(error) if error.kind == ErrorKind::StaleSeries => {
                bench.writer.write(&tenant, batch(false)).await
            }
            outcome => outcome,
        };
        assert_eq!(outcome.unwrap().refused, []);
        written.extend(rows.into_iter().map(|(text, time, value)| ((name.to_owned(), text, time), value)));
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_many_tenants_hold_the_last_of_everything() {
    let bench = Arc::new(Bench::new(|options| options.linger = Duration::from_millis(20)).await);
    let write = |(seed, name): (u64, &'static str)| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { write_randomly(&bench, name, seed).await })
    };
    let mut written = Written::new();
    for task in (0..).zip(["a", "b", "aa", "A", "a-b"]).map(write).collect::<Vec<_>>() {
        written.append(&mut task.await.unwrap());
    }
    let rows = bench
        .ask::<(String, String, i64, f64)>(
            "SELECT toString(tenant), concat(toString(metric), '{k=', of.value, '}'), \
             toUnixTimestamp64Milli(ts), v FROM samples FINAL INNER JOIN \
             (SELECT DISTINCT tenant, metric, fp, dimensions['k'] AS value FROM series) AS of \
             USING (tenant, metric, fp)",
        )
        .await;
    let count = rows.len();
    let stored: Written = rows.into_iter().map(|(tenant, text, time, v)| ((tenant, text, time), v)).collect();
    assert_eq!(count, stored.len());
    assert!(stored == written, "{} stored, {} written", stored.len(), written.len());
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_share_an_insert() {
    let bench = Arc::new(Bench::new(|options| options.linger = Duration::from_millis(200)).await);
    bench.write(&[("m", 0, 0.0)]).await.unwrap();
    let write = |at: i64| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.write(&[("m", at, 1.0), (&format!("m{{k=v{at}}}"), at, 2.0)]).await })
    };
    for task in (1..=50).map(write).collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    assert_eq!((bench.count("samples").await, bench.count("series").await), (101, 51));
    let inserts = bench.writer.inner.inserter.counts.inserts.load(Ordering::Relaxed);
    // Both tables for the first, then once or, were some late, twice for all others.
    assert!((4..=6).contains(&inserts), "{inserts} inserts");
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_series_costs_one_row_a_day() {
    let bench = Bench::new(|_| ()).await;
    bench.write(&[("m{k=v}", 0, 0.0)]).await.unwrap();
    let known = bench.batch(SeriesLimits::NONE, &[("m{k=v}", 1, 1.0)]);
    assert!(known.new_series.is_empty());
    bench.writer.write(&bench.tenant, known).await.unwrap();
    assert_eq!((bench.count("samples").await, bench.count("series").await), (2, 1));
    // Of the next day nothing is known.
    let next = bench.batch(SeriesLimits::NONE, &[("m{k=v}", 2, 2.0), ("m{k=v}", DAY, 3.0)]);
    let error = bench.writer.write(&bench.tenant, next).await.unwrap_err();
    assert_eq!((error.kind, bench.count("samples").await), (ErrorKind::StaleSeries, 2));
    let (metric, dimensions) = series("m{k=v}");
    let mut described = Batch::new(SeriesLimits::NONE);
    let row = described.describe(NewSeries { metric, dimensions, spelling: None });
    described.push(row, T0 + 2, 2.0);
    described.push(row, T0 + DAY, 3.0);
    bench.writer.write(&bench.tenant, described).await.unwrap();
    assert_eq!((bench.count("samples").await, bench.count("series").await), (4, 2));
    assert!(bench.write(&[("m{k=v}", DAY + 1, 4.0)]).await.is_ok(), "by its handle");
    assert_eq!(bench.count("series").await, 2);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_learns_from_the_tables_what_is_there() {
    let limits = SeriesLimits { max_metrics: 1, max_series_per_metric: 2 };
    let first = Bench::new(|_| ()).await;
    first.write(&[("m{k=a}", 0, 0.0), ("m{k=b}", -3 * DAY, 0.0)]).await.unwrap();
    let second = Bench::over(first.options.clone(), first.clock.clone()).await;
    let rows = [("m{k=c}", 0, 1.0), ("m{k=b}", 0, 2.0), ("n", 0, 3.0), ("m{k=a}", 1, 4.0)];
    let outcome = second.writer.write(&second.tenant, second.batch(limits, &rows)).await.unwrap();
    let refused = [(0, Refusal::SeriesLimit { limit: 2 }), (2, Refusal::MetricLimit { limit: 1 })];
    assert_eq!(outcome.refused, refused);
    // a's row of today was there; b's wasn't.
    assert_eq!((second.count("samples").await, second.count("series").await), (4, 3));
    // b's row of three days ago is over with the retention; then it counts no more, and c is no longer one too many.
    second.clock.set(NOW + 16 * DAY);
    let rows = [("m{k=b}", 16 * DAY, 1.0), ("m{k=c}", 16 * DAY, 1.0), ("m{k=d}", 16 * DAY, 1.0)];
    let batch = second.batch(limits, &rows[1..]);
    assert_eq!(second.writer.write(&second.tenant, batch).await.unwrap().refused, []);
    second.writer.close().await;
    first.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_without_limits_counts_where_there_are_some() {
    let bench = Bench::new(|_| ()).await;
    let limits = SeriesLimits { max_metrics: 2, max_series_per_metric: 2 };
    let within = async |rows: &[(&str, i64, f64)]| {
        bench.writer.write(&bench.tenant, bench.batch(limits, rows)).await.unwrap().refused
    };
    assert_eq!(within(&[("m{k=a}", 0, 1.0)]).await, []);
    bench.write(&[("m{k=b}", 0, 1.0), ("n", 0, 1.0)]).await.unwrap();
    let refused = [(0, Refusal::SeriesLimit { limit: 2 }), (1, Refusal::MetricLimit { limit: 2 })];
    assert_eq!(within(&[("m{k=c}", 0, 1.0), ("o", 0, 1.0), ("n{k=a}", 0, 1.0)]).await, refused);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_at_once_never_pass_a_limit() {
    let bench = Arc::new(Bench::new(|_| ()).await);
    let limits = SeriesLimits { max_metrics: 2, max_series_per_metric: 10 };
    let write = |at: i64| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let rows: Vec<String> = (0..4).map(|n| format!("m{}{{k=v{}}}", at % 4, at * 4 + n)).collect();
            let rows: Vec<(&str, i64, f64)> = rows.iter().map(|name| (name.as_str(), at, 1.0)).collect();
            bench.writer.write(&bench.tenant, bench.batch(limits, &rows)).await.unwrap().refused.len()
        })
    };
    let mut refused = 0;
    for task in (0..32).map(write).collect::<Vec<_>>() {
        refused += task.await.unwrap();
    }
    assert_eq!(refused, 32 * 4 - 20);
    let counts = bench.ask::<u64>("SELECT uniqExact(fp) FROM series GROUP BY metric").await;
    assert_eq!(counts, [10, 10]);
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_have_more_days_and_rows_than_an_insert() {
    let bench = Bench::new(|options| {
        options.max_batch_rows = 50;
        options.default_retention = 400 * DAY;
    })
    .await;
    let rows: Vec<_> = (0..250).map(|at: i64| ("m", -at * DAY, at as f64)).collect();
    bench.write(&rows).await.unwrap();
    assert_eq!((bench.count("samples").await, bench.count("series").await), (250, 250));
    let many: Vec<_> = (0..120).map(|at: i64| ("n", at, 1.0)).collect();
    bench.write(&many).await.unwrap();
    assert_eq!(bench.count("samples").await, 370);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_block_is_one_part_a_day() {
    let bench = Bench::new(|options| options.max_batch_rows = 500_000).await;
    bench.database.statement("SYSTEM STOP MERGES samples").execute().await.unwrap();
    let rows: Vec<_> = (0..300_000).map(|at: i64| ("m", at - 1_000, at as f64)).collect();
    bench.write(&rows).await.unwrap();
    assert_eq!((bench.count("samples").await, bench.parts("samples").await), (300_000, 2));
    bench.database.statement("SYSTEM START MERGES samples").execute().await.unwrap();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_stores_once() {
    let proxy = Proxy::start(0).await;
    let bench = Bench::new(|options| options.endpoints = vec![proxy.url()]).await;
    let writing = bench.write(&[("m", 0, 1.0), ("m", -DAY, 2.0)]);
    proxy.set(Mode::LoseAnswer);
    let healed = async {
        while bench.writer.inner.inserter.counts.retries.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        proxy.set(Mode::Pass);
    };
    let (outcome, ()) = tokio::join!(writing, healed);
    outcome.unwrap();
    assert_eq!((bench.count("samples").await, bench.count("series").await), (2, 2));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_unavailable_and_then_has_everything_once() {
    let proxy = Proxy::start(0).await;
    let bench = Bench::new(|options| {
        options.endpoints = vec![proxy.url()];
        options.insert_timeout = Duration::from_millis(600);
    })
    .await;
    bench.write(&[("m", 0, 1.0)]).await.unwrap();
    let port = proxy.cut().await;
    let error = bench.write(&[("m", 1, 1.0), ("n", 1, 1.0)]).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unavailable { .. }), "{error:?}");
    assert!(error.message.contains("can't be reached"), "{error:?}");
    let _proxy = Proxy::start(port).await;
    bench.write_until_stored(&[("m", 1, 1.0), ("n", 1, 1.0)]).await;
    assert_eq!((bench.count("samples FINAL").await, bench.count("series FINAL").await), (3, 2));
    assert_eq!(bench.writer.inner.queue.used(), 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_whose_answer_is_lost_lands_before_any_later_one() {
    let proxy = Proxy::start(0).await;
    let bench = Bench::new(|options| {
        options.endpoints = vec![proxy.url()];
        options.insert_timeout = Duration::from_millis(600);
    })
    .await;
    bench.write(&[("m", 0, 1.0)]).await.unwrap();
    proxy.set(Mode::Hang);
    // Its caller hears that it may or may not be stored. The block itself is neither lost nor overtaken.
    let error = bench.write(&[("m", 0, 2.0)]).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unavailable { .. }), "{error:?}");
    let waiting = bench.write_until_stored(&[("m", 0, 3.0)]);
    let healed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.set(Mode::Pass);
    };
    tokio::join!(waiting, healed);
    assert_eq!(bench.samples().await, [format!("acme m {T0} 3")]);
    assert_eq!(bench.writer.inner.queue.used(), 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_when_to_come_again() {
    let proxy = Proxy::start(0).await;
    let bench = Arc::new(
        Bench::new(|options| {
            options.endpoints = vec![proxy.url()];
            options.max_queue_bytes = 4_000;
        })
        .await,
    );
    bench.write(&[("m", 0, 1.0)]).await.unwrap();
    proxy.set(Mode::Hang);
    let write = |at: i64| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.write(&[("m", at, 1.0)]).await })
    };
    let tasks: Vec<_> = (1..20).map(write).collect();
    while bench.writer.inner.queue.room(1_000).is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    proxy.set(Mode::Pass);
    let (mut stored, mut refused) = (1, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => stored += 1,
            Err(error) => {
                assert!(
                    matches!(error.kind, ErrorKind::Overloaded { retry_after } if retry_after >= Duration::from_secs(1))
                );
                refused += 1;
            }
        }
    }
    assert_eq!((bench.count("samples").await, refused > 0), (stored, true));
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_delete_passes_on_the_way_keeps_its_series() {
    let proxy = Proxy::start(0).await;
    let bench = Arc::new(Bench::new(|options| options.endpoints = vec![proxy.url()]).await);
    bench.write(&[("m{k=known}", 0, 1.0)]).await.unwrap();
    proxy.set(Mode::Hang);
    let write = |rows: &'static [(&'static str, i64, f64)]| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.write(rows).await })
    };
    let described = write(&[("m{k=new}", 1, 1.0)]);
    let by_handle = write(&[("m{k=known}", 1, 1.0)]);
    // Neither takes as much alone.
    while bench.writer.inner.queue.used() < 1_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let generation = bench.changes.raise(&bench.tenant).await.unwrap();
    proxy.set(Mode::Pass);
    described.await.unwrap().unwrap();
    let error = by_handle.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::StaleSeries);
    // A delete takes the rows of older generations; the new series has one that it leaves.
    let kept = format!("SELECT toString(dimensions) FROM series WHERE generation >= {generation}");
    assert_eq!(bench.ask::<String>(&kept).await, ["{'k':'new'}"]);
    // What was known is forgotten.
    assert_eq!(bench.batch(SeriesLimits::NONE, &[("m{k=known}", 2, 1.0)]).new_series.len(), 1);
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_stores_what_waits() {
    let bench = Arc::new(Bench::new(|options| options.linger = Duration::from_millis(300)).await);
    bench.write(&[("m", 0, 1.0)]).await.unwrap();
    let own = Arc::clone(&bench);
    let waiting = tokio::spawn(async move { own.write(&[("m", 1, 1.0)]).await });
    while bench.writer.inner.queue.used() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.writer.close().await;
    waiting.await.unwrap().unwrap();
    let error = bench.write(&[("m", 2, 1.0)]).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unavailable { .. }));
    assert_eq!(bench.count("samples").await, 2);
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_before_anything_was_sent_stores_nothing() {
    let bench = Bench::new(|options| options.linger = Duration::from_millis(300)).await;
    bench.write(&[("m", 0, 1.0)]).await.unwrap();
    let limits = SeriesLimits { max_metrics: 2, max_series_per_metric: 9 };
    let batch = bench.batch(limits, &[("n", 0, 1.0)]);
    let given_up = tokio::time::timeout(Duration::from_millis(50), bench.writer.write(&bench.tenant, batch));
    assert!(given_up.await.is_err());
    while bench.writer.inner.queue.used() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Its metric makes room for another.
    let batch = bench.batch(limits, &[("o", 0, 1.0)]);
    assert_eq!(bench.writer.write(&bench.tenant, batch).await.unwrap().refused, []);
    assert_eq!(
        bench.ask::<String>("SELECT DISTINCT toString(metric) FROM series ORDER BY metric").await,
        ["m", "o"]
    );
    bench.end().await;
}
