//! What a pool must be able to do with the things it lends.

use std::fmt;

use crate::blame::Blame;
use crate::clock::Deadline;
use crate::endpoint::HostId;

/// Opens, looks at and closes connections for a pool, which knows nothing else about them.
///
/// No method is ever called under the pool's lock. Each may panic: the place in question is then free again.
pub(crate) trait Connector: Send + Sync + 'static {
    /// What is lent.
    type Connection: Send + 'static;
    /// Why opening one failed.
    type Error: fmt::Display + Send + 'static;

    /// Opens a session ready for use, in the caller's thread. `id` is unique in the pool.
    fn open(&self, host: HostId, id: u64, deadline: Deadline) -> Result<Self::Connection, OpenError<Self::Error>>;

    /// A look without waiting, before reuse. False: dead, or not provably in step.
    fn is_alive(&self, connection: &mut Self::Connection) -> bool;

    /// Whether a connection given back may be lent again: no command is outstanding.
    fn is_in_step(&self, connection: &Self::Connection) -> bool;

    /// The bound on messages that the server announced for this connection; asked once, when it is new.
    fn message_limit(&self, connection: &Self::Connection) -> Option<u32>;

    /// Ends a connection; must not wait.
    fn close(&self, connection: Self::Connection, how: Close);
}

/// A connection that could not be opened.
#[derive(Debug)]
pub(crate) struct OpenError<E> {
    /// What happened.
    pub(crate) error: E,
    /// What it says about the host.
    pub(crate) blame: Blame,
}

/// How to end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// With a goodbye: it is in step.
    Polite,
    /// At once, without a word.
    Abort,
}
