//! Formats of answers: their content types, as the server's headers name them.

/// The format of an answer that names none.
pub const DEFAULT: &str = "TabSeparated";

/// The format's own name: `TSV` is `TabSeparated`.
#[must_use]
pub fn canonical(name: &str) -> &str {
    match name {
        "TSV" => "TabSeparated",
        "TSVRaw" | "Raw" => "TabSeparatedRaw",
        "TSVWithNames" => "TabSeparatedWithNames",
        "TSVWithNamesAndTypes" => "TabSeparatedWithNamesAndTypes",
        "TSVRawWithNames" => "TabSeparatedRawWithNames",
        "TSVRawWithNamesAndTypes" => "TabSeparatedRawWithNamesAndTypes",
        "NDJSON" | "JSONLines" => "JSONEachRow",
        "MD" => "Markdown",
        other => other,
    }
}

/// The content type of a format.
#[must_use]
pub fn content_type(name: &str) -> &'static str {
    let name = canonical(name);
    let binary = [
        "Native",
        "RowBinary",
        "Parquet",
        "Arrow",
        "ORC",
        "Avro",
        "MsgPack",
        "BSON",
        "Protobuf",
        "CapnProto",
        "Npy",
    ];
    match name {
        _ if name.starts_with("TabSeparated") => "text/tab-separated-values; charset=UTF-8",
        "CSV" => "text/csv; charset=UTF-8; header=absent",
        _ if name.starts_with("CSV") => "text/csv; charset=UTF-8; header=present",
        _ if name.starts_with("JSON") && name.contains("EachRow") && name != "JSONObjectEachRow" => {
            "application/x-ndjson; charset=UTF-8"
        }
        _ if name.starts_with("JSON") => "application/json; charset=UTF-8",
        "XML" => "application/xml; charset=UTF-8",
        "Markdown" => "text/markdown; charset=UTF-8",
        "PNG" => "image/png",
        _ if binary.iter().any(|prefix| name.starts_with(prefix)) => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}
