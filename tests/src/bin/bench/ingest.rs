//! Samples and new series per second of the server's processor time, from the wire until they are acknowledged and on the
//! disk, and the memory of a series.

use std::time::{Duration, Instant};

use luminate_tests::bench::compare::{Comparison, Row};
use luminate_tests::bench::data::Shape;
use luminate_tests::bench::encode::{Body, Encoder, Protocol};
use luminate_tests::bench::engine::{Engine, Kind};
use luminate_tests::bench::fleet::{Fleet, STEP};
use luminate_tests::bench::load::{self, Cost, Endpoint, Server};
use luminate_tests::bench::median;
use luminate_tests::bench::report::{Better, short};
use luminate_tests::client::now;
use luminate_tests::process;

use crate::Plan;

const CONNECTIONS: usize = 4;
/// A load that takes an engine longer than this is cut off: its rate is known by then.
const LIMIT: Duration = Duration::from_secs(20);
/// New series are all let in, so that what follows finds them.
const PATIENCE: Duration = Duration::from_secs(600);

/// A fleet, and how it is sent. Each protocol goes on where the one before it stopped, with the same series.
struct Session {
    series: usize,
    churn: f64,
    shape: Shape,
    /// Each with its rounds after the first, in which the engine meets the series in that protocol's spelling.
    protocols: &'static [(Protocol, usize)],
    /// Whether new series and memory are measured.
    cardinality: bool,
}

const SESSIONS: [Session; 5] = [
    Session {
        series: 40_000,
        churn: 0.0,
        shape: Shape::Decimals,
        protocols: &[
            (Protocol::RemoteWrite, 60),
            (Protocol::LineWide, 60),
            (Protocol::LineNarrow, 30),
            (Protocol::Text, 30),
            (Protocol::Json, 30),
            (Protocol::RemoteWrite2, 30),
            (Protocol::Otlp, 30),
            (Protocol::JsonLines, 15),
            (Protocol::OpenTsdb, 15),
        ],
        cardinality: false,
    },
    Session {
        series: 40_000,
        churn: 0.1,
        shape: Shape::Decimals,
        protocols: &[(Protocol::RemoteWrite, 60), (Protocol::LineWide, 60)],
        cardinality: false,
    },
    Session {
        series: 40_000,
        churn: 0.0,
        shape: Shape::Entropy,
        protocols: &[(Protocol::RemoteWrite, 30), (Protocol::LineWide, 30)],
        cardinality: false,
    },
    Session {
        series: 400_000,
        churn: 0.0,
        shape: Shape::Percent,
        protocols: &[(Protocol::RemoteWrite, 5), (Protocol::LineWide, 5)],
        cardinality: true,
    },
    Session {
        series: 1_000_000,
        churn: 0.0,
        shape: Shape::Percent,
        protocols: &[(Protocol::RemoteWrite, 3), (Protocol::LineWide, 3)],
        cardinality: true,
    },
];

/// Measures every session on every engine, in turns.
pub fn measure(comparison: &mut Comparison, plan: &Plan) {
    for session in SESSIONS.iter().filter(|session| !session.wanted(plan).is_empty()) {
        let series = plan.size.of(session.series);
        let name = session.name(series);
        println!("ingest: {name}, ten dimensions, {CONNECTIONS} connections");
        let prepared = session.prepare(series, plan);
        let mut rows = Rows::new(session, &name);
        for run in 1..=plan.runs {
            for kind in &plan.engines {
                let started = Instant::now();
                session.run(*kind, series, &prepared, &mut rows);
                println!("    run {run}, {}: {:.0} s", kind.name(), started.elapsed().as_secs_f64());
            }
        }
        rows.add_to(comparison);
    }
}

/// What one protocol sends.
struct Prepared {
    protocol: Protocol,
    /// In which the engine meets the series.
    first: Vec<Vec<Body>>,
    rounds: Vec<Vec<Body>>,
}

impl Session {
    fn name(&self, series: usize) -> String {
        let churn = if self.churn > 0.0 { ", 10 % replaced in ten minutes" } else { "" };
        let shape = if self.shape == Shape::Entropy { " of full entropy" } else { "" };
        format!("{} series{shape}{churn}", short(series as f64))
    }

    /// The protocols that are wanted, and that an engine takes.
    fn wanted(&self, plan: &Plan) -> Vec<(Protocol, usize)> {
        let wanted = |protocol: Protocol| {
            let named = plan.protocols.is_empty() || plan.protocols.contains(&protocol);
            named && plan.engines.iter().any(|kind| kind.endpoint(protocol).is_some())
        };
        self.protocols.iter().filter(|(protocol, _)| wanted(*protocol)).copied().collect()
    }

