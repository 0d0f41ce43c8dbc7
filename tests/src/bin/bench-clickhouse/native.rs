//! Blocks in ClickHouse's Native format: a column after the other, each with its name and type.

/// A column of a block.
#[derive(Debug)]
pub struct Column {
    name: &'static str,
    kind: &'static str,
    data: Vec<u8>,
}

/// A block of so many rows.
pub fn block(rows: usize, columns: &[Column]) -> Vec<u8> {
    let mut out = Vec::with_capacity(columns.iter().map(|column| column.data.len() + 64).sum());
    varint(columns.len(), &mut out);
    varint(rows, &mut out);
    for column in columns {
        text(column.name, &mut out);
        text(column.kind, &mut out);
        out.extend_from_slice(&column.data);
    }
    out
}

/// Floats.
pub fn floats(name: &'static str, values: impl Iterator<Item = f64>) -> Column {
    Column { name, kind: "Float64", data: values.flat_map(f64::to_le_bytes).collect() }
}

/// Whole numbers.
pub fn unsigned(name: &'static str, values: impl Iterator<Item = u64>) -> Column {
    Column { name, kind: "UInt64", data: values.flat_map(u64::to_le_bytes).collect() }
}

/// Whole numbers, of a type that has them inside, such as a time.
pub fn signed(name: &'static str, kind: &'static str, values: impl Iterator<Item = i64>) -> Column {
    Column { name, kind, data: values.flat_map(i64::to_le_bytes).collect() }
}

/// Days since 1970.
pub fn days(name: &'static str, values: impl Iterator<Item = i32>) -> Column {
    Column { name, kind: "Date32", data: values.flat_map(i32::to_le_bytes).collect() }
}

/// Texts.
pub fn texts<'a>(name: &'static str, values: impl Iterator<Item = &'a str>) -> Column {
    let mut data = Vec::new();
    values.for_each(|value| text(value, &mut data));
    Column { name, kind: "String", data }
}

/// Texts of which there are few, as places in a dictionary.
pub fn words(name: &'static str, dictionary: &[&str], places: impl Iterator<Item = usize>) -> Column {
    let mut data = 1_u64.to_le_bytes().to_vec();
    dictionary_of(dictionary, &places.collect::<Vec<_>>(), &mut data);
    Column { name, kind: "LowCardinality(String)", data }
}

/// Maps, all with the same keys.
pub fn maps<'a>(
    name: &'static str,
    keys: &[&str],
    rows: usize,
    values: impl Iterator<Item = &'a str>,
) -> Column {
    let mut data = 1_u64.to_le_bytes().to_vec();
    data.extend((1..=rows).flat_map(|row| ((row * keys.len()) as u64).to_le_bytes()));
    let places: Vec<usize> = (0..rows).flat_map(|_| 0..keys.len()).collect();
    dictionary_of(keys, &places, &mut data);
    values.for_each(|value| text(value, &mut data));
    Column { name, kind: "Map(LowCardinality(String), String)", data }
}

/// ClickHouse, SerializationLowCardinality: the kind of the places and that a dictionary follows, the
/// dictionary, the places. Its first entry is the default.
fn dictionary_of(dictionary: &[&str], places: &[usize], out: &mut Vec<u8>) {
    const OF_16_BITS: u64 = 1;
    const HAS_KEYS: u64 = 1 << 9;
    const NEW_DICTIONARY: u64 = 1 << 10;
    out.extend((OF_16_BITS | HAS_KEYS | NEW_DICTIONARY).to_le_bytes());
    out.extend((dictionary.len() as u64 + 1).to_le_bytes());
    text("", out);
    dictionary.iter().for_each(|word| text(word, out));
    out.extend((places.len() as u64).to_le_bytes());
    out.extend(places.iter().flat_map(|place| (*place as u16 + 1).to_le_bytes()));
}

fn text(text: &str, out: &mut Vec<u8>) {
    varint(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
