//! One attempt: a lease, a transaction, a judgement, and what becomes of the lease.

use std::time::Instant;

use crate::blame::Blame;
use crate::cancel::CancelToken;
use crate::classify::{ConnectionFate, FreshTry, Verdict};
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::error::{Classification, FailureKind, SendError};
use crate::event::{Event, Step};
use crate::pool::{AcquireError, Close, Fate, HostSet, Lease, Renewal, Request};
use crate::report::{Judged, Limit, Met, Receipt, interrupted, judge, send_error};
use crate::smtp::{Accepted, Mail, Refused, Session, TimeLimits, transact};
use crate::stage::SendStage;
use crate::stats::{DiscardReason, PoolCounts};

use super::Inner;
use super::connector::SmtpConnector;

/// The fewest messages in a session that a limit is learned from. A smaller number costs little when it is met, and much when it was
/// taken for a limit by mistake.
const FEWEST_FOR_A_LIMIT: u32 = 20;

/// What all attempts of one call share.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) inner: &'a Inner,
    pub(super) mail: Mail<'a>,
    pub(super) started: Instant,
    /// The caller's own deadline.
    pub(super) caller: Option<Deadline>,
    /// What the caller may end the call with.
    pub(super) cancel: Option<&'a CancelToken>,
}

/// An attempt that failed.
pub(super) struct Failed {
    pub(super) error: SendError,
    /// What another attempt would have to respect; `None` when there is no use in one.
    pub(super) retry: Option<Retry>,
}

/// What another attempt would have to respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// The host that failed.
    pub(super) host: HostId,
    /// Whether it may only use a connection opened for it.
    pub(super) fresh: bool,
}

impl Call<'_> {
    /// Tries once. A connection that turns out to be stale is replaced within the attempt.
    pub(super) fn attempt(&self, avoid: &HostSet, fresh: bool) -> Result<Receipt, Failed> {
        let options = &self.inner.options;
        let acquire_by = self.capped(Deadline::after(options.acquire_timeout));
        let request = Request { deadline: acquire_by, avoid: avoid.clone(), fresh };
        let mut lease = self.inner.pool.acquire(request).map_err(|error| self.not_acquired(error, acquire_by))?;
        let mut renewals = Renewals::default();
        loop {
            let limits = TimeLimits::new(self.started, self.caller, options.send_timeout, options.final_reply_timeout);
            let cut = self.cancel.map(|token| lease.connection().cut_on(token));
            let outcome = transact(lease.connection_mut(), &self.mail, &limits);
            drop(cut);
            let refused = match outcome {
                Ok(accepted) => {
                    renewals.learn(self.inner, lease.host(), None);
                    return Ok(self.accepted(lease, accepted));
                }
                Err(refused) => refused,
            };
            let step = refused.failure.event.step();
            renewals.learn(self.inner, lease.host(), Some(step));
            let limit = Limit::of_sending(step, self.caller, options.send_timeout, options.final_reply_timeout);
            let Refused { failure, recipients } = refused;
            let failure = interrupted(failure, self.cancel, self.inner.pool.connector().stop());
            let met = Met {
                reused: lease.is_reused(),
                in_step: lease.connection().is_in_step(),
                reauthenticated: renewals.reauthenticated,
            };
            let judged = judge(failure, met, options.ambiguity_boundary, limit);
            log_failure(&judged, self.inner.pool.connector().endpoint(lease.host()));
            if let Some(why) = renewals.next(judged.verdict.fresh_try, lease.messages()) {
                let deadline = self.capped(Deadline::after(options.acquire_timeout));
                let request = Request { deadline, avoid: avoid.clone(), fresh: true };
                lease = lease.renew(why, request).map_err(|error| self.not_acquired(error, deadline))?;
                continue;
            }
            let host = lease.host();
            let verdict = judged.verdict;
            let fate = fate_of(lease.connection(), &verdict);
            if verdict.blame == Blame::Credentials {
                self.inner.pool.lasting_refusal(&lease, &judged.to_string());
            }
            lease.finish(fate);
            let error = send_error(judged, self.inner.pool.connector().endpoint(host).clone(), recipients)
                .with_pool(self.inner.pool.counts());
            let retry = verdict
                .classification
                .retry_allowed
                .then_some(Retry { host, fresh: verdict.fresh_try == FreshTry::FreshOnly });
            return Err(Failed { error, retry });
        }
    }

    fn accepted(&self, lease: Lease<SmtpConnector>, accepted: Accepted) -> Receipt {
        // The server is responsible now: nothing that happens to the connection can turn this into a failure.
        let endpoint = self.inner.pool.connector().endpoint(lease.host()).clone();
        let receipt = Receipt::of(accepted, endpoint, lease.id(), self.started);
        let fate = match lease.connection().is_in_step() {
            true => Fate::Keep { delivered: true },
            false => Fate::Discard(DiscardReason::Broken, Close::Abort),
        };
        lease.finish(fate);
        receipt
    }

    fn capped(&self, deadline: Deadline) -> Deadline {
        self.caller.map_or(deadline, |caller| caller.earlier(deadline))
    }

    /// The caller's error for an acquire that gave no lease.
    fn not_acquired(&self, error: AcquireError<Judged>, acquire_by: Deadline) -> Failed {
        let limit = match self.caller {
            Some(caller) if caller <= acquire_by => Limit::CallersDeadline,
            _ => Limit::Option("acquire_timeout", self.inner.options.acquire_timeout),
        };
        let waited = clock::now() - self.started;
        match error {
            AcquireError::Exhausted { cause, counts } => {
                let what = format!("no connection came free within {waited:.1?} ({limit})");
                let error =
                    self.without_lease(FailureKind::PoolExhausted, what, "waited for as long as allowed", counts);
                let endpoint = cause.as_ref().map(|(host, _)| self.inner.pool.connector().endpoint(*host).clone());
                let source = cause.map(|(_, judged)| judged.to_string().into());
                Failed { error: error.with_endpoint(endpoint).with_source(source), retry: None }
            }
            AcquireError::Unavailable { cause: Some((host, judged)), retry_after, counts, .. } => {
                let error = self.of_open(host, judged, acquire_by, counts).with_retry_after(retry_after);
                Failed { error, retry: None }
            }
            AcquireError::Unavailable { cause: None, retry_after, last_error, counts } => {
                let (endpoint, what) = match last_error {
                    Some((host, text)) => (
                        Some(self.inner.pool.connector().endpoint(host).clone()),
                        format!("every host is cooling down; the last failure was: {text}"),
                    ),
                    None => (None, "every host is cooling down".to_owned()),
                };
                let error = self
                    .without_lease(FailureKind::HostUnavailable, what, "every host is cooling down", counts)
                    .with_endpoint(endpoint)
                    .with_retry_after(retry_after);
                Failed { error, retry: None }
            }
            AcquireError::Local { host, cause, counts } => {
                let error = self.of_open(host, cause, acquire_by, counts);
                Failed { error, retry: Some(Retry { host, fresh: false }) }
            }
            AcquireError::ShutDown { counts } => {
                let what = "no new message is taken".to_owned();
                let error = self.without_lease(FailureKind::Shutdown, what, "the sender was shut down", counts);
                Failed { error, retry: None }
            }
        }
    }

    /// The error for a session that did not come about.
    fn of_open(&self, host: HostId, mut judged: Judged, acquire_by: Deadline, counts: PoolCounts) -> SendError {
        if self.caller.is_some_and(Deadline::is_over) {
            judged.limit = Limit::CallersDeadline;
        } else if acquire_by.is_over() {
            judged.limit = Limit::Option("acquire_timeout", self.inner.options.acquire_timeout);
        }
        send_error(judged, self.inner.pool.connector().endpoint(host).clone(), Vec::new()).with_pool(counts)
    }

    fn without_lease(&self, kind: FailureKind, what: String, reason: &'static str, counts: PoolCounts) -> SendError {
        let classification = Classification {
            kind,
            stage: SendStage::BeforeConnect,
            retry_allowed: kind != FailureKind::Shutdown,
            discard_connection: false,
            reason,
        };
        SendError::new(classification, what).with_pool(counts)
    }
}

