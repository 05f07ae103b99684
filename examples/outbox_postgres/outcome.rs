//! What came of a mail: the crate's answer, in the words of the outbox. Pure.

use std::time::Duration;

use smtp_pool::{FailureKind, Receipt, SendError, SendStage};

/// The pause after a failure doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What to write into the row.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server has it.
    Sent { relay: String, reply: String },
    /// No server has it, and it may be tried again after `pause`.
    Queued { pause: Duration, notes: Notes },
    /// No server has it, and the same again would be refused again.
    Refused(Notes),
    /// A server may have it.
    Unknown(Notes),
}

/// What is known of a failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notes {
    relay: Option<String>,
    reply: Option<String>,
    reason: String,
    trace: Option<String>,
}

impl Outcome {
    /// `attempts` counts those of this mail; the pause after the first of them is `first_pause`, and doubles.
    pub fn of(result: &Result<Receipt, SendError>, attempts: i32, first_pause: Duration) -> Self {
        let error = match result {
            Ok(receipt) => {
                return Self::Sent { relay: receipt.endpoint().to_string(), reply: receipt.response().to_string() };
            }
            Err(error) => error,
        };
        let notes = Notes::of(error);
        match error.kind() {
            FailureKind::UnknownAfterData => Self::Unknown(notes),
            FailureKind::PermanentFailure if !is_about_the_session(error) => Self::Refused(notes),
            // Cut short by this worker's own end.
            FailureKind::Shutdown | FailureKind::Cancelled => Self::Queued { pause: Duration::ZERO, notes },
            // Every other kind, those to come included, says that no server has accepted the mail.
            _ => {
                let pause = rest_after(error, first_pause).unwrap_or_else(|| {
                    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
                    (first_pause * (1 << doublings)).min(LONGEST_PAUSE.max(first_pause))
                });
                Self::Queued { pause, notes }
            }
        }
    }

    /// For a row that is no mail.
    pub fn malformed(what: &dyn std::error::Error) -> Self {
        Self::Refused(Notes { reason: what.to_string(), ..Notes::default() })
    }

    /// The state, and the pause before it is due again.
    pub const fn state(&self) -> (&'static str, Duration) {
        match self {
            Self::Sent { .. } => ("sent", Duration::ZERO),
            Self::Queued { pause, .. } => ("queued", *pause),
            Self::Refused(_) => ("refused", Duration::ZERO),
            Self::Unknown(_) => ("unknown", Duration::ZERO),
        }
    }
}

/// What is written beside the state.
impl Outcome {
    pub fn relay(&self) -> Option<&str> {
        match self {
            Self::Sent { relay, .. } => Some(relay),
            _ => self.notes()?.relay.as_deref(),
        }
    }

    pub fn reply(&self) -> Option<&str> {
        match self {
            Self::Sent { reply, .. } => Some(reply),
            _ => self.notes()?.reply.as_deref(),
        }
    }

    pub fn reason(&self) -> Option<&str> {
        Some(&self.notes()?.reason)
    }

    pub fn trace(&self) -> Option<&str> {
        self.notes()?.trace.as_deref()
    }

    const fn notes(&self) -> Option<&Notes> {
        match self {
            Self::Sent { .. } => None,
            Self::Queued { notes, .. } | Self::Refused(notes) | Self::Unknown(notes) => Some(notes),
        }
    }
}

impl Notes {
    fn of(error: &SendError) -> Self {
        let class = error.classification();
        Self {
            relay: error.endpoint().map(ToString::to_string),
            reply: error.response().map(ToString::to_string),
            reason: format!("{}, {}: {}", class.kind.as_str(), class.stage, class.reason),
            trace: Some(error.trace().to_string()),
        }
    }
}

/// How long to leave the relay alone after this failure, if it is one that the next mail would meet as well. Without such a rest an outage
/// would have every mail of the outbox claimed and put back, over and over.
pub fn rest_after(error: &SendError, first_pause: Duration) -> Option<Duration> {
    match error.kind() {
        FailureKind::HostUnavailable | FailureKind::PoolExhausted => {
            Some(error.retry_after().unwrap_or(first_pause).max(first_pause))
        }
        FailureKind::PermanentFailure if is_about_the_session(error) => Some(first_pause),
        _ => None,
    }
}

/// A wrong password or an expired certificate refuses every mail for good, and no mail is to blame: the outbox waits until it is mended.
/// A mail that is refused before a byte of it leaves costs no connection, and a refused session does.
fn is_about_the_session(error: &SendError) -> bool {
    let class = error.classification();
    let is_no_session = class.stage < SendStage::EnvelopeStarted && class.discard_connection;
    // RFC 4954 §6: authentication required.
    is_no_session || error.response().is_some_and(|reply| reply.code() == 530)
}
