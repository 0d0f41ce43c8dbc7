//! A store of known content, copies of it, and the questions that show whether a copy still says the same.

use std::path::Path;
use std::process::Command;

use luminate_storage::model::{
    AggregateQuery, Aggregation, DimensionKey, Having, RangeQuery, RateQuery, Selector, TimeRange,
};
use luminate_storage::rocksdb::engine::{Ack, RocksDb};
use luminate_storage::store::{CardinalityQuery, ListQuery, MetricsStore, QueryContext, StoreError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Result;
use crate::crash::child;
use crate::crash::{WRITERS, read};
use crate::ledger::{self, BEGIN, Ledger};

/// Steps of each writer: some before the seals, some between them, some that only the log holds.
const STEPS: [u64; 4] = [60, 30, 12, 10];
/// How often the last step is repeated: more bytes than any flip changes at once.
const REPEATS: u32 = 24;
const DAY: i64 = 86_400_000;

/// What came of asking a copy.
#[derive(Debug)]
pub enum Asked {
    /// It didn't open.
    Refused(String),
    /// It opened, and some question failed; all others were answered right.
    Failed {
        /// Questions asked.
        questions: u64,
        /// The first failure.
        why: String,
    },
    /// Every question was answered right.
    Right {
        /// Questions asked.
        questions: u64,
    },
    /// A question was answered, and not right.
    Wrong(String),
}

/// A store that nobody has open, and what it answers.
#[derive(Debug)]
pub struct Original {
    folder: TempDir,
    runtime: Runtime,
    answers: Vec<String>,
}

impl Original {
    /// Makes the `number`th: every other one is left as a kill leaves it, the rest were closed.
    ///
    /// # Errors
    /// It can't be made, or doesn't hold what was written.
    pub fn make(seed: u64, number: u32) -> Result<Self> {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).map_err(text)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(text)?;
        let live = folder.path().join("live");
        let store = RocksDb::open(child::options(&live, Ack::Durable)).map_err(text)?;
        let mut ledger = Ledger::new(seed, WRITERS);
        runtime.block_on(fill(&store, seed, number, &mut ledger))?;
        for writer in 0..WRITERS {
            let found = runtime.block_on(read(&store, writer))?;
            ledger.check(writer, &found).map_err(text)?;
        }
        let killed = number.is_multiple_of(2);
        let kept = folder.path().join("kept");
        if killed {
            copy(&live, &kept)?;
        }
        runtime.block_on(store.close()).map_err(text)?;
        drop(store);
        if !killed {
            copy(&live, &kept)?;
        }
        let mut made = Self { folder, runtime, answers: Vec::new() };
        let own = made.copy()?;
        let store = RocksDb::open(child::options(own.path(), Ack::Durable)).map_err(text)?;
        let answers = made.runtime.block_on(everything(&store));
        made.answers = answers.into_iter().collect::<std::result::Result<_, _>>().map_err(text)?;
        if super::is_damaged(&made.folder.path().join("kept")) {
            return Err("the check finds damage where there is none".to_owned());
        }
        Ok(made)
    }

    /// A copy to do harm to.
    ///
    /// # Errors
    /// There is no room.
    pub fn copy(&self) -> Result<Copy> {
        let folder = tempfile::tempdir_in(self.folder.path()).map_err(text)?;
        let path = folder.path().join("store");
        copy(&self.folder.path().join("kept"), &path)?;
        Ok(Copy { _folder: folder, path })
    }

    /// Opens what lies at `path` and asks everything.
    #[must_use]
    pub fn ask(&self, path: &Path) -> Asked {
        let store = match RocksDb::open(child::options(path, Ack::Durable)) {
            Ok(store) => store,
            Err(error) => return Asked::Refused(error.to_string()),
        };
        let answers = self.runtime.block_on(everything(&store));
        let questions = answers.len() as u64;
        let mut failure = None;
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) if answer == self.answers[at] => {}
                Ok(answer) => return Asked::Wrong(difference(at, &self.answers[at], &answer)),
                Err(error) => failure = failure.or(Some(error.to_string())),
            }
        }
        match failure {
            Some(why) => Asked::Failed { questions, why },
            None => Asked::Right { questions },
        }
    }
}

