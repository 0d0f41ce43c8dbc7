//! A cluster whose only member is this server.
//!
//! The engine knows it from its configuration, so tables of engine Distributed read and write for real. What
//! would need Keeper is done at once instead: `ON CLUSTER` is left out, since this one server is all that a
//! statement is to reach, and a replicated engine becomes the same engine without a replica.

use std::io;
use std::path::{Path, PathBuf};

use crate::lexer::{Kind, Lexer, Token};

/// Writes the engine's configuration of a cluster called `name` into `folder`.
///
/// # Errors
/// The name isn't made of letters, digits and underscores; or the file can't be written.
pub fn configure(folder: &Path, name: &str) -> io::Result<PathBuf> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(io::Error::other("the name of a cluster is made of letters, digits and _"));
    }
    let shard = "<shard><replica><host>localhost</host><port>9000</port></replica></shard>";
    let text = format!(
        "<clickhouse><tcp_port>9000</tcp_port><remote_servers><{name}>{shard}</{name}></remote_servers>\
         <macros><shard>1</shard><replica>1</replica></macros></clickhouse>\n"
    );
    let path = folder.join("cluster.xml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The text of a statement for the cluster, as this server alone runs it; `None` where nothing is different.
#[must_use]
pub fn alone(text: &[u8]) -> Option<Vec<u8>> {
    let tokens: Vec<Token> = Lexer::new(text).collect();
    let mut cuts = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.depth == 0 && token.is(text, "ON") {
            cuts.extend(on_cluster(text, &tokens[at..]));
        }
        if token.kind == Kind::Word && token.text(text).starts_with(b"Replicated") {
            cuts.extend(replicated(text, &tokens[at..]).into_iter().flatten());
        }
    }
    if cuts.is_empty() {
        return None;
    }
    let mut kept = Vec::with_capacity(text.len());
    let mut done = 0;
    for cut in cuts {
        kept.extend_from_slice(&text[done..cut.start]);
        done = cut.end;
    }
    kept.extend_from_slice(&text[done..]);
    Some(kept)
}

/// `ON CLUSTER name`.
fn on_cluster(text: &[u8], tokens: &[Token]) -> Option<std::ops::Range<usize>> {
    let [on, cluster, name, ..] = tokens else { return None };
    cluster.is(text, "CLUSTER").then_some(on.at.start..name.at.end)
}

/// `Replicated` of `ReplicatedXMergeTree('path', 'replica', …)`, and the first two arguments.
fn replicated(text: &[u8], tokens: &[Token]) -> Option<[std::ops::Range<usize>; 2]> {
    let [engine, open, path, _, replica, next, ..] = tokens else { return None };
    let texts = path.kind == Kind::String && replica.kind == Kind::String;
    if !engine.text(text).ends_with(b"MergeTree") || open.kind != Kind::Sign(b'(') || !texts {
        return None;
    }
    let end = if next.kind == Kind::Sign(b',') { next.at.end } else { replica.at.end };
    let prefix = engine.at.start..engine.at.start + "Replicated".len();
    Some([prefix, path.at.start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Option<String> {
        alone(sql.as_bytes())
            .map(|text| String::from_utf8(text).unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_statement_for_the_cluster_is_one_for_this_server() {
        let sql = "CREATE TABLE t ON CLUSTER `main` (a Int8) ENGINE = ReplicatedReplacingMergeTree('/x/{uuid}', '{replica}', a)";
        assert_eq!(of(sql).unwrap(), "CREATE TABLE t (a Int8) ENGINE = ReplacingMergeTree( a)");
        let sql = "CREATE TABLE t (a Int8) ENGINE = ReplicatedMergeTree('/x', 'r') ORDER BY a";
        assert_eq!(of(sql).unwrap(), "CREATE TABLE t (a Int8) ENGINE = MergeTree() ORDER BY a");
        assert_eq!(
            of("DELETE FROM t ON CLUSTER main WHERE a = 'ON CLUSTER b'").unwrap(),
            "DELETE FROM t WHERE a = 'ON CLUSTER b'"
        );
    }

    #[test]
    fn other_statements_stay_as_they_are() {
        assert_eq!(of("SELECT * FROM a JOIN b ON a.cluster = b.cluster"), None);
        assert_eq!(of("INSERT INTO t SELECT 'ReplicatedMergeTree'"), None);
    }
}
