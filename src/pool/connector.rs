//! What a pool must be able to do with the things it lends.

use std::fmt;

use crate::blame::Blame;
use crate::cancel::CancelToken;
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

    /// Opens a session ready for use, in the thread that wants it; gives up early when `cancel` is cancelled, which
    /// is nobody's fault. `id` is unique in the pool.
    fn open(
        &self,
        host: HostId,
        id: u64,
        deadline: Deadline,
        cancel: Option<&CancelToken>,
    ) -> Result<Self::Connection, OpenError<Self::Error>>;

    /// A look without waiting, before reuse. False: dead, or not provably in step.
    fn is_alive(&self, connection: &mut Self::Connection) -> bool;

    /// Asks an idle connection for a sign of life, without waiting for anything. False: it is dead.
    fn begin_probe(&self, connection: &mut Self::Connection) -> bool;

    /// Waits until `deadline` for the answer to a probe; one that has arrived is found even when the deadline is over.
    /// False: dead, or not provably in step.
    fn end_probe(&self, connection: &mut Self::Connection, deadline: Deadline) -> bool;

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
