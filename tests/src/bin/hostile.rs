//! Attacks a worker's memory in every way, and looks whether it stays within what the worker was told.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use luminate_tests::hostile::{self, Run};

/// Attacks a worker that may use little memory.
#[derive(Debug, Parser)]
struct Arguments {
    /// `storage.rocksdb.memory`, in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// Seconds of each attack.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// A fault put in on purpose, a worker that is told of eight times as much: the run must fail.
    #[arg(long)]
    unbounded: bool,
}

fn main() -> ExitCode {
    let Arguments { memory, seconds, unbounded } = Arguments::parse();
    let run = Run { memory: memory << 20, each: Duration::from_secs(seconds), unbounded };
    match hostile::run(&run, &mut |line| println!("{line}")) {
        Ok(summary) => println!("passed: {summary}"),
        Err(failure) => {
            println!("failed: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
