//! Clients that send as fast as the worker takes it, and what that cost the worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, request};
use crate::process;
use crate::worker::Worker;
use hdrhistogram::Histogram;

/// What a load cost.
#[derive(Debug)]
pub struct Cost {
    /// Samples that were acknowledged.
    pub samples: usize,
    /// Processor time of the worker's process.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// Microseconds from a request's first byte to its answer.
    pub acks: Histogram<u64>,
}

impl Cost {
    /// Samples per second of the worker's processor time.
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
pub fn run(worker: &Worker, connections: usize, client: impl Fn(usize, &mut Sender) -> usize + Sync) -> Cost {
    let cpu = process::cpu(worker.pid());
    let started = Instant::now();
    let done: Vec<(usize, Histogram<u64>)> = thread::scope(|scope| {
        let client = &client;
        let spawned = (0..connections).map(|number| {
            scope.spawn(move || {
                let mut sender = Sender::new(worker);
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
    let cpu = process::cpu(worker.pid()) - cpu;
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

/// A connection that expects every request to be taken whole.
#[derive(Debug)]
pub struct Sender {
    connection: Connection,
    acks: Histogram<u64>,
}

impl Sender {
    fn new(worker: &Worker) -> Self {
        Self {
            connection: Connection::open(worker.address()).expect("the worker listens"),
            acks: new_histogram(),
        }
    }

    /// Sends a request and waits for its answer of 200 or 204; a worker that is overloaded is asked again.
    pub fn send(&mut self, request: &[u8]) {
        let started = Instant::now();
        loop {
            let answer = self.connection.exchange(request).expect("the worker answers");
            match answer.status {
                200 | 204 => break,
                429 | 503 => thread::sleep(Duration::from_millis(20)),
                status => panic!("answered {status}: {}", answer.text()),
            }
        }
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.acks.saturating_record(micros);
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("sound bounds")
}

/// Waits until the worker has nothing left to do in the background: half a second under 5 % of a core.
pub fn settle(worker: &Worker) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        let before = process::cpu(worker.pid());
        thread::sleep(Duration::from_millis(500));
        if process::cpu(worker.pid()) - before <= Duration::from_millis(25) {
            return;
        }
    }
}