/// A copy of a store.
#[derive(Debug)]
pub struct Copy {
    _folder: TempDir,
    path: std::path::PathBuf,
}

impl Copy {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes steps of all writers with seals, and now and then a merge, between them.
async fn fill(store: &RocksDb, seed: u64, number: u32, ledger: &mut Ledger) -> Result<()> {
    let mut done = 0;
    for (stage, steps) in STEPS.iter().enumerate() {
        for step in done..done + steps {
            for writer in 0..WRITERS {
                write(store, seed, writer, step).await?;
                ledger.acked(writer, step);
            }
        }
        done += steps;
        if stage + 1 < STEPS.len() {
            store.seal().await.map_err(text)?;
            // Every third store has merged layers, all others have several of each day.
            if stage == 1 && number.is_multiple_of(3) {
                store.merge().await.map_err(text)?;
            }
        }
    }
    for _ in 0..REPEATS {
        write(store, seed, WRITERS - 1, done - 1).await?;
    }
    Ok(())
}

async fn write(store: &RocksDb, seed: u64, writer: u32, number: u64) -> Result<()> {
    let step = ledger::step(seed, writer, number);
    for _ in 0..100 {
        match child::perform(store, writer, &step).await {
            Ok(()) => return Ok(()),
            Err(error) if error.retryable() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("a step can't be done".to_owned())
}

type Answers = Vec<std::result::Result<String, StoreError>>;

/// Every sample, and what follows from samples, summaries and the index in other ways.
async fn everything(store: &RocksDb) -> Answers {
    let mut answers = Answers::new();
    let context = || QueryContext::with_timeout(Duration::from_secs(60));
    let (Some(range), Ok(key)) = (TimeRange::new(BEGIN - 2 * DAY, BEGIN + DAY), DimensionKey::new("series"))
    else {
        return answers;
    };
    let list = ListQuery { prefix: String::new(), after: None, limit: 10_000 };
    for writer in (0..WRITERS).filter(|writer| writer % 4 == 0 || ledger::deletes(*writer)) {
        let (tenant, metric) = child::place(writer);
        let selector = Selector::new(metric.clone(), Vec::new());
        let raw = RangeQuery { selector: selector.clone(), range, having: Having::ANY, limit: usize::MAX };
        answers.push(
            store.query_range(&tenant, &raw, &context()).await.map(|found| format!("{:?}", found.rows)),
        );
        for aggregation in [Aggregation::Sum, Aggregation::Max, Aggregation::Integral, Aggregation::P50] {
            let query = AggregateQuery {
                selector: selector.clone(),
                range,
                aggregation,
                max_gap: None,
                group_by: vec![key.clone()],
                interval: Some(3_600_000),
                having: Having::ANY,
                limit: usize::MAX,
            };
            let found = store.aggregate(&tenant, &query, &context()).await;
            answers.push(found.map(|found| format!("{:?}", found.rows)));
        }
        let rate = RateQuery {
            selector,
            range,
            group_by: Vec::new(),
            interval: 60_000,
            having: Having::ANY,
            limit: usize::MAX,
        };
        answers.push(store.rate(&tenant, &rate, &context()).await.map(|found| format!("{:?}", found.rows)));
        answers.push(store.list_metrics(&tenant, &list).await.map(|page| format!("{page:?}")));
        answers.push(
            store.list_dimension_values(&tenant, &metric, &key, &list).await.map(|page| format!("{page:?}")),
        );
        let census =
            CardinalityQuery { metric: Some(metric), prefix: String::new(), after: None, limit: 10_000 };
        answers.push(store.cardinality(&tenant, &census).await.map(|page| format!("{page:?}")));
        answers.push(store.retention(&tenant).await.map(|retention| format!("{retention:?}")));
    }
    answers
}

fn difference(question: usize, expected: &str, found: &str) -> String {
    let same = expected.bytes().zip(found.bytes()).take_while(|(one, other)| one == other).count();
    let part =
        |text: &str| text.get(same.saturating_sub(60)..(same + 60).min(text.len())).unwrap_or("").to_owned();
    format!("question {question}: …{}… instead of …{}…", part(found), part(expected))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().map_err(text)?;
    if status.success() { Ok(()) } else { Err("a store can't be copied".to_owned()) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