/// The replacements of one attempt: each kind once.
#[derive(Debug, Default)]
struct Renewals {
    stale: bool,
    /// How many messages the session had carried that refused MAIL for now.
    session_limit: Option<u32>,
    reauthenticated: bool,
}

impl Renewals {
    /// Whether the connection is to be replaced, and as what.
    fn next(&mut self, fresh_try: FreshTry, messages: u32) -> Option<Renewal> {
        match fresh_try {
            FreshTry::Stale if !self.stale => {
                self.stale = true;
                Some(Renewal::Stale)
            }
            FreshTry::SessionLimit if self.session_limit.is_none() => {
                self.session_limit = Some(messages);
                Some(Renewal::SessionLimit { messages })
            }
            FreshTry::Reauthenticate if !self.reauthenticated => {
                self.reauthenticated = true;
                Some(Renewal::Reauthenticate)
            }
            _ => None,
        }
    }

    /// The fresh session took the MAIL that the old one refused: the refusal was a limit of that session.
    fn learn(&self, inner: &Inner, host: HostId, failed_at: Option<Step>) {
        let took_mail = !matches!(failed_at, Some(Step::Rset | Step::Mail));
        if let Some(messages) = self.session_limit.filter(|&messages| took_mail && messages >= FEWEST_FOR_A_LIMIT) {
            inner.pool.learn_message_limit(host, messages);
        }
    }
}

/// What becomes of a connection whose message failed.
fn fate_of(session: &Session, verdict: &Verdict) -> Fate {
    match verdict.connection {
        ConnectionFate::Discard => Fate::Discard(DiscardReason::ServerClosed, Close::Polite),
        ConnectionFate::Keep if session.is_worn_out() => Fate::Discard(DiscardReason::MaxMessages, Close::Polite),
        ConnectionFate::Keep => Fate::Keep { delivered: false },
        ConnectionFate::Abort => Fate::Discard(DiscardReason::Broken, Close::Abort),
    }
}

/// Says what was decided; never what the server or the message said.
fn log_failure(judged: &Judged, endpoint: &crate::endpoint::Endpoint) {
    let Classification { kind, stage, reason, .. } = judged.verdict.classification;
    let step = judged.failure.event.step();
    if kind == FailureKind::UnknownAfterData {
        log::warn!("{endpoint}: the outcome of a message is unknown: {reason}");
        return;
    }
    match judged.failure.event {
        Event::Reply(_, code) => log::debug!("{endpoint}: {code} to {step} {stage}: {kind} ({reason})"),
        _ => log::debug!("{endpoint}: failed in {step} {stage}: {kind} ({reason})"),
    }
}
