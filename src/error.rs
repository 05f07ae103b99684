//! The one error of a `send`.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::recipient::RecipientOutcome;
use crate::reply::Reply;
use crate::stage::SendStage;
use crate::stats::PoolCounts;
use crate::undisclosed::Undisclosed;

/// What kind of failure ended a `send`, by what the caller can do about it.
///
/// Every kind except [`UnknownAfterData`](Self::UnknownAfterData) means: the server has not accepted the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// No connection came free within `acquire_timeout` (or the caller's deadline).
    PoolExhausted,
    /// No host could be connected to, or all of them are cooling down;
    /// [`retry_after`](SendError::retry_after) tells when the first one is tried again.
    HostUnavailable,
    /// The connection failed before the server can have accepted the message: sending it again is safe.
    RetryableBeforeSend,
    /// The server refused for now (4yz): sending it again later is safe.
    RetryableTemporaryFailure,
    /// The server refused for good (5yz), or the message or the settings are wrong: sending the same again is pointless.
    PermanentFailure,
    /// The last byte had been offered to the network and no decisive answer came: the message may have been delivered.
    /// Never resend it blindly.
    UnknownAfterData,
    /// The server's replies made no sense before the message was complete: it was not accepted.
    ConnectionCorrupted,
    /// The caller cancelled before the message was complete.
    Cancelled,
    /// The sender has been shut down.
    Shutdown,
}

impl FailureKind {
    /// The kind as a label: `pool_exhausted`, `host_unavailable`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoolExhausted => "pool_exhausted",
            Self::HostUnavailable => "host_unavailable",
            Self::RetryableBeforeSend => "retryable_before_send",
            Self::RetryableTemporaryFailure => "retryable_temporary_failure",
            Self::PermanentFailure => "permanent_failure",
            Self::UnknownAfterData => "unknown_after_data",
            Self::ConnectionCorrupted => "connection_corrupted",
            Self::Cancelled => "cancelled",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PoolExhausted => "no connection came free in time",
            Self::HostUnavailable => "no host available",
            Self::RetryableBeforeSend => "not sent, safe to retry",
            Self::RetryableTemporaryFailure => "temporary failure",
            Self::PermanentFailure => "permanent failure",
            Self::UnknownAfterData => "may have been delivered, do not blindly resend",
            Self::ConnectionCorrupted => "not sent, the connection was out of step",
            Self::Cancelled => "cancelled, not sent",
            Self::Shutdown => "the sender is shut down",
        })
    }
}

/// The classifier's judgement of one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Classification {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// How far the message had got.
    pub stage: SendStage,
    /// Whether sending the message again cannot deliver it twice and may succeed.
    pub retry_allowed: bool,
    /// Whether the connection must not be used again.
    pub discard_connection: bool,
    /// The rule that decided, in a few words.
    pub reason: &'static str,
}

/// Why a `send` failed, and what that means for the message.
///
/// `Display` fits two lines and shows this level only: what happened, at which stage, on which host, which limit was hit, the pool's
/// counts. The cause, where there is one, is in [`source`](StdError::source). Neither holds a credential, an address or content of ours;
/// the server's own text may repeat an address.
pub struct SendError(Box<Inner>);

struct Inner {
    classification: Classification,
    what: String,
    attempts: u32,
    endpoint: Option<Endpoint>,
    reply: Option<Reply>,
    recipients: Vec<RecipientOutcome>,
    retry_after: Option<Duration>,
    pool: Option<PoolCounts>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl SendError {
    pub(crate) fn new(classification: Classification, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            classification,
            what: what.into(),
            attempts: 0,
            endpoint: None,
            reply: None,
            recipients: Vec::new(),
            retry_after: None,
            pool: None,
            source: None,
        }))
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_endpoint(mut self, endpoint: Option<Endpoint>) -> Self {
        self.0.endpoint = endpoint;
        self
    }

    pub(crate) fn with_reply(mut self, reply: Option<Reply>) -> Self {
        self.0.reply = reply;
        self
    }

    pub(crate) fn with_recipients(mut self, recipients: Vec<RecipientOutcome>) -> Self {
        self.0.recipients = recipients;
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(crate) fn with_pool(mut self, counts: PoolCounts) -> Self {
        self.0.pool = Some(counts);
        self
    }

    pub(crate) fn with_source(mut self, source: Option<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = source;
        self
    }

    /// What kind of failure it is: the field to match on.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.0.classification.kind
    }

    /// How far the message had got.
    #[must_use]
    pub fn stage(&self) -> SendStage {
        self.0.classification.stage
    }

    /// The classifier's whole judgement.
    #[must_use]
    pub fn classification(&self) -> Classification {
        self.0.classification
    }

    /// Whether sending the message again cannot deliver it twice and may succeed.
    ///
    /// `false` for [`PermanentFailure`](FailureKind::PermanentFailure), where it cannot succeed, and for
    /// [`UnknownAfterData`](FailureKind::UnknownAfterData), where it may deliver it twice.
    #[must_use]
    pub fn is_retry_safe(&self) -> bool {
        self.0.classification.retry_allowed
    }

    /// How many attempts were begun. A refused host inside one attempt, and the free replacement of a stale connection, do not
    /// count; 0 means that nothing was tried.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The host that the last attempt failed on.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.0.endpoint.as_ref()
    }

    /// The server's reply that decided, if one did.
    #[must_use]
    pub fn response(&self) -> Option<&Reply> {
        self.0.reply.as_ref()
    }

    /// What the server said to each recipient, as far as it was asked.
    #[must_use]
    pub fn recipients(&self) -> &[RecipientOutcome] {
        &self.0.recipients
    }

    /// For [`HostUnavailable`](FailureKind::HostUnavailable): how long until a host is tried again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The pool's counts at the moment of failure.
    #[must_use]
    pub fn pool(&self) -> Option<PoolCounts> {
        self.0.pool
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { classification, what, attempts, endpoint, reply, retry_after, pool, .. } = &*self.0;
        write!(f, "{}: {what}", classification.kind)?;
        if let Some(endpoint) = endpoint {
            write!(f, " on {endpoint}")?;
        }
        write!(f, " {}", classification.stage)?;
        if let Some(reply) = reply {
            write!(f, ": {reply}")?;
        }
        if let Some(retry_after) = retry_after {
            write!(f, "; next try of a host in {:.1} s", retry_after.as_secs_f64())?;
        }
        write!(f, " ({attempts} attempt{}", if *attempts == 1 { "" } else { "s" })?;
        if let Some(pool) = pool {
            write!(f, "; {pool}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for SendError {
    /// Everything but the recipients' addresses, which have no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { classification, what, attempts, endpoint, reply, recipients, retry_after, pool, source } = &*self.0;
        f.debug_struct("SendError")
            .field("classification", classification)
            .field("what", what)
            .field("attempts", attempts)
            .field("endpoint", endpoint)
            .field("reply", reply)
            .field("recipients", &recipients.len())
            .field("retry_after", retry_after)
            .field("pool", pool)
            .field("source", source)
            .finish()
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source.downcast_ref::<Undisclosed>().map_or(source, Undisclosed::disclose))
    }
}
