//! How long queries take through a worker.

use std::time::{Duration, Instant};

use luminate_tests::bench::report::{Better, Figure, Report};
use luminate_tests::bench::{median, p95};
use luminate_tests::clickhouse::ClickHouse;
use luminate_tests::http::{Connection, request};
use luminate_tests::process;
use luminate_tests::worker::{Setup, Worker};

use crate::compare;
use crate::fleet::Fleet;
use crate::questions::{self, Question};
use crate::schemas::Schema;

const HOSTS: usize = 4_000;
/// Calls of each question.
const CALLS: usize = 60;

/// Measures over few samples, and filtered ones over many.
pub fn measure(report: &mut Report, millions: usize, many: usize) {
    let few = Fleet::new(HOSTS, 5, millions * 1_000_000 / HOSTS / 5);
    over(report, &few, &questions::ALL, 100.0);
    if many > 0 {
        let many = Fleet::new(HOSTS, 25, many * 1_000_000 / HOSTS / 25);
        over(report, &many, &[Question::OneSeries, Question::FilteredMax], 50.0);
    }
}

fn over(report: &mut Report, fleet: &Fleet, asked: &[Question], goal: f64) {
    println!("queries over {} samples of {} series", fleet.rows(), fleet.series());
    let server = ClickHouse::start();
    Schema::Luminate.create(&server);
    let started = Instant::now();
    compare::insert(&server, Schema::Luminate, fleet);
    println!("  filled in {:.0} s", started.elapsed().as_secs_f64());
    settle(&server);
    println!("  settled after {:.0} s", started.elapsed().as_secs_f64());
    let worker = Setup::clickhouse(&server.url(), Schema::Luminate.database()).start();
    let mut all = Vec::new();
    for question in asked {
        let times = ask(&worker, fleet, *question);
        println!("  {:<26} p50 {:.1} ms, p95 {:.1} ms", question.name(), median(&times), p95(&times));
        all.extend(times);
    }
    let name = match asked.len() {
        2 => "queries that filter, over many samples: p95",
        _ => "queries of five kinds, over few samples: p95",
    };
    let runs = vec![p95(&all)];
    report.add(Figure { name, unit: "ms", runs, better: Better::Less, now: Some(goal), aim: None });
}

fn ask(worker: &Worker, fleet: &Fleet, question: Question) -> Vec<f64> {
    let headers = [("content-type", "application/json")];
    let bytes = request("POST", "/api/v1/query", &headers, question.body(fleet).to_string().as_bytes());
    let mut connection = Connection::open(worker.address()).expect("the worker listens");
    let mut call = || {
        let started = Instant::now();
        let answer = connection.exchange(&bytes).expect("the worker answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        started.elapsed().as_secs_f64() * 1e3
    };
    call();
    (0..CALLS).map(|_| call()).collect()
}

/// Waits until the server merges no more: a second under 10 % of a core.
fn settle(server: &ClickHouse) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(600) {
        let before = process::cpu(server.pid());
        std::thread::sleep(Duration::from_secs(1));
        if process::cpu(server.pid()) - before <= Duration::from_millis(100) {
            return;
        }
    }
}
