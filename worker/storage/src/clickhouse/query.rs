//! Questions about samples: statements whose texts are files of `sql/`, every value bound.
//!
//! # How an answer comes about
//! - **Which series**: looked up in `series` by their `key=value` pairs. Few are bound by their fingerprints, many
//!   are looked up again in the statement that reads their samples. All of a metric need no looking up.
//! - **The last write wins** by `FINAL`, within a day's partition, since a sample's key holds its time. But on one
//!   server a question first reads without it wherever the answer itself tells whether there can be two writes
//!   of one sample: seldom, and `FINAL` takes up to three times as long. Where there can be, it is asked again
//!   with `FINAL`.
//! - **Groups**: what is made of the samples of a series in one part of the table is gathered by the series' groups,
//!   in one pass; parts that overlap in time are what tells. Where that would make as many numbers as there are
//!   samples, series get the numbers of their groups instead, samples are gathered by those and by bucket, and a
//!   survey of the same parts says first whether they overlap.
//! - **Rates** go through each series' samples in order, in one pass too: two of one time are seen there.
//!   Integrals do so after a survey.
//! - **Raw samples** of few series are read as they are; two of one series and time stand beside each other.
//! - **What it cost** comes with the answer: series with a sample in range, and samples read, counted on the way or
//!   surveyed in the same statement. Where a survey finds more of them than may be read, it is all that is done.
//!
//! What has expired is left out by the bounds in time that are bound.

mod ask;
mod cells;
mod explain;
mod export;
mod range;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::client::{Database, Statement};
use super::schema::Dialect;
use super::series::days;
use crate::model::{DimensionKey, Having, MetricName, Selector, Tenant, TimeRange};
use crate::store::{Deleted, QueryContext, Result, Retention};

pub use cells::{aggregate, rate};
pub(super) use explain::estimate;
pub use explain::explain;
pub use export::Exporting;
pub use range::range;
pub use text::{Chosen, Text};
use text::{key_of_list_parameter, list_parameter};

/// So many series are bound by their fingerprints rather than looked up in the same statement: that is
/// planned in a third of the time. Tests take both ways.
const FEW: u64 = if cfg!(test) { 5 } else { 500 };
/// Up to so many values in lists are looked for as `key=value` pairs, which have an index; more are looked up in a set by
/// the key's value, since every pair of every series would be compared with every one of them. Tests take both ways.
const LONG: usize = if cfg!(test) { 3 } else { 32 };
/// The first and the last millisecond that the column of times can hold: 1900 to 2299, and less of it for safety.
const TIMES: (i64, i64) = (-2_208_900_000_000, 10_400_000_000_000);

/// What a tenant may see of what there is.
#[derive(Debug, Clone)]
pub struct Visible {
    /// The time now, in Unix milliseconds.
    pub now: i64,
    /// How long samples live.
    pub retention: Arc<Retention>,
}

impl Visible {
    /// The first time of `metric` that can be seen.
    #[must_use]
    pub fn floor(&self, metric: &MetricName) -> i64 {
        self.now.saturating_sub(self.retention.of(metric))
    }
}

/// Who asks, and what they may see.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    /// Where.
    pub database: &'a Database,
    /// How statements are written for it.
    pub dialect: &'a Dialect,
    /// Threads of a query on the server; the server's choice without.
    pub threads: Option<usize>,
    /// Who asks.
    pub tenant: &'a Tenant,
    /// What they may see.
    pub visible: Visible,
}

/// The day of `time`, in days since the epoch.
pub(super) fn day_of(time: i64) -> i32 {
    days::day_of(time.clamp(TIMES.0, TIMES.1))
}

/// Which samples a statement reads.
#[derive(Debug, Clone)]
struct Selected<'a> {
    selector: &'a Selector,
    chosen: Chosen,
    /// The fingerprints, where they are few.
    fps: Vec<u64>,
    /// The first time that is read.
    from: i64,
    /// The first time that counts: what is read before it carries in.
    start: i64,
    /// The first time after.
    end: i64,
}

