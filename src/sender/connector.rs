//! SMTP sessions as the pool's connections: the one place where the two machines meet.

use std::sync::Arc;
use std::time::Duration;

use crate::blame::Blame;
use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::endpoint::{Endpoint, HostId};
use crate::event::{Event, Fault};
use crate::options::{AmbiguityBoundary, Host, KeepaliveCommand, PoolOptions};
use crate::pool::{Close, Connector, OpenError};
use crate::report::{Judged, Limit, Met, interrupted, judge};
use crate::smtp::{Resolver, Session, SessionOpener, Timeouts};
use crate::trace::Hosts;

/// A host that has said nothing for so long is not well, whoever asked. Callers with less time to give learn nothing about it, and
/// their hurry must not become everybody's outage.
const LONGEST_FAIR_TIME: Duration = Duration::from_secs(1);

/// Opens, looks at and closes sessions for the pool.
#[derive(Debug)]
pub(super) struct SmtpConnector {
    hosts: Vec<SessionOpener>,
    /// Where they are.
    endpoints: Arc<[Endpoint]>,
    timeouts: Timeouts,
    boundary: AmbiguityBoundary,
    keepalive_command: KeepaliveCommand,
    /// What an attempt to open a session must have been given for its time-out to speak against the host.
    fair_time: Duration,
    /// Cuts every session, and every attempt to open one, when the sender's grace is over.
    stop: CancelToken,
}

impl SmtpConnector {
    /// Takes the credentials out of `options`: what opens sessions is the one place where they are, and can be rotated.
    pub(super) fn new(options: &mut PoolOptions) -> Self {
        let timeouts = Timeouts::of(options);
        let resolver = Arc::new(Resolver::system(options.hosts.len()));
        let opener = |host: &mut Host| SessionOpener::new(host.detach(), timeouts, Arc::clone(&resolver));
        let count = u32::try_from(options.hosts.len()).unwrap_or(u32::MAX);
        let share = options.connect_timeout.min(options.acquire_timeout / count);
        let hosts: Vec<_> = options.hosts.iter_mut().map(opener).collect();
        Self {
            fair_time: (share / 2).min(LONGEST_FAIR_TIME),
            endpoints: hosts.iter().map(|host| host.endpoint().clone()).collect(),
            hosts,
            timeouts,
            boundary: options.ambiguity_boundary,
            keepalive_command: options.keepalive_command,
            stop: CancelToken::new(),
        }
    }

    /// What cuts everything at the end of a shutdown.
    pub(super) const fn stop(&self) -> &CancelToken {
        &self.stop
    }

    /// What a caller must have left for an attempt to open a session to be worth waiting for: a little more than what is fair, because
    /// by the time it begins some of it is gone.
    pub(super) fn worthwhile_time(&self) -> Duration {
        self.fair_time + self.fair_time / 4
    }

    pub(super) fn endpoint(&self, host: HostId) -> &Endpoint {
        &self.endpoints[host.0]
    }

    /// What opens the sessions of this host.
    pub(super) fn opener(&self, host: HostId) -> &SessionOpener {
        &self.hosts[host.0]
    }

    /// All hosts, for a trace.
    pub(super) fn hosts(&self) -> Hosts {
        Hosts::All(Arc::clone(&self.endpoints))
    }
}

impl Connector for SmtpConnector {
    type Connection = Box<Session>;
    type Error = Judged;

    fn open(
        &self,
        host: HostId,
        _id: u64,
        deadline: Deadline,
        cancel: Option<&CancelToken>,
    ) -> Result<Box<Session>, OpenError<Judged>> {
        // The first one stays with the session; the caller's has no say over it once it is open.
        let tokens = [Some(&self.stop), cancel];
        let tokens: Vec<_> = tokens.into_iter().flatten().collect();
        let given = deadline.remaining();
        self.hosts[host.0].open(deadline, &tokens).map(Box::new).map_err(|failure| {
            let failure = interrupted(failure, cancel, Some(&self.stop));
            let limit = match failure.event.step() {
                _ if deadline.is_over() => Limit::TimeLeft,
                step => Limit::of_opening(step, self.timeouts),
            };
            let judged = judge(failure, Met::default(), self.boundary, limit);
            let is_timeout = matches!(judged.failure.event, Event::Transport(_, Fault::TimedOut));
            let blame = if is_timeout && given < self.fair_time { Blame::Nobody } else { judged.verdict.blame };
            OpenError { blame, error: judged }
        })
    }

    fn is_alive(&self, session: &mut Box<Session>) -> bool {
        session.is_alive()
    }

    fn begin_probe(&self, session: &mut Box<Session>) -> bool {
        session.begin_probe(self.keepalive_command)
    }

    fn end_probe(&self, session: &mut Box<Session>, deadline: Deadline) -> bool {
        session.end_probe(deadline).is_ok()
    }

    fn is_in_step(&self, session: &Box<Session>) -> bool {
        // A lease that was refused too often in a row ends with its session; the next caller would feel the server's impatience.
        session.is_in_step() && !session.is_worn_out()
    }

    fn message_limit(&self, session: &Box<Session>) -> Option<u32> {
        session.message_limit()
    }

    fn close(&self, session: Box<Session>, how: Close) {
        match how {
            Close::Polite if session.is_in_step() => session.quit(),
            Close::Polite | Close::Abort => session.abort(),
        }
    }
}
