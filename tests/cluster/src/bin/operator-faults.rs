//! Lets everything between the operator and the API server fail over and over while people change their
//! installations.

use std::process::ExitCode;

use clap::Parser;
use luminate_cluster::Cluster;
use luminate_cluster::faults::{self, Run};

/// Carries out fault plans and compares each with the same story without faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fault plans.
    #[arg(long, default_value_t = 200)]
    plans: usize,
    /// What all that is random follows from; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Plans at once.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Only stories whose name holds this.
    #[arg(long, default_value = "")]
    story: String,
    /// Ends after so many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// A fault put in on purpose, such as no-owner-check; luminate-operator-faulty must be built: the run must fail.
    #[arg(long)]
    fault: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Run {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        plans: arguments.plans,
        at_once: arguments.at_once,
        only: arguments.story,
        most_failures: arguments.failures,
        exactly: Vec::new(),
        bug: arguments.fault,
    };
    let cluster = Cluster::start();
    match faults::run(&cluster, &run, &mut |line| println!("{line}")) {
        Ok(summary) => {
            for (story, (plans, writes)) in &summary.stories {
                println!("{story}: {plans} plans; {writes} writes without faults");
            }
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
