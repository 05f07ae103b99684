//! What a step of a trace can be.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::FailureKind;
use crate::event::{Desync, Event, Fault, Interrupt, Step};
use crate::reply::{EnhancedCode, Reply};
use crate::stage::SendStage;
use crate::stats::DiscardReason;

use super::table::Short;

/// What happened in one step of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// The call stood in the queue for a connection; [`took`](super::TraceStep::took) tells how long.
    #[non_exhaustive]
    Waited {
        /// What ended it.
        outcome: WaitOutcome,
    },
    /// The host was passed over: it failed lately, and no connection to it is opened for so much longer.
    #[non_exhaustive]
    CoolingDown {
        /// What was left of the pause.
        remaining: Duration,
    },
    /// The host was passed over: its pause is over, and one other caller finds out whether it works again.
    Probing,
    /// A connection of the pool was lent.
    #[non_exhaustive]
    Reused {
        /// Its number, as in [`Receipt::connection_id`](crate::Receipt::connection_id).
        connection: u64,
        /// How long nobody had used it.
        idle: Duration,
        /// How many messages it had carried.
        messages: u32,
    },
    /// A connection was opened for this call: name look-up, TCP, TLS, greeting, EHLO, AUTH.
    #[non_exhaustive]
    Connected {
        /// Its number.
        connection: u64,
        /// The version of TLS; none if the connection is not encrypted.
        tls: Option<TlsVersion>,
    },
    /// No connection could be opened. The next step tells what the call did about it.
    #[non_exhaustive]
    ConnectFailed {
        /// Why.
        cause: TraceCause,
    },
    /// The connection was given up, and the call goes on over another one at once; that is no attempt.
    #[non_exhaustive]
    Replaced {
        /// Its number.
        connection: u64,
        /// Why it was given up: [`ServerClosed`](DiscardReason::ServerClosed) if it was stale.
        reason: DiscardReason,
    },
    /// The server refused one recipient.
    #[non_exhaustive]
    RecipientRefused {
        /// Which one of the envelope's, counted from 1.
        number: u32,
        /// The reply code.
        code: u16,
        /// The enhanced status code, if the reply had one.
        enhanced: Option<EnhancedCode>,
    },
    /// The message was not accepted over this connection, or nobody knows.
    #[non_exhaustive]
    SendFailed {
        /// Why.
        cause: TraceCause,
    },
    /// The server accepted the message.
    #[non_exhaustive]
    Accepted {
        /// The reply code.
        code: u16,
        /// The enhanced status code, if the reply had one.
        enhanced: Option<EnhancedCode>,
    },
    /// The pause before the next attempt is over, or was ended early.
    #[non_exhaustive]
    BackedOff {
        /// The number of the attempt that comes now.
        attempt: u32,
    },
    /// The next attempt begins at once, because there is another host.
    #[non_exhaustive]
    FailedOver {
        /// Its number.
        attempt: u32,
    },
    /// The call failed.
    #[non_exhaustive]
    GaveUp {
        /// As in [`SendError::kind`](crate::SendError::kind).
        kind: FailureKind,
        /// As in [`SendError::stage`](crate::SendError::stage).
        stage: SendStage,
    },
}

impl TraceEvent {
    /// The event as a label: `waited`, `reused`, `connect_failed`, …
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waited { .. } => "waited",
            Self::CoolingDown { .. } => "cooling_down",
            Self::Probing => "probing",
            Self::Reused { .. } => "reused",
            Self::Connected { .. } => "connected",
            Self::ConnectFailed { .. } => "connect_failed",
            Self::Replaced { .. } => "replaced",
            Self::RecipientRefused { .. } => "recipient_refused",
            Self::SendFailed { .. } => "send_failed",
            Self::Accepted { .. } => "accepted",
            Self::BackedOff { .. } => "backed_off",
            Self::FailedOver { .. } => "failed_over",
            Self::GaveUp { .. } => "gave_up",
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Waited { outcome } => write!(f, "waited in the queue: {outcome}"),
            Self::CoolingDown { remaining } => write!(f, "passed over, cools down for {} more", Short(remaining)),
            Self::Probing => f.write_str("passed over, another caller tries it"),
            Self::Reused { connection, idle, messages } => {
                write!(f, "reused connection #{connection} (idle {}, {messages} sent)", Short(idle))
            }
            Self::Connected { connection, tls } => {
                match tls {
                    Some(version) => write!(f, "connected over {version}")?,
                    None => f.write_str("connected without TLS")?,
                }
                write!(f, " as connection #{connection}")
            }
            Self::ConnectFailed { cause } => write!(f, "no connection: {cause}"),
            Self::Replaced { connection, reason } => write!(f, "replaced connection #{connection} ({reason})"),
            Self::RecipientRefused { number, code, enhanced } => {
                write!(f, "RCPT #{number} → {code}")?;
                write_enhanced(enhanced, f)
            }
            Self::SendFailed { cause } => cause.fmt(f),
            Self::Accepted { code, enhanced } => {
                write!(f, "accepted: {code}")?;
                write_enhanced(enhanced, f)
            }
            Self::BackedOff { attempt } => write!(f, "paused before attempt {attempt}"),
            Self::FailedOver { attempt } => write!(f, "attempt {attempt} at once, on another host"),
            Self::GaveUp { kind, stage } => write!(f, "gave up {stage}: {kind}"),
        }
    }
}

fn write_enhanced(enhanced: Option<EnhancedCode>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match enhanced {
        Some(enhanced) => write!(f, " {enhanced}"),
        None => Ok(()),
    }
}

