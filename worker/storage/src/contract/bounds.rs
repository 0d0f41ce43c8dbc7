//! How long a query may work, and on how much.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Aggregation::{Avg, P95, Sum};
use crate::model::{Having, Query, RangeQuery, Selector, SeriesLimits, TimeRange};
use crate::store::{ErrorKind, QueryContext, StoreError};

use super::trial::{SECOND, T0, Trial, list, metric};

async fn some_samples(t: &mut Trial) {
    let rows: Vec<_> = (0..500).map(|at: i32| ("m", i64::from(at) * SECOND, f64::from(at))).collect();
    t.write(&rows).await;
}

fn bounds() -> QueryContext {
    QueryContext::with_timeout(Duration::from_secs(60))
}

/// How each type of query over [`some_samples`] fails within `context`.
async fn failures(t: &Trial, context: &QueryContext) -> [StoreError; 4] {
    let ask = || t.ask("m").every(7_000).within(context.clone());
    [
        ask().range_answer().await.unwrap_err(),
        ask().aggregate_answer(Avg).await.unwrap_err(),
        ask().aggregate_answer(P95).await.unwrap_err(),
        ask().rate_answer().await.unwrap_err(),
    ]
}

pub async fn a_cancelled_query_stops(t: &mut Trial) {
    some_samples(t).await;
    let context = bounds();
    context.cancel.cancel();
    for error in failures(t, &context).await {
        assert_eq!((&error.kind, error.retryable()), (&ErrorKind::Cancelled, false));
    }
}

pub async fn a_query_past_its_deadline_stops(t: &mut Trial) {
    some_samples(t).await;
    let mut context = bounds();
    context.deadline = Instant::now();
    for error in failures(t, &context).await {
        assert_eq!((&error.kind, error.retryable()), (&ErrorKind::Timeout, false));
    }
}

pub async fn a_query_may_scan_so_many_samples(t: &mut Trial) {
    some_samples(t).await;
    for _ in 0..2 {
        let limited = |most| {
            let mut context = bounds();
            context.max_scanned_samples = most;
            t.ask("m").within(context)
        };
        let error = limited(499).range_answer().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::QueryTooLarge);
        assert!(error.message.contains("499"), "the limit is named: {error}");
        assert_eq!(limited(10).aggregate_answer(P95).await.unwrap_err().kind, ErrorKind::QueryTooLarge);
        assert!(limited(1_000_000).range_answer().await.is_ok());
        t.settle().await;
    }
}

pub async fn a_query_may_hold_so_much(t: &mut Trial) {
    some_samples(t).await;
    let mut context = bounds();
    context.max_memory = 100;
    let ask = || t.ask("m").within(context.clone());
    let error = ask().range_answer().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::QueryTooLarge);
    assert!(error.message.contains("100"), "the limit is named: {error}");
    assert_eq!(ask().aggregate_answer(P95).await.unwrap_err().kind, ErrorKind::QueryTooLarge);
}

pub async fn a_query_counts_what_it_scans(t: &mut Trial) {
    some_samples(t).await;
    let context = bounds();
    let answer = t.ask("m").within(context.clone()).range_answer().await.unwrap();
    assert!(answer.stats.points_scanned >= 500);
    assert!(context.scanned.load(std::sync::atomic::Ordering::Relaxed) >= 500);
}

pub async fn a_closed_store_is_unavailable(t: &mut Trial) {
    some_samples(t).await;
    t.store().close().await.unwrap();
    let selector = Selector::new(metric("m"), Vec::new());
    let range =
        RangeQuery { selector, range: TimeRange::new(T0, T0 + 1).unwrap(), having: Having::ANY, limit: 1 };
    let errors = [
        t.store().write(&t.tenant, t.batch(SeriesLimits::NONE, &[("m", 0, 1.0)])).await.unwrap_err(),
        t.ask("m").range_answer().await.unwrap_err(),
        t.ask("m").aggregate_answer(Sum).await.unwrap_err(),
        t.ask("m").every(1_000).rate_answer().await.unwrap_err(),
        t.store().explain(&t.tenant, &Query::Range(range)).await.unwrap_err(),
        t.store().list_metrics(&t.tenant, &list("", None, 1)).await.unwrap_err(),
        t.store().delete_before(&t.tenant, &metric("m"), None, false).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error.kind, ErrorKind::Unavailable { .. }), "{error:?}");
    }
    assert!(!t.store().health().await.healthy());
}
