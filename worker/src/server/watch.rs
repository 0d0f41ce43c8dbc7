//! What a connection is doing, and until when it may.
//!
//! | doing | may last |
//! | --- | --- |
//! | nothing yet, or sending a request's headers | `header_timeout` |
//! | nothing between two requests | `idle_timeout` |
//! | being answered | as long as the handler takes: bodies and queries have deadlines of their own |
//! | not taking its answer | `idle_timeout` without a byte sent |
//! | not taking one of its answers over HTTP/2, but others | `idle_timeout` without a part of it taken |

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use luminate_crds::worker_config::Server as Settings;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long each state may last.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    headers: Duration,
    idle: Duration,
}

impl Timed {
    /// As configured.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self { headers: settings.header_timeout.duration(), idle: settings.idle_timeout.duration() }
    }
}

/// When a connection must be looked at, and what that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Nothing is due; no other deadline can come earlier than this.
    LookAgain(Instant),
    /// It has idled long enough: let go in peace.
    Idle(Instant),
    /// It is slow or stuck: cut off, for this reason.
    Dead(Instant, &'static str),
}

impl Deadline {
    /// The moment.
    #[must_use]
    pub fn at(self) -> Instant {
        match self {
            Self::LookAgain(at) | Self::Idle(at) | Self::Dead(at, _) => at,
        }
    }
}

#[derive(Debug)]
struct State {
    timed: Timed,
    /// Requests begun and not yet sent.
    running: usize,
    requests: u64,
    http2: bool,
    /// Since when nothing runs.
    idle_since: Instant,
    /// When the first byte of the next request came.
    headers_since: Option<Instant>,
    /// Since when bytes wait for the client to take some.
    stuck_since: Option<Instant>,
    /// Answers by number, and since when a part of each waits to be taken.
    untaken: Vec<(u64, Instant)>,
}

impl State {
    /// Since when something has waited for the client.
    fn waiting_since(&self) -> Option<Instant> {
        self.untaken.iter().map(|(_, since)| *since).chain(self.stuck_since).min()
    }
}

/// Watches one connection.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Mutex<State>>);

impl Watch {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(timed: Timed) -> Self {
        Self(Arc::new(Mutex::new(State {
            timed,
            running: 0,
            requests: 0,
            http2: false,
            idle_since: Instant::now(),
            headers_since: None,
            stuck_since: None,
            untaken: Vec::new(),
        })))
    }

    /// The stream, watched.
    pub fn wrap<S>(&self, stream: S) -> WatchedStream<S> {
        WatchedStream { stream, watch: self.clone() }
    }

    /// A request's headers are complete; it runs until the result is dropped.
    #[must_use]
    pub fn request_begins(&self, version: Version) -> Running {
        let mut state = self.0.lock();
        state.running += 1;
        state.requests += 1;
        state.http2 = version == Version::HTTP_2;
        state.headers_since = None;
        Running { watch: self.clone(), number: state.requests }
    }

    /// Whether a request runs.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.lock().running > 0
    }

    /// Whether HTTP/2 is spoken.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.0.lock().http2
    }

    /// From now on it may idle no longer than this.
    pub fn idle_at_most(&self, idle: Duration) {
        let mut state = self.0.lock();
        state.timed.idle = state.timed.idle.min(idle);
        state.timed.headers = state.timed.headers.min(idle.max(state.timed.headers / 2));
        state.idle_since = Instant::now();
    }

    /// What is due next.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        let state = self.0.lock();
        let Timed { headers, idle } = state.timed;
        if let Some(since) = state.waiting_since() {
            return Deadline::Dead(since + idle, "the client takes nothing of its answer");
        }
        if state.running > 0 {
            return Deadline::LookAgain(Instant::now() + headers.min(idle));
        }
        if state.requests == 0 {
            return Deadline::Dead(state.idle_since + headers.min(idle), "no request came in time");
        }
        // HTTP/2 sends frames that belong to no request; there, only idling counts.
        match state.headers_since.filter(|_| !state.http2) {
            Some(since) => Deadline::Dead(since + headers, "the headers did not come in time"),
            None => Deadline::Idle(state.idle_since + idle),
        }
    }

    /// Whether `deadline` still holds and has passed.
    #[must_use]
    pub fn is_past(&self, deadline: Deadline) -> bool {
        self.deadline() == deadline && deadline.at() <= Instant::now()
    }

    fn request_ends(&self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if state.running == 0 {
            state.idle_since = Instant::now();
        }
    }

    fn bytes_came(&self) {
        let mut state = self.0.lock();
        if state.running == 0 {
            state.headers_since.get_or_insert_with(Instant::now);
        }
    }

    /// A part of answer `number` waits to be taken from now on, or none does.
    fn waits(&self, number: u64, waits: bool) {
        let mut state = self.0.lock();
        state.untaken.retain(|(own, _)| *own != number);
        if waits {
            state.untaken.push((number, Instant::now()));
        }
    }

    fn wrote(&self, pending: bool) {
        let mut state = self.0.lock();
        if pending {
            state.stuck_since.get_or_insert_with(Instant::now);
        } else {
            state.stuck_since = None;
        }
    }
}

