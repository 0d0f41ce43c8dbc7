//! A request with a query: everything that its URL, headers and body say, and what the user may do.

use std::io::{self, Read};
use std::time::Duration;

use hyper::{HeaderMap, Method};

use crate::auth::User;
use crate::compression::{self, Encoding, Pieces};
use crate::exception::Exception;
use crate::form::{self, Form};
use crate::session::{self, Key};

/// Parameters that are no settings.
const RESERVED: [&str; 19] = [
    "compress",
    "decompress",
    "user",
    "password",
    "quota_key",
    "query_id",
    "stacktrace",
    "role",
    "buffer_size",
    "wait_end_of_query",
    "session_id",
    "session_timeout",
    "session_check",
    "client_protocol_version",
    "close_session",
    "database",
    "default_format",
    "query",
    "",
];

/// A request as it came.
pub struct Incoming {
    /// Its method.
    pub method: Method,
    /// Its headers.
    pub headers: HeaderMap,
    /// The URL's parameters.
    pub url: Form,
    /// The body.
    pub body: Pieces,
}

/// What a request asks for.
pub struct Request {
    /// Who asks.
    pub user: User,
    /// The id that the client gave.
    pub query_id: Option<String>,
    /// The database that names without one are in.
    pub database: Option<String>,
    /// The format where the query names none.
    pub default_format: Option<String>,
    /// Settings, in their order.
    pub settings: Vec<(String, String)>,
    /// Parameters of the query, with `param_`.
    pub parameters: Vec<(String, String)>,
    /// The session, how long it lives on, and whether it must exist.
    pub session: Option<(Key, Duration, bool)>,
    /// Whether the session ends with this query.
    pub closes_session: bool,
    /// Whether only queries that read are allowed: 1 for readers, 2 for other methods than POST.
    pub readonly: u8,
    /// Whether the answer comes in ClickHouse's frames.
    pub frames: bool,
    /// Whether the whole answer is kept back until its end.
    pub waits: Option<bool>,
    /// How much of it is kept back.
    pub buffer: Option<usize>,
    /// What the client can unpack.
    pub accepts: Encoding,
    /// Tables sent with the query: name, structure, format and data.
    pub tables: Vec<Table>,
}

/// A table in a form.
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns and their types.
    pub structure: String,
    /// The data's format.
    pub format: String,
    /// The data.
    pub data: Vec<u8>,
}

/// The query's text and what follows it, in plain.
pub struct Source {
    /// What has been read.
    pub text: Vec<u8>,
    /// What hasn't.
    pub rest: Box<dyn io::BufRead + Send>,
}

/// How much is read before it is known whether data follow: the longest text that a server parses.
const PREFIX: usize = 256 << 10;

impl Source {
    fn new(query: Option<&str>, body: Box<dyn io::BufRead + Send>) -> io::Result<Self> {
        let mut text = query.unwrap_or_default().as_bytes().to_vec();
        if !text.is_empty() {
            text.push(b'\n');
        }
        let mut source = Self { text, rest: body };
        (&mut source.rest).take(PREFIX as u64).read_to_end(&mut source.text)?;
        Ok(source)
    }

    /// Reads everything into the text.
    ///
    /// # Errors
    /// The body can't be read.
    pub fn complete(&mut self) -> io::Result<()> {
        self.rest.read_to_end(&mut self.text).map(drop)
    }

    /// Writes everything from a position on.
    ///
    /// # Errors
    /// Reading or writing fails.
    pub fn copy_from(&mut self, position: usize, into: &mut impl io::Write) -> io::Result<()> {
        into.write_all(&self.text[position..])?;
        loop {
            let piece = self.rest.fill_buf()?;
            if piece.is_empty() {
                return Ok(());
            }
            into.write_all(piece)?;
            let length = piece.len();
            self.rest.consume(length);
        }
    }
}

impl Incoming {
    fn header(&self, name: &str) -> Option<String> {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
            .map(Into::into)
    }

    /// What it asks for, and the query.
    ///
    /// # Errors
    /// A parameter is none, or the body can't be read.
    pub fn parse(mut self, user: User) -> Result<(Request, Source), Exception> {
        let encoding = Encoding::of_content(&self.header("content-encoding").unwrap_or_default())?;
        let decompress = self.url.switch("decompress").unwrap_or(false);
        let body = std::mem::take(&mut self.body);
        let plain =
            compression::plain(body, encoding, decompress).map_err(|error| compression::exception(&error))?;
        let content_type = self.header("content-type").unwrap_or_default();
        let multipart = content_type.starts_with("multipart/form-data");
        let mut request = self.request(user, multipart)?;
        let source = if multipart {
            self.source_of_form(&mut request, &content_type, plain)
        } else {
            Source::new(self.url.first("query"), plain)
        };
        Ok((request, source.map_err(|error| compression::exception(&error))?))
    }

