//! One socket with an optional TLS layer, shared by the connection's own thread and the test's.
//!
//! TLS runs over memory ([`Pipe`]), never over the socket: so the connection's thread can block in a plain read while the
//! test's thread encrypts and sends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use native_tls::{HandshakeError, TlsAcceptor, TlsStream};
use parking_lot::Mutex;
use socket2::SockRef;

use super::script::Cut;
use super::transcript::{Event, Transcript};

/// How long a write sits in the kernel before the writer looks whether it is still wanted.
const WRITE_SLICE: Duration = Duration::from_millis(20);

/// Why a connection's thread stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client left, or the test or the server's drop asked for the end.
    Gone,
    Fin,
    Reset,
    Cut(Cut),
}

/// What [`Link::look`] sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Open, and nothing to read.
    Quiet,
    /// Something to read or being written: what comes behind it cannot be seen yet.
    #[cfg_attr(not(unix), expect(dead_code, reason = "needs a look without waiting"))]
    Busy,
    /// Closed by us, or by the client with nothing left to read.
    Closed,
}

/// What the test asked an idle connection to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wish {
    None,
    Fin,
    Reset,
}

/// The part of a connection that outlives its thread: the transcript, and the socket while it is open.
pub(super) struct Link {
    pub(super) number: usize,
    out: Mutex<Out>,
    transcript: Mutex<Transcript>,
    record: bool,
    wish: AtomicU8,
    /// The socket is closed and the thread about to end.
    pub(super) closed: AtomicBool,
    /// The server is being dropped.
    abandoned: AtomicBool,
    /// Turned away at the limit: not one of the live connections.
    pub(super) refused: bool,
    /// A look has met the client's RST: the kernel tells of it once, and the reader that comes later reads an end.
    reset: AtomicBool,
}

struct Out {
    socket: Option<Arc<TcpStream>>,
    tls: Option<TlsStream<Pipe>>,
    sent: u64,
    cut: Option<(u64, Cut)>,
    half_closed: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    incoming: Vec<u8>,
    read: usize,
    outgoing: Vec<u8>,
}

