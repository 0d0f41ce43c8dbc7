//! A proxy before ClickHouse that does to requests what networks and servers do to them on bad days.
//!
//! It passes all on until it has a plan. A plan looks at each request and says what happens to it. What
//! matters to a writer is whether the server did what it was asked and what the writer hears of it: each
//! [`Fault`] says both.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::http::{Connection, Response, request};

/// How often something that waits looks whether it is over.
const LOOK: Duration = Duration::from_millis(2);

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A block of rows.
    Insert,
    /// Rows.
    Select,
    /// Whether the server is there.
    Ping,
    /// Anything else: a table, a right, a delete, an end to a query.
    Other,
}

/// A request as a plan sees it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it asks for.
    pub kind: Kind,
    /// The table of an insert, without its database; otherwise empty.
    pub table: String,
    /// How many of that kind and table there were, this one included.
    pub nth: u64,
    /// The statement; of an insert only what stands in the address.
    pub sql: String,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Not done: no answer for so long, then the connection is reset.
    Hang(Duration),
    /// Not done: answered with this status and a page that is not ClickHouse's.
    Status(u16),
    /// Not done: answered with this exception.
    Exception(u32),
    /// Not done: answered with 200, and then with this exception in the body, as servers before 25.11 do.
    LateException(u32),
    /// The same, in the tagged form of 25.11 and later.
    TaggedException(u32),
    /// Not done: reset while the request is being sent.
    ResetSending,
    /// Not done: reset when the whole request has arrived.
    ResetUnanswered,
    /// Done after so long, and answered.
    Slow(Duration),
    /// Done at once, and answered after so long.
    SlowAnswer(Duration),
    /// Done, and reset instead of an answer.
    LostAnswer,
    /// Done, and reset in the middle of the answer.
    CutAnswer,
    /// Done, and answered with this exception.
    ExceptionAfterwards(u32),
    /// Done, and answered with this exception in the body of a 200, before 25.11's form.
    LateExceptionAfterwards(u32),
    /// The same, tagged.
    TaggedExceptionAfterwards(u32),
}

impl Fault {
    /// Whether the server does what it was asked all the same.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(
            self,
            Self::Slow(_)
                | Self::SlowAnswer(_)
                | Self::LostAnswer
                | Self::CutAnswer
                | Self::ExceptionAfterwards(_)
                | Self::LateExceptionAfterwards(_)
                | Self::TaggedExceptionAfterwards(_)
        )
    }
}

type Plan = Arc<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// A request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What it asks for.
    pub kind: Kind,
    /// Path and parameters.
    pub target: String,
    /// What the body is.
    pub content_type: Option<String>,
    /// Statement or rows.
    pub body: Vec<u8>,
}

