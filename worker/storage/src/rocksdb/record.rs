//! The body of a log record: what one commit does, as a sequence of operations.
//!
//! # Format
//! Each operation is a tag byte, a length (u32, little endian) and that many bytes. Tags are never
//! reused. Rows: tenant (length byte, text), number of rows (u32), series (u32 each), times (runs:
//! varint length, zigzag varint step from the time before), values (u64 bits each).

use crate::model::{MetricName, Tenant};
use crate::store::{Result, Retention, StoreError};

/// The samples of one batch, as the engine's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Whose.
    pub tenant: Tenant,
    /// The series of each row.
    pub ids: Vec<u32>,
    /// Unix milliseconds of each row.
    pub times: Vec<i64>,
    /// The value of each row.
    pub values: Vec<f64>,
}

/// One operation of a commit.
#[derive(Debug, PartialEq)]
pub enum Operation<'a> {
    /// New series: a definitions blob of the index.
    Definitions(&'a [u8]),
    /// Samples.
    Rows(Rows),
    /// A metric's samples with `time < before` are gone.
    Delete {
        /// The metric's number.
        metric: u32,
        /// The first time that stays; `i64::MAX` for all.
        before: i64,
    },
    /// A tenant's retention.
    Retention(Tenant, Retention),
    /// When what follows was accepted, in Unix milliseconds.
    Accepted(i64),
}

/// Tags of operations: persisted, never reused.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Definitions = 1,
    Rows = 2,
    Delete = 3,
    Retention = 4,
    Accepted = 5,
}

/// Appends a definitions blob.
pub fn put_definitions(out: &mut Vec<u8>, blob: &[u8]) {
    framed(out, Tag::Definitions, |out| out.extend_from_slice(blob));
}

