//! UTC days, and small sets of them.

/// Milliseconds of a day.
pub const DAY: i64 = 86_400_000;
/// How many days back from its newest a [`Days`] reaches.
const SPAN: i32 = 64;

/// The UTC day of `time` (Unix milliseconds), counted from the epoch.
#[must_use]
pub fn day_of(time: i64) -> i32 {
    let day = time.div_euclid(DAY);
    i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX })
}

/// A set of days that forgets those 64 or more before its newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Days {
    /// Bit n is the day `newest − n`.
    mask: u64,
    newest: i32,
}

impl Days {
    /// The set whose bit n is the day `newest − n`.
    #[must_use]
    pub fn from_mask(newest: i32, mask: u64) -> Self {
        Self { mask, newest }
    }

    /// Whether `day` is in it.
    #[must_use]
    pub fn contains(&self, day: i32) -> bool {
        let back = self.newest.wrapping_sub(day);
        (0..SPAN).contains(&back) && self.mask >> back & 1 == 1
    }

    /// Puts `day` in, where it isn't too old.
    pub fn insert(&mut self, day: i32) {
        if self.mask == 0 {
            *self = Self { mask: 1, newest: day };
        } else if day > self.newest {
            let shift = u32::try_from(day.saturating_sub(self.newest)).unwrap_or(u32::MAX);
            self.mask = self.mask.checked_shl(shift).unwrap_or(0) | 1;
            self.newest = day;
        } else if self.newest.saturating_sub(day) < SPAN {
            self.mask |= 1 << (self.newest - day);
        }
    }

    /// Puts all of `other` in.
    pub fn extend(&mut self, other: Self) {
        let days = (0..SPAN).filter(|back| other.mask >> back & 1 == 1);
        days.for_each(|back| self.insert(other.newest.saturating_sub(back)));
    }

    /// Whether a day from `first` on is in it.
    #[must_use]
    pub fn reaches(&self, first: i32) -> bool {
        self.mask != 0 && self.newest.saturating_sub(self.mask.trailing_zeros() as i32) >= first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_also_before_the_epoch() {
        assert_eq!([-1, 0, DAY - 1, DAY].map(day_of), [-1, 0, 0, 1]);
        assert_eq!([i64::MIN, i64::MAX].map(day_of), [i32::MIN, i32::MAX]);
    }

    #[test]
    fn days_are_kept_while_they_are_near_the_newest() {
        let mut days = Days::default();
        assert!(!days.contains(0) && !days.reaches(i32::MIN));
        for day in [100, 37, 36, 99, 200, -5] {
            days.insert(day);
        }
        // 200 has put 137 and everything before it out of reach.
        let held: Vec<_> = (-10..250).filter(|day| days.contains(*day)).collect();
        assert_eq!(held, [200]);
        days.insert(137);
        days.insert(136);
        assert!(days.contains(137) && !days.contains(136));
        assert!(days.reaches(200) && !days.reaches(201));
        for extreme in [i32::MIN, i32::MAX] {
            days.insert(extreme);
        }
        assert!(days.contains(i32::MAX) && !days.contains(200) && !days.contains(i32::MIN));
    }

    #[test]
    fn a_set_takes_another_in() {
        let mut days = Days::from_mask(10, 0b101);
        days.extend(Days::from_mask(12, 0b11));
        let held: Vec<_> = (0..20).filter(|day| days.contains(*day)).collect();
        assert_eq!(held, [8, 10, 11, 12]);
        days.extend(Days::default());
        assert!(days.reaches(12));
    }
}
