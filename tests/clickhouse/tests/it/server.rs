//! A server with a folder of its own, and curl against it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

/// A running server; it ends when this is dropped, even where the test is killed.
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    /// `http://127.0.0.1:<port>`.
    pub url: String,
    folder: Option<TempDir>,
    path: PathBuf,
}

/// An answer as curl has it.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers as they came.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body ended as HTTP says.
    pub complete: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub fn command(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickhouse"));
    command.arg("--path").arg(path).args(["--port", "0", "--stop-with-stdin"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self::at(folder.path(), arguments);
        server.folder = Some(folder);
        server
    }

    pub fn at(path: &Path, arguments: &[&str]) -> Self {
        let mut child = command(path, arguments).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("an output")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { input: child.stdin.take(), child, url, folder: None, path: path.to_owned() }
    }

    /// Closes its standard input and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        drop(self.input.take());
        self.child.wait().expect("it ends")
    }

    pub fn terminate(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).expect("sent");
        self.child.wait().expect("it ends")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `GET` of a path and query as they stand.
    pub fn get(&self, target: &str) -> Answer {
        self.curl(&["-X", "GET"], target, None)
    }

    /// `POST` of a body.
    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.curl(&[], target, Some(body.as_ref()))
    }

    /// Runs a statement that must succeed.
    pub fn run(&self, sql: &str) -> String {
        let answer = self.post("/", sql);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.text()
    }

    pub fn curl(&self, arguments: &[&str], target: &str, body: Option<&[u8]>) -> Answer {
        let mut command = self.curl_command(arguments, target);
        if body.is_some() {
            command.args(["--data-binary", "@-"]);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("curl");
        let mut input = child.stdin.take().expect("an input");
        let body = body.unwrap_or_default().to_vec();
        // A server may answer before it has everything.
        let writer = std::thread::spawn(move || drop(input.write_all(&body)));
        let output = child.wait_with_output().expect("curl ends");
        writer.join().expect("written");
        answer(&output)
    }

    pub fn curl_command(&self, arguments: &[&str], target: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-s", "-i", "-g", "--max-time", "60"]).args(arguments);
        command.arg(format!("{}{target}", self.url));
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Headers and body of what curl printed; answers of `100 Continue` are skipped.
pub fn answer(output: &Output) -> Answer {
    let mut rest = output.stdout.as_slice();
    loop {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("headers");
        let headers = String::from_utf8_lossy(&rest[..end]).into_owned();
        let status: u16 = headers.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        rest = &rest[end + 4..];
        if status != 100 {
            return Answer { status, headers, body: rest.to_vec(), complete: output.status.success() };
        }
    }
}

/// A name as it stands in a URL.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
