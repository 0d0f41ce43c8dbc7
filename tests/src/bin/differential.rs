//! Random writes and questions over stores and over the model, for as long as one likes: each seed is a fresh
//! store, with seals, merges and restarts among the questions.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use luminate_storage::contract::Backend;
use luminate_storage::differential;
use luminate_tests::clickhouse::ClickHouse;
use luminate_tests::subjects::{Direct, Kind, ThroughHttp};
use tokio::runtime::Runtime;

/// So many differences of a store are shown before it is given up.
const MOST_DIFFERENCES: u64 = 5;

/// Compares stores with the model.
#[derive(Debug, Parser)]
struct Arguments {
    /// Questions to ask each store.
    #[arg(long, default_value_t = 1_000_000)]
    questions: u64,
    /// The first seed; a new one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps from one seed, questions and changes together.
    #[arg(long, default_value_t = 2_000)]
    steps: u64,
    /// How a store is reached.
    #[arg(long, value_enum, default_value_t = Through::Trait)]
    through: Through,
    /// Which stores.
    #[arg(long, value_enum, default_value_t = Backends::Rocksdb)]
    backend: Backends,
    /// A running ClickHouse, such as http://127.0.0.1:8123; without, the test server is started.
    #[arg(long)]
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Through {
    /// The storage trait.
    Trait,
    /// A worker's API.
    Http,
    /// One, then the other.
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backends {
    /// The embedded engine.
    Rocksdb,
    /// ClickHouse.
    Clickhouse,
    /// Every one.
    All,
}

impl Arguments {
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if self.backend != Backends::Clickhouse {
            kinds.push(Kind::RocksDb);
        }
        if self.backend != Backends::Rocksdb {
            let url = self.url.clone().unwrap_or_else(|| ClickHouse::shared().url());
            kinds.push(Kind::ClickHouse(url));
        }
        kinds
    }
}

/// A store's name, and what opens it.
type Named = (String, Box<dyn Backend>);

fn stores(arguments: &Arguments) -> Vec<Named> {
    let mut stores: Vec<Named> = Vec::new();
    for kind in arguments.kinds() {
        if arguments.through != Through::Http {
            stores.push((format!("{} through the trait", kind.name()), Box::new(Direct(kind.clone()))));
        }
        if arguments.through != Through::Trait {
            stores.push((format!("{} through HTTP", kind.name()), Box::new(ThroughHttp::new(kind))));
        }
    }
    stores
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let tallies: Vec<_> = stores(&arguments)
        .into_iter()
        .map(|(name, backend)| compare(&runtime, &arguments, seed, name, &*backend))
        .collect();
    let summary: Vec<_> = tallies.iter().map(Tally::summary).collect();
    println!("differential: {}", summary.join("; "));
    if tallies.iter().all(|tally| tally.differences == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    name: String,
    questions: u64,
    rows: u64,
    samples: u64,
    steps: BTreeMap<&'static str, u64>,
    differences: u64,
}

impl Tally {
    fn add(&mut self, report: &differential::Report) {
        self.questions += report.questions();
        self.rows += report.rows;
        self.samples += report.samples;
        for (kind, count) in &report.steps {
            *self.steps.entry(kind).or_default() += count;
        }
    }

    fn summary(&self) -> String {
        let Self { name, questions, rows, samples, differences, .. } = self;
        let writes: u64 = ["write", "twins"].iter().filter_map(|kind| self.steps.get(kind)).sum();
        format!(
            "{name}: {writes} writes of {samples} samples, {questions} questions, {rows} rows, {differences} differences"
        )
    }
}

fn compare(
    runtime: &Runtime,
    arguments: &Arguments,
    seed: u64,
    name: String,
    backend: &dyn Backend,
) -> Tally {
    let started = Instant::now();
    let mut tally = Tally { name, ..Tally::default() };
    for seed in seed.. {
        if tally.questions >= arguments.questions || tally.differences >= MOST_DIFFERENCES {
            break;
        }
        match runtime.block_on(differential::run(seed, arguments.steps, backend)) {
            Ok(report) => tally.add(&report),
            Err(difference) => {
                println!("{}: {difference}", tally.name);
                tally.differences += 1;
            }
        }
        let rate = tally.questions as f64 / started.elapsed().as_secs_f64();
        let Tally { name, questions, rows, differences, .. } = &tally;
        println!(
            "{name}, seed {seed}: {questions} of {} questions ({rate:.0}/s), {rows} rows compared, {differences} differences",
            arguments.questions
        );
    }
    tally
}
