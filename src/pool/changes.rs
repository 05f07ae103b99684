//! What becomes of what was given: a connection opened or not, returned or not, closed.

use std::sync::Arc;
use std::time::Instant;

use crate::blame::Blame;
use crate::endpoint::HostId;
use crate::pool::connector::Close;
use crate::pool::cooldown::Severity;
use crate::pool::effects::{Effects, Event};
use crate::pool::errand::Errand;
use crate::pool::held::{Held, Record, earlier};
use crate::pool::slot::{Charge, Gift, Grant, RefusalReason};
use crate::pool::state::{PoolState, Step};
use crate::stats::DiscardReason;

impl<T> PoolState<T> {
    /// The connection that `grant` was for is there, and leased by who opened it.
    pub(super) fn opened(
        &mut self,
        grant: &Grant<T>,
        message_limit: Option<u32>,
        now: Instant,
        fx: &mut Effects<T>,
    ) -> (Box<Record>, Arrival) {
        let retire_at = self.draw_lifetime().and_then(|lifetime| now.checked_add(lifetime));
        self.created += 1;
        let Grant { host: id, id: connection, generation, lane, .. } = *grant;
        let host = self.hosts.get_mut(id);
        host.connecting -= 1;
        // It stays in the share that the opening counted against.
        host.leased += 1;
        host.created += 1;
        host.last_error = None;
        let is_outdated = generation != host.generation;
        let live = host.live();
        host.capacity.allows(live);
        fx.events.push(Event::Opened { host: id, id: connection, took: grant.took(now) });
        if host.cooldown.succeeded() {
            fx.events.push(Event::CooldownLeft { host: id });
        }
        // A host that answers again may serve those who wait, and takes its traffic back from less preferred ones.
        self.settle(now, fx);
        self.mind_fail_back(now, fx);
        let record = Box::new(Record {
            host: id,
            id: connection,
            generation,
            opened: now,
            retire_at,
            messages: 0,
            message_limit,
            idle_since: None,
            probed: None,
            probes: 0,
            lent: now,
            lane,
        });
        let arrival = match is_outdated {
            _ if self.is_shut_down => Arrival::TooLate,
            true => Arrival::Outdated,
            false => Arrival::Ready,
        };
        (record, arrival)
    }

    /// The connection that `grant` was for could not be opened. Its caller goes on, and keeps its turn.
    pub(super) fn open_failed(
        &mut self,
        grant: &Grant<T>,
        blame: Blame,
        error: Arc<str>,
        errand: &mut Errand,
        now: Instant,
        fx: &mut Effects<T>,
    ) -> Step<T> {
        match self.note_failure(grant, blame, error, now, fx) {
            // It is worth another try at once.
            Failure::HostIsFull | Failure::Outdated => {}
            Failure::HostCools | Failure::Unexplained => errand.tried.insert(grant.host),
        }
        let step = if self.is_shut_down {
            Step::Take(self.refuse(RefusalReason::ShutDown))
        } else if blame == Blame::Local {
            Step::Take(self.refuse(RefusalReason::Local))
        } else if errand.is_late(now) && errand.tried.contains(grant.host) {
            // What took all the time was the host, not the queue.
            Step::Take(self.refuse_unavailable(errand, now))
        } else {
            self.admit(errand, now, fx)
        };
        self.settle(now, fx);
        step
    }

