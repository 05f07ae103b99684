//! What became of a mail, for browsers and for people.

use std::time::{Duration, Instant};

use smtp_pool::{FailureKind, Receipt, SendError};

/// Status, and how long to wait before asking again.
fn http(result: &Result<Receipt, SendError>) -> (u16, Option<Duration>) {
    let Err(error) = result else { return (202, None) };
    match error.kind() {
        FailureKind::UnknownAfterData => (504, None), // "do not press the button again"
        FailureKind::HostUnavailable => (503, Some(error.retry_after().unwrap_or(Duration::from_secs(30)))),
        FailureKind::PoolExhausted => (503, Some(Duration::from_secs(5))),
        FailureKind::RetryableTemporaryFailure => (503, Some(Duration::from_secs(300))),
        FailureKind::PermanentFailure | FailureKind::ConnectionCorrupted => (502, None),
        // RetryableBeforeSend, Cancelled, Shutdown, and kinds to come.
        _ if error.is_retry_safe() => (503, Some(Duration::from_secs(1))),
        _ => (503, None),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Doubt,
    Bad,
}

pub struct Outcome {
    pub ticket: String,
    pub message_id: String,
    pub at: Instant,
    pub took: Duration,
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// `accepted`, or the kind of the failure, as in the metrics.
    pub kind: &'static str,
    pub stage: &'static str,
    pub attempts: u32,
    pub endpoint: Option<String>,
    /// For the one who sent the mail alone: a server may repeat addresses.
    pub server_said: Option<String>,
    /// For anybody: a trace holds no address and no text of a server.
    pub trace: String,
}

impl Outcome {
    pub fn new(
        ticket: String,
        message_id: String,
        started: Instant,
        at: Instant,
        result: &Result<Receipt, SendError>,
    ) -> Self {
        let (status, retry_after) = http(result);
        let took = at.saturating_duration_since(started);
        let common = |kind, stage, attempts, endpoint, server_said, trace| Self {
            ticket,
            message_id,
            at,
            took,
            status,
            retry_after,
            kind,
            stage,
            attempts,
            endpoint,
            server_said,
            trace,
        };
        match result {
            Ok(receipt) => common(
                "accepted",
                "server_accepted",
                receipt.attempts(),
                Some(receipt.endpoint().to_string()),
                Some(receipt.response().to_string()),
                receipt.trace().to_string(),
            ),
            Err(error) => common(
                error.kind().as_str(),
                error.stage().as_str(),
                error.attempts(),
                error.endpoint().map(ToString::to_string),
                error.response().map(ToString::to_string),
                error.trace().to_string(),
            ),
        }
    }

    /// Whether the same mail may be sent once more. Not if it was accepted, and not if nobody knows.
    pub const fn may_be_sent_again(&self) -> bool {
        !matches!(self.status, 202 | 504)
    }

    pub const fn tone(&self) -> Tone {
        match self.status {
            202 => Tone::Good,
            504 => Tone::Doubt,
            _ => Tone::Bad,
        }
    }

    pub const fn headline(&self) -> &'static str {
        match self.status {
            202 => "On its way",
            504 => "Perhaps sent, perhaps not",
            502 => "Refused",
            _ => "Not sent",
        }
    }

    /// What it means for whoever pressed the button.
    pub fn advice(&self) -> &'static str {
        match self.kind {
            "accepted" => "The relay has taken the mail and is responsible for it now.",
            "unknown_after_data" => {
                "The relay had all of it and did not say whether it took it. Please do not send it again: it may have arrived. \
                 Somebody will look it up by the number below."
            }
            "permanent_failure" => {
                "The relay does not take this mail, now or later. Nothing was sent. Is the address right?"
            }
            "retryable_temporary_failure" => "The relay asks to come back later. Nothing was sent.",
            "pool_exhausted" => "Too much is being sent just now. Nothing of yours was; try again in a moment.",
            "host_unavailable" => "The relay cannot be reached. Nothing was sent.",
            "shutdown" => "This server is being restarted. Nothing was sent; try again in a moment.",
            _ => "It did not work this time. Nothing was sent.",
        }
    }
}

/// Whole seconds, rounded up (RFC 9110 §10.2.3 has no fractions).
pub const fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + if wait.subsec_nanos() > 0 { 1 } else { 0 }
}