    fn request(&self, user: User, multipart: bool) -> Result<Request, Exception> {
        let url = &self.url;
        let (parameters, settings): (Vec<_>, Vec<_>) = url
            .0
            .iter()
            .filter(|(name, _)| !RESERVED.contains(&name.as_str()))
            .filter(|(name, _)| !(multipart && is_of_table(name)))
            .cloned()
            .partition(|(name, _)| name.starts_with("param_"));
        let readonly = match user.reads_only {
            true => 1,
            false => 2 * u8::from(self.method != Method::POST),
        };
        let session = match url.first("session_id") {
            Some("") => {
                let message = "Session id query parameter was provided, but it was empty";
                return Err(Exception::new(744, "SESSION_ID_EMPTY", message));
            }
            Some(id) => Some((
                (user.name.clone(), id.to_owned()),
                self.session_timeout()?,
                url.switch("session_check") == Some(true),
            )),
            None => None,
        };
        Ok(Request {
            query_id: url
                .first("query_id")
                .map(Into::into)
                .or_else(|| self.header("x-clickhouse-query-id"))
                .map(sane)
                .filter(|id| !id.is_empty()),
            database: self
                .header("x-clickhouse-database")
                .or_else(|| url.first("database").map(Into::into))
                .filter(|name| !name.is_empty()),
            default_format: self
                .header("x-clickhouse-format")
                .or_else(|| url.first("default_format").map(Into::into))
                .filter(|name| !name.is_empty()),
            settings,
            parameters,
            session,
            closes_session: url.switch("close_session") == Some(true),
            readonly,
            frames: url.switch("compress").unwrap_or(false),
            waits: url.switch("wait_end_of_query"),
            buffer: url.last("buffer_size").map(|size| number("buffer_size", size)).transpose()?,
            accepts: Encoding::accepted(&self.header("accept-encoding").unwrap_or_default()),
            tables: Vec::new(),
            user,
        })
    }

    fn session_timeout(&self) -> Result<Duration, Exception> {
        let Some(text) = self.url.first("session_timeout") else { return Ok(session::TIMEOUT) };
        let refused = |message: String| Exception::new(374, "INVALID_SESSION_TIMEOUT", message);
        let seconds = text.parse().map_err(|_| refused(format!("Invalid session timeout: '{text}'")))?;
        let timeout = Duration::from_secs(seconds);
        match timeout > session::LONGEST {
            true => Err(refused(format!(
                "Session timeout '{text}' is larger than max_session_timeout: {}. Maximum session timeout could be \
                 modified in configuration file",
                session::LONGEST.as_secs()
            ))),
            false => Ok(timeout),
        }
    }

    /// A form has the query, its parameters and tables; all of it is in memory.
    fn source_of_form(
        &self,
        request: &mut Request,
        content_type: &str,
        mut plain: Box<dyn io::BufRead + Send>,
    ) -> io::Result<Source> {
        let mut body = Vec::new();
        plain.read_to_end(&mut body)?;
        let mut query = self.url.first("query").unwrap_or_default().to_owned();
        let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        for part in form::multipart(content_type, &body).unwrap_or_default() {
            if part.file {
                let about = |what: &str| self.url.first(&format!("{}_{what}", part.name));
                let types = || {
                    let types = about("types")?.split(',').enumerate();
                    Some(types.map(|(at, kind)| format!("_{} {kind}", at + 1)).collect::<Vec<_>>().join(", "))
                };
                request.tables.push(Table {
                    structure: about("structure").map(Into::into).or_else(types).unwrap_or_default(),
                    format: about("format").unwrap_or("TabSeparated").to_owned(),
                    data: part.content.to_vec(),
                    name: part.name,
                });
            } else if part.name == "query" {
                query += &text(part.content);
            } else if part.name.starts_with("param_") {
                request.parameters.push((part.name, text(part.content)));
            }
        }
        Ok(Source { text: query.into_bytes(), rest: Box::new(io::empty()) })
    }
}

/// `t_structure` and the like describe a table of the form, unless they are a setting's name.
fn is_of_table(name: &str) -> bool {
    let formats = ["date_time_input_format", "date_time_output_format"];
    ["_format", "_types", "_structure"].iter().any(|suffix| name.ends_with(suffix))
        && !formats.contains(&name)
        && !name.starts_with("input_format_")
        && !name.starts_with("output_format_")
        && !name.starts_with("http_")
}

/// Control signs would end a header.
fn sane(query_id: String) -> String {
    query_id.chars().filter(|char| !char.is_ascii_control()).collect()
}

fn number(name: &str, text: &str) -> Result<usize, Exception> {
    text.parse().map_err(|_| {
        let message = format!("Cannot parse the value '{text}' of parameter {name} as a number");
        Exception::new(27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED", message)
    })
}
