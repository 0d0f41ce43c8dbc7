//! Three schemas on one engine: the same samples, the same questions, the same answers.

use std::time::Instant;

use luminate_tests::bench::median;
use luminate_tests::bench::report::{Better, Figure, Report, short};
use luminate_tests::clickhouse::{ClickHouse, post};
use luminate_tests::fault_proxy::{FaultProxy, Kind, Recorded};
use luminate_tests::http::{Connection, request};
use luminate_tests::process;
use luminate_tests::worker::{Setup, Worker};

use crate::fleet::Fleet;
use crate::questions::{self, Answer, Question};
use crate::schemas::{self, Schema};

/// Rows of an insert.
pub const BLOCK: usize = 200_000;
const HOSTS: usize = 4_000;
const METRICS: usize = 5;

/// What a schema costs.
#[derive(Debug, Default)]
struct Cost {
    /// Rows per second of the server's processor time, before merges; one a run.
    inserted: Vec<f64>,
    /// The same until all is merged.
    merged: f64,
    /// Bytes on disk per sample, merged, series included.
    bytes: f64,
}

/// Compares them.
pub fn measure(report: &mut Report, runs: usize, millions: usize) {
    let fleet = Fleet::new(HOSTS, METRICS, millions * 1_000_000 / HOSTS / METRICS);
    println!(
        "schemas: {} samples of {} series ({HOSTS} machines, ten dimensions, {METRICS} metrics), blocks of {BLOCK}",
        fleet.rows(),
        fleet.series()
    );
    let server = ClickHouse::start();
    let costs: Vec<Cost> = schemas::ALL.iter().map(|schema| fill(&server, *schema, &fleet, runs)).collect();
    tell_costs(report, &costs);
    ask(report, &server, &fleet, runs);
}

/// Fills a schema `runs` times; the last time it stays, merged.
fn fill(server: &ClickHouse, schema: Schema, fleet: &Fleet, runs: usize) -> Cost {
    let mut cost = Cost::default();
    for run in 0..runs {
        schema.create(server);
        each_table(server, schema, "SYSTEM STOP MERGES");
        let seconds = insert(server, schema, fleet);
        cost.inserted.push(fleet.rows() as f64 / seconds);
        println!(
            "  {} {}/{runs}: {} rows/cpu-s",
            schema.name(),
            run + 1,
            short(fleet.rows() as f64 / seconds)
        );
        if run + 1 == runs {
            let before = process::cpu(server.pid());
            each_table(server, schema, "SYSTEM START MERGES");
            merge(server, schema);
            let merging = (process::cpu(server.pid()) - before).as_secs_f64();
            cost.merged = fleet.rows() as f64 / (seconds + merging);
            cost.bytes = bytes(server, schema) / fleet.rows() as f64;
        }
    }
    cost
}

/// Inserts everything; the seconds of the server's processor time.
pub fn insert(server: &ClickHouse, schema: Schema, fleet: &Fleet) -> f64 {
    let mut seconds = 0.0;
    let mut number = 0;
    let mut send = |insert: &schemas::Insert| {
        let before = process::cpu(server.pid());
        insert.send(server, schema, number);
        number += 1;
        seconds += (process::cpu(server.pid()) - before).as_secs_f64();
    };
    schema.series(fleet).iter().for_each(&mut send);
    fleet.each_block(BLOCK, |rows| send(&schema.samples(fleet, rows)));
    seconds
}

fn tables(server: &ClickHouse, schema: Schema) -> Vec<String> {
    let database = schema.database();
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = '{database}' AND engine LIKE '%MergeTree' ORDER BY name"
    );
    server.query(&sql).lines().map(|table| format!("{database}.{table}")).collect()
}

fn each_table(server: &ClickHouse, schema: Schema, statement: &str) {
    tables(server, schema).iter().for_each(|table| server.execute(&format!("{statement} {table}")));
}