/// A proxy that listens on an address of its own.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    plan: Mutex<Option<Plan>>,
    /// Requests by kind and table.
    counts: Mutex<BTreeMap<(Kind, String), u64>>,
    /// What was sent, while somebody wants to know it.
    records: Mutex<Option<Vec<Recorded>>>,
    /// Faults that happened.
    faults: AtomicU64,
    /// Grows with each new plan and each closing: whatever hangs gives up then.
    epoch: AtomicU64,
    /// Connections are refused.
    closed: AtomicBool,
    ended: AtomicBool,
    /// Open connections, by number.
    clients: Mutex<BTreeMap<u64, TcpStream>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// A proxy before the server at `server`, which need not be there yet.
    ///
    /// # Panics
    /// When the machine has no free port.
    #[must_use]
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            server,
            plan: Mutex::default(),
            counts: Mutex::default(),
            records: Mutex::default(),
            faults: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            clients: Mutex::default(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&shared, address, listener))
        };
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Where it listens, as a worker is told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `plan` says what happens to each request; where it says nothing, it is passed on.
    /// Counting begins anew.
    pub fn plan(&self, plan: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        held(&self.shared.counts).clear();
        *held(&self.shared.plan) = Some(Arc::new(plan));
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// The same fault for every request of a kind.
    pub fn each(&self, kind: Kind, fault: Fault) {
        self.plan(move |asked| (asked.kind == kind).then(|| fault.clone()));
    }

    /// The same fault for every request.
    pub fn all(&self, fault: Fault) {
        self.plan(move |_| Some(fault.clone()));
    }

    /// Passes all on again, and lets connections in.
    pub fn heal(&self) {
        *held(&self.shared.plan) = None;
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
        self.shared.closed.store(false, Ordering::Relaxed);
    }

    /// Refuses connections and ends those that there are, until [`FaultProxy::heal`].
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
        self.shared.hang_up();
        // Until the kernel refuses: whoever connects after this call must fail.
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(LOOK);
        }
    }

    /// What is sent while `during` runs.
    pub fn record(&self, during: impl FnOnce()) -> Vec<Recorded> {
        *held(&self.shared.records) = Some(Vec::new());
        during();
        held(&self.shared.records).take().unwrap_or_default()
    }

    /// How many requests a plan has done something to.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// How many requests of a kind there were since the last plan, to `table` if it isn't empty.
    #[must_use]
    pub fn count(&self, kind: Kind, table: &str) -> u64 {
        let counts = held(&self.shared.counts);
        let wanted = |own: &(Kind, String)| own.0 == kind && (table.is_empty() || own.1 == table);
        counts.iter().filter(|(own, _)| wanted(own)).map(|(_, count)| count).sum()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
        self.shared.hang_up();
        // It looks every few milliseconds; a panic of its own has been printed.
        let _ended = self.accepting.take().map(JoinHandle::join);
    }
}

/// A lock whose holder can't have left nonsense behind.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn hang_up(&self) {
        for client in held(&self.clients).values() {
            // Whoever has hung up already is not there to hear it.
            let _gone = client.shutdown(Shutdown::Both);
        }
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits, unless the plan changes before.
    fn wait(&self, time: Duration) {
        let (epoch, started) = (self.epoch.load(Ordering::Relaxed), Instant::now());
        while started.elapsed() < time && self.epoch.load(Ordering::Relaxed) == epoch {
            thread::sleep(LOOK.min(time));
        }
    }

    /// What the plan says of a request.
    fn fault(&self, head: &Head, body: &[u8]) -> Option<Fault> {
        let (kind, table, sql) = head.meaning(body);
        if let Some(records) = held(&self.records).as_mut() {
            let content_type = head.header("content-type").map(str::to_owned);
            records.push(Recorded { kind, target: head.target.clone(), content_type, body: body.to_vec() });
        }
        let nth = {
            let mut counts = held(&self.counts);
            let count = counts.entry((kind, table.clone())).or_default();
            *count += 1;
            *count
        };
        let plan = held(&self.plan).clone()?;
        let fault = plan(&Asked { kind, table, nth, sql });
        self.faults.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        fault
    }
}

fn accept(shared: &Arc<Shared>, address: SocketAddr, listener: TcpListener) {
    let mut listener = Some(listener);
    let mut number = 0;
    while !shared.is_ended() {
        if shared.is_closed() {
            listener = None;
            thread::sleep(LOOK);
            continue;
        }
        let open = listener.take().map_or_else(|| TcpListener::bind(address), Ok);
        let open = open.expect("the port is still ours");
        open.set_nonblocking(true).expect("a socket");
        match open.accept() {
            Ok((client, _)) => {
                client.set_nonblocking(false).expect("a socket");
                held(&shared.clients).insert(number, client.try_clone().expect("a socket"));
                let (shared, own) = (Arc::clone(shared), number);
                thread::spawn(move || {
                    // An error here is the client's going, or a fault that it was meant to see.
                    let _ended = serve(&shared, client);
                    held(&shared.clients).remove(&own);
                });
                number += 1;
            }
            Err(_) => thread::sleep(LOOK),
        }
        listener = Some(open);
    }
}

