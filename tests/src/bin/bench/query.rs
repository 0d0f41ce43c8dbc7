//! Times of the fifteen questions over HTTP, after their answers were found equal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use luminate_tests::bench::compare::{Comparison, Row};
use luminate_tests::bench::data::{METRICS, Shape};
use luminate_tests::bench::encode::{Body, Encoder, Protocol};
use luminate_tests::bench::engine::{Engine, Kind};
use luminate_tests::bench::fleet::{Fleet, STEP};
use luminate_tests::bench::load::{self, Server};
use luminate_tests::bench::questions::{ALL, Answer, Data, Question, Requests, compare};
use luminate_tests::bench::report::{Better, short};
use luminate_tests::bench::{median, p95, p99};
use luminate_tests::client::now;
use luminate_tests::http::{Connection, Response, request};
use luminate_tests::process;

use crate::Plan;

const HOSTS: usize = 400;
const HOURS: i64 = 12;
const HOUR: i64 = 3_600_000;
/// Rounds of a request that fills the store.
const ROUNDS: usize = 60;
const SAMPLES_OF_A_REQUEST: usize = 60_000;
/// The requests of a question are sent over so many connections.
const CONNECTIONS: usize = 2;
/// A question is asked so often in a run, unless that takes too long.
const TIMES: usize = 100;
const AT_LEAST: usize = 7;
const PATIENCE: Duration = Duration::from_secs(3);
/// Answers that are compared before anything is timed.
const COMPARED: u64 = 5;

/// Measures every question on every engine.
pub fn measure(comparison: &mut Comparison, plan: &Plan) {
    let hosts = plan.size.of(HOSTS);
    let data = Data { hosts, start: now() / HOUR * HOUR - HOURS * HOUR, hours: HOURS };
    let series = hosts * METRICS.len();
    let steps = (HOURS * HOUR / STEP) as usize;
    println!("query: {series} series × {HOURS} h at 10 s = {} samples", short((series * steps) as f64));
    let mut fleet = Fleet::new(series, Shape::Percent, data.start, 7);
    let mut encoder = Encoder::with_batch(Protocol::RemoteWrite, SAMPLES_OF_A_REQUEST);
    let bodies = encoder.next(&mut fleet, ROUNDS, steps / ROUNDS);
    let mut rows: Vec<Row> =
        ALL.iter().map(|question| Row::new("queries", question.name, "ms", Better::Less)).collect();
    let mut bare = Row::new("requests without a question", "a health check", "ms", Better::Less);
    bare.remark = "what HTTP alone takes over such a connection".to_owned();
    let engines: Vec<Engine> = plan.engines.iter().map(|kind| held(filled(*kind, &bodies))).collect();
    let mut tails: BTreeMap<(Kind, usize), Vec<(f64, f64)>> = BTreeMap::new();
    let mut expected = Vec::new();
    // In turns: how fast the machine is changes from minute to minute.
    for run in 0..plan.runs {
        for engine in &engines {
            process::hold(engine.pid(), false);
            let (kind, mut asker) = (engine.kind(), Asker::new(engine));
            if run == 0 {
                let answers = asker.answers(&data);
                match expected.is_empty() {
                    true => expected = answers,
                    false => judge(kind, &expected, &answers, &mut rows),
                }
            }
            bare.push(kind, median(&asker.bare_times()));
            for (number, (question, row)) in ALL.iter().zip(&mut rows).enumerate() {
                let times = asker.times(question, &data, (1_000 * run + number) as u64);
                row.push(kind, median(&times));
                tails.entry((kind, number)).or_default().push((p95(&times), p99(&times)));
            }
            process::hold(engine.pid(), true);
            println!("    run {}: {} is asked", run + 1, kind.name());
        }
    }
    for ((kind, number), tails) in tails {
        let middle = |tail: fn(&(f64, f64)) -> f64| median(&tails.iter().map(tail).collect::<Vec<_>>());
        rows[number].tails.insert(kind, (middle(|tail| tail.0), middle(|tail| tail.1)));
    }
    rows.into_iter().chain([bare]).for_each(|row| comparison.add(row));
}

/// An engine that does nothing until it is its turn: the others are measured alone.
fn held(engine: Engine) -> Engine {
    process::hold(engine.pid(), true);
    engine
}

