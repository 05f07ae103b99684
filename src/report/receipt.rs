//! The proof of an accepted message.

use std::time::{Duration, SystemTime};

use crate::clock;
use crate::endpoint::Endpoint;
use crate::recipient::RecipientOutcome;
use crate::reply::Reply;
use crate::smtp::Accepted;
use crate::trace::Trace;

/// A message that a server has accepted: a complete 2xx to the whole of it was read.
#[derive(Debug, Clone)]
pub struct Receipt {
    endpoint: Endpoint,
    attempts: u32,
    connection_id: u64,
    accepted_at: SystemTime,
    response: Reply,
    recipients: Vec<RecipientOutcome>,
    elapsed: Duration,
    trace: Trace,
}

impl Receipt {
    /// The receipt of a message that was accepted just now, in one attempt, so long after the call began.
    pub(crate) fn of(accepted: Accepted, endpoint: Endpoint, connection_id: u64, elapsed: Duration) -> Self {
        let Accepted { reply, recipients } = accepted;
        let (accepted_at, trace) = (clock::wall(), Trace::default());
        Self { endpoint, attempts: 1, connection_id, accepted_at, response: reply, recipients, elapsed, trace }
    }

    /// The same after so many attempts.
    pub(crate) const fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    pub(crate) fn with_trace(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// The host that accepted the message.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How many attempts it took, at least 1. A refused host inside one attempt, and the free replacement of a stale connection, do
    /// not count.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The connection it went over; unique within one sender, the same for messages that shared a connection.
    #[must_use]
    pub const fn connection_id(&self) -> u64 {
        self.connection_id
    }

    /// When the server's final reply was read, by the wall clock.
    #[must_use]
    pub const fn accepted_at(&self) -> SystemTime {
        self.accepted_at
    }

    /// The server's final reply; its text usually holds the queue id to search the server's log for.
    #[must_use]
    pub const fn response(&self) -> &Reply {
        &self.response
    }

    /// What the server said to each recipient, in the order of the envelope. With
    /// [`AcceptPartial`](crate::RecipientPolicy::AcceptPartial) some may have been refused: the message did not go to them.
    #[must_use]
    pub fn recipients(&self) -> &[RecipientOutcome] {
        &self.recipients
    }

    /// How long the call took, waiting included.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What the call did, step by step, and how long each step took.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }
}