/// A request that runs.
#[derive(Debug)]
pub struct Running {
    watch: Watch,
    /// Which of the connection's requests it is.
    number: u64,
}

impl Running {
    /// The answer's body; the request ends when the body does.
    pub fn until_sent(self, body: Body) -> SentBody {
        self.watch.waits(self.number, !body.is_end_stream());
        SentBody { body, running: self }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watch.request_ends();
    }
}

/// A body whose request runs as long as it exists.
#[derive(Debug)]
pub struct SentBody {
    body: Body,
    running: Running,
}

impl Drop for SentBody {
    fn drop(&mut self) {
        self.running.watch.waits(self.running.number, false);
    }
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // What was handed over before has been taken; while there is nothing, it is the store that is waited for.
        let waits = matches!(polled, Poll::Ready(Some(Ok(_))));
        self.running.watch.waits(self.running.number, waits);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells its watch of every byte.
#[derive(Debug)]
pub struct WatchedStream<S> {
    stream: S,
    watch: Watch,
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watch.bytes_came();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    fn watch() -> Watch {
        Watch::new(Timed { headers: HEADERS, idle: IDLE })
    }

    fn since_idle(watch: &Watch) -> Instant {
        watch.0.lock().idle_since
    }

    #[test]
    fn a_new_connection_must_send_a_request_in_time() {
        let watch = watch();
        watch.bytes_came();
        assert!(matches!(watch.deadline(), Deadline::Dead(at, _) if at == since_idle(&watch) + HEADERS));
    }

    #[test]
    fn a_running_request_has_no_deadline_here() {
        let watch = watch();
        let running = watch.request_begins(Version::HTTP_11);
        assert!(watch.is_busy() && matches!(watch.deadline(), Deadline::LookAgain(_)));
        drop(running);
        assert_eq!(watch.deadline(), Deadline::Idle(since_idle(&watch) + IDLE));
    }

    #[test]
    fn slow_headers_of_a_later_request_count_from_their_first_byte() {
        let watch = watch();
        drop(watch.request_begins(Version::HTTP_11));
        watch.bytes_came();
        let first = watch.deadline();
        assert!(matches!(first, Deadline::Dead(..)));
        watch.bytes_came();
        assert_eq!(watch.deadline(), first);
    }

    #[test]
    fn http2_frames_between_requests_are_no_headers() {
        let watch = watch();
        drop(watch.request_begins(Version::HTTP_2));
        watch.bytes_came();
        assert!(matches!(watch.deadline(), Deadline::Idle(_)));
    }

    #[test]
    fn an_answer_that_is_not_taken_is_stuck_until_a_byte_goes() {
        let watch = watch();
        let _running = watch.request_begins(Version::HTTP_11);
        watch.wrote(true);
        assert!(matches!(watch.deadline(), Deadline::Dead(..)));
        watch.wrote(false);
        assert!(matches!(watch.deadline(), Deadline::LookAgain(_)));
    }

    #[tokio::test]
    async fn an_answer_of_which_no_part_is_taken_is_stuck_though_others_go() {
        use http_body_util::BodyExt;

        let watch = watch();
        let parts = futures_util::stream::iter([Ok::<_, io::Error>("a"), Ok("b")]);
        let untaken = watch.request_begins(Version::HTTP_2).until_sent(Body::from_stream(parts));
        let taken = watch.request_begins(Version::HTTP_2).until_sent(Body::from("c"));
        assert!(matches!(watch.deadline(), Deadline::Dead(..)));
        taken.collect().await.unwrap();
        assert!(matches!(watch.deadline(), Deadline::Dead(..)));
        untaken.collect().await.unwrap();
        assert!(matches!(watch.deadline(), Deadline::Idle(_)));
    }
}
