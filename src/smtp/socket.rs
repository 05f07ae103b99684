//! What the kernel does for a connection. A simulation stands in for this file, and for nothing above it; see `simulation/mod.rs`.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(unix)]
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use crate::cancel::CancelToken;
#[cfg(unix)]
use crate::clock::Deadline;

/// One end of a connection.
pub(super) use std::net::TcpStream as Socket;

/// When the kernel begins to ask an idle peer whether it is there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// The kernel counts milliseconds in 31 bits, and refuses more.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Connects within `timeout`, or fails early when one of `cancel` is cancelled.
pub(super) fn connect_to(
    address: SocketAddr,
    local: Option<IpAddr>,
    timeout: Duration,
    cancel: &[&CancelToken],
) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    #[cfg(unix)]
    let stream = establish(socket, |socket| socket.connect(&address.into()), Deadline::after(timeout), cancel);
    #[cfg(not(unix))]
    let stream = establish(socket, address, timeout, cancel);
    stream
}

/// Has `begin` start a connection without waiting, and waits until it stands.
// Proof: a hook is registered when the connection has begun, so it always finds one to end; and the hook of a token that was
// cancelled before runs at once.
#[cfg(unix)]
fn establish(
    socket: socket2::Socket,
    begin: impl FnOnce(&socket2::Socket) -> io::Result<()>,
    deadline: Deadline,
    cancel: &[&CancelToken],
) -> io::Result<Socket> {
    let socket = Arc::new(socket);
    socket.set_nonblocking(true)?;
    match begin(&socket) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stands = {
        let cut = || {
            let socket = Arc::clone(&socket);
            move || drop(socket.shutdown(Shutdown::Both))
        };
        let _registrations = cancel.iter().map(|token| token.on_cancel(cut())).collect::<Vec<_>>();
        wait_until_it_stands(&socket, deadline)
    };
    if cancel.iter().any(|token| token.is_cancelled()) {
        return Err(cancelled());
    }
    stands?;
    socket.set_nonblocking(false)?;
    // Nobody else holds it any more: a hook whose registration is gone is gone too.
    Arc::try_unwrap(socket).map(Socket::from).map_err(|_| cancelled())
}

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "cancelled")
}

/// As above, where a token that is cancelled between the look at it and the system's first step is noticed only at the end.
#[cfg(not(unix))]
fn establish(
    socket: socket2::Socket,
    address: SocketAddr,
    timeout: Duration,
    cancel: &[&CancelToken],
) -> io::Result<Socket> {
    let socket = Arc::new(socket);
    {
        let cut = || {
            let socket = Arc::clone(&socket);
            move || drop(socket.shutdown(Shutdown::Both))
        };
        let _registrations = cancel.iter().map(|token| token.on_cancel(cut())).collect::<Vec<_>>();
        if cancel.iter().any(|token| token.is_cancelled()) {
            return Err(cancelled());
        }
        socket.connect_timeout(&address.into(), timeout)?;
    }
    Arc::try_unwrap(socket).map(Socket::from).map_err(|_| cancelled())
}

/// Looks once at least: one that stood in time stands, however late we come to look.
#[cfg(unix)]
fn wait_until_it_stands(socket: &socket2::Socket, deadline: Deadline) -> io::Result<()> {
    loop {
        let left = deadline.remaining();
        let timeout = Timespec::try_from(left).ok();
        let mut events = [PollFd::new(socket, PollFlags::OUT)];
        match poll(&mut events, timeout.as_ref()) {
            Ok(0) if left.is_zero() => return Err(io::Error::new(io::ErrorKind::TimedOut, "the deadline passed")),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return verdict(socket, events[0].revents()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What became of a connection that is no longer under way.
#[cfg(unix)]
fn verdict(socket: &socket2::Socket, events: PollFlags) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None if events.intersects(PollFlags::ERR | PollFlags::HUP) => {
            Err(io::Error::new(io::ErrorKind::NotConnected, "the connection ended before it stood"))
        }
        None => Ok(()),
    }
}

/// Sets what every connection needs.
pub(super) fn prepare(stream: &Socket, unacknowledged_timeout: Duration) -> io::Result<()> {
    // The end of a body and the final dot leave in one write; with Nagle's algorithm a second small write waits 40 ms.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME))?;
    // A write into a black hole succeeds for megabytes: only this notices that nothing is acknowledged.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(unacknowledged_timeout.min(LONGEST_USER_TIMEOUT)))?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = unacknowledged_timeout;
    Ok(())
}

/// Whether the end of the connection is a RST, which has the kernel drop what it has not sent yet, instead of a FIN.
pub(super) fn cut_on_drop(socket: &Socket, cuts: bool) {
    if let Err(error) = SockRef::from(socket).set_linger(cuts.then_some(Duration::ZERO)) {
        log::trace!("SO_LINGER not set: {error}");
    }
}

/// Has the kernel acknowledge what has arrived, and what arrives next as it comes.
pub(super) fn acknowledge(socket: &Socket) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(socket).set_tcp_quickack(true) {
        log::trace!("TCP_QUICKACK not set: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Whether anything has arrived: how many bytes, none at the end.
#[cfg(unix)]
pub(super) fn peek_without_waiting(socket: &Socket) -> io::Result<usize> {
    let mut byte = [MaybeUninit::uninit()];
    SockRef::from(socket).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT)
}

/// Whether anything has arrived: how many bytes, none at the end.
#[cfg(not(unix))]
pub(super) fn peek_without_waiting(socket: &Socket) -> io::Result<usize> {
    let mut byte = [MaybeUninit::uninit()];
    socket.set_nonblocking(true)?;
    let peeked = SockRef::from(socket).peek(&mut byte);
    socket.set_nonblocking(false)?;
    peeked
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// A listener that answers no more: its queue is full.
    fn black_hole() -> (socket2::Socket, Vec<Socket>, SocketAddr) {
        let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut crowd = Vec::new();
        while let Ok(stream) = Socket::connect_timeout(&address, Duration::from_millis(100)) {
            crowd.push(stream);
        }
        (listener, crowd, address)
    }

    /// Just before the kernel is asked to connect, and just after.
    #[test]
    fn a_cancellation_ends_the_wait_whenever_it_comes() {
        let (_listener, _crowd, address) = black_hole();
        let socket = || socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let patience = Duration::from_secs(10);
        let ends_at_once = |begin: &dyn Fn(&socket2::Socket, &CancelToken) -> io::Result<()>| {
            let token = CancelToken::new();
            let deadline = Deadline::after(patience);
            let error = establish(socket(), |socket| begin(socket, &token), deadline, &[&token]).unwrap_err();
            assert_eq!(error.to_string(), "cancelled");
            assert!(deadline.remaining() > patience / 2, "it waited until {:?} were left", deadline.remaining());
        };
        ends_at_once(&|socket, token| {
            token.cancel();
            socket.connect(&address.into())
        });
        ends_at_once(&|socket, token| {
            let begun = socket.connect(&address.into());
            token.cancel();
            begun
        });
        // While it waits.
        let token = CancelToken::new();
        let deadline = Deadline::after(patience);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| connect_to(address, None, patience, &[&token]));
            token.cancel();
            assert_eq!(waiting.join().unwrap().unwrap_err().to_string(), "cancelled");
        });
        assert!(deadline.remaining() > patience / 2);
    }

    #[test]
    fn the_wait_ends_at_the_deadline() {
        let (_listener, _crowd, address) = black_hole();
        let deadline = Deadline::after(Duration::from_millis(50));
        let error = connect_to(address, None, Duration::from_millis(50), &[]).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::TimedOut, None));
        assert!(deadline.is_over());
    }
}
