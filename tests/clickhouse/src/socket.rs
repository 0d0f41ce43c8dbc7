//! A client's connection: it ends where an answer breaks off, once everything before is sent, and it can be
//! asked whether the client is still there.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream as Peer};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What answers and queries need of a connection.
pub struct Link {
    broken: AtomicBool,
    peer: Peer,
}

impl Link {
    /// Ends the connection after what is being sent.
    pub fn break_off(&self) {
        self.broken.store(true, Relaxed);
    }

    /// Whether the client has closed its side, as the server's `checkPeerConnected` sees it.
    #[must_use]
    pub fn gone(&self) -> bool {
        match self.peer.peek(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// The connection as HTTP reads and writes it.
pub struct Socket {
    stream: TcpStream,
    link: Arc<Link>,
}

impl Socket {
    /// A client's.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn new(stream: TcpStream) -> io::Result<(Self, Arc<Link>)> {
        let peer = Peer::from(stream.as_fd().try_clone_to_owned()?);
        let link = Arc::new(Link { broken: AtomicBool::new(false), peer });
        Ok((Self { stream, link: Arc::clone(&link) }, link))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The link may live on.
        let _ = self.link.peer.shutdown(Shutdown::Both);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when every byte was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(match self.link.broken.load(Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the answer broke off")),
            false => Ok(()),
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
