//! One attempt: a lease, a transaction, a judgement, and what becomes of the lease.

use std::time::Instant;

use crate::blame::Blame;
use crate::classify::{ConnectionFate, FreshTry, Verdict};
use crate::clock;
use crate::endpoint::HostId;
use crate::error::{Classification, FailureKind};
use crate::event::{Event, Step};
use crate::observer::AttemptFailed;
use crate::pool::{Close, Fate, HostSet, Lease, Renewal};
use crate::report::{Dialogue, Judged, Limit, Met, Receipt, interrupted, judge, send_error};
use crate::smtp::{Accepted, Mail, Refused, Session, TimeLimits, transact};
use crate::stats::DiscardReason;
use crate::trace::Recorder;

use super::Inner;
use super::acquisition::{Acquisition, Failed, Retry};
use super::connector::SmtpConnector;
use super::news::tell_attempt_failed;

/// The fewest messages in a session that a limit is learned from. A smaller number costs little when it is met, and much when it was
/// taken for a limit by mistake.
const FEWEST_FOR_A_LIMIT: u32 = 20;

/// What all attempts of one call share.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) acquisition: Acquisition<'a>,
    pub(super) mail: Mail<'a>,
}

impl Call<'_> {
    /// Tries once. A connection that turns out to be stale is replaced within the attempt.
    pub(super) fn attempt(
        &self,
        now: Instant,
        avoid: &HostSet,
        fresh: bool,
        trace: &mut Recorder,
    ) -> Result<Receipt, Failed> {
        let Acquisition { inner, started, caller, cancel, .. } = self.acquisition;
        let options = &inner.options;
        let mut lease = self.acquisition.lease(now, avoid, fresh, None, trace)?;
        let mut renewals = Renewals::default();
        // When this lease was asked for, and whether only a connection opened for it would do.
        let (mut asked, mut fresh) = (now, fresh);
        loop {
            // The message begins here: a rotation that has returned by now is seen, and one that has not lets it finish.
            if !lease.is_current() {
                lease = self.acquisition.swap(lease, asked, avoid, fresh, trace)?;
                continue;
            }
            let (send, final_reply) = (options.send_timeout, options.final_reply_timeout);
            let limits = TimeLimits::new(started, caller, lease.since(), send, final_reply);
            let outcome = transact(lease.connection_mut(), &self.mail, &limits, cancel);
            let refused = match outcome {
                Ok(accepted) => {
                    renewals.learn(inner, lease.host(), None);
                    return Ok(self.accepted(lease, accepted, trace));
                }
                Err(refused) => refused,
            };
            let step = refused.failure.event.step();
            renewals.learn(inner, lease.host(), Some(step));
            let limit = Limit::of_sending(refused.failure.stage, caller, send, final_reply);
            let Refused { failure, recipients, offered_to } = refused;
            let failure = interrupted(failure, cancel, Some(inner.pool.connector().stop()));
            let met = Met {
                reused: lease.is_reused(),
                in_step: lease.connection().is_in_step(),
                reauthenticated: renewals.reauthenticated,
            };
            let judged = judge(failure, met, options.ambiguity_boundary, limit);
            dialogue(&lease, clock::now()).failed(&judged.failure, &recipients, trace);
            let renewal = renewals.next(judged.verdict.fresh_try, lease.host(), lease.messages());
            tell_failure(inner, &judged, &lease, renewal.is_some());
            if let Some(why) = renewal {
                (asked, fresh) = (clock::now(), true);
                lease = self.acquisition.renew(asked, lease, why, avoid, trace)?;
                continue;
            }
            let host = lease.host();
            let verdict = judged.verdict;
            let fate = fate_of(lease.connection(), &verdict);
            if verdict.blame == Blame::Credentials {
                inner.pool.lasting_refusal(&lease, &judged.to_string());
            }
            lease.finish(fate);
            let error = send_error(judged, inner.pool.connector().endpoint(host).clone(), recipients)
                .with_pool(inner.pool.counts());
            let Classification { kind, retry_allowed, .. } = verdict.classification;
            let is_wanted = retry_allowed && kind != FailureKind::Cancelled;
            let retry = is_wanted.then_some(Retry { host, fresh: verdict.fresh_try == FreshTry::FreshOnly });
            return Err(Failed { error, retry, offered_to });
        }
    }

    fn accepted(&self, lease: Lease<SmtpConnector>, accepted: Accepted, trace: &mut Recorder) -> Receipt {
        // The server is responsible now: nothing that happens to the connection can turn this into a failure.
        let Acquisition { inner, started, .. } = self.acquisition;
        let endpoint = inner.pool.connector().endpoint(lease.host()).clone();
        let now = clock::now();
        dialogue(&lease, now).succeeded(&accepted, trace);
        let receipt = Receipt::of(accepted, endpoint, lease.id(), now - started);
        let fate = match lease.connection().is_in_step() {
            true => Fate::Keep { delivered: true },
            false => Fate::Discard(DiscardReason::Broken, Close::Abort),
        };
        lease.finish_at(now, fate);
        receipt
    }
}

/// The replacements of one attempt: each kind once.
#[derive(Debug, Default)]
struct Renewals {
    stale: bool,
    /// Of which host the session was that refused MAIL for now, and how many messages it had carried.
    session_limit: Option<(HostId, u32)>,
    reauthenticated: bool,
    without_bdat: bool,
}

impl Renewals {
    /// Whether the connection is to be replaced, and as what.
    fn next(&mut self, fresh_try: FreshTry, host: HostId, messages: u32) -> Option<Renewal> {
        match fresh_try {
            FreshTry::Stale if !self.stale => {
                self.stale = true;
                Some(Renewal::Stale)
            }
            FreshTry::SessionLimit if self.session_limit.is_none() => {
                self.session_limit = Some((host, messages));
                Some(Renewal::SessionLimit)
            }
            FreshTry::Reauthenticate if !self.reauthenticated => {
                self.reauthenticated = true;
                Some(Renewal::Reauthenticate)
            }
            FreshTry::WithoutBdat if !self.without_bdat => {
                self.without_bdat = true;
                Some(Renewal::OutOfStep)
            }
            _ => None,
        }
    }

    /// The fresh session took the MAIL that the old one refused: the refusal was a limit of that session. What another host takes says
    /// nothing of it.
    fn learn(&self, inner: &Inner, host: HostId, failed_at: Option<Step>) {
        let took_mail = !matches!(failed_at, Some(Step::Rset | Step::Mail));
        match self.session_limit {
            Some((of, messages)) if of == host && took_mail && messages >= FEWEST_FOR_A_LIMIT => {
                inner.pool.learn_message_limit(host, messages);
            }
            _ => {}
        }
    }
}

/// All that was said over `lease` until now.
fn dialogue(lease: &Lease<SmtpConnector>, now: Instant) -> Dialogue {
    Dialogue { host: lease.host(), began: lease.since(), ended: now }
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

/// Tells what was decided; never what the server or the message said.
fn tell_failure(inner: &Inner, judged: &Judged, lease: &Lease<SmtpConnector>, is_replaced: bool) {
    let classification = judged.verdict.classification;
    let code = match judged.failure.event {
        Event::Reply(_, code) => Some(code),
        _ => None,
    };
    let event = AttemptFailed {
        host: inner.pool.connector().endpoint(lease.host()),
        connection_id: lease.id(),
        classification,
        step: Some(judged.failure.event.step().as_str()),
        code,
        is_replaced,
    };
    tell_attempt_failed(&inner.observers, &event);
}
