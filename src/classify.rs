//! What happened, at which stage, on what kind of connection → what it means for the message, the connection and the host.
//!
//! One pure table; nothing else in the crate decides whether a message may have been accepted.

use crate::blame::Blame;
use crate::error::{Classification, FailureKind};
use crate::event::{Desync, Event, Fault, Interrupt, Policy, Step};
use crate::options::AmbiguityBoundary;
use crate::stage::SendStage;

/// What to judge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incident<'a> {
    pub(crate) event: &'a Event,
    pub(crate) stage: SendStage,
    /// Whether the connection had been idle in the pool: then its end may just be news of what happened meanwhile.
    pub(crate) reused: bool,
    /// Whether every command has had its reply: only then can the connection stay.
    pub(crate) in_step: bool,
    /// Whether this message has already had its fresh login.
    pub(crate) reauthenticated: bool,
    pub(crate) boundary: AmbiguityBoundary,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ConnectionFate {
    /// It stays; after a refusal it owes RSET.
    Keep,
    /// It is closed with QUIT.
    Discard,
    /// It is cut: not another byte, not even QUIT.
    Abort,
}

/// Whether another connection should be tried for the same message at once, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FreshTry {
    /// No.
    No,
    /// The connection had ended while it was idle. Free of the retry budget.
    Stale,
    /// The session may have reached a limit of its own. Free of the retry budget.
    SessionLimit,
    /// The server wants a new login. Free of the retry budget.
    Reauthenticate,
    /// The server does not know BDAT, which a fresh connection is not asked for. Free of the retry budget.
    WithoutBdat,
    /// The replies made no sense: within the retry budget, but never on a pooled connection.
    FreshOnly,
}

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) classification: Classification,
    pub(crate) connection: ConnectionFate,
    pub(crate) blame: Blame,
    pub(crate) fresh_try: FreshTry,
}

use ConnectionFate::{Abort, Discard, Keep};
use FailureKind::{
    Cancelled, ConnectionCorrupted, HostUnavailable, PermanentFailure, RetryableBeforeSend, RetryableTemporaryFailure,
    Shutdown, UnknownAfterData,
};

/// Judges one incident.
pub(crate) fn classify(incident: &Incident<'_>) -> Verdict {
    let stage = incident.stage;
    let row = row(incident);
    let is_unknown = row.kind == UnknownAfterData;
    let Row { kind, retry, connection, blame, fresh_try, reason } = row;
    // A server may refuse and hang up before it has answered the rest.
    let connection = if connection == Keep && !incident.in_step { Abort } else { connection };
    debug_assert!(!(is_unknown && retry), "an unknown outcome is never retried");
    let classification =
        Classification { kind, stage, retry_allowed: retry, discard_connection: connection != Keep, reason };
    Verdict { classification, connection, blame, fresh_try }
}

/// One line of the table.
struct Row {
    kind: FailureKind,
    retry: bool,
    connection: ConnectionFate,
    blame: Blame,
    fresh_try: FreshTry,
    reason: &'static str,
}

impl Row {
    const fn new(kind: FailureKind, connection: ConnectionFate, reason: &'static str) -> Self {
        let retry = !matches!(kind, PermanentFailure | UnknownAfterData);
        Self { kind, retry, connection, blame: Blame::Nobody, fresh_try: FreshTry::No, reason }
    }

    const fn blame(mut self, blame: Blame) -> Self {
        self.blame = blame;
        self
    }

    const fn no_retry(mut self) -> Self {
        self.retry = false;
        self
    }

    const fn fresh(mut self, fresh_try: FreshTry) -> Self {
        self.fresh_try = fresh_try;
        self
    }
}

