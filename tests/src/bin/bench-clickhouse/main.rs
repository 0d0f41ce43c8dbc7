//! Measures Luminate over ClickHouse: its schema against those of two others on the same engine in the same
//! run; what workers cost as they become more; times of queries.
//!
//! Engine, workers and clients share the machine's cores, so costs are processor time of single processes.

mod compare;
mod fleet;
mod latency;
mod native;
mod questions;
mod scale;
mod schemas;

use clap::{Parser, ValueEnum};
use luminate_tests::bench::report::Report;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes, inserts and questions of three schemas over the same samples.
    Schema,
    /// One to ten workers over one engine.
    Scale,
    /// Times of queries through a worker, over few and over many samples.
    Query,
}

/// Measures Luminate over ClickHouse.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Millions of samples of the schemas' comparison and of the first queries.
    #[arg(long, default_value_t = 10)]
    millions: usize,
    /// Millions of samples of the queries over many; 0 leaves these out.
    #[arg(long, default_value_t = 100)]
    many_millions: usize,
}

fn main() {
    let arguments = Arguments::parse();
    let wanted = |part: Part| arguments.part.is_empty() || arguments.part.contains(&part);
    let runs = arguments.runs.max(1);
    let mut report = Report::default();
    if wanted(Part::Schema) {
        compare::measure(&mut report, runs, arguments.millions);
    }
    if wanted(Part::Scale) {
        scale::measure(&mut report, runs);
    }
    if wanted(Part::Query) {
        latency::measure(&mut report, arguments.millions, arguments.many_millions);
    }
    report.print();
    report.save("bench-clickhouse.json");
}
