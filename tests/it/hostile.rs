//! Clients that mean harm.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::client::{now, sample};
use luminate_tests::hostile::{self, Run};
use luminate_tests::http::Connection;
use luminate_tests::http2::{self, Frame, Http2, flag, kind};
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

fn http2(worker: &Worker) -> Http2 {
    Http2::open(worker.address(), PATIENCE).unwrap()
}

/// Sends frames until the server hangs up or they are all sent; how many were.
fn flood(connection: &mut Http2, parts: impl Iterator<Item = Vec<Frame>>) -> usize {
    parts.take_while(|frames| connection.send(frames).is_ok()).count()
}

fn head(stream: u32) -> Frame {
    Frame::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, http2::get("/api/v1/metrics"))
}

/// The worker serves others, has said nothing of a panic, and `more` megabytes at most.
fn goes_on(worker: &Worker, before: u64, more: u64) {
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
    assert!(!worker.log().contains("panicked"));
    let grown = process::peak_rss(worker.pid()).saturating_sub(before);
    assert!(grown < more << 20, "{} MB", grown >> 20);
}

#[test]
fn http2_is_spoken_and_an_ordinary_request_is_answered() {
    let worker = Worker::start();
    let mut connection = http2(&worker);
    connection.send(&[head(1)]).unwrap();
    let answer = connection.await_kind(kind::HEADERS).unwrap();
    assert_eq!((answer.stream, http2::status(&answer.payload)), (1, Some(200)));
}

#[test]
fn streams_that_are_reset_as_soon_as_they_are_open_end_the_connection() {
    let worker = Worker::start();
    process::reset_peak(worker.pid());
    let before = worker.rss();
    let mut connection = http2(&worker);
    let streams = (0..50_000_u32).map(|n| 2 * n + 1);
    let parts =
        streams.map(|stream| vec![head(stream), Frame::new(kind::RST_STREAM, 0, stream, [0, 0, 0, 8])]);
    // In one piece, so that the server finds many at once.
    let mut all: Vec<Frame> = parts.flatten().collect();
    let rest = all.split_off(4_000);
    let _ = connection.send(&all);
    let _ = connection.send(&rest);
    let ended = connection.await_kind(kind::GOAWAY);
    assert!(!ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "the connection lives on");
    goes_on(&worker, before, 32);
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let worker =
        Setup::new().with("server.max_concurrent_streams", 10).with("server.body_timeout", "2s").start();
    let mut connection = http2(&worker);
    let _ = connection.await_kind(kind::SETTINGS).unwrap();
    let post = http2::post("/api/v1/write");
    let open = |stream| Frame::new(kind::HEADERS, flag::END_HEADERS, stream, post.clone());
    connection.send(&(0..40).map(|n| open(2 * n + 1)).collect::<Vec<_>>()).unwrap();
    let mut refused = 0;
    let mut answered = 0;
    while refused + answered < 40 {
        match connection.receive() {
            Ok(frame) if frame.kind == kind::RST_STREAM && frame.payload == [0, 0, 0, 7] => refused += 1,
            Ok(frame) if frame.kind == kind::HEADERS => answered += 1,
            Ok(frame) if frame.kind == kind::GOAWAY => break,
            Ok(_) => {}
            Err(error) => panic!("{refused} refused, {answered} answered: {error}"),
        }
    }
    assert!(refused >= 30 || answered <= 10, "{refused} refused, {answered} answered");
    goes_on(&worker, u64::MAX, 1);
}

#[test]
fn a_head_that_goes_on_for_ever_is_cut_off() {
    let worker = Worker::start();
    process::reset_peak(worker.pid());
    let before = worker.rss();
    let more = http2::fields(&[("x", &"y".repeat(16_000))]);
    let begin = Frame::new(kind::HEADERS, flag::END_STREAM, 1, http2::get("/api/v1/metrics"));
    for endless in [
        Frame::new(kind::CONTINUATION, 0, 1, more),
        // Nothing in them, so no limit of bytes is met.
        Frame::new(kind::CONTINUATION, 0, 1, []),
    ] {
        let mut connection = http2(&worker);
        connection.send(std::slice::from_ref(&begin)).unwrap();
        let sent = flood(&mut connection, (0..2_000).map(|_| vec![endless.clone(); 100]));
        let ended = connection.await_kind(kind::GOAWAY);
        let lives = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(sent < 2_000 || !lives, "{} frames were taken", sent * 100);
    }
    goes_on(&worker, before, 32);
}