    /// A connection could not be opened: counts it, and draws the conclusions about the host.
    pub(super) fn note_failure(
        &mut self,
        grant: &Grant<T>,
        blame: Blame,
        error: Arc<str>,
        now: Instant,
        fx: &mut Effects<T>,
    ) -> Failure {
        self.create_failures += 1;
        self.hosts.refund(grant.host, &grant.charge);
        let took = grant.took(now);
        fx.events.push(Event::OpenFailed { host: grant.host, id: grant.id, took, error: Arc::clone(&error) });
        let Self { hosts, schedule, rng, limits, .. } = self;
        let host = hosts.get_mut(grant.host);
        host.end_opening(grant.lane);
        if blame == Blame::Credentials && grant.generation != host.generation {
            // What was refused, or may have been, is not what the next one logs in with.
            host.cooldown.abandoned(grant.id);
            return Failure::Outdated;
        }
        // Those being opened count as well: eight callers that start together meet a bound of two before any connection stands.
        let others = host.live() + host.connecting;
        let severity = match blame {
            Blame::Host => Some(Severity::Passing),
            Blame::HostForLong => Some(Severity::Lasting),
            Blame::Credentials => Some(Severity::Credentials),
            Blame::Capacity if others == 0 => Some(Severity::Passing),
            Blame::Capacity | Blame::Local | Blame::Nobody => None,
        };
        if blame != Blame::Local {
            host.last_error = Some(error);
            self.last_failed = Some(grant.host);
        }
        match severity {
            Some(severity) => {
                if let Some(pause) = host.cooldown.failed(grant.id, severity, now, schedule, rng) {
                    let failures = host.cooldown.failures();
                    fx.events.push(Event::CooldownEntered { host: grant.host, pause, failures });
                }
            }
            None => host.cooldown.abandoned(grant.id),
        }
        if blame == Blame::Capacity && others > 0 {
            // Not a failed host, but a full one: who comes waits for what there is of it.
            host.capacity.refused_beyond(others, now);
            if limits.learning.is_some() {
                fx.events.push(Event::CapacityLearned { host: grant.host, connections: others });
            }
            return Failure::HostIsFull;
        }
        if severity.is_some() { Failure::HostCools } else { Failure::Unexplained }
    }

    /// An open connection to a host has shown that no other one will fare better: a pause as after a failure to open one.
    pub(super) fn lasting_refusal(
        &mut self,
        host: HostId,
        connection: u64,
        generation: u64,
        error: Arc<str>,
        now: Instant,
        fx: &mut Effects<T>,
    ) {
        let Self { hosts, schedule, rng, .. } = self;
        let record = hosts.get_mut(host);
        if generation != record.generation {
            // The credentials that it speaks of are not those of the next one.
            return;
        }
        record.last_error = Some(error);
        if let Some(pause) = record.cooldown.failed(connection, Severity::Credentials, now, schedule, rng) {
            let failures = record.cooldown.failures();
            fx.events.push(Event::CooldownEntered { host, pause, failures });
        }
        self.last_failed = Some(host);
        self.settle(now, fx);
    }

    /// A permit comes back unused. `evicted` has not been closed yet.
    pub(super) fn permit_returned(&mut self, grant: Grant<T>, now: Instant, fx: &mut Effects<T>) {
        self.hosts.refund(grant.host, &grant.charge);
        let host = self.hosts.get_mut(grant.host);
        host.end_opening(grant.lane);
        host.cooldown.abandoned(grant.id);
        if let Some(evicted) = grant.evicted {
            // Its end has been counted; the place is free once it has come.
            let host = self.hosts.get_mut(evicted.record.host);
            host.closing += 1;
            if evicted.record.host != grant.host {
                host.yielding -= 1;
            }
            fx.closings.push((*evicted, Close::Polite));
        }
        self.settle(now, fx);
    }

    /// A connection to this host that was evicted in favour of another one has been closed.
    pub(super) fn yielded(&mut self, host: HostId, now: Instant, fx: &mut Effects<T>) {
        self.hosts.get_mut(host).yielding -= 1;
        self.settle(now, fx);
    }

    /// Somebody had gone when its gift came: it is given to the next.
    pub(super) fn pass_on(&mut self, gift: Gift<T>, now: Instant, fx: &mut Effects<T>) {
        match gift {
            Gift::Connection(mut held, charge) => {
                self.hosts.refund(held.record.host, &charge);
                // One that was never used is idle from now on.
                held.record.idle_since.get_or_insert(now);
                self.hosts.get_mut(held.record.host).end_lease(held.record.lane);
                self.put_away(held, now, fx);
            }
            Gift::Permit(grant) => self.permit_returned(grant, now, fx),
            Gift::Refusal(_) => {}
        }
    }

