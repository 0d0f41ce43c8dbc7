//! What a kill right after the last acknowledgement costs: samples, and time until the next answer.

use std::time::Duration;

use luminate_tests::bench::compare::{Comparison, Row};
use luminate_tests::bench::data::{METRICS, Shape};
use luminate_tests::bench::encode::{Encoder, Protocol};
use luminate_tests::bench::engine::{Engine, Kind};
use luminate_tests::bench::fleet::{Fleet, STEP};
use luminate_tests::bench::load;
use luminate_tests::bench::report::{Better, short};
use luminate_tests::client::now;
use luminate_tests::http::percent;
use serde_json::json;

use crate::Plan;

const SERIES: usize = 40_000;
const ROUNDS: usize = 250;
const ROUNDS_OF_A_REQUEST: usize = 10;
const CONNECTIONS: usize = 4;

/// Kills every engine.
pub fn measure(comparison: &mut Comparison, plan: &Plan) {
    let series = plan.size.of(SERIES);
    let samples = series * ROUNDS;
    println!("recovery: kill -9 with {} samples of {series} series acknowledged", short(samples as f64));
    let start = now() / STEP * STEP - STEP * (ROUNDS as i64 + 6);
    let mut fleet = Fleet::new(series, Shape::Decimals, start, 9);
    let mut encoder = Encoder::with_batch(Protocol::RemoteWrite, 10_000);
    let bodies = encoder.next(&mut fleet, ROUNDS_OF_A_REQUEST, ROUNDS / ROUNDS_OF_A_REQUEST);
    let mut speed = Row::new("recovery", "samples of the log read again", "/s/core", Better::More);
    let mut wall = Row::new("restart", "from a kill until ready", "s", Better::Less);
    let mut lost = Row::new("restart", "acknowledged samples that a kill loses", "%", Better::Less);
    for _ in 0..plan.runs {
        for kind in &plan.engines {
            let mut engine = Engine::start(*kind);
            let endpoint = kind.endpoint(Protocol::RemoteWrite).expect("all take it");
            let sent = load::send_rounds(&engine, CONNECTIONS, endpoint, &bodies, Duration::MAX).samples;
            let (cpu, seconds) = engine.crash();
            let found = count(&engine, start);
            println!(
                "    {}: {found} of {sent} samples after {seconds:.1} s, {cpu:.1} s of processor time",
                kind.name()
            );
            // Without a log there is nothing to read again.
            if *kind != Kind::VictoriaMetrics {
                speed.push(*kind, found as f64 / cpu);
            }
            wall.push(*kind, seconds);
            lost.push(*kind, 100.0 * sent.saturating_sub(found) as f64 / sent as f64);
        }
    }
    [speed, wall, lost].into_iter().for_each(|row| comparison.add(row));
}

/// How many samples it has since `start`.
fn count(engine: &Engine, start: i64) -> usize {
    let end = now();
    let counts = METRICS.iter().map(|metric| match engine.kind() {
        Kind::Luminate => {
            let answer = engine.client().query(&json!({"queryType": "aggregate", "metricName": metric,
                "aggregation": "count", "timeRange": {"start": start, "end": end + 1}, "timeout": "30s"}));
            answer.expect(200)["results"][0]["value"].as_f64().unwrap_or(0.0) as usize
        }
        _ => {
            let (seconds, time) = ((end - start) / 1_000 + 1, end as f64 / 1e3);
            let query = percent(&format!("sum(count_over_time({metric}[{seconds}s]))"));
            let path = format!("/api/v1/query?query={query}&time={time}");
            let value = &engine.get(&path).json()["data"]["result"][0]["value"][1];
            value.as_str().and_then(|count| count.parse::<f64>().ok()).unwrap_or(0.0) as usize
        }
    });
    counts.sum()
}
