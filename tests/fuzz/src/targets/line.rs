//! The line protocol: a body is its lines one by one, and points come back from how they are written.

use luminate_worker::ingest::line::{Precision, decode};

use crate::draw::Draw;
use crate::rows::{NOW, Read, row, rules, sum, twice};

/// Words of such bodies.
pub const WORDS: &[&str] = &[
    "cpu,host=a usage=1.5 1767225600000",
    ",",
    "=",
    "\\ ",
    "\\,",
    "\\=",
    "\"",
    "\\\"",
    "1i",
    "2u",
    "t",
    "false",
    "#",
    "1767225600000000000",
];

/// Letters, and what must be escaped.
const ALPHABET: [char; 12] = ['a', 'b', 'Z', '0', '_', ',', '=', ' ', 'ü', '"', '#', '-'];

/// The first byte says whether the rest is a body or what points are made of.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((kind, rest)) if kind % 2 == 1 => written(Draw(rest)),
        Some((_, body)) => raw(body),
        None => {}
    }
}

fn read(body: &[u8]) -> Option<Read> {
    twice(body.len(), |lookup| decode(body, Precision::Milliseconds, &rules(), lookup)).ok()
}

fn raw(body: &[u8]) {
    let Some(whole) = read(body) else { return };
    // Only a quoted string goes over the end of a line.
    if !body.contains(&b'"') {
        assert_eq!(sum(body.split(|byte| *byte == b'\n').filter_map(read)), whole);
    }
    for name in ["ns", "us", "s", "m", "h"] {
        let precision = Precision::of(name).expect("a precision");
        let _either = twice(body.len(), |lookup| decode(body, precision, &rules(), lookup));
    }
}

fn written(mut draw: Draw<'_>) {
    let (mut body, mut expected) = (String::new(), Read::default());
    while !draw.is_empty() {
        let measurement = format!("m{}", draw.text(&ALPHABET, 6));
        let mut pairs = Vec::new();
        body.push_str(&escaped(&measurement));
        for at in 0..draw.below(4) {
            let (key, value) = (format!("k{at}{}", draw.text(&ALPHABET, 4)), draw.text(&ALPHABET, 8));
            body.push_str(&format!(",{}={}", escaped(&key), escaped(&value)));
            pairs.push((plain(&key), value));
        }
        let count = 1 + draw.below(3);
        for at in 0..count {
            let (key, value) = (draw.text(&ALPHABET, 5), draw.value());
            let separator = if at == 0 { ' ' } else { ',' };
            body.push_str(&format!("{separator}{}={value}", escaped(&key)));
            match row(&plain(&format!("{measurement}_{key}")), &pairs, NOW, value) {
                Some(row) => expected.rows.push(row),
                None => expected.refused += 1,
            }
        }
        body.push_str(&format!(" {NOW}\n"));
    }
    assert_eq!(read(body.as_bytes()).expect("few points"), expected, "{body}");
}

fn escaped(text: &str) -> String {
    text.chars().flat_map(|char| if ",= ".contains(char) { vec!['\\', char] } else { vec![char] }).collect()
}

/// A name with `_` for what names don't hold.
fn plain(name: &str) -> String {
    let plain: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    if plain.starts_with(|first: char| first.is_ascii_digit()) { format!("_{plain}") } else { plain }
}

/// A body as agents send it, and points.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 3] = [
        b"\0# a comment\n cpu,host=a,region=eu usage=1.5,count=2i,free=3u,up=t,down=FALSE,os=\"a b,c=d\\\" \n e\" 1767225600000\r\nmem used=7\n",
        b"\0my\\ disk.io,a\\,b=c\\=d\\ e,p=C:\\\\ read\\=bytes=1,2nd=2 1767225600000\nm f=\"a\nm f=1 x\nm",
        b"\x01\x05abcde\x02\x03host\x02eu\x01usage\x32\x07\x03\x01f\x64\x64\xff\x40\x08\0\0\0\0\0\0",
    ];
    bodies.map(<[u8]>::to_vec).into()
}
