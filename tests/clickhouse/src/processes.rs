//! Queries that run: their ids are the clients', while the engine gives its own.
//!
//! Each query runs with a mark of ours as its `log_comment`; a view over `system.processes` puts the client's
//! query id, user, text and comment in the place of the engine's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::{Connection, Engine};
use crate::exception::Exception;
use crate::sql::quoted;
use crate::statement::Kill;

/// The mark's beginning.
const MARK: &str = "luminate-test-server-";
/// How long `KILL … SYNC` waits.
const SYNC: Duration = Duration::from_secs(30);
/// How often what waits for a query's end looks.
const POLL: Duration = Duration::from_millis(20);
/// What of a query's text the list shows.
const TEXT: usize = 64 << 10;

/// A query as its client knows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// The client's id, or one of ours.
    pub query_id: String,
    /// Who runs it.
    pub user: String,
    /// What was sent, without an insert's data.
    pub text: String,
    /// The client's own `log_comment`.
    pub comment: String,
}

/// The queries that run now.
#[derive(Default)]
pub struct Processes {
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    last: u64,
    queries: BTreeMap<u64, Entry>,
}

/// A query, and whether it is to end.
struct Entry {
    process: Process,
    stop: Arc<AtomicBool>,
}

impl Running {
    fn holds(&self, query_id: &str, user: &str) -> Option<u64> {
        let mut queries = self.queries.iter();
        let found = queries.find(|(_, one)| one.process.query_id == query_id && one.process.user == user);
        found.map(|(number, _)| *number)
    }
}

/// A query's place in the list, until it is dropped.
pub struct Place {
    processes: Arc<Processes>,
    number: u64,
    stop: Arc<AtomicBool>,
}

impl Place {
    /// Set when the query is to end: what waits for its client waits no longer.
    #[must_use]
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The mark that the query runs with.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{MARK}{}", self.number)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.processes.running.lock().queries.remove(&self.number);
    }
}

