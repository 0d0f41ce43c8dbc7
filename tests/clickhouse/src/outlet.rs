//! Where an answer goes: kept back until a buffer is full, so that an error before has its own status, then
//! sent as it comes, with an error in it as the server writes one.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::compression::{Encoding, Packer};
use crate::exception::Exception;
use crate::socket::Link;

/// What the server keeps back of an answer.
pub const BUFFER: usize = 1 << 20;
/// Pieces under way to the client.
const UNDER_WAY: usize = 2;

/// How long the server waits for a client to take more: its `http_send_timeout`.
const SLOW: Duration = Duration::from_secs(30);
/// How often it looks whether the query was killed meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// A body: what is there, and what still comes.
pub struct Answer {
    first: Option<Bytes>,
    rest: Option<mpsc::Receiver<io::Result<Bytes>>>,
    /// Whether it has broken off: then it never ends, since an end would make it complete.
    broken: bool,
    /// The connection, which ends where the body breaks off.
    link: Option<Arc<Link>>,
}

impl Answer {
    /// One of these bytes.
    #[must_use]
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        Self { first: Some(bytes.into()), rest: None, broken: false, link: None }
    }

    /// Names the connection that it goes through.
    pub fn through(&mut self, link: Arc<Link>) {
        self.link = Some(link);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.broken {
            return Poll::Pending;
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match (ready!(rest.poll_recv(context)), &self.link) {
            // An error here would end the connection before the last bytes are on their way.
            (Some(Err(_)), Some(link)) => {
                link.break_off();
                self.broken = true;
                Poll::Pending
            }
            (piece, _) => Poll::Ready(piece.map(|piece| piece.map(Frame::data))),
        }
    }
}

/// Gives a piece to the client; says whether it was taken.
async fn taken(rest: &mpsc::Sender<io::Result<Bytes>>, piece: io::Result<Bytes>, stop: &AtomicBool) -> bool {
    let mut looks = 0;
    loop {
        match timeout(LOOK, rest.reserve()).await {
            Ok(Ok(place)) => break place.send(piece),
            Ok(Err(_)) => return false,
            Err(_) if stop.load(Relaxed) || looks * LOOK > SLOW => return false,
            Err(_) => looks += 1,
        }
    }
    true
}

/// An answer that is being made.
pub struct Outlet {
    head: Option<oneshot::Sender<Response<Answer>>>,
    rest: Option<mpsc::Sender<io::Result<Bytes>>>,
    /// The headers of the answer, and the format's content type once it is known.
    pub headers: HeaderMap,
    version: String,
    tag: String,
    encoding: Encoding,
    frames: bool,
    packer: Option<Packer>,
    limit: usize,
    gone: bool,
    /// Set when the query is killed.
    pub stop: Arc<AtomicBool>,
    runtime: Handle,
}

impl Outlet {
    /// One for a client who waits for the head. Made on a thread of the runtime, used on any other.
    #[must_use]
    pub fn new(
        head: oneshot::Sender<Response<Answer>>,
        headers: HeaderMap,
        version: &str,
        tag: String,
    ) -> Self {
        Self {
            head: Some(head),
            rest: None,
            headers,
            version: version.to_owned(),
            tag,
            encoding: Encoding::Identity,
            frames: false,
            packer: None,
            limit: BUFFER,
            gone: false,
            stop: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// How to pack it, and how much to keep back: all of it with [`usize::MAX`].
    pub fn configure(&mut self, encoding: Encoding, frames: bool, limit: usize) {
        (self.encoding, self.frames, self.limit) = (encoding, frames, limit.max(BUFFER));
    }

    /// Sets a header of the answer.
    pub fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// Whether nobody waits for it any more.
    #[must_use]
    pub fn gone(&self) -> bool {
        self.gone
    }

    fn packer(&mut self) -> io::Result<&mut Packer> {
        if self.packer.is_none() {
            self.packer = Some(Packer::new(self.encoding, self.frames)?);
        }
        self.packer.as_mut().ok_or_else(|| io::Error::other("no packer"))
    }

    /// Passes on what comes until its end, or until the client has gone.
    ///
    /// # Errors
    /// Reading or packing fails, or nobody waits.
    pub fn pump(&mut self, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.write(&buffer[..length])?;
        }
    }

    /// Adds bytes to the answer.
    ///
    /// # Errors
    /// As [`Self::pump`].
    pub fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        let (limit, begun) = (self.limit, self.rest.is_some());
        let packer = self.packer()?;
        packer.write(plain)?;
        if packer.ready() >= if begun { BUFFER / 4 } else { limit } {
            let piece = packer.take();
            self.begin(StatusCode::OK, None);
            self.send(Ok(piece))?;
        }
        Ok(())
    }

