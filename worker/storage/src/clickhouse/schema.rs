//! The tables: made and brought up to date by whichever worker comes first.
//!
//! Every statement may be run again, and by several workers at the same time, so nobody waits for a lock:
//! ten workers that start on an empty database all run them, and all but one find the tables there.

use std::fmt::Write as _;

use super::client::{Answered, Database};
use super::failure::{Cause, Failure, code};
use super::options::Options;

/// The version of the schema that this program knows.
pub const VERSION: u32 = 1;

const VERSIONS: &str = include_str!("schema/versions.sql");
const VERSIONS_CLUSTER: &str = include_str!("schema/versions.cluster.sql");

/// Each version's statements, for the tables themselves and for those of a cluster in front of them.
const MIGRATIONS: [(&str, &str); VERSION as usize] =
    [(include_str!("schema/0001.sql"), include_str!("schema/0001.cluster.sql"))];

/// How statements are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The cluster of replicated tables, if there is one.
    pub cluster: Option<String>,
    /// Whether an insert is synced to disk before it is acknowledged.
    pub fsync: bool,
    /// Whether the server has the codec ALP for floating-point columns.
    pub alp: bool,
    /// Whether the server makes statistics of columns unless it is told not to.
    pub statistics: bool,
}

impl Dialect {
    /// How statements about tables that are there are filled in.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        Self { cluster: options.cluster.clone(), fsync: options.fsync, alp: false, statistics: false }
    }

    /// The table that holds `name`'s rows on each server.
    #[must_use]
    pub fn local(&self, name: &str) -> String {
        if self.cluster.is_some() { format!("{name}_local") } else { name.to_owned() }
    }

    /// `ON CLUSTER …`, or nothing.
    #[must_use]
    pub fn on_cluster(&self) -> String {
        self.cluster.as_ref().map(|name| format!("ON CLUSTER {}", quoted(name, '`'))).unwrap_or_default()
    }

    /// `text` with what stands between `@` filled in.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        for (at, part) in text.split('@').enumerate() {
            if at % 2 == 0 { filled.push_str(part) } else { filled.push_str(&self.word(part)) }
        }
        filled
    }

    fn word(&self, word: &str) -> String {
        let (name, argument) = word.split_once('(').unwrap_or((word, ""));
        let argument = argument.trim_end_matches(')');
        match name {
            "LOCAL" => self.local(argument),
            "ON_CLUSTER" => self.on_cluster(),
            "CLUSTER" => quoted(self.cluster.as_deref().unwrap_or_default(), '\''),
            "ENGINE" => self.engine(argument),
            "VALUE_CODEC" if self.alp => "ALP, ZSTD(1)".to_owned(),
            "VALUE_CODEC" => "ZSTD(1)".to_owned(),
            // They say nothing that the key doesn't, and each query and each insert would pay for them.
            "LEAN" if self.statistics => ", auto_statistics_types = ''".to_owned(),
            "LEAN" => String::new(),
            "DURABLE" if self.fsync => "fsync_after_insert = 1, fsync_part_directory = 1".to_owned(),
            "DURABLE" => "fsync_after_insert = 0".to_owned(),
            "DEDUPLICATION" if self.cluster.is_some() => "replicated_deduplication_window = 10000".to_owned(),
            "DEDUPLICATION" => "non_replicated_deduplication_window = 10000".to_owned(),
            _ => format!("@{word}@"),
        }
    }

    /// An engine of the MergeTree family, with the columns that it is given.
    fn engine(&self, argument: &str) -> String {
        let (name, columns) = argument.split_once(',').unwrap_or((argument, ""));
        let columns = columns.trim();
        if self.cluster.is_none() {
            return format!("{name}({columns})");
        }
        let mut arguments = "'/clickhouse/tables/{uuid}/{shard}', '{replica}'".to_owned();
        if !columns.is_empty() {
            // Writing to a text doesn't fail.
            let _ = write!(arguments, ", {columns}");
        }
        format!("Replicated{name}({arguments})")
    }
}

/// Every statement that brings an empty database to [`VERSION`], in order.
#[must_use]
pub fn statements(dialect: &Dialect) -> Vec<String> {
    let mut all = version_table(dialect);
    all.extend((0..VERSION).flat_map(|version| migration(dialect, version)));
    all
}

fn version_table(dialect: &Dialect) -> Vec<String> {
    let cluster = if dialect.cluster.is_some() { VERSIONS_CLUSTER } else { "" };
    split(&dialect.fill(VERSIONS)).chain(split(&dialect.fill(cluster))).collect()
}

/// The statements that follow `version`.
fn migration(dialect: &Dialect, version: u32) -> Vec<String> {
    let Some((tables, distributed)) = MIGRATIONS.get(version as usize) else { return Vec::new() };
    let distributed = if dialect.cluster.is_some() { *distributed } else { "" };
    split(&dialect.fill(tables)).chain(split(&dialect.fill(distributed))).collect()
}

fn split(text: &str) -> impl Iterator<Item = String> + use<> {
    let statements: Vec<String> = text.split(";\n").map(|one| one.trim().to_owned()).collect();
    statements.into_iter().filter(|one| !one.is_empty())
}

