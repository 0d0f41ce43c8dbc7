//! Lets ClickHouse, the network and workers fail over and over under clients that write.

use std::process::ExitCode;

use clap::Parser;
use luminate_tests::faults::{self, Run};

/// Carries out random fault plans and compares what is held with what was acknowledged.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fault plans.
    #[arg(long, default_value_t = 200)]
    plans: u32,
    /// What all that is random follows from; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// A fault put in on purpose, the server's deduplication switched off: the run must fail.
    #[arg(long)]
    forgetful: bool,
}

fn main() -> ExitCode {
    let Arguments { plans, seed, forgetful } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    match faults::run(&Run { seed, plans, forgetful }, &mut |line| println!("{line}")) {
        Ok(summary) => println!("passed: {summary}"),
        Err(failure) => {
            println!("failed: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
