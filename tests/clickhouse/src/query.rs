//! One query from its text to its answer.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hyper::Response;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::sync::oneshot;

use crate::cluster;
use crate::compression;
use crate::engine::{self, Connection};
use crate::exception::Exception;
use crate::format;
use crate::outlet::{self, Outlet};
use crate::processes::{Place, Process};
use crate::request::{Incoming, Request, Source};
use crate::restore::Before;
use crate::server::Server;
use crate::socket::Link;
use crate::sql::{identifier, quoted};
use crate::statement::{self, Statement};

/// How long `replace_running_query=1` waits for the other.
const REPLACE: Duration = Duration::from_secs(5);
/// A server's defaults where the engine has those of a local client. Formatting on several threads costs small
/// answers as much as the query.
const OWN: &str =
    ", implicit_select = 0, allow_introspection_functions = 0, output_format_parallel_formatting = 0";
/// How often it is looked whether a client is there, and a query is cancelled whose answer nobody takes.
const AGAIN: Duration = Duration::from_millis(50);
/// What the engine says of an answer that nobody takes any more.
const NOBODY: &str = "Nobody reads the answer";

/// Answers a request with a query. Blocks until the query has ended.
pub fn serve(
    server: &Arc<Server>,
    incoming: Incoming,
    head: oneshot::Sender<Response<outlet::Answer>>,
    link: &Arc<Link>,
) {
    let begun = Instant::now();
    let mut outlet = server.outlet(head);
    let user = match server.users.authenticate(&incoming.headers, &incoming.url) {
        Ok(user) => user.clone(),
        Err(exception) => return outlet.fail(&exception),
    };
    let name = user.name.clone();
    let parsed = incoming.parse(user);
    let outcome = parsed.and_then(|(request, source)| {
        let query_id = request.query_id.clone().unwrap_or_else(|| server.new_id());
        outlet.header("x-clickhouse-query-id", &query_id);
        outlet.header("x-clickhouse-timezone", &server.timezone);
        outlet.header("x-clickhouse-summary", &summary(&engine::Answer::default(), begun.elapsed()));
        let mut query = Query { server, request, query_id, begun, outlet: &mut outlet, link };
        query.run(source)
    });
    server.log(&name, begun.elapsed(), outcome.as_ref().err());
    match outcome {
        Ok(()) => outlet.finish(),
        Err(exception) => outlet.fail(&exception.for_user(&name)),
    }
}

/// A query that is being run.
struct Query<'a> {
    server: &'a Arc<Server>,
    request: Request,
    query_id: String,
    begun: Instant,
    outlet: &'a mut Outlet,
    link: &'a Arc<Link>,
}