/// Serves one connection until either side ends it.
fn serve(shared: &Shared, client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut input = BufReader::new(client.try_clone()?);
    let mut server = None;
    while let Some(head) = Head::read(&mut input)? {
        // The statement of an insert stands in the address, so that its fault is known before its block.
        let early = if head.is_insert() { shared.fault(&head, &[]) } else { None };
        if early == Some(Fault::ResetSending) {
            let mut some = [0; 1_000];
            let _some = input.read(&mut some)?;
            return reset(&client);
        }
        let body = head.body(&mut input)?;
        let fault = if head.is_insert() { early } else { shared.fault(&head, &body) };
        let mut exchange =
            Exchange { shared, client: &client, server: &mut server, head: &head, body: &body };
        if !exchange.carry_out(fault)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes a connection's end, which must come next, a reset: its other side learns of it as an error.
fn reset(client: &TcpStream) -> io::Result<()> {
    SockRef::from(client).set_linger(Some(Duration::ZERO))
}

/// A request on its way.
struct Exchange<'a> {
    shared: &'a Shared,
    client: &'a TcpStream,
    server: &'a mut Option<Connection>,
    head: &'a Head,
    body: &'a [u8],
}

impl Exchange<'_> {
    /// Whether the connection goes on.
    fn carry_out(&mut self, fault: Option<Fault>) -> io::Result<bool> {
        let Some(fault) = fault else {
            let answer = self.pass_on()?;
            return self.answer(&answer);
        };
        match fault {
            Fault::Hang(time) => {
                self.shared.wait(time);
                self.reset()
            }
            Fault::Status(status) => self.answer(&page(status)),
            Fault::Exception(code) => self.answer(&exception(code)),
            Fault::LateException(code) => self.answer(&late(Response::empty(), code)),
            Fault::TaggedException(code) => self.answer(&tagged(Response::empty(), code)),
            Fault::ResetSending | Fault::ResetUnanswered => self.reset(),
            Fault::Slow(time) => {
                self.shared.wait(time);
                let answer = self.pass_on()?;
                self.answer(&answer)
            }
            Fault::SlowAnswer(time) => {
                let answer = self.pass_on()?;
                self.shared.wait(time);
                self.answer(&answer)
            }
            Fault::LostAnswer => {
                self.pass_on()?;
                self.reset()
            }
            Fault::CutAnswer => {
                let answer = self.pass_on()?;
                let bytes = bytes(&answer);
                self.client.write_all(&bytes[..bytes.len() - answer.body.len() / 2 - 1])?;
                self.reset()
            }
            Fault::ExceptionAfterwards(code) => {
                self.pass_on()?;
                self.answer(&exception(code))
            }
            Fault::LateExceptionAfterwards(code) => {
                let answer = self.pass_on()?;
                self.answer(&late(answer, code))
            }
            Fault::TaggedExceptionAfterwards(code) => {
                let answer = self.pass_on()?;
                self.answer(&tagged(answer, code))
            }
        }
    }

    fn reset(&self) -> io::Result<bool> {
        reset(self.client).map(|()| false)
    }

    fn answer(&mut self, answer: &Response) -> io::Result<bool> {
        self.client.write_all(&bytes(answer)).map(|()| true)
    }

    /// The server's own answer; a connection that it has closed in the meantime is replaced.
    fn pass_on(&mut self) -> io::Result<Response> {
        let headers: Vec<(&str, &str)> = self.head.passed().collect();
        let request = request(&self.head.method, &self.head.target, &headers, self.body);
        if let Some(mut server) = self.server.take().filter(|server| !server.is_closed()) {
            // Only an idle connection that was closed meanwhile fails before anything of an answer came.
            if let Ok(answer) = server.exchange(&request) {
                *self.server = Some(server);
                return Ok(answer);
            }
        }
        let mut server = Connection::open(self.shared.server)?;
        let answer = server.exchange(&request)?;
        *self.server = Some(server);
        Ok(answer)
    }
}

/// A request's first lines.
#[derive(Debug)]
struct Head {
    method: String,
    target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads one; nothing where the client has hung up.
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Self { method, target, headers }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The headers that the server gets too. Answers come uncompressed, so that they can be tampered with.
    fn passed(&self) -> impl Iterator<Item = (&str, &str)> {
        const OURS: [&str; 6] =
            ["host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect"];
        let pairs = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(|(name, _)| !OURS.contains(name))
    }