/// What ended the wait for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitOutcome {
    /// Somebody gave a connection back, and it was handed over.
    Connection,
    /// A place came free, and with it the permission to open a connection.
    Permission,
    /// The time to get a connection was over.
    TimedOut,
    /// No host could serve in time any more.
    Unavailable,
    /// The caller cancelled.
    Cancelled,
    /// The sender was shut down.
    Shutdown,
}

impl WaitOutcome {
    /// The outcome as a label: `connection`, `permission`, `timed_out`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Permission => "permission",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for WaitOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "handed a connection",
            Self::Permission => "may open a connection",
            Self::TimedOut => "the time to get a connection was over",
            Self::Unavailable => "no host can serve in time",
            Self::Cancelled => "cancelled",
            Self::Shutdown => "shut down",
        })
    }
}

/// The version of TLS that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 ([RFC 5246](https://www.rfc-editor.org/rfc/rfc5246)).
    Tls12,
    /// TLS 1.3 ([RFC 8446](https://www.rfc-editor.org/rfc/rfc8446)).
    Tls13,
    /// Some version that was not recognised.
    Unknown,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
            Self::Unknown => "TLS",
        })
    }
}

/// Why a step failed: what happened, and in which part of the dialogue. Codes of the server's, never its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceCause {
    event: Event,
    code: Option<u16>,
    enhanced: Option<EnhancedCode>,
    recipient: Option<NonZeroU32>,
}

impl TraceCause {
    /// `recipient` is the number of the one that it is about, where it is about one.
    pub(crate) fn of(event: Event, reply: Option<&Reply>, recipient: Option<u32>) -> Self {
        let code = match event {
            Event::Reply(_, code) | Event::OutOfStep(_, Desync::WrongClass(code)) => Some(code),
            _ => reply.map(Reply::code),
        };
        let recipient = recipient.and_then(NonZeroU32::new);
        Self { event, code, enhanced: reply.and_then(Reply::enhanced_code), recipient }
    }

    /// What happened, as a label: `refused`, `timed_out`, `closed`, `cancelled`, `commit_gate`, …
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self.event {
            Event::Transport(_, Fault::TimedOut) => "timed_out",
            Event::Transport(_, Fault::Closed) => "closed",
            Event::Transport(_, Fault::Broken) => "broken",
            Event::Transport(_, Fault::Certificate) => "certificate",
            Event::Transport(_, Fault::LocalShortage) => "local_shortage",
            Event::Reply(..) => "refused",
            Event::OutOfStep(..) => "out_of_step",
            Event::InjectedPlaintext => "injected_plaintext",
            Event::Policy(_) => "policy",
            Event::Inadmissible(_) => "inadmissible",
            Event::CommitGate => "commit_gate",
            Event::TooLate => "too_late",
            Event::TlsNotReady => "tls_not_ready",
            Event::TooManyRecipients => "too_many_recipients",
            Event::BdatNotKnown => "bdat_not_known",
            Event::ResolverBusy => "resolver_busy",
            Event::NoCredentials(_) => "no_credentials",
            Event::Rotated => "credentials_rotated",
            Event::Spent => "spent",
            Event::Interrupted(_, Interrupt::Cancelled) => "cancelled",
            Event::Interrupted(_, Interrupt::Shutdown) => "shutdown",
        }
    }

    /// The part of the dialogue, as a label: `credentials`, `resolve`, `connect`, `tls`, `greeting`, `ehlo`, `starttls`, `auth`, `rset`, `noop`,
    /// `mail`, `rcpt`, `data`, `content`, `end_of_data`.
    #[must_use]
    pub const fn during(&self) -> &'static str {
        match self.event.step() {
            Step::Credentials => "credentials",
            Step::Resolve => "resolve",
            Step::Connect => "connect",
            Step::TlsHandshake => "tls",
            Step::Greeting => "greeting",
            Step::Ehlo => "ehlo",
            Step::StartTls => "starttls",
            Step::Auth => "auth",
            Step::Rset => "rset",
            Step::Noop => "noop",
            Step::Mail => "mail",
            Step::Rcpt => "rcpt",
            Step::Data => "data",
            Step::Content => "content",
            Step::EndOfData => "end_of_data",
        }
    }

    /// The reply code that decided, if one did.
    #[must_use]
    pub const fn code(&self) -> Option<u16> {
        self.code
    }

    /// The enhanced status code of that reply, if it had one.
    #[must_use]
    pub const fn enhanced_code(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The recipient of the envelope that it was about, counted from 1.
    #[must_use]
    pub fn recipient(&self) -> Option<u32> {
        self.recipient.map(NonZeroU32::get)
    }
}

impl fmt::Display for TraceCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event::Reply(step, code) = self.event else {
            self.event.fmt(f)?;
            return match (self.recipient, self.code, self.event) {
                (Some(number), ..) => write!(f, " #{number}"),
                (_, Some(code), Event::TooManyRecipients | Event::BdatNotKnown) => {
                    write!(f, ": {code}")?;
                    write_enhanced(self.enhanced, f)
                }
                _ => Ok(()),
            };
        };
        f.write_str(match step {
            Step::Greeting => "greeting",
            Step::EndOfData => "last byte",
            Step::Content => "content",
            Step::Credentials | Step::Resolve | Step::Connect | Step::TlsHandshake => "session",
            Step::Ehlo => "EHLO",
            Step::StartTls => "STARTTLS",
            Step::Auth => "AUTH",
            Step::Rset => "RSET",
            Step::Noop => "NOOP",
            Step::Mail => "MAIL",
            Step::Rcpt => "RCPT",
            Step::Data => "DATA",
        })?;
        if let Some(number) = self.recipient {
            write!(f, " #{number}")?;
        }
        write!(f, " → {code}")?;
        write_enhanced(self.enhanced, f)
    }
}