    fn prepare(&self, series: usize, plan: &Plan) -> Vec<Prepared> {
        let started = Instant::now();
        let protocols = self.wanted(plan);
        let rounds: usize = protocols.iter().map(|(_, rounds)| rounds + 1).sum();
        let from = now() - STEP * (rounds as i64 + 6);
        let mut fleet = Fleet::new(series, self.shape, from, 1).churning(self.churn);
        let mut prepared = Vec::new();
        for (protocol, rounds) in &protocols {
            let mut encoder = Encoder::new(*protocol);
            let first = encoder.next(&mut fleet, 1, 1);
            let rounds = encoder.next(&mut fleet, 1, *rounds);
            prepared.push(Prepared { protocol: *protocol, first, rounds });
        }
        println!("    bodies made in {:.0} s", started.elapsed().as_secs_f64());
        prepared
    }

    fn run(&self, kind: Kind, series: usize, prepared: &[Prepared], measured: &mut Rows) {
        let engine = Engine::start(kind);
        let empty = process::rss(engine.pid());
        for Prepared { protocol, first, rounds } in prepared {
            let Some(endpoint) = kind.endpoint(*protocol) else { continue };
            let server = engine.server(*protocol);
            let met = sent(&engine, &server, endpoint, first, PATIENCE);
            if self.cardinality && *protocol == Protocol::RemoteWrite {
                measured.new_series.push(kind, met.per_cpu_second());
            }
            let cost = sent(&engine, &server, endpoint, rounds, LIMIT);
            measured.push(kind, *protocol, &cost);
        }
        if self.cardinality {
            let grown = engine.rss_at_rest().saturating_sub(empty);
            measured.memory.push(kind, grown as f64 / series as f64);
        }
    }
}

/// Sends rounds and waits until they are on the disk: the processor time of both.
fn sent(engine: &Engine, server: &impl Server, to: Endpoint, rounds: &[Vec<Body>], limit: Duration) -> Cost {
    let before = process::cpu(engine.pid());
    let cost = load::send_rounds(server, CONNECTIONS, to, rounds, limit);
    engine.rest();
    Cost { cpu: process::cpu(engine.pid()) - before, ..cost }
}

/// What a session measures.
struct Rows {
    protocols: Vec<(Protocol, Row)>,
    new_series: Row,
    memory: Row,
}

impl Rows {
    fn new(session: &Session, name: &str) -> Self {
        let row = |protocol: Protocol| {
            let group = match protocol {
                Protocol::LineWide => "wide line protocol",
                Protocol::RemoteWrite => "remote write",
                Protocol::Json => "JSON",
                _ => "other ways in",
            };
            (protocol, Row::new(group, format!("{}: {name}", protocol.name()), "/cpu-s", Better::More))
        };
        Self {
            protocols: session.protocols.iter().map(|(protocol, _)| row(*protocol)).collect(),
            new_series: Row::new("new series", format!("new series up to {name}"), "/cpu-s", Better::More),
            memory: Row::new("memory", format!("memory of one of {name}"), "B", Better::Less),
        }
    }

    fn push(&mut self, kind: Kind, protocol: Protocol, cost: &Cost) {
        println!(
            "      {:<16} {:<26} {:>8}/cpu-s, {:>8}/s, {:.1} s of processor time, ack p99 {} ms",
            kind.name(),
            protocol.name(),
            short(cost.per_cpu_second()),
            short(cost.per_second()),
            cost.cpu.as_secs_f64(),
            short(cost.ack_p99_ms()),
        );
        let row = self.protocols.iter_mut().find(|(own, _)| *own == protocol);
        row.expect("a protocol of the session").1.push(kind, cost.per_cpu_second());
    }

    /// Luminate's JSON is compared with the fastest of VictoriaMetrics' texts of its kind.
    fn add_to(mut self, comparison: &mut Comparison) {
        let peer = Kind::VictoriaMetrics;
        let fastest = self
            .protocols
            .iter()
            .filter(|(protocol, _)| {
                matches!(protocol, Protocol::JsonLines | Protocol::OpenTsdb | Protocol::Text)
            })
            .filter_map(|(protocol, row)| Some((*protocol, row.runs.get(&peer)?.clone())))
            .max_by(|(_, one), (_, other)| median(one).total_cmp(&median(other)));
        for (protocol, row) in &mut self.protocols {
            if let (Protocol::Json, Some((fastest, runs))) = (*protocol, &fastest) {
                row.runs.insert(peer, runs.clone());
                row.remark = format!("VictoriaMetrics: {}, its fastest of these", fastest.name());
            }
        }
        let rows = self.protocols.into_iter().map(|(_, row)| row).chain([self.new_series, self.memory]);
        rows.filter(|row| !row.runs.is_empty()).for_each(|row| comparison.add(row));
    }
}
