//! A failure, judged and worded.

use std::fmt;
use std::time::Duration;

use crate::classify::{Incident, Verdict, classify};
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::event::{Event, Fault};
use crate::options::AmbiguityBoundary;
use crate::recipient::RecipientOutcome;
use crate::smtp::Failure;

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

/// Judges `failure` of a connection.
pub(crate) fn judge(
    failure: Failure,
    reused: bool,
    in_step: bool,
    reauthenticated: bool,
    boundary: AmbiguityBoundary,
    limit: Limit,
) -> Judged {
    let incident = Incident { event: &failure.event, stage: failure.stage, reused, in_step, reauthenticated, boundary };
    let verdict = classify(&incident);
    Judged { failure, verdict, limit }
}

impl fmt::Display for Judged {
    /// What happened, with the limit that was hit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.event.fmt(f)?;
        if matches!(self.failure.event, Event::Transport(_, Fault::TimedOut)) {
            write!(f, " ({})", self.limit)?;
        }
        Ok(())
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
