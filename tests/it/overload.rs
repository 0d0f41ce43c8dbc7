//! More than a worker can do: who is answered, who is told to come again, and that nobody pays for another's question.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::client::{Client, now, sample};
use luminate_tests::http::Response;
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

/// Samples from which on a query is heavy in these tests; more than ClickHouse reads for a single one.
const HEAVY: u64 = 50_000;
/// Parts of 10,000 samples, together more than a light query looks at.
const PARTS: i64 = 12;
/// The same for a question that takes long enough for hundreds to come meanwhile, on a fast machine too.
const MANY_PARTS: i64 = 60;
/// How long a flood may take until it does what it is for.
const FLOOD_PATIENCE: Duration = Duration::from_secs(60);

/// A hundred series of `parts` times 100 samples, a second apart until now, and one beside them.
fn inhabit(client: &Client, parts: i64) {
    let t = now() - parts * 100_000;
    for part in 0..parts {
        let samples: Vec<Value> = (0..10_000)
            .map(|n| {
                let id = (n % 100).to_string();
                sample("big", t + part * 100_000 + n / 100 * 1_000, n as f64, &[("id", &id)])
            })
            .collect();
        client.store(&samples);
    }
    client.store(&[sample("small", now() - 1_000, 1.0, &[])]);
}

fn heavy() -> Value {
    json!({"queryType": "aggregate", "metricName": "big", "aggregation": "p99", "groupBy": ["id"],
        "interval": "1m", "timeRange": {"relative": "2h"}, "timeout": "30s", "limit": 10_000})
}

fn light() -> Value {
    json!({"queryType": "range", "metricName": "small", "timeRange": {"relative": "1h"}, "timeout": "30s"})
}

/// What became of the requests of a flood.
#[derive(Debug, Default)]
struct Flood {
    answered: AtomicU64,
    shed: AtomicU64,
    other: AtomicU64,
}

