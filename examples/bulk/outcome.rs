//! What came of a mail: the crate's answer, in the words of the resume file. Pure.

use smtp_pool::{FailureKind, Receipt, SendError, SendStage};

/// A recipient's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A server may have it, because its outcome has not been written yet.
    Begun,
    /// A server has it.
    Sent,
    /// No server has it, and the same again would be refused again.
    Refused,
    /// No server has it, and the next run may try again.
    Later,
    /// A server may have it.
    Unknown,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Begun, Self::Sent, Self::Refused, Self::Later, Self::Unknown];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Later => "later",
            Self::Unknown => "unknown",
        }
    }

    pub const fn may_be_sent(self) -> bool {
        matches!(self, Self::Later)
    }
}

/// The state, and what to write beside it.
pub fn of(result: &Result<Receipt, SendError>) -> (State, String) {
    match result {
        Ok(receipt) => (State::Sent, format!("{}: {}", receipt.endpoint(), receipt.response())),
        Err(error) => {
            let state = match error.kind() {
                FailureKind::UnknownAfterData => State::Unknown,
                FailureKind::PermanentFailure if !is_about_the_session(error) => State::Refused,
                // Every other kind, those to come included, says that no server has accepted the mail.
                _ => State::Later,
            };
            (state, error.to_string())
        }
    }
}

/// For somebody who watches: what the server said, or else what kind of failure it was.
pub fn in_short(error: &SendError) -> String {
    error.response().map_or_else(|| error.kind().to_string(), ToString::to_string)
}

/// Whether the next mail would fail in the same way, so that it is better to stop.
pub fn ends_the_run(error: &SendError) -> bool {
    match error.kind() {
        // The batch has waited for an outage to end already.
        FailureKind::HostUnavailable | FailureKind::Shutdown | FailureKind::Cancelled => true,
        FailureKind::PermanentFailure => is_about_the_session(error),
        _ => false,
    }
}

/// A wrong password or an expired certificate refuses every mail for good, and no mail is to blame. A mail that is refused before a byte
/// of it leaves costs no connection, and a refused session does.
fn is_about_the_session(error: &SendError) -> bool {
    let class = error.classification();
    let is_no_session = class.stage < SendStage::EnvelopeStarted && class.discard_connection;
    // RFC 4954 §6: authentication required.
    is_no_session || error.response().is_some_and(|reply| reply.code() == 530)
}
