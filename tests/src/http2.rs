//! Frames of HTTP/2 as bytes, for clients that no well-behaved library would be.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame that is read.
const MOST: usize = 1 << 20;

/// Kinds of frames (RFC 9113, section 6).
pub mod kind {
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// A head.
    pub const HEADERS: u8 = 1;
    /// A stream's end before its time.
    pub const RST_STREAM: u8 = 3;
    /// Settings.
    pub const SETTINGS: u8 = 4;
    /// Are you there?
    pub const PING: u8 = 6;
    /// The connection's end.
    pub const GOAWAY: u8 = 7;
    /// More of a head.
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    /// Nothing more comes on this stream.
    pub const END_STREAM: u8 = 1;
    /// The answer to a ping or to settings.
    pub const ACK: u8 = 1;
    /// The head is complete.
    pub const END_HEADERS: u8 = 4;
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame.
    #[must_use]
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a frame is small");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Fields of a head in HPACK, none of them compressed or remembered (RFC 7541, section 6.2.2).
///
/// # Panics
/// For names of more than 126 bytes.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        block.push(u8::try_from(name.len()).ok().filter(|length| *length < 127).expect("a short name"));
        block.extend(name.as_bytes());
        length(&mut block, value.len());
        block.extend(value.as_bytes());
    }
    block
}

/// A length in seven bits and as many more as it takes.
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).expect("below 127"));
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// The head of a GET.
#[must_use]
pub fn get(path: &str) -> Vec<u8> {
    fields(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "luminate")])
}

/// The head of a POST of JSON.
#[must_use]
pub fn post(path: &str) -> Vec<u8> {
    fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "luminate"),
        ("content-type", "application/json"),
    ])
}

/// The status in a head, where the server has sent it from HPACK's static table or as digits.
#[must_use]
pub fn status(block: &[u8]) -> Option<u16> {
    let indexed = [(0x88, 200), (0x89, 204), (0x8a, 206), (0x8b, 304), (0x8c, 400), (0x8d, 404), (0x8e, 500)];
    let first = *block.first()?;
    indexed.iter().find(|(byte, _)| *byte == first).map(|(_, status)| *status)
}

/// A connection that speaks HTTP/2 from its first byte.
#[derive(Debug)]
pub struct Http2(TcpStream);

impl Http2 {
    /// Connects and sends preface and settings.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(PREFACE)?;
        stream.write_all(&Frame::new(kind::SETTINGS, 0, 0, []).bytes())?;
        Ok(Self(stream))
    }

    /// Sends frames.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.0.write_all(&bytes)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` when the server has hung up; `InvalidData`.
    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until a frame of `kind` comes.
    ///
    /// # Errors
    /// As [`Http2::receive`].
    pub fn await_kind(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let frame = self.receive()?;
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }
}
