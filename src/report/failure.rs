//! A failure, judged and worded.

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::classify::{Incident, Verdict, classify};
use crate::clock::Deadline;
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::event::{Event, Fault, Interrupt, Step};
use crate::options::AmbiguityBoundary;
use crate::recipient::RecipientOutcome;
use crate::smtp::{Failure, Timeouts};
use crate::stage::SendStage;

/// The limit that a time-out ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// An option, by name, with its value.
    Option(&'static str, Duration),
    /// The deadline of the call.
    CallersDeadline,
    /// What queueing and other hosts had left of the time to get a connection.
    TimeLeft,
}

impl Limit {
    /// The limit on a step of opening a session.
    pub(crate) const fn of_opening(step: Step, timeouts: Timeouts) -> Self {
        match step {
            Step::Credentials | Step::Auth => Self::Option("auth_timeout", timeouts.auth),
            _ => Self::Option("connect_timeout", timeouts.connect),
        }
    }

    /// The limit on a message at a stage.
    pub(crate) fn of_sending(
        stage: SendStage,
        caller: Option<Deadline>,
        send: Duration,
        final_reply: Duration,
    ) -> Self {
        match stage {
            _ if caller.is_some_and(Deadline::is_over) => Self::CallersDeadline,
            SendStage::DataCompleted => Self::Option("final_reply_timeout", final_reply),
            _ => Self::Option("send_timeout", send),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name, value) => write!(f, "{name} is {value:?}"),
            Self::CallersDeadline => f.write_str("the caller's deadline"),
            Self::TimeLeft => f.write_str("the time that was left for this host"),
        }
    }
}

/// A failure with the classifier's judgement.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) failure: Failure,
    pub(crate) verdict: Verdict,
    /// The limit in force where it failed.
    pub(crate) limit: Limit,
}

/// The failure as it is told when a token was cancelled: the connection did not fail, it was cut from our side.
pub(crate) fn interrupted(failure: Failure, caller: Option<&CancelToken>, stop: Option<&CancelToken>) -> Failure {
    let interrupt = match caller {
        Some(caller) if caller.is_cancelled() => Interrupt::Cancelled,
        _ if stop.is_some_and(CancelToken::is_cancelled) => Interrupt::Shutdown,
        _ => return failure,
    };
    match failure.event {
        Event::Transport(step, _) => Failure { event: Event::Interrupted(step, interrupt), ..failure },
        _ => failure,
    }
}

/// The connection that a failure met. The default is one that was being opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Met {
    pub(crate) reused: bool,
    pub(crate) in_step: bool,
    pub(crate) reauthenticated: bool,
}

/// Judges `failure` of a connection.
pub(crate) fn judge(failure: Failure, met: Met, boundary: AmbiguityBoundary, limit: Limit) -> Judged {
    let Met { reused, in_step, reauthenticated } = met;
    let incident = Incident { event: &failure.event, stage: failure.stage, reused, in_step, reauthenticated, boundary };
    let verdict = classify(&incident);
    Judged { failure, verdict, limit }
}

impl fmt::Display for Judged {
    /// What happened, with the limit that was hit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.event.fmt(f)?;
        match self.failure.event {
            Event::Transport(_, Fault::TimedOut) | Event::TooLate | Event::TlsNotReady => {
                write!(f, " ({})", self.limit)
            }
            // Nothing else sets a time for the commit.
            Event::CommitGate => write!(f, " ({})", Limit::CallersDeadline),
            _ => Ok(()),
        }
    }
}

/// The caller's error for a failure on `endpoint`.
pub(crate) fn send_error(judged: Judged, endpoint: Endpoint, recipients: Vec<RecipientOutcome>) -> SendError {
    let what = judged.to_string();
    SendError::new(judged.verdict.classification, what)
        .with_endpoint(Some(endpoint))
        .with_reply(judged.failure.reply)
        .with_recipients(recipients)
        .with_source(judged.failure.source)
}
