//! What every case is held to: the kind, the stage, the time it took, whom it speaks against, and that nothing is left of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use smtp_pool::{FailureKind, HostState, SendError, SendStage, SmtpSender};

use super::common::*;

pub use FailureKind::{
    HostUnavailable as HU, PermanentFailure as PF, RetryableBeforeSend as RB, UnknownAfterData as UD,
};
pub use SendStage::{
    BeforeConnect as S0, Connected as S1, DataCompleted as S5, DataStarted as S4, EnvelopeStarted as S3,
};

/// What a call that has nothing to wait for may take on a busy machine; every timer is longer.
pub const AT_ONCE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);

/// A call that ends at this timer, and not at one of the others, which are ten seconds. How exactly is what `tests/deadline.rs` asks.
pub fn at(timer: Duration) -> RangeInclusive<Duration> {
    // A part of it a busy machine may have eaten before the wait began.
    timer * 8 / 10..=timer + *AT_ONCE.end()
}

/// By how much calls of a crowd were late. On a busy machine some of their threads are, by as long as nothing else here takes; where a
/// bound is not kept, most of them are.
#[track_caller]
pub fn mostly_on_time(mut late: Vec<Duration>) {
    late.sort_unstable();
    assert!(late[late.len() / 2] <= SLACK && late[late.len() - 1] <= *AT_ONCE.end(), "late by {late:?}");
}

/// Sends `content`, which must fail so and in that time. Every place is back afterwards.
#[track_caller]
pub fn fails(
    sender: &SmtpSender,
    content: &[u8],
    (kind, stage): (FailureKind, SendStage),
    time: RangeInclusive<Duration>,
) -> SendError {
    let start = now();
    let result = sender.send_raw(&envelope(1), content);
    let took = now() - start;
    let error = result.expect_err("there is a fault");
    assert_eq!((error.kind(), error.stage()), (kind, stage), "{error}");
    assert!(time.contains(&took), "it took {took:?}, not {time:?}: {error}");
    assert_eq!(error.is_retry_safe(), !matches!(kind, UD | PF), "{error}");
    at_rest(sender);
    error
}

#[track_caller]
pub fn at_rest(sender: &SmtpSender) {
    eventually("every place is back", || is_at_rest(sender));
}

/// Whether opening connections has failed of late, by the host's fault.
#[track_caller]
pub fn blamed(sender: &SmtpSender) {
    let host = &sender.status().hosts[0];
    assert!(host.consecutive_failures > 0 && host.state != HostState::Probing, "{host:?}");
}

/// The host is as good as before.
#[track_caller]
pub fn not_blamed(sender: &SmtpSender) {
    let host = &sender.status().hosts[0];
    assert_eq!((host.consecutive_failures, host.state), (0, HostState::Available), "{host:?}");
}

/// With the fault gone, mail flows; the pause that a failure called for may have to end first.
#[track_caller]
pub fn recovers(sender: &SmtpSender, mut accepted: impl FnMut(&str) -> usize) {
    let id = "after@the.fault";
    let before = accepted(id);
    let mut last = None;
    eventually("mail flows again", || match send(sender, id) {
        Ok(_) => true,
        Err(error) => {
            assert_ne!(error.kind(), UD, "{error}");
            last = Some(error);
            false
        }
    });
    assert_eq!(accepted(id), before + 1, "{last:?}");
    at_rest(sender);
    not_blamed(sender);
}
