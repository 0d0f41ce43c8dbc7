//! Changes every field of a resource and changes it back.

use std::process::ExitCode;

use clap::Parser;
use luminate_cluster::Cluster;
use luminate_cluster::fuzz::{self, Run};

/// Changes leaves of the resource's schema and compares what there is when they are changed back.
#[derive(Debug, Parser)]
struct Arguments {
    /// Changes.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// What all that is random follows from; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Changes at once.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Ends after so many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
}

fn main() -> ExitCode {
    let Arguments { changes, seed, at_once, failures } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let run = Run { seed, changes, at_once, most_failures: failures };
    let cluster = Cluster::start();
    match fuzz::run(&cluster, &run, &mut |line| println!("{line}")) {
        Ok(summary) => {
            println!("without effect: {}", summary.without_effect().join(", "));
            let passed = summary.failures.is_empty();
            println!("{}: {summary}", if passed { "passed" } else { "failed" });
            if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}
