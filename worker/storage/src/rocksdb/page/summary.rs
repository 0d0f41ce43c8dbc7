//! The summary of a page: which series it holds, when each has samples, and what each did per hour.

use std::ops::Range;

use crate::rocksdb::codec::{
    Buffers, Bytes, Effort, Encoder, decode_first_values, decode_integers, put_varint, snapped,
};
use crate::rocksdb::summary::{HOUR, HourSummary, Wanted};
use crate::store::{Result, StoreError};

use super::{SUMMARISED_FROM, VERSION};

/// More than a page can hold, so that a damaged count is found before memory is taken for it.
const MAX_SERIES: usize = 1 << 16;
const MAX_ROWS: usize = 1 << 21;
/// More than an hour of a series takes, as a rule.
const ROW_BYTES: usize = 16;
/// Low bits of sums that are no decimals are dropped: they say less than the 1e-9 to which answers are exact.
const DROPPED: u64 = 0xFF;
/// How close an integral must be to what follows from the sum, relative to its terms.
const INTEGRAL_TOLERANCE: f64 = 1e-13;
const INCREASE_TOLERANCE: f64 = 1e-12;

/// The stored columns, each of which may follow from those before.
const COLUMNS: usize = 7;
const FIRST: usize = 0;
const LAST: usize = 1;
const MIN: usize = 2;
const MAX: usize = 3;
const SUM: usize = 4;
const INCREASE: usize = 5;
const INTEGRAL: usize = 6;

/// How the rows of a column that follow from others are marked. Persisted, never reused.
const NONE_FOLLOW: u8 = 0;
const ALL_FOLLOW: u8 = 1;
const SOME_FOLLOW: u8 = 2;

/// When the series of one profile have samples in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Start of the hour, Unix milliseconds.
    pub hour: i64,
    /// Samples, ≥ 1.
    pub count: u32,
    /// Unix milliseconds of the first one.
    pub first_time: i64,
    /// Unix milliseconds of the last one.
    pub last_time: i64,
}

/// When the series that share it have samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Samples of each.
    pub samples: u64,
    /// Unix milliseconds of the first one.
    pub first_time: i64,
    /// Unix milliseconds of the last one.
    pub last_time: i64,
    spans: Range<usize>,
}

impl Profile {
    /// Whether there are hour summaries; if not, its series must be decoded.
    #[must_use]
    pub fn is_summarised(&self) -> bool {
        !self.spans.is_empty()
    }
}

/// A row's fields in the order of columns.
type Row = [f64; COLUMNS];

/// What column `at` of a row is if it follows from the columns before and from the row's span.
fn following(at: usize, row: &Row, span: &Span) -> f64 {
    match at {
        LAST => row[FIRST],
        MIN => row[FIRST].min(row[LAST]),
        MAX => row[FIRST].max(row[LAST]),
        SUM => f64::from(span.count) * row[MIN],
        INCREASE => row[LAST] - row[FIRST],
        INTEGRAL => regular_integral(row, span),
        _ => f64::NAN,
    }
}

/// The columns that [`following`] looks at for column `at`.
fn follows_from(at: usize) -> &'static [usize] {
    match at {
        LAST => &[FIRST],
        MIN | MAX | INCREASE => &[FIRST, LAST],
        SUM => &[MIN],
        INTEGRAL => &[FIRST, LAST, SUM],
        _ => &[],
    }
}

/// The integral of evenly spaced samples: of every trapezoid both sides count half.
fn regular_integral(row: &Row, span: &Span) -> f64 {
    let steps = f64::from(span.count.saturating_sub(1).max(1));
    let step = (span.last_time.wrapping_sub(span.first_time)) as f64 / 1_000.0 / steps;
    (row[SUM] - row[FIRST] / 2.0 - row[LAST] / 2.0) * step
}

/// Whether `one` may stand for `other`; nothing may for a sum that overflowed.
fn is_near(one: f64, other: f64, tolerance: f64) -> bool {
    tolerance.is_finite() && (one - other).abs() <= tolerance
}