/// Merges each table into one part a partition.
pub fn merge(server: &ClickHouse, schema: Schema) {
    tables(server, schema).iter().for_each(|table| server.execute(&format!("OPTIMIZE TABLE {table} FINAL")));
}

fn bytes(server: &ClickHouse, schema: Schema) -> f64 {
    let database = schema.database();
    server.number(&format!(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{database}'"
    ))
}

fn tell_costs(report: &mut Report, costs: &[Cost]) {
    println!("\n{:<44} {:>12} {:>14} {:>14}", "", "Luminate", "SigNoz v4", "OpenTelemetry");
    let row = |name: &str, values: Vec<f64>| {
        let cells: Vec<String> = values.iter().map(|value| format!("{:>14}", short(*value))).collect();
        println!("{name:<42} {}", cells.join(" "));
    };
    let all = |of: fn(&Cost) -> f64| costs.iter().map(of).collect::<Vec<f64>>();
    let (bytes, inserted) = (all(|cost| cost.bytes), all(|cost| median(&cost.inserted)));
    row("bytes per row, merged, series included", bytes.clone());
    row("rows inserted per cpu-second", inserted.clone());
    row("the same until all is merged", all(|cost| cost.merged));
    let most = |values: &[f64]| values[1..].iter().copied().fold(f64::MIN, f64::max);
    report.add(Figure {
        name: "schema: bytes per row, the largest other's to ours",
        unit: "times",
        runs: vec![most(&bytes) / bytes[0]],
        better: Better::More,
        now: Some(3.0),
        aim: None,
    });
    report.note("schema: bytes per row", "B", vec![bytes[0]]);
    report.add(Figure {
        name: "schema: rows inserted, ours to the fastest other's",
        unit: "times",
        runs: vec![inserted[0] / most(&inserted)],
        better: Better::More,
        now: Some(1.0),
        aim: None,
    });
    report.note("schema: rows inserted per cpu-second", "/cpu-s", costs[0].inserted.clone());
}

/// How often a question is put in a turn.
const ASKED: u32 = 5;

/// What an answer takes, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// Of the server's processor time.
    server: f64,
    /// On the wall.
    wall: f64,
}

/// Something that answers: statements, or the worker.
enum Asked {
    Statements(Vec<Vec<u8>>),
    Worker(Vec<u8>),
}

fn ask(report: &mut Report, server: &ClickHouse, fleet: &Fleet, runs: usize) {
    let proxy = FaultProxy::before(server.address());
    let listening = Setup::clickhouse(&proxy.url(), Schema::Luminate.database()).start();
    let worker = Setup::clickhouse(&server.url(), Schema::Luminate.database()).start();
    println!(
        "\nmilliseconds of the server's processor time (on the wall), median of {runs} times {ASKED}; ours are the \
         worker's own statements, and the whole way through it\n{:<24} {:>16} {:>16} {:>16} {:>16}",
        "", "Luminate", "(worker)", "SigNoz v4", "OpenTelemetry"
    );
    let mut slowest_grouping = f64::MAX;
    let mut slowest = f64::MAX;
    for question in questions::ALL {
        let ways = ways(&proxy, &listening, server, fleet, question);
        let times = time(&ways, server, &worker, runs);
        let [ours, through, others @ ..] = times.as_slice() else { unreachable!("two of ours") };
        let cell = |taken: &Taken| format!("{:.1} ({:.1})", taken.server, taken.wall);
        let [signoz, otel] = [0, 1].map(|other: usize| others[other].server / ours.server);
        println!(
            "{:<24} {:>16} {:>16} {:>16} {:>16}   {signoz:.1}× and {otel:.1}×",
            question.name(),
            cell(ours),
            cell(through),
            cell(&others[0]),
            cell(&others[1])
        );
        let slower = signoz.max(otel);
        slowest = slowest.min(signoz.min(otel));
        if question.groups() {
            slowest_grouping = slowest_grouping.min(slower);
        }
    }
    for (name, value, goal) in [
        ("schema: groupings, the slower other's processor time to ours, least", slowest_grouping, 5.0),
        ("schema: questions, the faster other's processor time to ours, least", slowest, 1.0),
    ] {
        let runs = vec![value];
        report.add(Figure { name, unit: "times", runs, better: Better::More, now: Some(goal), aim: None });
    }
}

