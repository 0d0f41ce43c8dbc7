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
    /// A fault put in on purpose, no limit of the noisy tenant: the run must fail.
    #[arg(long)]
    unlimited: bool,
}

fn main() -> ExitCode {
    let Arguments { seconds, unlimited } = Arguments::parse();
    let summary = neighbour::run(&Run { each: Duration::from_secs(seconds), unlimited });
    let fair = summary.is_fair();
    println!("{}: {summary}", if fair { "passed" } else { "failed" });
    if fair { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
