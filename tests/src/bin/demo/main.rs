//! A real Prometheus scrapes a real node_exporter, itself and the worker each second and writes to the
//! worker; then both stores are asked the same twenty questions.

mod peers;
mod questions;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use luminate_tests::client::now;
use luminate_tests::worker::Worker;

use peers::{NodeExporter, Prometheus};
use questions::{Verdict, Window};

/// Compares Luminate's answers with those of the Prometheus that writes to it.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to collect before asking.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// How long the last samples get to arrive.
const SETTLE: Duration = Duration::from_secs(10);
/// What a question looks back on; collecting takes longer.
const LOOK_BACK: i64 = 60_000;

/// Set when somebody wants the demo to end early.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    thread::spawn(stop_on_signal);
    match run(&arguments) {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            println!("stopped");
            ExitCode::from(130)
        }
    }
}

/// Whether all answers were equal that must be; nothing when it was stopped. Whatever it starts is ended
/// and removed when it returns.
fn run(arguments: &Arguments) -> Option<bool> {
    // 1. Three processes that know one another. IO.
    let worker = Worker::start();
    let exporter = NodeExporter::start();
    let prometheus = Prometheus::start(&exporter, &worker);
    println!(
        "worker on {}, node_exporter on {}, Prometheus {} on {}: each is scraped every second",
        worker.address(),
        exporter.address(),
        prometheus.version(),
        prometheus.address()
    );
    // 2. Time passes.
    collect(arguments.seconds.max(75), &worker)?;
    let window = Window::ending(now(), LOOK_BACK, prometheus.range_start_is_open());
    pause(SETTLE)?;
    // 3. The same questions to both. IO.
    let verdicts: Vec<Verdict> =
        questions::all(&window).iter().map(|question| question.ask(&prometheus, &worker.client())).collect();
    // 4. The table.
    questions::print(&verdicts);
    Some(verdicts.iter().all(Verdict::holds))
}

fn collect(seconds: u64, worker: &Worker) -> Option<()> {
    let started = Instant::now();
    let mut shown = 0;
    loop {
        let elapsed = started.elapsed().as_secs();
        if elapsed >= shown + 15 || elapsed >= seconds {
            shown = elapsed;
            println!(
                "{elapsed:>4} of {seconds} s: Luminate has {} samples of `up`",
                worker.client().count("up")
            );
        }
        if elapsed >= seconds {
            return Some(());
        }
        pause(Duration::from_millis(500))?;
    }
}

fn pause(time: Duration) -> Option<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if STOP.load(Ordering::Relaxed) {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Some(())
}

fn stop_on_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("a signal handler");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        STOP.store(true, Ordering::Relaxed);
    });
}
