//! Lets a store's disk fail at each of its calls and compares what is left with what was acknowledged.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use luminate_tests::io_faults::{self, Plan};

/// Lets every call of one workload fail: EIO, ENOSPC, short writes, once and from there on. As root.
#[derive(Parser)]
struct Arguments {
    /// So many points by chance; every one if absent.
    #[arg(long)]
    points: Option<u32>,
    /// What workload and choice follow from; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// The point to begin with: that of a failure, to see it again.
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// Loses writes without a word: the run must fail.
    #[arg(long)]
    control: bool,
}

/// Panics of any thread.
static PANICS: AtomicU32 = AtomicU32::new(0);

fn main() -> ExitCode {
    let Arguments { points, seed, from, control } = Arguments::parse();
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        told(info);
    }));
    let plan = Plan { seed: seed.unwrap_or_else(|| fastrand::u64(..)), points, from, control };
    let result = io_faults::run(&plan, &mut |line| println!("{line}"));
    let panics = PANICS.load(Ordering::Relaxed);
    match result {
        Ok(summary) if panics == 0 => println!("passed: {summary}"),
        Ok(summary) => {
            println!("failed: {panics} panics; {summary}");
            return ExitCode::FAILURE;
        }
        Err(failure) => {
            println!("failed: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
