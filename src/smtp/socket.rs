//! What the kernel does for a connection. A simulation stands in for this file, and for nothing above it; see `simulation/mod.rs`.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use crate::cancel::CancelToken;

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
    let socket = Arc::new(socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?);
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    {
        let cut = || {
            let socket = Arc::clone(&socket);
            // Ends the wait for an answer; a socket that has not begun to connect is not cut, so the flag is looked at besides.
            move || drop(socket.shutdown(Shutdown::Both))
        };
        let _registrations = cancel.iter().map(|token| token.on_cancel(cut())).collect::<Vec<_>>();
        if cancel.iter().any(|token| token.is_cancelled()) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "cancelled"));
        }
        socket.connect_timeout(&address.into(), timeout)?;
    }
    // Nobody else holds it any more: a hook whose registration is gone is gone too.
    Arc::try_unwrap(socket).map(Socket::from).map_err(|_| io::Error::new(io::ErrorKind::NotConnected, "cancelled"))
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
