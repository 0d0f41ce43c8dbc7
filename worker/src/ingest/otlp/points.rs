//! Data points: from messages to the samples that they stand for.

use std::borrow::Cow;
use std::ops::Range;

use super::exponential::{self, Side};
use crate::ingest::remote_write::wire::{Field, Fields, MalformedMessage, varint};

/// The kinds of a metric's data, by the number of their field in `Metric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbers as they are.
    Gauge = 5,
    /// Numbers that were added up.
    Sum = 7,
    /// Counts between bounds.
    Histogram = 9,
    /// Counts between bounds that grow by a factor.
    Exponential = 10,
    /// Quantiles that the sender has computed.
    Summary = 11,
}

impl Kind {
    /// The kind of a field of `Metric`.
    pub fn of(field: u32) -> Option<Self> {
        let kinds = [Self::Gauge, Self::Sum, Self::Histogram, Self::Exponential, Self::Summary];
        kinds.into_iter().find(|kind| *kind as u32 == field)
    }

    /// Whether its points say since when they count.
    pub fn has_temporality(self) -> bool {
        matches!(self, Self::Sum | Self::Histogram | Self::Exponential)
    }

    /// The longest of what its parts add to a metric's name.
    pub fn longest_suffix(self) -> &'static str {
        match self {
            Self::Gauge | Self::Sum => "",
            Self::Histogram | Self::Exponential => Part::Bucket(0.0).suffix(),
            Self::Summary => Part::Count.suffix(),
        }
    }
}

/// Which part of a data point a sample holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    /// All of it.
    Value,
    /// How many values were no larger than this.
    Bucket(f64),
    /// The value that this share of all are no larger than.
    Quantile(f64),
    /// All values added up.
    Sum,
    /// How many there were.
    Count,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl Part {
    /// What it adds to the metric's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Value | Self::Quantile(_) => "",
            Self::Bucket(_) => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
            Self::Min => "_min",
            Self::Max => "_max",
        }
    }

    /// The dimension that it adds: key and number.
    pub fn dimension(self) -> Option<(&'static str, f64)> {
        match self {
            Self::Bucket(bound) => Some(("le", bound)),
            Self::Quantile(share) => Some(("quantile", share)),
            _ => None,
        }
    }

    /// Bytes that no other part of the same point has.
    pub fn spelled(self) -> [u8; 9] {
        let (code, number) = match self {
            Self::Value => (0, 0.0),
            Self::Bucket(bound) => (1, bound),
            Self::Quantile(share) => (2, share),
            Self::Sum => (3, 0.0),
            Self::Count => (4, 0.0),
            Self::Min => (5, 0.0),
            Self::Max => (6, 0.0),
        };
        let mut spelled = [code; 9];
        spelled[1..].copy_from_slice(&number.to_bits().to_le_bytes());
        spelled
    }
}

/// What all kinds of data points have.
#[derive(Debug)]
pub struct Point<'a> {
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// When it was taken, in Unix nanoseconds.
    pub time: u64,
    /// `DataPointFlags`.
    pub flags: u64,
    /// What is wrong with it, if anything.
    pub fault: Option<String>,
}

impl<'a> Point<'a> {
    fn new(message: &'a [u8]) -> Self {
        let attributes = Attributes { message, block: 0..0, scattered: Vec::new() };
        Self { attributes, time: 0, flags: 0, fault: None }
    }
}

/// The attributes of a point: where they stand in its message.
#[derive(Debug)]
pub struct Attributes<'a> {
    message: &'a [u8],
    block: Range<usize>,
    /// Those that don't stand in one block with the first.
    scattered: Vec<u8>,
}

impl Attributes<'_> {
    fn add(&mut self, field: Range<usize>) {
        if self.block.is_empty() {
            self.block = field;
        } else if self.block.end == field.start {
            self.block.end = field.end;
        } else {
            self.scattered.extend_from_slice(&self.message[field]);
        }
    }

    /// Their fields, one behind another.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        let block = &self.message[self.block.clone()];
        if self.scattered.is_empty() {
            Cow::Borrowed(block)
        } else {
            Cow::Owned([block, &self.scattered].concat())
        }
    }
}

/// Reads data points one after another, into the same memory.
#[derive(Debug, Default)]
pub struct Reader {
    /// The samples of the point that was read last: a part and its value. A part whose series may be refused where
    /// others aren't comes first.
    pub parts: Vec<(Part, f64)>,
    counts: Vec<u64>,
    bounds: Vec<f64>,
    positive: Side,
    negative: Side,
}

