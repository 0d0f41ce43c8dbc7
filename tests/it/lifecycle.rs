//! Restarts, kills and drains.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::client::{now, sample};
use luminate_tests::http::{Connection, request};
use luminate_tests::only_on;
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

#[test]
fn a_restart_keeps_everything() {
    let mut worker = Worker::start();
    let t = now() - 100_000;
    let samples: Vec<Value> = (0..5_000)
        .map(|n| sample("m", t + n % 50, n as f64 * 0.1, &[("n", &(n / 50).to_string()), ("k", "v")]))
        .collect();
    worker.client().store(&samples);
    let questions = [
        json!({"queryType": "range", "metricName": "m", "timeRange": {"start": t, "end": t + 50}, "limit": 10_000}),
        json!({"queryType": "aggregate", "metricName": "m", "aggregation": "p99", "groupBy": ["n"],
               "timeRange": {"start": t, "end": t + 50}}),
        json!({"queryType": "rate", "metricName": "m", "interval": "1s", "groupBy": ["k"],
               "timeRange": {"start": t, "end": t + 50}}),
    ];
    // Steps may be summed in another order once some are there twice.
    let rounded = |mut row: Value| {
        if let Some(rate) = row["rate"].as_f64() {
            row["rate"] = json!((rate * 1e6).round());
        }
        row
    };
    let answers = |worker: &Worker| -> Vec<Vec<Value>> {
        questions.iter().map(|one| worker.client().rows(one).into_iter().map(rounded).collect()).collect()
    };
    let before = answers(&worker);
    worker.restart();
    assert_eq!(answers(&worker), before);
    worker.kill();
    worker.start_again();
    assert_eq!(answers(&worker), before);
    worker.client().store(&samples);
    assert_eq!(answers(&worker), before, "written again, nothing changes");
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let mut worker = Worker::start();
    for round in 0..5 {
        let acked = AtomicU64::new(0);
        let (client, address) = (worker.client(), worker.address());
        thread::scope(|scope| {
            for writer in 0..4 {
                let acked = &acked;
                scope.spawn(move || {
                    let Ok(mut connection) = Connection::open(address) else { return };
                    for n in 0.. {
                        let one =
                            sample(&format!("m{round}"), now(), 1.0, &[("n", &format!("{writer}-{n}"))]);
                        let body = json!({"metrics": [one]}).to_string();
                        let headers = [("content-type", "application/json")];
                        let bytes = request("POST", "/api/v1/write", &headers, body.as_bytes());
                        match connection.exchange(&bytes) {
                            Ok(answer) if answer.status == 200 => acked.fetch_add(1, Ordering::Relaxed),
                            _ => return,
                        };
                    }
                });
            }
            // Amid writes, of which some were acknowledged.
            let patience = Instant::now() + Duration::from_secs(20);
            while acked.load(Ordering::Relaxed) == 0 && Instant::now() < patience {
                thread::sleep(Duration::from_millis(10));
            }
            thread::sleep(Duration::from_millis(150));
            worker.kill();
        });
        worker.start_again();
        let client = {
            drop(client);
            worker.client()
        };
        let (acked, found) = (acked.into_inner(), client.count(&format!("m{round}")));
        assert!(acked > 0 && (acked..=acked + 4).contains(&found), "{acked} acknowledged, {found} found");
    }
}

/// A client that follows the rules: it keeps its connection until it is told that it closes, and opens no
/// other once the worker says that it isn't ready.
fn write_until_drained(
    worker: &Worker,
    writer: usize,
    ready: &AtomicBool,
    acked: &AtomicU64,
    lost: &AtomicU64,
) {
    let mut n = 0;
    while ready.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::open(worker.address()) else { return };
        while !connection.is_closed() {
            let one = sample("m", now(), 1.0, &[("n", &format!("{writer}-{n}"))]);
            n += 1;
            let body = json!({"metrics": [one]}).to_string();
            let bytes =
                request("POST", "/api/v1/write", &[("content-type", "application/json")], body.as_bytes());
            match connection.exchange(&bytes) {
                Ok(answer) if answer.status == 200 => acked.fetch_add(1, Ordering::Relaxed),
                _ => lost.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

#[test]
fn a_drain_under_load_loses_no_request_and_ends_with_0() {
    let mut worker = Setup::new().with("server.drain_delay", "1s").start();
    let (ready, acked, lost) = (AtomicBool::new(true), AtomicU64::new(0), AtomicU64::new(0));
    let started = thread::scope(|scope| {
        for writer in 0..8 {
            let (worker, ready, acked, lost) = (&worker, &ready, &acked, &lost);
            scope.spawn(move || write_until_drained(worker, writer, ready, acked, lost));
        }
        thread::sleep(Duration::from_millis(300));
        worker.terminate();
        let started = Instant::now();
        while worker.is_ready() {
            thread::sleep(Duration::from_millis(5));
        }
        ready.store(false, Ordering::Relaxed);
        started
    });
    let status = worker.wait(Duration::from_secs(30));
    assert!(status.success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(lost.into_inner(), 0, "requests without an answer of 200");
    worker.start_again();
    let acked = acked.into_inner();
    assert!(acked > 0);
    assert_eq!(worker.client().count("m"), acked);
}

#[test]
fn a_draining_worker_still_serves_and_says_that_it_is_not_ready() {
    let mut worker = Setup::new().with("server.drain_delay", "2s").start();
    let client = worker.client();
    worker.terminate();
    let deadline = Instant::now() + Duration::from_secs(1);
    while client.get("/api/v1/health/ready").status == 200 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.get("/api/v1/health/ready").status, 503);
    assert_eq!(client.get("/api/v1/health/live").status, 200);
    client.store(&[sample("m", now(), 1.0, &[])]);
    assert_eq!(client.count("m"), 1);
    assert!(worker.wait(Duration::from_secs(30)).success());
}

#[test]
fn a_second_worker_on_the_same_data_is_refused() {
    only_on!(RocksDb, "its folder, which one worker has for itself");
    let worker = Worker::start();
    let (status, said) = Setup::new().over(&worker.data()).run(&[]);
    assert!(!status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
}

#[test]
fn a_buffered_ack_says_so() {
    only_on!(RocksDb, "its log, which may be left to the system");
    let worker = Setup::new().with("storage.rocksdb.ack", "buffered").start();
    let answer = worker.client().write(&[sample("m", now(), 1.0, &[])]).expect(200);
    assert_eq!(answer["durable"], false);
    assert_eq!(worker.client().count("m"), 1);
}
