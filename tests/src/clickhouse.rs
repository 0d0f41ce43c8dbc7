//! The test ClickHouse as a process of its own: its HTTP interface over the real engine.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http::{Connection, Response, request};
use crate::worker::binary_named;

/// How long a server may take to end by itself.
const END: Duration = Duration::from_secs(30);

/// A running server with a folder of its own. It ends with the process that started it, whatever happens
/// to that. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct ClickHouse {
    folder: PathBuf,
    address: SocketAddr,
    child: Child,
    /// Held open for what the server may still say.
    _said: BufReader<ChildStdout>,
    _own: Option<TempDir>,
}

impl ClickHouse {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When its binary isn't built, or it doesn't start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with arguments of its own, such as a password.
    ///
    /// # Panics
    /// As [`ClickHouse::start`].
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let own = tempfile::Builder::new().prefix("luminate-clickhouse-").tempdir();
        let own = own.expect("a temporary directory");
        let folder = own.path().to_owned();
        let mut command = Command::new(binary_named("clickhouse"));
        command.args(arguments);
        Self::launch(&folder, 0, command, Some(own))
    }

    /// The server that all tests of this process share: each costs a second and 100 MB. Use
    /// [`fresh_database`], and do no harm to it.
    ///
    /// # Panics
    /// As [`ClickHouse::start`].
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ClickHouse> = OnceLock::new();
        SHARED.get_or_init(|| {
            let own = tempfile::Builder::new().prefix("luminate-clickhouse-").tempdir();
            let folder = own.expect("a temporary directory").keep();
            // Nobody drops a static: a shell that outlives this process removes the data.
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' INT; \"$@\"; rm -rf \"$0\""]).arg(&folder);
            command.arg(binary_named("clickhouse"));
            Self::launch(&folder, 0, command, None)
        })
    }

    fn launch(folder: &Path, port: u16, mut command: Command, own: Option<TempDir>) -> Self {
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        command.arg("--path").arg(folder.join("data")).args([
            "--port",
            &port.to_string(),
            "--stop-with-stdin",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the server's binary can be run");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        let read = said.read_line(&mut line);
        let address = line.trim_end().rsplit('/').next().and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            panic!("ClickHouse didn't start: it said {line:?} ({read:?}); its log:\n{log}")
        });
        Self { folder: folder.to_owned(), address, child, _said: said, _own: own }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a worker is told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id; not for the shared one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory of its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Ends it without warning; its address refuses connections then.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Ends it in good order; its address refuses connections then.
    ///
    /// # Panics
    /// When it doesn't end.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        let started = Instant::now();
        while self.child.try_wait().expect("our child").is_none() {
            assert!(started.elapsed() < END, "ClickHouse doesn't end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after its end, at the same address and on the same data.
    ///
    /// # Panics
    /// As [`ClickHouse::start`].
    pub fn start_again(&mut self) {
        let command = Command::new(binary_named("clickhouse"));
        let again = Self::launch(&self.folder, self.address.port(), command, self._own.take());
        *self = again;
    }

    /// Ends it in good order and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Runs a statement and returns its answer, tab-separated unless it says otherwise.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let answer = self.send(&[], sql.as_bytes()).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.text().trim_end().to_owned()
    }

    /// Runs a statement that answers nothing.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        let said = self.query(sql);
        assert!(said.is_empty(), "{sql}: {said}");
    }

    /// Runs a statement whose answer is one number.
    ///
    /// # Panics
    /// When it is refused or answers anything else.
    #[must_use]
    #[track_caller]
    pub fn number(&self, sql: &str) -> f64 {
        let said = self.query(sql);
        said.parse().unwrap_or_else(|_| panic!("{sql}: {said}"))
    }

    /// Posts a body, with parameters of the address such as `query` or a setting.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&self, parameters: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        Connection::open(self.address)?.exchange(&post(parameters, body))
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // Mostly alive; dead after `kill`.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The bytes of a statement's request.
#[must_use]
pub fn post(parameters: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    request("POST", &format!("/?{}", pairs.join("&")), &[], body)
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// A database's name that nothing has used yet.
#[must_use]
pub fn fresh_database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("luminate_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A database of the shared server, removed when it is dropped.
#[derive(Debug)]
pub struct OwnDatabase {
    /// Its name.
    pub name: String,
}

impl OwnDatabase {
    /// A database that doesn't exist yet.
    #[must_use]
    pub fn new() -> Self {
        Self { name: fresh_database() }
    }
}

impl Default for OwnDatabase {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        // A test that never started a worker has none; one that failed has other worries.
        // Without SYNC, for which the engine as a library waits for ever.
        let sql = format!("DROP DATABASE IF EXISTS {}", self.name);
        let _gone = ClickHouse::shared().send(&[], sql.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_data_and_its_address_over_kills_and_restarts() {
        let mut server = ClickHouse::start();
        server.execute("CREATE DATABASE own");
        server.execute("CREATE TABLE own.numbers (number UInt64) ENGINE = MergeTree ORDER BY number");
        let address = server.address();
        for rounds in 1..3 {
            server.execute("INSERT INTO own.numbers SELECT * FROM numbers(10)");
            if rounds == 1 {
                server.kill()
            } else {
                server.stop()
            }
            assert!(Connection::open(address).is_err(), "nobody listens");
            server.start_again();
            assert_eq!(server.address(), address);
            assert_eq!(server.number("SELECT count() FROM own.numbers"), f64::from(rounds * 10));
        }
        let refused = server.send(&[], b"SELECT nonsense").unwrap();
        assert!(refused.status >= 400 && refused.text().contains("Code: 47"), "{}", refused.text());
    }

    #[test]
    fn parameters_stand_in_the_address() {
        let bytes = post(&[("query", "INSERT INTO t FORMAT Native"), ("x", "a&b=c")], b"rows");
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with("POST /?query=INSERT%20INTO%20t%20FORMAT%20Native&x=a%26b%3Dc HTTP/1.1"),
            "{text}"
        );
    }
}
