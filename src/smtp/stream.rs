//! A TCP stream that gives up at a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use native_tls::TlsStream;

use crate::clock::{self, Deadline};
use crate::trace::TlsVersion;

use super::server_hello::ServerHello;
use super::socket::{self, Socket};

/// The longest time the kernel is asked to wait at once. A longer wait is several of these, so that deadlines of 30 s and of 300 s
/// share one kernel timer and the steady state sets none (two system calls a message otherwise).
const LONGEST_WAIT: Duration = Duration::from_millis(1 << 14);

/// How much is read when the deadline is over, of what has arrived already: what the longest reply has. A process that was suspended
/// past its deadline, or got no processor, finds the answer that came in time; a server that never ends holds nobody.
const LATE_READS: usize = 64 * 1024;

/// What a look at a connection shows without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing to read and no end in sight.
    Quiet,
    /// Bytes have arrived.
    Readable,
    /// The peer closed it, or it broke.
    Ended,
}

/// A TCP stream whose reads and writes end by one absolute deadline, however the peer drips.
///
/// Sits *under* TLS, so that a time-out reaches the TLS library as a failed read or write and never as "try again": a TLS write that
/// is repeated after a failure would still deliver the record that we gave up on.
#[derive(Debug)]
pub(super) struct DeadlineTcp {
    /// Shared with whoever may cut the connection from another thread.
    socket: Arc<Socket>,
    deadline: Deadline,
    /// What is left of [`LATE_READS`] of this deadline.
    late: usize,
    /// What time it is, for one who just asked; good for one wait.
    now: Option<Instant>,
    /// Whether reads and writes wait at all.
    waits: bool,
    read_wait: KernelWait,
    write_wait: KernelWait,
    hello: ServerHello,
}

/// The kernel's timer of one direction. It only has to end before the deadline does; the call is repeated until then.
#[derive(Debug, Default)]
struct KernelWait(Option<Duration>);

impl KernelWait {
    /// Sets the kernel's timer unless the one in force will do.
    fn arm(&mut self, left: Duration, set: impl FnOnce(Option<Duration>) -> io::Result<()>) -> io::Result<()> {
        if left.is_zero() {
            return Err(timed_out());
        }
        match self.0 {
            Some(wait) if wait <= left && (wait == LONGEST_WAIT || left < wait * 4) => Ok(()),
            _ => {
                let wait = rung_below(left);
                set(Some(wait))?;
                self.0 = Some(wait);
                Ok(())
            }
        }
    }
}

/// The largest power of two of milliseconds in `left`, so that one setting serves for long; under 16 ms, what is left.
fn rung_below(left: Duration) -> Duration {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    match millis {
        0..16 => left.max(Duration::from_millis(1)),
        _ => Duration::from_millis(1 << millis.ilog2()).min(LONGEST_WAIT),
    }
}

fn timed_out() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the deadline passed")
}

impl DeadlineTcp {
    pub(super) fn new(socket: Arc<Socket>, deadline: Deadline) -> Self {
        Self {
            socket,
            deadline,
            late: LATE_READS,
            now: None,
            waits: true,
            read_wait: KernelWait::default(),
            write_wait: KernelWait::default(),
            hello: ServerHello::default(),
        }
    }

    /// Whether the end of the stream is a RST, which has the kernel drop what it has not sent yet, instead of a FIN.
    pub(super) fn cut_on_drop(&self, cuts: bool) {
        socket::cut_on_drop(&self.socket, cuts);
    }

    /// From now on the server's first words are those of a TLS handshake.
    pub(super) fn begin_handshake(&mut self) {
        self.hello = ServerHello::listening();
    }

    /// The handshake is over.
    pub(super) fn end_handshake(&mut self) {
        self.hello.conclude();
    }