/// The fields of `summary` as they are stored: equal to them within rounding errors, and short.
fn row_of(summary: &HourSummary, span: &Span, scale: Option<u8>) -> Row {
    let short = |value: f64| match scale.and_then(|scale| snapped(value, scale)) {
        Some(decimal) => decimal,
        None => f64::from_bits(value.to_bits() & !DROPPED),
    };
    let mut row = [0.0; COLUMNS];
    row[FIRST] = summary.first;
    row[LAST] = summary.last;
    row[MIN] = summary.min;
    row[MAX] = summary.max;
    row[SUM] = match summary.count == 1 || summary.min.to_bits() == summary.max.to_bits() {
        true => following(SUM, &row, span),
        false => short(summary.sum),
    };
    let rise = following(INCREASE, &row, span);
    let increase = summary.increase;
    row[INCREASE] = match is_near(rise, increase, INCREASE_TOLERANCE * increase.abs()) {
        true => rise,
        false => short(increase),
    };
    let regular = following(INTEGRAL, &row, span);
    let seconds = (span.last_time - span.first_time) as f64 / 1_000.0;
    let most = summary.max.abs().max(summary.min.abs()) * seconds;
    row[INTEGRAL] = match is_near(regular, summary.integral, INTEGRAL_TOLERANCE * most) {
        true => regular,
        false => f64::from_bits(summary.integral.to_bits() & !DROPPED),
    };
    row
}

/// Collects what a summary says.
#[derive(Debug, Default)]
pub(super) struct SummaryBuilder {
    series: Vec<u32>,
    profile_of: Vec<u32>,
    profiles: Vec<Profile>,
    /// The time columns that make each profile.
    columns_of: Vec<Vec<u32>>,
    spans: Vec<Span>,
    rows: Vec<Row>,
    /// The span of each row.
    span_of: Vec<Span>,
}

impl SummaryBuilder {
    /// Adds a series; equal `columns` mean equal `times`, `scale` is that of all values if they are decimals.
    pub(super) fn push(
        &mut self,
        series: u32,
        columns: Vec<u32>,
        times: &[i64],
        values: &[f64],
        scale: Option<u8>,
    ) {
        let known = self.columns_of.iter().rposition(|known| *known == columns);
        let profile = known.unwrap_or_else(|| {
            self.columns_of.push(columns);
            self.add_profile(times);
            self.profiles.len() - 1
        });
        self.series.push(series);
        self.profile_of.push(profile as u32);
        let mut from = 0;
        for span in &self.spans[self.profiles[profile].spans.clone()] {
            let to = from + span.count as usize;
            let summary = HourSummary::of(&times[from..to], &values[from..to]);
            self.rows.push(row_of(&summary, span, scale));
            self.span_of.push(*span);
            from = to;
        }
    }

    fn add_profile(&mut self, times: &[i64]) {
        let start = self.spans.len();
        for hour in times.chunk_by(|one, other| one.div_euclid(HOUR) == other.div_euclid(HOUR)) {
            self.spans.push(Span {
                hour: hour[0].div_euclid(HOUR) * HOUR,
                count: u32::try_from(hour.len()).unwrap_or(u32::MAX),
                first_time: hour[0],
                last_time: hour[hour.len() - 1],
            });
        }
        if times.len() < SUMMARISED_FROM * (self.spans.len() - start) {
            self.spans.truncate(start);
        }
        self.profiles.push(Profile {
            samples: times.len() as u64,
            first_time: times[0],
            last_time: times[times.len() - 1],
            spans: start..self.spans.len(),
        });
    }

    pub(super) fn size(&self) -> usize {
        2 * self.series.len() + 8 * self.spans.len() + ROW_BYTES * self.rows.len()
    }

