//! The contract over ClickHouse, random work over it and the model, and what no other backend has.

use std::sync::Arc;
use std::time::Duration;

use super::client::Database;
use super::failure::{Cause, code};
use super::schema::{self, Dialect};
use super::testing::{self, OverCluster, OverServer};
use super::{ClickHouse, Options};
use crate::clock::ManualClock;
use crate::contract::trial::{DAY, T0};
use crate::store::{ErrorKind, MetricsStore};

crate::contract_tests!(OverServer);

mod cluster {
    use super::*;

    crate::contract_tests!(plain: crate::contract::Mode::Plain, OverCluster);
}

/// Steps of one seed.
const STEPS: u64 = 350;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn compare(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let report = runtime().block_on(crate::differential::run(seed, STEPS, &OverServer));
        let report = report.unwrap_or_else(|difference| panic!("{difference}"));
        println!("seed {seed}: {} questions, {} rows compared, none differ", report.questions(), report.rows);
    }
}

#[test]
fn clickhouse_and_the_model_agree_on_seeds_0_and_1() {
    compare(0..2);
}

#[test]
fn clickhouse_and_the_model_agree_on_seeds_2_and_3() {
    compare(2..4);
}

fn options() -> Options {
    testing::options(&testing::fresh_name(), Arc::new(ManualClock::new(T0)), 30 * DAY)
}

async fn one(database: &Database, sql: &str) -> Result<u8, Cause> {
    database.statement(sql).row::<u8>().await.map_err(|failure| failure.cause)
}

#[test]
fn ten_workers_start_on_an_empty_server_at_once() {
    let options = options();
    runtime().block_on(async {
        let stores: Vec<_> = (0..10).map(|_| ClickHouse::open(options.clone()).unwrap()).collect();
        for store in &stores {
            store.opened(Duration::from_secs(60)).await.unwrap();
        }
        let database = Database::new(&options).unwrap();
        let versions = "SELECT toUInt8(uniqExact(version)) FROM schema_versions";
        assert_eq!(one(&database, versions).await, Ok(1));
        let tables = "SELECT toUInt8(count()) FROM system.tables WHERE database = currentDatabase()";
        assert_eq!(one(&database, tables).await, Ok(7));
        testing::drop_database(&options).await;
    });
}

#[test]
fn a_newer_schema_is_refused_in_one_sentence() {
    let options = options();
    runtime().block_on(async {
        let store = ClickHouse::open(options.clone()).unwrap();
        store.opened(Duration::from_secs(60)).await.unwrap();
        let database = Database::new(&options).unwrap();
        database.statement("INSERT INTO schema_versions (version) VALUES (99)").execute().await.unwrap();
        let later = ClickHouse::open(options.clone()).unwrap();
        let refused = later.opened(Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::Unavailable { .. }), "{refused:?}");
        let health = later.health().await;
        let why = health.checks[0].1.clone().unwrap_err();
        assert_eq!(why, "ClickHouse's tables are of a newer version: use a newer worker");
        testing::drop_database(&options).await;
    });
}

#[test]
fn another_endpoint_answers_where_one_is_away() {
    runtime().block_on(async {
        let away = "http://127.0.0.1:1".to_owned();
        let both = Options { endpoints: vec![away.clone(), testing::url().to_owned()], ..options() };
        let database = Database::new(&both).unwrap();
        let answer = database.statement("SELECT 1").outside();
        assert_eq!(answer.row::<u8>().await, Ok(1));
        let none = Database::new(&Options { endpoints: vec![away], ..options() }).unwrap();
        assert_eq!(one(&none, "SELECT 1").await, Err(Cause::Unreachable));
    });
}

#[test]
fn after_an_endpoint_that_never_answers_another_is_asked() {
    runtime().block_on(async {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("http://{}", silent.local_addr().unwrap());
        let both = Options { endpoints: vec![silent, testing::url().to_owned()], ..options() };
        let database = Database::new(&both).unwrap();
        let ask = || database.statement("SELECT 1").outside();
        let late = ask().within(Duration::from_millis(200)).row::<u8>().await.unwrap_err();
        assert_eq!(late.cause, Cause::TimedOut);
        assert_eq!(ask().row::<u8>().await, Ok(1));
        assert_eq!(ask().row::<u8>().await, Ok(1));
    });
}

#[test]
fn a_server_behind_tls_is_trusted_by_the_configured_certificates_only() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (address, certificate) = testing::behind_tls().await;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, certificate).unwrap();
        let endpoints = vec![format!("https://localhost:{}", address.port())];
        let trusting = Options { endpoints: endpoints.clone(), ca_file: Some(ca_file), ..options() };
        let answer = Database::new(&trusting).unwrap().statement("SELECT 1").outside().row::<u8>().await;
        assert_eq!(answer, Ok(1));
        let other = Database::new(&Options { endpoints, ..options() }).unwrap();
        let refused = other.statement("SELECT 1").outside().row::<u8>().await.unwrap_err();
        assert_eq!(refused.cause, Cause::Unreachable, "{refused}");
        assert!(refused.message.contains("certificate"), "{refused}");
    });
}

#[test]
fn certificates_that_cannot_be_read_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, "nothing").unwrap();
    let error = Database::new(&Options { ca_file: Some(ca_file), ..options() }).unwrap_err();
    assert!(error.starts_with("storage.clickhouse.ca_file: "), "{error}");
}

#[test]
fn the_server_parses_every_statement_of_a_cluster() {
    let dialect = Dialect { cluster: Some("main".to_owned()), fsync: true, alp: true, statistics: true };
    let mut statements = schema::statements(&dialect);
    for sql in [
        include_str!("sql/delete_samples.sql"),
        include_str!("sql/delete_series.sql"),
        include_str!("sql/expire_samples.sql"),
        include_str!("sql/expire_series.sql"),
    ] {
        statements.push(dialect.fill(&sql.replace("@OF_TENANTS@", "IN").replace("@OF_METRICS@", "NOT IN")));
    }
    runtime().block_on(async {
        let database = Database::new(&options()).unwrap();
        for statement in statements {
            let parsed = database
                .statement(format!("EXPLAIN AST {statement}"))
                .param("tenant", "a")
                .param("metric", "m")
                .param("before", 0_i64)
                .param("day", 0_i32)
                .param("generation", 0_u64)
                .param("tenants", vec!["a"])
                .param("metrics", vec!["m"])
                .outside();
            parsed.rows::<String>().await.unwrap_or_else(|failure| panic!("{failure}: {statement}"));
            assert!(statement.contains("ON CLUSTER `main`"), "{statement}");
        }
        let nonsense = database.statement("EXPLAIN AST CREATE TABLE x ON CLUSTER").outside();
        assert_eq!(nonsense.rows::<String>().await.unwrap_err().code(), Some(code::SYNTAX_ERROR));
    });
}
