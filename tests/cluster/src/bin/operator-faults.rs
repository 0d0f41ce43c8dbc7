//! Lets everything between the operator and the API server fail over and over while people change their
//! installations.

use std::path::PathBuf;
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
    /// A fault put in on purpose, into the operator that --faulty-operator names: the run must fail.
    #[arg(long, requires = "faulty_operator")]
    fault: Option<String>,
    /// The binary luminate-operator-faulty.
    #[arg(long)]
    faulty_operator: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Run {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        plans: arguments.plans,
        at_once: arguments.at_once,
        only: arguments.story,
        most_failures: arguments.failures,
        faulty: arguments.faulty_operator.zip(arguments.fault),
    };
    let cluster = Cluster::start();
    match faults::run(&cluster, &run, &mut |line| println!("{line}")) {
        Ok(summary) => {
            for failure in &summary.failures {
                println!("failed: {failure}");
            }
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
