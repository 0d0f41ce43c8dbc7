//! What the contract and the differential test don't reach: values at the ends of what a number can be,
//! and queries that are stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::rig::{Rig, Row};
use super::{Reader, aggregate, range};
use crate::clickhouse::running::{cancel, running_queries};
use crate::clock::ManualClock;
use crate::memory::MemoryStore;
use crate::model::{
    AggregateQuery, Aggregation, Batch, DimensionLimits, Dimensions, Having, MetricName, NewSeries,
    RangeQuery, Selector, SeriesLimits, Tenant, TimeRange,
};
use crate::store::{ErrorKind, MetricsStore, QueryContext, Result, Retention, RunningQuery};

const NOW: i64 = 1_767_225_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn tenant() -> Tenant {
    Tenant::new("acme").unwrap()
}

fn forever() -> Retention {
    Retention { default: i64::MAX, metrics: Default::default() }
}

fn row(host: &str, time: i64, value: f64) -> Row {
    let dimensions = Dimensions::new([("host", host)], &DimensionLimits::default()).unwrap();
    (MetricName::new("m").unwrap(), dimensions, NOW + time, value)
}

fn selector() -> Selector {
    Selector::new(MetricName::new("m").unwrap(), Vec::new())
}

fn around() -> TimeRange {
    TimeRange::new(NOW - 1_000_000, NOW + 1_000_000).unwrap()
}

fn of(aggregation: Aggregation) -> AggregateQuery {
    AggregateQuery {
        selector: selector(),
        range: around(),
        aggregation,
        max_gap: None,
        group_by: Vec::new(),
        interval: None,
        having: Having::ANY,
        limit: 10,
    }
}

async fn rig() -> Rig {
    Rig::open(Arc::new(ManualClock::new(NOW))).await
}

#[tokio::test]
async fn numbers_at_the_ends_are_those_of_the_model() {
    const ENDS: [f64; 9] = [f64::MAX, f64::MIN, 5e-324, -0.0, 0.0, 1e308, -1e308, 1.0, f64::MIN_POSITIVE];
    let (rig, tenant) = (rig().await, tenant());
    let reader = rig.reader(&tenant, forever());
    let mut random = fastrand::Rng::with_seed(7);
    for round in 1..=20_i64 {
        let model = MemoryStore::new(rig.clock.clone(), i64::MAX);
        rig.execute("TRUNCATE TABLE samples").await;
        let rows: Vec<Row> =
            (0..round).map(|at| row("h", at * 1_000, *random.choice(&ENDS).unwrap())).collect();
        rig.write(&tenant, &rows).await;
        model.write(&tenant, batch(&rows)).await.unwrap();
        for aggregation in
            [Aggregation::P50, Aggregation::P95, Aggregation::Min, Aggregation::Max, Aggregation::Count]
        {
            let (query, context) = (of(aggregation), QueryContext::with_timeout(PATIENCE));
            let (ours, models) = (
                aggregate(&reader, &query, &context).await,
                model.aggregate(&tenant, &query, &context).await,
            );
            let (ours, models) = (ours.unwrap().rows[0].value, models.unwrap().rows[0].value);
            let close = (ours - models).abs() <= 1e-9 * models.abs().max(1.0);
            assert!(close, "{aggregation:?} of {rows:?}: {ours} and {models}");
        }
    }
}

fn batch(rows: &[Row]) -> Batch {
    let mut batch = Batch::new(SeriesLimits::NONE);
    for (metric, dimensions, time, value) in rows {
        let (metric, dimensions) = (metric.clone(), dimensions.clone());
        let series = batch.describe(NewSeries { metric, dimensions, spelling: None });
        batch.push(series, *time, *value);
    }
    batch
}