/// Appends samples.
pub fn put_rows(out: &mut Vec<u8>, rows: &Rows) {
    framed(out, Tag::Rows, |out| {
        put_text(out, rows.tenant.as_str());
        put_u32(out, rows.ids.len());
        out.reserve(rows.ids.len() * 16);
        for id in &rows.ids {
            out.extend_from_slice(&id.to_le_bytes());
        }
        put_times(out, &rows.times);
        for value in &rows.values {
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    });
}

/// Appends a delete.
pub fn put_delete(out: &mut Vec<u8>, metric: u32, before: i64) {
    framed(out, Tag::Delete, |out| {
        out.extend_from_slice(&metric.to_le_bytes());
        out.extend_from_slice(&before.to_le_bytes());
    });
}

/// Appends the time at which what follows was accepted.
pub fn put_accepted(out: &mut Vec<u8>, time: i64) {
    framed(out, Tag::Accepted, |out| out.extend_from_slice(&time.to_le_bytes()));
}

/// Appends a retention.
pub fn put_retention(out: &mut Vec<u8>, tenant: &Tenant, retention: &Retention) {
    framed(out, Tag::Retention, |out| {
        put_text(out, tenant.as_str());
        encode_retention(out, retention);
    });
}

/// A retention as bytes: default, then each metric's name and milliseconds.
pub fn encode_retention(out: &mut Vec<u8>, retention: &Retention) {
    out.extend_from_slice(&retention.default.to_le_bytes());
    put_u32(out, retention.metrics.len());
    for (metric, millis) in &retention.metrics {
        out.extend_from_slice(&millis.to_le_bytes());
        put_u32(out, metric.as_str().len());
        out.extend_from_slice(metric.as_str().as_bytes());
    }
}

/// Reads what [`encode_retention`] wrote.
///
/// # Errors
/// `Corrupt`.
pub fn decode_retention(bytes: &[u8]) -> Result<Retention> {
    let mut reader = Reader(bytes);
    reader.retention().ok_or_else(broken)
}

/// Calls `visit` with each operation of a record's body.
///
/// # Errors
/// `Corrupt`, or what `visit` returns.
pub fn read(body: &[u8], visit: &mut dyn FnMut(Operation<'_>) -> Result<()>) -> Result<()> {
    let mut reader = Reader(body);
    while !reader.0.is_empty() {
        visit(reader.operation().ok_or_else(broken)?)?;
    }
    Ok(())
}

fn broken() -> StoreError {
    StoreError::corrupt("a log record passes its checksum but can't be read")
}

fn framed(out: &mut Vec<u8>, tag: Tag, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag as u8);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_times(out: &mut Vec<u8>, times: &[i64]) {
    let mut before = 0_i64;
    let mut at = 0;
    while at < times.len() {
        let run = times[at..].iter().take_while(|time| **time == times[at]).count();
        let step = times[at].wrapping_sub(before);
        put_varint(out, run as u64);
        put_varint(out, ((step << 1) ^ (step >> 63)).cast_unsigned());
        before = times[at];
        at += run;
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn tenant(&mut self) -> Option<Tenant> {
        let length = usize::from(self.take(1)?[0]);
        Tenant::new(std::str::from_utf8(self.take(length)?).ok()?).ok()
    }

    fn operation(&mut self) -> Option<Operation<'a>> {
        let tag = self.take(1)?[0];
        let length = self.u32()? as usize;
        let mut body = Reader(self.take(length)?);
        Some(match tag {
            tag if tag == Tag::Definitions as u8 => Operation::Definitions(body.0),
            tag if tag == Tag::Rows as u8 => Operation::Rows(body.rows()?),
            tag if tag == Tag::Delete as u8 => Operation::Delete { metric: body.u32()?, before: body.i64()? },
            tag if tag == Tag::Accepted as u8 => Operation::Accepted(body.i64()?),
            tag if tag == Tag::Retention as u8 => Operation::Retention(body.tenant()?, body.retention()?),
            _ => return None,
        })
    }

    fn rows(&mut self) -> Option<Rows> {
        let tenant = self.tenant()?;
        let count = self.u32()? as usize;
        let ids = self.take(count.checked_mul(4)?)?.chunks_exact(4);
        let ids = ids.map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
        let mut times = Vec::with_capacity(count);
        let mut time = 0_i64;
        while times.len() < count {
            let run = usize::try_from(self.varint()?).ok()?;
            let step = self.varint()?;
            time = time.wrapping_add((step >> 1).cast_signed() ^ -(step & 1).cast_signed());
            if run == 0 || run > count - times.len() {
                return None;
            }
            times.resize(times.len() + run, time);
        }
        let mut values = Vec::with_capacity(count);
        for bits in self.take(count.checked_mul(8)?)?.chunks_exact(8) {
            values.push(f64::from_bits(u64::from_le_bytes(bits.try_into().ok()?)));
        }
        Some(Rows { tenant, ids, times, values })
    }

    fn retention(&mut self) -> Option<Retention> {
        let default = self.i64()?;
        let count = self.u32()?;
        let mut metrics = std::collections::BTreeMap::new();
        for _ in 0..count {
            let millis = self.i64()?;
            let length = self.u32()? as usize;
            let name = std::str::from_utf8(self.take(length)?).ok()?;
            metrics.insert(MetricName::new(name).ok()?, millis);
        }
        Some(Retention { default, metrics })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample_body() -> (Vec<u8>, Rows, Retention) {
        let tenant = Tenant::new("acme").unwrap();
        let rows = Rows {
            tenant: tenant.clone(),
            ids: vec![1, 9, u32::MAX, 9],
            times: vec![1_700_000_000_000, 1_700_000_000_000, -5, i64::MAX],
            values: vec![1.5, -0.0, f64::MAX, 5e-324],
        };
        let metrics = BTreeMap::from([(MetricName::new("debug").unwrap(), 86_400_000)]);
        let retention = Retention { default: 7, metrics };
        let mut body = Vec::new();
        put_definitions(&mut body, b"blob");
        put_rows(&mut body, &rows);
        put_delete(&mut body, 7, i64::MAX);
        put_retention(&mut body, &tenant, &retention);
        put_accepted(&mut body, -7);
        (body, rows, retention)
    }

    #[test]
    fn operations_come_back_in_order() {
        let (body, rows, retention) = sample_body();
        let mut seen = 0;
        read(&body, &mut |operation| {
            match (seen, operation) {
                (0, Operation::Definitions(blob)) => assert_eq!(blob, b"blob"),
                (1, Operation::Rows(read)) => {
                    assert_eq!(read.ids, rows.ids);
                    assert_eq!(read.times, rows.times);
                    let bits = |rows: &Rows| rows.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&read), bits(&rows));
                }
                (2, operation) => {
                    assert_eq!(operation, Operation::Delete { metric: 7, before: i64::MAX });
                }
                (3, Operation::Retention(tenant, read)) => {
                    assert_eq!((tenant.as_str(), read), ("acme", retention.clone()));
                }
                (4, operation) => assert_eq!(operation, Operation::Accepted(-7)),
                (_, other) => panic!("{other:?} in place {seen}"),
            }
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, 5);
    }

    #[test]
    fn cut_and_random_bodies_are_errors_and_never_panic() {
        let (body, ..) = sample_body();
        let boundaries: Vec<bool> =
            (0..body.len()).map(|cut| read(&body[..cut], &mut |_| Ok(())).is_ok()).collect();
        assert_eq!(boundaries.iter().filter(|ok| **ok).count(), 5, "only between operations");
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5_000 {
            let mut noise = body.clone();
            noise[random.usize(0..body.len())] = random.u8(..);
            let _ = read(&noise, &mut |_| Ok(()));
        }
    }
}
