//! A TCP connection to the first address that answers, within one budget over all of them.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(unix)]
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::cancel::CancelToken;
use crate::clock::Deadline;

/// When the kernel begins to ask an idle peer whether it is there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// The kernel counts milliseconds in 31 bits, and refuses more.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Connects to one of `addresses`, tried in order ([RFC 5321 §5.1](https://www.rfc-editor.org/rfc/rfc5321#section-5.1)); each gets
/// an equal share of what is left, so that a dead first address leaves time for the second.
pub(super) fn connect(
    addresses: &[SocketAddr],
    local: Option<IpAddr>,
    unacknowledged_timeout: Duration,
    deadline: Deadline,
    cancel: &[&CancelToken],
) -> io::Result<TcpStream> {
    let mut last_error = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.remaining();
        if left.is_zero() || cancel.iter().any(|token| token.is_cancelled()) {
            break;
        }
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match connect_to(*address, local, share.max(Duration::from_millis(1)), cancel) {
            Ok(stream) => {
                prepare(&stream, unacknowledged_timeout)?;
                return Ok(stream);
            }
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "the deadline passed")))
}

fn connect_to(
    address: SocketAddr,
    local: Option<IpAddr>,
    timeout: Duration,
    cancel: &[&CancelToken],
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
    socket: Socket,
    begin: impl FnOnce(&Socket) -> io::Result<()>,
    deadline: Deadline,
    cancel: &[&CancelToken],
) -> io::Result<TcpStream> {
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
    Arc::try_unwrap(socket).map(TcpStream::from).map_err(|_| cancelled())
}

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "cancelled")
}

/// As above, where a token that is cancelled between the look at it and the system's first step is noticed only at the end.
#[cfg(not(unix))]
fn establish(socket: Socket, address: SocketAddr, timeout: Duration, cancel: &[&CancelToken]) -> io::Result<TcpStream> {
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
    Arc::try_unwrap(socket).map(TcpStream::from).map_err(|_| cancelled())
}

/// Looks once at least: one that stood in time stands, however late we come to look.
#[cfg(unix)]
fn wait_until_it_stands(socket: &Socket, deadline: Deadline) -> io::Result<()> {
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
fn verdict(socket: &Socket, events: PollFlags) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None if events.intersects(PollFlags::ERR | PollFlags::HUP) => {
            Err(io::Error::new(io::ErrorKind::NotConnected, "the connection ended before it stood"))
        }
        None => Ok(()),
    }
}

fn prepare(stream: &TcpStream, unacknowledged_timeout: Duration) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_refusing_address_leaves_the_next_its_turn() {
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let deadline = Deadline::after(Duration::from_secs(10));
        let stream = connect(&[dead, alive], None, Duration::from_secs(1), deadline, &[]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        let refused = connect(&[dead], None, Duration::from_secs(1), deadline, &[]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A listener that answers no more: its queue is full.
    #[cfg(target_os = "linux")]
    fn black_hole() -> (Socket, Vec<TcpStream>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut crowd = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            crowd.push(stream);
        }
        (listener, crowd, address)
    }

    /// Just before the kernel is asked to connect, and just after.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_cancellation_ends_the_wait_whenever_it_comes() {
        let (_listener, _crowd, address) = black_hole();
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let patience = Duration::from_secs(10);
        let ends_at_once = |begin: &dyn Fn(&Socket, &CancelToken) -> io::Result<()>| {
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
    #[cfg(target_os = "linux")]
    fn the_wait_ends_at_the_deadline() {
        let (_listener, _crowd, address) = black_hole();
        let deadline = Deadline::after(Duration::from_millis(50));
        let error = connect(&[address], None, Duration::from_secs(1), deadline, &[]).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::TimedOut, None));
        assert!(deadline.is_over());
    }
}
