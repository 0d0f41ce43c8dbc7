//! When two answers agree.

use std::fmt::Debug;

use crate::memory::Weighed;
use crate::model::{AggregateRow, Aggregation, Answer, RangeRow, RateRow};

/// Of what a sum's terms amount to, this share may be lost: summing in another order costs that.
const TOLERANCE: f64 = 1e-9;

/// Where two answers differ: what the subject says there, and what the model says.
pub type Mismatch = (String, String);

/// Whether two numbers are equal within the tolerance for `scale`; both overflowed counts as equal.
pub fn close(left: f64, right: f64, scale: f64) -> bool {
    if !left.is_finite() || !right.is_finite() {
        return !left.is_finite() && !right.is_finite();
    }
    (left - right).abs() <= TOLERANCE * scale.max(1.0)
}

/// Raw samples are equal bit by bit.
pub fn range(subject: &Answer<RangeRow>, model: &Answer<RangeRow>) -> Result<(), Mismatch> {
    rows(subject, model, |left, right| left == right && left.value.to_bits() == right.value.to_bits())
}

/// Aggregates are equal but for the last digits of what was added up.
pub fn aggregate(
    subject: &Answer<AggregateRow>,
    model: &Answer<Weighed<AggregateRow>>,
    aggregation: Aggregation,
) -> Result<(), Mismatch> {
    let exact = matches!(aggregation, Aggregation::Count | Aggregation::Min | Aggregation::Max);
    rows(subject, model, |left, Weighed { row: right, scale }| {
        let value = if exact { left.value == right.value } else { close(left.value, right.value, *scale) };
        value && left.group == right.group && left.timestamp == right.timestamp && left.count == right.count
    })
}

/// Rates are equal but for the last digits.
pub fn rate(subject: &Answer<RateRow>, model: &Answer<Weighed<RateRow>>) -> Result<(), Mismatch> {
    rows(subject, model, |left, Weighed { row: right, scale }| {
        let rate = close(left.rate, right.rate, *scale);
        rate && left.group == right.group && left.timestamp == right.timestamp
    })
}

fn rows<Left: Debug, Right: Debug>(
    subject: &Answer<Left>,
    model: &Answer<Right>,
    agree: impl Fn(&Left, &Right) -> bool,
) -> Result<(), Mismatch> {
    let pairs = subject.rows.iter().zip(&model.rows);
    let shared = pairs.take_while(|(left, right)| agree(left, right)).count();
    if shared < subject.rows.len().max(model.rows.len()) {
        return Err((row(&subject.rows, shared), row(&model.rows, shared)));
    }
    let stats = |stats: &crate::model::QueryStats| (stats.series_matched, stats.truncated);
    let (left, right) = (stats(&subject.stats), stats(&model.stats));
    let text = |(matched, truncated)| format!("series matched {matched}, truncated {truncated}");
    if left == right { Ok(()) } else { Err((text(left), text(right))) }
}

fn row<Row: Debug>(rows: &[Row], at: usize) -> String {
    let row = rows.get(at).map_or("no row".to_owned(), |row| format!("{row:?}"));
    format!("{} rows, number {at} {row}", rows.len())
}

/// Anything else is equal or it isn't.
pub fn equal<T: Debug + PartialEq>(subject: &T, model: &T) -> Result<(), Mismatch> {
    if subject == model { Ok(()) } else { Err((format!("{subject:?}"), format!("{model:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_is_relative_to_the_terms_and_at_least_absolute() {
        assert!(close(1.0, 1.0 + 9e-10, 0.0) && !close(1.0, 1.0 + 2e-9, 0.0));
        assert!(close(0.0, 9e-4, 1e6) && !close(0.0, 2e-3, 1e6));
        assert!(close(f64::INFINITY, f64::NAN, 1.0) && !close(f64::INFINITY, f64::MAX, 1.0));
    }
}