/// Each way to ask, once its answer is known to be that of the others.
fn ways(
    proxy: &FaultProxy,
    listening: &Worker,
    server: &ClickHouse,
    fleet: &Fleet,
    question: Question,
) -> Vec<Asked> {
    let body = question.body(fleet);
    let mut answer = Answer::new();
    let recorded = proxy.record(|| answer = questions::of_api(&listening.client().rows(&body)));
    let own: Vec<Vec<u8>> = recorded.iter().filter(|sent| is_of_the_question(sent)).map(again).collect();
    assert!(!own.is_empty(), "the worker asked the server nothing");
    let whole = request(
        "POST",
        "/api/v1/query",
        &[("content-type", "application/json")],
        body.to_string().as_bytes(),
    );
    let mut ways = vec![Asked::Statements(own), Asked::Worker(whole)];
    for schema in [Schema::SigNoz, Schema::OpenTelemetry] {
        let sql = schema.ask(fleet, question).expect("a statement");
        let sent = post(&[("database", schema.database())], sql.as_bytes());
        let said = server.send(&[("database", schema.database())], sql.as_bytes()).expect("an answer");
        assert_eq!(said.status, 200, "{sql}: {}", said.text());
        if let Some(difference) = questions::difference(&answer, &questions::of_statement(&said.text())) {
            panic!("{}: {} differs: {difference}", question.name(), schema.name());
        }
        ways.push(Asked::Statements(vec![sent]));
    }
    ways
}

/// Leaves out what a worker asks by the clock.
fn is_of_the_question(sent: &Recorded) -> bool {
    let text = String::from_utf8_lossy(&sent.body);
    sent.kind == Kind::Select && ["FROM samples", "FROM series"].iter().any(|table| text.contains(table))
}

/// The same request without its id, which would be taken.
fn again(sent: &Recorded) -> Vec<u8> {
    let (path, query) = sent.target.split_once('?').unwrap_or((&sent.target, ""));
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("query_id=")).collect();
    let headers: Vec<(&str, &str)> =
        sent.content_type.iter().map(|kind| ("content-type", kind.as_str())).collect();
    request("POST", &format!("{path}?{}", kept.join("&")), &headers, &sent.body)
}

/// What each way takes; they take turns, so that a disturbance meets all.
fn time(ways: &[Asked], server: &ClickHouse, worker: &Worker, runs: usize) -> Vec<Taken> {
    let mut to_server = Connection::open(server.address()).expect("the server listens");
    let mut to_worker = Connection::open(worker.address()).expect("the worker listens");
    let mut times = vec![Vec::new(); ways.len()];
    for run in 0..=runs {
        for (way, times) in ways.iter().zip(&mut times) {
            let (connection, requests) = match way {
                Asked::Statements(requests) => (&mut to_server, requests.as_slice()),
                Asked::Worker(request) => (&mut to_worker, std::slice::from_ref(request)),
            };
            let (before, started) = (process::cpu(server.pid()), Instant::now());
            for request in (0..ASKED).flat_map(|_| requests) {
                let answer = connection.exchange(request).expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            let (server, wall) = (process::cpu(server.pid()) - before, started.elapsed());
            // The first turn is there to fill caches.
            if run > 0 {
                times.push([server, wall].map(|time| time.as_secs_f64() * 1e3 / f64::from(ASKED)));
            }
        }
    }
    let middle =
        |times: &Vec<[f64; 2]>, of: usize| median(&times.iter().map(|one| one[of]).collect::<Vec<_>>());
    times.iter().map(|times| Taken { server: middle(times, 0), wall: middle(times, 1) }).collect()
}