#[test]
fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let worker = Worker::start();
    process::reset_peak(worker.pid());
    let before = worker.rss();
    let mut connection = http2(&worker);
    let mut block = http2::get("/api/v1/metrics");
    // A field of 4 kB that is remembered as the first of the table's own (62), then named again and again.
    let mut field = http2::fields(&[("x", &"y".repeat(4_000))]);
    field[0] = 0x40;
    block.extend(field);
    block.resize(16_000, 0x80 | 62);
    let flags = flag::END_HEADERS | flag::END_STREAM;
    connection.send(&[Frame::new(kind::HEADERS, flags, 1, block)]).unwrap();
    if let Ok(answer) = connection.await_kind(kind::HEADERS) {
        assert_ne!(http2::status(&answer.payload), Some(200));
    }
    goes_on(&worker, before, 16);
}

#[test]
fn floods_of_frames_that_ask_for_answers_cost_no_memory() {
    let worker = Worker::start();
    process::reset_peak(worker.pid());
    let before = worker.rss();
    let empty = Frame::new(kind::SETTINGS, 0, 0, []);
    let window = Frame::new(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    let stray = Frame::new(kind::DATA, 0, 1, [0; 100]);
    for frame in [Frame::new(kind::PING, 0, 0, [7; 8]), empty, window, stray] {
        let mut connection = http2(&worker);
        // Nothing is read meanwhile.
        let _ = flood(&mut connection, (0..200).map(|_| vec![frame.clone(); 100]));
    }
    goes_on(&worker, before, 16);
}

#[test]
fn an_answer_whose_client_opens_no_window_is_given_up() {
    let worker = Setup::new().with("server.idle_timeout", "1s").start();
    let client = worker.client();
    let t = now() - 60_000;
    client.store(&(0..8_000).map(|n| sample("m", t + n, 1.0, &[("k", "v")])).collect::<Vec<_>>());
    let mut connection = http2(&worker);
    // No byte of a body may be sent; pings are answered, so the connection isn't dead.
    connection.send(&[Frame::new(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])]).unwrap();
    let body = serde_json::json!({"queryType": "range", "metricName": "m", "limit": 10_000,
        "timeRange": {"relative": "1h"}})
    .to_string();
    let post = http2::post("/api/v1/query");
    let data = Frame::new(kind::DATA, flag::END_STREAM, 1, body);
    connection.send(&[Frame::new(kind::HEADERS, flag::END_HEADERS, 1, post), data]).unwrap();
    let answer = connection.await_kind(kind::HEADERS).unwrap();
    assert_eq!(http2::status(&answer.payload), Some(200));
    let given_up = Instant::now() + Duration::from_secs(20);
    loop {
        match connection.receive() {
            Ok(frame) if frame.kind == kind::PING && frame.flags & flag::ACK == 0 => {
                let _ = connection.send(&[Frame::new(kind::PING, flag::ACK, 0, frame.payload)]);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the answer is still held"),
            Err(_) => break,
        }
        assert!(Instant::now() < given_up, "the answer is still held");
    }
}

#[test]
fn lengths_and_hosts_that_contradict_each_other_are_refused() {
    let worker = Worker::start();
    for head in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: x",
        "content-length: 0\r\ncontent-length: 4",
        "content-length: 4, 4",
        "content-length: +4",
        "content-length: 0x4",
        "content-length: 4 4",
        "content-length : 4",
        "content-length: 4\r\n x",
    ] {
        let mut connection = Connection::open(worker.address()).unwrap();
        connection.set_patience(PATIENCE).unwrap();
        let text = format!(
            "POST /api/v1/write HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n0\r\n\r\nGET /api/v1/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        let _ = connection.send(text.as_bytes());
        if let Ok(answer) = connection.receive() {
            assert!(
                (400..=501).contains(&answer.status) && answer.status != 500,
                "{head:?}: {}",
                answer.status
            );
            assert!(connection.receive().is_err(), "{head:?}: what was smuggled is answered");
        }
    }
    for hosts in ["host: a\r\nhost: b", "host: a\r\nHost: a", "Host: a\r\nHOST: b", "accept: */*"] {
        let mut connection = Connection::open(worker.address()).unwrap();
        connection.set_patience(PATIENCE).unwrap();
        connection.send(format!("GET /api/v1/metrics HTTP/1.1\r\n{hosts}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 400, "{hosts:?}");
    }
    assert!(worker.is_ready());
}

/// Every way to take a worker's memory, for a moment each; `make hostile` takes its time.
#[test]
fn memory_stays_within_what_the_worker_was_told() {
    luminate_tests::only_on!(RocksDb, "the engine's memory");
    let run = Run { memory: 256 << 20, each: Duration::from_secs(3), unbounded: false };
    let summary = hostile::run(&run, &mut |line| println!("{line}")).unwrap();
    println!("{summary}");
}
