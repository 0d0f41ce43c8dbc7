//! Clients that mean harm.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::client::{now, sample};
use luminate_tests::http::Connection;
use luminate_tests::process;
use luminate_tests::worker::{Setup, Worker};

/// Far more than any timeout set here, and far less than the defaults.
const PATIENCE: Duration = Duration::from_secs(8);

fn impatient() -> Worker {
    Setup::new()
        .with("server.header_timeout", "1s")
        .with("server.body_timeout", "1s")
        .with("server.idle_timeout", "1s")
        .start()
}

/// Waits for the server to hang up, with or without an answer before.
fn hangs_up(connection: &mut Connection) {
    connection.set_patience(PATIENCE).unwrap();
    let started = Instant::now();
    if let Err(error) = connection.drain() {
        assert!(error.kind() != ErrorKind::WouldBlock, "still open after {:?}", started.elapsed());
    }
}

#[test]
fn a_head_that_drips_is_cut_off() {
    let worker = impatient();
    let mut silent = Connection::open(worker.address()).unwrap();
    let mut dripping = Connection::open(worker.address()).unwrap();
    for byte in b"GET /api/v1/metrics HTTP/1.1\r\nhost: x\r\n" {
        if dripping.send(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    hangs_up(&mut dripping);
    hangs_up(&mut silent);
}

#[test]
fn a_body_that_drips_is_cut_off() {
    let worker = impatient();
    let mut connection = Connection::open(worker.address()).unwrap();
    let head = "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    connection.send(head.as_bytes()).unwrap();
    for _ in 0..30 {
        if connection.send(b" ").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    hangs_up(&mut connection);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let worker = impatient();
    let mut connection = Connection::open(worker.address()).unwrap();
    let request = luminate_tests::http::request("GET", "/api/v1/health/live", &[], &[]);
    for _ in 0..10 {
        assert_eq!(connection.exchange(&request).unwrap().status, 200);
        thread::sleep(Duration::from_millis(200));
    }
    hangs_up(&mut connection);
}

#[test]
fn a_flood_of_idle_connections_leaves_room_for_work() {
    let worker = Setup::new().with("server.max_connections", 200).with("server.header_timeout", "2s").start();
    let before = worker.rss();
    process::reset_peak(worker.pid());
    let flood: Vec<_> = (0..800).filter_map(|_| Connection::open(worker.address()).ok()).collect();
    assert!(flood.len() >= 200);
    let grown = process::peak_rss(worker.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{} MB for idle connections", grown >> 20);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !worker.is_ready() {
        assert!(Instant::now() < deadline, "the flood still holds every connection");
        thread::sleep(Duration::from_millis(100));
    }
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
    drop(flood);
}

#[test]
fn huge_heads_are_refused() {
    let worker = Worker::start();
    let long = "x".repeat(1 << 20);
    let many: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
    for head in [
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    ] {
        let mut connection = Connection::open(worker.address()).unwrap();
        connection.set_patience(PATIENCE).unwrap();
        let _ = connection.send(head.as_bytes());
        if let Ok(answer) = connection.receive() {
            assert!([400, 414, 431].contains(&answer.status), "{}", answer.status);
        }
    }
    assert!(worker.is_ready());
}

/// Requests that two parties could understand in two ways.
const AMBIGUOUS: [&str; 8] = [
    "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}{}{}",
    "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
    "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
    "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
    "GET /api/v1/metrics HTTP/1.1\r\nhost : x\r\n\r\n",
    "GET /api/v1/metrics HTTP/9.9\r\nhost: x\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n",
];

#[test]
fn ambiguous_requests_are_refused_and_nothing_behind_them_is_served() {
    let worker = Worker::start();
    let smuggled = "GET /api/v1/health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    for text in AMBIGUOUS {
        let mut connection = Connection::open(worker.address()).unwrap();
        connection.set_patience(PATIENCE).unwrap();
        let _ = connection.send(format!("{text}{smuggled}").as_bytes());
        if let Ok(answer) = connection.receive() {
            assert!(
                (400..=505).contains(&answer.status) && answer.status != 500,
                "{text:?}: {}",
                answer.status
            );
            assert!(connection.receive().is_err(), "{text:?}: a second answer");
        }
    }
    // With both, the chunks count and the connection ends, or the request is refused.
    let both = "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut connection = Connection::open(worker.address()).unwrap();
    connection.set_patience(PATIENCE).unwrap();
    let _ = connection.send(format!("{both}{smuggled}").as_bytes());
    if let Ok(answer) = connection.receive() {
        assert!(answer.status >= 400, "{}", answer.status);
    }
    assert!(worker.is_ready());
}

#[test]
fn two_hosts_are_refused_or_ignored_alike() {
    let worker = Worker::start();
    let mut connection = Connection::open(worker.address()).unwrap();
    connection.set_patience(PATIENCE).unwrap();
    connection.send(b"GET /api/v1/metrics HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").unwrap();
    assert_eq!(connection.receive().unwrap().status, 400);
}

#[test]
fn a_client_that_hangs_up_in_the_middle_harms_nobody() {
    let worker = Worker::start();
    for end in (1..200).step_by(3) {
        let body = "{\"metrics\": [".to_owned() + &" ".repeat(200);
        let bytes = luminate_tests::http::request("POST", "/api/v1/write", &[], body.as_bytes());
        let mut connection = Connection::open(worker.address()).unwrap();
        connection.send(&bytes[..end]).unwrap();
    }
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
    assert!(!worker.log().contains("panicked"));
}