fn row(incident: &Incident<'_>) -> Row {
    match incident.event {
        Event::Inadmissible(_) => Row::new(PermanentFailure, Keep, "refused here, before any byte of it left"),
        Event::Policy(policy) => Row::new(PermanentFailure, Discard, policy_reason(*policy)).blame(Blame::Host),
        Event::InjectedPlaintext => {
            Row::new(ConnectionCorrupted, Abort, "plaintext behind the reply to STARTTLS").no_retry().blame(Blame::Host)
        }
        // The supplier and what it asks are the program's own, and the message has not left. But without credentials there is no
        // connection to this host, whoever is at fault: a pause keeps everybody from asking for them over and over, and hosts that
        // want others are used meanwhile.
        Event::NoCredentials(_) => {
            Row::new(HostUnavailable, Discard, "the supplier gave no credentials").blame(Blame::Host)
        }
        Event::Transport(Step::Credentials, Fault::TimedOut) => {
            Row::new(HostUnavailable, Abort, "the supplier gave no credentials in time").blame(Blame::Host)
        }
        Event::Rotated => Row::new(RetryableBeforeSend, Discard, "the credentials were rotated"),
        Event::Spent => Row::new(RetryableBeforeSend, Abort, "the connection had failed before"),
        Event::TooLate => Row::new(RetryableBeforeSend, Keep, "the time was over before the first command"),
        Event::TlsNotReady => Row::new(RetryableBeforeSend, Keep, "the time was over before TLS could be begun"),
        Event::Interrupted(_, interrupt) if !incident.stage.is_acceptance_unknown() => {
            may_be_delivered_cut_short(incident).unwrap_or_else(|| match interrupt {
                Interrupt::Cancelled => Row::new(Cancelled, Abort, "cancelled by the caller"),
                Interrupt::Shutdown => Row::new(Shutdown, Abort, "cut by shutdown").no_retry(),
            })
        }
        Event::ResolverBusy => {
            Row::new(HostUnavailable, Abort, "too many name look-ups hang already").blame(Blame::Nobody)
        }
        Event::CommitGate => may_be_delivered_cut_short(incident)
            .unwrap_or_else(|| Row::new(RetryableBeforeSend, Abort, "too little time was left for the last byte")),
        Event::TooManyRecipients => Row::new(RetryableTemporaryFailure, Keep, "too many recipients for one message"),
        Event::Transport(step, fault) if is_opening(*step) => opening_failed(*fault),
        Event::Reply(step, code) if is_opening(*step) => opening_refused(*step, *code),
        Event::OutOfStep(step, desync) if is_opening(*step) => opening_out_of_step(*step, *desync),
        Event::Reply(Step::EndOfData, code) => refused_after_last_byte(*code),
        Event::BdatNotKnown => Row::new(RetryableBeforeSend, Abort, "BDAT is offered and not known; DATA will do")
            .fresh(FreshTry::WithoutBdat),
        // Wherever the last byte was by then: without a sender or a recipient there is nothing to accept.
        Event::Reply(step @ (Step::Mail | Step::Rcpt), code @ 400..) => refused(incident, *step, *code),
        _ if incident.stage.is_acceptance_unknown() => {
            Row::new(UnknownAfterData, Abort, "no decisive answer to the last byte")
        }
        // Cancelling cannot recall a message; the row above this one has it.
        Event::Interrupted(..) => Row::new(UnknownAfterData, Abort, "no decisive answer to the last byte"),
        Event::Reply(step, code) => refused(incident, *step, *code),
        Event::Transport(_, fault) => broke_off(incident, *fault),
        Event::OutOfStep(..) => may_be_delivered_cut_short(incident).unwrap_or_else(|| {
            Row::new(ConnectionCorrupted, Abort, "the replies were out of step").fresh(FreshTry::FreshOnly)
        }),
    }
}

const fn is_opening(step: Step) -> bool {
    matches!(
        step,
        Step::Credentials
            | Step::Resolve
            | Step::Connect
            | Step::TlsHandshake
            | Step::Greeting
            | Step::Ehlo
            | Step::StartTls
            | Step::Auth
    )
}

const fn policy_reason(policy: Policy) -> &'static str {
    match policy {
        Policy::StartTlsNotOffered => "TLS is required and not offered",
        Policy::NoCommonMechanism => "no AUTH mechanism in common",
        Policy::PlaintextAuth => "credentials are not sent in the clear",
    }
}

/// The transport failed while a session was being opened.
const fn opening_failed(fault: Fault) -> Row {
    match fault {
        Fault::LocalShortage => {
            Row::new(RetryableBeforeSend, Abort, "this machine ran out of a resource").blame(Blame::Local)
        }
        Fault::Certificate => Row::new(PermanentFailure, Abort, "the certificate was not accepted").blame(Blame::Host),
        Fault::TimedOut => Row::new(HostUnavailable, Abort, "the host did not answer in time").blame(Blame::Host),
        Fault::Closed | Fault::Broken => {
            Row::new(HostUnavailable, Abort, "no session with the host came about").blame(Blame::Host)
        }
    }
}

