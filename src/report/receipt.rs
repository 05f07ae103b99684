//! The proof of an accepted message.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::recipient::RecipientOutcome;
use crate::reply::Reply;
use crate::smtp::Accepted;
use crate::trace::Trace;

/// A message that a server has accepted: a complete 2xx to the whole of it was read.
// In a box, because it is handed from floor to floor and most callers ask it for little.
#[derive(Debug, Clone)]
pub struct Receipt(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    endpoint: Endpoint,
    attempts: u32,
    connection_id: u64,
    accepted_at: SystemTime,
    response: Reply,
    /// The replies to earlier transactions of the same message.
    earlier: Vec<Reply>,
    recipients: Vec<RecipientOutcome>,
    elapsed: Duration,
    stopped_by: Option<Arc<SendError>>,
    trace: Trace,
}

impl Receipt {
    /// The receipt of a message that was accepted just now, in one attempt, so long after the call began.
    pub(crate) fn of(accepted: Accepted, endpoint: Endpoint, connection_id: u64, elapsed: Duration) -> Self {
        let Accepted { reply, recipients } = accepted;
        Self(Box::new(Inner {
            endpoint,
            attempts: 1,
            connection_id,
            accepted_at: clock::wall(),
            response: reply,
            earlier: Vec::new(),
            recipients,
            elapsed,
            stopped_by: None,
            trace: Trace::default(),
        }))
    }

    /// The same, with what came of the transactions before it.
    pub(crate) fn after(mut self, earlier: Self) -> Self {
        self.0.earlier = earlier.0.earlier;
        self.0.earlier.push(earlier.0.response);
        self
    }

    pub(crate) fn with_recipients(mut self, recipients: Vec<RecipientOutcome>) -> Self {
        self.0.recipients = recipients;
        self
    }

    /// The same for a sending that this ended.
    pub(crate) fn stopped(mut self, by: SendError) -> Self {
        self.0.stopped_by = Some(Arc::new(by));
        self
    }

    /// The same after so many attempts.
    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_trace(mut self, trace: Trace) -> Self {
        self.0.trace = trace;
        self
    }

    /// The host that accepted the message; the last one, if it went in several transactions.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// How many attempts it took, at least 1. A refused host inside one attempt, and the free replacement of a stale connection, do
    /// not count.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The connection it went over; unique within one sender, the same for messages that shared a connection.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.0.connection_id
    }

    /// When the server's final reply was read, by the wall clock.
    #[must_use]
    pub fn accepted_at(&self) -> SystemTime {
        self.0.accepted_at
    }

    /// The server's final reply; its text usually holds the queue id to search the server's log for.
    #[must_use]
    pub fn response(&self) -> &Reply {
        &self.0.response
    }

    /// The final reply to each transaction, in order. More than one only with
    /// [`AcceptPartial`](crate::RecipientPolicy::AcceptPartial), for more recipients than a server takes at a time; the last is
    /// [`response`](Self::response).
    pub fn responses(&self) -> impl Iterator<Item = &Reply> {
        self.0.earlier.iter().chain([&self.0.response])
    }

    /// What became of each recipient, in the order of the envelope. With
    /// [`AcceptPartial`](crate::RecipientPolicy::AcceptPartial) the message did not go to all of them, but at least to one.
    #[must_use]
    pub fn recipients(&self) -> &[RecipientOutcome] {
        &self.0.recipients
    }

    /// The failure that ended the sending early, after the message had been accepted for some of its recipients. Only with
    /// [`AcceptPartial`](crate::RecipientPolicy::AcceptPartial) and more of them than a server takes at a time; never of kind
    /// [`UnknownAfterData`](crate::FailureKind::UnknownAfterData), which is the answer to the whole call.
    ///
    /// Those in [`recipients`](Self::recipients) that are [`NotSent`](crate::RecipientStatus::NotSent) or
    /// [`RefusedForNow`](crate::RecipientStatus::RefusedForNow) may be sent to again, and nobody else.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&SendError> {
        self.0.stopped_by.as_deref()
    }

    /// How long the call took until the server accepted, waiting included.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// What the call did, step by step, and how long each step took.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }
}