    pub(super) fn finish(&self, encoder: &mut Encoder) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0, 0];
        for count in [self.series.len(), self.profiles.len(), self.spans.len(), self.rows.len()] {
            put_varint(&mut out, count as u64);
        }
        let (profiles, spans) = (&self.profiles, &self.spans);
        encoder.integers(self.series.iter().map(|series| i64::from(*series)), &mut out);
        encoder.integers(self.profile_of.iter().map(|profile| i64::from(*profile)), &mut out);
        encoder.integers(profiles.iter().map(|profile| profile.samples.cast_signed()), &mut out);
        encoder.integers(profiles.iter().map(|profile| profile.first_time), &mut out);
        encoder.integers(
            profiles.iter().map(|profile| profile.last_time.wrapping_sub(profile.first_time)),
            &mut out,
        );
        encoder.integers(profiles.iter().map(|profile| profile.spans.len() as i64), &mut out);
        encoder.integers(spans.iter().map(|span| span.hour / HOUR), &mut out);
        encoder.integers(spans.iter().map(|span| i64::from(span.count)), &mut out);
        encoder.integers(spans.iter().map(|span| span.first_time - span.hour), &mut out);
        encoder.integers(spans.iter().map(|span| span.last_time - span.hour), &mut out);
        for at in 0..COLUMNS {
            self.put_column(at, encoder, &mut out);
        }
        let checksum = crc32c::crc32c(&out[5..]);
        out[1..5].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn put_column(&self, at: usize, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let follows = |(row, span): (&Row, &Span)| following(at, row, span).to_bits() == row[at].to_bits();
        let marks: Vec<bool> = self.rows.iter().zip(&self.span_of).map(follows).collect();
        let stored: Vec<f64> =
            self.rows.iter().zip(&marks).filter(|(_, follows)| !**follows).map(|(row, _)| row[at]).collect();
        let mut column = Vec::new();
        if stored.is_empty() {
            column.push(ALL_FOLLOW);
        } else if stored.len() == self.rows.len() {
            column.push(NONE_FOLLOW);
        } else {
            column.push(SOME_FOLLOW);
            let byte =
                |marks: &[bool]| (0..).zip(marks).map(|(bit, mark)| u8::from(*mark) << bit).sum::<u8>();
            column.extend(marks.chunks(8).map(byte));
        }
        encoder.values(&stored, Effort::Seal, &mut column);
        put_varint(out, column.len() as u64);
        out.extend_from_slice(&column);
    }
}

/// Which rows of a column follow from others.
#[derive(Debug, Default)]
enum Follows {
    #[default]
    None,
    All,
    /// A bit for each row and a word more, and how many rows before each word don't follow.
    Some {
        marks: Vec<u64>,
        stored_before: Vec<u32>,
    },
}

impl Follows {
    /// Reads the marks of `rows` rows.
    fn read(bytes: &mut Bytes<'_>, rows: usize) -> Result<Self> {
        match bytes.byte()? {
            NONE_FOLLOW => Ok(Self::None),
            ALL_FOLLOW => Ok(Self::All),
            SOME_FOLLOW => {
                let word = |bytes: &[u8]| {
                    let mut word = [0; 8];
                    word[..bytes.len()].copy_from_slice(bytes);
                    u64::from_le_bytes(word)
                };
                let mut marks: Vec<u64> = bytes.take(rows.div_ceil(8))?.chunks(8).map(word).collect();
                marks.push(0);
                let mut stored = 0;
                let stored_before = marks.iter().map(|word| {
                    let before = stored;
                    stored += word.count_zeros();
                    before
                });
                Ok(Self::Some { stored_before: stored_before.collect(), marks })
            }
            tag => Err(StoreError::corrupt(format!("unknown marks of a column {tag}"))),
        }
    }

    /// How many of the rows before `row` don't follow; it may be the one behind the last.
    fn stored_before(&self, row: usize) -> usize {
        match self {
            Self::None => row,
            Self::All => 0,
            Self::Some { marks, stored_before } => {
                let of_word = !marks[row / 64] & ((1 << (row % 64)) - 1);
                stored_before[row / 64] as usize + of_word.count_ones() as usize
            }
        }
    }

    /// The place of a row's value among those that are stored, unless it follows.
    fn place(&self, row: usize) -> Option<usize> {
        let follows = match self {
            Self::None => false,
            Self::All => true,
            Self::Some { marks, .. } => marks[row / 64] >> (row % 64) & 1 == 1,
        };
        (!follows).then(|| self.stored_before(row))
    }
}

/// A column of values, from the first row on as far as they were asked for.
#[derive(Debug, Default)]
struct Column {
    /// Where it lies in what is packed.
    packed: Range<usize>,
    /// Rows that are known.
    rows: usize,
    follows: Follows,
    /// The values of those that don't follow from other columns.
    stored: Vec<f64>,
}

