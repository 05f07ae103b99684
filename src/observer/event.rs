//! What observers are told: plain facts of one moment. None of them holds a credential, an address, content or a server's words.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::Classification;
use crate::stats::{DiscardReason, PoolCounts};

/// A connection is ready for use.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ConnectionOpened<'a> {
    /// Where it leads.
    pub host: &'a Endpoint,
    /// Its number, unique within the sender; the same as in [`Receipt::connection_id`](crate::Receipt::connection_id).
    pub connection_id: u64,
    /// How long look-up, TCP, TLS, greeting, EHLO and AUTH took together.
    pub took: Duration,
}

/// A connection could not be opened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ConnectionFailed<'a> {
    /// Where it was to lead.
    pub host: &'a Endpoint,
    /// The number it would have had.
    pub connection_id: u64,
    /// How long it was tried.
    pub took: Duration,
    /// What went wrong, in this crate's words; the same as [`HostStatus::last_error`](crate::HostStatus::last_error).
    pub error: &'a str,
}

/// A connection's life is over.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ConnectionDiscarded<'a> {
    /// Where it led.
    pub host: &'a Endpoint,
    /// Its number.
    pub connection_id: u64,
    /// Why it was given up.
    pub reason: DiscardReason,
    /// How long ago it was opened.
    pub lived: Duration,
    /// Messages it has carried.
    pub messages: u32,
}

/// An idle connection gave no sign of life when asked for one. It has been discarded.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct KeepaliveFailed<'a> {
    /// Where it led.
    pub host: &'a Endpoint,
    /// Its number.
    pub connection_id: u64,
}

/// No connection to a host is opened for a while.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CooldownEntered<'a> {
    /// The host.
    pub host: &'a Endpoint,
    /// For how long.
    pub pause: Duration,
    /// Failures since the last success.
    pub failures: u32,
}

/// A host that had failed works again: a connection to it was opened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CooldownLeft<'a> {
    /// The host.
    pub host: &'a Endpoint,
}

/// A call that wanted a connection passed a host by, for no other reason than its cooldown.
///
/// It had no idle connection to lend, and no host that is preferred to it could serve. At most once for a call and a host.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ReconnectSuppressed<'a> {
    /// The host.
    pub host: &'a Endpoint,
}

/// A host refused one more connection than it has: so many are its limit from now on.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CapacityLearned<'a> {
    /// The host.
    pub host: &'a Endpoint,
    /// How many it takes.
    pub connections: usize,
}

/// A host ends, or refuses to go on with, a session after so many messages.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MessageLimitLearned<'a> {
    /// The host.
    pub host: &'a Endpoint,
    /// How many a connection to it carries from now on.
    pub messages: u32,
}

/// A host ends idle sessions: none is kept for longer from now on.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct IdleLimitLearned<'a> {
    /// The host.
    pub host: &'a Endpoint,
    /// For how long a connection to it may be idle.
    pub limit: Duration,
}

/// By how much what [`SmtpSender::status`](crate::SmtpSender::status) shows of one host has changed.
///
/// Differences, because threads may tell theirs in another order than that in which they came about: whatever the order, the sum of
/// all is what the status shows once everybody is through. When the pool is shut down all sums come to zero.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LevelsChanged<'a> {
    /// The host.
    pub host: &'a Endpoint,
    /// Idle connections.
    pub idle: i64,
    /// Connections lent to callers, or asked for a sign of life.
    pub leased: i64,
    /// Connections being opened.
    pub connecting: i64,
    /// Whether its state is [`Available`](crate::HostState::Available).
    pub available: i64,
    /// Whether its state is [`CoolingDown`](crate::HostState::CoolingDown).
    pub cooling_down: i64,
    /// Whether its state is [`Probing`](crate::HostState::Probing).
    pub probing: i64,
}

/// By how much the number of callers that wait for a connection has changed. A difference, as in [`LevelsChanged`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WaitersChanged {
    /// How many more, or fewer.
    pub waiting: i64,
}

/// A call for a connection has ended: of a send's attempt, of the replacement of a connection, of
/// [`lease`](crate::SmtpSender::lease), [`verify`](crate::SmtpSender::verify) or [`warm_up`](crate::SmtpSender::warm_up).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AcquireFinished<'a> {
    /// How it ended.
    pub outcome: AcquireOutcome,
    /// How long it took: waiting, and opening a connection where one had to be opened.
    pub waited: Duration,
    /// Where the connection leads, if there is one.
    pub host: Option<&'a Endpoint>,
    /// The pool at the moment of refusal, if there is none.
    pub counts: Option<PoolCounts>,
}

/// How a call for a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcquireOutcome {
    /// With a connection.
    Acquired,
    /// The time was over before one came free.
    Exhausted,
    /// No host could serve in time.
    Unavailable,
    /// This machine ran out of descriptors, ports, buffers or threads.
    LocalShortage,
    /// The caller cancelled.
    Cancelled,
    /// The sender has been shut down.
    Shutdown,
}

/// A lent connection came back, or ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LeaseEnded<'a> {
    /// Where it leads.
    pub host: &'a Endpoint,
    /// The connection's number.
    pub connection_id: u64,
    /// How long it was lent.
    pub duration: Duration,
}

/// A message failed on a connection, and the failure was classified.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttemptFailed<'a> {
    /// Where the connection leads.
    pub host: &'a Endpoint,
    /// The connection's number.
    pub connection_id: u64,
    /// The classifier's judgement.
    pub classification: Classification,
    /// What the server was asked, in this crate's words. Not known of messages over a [`Lease`](crate::Lease).
    pub step: Option<&'static str>,
    /// The code of the reply that decided, if one did.
    pub code: Option<u16>,
    /// Whether the message goes on over a connection in this one's place, within the same attempt.
    pub is_replaced: bool,
}

/// A failed attempt is followed by another one.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SendRetried<'a> {
    /// The host that failed.
    pub host: &'a Endpoint,
    /// Attempts so far.
    pub attempts: u32,
    /// The judgement of the last of them.
    pub classification: Classification,
    /// How long the next one waits; nothing where another host is tried at once.
    pub pause: Duration,
}

/// The last byte of a message had been offered and no decisive answer came: the message may have been delivered.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OutcomeUnknown<'a> {
    /// The host that may have it.
    pub host: &'a Endpoint,
    /// The number of the connection that carried it.
    pub connection_id: u64,
    /// The rule that decided, in a few words.
    pub reason: &'static str,
}

/// A send has ended, whichever way. Of a batch each message is told of once: what the batch tries again after an outage has not ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SendFinished<'a> {
    /// Accepted, or why not.
    pub outcome: Result<(), Classification>,
    /// The host that accepted it, or that the last attempt failed on; none if none was tried.
    pub host: Option<&'a Endpoint>,
    /// Attempts that were begun.
    pub attempts: u32,
    /// How long the call took, waiting included.
    pub elapsed: Duration,
}

/// One of the pool's own threads is not there: what was left to it is done by callers from now on, or later.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ThreadLost<'a> {
    /// Which.
    pub thread: &'static str,
    /// Why.
    pub error: &'a str,
}