impl Reader {
    /// Reads a point of a metric of this kind.
    ///
    /// # Errors
    /// It isn't one; a point that is one but makes no sense has a fault.
    pub fn read<'a>(&mut self, kind: Kind, message: &'a [u8]) -> Result<Point<'a>, MalformedMessage> {
        self.parts.clear();
        match kind {
            Kind::Gauge | Kind::Sum => self.number(message),
            Kind::Histogram => self.histogram(message),
            Kind::Exponential => self.exponential(message),
            Kind::Summary => self.summary(message),
        }
    }

    fn number<'a>(&mut self, message: &'a [u8]) -> Result<Point<'a>, MalformedMessage> {
        let mut point = Point::new(message);
        let mut value = None;
        each_field(message, |number, field, place| {
            match (number, field) {
                (7, Field::Bytes(_)) => point.attributes.add(place),
                (3, Field::Fixed64(nanos)) => point.time = nanos,
                (4, Field::Fixed64(bits)) => value = Some(f64::from_bits(bits)),
                (6, Field::Fixed64(bits)) => value = Some(bits.cast_signed() as f64),
                (8, Field::Varint(flags)) => point.flags = flags,
                (3 | 4 | 6..=8, _) => return Err(OTHER_TYPE),
                _ => {}
            }
            Ok(())
        })?;
        match value {
            Some(value) => self.parts.push((Part::Value, value)),
            None => point.fault = Some("the data point has no value".to_owned()),
        }
        Ok(point)
    }

    fn histogram<'a>(&mut self, message: &'a [u8]) -> Result<Point<'a>, MalformedMessage> {
        let mut point = Point::new(message);
        let mut whole = Whole::default();
        self.counts.clear();
        self.bounds.clear();
        each_field(message, |number, field, place| {
            match (number, field) {
                (9, Field::Bytes(_)) => point.attributes.add(place),
                (3, Field::Fixed64(nanos)) => point.time = nanos,
                (4, Field::Fixed64(count)) => whole.count = count,
                (5, Field::Fixed64(bits)) => whole.sum = Some(f64::from_bits(bits)),
                (6, _) => fixed(field, |bits| self.counts.push(bits))?,
                (7, _) => fixed(field, |bits| self.bounds.push(f64::from_bits(bits)))?,
                (10, Field::Varint(flags)) => point.flags = flags,
                (11, Field::Fixed64(bits)) => whole.min = Some(f64::from_bits(bits)),
                (12, Field::Fixed64(bits)) => whole.max = Some(f64::from_bits(bits)),
                (3..=5 | 9..=12, _) => return Err(OTHER_TYPE),
                _ => {}
            }
            Ok(())
        })?;
        point.fault = self.buckets().err();
        whole.parts(&mut self.parts);
        Ok(point)
    }

    /// Appends the buckets of a histogram but that of everything.
    fn buckets(&mut self) -> Result<(), String> {
        let (counts, bounds) = (&self.counts, &self.bounds);
        if counts.len() != bounds.len() + 1 && !(counts.is_empty() && bounds.is_empty()) {
            return Err(format!("{} bounds don't make {} buckets", bounds.len(), counts.len()));
        }
        let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || !bounds.iter().all(|bound| bound.is_finite()) {
            return Err("explicit_bounds must rise and be finite".to_owned());
        }
        let mut total = 0u64;
        for (bound, count) in bounds.iter().zip(counts) {
            total = total.saturating_add(*count);
            // The sum makes a zero of a negative one.
            self.parts.push((Part::Bucket(bound + 0.0), total as f64));
        }
        Ok(())
    }

    fn exponential<'a>(&mut self, message: &'a [u8]) -> Result<Point<'a>, MalformedMessage> {
        let mut point = Point::new(message);
        let mut whole = Whole::default();
        let (mut scale, mut zero) = (0, (0, 0.0));
        self.positive.clear();
        self.negative.clear();
        each_field(message, |number, field, place| {
            match (number, field) {
                (1, Field::Bytes(_)) => point.attributes.add(place),
                (3, Field::Fixed64(nanos)) => point.time = nanos,
                (4, Field::Fixed64(count)) => whole.count = count,
                (5, Field::Fixed64(bits)) => whole.sum = Some(f64::from_bits(bits)),
                (6, Field::Varint(bits)) => scale = zigzag(bits),
                (7, Field::Fixed64(count)) => zero.0 = count,
                (8, Field::Bytes(side)) => read_side(side, &mut self.positive)?,
                (9, Field::Bytes(side)) => read_side(side, &mut self.negative)?,
                (10, Field::Varint(flags)) => point.flags = flags,
                (12, Field::Fixed64(bits)) => whole.min = Some(f64::from_bits(bits)),
                (13, Field::Fixed64(bits)) => whole.max = Some(f64::from_bits(bits)),
                (14, Field::Fixed64(bits)) => zero.1 = f64::from_bits(bits),
                (1 | 3..=10 | 12..=14, _) => return Err(OTHER_TYPE),
                _ => {}
            }
            Ok(())
        })?;
        point.fault = exponential::expand(scale, zero, &self.positive, &self.negative, &mut self.parts).err();
        whole.parts(&mut self.parts);
        Ok(point)
    }

    fn summary<'a>(&mut self, message: &'a [u8]) -> Result<Point<'a>, MalformedMessage> {
        let mut point = Point::new(message);
        let (mut count, mut sum) = (0, 0.0);
        each_field(message, |number, field, place| {
            match (number, field) {
                (7, Field::Bytes(_)) => point.attributes.add(place),
                (3, Field::Fixed64(nanos)) => point.time = nanos,
                (4, Field::Fixed64(total)) => count = total,
                (5, Field::Fixed64(bits)) => sum = f64::from_bits(bits),
                (6, Field::Bytes(quantile)) => self.parts.push(read_quantile(quantile)?),
                (8, Field::Varint(flags)) => point.flags = flags,
                (3..=8, _) => return Err(OTHER_TYPE),
                _ => {}
            }
            Ok(())
        })?;
        self.parts.extend([(Part::Count, count as f64), (Part::Sum, sum)]);
        Ok(point)
    }
}

