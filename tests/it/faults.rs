//! ClickHouse on bad days: what a worker says to its clients, to probes and in its log, and what becomes of
//! the batches. Each test has a database of its own behind a proxy of its own.

use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::clickhouse::{ClickHouse, OwnDatabase};
use luminate_tests::client::{Client, now, sample};
use luminate_tests::fault_proxy::{Fault, FaultProxy, Kind};
use luminate_tests::faults::{self, Run};
use luminate_tests::http::Response;
use luminate_tests::worker::{Setup, Worker, free_address};
use serde_json::{Value, json};

/// Far more than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// What no answer may show of the inside.
const INTERNALS: [&str; 5] = ["Code:", "Exception", "http://", "127.0.0.1", "MergeTree"];

/// A server, a proxy before it, and a database of its own.
struct Site {
    proxy: FaultProxy,
    database: OwnDatabase,
}

impl Site {
    fn new() -> Self {
        Self { proxy: FaultProxy::before(ClickHouse::shared().address()), database: OwnDatabase::new() }
    }

    /// A worker that gives an insert two seconds: a test waits for them where nothing is to be had.
    fn setup(&self) -> Setup {
        Setup::clickhouse(&self.proxy.url(), &self.database.name)
            .with("storage.clickhouse.insert_timeout", "2s")
            .with("storage.clickhouse.connect_timeout", "300ms")
    }

    /// Rows of `samples` as they were inserted: before any merge, were one to come.
    fn rows(&self) -> f64 {
        ClickHouse::shared().number(&format!("SELECT count() FROM {}.samples", self.database.name))
    }

    fn stop_merges(&self) {
        ClickHouse::shared().execute(&format!("SYSTEM STOP MERGES {}.samples", self.database.name));
    }
}

/// A worker's batch of ten samples, the same for the same `number`.
fn batch(number: i64, t: i64) -> Vec<Value> {
    (0..10)
        .map(|at| sample("m", t + number * 10 + at, at as f64, &[("number", &number.to_string())]))
        .collect()
}

