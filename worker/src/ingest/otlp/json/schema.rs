//! The fields of the messages: their names in JSON, and how protobuf writes them.

/// How a field is written in protobuf.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `string`.
    Text,
    /// `bytes`.
    Bytes,
    /// `double`.
    Double,
    /// `fixed64`.
    Fixed,
    /// `sfixed64`.
    SignedFixed,
    /// `uint64`, `uint32`, or an enum.
    Varint,
    /// `int64`.
    SignedVarint,
    /// `sint32`.
    ZigZag,
    /// `bool`.
    Bool,
    /// A message.
    Message(&'static Message),
}

/// The fields of a message that are read.
#[derive(Debug)]
pub struct Message(pub &'static [Known]);

/// A field: its name in JSON, its number, how it is written, whether it is a list.
pub type Known = (&'static str, u8, Kind, bool);

const ONE: bool = false;
const MANY: bool = true;

/// `ExportMetricsServiceRequest`.
pub static REQUEST: Message = Message(&[("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS), MANY)]);
static RESOURCE_METRICS: Message = Message(&[
    ("resource", 1, Kind::Message(&RESOURCE), ONE),
    ("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS), MANY),
]);
static RESOURCE: Message = Message(&[("attributes", 1, Kind::Message(&KEY_VALUE), MANY)]);
static SCOPE_METRICS: Message =
    Message(&[("scope", 1, Kind::Message(&SCOPE), ONE), ("metrics", 2, Kind::Message(&METRIC), MANY)]);
static SCOPE: Message = Message(&[
    ("name", 1, Kind::Text, ONE),
    ("version", 2, Kind::Text, ONE),
    ("attributes", 3, Kind::Message(&KEY_VALUE), MANY),
]);
static METRIC: Message = Message(&[
    ("name", 1, Kind::Text, ONE),
    ("unit", 3, Kind::Text, ONE),
    ("gauge", 5, Kind::Message(&NUMBERS), ONE),
    ("sum", 7, Kind::Message(&NUMBERS), ONE),
    ("histogram", 9, Kind::Message(&HISTOGRAM), ONE),
    ("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL), ONE),
    ("summary", 11, Kind::Message(&SUMMARY), ONE),
]);
static NUMBERS: Message = Message(&[
    ("dataPoints", 1, Kind::Message(&NUMBER), MANY),
    ("aggregationTemporality", 2, Kind::Varint, ONE),
    ("isMonotonic", 3, Kind::Bool, ONE),
]);
static HISTOGRAM: Message = Message(&[
    ("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT), MANY),
    ("aggregationTemporality", 2, Kind::Varint, ONE),
]);
static EXPONENTIAL: Message = Message(&[
    ("dataPoints", 1, Kind::Message(&EXPONENTIAL_POINT), MANY),
    ("aggregationTemporality", 2, Kind::Varint, ONE),
]);
static SUMMARY: Message = Message(&[("dataPoints", 1, Kind::Message(&SUMMARY_POINT), MANY)]);
static NUMBER: Message = Message(&[
    ("attributes", 7, Kind::Message(&KEY_VALUE), MANY),
    ("timeUnixNano", 3, Kind::Fixed, ONE),
    ("asDouble", 4, Kind::Double, ONE),
    ("asInt", 6, Kind::SignedFixed, ONE),
    ("flags", 8, Kind::Varint, ONE),
]);
static HISTOGRAM_POINT: Message = Message(&[
    ("attributes", 9, Kind::Message(&KEY_VALUE), MANY),
    ("timeUnixNano", 3, Kind::Fixed, ONE),
    ("count", 4, Kind::Fixed, ONE),
    ("sum", 5, Kind::Double, ONE),
    ("bucketCounts", 6, Kind::Fixed, MANY),
    ("explicitBounds", 7, Kind::Double, MANY),
    ("flags", 10, Kind::Varint, ONE),
    ("min", 11, Kind::Double, ONE),
    ("max", 12, Kind::Double, ONE),
]);
static EXPONENTIAL_POINT: Message = Message(&[
    ("attributes", 1, Kind::Message(&KEY_VALUE), MANY),
    ("timeUnixNano", 3, Kind::Fixed, ONE),
    ("count", 4, Kind::Fixed, ONE),
    ("sum", 5, Kind::Double, ONE),
    ("scale", 6, Kind::ZigZag, ONE),
    ("zeroCount", 7, Kind::Fixed, ONE),
    ("positive", 8, Kind::Message(&BUCKETS), ONE),
    ("negative", 9, Kind::Message(&BUCKETS), ONE),
    ("flags", 10, Kind::Varint, ONE),
    ("min", 12, Kind::Double, ONE),
    ("max", 13, Kind::Double, ONE),
    ("zeroThreshold", 14, Kind::Double, ONE),
]);
static BUCKETS: Message =
    Message(&[("offset", 1, Kind::ZigZag, ONE), ("bucketCounts", 2, Kind::Varint, MANY)]);
static SUMMARY_POINT: Message = Message(&[
    ("attributes", 7, Kind::Message(&KEY_VALUE), MANY),
    ("timeUnixNano", 3, Kind::Fixed, ONE),
    ("count", 4, Kind::Fixed, ONE),
    ("sum", 5, Kind::Double, ONE),
    ("quantileValues", 6, Kind::Message(&QUANTILE), MANY),
    ("flags", 8, Kind::Varint, ONE),
]);
static QUANTILE: Message = Message(&[("quantile", 1, Kind::Double, ONE), ("value", 2, Kind::Double, ONE)]);
static KEY_VALUE: Message =
    Message(&[("key", 1, Kind::Text, ONE), ("value", 2, Kind::Message(&ANY_VALUE), ONE)]);
static ANY_VALUE: Message = Message(&[
    ("stringValue", 1, Kind::Text, ONE),
    ("boolValue", 2, Kind::Bool, ONE),
    ("intValue", 3, Kind::SignedVarint, ONE),
    ("doubleValue", 4, Kind::Double, ONE),
    ("arrayValue", 5, Kind::Message(&ARRAY), ONE),
    ("kvlistValue", 6, Kind::Message(&MAP), ONE),
    ("bytesValue", 7, Kind::Bytes, ONE),
]);
static ARRAY: Message = Message(&[("values", 1, Kind::Message(&ANY_VALUE), MANY)]);
static MAP: Message = Message(&[("values", 1, Kind::Message(&KEY_VALUE), MANY)]);
