//! A TCP connection to the first address that answers, within one budget over all of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::clock::Deadline;

use super::socket::{Socket, connect_to, prepare};

/// Connects to one of `addresses`, tried in order ([RFC 5321 §5.1](https://www.rfc-editor.org/rfc/rfc5321#section-5.1)); each gets
/// an equal share of what is left, so that a dead first address leaves time for the second.
pub(super) fn connect(
    addresses: &[SocketAddr],
    local: Option<IpAddr>,
    unacknowledged_timeout: Duration,
    deadline: Deadline,
    cancel: &[&CancelToken],
) -> io::Result<Socket> {
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

#[cfg(test)]
#[cfg(not(simulation))]
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