/// A time whose batches all lie on one day.
fn base() -> i64 {
    const DAY: i64 = 86_400_000;
    (now() - 600_000).max(now() / DAY * DAY)
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that an answer says to come back, when, and nothing of the inside.
#[track_caller]
fn come_back(answer: &Response) -> String {
    let code = answer.refused(503);
    let after: u64 = answer.header("retry-after").expect("when to come back").parse().expect("whole seconds");
    assert!((1..=60).contains(&after), "in {after} s");
    discreet(answer);
    code
}

#[track_caller]
fn discreet(answer: &Response) {
    let text = answer.text();
    for word in INTERNALS {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

/// What health says, as one text; it needs no token and must say nothing of the inside either.
fn health(client: &Client) -> String {
    let answer = client.get("/api/v1/health");
    discreet(&answer);
    answer.text()
}

#[track_caller]
fn says(client: &Client, words: &str) {
    until(&format!("health says {words:?}, but {}", health(client)), || health(client).contains(words));
}

/// Writes a batch until it is taken.
#[track_caller]
fn deliver(client: &Client, batch: &[Value]) {
    until("a batch is taken", || {
        let answer = client.write(batch);
        if answer.status != 200 {
            come_back(&answer);
        }
        answer.status == 200
    });
}

#[track_caller]
fn question() -> Value {
    json!({"queryType": "aggregate", "metricName": "m", "aggregation": "sum", "timeRange": {"relative": "1h"}})
}

#[test]
fn a_worker_waits_for_a_server_that_is_absent_at_the_start() {
    let site = Site::new();
    site.proxy.close();
    let worker = site.setup().start_at(free_address());
    until("it lives", || answers(&worker, "/api/v1/health/live", 200));
    let client = worker.client();
    assert_eq!(client.get("/api/v1/health/ready").status, 503);
    says(&client, "can't be reached");
    come_back(&client.write(&batch(0, base())));
    come_back(&client.query(&question()));
    assert!(worker.log().contains("can't be reached"), "{}", worker.log());
    site.proxy.heal();
    until("it is ready", || worker.is_ready());
    deliver(&client, &batch(0, base()));
    assert_eq!(client.count("m"), 10);
}

/// Whether a worker that may not listen yet answers so.
fn answers(worker: &Worker, path: &str, status: u16) -> bool {
    let request = luminate_tests::http::request("GET", path, &[("connection", "close")], &[]);
    let answer = luminate_tests::http::Connection::open(worker.address())
        .and_then(|mut connection| connection.exchange(&request));
    answer.is_ok_and(|answer| answer.status == status)
}

#[test]
fn a_server_that_goes_away_and_comes_back_costs_no_acked_batch() {
    let site = Site::new();
    let worker = site.setup().start();
    let (client, t) = (worker.client(), base());
    deliver(&client, &batch(0, t));
    site.proxy.close();
    until("it isn't ready", || !worker.is_ready());
    assert_eq!(client.get("/api/v1/health/live").status, 200);
    says(&client, "can't be reached");
    come_back(&client.write(&batch(1, t)));
    come_back(&client.query(&question()));
    come_back(&client.get("/api/v1/metrics"));
    site.proxy.heal();
    until("it is ready", || worker.is_ready());
    deliver(&client, &batch(1, t));
    assert_eq!(client.count("m"), 20);
}

#[test]
fn a_slow_server_is_waited_for_and_one_that_hangs_is_not() {
    let site = Site::new();
    let worker = site.setup().start();
    let (client, t) = (worker.client(), base());
    deliver(&client, &batch(0, t));
    site.stop_merges();
    site.proxy.each(Kind::Insert, Fault::Slow(Duration::from_millis(150)));
    deliver(&client, &batch(1, t));
    site.proxy.each(Kind::Insert, Fault::Hang(Duration::from_secs(3_600)));
    let started = Instant::now();
    come_back(&client.write(&batch(2, t)));
    assert!(started.elapsed() < Duration::from_secs(20), "a client waited {:?}", started.elapsed());
    site.proxy.heal();
    deliver(&client, &batch(3, t));
    deliver(&client, &batch(2, t));
    assert_eq!(client.count("m"), 40);
    site.proxy.each(Kind::Select, Fault::Hang(Duration::from_secs(3_600)));
    let mut slow = question();
    slow["timeout"] = json!("300ms");
    assert_eq!(client.query(&slow).refused(504), "QUERY_TIMEOUT");
}

#[test]
fn a_server_that_restarts_under_load_loses_nothing() {
    let mut server = ClickHouse::start();
    let setup = Setup::clickhouse(&server.url(), "luminate").with("storage.clickhouse.insert_timeout", "1s");
    let worker = setup.start();
    let (client, t) = (worker.client(), base());
    thread::scope(|scope| {
        let writing = scope.spawn(|| (0..60).for_each(|number| deliver(&client, &batch(number, t))));
        thread::sleep(Duration::from_millis(100));
        server.restart();
        thread::sleep(Duration::from_millis(200));
        server.kill();
        server.start_again();
        writing.join().expect("every batch is taken in the end");
    });
    until("it is ready", || worker.is_ready());
    assert_eq!(client.count("m"), 600);
}

#[test]
fn what_a_person_must_mend_is_named_by_health_and_log() {
    for (code, words) in [
        (242, "read-only"),
        (164, "read-only"),
        (252, "too many parts"),
        (241, "out of memory"),
        (516, "storage.clickhouse.username"),
        (497, "lacks a right"),
    ] {
        let site = Site::new();
        let worker = site.setup().start();
        let (client, t) = (worker.client(), base());
        deliver(&client, &batch(0, t));
        site.stop_merges();
        site.proxy.each(Kind::Insert, Fault::Exception(code));
        come_back(&client.write(&batch(1, t)));
        let said = health(&client);
        assert!(said.contains(words), "{code}: health says {said}");
        let log = worker.log();
        assert!(log.lines().any(|line| line.contains(words) && line.contains("WARN")), "{code}: {log}");
        assert_eq!(client.number(&question()), 45.0, "{code}: questions go on");
        site.proxy.heal();
        deliver(&client, &batch(1, t));
        assert_eq!(client.count("m"), 20, "{code}");
        until("health forgets it", || !health(&client).contains(words));
    }
}

#[test]
fn a_refused_password_at_the_start_is_named_and_waited_for() {
    for (code, words) in [(516, "storage.clickhouse.password"), (497, "lacks a right")] {
        let site = Site::new();
        site.proxy.all(Fault::Exception(code));
        let worker = site.setup().start_at(free_address());
        until("it lives", || answers(&worker, "/api/v1/health/live", 200));
        // The password's key stands as `storage.clickhouse.username and .password`.
        let words = words.replace("clickhouse.password", "clickhouse.username and .password");
        says(&worker.client(), &words);
        assert_eq!(worker.client().get("/api/v1/health/ready").status, 503);
        until("the log says it", || worker.log().contains(&words));
        site.proxy.heal();
        until("it is ready", || worker.is_ready());
    }
}

#[test]
fn a_real_servers_password_is_asked_for() {
    let server = ClickHouse::start_with(&["--user", "luminate", "--password", "a-canary-password"]);
    let setup = Setup::clickhouse(&server.url(), "luminate").with("storage.clickhouse.username", "luminate");
    let worker = setup.clone().with("storage.clickhouse.password", "wrong-canary").start_at(free_address());
    until("it lives", || answers(&worker, "/api/v1/health/live", 200));
    says(&worker.client(), "refuses the user or password");
    assert!(!worker.log().contains("canary"), "{}", worker.log());
    let worker = setup.with("storage.clickhouse.password", "a-canary-password").start();
    deliver(&worker.client(), &batch(0, base()));
    assert_eq!(worker.client().count("m"), 10);
    assert!(!worker.log().contains("canary"), "{}", worker.log());
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let site = Site::new();
    drop(site.setup().start());
    let versions = format!("{}.schema_versions", site.database.name);
    ClickHouse::shared().execute(&format!("INSERT INTO {versions} (version) VALUES (4711)"));
    let worker = site.setup().start_at(free_address());
    until("it lives", || answers(&worker, "/api/v1/health/live", 200));
    until("the log says it", || worker.log().contains("4711") && worker.log().contains("newer worker"));
    assert!(!worker.is_ready());
    says(&worker.client(), "version");
    come_back(&worker.client().write(&batch(0, base())));
    assert_eq!(site.rows(), 0.0);
}

#[test]
fn a_batch_whose_answer_is_lost_is_stored_exactly_once() {
    let short = Duration::from_millis(700);
    for fault in [
        Fault::LostAnswer,
        Fault::CutAnswer,
        Fault::SlowAnswer(short),
        Fault::ExceptionAfterwards(319),
        Fault::ExceptionAfterwards(210),
        Fault::LateExceptionAfterwards(319),
        Fault::TaggedExceptionAfterwards(319),
    ] {
        for table in ["series", "samples"] {
            let site = Site::new();
            let worker = site.setup().with("storage.clickhouse.insert_timeout", "20s").start();
            site.stop_merges_of_all();
            let (client, t) = (worker.client(), base());
            let (wanted, own) = (table.to_owned(), fault.clone());
            site.proxy.plan(move |asked| (asked.table == wanted && asked.nth == 1).then(|| own.clone()));
            client.store(&batch(0, t));
            assert_eq!(site.proxy.faults(), 1, "{fault:?} of {table}");
            assert_eq!(site.rows(), 10.0, "{fault:?} of {table}");
            let series = format!("SELECT count() FROM {}.series", site.database.name);
            assert_eq!(ClickHouse::shared().number(&series), 1.0, "{fault:?} of {table}");
            assert_eq!(client.count("m"), 10);
        }
    }
}

impl Site {
    fn stop_merges_of_all(&self) {
        self.stop_merges();
        ClickHouse::shared().execute(&format!("SYSTEM STOP MERGES {}.series", self.database.name));
    }
}

#[test]
fn a_batch_that_was_not_stored_is_not_acked_whatever_the_status_line_says() {
    for fault in [
        Fault::LateException(241),
        Fault::TaggedException(241),
        Fault::LateException(252),
        Fault::TaggedException(497),
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::ResetSending,
        Fault::ResetUnanswered,
        Fault::Exception(159),
        Fault::Exception(202),
        Fault::Exception(319),
    ] {
        let site = Site::new();
        let worker = site.setup().start();
        let (client, t) = (worker.client(), base());
        deliver(&client, &batch(0, t));
        site.stop_merges();
        let before = site.rows();
        site.proxy.each(Kind::Insert, fault.clone());
        come_back(&client.write(&batch(1, t)));
        assert_eq!(site.rows(), before, "{fault:?}");
        site.proxy.heal();
        deliver(&client, &batch(1, t));
        deliver(&client, &batch(2, t));
        assert_eq!(client.count("m"), 30, "{fault:?}");
    }
}

#[test]
fn a_question_that_fails_half_way_is_no_answer() {
    let site = Site::new();
    let worker = site.setup().start();
    let client = worker.client();
    deliver(&client, &batch(0, base()));
    for (fault, status) in [
        (Fault::LateExceptionAfterwards(241), 503),
        (Fault::TaggedExceptionAfterwards(241), 503),
        (Fault::CutAnswer, 503),
        (Fault::LostAnswer, 503),
        (Fault::Exception(202), 503),
        (Fault::Exception(241), 503),
        (Fault::Exception(159), 504),
        (Fault::TaggedExceptionAfterwards(159), 504),
        (Fault::Exception(497), 503),
        (Fault::Exception(516), 503),
        (Fault::Status(502), 503),
        (Fault::Status(503), 503),
    ] {
        site.proxy.plan({
            let fault = fault.clone();
            move |asked| (asked.kind == Kind::Select && asked.sql.contains("samples")).then(|| fault.clone())
        });
        let answer = client.query(&question());
        assert!(!answer.refused(status).is_empty(), "{fault:?}");
        discreet(&answer);
        assert_eq!(status == 503, answer.header("retry-after").is_some(), "{fault:?}");
        site.proxy.heal();
        assert_eq!(client.number(&question()), 45.0, "{fault:?}");
    }
}

#[test]
fn an_endpoint_that_is_away_is_replaced_by_another() {
    let (site, other) = (Site::new(), FaultProxy::before(ClickHouse::shared().address()));
    let endpoints = format!("{},{}", site.proxy.url(), other.url());
    let worker = site.setup().with("storage.clickhouse.endpoints", endpoints).start();
    let (client, t) = (worker.client(), base());
    deliver(&client, &batch(0, t));
    site.proxy.close();
    for number in 1..5 {
        deliver(&client, &batch(number, t));
    }
    assert_eq!(client.count("m"), 50);
    assert!(worker.is_ready());
    other.close();
    site.proxy.heal();
    deliver(&client, &batch(5, t));
    assert_eq!(client.count("m"), 60);
}

#[test]
fn random_faults_lose_and_double_nothing() {
    let run = Run { seed: fastrand::u64(..), plans: 24, forgetful: false };
    let summary =
        faults::run(&run, &mut |line| println!("{line}")).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{summary}");
    // How many requests a plan harms follows from how fast the machine makes any.
    assert!(summary.batches > 50 && summary.faults > 12 && summary.counted > 500, "{summary}");
}

#[test]
fn a_server_that_forgets_what_it_has_inserted_is_caught() {
    let run = Run { seed: fastrand::u64(..), plans: 60, forgetful: true };
    let failure = faults::run(&run, &mut |line| println!("{line}")).expect_err("samples were doubled");
    println!("{failure}");
    assert!(failure.what.contains("doubled in the table"), "{failure}");
}
