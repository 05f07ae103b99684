//! A stream with a reply reader on one side and a command buffer on the other.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use crate::clock::Deadline;
use crate::event::Desync;
use crate::reply::Reply;

use super::failure::WireError;
use super::reply_reader::{Complete, ReplyReader};
use super::stream::{DeadlineStream, Look};

/// One connection's two directions.
#[derive(Debug)]
pub(super) struct Wire {
    stream: DeadlineStream,
    replies: ReplyReader,
    /// Commands and content on their way out; kept, so that a message allocates no buffer.
    pub(super) out: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: DeadlineStream) -> Self {
        Self { stream, replies: ReplyReader::default(), out: Vec::new() }
    }

    pub(super) const fn stream(&self) -> &DeadlineStream {
        &self.stream
    }

    /// The bare stream, for a TLS handshake. Whatever was read or offered before it is forgotten with the wire.
    pub(super) fn into_stream(self) -> DeadlineStream {
        self.stream
    }

    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        self.stream.set_deadline(deadline);
    }

    /// As [`set_deadline`](Self::set_deadline), for one who knows what time it is.
    pub(super) fn set_deadline_at(&mut self, now: Instant, deadline: Deadline) {
        self.stream.set_deadline_at(now, deadline);
    }

    /// Writes what is in `out`, in one write, and empties it.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// As [`send`](Self::send), without waiting for room.
    pub(super) fn send_without_waiting(&mut self) -> io::Result<()> {
        let sent = self.stream.write_without_waiting(&self.out);
        self.out.clear();
        sent
    }

    /// Writes the first `count` bytes of `out`, and keeps the rest.
    pub(super) fn send_first(&mut self, count: usize) -> io::Result<()> {
        self.stream.write_all(&self.out[..count])?;
        self.out.drain(..count);
        Ok(())
    }

    /// Writes bytes that must not stay in a buffer.
    pub(super) fn send_secret(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits for the next reply.
    pub(super) fn read(&mut self) -> Result<Complete, WireError> {
        self.read_on(false)
    }

    /// Waits for another reply to what was sent together, as a server may that holds it back until those before are acknowledged.
    pub(super) fn read_another(&mut self) -> Result<Complete, WireError> {
        self.read_on(true)
    }

    fn read_on(&mut self, is_another: bool) -> Result<Complete, WireError> {
        loop {
            if let Some(complete) = self.replies.next()? {
                return Ok(complete);
            }
            if is_another {
                self.stream.acknowledge();
            }
            match self.stream.read(self.replies.space())? {
                0 => return Err(self.end_of_stream().into()),
                count => self.replies.filled(count),
            }
        }
    }

    /// The error for a stream that ended; tells what of a reply had arrived.
    fn end_of_stream(&self) -> io::Error {
        let partial = self.replies.leftover();
        if partial.is_empty() {
            return io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection");
        }
        let shown = Reply::from_wire(0, &[b"    ", partial].concat());
        let what = format!("the server closed the connection in the middle of a reply: {shown}");
        io::Error::new(ErrorKind::UnexpectedEof, what)
    }

    /// A reply that has arrived in full, without waiting for one. What cannot be read is none.
    ///
    /// After a failed write this is where the reason stands: a server that says 421 and closes resets the connection under our next
    /// write, and the kernel still hands out what it said.
    pub(super) fn read_arrived(&mut self) -> Result<Option<Complete>, Desync> {
        loop {
            if let Some(complete) = self.replies.next()? {
                return Ok(Some(complete));
            }
            match self.stream.read_without_waiting(self.replies.space()) {
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => self.replies.filled(count),
            }
        }
    }

    /// The reply as a value of its own.
    pub(super) fn to_reply(&self, complete: Complete) -> Reply {
        self.replies.to_reply(complete)
    }

    /// Whether bytes were read that belong to no reply due.
    pub(super) fn has_leftover(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Whether anything arrived or ended, without waiting.
    ///
    /// Pending bytes under TLS may be a session ticket or a key update, which say nothing about the session: the TLS library takes
    /// them in, and only what it hands on counts.
    pub(super) fn look(&mut self) -> Look {
        if self.has_leftover() {
            return Look::Readable;
        }
        match self.stream.look() {
            Look::Readable if self.stream.is_encrypted() => {
                match self.stream.read_without_waiting(self.replies.space()) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Look::Quiet,
                    Ok(count @ 1..) => {
                        self.replies.filled(count);
                        Look::Readable
                    }
                    Ok(0) | Err(_) => Look::Ended,
                }
            }
            look => look,
        }
    }

    /// Says `command` and half-closes, waiting for nothing.
    pub(super) fn farewell(self, command: &[u8]) {
        self.stream.farewell(command);
    }

    /// Cuts the connection.
    pub(super) fn abort(self) {
        self.stream.abort();
    }
}
