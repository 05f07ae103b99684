//! What observers are told of sends.

use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Classification, FailureKind, SendError};
use crate::observer::{AttemptFailed, Observers, OutcomeUnknown, SendFinished, SendRetried};
use crate::report::Receipt;

/// A message failed on a connection.
pub(super) fn tell_attempt_failed(observers: &Observers, event: &AttemptFailed<'_>) {
    observers.tell(|observer| observer.attempt_failed(event));
    let AttemptFailed { host, connection_id, classification: Classification { kind, reason, .. }, .. } = *event;
    // It is never tried again, so that this is told once of a message.
    if kind == FailureKind::UnknownAfterData {
        let event = OutcomeUnknown { host, connection_id, reason };
        observers.tell(|observer| observer.outcome_unknown(&event));
    }
}

/// An attempt failed, and another one follows.
pub(super) fn tell_retry(observers: &Observers, error: &SendError, pause: Duration) {
    let Some(host) = error.endpoint() else { return };
    let event = SendRetried { host, attempts: error.attempts(), classification: error.classification(), pause };
    observers.tell(|observer| observer.send_retried(&event));
}

/// A call that began then has come to its end.
pub(super) fn tell_end(observers: &Observers, started: Instant, result: &Result<Receipt, SendError>) {
    if !observers.are_there() {
        return;
    }
    let event = match result {
        Ok(receipt) => SendFinished {
            outcome: Ok(()),
            host: Some(receipt.endpoint()),
            attempts: receipt.attempts(),
            elapsed: receipt.elapsed(),
        },
        Err(error) => SendFinished {
            outcome: Err(error.classification()),
            host: error.endpoint(),
            attempts: error.attempts(),
            elapsed: clock::now().saturating_duration_since(started),
        },
    };
    observers.tell_registered(|observer| observer.send_finished(&event));
}