impl Flood {
    fn count(&self, answer: &Response) {
        let count = match answer.status {
            200 => &self.answered,
            503 => &self.shed,
            _ => &self.other,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    fn counts(&self) -> [u64; 3] {
        [self.answered(), self.shed(), self.other.load(Ordering::Relaxed)]
    }
}

/// Runs `body` while so many clients ask `question` again and again, once `flooded` says that they do.
fn while_flooded(
    clients: usize,
    client: &Client,
    question: &Value,
    flooded: impl Fn(&Flood) -> bool,
    body: impl FnOnce(),
) -> [u64; 3] {
    let (flood, over) = (Flood::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = client.query(question);
                    flood.count(&answer);
                    if answer.status == 503 {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
        }
        // Ended also by a test that fails, so that the scope does.
        let _ended = OnDrop(&over);
        let patience = Instant::now() + FLOOD_PATIENCE;
        while !flooded(&flood) {
            assert!(Instant::now() < patience, "no flood: {:?}", flood.counts());
            thread::sleep(Duration::from_millis(1));
        }
        body();
    });
    flood.counts()
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The figure of `class` on the page.
fn figure(worker: &Worker, name: &str, class: &str) -> u64 {
    let page = worker.client().get("/metrics").text();
    let start = format!("luminate_{name}_total{{class=\"{class}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |value| value.parse().expect("a whole number"))
}

#[test]
fn what_matters_most_is_answered_and_the_rest_is_told_to_come_again() {
    luminate_tests::only_on!(
        RocksDb,
        "which queries are heavy; a server of its own decides whom a flood meets"
    );
    let worker = Setup::new()
        .with("query_limits.max_concurrent", 10)
        .with("query_limits.heavy_samples", HEAVY)
        .start();
    let client = worker.client();
    inhabit(&client, MANY_PARTS);
    let t = now() - 100;
    let known = |n: i64| sample("small", t + n, 2.0, &[]);
    let new = |n: i64| sample("small", t, 2.0, &[("n", &n.to_string())]);
    let mut refused = Vec::new();
    // More than work or may wait, so some are shed at once however fast the others are, as soon as all have come.
    let shedding = |flood: &Flood| flood.answered() > 0 && flood.shed() > 0;
    let counts = while_flooded(320, &client, &heavy(), shedding, || {
        for n in 0..40 {
            assert_eq!(worker.client().get("/api/v1/health/ready").status, 200);
            assert_eq!(client.write(&[known(2 * n)]).status, 200, "a known series");
            assert_eq!(client.query(&light()).status, 200, "a light query");
            assert_eq!(client.get("/api/v1/metrics").status, 200, "a listing");
            let answer = client.write(&[known(2 * n + 1), new(n)]);
            if answer.status != 200 {
                assert_eq!(answer.refused(503), "OVERLOADED");
                assert!(answer.header("retry-after").is_some_and(|after| after != "0"));
                refused.push(n);
            }
        }
    });
    let [answered, shed, other] = counts;
    assert!(answered > 0 && shed > 0 && other == 0, "heavy queries: {counts:?}");
    assert!(refused.len() >= 10, "new series are refused {} times", refused.len());
    // 1. The figures say the same.
    assert_eq!(figure(&worker, "shed", "known_series") + figure(&worker, "shed", "light_query"), 0);
    assert_eq!(figure(&worker, "shed", "new_series"), refused.len() as u64);
    assert_eq!(figure(&worker, "shed", "heavy_query"), shed);
    assert!(figure(&worker, "admitted", "known_series") >= 80);
    // 2. Of a write with both, the known sample is stored, and sending it again brings the rest.
    assert_eq!(client.count("small"), 1 + 80 + 40 - refused.len() as u64);
    for n in &refused {
        client.store(&[new(*n)]);
    }
    assert_eq!(client.count("small"), 1 + 80 + 40);
}

/// The control of the test above: where there is room for all, nobody is told to come again.
#[test]
fn where_there_is_room_nobody_is_shed() {
    let worker = Setup::new()
        .with("query_limits.max_concurrent", 256)
        .with("query_limits.heavy_samples", HEAVY)
        .start();
    let client = worker.client();
    inhabit(&client, PARTS);
    let counts = while_flooded(
        16,
        &client,
        &heavy(),
        |flood| flood.answered() > 0,
        || {
            for n in 0..20 {
                client.store(&[sample("small", now() - 500, 2.0, &[("n", &format!("{n}"))])]);
            }
        },
    );
    assert_eq!(&counts[1..], [0, 0], "{counts:?}");
    for class in ["known_series", "light_query", "heavy_query", "new_series", "import"] {
        assert_eq!(figure(&worker, "shed", class), 0, "{class}");
    }
}

/// Questions as expensive as they come: past the limits of samples, memory and time, with a group and a row for
/// everything.
fn deadly() -> Vec<Value> {
    let range = json!({"relative": "2h"});
    vec![
        heavy(),
        json!({"queryType": "aggregate", "metricName": "big", "aggregation": "p50", "groupBy": ["id"],
            "interval": "1s", "timeRange": range, "timeout": "30s", "limit": 10_000}),
        json!({"queryType": "rate", "metricName": "big", "groupBy": ["id"], "interval": "1s",
            "timeRange": range, "timeout": "200ms", "limit": 10_000}),
        json!({"queryType": "range", "metricName": "big", "timeRange": range, "limit": 10_000}),
        json!({"queryType": "aggregate", "metricName": "big", "aggregation": "integral", "interval": "1ms",
            "timeRange": range, "timeout": "1ms", "limit": 10_000}),
    ]
}

#[test]
fn a_question_that_costs_too_much_costs_its_tenant_only() {
    let worker = Setup::new()
        .with_auth()
        .with("query_limits.heavy_samples", HEAVY)
        .with("query_limits.max_scanned_samples", 2 * HEAVY)
        .with("query_limits.max_memory", "2 MiB")
        .start();
    let (deadly_one, other) = (worker.client_of("deadly"), worker.client_of("other"));
    inhabit(&deadly_one, PARTS);
    inhabit(&other, PARTS);
    let over = AtomicBool::new(false);
    let statuses = thread::scope(|scope| {
        let spawned: Vec<_> = (0..12)
            .map(|at| {
                let (client, over) = (&deadly_one, &over);
                scope.spawn(move || {
                    let questions = deadly();
                    let mut statuses = Vec::new();
                    while !over.load(Ordering::Relaxed) || statuses.len() < questions.len() {
                        let question = &questions[(at + statuses.len()) % questions.len()];
                        statuses.push(client.query(question).status);
                    }
                    statuses
                })
            })
            .collect();
        let ended = OnDrop(&over);
        for _ in 0..40 {
            assert_eq!(other.query(&light()).status, 200);
            assert_eq!(other.rows(&light()).len(), 1);
            other.store(&[sample("another", now(), 1.0, &[])]);
        }
        drop(ended);
        spawned.into_iter().flat_map(|thread| thread.join().expect("a client")).collect::<Vec<_>>()
    });
    // Its own are answered, refused for their cost, over their time, or too many at once.
    assert!(statuses.iter().all(|status| [200, 422, 429, 503, 504].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&422) && statuses.contains(&429), "{statuses:?}");
    assert!(!worker.log().contains("panicked"));
    // Nothing of it goes on, once what was given up has noticed.
    let running = || deadly_one.get("/api/v1/queries").expect(200)["queries"].clone();
    let patience = Instant::now() + Duration::from_secs(20);
    while running() != json!([]) && Instant::now() < patience {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(running(), json!([]));
}
