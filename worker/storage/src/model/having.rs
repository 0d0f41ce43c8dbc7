//! What the number of a row must be for the row to be in an answer.

use std::fmt;

/// Bounds on the number of a row (a sample's value, an aggregate, a rate), all of which must hold; finite ones.
///
/// A number that isn't finite, because it overflowed, is within no bound; without bounds every row is in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Having {
    /// Greater than this.
    pub gt: Option<f64>,
    /// Greater than or equal to this.
    pub gte: Option<f64>,
    /// Less than this.
    pub lt: Option<f64>,
    /// Less than or equal to this.
    pub lte: Option<f64>,
}

/// Its bounds are finite, so each equals itself.
impl Eq for Having {}

impl Having {
    /// No bounds: every row is in the answer.
    pub const ANY: Self = Self { gt: None, gte: None, lt: None, lte: None };

    /// Whether there is no bound.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::ANY
    }

    /// Whether a row with this number is in the answer.
    #[must_use]
    pub fn admits(&self, number: f64) -> bool {
        self.is_any()
            || number.is_finite()
                && self.gt.is_none_or(|bound| number > bound)
                && self.gte.is_none_or(|bound| number >= bound)
                && self.lt.is_none_or(|bound| number < bound)
                && self.lte.is_none_or(|bound| number <= bound)
    }

    /// The bounds that there are, each with its name and its sign.
    pub fn bounds(&self) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
        let named =
            [("gt", ">", self.gt), ("gte", ">=", self.gte), ("lt", "<", self.lt), ("lte", "<=", self.lte)];
        named.into_iter().filter_map(|(name, sign, bound)| Some((name, sign, bound?)))
    }
}

impl fmt::Display for Having {
    /// In words, for a plan: `> 90 and <= 95`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds: Vec<String> = self.bounds().map(|(_, sign, bound)| format!("{sign} {bound}")).collect();
        formatter.write_str(&bounds.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_must_hold() {
        let all = |having: Having| {
            let numbers = [f64::NEG_INFINITY, -1.0, 0.0, 1.0, 2.0, 3.0, f64::INFINITY, f64::NAN];
            numbers
                .into_iter()
                .filter(|number| having.admits(*number))
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(all(Having::ANY).len(), 8);
        assert_eq!(all(Having { gt: Some(1.0), ..Having::ANY }), ["2", "3"]);
        assert_eq!(all(Having { gte: Some(1.0), ..Having::ANY }), ["1", "2", "3"]);
        assert_eq!(all(Having { lt: Some(1.0), ..Having::ANY }), ["-1", "0"]);
        assert_eq!(all(Having { lte: Some(1.0), ..Having::ANY }), ["-1", "0", "1"]);
        assert_eq!(all(Having { gt: Some(0.0), gte: Some(1.0), lt: Some(3.0), lte: Some(9.0) }), ["1", "2"]);
        assert_eq!(all(Having { gt: Some(1.0), lt: Some(1.0), ..Having::ANY }), [""; 0]);
    }

    #[test]
    fn bounds_in_words() {
        let having = Having { gt: Some(90.0), lte: Some(95.5), ..Having::ANY };
        assert_eq!(having.to_string(), "> 90 and <= 95.5");
    }
}
