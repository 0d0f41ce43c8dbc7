//! Imports: a text read in pieces, wherever it is cut, has the samples of the whole.

use std::sync::Arc;

use luminate_storage::model::{RowSeries, SpellingHasher};
use luminate_storage::store::{NoSeries, Retention};
use luminate_worker::ingest::bulk::columns::Columns;
use luminate_worker::ingest::bulk::{BulkRules, Ending, Format, Piece, csv, decode};

use crate::memory;
use crate::rows::{NOW, Read, Row, row};

/// Words of imports.
pub const WORDS: &[&str] = &[
    "{\"metric\":{\"__name__\":",
    "\"values\":[",
    "\"timestamps\":[",
    "1767225600000",
    "null",
    "\"NaN\"",
    "metric,",
    "timestamp",
    "value",
    "{\"summary\":",
    "{\"error\":",
    "\"\"",
    "\x0d\x0a",
];

/// The first byte says which format, the second where the rest is cut.
pub fn check(input: &[u8]) {
    let [kind, cut, text @ ..] = input else { return };
    let (format, text) = match kind % 2 {
        0 => (Format::JsonLines, text),
        _ => {
            let header = memory::within((1 << 20) + 64 * text.len(), || csv::header(text, true));
            let Ok(Some(header)) = header else { return };
            let cells: Vec<&str> = header.cells.iter().map(String::as_str).collect();
            let Ok(columns) = Columns::of_header(&cells) else { return };
            (Format::Csv(Arc::new(columns)), &text[header.end..])
        }
    };
    let whole = read(&format, &[text]);
    let cut = usize::from(*cut) * text.len() / 256;
    let (one, other) = text.split_at(cut);
    assert_eq!(read(&format, &[one, other]), whole);
}

/// What parts of a text hold that come one after the other.
fn read(format: &Format, parts: &[&[u8]]) -> Read {
    let retention = Retention { default: 30 * 86_400_000, metrics: Default::default() };
    let rules = BulkRules::new(NOW, &retention, 3_600_000, 3);
    let lookup = NoSeries(SpellingHasher::new([7; 192]));
    let (mut text, mut line, mut read) = (Vec::new(), 1, Read::default());
    for (at, part) in parts.iter().enumerate() {
        text.extend_from_slice(part);
        let at_end = at + 1 == parts.len();
        loop {
            let most = (1 << 20) + 128 * text.len();
            let piece = memory::within(most, || decode(format, &text, at_end, line, &rules, &lookup));
            assert!(piece.consumed <= text.len());
            line += piece.lines;
            add(&mut read, &piece, &rules);
            text.drain(..piece.consumed);
            if matches!(piece.ending, Some(Ending::Failed(_))) {
                return read;
            }
            if piece.consumed == 0 || text.is_empty() {
                break;
            }
        }
    }
    read
}

fn add(read: &mut Read, piece: &Piece, rules: &BulkRules) {
    let batch = &piece.batch;
    let row = |at: usize| -> Row {
        let RowSeries::New(series) = batch.series[at] else { panic!("a described series") };
        let series = &batch.new_series[series as usize];
        let pairs: Vec<(String, String)> =
            series.dimensions.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let (time, value) = (batch.timestamps[at], batch.values[at]);
        assert!(time <= rules.newest && value.is_finite());
        row(series.metric.as_str(), &pairs, time, value).expect("names that were checked")
    };
    read.rows.extend((0..batch.len()).map(row));
    read.refused += piece.refused.total();
    read.dropped += piece.dropped;
}

/// Imports of both formats, cut in the middle.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 3] = [
        b"\0\x80{\"metric\":{\"__name__\":\"up\",\"job\":\"a\"},\"values\":[1,0.5,null],\"timestamps\":[1767225600000,1767225600001,1767225600002]}\n{\"metric\":{\"__name__\":\"a:b\"},\"values\":[\"NaN\"],\"timestamps\":[1767225600000]}\n\n{\"summary\":{\"samples\":3}}\n",
        b"\x01\x80metric,timestamp,value,host,region\r\nup,1767225600000,1.5,a,\r\n\"up\",2026-01-01T00:00:00Z,2,\"b,\"\"c\"\"\nd\",eu\n\nup,x,1,a\n",
        b"\x01\x40__name__,__timestamp__,__value__,host\nup,1767225600000,NaN,a\nup,1767225600000,7,a",
    ];
    texts.map(<[u8]>::to_vec).into()
}