/// `text` in quotes, with quotes and backslashes in it escaped.
#[must_use]
pub fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::from(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push(quote);
    quoted
}

/// Brings the database to [`VERSION`], creating it where it is missing.
///
/// # Errors
/// What the server says; `NewerSchema` for tables of a version that this program doesn't know.
pub async fn migrate(database: &Database, options: &Options) -> Answered<()> {
    // 1. Where it is. IO. Whoever may only read and write needs no other right than that.
    let found = version(database).await?;
    if found == VERSION {
        return Ok(());
    }
    if found > VERSION {
        let message = format!(
            "the database {:?} has tables of version {found}, and this worker knows version {VERSION}: \
             it needs a newer worker",
            database.name()
        );
        return Err(Failure::new(Cause::NewerSchema, message));
    }
    // 2. The database, and the table of versions. IO.
    let dialect = dialect(database, options).await?;
    let create =
        format!("CREATE DATABASE IF NOT EXISTS {} {}", quoted(database.name(), '`'), dialect.on_cluster());
    run(database, create, true).await?;
    for statement in version_table(&dialect) {
        run(database, statement, false).await?;
    }
    // 3. Version by version. IO.
    for version in found..VERSION {
        for statement in migration(&dialect, version) {
            run(database, statement, false).await?;
        }
        let done = database.statement("INSERT INTO schema_versions (version) SELECT {version:UInt32}");
        done.param("version", version + 1).execute().await?;
    }
    tracing::info!(database = database.name(), from = found, to = VERSION, "the schema is up to date");
    Ok(())
}

/// Whether the tables sync what is inserted, whatever this worker was told: others may have made them.
///
/// # Errors
/// What the server says.
pub async fn durable(database: &Database, options: &Options) -> Answered<bool> {
    let dialect = Dialect::of(options);
    let tables = vec![dialect.local("samples"), dialect.local("series")];
    let synced = database
        .statement(
            "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name IN {tables:Array(String)} \
             AND position(engine_full, 'fsync_after_insert = 1') > 0",
        )
        .param("tables", tables);
    Ok(synced.row::<u64>().await? == 2)
}

/// The version that the database is at; 0 when there is nothing.
async fn version(database: &Database) -> Answered<u32> {
    let statement = database.statement("SELECT max(version) FROM schema_versions");
    match statement.row::<u32>().await {
        Err(failure) if matches!(failure.code(), Some(code::UNKNOWN_TABLE | code::UNKNOWN_DATABASE)) => Ok(0),
        answer => answer,
    }
}

async fn dialect(database: &Database, options: &Options) -> Answered<Dialect> {
    let codecs = database.statement("SELECT count() FROM system.codecs WHERE name = 'ALP'").outside();
    // Servers before 24.9 have no such table, and no such codec.
    let alp = match codecs.row::<u64>().await {
        Err(failure) if failure.code() == Some(code::UNKNOWN_TABLE) => false,
        answer => answer? > 0,
    };
    let settings = "SELECT count() FROM system.merge_tree_settings WHERE name = 'auto_statistics_types'";
    let statistics = database.statement(settings).outside().row::<u64>().await? > 0;
    Ok(Dialect { alp, statistics, ..Dialect::of(options) })
}

/// Runs a statement that another worker may be running too.
async fn run(database: &Database, sql: String, outside: bool) -> Answered<()> {
    let statement = database
        .statement(sql)
        // ALP counts as experimental; the setting is needed to name it, not to use it.
        .setting("allow_experimental_codecs", 1)
        .within(super::client::SCHEMA);
    let statement = if outside { statement.outside() } else { statement };
    match statement.execute().await {
        Err(failure) if failure.code() == Some(code::TABLE_ALREADY_EXISTS) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Dialect = Dialect { cluster: None, fsync: true, alp: true, statistics: true };

    fn cluster() -> Dialect {
        Dialect { cluster: Some("main".to_owned()), fsync: false, alp: false, statistics: false }
    }

    #[test]
    fn everything_between_signs_is_filled_in() {
        for dialect in [ONE, cluster()] {
            for statement in statements(&dialect) {
                assert!(!statement.contains('@'), "{statement}");
                assert!(statement.contains("CREATE TABLE IF NOT EXISTS"), "{statement}");
            }
        }
    }

    #[test]
    fn one_server_has_plain_tables() {
        assert_eq!(
            ONE.fill("@LOCAL(a)@ @ON_CLUSTER@ @ENGINE(ReplacingMergeTree, v)@"),
            "a  ReplacingMergeTree(v)"
        );
        assert_eq!(statements(&ONE).len(), 7);
    }

    #[test]
    fn a_cluster_has_replicated_tables_and_distributed_ones_before_them() {
        assert_eq!(
            cluster().fill("@LOCAL(a)@ @ON_CLUSTER@ @ENGINE(ReplacingMergeTree, v)@ @CLUSTER@"),
            "a_local ON CLUSTER `main` ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', \
             '{replica}', v) 'main'"
        );
        assert_eq!(statements(&cluster()).len(), 14);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a`b\\", '`'), "`a\\`b\\\\`");
    }
}
