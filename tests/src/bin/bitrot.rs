//! Flips bytes of stores over and over and compares what they say.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use luminate_tests::rot::{self, Fault, Plan};

/// Flips bytes over log, tables and manifest; no answer may be wrong, and the check must find what matters.
#[derive(Parser)]
struct Arguments {
    /// Flips.
    #[arg(long, default_value_t = 300)]
    flips: u32,
    /// What all that is random follows from; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// A fault put in on purpose: the run must fail.
    #[arg(long)]
    fault: Option<Control>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Control {
    FittingChecksums,
    BlindCheck,
}

fn main() -> ExitCode {
    let Arguments { flips, seed, fault } = Arguments::parse();
    let fault = match fault {
        None => Fault::None,
        Some(Control::FittingChecksums) => Fault::FittingChecksums,
        Some(Control::BlindCheck) => Fault::BlindCheck,
    };
    let plan = Plan { seed: seed.unwrap_or_else(|| fastrand::u64(..)), flips, fault };
    match rot::run(&plan, &mut |line| println!("{line}")) {
        Ok(summary) => println!("passed: {summary}"),
        Err(failure) => {
            println!("failed {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