impl Pipe {
    fn feed(&mut self, bytes: &[u8]) {
        if self.read == self.incoming.len() {
            self.incoming.clear();
            self.read = 0;
        }
        self.incoming.extend_from_slice(bytes);
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = &self.incoming[self.read..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = rest.read(buffer)?;
        self.read += read;
        Ok(read)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[expect(
    clippy::significant_drop_tightening,
    reason = "the lock is the order of bytes on the wire, held to the last one"
)]
impl Link {
    pub(super) fn new(
        number: usize,
        socket: Arc<TcpStream>,
        cut: Option<(u64, Cut)>,
        record: bool,
        refused: bool,
    ) -> Self {
        // Best effort: without them only speed and the promptness of a blocked writer suffer.
        let _ = socket.set_nodelay(true);
        let _ = socket.set_write_timeout(Some(WRITE_SLICE));
        Self {
            number,
            out: Mutex::new(Out { socket: Some(socket), tls: None, sent: 0, cut, half_closed: false }),
            transcript: Mutex::default(),
            record,
            wish: AtomicU8::new(Wish::None as u8),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            refused,
            reset: AtomicBool::new(false),
        }
    }

    pub(super) fn wish(&self) -> Wish {
        match self.wish.load(Ordering::SeqCst) {
            0 => Wish::None,
            1 => Wish::Fin,
            _ => Wish::Reset,
        }
    }

    pub(super) fn transcript(&self) -> Transcript {
        self.transcript.lock().clone()
    }

    pub(super) fn record(&self, event: Event) {
        if self.record {
            self.transcript.lock().push(event);
        }
    }

    pub(super) fn record_command(&self, line: &[u8]) {
        if self.record {
            self.transcript.lock().push_command(line);
        }
    }

    /// Sends SMTP bytes, inside TLS where there is one, up to the cut if there is one.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), End> {
        let mut out = self.out.lock();
        if out.half_closed {
            return Ok(());
        }
        let left =
            out.cut.map(|(after, cut)| (usize::try_from(after.saturating_sub(out.sent)).unwrap_or(usize::MAX), cut));
        let (bytes, cut) = match left {
            Some((left, cut)) if left <= bytes.len() => (&bytes[..left], Some(cut)),
            _ => (bytes, None),
        };
        if !bytes.is_empty() {
            out.sent += bytes.len() as u64;
            self.record(Event::Server { bytes: self.kept(bytes), encrypted: out.tls.is_some() });
            match &mut out.tls {
                Some(tls) => tls.write_all(bytes).map_err(|_| End::Gone)?,
                None => self.write_raw(&out, bytes)?,
            }
            self.flush_tls(&mut out)?;
        }
        cut.map_or(Ok(()), |cut| Err(End::Cut(cut)))
    }

    /// Sends bytes under the TLS layer.
    pub(super) fn send_plaintext(&self, bytes: &[u8]) -> Result<(), End> {
        let out = self.out.lock();
        self.record(Event::Server { bytes: self.kept(bytes), encrypted: false });
        self.write_raw(&out, bytes)
    }

    pub(super) fn close_notify(&self) -> Result<(), End> {
        let mut out = self.out.lock();
        if let Some(tls) = &mut out.tls {
            // The alert is in the pipe either way; an error only says that the client's has not come.
            let _ = tls.shutdown();
        }
        self.flush_tls(&mut out)
    }

    pub(super) fn half_close(&self) {
        let mut out = self.out.lock();
        out.half_closed = true;
        if let Some(socket) = &out.socket {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// From the test's thread: makes the connection's own thread close. FIN leaves at once.
    pub(super) fn ask(&self, wish: Wish) {
        self.wish.store(wish as u8, Ordering::SeqCst);
        if wish == Wish::Fin {
            let _ = self.close_notify();
            self.half_close();
        }
        let out = self.out.lock();
        if let Some(socket) = &out.socket {
            // Wakes the thread that reads; nothing of it is seen on the wire.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// From the server's drop: no more politeness.
    pub(super) fn abandon(&self) {
        // Before the lock, which a writer blocked by a client that does not read holds until it sees this.
        self.abandoned.store(true, Ordering::SeqCst);
        let out = self.out.lock();
        if let Some(socket) = &out.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// What can be known of the client without reading: a look at the socket that neither waits nor takes anything.
    #[cfg(unix)]
    pub(super) fn look(&self) -> Look {
        let Some(out) = self.out.try_lock() else { return Look::Busy };
        let Some(socket) = &out.socket else { return Look::Closed };
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match SockRef::from(&**socket).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Ok(0) => Look::Closed,
            Ok(_) => Look::Busy,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Look::Quiet,
            Err(error) => {
                if end_of(&error) == Event::ClientReset {
                    self.reset.store(true, Ordering::SeqCst);
                }
                Look::Closed
            }
        }
    }

    #[cfg(not(unix))]
    pub(super) fn look(&self) -> Look {
        if self.closed.load(Ordering::SeqCst) { Look::Closed } else { Look::Quiet }
    }

    /// The last act of the connection's thread, which gives its own handle of the socket too.
    pub(super) fn close(&self, socket: Arc<TcpStream>, end: End) {
        let fin = matches!(end, End::Fin | End::Cut(Cut::Fin)) || self.wish() == Wish::Fin;
        let reset = matches!(end, End::Reset | End::Cut(Cut::Reset)) || self.wish() == Wish::Reset;
        if end == End::Fin && self.wish() == Wish::None {
            let _ = self.close_notify();
        }
        let mut out = self.out.lock();
        if reset {
            let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        } else if fin {
            let _ = socket.shutdown(Shutdown::Write);
            // Input nobody read would turn the close into RST.
            let _ = socket.set_nonblocking(true);
            let mut rest = [0; 4096];
            while matches!((&*socket).read(&mut rest), Ok(read) if read > 0) {}
        }
        self.record(Event::ServerClosed);
        out.tls = None;
        out.socket = None;
        drop(socket);
    }

    /// Reads once, blocking, and appends what it means to `plain`. No bytes: the client has ended its side.
    pub(super) fn receive(&self, socket: &TcpStream, plain: &mut Vec<u8>, buffer: &mut [u8]) -> Result<usize, End> {
        let before = plain.len();
        loop {
            let (read, end) = match (&*socket).read(buffer) {
                Ok(read) => (read, Event::ClientClosed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (0, end_of(&error)),
            };
            if self.wish() != Wish::None {
                return Err(End::Gone);
            }
            let mut out = self.out.lock();
            let encrypted = out.tls.is_some();
            let mut closed = read == 0;
            let mut take = |bytes: &[u8]| {
                plain.extend_from_slice(bytes);
                self.record(Event::Client { bytes: self.kept(bytes), encrypted });
            };
            match &mut out.tls {
                None if read > 0 => take(&buffer[..read]),
                None => {}
                Some(tls) => {
                    tls.get_mut().feed(&buffer[..read]);
                    let mut chunk = [0; 16_384];
                    loop {
                        match tls.read(&mut chunk) {
                            Ok(0) => closed = true,
                            Ok(read) => {
                                // A record each, whatever has arrived together: what the client wrote by itself is told by itself.
                                take(&chunk[..read]);
                                continue;
                            }
                            Err(error) => closed |= error.kind() != io::ErrorKind::WouldBlock,
                        }
                        break;
                    }
                    self.flush_tls(&mut out)?;
                }
            }
            drop(out);
            let got = plain.len() - before;
            if got > 0 {
                return Ok(got);
            }
            if closed {
                let reset = read == 0 && self.reset.load(Ordering::SeqCst);
                self.record(if reset { Event::ClientReset } else { end });
                return Ok(0);
            }
        }
    }

    /// The TLS handshake, server side, from the connection's thread.
    pub(super) fn handshake(&self, acceptor: &TlsAcceptor, socket: &TcpStream, buffer: &mut [u8]) -> Result<(), End> {
        self.record(Event::HandshakeStarted);
        let mut result = acceptor.accept(Pipe::default());
        loop {
            let mut middle = match result {
                Ok(tls) => {
                    let mut out = self.out.lock();
                    out.tls = Some(tls);
                    self.flush_tls(&mut out)?;
                    drop(out);
                    self.record(Event::HandshakeFinished);
                    return Ok(());
                }
                Err(HandshakeError::WouldBlock(middle)) => middle,
                Err(HandshakeError::Failure(_)) => return Err(End::Fin),
            };
            let answer = std::mem::take(&mut middle.get_mut().outgoing);
            self.write_raw(&self.out.lock(), &answer)?;
            let (read, end) = match (&*socket).read(buffer) {
                Ok(read) => (read, Event::ClientClosed),
                Err(error) => (0, end_of(&error)),
            };
            if read == 0 || self.wish() != Wish::None {
                self.record(end);
                return Err(End::Gone);
            }
            middle.get_mut().feed(&buffer[..read]);
            result = middle.handshake();
        }
    }

    fn kept(&self, bytes: &[u8]) -> Vec<u8> {
        if self.record { bytes.to_vec() } else { Vec::new() }
    }

    fn flush_tls(&self, out: &mut Out) -> Result<(), End> {
        let Some(tls) = &mut out.tls else { return Ok(()) };
        let bytes = std::mem::take(&mut tls.get_mut().outgoing);
        self.write_raw(out, &bytes)
    }

    fn write_raw(&self, out: &Out, mut bytes: &[u8]) -> Result<(), End> {
        let Some(socket) = &out.socket else { return Err(End::Gone) };
        while !bytes.is_empty() {
            match (&**socket).write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    // The client does not read: go on only while nobody wants the connection to end.
                    if self.wish() != Wish::None || self.abandoned.load(Ordering::SeqCst) {
                        return Err(End::Gone);
                    }
                }
                Err(_) => return Err(End::Gone),
            }
        }
        Ok(())
    }
}

/// How the client ended, by the error of a read.
fn end_of(error: &io::Error) -> Event {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Event::ClientReset,
        _ => Event::ClientClosed,
    }
}
