//! The same messages as JSON: written anew as protobuf, token by token, without a tree.
//!
//! The mapping is protobuf's own with OpenTelemetry's exceptions ("OTLP/HTTP, JSON Protobuf Encoding"): keys are
//! lowerCamelCase, enums are numbers, unknown fields are passed over. Integers may be numbers or text, as may floats,
//! which are also `"NaN"`, `"Infinity"` and `"-Infinity"`. `null` is as if the field weren't there.

mod schema;

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use self::schema::{Kind, Known, Message, REQUEST};
use super::OtlpError;
use crate::ingest::json::scan::{Scanner, text};
use crate::ingest::number;
use crate::ingest::remote_write::wire;

/// Deepest nesting of objects that have a schema.
const MAX_DEPTH: usize = 64;
/// What a nested message's length takes: it is known only behind it.
const LENGTH_BYTES: usize = 5;
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The message that a JSON text stands for.
///
/// # Errors
/// It isn't JSON, or a field has another type than it must.
pub fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, OtlpError> {
    let mut writer =
        Writer { body, scanner: Scanner::new(body, 0), message: Vec::with_capacity(body.len() / 2) };
    writer.scanner.space();
    writer.object("the whole", &REQUEST, 0)?;
    writer.scanner.end()?;
    Ok(writer.message)
}

