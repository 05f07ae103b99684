//! The loop around attempts: how many, on which host, after what pause.

use std::time::{Duration, Instant};

use lettre::address::Envelope;

use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::error::{FailureKind, SendError};
use crate::options::{Backoff, PoolOptions, SendOptions};
use crate::pool::HostSet;
use crate::report::{Parts, Receipt};
use crate::smtp::Mail;
use crate::stage::SendStage;
use crate::stats::HostState;
use crate::trace::{Recorder, TraceEvent};

use super::Inner;
use super::acquisition::{Acquisition, Failed, Retry};
use super::attempt::Call;
use super::news::tell_retry;

/// Sends one message, in as many transactions as its recipients take. Observers are not told of its end.
pub(super) fn run(
    acquisition: Acquisition<'_>,
    envelope: &Envelope,
    content: &[u8],
    options: &SendOptions,
) -> Result<Receipt, SendError> {
    let Acquisition { inner, started, .. } = acquisition;
    let mut trace = Recorder::new(started);
    match in_parts(acquisition, envelope, content, options, &mut trace) {
        Ok(receipt) => Ok(receipt.with_trace(trace.finish(inner.pool.connector().hosts()))),
        Err(error) => Err(end(trace, inner, error)),
    }
}

/// The error of a call that has failed now, with its trace.
pub(super) fn end(trace: Recorder, inner: &Inner, error: SendError) -> SendError {
    trace.gave_up(clock::now(), error, inner.pool.connector().hosts())
}

fn in_parts(
    acquisition: Acquisition<'_>,
    envelope: &Envelope,
    content: &[u8],
    options: &SendOptions,
    trace: &mut Recorder,
) -> Result<Receipt, SendError> {
    let (policy, dsn) = (options.recipients, options.dsn.as_ref());
    // Looked at before a connection is taken, which others may be waiting for.
    let content = content.into();
    let mut parts = Parts::new(envelope, policy);
    let mut now = acquisition.started;
    while let Some(to) = parts.next() {
        trace.offering(parts.places());
        let call = Call { acquisition, mail: Mail { envelope, to: &to, content, policy, dsn } };
        match deliver(&call, now, trace) {
            Ok(receipt) => parts.accepted(receipt),
            Err(failed) => parts.failed(failed.error, failed.offered_to),
        }
        if !parts.is_over() {
            now = clock::now();
        }
    }
    parts.finish()
}

/// One transaction, with as many attempts as its failures and the options allow.
fn deliver(call: &Call<'_>, mut now: Instant, trace: &mut Recorder) -> Result<Receipt, Failed> {
    let Acquisition { inner, caller, cancel, .. } = call.acquisition;
    let mut avoid = HostSet::default();
    let mut fresh = false;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let failed = match call.attempt(now, &avoid, fresh, trace) {
            Ok(receipt) => return Ok(receipt.with_attempts(attempts)),
            Err(failed) => failed,
        };
        if attempts > 1 && has_not_begun(&failed.error) {
            return Err(Failed { error: failed.error.with_attempts(attempts - 1), ..failed });
        }
        let failed = Failed { error: failed.error.with_attempts(attempts), ..failed };
        // Replies out of step on a fresh connection too are no accident of that connection: once is all.
        let is_hopeless = |retry: &Retry| retry.fresh && fresh;
        let retry = failed.retry.filter(|retry| attempts <= inner.options.max_retries && !is_hopeless(retry));
        let Some(retry) = retry else { return Err(failed) };
        avoid.insert(retry.host);
        fresh = retry.fresh;
        if has_other_host(inner, &avoid) {
            tell_retry(&inner.observers, &failed.error, Duration::ZERO);
            now = clock::now();
            trace.step(now, None, None, TraceEvent::FailedOver { attempt: attempts + 1 });
        } else {
            let pause = delay(&inner.options, attempts, fastrand::f64());
            let turn = Deadline::after(pause);
            if caller.is_some_and(|caller| caller <= turn) {
                return Err(failed);
            }
            tell_retry(&inner.observers, &failed.error, pause);
            let began = clock::now();
            inner.pause.until(turn, cancel);
            now = clock::now();
            trace.step(now, Some(now - began), None, TraceEvent::BackedOff { attempt: attempts + 1 });
        }
    }
}

/// Whether the call was over in the pause before the attempt.
fn has_not_begun(error: &SendError) -> bool {
    matches!(error.kind(), FailureKind::Cancelled | FailureKind::Shutdown) && error.stage() == SendStage::BeforeConnect
}

/// Whether a host could be tried at once that has not failed in this call.
fn has_other_host(inner: &Inner, avoid: &HostSet) -> bool {
    let hosts = inner.pool.status().hosts;
    hosts.iter().enumerate().any(|(index, host)| !avoid.contains(HostId(index)) && host.state == HostState::Available)
}

/// The pause before attempt `failed + 1` on the same host; `random` is from 0 to 1.
fn delay(options: &PoolOptions, failed: u32, random: f64) -> Duration {
    let doublings = match options.backoff {
        Backoff::Exponential => failed.saturating_sub(1).min(16),
        Backoff::Fixed => 0,
    };
    let pause = options.retry_base_delay.saturating_mul(1 << doublings);
    // From 1 - jitter to 1 + jitter; all in range, since the ratio is at most 1 and durations were checked.
    let factor = options.jitter.mul_add(2.0f64.mul_add(random, -1.0), 1.0);
    Duration::try_from_secs_f64(pause.as_secs_f64() * factor).unwrap_or(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_varies_within_its_jitter() {
        let options = PoolOptions::default();
        let seconds = |failed, random| delay(&options, failed, random).as_secs_f64();
        for (failed, base) in [(1, 2.0), (2, 4.0), (3, 8.0)] {
            assert!((seconds(failed, 0.5) - base).abs() < 1e-9);
            assert!((seconds(failed, 0.0) - base * 0.8).abs() < 1e-9);
            assert!((seconds(failed, 1.0) - base * 1.2).abs() < 1e-9);
        }
        let fixed = PoolOptions { backoff: Backoff::Fixed, jitter: 0.0, ..PoolOptions::default() };
        assert_eq!(delay(&fixed, 7, 0.9), fixed.retry_base_delay);
    }
}