/// What a histogram says of all its values.
#[derive(Debug, Default)]
struct Whole {
    count: u64,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

impl Whole {
    fn parts(&self, parts: &mut Vec<(Part, f64)>) {
        let count = self.count as f64;
        parts.extend([(Part::Bucket(f64::INFINITY), count), (Part::Count, count)]);
        let given = [(Part::Sum, self.sum), (Part::Min, self.min), (Part::Max, self.max)];
        parts.extend(given.into_iter().filter_map(|(part, value)| Some((part, value?))));
    }
}

const OTHER_TYPE: MalformedMessage = MalformedMessage("a data point has fields of other types");

/// Gives each field of a message, and where it stands, to `take`.
fn each_field<'a>(
    message: &'a [u8],
    mut take: impl FnMut(u32, Field<'a>, Range<usize>) -> Result<(), MalformedMessage>,
) -> Result<(), MalformedMessage> {
    let mut fields = Fields::new(message);
    let mut start = 0;
    while let Some((number, field)) = fields.next()? {
        take(number, field, start..fields.position())?;
        start = fields.position();
    }
    Ok(())
}

/// Gives each number of eight bytes of a repeated field, packed or not, to `take`.
fn fixed(field: Field<'_>, mut take: impl FnMut(u64)) -> Result<(), MalformedMessage> {
    match field {
        Field::Fixed64(bits) => take(bits),
        Field::Bytes(packed) => {
            let (numbers, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(MalformedMessage("packed numbers end too early"));
            }
            numbers.iter().for_each(|number| take(u64::from_le_bytes(*number)));
        }
        _ => return Err(OTHER_TYPE),
    }
    Ok(())
}

fn read_side(message: &[u8], side: &mut Side) -> Result<(), MalformedMessage> {
    each_field(message, |number, field, _| {
        match (number, field) {
            (1, Field::Varint(bits)) => side.offset = zigzag(bits),
            (2, Field::Varint(count)) => side.counts.push(count),
            (2, Field::Bytes(packed)) => {
                let mut at = 0;
                while at < packed.len() {
                    let (count, end) = varint(packed, at)?;
                    side.counts.push(count);
                    at = end;
                }
            }
            (1 | 2, _) => return Err(OTHER_TYPE),
            _ => {}
        }
        Ok(())
    })
}

fn read_quantile(message: &[u8]) -> Result<(Part, f64), MalformedMessage> {
    let (mut share, mut value) = (0.0, 0.0);
    each_field(message, |number, field, _| {
        match (number, field) {
            (1, Field::Fixed64(bits)) => share = f64::from_bits(bits),
            (2, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (1 | 2, _) => return Err(OTHER_TYPE),
            _ => {}
        }
        Ok(())
    })?;
    Ok((Part::Quantile(share), value))
}

/// A `sint32`; more bits than it has are cut off, as protobuf says.
fn zigzag(bits: u64) -> i64 {
    let bits = bits as u32;
    i64::from((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_integers_are_read_by_turns() {
        for (bits, value) in [(0, 0), (1, -1), (2, 1), (0xFFFF_FFFF, i32::MIN), (0xFFFF_FFFE, i32::MAX)] {
            assert_eq!(zigzag(bits), i64::from(value));
        }
    }

    #[test]
    fn no_two_parts_are_spelled_alike() {
        let parts = [
            Part::Value,
            Part::Bucket(1.0),
            Part::Bucket(2.0),
            Part::Bucket(f64::INFINITY),
            Part::Quantile(1.0),
            Part::Sum,
            Part::Count,
            Part::Min,
            Part::Max,
        ];
        let spelled: std::collections::HashSet<_> = parts.iter().map(|part| part.spelled()).collect();
        assert_eq!(spelled.len(), parts.len());
    }

    #[test]
    fn attributes_that_stand_apart_are_collected() {
        // attributes, flags, attributes.
        let message = [0x3A, 1, b'a', 0x3A, 1, b'b', 0x40, 0, 0x3A, 1, b'c'];
        let point = Reader::default().read(Kind::Gauge, &message).unwrap();
        assert_eq!(point.attributes.bytes().as_ref(), [0x3A, 1, b'a', 0x3A, 1, b'b', 0x3A, 1, b'c']);
    }
}
