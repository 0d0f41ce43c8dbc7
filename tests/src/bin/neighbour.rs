//! Measures how much longer a tenant waits while another floods the same worker.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use luminate_tests::neighbour::{self, Run};

/// Measures a tenant alone and beside a noisy one.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Runs at most: the first that is fair decides. What else the machine does only ever adds.
    #[arg(long, default_value_t = 1)]
    tries: u32,
    /// A fault put in on purpose, no limit of the noisy tenant and its questions before all else: the run must fail.
    #[arg(long)]
    control: bool,
}

fn main() -> ExitCode {
    let Arguments { seconds, tries, control } = Arguments::parse();
    let passed = (0..tries).any(|_| {
        let summary = neighbour::run(&Run { each: Duration::from_secs(seconds), control });
        let fair = summary.is_fair();
        println!("{}: {summary}", if fair { "passed" } else { "failed" });
        fair
    });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