impl Query<'_> {
    /// 1. take a place among the connections  2. look at the text  3. enter the list  4. prepare the connection
    /// 5. run  6. give the connection back.
    fn run(&mut self, mut source: Source) -> Result<(), Exception> {
        let statement = look(&mut source)?;
        let text = match &statement {
            Statement::Insert(insert) => &insert.text,
            _ => &source.text,
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let _permit = match statement {
            // Who frees a place must not wait for one.
            Statement::Kill(_) => None,
            _ => Some(self.server.permit()?),
        };
        let place = self.enter(text)?;
        self.outlet.stop = place.stop();
        // Readers can change nothing that a session would keep.
        let session = self.request.session.take().filter(|_| !self.request.user.reads_only);
        if session.is_some() && self.takes_readonly() && !statement::reads(&statement, &source.text) {
            return Err(Exception::new(164, "READONLY", "default: Cannot execute query in readonly mode"));
        }
        let kept = match &session {
            Some((key, _, check)) => self.server.sessions.acquire(key, *check)?,
            None => None,
        };
        let fresh = kept.is_none();
        let mut connection = kept.map_or_else(|| self.server.connect(), Ok);
        let outcome = match &mut connection {
            Ok(connection) => {
                self.in_connection(connection, &place, fresh, session.is_some(), statement, source)
            }
            Err(exception) => Err(exception.clone()),
        };
        if let Some((key, timeout, _)) = &session {
            let kept = connection.ok().filter(|_| !self.request.closes_session);
            self.server.sessions.release(key, kept, *timeout);
        }
        outcome
    }

    fn enter(&self, text: String) -> Result<Place, Exception> {
        let process = Process {
            query_id: self.query_id.clone(),
            user: self.request.user.name.clone(),
            text,
            comment: self.setting("log_comment").unwrap_or_default().to_owned(),
        };
        if self.switch("replace_running_query") == Some(true)
            && let Some(other) = self.server.processes.number_of(&process.query_id, &process.user)
        {
            self.server.processes.cancel(&self.server.engine, other);
            let _ = self.server.processes.wait(other, REPLACE);
        }
        let place = self.server.processes.enter(process)?;
        let readonly =
            self.request.readonly > 0 || self.setting("readonly").is_some_and(|value| value != "0");
        if readonly && self.switch("cancel_http_readonly_queries_on_client_close") == Some(true) {
            tokio::spawn(watch(Arc::clone(self.server), Arc::clone(self.link), place.number()));
        }
        Ok(place)
    }

    /// In a session, readonly mode would never end: there, a look at the statement has to do.
    fn takes_readonly(&mut self) -> bool {
        let settings = std::mem::take(&mut self.request.settings);
        let (modes, settings): (Vec<_>, Vec<_>) =
            settings.into_iter().partition(|(name, _)| name == "readonly");
        self.request.settings = settings;
        std::mem::take(&mut self.request.readonly) > 0 || modes.iter().any(|(_, value)| value != "0")
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.request.settings.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn switch(&self, name: &str) -> Option<bool> {
        match self.setting(name) {
            Some(value) => Some(matches!(value, "1" | "true")),
            None => self.server.default_setting(name).map(|value| value == "1"),
        }
    }

    fn in_connection(
        &mut self,
        connection: &mut Connection,
        place: &Place,
        fresh: bool,
        kept: bool,
        statement: Statement,
        source: Source,
    ) -> Result<(), Exception> {
        let before = kept.then(|| Before::of(connection, &self.request)).transpose()?;
        let outcome = self
            .prepare(connection, &place.mark(), fresh)
            .and_then(|()| self.execute(connection, place, statement, source));
        if let Some(before) = before {
            before.restore(connection);
        }
        let answer = outcome?;
        let summary = summary(&answer, self.begun.elapsed());
        self.outlet.header("x-clickhouse-summary", &summary);
        Ok(())
    }

    /// Settings, parameters and the database: in the order in which a server's checks see them.
    fn prepare(&mut self, connection: &mut Connection, mark: &str, fresh: bool) -> Result<(), Exception> {
        let request = &self.request;
        let mut own = format!("SET log_comment = '{mark}'");
        if fresh {
            own += OWN;
        }
        if request.readonly > 0 {
            own += &format!(", readonly = {}", request.readonly);
        }
        let settings = request.settings.iter().filter(|(name, _)| name != "log_comment");
        let mut statements = vec![own];
        let theirs: Vec<_> =
            settings.map(|(name, value)| format!("{} = {}", identifier(name), quoted(value))).collect();
        if !theirs.is_empty() {
            statements.push(format!("SET {}", theirs.join(", ")));
        }
        for (name, value) in &request.parameters {
            statements.push(format!("SET {} = {}", identifier(name), quoted(value)));
        }
        if let Some(database) = &request.database {
            statements.push(format!("USE {}", identifier(database)));
        }
        for statement in statements {
            connection.execute(&statement).map_err(|said| Exception::of_engine(&said))?;
        }
        let encoding = match self.switch("enable_http_compression") {
            Some(true) => self.request.accepts,
            _ => compression::Encoding::Identity,
        };
        let waits = self.switch("http_wait_end_of_query");
        let waits = self.request.waits.or(waits) == Some(true);
        let buffer = self.setting("http_response_buffer_size").and_then(|size| size.parse().ok());
        let buffer = buffer.or(self.request.buffer).unwrap_or_default();
        self.outlet.configure(encoding, self.request.frames, if waits { usize::MAX } else { buffer });
        self.upload_tables(connection)
    }

    fn upload_tables(&mut self, connection: &mut Connection) -> Result<(), Exception> {
        for table in &self.request.tables {
            let name = identifier(&table.name);
            let file = memory_file(|file| file.write_all(&table.data))?;
            let create = format!("CREATE TEMPORARY TABLE {name} ({})", table.structure);
            let insert = format!(
                "INSERT INTO {name} FROM INFILE '{}' COMPRESSION 'none' FORMAT {}",
                path(&file),
                table.format
            );
            for statement in [create, insert] {
                connection.execute(&statement).map_err(|said| Exception::of_engine(&said))?;
            }
        }
        Ok(())
    }

    fn execute(
        &mut self,
        connection: &mut Connection,
        place: &Place,
        statement: Statement,
        mut source: Source,
    ) -> Result<engine::Answer, Exception> {
        let default = self.request.default_format.clone().unwrap_or_else(|| format::DEFAULT.to_owned());
        match statement {
            Statement::Insert(insert) => {
                let file = memory_file(|file| source.copy_from(insert.data, file))?;
                drop(source);
                or_original(connection, &insert.from_file(&path(&file)), &insert.text, &default)
            }
            Statement::Kill(kill) => {
                let user = &self.request.user;
                let reads_only = self.request.readonly > 0;
                let answer =
                    self.server.processes.kill(connection, &kill, &user.name, reads_only, place.number())?;
                self.stream(connection, place, &answer, kill.format.as_deref().unwrap_or(&default))
            }
            Statement::Query(named) => {
                let view = statement::replace_processes(&source.text, || self.server.processes.view());
                let text = view.as_deref().unwrap_or(&source.text);
                self.stream(connection, place, text, named.as_deref().unwrap_or(&default))
            }
            Statement::Brief(named) => {
                let format = named.unwrap_or(default);
                let answer = query(connection, &source.text, &format)?;
                self.name_format(&format);
                self.outlet.write(&answer.output).map_err(|_| nobody())?;
                Ok(answer)
            }
            Statement::Other => {
                if self.server.in_a_cluster
                    && let Some(alone) = cluster::alone(&source.text)
                {
                    source.text = alone;
                }
                self.other(connection, &source, &default)
            }
        }
    }

    /// What answers nothing, or so little that it fits into memory.
    fn other(
        &mut self,
        connection: &mut Connection,
        source: &Source,
        default: &str,
    ) -> Result<engine::Answer, Exception> {
        let data = |position: usize| memory_file(|file| file.write_all(&source.text[position..]));
        let input =
            statement::input_from_file(&source.text, "").map(|(_, position)| data(position)).transpose()?;
        let rewritten = input.as_ref().and_then(|file| statement::input_from_file(&source.text, &path(file)));
        let text = rewritten.as_ref().map_or(source.text.as_slice(), |(text, _)| text);
        let answer = query(connection, text, default)?;
        if !answer.output.is_empty() {
            self.name_format(default);
            self.outlet.write(&answer.output).map_err(|_| nobody())?;
        }
        Ok(answer)
    }

    fn name_format(&mut self, format: &str) {
        self.outlet.header("x-clickhouse-format", format::canonical(format));
        self.outlet.header("content-type", format::content_type(format));
    }

    /// Runs a query whose answer goes through a pipe, as it comes.
    fn stream(
        &mut self,
        connection: &mut Connection,
        place: &Place,
        text: &[u8],
        format: &str,
    ) -> Result<engine::Answer, Exception> {
        let plain = self.outlet.headers.get("content-type").cloned();
        self.name_format(format);
        let (reader, writer) = io::pipe().map_err(|error| broken(&error))?;
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(1 << 20));
        let into = statement::into_file(text, &path(&writer));
        let (outlet, processes, engine) = (&mut *self.outlet, &self.server.processes, &self.server.engine);
        let ended = AtomicBool::new(false);
        let (answer, pumped) = thread::scope(|scope| {
            let pump = scope.spawn(|| {
                let pumped = outlet.pump(reader);
                // The engine makes an answer to its end even where it can't write it any more.
                while pumped.is_err() && !ended.load(Relaxed) {
                    processes.cancel(engine, place.number());
                    thread::sleep(AGAIN);
                }
                pumped
            });
            let answer = query(connection, &into, format);
            ended.store(true, Relaxed);
            drop(writer);
            (answer, pump.join().unwrap_or(Ok(())))
        });
        let answer = match answer {
            // What the grammar takes without the target, or what it says of the original.
            Err(exception) if exception.is_syntax() => query(connection, text, format),
            _ if pumped.is_err() && self.outlet.gone() => Err(nobody()),
            other => other,
        };
        match (&answer, plain) {
            (Ok(answer), _) => self.outlet.write(&answer.output).map_err(|_| nobody())?,
            (Err(_), Some(plain)) => {
                self.outlet.headers.insert("content-type", plain);
                self.outlet.headers.remove("x-clickhouse-format");
            }
            (Err(_), None) => {}
        }
        answer
    }
}

