//! The body of a question: what is accepted keeps to every limit, and a tree of the same text asks the same.

use luminate_crds::worker_config::QueryLimits;
use luminate_storage::model::Query;
use luminate_worker::routes::query::body::{QueryBody, Question};

use crate::memory;
use crate::rows::NOW;

/// Words of such bodies.
pub const WORDS: &[&str] = &[
    "\"queryType\":",
    "\"range\"",
    "\"aggregate\"",
    "\"rate\"",
    "\"metricName\":",
    "\"timeRange\":",
    "\"start\":",
    "\"end\":",
    "\"relative\":",
    "\"filters\":",
    "\"filtersIn\":",
    "\"having\":",
    "\"gt\":",
    "\"lte\":",
    "\"aggregation\":",
    "\"integral\"",
    "\"p95\"",
    "\"groupBy\":",
    "\"interval\":",
    "\"maxGap\":",
    "\"limit\":",
    "\"layout\":",
    "\"series\"",
    "\"timeout\":",
    "\"5m\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"36525d\"",
];

/// Reads and checks a body.
pub fn check(text: &[u8]) {
    let limits = QueryLimits::default();
    let question = memory::within((1 << 20) + 64 * text.len(), || {
        let body: QueryBody = serde_json::from_slice(text).ok()?;
        body.check(&limits, NOW).ok()
    });
    let Some(question) = question else { return };
    keeps_to(&question, &limits);
    let Ok(tree) = serde_json::from_slice::<serde_json::Value>(text) else { return };
    let body: QueryBody = serde_json::from_value(tree).expect("a tree of what was read");
    assert_eq!(sorted(body.check(&limits, NOW).expect("what was accepted")), sorted(question));
}

fn keeps_to(question: &Question, limits: &QueryLimits) {
    let range = question.query.range();
    assert!(range.start() < range.end() && range.millis() <= limits.max_range.millis() + 1);
    assert!(question.timeout <= limits.max_timeout.duration());
    let (limit, interval, keys) = match &question.query {
        Query::Range(query) => (query.limit, None, 0),
        Query::Aggregate(query) => (query.limit, query.interval, query.group_by.len()),
        Query::Rate(query) => (query.limit, Some(query.interval), query.group_by.len()),
    };
    assert!((1..=limits.max_result_points as usize).contains(&limit));
    assert!(question.query.having().bounds().all(|(_, _, bound)| bound.is_finite()));
    assert!(interval.is_none_or(|interval| interval > 0) && keys <= limits.max_group_by as usize);
}

/// A tree has its members in another order.
fn sorted(mut question: Question) -> Question {
    let selector = match &mut question.query {
        Query::Range(query) => &mut query.selector,
        Query::Aggregate(query) => &mut query.selector,
        Query::Rate(query) => &mut query.selector,
    };
    selector.filters.sort();
    selector.filters_in.sort();
    question
}

/// Questions of each kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"queryType":"aggregate","metricName":"m","timeRange":{"relative":"1h"},"aggregation":"p95","groupBy":["a","b"],"interval":"5m","filters":{"k":"v","c":"d"},"timeout":"250ms"}"#,
        r#"{"queryType":"range","metricName":"m","timeRange":{"start":"2026-01-01T00:00:00Z","end":1767225600005},"limit":10}"#,
        r#"{"queryType":"rate","metricName":"m","timeRange":{"start":1767225600000,"end":1767225900001}}"#,
        r#"{"queryType":"aggregate","metricName":"m","timeRange":{"relative":"90d"},"aggregation":"integral","maxGap":"1m"}"#,
        r#"{"queryType":"range","metricName":"m","timeRange":{"relative":"1h"},"filtersIn":{"h":["a","b"],"c":["d"]},"having":{"gt":90,"lte":95.5}}"#,
    ];
    bodies.map(|body| body.as_bytes().to_vec()).into()
}
