//! A TCP connection to the first address that answers, within one budget over all of them.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

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
    let socket = Arc::new(Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?);
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
    Arc::try_unwrap(socket).map(TcpStream::from).map_err(|_| io::Error::new(io::ErrorKind::NotConnected, "cancelled"))
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
}