    /// A lent connection comes back in step.
    pub(super) fn give_back(&mut self, mut held: Held<T>, delivered: bool, now: Instant, fx: &mut Effects<T>) {
        let max_size = self.limits.max_size;
        let host = self.hosts.get_mut(held.record.host);
        host.end_lease(held.record.lane);
        if delivered {
            host.silence_limit.survived(&held.record);
            held.record.note_delivered();
            host.capacity.delivered(max_size, now);
        }
        held.record.idle_since = Some(now);
        self.put_away(held, now, fx);
    }

    /// A lent connection comes back to be closed in good order.
    pub(super) fn retire(&mut self, held: Held<T>, reason: DiscardReason, now: Instant, fx: &mut Effects<T>) {
        self.hosts.get_mut(held.record.host).end_lease(held.record.lane);
        self.close_later(held, reason, Close::Polite, now, fx);
        self.settle(now, fx);
    }

    /// A connection in nobody's count becomes idle, or its life is over.
    pub(super) fn put_away(&mut self, held: Held<T>, now: Instant, fx: &mut Effects<T>) {
        let reason = if self.is_shut_down {
            Some(DiscardReason::Shutdown)
        } else if held.record.generation != self.hosts.get(held.record.host).generation {
            Some(DiscardReason::CredentialsRotated)
        } else if self.has_carried_enough(&held.record, now) {
            Some(DiscardReason::MaxMessages)
        } else if held.record.is_old(now) {
            Some(DiscardReason::MaxLifetime)
        } else {
            None
        };
        match reason {
            Some(reason) => self.close_later(held, reason, Close::Polite, now, fx),
            None => {
                let (host, probe_due) = (held.record.host, self.probe_due(&held.record, now));
                let expiry = self.hosts.put(held, &self.limits, now);
                self.mind(host, earlier(expiry, probe_due), now, fx);
            }
        }
        self.settle(now, fx);
    }

    fn has_carried_enough(&self, record: &Record, now: Instant) -> bool {
        // A server that announces none at all is taken at its word with the first message.
        let has_met = |limit: Option<u32>| limit.is_some_and(|limit| record.messages >= limit.max(1));
        let learned = self.hosts.get(record.host).message_limit.get(now);
        has_met(self.limits.max_messages) || has_met(record.message_limit) || has_met(learned)
    }

    /// A lent connection's life is over: nobody has its place any more.
    fn end(&mut self, record: &Record, reason: DiscardReason, now: Instant, fx: &mut Effects<T>) {
        self.hosts.get_mut(record.host).end_lease(record.lane);
        self.note_discard(record, reason, now, fx);
    }

    /// A lent connection has been closed: its place is free.
    pub(super) fn vacate(&mut self, record: &Record, reason: DiscardReason, now: Instant, fx: &mut Effects<T>) {
        self.end(record, reason, now, fx);
        if reason == DiscardReason::KeepaliveFailure {
            self.learn_from_death(record, now, fx);
        }
        self.settle(now, fx);
    }

    /// A connection that the pool gave up has been closed: its place is free.
    pub(super) fn closed(&mut self, host: HostId, now: Instant, fx: &mut Effects<T>) {
        self.hosts.get_mut(host).closing -= 1;
        self.settle(now, fx);
    }

    /// A connection was found dead before it was used, and has been closed. Its caller opens another in its place.
    pub(super) fn found_dead(
        &mut self,
        record: &Record,
        charge: Charge,
        errand: &Errand,
        now: Instant,
        fx: &mut Effects<T>,
    ) -> Step<T> {
        self.end(record, DiscardReason::ServerClosed, now, fx);
        self.learn_from_death(record, now, fx);
        self.discard_siblings(record, now, fx);
        let step = self.reopen(record.host, charge, errand, now, fx);
        self.settle(now, fx);
        step
    }

    /// A connection was opened with credentials that were rotated meanwhile, and has been closed. Its caller opens another in its place.
    pub(super) fn outdated(
        &mut self,
        record: &Record,
        charge: Charge,
        errand: &Errand,
        now: Instant,
        fx: &mut Effects<T>,
    ) -> Step<T> {
        self.end(record, DiscardReason::CredentialsRotated, now, fx);
        let step = self.reopen(record.host, charge, errand, now, fx);
        self.settle(now, fx);
        step
    }