    fn body(&self, input: &mut impl BufRead) -> io::Result<Vec<u8>> {
        if self.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return chunks(input);
        }
        let length = self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        Ok(body)
    }

    /// The statement that stands in the address.
    fn statement(&self) -> String {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let own = query.split('&').find_map(|pair| pair.strip_prefix("query="));
        unescaped(own.unwrap_or_default())
    }

    fn is_insert(&self) -> bool {
        starts_with(&self.statement(), "INSERT")
    }

    /// What is asked: kind, table of an insert, statement.
    fn meaning(&self, body: &[u8]) -> (Kind, String, String) {
        let mut sql = self.statement();
        if !self.is_insert() {
            let body = String::from_utf8_lossy(body);
            let form = self.header("content-type").is_some_and(|kind| kind.starts_with("multipart/"));
            sql.push_str(if form { field_of_form(&body, "query") } else { &body });
        }
        let kind = match sql.trim_start() {
            sql if starts_with(sql, "INSERT") => Kind::Insert,
            sql if starts_with(sql, "SELECT") || starts_with(sql, "WITH") => Kind::Select,
            "" => Kind::Ping,
            _ => Kind::Other,
        };
        let table = if kind == Kind::Insert { table(&sql) } else { String::new() };
        (kind, table, sql)
    }
}

/// A field of a form in several parts: statements with parameters come so.
fn field_of_form<'a>(body: &'a str, name: &str) -> &'a str {
    let field = body.split_once(&format!("name=\"{name}\"")).map_or("", |(_, rest)| rest);
    let value = field.split_once("\r\n\r\n").map_or("", |(_, rest)| rest);
    value.split_once("\r\n--").map_or(value, |(value, _)| value)
}

/// Whether the first word that isn't a comment is `word`.
fn starts_with(sql: &str, word: &str) -> bool {
    let first = sql.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with("--"));
    first.and_then(|line| line.get(..word.len())).is_some_and(|own| own.eq_ignore_ascii_case(word))
}

/// The table in `INSERT INTO "database"."table" (…`.
fn table(sql: &str) -> String {
    let words = sql.split_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("INTO")).skip(1);
    let word = words.into_iter().find(|word| !word.eq_ignore_ascii_case("TABLE")).unwrap_or_default();
    let name = word.split('(').next().unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or_default();
    name.trim_matches(['`', '"']).to_owned()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn chunks(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let start = body.len();
        body.resize(start + length, 0);
        input.read_exact(&mut body[start..])?;
        line.clear();
        input.read_line(&mut line)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

impl Response {
    /// 200 and nothing.
    fn empty() -> Self {
        Self { status: 200, headers: Vec::new(), body: Vec::new() }
    }
}

/// An answer as it goes over the wire, of a known length.
fn bytes(answer: &Response) -> Vec<u8> {
    const OURS: [&str; 3] = ["content-length", "transfer-encoding", "connection"];
    let mut bytes = format!("HTTP/1.1 {} Answer\r\n", answer.status).into_bytes();
    for (name, value) in answer.headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str())) {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", answer.body.len()).as_bytes());
    bytes.extend_from_slice(&answer.body);
    bytes
}

/// What a load balancer says.
fn page(status: u16) -> Response {
    let body = format!("<html><head><title>{status}</title></head><body>{status}</body></html>\r\n");
    let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
    Response { status, headers, body: body.into_bytes() }
}

fn exception(code: u32) -> Response {
    let (status, text) = text(code);
    let headers = vec![
        ("content-type".to_owned(), "text/plain; charset=UTF-8".to_owned()),
        ("x-clickhouse-exception-code".to_owned(), code.to_string()),
    ];
    Response { status, headers, body: format!("{text}\n").into_bytes() }
}

/// The exception at the end of an answer that has begun as a good one, as servers before 25.11 send it.
fn late(mut answer: Response, code: u32) -> Response {
    answer.headers.retain(|(name, _)| name != "x-clickhouse-exception-tag");
    answer.body.extend_from_slice(format!("{}\n", text(code).1).as_bytes());
    answer
}