struct Writer<'a> {
    body: &'a [u8],
    scanner: Scanner<'a>,
    message: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes the fields of the object that begins here.
    fn object(&mut self, field: &'static str, schema: &Message, depth: usize) -> Result<(), OtlpError> {
        if self.scanner.peek() != b'{' {
            return Err(self.other_type(field, "an object", depth));
        }
        if depth >= MAX_DEPTH {
            return Err(OtlpError::Field { field, expected: "nested less deeply" });
        }
        let mut more = self.scanner.open(b'}');
        while more {
            let key = self.scanner.key()?;
            let key = text(&self.body[key]);
            match schema.0.iter().find(|(name, ..)| *name == key) {
                Some(known) => self.field(known, depth + 1)?,
                None => {
                    self.scanner.value(depth + 1)?;
                }
            }
            more = self.scanner.next_member(b'}')?;
        }
        Ok(())
    }

    fn field(&mut self, known: &Known, depth: usize) -> Result<(), OtlpError> {
        let (field, _, _, many) = *known;
        match self.scanner.peek() {
            b'n' => {
                self.scanner.value(depth)?;
            }
            b'[' if many => {
                let mut more = self.scanner.open(b']');
                while more {
                    self.value(known, depth + 1)?;
                    more = self.scanner.next_member(b']')?;
                }
            }
            _ if many => return Err(self.other_type(field, "a list", depth)),
            _ => self.value(known, depth)?,
        }
        Ok(())
    }

    fn value(&mut self, known: &Known, depth: usize) -> Result<(), OtlpError> {
        let (field, number, kind, _) = *known;
        let tag = |wire: u8| number << 3 | wire;
        match kind {
            Kind::Message(schema) => {
                self.message.push(tag(2));
                let length = self.message.len();
                self.message.extend([0; LENGTH_BYTES]);
                self.object(field, schema, depth)?;
                self.fill_in(length);
            }
            Kind::Text => {
                let value = self.text(field, "a text", depth)?;
                wire::append(&mut self.message, tag(2), value.as_bytes());
            }
            Kind::Bytes => {
                let expected = "base64";
                let value = self.text(field, expected, depth)?;
                let value = STANDARD.decode(value.as_bytes());
                let value = value.map_err(|_| OtlpError::Field { field, expected })?;
                wire::append(&mut self.message, tag(2), &value);
            }
            Kind::Double => {
                let value = self.double(field, depth)?;
                self.fixed(tag(1), value.to_bits());
            }
            Kind::Fixed => {
                let value = self.integer(field, "a whole number of 64 bits, not negative", depth)?;
                self.fixed(tag(1), value);
            }
            Kind::SignedFixed => {
                let value: i64 = self.integer(field, WHOLE, depth)?;
                self.fixed(tag(1), value.cast_unsigned());
            }
            Kind::Varint => {
                let value = self.integer(field, "a whole number of 64 bits, not negative", depth)?;
                wire::append_integer(&mut self.message, tag(0), value);
            }
            Kind::SignedVarint => {
                let value: i64 = self.integer(field, WHOLE, depth)?;
                wire::append_integer(&mut self.message, tag(0), value.cast_unsigned());
            }
            Kind::ZigZag => {
                let value: i32 = self.integer(field, "a whole number of 32 bits", depth)?;
                wire::append_integer(
                    &mut self.message,
                    tag(0),
                    u64::from((value << 1 ^ value >> 31).cast_unsigned()),
                );
            }
            Kind::Bool => {
                let range = self.scanner.value(depth)?;
                let flag = match &self.body[range] {
                    b"true" => 1,
                    b"false" => 0,
                    _ => return Err(OtlpError::Field { field, expected: "true or false" }),
                };
                wire::append_integer(&mut self.message, tag(0), flag);
            }
        }
        Ok(())
    }

    /// The error of a value that is JSON but of another type, or that of one that isn't JSON.
    fn other_type(&mut self, field: &'static str, expected: &'static str, depth: usize) -> OtlpError {
        self.scanner.value(depth).map_or_else(OtlpError::from, |_| OtlpError::Field { field, expected })
    }

    fn text(
        &mut self,
        field: &'static str,
        expected: &'static str,
        depth: usize,
    ) -> Result<Cow<'a, str>, OtlpError> {
        let range = self.scanner.value(depth)?;
        let quoted = &self.body[range];
        if quoted.first() == Some(&b'"') {
            Ok(text(quoted))
        } else {
            Err(OtlpError::Field { field, expected })
        }
    }

    /// A number, or a text that holds one.
    fn digits(&mut self, depth: usize) -> Result<Cow<'a, str>, OtlpError> {
        let range = self.scanner.value(depth)?;
        let token = &self.body[range];
        Ok(if token.first() == Some(&b'"') { text(token) } else { String::from_utf8_lossy(token) })
    }

    fn integer<T: TryFrom<i128>>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        depth: usize,
    ) -> Result<T, OtlpError> {
        let digits = self.digits(depth)?;
        let value = digits.parse().ok().or_else(|| whole(&digits));
        let value = value.and_then(|value: i128| T::try_from(value).ok());
        value.ok_or(OtlpError::Field { field, expected })
    }

    fn double(&mut self, field: &'static str, depth: usize) -> Result<f64, OtlpError> {
        let digits = self.digits(depth)?;
        match digits.as_ref() {
            "NaN" => return Ok(f64::NAN),
            "Infinity" => return Ok(f64::INFINITY),
            "-Infinity" => return Ok(f64::NEG_INFINITY),
            _ => {}
        }
        let parsed = number::parse(digits.as_bytes(), 0).filter(|(_, end)| *end == digits.len());
        parsed.map(|(value, _)| value).ok_or(OtlpError::Field { field, expected: "a number" })
    }

    /// Writes the length of what follows the place for it.
    fn fill_in(&mut self, place: usize) {
        let mut length = self.message.len() - place - LENGTH_BYTES;
        for at in 0..LENGTH_BYTES {
            let more = if at + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            self.message[place + at] = (length & 0x7F) as u8 | more;
            length >>= 7;
        }
    }

    fn fixed(&mut self, tag: u8, value: u64) {
        self.message.push(tag);
        self.message.extend_from_slice(&value.to_le_bytes());
    }
}

const WHOLE: &str = "a whole number of 64 bits";

