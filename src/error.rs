//! The one error of a `send`.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::recipient::RecipientOutcome;
use crate::reply::Reply;
use crate::stage::SendStage;
use crate::stats::PoolCounts;
use crate::trace::Trace;
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
/// `Display` fits two lines (320 characters; what a server says at length is cut) and shows this level only: what happened, at which
/// stage, on which host, which limit was hit, the pool's counts. [`trace`](Self::trace) tells how it came to that. The cause, where there is one, is in [`source`](StdError::source). Neither holds a credential, an address or content of ours;
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
    trace: Trace,
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
            trace: Trace::default(),
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

    pub(crate) fn with_trace(mut self, trace: Trace) -> Self {
        self.0.trace = trace;
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
    /// `false` for [`UnknownAfterData`](FailureKind::UnknownAfterData), where it may deliver it twice; and where it cannot succeed: for
    /// [`PermanentFailure`](FailureKind::PermanentFailure), for a [`ConnectionCorrupted`](FailureKind::ConnectionCorrupted) in which
    /// somebody seems to tamper with STARTTLS, and for [`Shutdown`](FailureKind::Shutdown), after which another sender may take the message.
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

    /// What the call did, step by step, and how long each step took. `Display` shows a line for each.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }
}

/// The longest text of an error, in characters: two lines of a wide window, or of a log.
const TWO_LINES: usize = 320;

/// The most of it that a host's name may take.
const LONGEST_HOST: usize = 80;

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { classification, what, attempts, reply, retry_after, pool, .. } = &*self.0;
        let kind = classification.kind.to_string();
        let place = format!("{} {}", self.place(), classification.stage);
        let mut rest = String::new();
        if let Some(retry_after) = retry_after {
            write!(rest, "; next try of a host in {:.1} s", retry_after.as_secs_f64())?;
        }
        write!(rest, " ({attempts} attempt{}", if *attempts == 1 { "" } else { "s" })?;
        if let Some(pool) = pool {
            write!(rest, "; {pool}")?;
        }
        // Where, how far and how many must be there; what is long is what happened, and what the server had to say about it.
        let length = |text: &str| text.chars().count();
        let fixed = length(&kind) + length(&place) + length(&rest) + ": : )".len();
        let left = TWO_LINES.saturating_sub(fixed);
        let what = cut(what, left);
        write!(f, "{kind}: {what}{place}")?;
        if let Some(reply) = reply {
            write!(f, ": {}", cut(&reply.to_string(), left - length(&what)))?;
        }
        write!(f, "{rest})")
    }
}

impl SendError {
    /// The host, or for want of one those that there were.
    fn place(&self) -> String {
        let cut = |endpoint: &Endpoint| cut_front(&endpoint.to_string(), LONGEST_HOST).into_owned();
        match (&self.0.endpoint, self.0.trace.hosts()) {
            (Some(endpoint), _) => format!(" on {}", cut(endpoint)),
            (None, [only]) => format!(" on {}", cut(only)),
            (None, [first, others @ ..]) => format!(" on {} or {} more", cut(first), others.len()),
            (None, []) => String::new(),
        }
    }
}

/// At most so many characters of `text`, the first ones.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => text.into(),
        Some(_) if most == 0 => "".into(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect::<String>().into(),
    }
}

/// At most so many characters of `text`, the last ones: of a host, the port and the domain.
fn cut_front(text: &str, most: usize) -> Cow<'_, str> {
    match text.chars().count().checked_sub(most) {
        None | Some(0) => text.into(),
        Some(too_many) => ['…'].into_iter().chain(text.chars().skip(too_many + 1)).collect::<String>().into(),
    }
}

impl fmt::Debug for SendError {
    /// Everything but the recipients' addresses, which have no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { classification, what, attempts, endpoint, reply, recipients, retry_after, pool, source, trace } =
            &*self.0;
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
            .field("trace", trace)
            .finish()
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source.downcast_ref::<Undisclosed>().map_or(source, Undisclosed::disclose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_and_what_must_be_there_stays() {
        let classification = Classification {
            kind: FailureKind::UnknownAfterData,
            stage: SendStage::DataCompleted,
            retry_allowed: false,
            discard_connection: true,
            reason: "",
        };
        let text = |what: usize, host: usize, reply: usize| {
            let said = Reply::from_wire(554, &[b"554 5.7.1 ".as_slice(), "ü".repeat(reply).as_bytes()].concat());
            let endpoint = Endpoint::new(&format!("{}.example", "h".repeat(host)), 587);
            let error = SendError::new(classification, "w".repeat(what))
                .with_endpoint(Some(endpoint))
                .with_reply(Some(said))
                .with_attempts(2)
                .with_retry_after(Some(Duration::from_secs(12)))
                .with_pool(PoolCounts { max_size: 8, total: 3, ..PoolCounts::default() });
            error.to_string()
        };
        for what in [0, 1, 60, 200, 1000] {
            for host in [1, 60, 80, 240] {
                for reply in [0, 10, 100, 500, 60_000] {
                    let text = text(what, host, reply);
                    assert!(text.chars().count() <= TWO_LINES, "{}: {text}", text.chars().count());
                    for part in
                        ["may have been delivered", ".example:587", "after the last byte", "12.0 s", "max_size=8"]
                    {
                        assert!(text.contains(part), "{part}: {text}");
                    }
                }
            }
        }
        assert!(text(60, 20, 20).contains("554 5.7.1 üüüüüüüüüüüüüüüüüüüü; next"), "what is short is whole");
    }
}
