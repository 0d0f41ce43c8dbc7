//! Crashes a store over and over: `crash run`; and what it crashes: `crash write`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use luminate_tests::crash::child::{self, Orders};
use luminate_tests::crash::{self, Crash, Fault, Plan};

/// Kills a store under eight writers and compares what is left with what was acknowledged.
#[derive(Parser)]
enum Arguments {
    /// Crashes a store again and again.
    Run {
        /// Crashes.
        #[arg(long, default_value_t = 200)]
        cycles: u32,
        /// What all that is random follows from; a new one if absent.
        #[arg(long)]
        seed: Option<u64>,
        /// Cuts the power of a file system instead of killing the process; needs root.
        #[arg(long)]
        power: bool,
        /// A fault put in on purpose: the run must fail.
        #[arg(long)]
        fault: Option<Control>,
    },
    /// Writes until it is killed; `run` starts this.
    #[command(hide = true)]
    Write {
        /// JSON.
        orders: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Control {
    AckEarly,
    NoSync,
}

fn main() -> ExitCode {
    match Arguments::parse() {
        Arguments::Run { cycles, seed, power, fault } => run(cycles, seed, power, fault),
        Arguments::Write { orders } => {
            let orders: Orders = serde_json::from_str(&orders).expect("orders as JSON");
            child::run(orders);
            ExitCode::SUCCESS
        }
    }
}

fn run(cycles: u32, seed: Option<u64>, power: bool, fault: Option<Control>) -> ExitCode {
    let plan = Plan {
        seed: seed.unwrap_or_else(|| fastrand::u64(..)),
        cycles,
        crash: if power { Crash::PowerCut } else { Crash::Kill },
        fault: match fault {
            None => Fault::None,
            Some(Control::AckEarly) => Fault::AckEarly,
            Some(Control::NoSync) => Fault::NoSync,
        },
        program: std::env::current_exe().expect("a program knows its path"),
    };
    match crash::run(&plan, &mut |line| println!("{line}")) {
        Ok(summary) => println!("passed: {summary}"),
        Err(failure) => {
            println!("failed {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
