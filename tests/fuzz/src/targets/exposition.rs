//! Prometheus' text and OpenMetrics: a body is its lines one by one, and samples come back from how they are written.

use luminate_worker::ingest::exposition::{Dialect, decode};

use crate::draw::Draw;
use crate::rows::{NOW, Read, row, rules, sum, twice};

/// Words of such bodies.
pub const WORDS: &[&str] = &[
    "up{job=\"node\"} 1 1767225600000",
    "{",
    "}",
    "\\\"",
    "\\n",
    "=\"",
    "\",",
    "NaN",
    "+Inf",
    "# EOF",
    " # {",
    "1767225600.5",
    "{\"a.b\",c=\"d\"} 1",
];

const LETTERS: [char; 6] = ['a', 'b', 'Z', '0', '_', ':'];
const VALUES: [char; 12] = ['a', '"', '\\', '\n', '{', '}', ',', '=', ' ', '#', 'ü', '0'];

/// The first byte says which dialect the rest is in, or that samples are made of it.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((0, body)) => raw(body, Dialect::Prometheus),
        Some((1, body)) => raw(body, Dialect::OpenMetrics),
        Some((_, rest)) => written(Draw(rest)),
        None => {}
    }
}

fn read(body: &[u8], dialect: Dialect) -> Option<Read> {
    twice(body.len(), |lookup| decode(body, dialect, &rules(), lookup)).ok()
}

fn raw(body: &[u8], dialect: Dialect) {
    let Some(whole) = read(body, dialect) else { return };
    assert_eq!(sum(body.split(|byte| *byte == b'\n').filter_map(|line| read(line, dialect))), whole);
}

fn written(mut draw: Draw<'_>) {
    let (mut body, mut expected) = (String::new(), Read::default());
    while !draw.is_empty() {
        let metric = format!("m{}", draw.text(&LETTERS, 6));
        let (mut written, mut pairs) = (Vec::new(), Vec::new());
        for at in 0..draw.below(4) {
            let (key, value) = (format!("k{at}"), draw.text(&VALUES, 8));
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            written.push(format!("{key}=\"{escaped}\""));
            pairs.push((key, value));
        }
        let value = draw.value();
        body.push_str(&format!("{metric}{{{}}} {value} {NOW}\n", written.join(",")));
        let row = row(&metric.replace(':', "_"), &pairs, NOW, value);
        expected.rows.push(row.expect("names and values are valid"));
    }
    assert_eq!(read(body.as_bytes(), Dialect::Prometheus).expect("few samples"), expected, "{body}");
}

/// Pages as targets show them, and samples.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 3] = [
        b"\0# HELP a b\nhttp_requests_total{method=\"post\",code=\"200\"} 1027 1767225600000\n{\"a.b\",c=\"d\"} 1\njob:rate:5m 1.5e-3\r\npath{p=\"C:\\\\DIR\\\\}\\\"x\\\"\\n\",empty=\"\"} 2\nq{quantile=\"0.5\"} NaN\nb {le=\"+Inf\"} +Inf\n",
        b"\x01foo_bucket{host=\"0.1\"} 8 1767225600.25 # {trace_id=\"a\"} 0.067 1767225600.0\nfoo 1 1767225600\n# EOF\n",
        b"\x02\x03abc\x02\x05abcde\x02fg\x32\x07\x01z\0\xff\x40\x08\0\0\0\0\0\0",
    ];
    bodies.map(<[u8]>::to_vec).into()
}
