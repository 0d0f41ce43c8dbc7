//! Measures Luminate beside its peers, each alone on the machine and sent the same bodies: processor time of a sample
//! and of a new series, memory, bytes on disk, times of questions and of acknowledgements, recovery.
//!
//! Client and server share the machine's cores, so rates are per second of processor time of the server's process, and
//! bodies are made before they are sent.

mod ack;
mod day;
mod disk;
mod ingest;
mod query;
mod recovery;
mod series;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use luminate_tests::bench::compare::Comparison;
use luminate_tests::bench::encode::Protocol;
use luminate_tests::bench::engine::Kind;
use luminate_tests::bench::report::Report;
use luminate_tests::bench::{page, plot};

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Samples and new series per second of processor time, memory of a series.
    Ingest,
    /// Bytes per sample on disk, and whether the samples come back bit by bit.
    Disk,
    /// Times of fifteen questions, whose answers are compared first.
    Query,
    /// Kill, and start again.
    Recovery,
    /// Times of acknowledgements at half load.
    Ack,
    /// Luminate alone: a million series in one metric, listings, groups, the limit.
    Series,
    /// Luminate alone: questions over 34 M samples.
    Day,
    /// Nothing: what was measured before is shown again.
    Report,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    /// What figures are taken from.
    Full,
    /// A twentieth, to see that all of it works.
    Quick,
}

impl Size {
    /// Where the figures are kept.
    fn file(self) -> &'static str {
        match self {
            Self::Full => "bench.json",
            Self::Quick => "bench-quick.json",
        }
    }

    /// So much of it, at this size.
    fn of(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full / 20,
        }
    }
}

/// Measures Luminate beside its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// Only these engines.
    #[arg(long, value_delimiter = ',')]
    engine: Vec<Kind>,
    /// Of the ways in only these.
    #[arg(long, value_delimiter = ',')]
    protocol: Vec<Protocol>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How much is measured.
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// The folder whose performance.md and performance.svg are to show the figures.
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// What the parts are measured with.
struct Plan {
    engines: Vec<Kind>,
    /// Nothing: all of them.
    protocols: Vec<Protocol>,
    runs: usize,
    size: Size,
}

fn main() {
    let arguments = Arguments::parse();
    let plan = Plan {
        engines: engines(&arguments.engine),
        protocols: arguments.protocol,
        runs: arguments.runs.max(1),
        size: arguments.size,
    };
    let wanted = |part: Part| match arguments.part.is_empty() {
        true => part != Part::Report,
        false => arguments.part.contains(&part),
    };
    let (mut comparison, mut report) = (Comparison::default(), Report::default());
    let started = Instant::now();
    let with_peers: [(Part, fn(&mut Comparison, &Plan)); 5] = [
        (Part::Ingest, ingest::measure),
        (Part::Disk, disk::measure),
        (Part::Query, query::measure),
        (Part::Recovery, recovery::measure),
        (Part::Ack, ack::measure),
    ];
    for (part, measure) in with_peers {
        if wanted(part) {
            measure(&mut comparison, &plan);
            println!("    {} s so far", started.elapsed().as_secs());
        }
    }
    let full = plan.size == Size::Full && plan.engines.contains(&Kind::Luminate);
    if full && wanted(Part::Series) {
        series::measure(&mut report);
    }
    if full && wanted(Part::Day) {
        day::measure(&mut report);
    }
    comparison.save(plan.size.file());
    report.save(plan.size.file());
    comparison.print();
    report.print();
    if let Some(docs) = arguments.docs {
        publish(&docs, &comparison);
    }
}

/// Those that are wanted and installed.
fn engines(wanted: &[Kind]) -> Vec<Kind> {
    let wanted = Kind::ALL.into_iter().filter(|kind| wanted.is_empty() || wanted.contains(kind));
    let mut engines = Vec::new();
    for kind in wanted {
        match kind.version() {
            Some(version) => {
                println!("{} {version}: {}", kind.name(), kind.promise());
                engines.push(kind);
            }
            None => println!("{} isn't installed and is left out", kind.name()),
        }
    }
    engines
}

fn publish(docs: &Path, comparison: &Comparison) {
    let path = docs.join("performance.md");
    let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let page = page::filled(&page, comparison).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::write(&path, page).expect("the page is writable");
    fs::write(docs.join("performance.svg"), plot::svg(&comparison.rows)).expect("the folder is writable");
}
