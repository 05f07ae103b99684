//! A message over a session that its caller holds, where nothing is tried twice.

use std::time::{Duration, Instant};

use lettre::address::Envelope;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::{Endpoint, HostId};
use crate::error::SendError;
use crate::event::Event;
use crate::options::{AmbiguityBoundary, PoolOptions, SendOptions};
use crate::smtp::{Failure, Mail, Refused, Session, TimeLimits, transact};
use crate::stage::SendStage;
use crate::trace::{Hosts, Recorder};

use super::dialogue::Dialogue;
use super::failure::{Judged, Limit, Met, interrupted, judge, send_error};
use super::parts::Parts;
use super::receipt::Receipt;

/// The options that such a send depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendSettings {
    send_timeout: Duration,
    final_reply_timeout: Duration,
    pub(crate) boundary: AmbiguityBoundary,
}

impl SendSettings {
    pub(crate) const fn of(options: &PoolOptions) -> Self {
        Self {
            send_timeout: options.send_timeout,
            final_reply_timeout: options.final_reply_timeout,
            boundary: options.ambiguity_boundary,
        }
    }
}

/// A session in its caller's hands.
pub(crate) struct HeldSession<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) connection_id: u64,
    /// Whether it has been idle before.
    pub(crate) reused: bool,
    /// Whether its credentials have been rotated, so that no message may begin on it.
    pub(crate) is_outdated: bool,
    pub(crate) settings: SendSettings,
    /// What a shutdown cuts it with, if there is somebody to shut down.
    pub(crate) stop: Option<&'a CancelToken>,
}

impl HeldSession<'_> {
    /// Sends one message.
    pub(crate) fn send(
        &mut self,
        envelope: &Envelope,
        content: &[u8],
        options: &SendOptions,
    ) -> Result<Receipt, SendError> {
        let started = clock::now();
        let SendSettings { send_timeout, final_reply_timeout, .. } = self.settings;
        let caller = options.deadline.map(Deadline::on);
        let cancel = options.cancel.as_ref();
        let limits = TimeLimits::new(started, caller, started, send_timeout, final_reply_timeout);
        let policy = options.recipients;
        let mail = Mail { envelope, to: envelope.to(), content: content.into(), policy, dsn: options.dsn.as_ref() };
        // One transaction, and what it leaves over is told.
        let mut parts = Parts::new(envelope, policy);
        let mut trace = Recorder::new(started);
        // The only host that there is.
        let dialogue = |now| Dialogue { host: HostId(0), began: started, ended: now };
        // Whoever holds a session may not have looked at it for long.
        let heard = match self.is_outdated {
            true => Err(Failure::new(Event::Rotated, SendStage::Authenticated)),
            false => self.session.listen(),
        };
        let heard = heard.map_err(Refused::from);
        let ended = match heard.and_then(|()| transact(self.session, &mail, &limits, cancel)) {
            Ok(accepted) => {
                let now = clock::now();
                dialogue(now).succeeded(&accepted, &mut trace);
                parts.accepted(Receipt::of(accepted, self.endpoint.clone(), self.connection_id, now - started));
                now
            }
            Err(Refused { failure, recipients, offered_to }) => {
                let limit = Limit::of_sending(failure.stage, caller, send_timeout, final_reply_timeout);
                let judged = self.judge(interrupted(failure, cancel, self.stop), limit);
                let now = clock::now();
                dialogue(now).failed(&judged.failure, &recipients, &mut trace);
                parts.failed(send_error(judged, self.endpoint.clone(), recipients).with_attempts(1), offered_to);
                now
            }
        };
        let hosts = Hosts::One(self.endpoint.clone());
        match parts.finish() {
            Ok(receipt) => Ok(receipt.with_trace(trace.finish(hosts))),
            Err(error) => Err(trace.gave_up(ended, error, hosts)),
        }
    }

    /// The error for a failure that was no message's, of a call that began at `started`.
    pub(crate) fn error(&self, failure: Failure, limit: Limit, started: Instant) -> SendError {
        let judged = self.judge(interrupted(failure, None, self.stop), limit);
        let (mut trace, now) = (Recorder::new(started), clock::now());
        Dialogue { host: HostId(0), began: started, ended: now }.failed(&judged.failure, &[], &mut trace);
        trace.gave_up(now, send_error(judged, self.endpoint.clone(), Vec::new()), Hosts::One(self.endpoint.clone()))
    }

    fn judge(&self, failure: Failure, limit: Limit) -> Judged {
        // Nothing is tried twice, so a server that asks for a new login is taken at its word.
        let met = Met { reused: self.reused, in_step: self.session.is_in_step(), reauthenticated: true };
        judge(failure, met, self.settings.boundary, limit)
    }
}
