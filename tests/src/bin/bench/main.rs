//! Measures the worker: processor time of its process per sample, wire to ack, durable; bytes on disk;
//! memory per series; times of queries.
//!
//! Client and server share the machine's cores, so rates are per second of processor time of the server's
//! process, and the clients send bodies that were made before.

mod disk;
mod ingest;
mod query;
mod series;

use clap::{Parser, ValueEnum};
use luminate_tests::bench::report::Report;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Samples and new series per second of processor time.
    Ingest,
    /// Bytes per sample on disk.
    Disk,
    /// A million series in one metric: memory, listings, groups, the limit.
    Series,
    /// Times of queries over 34 M samples.
    Query,
}

/// Measures the worker.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

fn main() {
    let arguments = Arguments::parse();
    let wanted = |part: Part| arguments.part.is_empty() || arguments.part.contains(&part);
    let runs = arguments.runs.max(1);
    let mut report = Report::default();
    if wanted(Part::Ingest) {
        ingest::measure(&mut report, runs);
    }
    if wanted(Part::Disk) {
        disk::measure(&mut report);
    }
    if wanted(Part::Series) {
        series::measure(&mut report);
    }
    if wanted(Part::Query) {
        query::measure(&mut report);
    }
    report.print();
    report.save("bench.json");
}