#[tokio::test]
async fn of_samples_that_share_their_time_the_series_decides_which_are_cut() {
    let (rig, tenant) = (rig().await, tenant());
    let rows: Vec<Row> = (0..9).rev().map(|host| row(&format!("h{host}"), 5, f64::from(host))).collect();
    rig.write(&tenant, &rows).await;
    let query = RangeQuery { selector: selector(), range: around(), having: Having::ANY, limit: 3 };
    let reader = rig.reader(&tenant, forever());
    let answer = range(&reader, &query, &QueryContext::with_timeout(PATIENCE)).await.unwrap();
    let values: Vec<f64> = answer.rows.iter().map(|row| row.value).collect();
    assert_eq!((values, answer.stats.truncated, answer.stats.series_matched), (vec![0.0, 1.0, 2.0], true, 9));
}

/// More series than are few, each with a sample a second.
fn many(value: f64) -> Vec<Row> {
    let times = |host: u32| (0..50).map(move |second| row(&format!("h{host}"), second * 1_000, value));
    (0..20).flat_map(times).collect()
}

#[tokio::test]
async fn samples_of_parts_that_overlap_are_those_written_last() {
    let (rig, tenant) = (rig().await, tenant());
    let reader = rig.reader(&tenant, forever());
    let sum = async || {
        let answer =
            aggregate(&reader, &of(Aggregation::Sum), &QueryContext::with_timeout(PATIENCE)).await.unwrap();
        (answer.rows[0].value, answer.rows[0].count, answer.stats.series_matched)
    };
    rig.write(&tenant, &many(1.0)).await;
    assert_eq!(sum().await, (1_000.0, 1_000, 20));
    // A part beside it that overlaps nothing, then one that overlaps one series by one sample.
    rig.write(&tenant, &[row("h3", 50_000, 2.0), row("h4", 60_000, 2.0)]).await;
    assert_eq!(sum().await, (1_004.0, 1_002, 20));
    rig.write(&tenant, &[row("h7", 49_000, 11.0)]).await;
    assert_eq!(sum().await, (1_014.0, 1_002, 20));
    rig.merge().await;
    assert_eq!(sum().await, (1_014.0, 1_002, 20));
}

#[tokio::test]
async fn a_few_series_samples_are_those_written_last_too() {
    let (rig, tenant) = (rig().await, tenant());
    let reader = rig.reader(&tenant, forever());
    let minutes = |aggregation| AggregateQuery { interval: Some(60_000), ..of(aggregation) };
    let told = async || {
        let context = QueryContext::with_timeout(PATIENCE);
        let query = RangeQuery { selector: selector(), range: around(), having: Having::ANY, limit: 5 };
        let raw = range(&reader, &query, &context).await.unwrap();
        let maximum = aggregate(&reader, &minutes(Aggregation::Max), &context).await.unwrap();
        let median = aggregate(&reader, &of(Aggregation::P50), &context).await.unwrap();
        let raw: Vec<f64> = raw.rows.iter().map(|row| row.value).collect();
        let maximum: Vec<f64> = maximum.rows.iter().map(|row| row.value).collect();
        (raw, maximum, median.rows[0].value, median.stats.series_matched)
    };
    let both = |time, value| [row("a", time, value), row("b", time, value + 1.0)];
    rig.write(&tenant, &[both(0, 1.0), both(60_000, 3.0)].concat()).await;
    assert_eq!(told().await, (vec![1.0, 2.0, 3.0, 4.0], vec![2.0, 4.0], 2.5, 2));
    // Beside the first part one that begins where it ends, then one that overlaps it.
    rig.write(&tenant, &[row("b", 60_001, 8.0)]).await;
    assert_eq!(told().await, (vec![1.0, 2.0, 3.0, 4.0, 8.0], vec![2.0, 8.0], 3.0, 2));
    rig.write(&tenant, &[row("b", 0, 0.5), row("b", 60_000, 9.0)]).await;
    assert_eq!(told().await, (vec![1.0, 0.5, 3.0, 9.0, 8.0], vec![1.0, 9.0], 3.0, 2));
}

