//! What the benchmarks share: made-up fleets, their bodies, loads and what they cost, peers, figures beside their
//! goals.

pub mod compare;
pub mod data;
pub mod encode;
pub mod engine;
pub mod fleet;
pub mod load;
pub mod page;
pub mod plot;
pub mod questions;
pub mod report;

/// The middle of `times`.
#[must_use]
pub fn median(times: &[f64]) -> f64 {
    quantile(times, 0.5)
}

/// What 95 of 100 stay below.
#[must_use]
pub fn p95(times: &[f64]) -> f64 {
    quantile(times, 0.95)
}

/// What 99 of 100 stay below.
#[must_use]
pub fn p99(times: &[f64]) -> f64 {
    quantile(times, 0.99)
}

fn quantile(times: &[f64], quantile: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * quantile).round() as usize]
}