    /// Sends the head, with a body that follows or this one.
    fn begin(&mut self, status: StatusCode, whole: Option<Bytes>) {
        let Some(head) = self.head.take() else { return };
        let rest = whole.is_none().then(|| {
            let (sender, receiver) = mpsc::channel(UNDER_WAY);
            self.rest = Some(sender);
            receiver
        });
        let mut response = Response::new(Answer { first: whole, rest, broken: false, link: None });
        *response.status_mut() = status;
        if let Some(name) = self.encoding.name().filter(|_| self.packer.is_some()) {
            self.header("content-encoding", name);
        }
        *response.headers_mut() = std::mem::take(&mut self.headers);
        self.gone |= head.send(response).is_err();
    }

    fn send(&mut self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = match &self.rest {
            Some(rest) if !self.gone => self.runtime.block_on(taken(rest, piece, &self.stop)),
            _ => false,
        };
        self.gone |= !sent;
        if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    /// Ends an answer that is complete.
    pub fn finish(mut self) {
        let last = match self.packer.take() {
            // No data have no frame and no gzip header either.
            Some(packer) => packer.finish().unwrap_or_default(),
            None => Bytes::new(),
        };
        match self.head.is_some() {
            true => {
                if !last.is_empty()
                    && let Some(name) = self.encoding.name()
                {
                    self.header("content-encoding", name);
                }
                self.begin(StatusCode::OK, Some(last));
            }
            false => drop((!last.is_empty()).then(|| self.send(Ok(last)))),
        }
    }

    /// Ends it with an exception: as its own answer where nothing was sent, else in the answer, which then
    /// breaks off.
    pub fn fail(mut self, exception: &Exception) {
        let message = exception.message(&self.version);
        if self.head.is_none() {
            let _ = self.fail_midway(&message);
            return;
        }
        self.header("x-clickhouse-exception-code", &exception.code.to_string());
        if exception.code == 194 {
            self.header("www-authenticate", "Basic realm=\"ClickHouse server HTTP API\"");
        }
        self.packer = None;
        let packed = self.packer().and_then(|packer| packer.write(message.as_bytes()));
        let body = match (packed, self.packer.take()) {
            (Ok(()), Some(packer)) => packer.finish().unwrap_or_default(),
            _ => message.into_bytes().into(),
        };
        if let Some(name) = self.encoding.name() {
            self.header("content-encoding", name);
        }
        self.begin(exception.status(), Some(body));
    }

    /// `\r\n__exception__\r\n<tag>\r\n<message><length> <tag>\r\n__exception__\r\n`, then no end of the body.
    fn fail_midway(&mut self, message: &str) -> io::Result<()> {
        let tag = &self.tag;
        let block =
            format!("\r\n__exception__\r\n{tag}\r\n{message}{} {tag}\r\n__exception__\r\n", message.len());
        let packer = self.packer()?;
        packer.flush()?;
        let rest = packer.take();
        if !rest.is_empty() {
            self.send(Ok(rest))?;
        }
        let packer = self.packer()?;
        packer.write(block.as_bytes())?;
        packer.flush()?;
        let last = packer.take();
        self.send(Ok(last))?;
        self.send(Err(io::Error::other("the query failed")))
    }
}