    /// What has arrived, the deadline being over.
    fn read_late(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.late);
        if room == 0 || self.look() != Look::Readable {
            return Err(timed_out());
        }
        // It is there, and nobody else reads: this waits for nothing.
        let read = (&*self.socket).read(&mut buffer[..room])?;
        self.late -= read;
        Ok(read)
    }

    /// What is left until the deadline.
    fn left(&mut self) -> Duration {
        let now = self.now.take().unwrap_or_else(clock::now);
        self.deadline.remaining_at(now)
    }

    fn look(&self) -> Look {
        match socket::peek_without_waiting(&self.socket) {
            Ok(0) => Look::Ended,
            Ok(_) => Look::Readable,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Look::Quiet,
            // A pending error is cleared by being read (it is not asked again): whatever it is, the connection is over.
            Err(_) => Look::Ended,
        }
    }
}

/// Whether the kernel's timer ran out (`SO_RCVTIMEO` says `EAGAIN` on Unix and `WSAETIMEDOUT` on Windows).
fn is_kernel_wait_over(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock) || (cfg!(windows) && error.kind() == ErrorKind::TimedOut)
}

impl Read for DeadlineTcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.waits {
                let left = self.left();
                if left.is_zero() {
                    return self.read_late(buffer);
                }
                let socket = &self.socket;
                self.read_wait.arm(left, |wait| socket.set_read_timeout(wait))?;
            }
            match (&*self.socket).read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if self.waits && is_kernel_wait_over(&error) => {}
                Ok(read) => {
                    self.hello.hear(&buffer[..read]);
                    return Ok(read);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for DeadlineTcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.waits {
                let left = self.left();
                let socket = &self.socket;
                self.write_wait.arm(left, |wait| socket.set_write_timeout(wait))?;
            }
            match (&*self.socket).write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if self.waits && is_kernel_wait_over(&error) => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What cuts a connection from another thread: reads and writes under way end at once.
pub(super) fn cutter(socket: &Arc<Socket>) -> impl FnOnce() + Send + 'static {
    let socket = Arc::clone(socket);
    // It may have ended by itself.
    move || drop(socket.shutdown(Shutdown::Both))
}

/// A bounded stream, in the clear or under TLS.
#[derive(Debug)]
pub(super) enum DeadlineStream {
    Plain(DeadlineTcp),
    Tls(Box<TlsStream<DeadlineTcp>>),
}

impl DeadlineStream {
    fn tcp(&self) -> &DeadlineTcp {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }

