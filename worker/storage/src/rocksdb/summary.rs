//! What a series did in one UTC hour: enough to answer most questions without decoding samples.

/// Milliseconds of an hour: summaries are kept per UTC hour.
pub const HOUR: i64 = 3_600_000;

/// One series in one UTC hour, over at least one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HourSummary {
    /// Start of the hour, Unix milliseconds, a multiple of [`HOUR`].
    pub hour: i64,
    /// Samples, ≥ 1.
    pub count: u32,
    /// Sum of values.
    pub sum: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value of the first sample.
    pub first: f64,
    /// Value of the last sample.
    pub last: f64,
    /// Unix milliseconds of the first sample.
    pub first_time: i64,
    /// Unix milliseconds of the last sample.
    pub last_time: i64,
    /// Sum of the counter steps between samples of this hour (a fall counts the new value).
    pub increase: f64,
    /// Trapezoids between samples of this hour, in value × seconds.
    pub integral: f64,
}

/// What a question wants of an hour besides its count and times. Of a summary that is read, all other values are NaN:
/// they may not have been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing else.
    Count,
    /// The sum.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The increase, and the values of the first and last sample, to join it to those before and after.
    Increase,
    /// The integral, and the same two.
    Integral,
    /// Everything.
    All,
}

impl HourSummary {
    /// Summarises the samples of one hour: equally long, ascending in time, at least one.
    #[must_use]
    pub fn of(times: &[i64], values: &[f64]) -> Self {
        debug_assert!(!times.is_empty() && times.len() == values.len());
        let mut summary = Self {
            hour: times[0].div_euclid(HOUR) * HOUR,
            count: u32::try_from(times.len()).unwrap_or(u32::MAX),
            sum: values[0],
            min: values[0],
            max: values[0],
            first: values[0],
            last: values[values.len() - 1],
            first_time: times[0],
            last_time: times[times.len() - 1],
            increase: 0.0,
            integral: 0.0,
        };
        for at in 1..times.len() {
            let (before, value) = (values[at - 1], values[at]);
            summary.sum += value;
            summary.min = summary.min.min(value);
            summary.max = summary.max.max(value);
            summary.increase += step(before, value);
            summary.integral += trapezoid(times[at - 1], before, times[at], value);
        }
        summary
    }
}

/// What a counter that went from `before` to `after` counted: the difference, or `after` after a reset.
#[must_use]
pub fn step(before: f64, after: f64) -> f64 {
    if after < before { after } else { after - before }
}

/// Value × seconds under the straight line between two samples (times in milliseconds).
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a span of milliseconds is far below 2^53")]
pub fn trapezoid(start: i64, from: f64, end: i64, to: f64) -> f64 {
    (from / 2.0 + to / 2.0) * ((end - start) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_resets_and_area() {
        let times = [HOUR, HOUR + 1_000, HOUR + 3_000];
        let summary = HourSummary::of(&times, &[4.0, 6.0, 1.0]);
        assert_eq!((summary.hour, summary.count, summary.sum), (HOUR, 3, 11.0));
        assert_eq!((summary.min, summary.max, summary.first, summary.last), (1.0, 6.0, 4.0, 1.0));
        assert_eq!((summary.first_time, summary.last_time), (HOUR, HOUR + 3_000));
        assert_eq!(summary.increase, 2.0 + 1.0);
        assert_eq!(summary.integral, 5.0 + 7.0);
    }
}