    /// A lent connection will not do, and has been closed. Its caller gets another in its place.
    pub(super) fn renew(
        &mut self,
        record: &Record,
        reason: DiscardReason,
        with_siblings: bool,
        errand: &Errand,
        now: Instant,
        fx: &mut Effects<T>,
    ) -> Step<T> {
        self.end(record, reason, now, fx);
        if with_siblings {
            self.learn_from_death(record, now, fx);
            self.discard_siblings(record, now, fx);
        }
        let step = if errand.request.fresh && !errand.shuns(record.host) {
            // The lease has been charged already, and it is still the same message.
            self.reopen(record.host, Charge::default(), errand, now, fx)
        } else {
            self.admit(errand, now, fx)
        };
        self.settle(now, fx);
        step
    }

    /// What ended one connection while it was silent has ended those that were silent as long.
    fn discard_siblings(&mut self, dead: &Record, now: Instant, fx: &mut Effects<T>) {
        if dead.idle_since.is_none() {
            return;
        }
        let since = dead.silent_from();
        for held in self.hosts.get_mut(dead.host).take_idle(|held| held.record.silent_from() <= since) {
            self.close_later(held, DiscardReason::ServerClosed, Close::Abort, now, fx);
        }
    }

    /// The place of a connection that has just ended goes to another one to the same host, if that may be opened.
    // Not a way past the queue: the place was this caller's already.
    fn reopen(&mut self, host: HostId, charge: Charge, errand: &Errand, now: Instant, fx: &mut Effects<T>) -> Step<T> {
        if self.is_shut_down || !self.hosts.may_open(host, errand, now) || self.hosts.get(host).is_full() {
            self.hosts.refund(host, &charge);
            return self.admit(errand, now, fx);
        }
        let deadline = self.hosts.share(errand, now);
        Step::Take(Gift::Permit(self.grant(host, errand.request.lane, deadline, charge, None)))
    }

    /// The credentials of this host are others from now on: what is idle is given up; what is lent, being asked or being opened is when
    /// it comes back. If they had been refused, the host is tried again at once. Returns the number of the new ones.
    pub(super) fn rotate_credentials(&mut self, id: HostId, now: Instant, fx: &mut Effects<T>) -> u64 {
        let host = self.hosts.get_mut(id);
        host.generation += 1;
        let generation = host.generation;
        if host.cooldown.credentials_rotated() {
            fx.events.push(Event::CooldownLeft { host: id });
        }
        for held in host.take_idle(|_| true) {
            self.close_later(held, DiscardReason::CredentialsRotated, Close::Polite, now, fx);
        }
        self.settle(now, fx);
        generation
    }

    /// No more work is taken, nobody waits any longer, nothing is idle. What is lent is closed when it comes back.
    pub(super) fn shut_down(&mut self, now: Instant, fx: &mut Effects<T>) {
        self.is_shut_down = true;
        self.dismiss_thread(fx);
        fx.ring = true;
        while let Some(waiter) = self.waiters.pop() {
            let refusal = self.refuse(RefusalReason::ShutDown);
            fx.gifts.push((waiter.slot, refusal));
        }
        for id in self.hosts.ids() {
            for held in self.hosts.get_mut(id).take_idle(|_| true) {
                self.close_later(held, DiscardReason::Shutdown, Close::Polite, now, fx);
            }
        }
    }
}

/// What a connection is that has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Ready,
    /// The host's credentials were rotated meanwhile, and it may have the old ones: no message may begin on it.
    Outdated,
    /// The pool has been closed.
    TooLate,
}

/// What came of a failure to open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The host is not tried again for a while.
    HostCools,
    /// The host has as many connections as it takes.
    HostIsFull,
    /// It was about credentials that the host does not have any more.
    Outdated,
    /// It says nothing about the host.
    Unexplained,
}
