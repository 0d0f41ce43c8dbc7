//! A body on its way from the connection to the thread that decodes it: a few frames wait, then the client does.

use std::io::{self, BufReader, Read};
use std::time::Duration;

use axum::body::{Body, Bytes};
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::{Error, Fault};
use crate::ingest::body::Encoding;

/// Frames that wait.
const WAITING: usize = 4;
/// Bytes that a decoder takes at once.
const CHUNK: usize = 64 << 10;
/// How long the rest of a refused body is read and thrown away: a client that is still sending would otherwise find its
/// connection reset, and perhaps not the answer.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The largest window of zstd that is decoded, as a power of 2: what every decoder should support (RFC 8878).
const ZSTD_WINDOW_LOG: u32 = 23;

type Frame = Result<Bytes, Error>;

/// Begins to receive `body`; a pause of more than `patience` ends it.
pub fn open(body: Body, patience: Duration) -> Feed {
    let (sender, frames) = mpsc::channel(WAITING);
    tokio::spawn(receive(body, sender, patience));
    Feed { frames, current: Bytes::new() }
}

async fn receive(mut body: Body, frames: mpsc::Sender<Frame>, patience: Duration) {
    loop {
        let frame = match timeout(patience, body.frame()).await {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => frame.into_data().map_err(|_trailers| None),
            Ok(Some(Err(_))) => Err(Some(Error::InvalidBody(Fault::whole("the body ends before its end")))),
            Err(_) => Err(Some(Error::RequestTimeout)),
        };
        let (frame, ended) = match frame {
            Ok(data) => (Ok(data), false),
            Err(None) => continue,
            Err(Some(error)) => (Err(error), true),
        };
        if frames.send(frame).await.is_err() {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            // Whoever sends longer than that has been told to stop.
            let _cut = timeout(LAST_WORDS, rest).await;
            return;
        }
        if ended {
            return;
        }
    }
}

/// The bytes of a body as they were sent; reading blocks.
#[derive(Debug)]
pub struct Feed {
    frames: mpsc::Receiver<Frame>,
    current: Bytes,
}

/// Carries an error of the body through a decompressor.
#[derive(Debug, thiserror::Error)]
#[error("the body can't be received")]
struct Broken(Error);

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.frames.blocking_recv() {
                Some(Ok(frame)) => self.current = frame,
                Some(Err(error)) => return Err(io::Error::other(Broken(error))),
                None => return Ok(0),
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// The decompressed bytes of a body; no more is decompressed than is read.
pub struct Source {
    /// Made by the thread that reads, since making some decoders reads already.
    reader: Option<Box<dyn Read + Send>>,
    feed: Option<Feed>,
    encoding: Encoding,
}

impl Source {
    /// Undoes `encoding`.
    #[must_use]
    pub fn new(feed: Feed, encoding: Encoding) -> Self {
        Self { reader: None, feed: Some(feed), encoding }
    }

    fn reader(&mut self) -> io::Result<&mut Box<dyn Read + Send>> {
        if let Some(feed) = self.feed.take() {
            self.reader = Some(match self.encoding {
                Encoding::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, feed))),
                Encoding::Zstd => {
                    let mut decoder = zstd::stream::read::Decoder::new(feed)?;
                    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                    Box::new(decoder)
                }
                Encoding::Identity | Encoding::Snappy => Box::new(feed),
            });
        }
        self.reader.as_mut().ok_or_else(|| io::Error::other("the body's decoder could not be made"))
    }

    /// Appends to `text` until it has `wanted` bytes; whether the body ends before that.
    ///
    /// # Errors
    /// The body didn't come to its end, or isn't what its encoding says; what came before that is in `text`.
    pub fn fill(&mut self, text: &mut Vec<u8>, wanted: usize) -> Result<bool, Error> {
        while text.len() < wanted {
            let filled = text.len();
            text.resize(wanted.min(filled + CHUNK), 0);
            let read = self.reader().and_then(|reader| reader.read(&mut text[filled..]));
            text.truncate(filled + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.malformed(error)),
            }
        }
        Ok(false)
    }

    fn malformed(&self, error: io::Error) -> Error {
        let encoding = match self.encoding {
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
            Encoding::Identity | Encoding::Snappy => "text",
        };
        match error.downcast::<Broken>() {
            Ok(Broken(error)) => error,
            Err(error) => {
                Error::InvalidBody(Fault::whole(format_args!("the body is not valid {encoding}: {error}")))
            }
        }
    }
}