impl Column {
    /// Reads the values of the first `rows` rows of `all`.
    fn read(&mut self, packed: &[u8], (rows, all): (usize, usize), buffers: &mut Buffers) -> Result<()> {
        let mut bytes = Bytes(&packed[self.packed.clone()]);
        self.follows = Follows::read(&mut bytes, all)?;
        self.stored.resize(self.follows.stored_before(rows), 0.0);
        decode_first_values(bytes.0, self.follows.stored_before(all), &mut self.stored, buffers)?;
        self.rows = rows;
        Ok(())
    }
}

/// A summary, read; its columns of values only when they are asked for, and as far.
#[derive(Debug, Default)]
pub struct PageSummary {
    series: Vec<u32>,
    profile_of: Vec<u32>,
    first_row: Vec<u32>,
    profiles: Vec<Profile>,
    spans: Vec<Span>,
    rows: usize,
    packed: Vec<u8>,
    columns: [Column; COLUMNS],
    buffers: Buffers,
}

impl PageSummary {
    /// Reads a summary.
    ///
    /// # Errors
    /// `Corrupt` for an unknown version, a wrong checksum, or one that contradicts itself.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut bytes = Bytes(bytes);
        let version = bytes.byte()?;
        if version != VERSION {
            return Err(StoreError::corrupt(format!("a summary of unknown version {version}")));
        }
        if bytes.word()? != crc32c::crc32c(bytes.0) {
            return Err(StoreError::corrupt("a summary fails its checksum"));
        }
        let mut summary = Self::default();
        summary.read_times(&mut bytes)?;
        summary.packed = bytes.0.to_vec();
        for column in &mut summary.columns {
            let length = bytes.count(bytes.0.len())?;
            let start = summary.packed.len() - bytes.0.len();
            bytes.take(length)?;
            column.packed = start..start + length;
        }
        Ok(summary)
    }

    fn read_times(&mut self, bytes: &mut Bytes<'_>) -> Result<()> {
        let series = bytes.count(MAX_SERIES)?;
        let profiles = bytes.count(series)?;
        let spans = bytes.count(MAX_ROWS)?;
        self.rows = bytes.count(MAX_ROWS)?;
        let mut take = |count: usize| -> Result<Vec<i64>> {
            let mut integers = vec![0; count];
            decode_integers(bytes, &mut integers, &mut self.buffers)?;
            Ok(integers)
        };
        self.series = take(series)?.into_iter().map(|series| series as u32).collect();
        self.profile_of = take(series)?.into_iter().map(|profile| profile as u32).collect();
        let (samples, firsts, lasts, lengths) =
            (take(profiles)?, take(profiles)?, take(profiles)?, take(profiles)?);
        let mut start = 0_usize;
        for at in 0..profiles {
            let end = start.saturating_add(lengths[at] as usize);
            self.profiles.push(Profile {
                samples: samples[at].cast_unsigned(),
                first_time: firsts[at],
                last_time: firsts[at].wrapping_add(lasts[at]),
                spans: start..end,
            });
            start = end;
        }
        let (hours, counts, firsts, lasts) = (take(spans)?, take(spans)?, take(spans)?, take(spans)?);
        self.spans.extend((0..spans).map(|at| {
            let hour = hours[at].wrapping_mul(HOUR);
            Span {
                hour,
                count: counts[at] as u32,
                first_time: hour.wrapping_add(firsts[at]),
                last_time: hour.wrapping_add(lasts[at]),
            }
        }));
        self.place_rows(start == spans)
    }

    /// Finds each series' first row, and that all refer to what exists.
    fn place_rows(&mut self, spans_fit: bool) -> Result<()> {
        let mut rows = 0_usize;
        for profile in &self.profile_of {
            self.first_row.push(rows as u32);
            let own = self.profiles.get(*profile as usize).map_or(usize::MAX, |profile| profile.spans.len());
            rows = rows.saturating_add(own);
        }
        let sorted = self.series.windows(2).all(|pair| pair[0] < pair[1]);
        match spans_fit && sorted && rows == self.rows {
            true => Ok(()),
            false => Err(StoreError::corrupt("a summary contradicts itself")),
        }
    }

    /// The series, ascending.
    #[must_use]
    pub fn series(&self) -> &[u32] {
        &self.series
    }

    /// When the series at `position` has samples.
    #[must_use]
    pub fn profile(&self, position: usize) -> &Profile {
        &self.profiles[self.profile_of[position] as usize]
    }

    /// The hours in which the series at `position` has samples; none when it must be decoded.
    #[must_use]
    pub fn spans(&self, position: usize) -> &[Span] {
        &self.spans[self.profile(position).spans.clone()]
    }

    /// The value of the first sample in the `nth` of the hours of the series at `position`.
    ///
    /// # Errors
    /// `Corrupt` when the column can't be decoded.
    pub fn first_value(&mut self, position: usize, nth: usize) -> Result<f64> {
        self.value(FIRST, &self.place(position, nth))
    }

    /// The value of the last sample in the `nth` of the hours of the series at `position`.
    ///
    /// # Errors
    /// `Corrupt` when a column can't be decoded.
    pub fn last_value(&mut self, position: usize, nth: usize) -> Result<f64> {
        self.value(LAST, &self.place(position, nth))
    }

    /// The least and the greatest value in the `nth` of the hours of the series at `position`.
    ///
    /// # Errors
    /// `Corrupt` when a column can't be decoded.
    pub fn extremes(&mut self, position: usize, nth: usize) -> Result<(f64, f64)> {
        let place = self.place(position, nth);
        Ok((self.value(MIN, &place)?, self.value(MAX, &place)?))
    }

    /// What the series at `position` did in the `nth` of its hours.
    ///
    /// # Errors
    /// `Corrupt` when a column can't be decoded.
    pub fn hour(&mut self, position: usize, nth: usize, wanted: Wanted) -> Result<HourSummary> {
        let place = self.place(position, nth);
        let mut fields = [f64::NAN; COLUMNS];
        for at in columns_of(wanted) {
            fields[*at] = self.value(*at, &place)?;
        }
        let Span { hour, count, first_time, last_time } = place.span;
        let [first, last, min, max, sum, increase, integral] = fields;
        Ok(HourSummary { hour, count, sum, min, max, first, last, first_time, last_time, increase, integral })
    }

    fn place(&self, position: usize, nth: usize) -> Place {
        let spans = self.profile(position).spans.clone();
        let first = self.first_row[position] as usize;
        Place { row: first + nth, end: first + spans.len(), span: self.spans[spans.start + nth] }
    }

    /// The value of a row of column `at`.
    fn value(&mut self, at: usize, place: &Place) -> Result<f64> {
        self.load(at, place.end)?;
        let column = &self.columns[at];
        if let Some(stored) = column.follows.place(place.row) {
            return Ok(column.stored[stored]);
        }
        let mut fields = [0.0; COLUMNS];
        for before in follows_from(at) {
            fields[*before] = self.value(*before, place)?;
        }
        Ok(following(at, &fields, &place.span))
    }

    /// Sees to it that the first `rows` rows of column `at` are known: who asks for the rows of one series may want no other,
    /// who asks again wants most.
    fn load(&mut self, at: usize, rows: usize) -> Result<()> {
        let column = &mut self.columns[at];
        if rows <= column.rows {
            return Ok(());
        }
        let rows = if column.rows == 0 { rows } else { self.rows };
        column.read(&self.packed, (rows, self.rows), &mut self.buffers)
    }
}

/// A row, and when it is.
struct Place {
    row: usize,
    /// Behind the last row of its series.
    end: usize,
    span: Span,
}

/// The columns that hold what is wanted of an hour.
fn columns_of(wanted: Wanted) -> &'static [usize] {
    match wanted {
        Wanted::Count => &[],
        Wanted::Sum => &[SUM],
        Wanted::Min => &[MIN],
        Wanted::Max => &[MAX],
        Wanted::Increase => &[FIRST, LAST, INCREASE],
        Wanted::Integral => &[FIRST, LAST, INTEGRAL],
        Wanted::All => &[FIRST, LAST, MIN, MAX, SUM, INCREASE, INTEGRAL],
    }
}