impl Processes {
    /// Enters a query.
    ///
    /// # Errors
    /// Code 216 where the user runs one of the same id.
    pub fn enter(self: &Arc<Self>, mut process: Process) -> Result<Place, Exception> {
        process.text.truncate(process.text.floor_char_boundary(TEXT));
        let mut running = self.running.lock();
        if running.holds(&process.query_id, &process.user).is_some() {
            let message = format!("Query with id = {} is already running", process.query_id);
            return Err(Exception::new(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", message));
        }
        running.last += 1;
        let number = running.last;
        let stop = Arc::<AtomicBool>::default();
        running.queries.insert(number, Entry { process, stop: Arc::clone(&stop) });
        Ok(Place { processes: Arc::clone(self), number, stop })
    }

    /// How many run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.lock().queries.len()
    }

    /// The number of a user's query.
    #[must_use]
    pub fn number_of(&self, query_id: &str, user: &str) -> Option<u64> {
        self.running.lock().holds(query_id, user)
    }

    /// Whether a query runs.
    #[must_use]
    pub fn runs(&self, number: u64) -> bool {
        self.running.lock().queries.contains_key(&number)
    }

    /// Waits until a query has ended; says whether it has.
    #[must_use]
    pub fn wait(&self, number: u64, bound: Duration) -> bool {
        let end = Instant::now() + bound;
        while self.runs(number) {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// What stands for `system.processes`: a subquery with the same columns.
    #[must_use]
    pub fn view(&self) -> String {
        format!("(SELECT * EXCEPT (_mark) FROM {})", self.marked_view())
    }

    /// The view with each query's mark in `_mark`.
    fn marked_view(&self) -> String {
        let running = self.running.lock();
        let list = |of: &dyn Fn(u64, &Process) -> String| {
            let items: Vec<_> =
                running.queries.iter().map(|(number, one)| quoted(&of(*number, &one.process))).collect();
            format!("[{}]", items.join(", "))
        };
        let marks = list(&|number, _| format!("{MARK}{number}"));
        let by_mark = |items: String, or: &str| {
            if running.queries.is_empty() {
                return or.to_owned();
            }
            format!("transform(_mark, {marks}, {items}, toString({or}))")
        };
        let id = by_mark(list(&|_, one| one.query_id.clone()), "query_id");
        let user = by_mark(list(&|_, one| one.user.clone()), "user");
        let text = by_mark(list(&|_, one| one.text.clone()), "query");
        let comment = by_mark(list(&|_, one| one.comment.clone()), "_mark");
        let mut view = String::new();
        // What the engine itself sets is hidden; interface 2 is HTTP. Queries that began after this list was
        // made are left out: the engine's ids mean nothing to a client.
        let _ = write!(
            view,
            "(SELECT * REPLACE ({id} AS query_id, {id} AS initial_query_id, {user} AS user, {user} AS initial_user, \
             {text} AS query, toUInt8(2) AS interface, mapFilter((k, v) -> v != '' AND k NOT IN ('implicit_select', \
             'allow_introspection_functions', 'serialize_query_plan', 'storage_file_read_method', \
             'output_format_parallel_formatting'), \
             mapUpdate(Settings, map('log_comment', {comment}))) AS Settings) \
             FROM (SELECT *, Settings['log_comment'] AS _mark FROM system.processes) \
             WHERE NOT startsWith(_mark, '{MARK}') OR has({marks}, _mark))"
        );
        view
    }

    /// Cancels a query that runs, whatever it does now.
    pub fn cancel(&self, engine: &Engine, number: u64) {
        let Ok(mut connection) = engine.connect() else { return };
        self.cancel_through(&mut connection, number);
    }

    fn cancel_through(&self, connection: &mut Connection, number: u64) {
        if let Some(entry) = self.running.lock().queries.get(&number) {
            entry.stop.store(true, Relaxed);
        }
        let _ = connection.execute(&kill_statement(number));
    }

    /// Cancels a query again and again until it has ended: it may not have begun.
    pub fn cancel_until_gone(&self, engine: &Engine, number: u64) {
        let end = Instant::now() + SYNC;
        while self.runs(number) && Instant::now() < end {
            self.cancel(engine, number);
            thread::sleep(POLL);
        }
    }

    /// Cancels everything that runs.
    pub fn cancel_all(&self, engine: &Engine) {
        let numbers: Vec<_> = self.running.lock().queries.keys().copied().collect();
        for number in numbers {
            self.cancel(engine, number);
            let _ = self.wait(number, Duration::from_millis(500));
        }
    }

    /// Does what `KILL QUERY` says, and gives the query whose answer is the server's.
    ///
    /// # Errors
    /// The condition's exception, or that a reader may only kill queries of their own.
    pub fn kill(
        &self,
        connection: &mut Connection,
        kill: &Kill,
        user: &str,
        reads_only: bool,
        me: u64,
    ) -> Result<Vec<u8>, Exception> {
        let mut found = self.find(connection, kill)?;
        found.retain(|one| one.number != me);
        let own = found.iter().any(|one| one.user == user);
        if reads_only && !own && !found.is_empty() {
            let message = format!("{user}: Cannot execute query in readonly mode");
            return Err(Exception::new(164, "READONLY", message));
        }
        found.retain(|one| !reads_only || one.user == user);
        if !kill.test {
            for one in &found {
                self.cancel_through(connection, one.number);
            }
        }
        let rows: Vec<_> = found.iter().map(|one| one.row(self.outcome(kill, one.number))).collect();
        let structure = "'kill_status String, query_id String, user String, query String'";
        // An empty list of values isn't allowed.
        let answer = match rows.is_empty() {
            true => format!("SELECT * FROM values({structure}, ('', '', '', '')) WHERE 0"),
            false => format!("SELECT * FROM values({structure}, {})", rows.join(", ")),
        };
        let format = kill.format.as_ref().map(|name| format!(" FORMAT {name}"));
        Ok((answer + &format.unwrap_or_default()).into_bytes())
    }

    fn outcome(&self, kill: &Kill, number: u64) -> &'static str {
        match () {
            () if kill.test => "unknown_status",
            () if kill.sync && self.wait(number, SYNC) => "finished",
            () => "waiting",
        }
    }

    fn find(&self, connection: &mut Connection, kill: &Kill) -> Result<Vec<Found>, Exception> {
        let mut sql = format!(
            "SELECT _mark, query_id, user, query FROM {} AS processes WHERE startsWith(_mark, '{MARK}') AND (",
            self.marked_view()
        )
        .into_bytes();
        sql.extend_from_slice(&kill.condition);
        sql.extend_from_slice(b"\n)");
        let answer = connection
            .query(&sql, "JSONCompactEachRow")
            .map_err(|said| Exception::of_engine(&without_view(said)))?;
        let text = String::from_utf8_lossy(&answer.output).into_owned();
        Ok(text.lines().filter_map(Found::parse).collect())
    }
}

/// A query that a condition holds for.
struct Found {
    number: u64,
    query_id: String,
    user: String,
    query: String,
}

impl Found {
    fn parse(line: &str) -> Option<Self> {
        let [mark, query_id, user, query]: [String; 4] = serde_json::from_str(line).ok()?;
        Some(Self { number: mark.strip_prefix(MARK)?.parse().ok()?, query_id, user, query })
    }

    fn row(&self, status: &str) -> String {
        let values = [status, &self.query_id, &self.user, &self.query].map(quoted);
        format!("({})", values.join(", "))
    }
}

/// An exception's text without the query that only we know.
fn without_view(said: String) -> String {
    match (said.find(" in scope SELECT "), said.rfind(". (")) {
        (Some(start), Some(end)) if said.contains(MARK) => format!("{}{}", &said[..start], &said[end..]),
        _ => said,
    }
}

/// Only ASYNC: the engine's SYNC never returns.
fn kill_statement(number: u64) -> String {
    format!("KILL QUERY WHERE Settings['log_comment'] = '{MARK}{number}' ASYNC")
}
