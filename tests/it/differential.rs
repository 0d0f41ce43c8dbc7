//! The contract and random work through the API of a worker: what holds of a store holds of its HTTP layer.

use luminate_storage::contract::{Mode, cases};
use luminate_storage::differential::{self, Difference, Report};
use luminate_tests::clickhouse::ClickHouse;
use luminate_tests::only_on;
use luminate_tests::subjects::http::{BEYOND_HTTP, Tamper};
use luminate_tests::subjects::{Kind, ThroughHttp};
use luminate_tests::worker::Backend;
use tokio::runtime::Runtime;

/// Workers over the suite's backend.
fn workers() -> ThroughHttp {
    ThroughHttp::new(match Backend::of_suite() {
        Backend::RocksDb => Kind::RocksDb,
        Backend::ClickHouse => Kind::ClickHouse(ClickHouse::shared().url()),
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn compare(seed: u64, steps: u64, backend: &ThroughHttp) -> Result<Report, Difference> {
    runtime().block_on(differential::run(seed, steps, backend))
}

/// Runs every case that the API can express, and names those that fail. Samples that have moved inside the
/// store look the same from here, which the store's own tests show.
fn broken(backend: &ThroughHttp) -> Vec<&'static str> {
    let runtime = runtime();
    let expressible = cases().iter().filter(|case| !BEYOND_HTTP.contains(&case.name));
    let fails = |case: &&luminate_storage::contract::Case| {
        let backend = backend.clone();
        let case = **case;
        runtime.block_on(runtime.spawn(async move { case.run(&backend, Mode::Plain).await })).is_err()
    };
    expressible.filter(fails).map(|case| case.name).collect()
}

#[test]
fn a_worker_keeps_the_contract() {
    only_on!(RocksDb, "the API's layer; each backend keeps the contract in its own tests");
    assert_eq!(broken(&workers()), [""; 0]);
}

#[test]
fn what_is_beyond_http_is_named_as_the_contract_names_it() {
    assert!(BEYOND_HTTP.iter().all(|name| cases().iter().any(|case| case.name == *name)));
}

#[test]
fn a_worker_answers_as_the_model() {
    let backend = workers();
    // A question to a server costs ten times one to an engine in the same process.
    let (seeds, steps, least) = match Backend::of_suite() {
        Backend::RocksDb => (0..2, 800, 500),
        Backend::ClickHouse => (0..1, 250, 50),
    };
    let mut questions = 0;
    for seed in seeds {
        let report = compare(seed, steps, &backend).unwrap_or_else(|difference| panic!("{difference}"));
        questions += report.questions();
    }
    assert!(questions > least, "{questions}");
}

/// The last row of an answer in one object is lost.
fn drop_a_row(path: &str, body: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(body).into_owned();
    if path == "/api/v1/query"
        && let Some((rows, end)) = text.split_once("],\"executionTimeMs\"")
        && let Some((rows, _)) = rows.rsplit_once(",{\"groupKey\"")
    {
        *body = format!("{rows}],\"executionTimeMs\"{end}").into_bytes();
    }
}

/// Times of whole hundreds of seconds move by a millisecond.
fn shift_a_time(path: &str, body: &mut Vec<u8>) {
    if path == "/api/v1/query" {
        *body = String::from_utf8_lossy(body).replace("00000,\"", "00001,\"").into_bytes();
    }
}

/// The last sample of a write is lost: the one before is written twice, so that the numbers are right.
fn lose_a_sample(path: &str, body: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(body).into_owned();
    let plain = text.matches("{\"name\"").count() == text.matches("\"name\"").count();
    if path == "/api/v1/write"
        && plain
        && let Some((first, _)) = text.rsplit_once(",{\"name\"")
        && let Some((_, twice)) = first.rsplit_once("{\"name\"")
    {
        *body = format!("{first},{{\"name\"{twice}]}}").into_bytes();
    }
}

/// `truncated` is never said.
fn forget_to_truncate(path: &str, body: &mut Vec<u8>) {
    if path == "/api/v1/query" {
        *body =
            String::from_utf8_lossy(body).replace("\"truncated\":true", "\"truncated\":false").into_bytes();
    }
}

#[test]
fn a_bug_between_store_and_client_is_found() {
    only_on!(RocksDb, "the client is the same");
    for (name, tamper) in [
        ("drop_a_row", Tamper::Answer(drop_a_row)),
        ("shift_a_time", Tamper::Answer(shift_a_time)),
        ("lose_a_sample", Tamper::Request(lose_a_sample)),
        ("forget_to_truncate", Tamper::Answer(forget_to_truncate)),
    ] {
        let backend = workers().tampered(tamper);
        let found = (0..10).find_map(|seed| compare(seed, 400, &backend).err());
        let found = found.unwrap_or_else(|| panic!("{name} isn't found"));
        println!("{name}: {found}");
    }
}