    fn tcp_mut(&mut self) -> &mut DeadlineTcp {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut(),
        }
    }

    /// The version of TLS; none if it is in the clear.
    pub(super) fn tls_version(&self) -> Option<TlsVersion> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls.get_ref().hello.version()),
        }
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The socket, for cutting the connection from another thread.
    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.tcp().socket
    }

    /// The address of our end.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp().socket.local_addr()
    }

    /// Every read and write from now on ends by `deadline`.
    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        let tcp = self.tcp_mut();
        tcp.deadline = deadline;
        tcp.late = LATE_READS;
        tcp.now = None;
    }

    /// As [`set_deadline`](Self::set_deadline), for one who knows what time it is: the clock is read once less.
    pub(super) fn set_deadline_at(&mut self, now: Instant, deadline: Deadline) {
        let tcp = self.tcp_mut();
        tcp.deadline = deadline;
        tcp.late = LATE_READS;
        tcp.now = Some(now);
    }

    /// Has the kernel acknowledge what has arrived, instead of 40 ms later, and what arrives next as it comes.
    ///
    /// Servers with Nagle's algorithm on send pipelined replies as small packets and wait for our delayed acknowledgement between
    /// them (Haraka: 23 messages/s without this, 2 173 with it). Linux forgets the setting, so it is made before every wait for the
    /// rest of such replies. A server that sends them together costs neither this call nor a packet.
    pub(super) fn acknowledge(&self) {
        socket::acknowledge(&self.tcp().socket);
    }

    /// Whether something arrived, without waiting. One system call.
    ///
    /// Under TLS, bytes may be a session ticket or a key update and say nothing about the session; see `Wire::look`.
    pub(super) fn look(&self) -> Look {
        match self {
            Self::Tls(tls) if tls.buffered_read_size().is_ok_and(|size| size > 0) => Look::Readable,
            _ => self.tcp().look(),
        }
    }

    /// Reads what is there.
    pub(super) fn read_without_waiting(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.without_waiting(|stream| stream.read(buffer))
    }

    /// Writes all of it if there is room for it.
    pub(super) fn write_without_waiting(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.without_waiting(|stream| stream.write_all(bytes))
    }

    fn without_waiting<T>(&mut self, action: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        self.tcp().socket.set_nonblocking(true)?;
        self.tcp_mut().waits = false;
        let result = action(self);
        self.tcp_mut().waits = true;
        self.tcp().socket.set_nonblocking(false)?;
        result
    }

    /// Writes a last command and half-closes, waiting for nothing: neither room to write nor an answer.
    pub(super) fn farewell(mut self, command: &[u8]) {
        let said = self.without_waiting(|stream| {
            stream.write_all(command)?;
            if let Self::Tls(tls) = stream {
                tls.shutdown()?;
            }
            stream.tcp().socket.shutdown(Shutdown::Write)
        });
        if let Err(error) = said {
            log::trace!("could not say goodbye: {error}");
        }
    }

    /// Cuts the connection: a RST instead of a FIN, so that the kernel drops what it has not sent yet.
    pub(super) fn abort(self) {
        self.tcp().cut_on_drop(true);
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

#[cfg(test)]
#[cfg(not(simulation))]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_timer_serves_deadlines_of_very_different_length() {
        let mut settings = Vec::new();
        let mut wait = KernelWait::default();
        for seconds in [30, 300, 29, 299, 17, 30] {
            wait.arm(Duration::from_secs(seconds), |wait| {
                settings.push(wait);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(settings, [Some(LONGEST_WAIT)]);
    }

    #[test]
    fn a_kernel_timer_never_outlasts_the_deadline() {
        for millis in [1, 2, 3, 15, 16, 17, 31, 32, 33, 1_000, 16_383, 16_384, 16_385, 40_000, 10_000_000] {
            let left = Duration::from_millis(millis);
            let wait = rung_below(left);
            assert!(wait <= left, "{left:?} -> {wait:?}");
            assert!(wait >= LONGEST_WAIT.min(left / 2), "{left:?} -> {wait:?}");
        }
    }

    /// A connection whose deadline is over, and its other end.
    fn late() -> (DeadlineTcp, Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = Socket::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (DeadlineTcp::new(Arc::new(ours), Deadline::on(clock::now())), theirs)
    }

    #[test]
    fn what_arrived_in_time_is_read_late() {
        let (mut ours, mut theirs) = late();
        let mut buffer = [0; 64];
        assert_eq!(ours.read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        theirs.write_all(b"250 ok\r\n").unwrap();
        while ours.look() == Look::Quiet {
            std::thread::yield_now();
        }
        let read = ours.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"250 ok\r\n");
        assert_eq!(ours.read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(ours.write(b"RSET\r\n").unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_server_that_never_ends_holds_nobody_past_the_deadline() {
        let (mut ours, mut theirs) = late();
        // Until the connection ends.
        let flood = std::thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        let (mut all, mut buffer) = (0, [0; 5000]);
        while ours.look() == Look::Quiet {
            std::thread::yield_now();
        }
        loop {
            match ours.read(&mut buffer) {
                Ok(read) => all += read,
                Err(error) => break assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
        }
        assert!(all <= LATE_READS, "{all}");
        drop(ours);
        flood.join().unwrap();
    }

    #[test]
    fn a_deadline_that_has_passed_reads_nothing() {
        let mut wait = KernelWait::default();
        let passed = wait.arm(Duration::ZERO, |_| panic!("no timer is set"));
        assert_eq!(passed.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
