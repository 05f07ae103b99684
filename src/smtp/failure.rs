//! Why opening a session, or sending a message over one, ended early.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use socket2::{Domain, Socket, Type};

use crate::event::{Desync, Event, Fault, Step};
use crate::reply::Reply;
use crate::stage::SendStage;

/// What happened, how far things had got, and the evidence.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) event: Event,
    pub(crate) stage: SendStage,
    /// The reply that decided, if one did.
    pub(crate) reply: Option<Reply>,
    pub(crate) source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(event: Event, stage: SendStage) -> Self {
        Self { event, stage, reply: None, source: None }
    }

    pub(super) fn refused(step: Step, reply: Reply, stage: SendStage) -> Self {
        Self { event: Event::Reply(step, reply.code()), stage, reply: Some(reply), source: None }
    }

    pub(super) fn transport(step: Step, error: io::Error, stage: SendStage) -> Self {
        Self { event: Event::Transport(step, fault_of(&error)), stage, reply: None, source: Some(error.into()) }
    }

    pub(super) fn wire(step: Step, error: WireError, stage: SendStage) -> Self {
        match error {
            WireError::Io(error) => Self::transport(step, error, stage),
            WireError::Desync(desync) => Self::new(Event::OutOfStep(step, desync), stage),
        }
    }
}

/// Why no reply could be read.
#[derive(Debug)]
pub(super) enum WireError {
    Io(io::Error),
    Desync(Desync),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Desync> for WireError {
    fn from(desync: Desync) -> Self {
        Self::Desync(desync)
    }
}

/// The kind of fault behind an I/O error.
pub(super) fn fault_of(error: &io::Error) -> Fault {
    match error.kind() {
        // With an errno it is the kernel's ETIMEDOUT, the end of a dead connection; without, it is our deadline.
        ErrorKind::TimedOut if error.raw_os_error().is_none() => Fault::TimedOut,
        ErrorKind::UnexpectedEof => Fault::Closed,
        // No port is left: connecting says the one, binding to an address of ours the other.
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse | ErrorKind::OutOfMemory => Fault::LocalShortage,
        _ if is_shortage(error.raw_os_error()) => Fault::LocalShortage,
        _ => Fault::Broken,
    }
}

/// What keeps this machine from opening anything now, if something does.
///
/// For libraries that take a file or a socket that they could not open for one that is not there, and do not say so.
pub(super) fn no_descriptor() -> Option<io::Error> {
    let error = Socket::new(Domain::IPV4, Type::DGRAM, None).err()?;
    (fault_of(&error) == Fault::LocalShortage).then_some(error)
}

#[cfg(unix)]
fn is_shortage(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN))
}

#[cfg(windows)]
fn is_shortage(errno: Option<i32>) -> bool {
    // WSAEMFILE, WSAENOBUFS
    matches!(errno, Some(10024 | 10055))
}

#[cfg(not(any(unix, windows)))]
fn is_shortage(_: Option<i32>) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_deadline_and_the_kernels_are_told_apart() {
        assert_eq!(fault_of(&io::Error::new(ErrorKind::TimedOut, "ours")), Fault::TimedOut);
        assert_eq!(fault_of(&io::Error::from_raw_os_error(libc::ETIMEDOUT)), Fault::Broken);
    }

    #[test]
    fn a_local_shortage_is_told_from_a_broken_connection() {
        let ours = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL, libc::EADDRINUSE];
        for errno in ours {
            assert_eq!(fault_of(&io::Error::from_raw_os_error(errno)), Fault::LocalShortage, "{errno}");
        }
        for errno in [libc::ECONNREFUSED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::EPIPE] {
            assert_eq!(fault_of(&io::Error::from_raw_os_error(errno)), Fault::Broken, "{errno}");
        }
    }
}