/// The same as servers since 25.11 send it: with its length, between tags that no data can forge.
fn tagged(mut answer: Response, code: u32) -> Response {
    const TAG: &str = "kqzvxjwpfmhgtrbn";
    answer.headers.retain(|(name, _)| name != "x-clickhouse-exception-tag");
    answer.headers.push(("x-clickhouse-exception-tag".to_owned(), TAG.to_owned()));
    let text = format!("{}\n", text(code).1);
    let mark = "__exception__";
    let whole = format!("\r\n{mark}\r\n{TAG}\r\n{text}{} {TAG}\r\n{mark}\r\n", text.len());
    answer.body.extend_from_slice(whole.as_bytes());
    answer
}

/// An exception's status and words, as a server says them.
fn text(code: u32) -> (u16, String) {
    let (status, name, words) = match code {
        159 => (408, "TIMEOUT_EXCEEDED", "Timeout exceeded: elapsed 10001 ms, maximum: 10000 ms."),
        164 => (500, "READONLY", "Cannot execute query in readonly mode."),
        202 => (500, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries. Maximum: 100."),
        241 => (
            500,
            "MEMORY_LIMIT_EXCEEDED",
            "(total) memory limit exceeded: would use 27.90 GiB (attempt to allocate chunk of 4.00 MiB), maximum: 27.80 GiB.",
        ),
        242 => (500, "TABLE_IS_READ_ONLY", "Table is in readonly mode."),
        252 => (
            500,
            "TOO_MANY_PARTS",
            "Too many parts (300 with average size of 1.00 KiB). Merges are processing significantly slower than inserts.",
        ),
        319 => (500, "UNKNOWN_STATUS_OF_INSERT", "Unknown status, client must retry."),
        497 => (403, "ACCESS_DENIED", "ingest: Not enough privileges."),
        516 => (
            403,
            "AUTHENTICATION_FAILED",
            "ingest: Authentication failed: password is incorrect, or there is no user with such name.",
        ),
        999 => (500, "KEEPER_EXCEPTION", "Session expired."),
        _ => (500, "SOME_ERROR", "Something is wrong."),
    };
    (status, format!("Code: {code}. DB::Exception: {words} ({name}) (version 26.5.1.1 (official build))"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_statement() {
        let head = |target: &str| Head { method: "POST".into(), target: target.into(), headers: Vec::new() };
        let insert = head("/?database=d&query=INSERT+INTO%20%60d%60.%60samples%60(a,b)+FORMAT+Native");
        assert!(insert.is_insert());
        assert_eq!(insert.meaning(b"block").1, "samples");
        let (kind, table, sql) = head("/?database=d").meaning(b"-- Why.\n\nWITH 1 AS a SELECT a");
        assert_eq!((kind, table.as_str()), (Kind::Select, ""));
        assert!(sql.ends_with("SELECT a"));
        assert_eq!(head("/ping").meaning(b"").0, Kind::Ping);
        assert_eq!(head("/").meaning(b"KILL QUERY WHERE 1").0, Kind::Other);
        assert_eq!(super::table("INSERT INTO samples FORMAT Native"), "samples");
        let mut form = head("/?database=d");
        form.headers.push(("content-type".into(), "multipart/form-data; boundary=x".into()));
        let body =
            "--x\r\ncontent-disposition: form-data; name=\"query\"\r\n\r\n-- Why.\nSELECT 1\r\n--x\r\n…";
        assert_eq!(
            form.meaning(body.as_bytes()),
            (Kind::Select, String::new(), "-- Why.\nSELECT 1".to_owned())
        );
    }

    /// A server that answers every request with its number.
    fn server() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, done) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&done);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, counter) = (client.unwrap(), Arc::clone(&counter));
                thread::spawn(move || {
                    let mut input = BufReader::new(client.try_clone().unwrap());
                    while let Ok(Some(head)) = Head::read(&mut input) {
                        head.body(&mut input).unwrap();
                        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
                        let body = format!("answer {number}\n").into_bytes();
                        client.write_all(&bytes(&Response { body, ..Response::empty() })).unwrap();
                    }
                });
            }
        });
        (address, done)
    }

    fn ask(proxy: &FaultProxy, sql: &str) -> io::Result<Response> {
        let mut connection = Connection::open(proxy.address)?;
        let insert = starts_with(sql, "INSERT");
        let escaped = sql.replace(' ', "+");
        let (target, body) =
            if insert { (format!("/?query={escaped}"), "rows") } else { ("/".to_owned(), sql) };
        connection.exchange(&request("POST", &target, &[], body.as_bytes()))
    }

    #[test]
    fn without_a_plan_all_is_passed_on() {
        let (address, _) = server();
        let proxy = FaultProxy::before(address);
        let mut connection = Connection::open(proxy.address).unwrap();
        for number in 1..4 {
            let answer = connection.exchange(&request("POST", "/", &[], b"SELECT 1")).unwrap();
            assert_eq!(answer.text(), format!("answer {number}\n"));
        }
        assert_eq!((proxy.count(Kind::Select, ""), proxy.faults()), (3, 0));
    }

    #[test]
    fn each_fault_does_what_it_says_to_the_server_and_to_the_client() {
        let (address, done) = server();
        let proxy = FaultProxy::before(address);
        let short = Duration::from_millis(5);
        for (fault, heard) in [
            (Fault::Hang(short), "reset"),
            (Fault::Status(502), "502"),
            (Fault::Exception(252), "TOO_MANY_PARTS"),
            (Fault::LateException(241), "MEMORY_LIMIT_EXCEEDED"),
            (Fault::TaggedException(241), "__exception__"),
            (Fault::ResetSending, "reset"),
            (Fault::ResetUnanswered, "reset"),
            (Fault::Slow(short), "answer"),
            (Fault::SlowAnswer(short), "answer"),
            (Fault::LostAnswer, "reset"),
            (Fault::CutAnswer, "reset"),
            (Fault::ExceptionAfterwards(319), "UNKNOWN_STATUS_OF_INSERT"),
            (Fault::LateExceptionAfterwards(241), "MEMORY_LIMIT_EXCEEDED"),
            (Fault::TaggedExceptionAfterwards(241), "__exception__"),
        ] {
            let before = done.load(Ordering::Relaxed);
            proxy.each(Kind::Insert, fault.clone());
            let answer = ask(&proxy, "INSERT INTO samples FORMAT Native");
            let said = answer.as_ref().map_or_else(|_| "reset".to_owned(), Response::text);
            assert!(said.contains(heard), "{fault:?}: {said}");
            assert_eq!(done.load(Ordering::Relaxed) - before, u64::from(fault.is_done()), "{fault:?}");
            assert!(ask(&proxy, "SELECT 1").unwrap().text().starts_with("answer"), "selects go on");
        }
    }

    #[test]
    fn a_closed_proxy_refuses_and_a_healed_one_listens_at_the_same_address() {
        let (address, _) = server();
        let proxy = FaultProxy::before(address);
        let mut before = Connection::open(proxy.address).unwrap();
        proxy.close();
        assert!(before.exchange(&request("POST", "/", &[], b"SELECT 1")).is_err());
        assert!(ask(&proxy, "SELECT 1").is_err());
        proxy.heal();
        let started = Instant::now();
        while ask(&proxy, "SELECT 1").is_err() {
            assert!(started.elapsed() < Duration::from_secs(30));
        }
    }

    #[test]
    fn whatever_hangs_ends_with_the_plan() {
        let (address, _) = server();
        let proxy = FaultProxy::before(address);
        proxy.all(Fault::Hang(Duration::from_secs(3_600)));
        thread::scope(|scope| {
            let hanging = scope.spawn(|| ask(&proxy, "SELECT 1"));
            thread::sleep(Duration::from_millis(50));
            proxy.heal();
            assert!(hanging.join().unwrap().is_err());
        });
    }
}
