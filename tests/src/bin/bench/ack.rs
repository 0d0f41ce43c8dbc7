//! Times of acknowledgements at half of what the engine can take, and what the disk's own sync takes beside it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use luminate_tests::bench::compare::{Comparison, Row};
use luminate_tests::bench::data::Shape;
use luminate_tests::bench::encode::{Encoder, Protocol};
use luminate_tests::bench::engine::{Engine, Kind};
use luminate_tests::bench::fleet::{Fleet, STEP};
use luminate_tests::bench::load;
use luminate_tests::bench::p99;
use luminate_tests::bench::report::{Better, short};
use luminate_tests::client::now;

use crate::Plan;

const SERIES: usize = 40_000;
/// Two of five tell how much the engine can take; the others are sent at half of that.
const ROUNDS: usize = 200;
const CONNECTIONS: usize = 4;
const FASTEST: Duration = Duration::from_secs(4);
/// Syncs of the disk that are timed, each of what a commit of some requests writes.
const SYNCS: usize = 1_000;
const SYNCED: usize = 64 << 10;

/// Measures every engine.
pub fn measure(comparison: &mut Comparison, plan: &Plan) {
    let series = plan.size.of(SERIES);
    println!("ack: half load of {series} series by remote write, {CONNECTIONS} connections");
    let mut fleet = Fleet::new(series, Shape::Decimals, now() - STEP * (ROUNDS as i64 + 6), 11);
    let mut encoder = Encoder::new(Protocol::RemoteWrite);
    let mut rounds = |count: usize| encoder.next(&mut fleet, 1, count);
    let (first, fast, steady) = (rounds(1), rounds(ROUNDS * 2 / 5), rounds(ROUNDS * 3 / 5));
    let mut acks =
        Row::new("times of acknowledgements", "acknowledged at half load: p99", "ms", Better::Less);
    let mut beyond = Row::new(
        "acknowledgement",
        "acknowledged at half load: p99 beyond the disk's sync",
        "ms",
        Better::Less,
    );
    let mut disk =
        Row::new("times of acknowledgements", "the disk's own sync of 64 KiB: p99", "ms", Better::Less);
    for _ in 0..plan.runs {
        let sync = sync_p99();
        disk.push(Kind::Luminate, sync);
        for kind in &plan.engines {
            let engine = Engine::start(*kind);
            let endpoint = kind.endpoint(Protocol::RemoteWrite).expect("all take it");
            load::send_rounds(&engine, CONNECTIONS, endpoint, &first, Duration::MAX);
            let most = load::send_rounds(&engine, CONNECTIONS, endpoint, &fast, FASTEST).per_second();
            load::settle(&engine);
            let p99 = load::send_steadily(&engine, CONNECTIONS, endpoint, &steady, most / 2.0).ack_p99_ms();
            println!(
                "    {}: p99 {} ms at {} samples/s, the disk's sync {} ms",
                kind.name(),
                short(p99),
                short(most / 2.0),
                short(sync)
            );
            acks.push(*kind, p99);
            if *kind == Kind::Luminate {
                beyond.push(*kind, (p99 - sync).max(0.0));
            }
        }
    }
    beyond.remark = "only Luminate waits for the disk".to_owned();
    [beyond, acks, disk].into_iter().for_each(|row| comparison.add(row));
}

/// Milliseconds within which 99 of 100 syncs of a file end that is overwritten as a log is.
fn sync_p99() -> f64 {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("log");
    let block = vec![0x5a; SYNCED];
    let file = OpenOptions::new().create_new(true).write(true).open(&path).expect("a fresh directory");
    let places = 256;
    let put = |file: &File, number: usize| {
        file.write_all_at(&block, (number % places * SYNCED) as u64).expect("the disk takes it");
    };
    (0..places).for_each(|number| put(&file, number));
    file.sync_all().expect("the disk takes it");
    let times: Vec<f64> = (0..SYNCS)
        .map(|number| {
            let started = Instant::now();
            put(&file, number);
            file.sync_data().expect("the disk takes it");
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    p99(&times)
}