/// Cancels a query once its client has hung up.
async fn watch(server: Arc<Server>, link: Arc<Link>, number: u64) {
    while server.processes.runs(number) {
        if link.gone() {
            let cancel = move || server.processes.cancel_until_gone(&server.engine, number);
            tokio::task::spawn_blocking(cancel);
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads as much as shows what the query is; all of it unless data follow.
fn look(source: &mut Source) -> Result<Statement, Exception> {
    let mut statement = statement::analyse(&source.text);
    if !matches!(statement, Statement::Insert(_)) {
        source.complete().map_err(|error| compression::exception(&error))?;
        statement = statement::analyse(&source.text);
        refuse(&source.text)?;
    }
    Ok(statement)
}

/// What a server refuses and the engine, a client, doesn't.
fn refuse(text: &[u8]) -> Result<(), Exception> {
    if crate::lexer::Lexer::new(text).next().is_none() {
        return Err(Exception::new(62, "SYNTAX_ERROR", "Empty query"));
    }
    if let Some(at) = statement::second_statement(text) {
        let rest = String::from_utf8_lossy(&text[at..]).into_owned();
        let message = format!(
            "Syntax error (Multi-statements are not allowed): failed at position {} (end of query): {rest}. ",
            at + 1
        );
        return Err(Exception::new(62, "SYNTAX_ERROR", message));
    }
    match statement::names_a_file(text) {
        true => Err(Exception::new(358, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")),
        false => Ok(()),
    }
}

fn query(connection: &mut Connection, text: &[u8], format: &str) -> Result<engine::Answer, Exception> {
    connection.query(text, format).map_err(|said| Exception::of_engine(&said))
}

/// Runs the rewritten text; where it can't be parsed, the original says why. An original that can be parsed
/// has inserted nothing, for it has no data.
fn or_original(
    connection: &mut Connection,
    rewritten: &[u8],
    original: &[u8],
    format: &str,
) -> Result<engine::Answer, Exception> {
    match query(connection, rewritten, format) {
        Err(exception) if exception.is_syntax() => query(connection, original, format).and(Err(exception)),
        other => other,
    }
}

/// A file in memory, which the engine opens by its descriptor's path.
fn memory_file(fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<OwnedFd, Exception> {
    let file = memfd_create(c"body", MFdFlags::MFD_CLOEXEC).map_err(|error| broken(&error.into()))?;
    let mut file = File::from(file);
    fill(&mut file).map_err(|error| compression::exception(&error))?;
    Ok(file.into())
}

fn path(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn broken(error: &io::Error) -> Exception {
    Exception::new(1001, "STD_EXCEPTION", format!("the test server lacks a descriptor: {error}"))
}

fn nobody() -> Exception {
    Exception::new(210, "NETWORK_ERROR", NOBODY)
}

/// The server's summary of what a query did.
fn summary(answer: &engine::Answer, elapsed: Duration) -> String {
    // An insert's result are the rows that it wrote.
    let result = |result: u64, written: u64| if written > 0 { written } else { result };
    let fields = [
        ("read_rows", answer.read_rows),
        ("read_bytes", answer.read_bytes),
        ("written_rows", answer.written_rows),
        ("written_bytes", answer.written_bytes),
        ("total_rows_to_read", answer.read_rows),
        ("result_rows", result(answer.result_rows, answer.written_rows)),
        ("result_bytes", result(answer.result_bytes, answer.written_bytes)),
        ("elapsed_ns", u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)),
        ("memory_usage", 0),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    format!("{{{}}}", fields.join(","))
}