impl Reader<'_> {
    /// What a question about `range` reads, beginning `carried` milliseconds earlier.
    fn selected<'q>(&self, selector: &'q Selector, range: &TimeRange, carried: i64) -> Selected<'q> {
        let floor = self.visible.floor(&selector.metric).max(TIMES.0);
        let start = range.start().max(floor);
        let from = range.start().saturating_sub(carried).max(floor);
        let filtered = !selector.filters.is_empty() || !selector.filters_in.is_empty();
        let chosen = if filtered { Chosen::Filtered } else { Chosen::All };
        Selected { selector, chosen, fps: Vec::new(), from, start, end: range.end().min(TIMES.1) }
    }

    /// Looks up the series that filters choose, and keeps their fingerprints where they are few; none when there
    /// are none. All of a metric needn't be looked up: the key leads to them.
    async fn looked_up<'q>(
        &self,
        mut selected: Selected<'q>,
        context: &QueryContext,
    ) -> Result<Option<Selected<'q>>> {
        if selected.chosen == Chosen::All {
            return Ok(Some(selected));
        }
        let text = self.text(&selected).fill(include_str!("sql/chosen_series.sql"));
        let statement = self.statement(text, &selected).param("fews", FEW + 1);
        let fps: Vec<u64> = self.ask(statement, context).await?.into_iter().next().unwrap_or_default();
        if fps.len() as u64 <= FEW {
            (selected.chosen, selected.fps) = (Chosen::Few, fps);
        }
        Ok((selected.chosen != Chosen::Few || !selected.fps.is_empty()).then_some(selected))
    }

    /// The text about what is selected, without groups or buckets.
    fn text(&self, selected: &Selected<'_>) -> Text {
        Text {
            chosen: selected.chosen,
            equal: !selected.selector.filters.is_empty(),
            lists: selected.selector.filters_in.len(),
            long_lists: selected.lists_are_long(),
            always_final: self.dialect.cluster.is_some(),
            ..Text::default()
        }
    }

    /// A statement of `text`, with what is selected bound.
    fn statement(&self, text: String, selected: &Selected<'_>) -> Statement {
        let statement = self
            .database
            .statement(text)
            .param("tenant", self.tenant.as_str().to_owned())
            .param("metric", selected.selector.metric.as_str().to_owned())
            .param("from", selected.from)
            .param("start", selected.start)
            .param("end", selected.end)
            .param("first_day", day_of(selected.from))
            .param("last_day", day_of(selected.end.saturating_sub(1)))
            // A sample's key holds its time, so no two days hold the same.
            .setting("do_not_merge_across_partitions_select_final", 1)
            // The survey and what it decides see the same parts of the table; without it one answer in seven
            // counted samples twice that were being written again.
            .setting("enable_shared_storage_snapshot_in_query", 1);
        match selected.chosen {
            Chosen::All => statement,
            Chosen::Filtered => selected.filtered(statement),
            Chosen::Few => statement.param("fps", selected.fps.clone()),
        }
    }
}

impl Selected<'_> {
    /// Whether there are too many values in lists to look for each pair in an index.
    fn lists_are_long(&self) -> bool {
        self.selector.filters_in.iter().map(|(_, values)| values.len()).sum::<usize>() > LONG
    }

    /// `statement` with the filters bound.
    fn filtered(&self, mut statement: Statement) -> Statement {
        let Selector { filters, filters_in, .. } = self.selector;
        let pair = |key: &DimensionKey, value: &String| format!("{key}={value}");
        if !filters.is_empty() {
            let pairs: Vec<String> = filters.iter().map(|(key, value)| pair(key, value)).collect();
            statement = statement.param("pairs", pairs);
        }
        let long = self.lists_are_long();
        for (at, (key, values)) in filters_in.iter().enumerate() {
            let listed: Vec<String> = match long {
                // A key that a series lacks reads as no text, and no value is that.
                true => values.iter().filter(|value| !value.is_empty()).cloned().collect(),
                false => values.iter().map(|value| pair(key, value)).collect(),
            };
            statement = statement.param(list_parameter(at), listed);
            if long {
                statement = statement.param(key_of_list_parameter(at), key.as_str().to_owned());
            }
        }
        statement
    }
}

/// `statement` with the bounds of `having` bound.
fn bounded(statement: Statement, having: &Having) -> Statement {
    having.bounds().fold(statement, |statement, (name, _, bound)| statement.param(name, bound))
}

/// One row more than an answer may have: it tells whether the answer was cut.
pub(super) fn one_more(limit: usize) -> u64 {
    u64::from(u32::try_from(limit).unwrap_or(u32::MAX)) + 1
}

#[derive(Debug, Row, Deserialize)]
struct Counted {
    series: u64,
    samples: u64,
}

/// How many samples of `metric` can be seen before `before`, and of how many series: what a delete takes.
///
/// # Errors
/// `Unavailable`, `Internal`.
pub async fn count_before(reader: &Reader<'_>, metric: &MetricName, before: Option<i64>) -> Result<Deleted> {
    let selector = Selector::new(metric.clone(), Vec::new());
    let Some(range) = TimeRange::new(i64::MIN, before.unwrap_or(i64::MAX)) else {
        return Ok(Deleted { series: 0, samples: 0 });
    };
    let text = Text::default().fill(include_str!("sql/count_before.sql"));
    let counted: Counted = reader.statement(text, &reader.selected(&selector, &range, 0)).row().await?;
    Ok(Deleted { series: counted.series, samples: counted.samples })
}
