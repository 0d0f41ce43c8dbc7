//! How a question is put: within its bounds, and no longer than anybody waits for the answer.

use std::time::Duration;

use clickhouse::{RowOwned, RowRead};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::Reader;
use crate::clickhouse::client::{Database, Statement};
use crate::clickhouse::failure::{Failure, code};
use crate::clickhouse::running;
use crate::store::{ErrorKind, QueryContext, Result, StoreError};

/// Rows that may be read for one sample that counts: an index leads to a granule, not to a row, and
/// series are read too. Past it the server stops by itself; what is exact is the survey.
const ROWS_PER_SAMPLE: u64 = 16;
/// Rows that may always be read.
const FREE_ROWS: u64 = 100_000_000;
/// What the server allocates without looking at the query's limit, at most this share of it.
const UNTRACKED: u64 = 8;
/// The server's own bound for that.
const MOST_UNTRACKED: u64 = 4 << 20;

impl Reader<'_> {
    /// Puts a question and returns its rows; whoever stops waiting stops it on the server too.
    ///
    /// # Errors
    /// `Timeout`, `Cancelled`, `QueryTooLarge` by the bounds of `context`; else what the server says.
    pub(super) async fn ask<T: RowOwned + RowRead>(
        &self,
        statement: Statement,
        context: &QueryContext,
    ) -> Result<Vec<T>> {
        context.check(0)?;
        let id = running::query_id(self.tenant, context);
        let mut killer = Killer::new(self, &id);
        let rows = self.bounded(statement, context).id(&id).queued().rows();
        let answer = tokio::select! {
            biased;
            () = context.cancel.cancelled() => {
                return Err(StoreError::new(ErrorKind::Cancelled, "the query was cancelled"));
            }
            answer = rows => answer,
            () = sleep_until(context.deadline) => {
                return Err(StoreError::new(ErrorKind::Timeout, "the query's time is over"));
            }
        };
        killer.disarm();
        answer.map_err(|failure| refused(failure, context))
    }

    /// The statement with the bounds of `context` as settings.
    fn bounded(&self, statement: Statement, context: &QueryContext) -> Statement {
        let left = context.deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        let mut statement = statement
            .param("most", context.max_scanned_samples)
            .setting("max_execution_time", format_args!("{:.3}", left.as_secs_f64()))
            .within(left + Duration::from_secs(1));
        if context.max_scanned_samples < u64::MAX {
            let most = context.max_scanned_samples.saturating_mul(ROWS_PER_SAMPLE).saturating_add(FREE_ROWS);
            statement = statement.setting("max_rows_to_read", most);
        }
        if context.max_memory < u64::MAX {
            let untracked = (context.max_memory / UNTRACKED).clamp(1, MOST_UNTRACKED);
            statement = statement
                .setting("max_memory_usage", context.max_memory.max(1))
                .setting("max_untracked_memory", untracked);
        }
        match self.threads {
            Some(threads) => statement.setting("max_threads", threads),
            None => statement,
        }
    }
}

/// What a failure means within the bounds of `context`.
fn refused(failure: Failure, context: &QueryContext) -> StoreError {
    match (failure.code(), failure.kind()) {
        (Some(code::MEMORY_LIMIT_EXCEEDED), ErrorKind::QueryTooLarge) => context.memory_exceeded(),
        (Some(code::TOO_MANY_ROWS | code::TOO_MANY_ROWS_OR_BYTES), _) => StoreError::new(
            ErrorKind::QueryTooLarge,
            format!("the query scans more than {} samples", context.max_scanned_samples),
        ),
        (_, ErrorKind::Timeout) => StoreError::new(ErrorKind::Timeout, "the query's time is over"),
        (_, ErrorKind::Cancelled) => StoreError::new(ErrorKind::Cancelled, "the query was cancelled"),
        _ => failure.into(),
    }
}

/// Stops a query on the server when it is dropped, unless there was an answer.
struct Killer {
    armed: Option<(Database, String, String)>,
}

impl Killer {
    fn new(reader: &Reader<'_>, id: &str) -> Self {
        Self { armed: Some((reader.database.clone(), running::kill_text(reader.dialect), id.to_owned())) }
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        let (Some((database, text, id)), Ok(runtime)) = (self.armed.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            // Best effort: the server stops it by its time limit anyway.
            let _ = database.statement(text).param("prefix", id).execute().await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::failure::Cause;

    #[test]
    fn a_bound_that_the_server_meets_is_named_as_ours() {
        let mut context = QueryContext::with_timeout(Duration::from_secs(1));
        (context.max_memory, context.max_scanned_samples) = (77, 99);
        let text = |code, message: &str| {
            let failure = Failure::new(Cause::Exception(code), message);
            let error = refused(failure, &context);
            (error.kind, error.message)
        };
        let (kind, message) = text(241, "Query memory limit exceeded");
        assert!(kind == ErrorKind::QueryTooLarge && message.contains("77"));
        let (kind, message) = text(158, "Limit for rows exceeded");
        assert!(kind == ErrorKind::QueryTooLarge && message.contains("99"));
        assert_eq!(text(159, "").0, ErrorKind::Timeout);
        assert_eq!(text(394, "").0, ErrorKind::Cancelled);
    }
}