#[tokio::test]
async fn a_cut_answer_of_few_series_tells_what_it_would_have_read() {
    let (rig, tenant) = (rig().await, tenant());
    rig.write(&tenant, &(0..30).map(|second| row("a", second * 1_000, 1.0)).collect::<Vec<_>>()).await;
    rig.write(&tenant, &[row("b", 29_000, 1.0)]).await;
    let (query, reader) = (
        RangeQuery { selector: selector(), range: around(), having: Having::ANY, limit: 2 },
        rig.reader(&tenant, forever()),
    );
    let mut context = QueryContext::with_timeout(PATIENCE);
    let stats = range(&reader, &query, &context).await.unwrap().stats;
    assert_eq!((stats.points_scanned, stats.series_matched, stats.truncated), (31, 2, true));
    context.max_scanned_samples = 30;
    assert_eq!(range(&reader, &query, &context).await.unwrap_err().kind, ErrorKind::QueryTooLarge);
}

#[tokio::test]
async fn samples_that_are_being_written_again_never_count_twice() {
    let (rig, tenant) = (rig().await, tenant());
    let reader = rig.reader(&tenant, forever());
    rig.write(&tenant, &many(1.0)).await;
    let done = std::cell::Cell::new(false);
    let writer = async {
        for _ in 0..30 {
            rig.merge().await;
            rig.write(&tenant, &many(1.0)).await;
        }
        done.set(true);
    };
    let asker = async {
        while !done.get() {
            let context = QueryContext::with_timeout(PATIENCE);
            let answer = aggregate(&reader, &of(Aggregation::Count), &context).await.unwrap();
            assert_eq!(answer.rows[0].count, 1_000);
        }
    };
    tokio::join!(writer, asker);
}

/// A query that takes a minute.
async fn slow(reader: &Reader<'_>, context: &QueryContext) -> Result<Vec<u64>> {
    let text = "SELECT toUInt64(sleepEachRow(0.05)) AS slept FROM numbers(1200) SETTINGS max_block_size = 1";
    reader.ask(reader.database.statement(text), context).await
}

/// What runs, once as many queries run as wanted.
async fn running(rig: &Rig, tenant: &Tenant, wanted: usize) -> Vec<RunningQuery> {
    loop {
        let running = running_queries(&rig.database, &rig.dialect, tenant).await.unwrap();
        if running.len() == wanted {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn named(id: &str) -> QueryContext {
    QueryContext { id: id.to_owned(), ..QueryContext::with_timeout(PATIENCE) }
}

#[tokio::test]
async fn a_running_query_is_listed_and_cancelled_by_its_id() {
    let (rig, tenant) = (rig().await, Tenant::new("asks").unwrap());
    let (reader, context) = (rig.reader(&tenant, forever()), named("a:query"));
    let cancelled = async {
        assert_eq!(running(&rig, &tenant, 1).await[0].id, "a:query");
        let stop = async |who: &Tenant, id| cancel(&rig.database, &rig.dialect, who, id).await.unwrap();
        assert!(!stop(&tenant, "a").await && !stop(&Tenant::new("ask").unwrap(), "a:query").await);
        assert!(stop(&tenant, "a:query").await);
    };
    let (answer, ()) = tokio::join!(slow(&reader, &context), cancelled);
    assert_eq!(answer.unwrap_err().kind, ErrorKind::Cancelled);
    running(&rig, &tenant, 0).await;
}

#[tokio::test]
async fn a_query_that_nobody_waits_for_stops_on_the_server() {
    let (rig, tenant) = (rig().await, Tenant::new("leaves").unwrap());
    let (reader, context) = (rig.reader(&tenant, forever()), named("dropped"));
    tokio::select! {
        answer = slow(&reader, &context) => panic!("a minute passed: {answer:?}"),
        _ = running(&rig, &tenant, 1) => {}
    }
    running(&rig, &tenant, 0).await;
    let context = named("cancelled");
    let cancelled = async {
        running(&rig, &tenant, 1).await;
        context.cancel.cancel();
    };
    let (answer, ()) = tokio::join!(slow(&reader, &context), cancelled);
    assert_eq!(answer.unwrap_err().kind, ErrorKind::Cancelled);
    running(&rig, &tenant, 0).await;
    let late = QueryContext { deadline: Instant::now() + Duration::from_millis(300), ..named("late") };
    assert_eq!(slow(&reader, &late).await.unwrap_err().kind, ErrorKind::Timeout);
    running(&rig, &tenant, 0).await;
}
