//! Writes, asks and restarts for a long time at half of what the worker can do, and compares at the end.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use luminate_tests::soak::{self, Run};

/// Runs a worker at half its capacity.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Seconds between restarts, in the first third.
    #[arg(long, default_value_t = 150)]
    restart_every: u64,
    /// A fault put in on purpose, a batch in the ledger that was never sent: the run must fail.
    #[arg(long)]
    forgetful: bool,
}

fn main() -> ExitCode {
    let Arguments { minutes, restart_every, forgetful } = Arguments::parse();
    let (time, restart_every) = (Duration::from_secs(60 * minutes), Duration::from_secs(restart_every));
    match soak::run(&Run { time, restart_every, forgetful }, &mut |line| println!("{line}")) {
        Ok(summary) => println!("passed: {summary}"),
        Err(failure) => {
            println!("failed: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