/// The server refused a session.
const fn opening_refused(step: Step, code: u16) -> Row {
    match (step, code) {
        // RFC 4954 §6; Exchange Online says 432 for too many connections. With others alive the pool waits for one of them.
        (Step::Auth, 432 | 454) => {
            Row::new(RetryableTemporaryFailure, Discard, "AUTH was refused for now").blame(Blame::Capacity)
        }
        (Step::Greeting, 421 | 432 | 454) | (Step::Auth, 421) => {
            Row::new(HostUnavailable, Discard, "the server takes no more connections now").blame(Blame::Capacity)
        }
        (Step::Auth, 400..500) => {
            Row::new(RetryableTemporaryFailure, Discard, "AUTH was refused for now").blame(Blame::Host)
        }
        // Trying again locks accounts.
        (Step::Auth, 500..) => Row::new(PermanentFailure, Discard, "AUTH was refused").blame(Blame::Credentials),
        (Step::StartTls, 400..500) => {
            Row::new(RetryableTemporaryFailure, Discard, "STARTTLS was refused for now").blame(Blame::Host)
        }
        (Step::StartTls, 500..) => {
            Row::new(PermanentFailure, Discard, "TLS is required and was refused").blame(Blame::Host)
        }
        (Step::Ehlo, 500..) => {
            Row::new(PermanentFailure, Discard, "the server does not speak ESMTP").blame(Blame::Host)
        }
        // RFC 5321 §3.1, RFC 7504: about the host, not about the message.
        (Step::Greeting, 500..) => {
            Row::new(HostUnavailable, Discard, "the host does not take mail").blame(Blame::HostForLong)
        }
        _ => Row::new(HostUnavailable, Discard, "the server refused the session for now").blame(Blame::Host),
    }
}

/// The server's replies made no sense while a session was being opened.
const fn opening_out_of_step(step: Step, desync: Desync) -> Row {
    match (step, desync) {
        (Step::Auth, Desync::EndlessChallenges) => {
            Row::new(ConnectionCorrupted, Abort, "AUTH goes on without end").no_retry().blame(Blame::Host)
        }
        _ => Row::new(HostUnavailable, Abort, "the host does not speak SMTP").blame(Blame::Host),
    }
}

/// A complete refusal of the whole message: the server must not deliver it
/// ([RFC 5321 §4.2.5](https://www.rfc-editor.org/rfc/rfc5321#section-4.2.5)).
const fn refused_after_last_byte(code: u16) -> Row {
    match code {
        421 => Row::new(RetryableTemporaryFailure, Discard, "refused for now after the last byte, and closing"),
        400..500 => Row::new(RetryableTemporaryFailure, Keep, "refused for now after the last byte"),
        500.. => Row::new(PermanentFailure, Keep, "refused after the last byte"),
        // Not a refusal at all.
        _ => Row::new(UnknownAfterData, Abort, "no decisive answer to the last byte"),
    }
}

/// A complete reply other than success, before the last byte.
fn refused(incident: &Incident<'_>, step: Step, code: u16) -> Row {
    let stale = if incident.reused { FreshTry::Stale } else { FreshTry::No };
    match (step, code) {
        (Step::Content, 400..500) => {
            Row::new(RetryableTemporaryFailure, Abort, "refused for now in the middle of the content")
        }
        (Step::Content, 500..) => Row::new(PermanentFailure, Abort, "refused in the middle of the content"),
        (_, 421) if incident.reused => Row::new(RetryableBeforeSend, Discard, "the server was closing").fresh(stale),
        (_, 421) => Row::new(RetryableTemporaryFailure, Discard, "the server is closing"),
        (_, 221) => Row::new(RetryableBeforeSend, Discard, "the server was closing").fresh(stale),
        (Step::Rset | Step::Noop, _) => Row::new(RetryableBeforeSend, Discard, "RSET was refused").fresh(stale),
        (Step::Mail, 530) if incident.reauthenticated => {
            Row::new(PermanentFailure, Discard, "authentication is required").blame(Blame::Credentials)
        }
        (Step::Mail, 530) => {
            Row::new(RetryableBeforeSend, Discard, "authentication is required again").fresh(FreshTry::Reauthenticate)
        }
        (Step::Mail, 400..500) if incident.reused => {
            Row::new(RetryableTemporaryFailure, Keep, "MAIL was refused for now").fresh(FreshTry::SessionLimit)
        }
        (_, 400..500) => Row::new(RetryableTemporaryFailure, Keep, "refused for now"),
        _ => Row::new(PermanentFailure, Keep, "refused"),
    }
}

/// The transport failed before the last byte was offered.
fn broke_off(incident: &Incident<'_>, fault: Fault) -> Row {
    if let Some(row) = may_be_delivered_cut_short(incident) {
        return row;
    }
    let row = Row::new(RetryableBeforeSend, Abort, "the connection failed before the last byte");
    // A server that lets a reused connection time out is slow, not gone.
    if incident.reused && fault != Fault::TimedOut { row.fresh(FreshTry::Stale) } else { row }
}

/// For relays that may deliver a message cut short: from the first byte of content on, only a decisive answer tells.
fn may_be_delivered_cut_short(incident: &Incident<'_>) -> Option<Row> {
    let is_distrusted = incident.boundary == AmbiguityBoundary::DataStarted && incident.stage >= SendStage::DataStarted;
    is_distrusted
        .then(|| Row::new(UnknownAfterData, Abort, "the content had begun, and the relay may deliver it cut short"))
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