/// A whole number that is written with a point or an exponent.
fn whole(digits: &str) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let (value, end) = number::parse(digits.as_bytes(), 0)?;
    let exact = end == digits.len() && value.fract() == 0.0 && value.abs() <= EXACT;
    exact.then_some(value as i128)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::testing::{Data, NumberValue, Request};
    use super::*;

    fn refused(body: &str) -> String {
        to_protobuf(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_message_is_the_same_in_both_forms() {
        let body = r#" {"resourceMetrics": [{"resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "a \"b\" \u00e9"}},
            {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "-7"}, {"boolValue": true}, {"bytesValue": "AP8"}]}}}
        ], "droppedAttributesCount": 0}, "scopeMetrics": [{"scope": {"name": "s", "future": [{"a": {}}]}, "metrics": [
            {"name": "g", "unit": "s", "gauge": {"dataPoints": [
                {"timeUnixNano": "1767225600000000000", "asDouble": 1.5, "attributes": null},
                {"timeUnixNano": 1767225600000000000, "asInt": "-9223372036854775808", "flags": 1},
                {"asDouble": "NaN"}]}},
            {"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
                {"scale": -1, "positive": {"offset": -3, "bucketCounts": ["1", 2]}, "sum": 1e2}]}}
        ]}]}]} "#;
        let request = Request::decode(to_protobuf(body.as_bytes()).unwrap().as_slice()).unwrap();
        let resource = &request.resource_metrics[0];
        let list = format!("{:?}", resource.resource.as_ref().unwrap().attributes);
        for part in ["a \\\"b\\\" é", "Int(-7)", "Bool(true)", "Bytes([0, 255])"] {
            assert!(list.contains(part), "{part}: {list}");
        }
        let [gauge, exponential] = resource.scope_metrics[0].metrics.as_slice() else {
            panic!("two metrics")
        };
        let Some(Data::Gauge(numbers)) = &gauge.data else { panic!("a gauge") };
        let [first, second, third] = numbers.data_points.as_slice() else { panic!("three points") };
        assert_eq!((gauge.unit.as_str(), first.time_unix_nano), ("s", 1_767_225_600_000_000_000));
        assert_eq!(first.value, Some(NumberValue::AsDouble(1.5)));
        assert_eq!((second.time_unix_nano, second.flags), (first.time_unix_nano, 1));
        assert_eq!(second.value, Some(NumberValue::AsInt(i64::MIN)));
        assert!(matches!(third.value, Some(NumberValue::AsDouble(value)) if value.is_nan()));
        let Some(Data::Exponential(histogram)) = &exponential.data else { panic!("a histogram") };
        let point = &histogram.data_points[0];
        let positive = point.positive.as_ref().unwrap();
        assert_eq!((point.scale, point.sum, positive.offset), (-1, Some(100.0), -3));
        assert_eq!(positive.bucket_counts, [1, 2]);
    }

    #[test]
    fn what_is_no_json_or_of_another_type_is_refused_by_name() {
        for (body, expected) in [
            ("", "the body is not valid JSON: the text ends too early at byte 0"),
            ("[]", "the field the whole must be an object"),
            ("{\"resourceMetrics\": [}", "the body is not valid JSON: expected a value at byte 21"),
            ("{\"resourceMetrics\": {}}", "the field resourceMetrics must be a list"),
            ("{\"resourceMetrics\": [7]}", "the field resourceMetrics must be an object"),
            ("{} x", "the body is not valid JSON: something follows the end of the document at byte 3"),
        ] {
            assert_eq!(refused(body), expected, "{body}");
        }
        let metric = |metric: &str| {
            refused(&format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#))
        };
        let point = |point: &str| metric(&format!(r#"{{"gauge":{{"dataPoints":[{{{point}}}]}}}}"#));
        assert_eq!(metric(r#"{"name": 7}"#), "the field name must be a text");
        assert_eq!(point(r#""asInt": 1.5"#), "the field asInt must be a whole number of 64 bits");
        assert_eq!(
            point(r#""asInt": 9223372036854775808"#),
            "the field asInt must be a whole number of 64 bits"
        );
        assert_eq!(point(r#""asDouble": "one""#), "the field asDouble must be a number");
        assert!(point(r#""timeUnixNano": -1"#).ends_with("not negative"));
        assert!(
            metric(r#"{"sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA"}}"#)
                .starts_with("the field aggregationTemporality must be a whole number")
        );
        assert_eq!(metric(r#"{"sum": {"isMonotonic": 1}}"#), "the field isMonotonic must be true or false");
        let value = |value: &str| point(&format!(r#""attributes": [{{"key": "k", "value": {value}}}]"#));
        assert_eq!(value(r#"{"bytesValue": "_"}"#), "the field bytesValue must be base64");
        let nested = format!("{}{}", r#"{"arrayValue":{"values":["#.repeat(40), "]}}".repeat(40));
        assert!(value(&nested).contains("nested less deeply"));
    }

    #[test]
    fn whole_numbers_may_have_exponents() {
        assert_eq!(
            (whole("1e3"), whole("2.0"), whole("2.5"), whole("1e30")),
            (Some(1_000), Some(2), None, None)
        );
    }
}