/// An engine that has the samples, in the form in which they stay.
fn filled(kind: Kind, bodies: &[Vec<Body>]) -> Engine {
    let started = Instant::now();
    let mut engine = Engine::start(kind);
    let endpoint = kind.endpoint(Protocol::RemoteWrite).expect("all take it");
    load::send_rounds(&engine, CONNECTIONS, endpoint, bodies, Duration::MAX);
    let bytes = engine.settle_on_disk().bytes;
    load::settle(&engine);
    println!(
        "    {} has them after {:.0} s, in {} MB",
        kind.name(),
        started.elapsed().as_secs_f64(),
        short(bytes as f64 / 1e6)
    );
    engine
}

/// Notes whose answers differ from the first engine's.
fn judge(kind: Kind, expected: &[Vec<Answer>], answers: &[Vec<Answer>], rows: &mut [Row]) {
    for ((expected, answers), row) in expected.iter().zip(answers).zip(rows) {
        let empty = expected.iter().all(Answer::is_empty).then(|| "there is nothing to compare".to_owned());
        let differs =
            expected.iter().zip(answers).find_map(|(one, other)| compare(one, other).err()).or(empty);
        if let Some(differs) = differs {
            println!("    {} answers {} otherwise: {differs}", kind.name(), row.name);
            row.remark = format!("{} ANSWERS OTHERWISE", kind.name());
        }
    }
}

struct Asker {
    kind: Kind,
    connections: Vec<Connection>,
}

impl Asker {
    fn new(engine: &Engine) -> Self {
        let open = |_| Connection::open(engine.address()).expect("the engine listens");
        Self { kind: engine.kind(), connections: (0..CONNECTIONS).map(open).collect() }
    }

    /// Some answers to each question.
    fn answers(&mut self, data: &Data) -> Vec<Vec<Answer>> {
        let mut answers = |question: &Question| {
            let mut answer = |seed| {
                let asked = question.draw(data, &mut Rng::with_seed(seed));
                let answers = self.ask(&asked.requests(self.kind));
                asked.read(self.kind, &answers)
            };
            (0..COMPARED).map(&mut answer).collect()
        };
        ALL.iter().map(&mut answers).collect()
    }

    /// Milliseconds of each time that the question was asked.
    fn times(&mut self, question: &Question, data: &Data, seed: u64) -> Vec<f64> {
        let mut rng = Rng::with_seed(seed);
        let (started, mut times) = (Instant::now(), Vec::new());
        while times.len() < AT_LEAST || (times.len() < TIMES && started.elapsed() < PATIENCE) {
            let requests = question.draw(data, &mut rng).requests(self.kind);
            let asked = Instant::now();
            let answers = self.ask(&requests);
            times.push(asked.elapsed().as_secs_f64() * 1e3);
            assert!(answers.iter().all(|(_, answer)| answer.status == 200), "{}", question.name);
        }
        times
    }

    /// Milliseconds of requests that ask for nothing: the least that a question can take.
    fn bare_times(&mut self) -> Vec<f64> {
        let bytes = request("GET", self.kind.probe(), &[], &[]);
        let mut time = |_| {
            let asked = Instant::now();
            let answer = self.connections[0].exchange(&bytes).expect("an answer");
            assert_eq!(answer.status, 200, "{}", self.kind.name());
            asked.elapsed().as_secs_f64() * 1e3
        };
        (0..TIMES).map(&mut time).collect()
    }

    /// Sends all requests at once, spread over the connections, and reads their answers.
    fn ask(&mut self, requests: &Requests) -> Vec<(Option<&'static str>, Response)> {
        let count = self.connections.len();
        for (number, connection) in self.connections.iter_mut().enumerate().take(requests.len()) {
            let own = requests.iter().skip(number).step_by(count);
            let bytes: Vec<u8> = own.flat_map(|(_, bytes)| bytes).copied().collect();
            connection.send(&bytes).expect("the engine listens");
        }
        let mut answer = |(place, (metric, _)): (usize, &(Option<&'static str>, Vec<u8>))| {
            (*metric, self.connections[place % count].receive().expect("an answer"))
        };
        requests.iter().enumerate().map(&mut answer).collect()
    }
}
