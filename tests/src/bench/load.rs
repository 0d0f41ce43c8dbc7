//! Clients that send as fast as the server takes it, or at a steady rate, and what that cost the server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::encode::Body;
use crate::http::{Connection, request};
use crate::process;
use crate::worker::Worker;
use hdrhistogram::Histogram;

/// A process that is sent a load.
pub trait Server: Sync {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// Its process id.
    fn pid(&self) -> u32;
}

impl Server for Worker {
    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn pid(&self) -> u32 {
        self.pid()
    }
}

/// Where requests of one kind go.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// The path.
    pub path: &'static str,
    /// Headers beside the usual ones.
    pub headers: &'static [(&'static str, &'static str)],
}

/// What a load cost.
#[derive(Debug)]
pub struct Cost {
    /// Samples that were acknowledged.
    pub samples: usize,
    /// Processor time of the server's process.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// Microseconds from a request's first byte to its answer.
    pub acks: Histogram<u64>,
}

impl Cost {
    /// Samples per second of the server's processor time.
    pub fn per_cpu_second(&self) -> f64 {
        self.samples as f64 / self.cpu.as_secs_f64()
    }

    /// Samples per second on the wall.
    pub fn per_second(&self) -> f64 {
        self.samples as f64 / self.wall.as_secs_f64()
    }

    /// Milliseconds within which 99 of 100 requests were acknowledged.
    pub fn ack_p99_ms(&self) -> f64 {
        self.acks.value_at_quantile(0.99) as f64 / 1_000.0
    }
}

/// Runs `client` on that many connections at once; each returns the samples that it got acknowledged.
pub fn run(
    server: &impl Server,
    connections: usize,
    client: impl Fn(usize, &mut Sender) -> usize + Sync,
) -> Cost {
    let cpu = process::cpu(server.pid());
    let started = Instant::now();
    let done: Vec<(usize, Histogram<u64>)> = thread::scope(|scope| {
        let client = &client;
        let spawned = (0..connections).map(|number| {
            scope.spawn(move || {
                let mut sender = Sender::new(server.address());
                (client(number, &mut sender), sender.acks)
            })
        });
        spawned
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().expect("a client panicked"))
            .collect()
    });
    let wall = started.elapsed();
    let cpu = process::cpu(server.pid()) - cpu;
    let mut acks = new_histogram();
    for (_, own) in &done {
        acks.add(own).expect("the same bounds");
    }
    Cost { samples: done.iter().map(|(samples, _)| samples).sum(), cpu, wall, acks }
}

/// Sends `bodies`, each once, over that many connections; each counts as `samples`.
pub fn send_all(
    worker: &Worker,
    connections: usize,
    path: &str,
    headers: &[(&str, &str)],
    bodies: &[Vec<u8>],
    samples: usize,
) -> Cost {
    let requests: Vec<Vec<u8>> = bodies.iter().map(|body| request("POST", path, headers, body)).collect();
    let next = AtomicUsize::new(0);
    run(worker, connections, |_, sender| {
        let mut sent = 0;
        while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
            sender.send(request);
            sent += samples;
        }
        sent
    })
}

/// Sends every round's bodies in order, each to `endpoint` and over the connection that has the same machines in every
/// round, so that no series' samples overtake one another. It ends early after `limit`.
pub fn send_rounds(
    server: &impl Server,
    connections: usize,
    endpoint: Endpoint,
    rounds: &[Vec<Body>],
    limit: Duration,
) -> Cost {
    let started = Instant::now();
    let progress: Vec<AtomicUsize> = (0..connections).map(|_| AtomicUsize::new(0)).collect();
    run(server, connections, |client, sender| {
        let mut sent = 0;
        for (number, bodies) in rounds.iter().enumerate().take_while(|_| started.elapsed() < limit) {
            keep_step(&progress, client, number);
            for body in bodies.iter().skip(client).step_by(connections) {
                sender.send(&endpoint.request(body));
                sent += body.samples;
            }
        }
        progress[client].store(usize::MAX, Ordering::Relaxed);
        sent
    })
}

/// Waits while a client is ahead: Prometheus takes nothing that is an hour older than the newest.
fn keep_step(progress: &[AtomicUsize], client: usize, round: usize) {
    const LEAD: usize = 2;
    progress[client].store(round, Ordering::Relaxed);
    while progress.iter().any(|other| other.load(Ordering::Relaxed).saturating_add(LEAD) < round) {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Sends bodies as [`send_rounds`] does, `samples_a_second` of them whatever the server does. An acknowledgement's time counts
/// from when its request was due, so that a server that stalls doesn't hide it.
pub fn send_steadily(
    server: &impl Server,
    connections: usize,
    endpoint: Endpoint,
    rounds: &[Vec<Body>],
    samples_a_second: f64,
) -> Cost {
    let started = Instant::now();
    run(server, connections, |client, sender| {
        let (mut sent, mut before) = (0, 0);
        for bodies in rounds {
            for (number, body) in bodies.iter().enumerate() {
                let due = started + Duration::from_secs_f64(before as f64 / samples_a_second);
                before += body.samples;
                if number % connections != client {
                    continue;
                }
                let bytes = endpoint.request(body);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                sender.send_due(&bytes, due);
                sent += body.samples;
            }
        }
        sent
    })
}

impl Endpoint {
    fn request(&self, body: &Body) -> Vec<u8> {
        request("POST", self.path, self.headers, &body.bytes)
    }
}

/// A connection that expects every request to be taken whole.
#[derive(Debug)]
pub struct Sender {
    connection: Connection,
    acks: Histogram<u64>,
}

impl Sender {
    fn new(address: SocketAddr) -> Self {
        Self { connection: Connection::open(address).expect("the server listens"), acks: new_histogram() }
    }

    /// Sends a request and waits for its answer of 200 or 204; a server that is overloaded is asked again.
    pub fn send(&mut self, request: &[u8]) {
        self.send_due(request, Instant::now());
    }

    /// The same, timed from `due`.
    fn send_due(&mut self, request: &[u8], due: Instant) {
        loop {
            let answer = self.connection.exchange(request).expect("the server answers");
            match answer.status {
                200 | 204 => break,
                429 | 503 => thread::sleep(Duration::from_millis(20)),
                status => panic!("answered {status}: {}", answer.text()),
            }
        }
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.acks.saturating_record(micros);
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("sound bounds")
}

/// Waits until the server has nothing left to do in the background: half a second under 5 % of a core.
pub fn settle(server: &impl Server) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        let before = process::cpu(server.pid());
        thread::sleep(Duration::from_millis(500));
        if process::cpu(server.pid()) - before <= Duration::from_millis(25) {
            return;
        }
    }
}
